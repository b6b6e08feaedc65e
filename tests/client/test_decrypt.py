"""The head that comes back: opened, checked for its origin, and compared with the steps in clear."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from blindtune.client.decrypt import TRUSTED_DEVIATION, finish, open_head
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, InputError, KeyFileError
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
