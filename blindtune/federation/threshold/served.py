"""Refreshes of a training at a server: weights lie in the study's mailbox, stale ones and fresh ones.

The server is as blind to them as to everything else. Whichever hospital comes last puts the parts together,
and signs what it made: any other would have made the same of the same parts.
"""

from __future__ import annotations

from pathlib import Path

from blindtune.federation.threshold.mailbox import Mailbox
from blindtune.federation.threshold.party import Party, Waiting
from blindtune.federation.threshold.refresh import Refresh, read_stale
from blindtune.files import whole_file
from blindtune.he.blob import largest_bytes
from blindtune.wire.bundle import frame
from blindtune.wire.message import FRESH, STALE, refresh_stage


def refresh_served(party: Party, mailbox: Mailbox, place: Path) -> Waiting:
    """This hospital's part in the refresh that the training waits for; with nobody absent it can go on.

    Args:
        place: a file for the weights, overwritten.

    Raises:
        FederationError: someone ended the study, or refreshed other weights than this hospital was given.
        BundleError: what the server left is not as many ciphertexts.
    """
    terms, stage = party.terms, ""
    for number in range(len(terms.program.refreshes)):
        stage = refresh_stage(number)
        if not any(mailbox.fetch(stage, FRESH, name, 1) for name in terms.roster.names):
            count = len(terms.stale_levels(number))
            most = 8 + count * (8 + largest_bytes(terms.checked_parameters))
            data = mailbox.fetch(stage, *STALE, most)
            # Where nothing lies yet, the training goes on from the refresh before.
            return Waiting(stage, ()) if data is None else _answered(party, number, data, place)
    return Waiting(stage, ())


def _answered(party: Party, number: int, data: bytes, place: Path) -> Waiting:
    with whole_file(place) as partial:
        partial.write_bytes(data)
    refresh = Refresh(party.transcript, number, read_stale(place, party.terms, number))
    refresh.answer(party)
    waiting = refresh.advance()
    if not waiting.absent:
        party.say(refresh.stage, FRESH, lambda: b"".join(frame(refresh.fresh())))
    return waiting
