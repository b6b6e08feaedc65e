"""Key recovery works where decryptions are told as they are, and not on what a release tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blindtune.audit.keys import FORMS, SIZES, Attacker, audit, one, whole_ring
from blindtune.cli.audit import Parameter
from blindtune.he.flooding import coefficients
from blindtune.he.secret import SecretKey


@pytest.fixture(scope="module")
def attacked():
    """An attacker, a key and a ciphertext under it, with insecure parameters."""
    p = SIZES["insecure"](128)
    key = SecretKey.generate(p)
    item = key.encrypt(np.linspace(-1, 1, p.slots))
    return Attacker(p), key, item


def test_control_recovers_the_very_key(attacked):
    attacker, key, item = attacked
    handle, parts = key.load(item), attacker.parts(item)
    found = attacker.from_polynomial(parts, key.polynomial(handle))
    again = attacker.from_coefficients(parts, coefficients(key.decrypt(handle), key.parameters.scale))
    np.testing.assert_array_equal(found, again)
    assert set(found) == {-1, 0, 1}
    # Another ciphertext under the same key gives the same: it is the key, and not any ternary polynomial.
    other = key.encrypt(np.full(key.parameters.slots, 0.25))
    told = key.polynomial(key.load(other))
    np.testing.assert_array_equal(attacker.from_polynomial(attacker.parts(other), told), found)


def test_a_decryption_of_something_else_gives_no_key(attacked):
    attacker, key, item = attacked
    handle, parts = key.load(item), attacker.parts(item)
    told = coefficients(key.decrypt(handle), key.parameters.scale)
    told[17] += 1
    assert attacker.from_coefficients(parts, told) is None


def test_sanitised_decryptions_give_no_key(attacked):
    attacker, key, _ = attacked
    plan = whole_ring(key.parameters)
    assert [one(attacker, key.parameters, plan) for _ in range(3)] == [(True, True, False)] * 3


def test_real_parameters_give_the_key_away_as_well():
    p = SIZES["usual"](128)
    assert (p.ring_degree, p.security) == (16384, 128)
    assert one(Attacker(p), p, whole_ring(p)) == (True, True, False)


def test_results_say_what_was_attacked():
    seen = []
    found = audit(["insecure"], 2, on_try=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert [r.protection for r in found] == list(FORMS)
    assert [r.figures["keys recovered"].value for r in found] == [1, 1, 0]
    assert all(r.control and r.trials == 2 for r in found)
    assert found[0].command == "blindtune audit keys --tries 2 --parameters insecure --security 128"


def test_tries_go_on_where_a_run_was_stopped():
    kept = []
    first = audit(["insecure"], 2, keep=kept.append)
    assert kept[-1] == first
    assert [r.trials for r in kept[0]] == [1, 1, 1]
    seen = []
    found = audit(["insecure"], 3, on_try=lambda *at: seen.append(at), earlier=first)
    assert seen == [(3, 3)]
    assert [(r.trials, r.figures["keys recovered"].value) for r in found] == [(3, 1), (3, 1), (3, 0)]
    assert audit(["insecure"], 2, earlier=found) == found
    # Results of another version, or of a part of the forms, are not counted on.
    other = [replace(r, versions={"blindtune": "0"}) for r in first]
    for unusable in (other, first[:2]):
        assert [r.trials for r in audit(["insecure"], 1, earlier=unusable)] == [1, 1, 1]


def test_the_command_knows_all_sizes():
    assert [p.value for p in Parameter] == list(SIZES)
