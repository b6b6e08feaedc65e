"""A grid of settings of one head, trained side by side in the lanes of the same ciphertexts.

Lanes share the encrypted rows and the program: steps, degree, decay, momentum. What is encrypted beside the
rows is each lane's own: targets and coefficients, and with them its learning rate (a factor on both), its
shrinkage and its class weights. So ``G`` settings of a head with ``K`` outputs are a head with ``G · K``, and
a server learns no more than that. Lanes that would be empty cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import PlanError
from blindtune.models.heads import Encoded, Floats, Head, Start
from blindtune.models.softmax import SoftmaxHead

MOST_SETTINGS = 64
WEIGHTS = {"balanced": True, "equal": False}
AXES = ("rate", "shrinkage", "weights")


@dataclass(frozen=True)
class GridHead(Head):
    """Settings side by side; make one with :func:`grid`.

    Outputs are those of the first setting, then those of the second, and so on. The head's own learning rate
    is the largest of the settings'.

    Attributes:
        heads: the settings; they differ in learning rate, shrinkage and class weights only.
    """

    heads: tuple[Head, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= len(self.heads) <= MOST_SETTINGS:
            raise PlanError(
                f"a grid of {len(self.heads)} settings", remedy=f"Give 2 to {MOST_SETTINGS} side by side."
            )
        if len({_common(head) for head in self.heads}) > 1:
            raise PlanError(
                "settings that no lanes can share",
                remedy="They may differ in learning rate, shrinkage and class weights only.",
            )

    @property
    def settings(self) -> tuple[Head, ...]:
        """The settings, with the learning rates that they train with."""
        rates = [factor * self.learning_rates[0] for factor in self.factors]
        return tuple(head.with_rate(rate) for head, rate in zip(self.heads, rates, strict=True))

    @property
    def factors(self) -> tuple[float, ...]:
        """Each setting's learning rate over the largest."""
        most = max(head.learning_rates[0] for head in self.heads)
        return tuple(head.learning_rates[0] / most for head in self.heads)

    def begin(
        self, features: Floats, labels: NDArray[Any], held: Floats, held_labels: NDArray[Any], outputs: int
    ) -> Start | None:
        """The start in clear that all settings have."""
        return self.heads[0].begin(features, labels, held, held_labels, outputs)

    def encode(self, labels: NDArray[Any], outputs: int, offset: Floats | None = None) -> Encoded:
        """Targets and coefficients of all settings, one beside the other: (n, G · K) and (C, n, G · K)."""
        parts = [head.encode(labels, outputs, offset) for head in self.heads]
        return Encoded(
            np.hstack([f * e.targets for f, e in zip(self.factors, parts, strict=True)]),
            np.concatenate([f * e.coefficients for f, e in zip(self.factors, parts, strict=True)], axis=2),
        )

    def adapted(self, features: Floats, encoded: Encoded, rate: float) -> Head:
        """The largest learning rate for these rows; the settings keep their ratios to it."""
        found = self.heads[0].adapted(features, encoded, rate)
        return replace(self, learning_rates=found.learning_rates)

    def scaled_for(self, largest: float) -> Head:
        """See :meth:`Head.scaled_for`."""
        return replace(self, interval=self.heads[0].scaled_for(largest).interval)

    def loss(self, logits: Floats, labels: NDArray[Any], offset: Floats | None = None) -> float:
        """Held-out loss of the best setting; all are judged as the first would be."""
        return min(self.heads[0].loss(part, labels, offset) for part in split(logits, len(self.heads)))


def grid(
    head: Head,
    *,
    rates: Sequence[float] = (),
    shrinkages: Sequence[float] = (),
    balanced: Sequence[bool] = (),
) -> GridHead:
    """Every combination of some settings of a head; what is not given stays as the head has it.

    A head's public decay becomes shrinkage: it could not differ between lanes.

    Raises:
        PlanError: too many or too few combinations, one that stands twice, or class weights for a head
            that has none.
    """
    if balanced and isinstance(head, SoftmaxHead):
        raise PlanError("class weights for a softmax head", remedy="It has none: leave weights out.")
    chosen = list(
        product(
            rates or head.learning_rates[:1],
            shrinkages or (head.shrinkage + head.decay,),
            balanced or (head.balanced,),
        )
    )
    if len(set(chosen)) < len(chosen):
        raise PlanError("a setting stands twice in the grid", remedy="Give every value once.")
    heads = tuple(
        replace(head.with_rate(rate), shrinkage=shrinkage, balanced=weighed, decay=0.0)
        for rate, shrinkage, weighed in chosen
    )
    own = {f.name: getattr(heads[0], f.name) for f in fields(Head)}
    return GridHead(
        **{**own, "learning_rates": (max(h.learning_rates[0] for h in heads),) * head.steps}, heads=heads
    )


def read_grid(head: Head, texts: Sequence[str]) -> GridHead:
    """A grid as people write it: ``rate=3,6``, ``shrinkage=0,0.01``, ``weights=balanced,equal``.

    Raises:
        PlanError: something else.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name not in AXES or name in found:
            raise PlanError(
                f"not a part of a grid, or given twice: {name[:40]}",
                remedy="Use rate=3,6 or shrinkage=0,0.01 or weights=balanced,equal.",
            )
        try:
            found[name] = [WEIGHTS[v] if name == "weights" else float(v) for v in values.split(",")]
        except (ValueError, KeyError):
            raise PlanError(
                f"values of {name} that are none: {values[:40]}",
                remedy="Use numbers with commas between them; for weights balanced and equal.",
            ) from None
    return grid(
        head,
        rates=found.get("rate", ()),
        shrinkages=found.get("shrinkage", ()),
        balanced=found.get("weights", ()),
    )


def split(values: Floats, settings: int) -> list[Floats]:
    """Columns of several settings (n, G · K) to each one's own (n, K)."""
    return np.split(values, settings, axis=1)


def told(head: Head) -> dict[str, Any]:
    """What tells a setting from others."""
    return {
        "learning_rate": head.learning_rates[0],
        "shrinkage": head.shrinkage,
        "weights": "balanced" if head.balanced else "equal",
    }


def named(setting: Mapping[str, Any]) -> str:
    """A setting of :func:`told` in a line."""
    return (
        f"rate {setting['learning_rate']:.3g}, shrinkage {setting['shrinkage']:g}, "
        f"weights {setting['weights']}"
    )


def _common(head: Head) -> Head:
    return replace(head.with_rate(1.0), shrinkage=0.0, balanced=False)
