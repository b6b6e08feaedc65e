"""What is seen of requests: identifiers, log lines and metrics, and that no tenant's data is among it."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import create_engine

from blindtune.server import logs, watch
from blindtune.server.metrics import Metrics, standing
from blindtune.server.tables import blobs, jobs, metadata, studies, tenants
from blindtune.server.watch import Watched

SECRET = "f00dfeedf00dfeedf00dfeedf00dfeed"


def application() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/studies/{study}/bundles")
    async def bundles(study: str, request: Request) -> dict[str, int]:
        request.state.token = "token-7"
        return {"size": len(await request.body())}

    @app.get("/v1/studies/{study}/fails")
    def fails(study: str) -> None:
        raise ValueError(f"could not parse {study}")

    @app.get("/v1/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(iter([b"one", b"two"]))

    return app


@pytest.fixture
def database():
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def metrics(database):
    return Metrics(lambda: standing(database))


@pytest.fixture
def lines():
    """Configures the log; the lines so far."""
    names = (logs.ROOT, "uvicorn.error")
    before = [(n, logging.getLogger(n).handlers, logging.getLogger(n).propagate) for n in names]
    stream = io.StringIO()
    logs.configure(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for name, handlers, propagate in before:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(logging.NOTSET)


@pytest.fixture
def ask(metrics, lines):
    """Makes one request of the application, which is called as a server would call it."""
    transport = httpx.ASGITransport(Watched(application(), metrics), raise_app_exceptions=False)

    async def answer(method, path, **given):
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.request(method, path, **given)

    return lambda *args, **given: asyncio.run(answer(*args, **given))


def test_a_request_is_one_line_by_its_routes_template(ask, lines):
    answer = ask("POST", f"/v1/studies/{SECRET}/bundles?name={SECRET}", content=SECRET)
    (line,) = lines()
    assert answer.json() == {"size": 32}
    assert line["request"] == answer.headers["x-request-id"]
    told = {k: line[k] for k in ("level", "method", "route", "status", "received", "token")}
    assert told == {
        "level": "info",
        "method": "POST",
        "route": "/v1/studies/{study}/bundles",
        "status": 200,
        "received": 32,
        "token": "token-7",
    }
    assert SECRET not in json.dumps(line)


def test_a_failure_is_told_by_kind_and_place_without_its_message(ask, lines):
    answer = ask("GET", f"/v1/studies/{SECRET}/fails")
    failure, line = lines()
    assert (answer.status_code, line["status"]) == (500, 500)
    assert answer.headers["x-request-id"] == failure["request"] == line["request"]
    assert failure["exception"]["type"] == "ValueError"
    assert failure["exception"]["at"][-1].startswith("test_watch.py:")
    assert SECRET not in json.dumps([failure, line])


def test_unknown_addresses_and_methods_share_one_label(ask, metrics, lines):
    ask("GET", f"/{SECRET}")
    ask("BREW", "/v1/stream")
    assert [line["route"] for line in lines()] == ["other", "/v1/stream"]
    assert [line["method"] for line in lines()] == ["GET", "other"]
    assert SECRET not in metrics.text().decode()


def test_more_requests_than_can_be_answered_are_told_to_come_back(ask, lines, monkeypatch):
    monkeypatch.setattr(watch, "AT_ONCE", 0)
    answer = ask("GET", "/v1/stream")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request"] == answer.headers["x-request-id"]
    monkeypatch.setattr(watch, "AT_ONCE", 1)
    assert [ask("GET", "/v1/stream").status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("given", ["gateway-12345678", "0f3a9c00ab12cd34"])
def test_a_proxys_request_identifier_is_kept(ask, given):
    assert ask("GET", "/v1/stream", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["short", "x" * 65, 'a"b"c"d"e"', "tab\tseparated", "ümlaut-is-latin"])
def test_an_identifier_that_is_no_plain_word_is_replaced(ask, given):
    answer = ask("GET", "/v1/stream", headers={"X-Request-Id": given.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 16
    assert answer.headers["x-request-id"] != given


def test_answers_bytes_and_seconds_are_counted(ask, metrics):
    for _ in range(3):
        ask("GET", "/v1/stream")
    ask("POST", f"/v1/studies/{SECRET}/bundles", content=b"x" * 100)
    text = metrics.text().decode()
    assert 'blindtune_requests_total{method="GET",route="/v1/stream",status="200"} 3.0' in text
    assert 'blindtune_request_seconds_count{route="/v1/stream"} 3.0' in text
    assert "blindtune_received_bytes_total 100.0" in text
    assert f"blindtune_sent_bytes_total {3 * 6 + 12}.0" in text
    assert "process_resident_memory_bytes" in text


def test_the_queue_is_read_from_the_database(database, metrics):
    tenant = {"id": "t1", "name": SECRET, "max_bytes": 1, "max_jobs": 1, "max_cores": 1, "created": 0}
    database.execute(tenants.insert().values(tenant))
    study = {"tenant": "t1", "id": "s1", "header": "{}", "created": 0, "changed": 0}
    database.execute(studies.insert().values(study))
    job = {"tenant": "t1", "study": "s1", "priority": 0, "queued": 1.0, "changed": 0, "attempts": 0}
    job |= {"cores": 1, "error": "", "remedy": "", "step": 0}
    database.execute(jobs.insert().values(id="a", state="queued", **job))
    database.execute(jobs.insert().values(id="b", state="running", lease=1.0, **job))
    for name, size in (("a", 5), ("b", 7)):
        database.execute(blobs.insert().values(tenant="t1", sha256=name, size=size, created=0))
    text = metrics.text().decode()
    for line in (
        'blindtune_jobs{state="queued"} 1.0',
        'blindtune_jobs{state="running"} 1.0',
        'blindtune_jobs{state="done"} 0.0',
        "blindtune_studies 1.0",
        "blindtune_uploads 0.0",
        "blindtune_stored_bytes 12.0",
        "blindtune_lapsed_leases 1.0",
    ):
        assert line in text
    assert "blindtune_oldest_queued_seconds 0.0" not in text
    assert SECRET not in text


def test_an_empty_database_has_all_gauges(metrics):
    text = metrics.text().decode()
    assert "blindtune_stored_bytes 0.0" in text
    assert "blindtune_oldest_queued_seconds 0.0" in text
