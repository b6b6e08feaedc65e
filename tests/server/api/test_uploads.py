"""Uploads by tus 1.0: whole, in pieces, broken, altered, too long, not a part."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time

import httpx
import pytest

from blindtune.server.api import asking, uploads
from blindtune.server.receiving import Receiver
from blindtune.wire.bundle import Bundle

TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def content(api, study):
    """The content of a part that an opened bundle lacks."""
    path = study.data("north")
    text = (path / "manifest.json").read_bytes()
    assert api.north.post(f"/studies/{study.id}/bundles", content=text).status_code == 200
    return Bundle(path, insecure=True).open_part("data-0-0").read_bytes()


@pytest.fixture
def place(api, content):
    return api.north.announce(content).headers["location"].removeprefix("/v1")


def offset(api, place):
    answer = api.north.ask("HEAD", place, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def test_what_the_server_speaks(api):
    answer = api.http.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation",
        "checksum",
        "termination",
        "expiration",
    }


def test_a_content_in_pieces(api, content, place):
    assert offset(api, place) == 0
    for start in range(0, len(content), 100_000):
        answer = api.north.append(place, start, content[start : start + 100_000])
        assert (answer.status_code, answer.text) == (204, "")
        assert int(answer.headers["upload-offset"]) == min(start + 100_000, len(content))
    # It is no upload any more, and is not sent again.
    assert api.north.ask("HEAD", place, headers=TUS).status_code == 404
    answer = api.north.announce(content)
    assert (answer.status_code, "location" in answer.headers) == (201, False)
    assert int(answer.headers["upload-offset"]) == len(content)


def test_whoever_announces_the_same_goes_on(api, content, place):
    api.north.append(place, 0, content[:5000])
    answer = api.north.announce(content)
    assert answer.headers["location"] == f"/v1{place}"
    assert answer.headers["upload-offset"] == "5000"
    assert "GMT" in answer.headers["upload-expires"]
    assert api.north.append(place, 5000, content[5000:]).status_code == 204


def test_an_altered_piece_is_taken_back(api, content, place, refused):
    api.north.append(place, 0, content[:5000])
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    answer = api.north.append(place, 5000, content[5000:], **{"Upload-Checksum": f"sha256 {wrong}"})
    assert "altered" in refused(answer, 460)
    assert offset(api, place) == 5000


def test_a_piece_elsewhere_is_refused(api, content, place, refused):
    assert "another offset" in refused(api.north.append(place, 7, content[7:]), 409)


def test_more_than_announced_is_not_stored(api, content, place, refused):
    assert "announced" in refused(api.north.append(place, 0, content + b"x"), 413)
    answer = api.north.append(place, 0, b"", checksum=False)
    assert answer.status_code == 204

    def chunks():
        yield content
        yield b"x"

    headers = {**TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    answer = api.north.ask("PATCH", place, content=chunks(), headers=headers)
    assert "announced" in refused(answer, 413)
    file = api.service.data_dir / "incoming" / place.rsplit("/", 1)[-1]
    assert file.stat().st_size <= len(content)


def test_an_altered_whole_is_forgotten(api, content, place, refused):
    changed = content[:-1] + bytes([content[-1] ^ 1])
    assert "altered" in refused(api.north.append(place, 0, changed), 422)
    assert api.north.ask("HEAD", place, headers=TUS).status_code == 404
    assert api.north.announce(content).headers["upload-offset"] == "0"
    assert not list((api.service.data_dir / "blobs").rglob("*.*"))


def test_nothing_but_parts_reaches_the_disk(api, place, refused):
    for start, said in (
        (b"blindtune-secret-key 1\n" + bytes(300), "secret key"),
        (b"PK" * 200, "not a part"),
    ):
        assert said in refused(api.north.append(place, 0, start, checksum=False), 422)
        assert offset(api, place) == 0


def test_without_a_checksum_what_came_before_a_break_stays(api, content, place, monkeypatch):
    monkeypatch.setattr(uploads, "BLOCK", 1000)
    url = httpx.URL(api.http.base_url)
    upload = api.service.contents.upload(api.service.tenants.find("north"), place.rsplit("/", 1)[-1])
    until = time.monotonic() + 60
    with socket.create_connection((url.host, url.port)) as raw:
        head = f"PATCH /v1{place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.north.token}\r\n"
        head += "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        head += f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
        raw.sendall(head.encode() + content[:5000])
        while upload.offset < 1000:
            assert time.monotonic() < until
            time.sleep(0.01)
    # Once the server notices the break, it lets another sender go on.
    while (answer := api.north.append(place, offset(api, place), content[offset(api, place) :])).is_error:
        assert answer.status_code in (409, 429)
        assert time.monotonic() < until
        time.sleep(0.01)
    assert "location" not in api.north.announce(content).headers


def test_a_sender_that_is_gone_without_a_word_is_given_up(api, content, place, monkeypatch):
    monkeypatch.setattr(asking, "SILENCE", 0.2)
    url = httpx.URL(api.http.base_url)
    with socket.create_connection((url.host, url.port)) as raw:
        head = f"PATCH /v1{place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.north.token}\r\n"
        head += "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
        head += f"Content-Type: application/offset+octet-stream\r\nContent-Length: {len(content)}\r\n\r\n"
        raw.sendall(head.encode() + content[:5000])
        assert b" 408 " in raw.recv(1000)
    monkeypatch.undo()
    # Nobody else is kept waiting.
    at = offset(api, place)
    assert api.north.append(place, at, content[at:]).status_code == 204


def test_one_sender_at_a_time(api, content, place, refused):
    upload = api.service.contents.upload(api.service.tenants.find("north"), place.rsplit("/", 1)[-1])
    receiver = Receiver(upload, 0)
    answer = api.north.append(place, 0, content)
    assert "somebody else" in refused(answer, 429)
    assert answer.headers["retry-after"] == "1"
    receiver.close(keep=False)
    assert api.north.append(place, 0, content).status_code == 204


def test_an_upload_that_was_whole_when_the_server_died_is_finished_by_nothing_more(api, content, place):
    upload = api.service.contents.upload(api.service.tenants.find("north"), place.rsplit("/", 1)[-1])
    upload.file.write_bytes(content)
    assert api.north.announce(content).headers["upload-offset"] == str(len(content))
    assert api.north.append(place, len(content), b"").status_code == 204
    assert "location" not in api.north.announce(content).headers


def test_terminated(api, content, place):
    api.north.append(place, 0, content[:5000])
    assert api.north.ask("DELETE", place, headers=TUS).status_code == 204
    assert api.north.ask("HEAD", place, headers=TUS).status_code == 404
    assert not list((api.service.data_dir / "incoming").iterdir())


def test_announcements_that_are_refused(api, content, study, refused):
    assert refused(api.north.announce(content, **{"Tus-Resumable": "0.2"}), 412)
    assert "no opened bundle" in refused(api.north.announce(b"BTP1" + bytes(100)), 422)
    assert "no opened bundle" in refused(api.south.announce(content), 422)
    for metadata, status in (("sha256 !", 400), ("sha256 YQ==", 422), ("name YQ==", 422)):
        refused(api.north.announce(content, **{"Upload-Metadata": metadata}), status)
    for length in ("-1", "0", "x", str(1 << 50)):
        refused(api.north.announce(content, **{"Upload-Length": length}), 422)


def test_pieces_that_are_refused(api, content, place, refused):
    for changed, status in (
        ({"Content-Type": "text/plain"}, 415),
        ({"Tus-Resumable": "2"}, 412),
        ({"Upload-Checksum": "md5 YQ=="}, 400),
        ({"Upload-Checksum": "sha256 !"}, 400),
        ({"Upload-Offset": "-1"}, 422),
    ):
        refused(api.north.append(place, 0, content, **changed), status)
    assert offset(api, place) == 0


def test_the_quota_is_checked_before_the_first_byte(api, study, content, refused):
    used = api.north.get("/self").json()["bytes"]
    tenants = api.service.tenants
    tenants.limit(tenants.find("north"), {"max_bytes": used + 1000})
    assert "MB are left" in refused(api.north.announce(content), 413)


def test_a_full_disk_is_said_so_and_the_upload_goes_on_when_there_is_room(
    api, content, place, refused, monkeypatch
):
    api.north.append(place, 0, content[:5000])

    def full(self, piece):
        raise OSError(28, "No space left on device", str(api.service.data_dir))

    monkeypatch.setattr(Receiver, "write", full)
    answer = api.north.append(place, 5000, content[5000:])
    assert "disk is full" in refused(answer, 507)
    assert str(api.service.data_dir) not in answer.text
    monkeypatch.undo()
    assert api.north.append(place, 5000, content[5000:]).status_code == 204


def test_many_senders_of_one_content_leave_one(api, content, place):
    answers = []

    def send():
        for start in range(0, len(content), 50_000):
            answers.append(api.north.append(place, start, content[start : start + 50_000]).status_code)

    threads = [threading.Thread(target=send) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) <= {204, 409, 404, 429}
    if (there := api.north.announce(content)).headers.get("location"):
        at = int(there.headers["upload-offset"])
        assert api.north.append(place, at, content[at:]).status_code == 204
    path = api.service.contents.path(api.service.tenants.find("north"), hashlib.sha256(content).hexdigest())
    assert path.read_bytes() == content
