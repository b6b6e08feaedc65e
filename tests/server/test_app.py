"""The HTTP interface as a hostile or careless client sees it."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from blindtune.kernels.cost import ciphertext_bytes, key_memory
from blindtune.server import memory
from blindtune.wire.bundle import Bundle


@pytest.fixture
def http(idle_server):
    headers = {"Authorization": f"Bearer {idle_server.token}"}
    with httpx.Client(base_url=idle_server.url + "/v1", headers=headers) as client:
        yield client


class Upload:
    """One bundle, and its addresses."""

    def __init__(self, http, path):
        self.http, self.manifest = http, Bundle(path, insecure=True).manifest
        self.path, m = path, self.manifest
        self.bundles = f"/studies/{m.study}/bundles"
        self.base = f"{self.bundles}/{m.kind}/{m.member}"

    def open(self):
        return self.http.post(self.bundles, content=(self.path / "manifest.json").read_bytes())

    def part(self, name):
        return (self.path / "parts" / name).read_bytes()

    def put(self, name, content, **given):
        return self.http.put(f"{self.base}/parts/{name}", content=content, **given)

    def complete(self):
        return self.http.post(f"{self.base}/complete")

    def send(self):
        for name in self.open().json()["missing"]:
            assert self.put(name, self.part(name)).status_code == 204
        assert self.complete().status_code == 204


@pytest.fixture
def upload(http, study):
    return Upload(http, study.data("north"))


def files_of(store, study):
    return sorted(p.name for p in store.directory(study).rglob("*") if p.is_file())


def test_health_alone_is_open(idle_server):
    with httpx.Client(base_url=idle_server.url) as client:
        assert client.get("/v1/health").json() == {"status": "ok"}
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong"}):
            answer = client.get(f"/v1/studies/{'0' * 32}", headers=headers)
            assert answer.status_code == 401
            assert set(answer.json()) == {"error", "remedy"}
        assert client.get("/openapi.json").status_code == 404


def test_parts_are_taken_once_opened_and_whole(upload, study, idle_server):
    assert upload.put("data-0-0", b"x").status_code == 404
    assert upload.open().json() == {"missing": ["data-0-0", "data-0-1", "residual-0-0-0"]}
    assert upload.complete().status_code == 422
    upload.put("data-0-0", upload.part("data-0-0"))
    assert upload.open().json() == {"missing": ["data-0-1", "residual-0-0-0"]}
    upload.send()
    assert upload.open().json() == {"missing": []}
    assert upload.complete().status_code == 204
    assert upload.put("data-0-0", upload.part("data-0-0")).status_code == 409
    assert upload.http.get(f"/studies/{study.id}").json()["uploaded"] == ["north"]


def altered(data):
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda d: d[:-1], 422, "truncated"),
        (lambda d: b"", 422, "not a part"),
        (altered, 422, "arrived altered"),
        (lambda d: d + b"x", 413, "larger"),
        (lambda d: b"blindtune-secret-key" + d[20:], 422, "secret key"),
        (lambda d: b"PK" + d[2:], 422, "not a part"),
        (lambda d: iter([d, b"x"]), 413, "larger"),
        (lambda d: iter([d[:1000]]), 422, "truncated"),
    ],
)
def test_a_wrong_part_leaves_nothing(upload, study, idle_server, change, status, said):
    upload.open()
    answer = upload.put("data-0-0", change(upload.part("data-0-0")))
    assert answer.status_code == status
    assert said in answer.json()["error"]
    assert files_of(idle_server.store, study.id) == ["manifest.json"]
    assert "data-0-0" in upload.open().json()["missing"]


def test_a_broken_connection_leaves_nothing(upload, study, idle_server):
    upload.open()
    url = httpx.URL(idle_server.url)
    with socket.create_connection((url.host, url.port)) as raw:
        head = f"PUT /v1{upload.base}/parts/data-0-0 HTTP/1.1\r\nHost: x\r\n"
        head += f"Authorization: Bearer {idle_server.token}\r\nContent-Length: 9999\r\n\r\n"
        raw.sendall(head.encode() + upload.part("data-0-0")[:5000])
    assert "data-0-0" in upload.open().json()["missing"]
    upload.send()
    assert files_of(idle_server.store, study.id) == [
        "data-0-0",
        "data-0-1",
        "manifest.json",
        "residual-0-0-0",
    ]


def test_damage_after_arrival_is_found_before_placing(upload, study, idle_server):
    for name in upload.open().json()["missing"]:
        upload.put(name, upload.part(name))
    kept = idle_server.store.directory(study.id) / "data" / "north.partial" / "parts" / "data-0-1"
    kept.write_bytes(altered(kept.read_bytes()))
    assert "altered" in upload.complete().json()["error"]
    upload.send()


@pytest.mark.parametrize(
    "path",
    [
        "/studies/..%2f..%2ftoken",
        "/studies/{study}/head/parts/..%2fmanifest.json",
        "/studies/{study}/head/parts/weights.",
        "/studies/" + "A" * 32,
        "/studies/" + "a" * 33,
        "/studies/%00",
    ],
)
def test_path_tricks_name_nothing(http, upload, study, path):
    upload.open()
    answer = http.get(path.format(study=study.id))
    assert answer.status_code in (404, 409)
    assert set(answer.json()) == {"error", "remedy"}


@pytest.mark.parametrize("name", ["..%2f..%2fx", "data-0-0%00", "data-0-0.", "DATA-0-0", "%2e%2e"])
def test_path_tricks_in_uploads(upload, name):
    upload.open()
    assert upload.put(name, upload.part("data-0-0")).status_code in (404, 405)
    for tricky in ("head/north", "data/..", "data/No.rth", "keys/%2e%2e%2fx"):
        url = f"{upload.bundles}/{tricky}/parts/data-0-0"
        assert upload.http.put(url, content=b"x").status_code in (404, 405)


def test_manifests_are_checked_before_anything_is_kept(http, study, upload, idle_server):
    good = json.loads((upload.path / "manifest.json").read_text())
    other = f"/studies/{'0' * 32}/bundles"
    assert http.post(other, json=good).status_code == 422
    for change in (
        {"kind": "head"},
        {"surprise": 1},
        {"member": "../up"},
        {"members": ["south"]},
        {"parts": good["parts"][1:]},
        {"version": 2},
    ):
        answer = http.post(upload.bundles, json={**good, **change})
        assert answer.status_code == 422
        assert "../up" not in answer.text
    assert http.post(upload.bundles, content=b"[" * 1000).status_code == 422
    assert http.post(upload.bundles, content=iter([bytes(1 << 20)] * 17)).status_code == 413
    assert idle_server.store.states.study(study.id) is None


def test_insecure_parameters_need_a_server_that_allows_them(http, upload, idle_server):
    idle_server.store.insecure = False
    answer = upload.open()
    assert answer.status_code == 422
    assert "insecure" in answer.json()["error"]


def test_another_bundle_never_replaces_one_in_place(http, study, upload):
    upload.send()
    again = Upload(http, study.data("north", "anew"))
    answer = again.open()
    assert answer.status_code == 409
    assert "Delete the study" in answer.json()["remedy"]


def test_an_upload_opened_anew_starts_from_nothing(http, study, upload):
    upload.open()
    upload.put("data-0-0", upload.part("data-0-0"))
    again = Upload(http, study.data("north", "anew"))
    assert len(again.open().json()["missing"]) == 3
    # 413 where the new part happens to be the smaller one.
    assert upload.put("data-0-0", upload.part("data-0-0")).status_code in (413, 422)
    again.send()


def test_data_packed_in_another_way_do_not_start(http, study, make_study):
    Upload(http, study.keys()).send()
    Upload(http, study.data("north")).send()
    other = make_study("other", id=study.id)
    other.key = study.key
    other.layout = type(study.layout)(study.layout.slots, 2, (8,), 2, 1, 1)
    Upload(http, other.data("south")).send()
    answer = http.post(f"/studies/{study.id}/start")
    assert answer.status_code == 409
    assert "packed in another way" in answer.json()["error"]


def test_a_study_larger_than_memory_is_refused(http, study, monkeypatch):
    for path in study.bundles():
        Upload(http, path).send()
    monkeypatch.setattr(memory, "available_bytes", lambda: 100 << 20)
    answer = http.post(f"/studies/{study.id}/start")
    assert answer.status_code == 409
    assert "0.1 GB left" in answer.json()["error"]
    monkeypatch.undo()
    for _ in range(2):
        assert http.post(f"/studies/{study.id}/start").json()["state"] == "queued"
    assert http.delete(f"/studies/{study.id}").status_code == 409
    assert http.post(f"/studies/{study.id}/cancel").json()["state"] == "cancelled"
    assert http.delete(f"/studies/{study.id}").status_code == 204
    assert http.get(f"/studies/{study.id}").status_code == 404


def test_a_full_disk_is_said_so(http, upload, idle_server, monkeypatch):
    upload.open()

    def full(*_):
        raise OSError(28, "No space left on device", str(upload.path))

    monkeypatch.setattr(idle_server.store, "keep_part", full)
    answer = upload.put("data-0-0", upload.part("data-0-0"))
    assert answer.status_code == 507
    assert str(upload.path) not in answer.text


def test_prediction_grows_with_the_rows(study):
    keys, data = study.manifest("keys", "north"), [study.manifest("data", "north")] * 2
    one = memory.predicted_bytes(keys, data)
    assert one < 1 << 30
    layout, fresh = study.layout, ciphertext_bytes(study.parameters)
    # More members, and so more rows, take more: at least their own ciphertexts.
    a_member = layout.data_ciphertexts * fresh
    assert memory.predicted_bytes(keys, data * 2) >= one + 2 * a_member
    # Never less than what is held: keys, both members' data, targets and coefficients.
    terms = layout.weight_blocks * study.program.terms
    held = key_memory(layout, study.parameters) + 2 * (a_member + terms * fresh)
    assert one > held
