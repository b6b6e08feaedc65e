"""Where a study stands, for a hospital that looks on: in each phase, who is missing."""

from __future__ import annotations

from dataclasses import dataclass

from blindtune.client.remote import Remote
from blindtune.client.transport import StatusError
from blindtune.errors import FederationError
from blindtune.federation.threshold.decryption import opening_id
from blindtune.federation.threshold.mailbox import Mailbox
from blindtune.federation.threshold.station import Station
from blindtune.federation.threshold.sums import stage_of
from blindtune.federation.threshold.transcript import CONSENT, SHARE, STAGES
from blindtune.wire.bundle import Bundle


@dataclass(frozen=True)
class Standing:
    """A study.

    Attributes:
        state: what it waits for, in words; or who ended it and why.
        phases: each one's name and who is missing in it, up to the first that is not through.
    """

    state: str
    phases: tuple[tuple[str, tuple[str, ...]], ...]


def standing(station: Station, mailbox: Mailbox, there: Remote) -> Standing:
    """Where a hospital's study stands. Nothing is said, and no key is needed.

    Raises:
        FederationError: a message was altered, or someone approved other terms.
        RemoteError: the server cannot be reached, or refuses.
    """
    if station.head.exists():
        # The study may be deleted from the server by now.
        return Standing("open", ())
    transcript, terms = station.transcript(mailbox), station.offered
    phases: list[tuple[str, tuple[str, ...]]] = []
    try:
        transcript.check_running()
    except FederationError as error:
        return Standing(error.what, ())
    for stage in (*STAGES, stage_of("rows")):
        phases.append((stage, transcript.absent(stage)))
        if phases[-1][1]:
            return Standing(f"waiting ({stage})", tuple(phases))
    try:
        state = there.status(terms.study)
    except StatusError as error:
        if error.status != 404:
            raise
        return Standing("waiting (rows)", (*phases, ("rows", terms.roster.names)))
    missing = [name for name in terms.roster.names if name not in state.uploaded]
    phases.append(("rows", tuple(missing)))
    if not state.keys:
        phases.append(("evaluation keys", terms.roster.names[:1]))
    if state.state != "done" or not station.encrypted_head.exists():
        told = f"training {state.state}" if not missing and state.keys else "waiting (rows)"
        return Standing(told + (f": {state.error}" if state.error else ""), tuple(phases))
    opening = opening_id(list(Bundle(station.encrypted_head, insecure=True).items("weights")))
    for stage in (CONSENT, SHARE):
        phases.append((stage, transcript.absent(f"{stage}-{opening}")))
        if phases[-1][1]:
            return Standing(f"waiting ({stage})", tuple(phases))
    return Standing("open", tuple(phases))
