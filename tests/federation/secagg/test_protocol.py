"""The whole protocol against plain sums, with members that drop out at every stage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blindtune.errors import FederationError
from blindtune.federation.secagg.local import aggregate
from blindtune.federation.secagg.protocol import STAGES
from blindtune.federation.secagg.session import Policy, threshold


def vectors(session, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.uniform(-1, 1, session.length) for n in range(1, len(session.roster) + 1)}


def expected(session, given_vectors, members):
    encoded = [session.quantiser.encode(given_vectors[n]) for n in members]
    return session.quantiser.decode(np.sum(encoded, axis=0, dtype=np.uint32))


@pytest.mark.parametrize("count", [3, 4, 10])
def test_the_sum_is_exact(group, count):
    made = group(count)
    session = made.session(1000)
    values = vectors(session)
    found = aggregate(session, made.members.values(), values)
    np.testing.assert_array_equal(found.values, expected(session, values, values))
    plain = np.sum(list(values.values()), axis=0)
    assert np.abs(found.values - plain).max() <= session.quantiser.error(count)
    assert found.members == tuple(range(1, count + 1))
    assert found.dropped == ()
    assert found.excluded == {}


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_dropouts_within_the_threshold(group, data):
    count = data.draw(st.integers(4, 7))
    made = group(count)
    session = made.session(9)
    most = count - session.threshold
    who = data.draw(st.lists(st.integers(1, count), max_size=most, unique=True))
    gone = {n: data.draw(st.sampled_from(STAGES)) for n in who}
    values = vectors(session, data.draw(st.integers(0, 99)))
    found = aggregate(session, made.members.values(), values, gone)
    left = [n for n in values if gone.get(n, "opening") in ("consent", "opening")]
    np.testing.assert_array_equal(found.values, expected(session, values, left))
    assert found.members == tuple(left)
    assert found.dropped == tuple(sorted(n for n, stage in gone.items() if stage == "masked"))


@pytest.mark.parametrize("stage", STAGES)
def test_one_dropout_too_many_gives_nothing(group, stage):
    made = group(5)
    session = made.session()
    gone = dict.fromkeys(range(1, 5 - session.threshold + 2), stage)
    with pytest.raises(FederationError, match=f"{session.threshold} are needed"):
        aggregate(session, made.members.values(), vectors(session), gone)


def test_a_round_that_failed_is_repeated_under_the_next_attempt(group):
    made = group(3)
    first = made.session()
    values = vectors(first)
    with pytest.raises(FederationError, match="are needed"):
        aggregate(first, made.members.values(), values, {2: "masked"})
    again = made.session(attempt=1)
    made.members[2] = made.restart(2)
    found = aggregate(again, made.members.values(), values)
    np.testing.assert_array_equal(found.values, expected(again, values, values))
    with pytest.raises(FederationError, match="begun before"):
        aggregate(first, made.members.values(), values)


def test_members_restart_between_all_stages(group):
    """Each message is answered by a process that has just started."""
    made = group(4)
    session = made.session()
    values = vectors(session)

    class Fresh:
        def __init__(self, number):
            self.number = number

        def __getattr__(self, name):
            return getattr(made.restart(self.number), name)

    found = aggregate(session, [Fresh(n) for n in made.members], values, {3: "masked"})
    np.testing.assert_array_equal(found.values, expected(session, values, [1, 2, 4]))


def test_a_masked_vector_tells_nothing_by_itself(group):
    """Zeros under their masks look uniform: every bit is one about half the time."""
    made = group(3)
    session = made.session(20000)
    from blindtune.federation.secagg.aggregator import Aggregator

    server = Aggregator(session)
    for m in made.members.values():
        server.receive_advert(m.number, m.advertise(session).to_bytes())
    adverts = server.adverts()
    for m in made.members.values():
        server.receive_sharing(m.number, m.share(session, adverts).to_bytes())
    masked = made.members[1].mask(session, server.deliveries()[1], np.zeros(20000))
    bits = np.unpackbits(np.frombuffer(masked, np.uint8)).reshape(-1, 32).mean(axis=0)
    # Five standard errors of a fair coin thrown 20,000 times.
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(20000)


@pytest.mark.parametrize(
    ("members", "colluding", "least"), [(3, 0, 2), (4, 1, 3), (10, 3, 7), (50, 16, 34), (3, 2, 3)]
)
def test_thresholds_of_the_paper(members, colluding, least):
    assert threshold(members, colluding) == least
    assert 2 * least > members + colluding


def test_the_default_policy_never_sums_fewer_than_three(group):
    made = group(3)
    assert made.session().threshold == 3
    two = group(3, Policy(fewest=2))
    assert two.session().threshold == 2
    session = two.session()
    values = vectors(session)
    found = aggregate(session, two.members.values(), values, {1: "masked"})
    np.testing.assert_array_equal(found.values, expected(session, values, [2, 3]))
