"""Every refusal and failure as one document: RFC 9457, ``application/problem+json``.

No path, no traceback and nothing of what a client sent is repeated in it.
"""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from blindtune.errors import BlindtuneError, PlanError, QuotaError, StorageError
from blindtune.server.logs import ROOT, request_id
from blindtune.server.receiving import Busy, TooLong

MEDIA_TYPE = "application/problem+json"
CHECKSUM_MISMATCH = 460
"""tus 1.0, extension checksum."""

log = logging.getLogger(ROOT)


class Problem(BaseModel):
    """What went wrong, and what to do about it."""

    type: str = Field(description="A name of the kind of problem, or about:blank.")
    title: str = Field(description="The kind of problem in words.")
    status: int
    detail: str = Field(description="What is wrong this time.")
    remedy: str = Field(description="What to do about it; may be empty.")
    request: str = Field(description="The request's identifier, for the server's operator.")


class Refused(Exception):
    """A request that is refused.

    Args:
        retry: seconds after which to try again.
    """

    def __init__(self, status: int, detail: str, remedy: str = "", *, retry: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.remedy, self.retry = status, detail, remedy, retry


NOT_FOUND = Refused(404, "no such thing here", "Check its identifier, and whose token it is.")
"""The same whether there is none or it is another tenant's."""

_KINDS = {
    401: "token",
    403: "scope",
    404: "unknown",
    409: "conflict",
    413: "size",
    422: "content",
    429: "quota",
    CHECKSUM_MISMATCH: "checksum",
    503: "unavailable",
    507: "storage",
}
_TITLES = {CHECKSUM_MISMATCH: "Checksum Mismatch"}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Responses for the OpenAPI document: these problems, and those that every route can meet."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    always = (401, 403, 404, 422, 429, 500, 503, 507)
    return {s: {"description": title(s), "content": content} for s in sorted({*always, *statuses})}


def title(status: int) -> str:
    """The words for a status."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def problem(
    status: int, detail: str, remedy: str = "", headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer."""
    kind = f"urn:blindtune:{_KINDS[status]}" if status in _KINDS else "about:blank"
    document = Problem(
        type=kind,
        title=title(status),
        status=status,
        detail=detail,
        remedy=remedy,
        request=request_id.get(),
    )
    return JSONResponse(document.model_dump(), status, headers, media_type=MEDIA_TYPE)


def status_of(error: BlindtuneError) -> tuple[int, dict[str, str]]:
    """The status of one of our errors, and headers to go with it."""
    if isinstance(error, QuotaError):
        return (429, {"Retry-After": "30"}) if error.passing else (413, {})
    if isinstance(error, StorageError):
        return (507, {}) if error.full else (503, {"Retry-After": "5"})
    if isinstance(error, TooLong):
        return 413, {}
    return (409 if isinstance(error, PlanError) else 422), {}


def answer_problems(app: FastAPI) -> None:
    """Have an application answer every failure with a problem."""

    @app.exception_handler(BlindtuneError)
    def ours(request: Request, error: BlindtuneError) -> JSONResponse:
        status, headers = status_of(error)
        if status >= 500:
            log.error("storage failed", exc_info=error)
        return problem(status, error.what, error.remedy, headers)

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> JSONResponse:
        headers = {} if error.retry is None else {"Retry-After": str(error.retry)}
        if error.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="blindtune"'
        return problem(error.status, error.detail, error.remedy, headers)

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> JSONResponse:
        known = {404: "no such address", 405: "not a method of this address"}
        return problem(error.status_code, known.get(error.status_code, ""), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place, *field = first["loc"]
        if place == "path":
            # A malformed name names nothing.
            return problem(404, NOT_FOUND.detail, NOT_FOUND.remedy)
        return problem(422, f"{'.'.join(map(str, field))[:80]} in the {place}: {first['type']}")

    @app.exception_handler(Busy)
    def busy(request: Request, error: Busy) -> JSONResponse:
        detail = "somebody else is sending this content"
        return problem(429, detail, "Wait and go on with it.", {"Retry-After": "1"})

    @app.exception_handler(ClientDisconnect)
    def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return problem(400, "the connection broke off")

    @app.exception_handler(OSError)
    def disk(request: Request, error: OSError) -> JSONResponse:
        log.error("storage failed", exc_info=error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return problem(507, "the server's disk is full", "Ask its operator for room, then try again.")
        return problem(503, "the server cannot use its storage", "Try again later.", {"Retry-After": "5"})

    @app.exception_handler(Exception)
    def other(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "the server failed", "Report it with the request's identifier to its operator.")
