"""Secure sums over a channel: the coordinator's order of messages, and a site's answers to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from blindtune.errors import FederationError
from blindtune.federation.agreement import Schema
from blindtune.federation.channel import Channel, Request
from blindtune.federation.identity import Roster
from blindtune.federation.secagg import protocol
from blindtune.federation.secagg.aggregator import Aggregator, Sum
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.session import MAX_LENGTH, Session

PREFIX, PLAIN = "secagg/", "plain/vector"


class Proposal(Schema):
    """A session as it is proposed: a site puts its own roster in, never the coordinator's."""

    study: Annotated[str, Field(pattern=r"^[0-9a-z-]{1,64}$")]
    round: Annotated[int, Field(ge=0, lt=1 << 31)]
    attempt: Annotated[int, Field(ge=0, lt=1 << 31)]
    model: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    purpose: Annotated[str, Field(pattern=r"^[a-z-]{1,32}$")]
    length: Annotated[int, Field(ge=1, le=MAX_LENGTH)]
    threshold: Annotated[int, Field(ge=1, le=50)]

    def session(self, roster: Roster) -> Session:
        """The session, on a grid of [-1, 1]."""
        return Session(
            self.study,
            self.round,
            self.attempt,
            self.model,
            self.purpose,
            self.length,
            1.0,
            self.threshold,
            roster,
        )


def secure_sum(channel: Channel, proposal: Proposal, roster: Roster, asked: Collection[str]) -> Sum:
    """Sum the vectors that sites hold ready for ``proposal``.

    Args:
        asked: names of the sites that are there.

    Raises:
        FederationError: too few are left at some stage; nothing was learned, the next attempt may succeed.
    """
    server, head = Aggregator(proposal.session(roster)), proposal.model_dump_json().encode()
    names = {roster.number(name): name for name in asked}

    def ask(stage: str, sent: Mapping[int, bytes]) -> dict[int, bytes]:
        requests = {names[n]: Request(PREFIX + stage, head, data) for n, data in sent.items()}
        found = {roster.number(n): a for n, a in channel.ask(requests).items() if n in requests}
        for number, answer in found.items():
            if answer.refusal:
                server.excluded.setdefault(number, answer.told)
        return {n: answer.data for n, answer in found.items() if not answer.refusal}

    return protocol.aggregate(server, list(names), ask)


def plain_sum(channel: Channel, proposal: Proposal, roster: Roster, asked: Collection[str]) -> Sum:
    """The same sum with every site's vector in clear before the coordinator: to compare with, nothing else.

    Raises:
        FederationError: no site answered.
    """
    request = Request(PLAIN, proposal.model_dump_json().encode())
    total, members = np.zeros(proposal.length), []
    excluded: dict[int, str] = {}
    for name, answer in channel.ask(dict.fromkeys(asked, request)).items():
        number = roster.number(name)
        values = np.frombuffer(answer.data, "<f4") if len(answer.data) == 4 * proposal.length else None
        if answer.refusal:
            excluded[number] = answer.told
        elif values is None:
            excluded[number] = f"a vector of {len(answer.data):,} bytes"
        elif not (np.abs(values) <= 1).all():
            excluded[number] = "a value that is not a number, or out of bounds"
        else:
            total += values
            members.append(number)
    if not members:
        raise FederationError("no site's vector can be used", where="plain sum", remedy="Look at the sites.")
    return Sum(total, tuple(sorted(members)), (), excluded)


class SumDesk:
    """A site's side: answers the five stages for vectors that it holds ready.

    Args:
        member: this hospital.
        vector: gives what was agreed to be summed for a proposal, shape (length,); raises FederationError
            for one that this site does not hold.
        plain: whether this site hands its vector out in clear, for comparisons on data that is public.
    """

    def __init__(
        self, member: Member, vector: Callable[[Proposal], NDArray[np.floating]], *, plain: bool = False
    ) -> None:
        self._member, self._vector, self._plain = member, vector, plain

    def handle(self, request: Request) -> bytes:
        """Answer one stage.

        Raises:
            FederationError: whatever is wrong with it.
        """
        try:
            proposal = Proposal.model_validate_json(request.head)
        except ValidationError:
            raise FederationError("not a proposal for a sum", where="secure aggregation") from None
        if request.kind == PLAIN:
            if not self._plain:
                raise FederationError("this site adds to secure sums only", where="federation")
            return np.asarray(self._vector(proposal), "<f4").tobytes()
        session, stage = proposal.session(self._member.roster), request.kind.removeprefix(PREFIX)
        return protocol.answer(self._member, session, stage, request.body, lambda: self._vector(proposal))
