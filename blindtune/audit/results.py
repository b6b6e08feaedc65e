"""What an attack found, as data: the same for every attack, written to JSON and read back by the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from blindtune.errors import InputError
from blindtune.files import whole_file, writing
from blindtune.report.figures import Figure

FORMAT = "blindtune attack results 1"
MAX_BYTES = 4 << 20
PACKAGES = ("numpy", "scipy", "tenseal", "torch", "timm", "dp-accounting", "opendp")


@dataclass(frozen=True)
class AttackResult:
    """One attack on one target.

    Attributes:
        attack: such as ``key recovery``.
        target: what was attacked; no path, file name or patient.
        protection: what stood in its way, such as ``none``, ``sanitised release`` or ``epsilon 3``.
        figures: name to value with its 95 % interval where there is one.
        trials: attempts, members or canaries that the figures rest on.
        control: whether the same attack succeeded, in the same run, on a target without protection.
            Without that, what the figures say of the protection is nothing.
        command: what makes these figures again; no path.
        versions: packages that took part.
    """

    attack: str
    target: str
    protection: str
    figures: Mapping[str, Figure]
    trials: int
    control: bool
    command: str
    versions: Mapping[str, str]

    __pydantic_config__ = {"extra": "forbid", "strict": True, "allow_inf_nan": False}  # noqa: RUF012

    def to_json(self) -> dict[str, Any]:
        """Plain values; :meth:`from_json` reads them back."""
        figures = {name: dict(vars(figure)) for name, figure in self.figures.items()}
        return {**vars(self), "figures": figures, "versions": dict(self.versions)}

    @classmethod
    def from_json(cls, data: Any) -> AttackResult:
        """Read back :meth:`to_json`.

        Raises:
            InputError: a field is missing, unknown or of another type.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            # As JSON: only there does the strict mode take objects for dataclasses.
            return TypeAdapter(cls).validate_json(json.dumps(data))
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise InputError(
                f"not an attack's result ({place or 'not an object'})",
                remedy="Write it again with this version's blindtune audit.",
            ) from None


def proportion(hits: int, trials: int) -> Figure:
    """A share of trials with its exact 95 % interval (Clopper and Pearson 1934)."""
    from scipy.stats import binomtest

    if trials < 1:
        return Figure(None, reason="no trials")
    interval = binomtest(hits, trials).proportion_ci(0.95, "exact")
    return Figure(hits / trials, float(interval.low), float(interval.high))


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """blindtune's version, and those of the packages that are installed."""
    from blindtune import __version__

    found = {"blindtune": __version__}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_results(path: Path, results: Sequence[AttackResult]) -> None:
    """Write results to a JSON file that :func:`read_results` reads.

    Raises:
        InputError: the file cannot be written.
    """
    told = {"format": FORMAT, "results": [r.to_json() for r in results]}
    with writing("the results", path.name), whole_file(path) as partial:
        partial.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def earlier_results(path: Path | None) -> list[AttackResult]:
    """What an earlier run wrote to the file that results are to be written to; none if there is none.

    Raises:
        InputError: a file of something else.
    """
    return read_results(path) if path is not None and path.is_file() else []


def read_results(path: Path) -> list[AttackResult]:
    """Read what :func:`write_results` wrote.

    Raises:
        InputError: missing, too large, or of another format.
    """
    if not path.is_file():
        raise InputError("no results here", where=path.name, remedy="Run blindtune audit with --out first.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError("too large")
        told = json.loads(path.read_text())
        if told["format"] != FORMAT or not isinstance(told["results"], list):
            raise ValueError("another format")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            "not a file of attack results, or damaged", where=path.name, remedy="Run the attack again."
        ) from None
    return [AttackResult.from_json(one) for one in told["results"]]
