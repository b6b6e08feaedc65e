"""Kept contents as answers: whole, in ranges, or not again."""

from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import FileResponse, Response

from blindtune.server.api.problems import documented
from blindtune.server.contents import Contents

IfNoneMatch = Annotated[str | None, Header(max_length=1000)]
NOT_AGAIN: dict[int | str, dict[str, Any]] = {304: {"description": "The caller has it already."}}

_binary = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
SENT: dict[int | str, dict[str, Any]] = {
    **documented(416),
    **NOT_AGAIN,
    200: {"description": "The whole.", **_binary},
    206: {"description": "A range of it.", **_binary},
}
"""Responses of :func:`send` for the OpenAPI document."""


def send(contents: Contents, tenant: str, sha256: str, if_none_match: str | None) -> Response:
    """A kept content, or the range of it that is asked for.

    Raises:
        OSError: the storage failed.
    """
    tag = f'"{sha256}"'
    if has(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    file = contents.path(tenant, sha256)
    return FileResponse(file, media_type="application/octet-stream", headers={"ETag": tag})


def has(if_none_match: str | None, tag: str) -> bool:
    """Whether the caller has what this tag names."""
    if if_none_match is None:
        return False
    return any(t.strip().removeprefix("W/") in ("*", tag) for t in if_none_match.split(","))
