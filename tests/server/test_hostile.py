"""A hostile client against a server in a process of its own: the right refusals, and bounded memory."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import socket
from contextlib import suppress

import httpx
import pytest

from blindtune.client.remote import Remote
from blindtune.wire.bundle import Bundle
from blindtune.wire.message import OFFER
from tests.members import Members
from tests.server.apart import apart

MB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}
APPEND = {**TUS, "Content-Type": "application/offset+octet-stream"}
STUDY, JOB = "0123456789abcdef" * 2, "fedcba9876543210" * 2
ROUTES = [
    ("GET", f"/v1/studies/{STUDY}"),
    ("DELETE", f"/v1/studies/{STUDY}"),
    ("POST", f"/v1/studies/{STUDY}/bundles/keys/north/complete"),
    ("POST", f"/v1/studies/{STUDY}/jobs"),
    ("GET", f"/v1/studies/{STUDY}/head/manifest"),
    ("GET", f"/v1/studies/{STUDY}/head/parts/weights"),
    ("GET", f"/v1/studies/{STUDY}/messages/first/public/north"),
    ("GET", f"/v1/jobs/{JOB}"),
    ("GET", f"/v1/jobs/{JOB}/timing"),
    ("POST", f"/v1/jobs/{JOB}/cancel"),
    ("POST", f"/v1/jobs/{JOB}/retry"),
    ("HEAD", f"/v1/uploads/{JOB}"),
    ("PATCH", f"/v1/uploads/{JOB}"),
    ("DELETE", f"/v1/uploads/{JOB}"),
    ("DELETE", "/v1/tokens/0123456789abcdef"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with apart(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def ask(server):
    """Makes a request as north, unless told otherwise."""
    with httpx.Client(base_url=server.url, timeout=120) as http:

        def request(method, path, *, whose="north", **given):
            headers = {**server.headers(whose), **given.pop("headers", {})}
            return http.request(method, path, headers=headers, **given)

        yield request


def refused(answer, *statuses):
    """The answer is a problem of one of these statuses, and repeats nothing of a path of this machine."""
    assert answer.status_code in statuses, answer.text
    if answer.request.method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"
        assert "/" not in answer.json()["detail"]


class Bounded:
    """The server's memory stays within some MB of where it was."""

    def __init__(self, server, megabytes):
        self.server, self.limit = server, megabytes * MB

    def __enter__(self):
        self.before = self.server.forget_peak()

    def __exit__(self, *_):
        assert self.server.peak() - self.before < self.limit


def metadata(content):
    digest = hashlib.sha256(content).hexdigest().encode()
    return {
        "Upload-Length": str(len(content)),
        "Upload-Metadata": f"sha256 {base64.b64encode(digest).decode()}",
    }


@pytest.fixture
def manifest(study):
    """A member's bundle: its directory, and its manifest's text."""
    place = study.data("north")
    return place, (place / "manifest.json").read_bytes()


@pytest.fixture
def upload(ask, study, manifest):
    """An upload that was announced: its address, and its content."""
    place, text = manifest
    part = ask("POST", f"/v1/studies/{study.id}/bundles", content=text).json()["missing"][0]
    content = Bundle(place, insecure=True).open_part(part["name"]).read_bytes()
    answer = ask("POST", "/v1/uploads", headers={**TUS, **metadata(content)})
    assert answer.status_code == 201
    return answer.headers["location"], content


# Bodies


def test_a_manifest_of_a_gigabyte_is_refused_in_bounded_memory(server, ask):
    with Bounded(server, 100):
        body = itertools.repeat(b"[" * MB, 1024)
        refused(ask("POST", f"/v1/studies/{STUDY}/bundles", content=body), 413)


