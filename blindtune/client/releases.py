"""The journal of released heads: what was told is on disk before it is shown, and never drawn twice.

What is kept is the noisy result itself, not the noise: whoever asks again, after any crash, gets the same.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import PrivacyError
from blindtune.files import transaction, write_secret

SCHEMA = """
CREATE TABLE allowed (
    one INTEGER PRIMARY KEY CHECK (one = 1), key TEXT NOT NULL, releases INTEGER NOT NULL
) STRICT;
CREATE TABLE releases (
    digest TEXT PRIMARY KEY, told BLOB NOT NULL, released TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
) STRICT;
CREATE TRIGGER releases_stay BEFORE DELETE ON releases BEGIN SELECT RAISE(ABORT, 'releases are kept'); END;
CREATE TRIGGER releases_hold BEFORE UPDATE ON releases BEGIN SELECT RAISE(ABORT, 'releases are kept'); END;
CREATE TRIGGER allowed_holds BEFORE UPDATE ON allowed BEGIN SELECT RAISE(ABORT, 'it is kept'); END;
CREATE TRIGGER allowed_stays BEFORE DELETE ON allowed BEGIN SELECT RAISE(ABORT, 'it is kept'); END;
"""

Coefficients = NDArray[np.int64]


@dataclass(frozen=True)
class Told:
    """A release as it stands in the journal.

    Attributes:
        values: noisy coefficients of all vectors of the head, one after the other.
        released: when they were first drawn (UTC).
    """

    values: Coefficients
    released: str


class Journal:
    """The journal of one key.

    Args:
        path: of an existing journal; :meth:`create` makes one.

    Raises:
        PrivacyError: none there, a damaged one, or another key's.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._name = path.name
        try:
            # Never made by opening: a journal that was lost must not come back empty.
            self._db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, isolation_level=None)
            self._db.execute("PRAGMA synchronous = FULL")
            row = self._db.execute("SELECT key, releases FROM allowed").fetchone()
        except sqlite3.Error:
            row = None
        if row is None or row[0] != key:
            raise PrivacyError(
                "no journal of this key's releases here" if row is None else "another key's journal",
                where=path.name,
                remedy="Restore it from a backup; without it a release could be drawn twice.",
            )
        self._allowed = int(row[1])

    @classmethod
    def create(cls, path: Path, key: str) -> Journal:
        """An empty journal, mode 0600, for a key that nothing was released under; never replaces one.

        Raises:
            OSError: it cannot be written.
        """
        with TemporaryDirectory() as place:
            empty = Path(place) / "journal"
            with closing(sqlite3.connect(empty, isolation_level=None)) as db:
                db.executescript(SCHEMA)
                db.execute("INSERT INTO allowed VALUES (1, ?, 1)", (key,))
            content = empty.read_bytes()
        write_secret(path, content)
        return cls(path, key)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def told(self, digest: str) -> Told | None:
        """What was told of a ciphertext before.

        Raises:
            PrivacyError: a damaged journal.
        """
        try:
            row = self._db.execute(
                "SELECT told, released FROM releases WHERE digest = ?", (digest,)
            ).fetchone()
        except sqlite3.Error as error:
            raise PrivacyError(
                "the journal cannot be read", where=self._name, remedy="Restore it from a backup."
            ) from error
        return None if row is None else Told(np.frombuffer(row[0], "<i8").astype(np.int64), row[1])

    def once(self, digest: str, draw: Callable[[], Coefficients]) -> Told:
        """What is told of a ciphertext: as before, or drawn now and on disk before this returns.

        Raises:
            PrivacyError: another ciphertext was released under this key, or the journal cannot be written.
        """
        before = self.told(digest)
        if before is not None:
            return before
        values = draw()
        failure = PrivacyError(
            "the journal cannot be written",
            where=self._name,
            remedy="Free some disk space or end the other process; nothing was released.",
        )
        with transaction(self._db, failure):
            # Another process may have drawn meanwhile: what it drew is what is told, this draw is forgotten.
            if self.told(digest) is None:
                if self._db.execute("SELECT count(*) FROM releases").fetchone()[0] >= self._allowed:
                    raise PrivacyError(
                        "another head was released under this key",
                        where=self._name,
                        remedy="A key serves one release: encrypt the study again, under a new key.",
                    )
                self._db.execute(
                    "INSERT INTO releases (digest, told) VALUES (?, ?)",
                    (digest, values.astype("<i8").tobytes()),
                )
        found = self.told(digest)
        assert found is not None
        return found


def digest(items: Sequence[bytes]) -> str:
    """Of a head's ciphertexts, whatever the bundle around them says."""
    found = hashlib.sha256()
    for item in items:
        found.update(len(item).to_bytes(8, "little"))
        found.update(item)
    return found.hexdigest()
