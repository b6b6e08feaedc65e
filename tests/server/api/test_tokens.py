"""Tokens over HTTP: scopes, self, made and revoked."""

from __future__ import annotations


def test_whom_a_token_speaks_for(api):
    told = api.north.get("/self").json()
    assert (told["tenant"], told["scopes"], told["bytes"]) == ("north", ["read", "submit"], 0)
    assert told["max_bytes"] > 0
    assert api.operator.get("/self").json()["tenant"] is None


def test_scopes(api, study, refused):
    tenant = api.service.tenants.find("north")
    reader, sender = (
        type(api.north)(api.http, api.service.tenants.issue(tenant, [scope])[1])
        for scope in ("read", "submit")
    )
    text = (study.keys() / "manifest.json").read_bytes()
    assert "scope submit" in refused(reader.post(f"/studies/{study.id}/bundles", content=text), 403)
    assert sender.post(f"/studies/{study.id}/bundles", content=text).status_code == 200
    assert "scope read" in refused(sender.get(f"/studies/{study.id}"), 403)
    assert reader.get(f"/studies/{study.id}").status_code == 200
    identifier = reader.get("/self").json()["token"]
    refused(reader.ask("DELETE", f"/tokens/{identifier}"), 403)
    refused(api.north.post("/tokens", json={"scopes": ["read"], "tenant": "north"}), 403)


def test_an_operator_makes_tokens_that_are_told_once(api, refused):
    wanted = {"tenant": "south", "scopes": ["read"], "label": "ward 3", "days": 1}
    key = {"Idempotency-Key": "one-and-the-same"}
    made = api.operator.post("/tokens", json=wanted, headers=key)
    assert made.status_code == 201
    caller = type(api.north)(api.http, made.json()["token"])
    assert caller.get("/self").json()["tenant"] == "south"
    assert "told only once" in refused(api.operator.post("/tokens", json=wanted, headers=key), 409)
    listed = {t["id"]: t for t in api.operator.get("/tokens").json()["items"]}
    assert len(listed) == 4 + 1 - ("given" not in listed)
    told = listed[made.json()["id"]]
    assert (told["tenant"], told["label"], told["scopes"], told["revoked"]) == (
        "south",
        "ward 3",
        ["read"],
        None,
    )
    assert told["expires"] > told["created"]
    assert made.json()["token"].rsplit("_", 1)[-1] not in api.operator.get("/tokens").text
    assert {t["tenant"] for t in api.north.get("/tokens").json()["items"]} == {"north"}


def test_tokens_that_are_not_made(api, refused):
    for body in (
        {"scopes": []},
        {"scopes": ["all"], "tenant": "north"},
        {"scopes": ["operator"], "tenant": "north"},
        {"scopes": ["read"]},
        {"scopes": ["read"], "tenant": "nobody"},
        {"scopes": ["read"], "tenant": "north", "days": -1},
        {"scopes": ["read"], "tenant": "north", "other": 1},
    ):
        refused(api.operator.post("/tokens", json=body), 422)


def test_a_revoked_token_lets_nobody_in_from_the_next_request_on(api, refused):
    mine = api.south.get("/self").json()["token"]
    refused(api.north.ask("DELETE", f"/tokens/{mine}"), 404)
    assert api.south.get("/studies").status_code == 200
    assert api.south.ask("DELETE", f"/tokens/{mine}").status_code == 204
    refused(api.south.get("/studies"), 401)
    theirs = api.north.get("/self").json()["token"]
    assert api.operator.ask("DELETE", f"/tokens/{theirs}").status_code == 204
    refused(api.north.get("/studies"), 401)
