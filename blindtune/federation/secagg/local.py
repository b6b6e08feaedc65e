"""All members and the server in one process, for simulation and tests: the messages in order."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from blindtune.federation.secagg.aggregator import Aggregator, Sum
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.session import Session

STAGES = ("advert", "sharing", "masked", "consent", "opening")


def aggregate(
    session: Session,
    members: Collection[Member],
    vectors: Mapping[int, NDArray[np.floating]],
    gone: Mapping[int, str] | None = None,
) -> Sum:
    """The sum of the members' vectors.

    Args:
        vectors: shape (session.length,) by member number.
        gone: by member number, the stage before whose message it drops out.

    Raises:
        FederationError: too few are left.
    """
    left = {n: STAGES.index(stage) for n, stage in (gone or {}).items()}

    def present(stage: int, among: Collection[int]) -> list[Member]:
        return [m for m in members if m.number in among and left.get(m.number, len(STAGES)) > stage]

    server, everyone = Aggregator(session), [m.number for m in members]
    for member in present(0, everyone):
        server.receive_advert(member.number, member.advertise(session).to_bytes())
    adverts = server.adverts()
    for member in present(1, [a.member for a in adverts.adverts]):
        server.receive_sharing(member.number, member.share(session, adverts).to_bytes())
    deliveries = server.deliveries()
    for member in present(2, deliveries):
        masked = member.mask(session, deliveries[member.number], vectors[member.number])
        server.receive_masked(member.number, masked)
    survivors = server.survivors()
    for member in present(3, survivors.members):
        server.receive_consent(member.number, member.agree(session, survivors).to_bytes())
    consents = server.consents()
    for member in present(4, consents.signatures):
        server.receive_opening(member.number, member.open(session, consents).to_bytes())
    return server.result()
