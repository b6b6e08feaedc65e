"""Parcels of a study, and what goes into them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.federation.agreement import HeadModel
from blindtune.federation.contributions import cut, moments, row_moments, votes, whole_part
from blindtune.federation.parcel import Parcel
from blindtune.federation.secagg.quantise import Quantiser


@given(st.integers(2, 50), st.data())
def test_whole_numbers_are_summed_exactly_by_any_number_of_sites(sites, data):
    part = whole_part("counts", 6, sites)
    parcel, quantiser = Parcel((part,)), Quantiser(1.0, sites)
    bound = int(part.bound)
    assert bound >= 1 << 18
    rows = data.draw(
        st.lists(st.lists(st.integers(-bound, bound), min_size=6, max_size=6), min_size=1, max_size=sites)
    )
    words = np.zeros(6, np.uint32)
    for row in rows:
        words += quantiser.encode(parcel.pack({"counts": row}))
    found = parcel.unpack(quantiser.decode(words))["counts"]
    np.testing.assert_array_equal(found, np.sum(rows, axis=0))


def test_what_is_beyond_the_bound_is_cut():
    parcel = Parcel((whole_part("counts", 3, 50),))
    np.testing.assert_array_equal(
        cut(parcel, "counts", np.array([1 << 40, -5, -(1 << 40)])), [1 << 18, -5, -(1 << 18)]
    )


def test_moments_of_all_rows():
    rng = np.random.default_rng(0)
    model = HeadModel(features=7, directions=7, reach=50.0)
    x = rng.normal(size=(150, 7)).astype(np.float32)
    total = sum(piece.sum(axis=0) for piece in row_moments(model, x))
    first, second = moments(model, total)
    np.testing.assert_allclose(first, x.sum(axis=0), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(second, x.T.astype(float) @ x, rtol=1e-5, atol=1e-4)


def test_a_rows_moments_are_as_long_as_the_row_and_its_matrix():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6)) * 10.0 ** rng.uniform(-3, 3, (40, 1))
    [found] = row_moments(HeadModel(features=6, directions=1, reach=2.0), x)
    lengths = np.minimum(1, np.linalg.norm(x, axis=1) / 2)
    np.testing.assert_allclose(np.linalg.norm(found[:, :6], axis=1), lengths)
    np.testing.assert_allclose(np.linalg.norm(found[:, 6:], axis=1), lengths**2)
    assert np.linalg.norm(found, axis=1).max() <= np.sqrt(2) * (1 + 1e-12)


def test_cases_of_a_patient_share_a_vote():
    labels, told = np.array([0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 1])
    patients = np.array([7, 3, 3, 3, 3])
    found = votes(labels, patients, told, 2)
    np.testing.assert_allclose(found, [[0, 0.25, 0.25, 0.5], [1, 0, 0, 0]])
    assert np.linalg.norm(found, axis=1).max() <= 1


@pytest.mark.parametrize("patients", [np.arange(5), np.zeros(5, int)])
def test_votes_add_up_to_the_patients(patients):
    found = votes(np.array([0, 1, 2, 2, 1]), patients, np.array([2, 1, 0, 2, 1]), 3)
    assert found.sum() == pytest.approx(len(np.unique(patients)))
