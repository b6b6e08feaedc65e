"""The study directory: what is private stays private, what is finished is never replaced."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blindtune.client.encoding import Scaling
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, InputError
from blindtune.models.heads import Encoded, Start, one_vs_rest
from blindtune.models.rehearsal import Choice, Rehearsal


def choice_of(directory, start=None):
    """What the study was encrypted with, as far as it is kept."""
    whitening, rehearsed = directory.whitening()
    nothing = Encoded(np.zeros((0, 3)), np.zeros((1, 0, 3)))
    return Choice(whitening, one_vs_rest(), Rehearsal(rehearsed, (0.0,)), nothing, 0.0, start)


def test_private_files_are_private(directory):
    assert directory.private.stat().st_mode & 0o777 == 0o700
    files = list(directory.private.iterdir())
    assert {p.name for p in files} == {
        *("secret.key", "study.json", "embeddings.npz", "whitening.safetensors"),
    }
    assert {oct(p.stat().st_mode & 0o777) for p in files} == {"0o600"}


def test_private_whatever_the_umask(directory, tmp_path):
    import os

    settings, choice = directory.settings(), choice_of(directory)
    copy = StudyDirectory(tmp_path / "copy")
    old = os.umask(0)
    try:
        copy.create()
        copy.save(settings, choice, directory.embeddings())
    finally:
        os.umask(old)
    assert copy.private.stat().st_mode & 0o777 == 0o700
    assert {oct(p.stat().st_mode & 0o777) for p in copy.private.iterdir()} == {"0o600"}


def test_round_trip(directory, draw_embeddings):
    settings = directory.settings()
    assert settings.members == ("hospital",)
    assert settings.scaling == Scaling(settings.interval, settings.rate, settings.rows)
    whitening, rehearsed = directory.whitening()
    assert rehearsed.shape == (settings.columns, settings.outputs) == (6, 3)
    data, drawn = directory.embeddings(), draw_embeddings()
    np.testing.assert_array_equal(data.features, drawn.features)
    np.testing.assert_array_equal(data.splits, drawn.splits)
    assert (data.classes, data.patients) == (drawn.classes, drawn.patients)
    assert directory.start() is None
    start = Start(np.arange(18.0).reshape(6, 3).T.copy().T, np.array([1.0, -2.0, 0.5]))
    for name, given in (("copy", None), ("started", start)):
        copy = StudyDirectory(directory.root.with_name(name))
        copy.create()
        copy.save(settings, choice_of(directory, given), data)
        assert copy.settings() == settings
        again, weights = copy.whitening()
        np.testing.assert_array_equal(weights, rehearsed)
        np.testing.assert_array_equal(again.transform, whitening.transform)
        assert (again.epsilon, again.owner) == (whitening.epsilon, whitening.owner)
        found = copy.start()
        assert (found is None) == (given is None)
        if found is not None:
            np.testing.assert_array_equal(found.weight, start.weight)
            np.testing.assert_array_equal(found.bias, start.bias)


def test_outbox_says_nothing_of_the_data(directory):
    words = [b"class 0", b"patient", b"hospital/", str(directory.root).encode()]
    for path in directory.root.glob("outbox/**/manifest.json"):
        text = path.read_bytes()
        assert not any(word in text for word in words)
        assert "rows" not in json.loads(text)


class TestCreate:
    def test_finished_study_is_never_replaced(self, directory, encrypt_to):
        before = {p: p.read_bytes() for p in directory.root.rglob("*") if p.is_file()}
        for attempt in (directory.check, directory.create, lambda: encrypt_to(directory)):
            with pytest.raises(InputError, match="a finished study is here"):
                attempt()
        directory.discard(own_key=True)
        assert {p: p.read_bytes() for p in directory.root.rglob("*") if p.is_file()} == before

    def test_unfinished_study_is_taken_up(self, tmp_path, encrypt_to):
        directory = StudyDirectory(tmp_path / "study")
        directory.create()
        (directory.private / "features").mkdir()
        (directory.private / "features" / "chunk").write_bytes(b"computed")
        partial = directory.root / "outbox" / "data.partial"
        partial.mkdir(parents=True)
        assert not directory.complete
        encrypt_to(directory)
        assert directory.complete
        assert not partial.exists()
        assert (directory.private / "features" / "chunk").read_bytes() == b"computed"

    def test_discard_keeps_features_only(self, tmp_path):
        directory = StudyDirectory(tmp_path / "study")
        directory.create()
        (directory.private / "features").mkdir()
        (directory.private / "features" / "chunk").write_bytes(b"computed")
        for name in ("secret.key", "embeddings.npz.partial", "whitening.safetensors", "mine.txt"):
            (directory.private / name).write_bytes(b"x")
        (directory.root / "outbox" / "keys").mkdir(parents=True)
        directory.discard(own_key=False)
        left = {p.name for p in directory.root.rglob("*") if p.is_file()}
        assert left == {"chunk", "mine.txt", "secret.key"}
        directory.discard(own_key=True)
        assert {p.name for p in directory.private.iterdir()} == {"features", "mine.txt"}

    def test_other_things(self, tmp_path):
        (tmp_path / "letters").mkdir()
        with pytest.raises(InputError, match="other things"):
            StudyDirectory(tmp_path).create()
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="other things"):
            StudyDirectory(tmp_path / "file").create()

    def test_unwritable(self):
        from pathlib import Path

        with pytest.raises(InputError, match="cannot be written"):
            StudyDirectory(Path("/proc/sys/study")).create()


class TestDamage:
    @pytest.mark.parametrize("text", ["", "{}", "null", "[]", '{"unknown": 1}', " " * (2 << 20)])
    def test_settings(self, directory, text):
        (directory.private / "study.json").write_text(text)
        with pytest.raises(InputError, match=r"private/study\.json: missing or damaged"):
            directory.settings()

    @pytest.mark.parametrize("content", [None, b"", b"\xff" * 100])
    def test_whitening(self, directory, content):
        path = directory.private / "whitening.safetensors"
        path.unlink() if content is None else path.write_bytes(content)
        for read in (directory.whitening, directory.start):
            with pytest.raises(InputError, match=r"whitening\.safetensors: missing or damaged"):
                read()


class TestOutbox:
    def test_whole(self, directory):
        directory.check_outbox(directory.settings())

    def test_flipped_byte(self, directory):
        part = directory.data_bundle / "parts" / "data-0-0"
        content = bytearray(part.read_bytes())
        content[-1] ^= 128
        part.write_bytes(content)
        with pytest.raises(BundleError, match="part data-0-0 was altered"):
            directory.check_outbox(directory.settings())

    def test_swapped(self, directory):
        directory.keys_bundle.rename(directory.root / "x")
        directory.data_bundle.rename(directory.keys_bundle)
        (directory.root / "x").rename(directory.data_bundle)
        with pytest.raises(BundleError, match="keys: it belongs to another study"):
            directory.check_outbox(directory.settings())
