"""Everything that a server process works with, opened from a data directory and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blindtune.errors import InputError, StorageError
from blindtune.server.answers import Answers
from blindtune.server.blobs import open_blobs
from blindtune.server.contents import Contents
from blindtune.server.database import Database
from blindtune.server.jobs import Jobs
from blindtune.server.leases import Leases
from blindtune.server.messages import Messages
from blindtune.server.senders import Senders
from blindtune.server.studies import Studies
from blindtune.server.tenants import Tenants


@dataclass(frozen=True)
class Service:
    """A database, its blobs, and what is done with them.

    Attributes:
        given: what :meth:`open` was given, for opening the same in another process.
    """

    given: dict[str, Any]
    data_dir: Path
    database: Database
    tenants: Tenants
    contents: Contents
    studies: Studies
    messages: Messages
    senders: Senders
    jobs: Jobs
    leases: Leases
    answers: Answers

    @classmethod
    def open(
        cls,
        data_dir: Path | str,
        database: str | None = None,
        blobs: str | None = None,
        *,
        insecure: bool = False,
    ) -> Service:
        """Open what a data directory and addresses name.

        Args:
            data_dir: made if absent, for its owner only.
            database: its URL; an SQLite file in the data directory if None.
            blobs: an address of fsspec's; a directory in the data directory if None.
            insecure: accept test parameters without a security level.

        Raises:
            InputError: one of them cannot be used.
            StorageError: the database cannot be reached.
        """
        data_dir = Path(data_dir)
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            data_dir.chmod(0o700)
            opened = Database(database) if database else Database.beside(data_dir)
            contents = Contents(opened, open_blobs(blobs, data_dir), data_dir / "incoming")
        except (OSError, StorageError) as error:
            if database and isinstance(error, StorageError):
                raise
            raise InputError(
                "the data directory cannot be used", remedy="Give a directory that this user can write."
            ) from error
        studies, messages = Studies(opened, contents, insecure=insecure), Messages(opened, contents)
        return cls(
            {"data_dir": str(data_dir), "database": database, "blobs": blobs, "insecure": insecure},
            data_dir,
            opened,
            Tenants(opened),
            contents,
            studies,
            messages,
            Senders(messages, contents),
            Jobs(opened),
            Leases(opened),
            Answers(opened),
        )

    def sweep(self, keep_days: float | None = None) -> None:
        """Remove what is no longer wanted: old studies if they lapse, uploads, strays, answers."""
        self.studies.sweep(keep_days)
        self.contents.sweep()
        self.answers.sweep()
        self.database.hold_room()

    def close(self) -> None:
        """Close the database's connections."""
        self.database.close()
