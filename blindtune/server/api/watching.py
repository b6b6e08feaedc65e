"""Watching: events for the page, metrics for Prometheus."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials
from starlette.concurrency import run_in_threadpool

from blindtune.errors import StorageError
from blindtune.server.api.asking import Here, Onlooker, bearer
from blindtune.server.api.problems import Refused, documented
from blindtune.server.events import News
from blindtune.server.metrics import CONTENT_TYPE, Metrics
from blindtune.wire.tls import is_loopback

LOOK = 1.0
"""Seconds between two looks at the database for a reader."""

ALIVE = 15.0
"""Seconds of silence after which a comment keeps the connection, and the token is looked at again."""

MOST_READERS = 8
"""Streams of one tenant at a time; each is one of its requests that are answered at a time."""

router = APIRouter(tags=["operation"])

_stream = {"text/event-stream": {"schema": {"type": "string"}}}


@router.get(
    "/v1/events",
    response_class=StreamingResponse,
    responses={**documented(), 200: {"description": "Events; they do not end.", "content": _stream}},
)
async def events(
    request: Request,
    tenant: Onlooker,
    here: Here,
    given: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
) -> Response:
    """Server-sent events ``self``, ``study``, ``job``, ``gone`` and ``whole``: all that the page shows."""
    readers = request.app.state.readers
    if readers[tenant] >= MOST_READERS:
        raise Refused(429, "too many pages are open", "Close one.", retry=30)

    async def stream() -> AsyncIterator[str]:
        readers[tenant] += 1
        try:
            async for text in _told(News(here.database, tenant), request, here, given.credentials):
                yield text
        finally:
            readers[tenant] -= 1

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


async def _told(news: News, request: Request, here: Here, token: str) -> AsyncIterator[str]:
    heard = time.monotonic()
    while not request.app.state.stopping():
        try:
            found = await run_in_threadpool(news.since)
            if not found and time.monotonic() - heard >= ALIVE:
                if await run_in_threadpool(here.tenants.caller, token) is None:
                    return
                found = [("", {})]
        except StorageError:
            # The reader comes again, and is answered once the database is back.
            return
        if found:
            heard = time.monotonic()
            yield "".join(_event(name, document) for name, document in found)
        await asyncio.sleep(LOOK)


def _event(name: str, document: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n" if name else ": alive\n\n"


@router.get(
    "/metrics",
    response_class=Response,
    openapi_extra={"security": [{"HTTPBearer": []}, {}]},
    responses={
        **documented(),
        200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    },
)
def metrics(
    request: Request, here: Here, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Response:
    """Metrics in Prometheus' format: from this machine itself, or with an operator's token."""
    client = request.client.host if request.client else ""
    proxied = any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    if proxied or not is_loopback(client):
        caller = here.tenants.caller(given.credentials) if given else None
        if caller is None:
            raise Refused(401, "metrics need an operator's token from afar", "Give one, or ask on the host.")
        if "operator" not in caller.scopes:
            raise Refused(403, "the token lacks the scope operator", "Use one that has it.")
    found: Metrics = request.app.state.metrics
    return Response(found.text(), media_type=CONTENT_TYPE)
