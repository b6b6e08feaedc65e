"""Opening a study's result: every member consents, every member answers once, all see the head, no one else.

Answers are sealed between the hospitals: the mailbox and the training server see neither them nor the head.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from blindtune.errors import EngineError, FederationError
from blindtune.federation.agreement import Schema
from blindtune.federation.threshold import envelope
from blindtune.federation.threshold.party import Party, Waiting
from blindtune.federation.threshold.transcript import CONSENT, SHARE
from blindtune.he.flooding import slots
from blindtune.he.openfhe.opening import Opened, fuse
from blindtune.kernels.packing import unpack_weights
from blindtune.privacy.noise import discrete_gaussian
from blindtune.wire.message import Digest


class Consent(Schema):
    """A member's answer to the question whether a result may be opened."""

    agreed: bool
    reason: Annotated[str, Field(max_length=200)] = ""
    ciphertexts: Annotated[list[Digest], Field(max_length=1 << 12)]


def opening_id(ciphertexts: Sequence[bytes]) -> str:
    """What the stages of one result's opening are called by."""
    digests = [hashlib.sha256(data).hexdigest() for data in ciphertexts]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:32]


class Opening:
    """One result on its way to being opened, at one hospital.

    Args:
        party: the hospital, its keys made.
        ciphertexts: blobs of the trained weights, by weight block and column block.

    Raises:
        FederationError: they are not what the agreed program ends with.
    """

    def __init__(self, party: Party, ciphertexts: Sequence[bytes]) -> None:
        self._party, terms = party, party.terms
        if len(ciphertexts) != len(terms.periods):
            raise FederationError(
                f"{len(ciphertexts)} ciphertexts instead of {len(terms.periods)}", where="result"
            )
        try:
            self._opened = [
                Opened.read(data, terms.checked_parameters, terms.final_level, period)
                for data, period in zip(ciphertexts, terms.periods, strict=True)
            ]
        except EngineError as error:
            raise FederationError(error.what, where="result", remedy=error.remedy) from error
        self._digests = [hashlib.sha256(data).hexdigest() for data in ciphertexts]
        self._id = opening_id(ciphertexts)

    def consent(self) -> None:
        """Agree that the result is opened."""
        self._answer(Consent(agreed=True, ciphertexts=self._digests))

    def refuse(self, reason: str) -> None:
        """Leave it closed, and tell the others why."""
        self._answer(Consent(agreed=False, reason=reason[:200], ciphertexts=self._digests))

    def advance(self) -> Waiting:
        """Answer once everybody consented; with nobody absent :meth:`head` is there.

        Raises:
            FederationError: someone refused, or consented to something else; a ciphertext was opened before,
                or more than were agreed on.
        """
        party = self._party
        party.transcript.check_running()
        stage = f"{CONSENT}-{self._id}"
        absent = party.transcript.absent(stage)
        if absent:
            return Waiting(CONSENT, absent)
        for name in party.terms.roster.names:
            self._check(name, party.transcript.read(stage, CONSENT, name) or b"")
        party.say(f"{SHARE}-{self._id}", SHARE, self._sealed)
        return Waiting(SHARE, party.transcript.absent(f"{SHARE}-{self._id}"))

    def head(self) -> NDArray[np.float64]:
        """The weights in clear: (columns, heads), heads of all weight blocks side by side.

        Raises:
            FederationError: not all members answered, or an answer does not open.
        """
        if self.advance().absent:
            raise FederationError("not everybody answered yet", where="result")
        party = self._party
        parts = {name: self._parts(name) for name in party.terms.roster.names}
        p, layout = party.terms.checked_parameters, party.terms.checked_layout
        values = [
            fuse(opened, [of_member[n] for of_member in parts.values()], p)
            for n, opened in enumerate(self._opened)
        ]
        columns = len(layout.widths)
        blocks = [values[k : k + columns] for k in range(0, len(values), columns)]
        return np.concatenate([unpack_weights(block, layout) for block in blocks], axis=1)

    def _answer(self, consent: Consent) -> None:
        self._party.say(f"{CONSENT}-{self._id}", CONSENT, lambda: consent.model_dump_json().encode())

    def _check(self, name: str, body: bytes) -> None:
        try:
            said = Consent.model_validate_json(body)
        except ValidationError:
            raise FederationError(f"{name} neither consented nor refused", where=CONSENT) from None
        if not said.agreed:
            reason = "".join(c for c in said.reason if c.isprintable())
            raise FederationError(f"{name} refused: {reason}; the result stays closed", where=CONSENT)
        if said.ciphertexts != self._digests:
            raise FederationError(f"{name} consented to another result", where=CONSENT)

    def _sealed(self) -> bytes:
        """This hospital's answers, for the others."""
        party = self._party
        content = b"".join(self._own(opened) for opened in self._opened)
        others = [n for n in party.terms.roster.names if n != party.name]
        keys = {name: party.sealing_key_of(name) for name in others}
        return envelope.sealed(content, party.name, party.sealing, keys, self._context)

    def _own(self, opened: Opened) -> bytes:
        """The one answer to a ciphertext that this hospital ever gives."""
        outbox, terms = self._party.outbox, self._party.terms
        # The second polynomial alone meets the secret.
        name = hashlib.sha256(opened.rows[1].tobytes()).hexdigest()
        if outbox.once(f"opened.{name}", self._id.encode) != self._id.encode():
            raise FederationError(
                "a ciphertext of this result was opened before", where="result", remedy="Train again."
            )
        if outbox.count("opened.") > terms.results * len(terms.periods):
            raise FederationError(f"more than the {terms.results} results agreed on", where="result")

        def answer() -> bytes:
            noise = discrete_gaussian(terms.deviation, opened.coefficients)
            hidden = slots(noise, terms.checked_parameters.scale)
            return self._party.share.partial(opened, hidden).astype("<u8").tobytes()

        return outbox.once(f"answer.{name}", answer)

    def _parts(self, name: str) -> list[NDArray[np.uint64]]:
        """A member's answers, each (coefficients,)."""
        party = self._party
        if name == party.name:
            content = b"".join(self._own(opened) for opened in self._opened)
        else:
            body = party.transcript.read(f"{SHARE}-{self._id}", SHARE, name) or b""
            order = [n for n in party.terms.roster.names if n != name]
            public = party.sealing_key_of(name)
            content = envelope.unsealed(body, name, public, party.name, party.sealing, order, self._context)
        sizes = [opened.coefficients for opened in self._opened]
        if len(content) != 8 * sum(sizes):
            raise FederationError(f"answers of {name} of another length", where=SHARE)
        values = np.frombuffer(content, "<u8").astype(np.uint64)
        if (values >= party.terms.checked_parameters.primes[0]).any():
            raise FederationError(f"an answer of {name} that cannot be", where=SHARE)
        return np.split(values, np.cumsum(sizes)[:-1])

    @property
    def _context(self) -> bytes:
        return hashlib.sha256(self._party.terms.digest + self._id.encode()).digest()
