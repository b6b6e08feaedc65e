"""A server that lies and members that misbehave: every refusal, and that the others go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blindtune.errors import FederationError
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.secagg.aggregator import Aggregator
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.messages import Adverts, Consents, Delivery, Opening, Sharing, Survivors
from blindtune.federation.secagg.session import Policy


class Run:
    """An aggregation that can be led astray between any two messages."""

    def __init__(self, made, session=None):
        self.made, self.members = made, made.members
        self.session = session or made.session()
        self.server = Aggregator(self.session)
        self.values = {n: np.full(self.session.length, n / 100) for n in self.members}

    def advertise(self):
        for n, m in self.members.items():
            self.server.receive_advert(n, m.advertise(self.session).to_bytes())
        self.adverts = self.server.adverts()
        return self

    def share(self):
        self.advertise()
        for n, m in self.members.items():
            self.server.receive_sharing(n, m.share(self.session, self.adverts).to_bytes())
        self.deliveries = self.server.deliveries()
        return self

    def mask(self, without=()):
        self.share()
        for n, m in self.members.items():
            if n not in without:
                self.server.receive_masked(n, m.mask(self.session, self.deliveries[n], self.values[n]))
        self.survivors = self.server.survivors()
        return self

    def agree(self, without=()):
        self.mask(without)
        for n in self.survivors.members:
            consent = self.members[n].agree(self.session, self.survivors)
            self.server.receive_consent(n, consent.to_bytes())
        self.consents = self.server.consents()
        return self

    def total(self):
        found = self.server.result()
        expected = np.full(self.session.length, sum(found.members) / 100)
        assert np.abs(found.values - expected).max() <= self.session.quantiser.error(len(found.members))
        return found


@pytest.fixture
def run(group):
    """Five members."""
    return Run(group(5))


def refused(match):
    return pytest.raises(FederationError, match=match)


class TestBeforeAnyoneSends:
    def test_a_roster_that_is_not_the_hospitals(self, group):
        made, other = group(3), group(3)
        with refused("not this hospital's"):
            made.members[1].advertise(made.session(roster=other.roster))

    def test_an_identity_that_is_not_on_the_roster(self, group):
        made = group(3)
        with refused("another key for this hospital"):
            Member("site-01", Identity.generate(), made.roster, made.journals["site-01"])
        with refused("not a member"):
            Member("site-09", made.identities["site-01"], made.roster, made.journals["site-01"])

    def test_too_low_a_threshold(self, group):
        made = group(10)
        with refused("asks for 7 or more"):
            made.members[1].advertise(made.session(threshold=6))

    @pytest.mark.parametrize(
        "changed", [{"round": -1}, {"attempt": 1 << 31}, {"length": 0}, {"threshold": 0}, {"threshold": 6}]
    )
    def test_values_that_cannot_be(self, group, changed):
        with refused("cannot be"):
            group(5).session(**changed)

    def test_too_few_members(self, group):
        made = group(3, Policy(fewest=4))
        with refused("takes part among 4"):
            made.members[1].advertise(made.session(threshold=3))

    @pytest.mark.parametrize(
        "changed",
        [
            {"model": "0" * 64},
            {"round": 1},
            {"clip": 2.0},
            {"length": 6},
            {"study": "other"},
            {"purpose": "moments"},
        ],
    )
    def test_a_member_who_was_told_something_else_is_left_out(self, run, changed):
        told = replace(run.session, **changed)
        run.server.receive_advert(1, run.members[1].advertise(told).to_bytes())
        assert "wrong signature" in run.server.excluded[1]
        with refused("came before"):
            run.server.receive_advert(1, run.members[1].advertise(replace(told, attempt=1)).to_bytes())

    def test_members_told_different_models_refuse_each_other(self, group):
        """A server that shows one member another model cannot hide it from the others' signatures."""
        made = group(3)
        one, other = made.session(), made.session(model="0" * 64)
        adverts = [made.members[n].advertise(one if n < 3 else other) for n in (1, 2, 3)]
        for n, session in ((1, one), (3, other)):
            with refused("wrong signature"):
                made.members[n].share(session, Adverts(adverts=adverts))


