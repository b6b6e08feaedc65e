"""A server in this process that trains nothing; tenants north and south, and an operator."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from blindtune.server.service import Service
from blindtune.wire.bundle import Bundle
from tests.members import told

TUS = {"Tus-Resumable": "1.0.0"}
APPEND = {**TUS, "Content-Type": "application/offset+octet-stream"}


class Caller:
    """Somebody with a token."""

    def __init__(self, http: httpx.Client, token: str) -> None:
        self._http, self.token = http, token

    def ask(self, method: str, path: str, **given) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **given.pop("headers", {})}
        return self._http.request(method, f"/v1{path}", headers=headers, **given)

    def get(self, path: str, **given) -> httpx.Response:
        return self.ask("GET", path, **given)

    def post(self, path: str, **given) -> httpx.Response:
        return self.ask("POST", path, **given)

    def announce(self, content: bytes, **changed) -> httpx.Response:
        metadata = base64.b64encode(hashlib.sha256(content).hexdigest().encode()).decode()
        headers = {**TUS, "Upload-Length": str(len(content)), "Upload-Metadata": f"sha256 {metadata}"}
        return self.post("/uploads", headers={**headers, **changed})

    def append(self, place: str, offset: int, content: bytes, *, checksum: bool = True, **changed):
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        headers = {**APPEND, "Upload-Offset": str(offset), "Upload-Checksum": f"sha256 {digest}"}
        if not checksum:
            del headers["Upload-Checksum"]
        return self.ask("PATCH", place, content=content, headers={**headers, **changed})

    def send(self, path: Path) -> None:
        """Submit a bundle."""
        bundle = Bundle(path, insecure=True)
        m = bundle.manifest
        base = f"/studies/{m.study}/bundles"
        answer = self.post(base, content=(path / "manifest.json").read_bytes())
        assert answer.status_code == 200, answer.text
        for part in answer.json()["missing"]:
            content = bundle.open_part(part["name"]).read_bytes()
            place = self.announce(content).headers["location"].removeprefix("/v1")
            assert self.append(place, 0, content).status_code == 204
        assert self.post(f"{base}/{m.kind}/{m.member}/complete").status_code == 204

    def say(self, path: str, content: bytes) -> None:
        """Leave a message."""
        answer = self.ask("PUT", path, json=told(content))
        assert answer.status_code == 200, answer.text
        if answer.json()["missing"]:
            place = self.announce(content).headers["location"].removeprefix("/v1")
            assert self.append(place, 0, content).status_code == 204


@dataclass
class Api:
    """The application, and who asks it."""

    service: Service
    http: httpx.Client
    north: Caller
    south: Caller
    operator: Caller


@pytest.fixture
def api(idle_server):
    service = idle_server.service
    with httpx.Client(base_url=idle_server.url, timeout=60) as http:
        callers = []
        for name in ("north", "south"):
            tenant = service.tenants.make(name)
            callers.append(Caller(http, service.tenants.issue(tenant, ["read", "submit"])[1]))
        operator = Caller(http, service.tenants.issue(None, ["operator"])[1])
        yield Api(service, http, *callers, operator)


@pytest.fixture
def refused():
    """Checks that an answer is a problem of this status; what it says."""

    def check(answer: httpx.Response, status: int) -> str:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        told = answer.json()
        assert set(told) == {"type", "title", "status", "detail", "remedy", "request"}
        assert told["status"] == status
        return told["detail"]

    return check
