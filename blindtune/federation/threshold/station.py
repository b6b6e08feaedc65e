"""A hospital's own directory of one study: what was offered and approved, its share, what goes and comes.

``terms.json`` (offered), ``approved.json``, ``ledger.json`` (where the privacy ledger lies), ``private/``
(never leaves: the share of the key and all that was said), ``rows/`` and ``keys/`` (bundles for the server),
``inbox/`` (the encrypted head), ``head/`` (opened).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from blindtune import __version__
from blindtune.errors import FederationError, InputError
from blindtune.federation.heads import Cases, Floats
from blindtune.federation.identity import Identity
from blindtune.federation.members import CARD, IDENTITY, Card, read
from blindtune.federation.setup import numbered
from blindtune.federation.threshold.mailbox import Mailbox
from blindtune.federation.threshold.outbox import Glance
from blindtune.federation.threshold.party import Party
from blindtune.federation.threshold.rows import JointRows, noisy_of, raw, task_of, write_keys
from blindtune.federation.threshold.terms import Task, Terms, approve
from blindtune.federation.threshold.transcript import Transcript
from blindtune.files import exclusive, whole_file, writing
from blindtune.imaging.arrays import Embeddings
from blindtune.models.linear import LinearHead
from blindtune.privacy.ledger import Ledger
from blindtune.wire.message import MAX_TERMS

OFFERED, APPROVED, HOME, LEDGER = "terms.json", "approved.json", "home.json", "ledger.json"


class Station:
    """A hospital in one study.

    Args:
        directory: from :meth:`join`.

    Raises:
        InputError: no study was joined here.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.private = directory / "private"
        self.rows, self.keys, self.head = (directory / name for name in ("rows", "keys", "head"))
        self.encrypted_head = directory / "inbox" / "head"
        if not (directory / OFFERED).is_file():
            raise InputError(
                "no study was joined here", where=directory.name, remedy="Run blindtune study join."
            )

    @classmethod
    def join(cls, directory: Path, terms: Terms, home: Path) -> Station:
        """Keep what is offered; nothing is said yet.

        Args:
            directory: of this hospital's own, for this study alone; exists.
            home: with the hospital's keys, from ``blindtune federate init``.

        Raises:
            FederationError: this hospital is no member, or other terms were offered here before.
            InputError: no card in ``home``, or the directory cannot be written.
        """
        name = read(Card, home / CARD).name
        if name not in terms.members:
            raise FederationError(
                "this hospital is not a member of the study", where=name, remedy="Ask whoever made the study."
            )
        text = terms.model_dump_json(indent=1).encode()
        if (directory / OFFERED).exists() and cls(directory).offered.digest != terms.digest:
            raise FederationError(
                "another study, or other terms, were offered here before",
                where=directory.name,
                remedy="Ask whoever changed them; another study needs another directory.",
            )
        with writing("the study", directory.name):
            (directory / "private").mkdir(exist_ok=True, mode=0o700)
            for file, content in ((OFFERED, text), (HOME, json.dumps(str(home.resolve())).encode())):
                with whole_file(directory / file) as partial:
                    partial.write_bytes(content)
        return cls(directory)

    @property
    def offered(self) -> Terms:
        """The terms as they were offered here."""
        return self._read(OFFERED)

    @property
    def approved(self) -> Terms:
        """The terms that this hospital approved.

        Raises:
            FederationError: it has not approved any.
        """
        if not (self.directory / APPROVED).is_file():
            raise FederationError(
                "this hospital has not approved the terms",
                where=self.directory.name,
                remedy="Run blindtune study approve.",
            )
        return self._read(APPROVED)

    @property
    def home(self) -> Path:
        """Where this hospital's keys are."""
        try:
            return Path(json.loads((self.directory / HOME).read_text()))
        except (OSError, ValueError, TypeError):
            raise InputError("damaged", where=HOME, remedy="Run blindtune study join again.") from None

    @property
    def name(self) -> str:
        """This hospital's name among the members."""
        return read(Card, self.home / CARD).name

    def approve(self, offered: Terms, ledger: Path | None = None) -> None:
        """Approve exactly these terms, once for all.

        Args:
            ledger: of this hospital's patients, for terms with noise on the sums; remembered, and given again
                if it was moved.

        Raises:
            FederationError: they are not the ones that were looked at here, or approved before; or of another
                version of blindtune; or they have noise and there is no ledger.
            InputError: a ledger that the terms have no use for.
            PrivacyError: no ledger there, or a budget that does not hold the noise.
        """
        approve(offered, self.offered)
        noisy = noisy_of(offered)
        if ledger and not noisy:
            raise InputError("these terms add no noise", where="--ledger", remedy="Leave it out.")
        known = (self.directory / APPROVED).is_file()
        if known:
            approve(offered, self.approved)
        elif noisy:
            with closing(noisy.needed(Ledger(ledger) if ledger else None)) as book:
                book.afford(noisy.privacy.release)
        with writing("the approval", self.directory.name):
            if ledger:
                with whole_file(self.directory / LEDGER) as partial:
                    partial.write_text(json.dumps(str(ledger.resolve())))
            if not known:
                with whole_file(self.directory / APPROVED) as partial:
                    partial.write_text(offered.model_dump_json(indent=1))

    @contextmanager
    def ledger(self) -> Iterator[Ledger | None]:
        """The privacy ledger that was named at the approval; None if none was.

        Raises:
            PrivacyError: no ledger is there any more.
            InputError: nobody can read where it was.
        """
        try:
            path = Path(json.loads((self.directory / LEDGER).read_text()))
        except FileNotFoundError:
            yield None
            return
        except (OSError, ValueError, TypeError):
            raise InputError(
                "damaged", where=LEDGER, remedy="Run blindtune study approve again with --ledger."
            ) from None
        with closing(Ledger(path)) as book:
            yield book

    def alone(self) -> AbstractContextManager[None]:
        """Held while this hospital speaks: two processes at once could say two things.

        Raises:
            FederationError: another process speaks for it.
        """
        busy = FederationError(
            "another process works on this study here", where=self.directory.name, remedy="Wait for its end."
        )
        return exclusive(self.private / "lock", busy)

    def party(
        self, offered: Terms, mailbox: Mailbox, passphrase: str | None = None, *, approved: bool = True
    ) -> Party:
        """This hospital in the study.

        Args:
            approved: the terms have to be the approved ones; else those that were looked at, for saying no.

        Raises:
            FederationError: nothing was approved, or something else.
            KeyFileError: the hospital's key cannot be read.
        """
        expected = self.approved if approved else self.offered
        identity = Identity.read(self.home / IDENTITY, passphrase)
        return Party(offered, expected, self.name, identity, mailbox, self.private)

    def transcript(self, mailbox: Mailbox) -> Transcript:
        """What the members said, for looking on, beside a process that speaks too."""
        return Transcript(self.offered, mailbox, Glance(self.private))

    def _read(self, name: str) -> Terms:
        with (self.directory / name).open("rb") as file:
            return Terms.parse(file.read(MAX_TERMS + 1))