class TestKeys:
    def test_keys_swapped_by_the_server(self, run):
        run.advertise()
        first, second, *rest = run.adverts.adverts
        swapped = second.model_copy(update={"sealing": rest[0].masking[::-1]})
        with refused("site-02 with a wrong signature"):
            run.members[1].share(run.session, Adverts(adverts=[first, swapped, *rest]))

    def test_a_member_cloned_under_another_number(self, run):
        run.advertise()
        first, second, *rest = run.adverts.adverts
        clone = second.model_copy(update={"member": 3})
        with refused("stands twice"):
            run.members[1].share(run.session, Adverts(adverts=[first, second, clone, *rest[1:]]))

    def test_own_keys_missing_or_out_of_order(self, run):
        run.advertise()
        adverts = run.adverts.adverts
        for wrong in (adverts[1:], adverts[::-1]):
            with refused("own, or out of order"):
                run.members[1].share(run.session, Adverts(adverts=wrong))

    def test_too_few(self, run):
        run.advertise()
        with refused("only 2 members advertised"):
            run.members[1].share(run.session, Adverts(adverts=run.adverts.adverts[:2]))


class TestMasking:
    def test_one_vector_in_a_session(self, run):
        run.share()
        run.members[1].mask(run.session, run.deliveries[1], run.values[1])
        with refused("out of turn"):
            run.members[1].mask(run.session, run.deliveries[1], run.values[1])
        with refused("out of turn"):
            run.made.restart(1).mask(run.session, run.deliveries[1], run.values[1])

    def test_a_vector_that_does_not_fit_leaves_the_turn_open(self, run):
        run.share()
        for bad in (np.zeros(4), np.zeros((5, 1)), np.array([0, 0, np.nan, 0, 0])):
            with refused("update"):
                run.members[1].mask(run.session, run.deliveries[1], bad)
        run.members[1].mask(run.session, run.deliveries[1], run.values[1])

    def test_too_few_shares_or_of_strangers(self, run):
        run.share()
        sealed = run.deliveries[1].sealed
        with refused("only 2 members shared"):
            run.members[1].mask(run.session, Delivery(sealed={2: sealed[2]}), run.values[1])
        with refused("did not advertise"):
            run.members[1].mask(run.session, Delivery(sealed={**sealed, 1: sealed[2]}), run.values[1])


class TestSurvivors:
    def test_lists_that_cannot_be(self, run):
        run.mask()
        for wrong in ([2, 3, 4, 5], [1, 1, 2, 3], [3, 2, 1, 4], [1, 2, 3, 6]):
            with refused("cannot be"):
                run.members[1].agree(run.session, Survivors(members=wrong))
        with refused("only 2 members survived"):
            run.members[1].agree(run.session, Survivors(members=[1, 2]))

    def test_one_list_in_a_session(self, run):
        run.mask()
        run.members[1].agree(run.session, Survivors(members=[1, 2, 3, 4]))
        with refused("out of turn"):
            run.members[1].agree(run.session, Survivors(members=[1, 2, 3, 5]))

    def test_a_server_that_tells_two_stories_gets_neither_opened(self, run):
        """Half are told that 5 dropped out, half that 4 did: both shares of both would unmask them."""
        run.mask()
        stories = {1: [1, 2, 3, 4], 2: [1, 2, 3, 4], 4: [1, 2, 3, 4], 3: [1, 2, 3, 5], 5: [1, 2, 3, 5]}
        consents = {
            n: run.members[n].agree(run.session, Survivors(members=s)).signature for n, s in stories.items()
        }
        for member in run.members.values():
            with refused("only [23] members agreed"):
                member.open(run.session, Consents(signatures=consents))


