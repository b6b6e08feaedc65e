"""A hospital in a study under a joint key, once its terms are known: rows, opening, saying no."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blindtune.cli import render
from blindtune.cli.exchange import watch_training
from blindtune.cli.options import Json, PlainHttp, TokenFile
from blindtune.cli.place import SERVER, given_or_kept, remote
from blindtune.cli.terms import account

if TYPE_CHECKING:
    from blindtune.client.mailbox import RemoteMailbox
    from blindtune.client.remote import Remote, Status
    from blindtune.federation.threshold.offer import Offer
    from blindtune.federation.threshold.party import Party, Waiting
    from blindtune.federation.threshold.station import Station
    from blindtune.federation.threshold.terms import Terms

PAUSE = 2.0
"""Seconds between two looks at what the others did."""

Directory = Annotated[Path, typer.Argument(help="The study's directory, from blindtune study join.")]
Wait = Annotated[bool, typer.Option(help="Wait for the other hospitals; else say what is missing.")]
Passphrase = Annotated[bool, typer.Option(help="Ask for the passphrase of this hospital's key.")]


@dataclass
class Session:
    """A hospital's directory, and the server."""

    station: Station
    there: Remote
    passphrase: bool

    @cached_property
    def mailbox(self) -> RemoteMailbox:
        """The study's messages."""
        return self.there.mailbox(self.station.offered.study)

    @cached_property
    def offered(self) -> Terms:
        """The terms as the server has them now, or as they came by file."""
        return self._found.terms if self._found else self.station.offered

    @cached_property
    def _found(self) -> Offer | None:
        from blindtune.federation.threshold import offer

        return offer.fetch(self.mailbox, self.station.offered.study)

    def party(self, *, approved: bool = True) -> Party:
        """This hospital; unless approved, for saying no alone."""
        secret = render.passphrase(ask=self.passphrase)
        party = self.station.party(self.offered, self.mailbox, secret, approved=approved)
        if self._found is None:
            party.offer()
        return party


@contextmanager
def session(
    directory: Path,
    token_file: Path | None,
    plain_http: bool,
    passphrase: bool = False,
    *,
    speaks: bool = True,
) -> Iterator[Session]:
    """A hospital's session in its study; one that speaks is the only one."""
    from blindtune.federation.threshold.station import Station

    station = Station(directory)
    place = given_or_kept(station.private / SERVER, None, None, None)
    alone = station.alone() if speaks else nullcontext()
    with alone, remote(place, token_file, plain_http) as there:
        yield Session(station, there, passphrase)


def until(step: Callable[[], Waiting], wait: bool, quiet: bool) -> Waiting:
    """Do what can be done until nobody is missing; without ``wait`` once.

    A server that answered once may be away for a while.
    """
    from blindtune.client.transport import PASSING, StatusError
    from blindtune.errors import RemoteError

    told = ""
    while True:
        try:
            waiting = step()
            if not waiting.absent or not wait:
                return waiting
            now = f"waiting for {', '.join(waiting.absent)} ({waiting.stage})"
        except RemoteError as error:
            if not told or (isinstance(error, StatusError) and error.status not in PASSING):
                raise
            now = f"{error.what}; trying again"
        if now != told and not quiet:
            render.console().print(now, markup=False, soft_wrap=True)
        told = now
        time.sleep(PAUSE)


def held_up(waiting: Waiting) -> dict[str, Any]:
    """What is told of a study that others hold up."""
    return {"state": "waiting", "stage": waiting.stage, "missing": list(waiting.absent)}


def contribute(
    directory: Directory,
    embeddings: Annotated[Path, typer.Argument(help="Features and labels (.npz); the training rows count.")],
    wait: Wait = True,
    token_file: TokenFile = None,
    plain_http: PlainHttp = False,
    passphrase: Passphrase = False,
    json_: Json = False,
) -> None:
    """Add this hospital's moments to the sum, then encrypt its training rows and upload them.

    Where the study adds noise to the sum, the privacy ledger is charged first.

    The first hospital by name also adds up the joint evaluation keys; whoever comes last starts the training.
    """
    from blindtune.federation.threshold.rows import afford
    from blindtune.federation.threshold.station import contribution, write_bundles
    from blindtune.imaging.arrays import load_embeddings

    data = load_embeddings(embeddings, shard=True)
    with session(directory, token_file, plain_http, passphrase) as here, here.station.ledger() as ledger:
        party = here.party()
        afford(party, ledger)
        waiting = until(party.advance, wait, json_)
        if not waiting.absent:
            rows = contribution(party, data)
            rows.contribute(ledger)
            waiting = until(rows.sum.advance, wait, json_)
        told: dict[str, Any] = {"study": party.terms.study}
        if ledger:
            told |= {"epsilon_spent": round(ledger.spent_epsilon, 4), "epsilon_budget": ledger.epsilon}
        if waiting.absent:
            told |= held_up(waiting)
        else:
            bundles = write_bundles(here.station, party, rows)
            total = sum(p.stat().st_size for b in bundles for p in (b / "parts").glob("*"))
            with render.progress(json_) as shown:
                task = shown.add_task("uploading", total=total)
                here.there.submit(bundles, lambda n: shown.advance(task, n))
            state = _started(here.there, party.terms.study)
            told |= {"state": state.state, "uploaded": state.uploaded, "keys": state.keys, "bytes": total}
            told["missing"] = [name for name in state.members if name not in state.uploaded]
            told["next"] = f"blindtune study open {directory}"
    render.tell("Contributed", told, json_)


