"""How fast a machine carries out an engine's operations: the planner's unit prices.

A call on a batch takes a fixed time and a time a ciphertext; both are measured by
:mod:`blindtune.client.calibrate` on the machine that will train, and kept in a small JSON file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from blindtune.errors import InputError
from blindtune.he.engine import Ledger

MAX_FILE_BYTES = 1 << 20

SWITCHES = ("relinearise", "rotate", "rotate_relinearise")
"""Operations with a key switch: their price grows with the square of the limbs."""

OPERATIONS = ("multiply", *SWITCHES, "rescale", "multiply_scalar", "add", "switch")


@dataclass(frozen=True)
class Price:
    """What an operation costs in one ring, in nanoseconds.

    Attributes:
        limb: a coefficient and limb.
        digit: a coefficient, limb and digit of the key switch.
        call: a call, whatever its batch.
        call_limb: a call's coefficient and limb: what a batch of one cannot share between threads.
    """

    limb: float
    digit: float = 0.0
    call: float = 0.0
    call_limb: float = 0.0

    def seconds(self, limbs: int, ring_degree: int, count: float, calls: float) -> float:
        """Seconds of so many ciphertexts in so many calls."""
        each = self.limb + self.digit * (limbs + 1)
        return 1e-9 * (ring_degree * limbs * (each * count + self.call_limb * calls) + self.call * calls)


@dataclass(frozen=True)
class Machine:
    """Prices by ring degree and operation, for so many threads.

    Attributes:
        name: processor and accelerator, for people.
        cores: threads that the prices were measured with.
        prices: ``{ring degree: {operation: price}}``; other rings take the nearest one's.
    """

    name: str
    cores: int
    prices: Mapping[int, Mapping[str, Price]] = field(repr=False)

    def seconds(self, operation: str, level: int, ring_degree: int, count: float, calls: float) -> float:
        """Predicted seconds of an operation at a level; of what is not priced, none."""
        ring = min(self.prices, key=lambda n: abs(n.bit_length() - ring_degree.bit_length()))
        price = self.prices[ring].get(operation)
        return price.seconds(level + 1, ring_degree, count, calls) if price else 0.0

    def total(self, ledger: Ledger, ring_degree: int) -> float:
        """Predicted seconds of all that a ledger counts."""
        return sum(
            self.seconds(name, level, ring_degree, count, ledger.calls[name, level])
            for (name, level), count in ledger.counts.items()
        )

    def to_json(self) -> str:
        """For a machine file."""
        prices = {n: {k: asdict(p) for k, p in found.items()} for n, found in self.prices.items()}
        return json.dumps({"name": self.name, "cores": self.cores, "prices": prices}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Machine:
        """Read a machine file.

        Raises:
            InputError: not one.
        """
        try:
            found = json.loads(text)
            prices = {
                int(n): {k: Price(**{x: float(v) for x, v in p.items()}) for k, p in table.items()}
                for n, table in found["prices"].items()
            }
            made = cls(str(found["name"])[:200], int(found["cores"]), prices)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InputError("not a machine file", remedy="Make one: blindtune bench --calibrate.") from None
        values = [v for t in prices.values() for p in t.values() for v in asdict(p).values()]
        whole = prices and all(set(SWITCHES) <= set(t) for t in prices.values())
        if not whole or made.cores < 1 or not all(0 <= v < 1e9 for v in values):
            raise InputError(
                "a machine file with prices that cannot be",
                remedy="Make it anew: blindtune bench --calibrate.",
            )
        return made


def default_path() -> Path:
    """Where a calibration is kept: ``BLINDTUNE_MACHINE``, else the user's configuration directory."""
    given = os.environ.get("BLINDTUNE_MACHINE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "blindtune" / "machine.json"


def this_machine() -> Machine:
    """The calibration that is kept here, else the one that ships: two cores of a server of 2024.

    Raises:
        InputError: the file is damaged.
    """
    path = default_path()
    return read_machine(path) if path.is_file() else SHIPPED


def read_machine(path: Path) -> Machine:
    """Read a machine file.

    Raises:
        InputError: not there, or damaged.
    """
    try:
        text = path.read_text() if path.stat().st_size <= MAX_FILE_BYTES else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise InputError(
            "no machine file here", where=path.name, remedy="Make one: blindtune bench --out FILE."
        )
    return Machine.from_json(text)


SHIPPED = Machine(
    "AMD EPYC, 2 threads, FastEngine",
    2,
    {
        16384: {
            "multiply": Price(0.49, 0.0, 2.4e4, 0.26),
            "relinearise": Price(7.2, 0.61, 2.1e5, 8.9),
            "rotate": Price(8.1, 0.56, 1.8e5, 10.0),
            "rotate_relinearise": Price(13.0, 1.3, 2.4e5, 14.0),
            "rescale": Price(2.2, 0.0, 3.6e5, 0.19),
            "multiply_scalar": Price(3.3, 0.0, 4.3e5),
            "add": Price(1.1, 0.0, 2.2e5),
        },
        32768: {
            "multiply": Price(0.43, 0.0, 3.5e4, 0.28),
            "relinearise": Price(4.0, 1.3, 6.0e5, 5.8),
            "rotate": Price(5.4, 1.2, 5.8e5, 5.3),
            "rotate_relinearise": Price(3.0, 3.6, 1.0e6, 7.1),
            "rescale": Price(2.2, 0.0, 4.8e5, 0.1),
            "multiply_scalar": Price(2.9, 0.0, 5.2e5),
            "add": Price(0.8, 0.0, 2.9e5),
        },
    },
)
"""From calibrations (``blindtune bench --calibrate``) on an otherwise idle virtual machine."""
