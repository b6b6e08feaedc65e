"""A server that does whatever it likes, with one member on its side, against three that follow the rules.

Whatever order it asks in, whatever lists it makes up, with processes restarted at any moment: it never gets
what unmasks one hospital's vector, nor two sums of one model over different members.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from blindtune.errors import FederationError
from blindtune.federation.secagg import masks
from blindtune.federation.secagg.messages import (
    ADVERT,
    CONSENT,
    Advert,
    Adverts,
    Consents,
    Delivery,
    Survivors,
    commitment,
)
from blindtune.federation.secagg.shamir import SHARE_BYTES
from tests.federation.secagg.conftest import Group

HONEST, TRAITOR = (1, 2, 3), 4
SESSIONS = st.integers(0, 3)
SOMEONE = st.sampled_from(HONEST)
SOME = st.sets(st.sampled_from((*HONEST, TRAITOR)))


class Server(RuleBasedStateMachine):
    """What it holds: every message that it ever got, and the traitor's keys."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.group = Group(4, Path(self.place.name))
        self.members = {n: self.group.members[n] for n in HONEST}
        # Two attempts each at two models: what must not be summed twice, and what may.
        self.sessions = [
            self.group.session(3, round=n // 2, attempt=n % 2, model=f"{n // 2}" * 64) for n in range(4)
        ]
        self.adverts = defaultdict(dict)
        self.sealed = defaultdict(dict)
        self.masked = defaultdict(set)
        self.consents = defaultdict(set)
        self.openings = []

    def teardown(self) -> None:
        for journal in self.group.journals.values():
            journal.close()
        self.place.cleanup()

    def signed(self, session, purpose, content):
        traitor = self.group.identities[self.group.roster.names[TRAITOR - 1]]
        return traitor.sign(purpose, session.digest + content)

    def traitors_advert(self, session) -> Advert:
        """Keys of its own making."""
        sealing, masking = masks.private_key(), masks.private_key()
        made = Advert(
            member=TRAITOR,
            sealing=masks.public_key(sealing),
            masking=masks.public_key(masking),
            commitment=commitment(bytes(32)),
            signature=bytes(64),
        )
        return made.model_copy(update={"signature": self.signed(session, ADVERT, made.signed)})

    @rule(number=SOMEONE, which=SESSIONS)
    def advertise(self, number, which):
        session = self.sessions[which]
        try:
            self.adverts[which][number] = self.members[number].advertise(session)
        except FederationError:
            return
        self.adverts[which].setdefault(TRAITOR, self.traitors_advert(session))

    @rule(number=SOMEONE, which=SESSIONS, left_out=SOME, fresh=st.booleans())
    def share(self, number, which, left_out, fresh):
        given = {n: a for n, a in self.adverts[which].items() if n not in left_out or n == number}
        if fresh:
            given[TRAITOR] = self.traitors_advert(self.sessions[which])
        adverts = Adverts(adverts=[given[n] for n in sorted(given)])
        try:
            found = self.members[number].share(self.sessions[which], adverts)
        except FederationError:
            return
        self.sealed[which][number] = found.sealed

    @rule(number=SOMEONE, which=SESSIONS, left_out=SOME, other=SESSIONS)
    def mask(self, number, which, left_out, other):
        # Shares of its own for the traitor, and perhaps those of another session.
        source = self.sealed[which] or self.sealed[other]
        found = {n: s[number] for n, s in source.items() if number in s and n not in left_out}
        found[TRAITOR] = bytes(2 * SHARE_BYTES + 28)
        try:
            self.members[number].mask(
                self.sessions[which], Delivery(sealed=dict(sorted(found.items()))), np.full(3, 0.1)
            )
        except FederationError:
            return
        assert number not in self.masked[which], "two vectors under the masks of one session"
        self.masked[which].add(number)

    @rule(number=SOMEONE, which=SESSIONS, survivors=SOME)
    def agree(self, number, which, survivors):
        told = Survivors(members=sorted(survivors))
        try:
            found = self.members[number].agree(self.sessions[which], told)
        except FederationError:
            return
        self.consents[which, tuple(told.members)].add((number, found.signature))

    @rule(number=SOMEONE, which=SESSIONS, survivors=SOME, left_out=SOME)
    def open(self, number, which, survivors, left_out):
        told = Survivors(members=sorted(survivors))
        signatures = {n: s for n, s in self.consents[which, tuple(told.members)] if n not in left_out}
        signatures[TRAITOR] = self.signed(self.sessions[which], CONSENT, told.signed)
        self.opened(number, which, Consents(signatures=dict(sorted(signatures.items()))))

    @precondition(lambda self: self.consents)
    @rule(number=SOMEONE, data=st.data())
    def open_what_was_agreed(self, number, data):
        (which, members), found = data.draw(st.sampled_from(sorted(self.consents.items())))
        signatures = dict(found)
        signatures[TRAITOR] = self.signed(self.sessions[which], CONSENT, bytes(members))
        self.opened(number, which, Consents(signatures=dict(sorted(signatures.items()))))

    def opened(self, number, which, consents):
        try:
            opening = self.members[number].open(self.sessions[which], consents)
        except FederationError:
            return
        self.openings.append((number, which, opening))

    @rule(which=SESSIONS, without=st.sampled_from(((), (1,), (TRAITOR,), (1, TRAITOR))))
    def honestly(self, which, without):
        """A whole session in order, as far as the members go along: without it little is ever opened."""
        rest = set(without)
        for n in HONEST:
            self.advertise(n, which)
        for n in HONEST:
            self.share(n, which, set(), fresh=False)
        for n in HONEST:
            if n not in rest:
                self.mask(n, which, set(), which)
        left = set(HONEST) | {TRAITOR}
        for n in HONEST:
            self.agree(n, which, left - rest)
        for n in HONEST:
            self.open(n, which, left - rest, set())

    @rule(number=SOMEONE)
    def restart(self, number):
        self.members[number] = self.group.restart(number)

    @invariant()
    def nobody_is_laid_open(self):
        threshold = self.sessions[0].threshold
        kinds = defaultdict(lambda: {"seed": set(), "key": set()})
        for number, which, opening in self.openings:
            for kind, shares in (("seed", opening.seeds), ("key", opening.keys)):
                for peer in shares:
                    kinds[which, peer][kind].add(number)
        for (_, peer), found in kinds.items():
            assert not found["seed"] & found["key"], "one member opened both shares of a peer"
            if peer in HONEST:
                # The traitor has a share of both.
                both = [len(holders) + 1 >= threshold for holders in found.values()]
                assert not all(both), "the server can unmask one vector"

    @invariant()
    def one_sum_of_each_model(self):
        sums = defaultdict(set)
        for number, which, opening in self.openings:
            sums[number, self.sessions[which].model].add(frozenset(opening.seeds))
        assert all(len(lists) == 1 for lists in sums.values())
        by_model = defaultdict(lambda: defaultdict(set))
        for (number, model), [members] in sums.items():
            by_model[model][members].add(number)
        threshold = self.sessions[0].threshold
        for lists in by_model.values():
            full = [m for m, openers in lists.items() if len(openers) + 1 >= threshold]
            assert not any(a != b for a, b in itertools.combinations(full, 2)), "two sums to subtract"


TestServer = Server.TestCase
TestServer.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_the_machine_can_open_a_sum_at_all():
    server = Server()
    try:
        server.honestly(0, ())
        assert len(server.openings) == 3
        server.nobody_is_laid_open()
        server.one_sum_of_each_model()
        # The same model over other members: refused.
        server.honestly(1, (1,))
        assert len(server.openings) == 3
        # Another model: a sum of its own.
        server.honestly(2, (1,))
        assert len(server.openings) == 5 or len(server.openings) == 3
    finally:
        server.teardown()
