"""The five messages of an aggregation in order: the server's side, and a member's answer to each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import FederationError
from blindtune.federation.secagg.aggregator import Aggregator, Sum
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.messages import Adverts, Consents, Delivery, Survivors, parse
from blindtune.federation.secagg.session import Session

STAGES = ("advert", "sharing", "masked", "consent", "opening")

Ask = Callable[[str, Mapping[int, bytes]], Mapping[int, bytes]]
"""Stage and what each member is sent, by number, to the answers that came."""


def aggregate(server: Aggregator, members: Collection[int], ask: Ask) -> Sum:
    """Ask all members through the stages, and unmask the sum.

    Args:
        server: of a new session; ``ask`` may note in its ``excluded`` why a member did not answer.
        members: numbers of those who are there.

    Raises:
        FederationError: too few are left at some stage.
    """

    def stage(kind: str, sent: Mapping[int, bytes], receive: Callable[[int, bytes], None]) -> None:
        for number, data in ask(kind, sent).items():
            receive(number, data)

    stage("advert", dict.fromkeys(members, b""), server.receive_advert)
    adverts = server.adverts()
    numbers = [a.member for a in adverts.adverts]
    stage("sharing", dict.fromkeys(numbers, adverts.to_bytes()), server.receive_sharing)
    stage("masked", {n: d.to_bytes() for n, d in server.deliveries().items()}, server.receive_masked)
    survivors = server.survivors()
    stage("consent", dict.fromkeys(survivors.members, survivors.to_bytes()), server.receive_consent)
    consents = server.consents()
    stage("opening", dict.fromkeys(consents.signatures, consents.to_bytes()), server.receive_opening)
    return server.result()


def answer(
    member: Member, session: Session, stage: str, data: bytes, vector: Callable[[], NDArray[np.floating]]
) -> bytes:
    """A member's answer to one stage.

    Args:
        vector: gives what it adds, shape (session.length,); asked before it advertises too: a member that
            has nothing to add must not be counted on.

    Raises:
        FederationError: whatever is wrong with the message, or with the vector.
    """
    if stage == "advert":
        vector()
        return member.advertise(session).to_bytes()
    if stage == "sharing":
        return member.share(session, parse(Adverts, data)).to_bytes()
    if stage == "masked":
        return member.mask(session, parse(Delivery, data), vector())
    if stage == "consent":
        return member.agree(session, parse(Survivors, data)).to_bytes()
    if stage == "opening":
        return member.open(session, parse(Consents, data)).to_bytes()
    raise FederationError(f"a request of kind {stage[:40]}", where="secure aggregation")
