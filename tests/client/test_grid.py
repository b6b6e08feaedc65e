"""A grid through encryption: candidates come back, each the head of its own plain training; one is chosen."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from blindtune.client.decrypt import TRUSTED_DEVIATION, open_head
from blindtune.client.encrypt import encrypt_study
from blindtune.client.evaluate import CLEAR, ENCRYPTED, evaluate_study, study_summary
from blindtune.client.keyfile import read_key, write_key
from blindtune.client.prepare import prepare
from blindtune.client.study import StudyDirectory
from blindtune.errors import ModelError, PlanError
from blindtune.he.secret import SecretKey
from blindtune.models.grid import grid
from blindtune.models.heads import logistic, one_vs_rest
from blindtune.models.linear import LinearHead
from blindtune.models.rehearsal import rehearse
from blindtune.models.softmax import softmax
from blindtune.wire.study import train_here

THREE = grid(one_vs_rest(degree=3, learning_rates=(4.0, 4.0)), rates=[4.0, 0.25], shrinkages=[0.0, 0.1])


@pytest.fixture(scope="module")
def _trained(tmp_path_factory, encrypt_to, train_bundles):
    directory = StudyDirectory(tmp_path_factory.mktemp("grid") / "study")
    encrypt_to(directory, THREE)
    train_bundles(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    return directory.root


@pytest.fixture
def directory(_trained, tmp_path):
    """A study of four settings of three classes; the encrypted heads came back."""
    return StudyDirectory(shutil.copytree(_trained, tmp_path / "study"))


@pytest.fixture
def opened(directory):
    """Its candidates, the chosen one written."""
    found = open_head(directory, read_key(directory.key_file))
    found.head.save(directory.head)
    found.uncalibrated.save(directory.head / "uncalibrated")
    return found


def plain(prepared):
    """Weights of each setting's own training in clear."""
    data, choice = prepared.data, prepared.choice
    rows = data.indices("train")
    x, labels = choice.whitening.apply(data.features[rows].astype(float)), data.labels[rows]
    offset = choice.start.logits(data.features[rows].astype(float)) if choice.start else None
    for setting in choice.head.settings:
        yield rehearse(x, setting.encode(labels, prepared.outputs, offset), setting).weights


def test_the_candidate_with_the_least_validation_loss_is_chosen(directory, opened):
    assert opened.deviation < 0.01
    settings = directory.settings()
    assert [c.setting for c in opened.candidates] == list(settings.grid)
    assert {(g["learning_rate"], g["shrinkage"]) for g in settings.grid} == {
        *((4.0, 0.0), (4.0, 0.1), (0.25, 0.0), (0.25, 0.1)),
    }
    data = directory.embeddings()
    held = data.indices("val")
    losses = [c.head.loss(data.features[held], data.labels[held]) for c in opened.candidates]
    assert [c.loss for c in opened.candidates] == losses
    assert len(set(losses)) == 4
    assert opened.chosen == int(np.argmin(losses))
    said, chosen = opened.head.provenance, settings.grid[opened.chosen]
    assert said["grid"]["chosen"] == opened.chosen
    assert [s["validation_loss"] for s in said["grid"]["settings"]] == losses
    assert said["learning_rates"] == [chosen["learning_rate"]] * 2
    assert said["shrinkage"] == chosen["shrinkage"]


def test_the_chosen_one_is_evaluated_beside_the_same_steps_in_clear(directory, opened):
    results = evaluate_study(directory, resamples=20)
    here, clear = results[ENCRYPTED].logits, results[CLEAR].logits
    np.testing.assert_allclose(here, clear, atol=0.02 * np.abs(clear).max())
    told = study_summary(directory.settings(), opened.head)["provenance"]
    table = told["Settings of the grid, loss on validation rows"]
    assert len(table) == 4
    assert sum("chosen" in text for text in table.values()) == 1
    assert told["Head"]["shrinkage"] == opened.head.provenance["shrinkage"]


def test_test_rows_have_no_say(directory, opened):
    saved = directory.private / "embeddings.npz"
    arrays = dict(np.load(saved))
    test = arrays["splits"] == "test"
    arrays["labels"][test] = (arrays["labels"][test] + 1) % 3
    np.savez(saved, **arrays)
    again = open_head(directory, read_key(directory.key_file))
    assert again.chosen == opened.chosen
    assert [c.loss for c in again.candidates] == [c.loss for c in opened.candidates]


def test_a_server_that_spoils_the_smallest_setting_is_found_out(directory, train_bundles):
    shutil.rmtree(directory.encrypted_head)
    train_bundles(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head, retain=(1.0, 0.5))
    assert open_head(directory, read_key(directory.key_file)).deviation > TRUSTED_DEVIATION


@pytest.mark.parametrize("told", [None, {"chosen": 4, "settings": []}, {"chosen": "0"}, 1])
def test_a_head_that_does_not_say_which_it_is(directory, opened, told):
    path = directory.head / "head.json"
    found = json.loads(path.read_text())
    found["provenance"]["grid"] = told
    path.write_text(json.dumps(found))
    with pytest.raises(ModelError, match="not of this grid"):
        evaluate_study(directory, resamples=20)


def test_settings_of_an_older_study(directory):
    path = directory.private / "study.json"
    told = json.loads(path.read_text())
    del told["grid"]
    path.write_text(json.dumps(told))
    assert directory.settings().heads == 3


def test_rates_beside_those_of_a_grid(draw_embeddings):
    with pytest.raises(PlanError, match="beside those of a grid"):
        prepare(draw_embeddings(), head=THREE, rates=[3.0])


def test_real_parameters_against_separate_trainings_in_clear(tmp_path, draw_embeddings):
    made = grid(
        logistic(degree=3, learning_rates=(4.0, 4.0)),
        rates=[4.0, 1.0],
        shrinkages=[0.0, 0.05],
        balanced=[True, False],
    )
    prepared = prepare(draw_embeddings(100, 2), head=made, directions=[5])
    # Eight settings in the ciphertexts of one.
    assert prepared.plan.ciphertexts == prepared.alone.ciphertexts
    assert prepared.plan.parameters.security == 128
    directory = StudyDirectory(tmp_path / "study")
    directory.create()
    key = SecretKey.generate(prepared.plan.parameters)
    write_key(directory.key_file, key)
    settings = encrypt_study(prepared, key, directory)
    train_here(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    opened = open_head(directory, key)
    assert len(opened.candidates) == 8
    assert opened.deviation < 1e-3
    wanted = list(plain(prepared))
    for candidate, weights in zip(opened.candidates, wanted, strict=True):
        weight, bias = prepared.choice.whitening.fold(weights)
        head = LinearHead(weight, bias, settings.classes, settings.kind)
        x = prepared.data.features
        np.testing.assert_allclose(candidate.uncalibrated.logits(x), head.logits(x), atol=2e-3)


def test_a_head_that_starts_in_clear(tmp_path, encrypt_to, train_bundles, draw_embeddings):
    directory = StudyDirectory(tmp_path / "study")
    encrypt_to(directory, grid(softmax(), rates=[2.0, 1.0]), data=draw_embeddings(200, 4), directions=[6])
    train_bundles(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    opened = open_head(directory, read_key(directory.key_file))
    assert opened.deviation < 0.01
    first, second = (s["learning_rate"] for s in directory.settings().grid)
    assert first == pytest.approx(2 * second)
