"""Evaluation: the encrypted head beside the same steps in clear and the converged ones."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.client.decrypt import open_head
from blindtune.client.evaluate import CLEAR, CONVERGED, ENCRYPTED, SHOWN, START, evaluate_study, study_summary
from blindtune.client.keyfile import read_key
from blindtune.errors import InputError, ModelError
from blindtune.models.linear import LinearHead


@pytest.fixture
def decrypted(directory, key):
    opened = open_head(directory, key)
    opened.head.save(directory.head)
    opened.uncalibrated.save(directory.head / "uncalibrated")
    return directory


def test_heads_on_the_test_split(decrypted):
    results = evaluate_study(decrypted, resamples=50)
    assert next(iter(results)) == ENCRYPTED
    assert set(SHOWN) == {ENCRYPTED, CLEAR, CONVERGED} <= set(results)
    assert START not in results
    data = decrypted.embeddings()
    test = data.indices("test")
    for result in results.values():
        assert result.logits.shape == (len(test), 3)
        np.testing.assert_array_equal(result.labels, data.labels[test])
    here, clear = results[ENCRYPTED].logits, results[CLEAR].logits
    np.testing.assert_allclose(here, clear, atol=0.02 * np.abs(clear).max())
    assert (here.argmax(1) == clear.argmax(1)).mean() > 0.95


def test_beside_the_start_that_nothing_was_encrypted_for(started):
    opened = open_head(started, read_key(started.key_file))
    opened.head.save(started.head)
    opened.uncalibrated.save(started.head / "uncalibrated")
    results = evaluate_study(started, resamples=50)
    assert next(iter(results)) == ENCRYPTED
    data = started.embeddings()
    test = data.indices("test")
    start = started.start().logits(data.features[test].astype(float))
    np.testing.assert_allclose(results[START].logits, start, atol=1e-9)
    here, clear = results[ENCRYPTED].logits, results[CLEAR].logits
    np.testing.assert_allclose(here, clear, atol=0.02 * np.abs(clear - start).max() + 1e-4)
    # Training did something.
    assert np.abs(here - start).max() > 0.1


def test_not_decrypted_yet(directory):
    with pytest.raises(ModelError, match="blindtune decrypt"):
        evaluate_study(directory)


def test_no_test_rows(decrypted, monkeypatch):
    data = decrypted.embeddings()
    splits = np.where(data.splits == "test", "val", data.splits)
    from dataclasses import replace

    changed = replace(data, splits=splits)
    monkeypatch.setattr(type(decrypted), "embeddings", lambda _: changed)
    with pytest.raises(InputError, match="no test rows"):
        evaluate_study(decrypted)


def test_summary_names_no_patient(decrypted):
    text = repr(study_summary(decrypted.settings(), LinearHead.load(decrypted.head)))
    assert "patient" not in text
    assert decrypted.settings().study in text
    assert "insecure" in text
