"""What a job's training took: told when it is done, and kept with each step, so that no worker's is lost."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from blindtune.he.engine import Ledger


@dataclass
class Spent:
    """Seconds, operations and memory, over all workers whose steps were kept.

    Attributes:
        verifying, loading: seconds of the last worker.
        training: seconds.
        phases: seconds by step and phase.
        peak: most bytes that a worker held.
    """

    verifying: float = 0.0
    loading: float = 0.0
    training: float = 0.0
    phases: defaultdict[tuple[int, str], float] = field(default_factory=lambda: defaultdict(float))
    ledger: Ledger = field(default_factory=Ledger)
    peak: int = 0

    def told(self, cores: int, predicted: float) -> dict[str, Any]:
        """As the tenant reads it.

        Args:
            predicted: seconds of training by the machine's prices.
        """
        ledger = self.ledger
        return {
            "cores": cores,
            "seconds_verifying": self.verifying,
            "seconds_loading": self.loading,
            "seconds_training": self.training,
            "seconds_predicted": predicted,
            "phases": [
                {"step": step, "phase": phase, "seconds": seconds}
                for (step, phase), seconds in self.phases.items()
            ],
            "seconds_operations": ledger.total_seconds,
            "peak_bytes": self.peak,
            "operations": [
                {
                    "name": name,
                    "level": level,
                    "count": count,
                    "calls": ledger.calls[name, level],
                    "seconds": ledger.seconds[name, level],
                }
                for (name, level), count in sorted(ledger.counts.items())
            ],
        }

    @classmethod
    def of(cls, told: dict[str, Any] | None) -> Spent:
        """Go on from what :meth:`told` said with a checkpoint."""
        found = cls()
        if told is not None:
            found.training, found.peak = told["seconds_training"], told["peak_bytes"]
            for row in told["phases"]:
                found.phases[row["step"], row["phase"]] = row["seconds"]
            for row in told["operations"]:
                key = row["name"], row["level"]
                found.ledger.counts[key], found.ledger.calls[key] = row["count"], row["calls"]
                found.ledger.seconds[key] = row["seconds"]
        return found
