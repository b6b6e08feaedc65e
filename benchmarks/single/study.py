"""What an owner is given, and what is timed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blindtune.client.encoding import Scaling
from blindtune.models.heads import Encoded, one_vs_rest
from blindtune.plan import Plan
from blindtune.wire.manifest import LayoutModel, ParametersModel, layout_model, parameters_model

HEAD = one_vs_rest(degree=7, interval=12.0, learning_rates=(4.0, 4.0, 4.0))


@dataclass(frozen=True)
class Given:
    """An owner's study before encryption.

    Attributes:
        features: whitened, bias last, (n, columns).
        labels: (n,).
    """

    parameters: ParametersModel
    layout: LayoutModel
    features: Any
    labels: Any
    classes: int

    @classmethod
    def of(cls, planned: Plan, features: Any, labels: Any, classes: int) -> Given:
        """A planned study."""
        return cls(
            parameters_model(planned.parameters), layout_model(planned.layout), features, labels, classes
        )

    def write(self, place: Path) -> None:
        """Keep it in a directory."""
        (place / "parameters.json").write_text(self.parameters.model_dump_json())
        (place / "layout.json").write_text(self.layout.model_dump_json())
        np.savez(place / "rows.npz", features=self.features, labels=self.labels, classes=self.classes)

    @classmethod
    def read(cls, place: Path) -> Given:
        """What :meth:`write` kept."""
        rows = np.load(place / "rows.npz")
        return cls(
            ParametersModel.model_validate_json((place / "parameters.json").read_text()),
            LayoutModel.model_validate_json((place / "layout.json").read_text()),
            rows["features"],
            rows["labels"],
            int(rows["classes"]),
        )

    @property
    def encoded(self) -> Encoded:
        """Targets and coefficients."""
        return HEAD.encode(self.labels, self.classes)

    @property
    def scaling(self) -> Scaling:
        """How numbers are scaled."""
        return Scaling(HEAD.interval, HEAD.learning_rates[0], len(self.labels))


@contextmanager
def timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """Seconds on the clock and on the processor."""
    wall, busy = time.perf_counter(), time.process_time()
    yield
    into[name] = {"wall": time.perf_counter() - wall, "processor": time.process_time() - busy}