def open_(
    directory: Directory,
    wait: Wait = True,
    token_file: TokenFile = None,
    plain_http: PlainHttp = False,
    passphrase: Passphrase = False,
    json_: Json = False,
) -> None:
    """Consent to opening the head, answer once the others consented, and write it to DIRECTORY/head.

    A training of many steps is interactive: until it is done, this answers the refreshes of its weights.

    It opens for all hospitals when each has run this, and stays closed for the server.
    """
    from blindtune.federation.threshold.decryption import Opening
    from blindtune.federation.threshold.party import Waiting
    from blindtune.federation.threshold.station import joint_head
    from blindtune.wire.bundle import Bundle

    with session(directory, token_file, plain_http, passphrase) as here:
        party, station = here.party(), here.station
        party.transcript.check_running()
        study = party.terms.study
        waiting = Waiting("training", ())
        if not station.encrypted_head.exists():
            station.encrypted_head.parent.mkdir(exist_ok=True, mode=0o700)
            waiting = _trained(here, party, wait, json_)
        told: dict[str, Any] = {"study": study}
        if not waiting.absent:
            if not station.encrypted_head.exists():
                here.there.fetch(study, station.encrypted_head, key=party.terms.digest.hex()[:32])
            opening = Opening(party, list(Bundle(station.encrypted_head).items("weights")))
            opening.consent()
            waiting = until(opening.advance, wait, json_)
        if waiting.absent:
            told |= held_up(waiting)
        else:
            joint_head(party, opening.head()).save(station.head)
            told |= {"state": "open", "head": str(station.head)}
            told["next"] = f"blindtune evaluate {directory} --embeddings EMBEDDINGS"
    render.tell("Opened", told, json_)


def status(
    directory: Directory,
    token_file: TokenFile = None,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Where the study stands: in each phase, who is missing."""
    from blindtune.federation.threshold.standing import standing

    with session(directory, token_file, plain_http, speaks=False) as here:
        found = standing(here.station, here.mailbox, here.there)
        offered = here.station.offered
        told: dict[str, Any] = {"study": offered.study, "state": found.state}
        told["privacy"] = account(offered, json_)
    if json_:
        phases = [{"phase": phase, "missing": list(absent)} for phase, absent in found.phases]
        render.print_json({**told, "phases": phases})
        return
    render.tell("Study", told, False)
    if found.phases:
        render.rows("Phases", [(phase, ", ".join(absent) or "all there") for phase, absent in found.phases])


def refuse(
    directory: Directory,
    reason: Annotated[str, typer.Option(help="Why, for the others; at most 200 characters.")],
    token_file: TokenFile = None,
    plain_http: PlainHttp = False,
    passphrase: Passphrase = False,
    json_: Json = False,
) -> None:
    """End the study, before or after it was trained: nothing is opened any more, and the others see why."""
    with session(directory, token_file, plain_http, passphrase) as here:
        here.party(approved=False).end(reason[:200])
        told = {"study": here.station.offered.study, "state": "refused", "reason": reason[:200]}
    render.tell("Refused", told, json_)


def delete(
    directory: Directory,
    token_file: TokenFile = None,
    plain_http: PlainHttp = False,
    json_: Json = False,
) -> None:
    """Remove the study from the server for all hospitals: messages, rows, keys, head. DIRECTORY stays."""
    with session(directory, token_file, plain_http, speaks=False) as here:
        study = here.station.offered.study
        here.there.delete(study)
    render.tell("Deleted", {"study": study, "state": "deleted"}, json_)


def _trained(here: Session, party: Party, wait: bool, quiet: bool) -> Waiting:
    """Wait for the end of the training, and answer the refreshes on the way; or say who has to."""
    from blindtune.errors import RemoteError
    from blindtune.federation.threshold.party import Waiting
    from blindtune.federation.threshold.served import refresh_served

    study, place = party.terms.study, here.station.encrypted_head.with_name("refresh")
    while True:
        state = watch_training(here.there, study, quiet) if wait else here.there.status(study)
        if state.state == "done":
            return Waiting("training", ())
        if state.state != "waiting":
            raise RemoteError(f"the study is {state.state}", remedy="Wait until it is trained.")
        waiting = until(lambda: refresh_served(party, here.mailbox, place), wait, quiet)
        if waiting.absent:
            return waiting
        _started(here.there, study)


def _started(there: Remote, study: str) -> Status:
    """The study's state; started if it waited for what this hospital did last, or if it failed."""
    from blindtune.client.transport import StatusError

    state = there.status(study)
    if state.state not in ("ready", "waiting", "failed", "cancelled"):
        return state
    try:
        return there.start(study)
    except StatusError as error:
        # Two came last at once, and the other one was quicker.
        if error.status != 409:
            raise
        return there.status(study)
