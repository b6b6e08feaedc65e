"""Jobs over HTTP, and POSTs that are sent twice."""

from __future__ import annotations

import json

import httpx
import pytest
from sqlalchemy import update

from blindtune.server import memory
from blindtune.server.api.app import create_app
from blindtune.server.tables import jobs
from tests.server.api.conftest import Caller
from tests.server.serving import serving


@pytest.fixture
def ready(api, study):
    for path in study.bundles():
        api.north.send(path)
    return f"/studies/{study.id}/jobs"


def test_a_job_is_queued_once(api, study, ready):
    job = api.north.post(ready, json={"priority": 7}).json()
    assert (job["state"], job["priority"], job["study"], job["tenant"]) == ("queued", 7, study.id, None)
    assert api.north.post(ready).json()["id"] == job["id"]
    assert api.north.get(f"/jobs/{job['id']}").json() == job
    assert api.north.get(f"/studies/{study.id}").json()["state"] == "queued"


def test_wrong_bodies_and_large_ones(api, ready, refused):
    for body in ({"priority": 101}, {"priority": "7"}, {"other": 1}, [], "x"):
        refused(api.north.post(ready, json=body), 422)
    refused(api.north.post(ready, content=iter([bytes(1 << 16)] * 3)), 413)
    refused(api.north.post(ready, content=b'{"priority":' + b"[" * 60_000), 422)


def test_the_same_key_does_it_once(api, study, ready, refused):
    key = {"Idempotency-Key": "one-and-the-same"}
    first = api.north.post(ready, headers=key)
    job = first.json()["id"]
    api.north.post(f"/jobs/{job}/cancel")
    # Sent again because its answer was lost: the same answer, and nothing is queued anew.
    again = api.north.post(ready, headers=key)
    assert (again.status_code, again.content) == (202, first.content)
    assert api.north.get(f"/jobs/{job}").json()["state"] == "cancelled"
    assert "another request" in refused(api.north.post(ready, headers=key, json={"priority": 1}), 409)
    assert "another request" in refused(api.north.post(f"/jobs/{job}/retry", headers=key), 409)
    assert api.north.post(ready).json()["id"] != job
    for wrong in ("short", "x" * 200, "with a space"):
        refused(api.north.post(ready, headers={"Idempotency-Key": wrong}), 422)


def test_a_refusal_is_no_answer_to_keep(api, study, refused):
    key = {"Idempotency-Key": "one-and-the-same"}
    api.north.send(study.bundles()[1])
    refused(api.north.post(f"/studies/{study.id}/jobs", headers=key), 409)
    for path in study.bundles():
        api.north.send(path)
    assert api.north.post(f"/studies/{study.id}/jobs", headers=key).status_code == 202


def test_cancelled_and_tried_again(api, ready, refused):
    job = api.north.post(ready).json()["id"]
    assert "queued" in refused(api.north.post(f"/jobs/{job}/retry"), 409)
    for _ in range(2):
        assert api.north.post(f"/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert api.north.post(f"/jobs/{job}/retry").json()["state"] == "queued"
    with api.service.database.transaction() as db:
        values = {"state": "failed", "error": "it broke", "remedy": "Mend it."}
        db.execute(update(jobs).values(values))
    assert api.north.get(f"/jobs/{job}").json()["error"] == "it broke"
    refused(api.north.post(f"/jobs/{job}/cancel"), 409)
    assert api.north.post(f"/jobs/{job}/retry").json()["error"] == ""


def test_timing_is_told_when_it_is_done(api, ready, refused):
    job = api.north.post(ready).json()["id"]
    assert "not done yet" in refused(api.north.get(f"/jobs/{job}/timing"), 409)
    with api.service.database.transaction() as db:
        db.execute(update(jobs).values(state="done", timing=json.dumps({"cores": 1})))
    assert api.north.get(f"/jobs/{job}/timing").json() == {"cores": 1}


def test_pages_and_what_an_operator_sees(api, study, ready, make_study, refused):
    other = make_study("other")
    for path in other.bundles():
        api.south.send(path)
    first = api.north.post(ready).json()["id"]
    api.north.post(f"/jobs/{first}/cancel")
    second = api.north.post(ready).json()["id"]
    third = api.south.post(f"/studies/{other.id}/jobs").json()["id"]
    found, cursor = [], ""
    while cursor is not None:
        page = api.operator.get(f"/jobs?limit=1{cursor}").json()
        found += [(i["tenant"], i["id"]) for i in page["items"]]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert found == [("south", third), ("north", second), ("north", first)]
    assert [i["id"] for i in api.north.get("/jobs").json()["items"]] == [second, first]
    assert [i["id"] for i in api.operator.get(f"/jobs?study={study.id}").json()["items"]] == [second, first]
    assert api.south.get(f"/jobs?study={study.id}").json()["items"] == []
    assert api.operator.get(f"/jobs/{third}").json()["tenant"] == "south"
    for path in ("cancel", "retry"):
        refused(api.operator.post(f"/jobs/{third}/{path}"), 403)
    refused(api.operator.get(f"/jobs/{third}/timing"), 403)


def test_a_tenant_has_so_many_jobs(api, ready, refused):
    tenants = api.service.tenants
    tenants.limit(tenants.find("north"), {"max_jobs": 0})
    answer = api.north.post(ready)
    assert "as many as this tenant may have" in refused(answer, 429)
    assert int(answer.headers["retry-after"]) > 0


def test_a_study_larger_than_memory_is_refused(api, ready, refused, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    assert "0.1 GB left" in refused(api.north.post(ready), 409)


def test_nothing_is_known_of_other_machines_memory(api, ready, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    with serving(create_app(api.service, elsewhere=True)) as url, httpx.Client(base_url=url) as http:
        assert Caller(http, api.north.token).post(ready).status_code == 202
