"""The sanitised release: once, the same bytes whatever kills it, never more than the key allows."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest

from benchmarks.releases import counted_release
from blindtune.client.decrypt import checked_head, decrypted, open_head
from blindtune.client.encoding import encode_weights
from blindtune.client.encrypt import encrypt_study
from blindtune.client.flood import (
    FIRST_BITS,
    LEAST_BITS,
    SCALE_BITS,
    SPECIAL_BITS,
    Flood,
    flood,
    of_head,
    refuse_imprecise,
    release_parameters,
    vectors_of,
)
from blindtune.client.keyfile import read_key, write_key
from blindtune.client.prepare import prepare
from blindtune.client.release import RECORD, release_head
from blindtune.client.releases import Journal, digest
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, KeyFileError, PlanError, PrivacyError
from blindtune.he.secret import SecretKey
from blindtune.models.builtin import head_for
from blindtune.models.grid import grid
from blindtune.models.linear import LinearHead
from blindtune.models.softmax import softmax
from blindtune.params import INSECURE, ParametersLiteral
from blindtune.wire.bundle import Bundle, write_bundle


def encrypt_for_release(root, data, head, **given):
    """A study that is planned for release, under tiny parameters with a large scale."""
    directory, levels = StudyDirectory(root), head.program.levels
    p = ParametersLiteral(1024, levels, SCALE_BITS, FIRST_BITS, SPECIAL_BITS, INSECURE).checked()
    key = SecretKey.generate(p)
    prepared = prepare(data, head=head, directions=[5], parameters=p)
    directory.create()
    write_key(directory.key_file, key)
    encrypt_study(prepared, key, directory, release=True, **given)
    return directory


@pytest.fixture(scope="module")
def _planned(tmp_path_factory, draw_embeddings, train_bundles):
    head = head_for("one-vs-rest", 3, learning_rates=(4.0, 4.0), degree=3)
    found = encrypt_for_release(tmp_path_factory.mktemp("release") / "study", draw_embeddings(), head)
    train_bundles(found.keys_bundle, [found.data_bundle], found.encrypted_head)
    return found.root


@pytest.fixture
def planned(_planned, tmp_path):
    """A study planned for release, whose head came back."""
    return StudyDirectory(Path(shutil.copytree(_planned, tmp_path / "study")))


def releasing(directory, last=0):
    """Lines that a release runs, in a process of its own; None if it was killed at the last one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, str(counted_release(directory.root, last)).encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert said or os.WTERMSIG(status) == signal.SIGKILL
    return int(said) if said else None


def kept(directory, key):
    """What the journal holds of the head."""
    bundle = checked_head(directory, directory.settings(), key)
    with closing(Journal(directory.releases, key.key_id)) as journal:
        told = journal.told(digest(list(bundle.items("weights"))))
    return None if told is None else told.values


def files(directory):
    return {p.name: p.read_bytes() for p in directory.released.iterdir() if p.is_file()}


def test_released_head_is_the_decrypted_one_under_noise(planned):
    key = read_key(planned.key_file)
    opened, found = open_head(planned, key), release_head(planned, key)
    difference = np.abs(found.head.weight - opened.head.weight).max() / np.abs(opened.head.weight).max()
    assert 0 < difference < 2.0**-LEAST_BITS
    np.testing.assert_array_equal(LinearHead.load(planned.released).classes, opened.head.classes)
    assert found.head.provenance["trained"] == "encrypted, sanitised"
    record = json.loads((planned.released / RECORD).read_text())
    assert record == found.record
    assert record["error_checked_on_this_head"] is True
    assert record["statistical_bits"] >= 40
    assert record["bits_of_precision"] >= LEAST_BITS


def test_asked_again_the_bytes_are_the_same(planned):
    key = read_key(planned.key_file)
    release_head(planned, key)
    first = files(planned)
    shutil.rmtree(planned.released)
    release_head(planned, key)
    assert files(planned) == first


