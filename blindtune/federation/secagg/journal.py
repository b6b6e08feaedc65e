"""A member's memory of its sessions, which outlives its process: what it did, what it holds, what it opened.

SQLite with full synchronisation: an answer leaves only after the record that forbids the contrary answer.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

from blindtune.errors import FederationError
from blindtune.files import transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    digest BLOB PRIMARY KEY, study TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
    stage TEXT NOT NULL, state BLOB NOT NULL, UNIQUE (study, round, attempt)
) STRICT;
CREATE TABLE IF NOT EXISTS opened (
    digest BLOB NOT NULL, peer INTEGER NOT NULL, kind TEXT NOT NULL, PRIMARY KEY (digest, peer)
) STRICT;
CREATE TABLE IF NOT EXISTS sums (
    study TEXT NOT NULL, model TEXT NOT NULL, purpose TEXT NOT NULL, members BLOB NOT NULL,
    PRIMARY KEY (study, model, purpose)
) STRICT;
"""


class Journal:
    """The journal in a file, mode 0600.

    Raises:
        FederationError: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            # A file that others could read would lay open the secrets of running sessions.
            os.fchmod(file, 0o600)
            os.close(file)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise FederationError(
                "the journal cannot be used", where=path.name, remedy="Choose another directory."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _writing(self) -> AbstractContextManager[None]:
        return transaction(
            self._db,
            FederationError("the journal cannot be written", where="journal", remedy="Free some disk space."),
        )

    def begin(self, digest: bytes, study: str, at: tuple[int, int], stage: str, state: bytes) -> None:
        """Record a new session.

        Args:
            at: round and attempt; each has one session, and never an earlier one than before.

        Raises:
            FederationError: the session, or this attempt or a later one of the study, was there before.
        """
        with self._writing():
            last = self._db.execute(
                "SELECT round, attempt FROM sessions WHERE study = ? "
                "ORDER BY round DESC, attempt DESC LIMIT 1",
                (study,),
            ).fetchone()
            if last is not None and tuple(last) >= at:
                raise FederationError(
                    f"round {at[0]}, attempt {at[1]} was begun before",
                    where="secure aggregation",
                    remedy="A repeated round needs a new attempt.",
                )
            # What an unfinished session held serves no more.
            self._db.execute("UPDATE sessions SET state = x'' WHERE study = ? AND state <> x''", (study,))
            self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)", (digest, study, *at, stage, state)
            )

    def stage(self, digest: bytes) -> tuple[str, bytes]:
        """The stage and state of a session.

        Raises:
            FederationError: not one of this journal.
        """
        found = self._db.execute("SELECT stage, state FROM sessions WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            raise FederationError("a session that was not begun here", where="secure aggregation")
        return str(found[0]), bytes(found[1])

    def advance(self, digest: bytes, before: str, after: str, state: bytes) -> None:
        """Move a session on by one stage.

        Raises:
            FederationError: it is not at the stage before.
        """
        with self._writing():
            moved = self._db.execute(
                "UPDATE sessions SET stage = ?, state = ? WHERE digest = ? AND stage = ?",
                (after, state, digest, before),
            ).rowcount
            if moved != 1:
                raise FederationError(f"a message for stage {after} out of turn", where="secure aggregation")

    def open(
        self, digest: bytes, kinds: dict[int, str], about: tuple[str, str, str], members: list[int]
    ) -> None:
        """Record which share of each peer is about to be opened, one kind for ever, and for which sum.

        Args:
            about: study, model and purpose of the sum: one set of members for ever.
            members: those whose vectors are in it.

        Raises:
            FederationError: the other kind, or the sum of other members, was opened before; nothing is
                recorded.
        """
        with self._writing():
            rows = [(digest, peer, kind) for peer, kind in kinds.items()]
            self._db.executemany("INSERT OR IGNORE INTO opened VALUES (?, ?, ?)", rows)
            found = dict(self._db.execute("SELECT peer, kind FROM opened WHERE digest = ?", (digest,)))
            if any(found[peer] != kind for peer, kind in kinds.items()):
                raise FederationError(
                    "the server asks for both shares of one member",
                    where="secure aggregation",
                    remedy="Nothing was sent: leave the study, and tell the other members.",
                )
            self._db.execute("INSERT OR IGNORE INTO sums VALUES (?, ?, ?, ?)", (*about, bytes(members)))
            (before,) = self._db.execute(
                "SELECT members FROM sums WHERE study = ? AND model = ? AND purpose = ?", about
            ).fetchone()
            if before != bytes(members):
                raise FederationError(
                    "the same was summed over other members: the difference would show few vectors",
                    where="secure aggregation",
                    remedy="Nothing was sent: repeat it with the members of before.",
                )
