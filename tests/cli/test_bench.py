"""``blindtune bench``: prices of this machine, kept or handed over, and what plans make of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blindtune.kernels.machine import SHIPPED, Machine, Price


@pytest.fixture(autouse=True)
def _small_ring(monkeypatch):
    from blindtune.client import calibrate

    monkeypatch.setattr(calibrate, "RINGS", {8192: 4})


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Where a calibration is kept."""
    monkeypatch.setenv("BLINDTUNE_MACHINE", str(tmp_path / "config" / "machine.json"))
    return tmp_path / "config" / "machine.json"


@pytest.fixture
def predicted(blindtune):
    """The machine and the seconds of a plan."""

    def run(*options):
        ran = blindtune("plan", "--steps", 2, *options, "--json")
        assert ran.code == 0, ran.err
        found = json.loads(ran.out)
        return found["machine"], found["predicted_seconds"]

    return run


def slow(directory: Path, times: float = 100) -> Path:
    """The file of a machine that is so many times slower than the one that ships."""
    prices = {
        ring: {
            name: Price(*(times * x for x in (p.limb, p.digit, p.call, p.call_limb)))
            for name, p in table.items()
        }
        for ring, table in SHIPPED.prices.items()
    }
    path = directory / "slow.json"
    path.write_text(Machine("an abacus", 1, prices).to_json())
    return path


def test_one_document(blindtune, tmp_path, kept, predicted):
    out = tmp_path / "new" / "machine.json"
    ran = blindtune("bench", "--out", out, "--cores", 1, "--seconds", 1, "--json")
    assert (ran.code, ran.err) == (0, "")
    said = json.loads(ran.out)
    assert said.pop("files") == [str(out)]
    assert said == json.loads(out.read_text())
    assert said["cores"] == 1
    assert [p.name for p in out.parent.iterdir()] == ["machine.json"]
    # Only --calibrate keeps it.
    assert not kept.exists()
    assert predicted()[0] == SHIPPED.name
    assert predicted("--machine", out)[0] == said["name"]


def test_kept_for_plans_made_here(blindtune, kept, predicted):
    ran = blindtune("bench", "--calibrate", "--cores", 1, "--seconds", 1)
    assert ran.code == 0
    assert "rotate_relinearise at N = 8192" in ran.out
    assert f"written: {kept}" in ran.err.replace("\n", "")
    assert predicted()[0] == Machine.from_json(kept.read_text()).name


def test_nothing_is_written_unless_asked_for(blindtune, kept, tmp_path):
    ran = blindtune("bench", "--cores", 1, "--seconds", 1)
    assert ran.code == 0
    assert "multiply" in ran.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("kept")
def test_a_slower_machine_takes_longer(predicted, tmp_path):
    (shipped, fast), (name, slower) = predicted(), predicted("--machine", slow(tmp_path))
    assert (shipped, name) == (SHIPPED.name, "an abacus")
    assert slower > 10 * fast > 0


def test_a_given_machine_beats_the_kept_one(kept, predicted, tmp_path):
    kept.parent.mkdir()
    kept.write_text(slow(tmp_path).read_text())
    assert predicted()[0] == "an abacus"
    (tmp_path / "shipped.json").write_text(SHIPPED.to_json())
    assert predicted("--machine", tmp_path / "shipped.json")[0] == SHIPPED.name


def test_encrypt_predicts_by_it(blindtune, embeddings, tmp_path):
    ran = blindtune(
        *("encrypt", embeddings, "--out", tmp_path / "study", "--steps", 1),
        *("--machine", slow(tmp_path), "--json"),
    )
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["predicted_training"].endswith(" s on an abacus")


WRONG = {
    "nothing": (None, "no machine file here"),
    "empty": ("", "no machine file here"),
    "bytes": (b"\xff\xfe", "no machine file here"),
    "large": (" " * (2 << 20), "no machine file here"),
    "text": ("fast", "not a machine file"),
    "list": ("[]", "not a machine file"),
    "deep": ("[" * 100_000, "not a machine file"),
    "no prices": ('{"name": "x", "cores": 1, "prices": {}}', "prices that cannot be"),
    "negative": (SHIPPED.to_json().replace('"limb": ', '"limb": -'), "prices that cannot be"),
    "not a number": (
        SHIPPED.to_json().replace('"limb": ', '"limb": NaN, "digit": '),
        "prices that cannot be",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_a_bad_machine_file_is_one_line(blindtune, embeddings, tmp_path, kept, content, message):
    path = tmp_path / "machine.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for command in (["plan"], ["encrypt", embeddings, "--out", tmp_path / "study"]):
        blindtune(*command, "--machine", path).refused(message, "blindtune bench")
    assert not (tmp_path / "study").exists()
    if content is not None:
        kept.parent.mkdir()
        path.rename(kept)
        blindtune("plan").refused(message)


@pytest.mark.parametrize(
    "options", [["--cores", 0], ["--seconds", 0.5], ["--seconds", "nan"], ["--nonsense"]]
)
def test_options_that_cannot_be(blindtune, options):
    blindtune("bench", *options).refused(options[0])


def test_places_that_cannot_be_written(blindtune, tmp_path, tree):
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    before = tree(tmp_path)
    blindtune("bench", "--out", tmp_path / "file" / "machine.json", "--seconds", 1).refused("cannot be made")
    blindtune("bench", "--out", tmp_path / "directory", "--seconds", 1).refused("cannot be written")
    assert tree(tmp_path) == before