def contribution(party: Party, data: Embeddings) -> JointRows:
    """A hospital's training rows, which stay the ones that it contributed first.

    Raises:
        FederationError: rows that do not fit the study.
        InputError: other rows than before, or a class that the study has not.
    """
    cases = training_cases(task_of(party.terms), data)
    told = (cases.features, cases.labels, cases.patients)
    digest = hashlib.sha256(b"".join(a.tobytes() for a in told)).hexdigest().encode()
    if party.outbox.once("cases", lambda: digest) != digest:
        raise InputError(
            "other rows than this hospital contributed before", remedy="Give the same embeddings again."
        )
    return JointRows(party, cases)


def training_cases(task: Task, data: Embeddings) -> Cases:
    """The training rows, their labels by the study's classes.

    Raises:
        InputError: a class that the study has not; noise by patient, and no patients.
    """
    if task.privacy and not data.named:
        raise InputError(
            "no patients in the file, and the noise is accounted by patient",
            remedy="Add the array patients (n,); numbers will do.",
        )
    train = data.indices("train")
    labels, patients = data.labels_of(task.classes), numbered(data.patients)
    return Cases(data.features[train], labels[train], patients[train])


def joint_head(party: Party, weights: Floats) -> LinearHead:
    """An opened head, as commands for heads take it."""
    task = task_of(party.terms)
    backbone = {"name": task.model.backbone, "fingerprint": task.model.fingerprint}
    provenance = {
        "trained": "under a joint key",
        "calibration": "none",
        "security": party.terms.parameters.security,
        "members": len(party.terms.members),
        "blindtune": __version__,
        "steps": party.terms.program.steps,
        "degree": party.terms.program.degree,
        "learning_rates": task.rates,
    }
    return LinearHead(
        *raw(party, weights),
        tuple(task.classes),
        "multiclass",
        backbone if task.model.backbone else {},
        provenance,
    )


def write_bundles(station: Station, party: Party, rows: JointRows) -> list[Path]:
    """What this hospital uploads: its rows and, from the first by name, the joint evaluation keys.

    What was written before is not written again.

    Raises:
        FederationError: someone has not contributed to the sum yet, or a share is none.
    """
    if not station.rows.exists():
        rows.write(station.rows)
    if party.name != party.terms.roster.names[0]:
        return [station.rows]
    if not station.keys.exists():
        write_keys(party.transcript, station.keys)
    return [station.keys, station.rows]
