"""The chain of the audit log, and every way to break it."""

from __future__ import annotations

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError

from blindtune.errors import InputError
from blindtune.server import audit
from blindtune.server.audit import Point
from blindtune.server.tables import audit as table
from blindtune.server.tables import metadata


@pytest.fixture
def connection(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'audit.sqlite'}")
    metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def chain(connection):
    for number in range(1, 6):
        audit.append(connection, "job.queued", f"job-{number}")
    return connection


def change(connection, number, **values):
    connection.execute(table.update().where(table.c.number == number).values(**values))


def test_entries_are_kept_in_order_and_chained(chain):
    found = list(audit.entries(chain))
    assert [e.number for e in found] == [1, 2, 3, 4, 5]
    assert [e.object for e in found] == [f"job-{n}" for n in range(1, 6)]
    assert found[0].previous == audit.FIRST
    assert [e.previous for e in found[1:]] == [e.hash for e in found[:-1]]
    assert audit.verify(chain) == Point(5, found[-1].hash)
    assert list(audit.entries(chain, after=3)) == found[3:]


def test_an_empty_log_is_whole(connection):
    assert audit.verify(connection) == Point(0, audit.FIRST)


@pytest.mark.parametrize("column", ["time", "actor", "action", "object", "previous", "hash"])
def test_a_change_of_any_field_is_found(chain, column):
    change(chain, 3, **{column: 1.0 if column == "time" else "0" * 64})
    with pytest.raises(InputError, match="entry 3"):
        audit.verify(chain)


def test_an_entry_that_is_missing_is_found(chain):
    chain.execute(table.delete().where(table.c.number == 3))
    with pytest.raises(InputError, match=r"entry 3 .*missing"):
        audit.verify(chain)


def test_an_altered_entry_with_its_hash_made_anew_breaks_the_next(chain):
    third = list(audit.entries(chain))[2]._replace(actor="token-b")
    change(chain, 3, actor="token-b", hash=third.computed())
    with pytest.raises(InputError, match=r"entry 4 .*does not follow"):
        audit.verify(chain)


def test_a_chain_that_was_cut_or_written_anew_lacks_the_noted_entry(chain):
    noted = audit.verify(chain)
    audit.append(chain, "study.deleted", "study")
    assert audit.verify(chain, noted).number == 6
    chain.execute(table.delete().where(table.c.number >= 5))
    assert audit.verify(chain).number == 4
    with pytest.raises(InputError, match=r"entry 5 .*noted"):
        audit.verify(chain, noted)
    audit.append(chain, "study.deleted", "other")
    with pytest.raises(InputError, match=r"entry 5 .*noted"):
        audit.verify(chain, noted)


def test_a_noted_entry_is_written_and_read_as_text(chain):
    noted = audit.verify(chain)
    assert Point.parse(str(noted)) == noted
    for text in ("", "5", "5:abc", "x:" + "0" * 64, "²:" + "0" * 64):
        with pytest.raises(InputError, match="not an entry"):
            Point.parse(text)


def test_the_actor_is_who_acts_in_this_context(connection):
    before = audit.actor.set("0123456789abcdef")
    audit.append(connection, "study.deleted", "study")
    audit.actor.reset(before)
    audit.append(connection, "job.done", "job")
    assert [e.actor for e in audit.entries(connection)] == ["0123456789abcdef", "server"]


@pytest.mark.parametrize("change", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_database_itself_refuses_changes(database, change):
    with database.transaction() as connection:
        audit.append(connection, "job.done", "job")
    with pytest.raises(DBAPIError, match="append only"), database.transaction() as connection:
        connection.exec_driver_sql(change)
    with database.reading() as connection:
        assert audit.verify(connection).number == 1
