"""What routes ask of a request: who it comes from, a bounded body, whether it came before."""

# No postponed annotations: the framework could not resolve those that are made in functions.

import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from anyio import fail_after
from fastapi import Depends, Header, Query, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from blindtune.server import audit
from blindtune.server.api.problems import Refused
from blindtune.server.service import Service
from blindtune.server.tenants import Caller
from blindtune.wire.manifest import MAX_MANIFEST_BYTES

MOST_AT_ONCE = 32
"""Requests of one tenant that are answered at a time."""

SMALL = 1 << 16
SILENCE = 20.0
"""Seconds after which a body that does not come is given up."""

bearer = HTTPBearer(auto_error=False, description="A token of blindtune tokens.")


async def _service(request: Request) -> Service:
    # Async, as all of these that wait for nothing: others are called in a thread each.
    found: Service = request.app.state.service
    return found


Here = Annotated[Service, Depends(_service)]


async def _caller(
    request: Request,
    here: Here,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> AsyncIterator[Caller]:
    caller = await run_in_threadpool(here.tenants.caller, given.credentials) if given else None
    if caller is None:
        raise Refused(401, "wrong, lapsed or missing token", "Give a token that this server issued.")
    request.state.token = caller.token
    audit.actor.set(caller.token)
    running: defaultdict[str | None, int] = request.app.state.running
    if running[caller.tenant] >= MOST_AT_ONCE:
        raise Refused(429, "too many requests at a time", "Wait and try again.", retry=1)
    running[caller.tenant] += 1
    try:
        yield caller
    finally:
        running[caller.tenant] -= 1
        if not running[caller.tenant]:
            del running[caller.tenant]


Anyone = Annotated[Caller, Depends(_caller)]


def _tenant(caller: Anyone, scope: str) -> str:
    if caller.tenant is None or scope not in caller.scopes:
        raise Refused(403, f"the token lacks the scope {scope}", "Use one that has it.")
    return caller.tenant


async def _reading(caller: Anyone) -> str:
    return _tenant(caller, "read")


async def _submitting(caller: Anyone) -> str:
    return _tenant(caller, "submit")


async def _seeing(caller: Anyone) -> str | None:
    return None if "operator" in caller.scopes else _tenant(caller, "read")


async def _managing(caller: Anyone) -> str | None:
    return None if "operator" in caller.scopes else _tenant(caller, "submit")


async def _operating(caller: Anyone) -> Caller:
    if "operator" not in caller.scopes:
        raise Refused(403, "the token lacks the scope operator", "Use one that has it.")
    return caller


Reader = Annotated[str, Depends(_reading)]
"""The tenant that reads."""

Submitter = Annotated[str, Depends(_submitting)]
"""The tenant that submits."""

Onlooker = Annotated[str | None, Depends(_seeing)]
"""The tenant that looks at its own; None for an operator, who looks at all."""

Manager = Annotated[str | None, Depends(_managing)]
"""The tenant that manages its own; None for an operator, who manages all."""

Operator = Annotated[Caller, Depends(_operating)]


async def pieces(request: Request) -> AsyncIterator[bytes]:
    """A request's body as it comes; a sender that has gone without a word holds nothing for long.

    Raises:
        Refused: nothing came for a while.
    """
    stream = request.stream()
    while True:
        try:
            with fail_after(SILENCE):
                piece = await anext(stream, None)
        except TimeoutError:
            raise Refused(408, f"nothing came for {SILENCE:.0f} seconds", "Send it again.") from None
        if piece is None:
            return
        yield piece


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for piece in pieces(request):
        body += piece
        if len(body) > limit:
            raise Refused(413, f"the body is larger than {limit} bytes")
    request.state.body = bytes(body)
    return bytes(body)


async def _small(request: Request, caller: Anyone) -> bytes:
    return await _body(request, SMALL)


async def _large(request: Request, caller: Anyone) -> bytes:
    return await _body(request, MAX_MANIFEST_BYTES)


SmallBody = Annotated[bytes, Depends(_small)]
LargeBody = Annotated[bytes, Depends(_large)]


def parsed(model: type[BaseModel], body: bytes) -> Any:
    """A body as a model; an empty one stands for ``{}``.

    Raises:
        Refused: it is none.
    """
    try:
        return model.model_validate_json(body or b"{}")
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        known = [str(x) for x in first["loc"] if x in model.model_fields]
        raise Refused(422, f"{'.'.join(known) or 'the body'}: {first['type']}") from None


def takes(model: type[BaseModel], required: bool = True) -> dict[str, Any]:
    """The body of a route, for the OpenAPI document."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {"requestBody": {"required": required, "content": content}}


class Once:
    """Answers a POST once: the same request with the same ``Idempotency-Key`` gets the same answer."""

    def __init__(
        self,
        request: Request,
        caller: Anyone,
        here: Here,
        idempotency_key: Annotated[
            str | None, Header(min_length=8, max_length=128, pattern="^[!-~]+$")
        ] = None,
    ) -> None:
        self._request, self._caller, self._here, self._key = request, caller, here, idempotency_key

    def __call__(self, make: Callable[[], Response], *, secret: bool = False) -> Response:
        """The answer that ``make`` gives, or gave.

        Args:
            secret: the answer holds something that is told only once.
        """
        if self._key is None:
            return make()
        answers, token = self._here.answers, self._caller.token
        before = answers.begin(token, self._key, self._digest())
        if before is not None and secret:
            raise Refused(409, "this was done before, and its answer is told only once", "Use a new key.")
        if before is not None and before.text is not None:
            told = json.loads(before.text)
            return Response(
                told["body"], before.status, told["headers"], media_type=told["headers"].get("content-type")
            )
        try:
            response = make()
        except BaseException:
            answers.abandon(token, self._key)
            raise
        kept = {n: v for n, v in response.headers.items() if n != "content-length"}
        text = json.dumps({"body": bytes(response.body).decode(), "headers": kept})
        answers.finish(token, self._key, response.status_code, text, secret=secret)
        return response

    def _digest(self) -> str:
        request, digest = self._request, hashlib.sha256()
        named = [request.headers.get(n, "") for n in ("upload-length", "upload-metadata")]
        for text in (request.method, request.url.path, *named):
            digest.update(text.encode() + b"\0")
        digest.update(getattr(request.state, "body", b""))
        return digest.hexdigest()


Idempotent = Annotated[Once, Depends()]
Limit = Annotated[int, Query(ge=1, le=200, description="Items of a page, at most.")]
Cursor = Annotated[
    str | None,
    Query(max_length=100, pattern="^[0-9a-f.]+$", description="next of the page before."),
]
