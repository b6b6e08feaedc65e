"""Studies that start from weights of their owner's, again and again, on the same data."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.client.remote import Remote
from blindtune.errors import RemoteError
from blindtune.wire.bundle import Bundle


@pytest.fixture
def started(make_study):
    return make_study("started", steps=1, started=True)


def weights(seed):
    return np.random.default_rng(seed).normal(size=(11, 2)) * 0.5


def test_the_same_data_are_trained_from_one_start_after_another(started, server, tmp_path):
    with Remote(server.url, server.token, insecure=True) as there:
        there.submit(started.bundles())
        for seed in (1, 2):
            sent = []
            there.submit([*started.bundles(), started.start(weights(seed), f"start-{seed}")], sent.append)
            assert there.status(started.id).state == "ready"
            # Nor is the head from another start given away.
            with pytest.raises(RemoteError, match="not trained yet"):
                there.fetch(started.id, tmp_path / f"head-{seed}", key=started.key.key_id)
            there.start(started.id)
            there.wait(started.id, poll=0.05)
            there.fetch(started.id, tmp_path / f"head-{seed}", key=started.key.key_id)
            found = started.decrypt(tmp_path / f"head-{seed}")
            np.testing.assert_allclose(found, started.dense(weights(seed)), atol=2e-2)
        # The data went up once: what is there already is counted, not sent.
        data = sum(Bundle(path, insecure=True).size for path in started.bundles())
        assert sum(sent) - data < data / 4


def test_without_a_start_nothing_is_trained(started, idle_server):
    with Remote(idle_server.url, idle_server.token, insecure=True) as there:
        there.submit(started.bundles())
        assert there.status(started.id).state == "uploading"
        with pytest.raises(RemoteError, match="weights to start from"):
            there.start(started.id)


def test_a_start_for_a_study_from_zero_and_one_under_another_key(study, make_study, started, idle_server):
    with Remote(idle_server.url, idle_server.token, insecure=True) as there:
        other = make_study("other", steps=1, started=True)
        other.id = started.id
        there.submit(started.bundles())
        with pytest.raises(RemoteError, match="another key"):
            there.submit([other.start(weights(1))])
        stranger = make_study("stranger", steps=2, started=True)
        stranger.id, stranger.key = study.id, study.key
        there.submit(study.bundles())
        with pytest.raises(RemoteError, match="another program"):
            there.submit([stranger.start(weights(1))])


def test_a_start_is_refused_while_the_study_is_to_be_trained(started, idle_server):
    with Remote(idle_server.url, idle_server.token, insecure=True) as there:
        there.submit([*started.bundles(), started.start(weights(1))])
        there.start(started.id)
        with pytest.raises(RemoteError, match="queued or running"):
            there.submit([started.start(weights(2), "other")])
        there.cancel(started.id)
        there.submit([started.directory / "other"])