class TestOpening:
    def test_unsigned_survivors_stay_shut(self, run):
        run.agree()
        signatures = run.consents.signatures
        with refused("only 1 members agreed"):
            run.members[1].open(run.session, Consents(signatures={1: signatures[1]}))
        forged = Consents(signatures=dict.fromkeys(signatures, signatures[1]))
        with refused("only 1 members agreed"):
            run.members[1].open(run.session, forged)

    def test_a_lost_answer_is_given_again_and_is_the_same(self, run):
        run.agree(without=[5])
        one = run.members[1].open(run.session, run.consents)
        again = run.made.restart(1).open(run.session, run.consents)
        assert one == again
        assert sorted(one.seeds) == [1, 2, 3, 4]
        assert sorted(one.keys) == [5]

    def test_never_both_shares_even_across_restarts(self, run):
        """Not even if the member's state were set back: the record of what was opened stands for itself."""
        run.agree(without=[5])
        journal, digest = run.made.journals["site-01"], run.session.digest
        before = journal.stage(digest)
        run.members[1].open(run.session, run.consents)
        with journal._writing():
            state = before[1].replace(b'"survivors": [1, 2, 3, 4]', b'"survivors": [1, 2, 3, 5]')
            assert state != before[1]
            journal._db.execute("UPDATE sessions SET state = ?", (state,))
        story = Survivors(members=[1, 2, 3, 5])
        signatures = {
            n: run.made.identities[f"site-0{n}"].sign("secagg consent", digest + story.signed)
            for n in (1, 2, 3, 5)
        }
        for _ in range(2):
            with refused("both shares of one member"):
                run.made.restart(1).open(run.session, Consents(signatures=signatures))

    def test_a_round_called_failed_is_not_summed_again_without_one_member(self, run):
        """The difference of both sums would be the vector of the one left out."""
        run.agree()
        for n, m in run.members.items():
            run.server.receive_opening(n, m.open(run.session, run.consents).to_bytes())
        assert run.total().members == (1, 2, 3, 4, 5)
        again = Run(run.made, run.made.session(attempt=1)).agree(without=[5])
        for n in (1, 2, 3, 4):
            with refused("the difference would show"):
                run.made.members[n].open(again.session, again.consents)
        # With the same members it tells nothing new; under another model it is another vector.
        for n, session in ((2, {"attempt": 2}), (3, {"round": 1, "model": "0" * 64})):
            other = Run(run.made, run.made.session(**session)).agree(without=[5] if n == 3 else [])
            run.made.members[n].open(other.session, other.consents)

    def test_nothing_of_a_session_is_left_once_the_next_begins(self, run):
        run.agree()
        run.members[1].advertise(run.made.session(round=1))
        with refused("out of turn"):
            run.members[1].open(run.session, run.consents)


