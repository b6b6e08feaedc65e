"""Drawn splits: by patient, stratified, and the same for the same seed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.imaging.splits import complete_splits, draw_splits


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=80),
    seed=st.integers(0, 5),
)
def test_no_patient_is_torn_and_order_does_not_matter(rows, seed):
    patients = [f"p{p}" for p, _ in rows]
    labels = np.array([label for _, label in rows], dtype=np.int64)
    splits = draw_splits(patients, labels, seed=seed)
    place = dict(zip(patients, splits.tolist(), strict=True))
    assert [place[p] for p in patients] == splits.tolist()
    backwards = draw_splits(patients[::-1], labels[::-1], seed=seed)
    assert backwards[::-1].tolist() == splits.tolist()


def test_shares_hold_in_every_class():
    patients = [f"p{i}" for i in range(300)]
    labels = np.repeat([0, 1, 2], [200, 70, 30])
    splits = draw_splits(patients, labels)
    for label, count in enumerate((200, 70, 30)):
        here = splits[labels == label]
        assert (here == "test").sum() == count // 5
        assert (here == "val").sum() == count // 10


def test_another_seed_is_another_draw():
    patients, labels = [f"p{i}" for i in range(100)], np.zeros(100, dtype=np.int64)
    assert draw_splits(patients, labels, seed=0).tolist() != draw_splits(patients, labels, seed=1).tolist()


def test_completing_keeps_the_test_split():
    patients, labels = [f"p{i}" for i in range(58)], np.arange(58) % 2
    given_splits = ["train"] * 48 + ["test"] * 10
    splits = complete_splits(given_splits, patients, labels)
    assert (splits[48:] == "test").all()
    assert (splits == "val").sum() == 6
