"""SQLite and PostgreSQL alike: tables by migration, transactions, failures as our errors."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, insert, select, text

from blindtune.errors import InputError, StorageError
from blindtune.server.database import RESERVE, Database, lock_tenant
from blindtune.server.tables import metadata, tenants

ROW = {"id": "a", "name": "north", "max_bytes": 1, "max_jobs": 1, "max_cores": 1, "created": 0.0}


def test_migrations_make_the_tables_that_the_code_expects(database):
    with database.reading() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_opened_again_nothing_changes_and_a_later_one_is_refused(database, database_url):
    with database.transaction() as db:
        db.execute(insert(tenants).values(ROW))
    again = Database(database_url)
    with again.reading() as db:
        assert db.execute(select(tenants.c.name)).scalar_one() == "north"
    with again.transaction() as db:
        db.execute(text("UPDATE alembic_version SET version_num = 'from the future'"))
    again.close()
    with pytest.raises(InputError, match="later version"):
        Database(database_url)


def test_a_database_of_something_else_is_left_alone(database_url):
    engine = create_engine(database_url)
    with engine.begin() as db:
        db.execute(text("CREATE TABLE studies (id TEXT)"))
    engine.dispose()
    with pytest.raises(InputError, match="something else"):
        Database(database_url)


def test_servers_that_start_together_upgrade_once(database_url):
    opened, failures = [], []

    def start():
        try:
            opened.append(Database(database_url))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for each in opened:
        each.close()


def test_a_block_that_raises_changes_nothing(database):
    def fail():
        with database.transaction() as db:
            db.execute(insert(tenants).values(ROW))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with database.reading() as db:
        assert db.execute(select(tenants)).first() is None


def test_of_two_writers_the_second_sees_what_the_first_took(database):
    with database.transaction() as db:
        db.execute(insert(tenants).values(ROW))

    def take():
        with database.transaction() as db:
            lock_tenant(db, "a")
            left = db.execute(select(tenants.c.max_jobs)).scalar_one()
            if left:
                db.execute(tenants.update().values(max_jobs=left - 1, max_cores=tenants.c.max_cores + 1))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as db:
        assert db.execute(select(tenants.c.max_jobs, tenants.c.max_cores)).one() == (0, 2)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://host/name", "sqlite://", "postgresql://host"])
def test_addresses_that_cannot_be_used(url):
    with pytest.raises(InputError, match="address cannot be used"):
        Database(url)


def test_the_password_in_an_address_is_not_told(tmp_path):
    with pytest.raises(StorageError) as caught:
        Database(f"postgresql://me:open-sesame@/name?host={tmp_path}&connect_timeout=2")
    assert "open-sesame" not in str(caught.value)


def test_sqlite_is_set_to_survive_a_power_cut(tmp_path):
    database = Database.beside(tmp_path)
    with database.reading() as db:
        found = [db.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]
    database.close()


def test_a_full_disk_is_an_error_of_its_own(tmp_path):
    database = Database.beside(tmp_path)

    def fill():
        with database.transaction() as db:
            db.exec_driver_sql("PRAGMA max_page_count = 60")
            for number in range(10_000):
                db.execute(insert(tenants).values({**ROW, "id": str(number), "name": f"{number}" * 50}))

    with pytest.raises(StorageError) as caught:
        fill()
    assert caught.value.full
    with database.reading() as db:
        assert db.execute(select(tenants)).first() is None
    database.close()


def test_no_database_and_a_locked_one(tmp_path, monkeypatch):
    (tmp_path / "state.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="cannot be used now") as caught:
        Database.beside(tmp_path)
    assert not caught.value.full
    monkeypatch.setattr("blindtune.server.database.BUSY_SECONDS", 0)
    locked = tmp_path / "locked"
    locked.mkdir()
    database = Database.beside(locked)
    other = sqlite3.connect(locked / "state.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="cannot be used now"), database.transaction():
        pass
    other.close()
    database.close()


def test_room_is_held_back_for_deletions(tmp_path):
    database, reserve = Database.beside(tmp_path), tmp_path / "state.sqlite.reserve"
    database.hold_room()
    assert reserve.stat().st_blocks * 512 >= RESERVE
    with database.freeing():
        assert not reserve.exists()
    assert reserve.stat().st_size == RESERVE
    database.close()
