"""Members of a study who sign messages, under terms that say nothing but who they are."""

from __future__ import annotations

import hashlib
import json

from blindtune.federation.identity import Identity
from blindtune.federation.threshold.message import signed
from blindtune.wire.message import OFFER, Statement


class Members:
    """The members of one study.

    Attributes:
        identities: by name.
    """

    def __init__(self, *names: str, study: str = "5a" * 16) -> None:
        self.identities = {name: Identity.generate() for name in names}
        keys = {name: identity.public.hex() for name, identity in self.identities.items()}
        self._terms = json.dumps({"study": study, "members": keys}).encode()

    @property
    def offer(self) -> bytes:
        """The first message of a mailbox, by the first of them."""
        name = next(iter(self.identities))
        return self.message(*OFFER[:2], name, self._terms)

    def message(self, stage: str, item: str, sender: str, body: bytes, by: str = "", **changes: str) -> bytes:
        """A message in a sender's name.

        Args:
            by: who signs it, if another one does.
            changes: of the statement.
        """
        told = {
            "terms": hashlib.sha256(self._terms).hexdigest(),
            "code": "1",
            "stage": stage,
            "item": item,
            "sender": sender,
            "before": "0" * 64,
            "body": hashlib.sha256(body).hexdigest(),
        }
        return signed(self.identities[by or sender], Statement(**{**told, **changes}), body)


def told(message: bytes) -> dict[str, object]:
    """What a server is told of a message before its content."""
    from blindtune.wire.message import parsed

    _, text, signature, _ = parsed(message)
    return {
        "sha256": hashlib.sha256(message).hexdigest(),
        "size": len(message),
        "statement": text.decode(),
        "signature": signature.hex(),
    }
