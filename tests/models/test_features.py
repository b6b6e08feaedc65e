"""Extraction against a slow obvious loop; interruption, cache, refusals."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from blindtune.errors import InputError
from blindtune.models import Backbone, extract, load_backbone
from blindtune.models.cache import FeatureCache

from .conftest import ARCHITECTURE


@pytest.fixture(scope="module")
def backbone(weights: Path) -> Backbone:
    return load_backbone(ARCHITECTURE, weights)


def tile(path: Path, size: int) -> npt.NDArray[np.float32]:
    return np.resize(np.load(path), (size, size))


class CountingLoad:
    """``tile`` that counts its calls and, once ``stop_at`` is reached, does as Ctrl-C would."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.calls, self.stop_at = 0, stop_at

    def __call__(self, path: Path, size: int) -> npt.NDArray[np.float32]:
        self.calls += 1
        if self.stop_at is not None and self.calls > self.stop_at:
            raise KeyboardInterrupt
        return tile(path, size)


def one_by_one(backbone: Backbone, images: list[Path]) -> npt.NDArray[np.float32]:
    return np.concatenate([backbone.embed(tile(path, backbone.size)[None]) for path in images])


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_equals_the_slow_reference(
    backbone: Backbone, images: list[Path], tmp_path: Path, batch: int
) -> None:
    seen: list[tuple[int, int]] = []
    features = extract(
        backbone, images, load=tile, cache=tmp_path, progress=lambda *at: seen.append(at), batch=batch
    )
    assert features.dtype == np.float32
    assert features.shape == (len(images), backbone.dimension)
    np.testing.assert_allclose(features, one_by_one(backbone, images), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(features[0], features[-1])
    assert seen == sorted(seen)
    assert seen[-1] == (len(images), len(images))


def test_goes_on_after_an_interruption(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, images, load=CountingLoad(stop_at=20), cache=tmp_path, batch=4, save_every=8)
    again = CountingLoad()
    features = extract(backbone, images, load=again, cache=tmp_path, batch=4)
    # At least the full batches before the interruption were kept: 20 decoded, 8 of them ahead.
    assert again.calls <= len(images) - 8
    np.testing.assert_allclose(features, one_by_one(backbone, images), rtol=1e-4, atol=1e-5)
    third = CountingLoad()
    np.testing.assert_array_equal(extract(backbone, images, load=third, cache=tmp_path), features)
    assert third.calls == 0


def test_cache_holds_no_names_and_is_private(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    extract(backbone, images, load=tile, cache=folder, save_every=10, batch=5)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    chunks = list(folder.iterdir())
    assert len(chunks) == 4
    for chunk in chunks:
        assert stat.S_IMODE(chunk.stat().st_mode) == 0o600
        assert b"patient" not in chunk.read_bytes()
        assert b"copy" not in chunk.read_bytes()


def test_other_weights_or_preparation_are_not_served(
    backbone: Backbone, images: list[Path], tmp_path: Path
) -> None:
    def darker(path: Path, size: int) -> npt.NDArray[np.float32]:
        return tile(path, size) / 2

    bright = extract(backbone, images, load=tile, cache=tmp_path)
    dark = extract(backbone, images, load=darker, cache=tmp_path, preparation="darker")
    assert np.abs(bright - dark).max() > 1e-3


def test_without_a_cache_nothing_is_written(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    features = extract(backbone, images[:3], load=tile, cache=None)
    np.testing.assert_allclose(features, one_by_one(backbone, images[:3]), rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.iterdir())


def test_no_images(backbone: Backbone) -> None:
    assert extract(backbone, [], load=tile, cache=None).shape == (0, backbone.dimension)


def test_damaged_chunk_is_named(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    extract(backbone, images, load=tile, cache=tmp_path)
    (chunk,) = tmp_path.iterdir()
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises(InputError, match=chunk.name):
        extract(backbone, images, load=tile, cache=tmp_path)


def test_chunk_of_another_shape_is_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "ab", 3)
    cache.add(bytes(32), np.zeros(3, np.float32))
    cache.save()
    with pytest.raises(InputError, match="damaged"):
        FeatureCache(tmp_path, "ab", 4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_unwritable_cache_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be used"):
        FeatureCache(tmp_path / "inside", "ab", 3)


def test_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used"):
        FeatureCache(tmp_path / "file", "ab", 3)


def test_features_that_are_not_finite_are_refused(backbone: Backbone, images: list[Path]) -> None:
    def broken(path: Path, size: int) -> npt.NDArray[np.float32]:
        image = tile(path, size)
        return np.full_like(image, np.nan) if path == images[7] else image

    with pytest.raises(InputError, match="patient-7"):
        extract(backbone, images, load=broken, cache=None)


def test_wrong_image_shape_and_missing_file(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="instead of float32"):
        extract(backbone, images, load=lambda path, size: np.load(path), cache=None)
    with pytest.raises(InputError, match="cannot be read"):
        extract(backbone, [tmp_path / "absent.png"], load=tile, cache=None)


def test_an_error_keeps_what_is_done(backbone: Backbone, images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        extract(backbone, [*images[:12], tmp_path / "absent"], load=tile, cache=tmp_path / "cache", batch=4)
    again = CountingLoad()
    extract(backbone, images[:12], load=again, cache=tmp_path / "cache")
    assert again.calls == 0
