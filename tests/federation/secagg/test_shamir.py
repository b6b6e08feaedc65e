"""Shares of a secret: any threshold of them give it back, fewer fit every secret."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.federation.secagg.shamir import PRIME, SECRET_BYTES, SHARE_BYTES, interpolate, recover, split


@given(st.binary(min_size=32, max_size=32), st.integers(1, 8), st.integers(0, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_any_threshold_of_shares_gives_the_secret_back(secret, threshold, spare, random):
    shares = split(secret, threshold, range(1, threshold + spare + 1))
    few = random.sample(sorted(shares), threshold)
    assert recover({n: shares[n] for n in few}) == secret


def test_one_share_fewer_fits_every_secret():
    shares = split(bytes(SECRET_BYTES), 3, range(1, 6))
    for few in combinations(shares, 2):
        for other in (0, 1, 2**200):
            with_other = {0: other.to_bytes(SHARE_BYTES, "big"), **{n: shares[n] for n in few}}
            # There is a polynomial of degree two through these shares and any secret at 0.
            third = interpolate(with_other, 5 if 5 not in few else 4)
            assert 0 <= third < PRIME


def test_known_answer():
    # f(x) = 7 + 5 x + 3 x² by hand.
    shares = {1: 15, 2: 29, 3: 49}
    told = {n: v.to_bytes(SHARE_BYTES, "big") for n, v in shares.items()}
    assert recover(told) == (7).to_bytes(SECRET_BYTES, "big")
    assert interpolate(told, 10) == 7 + 50 + 300


def test_wrong_shares_are_no_secret():
    shares = split(b"s" * 32, 3, range(1, 4))
    shares[2] = split(b"t" * 32, 3, range(1, 4))[2]
    assert recover(shares) is None


@pytest.mark.parametrize(
    ("secret", "threshold", "numbers"),
    [
        (b"short", 2, [1, 2]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), 0, [1]),
        (bytes(32), 1, [0]),
        (bytes(32), 2, [1, 1]),
    ],
)
def test_what_does_not_fit_is_refused(secret, threshold, numbers):
    with pytest.raises(ValueError, match="fit together"):
        split(secret, threshold, numbers)
