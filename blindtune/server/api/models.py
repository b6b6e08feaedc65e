"""What the routes answer, as the OpenAPI document tells it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel, Field

from blindtune.server.jobs import Job
from blindtune.wire.manifest import Part

State = Literal["queued", "running", "waiting", "done", "failed", "cancelled"]
SEAL = "Seconds since the epoch."


class Missing(BaseModel):
    """Parts of a bundle whose contents are not here; each content once."""

    missing: list[Part]


class Posted(BaseModel):
    """A message that is known by now."""

    missing: bool = Field(description="Whether its content is still to be uploaded.")


class Bundles(BaseModel):
    """How many bundles of a study there are: each member's data, evaluation keys, weights to start from."""

    here: int
    expected: int


class StudyStatus(BaseModel):
    """A study's state; ``error`` and ``remedy`` say in one line each why its latest job failed."""

    study: str
    state: Literal["uploading", "ready", "queued", "running", "waiting", "done", "failed", "cancelled"]
    error: str
    remedy: str
    created: float = Field(description=SEAL)
    changed: float = Field(description=SEAL)
    members: list[str] | None = Field(default=None, description="Their names; not told to operators.")
    uploaded: list[str] | None = Field(default=None, description="Those whose data are here; as members.")
    bundles: Bundles
    keys: bool = Field(description="Whether the evaluation keys are here.")
    start: bool | None = Field(description="Whether weights to start from are here; null if none are wanted.")
    bytes: int = Field(description="Of all parts.")
    job: str | None = Field(description="The latest job.")
    progress: dict[str, Any] | None
    tenant: str | None = Field(default=None, description="Its tenant's name; told to operators.")


class JobStatus(BaseModel):
    """A job."""

    id: str
    study: str
    state: State
    priority: int
    queued: float = Field(description=SEAL)
    started: float | None
    changed: float
    attempts: int
    cores: int
    error: str
    remedy: str
    step: int = Field(description="Steps whose encrypted weights are kept.")
    progress: dict[str, Any] | None
    tenant: str | None = Field(default=None, description="Its tenant's name; told to operators.")

    @classmethod
    def of(cls, job: Job, names: dict[str, str] | None = None) -> JobStatus:
        """A job for its tenant, or with its tenant's name."""
        return cls(**{**asdict(job), "tenant": names.get(job.tenant) if names else None})


class StudyPage(BaseModel):
    """Some studies, in the order of their identifiers."""

    items: list[StudyStatus]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")


class JobPage(BaseModel):
    """Some jobs, from the newest to the oldest."""

    items: list[JobStatus]
    next: str | None = Field(description="The cursor of the next page; null on the last one.")


class TokenStatus(BaseModel):
    """A token, without its text."""

    id: str
    label: str
    scopes: list[str]
    created: float
    expires: float | None
    revoked: float | None
    tenant: str | None = Field(description="Its tenant's name; null for an operator's.")


class Tokens(BaseModel):
    """Tokens, the newest first."""

    items: list[TokenStatus]


class NewToken(BaseModel):
    """A token's text, told this once."""

    id: str
    token: str


class Self(BaseModel):
    """Whom a token speaks for, and what that tenant has and may take."""

    token: str
    scopes: list[str]
    tenant: str | None
    bytes: int | None = None
    max_bytes: int | None = None
    max_jobs: int | None = None
    max_cores: int | None = None
