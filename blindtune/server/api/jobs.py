"""Jobs: queued, watched, cancelled, tried again."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from blindtune.server.api.asking import (
    Cursor,
    Here,
    Idempotent,
    Limit,
    Onlooker,
    Reader,
    SmallBody,
    Submitter,
    parsed,
    takes,
)
from blindtune.server.api.models import JobPage, JobStatus
from blindtune.server.api.problems import NOT_FOUND, Refused, documented
from blindtune.server.api.studies import Study
from blindtune.server.jobs import Job
from blindtune.server.memory import check_memory
from blindtune.wire.manifest import Identifier

router = APIRouter(prefix="/v1", tags=["jobs"], responses=documented())

JobId = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$", description="A job's identifier.")]


class JobRequest(BaseModel):
    """A training to queue; the higher priority goes first among a tenant's."""

    model_config = ConfigDict(extra="forbid", strict=True)
    priority: int = Field(default=0, ge=-100, le=100)


@router.post(
    "/studies/{study}/jobs",
    status_code=202,
    response_model=JobStatus,
    responses=documented(408, 409, 413),
    openapi_extra=takes(JobRequest, required=False),
)
def start(
    study: Study, tenant: Submitter, here: Here, body: SmallBody, once: Idempotent, request: Request
) -> Response:
    """Queue a training; the job that is queued or running already if there is one."""

    def make() -> Response:
        wanted: JobRequest = parsed(JobRequest, body)
        if here.studies.status(tenant, study) is None:
            raise NOT_FOUND
        with here.database.reading() as db:
            made = here.studies.made(db, tenant, study)
        if not request.app.state.elsewhere:
            check_memory(made.keys, made.data)
        return _told(here.jobs.enqueue(tenant, study, wanted.priority))

    return once(make)


@router.get("/jobs")
def jobs(
    tenant: Onlooker,
    here: Here,
    limit: Limit = 50,
    cursor: Cursor = None,
    study: Annotated[Identifier | None, Query(description="Of this study alone.")] = None,
) -> JobPage:
    """A tenant's jobs; an operator sees everybody's."""
    found = here.jobs.page(tenant, study, limit=limit + 1, after=cursor)
    names = here.tenants.names() if tenant is None else None
    items = [JobStatus.of(job, names) for job in found[:limit]]
    return JobPage(items=items, next=items[-1].id if len(found) > limit else None)


@router.get("/jobs/{job}")
def job_status(job: JobId, tenant: Onlooker, here: Here) -> JobStatus:
    """A job."""
    found = here.jobs.get(job, tenant)
    if found is None:
        raise NOT_FOUND
    return JobStatus.of(found, here.tenants.names() if tenant is None else None)


@router.get("/jobs/{job}/timing", responses=documented(409))
def timing(job: JobId, tenant: Reader, here: Here) -> dict[str, Any]:
    """What a finished training took: seconds, memory and operations."""
    if here.jobs.get(job, tenant) is None:
        raise NOT_FOUND
    found = here.jobs.timing(job, tenant)
    if found is None:
        raise Refused(409, "the job is not done yet", "Wait until it is.")
    return found


@router.post("/jobs/{job}/cancel", status_code=202, response_model=JobStatus, responses=documented(409))
def cancel(job: JobId, tenant: Submitter, here: Here, once: Idempotent) -> Response:
    """Take a job out of the queue, or stop it."""

    def make() -> Response:
        if here.jobs.get(job, tenant) is None:
            raise NOT_FOUND
        return _told(here.jobs.cancel(job, tenant))

    return once(make)


@router.post("/jobs/{job}/retry", status_code=202, response_model=JobStatus, responses=documented(409))
def retry(job: JobId, tenant: Submitter, here: Here, once: Idempotent) -> Response:
    """Queue a job again that failed or was cancelled; it goes on from its last kept step."""

    def make() -> Response:
        if here.jobs.get(job, tenant) is None:
            raise NOT_FOUND
        return _told(here.jobs.retry(job, tenant))

    return once(make)


def _told(job: Job) -> Response:
    return JSONResponse(JobStatus.of(job).model_dump(), 202)
