"""Around every request: its identifier, one line in the log, and the metrics."""

from __future__ import annotations

import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blindtune.server.api.problems import problem
from blindtune.server.logs import ROOT, new_request_id, request_id
from blindtune.server.metrics import Metrics

HEADER = "x-request-id"
AT_ONCE = 1000
"""Requests that are answered at a time; more are told to come back."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

log = logging.getLogger(f"{ROOT}.requests")


class Watched:
    """ASGI application around the whole framework: it sees every answer; streams pass through unbuffered.

    Whoever knows the caller puts the token's identifier into ``request.state.token``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics, self._running = app, metrics, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(HEADER.encode(), b"").decode("latin-1")
        identifier = new_request_id(given)
        before = request_id.set(identifier)
        began, status, received, sent = time.perf_counter(), 0, 0, 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def named(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (HEADER.encode(), identifier.encode())]
            sent += len(message.get("body", b""))
            await send(message)

        self._running += 1
        try:
            app: ASGIApp = self._app if self._running <= AT_ONCE else _busy()
            await app(scope, counted, named)
        except Exception as error:
            log.error("a request failed", exc_info=error)
            # Once an answer was begun nothing is left to do; the server closes what is incomplete.
            if not status:
                raise
        finally:
            self._running -= 1
            # A client that went before the answer leaves no status: 499, as nginx says it.
            seconds, answered = time.perf_counter() - began, status or 499
            route = _route(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.answered(method, route, answered, seconds)
            self._metrics.received.inc(received)
            self._metrics.sent.inc(sent)
            fields: dict[str, Any] = {
                "method": method,
                "route": route,
                "status": answered,
                "milliseconds": round(1000 * seconds, 1),
                "received": received,
                "sent": sent,
                "token": scope.get("state", {}).get("token", ""),
            }
            log.info("request", extra={"fields": fields})
            request_id.reset(before)


def _busy() -> ASGIApp:
    detail = "the server answers as many requests as it can"
    return problem(503, detail, "Try again in a moment.", {"Retry-After": "1"})


def _route(scope: Scope) -> str:
    """The template of the route that answered: neither the log nor the metrics name what is in a path."""
    found = scope.get("route")
    return str(getattr(found, "path_format", getattr(found, "path", "other"))) if found else "other"
