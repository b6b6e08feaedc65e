"""Studies over HTTP: manifests, pages, heads, deletion."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blindtune.server.api import asking
from blindtune.wire.bundle import write_bundle


def test_manifests_are_checked_before_anything_is_kept(api, study, refused):
    good = json.loads((study.data("north") / "manifest.json").read_text())
    base = f"/studies/{study.id}/bundles"
    assert "another study" in refused(api.north.post(f"/studies/{'0' * 32}/bundles", json=good), 422)
    for change in (
        {"kind": "head"},
        {"surprise": 1},
        {"member": "../up"},
        {"members": ["south"]},
        {"parts": good["parts"][1:]},
        {"version": 2},
    ):
        assert "../up" not in refused(api.north.post(base, json={**good, **change}), 422)
    refused(api.north.post(base, content=b"[" * 100_000), 422)
    refused(api.north.post(base, content=b""), 422)
    refused(api.north.post(base, content=iter([bytes(1 << 20)] * 17)), 413)
    refused(api.north.get(f"/studies/{study.id}"), 404)


def test_insecure_parameters_need_a_server_that_allows_them(api, study, refused):
    api.service.studies.insecure = False
    text = (study.data("north") / "manifest.json").read_bytes()
    assert "insecure" in refused(api.north.post(f"/studies/{study.id}/bundles", content=text), 422)


def test_a_bundle_is_complete_when_its_parts_are_here(api, study, refused):
    path, base = study.data("north"), f"/studies/{study.id}/bundles"
    refused(api.north.post(f"{base}/data/north/complete"), 404)
    missing = api.north.post(base, content=(path / "manifest.json").read_bytes()).json()["missing"]
    assert [set(p) for p in missing] == [{"name", "sha256", "size"}] * 3
    assert "3 parts have not arrived" in refused(api.north.post(f"{base}/data/north/complete"), 422)
    api.north.send(path)
    assert api.north.post(base, content=(path / "manifest.json").read_bytes()).json() == {"missing": []}
    assert api.north.get(f"/studies/{study.id}").json()["uploaded"] == ["north"]


def test_a_start_says_what_is_missing_and_a_study_is_deleted(api, study, refused):
    api.north.send(study.bundles()[1])
    assert "south, the evaluation keys" in refused(api.north.post(f"/studies/{study.id}/jobs"), 409)
    for path in study.bundles():
        api.north.send(path)
    assert api.north.post(f"/studies/{study.id}/jobs").status_code == 202
    assert "queued or running" in refused(api.north.ask("DELETE", f"/studies/{study.id}"), 409)
    job = api.north.get(f"/studies/{study.id}").json()["job"]
    assert api.north.post(f"/jobs/{job}/cancel").json()["state"] == "cancelled"
    assert api.north.ask("DELETE", f"/studies/{study.id}").status_code == 204
    refused(api.north.ask("DELETE", f"/studies/{study.id}"), 404)
    refused(api.north.get(f"/jobs/{job}"), 404)


def test_pages_and_what_an_operator_sees(api, study, make_study, refused):
    made = {"north": [study, make_study("a"), make_study("b")], "south": [make_study("c")]}
    for name, found in made.items():
        for each in found:
            getattr(api, name).send(each.keys())
    items, cursor = [], ""
    while cursor is not None:
        page = api.operator.get(f"/studies?limit=1{cursor}").json()
        items += page["items"]
        cursor = page["next"] and f"&cursor={page['next']}"
    assert sorted((i["tenant"], i["study"]) for i in items) == sorted(
        (name, each.id) for name, found in made.items() for each in found
    )
    # How many members there are, not what they are called.
    assert {(i["members"], i["uploaded"]) for i in items} == {(None, None)}
    assert {tuple(i["bundles"].values()) for i in items} == {(1, 3)}
    mine = api.north.get("/studies").json()
    assert {tuple(i["members"]) for i in mine["items"]} == {("north", "south")}
    assert {i["study"] for i in mine["items"]} == {each.id for each in made["north"]}
    assert {i["tenant"] for i in mine["items"]} == {None}
    assert mine["next"] is None
    for query in ("limit=0", "limit=1000", "limit=x", "cursor=../.."):
        refused(api.north.get(f"/studies?{query}"), 422)


def test_an_operator_sees_states_and_no_contents(api, study, refused):
    api.north.send(study.keys())
    for path in ("", "/head/manifest", "/head/parts/weights"):
        refused(api.operator.get(f"/studies/{study.id}{path}"), 403)
    refused(api.operator.post(f"/studies/{study.id}/jobs"), 403)
    refused(api.operator.ask("DELETE", f"/studies/{study.id}"), 403)


@pytest.fixture
def head(api, study, tmp_path):
    """A head in its place without training; its part's bytes."""
    for path in study.bundles():
        api.north.send(path)
    tenant = api.service.tenants.find("north")
    items = [study.key.encrypt(np.zeros(study.parameters.slots))] * 2
    manifest = write_bundle(tmp_path / "made", study.manifest("head", "north"), [("weights", items)])
    part = tmp_path / "made" / "parts" / "weights"
    content = part.read_bytes()
    api.service.contents.keep(tenant, part)
    with api.service.database.transaction() as db:
        api.service.studies.put_head(db, tenant, study.id, manifest)
    return content


def test_a_head_is_downloaded_whole_in_ranges_or_not_again(api, study, head, refused):
    base = f"/studies/{study.id}/head"
    manifest = api.north.get(f"{base}/manifest")
    assert manifest.json()["kind"] == "head"
    part = api.north.get(f"{base}/parts/weights")
    assert part.content == head
    for path, answer in (("manifest", manifest), ("parts/weights", part)):
        tag = answer.headers["etag"]
        again = api.north.get(f"{base}/{path}", headers={"If-None-Match": f'"x", {tag}'})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        other = api.north.get(f"{base}/{path}", headers={"If-None-Match": '"x"'})
        assert other.content == answer.content
    some = api.north.get(f"{base}/parts/weights", headers={"Range": "bytes=10-19"})
    assert (some.status_code, some.content) == (206, head[10:20])
    refused(api.north.get(f"{base}/parts/other"), 404)
    refused(api.north.get(f"{base}/parts/..%2fmanifest.json"), 404)
    refused(api.south.get(f"{base}/manifest"), 404)


def test_no_head_before_training(api, study, refused):
    api.north.send(study.keys())
    for path in ("manifest", "parts/weights"):
        assert "not trained yet" in refused(api.north.get(f"/studies/{study.id}/head/{path}"), 409)


def test_a_tenant_has_so_many_requests_at_a_time(api, refused, monkeypatch):
    monkeypatch.setattr(asking, "MOST_AT_ONCE", 0)
    answer = api.north.get("/studies")
    refused(answer, 429)
    assert answer.headers["retry-after"] == "1"
