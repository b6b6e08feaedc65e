"""What an audit attacks, and what its attacker knows."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.audit.scans import Scans
from blindtune.errors import InputError


def test_no_patient_is_in_both_halves(chests):
    public, held = chests.halves()
    assert len(public) == len(held) == 24
    assert not set(chests.patients[public]) & set(chests.patients[held])
    one = chests.one_each(held)
    assert len(one) == 12 == len(set(chests.patients[one]))
    assert set(one) <= set(held)


def test_scans_of_an_invented_patient_are_alike_and_not_the_same(chests):
    first, second, other = chests.pixels(np.array([0, 1, 2]), 32)
    assert first.shape == (32, 32)
    assert 0 < np.abs(first - second).mean() < np.abs(first - other).mean() + 0.5
    np.testing.assert_array_equal(first, Scans.invented(24).pixels(np.array([0]), 32)[0])


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="16 or more"):
        Scans.invented(15).halves()


def test_labels_need_scans(tmp_path):
    with pytest.raises(InputError, match="labels without scans"):
        Scans.read(None, tmp_path / "labels.csv")
