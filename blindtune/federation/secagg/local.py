"""All members and the server in one process, for simulation and tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from blindtune.federation.secagg import protocol
from blindtune.federation.secagg.aggregator import Aggregator, Sum
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.protocol import STAGES
from blindtune.federation.secagg.session import Session


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
    known = {m.number: m for m in members}

    def ask(stage: str, sent: Mapping[int, bytes]) -> dict[int, bytes]:
        here = [n for n in sent if left.get(n, len(STAGES)) > STAGES.index(stage)]
        return {n: protocol.answer(known[n], session, stage, sent[n], lambda n=n: vectors[n]) for n in here}  # type: ignore[misc]

    return protocol.aggregate(Aggregator(session), list(known), ask)
