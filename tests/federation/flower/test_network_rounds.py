"""Rounds over TLS: the same as in one process, whoever fails on the way."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from blindtune.client.blind import HereProvider
from blindtune.errors import FederationError
from blindtune.federation.blind import BlindLearner
from blindtune.federation.channel import Answer, Request
from blindtune.federation.contributions import known
from blindtune.federation.flower import envelope
from blindtune.federation.flower.envelope import answer_records, read_request
from blindtune.federation.identity import Identity
from blindtune.federation.secagg.session import Policy
from blindtune.privacy.account import Release, epsilon

ONE_STEP = {"every": 1, "unit": "batches", "batch": 1000, "rate": 0.5}


def test_rounds_over_a_network_are_those_in_one_process(network, study):
    plan = {"rounds": 2, "local": {"every": 2, "batch": 8}, "model": {"directions": 3}}
    alone = study(**plan).coordinator()
    told = list(alone.run())
    made = network(**plan)
    made.start_all()
    coordinator = made.coordinator()
    assert list(coordinator.run()) == told
    np.testing.assert_array_equal(coordinator.values, alone.values)
    sent, received = made.linked.traffic
    assert min(sent, received) > 1000


def test_blind_rounds_over_a_network_tell_sanitised_weights_only(network, tmp_path):
    model = {"directions": 4, "loss": "one-vs-rest", "blind": True, "reach": 16.0}
    made = network(sites=3, rounds=1, model=model, local={**ONE_STEP, "batch": 1 << 14, "rate": 4.0})
    study, learners = made.made, {}
    for name in study.names:
        cases = study.training[name], study.validation[name]
        learners[name] = BlindLearner(study.agreement, *cases, tmp_path / name, HereProvider(1))
        site = study.site(name, learner=learners[name])
        made.start(name, made.app(name, site.handle))
    coordinator = made.coordinator()
    list(coordinator.run())
    shares = [len(study.training[n].labels) for n in study.names] / np.float64(125)
    wanted = np.zeros(len(study.start))
    for name, share in zip(study.names, shares, strict=True):
        clear = study.learner(name)
        clear.begin(known(study.agreement, coordinator.totals))
        wanted += share * clear.train(study.start)
    # As far from the steps in clear as the noise that hides the decryption's error, and no nearer.
    hiding = np.sqrt(12 * len(wanted)) * 2**15 * learners["site-0"].outsourced.error
    apart = (coordinator.values - wanted).std()
    # Of fifteen values: beyond these bounds once in ten million.
    assert 0.2 < apart / (hiding * np.linalg.norm(shares)) < 2.5


def test_private_rounds_over_a_network_are_charged_and_refused_as_in_one_process(network):
    two = [Release(5.0, 1.0, 2)]
    made = network(
        sites=3,
        rounds=9,
        budget=(1.01 * epsilon(two, 1e-2), 1e-2),
        local=ONE_STEP,
        privacy={"noise": 5.0, "sampling": 1.0, "survivors": 3},
    )
    made.start_all()
    coordinator = made.coordinator()
    with pytest.raises(FederationError, match=r"site-\d: it refused: this release would take epsilon"):
        list(coordinator.run())
    assert [r.sites for r in coordinator.progress.rounds] == [made.made.names] * 2
    assert [r.confusion for r in coordinator.progress.rounds] == [[[0.0] * 3] * 3] * 2
    for ledger in made.made.ledgers.values():
        assert ledger.spent() == two


def test_bodies_of_many_pieces(network):
    made = network(rounds=1, limit=5 * envelope.PIECE)
    size = 4 * envelope.PIECE + 17
    bodies = {"site-0": bytes(size), "site-1": np.random.default_rng(0).bytes(size), "site-2": b""}
    for name in bodies:
        made.start(name, made.app(name, lambda request: request.head + request.body[::-1]))
    found = made.channel.ask({n: Request("echo", n.encode(), body) for n, body in bodies.items()})
    assert found == {n: Answer(n.encode() + body[::-1]) for n, body in bodies.items()}
    # What was on its way is not kept.
    assert len(made.linked.grid.state.object_store) == 0


def test_members_that_never_came_and_strangers_are_missing(network):
    made = network(rounds=1)
    made.start("site-0")
    assert made.linked.online == ["site-0"]
    asked = dict.fromkeys([*made.made.names, "stranger"], Request("hello", b"{}"))
    assert list(made.channel.ask(asked)) == ["site-0"]


def test_a_member_may_come_late(network):
    made = network(rounds=2, local=ONE_STEP)
    made.start_all("site-3")
    rounds = made.coordinator().run()
    assert next(rounds).sites == made.made.names[:3]
    made.start("site-3")
    assert next(rounds).sites == made.made.names


class TestBadSites:
    """What one of them must not send is told as a refusal under its name; see how rounds go on without it."""

    def told(self, network, records, **given):
        """What the coordinator gets when a site answers with records of its own."""
        made = network(rounds=1, **given)
        identity = made.made.identities["site-1"]

        def app(message, context):
            asked = read_request(message.content, made.limit)
            return Message(records(made, identity, asked), reply_to=message)

        made.start("site-1", app)
        found = made.channel.ask({"site-1": Request("update", b"{}", b"model")})
        # Nothing of it stays.
        assert len(made.linked.grid.state.object_store) == 0
        return found["site-1"].refusal

    @pytest.mark.parametrize(
        "records",
        [
            RecordDict(),
            RecordDict({"answer": ConfigRecord({"pieces": 1 << 40})}),
            RecordDict({"answer": ConfigRecord({"name": "site-1", "pieces": 0})}),
            RecordDict({"answer": ArrayRecord({"x": Array("uint8", (4,), "bytes", b"1234")})}),
        ],
    )
    def test_garbage(self, network, records):
        assert "cannot be read" in self.told(network, lambda made, identity, asked: records)

    def test_another_identity(self, network):
        def records(made, identity, asked):
            return answer_records("site-1", Identity.generate(), asked.nonce, Answer())

        assert "has not signed" in self.told(network, records)

    def test_another_members_name(self, network):
        def records(made, identity, asked):
            return answer_records("site-2", identity, asked.nonce, Answer())

        assert "has not signed" in self.told(network, records)

    def test_a_replay(self, network):
        def records(made, identity, asked):
            return answer_records("site-1", identity, envelope.nonce(), Answer())

        assert "has not signed" in self.told(network, records)

    def test_more_bytes_than_the_plan_needs(self, network):
        def records(made, identity, asked):
            return answer_records("site-1", identity, asked.nonce, Answer(bytes(made.limit + 1)))

        assert "a message of 100,001 bytes" in self.told(network, records, limit=100_000)

    def test_more_pieces_than_the_plan_needs(self, network):
        def records(made, identity, asked):
            head = ConfigRecord({"name": "site-1", "refusal": "", "signature": b"", "pieces": 100})
            many = {f"data-{i}": ConfigRecord({"data": bytes([i])}) for i in range(100)}
            return RecordDict({"answer": head, **many})

        assert "cannot be read" in self.told(network, records)

    def test_rounds_go_on_without_them(self, network):
        made = network(rounds=1, sites=5, policy=Policy(fewest=3, colluding=0), local=ONE_STEP, timeout=5.0)
        honest, over = made.made.channel.sites["site-3"], threading.Event()

        def failing(request):
            if request.kind != "hello":
                raise ValueError("/data/patient-17.dcm")
            return honest(request)

        def silent(request):
            if request.kind == "update":
                over.wait(60)
            return honest(request)

        for name in ("site-0", "site-1", "site-4"):
            made.start(name)
        made.start("site-2", made.app("site-2", failing))
        made.start("site-3", made.app("site-3", silent))
        try:
            done = next(iter(made.coordinator().run()))
        finally:
            over.set()
        assert done.sites == ["site-0", "site-1", "site-4"]
        # What went wrong in a hospital stays there, but for its kind.
        assert done.excluded == {"site-2": "it refused: the site failed (ValueError)"}

    def test_rounds_go_on_without_one_that_replays(self, network):
        made = network(rounds=1, local=ONE_STEP)
        honest, first = made.app("site-1"), []

        def replaying(message, context):
            first.append(honest(message, context).content)
            return Message(first[0], reply_to=message)

        made.start_all("site-1")
        made.start("site-1", replaying)
        done = next(iter(made.coordinator().run()))
        assert done.sites == ["site-0", "site-2", "site-3"]
        assert "has not signed" in done.excluded["site-1"]

    def test_another_plan(self, network):
        made = network(rounds=1)
        made.start("site-1", made.app("site-1", plan="0" * 64))
        found = made.channel.ask({"site-1": Request("hello", b"{}")})
        assert found["site-1"].refusal == "another plan than this hospital approved"


def test_a_site_that_starts_again_is_not_waited_for(network):
    # Waited for longer than tests may take.
    made = network(rounds=1, local=ONE_STEP, timeout=10_000.0)
    asked, over = threading.Event(), threading.Event()
    honest = made.made.channel.sites["site-1"]

    def lost(request):
        if request.kind == "update":
            asked.set()
            over.wait(120)
        return honest(request)

    made.start_all("site-1")
    first = made.start("site-1", made.app("site-1", lost))
    found = []
    runner = threading.Thread(target=lambda: found.extend(made.coordinator().run()), daemon=True)
    runner.start()
    assert asked.wait(60)
    # As after a kill: the old process says nothing any more, the new one has the same keys.
    first.gone = True
    made.start("site-1")
    runner.join(120)
    over.set()
    assert [done.sites for done in found] == [["site-0", "site-2", "site-3"]]


def test_a_site_that_says_goodbye_is_not_waited_for(network):
    made = network(rounds=1, local=ONE_STEP, timeout=10_000.0)
    made.start_all("site-1")

    def leaving(request):
        raise SystemExit

    fleet = made.start("site-1", made.app("site-1", leaving))
    done = next(iter(made.coordinator().run()))
    assert not fleet.gone
    assert done.sites == ["site-0", "site-2", "site-3"]
