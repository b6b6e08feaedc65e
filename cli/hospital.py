"""What a hospital does before it encrypts: ``keygen`` and ``plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import render
from blindtune.cli.options import (
    Degree,
    GridText,
    HeadName,
    Json,
    MachineFile,
    Memory,
    Security,
    Steps,
)

if TYPE_CHECKING:
    from blindtune.kernels.machine import Machine
    from blindtune.models.heads import Head
    from blindtune.plan import Plan


def keygen(
    out: Annotated[Path, typer.Option(help="Directory for secret.key; made if missing.")],
    steps: Annotated[int, typer.Option(help="Gradient steps.", min=1, max=32)] = 3,
    degree: Degree = 7,
    security: Security = 128,
    passphrase: Annotated[bool, typer.Option(help="Ask for a passphrase to encrypt the key file.")] = False,
    json_: Json = False,
) -> None:
    """Make a secret key for studies of so many steps. It never leaves this machine."""
    from blindtune.client.keyfile import write_key
    from blindtune.he.secret import SecretKey
    from blindtune.kernels.training import Program
    from blindtune.plan import smallest_parameters

    levels = Program(steps, degree, (0,) * steps, (1.0,) * steps).levels
    parameters = smallest_parameters(levels, security)
    locked = render.passphrase(ask=passphrase, confirm=True)
    path = out / "secret.key"
    render.make_directory(out)
    key = SecretKey.generate(parameters)
    write_key(path, key, locked)
    told = {
        "key": key.key_id,
        "security": parameters.security_name,
        "ring_degree": parameters.ring_degree,
        "modulus_bits": round(parameters.modulus_bits, 1),
        "levels": parameters.levels,
        "file": str(path),
    }
    render.tell("Secret key", told, json_)


def plan(
    data: Annotated[
        Path | None, typer.Argument(help="Embeddings (.npz) to rehearse on; else give sizes.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Training rows.", min=1)] = 1000,
    features: Annotated[int, typer.Option(help="Whitened directions; with the bias, columns.", min=1)] = 191,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 2,
    head: HeadName = "auto",
    steps: Steps = None,
    degree: Degree = 7,
    grid: GridText = None,
    security: Security = 128,
    lanes: Annotated[
        int | None, typer.Option(help="Fix the lanes, a power of two, instead of choosing them.", min=1)
    ] = None,
    memory: Memory = 16.0,
    machine: MachineFile = None,
    json_: Json = False,
) -> None:
    """Show parameters, packing, keys, upload, memory and operations before anything is encrypted."""
    options: dict[str, Any] = {
        "security": security,
        "lanes": lanes,
        "memory_limit": int(memory * 2**30),
        "machine": machine_of(machine),
    }
    rehearsal: dict[str, Any] = {}
    if data is not None:
        from blindtune.client.prepare import outputs_of, prepare
        from blindtune.imaging import load_embeddings

        loaded = load_embeddings(data)
        made = head_of(head, outputs_of(loaded.classes), steps, degree, grid)
        prepared = prepare(loaded, head=made, **options)
        planned, alone = prepared.plan, prepared.alone
        rehearsal = rehearsal_told(prepared)
    else:
        from blindtune.plan import plan as make

        outputs = 1 if classes == 2 else classes
        made = head_of(head, outputs, steps, degree, grid)
        planned, alone = (make(rows, features + 1, outputs, h, **options) for h in (made, made.settings[0]))
    found = {**planned.to_json(), **side_by_side(planned, alone), **rehearsal}
    if json_:
        render.print_json(found)
        return
    by_level = found.pop("operations_by_level")
    found["operations"] = ", ".join(f"{n} {name}" for name, n in found["operations"].items())
    for name in ("upload_bytes", "key_bytes", "memory_bytes"):
        found[name.removesuffix("_bytes")] = render.megabytes(found.pop(name))
    render.rows("Plan", [(k.replace("_", " "), str(v)) for k, v in found.items()])
    _levels(by_level)


def machine_of(file: Path | None) -> Machine | None:
    """The prices of a machine file, if one is given."""
    if file is None:
        return None
    from blindtune.kernels.machine import read_machine

    return read_machine(file)


def head_of(name: str, outputs: int, steps: int | None, degree: int, grid: list[str] | None) -> Head:
    """The head that the options name."""
    from blindtune.models.builtin import head_for
    from blindtune.models.grid import read_grid

    made = head_for(name, outputs, degree=degree, **({"steps": steps} if steps else {}))
    return read_grid(made, grid) if grid else made


def side_by_side(planned: Plan, alone: Plan) -> dict[str, Any]:
    """What the settings of a grid cost beside a single one."""
    if planned.settings == 1:
        return {}
    return {
        "settings_side_by_side": planned.settings,
        "ciphertexts": planned.ciphertexts,
        "ciphertexts_of_one_setting": alone.ciphertexts,
        "predicted_seconds_of_one_setting": round(alone.seconds, 2),
    }


def rehearsal_told(prepared: Any) -> dict[str, Any]:
    """What the rehearsal in clear chose and found."""
    choice = prepared.choice
    return {
        "directions": choice.whitening.columns - 1,
        "epsilon": choice.whitening.epsilon,
        "learning_rate": choice.head.learning_rates[0],
        "largest_logit": round(max(choice.rehearsal.largest), 2),
        "interval": choice.head.interval,
        "validation_accuracy_of_these_steps": _percent(prepared.accuracy),
        "validation_accuracy_converged": _percent(prepared.converged),
    }


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f} %"


def _levels(by_level: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    names = sorted({row["operation"] for row in by_level})
    table = Table("level", *names, title="Operations by level", title_justify="left", title_style="bold")
    for level in sorted({row["level"] for row in by_level}, reverse=True):
        counts = {row["operation"]: row["count"] for row in by_level if row["level"] == level}
        table.add_row(str(level), *(str(counts.get(name, "")) for name in names))
    Console(highlight=False).print(table)
