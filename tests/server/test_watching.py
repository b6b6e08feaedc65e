"""What readers of the page are told, and whom metrics are shown to."""

from __future__ import annotations

import json
import math

import pytest

from blindtune.server.api import watching
from blindtune.server.tables import jobs, studies
from tests.server.told import PRIMES, Told


@pytest.fixture
def told(tmp_path):
    made = Told(tmp_path)
    yield made
    made.service.close()


def test_everything_is_told_once_and_then_what_changes(told):
    told.study("clinic", "s1")
    told.job("clinic", "s1", "j1")
    news = told.news("clinic")
    first = news.since()
    assert [name for name, _ in first] == ["self", "job", "study", "whole"]
    assert news.since() == []
    progress = {"step": 1, "steps": 4}
    told.change(jobs, jobs.c.id == "j1", state="running", lease=9.0, progress=json.dumps(progress))
    ((_, job), (_, study)) = news.since()
    assert (job["state"], job["progress"]) == ("running", progress)
    # A study's state is that of its latest job once everything is uploaded.
    assert study["state"] == "uploading"
    told.change(jobs, jobs.c.id == "j1", lease=10.0)
    assert [name for name, _ in news.since()] == ["job"]
    assert news.since() == []


def test_a_study_is_told_by_what_its_owner_may_see(told):
    told.study("clinic", "s1")
    found = dict(told.news("clinic").since())["study"]
    shown = {
        k: found[k] for k in ("study", "members", "uploaded", "keys", "bytes", "bundles", "steps", "head")
    }
    assert shown == {
        "study": "s1",
        "members": ["north", "south"],
        "uploaded": ["north"],
        "keys": True,
        "bytes": 200,
        "bundles": {"here": 2, "expected": 3},
        "steps": 4,
        "head": None,
    }
    bits = sum(math.log2(p) for p in PRIMES)
    assert found["parameters"] == {"ring_degree": 4096, "modulus_bits": pytest.approx(bits), "security": 128}
    assert "tenant" not in found


def test_a_tenant_is_told_of_its_own_alone(told):
    for tenant in ("clinic", "hospital"):
        told.study(tenant, "shared")
        told.job(tenant, "shared", f"job-of-{tenant}")
    found = told.news("clinic").since()
    assert [d["id"] for name, d in found if name == "job"] == ["job-of-clinic"]
    assert len([d for name, d in found if name == "study"]) == 1
    assert "hospital" not in json.dumps(found)


def test_an_operator_is_told_of_all_with_the_tenants_and_without_the_members(told):
    for tenant in ("clinic", "hospital"):
        told.study(tenant, "shared")
    found = told.news().since()
    assert {d["tenant"] for name, d in found if name == "study"} == {"clinic", "hospital"}
    assert dict(found)["self"]["studies"] == 2
    assert "north" not in json.dumps(found)


def test_what_was_deleted_is_told(told):
    told.study("clinic", "s1")
    told.job("clinic", "s1", "j1")
    watching_clinic, watching_all = told.news("clinic"), told.news()
    watching_clinic.since(), watching_all.since()
    with told.service.database.transaction() as db:
        db.execute(studies.delete())
    gone = [d for name, d in watching_clinic.since() if name == "gone"]
    assert {"job": "j1"} in gone
    assert {"study": "s1"} in gone
    gone = [d for name, d in watching_all.since() if name == "gone"]
    assert {"study": "s1", "tenant": "clinic"} in gone


def test_events_are_streamed_to_who_has_a_token(told):
    told.study("clinic", "s1")
    answer = told.get("/v1/events", "clinic")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    blocks = answer.text.removesuffix("\n\n").split("\n\n")
    names = [block.split("\n")[0] for block in blocks]
    assert names == ["event: self", "event: study", "event: whole"]
    assert json.loads(blocks[1].split("\n")[1].removeprefix("data: "))["study"] == "s1"
    assert told.get("/v1/events").status_code == 401
    assert told.get("/v1/events", "bt_wrong").status_code == 401


def test_a_token_that_is_revoked_ends_its_stream(told, monkeypatch):
    monkeypatch.setattr(watching, "LOOK", 0.0)
    monkeypatch.setattr(watching, "ALIVE", 0.0)
    identifier, text = told.service.tenants.issue(told.tenants["clinic"], ["read"])
    asked = []

    def caller(given):
        asked.append(given)
        if len(asked) == 3:
            told.service.tenants.revoke(identifier)
        return type(told.service.tenants).caller(told.service.tenants, given)

    monkeypatch.setattr(told.service.tenants, "caller", caller)
    # Once at the start, then after each silence: true, then revoked.
    answer = told.get("/v1/events", text, looks=1000)
    assert answer.text.count(": alive") == 1
    assert len(asked) == 3


def test_metrics_are_shown_on_the_host_itself_and_to_operators(told):
    assert "blindtune_studies 0.0" in told.get("/metrics").text
    assert told.get("/metrics", client="10.0.0.7").status_code == 401
    assert told.get("/metrics", "clinic", client="10.0.0.7").status_code == 403
    assert told.get("/metrics", "operator", client="10.0.0.7").status_code == 200


def test_a_proxy_on_the_host_does_not_open_the_metrics(told):
    assert told.get("/metrics", **{"X-Forwarded-For": "10.0.0.7"}).status_code == 401


def test_the_page_is_part_of_the_application(told):
    assert "<title>blindtune server</title>" in told.get("/").text
