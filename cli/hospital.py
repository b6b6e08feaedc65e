"""The hospital's commands up to the encrypted head: keys, plan, encryption, upload, status, download."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import render

if TYPE_CHECKING:
    from blindtune.client.remote import Remote, Status
    from blindtune.client.study import Settings, StudyDirectory
    from blindtune.imaging import Embeddings
    from blindtune.models.heads import Head
    from blindtune.wire.manifest import Manifest

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Study = Annotated[Path, typer.Argument(help="The study's directory, from blindtune encrypt.")]
Steps = Annotated[int, typer.Option(help="Gradient steps.", min=1, max=32)]
Degree = Annotated[int, typer.Option(help="Degree of the residual polynomial: 1, 3, 5 or 7.")]
Security = Annotated[int, typer.Option(help="Bits of security: 128, 192 or 256.")]
Memory = Annotated[float, typer.Option(help="GiB of memory that the server may use.", min=0.1)]
Cores = Annotated[int, typer.Option(help="Cores of the server, for the predicted time.", min=1)]
HeadName = Annotated[str, typer.Option("--head", help="logistic, one-vs-rest or ridge.")]
Server = Annotated[str | None, typer.Option(help="The server's URL; remembered by submit.")]
TokenFile = Annotated[Path | None, typer.Option(help="File with the server's token; else BLINDTUNE_TOKEN.")]


def keygen(
    out: Annotated[Path, typer.Option(help="Directory for secret.key; made if missing.")],
    steps: Steps = 3,
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
    _make_directory(out)
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
    _tell("Secret key", told, json_)


def plan(
    data: Annotated[
        Path | None, typer.Argument(help="Embeddings (.npz) to rehearse on; else give sizes.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Training rows.", min=1)] = 1000,
    features: Annotated[int, typer.Option(help="Whitened directions; with the bias, columns.", min=1)] = 191,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 2,
    head: HeadName = "logistic",
    steps: Steps = 3,
    degree: Degree = 7,
    security: Security = 128,
    lanes: Annotated[
        int | None, typer.Option(help="Fix the lanes, a power of two, instead of choosing them.", min=1)
    ] = None,
    memory: Memory = 16.0,
    cores: Cores = 2,
    json_: Json = False,
) -> None:
    """Show parameters, packing, keys, upload, memory and operations before anything is encrypted."""
    options: dict[str, Any] = {
        "security": security,
        "lanes": lanes,
        "memory_limit": int(memory * 2**30),
        "cores": cores,
    }
    rehearsal: dict[str, Any] = {}
    if data is not None:
        from blindtune.client.prepare import outputs_of, prepare
        from blindtune.imaging import load_embeddings

        loaded = load_embeddings(data)
        made = _head(head, outputs_of(loaded.classes), steps, degree)
        prepared = prepare(loaded, head=made, **options)
        planned = prepared.plan
        rehearsal = _rehearsal(prepared)
    else:
        from blindtune.plan import plan as make

        outputs = 1 if classes == 2 else classes
        planned = make(rows, features + 1, outputs, _head(head, outputs, steps, degree), **options)
    found = {**planned.to_json(), **rehearsal}
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
    head: HeadName = "logistic",
    steps: Steps = 3,
    degree: Degree = 7,
    directions: Annotated[
        int | None, typer.Option(help="Whitened directions; chosen on validation.", min=1)
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Whitening shrinkage; chosen on validation.", min=0.0)
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate; chosen on validation.", min=1e-6)] = None,
    security: Security = 128,
    member: Annotated[
        str, typer.Option(help="Name in the study, seen by the server; a-z, 0-9, hyphens.")
    ] = "hospital",
    note: Annotated[list[str] | None, typer.Option(help="A remark for the report; repeatable.")] = None,
    memory: Memory = 16.0,
    cores: Cores = 2,
    json_: Json = False,
) -> None:
    """Scans to an encrypted study: features, whitening, rehearsal, plan, encryption.

    Run it again after an interruption: features that were computed are kept.
    """
    from blindtune.client.prepare import outputs_of, prepare
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(out)
    directory.check()
    _check_member(member)
    secret = render.load_key(key) if key else None
    # Ask before the long work, not after it.
    locked = render.passphrase(ask=passphrase, confirm=True) if secret is None else None
    with _nothing_half_made(directory, own_key=secret is None):
        started = time.perf_counter()
        data, origin = _load(scans, labels, backbone, weights, directory, json_)
        embedded = time.perf_counter()
        made = _head(head, outputs_of(data.classes), steps, degree)
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
                cores=cores,
                parameters=secret.parameters if secret else None,
            )
        rehearsed = time.perf_counter()
        settings = _encrypt(prepared, directory, secret, locked, member, origin, tuple(note or ()), json_)
        encrypted = time.perf_counter()
    sent = sum(p.stat().st_size for p in (out / "outbox").rglob("*") if p.is_file())
    told = {
        "study": settings.study,
        "classes": ", ".join(settings.classes),
        "training_rows": len(data.indices("train")),
        "outputs": settings.outputs,
        **_rehearsal(prepared),
        "security": settings.security,
        "ring_degree": prepared.plan.parameters.ring_degree,
        "to_upload": render.megabytes(sent),
        "predicted_training": f"{prepared.plan.seconds:.1f} s on {cores} cores",
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
    _tell("Encrypted study", told, json_)


def submit(
    study: Study,
    server: Server = None,
    token_file: TokenFile = None,
    start: Annotated[bool, typer.Option(help="Start training when everything is uploaded.")] = True,
    plain_http: Annotated[
        bool, typer.Option(help="Allow http to another machine: the token is readable.")
    ] = False,
    json_: Json = False,
) -> None:
    """Upload the study's bundles and start training. Run it again after an interruption."""
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(study)
    settings = directory.settings()
    url = _url(directory, server)
    directory.check_outbox(settings)
    bundles = [directory.keys_bundle, directory.data_bundle]
    total = sum(p.stat().st_size for b in bundles for p in (b / "parts").glob("*"))
    with _remote(url, token_file, plain_http) as remote, render.progress(json_) as shown:
        task = shown.add_task("uploading", total=total)
        remote.submit(bundles, lambda n: shown.advance(task, n))
        (directory.private / "server.json").write_text(json.dumps({"url": url}))
        state = remote.status(settings.study)
        # An earlier run may have been interrupted after the start: by now the study may be trained.
        if start and state.state != "done":
            state = remote.start(settings.study)
    _tell_status(state, json_)


