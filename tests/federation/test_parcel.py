"""One vector from parts, and back: counts are exact after any sum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.errors import FederationError
from blindtune.federation.parcel import COUNT_BOUND, Parcel, Part
from blindtune.federation.secagg.quantise import Quantiser

PARCEL = Parcel((Part("update", 3, 8.0), Part("counts", 2, count=True)))


@given(st.integers(1, 50), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_counts_of_fifty_sites_are_exact_and_updates_close(sites, seed):
    rng = np.random.default_rng(seed)
    updates, counts = rng.uniform(-8, 8, (sites, 3)), rng.integers(0, int(COUNT_BOUND) + 1, (sites, 2))
    quantiser = Quantiser(1.0, 50)
    total = np.zeros(5, np.uint32)
    for u, c in zip(updates, counts, strict=True):
        total += quantiser.encode(PARCEL.pack({"update": u, "counts": c}))
    found = PARCEL.unpack(quantiser.decode(total))
    np.testing.assert_array_equal(found["counts"], counts.sum(axis=0))
    # Beside the grid, float32 rounds each value by at most 2^-24 of the bound.
    bound = 8 * (quantiser.error(sites) + sites * 2**-24)
    np.testing.assert_allclose(found["update"], updates.sum(axis=0), atol=bound, rtol=0)


GOOD = {"update": [1.0, 2.0, 3.0], "counts": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"update": [1.0, 2.0]}, "shape"),
        ({"update": [1.0, 2.0, 8.5]}, "beyond"),
        ({"update": [1.0, 2.0, np.nan]}, "not a number"),
        ({"counts": [1.0, 0.5]}, "beyond"),
        ({"counts": [1.0, COUNT_BOUND + 1]}, "beyond"),
        ({"more": [1.0]}, "not agreed on"),
    ],
)
def test_values_that_do_not_fit(changed, match):
    with pytest.raises(FederationError, match=match):
        PARCEL.pack({**GOOD, **changed})


@pytest.mark.parametrize("parts", [(), (Part("a", 0),), (Part("a", 1), Part("a", 1)), (Part("a", 1, 0.0),)])
def test_parts_that_cannot_be(parts):
    with pytest.raises(FederationError, match="cannot be"):
        Parcel(parts)
