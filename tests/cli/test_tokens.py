"""``blindtune tokens``: made, listed, revoked, in the database of a server."""

from __future__ import annotations

import json

import pytest

from blindtune.server.service import Service


@pytest.fixture
def data(tmp_path):
    return tmp_path / "cloud"


@pytest.fixture
def document(blindtune):
    """Runs a command with --json; its one document."""

    def run(*args):
        ran = blindtune(*args, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    return run


@pytest.fixture
def caller(data):
    """Whom a token speaks for."""

    def look(token):
        service = Service.open(data)
        try:
            return service.tenants.caller(token)
        finally:
            service.close()

    return look


def test_a_tenants_token(blindtune, document, data, caller):
    made = document("tokens", "create", "--data-dir", data, "--tenant", "clinic", "--label", "ward 3")
    found = caller(made["token"])
    assert (found.token, found.scopes) == (made["id"], {"read", "submit"})
    assert data.stat().st_mode & 0o777 == 0o700
    listed = document("tokens", "list", "--data-dir", data)["tokens"]
    assert [(t["id"], t["tenant"], t["label"]) for t in listed] == [(made["id"], "clinic", "ward 3")]
    ran = blindtune("tokens", "list", "--data-dir", data)
    assert made["id"] in ran.out
    assert made["token"].rsplit("_", 1)[-1] not in ran.out
    document("tokens", "revoke", made["id"], "--data-dir", data)
    assert caller(made["token"]) is None
    assert "revoked" in blindtune("tokens", "list", "--data-dir", data).out


def test_an_operators_token_and_one_that_only_reads(document, data, caller):
    operator = document("tokens", "create", "--data-dir", data, "--operator")
    assert (caller(operator["token"]).tenant, caller(operator["token"]).scopes) == (None, {"operator"})
    reader = document("tokens", "create", "--data-dir", data, "--tenant", "clinic", "--read-only")
    assert caller(reader["token"]).scopes == {"read"}


def test_quotas_are_changed_one_by_one(document, data):
    def quotas():
        service = Service.open(data)
        with service.database.reading() as db:
            row = db.exec_driver_sql("SELECT max_bytes, max_jobs, max_cores FROM tenants").one()
        service.close()
        return tuple(row)

    document("tokens", "create", "--data-dir", data, "--tenant", "clinic", "--max-gb", "2")
    first = quotas()
    assert first[0] == 2_000_000_000
    document("tokens", "create", "--data-dir", data, "--tenant", "clinic", "--max-jobs", "3")
    assert quotas() == (first[0], 3, first[2])


def test_refusals(blindtune, data):
    blindtune("tokens", "list").refused("no server's database")
    blindtune("tokens", "create", "--data-dir", data).refused("whose token")
    blindtune("tokens", "create", "--data-dir", data, "--tenant", "No good").refused("a-z")
    blindtune("tokens", "create", "--data-dir", data, "--operator", "--max-jobs", "1").refused("no quotas")
    blindtune("tokens", "revoke", "0" * 16, "--data-dir", data).refused("no such token")
    blindtune("tokens", "list", "--database", "mysql://here/there").refused("address cannot be used")
