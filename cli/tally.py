"""What is told of a federated study while it runs: rounds on stdout, what happens on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from blindtune.cli import render

if TYPE_CHECKING:
    from blindtune.federation.coordinator import Round

COLUMNS = ("round", "sites", "loss", "accuracy", "attempts", "seconds", "out", "in")


class Tally:
    """A table that grows by a line a round, or a JSON document a line.

    Args:
        json_: whether to print JSON.
    """

    def __init__(self, json_: bool) -> None:
        self._json, self._console, self._began = json_, render.console(), False

    def say(self, text: str) -> None:
        """Something that happened."""
        # Refusals come from elsewhere: no markup, no control characters, one line.
        plain = "".join(c if c.isprintable() else " " for c in text)
        self._console.print(f"{time.strftime('%H:%M:%S')} {plain}", markup=False, soft_wrap=True)

    def where(self, told: dict[str, Any]) -> None:
        """The first line: what goes on here."""
        if self._json:
            self._line(told)
            return
        for name, value in told.items():
            self.say(f"{name.replace('_', ' ')}: {value}")

    def round(self, done: Round, seconds: float, sent: int, received: int, missing: list[str]) -> None:
        """A round that is done."""
        if self._json:
            self._line(
                {
                    "round": done.number,
                    "sites": done.sites,
                    "missing": missing,
                    "excluded": done.excluded,
                    "loss": done.loss,
                    "accuracy": done.accuracy,
                    "stopped": done.stopped,
                    "change": done.change,
                    "attempts": done.attempts,
                    "seconds": seconds,
                    "bytes_sent": sent,
                    "bytes_received": received,
                }
            )
            return
        loss = "-" if done.loss is None else f"{done.loss:.4f}"
        accuracy = "-" if done.accuracy is None else f"{done.accuracy:.3f}"
        cells = (
            *(done.number, len(done.sites), loss, accuracy, done.attempts, f"{seconds:.1f}"),
            *(render.megabytes(sent), render.megabytes(received)),
        )
        self._row(cells)
        for name, why in done.excluded.items():
            self.say(f"{name} was left out: {why}")
        for name in missing:
            self.say(f"{name} was not there")

    def _row(self, cells: tuple[object, ...]) -> None:
        if not self._began:
            self._began = True
            self._row(COLUMNS)
        sys.stdout.write("".join(f"{cell!s:>10}" for cell in cells) + "\n")
        sys.stdout.flush()

    def _line(self, told: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        sys.stdout.flush()