class TestBadMembers:
    """Named, excluded, and the round goes on."""

    @pytest.mark.parametrize("bad", [b"", b"{}", b"[" * 100000, b"\xff", b"x" * (2 << 20), b'{"member": 1}'])
    def test_nonsense_instead_of_keys(self, run, bad):
        run.server.receive_advert(1, bad)
        for n in (2, 3, 4, 5):
            run.server.receive_advert(n, run.members[n].advertise(run.session).to_bytes())
        assert [a.member for a in run.server.adverts().adverts] == [2, 3, 4, 5]
        assert list(run.server.excluded) == [1]

    def test_a_message_in_anothers_name(self, run):
        run.server.receive_advert(1, run.members[2].advertise(run.session).to_bytes())
        assert run.server.excluded == {1: "a message in another member's name"}

    def test_shares_that_are_not_for_all(self, run):
        run.advertise()
        sharing = run.members[1].share(run.session, run.adverts)
        few = Sharing(member=1, sealed={n: s for n, s in sharing.sealed.items() if n != 3})
        run.server.receive_sharing(1, few.to_bytes())
        assert "not for all" in run.server.excluded[1]

    def test_a_vector_of_another_length(self, run):
        run.share()
        run.server.receive_masked(1, bytes(24))
        assert "24 bytes" in run.server.excluded[1]
        for n in (2, 3, 4, 5):
            run.server.receive_masked(n, run.members[n].mask(run.session, run.deliveries[n], run.values[n]))
        survivors = run.server.survivors()
        for n in survivors.members:
            run.server.receive_consent(n, run.members[n].agree(run.session, survivors).to_bytes())
        consents = run.server.consents()
        for n in survivors.members:
            run.server.receive_opening(n, run.members[n].open(run.session, consents).to_bytes())
        assert run.total().members == (2, 3, 4, 5)

    def test_a_replay_and_a_late_message(self, run):
        run.share()
        masked = run.members[1].mask(run.session, run.deliveries[1], run.values[1])
        run.server.receive_masked(1, masked)
        with refused("came before"):
            run.server.receive_masked(1, masked)
        for n in (2, 3, 4):
            run.server.receive_masked(n, run.members[n].mask(run.session, run.deliveries[n], run.values[n]))
        run.server.survivors()
        with refused("after its stage"):
            run.server.receive_masked(5, masked)

    def test_a_wrong_signature_of_who_survived(self, run):
        run.mask()
        other = run.members[1].agree(run.session, run.survivors).model_copy(update={"signature": bytes(64)})
        run.server.receive_consent(1, other.to_bytes())
        for n in (2, 3, 4, 5):
            run.server.receive_consent(n, run.members[n].agree(run.session, run.survivors).to_bytes())
        consents = run.server.consents()
        assert list(consents.signatures) == [2, 3, 4, 5]
        for n in (2, 3, 4, 5):
            run.server.receive_opening(n, run.members[n].open(run.session, consents).to_bytes())
        # Its vector had arrived, so it counts.
        assert run.total().members == (1, 2, 3, 4, 5)
        assert run.server.excluded == {1: "a wrong signature of who survived"}

    def test_an_outsider(self, run):
        run.advertise()
        with refused("not in this session"):
            run.server.receive_sharing(9, b"")

    def test_a_wrong_share_is_named_where_others_suffice(self, run):
        run.agree()
        for n, m in run.members.items():
            opening = m.open(run.session, run.consents)
            if n == 2:
                opening = Opening(member=2, seeds={k: bytes(66) for k in opening.seeds}, keys={})
            run.server.receive_opening(n, opening.to_bytes())
        assert run.total().excluded == {2: "a wrong share"}

    def test_too_many_wrong_shares_are_an_error_that_says_so(self, run):
        run.agree()
        for n, m in run.members.items():
            opening = m.open(run.session, run.consents)
            if n <= 3:
                opening = Opening(member=n, seeds={k: bytes(66) for k in opening.seeds}, keys={})
            run.server.receive_opening(n, opening.to_bytes())
        with refused("do not fit together"):
            run.server.result()

    def test_shares_of_what_nobody_asked_for(self, run):
        run.agree()
        opening = run.members[1].open(run.session, run.consents)
        both = Opening(member=1, seeds=opening.seeds, keys={2: bytes(66)})
        run.server.receive_opening(1, both.to_bytes())
        assert "nobody asked" in run.server.excluded[1]

    def test_a_peer_that_sealed_nonsense_harms_itself_alone(self, run):
        run.advertise()
        for n, m in run.members.items():
            sharing = m.share(run.session, run.adverts)
            if n == 4:
                sharing = Sharing(member=4, sealed={k: bytes(160) for k in sharing.sealed})
            run.server.receive_sharing(n, sharing.to_bytes())
        run.deliveries = run.server.deliveries()
        for n, m in run.members.items():
            run.server.receive_masked(n, m.mask(run.session, run.deliveries[n], run.values[n]))
        survivors = run.server.survivors()
        for n, m in run.members.items():
            run.server.receive_consent(n, m.agree(run.session, survivors).to_bytes())
        consents = run.server.consents()
        for n, m in run.members.items():
            run.server.receive_opening(n, m.open(run.session, consents).to_bytes())
        with refused("unmasks site-04 do not fit"):
            run.server.result()


def test_rosters_that_cannot_be():
    keys = {f"site-{i}": Identity.generate().public for i in range(3)}
    for wrong in (
        {},
        {"one": keys["site-0"]},
        {**keys, "Site": b"k" * 32},
        {**keys, "short": b"k"},
        {**keys, "twin": keys["site-0"]},
        {f"s-{i}": bytes([i]) * 32 for i in range(51)},
    ):
        with pytest.raises(FederationError, match="roster"):
            Roster(wrong)