def status(
    study: Study,
    server: Server = None,
    token_file: TokenFile = None,
    watch: Annotated[bool, typer.Option(help="Follow until training ends.")] = False,
    plain_http: Annotated[bool, typer.Option(help="Allow http to another machine.")] = False,
    json_: Json = False,
) -> None:
    """How far training is."""
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(study)
    settings = directory.settings()
    with _remote(_url(directory, server), token_file, plain_http) as remote:
        state = _watch(remote, settings.study, json_) if watch else remote.status(settings.study)
    _tell_status(state, json_)


def fetch(
    study: Study,
    server: Server = None,
    token_file: TokenFile = None,
    wait: Annotated[bool, typer.Option(help="Wait until training ends.")] = True,
    plain_http: Annotated[bool, typer.Option(help="Allow http to another machine.")] = False,
    json_: Json = False,
) -> None:
    """Download the encrypted head."""
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(study)
    settings = directory.settings()
    with _remote(_url(directory, server), token_file, plain_http) as remote:
        if wait:
            _watch(remote, settings.study, json_)
        manifest = _replace_head(remote, directory, settings)
    told = {
        "encrypted_head": str(directory.encrypted_head),
        "size": render.megabytes(sum(p.size for p in manifest.parts)),
        "next": f"blindtune decrypt {study}",
    }
    _tell("Fetched", told, json_)


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
            on_bytes=on_bytes,
        )
        for task in tasks.values():
            shown.update(task, completed=shown.tasks[task].total)
        return made


def _head(name: str, outputs: int, steps: int, degree: int) -> Head:
    from blindtune.models.heads import head_for

    if name == "ridge":
        return head_for(name, outputs, learning_rates=(0.9,) * steps)
    return head_for(name, outputs, learning_rates=(4.0,) * steps, degree=degree)


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


def _remote(url: str, token_file: Path | None, plain_http: bool) -> Remote:
    from blindtune.client.remote import Remote

    return Remote(url, render.token(token_file), allow_plain_http=plain_http)


def _url(directory: StudyDirectory, given: str | None) -> str:
    from blindtune.errors import InputError

    remembered = directory.private / "server.json"
    if given:
        return given
    if os.environ.get("BLINDTUNE_SERVER"):
        return os.environ["BLINDTUNE_SERVER"]
    try:
        return str(json.loads(remembered.read_text())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("no server", remedy="Give --server URL.") from None


def _replace_head(remote: Remote, directory: StudyDirectory, settings: Settings) -> Manifest:
    """Download the head; one that was fetched before is replaced once the new one is whole."""
    inbox = directory.encrypted_head.parent
    fresh = inbox / "fetched"
    inbox.mkdir(exist_ok=True)
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        manifest = remote.fetch(settings.study, fresh, key=settings.key)
        shutil.rmtree(directory.encrypted_head, ignore_errors=True)
        fresh.replace(directory.encrypted_head)
        return manifest
    finally:
        with suppress(OSError):
            inbox.rmdir()


def _make_directory(path: Path) -> None:
    from blindtune.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(
            f"the directory cannot be made ({error.strerror})",
            where=path.name,
            remedy="Choose a directory that you may write to.",
        ) from error


def _watch(remote: Remote, study: str, quiet: bool) -> Status:
    with render.progress(quiet) as shown:
        task = shown.add_task("queued", total=None)

        def on_status(state: Status) -> None:
            p = state.progress
            if p is None or p.step == 0:
                shown.update(task, description=p.phase if p else state.state)
                return
            text = f"step {p.step}/{p.steps} {p.phase}, level {p.level}"
            shown.update(task, description=text, total=p.total, completed=p.done)

        return remote.wait(study, on_status)


def _tell_status(state: Status, json_: bool) -> None:
    found = asdict(state)
    if json_:
        render.print_json(found)
        return
    told = {"study": state.study, "state": state.state}
    if state.progress is not None:
        p = state.progress
        told["step"] = f"{p.step} of {p.steps}, {p.phase}, level {p.level}"
        told["tasks"] = f"{p.done} of {p.total}"
        told["seconds"] = f"{p.seconds:.1f}" + (f", about {p.eta:.0f} left" if p.eta else "")
    if state.error:
        told["error"] = f"{state.error}. {state.remedy}"
    _tell("Study", told, False)


def _tell(title: str, told: dict[str, Any], json_: bool) -> None:
    if json_:
        render.print_json(told)
    else:
        render.rows(title, [(k.replace("_", " "), str(v)) for k, v in told.items() if v is not None])


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
