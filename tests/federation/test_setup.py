"""From plans and files to learners, and from a finished study to a model on disk."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from blindtune.errors import FederationError, InputError
from blindtune.federation.agreement import Agreement, HeadModel, Local, NetworkModel
from blindtune.federation.contributions import known
from blindtune.federation.learner import fingerprint
from blindtune.federation.setup import NETWORK_WEIGHTS, build_learner, draft, save_model
from blindtune.models.linear import LinearHead
from blindtune.models.softmax import probabilities

CLASSES = ["normal", "viral"]


@pytest.fixture
def embeddings(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = (rng.normal(size=(60, 6)) + labels[:, None]).astype(np.float32)
    splits = np.where(np.arange(60) < 40, "train", np.where(np.arange(60) < 50, "val", "test"))
    patients = np.array([f"p{i // 2}" for i in range(60)])
    # Names in another order than the plan's.
    names = {"classes": np.array(["viral", "normal"]), "patients": patients, "splits": splits}
    np.savez(tmp_path / "site.npz", embeddings=x, labels=labels, **names)
    return tmp_path / "site.npz"


@pytest.fixture
def scans(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = tmp_path / "scans" / ("train" if i < 8 else "test") / CLASSES[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 90, (80, 64)) + 100 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "scans"


def test_a_plan_begins_where_its_start_says():
    plan, start = draft("study", CLASSES, HeadModel(features=6, directions=4), rounds=2)
    assert (plan.parameters, plan.start) == (10, fingerprint(start))
    assert not start.any()
    assert Agreement.read(plan.model_dump_json().encode()) == plan


def test_embeddings_become_the_plans_classes_and_patients(embeddings):
    plan, _ = draft("study", CLASSES, HeadModel(features=6), rounds=2)
    learner = build_learner(plan, embeddings)
    # The file's first class is the plan's second.
    np.testing.assert_array_equal(learner.training.labels, 1 - np.arange(40) % 2)
    assert len(np.unique(learner.training.patients)) == 20
    assert len(learner.validation.labels) == 10


def test_a_finished_head_takes_raw_features(embeddings, tmp_path):
    plan, start = draft("study", CLASSES, HeadModel(features=6, directions=4), rounds=2, local=Local(every=5))
    learner = build_learner(plan, embeddings)
    moments = np.sum([p.sum(axis=0) for p in learner.summands(np.arange(40))], axis=0)
    totals = {"images": np.array([20.0, 20.0]), "moments": moments}
    learner.begin(known(plan, totals))
    values = learner.train(start)
    save_model(plan, values, totals, tmp_path / "model")
    head = LinearHead.load(tmp_path / "model")
    assert head.classes == tuple(CLASSES)
    assert head.provenance["plan"] == plan.digest
    told = probabilities(head.logits(learner.validation.features))
    np.testing.assert_allclose(told, learner.predict(values), atol=1e-5)


def test_scans_become_images_and_a_finished_network_is_timms(scans, tmp_path):
    import timm
    import torch

    model = NetworkModel(network="test_vit", channels=1, side=160)
    plan, start = draft("study", CLASSES, model, rounds=1)
    seen = []
    learner = build_learner(plan, scans, on_image=lambda done, total: seen.append((done, total)))
    assert learner.training.pixels.shape[1:] == (1, 160, 160)
    assert seen[-1][0] == seen[-1][1]
    assert learner.training.pixels[learner.training.labels == 1].mean() > 100
    save_model(plan, start, {"images": np.ones(2)}, tmp_path / "model")
    arrays = load_file(tmp_path / "model" / NETWORK_WEIGHTS)
    network = timm.create_model("test_vit", num_classes=2, in_chans=1, img_size=160)
    network.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()}, strict=True)


@pytest.mark.parametrize(
    ("classes", "features", "error", "why"),
    [
        (["normal", "bacterial"], 6, InputError, "classes that the plan does not have"),
        (CLASSES, 7, FederationError, "the plan has 7"),
    ],
)
def test_files_that_are_not_the_plans(embeddings, classes, features, error, why):
    plan, _ = draft("study", classes, HeadModel(features=features), rounds=2)
    with pytest.raises(error, match=why):
        build_learner(plan, embeddings)


def test_scans_for_a_plan_on_embeddings_and_blind_rounds_without_a_provider(scans, embeddings):
    plan, _ = draft("study", CLASSES, HeadModel(features=6), rounds=2)
    with pytest.raises(FederationError, match="ready embeddings"):
        build_learner(plan, scans)
    model = HeadModel(features=6, directions=3, loss="one-vs-rest", blind=True)
    local = Local(every=1, unit="batches", batch=model.rows, rate=4.0)
    plan, _ = draft("study", CLASSES, model, rounds=2, local=local)
    with pytest.raises(FederationError, match="Give a provider"):
        build_learner(plan, embeddings)


@pytest.mark.parametrize(
    ("changed", "why"),
    [({"rounds": 0}, "rounds"), ({"classes": ["a", "a"]}, "stands twice"), ({"colour": 1}, "colour")],
)
def test_drafts_that_cannot_be(changed, why):
    told = {"study": "study", "classes": CLASSES, "model": HeadModel(features=6), "rounds": 2, **changed}
    with pytest.raises(FederationError, match=why):
        draft(told.pop("study"), told.pop("classes"), told.pop("model"), **told)
