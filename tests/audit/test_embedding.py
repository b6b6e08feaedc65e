"""Embeddings: exact from one gradient, drawn by a decoder, linked to their patient."""

from __future__ import annotations

import numpy as np
import pytest

from blindtune.audit import embedding
from blindtune.audit.decoder import Convolutional, Linear
from blindtune.audit.embedding import attack_embeddings, attack_gradients, revealed
from blindtune.audit.quality import mse
from blindtune.audit.reconstruction import sights


@pytest.fixture(scope="module")
def rows(chests):
    """Embeddings that tell much: small pictures through a random projection."""
    pixels = chests.pixels(np.arange(len(chests)), 16).reshape(len(chests), -1)
    return (pixels @ np.random.default_rng(0).normal(size=(256, 40))).astype(np.float32)


def test_control_one_cases_gradient_is_its_embedding_and_noise_hides_it(chests, rows):
    victims = chests.one_each(chests.halves()[1])
    results, found = attack_gradients(chests, rows, victims, sights(2, [3], [(8.0, 0.8)], clip=10.0), "")
    exact = {r.protection: r.figures["embeddings revealed exactly"].value for r in results}
    assert exact == {
        "none: one image's gradient": 1.0,
        "none: a site's update of 2 images": 0.0,
        "secure sum of 3 sites, 2 images each": 0.0,
        "clipping, noise left out: one image": 1.0,
        "epsilon 8: one image": 0.0,
    }
    assert all(r.control for r in results)
    np.testing.assert_allclose(found["none: one image's gradient"], rows[victims], rtol=1e-3, atol=1e-3)


def test_a_gradient_without_a_bias_reveals_no_infinity():
    assert np.isfinite(revealed(np.zeros(3 * 5), 3)).all()


def test_control_decoders_draw_what_embeddings_tell(chests, rows):
    public, held = chests.halves()
    shown, truth = chests.pixels(public, 16), chests.pixels(held, 16)
    guess = mse(np.repeat(shown.mean(axis=0)[None], len(held), axis=0), truth).mean()
    linear = mse(Linear(rows[public], shown)(rows[held]), truth).mean()
    learned = mse(Convolutional(rows[public], shown, 2)(rows[held]), truth).mean()
    assert linear < 0.9 * guess
    assert learned < 0.9 * guess


def test_embeddings_are_drawn_and_linked(chests, rows):
    ticks = []
    results, pictures, decoder, victims = attack_embeddings(
        chests, rows, "a projection", 16, 2, "", lambda: ticks.append(1)
    )
    assert len(ticks) == 2
    told = {r.protection: r for r in results if r.attack == embedding.DECODER}
    assert list(told) == list(pictures)[1:]
    guess = told[embedding.GUESS].figures["patients re-identified"].value
    clear = told[embedding.CLEAR]
    assert clear.figures["patients re-identified"].value > guess
    assert clear.trials == 12 == len(victims)
    np.testing.assert_array_equal(decoder(rows[victims]), pictures[embedding.CLEAR])
    (link,) = [r for r in results if r.attack == embedding.LINK]
    assert 0 <= link.figures["linked to another scan of the same patient"].value <= 1
    assert link.figures[embedding.CHANCE].value == pytest.approx(1 / 23)


def test_embeddings_of_the_same_patient_are_linked(chests):
    rng = np.random.default_rng(0)
    own = rng.normal(size=(24, 8))[chests.patients]
    rows = (own + 0.01 * rng.normal(size=(48, 8))).astype(np.float32)
    found = embedding._link(chests, rows, chests.halves()[1], "near", "")
    assert found.figures["linked to another scan of the same patient"].value == 1.0
    assert found.control


def test_a_linear_decoder_of_more_features_than_rows_is_the_same_ridge(chests):
    pixels = chests.pixels(np.arange(40), 16)
    rows = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    padded = np.hstack([rows, np.zeros((40, 60), np.float32)])
    np.testing.assert_allclose(Linear(padded, pixels)(padded), Linear(rows, pixels)(rows), atol=1e-5)
