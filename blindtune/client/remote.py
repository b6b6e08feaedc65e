"""The hospital's side of the wire: submit bundles, start, watch, and fetch the encrypted head."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from blindtune.client.mailbox import RemoteMailbox
from blindtune.client.transport import Line, Transport
from blindtune.client.uploading import AGAIN, Uploading
from blindtune.errors import BundleError, InputError
from blindtune.wire.bundle import MANIFEST, PARTS, Bundle
from blindtune.wire.manifest import MAX_MANIFEST_BYTES, Manifest, Part, parse_manifest
from blindtune.wire.tls import client_context


@dataclass(frozen=True)
class JobProgress:
    """Where a study stands: task ``done`` of ``total`` (bytes in the phases ``verify`` and ``load``)."""

    step: int
    steps: int
    phase: Line
    level: int
    done: int
    total: int
    seconds: float
    eta: float | None
    operations: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """A study's state at the server.

    Attributes:
        state: uploading, ready, queued, running, done, failed or cancelled.
        error: why it failed, in one line.
        uploaded: members whose data are there.
        keys: whether the evaluation keys are there.
        progress: of the last or running training.
        job: of the last or running training.
    """

    study: Line
    state: Line
    error: Line
    remedy: Line
    members: list[Line]
    uploaded: list[Line]
    keys: bool
    progress: JobProgress | None
    job: Line | None = None


@dataclass(frozen=True)
class MissingParts:
    """What the server lacks of a bundle."""

    missing: list[Part]


class Remote:
    """A blindtune server. A context manager; close it otherwise.

    Args:
        url: ``https://host[:port]``; plain http to this machine only.
        token: the server's.
        allow_plain_http: also to other machines: whoever listens then reads the token.
        ca: authorities (PEM) to trust instead of the system's.
        client_cert: our own certificate with its key (PEM), for a server that wants one.
        insecure: accept test parameters without a security level.

    Raises:
        InputError: a certificate that cannot be used.
        RemoteError: an address that cannot be used. All methods raise it too when the server
            cannot be reached, refuses or fails.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        allow_plain_http: bool = False,
        ca: Path | None = None,
        client_cert: Path | None = None,
        insecure: bool = False,
    ) -> None:
        self._insecure = insecure
        self._http = Transport(url, token, allow_plain_http, client_context(ca, client_cert))

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def submit(self, bundles: Sequence[Path], on_bytes: Callable[[int], None] = lambda _: None) -> None:
        """Upload bundles of keys, data or weights to start from.

        Parts that the server has already are not sent again. Other weights to start from take the place of
        earlier ones, and the study can be trained anew.

        Args:
            on_bytes: called with bytes that are there; negative when a part has to be sent again.

        Raises:
            BundleError: a bundle is not whole, or holds a secret key; nothing has been sent then.
            RemoteError: refused, or the connection broke; submit again to continue.
        """
        opened = [Bundle(path, insecure=self._insecure) for path in bundles]
        if any(b.manifest.kind == "head" for b in opened):
            raise BundleError("a head is not submitted", remedy="Submit bundles of keys and data.")
        for bundle in opened:
            self._submit(bundle, on_bytes)

    def start(self, study: str) -> Status:
        """Queue a study whose bundles are all there."""
        self._http.json("POST", self._study(study) + "/jobs")
        return self.status(study)

    def status(self, study: str) -> Status:
        """A study's state now."""
        return self._status(self._http.json("GET", self._study(study)))

    def cancel(self, study: str) -> Status:
        """Take a study out of the queue, or stop its training."""
        self._http.json("POST", self._job(study, "there is nothing to cancel") + "/cancel")
        return self.status(study)

    def delete(self, study: str) -> None:
        """Remove a study and everything uploaded for it from the server."""
        self._http.call("DELETE", self._study(study))

    def timing(self, study: str) -> dict[str, Any]:
        """What a finished training took: seconds, memory and operations."""
        answer = self._http.json("GET", self._job(study, "it was never started") + "/timing")
        if not isinstance(answer, dict):
            raise self._http.strange()
        return answer

    def wait(
        self, study: str, on_status: Callable[[Status], None] = lambda _: None, poll: float = 0.5
    ) -> Status:
        """Poll until a study is done, or waits for the hospitals of its joint key.

        Raises:
            RemoteError: it failed, was cancelled, or was never started.
        """
        while True:
            status = self.status(study)
            on_status(status)
            if status.state in ("done", "waiting"):
                return status
            if status.state == "failed":
                raise self._http.error(f"training failed: {status.error}", status.remedy)
            if status.state not in ("queued", "running"):
                raise self._http.error(f"the study is {status.state}, not in training", "Start it first.")
            time.sleep(poll)

    def fetch(self, study: str, directory: Path, *, key: str) -> Manifest:
        """Download a trained study's encrypted head as a bundle; the directory appears once it is whole.

        Args:
            key: identifier of the key that the head must be under.

        Raises:
            BundleError: the directory exists, or what came is not this study's head under this key.
            InputError: the directory cannot be written.
        """
        if directory.exists():
            raise BundleError("it exists already", where=directory.name, remedy="Choose another --out.")
        text, _ = self._http.call("GET", self._study(study) + "/head/manifest", limit=MAX_MANIFEST_BYTES)
        manifest = parse_manifest(text, insecure=self._insecure)
        if (manifest.kind, manifest.study, manifest.key) != ("head", study, key):
            raise BundleError(
                "the server sent something else than this study's head under this key",
                where=self._http.host,
                remedy="Check the study and the key file.",
            )
        partial = directory.with_name(directory.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            (partial / PARTS).mkdir(parents=True)
            for part in manifest.parts:
                self._download(study, part, partial / PARTS / part.name)
            (partial / MANIFEST).write_bytes(text)
            Bundle(partial, insecure=self._insecure)
            os.replace(partial, directory)
        except OSError as error:
            raise InputError(
                "the head cannot be written here", where=directory.name, remedy="Choose another --out."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return manifest

    def mailbox(self, study: str) -> RemoteMailbox:
        """The messages of a study under a joint key."""
        self._study(study)
        return RemoteMailbox(self._http, study)

    def _submit(self, bundle: Bundle, on_bytes: Callable[[int], None]) -> None:
        m = bundle.manifest
        base = f"/studies/{m.study}/bundles"
        try:
            answer = self._http.json("POST", base, content=m.model_dump_json().encode())
            told = {p.name for p in Missing.validate_python(answer).missing}
        except ValidationError:
            raise self._http.strange() from None
        missing = [p for p in m.parts if p.name in told]
        on_bytes(bundle.size - sum(p.size for p in missing))
        for part in missing:
            Uploading(self._http, bundle.open_part(part.name), part, on_bytes).run()
        self._http.call("POST", f"{base}/{m.kind}/{m.member}/complete", remedy=AGAIN)

    def _download(self, study: str, part: Part, file: Path) -> None:
        def take(pieces: Iterator[bytes]) -> None:
            digest, size = hashlib.sha256(), 0
            with open(file, "wb") as out:
                for piece in pieces:
                    size += len(piece)
                    if size > part.size:
                        break
                    digest.update(piece)
                    out.write(piece)
            if size != part.size or digest.hexdigest() != part.sha256:
                raise BundleError(
                    f"part {part.name} arrived altered or truncated",
                    where=self._http.host,
                    remedy="Fetch it again.",
                )

        self._http.exchange("GET", f"{self._study(study)}/head/parts/{part.name}", take)

    def _study(self, study: str) -> str:
        if not re.fullmatch(r"[0-9a-f]{32}", study):
            raise self._http.error("a study's identifier has 32 hexadecimal digits", "See its manifest.")
        return f"/studies/{study}"

    def _job(self, study: str, otherwise: str) -> str:
        job = self.status(study).job
        if job is None or not re.fullmatch(r"[0-9a-f]{32}", job):
            raise self._http.error(otherwise, "Start it first.")
        return f"/jobs/{job}"

    def _status(self, answer: Any) -> Status:
        try:
            return States.validate_python(answer)
        except ValidationError:
            raise self._http.strange() from None


States = TypeAdapter(Status)
Missing = TypeAdapter(MissingParts)
