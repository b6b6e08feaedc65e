"""What all members said, stage by stage, as anyone can check it; and the joint keys that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from blindtune.errors import EngineError, FederationError
from blindtune.federation.identity import digits
from blindtune.federation.threshold.mailbox import Mailbox
from blindtune.federation.threshold.message import opened, stated
from blindtune.federation.threshold.outbox import Outbox
from blindtune.federation.threshold.terms import Terms
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.refresh import part_bytes
from blindtune.wire.message import Statement, overhead

JOIN, FIRST, SECOND, CONFIRM = "join", "first", "second", "confirm"
STAGES = (JOIN, FIRST, SECOND, CONFIRM)
"""Of key generation: commitments; shares of all keys; shares of the relinearisation key; what was heard."""

ABORT, CONSENT, REFRESH, SHARE, SUM = "abort", "consent", "refresh", "share", "sum"
MAX_SMALL, MAX_SUM = 1 << 16, 1 << 26


class Transcript:
    """A study's messages, each verified once.

    Args:
        memory: where statements are kept, so that nobody can change them later; none for a mere reader.
    """

    def __init__(self, terms: Terms, mailbox: Mailbox, memory: Outbox | None = None) -> None:
        self.terms, self._mailbox, self._memory = terms, mailbox, memory
        self._heard: dict[tuple[str, str, str], Statement] = {}

    def items(self, stage: str) -> list[str]:
        """What each member says in a stage."""
        if stage == FIRST:
            return joint.first_items(self.terms.keys, self.terms.parameters.ring_degree)
        return [joint.RELINEARISED] if stage == SECOND else [stage.partition("-")[0]]

    def read(self, stage: str, item: str, sender: str) -> bytes | None:
        """A member's message; None where there is none yet.

        Raises:
            FederationError: altered, or of a member that approved another study, runs another version or
                heard something else.
        """
        message = self._mailbox.fetch(stage, item, sender, self._most(item))
        if message is None:
            return None
        statement, body = opened(message, self.terms.roster, stage, item, sender)
        self._hear(stage, item, sender, statement)
        return body

    def _hear(self, stage: str, item: str, sender: str, statement: Statement) -> None:
        """Remember a statement of a member that means the same study as this one."""
        terms = self.terms
        if statement.code != terms.code:
            problem = f"{sender} runs version {statement.code} of blindtune, not {terms.code}"
        elif statement.terms != terms.digest.hex():
            problem = f"{sender} approved other terms: another membership, plan or study"
        elif stage != ABORT and statement.before != self.before(stage):
            problem = f"{sender} heard other messages than were heard here"
        else:
            problem = ""
        if problem:
            raise FederationError(
                problem, where=stage, remedy="Nothing was decrypted. Compare fingerprints and begin anew."
            )
        if self._memory is not None:
            self._memory.pin(heard_name(stage, item, sender), statement.text, f"a message of {sender}")
        self._heard[stage, item, sender] = statement

    def absent(self, stage: str) -> tuple[str, ...]:
        """Members whose messages of a stage are not all there; statements tell, and bodies are not read.

        Raises:
            FederationError: see :meth:`read`.
        """
        return tuple(
            name
            for name in self.terms.roster.names
            if not all(self._known(stage, item, name) for item in self.items(stage))
        )

    def before(self, stage: str) -> str:
        """The digest that messages of a stage carry: of all statements of the stages before it, in hex.

        Raises:
            FederationError: not all of them are there.
        """
        found = hashlib.sha256(b"blindtune threshold transcript " + self.terms.digest)
        for earlier in self._earlier(stage):
            for name in self.terms.roster.names:
                for item in self.items(earlier):
                    if not self._known(earlier, item, name):
                        raise FederationError(
                            f"a message before those of {name} that it answers", where=stage
                        )
                    text = self._heard[earlier, item, name].text
                    found.update(len(text).to_bytes(4, "big") + text)
        return found.hexdigest()

    @property
    def fingerprint(self) -> str:
        """Five groups of four digits of all of key generation, for people to compare."""
        return digits(bytes.fromhex(self.before(CONSENT)))

    def check_running(self) -> None:
        """Refuse to go on with a study that a member ended.

        Raises:
            FederationError: saying who ended it and why.
        """
        for name in self.terms.roster.names:
            reason = self.read(ABORT, ABORT, name)
            if reason is not None:
                raise FederationError(
                    f"{name} ended the study: {_plain(reason)}", where="study", remedy="Begin a new study."
                )

    def joint(self, item: str) -> bytes:
        """The joint key of an item, once all members' shares are there.

        Raises:
            FederationError: a share is missing, or is none of this study's.
        """
        stage = SECOND if item == joint.RELINEARISED else FIRST
        shares = []
        for name in self.terms.roster.names:
            body = self.read(stage, item, name)
            if body is None:
                raise FederationError(f"the share of {name} is missing", where=item)
            shares.append(body)
        try:
            return joint.summed(shares, item, self.terms.digest, self.terms.checked_parameters)
        except EngineError as error:
            raise FederationError(error.what, where=item, remedy=error.remedy) from error

    def evaluation_keys(self) -> tuple[bytes, dict[int, bytes]]:
        """The relinearisation key, and Galois keys by element: what a server evaluates with."""
        elements = [joint.element_of(item) for item in self.items(FIRST)]
        galois = {e: self.joint(f"galois-{e}") for e in elements if e}
        return self.joint(joint.RELINEARISED), galois

    def _known(self, stage: str, item: str, name: str) -> bool:
        if (stage, item, name) in self._heard:
            return True
        remembered = self._memory.recall(heard_name(stage, item, name)) if self._memory else None
        # A hospital uses no one's rotation keys: it has to know which ones everybody means, once.
        if remembered and (joint.element_of(item) or self._settled(stage)):
            self._heard[stage, item, name] = Statement.model_validate_json(remembered)
            return True
        message = self._mailbox.fetch(stage, item, name, overhead())
        if message is None:
            return False
        self._hear(stage, item, name, stated(message, self.terms.roster, stage, item, name)[0])
        return True

    def _settled(self, stage: str) -> bool:
        """Whether everybody has confirmed what this hospital remembers of key generation."""
        if stage not in STAGES or self._memory is None:
            return False
        memory, names = self._memory, self.terms.roster.names
        return all(memory.recall(heard_name(CONFIRM, CONFIRM, name)) is not None for name in names)

    def _earlier(self, stage: str) -> Sequence[str]:
        """The stages that a stage answers; what those answer they carry with them."""
        if stage in STAGES:
            return STAGES[: STAGES.index(stage)]
        kind, _, which = stage.partition("-")
        refreshes = int(which) if kind == REFRESH else len(self.terms.program.refreshes)
        if kind == SHARE:
            return (*STAGES, f"{CONSENT}-{which}")
        if kind == REFRESH or (kind == CONSENT and which):
            return (*STAGES, f"{REFRESH}-{refreshes - 1}") if refreshes else STAGES
        return STAGES

    def _most(self, item: str) -> int:
        if item in self.items(FIRST) or item == joint.RELINEARISED:
            p = self.terms.checked_parameters
            return joint.header_of(item, p).bytes(p) + overhead()
        if item == REFRESH:
            p = self.terms.checked_parameters
            most = max(len(self.terms.stale_levels(n)) for n in range(len(self.terms.program.refreshes)))
            return 32 + part_bytes(p.levels, p) * most + overhead()
        if item == SUM:
            return MAX_SUM
        return MAX_SMALL + sum(16 * p + 16 for p in self.terms.periods) + overhead()


def heard_name(stage: str, item: str, sender: str) -> str:
    """Where a statement is remembered."""
    return f"heard.{stage}.{item}.{sender}"


def _plain(reason: bytes) -> str:
    """A member's words, short and without control characters."""
    return "".join(c for c in reason[:400].decode(errors="replace") if c.isprintable())[:200]
