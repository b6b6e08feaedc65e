"""What a budget costs, before training: the noise that it takes, beside what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blindtune.errors import PrivacyError
from blindtune.privacy.account import Release, epsilon, noise_for


@dataclass(frozen=True)
class Option:
    """One budget.

    Attributes:
        epsilon: asked for.
        reached: what the noise below costs, at most ``epsilon``.
        noise: noise multiplier of a step.
        update_noise: standard deviation of the noise on a step's mean update, for a clip of 1: below the
            length of a typical patient's update divided by the root of the parameters, learning goes on.
        least_patients: patients in a step with which the noise of the mean would be a tenth of the clip.
    """

    epsilon: float
    reached: float
    noise: float
    update_noise: float
    least_patients: int


def options(budgets: Sequence[float], delta: float, *, patients: int, batch: int, steps: int) -> list[Option]:
    """What each budget costs.

    Args:
        budgets: epsilons.
        patients: of the data set.
        batch: patients expected in a step.
        steps: of training.

    Raises:
        PrivacyError: numbers that do not fit together.
    """
    if not 1 <= batch <= patients or steps < 1:
        raise PrivacyError(
            f"{batch} of {patients} patients in {steps} steps",
            where="privacy",
            remedy="Give a batch of at most all.",
        )
    if delta * patients >= 1:
        raise PrivacyError(
            f"delta {delta:g} with {patients:,} patients",
            where="privacy",
            remedy=f"Give less than {1 / patients:.1g}: else publishing one patient's data would pass.",
        )
    found = []
    for budget in budgets:
        noise = noise_for(budget, delta, sampling=batch / patients, count=steps)
        reached = epsilon([Release(noise, batch / patients, steps)], delta)
        found.append(Option(budget, reached, noise, noise / batch, round(10 * noise)))
    return found
