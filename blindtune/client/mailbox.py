"""A study's messages at a blindtune server, which is blind to them: see ``federation.threshold.mailbox``."""

from __future__ import annotations

import hashlib
import json

from blindtune.client.transport import StatusError, Transport
from blindtune.client.uploading import Uploading
from blindtune.errors import FederationError
from blindtune.wire.manifest import Part
from blindtune.wire.message import NAME, parsed


class RemoteMailbox:
    """The messages of one study.

    Args:
        study: its identifier.
    """

    def __init__(self, http: Transport, study: str) -> None:
        self._http, self._study = http, study

    def post(self, stage: str, item: str, sender: str, message: bytes) -> None:
        """Leave a message; the same one again changes nothing, and goes on where it was cut off.

        Raises:
            FederationError: another one lies there.
            RemoteError: the server cannot be reached, or refuses: what the sender did not sign, too.
        """
        part = Part(name="message", sha256=hashlib.sha256(message).hexdigest(), size=len(message))
        _, statement, signature, _ = parsed(message)
        signed = {"statement": statement.decode(), "signature": signature.hex()}
        told = json.dumps({"sha256": part.sha256, "size": part.size, **signed}).encode()
        try:
            answer = self._http.json("PUT", self._address(stage, item, sender), content=told)
        except StatusError as error:
            if error.status != 409:
                raise
            raise FederationError(
                f"another message of {sender} lies in the mailbox",
                where=stage,
                remedy="Someone uses this hospital's name or an old mailbox: begin a new study.",
            ) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("missing"), bool):
            raise self._http.strange()
        if answer["missing"]:
            Uploading(self._http, message, part, lambda _: None).run()

    def fetch(self, stage: str, item: str, sender: str, most: int) -> bytes | None:
        """The first so many bytes of a message; None where there is none yet.

        Raises:
            RemoteError: the server cannot be reached, or refuses.
        """
        wanted = {"Range": f"bytes=0-{most - 1}"}
        try:
            data, _ = self._http.call("GET", self._address(stage, item, sender), headers=wanted, limit=most)
        except StatusError as error:
            if error.status != 404:
                raise
            return None
        return data

    def _address(self, stage: str, item: str, sender: str) -> str:
        if not all(NAME.fullmatch(name) for name in (stage, item, sender)):
            raise FederationError("a name that no message can have", where="mailbox")
        return f"/studies/{self._study}/messages/{stage}/{item}/{sender}"
