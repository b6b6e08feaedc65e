"""Encryption: the bundles of one hospital, and of two that train together under one key."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from blindtune.client.decrypt import open_head
from blindtune.client.encoding import Scaling, decode
from blindtune.client.encrypt import base_manifest, encrypt_study, write_data, write_keys
from blindtune.client.prepare import prepare
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, KeyFileError
from blindtune.he.secret import SecretKey
from blindtune.models.builtin import head_for
from blindtune.models.heads import Encoded, one_vs_rest, ridge
from blindtune.models.rehearsal import rehearse
from blindtune.models.whitening import Whitening
from blindtune.plan import insecure_test_parameters, plan
from blindtune.wire.bundle import Bundle


def test_two_members_equal_the_pooled_training(tmp_path, draw_embeddings, train_bundles):
    members = ("north", "south")
    head = head_for("logistic", 3, learning_rates=(4.0, 2.0), degree=3)
    key = SecretKey.generate(insecure_test_parameters(5))
    north, south = draw_embeddings(1100, seed=1), draw_embeddings(400, seed=2)
    whitening = Whitening.fit(np.vstack([north.features, south.features]), 5, 0.1, "both")
    x = {"north": whitening.apply(north.features), "south": whitening.apply(south.features)}
    pooled = head.encode(np.concatenate([north.labels, south.labels]), 3)
    planned = plan(1500, 6, 3, head, member_rows=(1100, 400), parameters=key.parameters, lanes=1)
    assert (planned.layout.row_blocks, planned.layout.weight_blocks) == (3, 3)
    scaling = Scaling(head.interval, 4.0, 1500)
    manifest = base_manifest("keys", ("5" * 32, members, "north"), key, planned.layout, planned.program)
    write_keys(tmp_path / "keys", key, manifest)
    for member, rows in (("north", slice(0, 1100)), ("south", slice(1100, 1500))):
        own = base_manifest("data", ("5" * 32, members, member), key, planned.layout, planned.program)
        part = Encoded(pooled.targets[rows], pooled.coefficients[:, rows])
        write_data(tmp_path / member, key, own, (x[member], part), head, scaling)
    assert Bundle(tmp_path / "north", insecure=True).manifest.layout.row_blocks == 2
    with pytest.raises(BundleError, match="differ"):
        train_bundles(tmp_path / "keys", [tmp_path / "north"], tmp_path / "head")
    # The order of upload does not matter.
    train_bundles(tmp_path / "keys", [tmp_path / "south", tmp_path / "north"], tmp_path / "head")
    items = Bundle(tmp_path / "head", insecure=True).items("weights")
    found = decode([key.decrypt(key.load(i)) for i in items], planned.layout, scaling, 6, 3)
    wanted = rehearse(np.vstack([x["north"], x["south"]]), pooled, head).weights
    np.testing.assert_allclose(found, wanted, atol=0.01 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("head", "outputs"),
    [(ridge(learning_rates=(0.9, 0.9)), 2), (one_vs_rest("multilabel", learning_rates=(4.0,), degree=1), 3)],
)
def test_heads_without_classes(tmp_path, draw_embeddings, train_bundles, head, outputs):
    """Regression and multi-label: their labels are a matrix, so they go through the Python API."""
    rng = np.random.default_rng(0)
    features = draw_embeddings(200).features
    whitening = Whitening.fit(features, 5, 0.1, "hospital")
    x = whitening.apply(features)
    plane = x @ rng.normal(size=(6, outputs)) + 0.1 * rng.normal(size=(200, outputs))
    labels = plane / plane.std() if head.kind == "regression" else (plane > 0).astype(int)
    encoded = head.encode(labels, outputs)
    key = SecretKey.generate(insecure_test_parameters(head.program.levels))
    planned = plan(200, 6, outputs, head, parameters=key.parameters)
    scaling = Scaling(head.interval, head.learning_rates[0], 200)
    for kind in ("keys", "data"):
        manifest = base_manifest(kind, ("5" * 32, ["h"], "h"), key, planned.layout, planned.program)
        if kind == "keys":
            write_keys(tmp_path / kind, key, manifest)
        else:
            write_data(tmp_path / kind, key, manifest, (x, encoded), head, scaling)
    train_bundles(tmp_path / "keys", [tmp_path / "data"], tmp_path / "head")
    items = Bundle(tmp_path / "head", insecure=True).items("weights")
    found = decode([key.decrypt(key.load(i)) for i in items], planned.layout, scaling, 6, outputs)
    wanted = rehearse(x, encoded, head).weights
    np.testing.assert_allclose(found, wanted, atol=0.01 * np.abs(wanted).max())


def test_binary_study_with_decay(tmp_path, draw_embeddings, train_bundles, encrypt_to):
    directory = StudyDirectory(tmp_path / "study")
    head = head_for("logistic", 1, learning_rates=(3.0, 3.0), degree=3, decay=0.05)
    key = encrypt_to(directory, head, data=draw_embeddings(classes=2), rates=[3.0])
    train_bundles(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    opened = open_head(directory, key)
    assert opened.deviation < 0.01
    assert opened.head.weight.shape == (1, 6)


def test_progress_adds_up(tmp_path, draw_embeddings):
    key = SecretKey.generate(insecure_test_parameters(5))
    head = head_for("logistic", 3, learning_rates=(4.0, 4.0), degree=3)
    prepared = prepare(draw_embeddings(), head=head, directions=[5], parameters=key.parameters)
    directory, told = StudyDirectory(tmp_path / "study"), {"keys": 0, "data": 0}

    def on_bytes(what, size):
        told[what] += size

    settings = encrypt_study(prepared, key, directory, on_bytes=on_bytes, notes=("a note",))
    for what, size in told.items():
        assert size == Bundle(directory.root / "outbox" / what, insecure=True).size
    assert directory.settings() == settings
    assert settings.notes == ("a note",)
    assert settings.rows == len(prepared.data.indices("train"))


def test_key_of_other_parameters(tmp_path, draw_embeddings, tiny_key):
    parameters = insecure_test_parameters(5)
    head = head_for("logistic", 3, learning_rates=(4.0, 4.0), degree=3)
    prepared = prepare(draw_embeddings(), head=head, directions=[5], parameters=parameters)
    with pytest.raises(KeyFileError, match="other parameters than the plan"):
        encrypt_study(prepared, tiny_key, StudyDirectory(tmp_path / "study"))
    assert list(tmp_path.iterdir()) == []


def test_same_rows_give_other_ciphertexts(tmp_path, encrypt_to):
    first, second = (StudyDirectory(tmp_path / name) for name in "ab")
    encrypt_to(first)
    encrypt_to(second)
    parts = [(d.data_bundle / "parts" / "data-0-0").read_bytes() for d in (first, second)]
    assert parts[0][100:200] != parts[1][100:200]
    assert replace(first.settings(), study="", key="") == replace(second.settings(), study="", key="")


def test_several_processes_write_what_one_writes(tmp_path, draw_embeddings):
    key = SecretKey.generate(insecure_test_parameters(5))
    head = head_for("logistic", 3, learning_rates=(4.0, 4.0), degree=3)
    prepared = prepare(draw_embeddings(), head=head, directions=[5], parameters=key.parameters)
    identity = ("5" * 32, ["h"], "h")
    planned, choice = prepared.plan, prepared.choice
    rows = choice.whitening.apply(prepared.data.features[prepared.data.indices("train")])
    scaling = Scaling(choice.head.interval, choice.head.learning_rates[0], planned.rows)
    bundles = {}
    for workers in (1, 3):
        for kind in ("keys", "data"):
            manifest = base_manifest(kind, identity, key, planned.layout, planned.program)
            target = tmp_path / f"{kind}-{workers}"
            if kind == "keys":
                write_keys(target, key, manifest, workers=workers)
            else:
                matrices = (rows, choice.encoded)
                write_data(target, key, manifest, matrices, choice.head, scaling, workers=workers)
            bundles[kind, workers] = Bundle(target, insecure=True)
    for kind in ("keys", "data"):
        one, many = bundles[kind, 1], bundles[kind, 3]
        assert [(p.name, p.size) for p in one.manifest.parts] == [
            (p.name, p.size) for p in many.manifest.parts
        ]
    for part in bundles["data", 1].manifest.parts:
        for a, b in zip(*(bundles["data", w].items(part.name) for w in (1, 3)), strict=True):
            assert a[16:80] != b[16:80]
            np.testing.assert_allclose(key.decrypt(key.load(a)), key.decrypt(key.load(b)), atol=1e-5)
    elements = [int.from_bytes(blob[12:16], "little") for blob in bundles["keys", 3].items("galois")]
    assert elements == key.galois_elements(planned.layout.keys())
