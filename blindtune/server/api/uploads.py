"""Uploads that go on where they broke off: tus 1.0 with creation, checksum, termination and expiration.

The protocol's Python servers that are kept (tuspyserver, for one) write files under names of their own, know
neither tenants nor quotas before the first byte, and check no SHA-256 of the whole; its semantics are few
enough to stand here. An upload is known by its content: whoever announces the same one goes on with it.
"""

import base64
import binascii
import re
from email.utils import formatdate
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from blindtune.server.api.asking import Anyone, Here, Idempotent, Submitter, pieces
from blindtune.server.api.problems import CHECKSUM_MISMATCH, NOT_FOUND, Refused, documented
from blindtune.server.contents import Upload
from blindtune.server.receiving import Receiver, finish

VERSION = "1.0.0"
BLOCK = 1 << 20
"""Bytes held in memory for each upload."""

_TUS = {"Tus-Resumable": VERSION}


def _versioned(request: Request, caller: Anyone) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise Refused(412, f"Tus-Resumable is not {VERSION}", "Speak tus 1.0.")


router = APIRouter(
    prefix="/v1/uploads",
    tags=["uploads"],
    responses=documented(412),
)
UploadId = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$", description="An upload's identifier.")]
Versioned = [Depends(_versioned)]


@router.options("", status_code=204)
def options() -> Response:
    """What of tus this server speaks."""
    return Response(
        status_code=204,
        headers={
            **_TUS,
            "Tus-Version": VERSION,
            "Tus-Extension": "creation,checksum,termination,expiration",
            "Tus-Checksum-Algorithm": "sha256",
        },
    )


@router.post("", status_code=201, responses=documented(400, 412, 413), dependencies=Versioned)
def announce(
    tenant: Submitter,
    here: Here,
    once: Idempotent,
    upload_length: Annotated[int, Header(ge=8, le=1 << 40)],
    upload_metadata: Annotated[str, Header(max_length=1000)],
) -> Response:
    """Announce a content by its size and the ``sha256`` of its metadata; a bundle or message has to lack it.

    Nothing is left to send if the answer has no Location.
    """

    def make() -> Response:
        sha256 = _metadata(upload_metadata).get("sha256", "")
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Refused(422, "the Upload-Metadata has no sha256 in hexadecimal digits")
        upload = here.contents.announce(tenant, sha256, upload_length)
        if upload is None:
            return Response(status_code=201, headers={**_TUS, "Upload-Offset": str(upload_length)})
        return Response(status_code=201, headers={**_where(upload), "Location": f"/v1/uploads/{upload.id}"})

    return once(make)


def _found(upload: UploadId, tenant: Submitter, here: Here) -> Upload:
    found = here.contents.upload(tenant, upload)
    if found is None:
        raise NOT_FOUND
    return found


Found = Annotated[Upload, Depends(_found)]


@router.head("/{upload}", status_code=200, dependencies=Versioned)
def where(found: Found) -> Response:
    """Where an upload stands."""
    return Response(headers={**_where(found), "Upload-Length": str(found.size), "Cache-Control": "no-store"})


@router.delete("/{upload}", status_code=204, dependencies=Versioned)
def terminate(found: Found, here: Here) -> Response:
    """Forget an upload and its bytes."""
    here.contents.abandon(found)
    return Response(status_code=204, headers=_TUS)


@router.patch(
    "/{upload}",
    status_code=204,
    dependencies=Versioned,
    responses=documented(400, 408, 409, 412, 413, 415, CHECKSUM_MISMATCH),
    openapi_extra={
        "requestBody": {
            "content": {"application/offset+octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        }
    },
)
async def append(
    found: Found,
    request: Request,
    here: Here,
    upload_offset: Annotated[int, Header(ge=0, le=1 << 40)],
    upload_checksum: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Append to an upload: with an Upload-Checksum all of the body or nothing.

    The last byte makes it whole.
    """
    if request.headers.get("content-type") != "application/offset+octet-stream":
        raise Refused(415, "the body is not application/offset+octet-stream")
    digest = _checksum(upload_checksum)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and upload_offset + int(declared) > found.size:
        raise Refused(413, f"more than the {found.size} bytes that were announced")
    receiver = await run_in_threadpool(Receiver, found, upload_offset)
    whole = False
    try:
        block = bytearray()
        async for piece in pieces(request):
            block += piece
            if len(block) >= BLOCK:
                await run_in_threadpool(receiver.write, bytes(block))
                block.clear()
        await run_in_threadpool(receiver.write, bytes(block))
        if digest is not None and not receiver.holds(digest):
            raise Refused(CHECKSUM_MISMATCH, "the body arrived altered", "Send it again.")
        whole = True
        if receiver.end == found.size:
            await run_in_threadpool(finish, here.contents, found)
        else:
            await run_in_threadpool(here.contents.touch, found)
    finally:
        await run_in_threadpool(receiver.close, keep=whole or digest is None)
    return Response(status_code=204, headers={**_TUS, "Upload-Offset": str(receiver.end)})


def _where(upload: Upload) -> dict[str, str]:
    return {
        **_TUS,
        "Upload-Offset": str(upload.offset),
        "Upload-Expires": formatdate(upload.lapses, usegmt=True),
    }


def _metadata(header: str) -> dict[str, str]:
    """Upload-Metadata: names and base64, separated by commas."""
    found = {}
    for pair in header.split(","):
        name, _, value = pair.strip().partition(" ")
        try:
            found[name] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            raise Refused(400, "the Upload-Metadata is not as tus has it") from None
    return found


def _checksum(header: str | None) -> bytes | None:
    if header is None:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm != "sha256":
        raise Refused(400, "the checksum's algorithm is not sha256")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise Refused(400, "the Upload-Checksum is not as tus has it") from None
