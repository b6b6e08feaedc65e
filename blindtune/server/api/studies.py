"""Studies: bundles opened and completed, states, deletion, heads."""

from hashlib import sha256
from typing import Annotated, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, JSONResponse, Response

from blindtune.errors import BundleError
from blindtune.server import audit
from blindtune.server.api.asking import (
    Cursor,
    Here,
    Idempotent,
    LargeBody,
    Limit,
    Onlooker,
    Reader,
    Submitter,
    takes,
)
from blindtune.server.api.models import Missing, StudyPage, StudyStatus
from blindtune.server.api.problems import NOT_FOUND, Refused, documented
from blindtune.server.api.sending import NOT_AGAIN, SENT, IfNoneMatch, has, send
from blindtune.wire.manifest import Identifier, Manifest, Member, PartName, parse_manifest

router = APIRouter(prefix="/v1/studies", tags=["studies"], responses=documented())

Study = Annotated[Identifier, PathParameter(description="A study's identifier.")]
Kind = Annotated[Literal["keys", "data", "start"], PathParameter()]
Name = Annotated[PartName, PathParameter()]
Whose = Annotated[Member, PathParameter()]

_reading = CapacityLimiter(1)
"""Manifests are large documents: one at a time, so that memory stays bounded. Who waits holds no thread."""


@router.get("")
def studies(tenant: Onlooker, here: Here, limit: Limit = 50, cursor: Cursor = None) -> StudyPage:
    """A tenant's studies; an operator sees everybody's."""
    after = None
    if cursor is not None:
        owner, _, study = cursor.partition(".")
        after = (owner, study)
    found = here.studies.page(tenant, after, limit + 1)
    names = here.tenants.names() if tenant is None else {}
    items = [StudyStatus(**status, tenant=names.get(owner)) for owner, status in found[:limit]]
    last = found[limit - 1] if len(found) > limit else None
    return StudyPage(items=items, next=f"{last[0]}.{last[1]['study']}" if last else None)


@router.get("/{study}")
def study_status(study: Study, tenant: Reader, here: Here) -> StudyStatus:
    """A study's state."""
    found = here.studies.status(tenant, study)
    if found is None:
        raise NOT_FOUND
    return StudyStatus(**found)


@router.delete("/{study}", status_code=204, responses=documented(409))
def delete(study: Study, tenant: Submitter, here: Here) -> None:
    """Remove a study and everything that is kept for it."""
    if not here.studies.delete(tenant, study):
        raise NOT_FOUND


async def _manifest(study: Study, tenant: Submitter, here: Here, body: LargeBody) -> Manifest:
    def read() -> Manifest:
        return parse_manifest(body, insecure=here.studies.insecure)

    manifest = await to_thread.run_sync(read, limiter=_reading)
    if manifest.study != study or manifest.kind == "head":
        raise BundleError("the manifest is of another study, or of a head")
    return manifest


@router.post(
    "/{study}/bundles",
    response_model=Missing,
    responses=documented(408, 409, 413),
    openapi_extra=takes(Manifest),
)
def open_bundle(
    study: Study,
    tenant: Submitter,
    here: Here,
    manifest: Annotated[Manifest, Depends(_manifest)],
    once: Idempotent,
) -> Response:
    """Open a bundle by its manifest, or go on with it: what is still to be uploaded."""

    def make() -> Response:
        missing = here.studies.open_bundle(tenant, manifest)
        return JSONResponse({"missing": [p.model_dump() for p in missing]})

    return once(make)


@router.post("/{study}/bundles/{kind}/{member}/complete", status_code=204, responses=documented(409))
def complete(
    study: Study, kind: Kind, member: Whose, tenant: Submitter, here: Here, once: Idempotent
) -> Response:
    """All parts of a bundle have arrived."""

    def make() -> Response:
        if not here.studies.complete(tenant, study, kind, member):
            raise NOT_FOUND
        return Response(status_code=204)

    return once(make)


def _head(study: Study, tenant: Reader, here: Here) -> str:
    text = here.studies.head(tenant, study)
    if text is not None:
        return text
    if here.studies.status(tenant, study) is None:
        raise NOT_FOUND
    raise Refused(409, "the study is not trained yet", "Wait until it is done.")


Head = Annotated[str, Depends(_head)]


@router.get("/{study}/head/manifest", response_model=Manifest, responses={**documented(409), **NOT_AGAIN})
def head_manifest(
    study: Study, head: Head, tenant: Reader, here: Here, if_none_match: IfNoneMatch = None
) -> Response:
    """The manifest of a trained study's encrypted head."""
    tag = f'"{sha256(head.encode()).hexdigest()}"'
    if has(if_none_match, tag):
        return Response(status_code=304, headers={"ETag": tag})
    with here.database.transaction() as db:
        audit.append(db, "head.fetched", f"{tenant}/{study}")
    return Response(head, media_type="application/json", headers={"ETag": tag})


@router.get("/{study}/head/parts/{name}", response_class=FileResponse, responses={**documented(409), **SENT})
def head_part(
    study: Study, name: Name, head: Head, tenant: Reader, here: Here, if_none_match: IfNoneMatch = None
) -> Response:
    """A part of a trained study's encrypted head, or a range of it."""
    part = here.studies.head_part(tenant, study, name)
    if part is None:
        raise NOT_FOUND
    return send(here.contents, tenant, part.sha256, if_none_match)
