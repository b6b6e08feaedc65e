"""The server's database: SQLite in the data directory, or PostgreSQL by its URL.

Every call goes through one transaction. On SQLite a writer takes the lock at its start, so that what it reads
stays true until it writes; on PostgreSQL whoever needs that locks the tenant's row (:func:`lock_tenant`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from blindtune.errors import InputError, MissingPackageError, StorageError
from blindtune.server.tables import tenants

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_SECONDS = 30
CONNECTIONS = 40
"""At most; as many threads as the web framework serves requests with."""

RESERVE = 8 << 20
"""Bytes beside an SQLite database that are given back when something is to be deleted on a full disk."""

UPGRADING = 0x626C696E
"""The number of PostgreSQL's advisory lock under which servers that start together upgrade one at a time."""

FULL = frozenset({"53100", "53200"})
"""PostgreSQL's states for a full disk and for no memory."""


class Database:
    """A database, brought to this version's tables.

    Args:
        url: ``sqlite:////path`` or ``postgresql+psycopg://user:password@host/name``.

    Attributes:
        postgresql: whether it is one that several hosts can share.

    Raises:
        InputError: an address that cannot be used, or a database of a later version.
        StorageError: the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        file = self._engine.url.database if self._engine.dialect.name == "sqlite" else None
        self._reserve = Path(f"{file}.reserve") if file else None
        self.postgresql = self._engine.dialect.name == "postgresql"
        self._reading = self._engine.execution_options(blindtune_reading=True)
        try:
            with self.transaction() as connection:
                _upgrade(connection)
        except BaseException:
            self.close()
            raise

    @classmethod
    def beside(cls, data_dir: Path) -> Database:
        """The SQLite database of a data directory."""
        return cls(f"sqlite:///{data_dir.resolve() / 'state.sqlite'}")

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that writes; undone if the block raises.

        Raises:
            StorageError: the database is full, locked for long, or cannot be reached.
        """
        with _failures(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads: on SQLite it waits for no writer.

        Raises:
            StorageError: the database cannot be reached.
        """
        with _failures(), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def freeing(self) -> Iterator[None]:
        """What is deleted in the block can be deleted on a full disk too: room was held back for that.

        SQLite writes a deletion down before it frees anything; PostgreSQL's operator sees to its room.
        """
        if self._reserve is not None:
            self._reserve.unlink(missing_ok=True)
        try:
            yield
        finally:
            self.hold_room()

    def hold_room(self) -> None:
        """Hold room back for :meth:`freeing`, if there is enough."""
        if self._reserve is None or self._reserve.exists():
            return
        try:
            with open(self._reserve, "xb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            # The disk is full or cannot do it: the next sweep may find it better.
            self._reserve.unlink(missing_ok=True)

    def close(self) -> None:
        """Close its connections."""
        self._engine.dispose()


def lock_tenant(connection: Connection, tenant: str) -> None:
    """Until the transaction ends nobody else changes what this tenant keeps or runs."""
    connection.execute(select(tenants.c.id).where(tenants.c.id == tenant).with_for_update())


def _engine(url: str) -> Engine:
    unusable = InputError(
        "the database's address cannot be used",
        remedy="Give sqlite:////path/to/file or postgresql+psycopg://user@host/name.",
    )
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername not in ("sqlite", "postgresql+psycopg") or not parsed.database:
            raise unusable
        if parsed.drivername == "sqlite":
            engine = create_engine(
                parsed,
                connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
                pool_size=CONNECTIONS,
                max_overflow=0,
            )
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            engine = create_engine(parsed, pool_size=CONNECTIONS, max_overflow=0, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ValueError):
        # Not the error itself: it repeats the address, with its password.
        raise unusable from None
    except ModuleNotFoundError:
        raise MissingPackageError(
            "PostgreSQL's driver is not installed", remedy="Run pip install 'blindtune[postgresql]'."
        ) from None
    return engine


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("blindtune_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        raise _failure(error) from error


def _failure(error: SQLAlchemyError) -> Exception:
    original = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF
        full = code == sqlite3.SQLITE_FULL
        known = full or code in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_NOTADB,
            sqlite3.SQLITE_READONLY,
        )
    elif original is None:
        full, known = False, True
    else:
        state = getattr(original, "sqlstate", None)
        full = state in FULL
        # Without a state the server was not reached; classes 08, 53 and 57 are of the server, not of us.
        known = state is None or str(state)[:2] in ("08", "53", "57") or str(state) in ("40001", "40P01")
    if full:
        return StorageError(
            "the server's disk is full", remedy="Ask its operator for room, then try again.", full=True
        )
    if known:
        return StorageError(
            "the server's database cannot be used now", remedy="Try again; if it repeats, ask its operator."
        )
    return error


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": UPGRADING})
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    scripts, found = (
        ScriptDirectory.from_config(config),
        MigrationContext.configure(connection).get_current_revision(),
    )
    if found == scripts.get_current_head():
        return
    if found is None and inspect(connection).get_table_names():
        raise InputError(
            "the database holds something else than a blindtune server's tables",
            remedy="Give an empty one, or another data directory.",
        )
    try:
        if found is not None:
            scripts.get_revision(found)
    except CommandError:
        raise InputError(
            "the database is of a later version of blindtune",
            remedy="Install that version, or give another database.",
        ) from None
    command.upgrade(config, "head")
