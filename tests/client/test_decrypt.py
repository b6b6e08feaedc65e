"""The head that comes back: opened, checked for its origin, and compared with the steps in clear."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from blindtune.client.decrypt import TRUSTED_DEVIATION, finish, open_head
from blindtune.client.keyfile import read_key
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, InputError, KeyFileError
from blindtune.models.softmax import step_length
from blindtune.wire.bundle import Bundle, write_bundle


def edit_manifest(directory, **changes):
    path = directory.encrypted_head / "manifest.json"
    found = json.loads(path.read_text())
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(found))


def rewrite(directory, items):
    """Another head with a right manifest."""
    manifest = Bundle(directory.encrypted_head, insecure=True).manifest
    shutil.rmtree(directory.encrypted_head)
    write_bundle(directory.encrypted_head, manifest, [("weights", items)])


def test_head_is_the_one_of_the_same_steps_in_clear(directory, key):
    opened = open_head(directory, key)
    assert opened.deviation < 0.01
    _, rehearsed = directory.whitening()
    calibrated, plain = finish(directory, directory.settings(), rehearsed, "in clear")
    features = directory.embeddings().features
    for found, wanted in ((opened.uncalibrated, plain), (opened.head, calibrated)):
        there = wanted.logits(features)
        np.testing.assert_allclose(found.logits(features), there, atol=0.02 * np.abs(there).max())
    assert opened.head.classes == ("class 0", "class 1", "class 2")
    assert opened.head.provenance["trained"] == "encrypted"
    assert opened.head.provenance["security"] == "insecure"


class TestStarted:
    """A head that starts in clear: what comes back is a change of it."""

    def test_start_and_encrypted_change_make_one_head(self, started):
        opened = open_head(started, read_key(started.key_file))
        assert opened.deviation < 0.01
        data, start, (whitening, rehearsed) = started.embeddings(), started.start(), started.whitening()
        x, held = data.features.astype(float), data.indices("val")
        change = whitening.apply(x) @ rehearsed
        length = step_length(start.logits(x[held]), change[held], data.labels[held])
        assert length > 0
        wanted = start.logits(x) + length * change
        np.testing.assert_allclose(opened.head.logits(x), wanted, atol=0.02 * length * np.abs(change).max())
        assert np.abs(wanted - start.logits(x)).max() > 0.1

    def test_nothing_is_fitted_to_the_validation_rows_twice(self, started):
        opened = open_head(started, read_key(started.key_file))
        np.testing.assert_array_equal(opened.head.weight, opened.uncalibrated.weight)
        np.testing.assert_array_equal(opened.head.bias, opened.uncalibrated.bias)
        said = opened.head.provenance
        assert (said["calibration"], said["name"], said["steps"], said["momentum"]) == (
            *("none", "softmax", 4, 0.5),
        )

    def test_no_change_is_the_start(self, started):
        start, (_, rehearsed) = started.start(), started.whitening()
        head, _ = finish(started, started.settings(), np.zeros_like(rehearsed), "in clear")
        np.testing.assert_array_equal(head.weight, start.weight.T)
        np.testing.assert_array_equal(head.bias, start.bias)

    @pytest.mark.parametrize("momentum", [(), (0.0, 0.25, 0.4, 0.4)])
    def test_other_momentum_is_found_out(self, started, train_bundles, momentum):
        shutil.rmtree(started.encrypted_head)
        train_bundles(started.keys_bundle, [started.data_bundle], started.encrypted_head, momentum=momentum)
        assert open_head(started, read_key(started.key_file)).deviation > 0.01


class TestAltered:
    """A server that did something else is found out."""

    def retrain(self, directory, train_bundles, **changed):
        shutil.rmtree(directory.encrypted_head)
        train_bundles(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head, **changed)

    def test_one_step_fewer(self, directory, key, train_bundles):
        self.retrain(directory, train_bundles, steps=1, sets=(0,), retain=(1.0,))
        assert open_head(directory, key).deviation > TRUSTED_DEVIATION

    def test_forgotten_weights(self, directory, key, train_bundles):
        self.retrain(directory, train_bundles, retain=(1.0, 0.5))
        assert open_head(directory, key).deviation > TRUSTED_DEVIATION

    def test_head_of_another_study_under_its_name(self, directory, key, tmp_path, encrypt_to, train_bundles):
        other = StudyDirectory(tmp_path / "other")
        encrypt_to(other)
        train_bundles(other.keys_bundle, [other.data_bundle], other.encrypted_head)
        rewrite(directory, list(Bundle(other.encrypted_head, insecure=True).items("weights")))
        # Under another key the weights are noise.
        assert open_head(directory, key).deviation > 100

    def test_zeros(self, directory, key):
        items = list(Bundle(directory.encrypted_head, insecure=True).items("weights"))
        rewrite(directory, [key.encrypt(np.zeros(key.parameters.slots))] * len(items))
        assert open_head(directory, key).deviation == pytest.approx(1, abs=1e-3)


class TestRefused:
    def test_nothing_came_back(self, directory, key):
        shutil.rmtree(directory.encrypted_head)
        with pytest.raises(InputError, match="no encrypted head here yet"):
            open_head(directory, key)

    def test_another_key(self, directory, tiny_key):
        with pytest.raises(KeyFileError, match="did not encrypt the study"):
            open_head(directory, tiny_key)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"study": "0" * 32}, "not this study's head"),
            ({"key": "0" * 32}, "under another key"),
            ({"program": {"sets": [0, 1]}}, "another program"),
            ({"program": {"retain": [1.0, 0.5]}}, "another program"),
            ({"kind": "keys"}, "parts are not the ones"),
        ],
    )
    def test_of_something_else(self, directory, key, changes, message):
        edit_manifest(directory, **changes)
        with pytest.raises(BundleError, match=message):
            open_head(directory, key)

    def test_other_packing(self, directory, key):
        layout = json.loads((directory.encrypted_head / "manifest.json").read_text())["layout"]
        other = 1 if layout["baby"] > 1 else 2
        edit_manifest(directory, layout={"baby": other})
        with pytest.raises(BundleError, match="another packing"):
            open_head(directory, key)

    def test_parameters_of_another_study(self, directory, key):
        from blindtune.plan import insecure_test_parameters

        primes = list(insecure_test_parameters(6).primes)
        edit_manifest(directory, parameters={"primes": primes})
        with pytest.raises(BundleError, match="other parameters"):
            open_head(directory, key)

    def test_not_a_ciphertext(self, directory, key):
        items = list(Bundle(directory.encrypted_head, insecure=True).items("weights"))
        rewrite(directory, [b"not a ciphertext" for _ in items])
        with pytest.raises(BundleError, match=r"the encrypted head: .*Fetch it again"):
            open_head(directory, key)

    def test_altered_part(self, directory, key):
        part = directory.encrypted_head / "parts" / "weights"
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
        with pytest.raises(BundleError, match="part weights was altered"):
            open_head(directory, key)
