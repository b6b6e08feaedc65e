"""Who a token speaks for; tokens listed, made and revoked."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from blindtune.errors import InputError
from blindtune.server.api.asking import (
    Anyone,
    Here,
    Idempotent,
    Manager,
    Onlooker,
    Operator,
    SmallBody,
    parsed,
    takes,
)
from blindtune.server.api.models import NewToken, Self, Tokens, TokenStatus
from blindtune.server.api.problems import NOT_FOUND, documented
from blindtune.server.tables import tenants
from blindtune.server.tenants import used_bytes

router = APIRouter(prefix="/v1", tags=["tokens"], responses=documented())


class TokenRequest(BaseModel):
    """A token to make: a tenant's with read, submit or both, or an operator's without a tenant."""

    model_config = ConfigDict(extra="forbid")
    tenant: str | None = Field(default=None, max_length=32, description="The name of a tenant that exists.")
    scopes: list[Literal["read", "submit", "operator"]] = Field(min_length=1, max_length=3)
    label: str = Field(default="", max_length=100)
    days: float | None = Field(default=None, gt=0, le=36500, description="Until it lapses; null for never.")


@router.get("/self")
def self(caller: Anyone, here: Here) -> Self:
    """Whom the token speaks for, and what that tenant has and may take."""
    told = Self(token=caller.token, scopes=sorted(caller.scopes), tenant=None)
    if caller.tenant is None:
        return told
    with here.database.reading() as db:
        row = db.execute(select(tenants).where(tenants.c.id == caller.tenant)).mappings().one()
        limits = {name: row[name] for name in ("max_bytes", "max_jobs", "max_cores")}
        return told.model_copy(
            update={"tenant": row["name"], "bytes": used_bytes(db, caller.tenant), **limits}
        )


@router.get("/tokens")
def listed(tenant: Onlooker, here: Here) -> Tokens:
    """A tenant's tokens; an operator sees everybody's."""
    names = here.tenants.names()
    rows = here.tenants.tokens(tenant)
    items = [
        TokenStatus(**{**r, "scopes": r["scopes"].split(), "tenant": names.get(r["tenant"])}) for r in rows
    ]
    return Tokens(items=items)


@router.post(
    "/tokens",
    status_code=201,
    response_model=NewToken,
    responses=documented(408, 409, 413),
    openapi_extra=takes(TokenRequest),
)
def issue(caller: Operator, here: Here, body: SmallBody, once: Idempotent) -> Response:
    """Make a token; its text is told this once."""

    def make() -> Response:
        wanted: TokenRequest = parsed(TokenRequest, body)
        tenant = None if wanted.tenant is None else here.tenants.find(wanted.tenant)
        if wanted.tenant is not None and tenant is None:
            raise InputError("there is no such tenant", remedy="Make it with blindtune tokens create.")
        identifier, text = here.tenants.issue(tenant, wanted.scopes, label=wanted.label, days=wanted.days)
        return JSONResponse({"id": identifier, "token": text}, 201)

    return once(make, secret=True)


TokenId = Annotated[str, PathParameter(pattern="^([0-9a-f]{16}|given)$")]


@router.delete("/tokens/{token}", status_code=204)
def revoke(token: TokenId, tenant: Manager, here: Here) -> None:
    """Revoke a token: an operator any, a tenant its own."""
    if not here.tenants.revoke(token, tenant):
        raise NOT_FOUND
