"""Plans of studies as files: drafts that people write, and the plan with its start that comes of one."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import MAX_BYTES, Agreement
from blindtune.federation.learner import Values
from blindtune.federation.search import SearchPlan
from blindtune.federation.setup import draft
from blindtune.files import whole_file, writing

PLAN, SEARCH, START = "plan.json", "search.json", "start.safetensors"


def read_plan(path: Path) -> Agreement:
    """Read a plan.

    Raises:
        InputError: it cannot be read.
        FederationError: not a plan.
    """
    return Agreement.read(read_bytes(path))


def read_either(path: Path) -> Agreement | SearchPlan:
    """Read a plan of a study, or of a search for one.

    Raises:
        InputError: it cannot be read.
        FederationError: neither.
    """
    data = read_bytes(path)
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    return SearchPlan.read(data) if isinstance(told, dict) and "base" in told else Agreement.read(data)


def complete(path: Path, directory: Path, weights: Path | None = None) -> Agreement:
    """Write the plan and the start that a draft asks for.

    Args:
        path: JSON with the fields of :class:`~blindtune.federation.agreement.Agreement`, but for
            ``parameters`` and ``start``.
        weights: of the network that is drafted, pretrained.

    Raises:
        InputError: the draft cannot be read, or the files not be written.
        FederationError: fields that do not fit together.
        ModelError: an unknown network, or weights of another one.
    """
    try:
        told = json.loads(read_bytes(path))
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or {"parameters", "start"} & told.keys():
        raise InputError(
            "not a draft: a JSON object without parameters and start",
            where=path.name,
            remedy="docs/federation.md has one.",
        )
    # Checked with numbers that stand in for those that follow from the model.
    drafted = Agreement.checked({**told, "parameters": 1, "start": "0" * 64})
    plan, start = draft(
        drafted.study,
        drafted.classes,
        drafted.model,
        rounds=drafted.rounds,
        local=drafted.local,
        privacy=drafted.privacy,
        weights=weights,
        average=drafted.average,
        secure=drafted.secure,
        bound=drafted.bound,
    )
    write_plan(plan, start, directory)
    return plan


def write_plan(plan: Agreement | SearchPlan, start: Values, directory: Path) -> None:
    """Write a plan, of a study or a search, with its start.

    Raises:
        InputError: the files cannot be written.
    """
    with writing("the plan", directory.name):
        with whole_file(directory / START) as partial:
            save_file({"values": start}, partial)
        with whole_file(directory / (PLAN if isinstance(plan, Agreement) else SEARCH)) as partial:
            partial.write_text(plan.model_dump_json(indent=1) + "\n")


def read_start(path: Path, plan: Agreement) -> Values:
    """The values that a plan's first round begins with.

    Raises:
        InputError: they cannot be read.
        FederationError: another plan's.
    """
    try:
        values: Values = load_file(path)["values"]
    except (OSError, SafetensorError, KeyError):
        raise InputError(
            "no start of a study here", where=path.name, remedy="Give the file that the plan came with."
        ) from None
    if values.shape != (plan.parameters,):
        raise FederationError("a first model that is not the plan's", where=path.name)
    return values


def read_bytes(path: Path) -> bytes:
    """A file, as far as plans may be long, and a byte more.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=path.name, remedy="Check the path."
        ) from None
