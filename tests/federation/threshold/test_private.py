"""Noise on the sums of a study with a joint key: its scale, its account, once, and in a ledger beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from blindtune.errors import FederationError, PrivacyError
from blindtune.federation.agreement import HeadModel
from blindtune.federation.contributions import moments, row_moments
from blindtune.federation.heads import Cases, agreed_whitening
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.private import NoisySum, SumPrivacy, covariance_noise
from blindtune.federation.threshold.rows import JointRows, afford, pooled, write_keys
from blindtune.federation.threshold.terms import Task, Terms
from blindtune.federation.threshold.transcript import Transcript
from blindtune.models.heads import Encoded
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.privacy.account import epsilon
from blindtune.privacy.ledger import Ledger
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import train_here
from tests.federation.threshold.conftest import NAMES, TASK, Group
from tests.openfhe import needs_openfhe

pytest.importorskip("dp_accounting")
DELTA = 1e-3
NOISE = 2.0
PRIVATE = TASK.model_copy(
    update={
        "privacy": SumPrivacy(noise=NOISE, delta=DELTA),
        "model": TASK.model.model_copy(update={"reach": 12.0}),
    }
)


def noisy(noise: float = NOISE, features: int = 6, classes: int = 3, members: int = 3) -> NoisySum:
    """A sum, features whitened to two directions."""
    model = HeadModel(features=features, directions=2, reach=3.0, rows=64, loss="one-vs-rest", blind=True)
    return NoisySum(model, classes, SumPrivacy(noise=noise, delta=DELTA), members)


def draw(rows: int, seed: int, features: int = 6) -> Cases:
    """Rows of three classes, two of each patient."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    return Cases(x, rng.integers(0, 3, rows), np.arange(rows) // 2)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """With room for everything."""
    made = Ledger.create(tmp_path / "ledger", 900.0, DELTA)
    yield made
    made.close()


def test_the_noise_has_the_scale_of_the_account_at_each_hospital(ledger: Ledger) -> None:
    sums = noisy(noise=3.0, features=120, classes=900)
    x = np.random.default_rng(0).normal(size=(30, 120)).astype(np.float32)
    cases = Cases(x, np.arange(30))
    found = sums.charged(cases, ledger, "study")
    one = sums.counts.whole(np.eye(1, 900))[0, 0]
    counts = found["images"] / one - np.bincount(cases.labels, minlength=900)
    exact = sum(part.sum(axis=0) for part in row_moments(sums.model, x))
    rest = found["moments"] * sums.moments.step - exact
    # With a fifth of the budget, of what a patient adds: 1, and a row and its products of length 1 each.
    for noise, scale in ((counts, 3.0 / math.sqrt(0.2)), (rest, 3.0 * math.sqrt(2) / math.sqrt(0.8))):
        n = noise.size
        assert noise.std() == pytest.approx(scale, rel=6 / math.sqrt(2 * n) + 0.02)
        assert abs(noise.mean()) < 6 * scale / math.sqrt(n)
        # Of a Gaussian, 68.3 % within one standard deviation.
        assert np.mean(np.abs(noise) < scale) == pytest.approx(0.683, abs=6 * 0.47 / math.sqrt(n) + 0.01)
    # Another hospital draws its own.
    again = sums.charged(cases, ledger, "study")
    assert np.abs(np.corrcoef(found["moments"], again["moments"])[0, 1]) < 6 / math.sqrt(rest.size) + 0.05


@given(st.integers(0, 2**32), st.floats(0.3, 50), st.floats(1e-3, 1e3), st.integers(0, 2))
def test_a_patient_moves_the_sums_no_further_than_the_account_says(
    seed: int, noise: float, size: float, label: int
) -> None:
    sums = noisy(noise)
    row = np.random.default_rng(seed).normal(size=(1, 6)) * size
    [told] = row_moments(sums.model, row)
    moved = [
        np.linalg.norm(mechanism.whole(values)) / mechanism.scale
        for mechanism, values in ((sums.counts, np.eye(3)[[label]]), (sums.moments, told))
    ]
    assert math.hypot(*moved) <= 1 / noise * (1 + 1e-9)


def test_the_account_is_that_of_both_parts_together() -> None:
    privacy = SumPrivacy.within(2.0, DELTA)
    assert 1.97 < privacy.epsilon <= 2.0
    sums = noisy(privacy.noise)
    parts = [sums.counts.release(), sums.moments.release()]
    assert epsilon(parts, DELTA) == pytest.approx(privacy.epsilon, rel=1e-3)


def test_a_patient_counts_once_however_many_rows(ledger: Ledger) -> None:
    cases = Cases(np.ones((60, 6), np.float32), np.full(60, 1), np.zeros(60, np.int64))
    sums = noisy(0.5)
    found = sums.charged(cases, ledger, "study")
    one = sums.counts.whole(np.eye(1, 3))[0, 0]
    np.testing.assert_allclose(found["images"] / one, [0, 1, 0], atol=8 * 0.5 / math.sqrt(0.2))


def test_counts_are_whole_again_and_never_below_their_noise() -> None:
    sums = noisy(1.0)
    one = sums.counts.whole(np.eye(1, 3))[0, 0]
    zeros = np.zeros(sums.moments.length)
    known = sums.known({"images": one * np.array([300.0, 40.0, -9.0]), "moments": zeros})
    np.testing.assert_allclose(known["images"], [300, 40, math.sqrt(3 / 0.2)], rtol=0.02)
    np.testing.assert_array_equal(known["images"][:2], [300, 40])


def test_a_covariance_that_is_none_is_whitened_all_the_same(ledger: Ledger) -> None:
    """And no direction comes out with much more variance than its share, so that steps do not diverge."""
    model = HeadModel(features=30, directions=30, reach=8.0, epsilon=0.0, loss="one-vs-rest", blind=True)
    sums = NoisySum(model, 3, SumPrivacy(noise=3.0, delta=DELTA), 1)
    cases = draw(600, 5, features=30)
    known = sums.known({n: a.astype(float) for n, a in sums.charged(cases, ledger, "study").items()})
    total, second = moments(sums.model, known["moments"])
    rows = known["images"].sum()
    assert np.linalg.eigvalsh(second / rows - np.outer(total, total) / rows**2).min() < 0
    found = agreed_whitening(model, {**known, "rows": np.array([rows])})
    assert found is not None
    assert np.linalg.eigvalsh(np.cov(found.apply(cases.features)[:, :-1].T)).max() < 3
    bare = Whitening.from_moments(round(rows), total, second, 30, 0.01, "")
    assert np.linalg.eigvalsh(np.cov(bare.apply(cases.features)[:, :-1].T)).max() > 20


def test_noise_on_moments_lengthens_a_covariance_as_said() -> None:
    rng = np.random.default_rng(2)
    model, rows, deviation = HeadModel(features=120, directions=9, reach=5.0), 400, 7.0
    noise = rng.normal(size=120 * 123 // 2) * deviation
    _, second = moments(model, noise)
    longest = np.abs(np.linalg.eigvalsh(second / rows)).max()
    [said] = covariance_noise(model, deviation, rows)
    # At so many features, eigenvalues end a few percent around the limit.
    assert longest == pytest.approx(said, rel=0.1)


class TestRefusals:
    def test_a_delta_that_lets_a_patient_be_published(self) -> None:
        told = {**PRIVATE.model_dump(), "privacy": {"noise": 1.0, "delta": 1 / 64}}
        with pytest.raises(ValidationError, match=r"less than 0\.02"):
            Task.model_validate(told)

    def test_noise_that_no_sum_holds(self, draw_group: Callable[..., Group], tmp_path: Path) -> None:
        terms = draw_group(tmp_path, PRIVATE).terms
        assert Terms.parse(terms.model_dump_json().encode()).digest == terms.digest
        loud = PRIVATE.model_copy(update={"privacy": SumPrivacy(noise=9e3, delta=DELTA)})
        with pytest.raises(FederationError, match="do not fit a sum"):
            draw_group(tmp_path, loud)

    def test_moments_that_no_sum_holds(self, ledger: Ledger) -> None:
        sums = noisy(1.0, members=50)
        cases = Cases(np.tile(np.eye(1, 6, dtype=np.float32) * 3, (9000, 1)), np.zeros(9000, np.int64))
        with pytest.raises(FederationError, match="beyond what a sum holds"):
            sums.charged(cases, ledger, "study")


@pytest.fixture(scope="module")
def private_keys(draw_group: Callable[..., Group], tmp_path_factory: pytest.TempPathFactory) -> Group:
    """A study with noise whose keys are made; copy it."""
    group = draw_group(tmp_path_factory.mktemp("private"), PRIVATE)
    group.run()
    return group


@pytest.fixture
def private(private_keys: Group, tmp_path: Path) -> Group:
    """A study with noise."""
    return private_keys.copy(tmp_path / "study")


def sent(group: Group, name: str) -> list[bytes]:
    """What a hospital sent to the sum."""
    return [p.read_bytes() for p in (group.place / "mailbox").rglob(f"*.{name}") if "sum" in p.parent.name]


@needs_openfhe
def test_all_hospitals_know_the_same_noisy_sum(private: Group, ledger: Ledger) -> None:
    shards = {name: draw(60, n) for n, name in enumerate(NAMES)}
    for name, cases in shards.items():
        JointRows(private.parties[name], cases).contribute(ledger)
    found = [pooled(party) for party in private.parties.values()]
    for other in found[1:]:
        for part in ("images", "moments", "rows"):
            np.testing.assert_array_equal(found[0][part], other[part])
    # Ninety patients, of whom each counts once.
    spread = NOISE * math.sqrt(3 / 0.2)
    assert found[0]["rows"][0] == pytest.approx(90, abs=6 * math.sqrt(3) * spread)
    total, second = moments(PRIVATE.model, found[0]["moments"])
    x = np.vstack([c.features for c in shards.values()]).astype(np.float64)
    scale = NOISE * math.sqrt(2 * 3 / 0.8)
    np.testing.assert_allclose(total, x.sum(axis=0) / 2, atol=6 * 12 * scale + 60)
    np.testing.assert_allclose(second, x.T @ x / 2, atol=6 * 144 * scale + 200)
    assert np.abs(second - x.T @ x / 2).max() > 144 * scale / 4


@needs_openfhe
def test_noise_is_charged_and_drawn_once_whatever_is_asked_again(private: Group, ledger: Ledger) -> None:
    cases = draw(40, 7)
    JointRows(private.parties["lmu"], cases).contribute(ledger)
    [said] = sent(private, "lmu")
    kept = (private.place / "lmu" / "masked.sum-rows").read_bytes()
    for _ in range(2):
        again = private.party("lmu")
        afford(again, None)
        JointRows(again, cases).contribute(ledger)
    assert sent(private, "lmu") == [said]
    # It was stopped between drawing and sending.
    for path in (*(private.place / "lmu").glob("*sum-rows*"), *(private.place / "mailbox").rglob("sum.lmu")):
        if not path.name.startswith("masked"):
            path.unlink()
    assert not sent(private, "lmu")
    JointRows(private.party("lmu"), cases).contribute(ledger)
    assert len(sent(private, "lmu")) == 1
    assert (private.place / "lmu" / "masked.sum-rows").read_bytes() == kept
    [(_, purpose, release)] = ledger.purposes()
    assert (purpose, release) == (f"{private.terms.study}: counts and moments", PRIVATE.privacy.release)


@needs_openfhe
def test_without_a_ledger_or_its_budget_nothing_is_sent(private: Group, tmp_path: Path) -> None:
    rows = JointRows(private.parties["tum"], draw(40, 7))
    small = Ledger.create(tmp_path / "small", 0.5, DELTA)
    refusals: list[tuple[Any, type[Exception], str]] = [
        (None, FederationError, "privacy ledger"),
        (small, PrivacyError, "would take epsilon to"),
    ]
    for book, kind, why in refusals:
        with pytest.raises(kind, match=why):
            afford(private.parties["tum"], book)
        with pytest.raises(kind, match=why):
            rows.contribute(book)
    assert not sent(private, "tum")
    assert not rows.sum.added
    assert small.spent() == []
    small.close()


@needs_openfhe
def test_the_head_is_trained_on_exact_rows_whitened_by_noisy_sums(
    private: Group, ledger: Ledger, tmp_path: Path
) -> None:
    """Both rows of a patient share a vote, as in the sums."""
    shards = {name: draw(20 + 10 * n, n) for n, name in enumerate(NAMES)}
    rows = {name: JointRows(private.parties[name], cases) for name, cases in shards.items()}
    for one in rows.values():
        one.contribute(ledger)
    for name, one in rows.items():
        one.write(tmp_path / name)
    write_keys(Transcript(private.terms, private.mailbox), tmp_path / "keys")
    train_here(tmp_path / "keys", [tmp_path / name for name in NAMES], tmp_path / "head", insecure=True)
    openings = [
        Opening(party, list(Bundle(tmp_path / "head", insecure=True).items("weights")))
        for party in private.parties.values()
    ]
    for opening in openings:
        opening.consent()
    for opening in openings:
        opening.advance()
    weights, biases = rows["tum"].raw(openings[0].head())

    totals = pooled(private.parties["tum"])
    whitening = agreed_whitening(PRIVATE.model, totals)
    assert whitening is not None
    x = np.vstack([c.features for c in shards.values()]).astype(np.float64)
    y = np.eye(3)[np.concatenate([c.labels for c in shards.values()])]
    share = totals["images"] / totals["images"].sum()
    balanced = np.where(y > 0, 0.5 / share, 0.5 / (1 - share)) / 2
    # The steps' mean is over as many rows as the noisy counts say, each patient with two here.
    factor = len(x) / int(totals["rows"][0])
    encoded = Encoded(
        factor * balanced * (y - 0.5), factor * balanced * PRIVATE.head.coefficients[:, None, None]
    )
    expected, shift = whitening.fold(rehearse(whitening.apply(x), encoded, PRIVATE.head).weights)
    exact = x @ expected.T + shift
    np.testing.assert_allclose(x @ weights.T + biases, exact, atol=0.1 * np.abs(exact).max())
