"""``blindtune federate``: keys, rosters, plans, and a whole federation in one process."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from blindtune.errors import InputError
from blindtune.federation.simulation import split_labels

NAMES = ("east", "north", "west")


@pytest.fixture
def homes(blindtune, tmp_path):
    """Three hospitals' homes."""
    for name in NAMES:
        ran = blindtune("federate", "init", tmp_path / name, "--name", name, "--json")
        assert ran.code == 0, ran.err
        told = json.loads(ran.out)
        assert told["name"] == name
        assert len(bytes.fromhex(told["public key"])) == 32
    return tmp_path


def test_keys_are_made_once(blindtune, homes):
    blindtune("federate", "init", homes / "east", "--name", "east").refused("no identity can be written")
    blindtune("federate", "init", homes / "x", "--name", "Klinik 1").refused("name is not plain")


def test_a_locked_key(blindtune, tmp_path, monkeypatch):
    monkeypatch.setenv("BLINDTUNE_PASSPHRASE", "open sesame")
    assert blindtune("federate", "init", tmp_path / "x", "--name", "x").code == 0
    assert b"ENCRYPTED" in (tmp_path / "x" / "identity.key").read_bytes()


def test_the_fingerprint_of_a_roster_is_the_same_for_all(blindtune, homes):
    cards = [homes / name / "card.json" for name in NAMES]
    ran = blindtune("federate", "roster", homes / "a.json", *cards, "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert list(told["members"]) == list(NAMES)
    blindtune("federate", "roster", homes / "b.json", *reversed(cards))
    shown = blindtune("federate", "roster", homes / "b.json")
    assert told["fingerprint"] in " ".join(shown.out.split())
    blindtune("federate", "roster", homes / "c.json", cards[0], cards[0]).refused("a name stands twice")
    assert not (homes / "c.json").exists()
    blindtune("federate", "roster", homes / "none.json").refused("cannot be read")


def test_a_plan_is_shown_with_its_digest(blindtune, plan):
    told = json.loads(blindtune("federate", "plan", plan, "--json").out)
    assert told["plan"]["parameters"] == 3 * 17
    shown = " ".join(blindtune("federate", "plan", plan).out.split())
    assert told["digest"] in shown
    assert "model features" in shown
    blindtune("federate", "plan", plan, "--out", plan.parent).refused("not a draft")
    plan.write_text(plan.read_text().replace('"rounds":', '"round":'))
    blindtune("federate", "plan", plan).refused("not a plan", "rounds")


def test_certificates_are_never_replaced(blindtune, tmp_path):
    assert blindtune("federate", "certificates", tmp_path / "c", "--host", "example.org").code == 0
    assert (tmp_path / "c" / "server.key").stat().st_mode & 0o777 == 0o600
    blindtune("federate", "certificates", tmp_path / "c").refused("no certificates can be written")


def test_a_federation_in_one_process(blindtune, plan, sites, tmp_path):
    out = tmp_path / "out"
    ran = blindtune("federate", "run", plan, sites, "--out", out, "--json")
    assert ran.code == 0, ran.err
    first, *rounds = map(json.loads, ran.out.splitlines())
    assert first["sites"] == list(NAMES)
    assert [r["round"] for r in rounds] == [0, 1, 2]
    assert all(r["sites"] == list(NAMES) and not r["missing"] and not r["excluded"] for r in rounds)
    assert rounds[-1]["loss"] < rounds[0]["loss"]
    assert any((out / "model").iterdir())
    # Nothing is left to do.
    again = blindtune("federate", "run", plan, sites, "--out", out, "--json")
    assert len(again.out.splitlines()) == 1


def test_rounds_as_a_table(blindtune, plan, sites, tmp_path):
    ran = blindtune("federate", "run", plan, sites, "--out", tmp_path / "out")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["round", "sites", "loss", "accuracy", "attempts", "seconds", "out", "in"]
    assert [line.split()[:2] for line in lines[1:]] == [["0", "3"], ["1", "3"], ["2", "3"]]


def test_a_site_without_the_plans_data(blindtune, plan, sites, tmp_path, make_embeddings):
    make_embeddings(sites / "odd.npz", embeddings=np.zeros((60, 7), np.float32))
    blindtune("federate", "run", plan, sites, "--out", tmp_path / "out").refused("7 features")
    (tmp_path / "empty").mkdir()
    blindtune("federate", "run", plan, tmp_path / "empty", "--out", tmp_path / "out").refused("no sites here")


def test_two_sites_are_too_few(blindtune, plan, sites, tmp_path):
    (sites / "west.npz").unlink()
    blindtune("federate", "run", plan, sites, "--out", tmp_path / "out").refused("2 hospitals, and 3 must")


class TestSplitByColumn:
    def test_every_line_goes_to_its_site(self, tmp_path):
        table = tmp_path / "labels.csv"
        table.write_text('File;Label;Hospital\n"a;1.png";x;north\nb.png;y;south\nc.png;x;north\n')
        found = split_labels(table, "Hospital", tmp_path / "tables")
        rows = {site: list(csv.reader(path.read_text().splitlines())) for site, path in found.items()}
        head = ["File", "Label", "Hospital"]
        assert rows == {
            "north": [head, ["a;1.png", "x", "north"], ["c.png", "x", "north"]],
            "south": [head, ["b.png", "y", "south"]],
        }

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("file,label\na.png,x\n", "no column"),
            ("file,label,site\na.png,x,north\n", "does not tell sites apart"),
            ("file,label,site\na.png,x,north\nb.png,x,../up\n", "does not tell sites apart"),
            ("file,label,site\na.png,x,north\nb.png,x,\n", "has no site"),
        ],
    )
    def test_columns_that_name_no_sites(self, tmp_path, text, why):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(InputError, match=why):
            split_labels(tmp_path / "labels.csv", "site", tmp_path / "tables")
        assert not (tmp_path / "tables").exists()


@pytest.mark.parametrize("what", ["roster", "key", "home", "ca", "plan"])
def test_what_keeps_a_hospital_from_joining_is_one_line(blindtune, homes, plan, sites, what):
    blindtune("federate", "certificates", homes / "c")
    blindtune("federate", "roster", homes / "roster.json", *(homes / n / "card.json" for n in NAMES))
    files = {
        "plan": plan,
        "home": homes / "east",
        "roster": homes / "roster.json",
        "ca": homes / "c" / "ca.pem",
    }
    if what == "roster":
        shutil.copytree(homes / "east", homes / "south")
        card = json.loads((homes / "south" / "card.json").read_text())
        (homes / "south" / "card.json").write_text(json.dumps({**card, "name": "south"}))
        files["home"], expected = homes / "south", "not on the roster"
    elif what == "key":
        (homes / "east" / "node.key").chmod(0o644)
        expected = "others can read this key"
    else:
        files[what], expected = homes / "nowhere", "nowhere" if what != "home" else "node.key"
    given = ("--home", files["home"], "--roster", files["roster"], "--ca", files["ca"])
    ran = blindtune("federate", "join", files["plan"], "127.0.0.1:1", *given, "--data", sites / "east.npz")
    ran.refused(expected)
