"""The hospital's commands that talk to the server: ``submit``, ``status``, ``fetch``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Ca, ClientCert, Json, PlainHttp, Server, Study, TokenFile
from blindtune.cli.place import SERVER, given_or_kept, keep
from blindtune.cli.place import remote as remote_at

if TYPE_CHECKING:
    from blindtune.client.remote import Remote, Status
    from blindtune.client.settings import Settings
    from blindtune.client.study import StudyDirectory
    from blindtune.wire.manifest import Manifest


def submit(
    study: Study,
    server: Server = None,
    token_file: TokenFile = None,
    start: Annotated[bool, typer.Option(help="Start training when everything is uploaded.")] = True,
    ca: Ca = None,
    client_cert: ClientCert = None,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Upload the study's bundles and start training. Run it again after an interruption."""
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(study)
    settings = directory.settings()
    place = given_or_kept(directory.private / SERVER, server, ca, client_cert)
    directory.check_outbox(settings)
    bundles = [directory.keys_bundle, directory.data_bundle]
    total = sum(p.stat().st_size for b in bundles for p in (b / "parts").glob("*"))
    with remote_at(place, token_file, plain_http) as remote, render.progress(json_) as shown:
        task = shown.add_task("uploading", total=total)
        remote.submit(bundles, lambda n: shown.advance(task, n))
        keep(directory.private / SERVER, place)
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
    ca: Ca = None,
    client_cert: ClientCert = None,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """How far training is."""
    with _submitted(study, server, token_file, ca, client_cert, plain_http) as (_, settings, remote):
        state = watch_training(remote, settings.study, json_) if watch else remote.status(settings.study)
    _tell_status(state, json_)


def fetch(
    study: Study,
    server: Server = None,
    token_file: TokenFile = None,
    wait: Annotated[bool, typer.Option(help="Wait until training ends.")] = True,
    ca: Ca = None,
    client_cert: ClientCert = None,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Download the encrypted head."""
    with _submitted(study, server, token_file, ca, client_cert, plain_http) as (directory, settings, remote):
        if wait:
            watch_training(remote, settings.study, json_)
        manifest = _replace_head(remote, directory, settings)
    told = {
        "encrypted_head": str(directory.encrypted_head),
        "size": render.megabytes(sum(p.size for p in manifest.parts)),
        "next": f"blindtune decrypt {study}",
    }
    render.tell("Fetched", told, json_)


@contextmanager
def _submitted(
    study: Path,
    server: str | None,
    token_file: Path | None,
    ca: Path | None,
    client_cert: Path | None,
    plain_http: bool,
) -> Iterator[tuple[StudyDirectory, Settings, Remote]]:
    """A study that was submitted, and the server that has it."""
    from blindtune.client.study import StudyDirectory

    directory = StudyDirectory(study)
    settings = directory.settings()
    place = given_or_kept(directory.private / SERVER, server, ca, client_cert)
    with remote_at(place, token_file, plain_http) as remote:
        yield directory, settings, remote


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


def watch_training(remote: Remote, study: str, quiet: bool) -> Status:
    """Follow a training to its end."""
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
    render.tell("Study", told, False)
