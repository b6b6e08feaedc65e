"""What a budget costs, told before training."""

from __future__ import annotations

import pytest

from blindtune.errors import PrivacyError
from blindtune.privacy.account import Release, epsilon
from blindtune.privacy.options import options


def test_less_privacy_costs_less_noise():
    found = options([1.0, 3.0, 8.0], 1e-4, patients=1000, batch=100, steps=50)
    assert [o.epsilon for o in found] == [1.0, 3.0, 8.0]
    noises = [o.noise for o in found]
    assert noises == sorted(noises, reverse=True)
    for o in found:
        assert o.reached == epsilon([Release(o.noise, 0.1, 50)], 1e-4) <= o.epsilon
        assert o.update_noise == o.noise / 100
        assert o.least_patients == round(10 * o.noise)


@pytest.mark.parametrize(
    ("changed", "match"),
    [({"batch": 0}, "a batch of at most all"), ({"batch": 1001}, "a batch"), ({"steps": 0}, "steps")],
)
def test_numbers_that_do_not_fit(changed, match):
    given = {"patients": 1000, "batch": 100, "steps": 50, **changed}
    with pytest.raises(PrivacyError, match=match):
        options([1.0], 1e-4, **given)


def test_a_delta_that_protects_nobody():
    with pytest.raises(PrivacyError, match=r"Give less than 0\.001"):
        options([1.0], 1e-3, patients=1000, batch=100, steps=50)
