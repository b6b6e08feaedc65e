"""``blindtune encrypt``: scans to an encrypted study."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import interrupts, render
from blindtune.cli.hospital import head_of, machine_of, rehearsal_told, side_by_side
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
    from blindtune.he.openfhe.bootstrapping import Bootstrapping
    from blindtune.imaging import Embeddings
    from blindtune.plan import Plan


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
    bootstrap: Annotated[
        bool,
        typer.Option(
            help="More steps than levels: the server makes the weights fresh by itself. Needs OpenFHE, here "
            "and there; see blindtune ways."
        ),
    ] = False,
    note: Annotated[list[str] | None, typer.Option(help="A remark for the report; repeatable.")] = None,
    memory: Memory = 16.0,
    machine: MachineFile = None,
    json_: Json = False,
) -> None:
    """Scans to an encrypted study: features, whitening, rehearsal, plan, encryption.

    Run it again after an interruption: features that were computed are kept.
    """
    from blindtune.client.encrypt import own_key
    from blindtune.client.flood import release_parameters
    from blindtune.client.prepare import outputs_of, prepare
    from blindtune.client.study import StudyDirectory
    from blindtune.depth import bootstrapped, for_plan
    from blindtune.errors import InputError
    from blindtune.he.openfhe.library import openfhe

    directory = StudyDirectory(out)
    directory.check()
    _check_member(member)
    priced = machine_of(machine)
    if (release or bootstrap) and key:
        raise InputError(
            "a key that may serve other studies",
            where="--key",
            remedy="With --release or --bootstrap a study makes its own key: leave --key out.",
        )
    if release and bootstrap:
        raise InputError(
            "a bootstrap's error is not one that release knows", where="--release", remedy="Leave one out."
        )
    if bootstrap:
        openfhe()
    secret = _kept_key(key) if key else None
    # Ask before the long work, not after it.
    locked = render.passphrase(ask=passphrase, confirm=True) if secret is None else None
    with _nothing_half_made(directory, own_key=key is None):
        started = time.perf_counter()
        data, origin = _load(scans, labels, backbone, weights, directory, json_)
        embedded = time.perf_counter()
        interrupts.check()
        made = head_of(head, outputs_of(data.classes), steps, degree, grid)
        planning: dict[str, Any] = {"parameters": secret.parameters if secret else None}
        if release:
            planning["parameters"] = release_parameters(made.program.levels, security)
        literal = None
        if bootstrap:
            literal, planning = bootstrapped(made.program, security)
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
                **planning,
            )
        if literal:
            literal = for_plan(literal, prepared.plan, int(memory * 2**30))
        rehearsed = time.perf_counter()
        interrupts.check()
        if secret is None:
            secret, prepared = own_key(prepared, directory, literal, locked)
        settings = _encrypt(prepared, directory, secret, member, origin, tuple(note or ()), release, json_)
        encrypted = time.perf_counter()
    sent = sum(p.stat().st_size for p in (out / "outbox").rglob("*") if p.is_file())
    told = {
        "study": settings.study,
        "classes": ", ".join(settings.classes),
        "training_rows": len(data.indices("train")),
        "outputs": settings.outputs,
        **side_by_side(prepared.plan, prepared.alone),
        **rehearsal_told(prepared),
        "security": settings.security,
        "ring_degree": prepared.plan.parameters.ring_degree,
        "to_upload": render.megabytes(sent),
        "predicted_training": _predicted(prepared.plan, literal, release),
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


def _kept_key(path: Path) -> Any:
    """A key of keygen's, or of another study.

    Raises:
        InputError: one that bootstraps, which serves a single packing.
    """
    from blindtune.errors import InputError
    from blindtune.he.secret import SecretKey

    found = render.load_key(path)
    if not isinstance(found, SecretKey):
        raise InputError(
            "a key that bootstraps serves its own study alone", where="--key", remedy="Leave --key out."
        )
    return found


def _predicted(plan: Plan, literal: Bootstrapping | None, release: bool) -> str:
    """What is known of the training's time."""
    if literal:
        from blindtune.depth import bootstrapping_way

        return f"{bootstrapping_way(plan, literal).seconds:.0f} s with OpenFHE on one thread"
    if release:
        return "unknown: primes this large are SEAL's, not the accelerators'"
    return f"{plan.seconds:.1f} s on {plan.machine.name}"


def _encrypt(
    prepared: Any,
    directory: StudyDirectory,
    secret: Any,
    member: str,
    origin: dict[str, Any],
    notes: tuple[str, ...],
    release: bool,
    quiet: bool,
) -> Any:
    from blindtune.client.encrypt import encrypt_study

    cost, literal = prepared.plan.cost, getattr(secret, "literal", None)
    keys = literal.sent_bytes(prepared.plan.layout.keys()) if literal else cost.key_bytes
    with render.progress(quiet) as shown:
        tasks = {
            "keys": shown.add_task("evaluation keys", total=keys),
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


def _check_member(member: str) -> None:
    import re

    from blindtune.errors import InputError

    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,31}", member):
        raise InputError(
            "not a member name", where="--member", remedy="Use a-z, 0-9 and hyphens, 32 at most."
        )
