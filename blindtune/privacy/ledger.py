"""What a site has spent of its privacy budget: charged before noise is drawn, on disk before it is charged.

A process that is killed at any moment may have charged for a release that never left, never the other way
round: the ledger can overstate what was spent and cannot understate it.
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path
from tempfile import TemporaryDirectory

from blindtune.errors import PrivacyError
from blindtune.files import transaction, write_secret
from blindtune.privacy.account import Release, epsilon, merged

SCHEMA = """
CREATE TABLE budget (
    one INTEGER PRIMARY KEY CHECK (one = 1), epsilon REAL NOT NULL, delta REAL NOT NULL
) STRICT;
CREATE TABLE charges (
    number INTEGER PRIMARY KEY AUTOINCREMENT, charged TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    purpose TEXT NOT NULL, noise REAL NOT NULL, sampling REAL NOT NULL, count INTEGER NOT NULL
) STRICT;
CREATE TRIGGER charges_stay BEFORE DELETE ON charges BEGIN SELECT RAISE(ABORT, 'charges are kept'); END;
CREATE TRIGGER charges_hold BEFORE UPDATE ON charges BEGIN SELECT RAISE(ABORT, 'charges are kept'); END;
CREATE TRIGGER budget_holds BEFORE UPDATE ON budget BEGIN SELECT RAISE(ABORT, 'a budget is kept'); END;
CREATE TRIGGER budget_stays BEFORE DELETE ON budget BEGIN SELECT RAISE(ABORT, 'a budget is kept'); END;
"""


class Ledger:
    """A site's ledger for one set of patients.

    Args:
        path: of an existing ledger; :meth:`create` makes one.

    Raises:
        PrivacyError: no ledger there, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # Never created by opening: a ledger that was lost must not come back empty.
            self._db = sqlite3.connect(
                f"file:{_quoted(path)}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA synchronous = FULL")
            row = self._db.execute("SELECT epsilon, delta FROM budget").fetchone()
        except sqlite3.Error:
            row = None
        if row is None:
            raise PrivacyError(
                "no privacy ledger here",
                where=path.name,
                remedy="Restore it from a backup; blindtune dp open makes one for new patients only.",
            )
        self.epsilon, self.delta = float(row[0]), float(row[1])

    @classmethod
    def create(cls, path: Path, budget: float, delta: float) -> Ledger:
        """A new ledger, mode 0600; never replaces one.

        Raises:
            PrivacyError: one is there, or a budget that cannot be.
        """
        if not (0 < budget < 1e3 and 0 < delta < 1):
            raise PrivacyError(
                f"a budget of epsilon {budget}, delta {delta}",
                where="privacy",
                remedy="Epsilon is positive, delta below 1 over the patients.",
            )
        with TemporaryDirectory() as place:
            empty = Path(place) / "ledger"
            with closing(sqlite3.connect(empty, isolation_level=None)) as db:
                db.executescript(SCHEMA)
                db.execute("INSERT INTO budget VALUES (1, ?, ?)", (budget, delta))
            content = empty.read_bytes()
        try:
            write_secret(path, content)
        except OSError as error:
            raise PrivacyError(
                "no ledger can be made here",
                where=path.name,
                remedy="Ledgers are never replaced: choose another file.",
            ) from error
        return cls(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def spent(self) -> list[Release]:
        """All charges, those of a kind as one."""
        rows = self._db.execute("SELECT noise, sampling, count FROM charges")
        return merged(Release(*row) for row in rows)

    def purposes(self) -> list[tuple[str, str, Release]]:
        """Every charge: when, for what, how much."""
        rows = self._db.execute(
            "SELECT charged, purpose, noise, sampling, count FROM charges ORDER BY number"
        )
        return [(when, purpose, Release(*values)) for when, purpose, *values in rows]

    @property
    def spent_epsilon(self) -> float:
        """Epsilon of all charges, at the ledger's delta."""
        return epsilon(self.spent(), self.delta)

    def afford(self, release: Release) -> float:
        """What will be spent once a release is charged; nothing is charged yet.

        Raises:
            PrivacyError: it would exceed the budget.
        """
        before = self.spent()
        after = epsilon([*before, release], self.delta)
        if after > self.epsilon:
            raise PrivacyError(
                f"this release would take epsilon to {after:.3g} of {self.epsilon:g}, "
                f"{epsilon(before, self.delta):.3g} is spent",
                where=self._path.name,
                remedy="Nothing was released: add noise, release less often, or stop here.",
            )
        return after

    def charge(self, purpose: str, release: Release) -> float:
        """Charge a release: call it before its noise is drawn.

        Returns:
            Epsilon spent from now on.

        Raises:
            PrivacyError: the release would exceed the budget; nothing is charged.
        """
        with self._writing():
            after = self.afford(release)
            self._db.execute(
                "INSERT INTO charges (purpose, noise, sampling, count) VALUES (?, ?, ?, ?)",
                (purpose[:200], release.noise, release.sampling, release.count),
            )
        return after

    def _writing(self) -> AbstractContextManager[None]:
        return transaction(
            self._db,
            PrivacyError(
                "the ledger cannot be written",
                where=self._path.name,
                remedy="Free some disk space or end the other process; nothing was released.",
            ),
        )


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.resolve()))
