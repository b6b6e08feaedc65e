"""The hospital's commands up to the encrypted head: keys, plan, encryption, upload, status, download."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    number,
)

if TYPE_CHECKING:
    from blindtune.client.study import StudyDirectory
    from blindtune.imaging import Embeddings
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
        "machine": _machine(machine),
    }
    rehearsal: dict[str, Any] = {}
    if data is not None:
        from blindtune.client.prepare import outputs_of, prepare
        from blindtune.imaging import load_embeddings

        loaded = load_embeddings(data)
        made = _head(head, outputs_of(loaded.classes), steps, degree, grid)
        prepared = prepare(loaded, head=made, **options)
        planned, alone = prepared.plan, prepared.alone
        rehearsal = _rehearsal(prepared)
    else:
        from blindtune.plan import plan as make

        outputs = 1 if classes == 2 else classes
        made = _head(head, outputs, steps, degree, grid)
        planned, alone = (make(rows, features + 1, outputs, h, **options) for h in (made, made.settings[0]))
    found = {**planned.to_json(), **_side_by_side(planned, alone), **rehearsal}
    if json_:
        render.print_json(found)
        return
    by_level = found.pop("operations_by_level")
    found["operations"] = ", ".join(f"{n} {name}" for name, n in found["operations"].items())
    for name in ("upload_bytes", "key_bytes", "memory_bytes"):
        found[name.removesuffix("_bytes")] = render.megabytes(found.pop(name))
    render.rows("Plan", [(k.replace("_", " "), str(v)) for k, v in found.items()])
    _levels(by_level)


def encrypt(
    scans: Annotated[Path, typer.Argument(help="Folder of DICOM, PNG or JPEG, or embeddings (.npz).")],
    out: Annotated[Path, typer.Option(help="The study's directory to make.")],
    labels: Annotated[Path | None, typer.Option(help="CSV: file,label[,patient,split].")] = None,
    backbone: Annotated[str, typer.Option(help="Any timm model.")] = "deit_tiny_patch16_224",
    weights: Annotated[Path | None, typer.Option(help="The backbone's weights (.safetensors).")] = None,
    key: Annotated[
        Path | None, typer.Option(help="secret.key from keygen; else the study gets its own.")
    ] = None,
    passphrase: Annotated[bool, typer.Option(help="Ask for a passphrase for the study's own key.")] = False,
    head: HeadName = "auto",
    steps: Steps = None,
    degree: Degree = 7,
    grid: GridText = None,
    directions: Annotated[
        int | None, typer.Option(help="Whitened directions; chosen on validation.", min=1)
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Whitening shrinkage; chosen on validation.", min=0.0, callback=number),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Learning rate; chosen on validation.", min=1e-6, callback=number)
    ] = None,
    security: Security = 128,
    member: Annotated[
        str, typer.Option(help="Name in the study, seen by the server; a-z, 0-9, hyphens.")
    ] = "hospital",
    release: Annotated[
        bool, typer.Option(help="Plan for blindtune release: a larger scale, and a key of the study's own.")
    ] = False,
    note: Annotated[list[str] | None, typer.Option(help="A remark for the report; repeatable.")] = None,
    memory: Memory = 16.0,
    machine: MachineFile = None,
    json_: Json = False,
) -> None:
    """Scans to an encrypted study: features, whitening, rehearsal, plan, encryption.

    Run it again after an interruption: features that were computed are kept.
    """
    from blindtune.client.flood import release_parameters
    from blindtune.client.prepare import outputs_of, prepare
    from blindtune.client.study import StudyDirectory
    from blindtune.errors import InputError

    directory = StudyDirectory(out)
    directory.check()
    _check_member(member)
    priced = _machine(machine)
    if release and key:
        raise InputError(
            "a key that may serve other studies",
            where="--key",
            remedy="With --release a study makes its own key: leave --key out.",
        )
    secret = render.load_key(key) if key else None
    # Ask before the long work, not after it.
    locked = render.passphrase(ask=passphrase, confirm=True) if secret is None else None
    with _nothing_half_made(directory, own_key=secret is None):
        started = time.perf_counter()
        data, origin = _load(scans, labels, backbone, weights, directory, json_)
        embedded = time.perf_counter()
        made = _head(head, outputs_of(data.classes), steps, degree, grid)
        parameters = secret.parameters if secret else None
        if release:
            parameters = release_parameters(made.program.levels, security)
        with render.progress(json_) as shown:
            task = shown.add_task("rehearsal in clear", total=None)
            prepared = prepare(
                data,
                head=made,
                on_fold=lambda done, total: shown.update(task, completed=done, total=total),
                directions=None if directions is None else [directions],
                epsilons=None if epsilon is None else [epsilon],
                rates=None if rate is None else [rate],
                owner=member,
                security=security,
                memory_limit=int(memory * 2**30),
                machine=priced,
                parameters=parameters,
            )
        rehearsed = time.perf_counter()
        settings = _encrypt(
            prepared, directory, secret, locked, member, origin, tuple(note or ()), release, json_
        )
        encrypted = time.perf_counter()
    sent = sum(p.stat().st_size for p in (out / "outbox").rglob("*") if p.is_file())
    told = {
        "study": settings.study,
        "classes": ", ".join(settings.classes),
        "training_rows": len(data.indices("train")),
        "outputs": settings.outputs,
        **_side_by_side(prepared.plan, prepared.alone),
        **_rehearsal(prepared),
        "security": settings.security,
        "ring_degree": prepared.plan.parameters.ring_degree,
        "to_upload": render.megabytes(sent),
        "predicted_training": "unknown: primes this large are SEAL's, not the accelerators'"
        if release
        else f"{prepared.plan.seconds:.1f} s on {prepared.plan.machine.name}",
        "next": f"blindtune submit {out} --server URL",
    }
    seconds = {
        "features": embedded - started,
        "rehearsal": rehearsed - embedded,
        "encryption": encrypted - rehearsed,
    }
    if json_:
        told["seconds"] = seconds
    else:
        told["seconds"] = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    render.tell("Encrypted study", told, json_)


def _machine(file: Path | None) -> Machine | None:
    """The prices of a machine file, if one is given."""
    if file is None:
        return None
    from blindtune.kernels.machine import read_machine

    return read_machine(file)


def _load(
    scans: Path,
    labels: Path | None,
    backbone: str,
    weights: Path | None,
    directory: StudyDirectory,
    quiet: bool,
) -> tuple[Embeddings, dict[str, Any]]:
    """Embeddings from a file, or from scans through the backbone; and where they came from."""
    from blindtune.client.features import embed_cohort
    from blindtune.imaging import load_cohort, load_embeddings

    if scans.suffix == ".npz":
        return load_embeddings(scans), {}
    cohort = load_cohort(scans, labels)
    if not quiet:
        note = (
            f"{len(cohort)} scans, {len(set(cohort.patients))} patients, classes {', '.join(cohort.classes)}"
        )
        extra = f"; {cohort.ignored} files without a label are left out" if cohort.ignored else ""
        render.console().print(note + extra)
        if cohort.patient_source == "file":
            render.console().print(
                "[yellow]nothing tells patients apart: one person may stand in train and in test[/yellow]"
            )
    from rich.progress import TextColumn

    directory.create()
    with render.progress(quiet, TextColumn("{task.fields[rate]}")) as shown:
        task = shown.add_task("features", total=len(cohort), rate="")

        def on_image(done: int, total: int) -> None:
            speed = shown.tasks[0].speed
            shown.update(task, completed=done, total=total, rate=f"{speed:.0f} images/s" if speed else "")

        return embed_cohort(cohort, backbone, weights, directory.private / "features", on_image)


@contextmanager
def _nothing_half_made(directory: StudyDirectory, *, own_key: bool) -> Iterator[None]:
    """After a failure keep computed features, and nothing else that this run made."""
    existed = directory.root.exists()
    try:
        yield
    except BaseException:
        directory.discard(own_key=own_key)
        if not existed:
            with suppress(OSError):
                directory.root.rmdir()
        raise


def _encrypt(
    prepared: Any,
    directory: StudyDirectory,
    secret: Any,
    passphrase: str | None,
    member: str,
    origin: dict[str, Any],
    notes: tuple[str, ...],
    release: bool,
    quiet: bool,
) -> Any:
    from blindtune.client.encrypt import encrypt_study
    from blindtune.client.keyfile import write_key
    from blindtune.he.secret import SecretKey

    directory.create()
    if secret is None:
        # A run that was killed may have left a key that nothing was sent under.
        directory.key_file.unlink(missing_ok=True)
        secret = SecretKey.generate(prepared.plan.parameters)
        write_key(directory.key_file, secret, passphrase)
    cost = prepared.plan.cost
    with render.progress(quiet) as shown:
        tasks = {
            "keys": shown.add_task("evaluation keys", total=cost.key_bytes),
            "data": shown.add_task("encryption", total=cost.upload_bytes),
        }

        def on_bytes(what: str, size: int) -> None:
            if not shown.tasks[tasks[what]].completed:
                # Its clock starts now, not with the keys before it.
                shown.reset(tasks[what])
            shown.advance(tasks[what], size)

        made = encrypt_study(
            prepared,
            secret,
            directory,
            member=member,
            backbone=origin,
            notes=notes,
            release=release,
            on_bytes=on_bytes,
        )
        for task in tasks.values():
            shown.update(task, completed=shown.tasks[task].total)
        return made


def _head(name: str, outputs: int, steps: int | None, degree: int, grid: list[str] | None) -> Head:
    from blindtune.models.builtin import head_for
    from blindtune.models.grid import read_grid

    made = head_for(name, outputs, degree=degree, **({"steps": steps} if steps else {}))
    return read_grid(made, grid) if grid else made


def _side_by_side(planned: Plan, alone: Plan) -> dict[str, Any]:
    """What the settings of a grid cost beside a single one."""
    if planned.settings == 1:
        return {}
    return {
        "settings_side_by_side": planned.settings,
        "ciphertexts": planned.ciphertexts,
        "ciphertexts_of_one_setting": alone.ciphertexts,
        "predicted_seconds_of_one_setting": round(alone.seconds, 2),
    }


def _rehearsal(prepared: Any) -> dict[str, Any]:
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


def _check_member(member: str) -> None:
    import re

    from blindtune.errors import InputError

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", member):
        raise InputError(
            "not a member name", where="--member", remedy="Use a-z, 0-9 and hyphens, 32 at most."
        )