def test_of_a_grid_the_setting_that_is_best_on_validation_rows_is_released(
    tmp_path, draw_embeddings, train_bundles
):
    head = head_for("logistic", 3, learning_rates=(4.0, 4.0), degree=3)
    directory = encrypt_for_release(
        tmp_path / "study", draw_embeddings(), grid(head, rates=[0.1, 4.0], shrinkages=[0.0, 0.05])
    )
    train_bundles(directory.keys_bundle, [directory.data_bundle], directory.encrypted_head)
    key = read_key(directory.key_file)
    opened, released = open_head(directory, key), release_head(directory, key).head
    assert opened.chosen in (2, 3)
    features = directory.embeddings().features
    wanted = opened.head.logits(features)
    np.testing.assert_allclose(released.logits(features), wanted, atol=0.05 * np.abs(wanted).max())
    # What the settings came to on validation rows stays.
    assert "grid" in opened.head.provenance
    assert "grid" not in released.provenance


def test_softmax_heads_can_be_released_too(tmp_path, draw_embeddings, train_bundles):
    found = encrypt_for_release(tmp_path / "softmax", draw_embeddings(400, 5, separation=1.0), softmax())
    train_bundles(found.keys_bundle, [found.data_bundle], found.encrypted_head)
    key = read_key(found.key_file)
    opened, released = open_head(found, key), release_head(found, key)
    np.testing.assert_allclose(
        released.head.weight, opened.head.weight, atol=2.0**-LEAST_BITS * np.abs(opened.head.weight).max()
    )


class TestNoise:
    """What is told differs from the exact result by noise of the planned size, in every coefficient."""

    def told(self, planned):
        key, settings = read_key(planned.key_file), planned.settings()
        release_head(planned, key)
        bundle = checked_head(planned, settings, key)
        values = kept(planned, key)
        layout, scale = bundle.manifest.checked_layout, key.parameters.scale
        exact = of_head(decrypted(bundle, key), layout, scale)
        clean = of_head(encode_weights(planned.expected(), layout, settings.scaling), layout, scale)
        return values, exact, clean, Flood(**settings.release)

    def test_it_is_gaussian_and_as_wide_as_planned(self, planned):
        values, exact, _, plan = self.told(planned)
        # Wrong once in a million runs.
        assert kstest((values - exact) / plan.deviation, "norm").pvalue > 1e-6

    def test_the_error_stays_far_below_its_bound(self, planned):
        _, exact, clean, plan = self.told(planned)
        length = np.linalg.norm((exact - clean).astype(float))
        assert 0 < length < plan.length / 4

    def test_the_slots_are_as_noisy_as_the_plan_says(self, planned):
        values, exact, _, plan = self.told(planned)
        settings, key = planned.settings(), read_key(planned.key_file)
        layout = checked_head(planned, settings, key).manifest.checked_layout
        found = vectors_of(values - exact, layout, key.parameters.scale)
        widest = np.concatenate([np.r_[v.real, v.imag] for v in found]).std()
        assert widest == pytest.approx(plan.noise, rel=0.5)


class TestKilled:
    """SIGKILL at lines of the release, as it runs: nothing is drawn twice, what is there is whole."""

    def test_again_after_a_release(self, planned):
        releasing(planned)
        first, journal = files(planned), planned.releases.read_bytes()
        lines = releasing(planned)
        assert lines > 60
        for line in np.linspace(1, lines, 12).astype(int):
            assert releasing(planned, int(line)) is None
            release_head(planned, read_key(planned.key_file))
            assert files(planned) == first
        assert planned.releases.read_bytes() == journal

    def test_in_the_first_release(self, planned):
        lines = releasing(StudyDirectory(Path(shutil.copytree(planned.root, planned.root.parent / "twin"))))
        key, seen = read_key(planned.key_file), set()
        for n, line in enumerate(np.linspace(1, lines, 12).astype(int)):
            one = StudyDirectory(Path(shutil.copytree(planned.root, planned.root.parent / f"killed-{n}")))
            assert releasing(one, int(line)) is None
            there = files(one) if one.released.is_dir() else {}
            before = kept(one, key)
            # Nothing is shown that is not on disk.
            assert before is not None or not there
            head = release_head(one, key).head
            after = kept(one, key)
            assert before is None or (before.tolist() == after.tolist())
            np.testing.assert_array_equal(release_head(one, key).head.weight, head.weight)
            for name in there.keys() & {"head.safetensors", "head.json", RECORD}:
                assert files(one)[name] == there[name]
            seen.add((before is None, bool(there)))
        # The kills fell before the draw, and after it.
        assert {(True, False), (False, True)} <= seen


