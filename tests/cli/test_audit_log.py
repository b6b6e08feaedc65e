"""``blindtune audit-log`` on a database of its own."""

from __future__ import annotations

import json
import sqlite3

import pytest
from typer.testing import CliRunner

from blindtune.cli.audit_log import app
from blindtune.errors import InputError
from blindtune.server import audit
from blindtune.server.database import Database


@pytest.fixture
def data_dir(tmp_path):
    database = Database.beside(tmp_path)
    with database.transaction() as connection:
        for number in range(3):
            audit.append(connection, "job.queued", f"job-{number}")
    database.close()
    return tmp_path


def run(*arguments):
    ran = CliRunner().invoke(app, [str(a) for a in arguments])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.stdout


def test_a_whole_log_is_verified_and_its_end_can_be_noted(data_dir):
    told = json.loads(run("verify", "--data-dir", data_dir, "--json"))
    assert told["entries"] == 3
    again = run(
        "verify", "--database", f"sqlite:///{data_dir}/state.sqlite", "--noted", told["last"], "--json"
    )
    assert json.loads(again)["noted_entry_found"] is True


def test_a_change_from_outside_is_found(data_dir):
    with sqlite3.connect(data_dir / "state.sqlite") as db:
        db.execute("DROP TRIGGER audit_no_update")
        db.execute("UPDATE audit SET actor = 'nobody' WHERE number = 2")
    db.close()
    with pytest.raises(InputError, match="entry 2 of the audit log: it was altered"):
        run("verify", "--data-dir", data_dir)


def test_entries_are_shown_as_lines_and_as_json(data_dir):
    assert [line.split()[0] for line in run("show", "--data-dir", data_dir).splitlines()] == ["1", "2", "3"]
    lines = run("show", "--data-dir", data_dir, "--after", 2, "--json").splitlines()
    assert [json.loads(line)["object"] for line in lines] == ["job-2"]


def test_the_database_is_named_once_and_never_made(tmp_path, data_dir):
    for arguments in ((), ("--data-dir", data_dir, "--database", "sqlite:///x")):
        with pytest.raises(InputError, match="one of them"):
            run("verify", *arguments)
    with pytest.raises(InputError, match="no server's data here"):
        run("verify", "--data-dir", tmp_path / "other")
