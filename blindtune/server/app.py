"""The HTTP interface: uploads, starts, states and downloads under ``/v1``, behind one bearer token.

Errors are ``{"error": what, "remedy": what to do}``; no path and no traceback ever leaves the server.
"""

# No postponed annotations: the framework could not resolve those of functions inside create_app.

import errno
import hmac
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from blindtune.errors import BlindtuneError, BundleError, PlanError
from blindtune.server.memory import check_memory
from blindtune.server.store import Store
from blindtune.server.uploads import bounded, receive
from blindtune.wire.bundle import MANIFEST, PARTS
from blindtune.wire.manifest import (
    MAX_MANIFEST_BYTES,
    Identifier,
    Manifest,
    Member,
    PartName,
    parse_manifest,
)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Study = Annotated[Identifier, PathParameter()]
Kind = Annotated[Literal["keys", "data", "start"], PathParameter()]
Name = Annotated[PartName, PathParameter()]
Whose = Annotated[Member, PathParameter()]

log = logging.getLogger("blindtune.server")


def create_app(store: Store, token: str, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The application over a store.

    Args:
        token: what clients must present.
        lifespan: run around the application, such as the queue's.
    """
    secret = f"Bearer {token}".encode()

    def authorised(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get("authorization", "").encode(), secret):
            raise _refusal(401, "wrong or missing token", "Give the token that the server was started with.")

    def known(study: Study) -> str:
        if store.states.study(study) is None:
            raise _refusal(404, "no such study here", "Submit it first.")
        return study

    def trained(study: Annotated[str, Depends(known)]) -> str:
        row = store.states.study(study)
        if row is None or row["state"] != "done":
            raise _refusal(409, "the study is not trained yet", "Wait until it is done.")
        return study

    Known = Annotated[str, Depends(known)]
    Trained = Annotated[str, Depends(trained)]
    app = FastAPI(title="blindtune", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    api = APIRouter(prefix="/v1/studies/{study}", dependencies=[Depends(authorised)])

    @app.get("/v1/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @api.post("/bundles")
    async def open_bundle(study: Study, request: Request) -> dict[str, Any]:
        body = await bounded(request.stream(), MAX_MANIFEST_BYTES)
        if body is None:
            raise _refusal(413, "the manifest is too large")
        missing = await run_in_threadpool(_open, store, study, body)
        return {"missing": missing}

    @api.put("/bundles/{kind}/{member}/parts/{name}", status_code=204)
    async def put_part(study: Known, kind: Kind, member: Whose, name: Name, request: Request) -> None:
        part = store.states.part(study, kind, member, name)
        if part is None:
            raise _refusal(404, "no such part in an open upload", "Run submit again.")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > part.size:
            raise _refusal(413, f"part {name} is larger than its manifest says")
        file = store.incoming(study)
        try:
            if not await receive(request.stream(), part, file):
                raise _refusal(413, f"part {name} is larger than its manifest says")
            await run_in_threadpool(store.keep_part, study, kind, member, part, file)
        finally:
            file.unlink(missing_ok=True)

    @api.post("/bundles/{kind}/{member}/complete", status_code=204)
    def complete(study: Known, kind: Kind, member: Whose) -> None:
        store.complete(study, kind, member)

    @api.post("/start", status_code=202)
    def start(study: Known) -> dict[str, Any]:
        keys, data, _ = store.bundles(study)
        check_memory(keys.manifest, [b.manifest for b in data])
        store.states.queue(study)
        return status(study)

    @api.get("")
    def status(study: Known) -> dict[str, Any]:
        found = store.status(study)
        if found is None:
            raise _refusal(404, "no such study here")
        return found

    @api.post("/cancel", status_code=202)
    def cancel(study: Known) -> dict[str, Any]:
        store.states.cancel(study)
        return status(study)

    @api.delete("", status_code=204)
    def delete(study: Known) -> None:
        store.delete(study)

    @api.get("/head/manifest")
    def head_manifest(study: Trained) -> Response:
        return FileResponse(store.head(study) / MANIFEST, media_type="application/json")

    @api.get("/head/parts/{name}")
    def head_part(study: Trained, name: Name) -> Response:
        if name not in {p.name for p in store.head_manifest(study).parts}:
            raise _refusal(404, "no such part")
        return FileResponse(store.head(study) / PARTS / name, media_type="application/octet-stream")

    @api.get("/timing")
    def timing(study: Trained) -> Response:
        return FileResponse(store.timing(study), media_type="application/json")

    app.include_router(api)
    _answer_errors(app)
    return app


def _open(store: Store, study: str, body: bytes) -> list[str]:
    manifest: Manifest = parse_manifest(body, insecure=store.insecure)
    if manifest.study != study or manifest.kind == "head":
        raise BundleError("the manifest is of another study, or of a head")
    return store.open_bundle(manifest)


def _refusal(status: int, error: str, remedy: str = "") -> HTTPException:
    return HTTPException(status, {"error": error, "remedy": remedy})


def _answer(status: int, error: str, remedy: str = "") -> JSONResponse:
    return JSONResponse({"error": error, "remedy": remedy}, status)


def _answer_errors(app: FastAPI) -> None:
    @app.exception_handler(BlindtuneError)
    def ours(request: Request, error: BlindtuneError) -> JSONResponse:
        return _answer(409 if isinstance(error, PlanError) else 422, error.what, error.remedy)

    @app.exception_handler(StarletteHTTPException)
    def http(request: Request, error: StarletteHTTPException) -> JSONResponse:
        detail: object = error.detail
        if isinstance(detail, dict):
            return JSONResponse(detail, error.status_code)
        return _answer(error.status_code, str(detail))

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        # Only addresses are validated by the framework: a malformed one names nothing.
        return _answer(404, "no such address")

    @app.exception_handler(ClientDisconnect)
    def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return _answer(400, "the connection broke off")

    @app.exception_handler(OSError)
    def disk(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _answer(507, "the server's disk is full", "Ask its operator for room, then try again.")
        log.error("storage failed: %s", errno.errorcode.get(error.errno or 0, "unknown"))
        return _answer(500, "the server could not read or write its storage")

    @app.exception_handler(Exception)
    def other(request: Request, error: Exception) -> JSONResponse:
        return _answer(500, "the server failed", "Report it with the time of day to its operator.")