class TestRefused:
    def test_a_study_that_was_not_planned_for_it(self, directory, key):
        with pytest.raises(PlanError, match=r"would leave -?\d+\.\d bits of the weights, 8 are the least"):
            release_head(directory, key)
        assert not directory.released.exists()

    def test_a_plan_that_leaves_too_little(self):
        plan = Flood(length=1e6, largest=2.0, furthest=0.1, releases=1, noise=2.0 / 2**7.9)
        with pytest.raises(PlanError, match=r"7\.9 bits"):
            refuse_imprecise(plan, release_parameters(11, 128))
        refuse_imprecise(replace(plan, noise=2.0 / 2**8.1), release_parameters(11, 128))
        with pytest.raises(PlanError, match="in reserve"):
            refuse_imprecise(replace(plan, noise=1e-9, furthest=5.0), release_parameters(11, 128))

    def test_encryption_refuses_before_anything_is_written(self, tmp_path, draw_embeddings):
        head = head_for("one-vs-rest", 3, learning_rates=(4.0,), degree=3)
        p = ParametersLiteral(1024, head.program.levels, 30, 42, 50, INSECURE).checked()
        prepared = prepare(draw_embeddings(), head=head, directions=[5], parameters=p)
        directory = StudyDirectory(tmp_path / "study")
        with pytest.raises(PlanError, match="bits of the weights"):
            encrypt_study(prepared, SecretKey.generate(p), directory, release=True)
        assert not directory.root.exists()

    def test_another_head_under_the_same_key(self, planned, train_bundles):
        key = read_key(planned.key_file)
        release_head(planned, key)
        kept = files(planned)
        # The same head, encrypted anew by whoever computes: another ciphertext all the same.
        items = [key.encrypt(v) for v in decrypted(checked_head(planned, planned.settings(), key), key)]
        manifest = Bundle(planned.encrypted_head, insecure=True).manifest
        shutil.rmtree(planned.encrypted_head)
        write_bundle(planned.encrypted_head, manifest, [("weights", items)])
        with pytest.raises(PrivacyError, match="another head was released under this key"):
            release_head(planned, key)
        assert files(planned) == kept

    def test_a_head_of_other_steps(self, planned, train_bundles):
        shutil.rmtree(planned.encrypted_head)
        # So little that decrypt would take it.
        train_bundles(planned.keys_bundle, [planned.data_bundle], planned.encrypted_head, retain=(1.0, 0.999))
        key = read_key(planned.key_file)
        assert open_head(planned, key).deviation < 0.05
        with pytest.raises(BundleError, match="more than encryption explains"):
            release_head(planned, key)
        assert not planned.released.exists()

    def test_a_journal_that_was_lost_or_is_another_keys(self, planned, tmp_path):
        key = read_key(planned.key_file)
        planned.releases.unlink()
        with pytest.raises(PrivacyError, match="no journal of this key's releases"):
            release_head(planned, key)
        Journal.create(planned.releases, "0" * 32).close()
        with pytest.raises(PrivacyError, match="another key's journal"):
            release_head(planned, key)

    def test_another_key(self, planned, tiny_key):
        with pytest.raises(KeyFileError, match="did not encrypt the study"):
            release_head(planned, tiny_key)


def test_several_members_count_as_several_releases(tmp_path, draw_embeddings):
    head = head_for("one-vs-rest", 3, learning_rates=(4.0, 4.0), degree=3)
    found = encrypt_for_release(tmp_path / "s", draw_embeddings(), head, member="a", members=("a", "b"))
    plan = Flood(**found.settings().release)
    assert plan.releases == 2
    assert replace(plan, releases=1).deviation * np.sqrt(2) == pytest.approx(plan.deviation)
    # Nobody has all rows, so that nothing can be held to the same steps in clear.
    assert found.expected() is None
    assert asdict(plan) == found.settings().release


def test_the_usual_parameters_leave_nothing():
    """Why a study must be planned for release."""
    from blindtune.client.encoding import Scaling
    from blindtune.plan import plan

    made = plan(1000, 192, 3, head_for("one-vs-rest", 3))
    rehearsed = np.full((192, 3), 1.0)
    found = flood(made.parameters, made.layout, Scaling(12.0, 3.0, 1000), rehearsed)
    assert found.bits < 0
