"""Tenants and their tokens."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select, update

from blindtune.errors import InputError
from blindtune.server.tables import tokens
from blindtune.server.tenants import Quota, Tenants


@pytest.fixture
def tenants(database):
    return Tenants(database)


def test_a_token_speaks_for_its_tenant_and_is_kept_as_a_hash(tenants, database):
    north = tenants.make("north")
    identifier, text = tenants.issue(north, ["submit", "read"], label="laboratory")
    caller = tenants.caller(text)
    assert (caller.tenant, caller.token, caller.scopes) == (north, identifier, {"read", "submit"})
    with database.reading() as db:
        rows = db.execute(select(tokens)).mappings().all()
    secret = text.rsplit("_", 1)[-1]
    assert not any(secret in str(value) for row in rows for value in row.values())
    assert tenants.tokens(north)[0]["label"] == "laboratory"
    assert "sha256" not in tenants.tokens(north)[0]


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1] + ("A" if t[-1] != "A" else "B"), lambda t: "", str.upper]
)
def test_wrong_tokens_let_nobody_in(tenants, change):
    _, text = tenants.issue(tenants.make("north"), ["read"])
    assert tenants.caller(text)
    assert tenants.caller(change(text)) is None


def test_the_text_of_one_token_with_the_name_of_another(tenants):
    north = tenants.make("north")
    (one, first), (two, _) = tenants.issue(north, ["read"]), tenants.issue(north, ["submit"])
    assert tenants.caller(first.replace(one, two)) is None


def test_lapsed_and_revoked(tenants, database):
    north, south = tenants.make("north"), tenants.make("south")
    identifier, text = tenants.issue(north, ["read"], days=1)
    assert tenants.caller(text)
    with database.transaction() as db:
        db.execute(update(tokens).values(expires=time.time() - 1))
    assert tenants.caller(text) is None
    identifier, text = tenants.issue(north, ["read"])
    assert not tenants.revoke(identifier, south)
    assert tenants.caller(text)
    assert tenants.revoke(identifier, north)
    assert tenants.caller(text) is None
    # It stays on record, with the first time it was revoked.
    first = next(t["revoked"] for t in tenants.tokens() if t["id"] == identifier)
    assert tenants.revoke(identifier)
    assert next(t["revoked"] for t in tenants.tokens() if t["id"] == identifier) == first


def test_a_given_text_is_one_token_that_goes_with_the_start_that_gave_it(tenants):
    north = tenants.make("north")
    tenants.set_given(north, "sixteen letters!")
    assert tenants.caller("sixteen letters!").tenant == north
    tenants.set_given(north, "another sixteen!")
    assert tenants.caller("sixteen letters!") is None
    _, text = tenants.issue(north, ["read"])
    tenants.set_given(north, text + "x")
    assert tenants.caller(text + "x").token == "given"
    tenants.set_given(north, None)
    assert tenants.caller(text + "x") is None


def test_names_quotas_and_scopes_are_checked(tenants):
    with pytest.raises(InputError, match="a-z"):
        tenants.make("North/../")
    north = tenants.make("north", Quota(max_bytes=5))
    assert tenants.make("north") == north == tenants.find("north")
    assert tenants.find("south") is None
    for tenant, scopes in (
        (north, []),
        (north, ["operator"]),
        (None, ["read"]),
        (None, ["operator", "read"]),
    ):
        with pytest.raises(InputError, match="scopes"):
            tenants.issue(tenant, scopes)
    with pytest.raises(InputError, match="no such tenant"):
        tenants.issue("0" * 16, ["read"])
    _, text = tenants.issue(None, ["operator"])
    assert tenants.caller(text).tenant is None
