"""Messages between the members of a study under a joint key: written once, read with the tenant's tokens.

Contents travel as uploads do: a message is announced here, and its bytes are sent under ``/v1/uploads``.
"""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from blindtune.server.api.asking import Here, Reader, SmallBody, Submitter, parsed, takes
from blindtune.server.api.models import Posted
from blindtune.server.api.problems import NOT_FOUND, documented
from blindtune.server.api.sending import SENT, IfNoneMatch, send
from blindtune.server.api.studies import Study
from blindtune.server.messages import Letter
from blindtune.wire.manifest import Sha256
from blindtune.wire.message import MAX_STATEMENT, NAME

router = APIRouter(prefix="/v1/studies/{study}/messages", tags=["messages"], responses=documented())
Name = Annotated[str, PathParameter(pattern=f"^{NAME.pattern}$")]
ADDRESS = "/{stage}/{item}/{sender}"


class MessageRequest(BaseModel):
    """What a message is."""

    model_config = ConfigDict(extra="forbid", strict=True)
    sha256: Sha256
    size: int = Field(ge=8, le=1 << 32)
    statement: str = Field(max_length=MAX_STATEMENT, description="Of the message, as its sender signed it.")
    signature: str = Field(pattern="^[0-9a-f]{128}$", description="Ed25519, of the statement.")


async def _names(study: Study, stage: Name, item: Name, sender: Name) -> dict[str, str]:
    return {"study": study, "stage": stage, "item": item, "sender": sender}


Names = Annotated[dict[str, str], Depends(_names)]


@router.put(ADDRESS, responses=documented(408, 409, 413), openapi_extra=takes(MessageRequest))
def post(names: Names, tenant: Submitter, here: Here, body: SmallBody) -> Posted:
    """Say what a message is, then upload its content; the same again changes nothing, another is refused.

    Refused, too, is what is not signed by the member of the study in whose name it comes.
    """
    told: MessageRequest = parsed(MessageRequest, body)
    letter = Letter(tenant, **names)
    here.senders.check(letter, told.statement, bytes.fromhex(told.signature), told.size)
    return Posted(missing=here.messages.post(letter, told.sha256, told.size))


@router.get(ADDRESS, response_class=FileResponse, responses=SENT)
def read(names: Names, tenant: Reader, here: Here, if_none_match: IfNoneMatch = None) -> Response:
    """A message, or a range of it, once its content is wholly here."""
    sha256 = here.messages.find(Letter(tenant, **names))
    if sha256 is None:
        raise NOT_FOUND
    return send(here.contents, tenant, sha256, if_none_match)
