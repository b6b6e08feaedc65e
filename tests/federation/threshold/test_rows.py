"""From three hospitals' features and labels to one head: sums, bundles, training, opening."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import FederationError
from blindtune.federation.contributions import moments
from blindtune.federation.heads import Cases
from blindtune.federation.threshold.decryption import Opening
from blindtune.federation.threshold.rows import JointRows, rows_parcel, write_keys
from blindtune.federation.threshold.sums import MaskedSum
from blindtune.federation.threshold.transcript import Transcript
from blindtune.models.heads import Encoded
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import train_here
from tests.federation.threshold.conftest import NAMES, TASK, Group
from tests.openfhe import needs_openfhe

pytestmark = needs_openfhe
ROWS = {"charite": 21, "lmu": 9, "tum": 15}


def cases() -> dict[str, Cases]:
    """Unequal shards, each class mostly at one hospital."""
    rng = np.random.default_rng(3)
    centres, mixing = rng.normal(size=(3, 6)), rng.normal(size=(6, 6))
    found = {}
    for n, (name, rows) in enumerate(ROWS.items()):
        labels = np.where(rng.random(rows) < 0.6, n, rng.integers(0, 3, rows))
        features = (2 * centres[labels] + rng.normal(size=(rows, 6))) @ mixing
        found[name] = Cases(features.astype(np.float32), labels.astype(np.int64))
    return found


def in_clear(shards: dict[str, Cases]) -> tuple[Any, Any]:
    """The same steps on the pooled rows: weights and biases on raw features."""
    x = np.vstack([c.features for c in shards.values()]).astype(np.float64)
    y = np.eye(3)[np.concatenate([c.labels for c in shards.values()])]
    whitening = Whitening.fit(x, TASK.model.directions, TASK.model.epsilon, "")
    share = y.mean(axis=0)
    weights = np.where(y > 0, 0.5 / share, 0.5 / (1 - share))
    encoded = Encoded(weights * (y - 0.5), weights * TASK.head.coefficients[:, None, None])
    return whitening.fold(rehearse(whitening.apply(x), encoded, TASK.head).weights)


def test_the_pooled_head(group: Group, tmp_path: Path) -> None:
    shards = cases()
    rows = {name: JointRows(group.parties[name], shards[name]) for name in NAMES}
    for one in rows.values():
        one.contribute()
    bundles = [tmp_path / name for name in NAMES]
    for one, target in zip(rows.values(), bundles, strict=True):
        one.write(target)
    keys = tmp_path / "keys"
    write_keys(Transcript(group.terms, group.mailbox), keys)
    train_here(keys, bundles, tmp_path / "head", insecure=True)

    result = list(Bundle(tmp_path / "head", insecure=True).items("weights"))
    openings = [Opening(party, result) for party in group.parties.values()]
    for opening in openings:
        opening.consent()
    for opening in openings:
        opening.advance()
    weights, biases = rows["lmu"].raw(openings[1].head())
    expected, shift = in_clear(shards)
    logits = np.vstack([c.features for c in shards.values()]) @ weights.T + biases
    exact = np.vstack([c.features for c in shards.values()]) @ expected.T + shift
    assert np.abs(exact).max() > 1
    np.testing.assert_allclose(logits, exact, atol=0.15)
    assert np.corrcoef(logits.ravel(), exact.ravel())[0, 1] > 0.999


def test_sums_are_seen_by_hospitals_alone(group: Group) -> None:
    shards = cases()
    rows = {name: JointRows(group.parties[name], shards[name]) for name in NAMES}
    rows["charite"].contribute()
    rows["tum"].contribute()
    assert rows["tum"].sum.advance().absent == ("lmu",)
    with pytest.raises(FederationError, match="lmu has not added"):
        rows["tum"].sum.total()
    rows["lmu"].contribute()
    counts = np.bincount(np.concatenate([c.labels for c in shards.values()]), minlength=3)
    total = rows["tum"].sum.total()
    np.testing.assert_array_equal(total["images"], counts)
    first, second = moments(TASK.model, total["moments"])
    x = np.vstack([c.features for c in shards.values()]).astype(np.float64)
    np.testing.assert_allclose(first, x.sum(axis=0), atol=1e-4)
    np.testing.assert_allclose(second, x.T @ x, atol=1e-2)
    for path in (group.place / "mailbox").rglob("*"):
        for name in NAMES:
            masked = (group.place / name / "masked.sum-rows").read_bytes()
            assert path.is_dir() or masked[:16] not in path.read_bytes()
    # What a hospital hands the others tells nothing of its own counts.
    own = np.frombuffer(masked, "<u4")
    assert own[:3].max() > 2**20


def test_a_class_that_nobody_has_is_refused(group: Group, tmp_path: Path) -> None:
    rows = {}
    for name, shard in cases().items():
        # One hospital lacks two classes, which the others may; all lack one.
        labels = np.where(shard.labels == 2, 0, shard.labels) if name != "lmu" else 0 * shard.labels
        rows[name] = JointRows(group.parties[name], Cases(shard.features, labels))
        rows[name].contribute()
    for name, one in rows.items():
        with pytest.raises(FederationError, match="no hospital has a training row of viral"):
            one.write(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_what_was_added_stays(group: Group) -> None:
    shards = cases()
    JointRows(group.parties["lmu"], shards["lmu"]).contribute()
    JointRows(group.party("lmu"), shards["tum"]).contribute()
    for name in ("charite", "tum"):
        JointRows(group.parties[name], shards[name]).contribute()
    counts = np.bincount(np.concatenate([c.labels for c in shards.values()]), minlength=3)
    total = MaskedSum(group.party("charite"), "rows", rows_parcel(group.terms)).total()
    np.testing.assert_array_equal(total["images"], counts)
