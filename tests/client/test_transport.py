"""Further tries of what failed in passing: as often as it may help, and a POST under one key."""

from __future__ import annotations

import ssl

import httpx
import pytest

from blindtune.client import transport
from blindtune.client.transport import StatusError, Transport


@pytest.fixture
def asked(monkeypatch):
    """Starts a transport whose server answers as listed; what it was asked, and the pauses between."""
    monkeypatch.setattr(transport, "PAUSES", (0.5, 1.0, 2.0))
    requests, pauses = [], []
    monkeypatch.setattr(transport.time, "sleep", pauses.append)

    def start(*answers):
        left = list(answers)

        def answer(request):
            requests.append(request)
            status, headers = left.pop(0)
            return httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"{}"))

        made = Transport("https://far.example", "token", False, ssl.create_default_context())
        made._http.close()
        made._http = httpx.Client(transport=httpx.MockTransport(answer), base_url="https://far.example/v1")
        return made

    start.requests, start.pauses = requests, pauses
    return start


def test_a_post_is_one_request_however_often_it_is_sent(asked):
    there = asked((503, {}), (429, {"Retry-After": "7"}), (200, {}))
    assert there.json("POST", "/studies") == {}
    assert len({r.headers["idempotency-key"] for r in asked.requests}) == 1
    assert asked.pauses == [0.5, 7.0]
    there = asked((200, {}), (200, {}))
    for _ in range(2):
        there.json("POST", "/studies")
    assert len({r.headers["idempotency-key"] for r in asked.requests}) == 3


def test_other_methods_have_no_key(asked):
    asked((200, {})).json("GET", "/studies")
    assert "idempotency-key" not in asked.requests[0].headers


@pytest.mark.parametrize(
    ("header", "pause"),
    [("99999", 30.0), ("-1", 0.5), ("Sun, 29 Nov 2026 10:00:00 GMT", 0.5), ("9" * 20, 0.5)],
)
def test_a_server_cannot_ask_for_any_pause(asked, header, pause):
    asked((429, {"Retry-After": header}), (200, {})).json("GET", "/studies")
    assert asked.pauses == [pause]


def test_what_does_not_pass_is_told_with_its_status(asked):
    there = asked(*[(429, {})] * 4)
    with pytest.raises(StatusError) as caught:
        there.json("GET", "/studies")
    assert caught.value.status == 429
    assert len(asked.requests) == 4
    with pytest.raises(StatusError) as caught:
        asked((409, {})).json("GET", "/studies")
    assert caught.value.status == 409
    assert len(asked.requests) == 5