def test_a_manifest_of_millions_of_entries_is_refused_in_bounded_memory(server, ask, study, manifest):
    wide = json.loads(manifest[1])
    wide["parts"] = "PARTS"
    text = json.dumps(wide, separators=(",", ":")).encode()
    room = (16 * MB - len(text)) // 2
    with Bounded(server, 900):
        refused(
            ask(
                "POST",
                f"/v1/studies/{study.id}/bundles",
                content=text.replace(b'"PARTS"', b"[" + b"0," * room + b"0]"),
            ),
            422,
        )
        # Ten million do not fit into what a manifest may have.
        ten = text.replace(b'"PARTS"', b"[" + b"0," * 10_000_000 + b"0]")
        refused(ask("POST", f"/v1/studies/{study.id}/bundles", content=ten), 413)


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"parts":[{"name":'])
def test_deep_json_is_refused(server, ask, opening):
    with Bounded(server, 300):
        refused(ask("POST", f"/v1/studies/{STUDY}/bundles", content=opening * 800_000), 422)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'"\\ud800"',
        b'{"kind":"data","kind":"keys"}',
        b"{" + b" " * MB,
        b"NaN",
    ],
)
@pytest.mark.parametrize("path", [f"/v1/studies/{STUDY}/bundles", "/v1/tokens"])
def test_what_is_no_document_is_refused(ask, path, body):
    refused(ask("POST", path, content=body, whose="operator" if path == "/v1/tokens" else "north"), 413, 422)


@pytest.mark.parametrize(
    "name", ["../keys", "a/b", "..", "/etc/passwd", "galois\x00", "data-0-0.partial", "a" * 300]
)
@pytest.mark.parametrize("field", ["study", "member", "members", "parts"])
def test_names_that_are_paths_are_refused_in_a_manifest(ask, study, manifest, field, name):
    changed = json.loads(manifest[1])
    if field == "parts":
        changed["parts"][0]["name"] = name
    else:
        changed[field] = [name] if field == "members" else name
    refused(ask("POST", f"/v1/studies/{study.id}/bundles", json=changed), 422)


@pytest.mark.parametrize("name", ["..", "%2e%2e", "..%2f..%2fstate.sqlite", "%00", "a" * 5000, "%ff%fe"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1/studies/{}",
        "/v1/studies/{}/head/parts/weights",
        f"/v1/studies/{STUDY}/head/parts/{{}}",
        f"/v1/studies/{STUDY}/messages/first/{{}}/north",
        "/v1/jobs/{}",
        "/page/{}",
    ],
)
def test_names_that_are_paths_name_nothing(server, path, name):
    # Raw: clients would tidy such paths up.
    request = f"GET {path.format(name)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    request += f"Authorization: Bearer {server.tokens['north']}\r\n\r\n"
    assert status(server, request.encode()) in (404, 400)


