"""The heads that come with blindtune, by name."""

from __future__ import annotations

from typing import Any

from blindtune.errors import PlanError
from blindtune.models.heads import Head, logistic, one_vs_rest, ridge
from blindtune.models.softmax import softmax

NAMES = ("auto", "logistic", "one-vs-rest", "softmax", "ridge")

COUPLED = 4
"""From so many classes on, coupling them gains more than more powers of the residual."""


def head_for(name: str, outputs: int, **options: Any) -> Head:
    """A built-in head by name.

    Args:
        name: ``auto`` (logistic for two classes, softmax from four on, one-vs-rest between),
            ``logistic``, ``one-vs-rest``, ``softmax`` or ``ridge``.
        outputs: logits: one for two classes, else one a class.
        options: fields of :class:`~blindtune.models.heads.Head`; ``steps`` sets how many.

    Raises:
        PlanError: no such head, or a head for several classes asked for two.
    """
    if name not in NAMES:
        raise PlanError(f"no head named {name[:40]}", remedy=f"Use {', '.join(NAMES[:-1])} or {NAMES[-1]}.")
    if name == "auto":
        name = "softmax" if outputs >= COUPLED else "logistic"
    if name == "softmax":
        if outputs == 1:
            raise PlanError("a softmax head for two classes", remedy="Use --head logistic.")
        return softmax(**{k: v for k, v in options.items() if k != "degree"})
    steps = options.pop("steps", None)
    if name == "ridge":
        options.pop("degree", None)
        if steps:
            options["learning_rates"] = (0.9,) * steps
        return ridge("binary" if outputs == 1 else "multiclass", **options)
    if steps:
        options["learning_rates"] = (4.0,) * steps
    return logistic(**options) if outputs == 1 else one_vs_rest(**options)
