"""``blindtune encrypt --grid``: settings side by side, from the plan to the report."""

from __future__ import annotations

import json

import pytest

from blindtune.client.study import StudyDirectory
from blindtune.wire.study import train_here


def test_a_plan_says_what_a_grid_costs(blindtune):
    given = (
        "plan",
        "--rows",
        300,
        "--features",
        15,
        "--grid",
        "rate=3,6",
        "--grid",
        "weights=balanced,equal",
    )
    found = json.loads(blindtune(*given, "--json").out)
    assert found["settings_side_by_side"] == found["settings"] == 4
    assert found["ciphertexts"] == found["ciphertexts_of_one_setting"]
    assert found["predicted_seconds_of_one_setting"] > 0
    shown = blindtune(*given).out
    assert "settings side by side" in shown
    many = json.loads(blindtune("plan", "--rows", 60000, "--grid", "rate=3,6", "--json").out)
    assert many["ciphertexts"] > many["ciphertexts_of_one_setting"]
    assert "settings_side_by_side" not in json.loads(blindtune("plan", "--json").out)


def test_from_a_grid_to_the_chosen_head(blindtune, embeddings, tmp_path):
    study = tmp_path / "study"
    grid = ("--grid", "rate=3,0.3", "--grid", "shrinkage=0,0.05")
    ran = blindtune("encrypt", embeddings, "--out", study, "--steps", 2, "--degree", 3, *grid, "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["settings_side_by_side"] == 4
    assert told["ciphertexts"] == told["ciphertexts_of_one_setting"]
    kept = StudyDirectory(study)
    train_here(kept.keys_bundle, [kept.data_bundle], kept.encrypted_head)
    ran = blindtune("decrypt", study, "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    losses = [s["validation_loss"] for s in found["settings"]]
    assert losses[found["chosen"]] == min(losses)
    shown = blindtune("decrypt", study).out
    assert f"setting {found['chosen']}, the least" in shown
    assert "rate 0.3, shrinkage 0.05, weights balanced" in " ".join(shown.split())
    assert blindtune("evaluate", study).code == 0
    page = next((study / "report").glob("*.html")).read_text()
    assert "chosen, the least" in page


@pytest.mark.parametrize(
    ("grid", "why"),
    [
        (["rate=3"], "a grid of 1 settings"),
        (["rate=3,3"], "stands twice"),
        (["speed=1,2"], "not a part of a grid"),
        (["rate=1,2", "weights=heavy"], "values of weights"),
        (["rate=3,900"], "with rate 900"),
    ],
)
def test_grids_that_are_none(blindtune, embeddings, tmp_path, grid, why):
    given = [x for text in grid for x in ("--grid", text)]
    ran = blindtune("encrypt", embeddings, "--out", tmp_path / "study", *given)
    ran.refused(why)
    assert not (tmp_path / "study").exists()


def test_a_rate_beside_a_grid_of_rates(blindtune, embeddings, tmp_path):
    given = ("--grid", "rate=3,6", "--rate", 4)
    blindtune("encrypt", embeddings, "--out", tmp_path / "study", *given).refused("beside those of a grid")