def status(server, sent):
    """The status of the answer to what was sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(sent)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return int(answer.split()[1])


def test_a_head_without_end_is_refused(server):
    request = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (2 * MB) + b"\r\n\r\n"
    with Bounded(server, 50), suppress(ConnectionError):
        assert status(server, request) in (400, 431)


# Uploads


def test_more_than_was_announced_is_refused_and_nothing_of_it_kept(server, ask, upload):
    place, content = upload
    endless = (bytes(MB) for _ in range(512))
    with Bounded(server, 100):
        for body in (content + b"x", itertools.chain([content, b"x"], endless)):
            with suppress(httpx.WriteError):
                refused(ask("PATCH", place, content=body, headers={**APPEND, "Upload-Offset": "0"}), 413)
    assert int(ask("HEAD", place, headers=TUS).headers["upload-offset"]) <= len(content)


def test_a_body_shorter_than_it_says_leaves_the_upload_usable(server, ask, upload):
    place, content = upload
    request = f"PATCH {place} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\nUpload-Offset: 0\r\n"
    for name, value in {**APPEND, **server.headers("north")}.items():
        request += f"{name}: {value}\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(request.encode() + b"\r\n" + content[:1000])
    for _ in range(600):
        there = int(ask("HEAD", place, headers=TUS).headers["upload-offset"])
        answer = ask("PATCH", place, content=content[there:], headers={**APPEND, "Upload-Offset": str(there)})
        # The broken request may still hold the upload.
        if answer.status_code not in (409, 429):
            break
    assert answer.status_code == 204


def test_announcements_beyond_reason_are_refused(ask):
    content = b"content"
    for length in ("0", "-1", "1e3", "9" * 400, str(1 << 41), "0x10", ""):
        headers = {**TUS, **metadata(content), "Upload-Length": length}
        refused(ask("POST", "/v1/uploads", headers=headers), 422)
    for given in (
        "",
        "sha256",
        "sha256 !!!",
        "sha256 " + base64.b64encode(b"../x").decode(),
        "x " * 400 + "x",
    ):
        headers = {**TUS, **metadata(content), "Upload-Metadata": given}
        refused(ask("POST", "/v1/uploads", headers=headers), 400, 422)


def test_contents_that_no_bundle_names_take_no_room(ask):
    refused(ask("POST", "/v1/uploads", headers={**TUS, **metadata(b"unnamed content")}), 422)


def test_a_large_message_takes_no_memory(server):
    """As large as relinearisation keys are."""
    with Remote(server.url, server.tokens["north"]) as there:
        mailbox = there.mailbox(STUDY)
        members = Members("north", "south")
        mailbox.post(*OFFER, members.offer)
        mailbox.post("first", "small", "north", members.message("first", "small", "north", bytes(MB)))
        message = members.message("first", "relinearisation", "north", bytes(100 * MB))
        with Bounded(server, 30):
            mailbox.post("first", "relinearisation", "north", message)
            assert mailbox.fetch("first", "relinearisation", "north", 2 * len(message)) == message
        there.delete(STUDY)


# Whose it is


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_anothers_things_look_as_if_they_were_not_there(ask, study, manifest, upload, method, path):
    for mine, none in ((study.id, STUDY), (upload[0].rpartition("/")[2], JOB)):
        theirs = path.replace(none, mine)
        answers = []
        for address in (theirs, path):
            answer = ask(method, address, whose="south", headers={**APPEND, "Upload-Offset": "0"})
            told = answer.json() if answer.content else {}
            told.pop("request", None)
            headers = {k: v for k, v in answer.headers.items() if k not in ("date", "x-request-id")}
            answers.append((answer.status_code, told, headers))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *ROUTES,
        ("GET", "/v1/studies"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/self"),
        ("GET", "/v1/tokens"),
        ("GET", "/v1/events"),
        ("PUT", f"/v1/studies/{STUDY}/messages/first/public/north"),
    ],
)
@pytest.mark.parametrize("token", ["lapsed", "none", "garbage", "basic"])
def test_no_route_opens_without_a_valid_token(server, ask, method, path, token):
    given = {
        "lapsed": server.headers("lapsed-north"),
        "none": {"Authorization": ""},
        "garbage": {"Authorization": "Bearer bt_0123456789abcdef_" + "A" * 43},
        "basic": {"Authorization": "Basic " + base64.b64encode(server.tokens["north"].encode()).decode()},
    }[token]
    answer = ask(method, path, headers={**given, **APPEND, "Upload-Offset": "0"})
    refused(answer, 401)
    assert "www-authenticate" in answer.headers


@pytest.mark.parametrize("text", ["bt_" + "9" * 100_000, "é" * 50, "\x00", "'; DROP TABLE tokens; --"])
def test_tokens_of_any_form_are_just_wrong(server, text):
    request = b"GET /v1/self HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer "
    assert status(server, request + text.encode() + b"\r\n\r\n") in (400, 401, 431)


def test_an_answer_is_kept_for_its_token_alone(ask, study, manifest):
    key = {"Idempotency-Key": "the-same-for-both"}
    path = f"/v1/studies/{study.id}/bundles"
    first = ask("POST", path, content=manifest[1], headers=key)
    assert first.json() == ask("POST", path, content=manifest[1], headers=key).json()
    refused(ask("POST", path, content=manifest[1] + b" ", headers=key), 409)
    assert ask("POST", path, content=manifest[1], whose="south", headers=key).status_code == 200


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=201", "limit=x", "limit=-1", "cursor=%00", "cursor=../..", f"limit={'9' * 400}"],
)
@pytest.mark.parametrize("path", ["/v1/studies", "/v1/jobs"])
def test_queries_beyond_reason_are_refused(ask, path, query):
    refused(ask("GET", f"{path}?{query}"), 422)
