"""What the commands print: help without heavy imports, one JSON document, tables that fit a terminal."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest

COMMANDS = (
    *("keygen", "plan", "encrypt", "serve", "worker", "bench", "submit", "status", "fetch"),
    *("decrypt", "evaluate", "predict", "compare", "demo"),
)
HEAVY = ("torch", "timm", "tenseal", "sklearn", "pydicom", "numpy", "matplotlib", "fastapi")


def test_help_imports_nothing_heavy(start, wait_for):
    code = f"""
import json, sys
from blindtune.cli import main
found = {{}}
for command in {COMMANDS!r}:
    sys.argv = ["blindtune", command, "--help"]
    try:
        main.run()
    except SystemExit as end:
        found[command] = end.code
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps([found, heavy]), file=sys.stderr)
"""
    ran = wait_for(start(program=(sys.executable, "-c", code)))
    found, heavy = json.loads(ran.err)
    assert found == dict.fromkeys(COMMANDS, 0)
    assert heavy == []
    for command in COMMANDS:
        assert f"Usage: blindtune {command}" in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_no_command_shows_them_all(blindtune):
    ran = blindtune()
    assert ran.code == 0
    assert all(f" {command} " in ran.out for command in COMMANDS)


@pytest.mark.parametrize("group", ["dp", "federate", "audit", "tokens", "audit-log"])
def test_a_group_without_a_command_shows_its_commands_and_nothing_else(blindtune, group):
    ran = blindtune(group)
    assert ran.code == 2
    assert f"Usage: blindtune {group}" in ran.out + ran.err
    assert "error" not in ran.err


class TestJson:
    """One document on stdout; notes and progress only on stderr."""

    @pytest.fixture
    def document(self, blindtune):
        def run(*args):
            ran = blindtune(*args, "--json")
            assert ran.code == 0, ran.err
            assert ran.err == ""
            return json.loads(ran.out)

        return run

    def test_plan(self, document, embeddings):
        assert document("plan", "--steps", 1)["ring_degree"] == 8192
        nine = document("plan", "--classes", 9)
        assert (nine["head"], nine["steps"], nine["degree"], nine["levels"]) == ("softmax", 4, 1, 10)
        other = document("plan", "--classes", 9, "--head", "one-vs-rest")
        assert (other["head"], other["steps"], other["degree"], other["levels"]) == ("one-vs-rest", 3, 7, 11)
        assert document("plan", "--classes", 4, "--steps", 2)["levels"] == 4
        rehearsed = document("plan", embeddings, "--steps", 1)
        assert (rehearsed["rows"], rehearsed["directions"]) == (42, 15)
        assert sum(rehearsed["operations"].values()) == sum(
            row["count"] for row in rehearsed["operations_by_level"]
        )

    def test_encrypt(self, document, embeddings, tmp_path):
        key = document("keygen", "--out", tmp_path / "keys", "--steps", 1)
        found = document("encrypt", embeddings, "--out", tmp_path / "s", "--steps", 1, "--key", key["file"])
        assert len(found["study"]) == 32
        assert found["training_rows"] == 42

    @pytest.mark.usefixtures("token")
    def test_after_training(self, document, trained, server):
        assert document("submit", trained, "--server", server.url)["state"] == "done"
        assert document("status", trained, "--watch")["state"] == "done"
        assert document("fetch", trained)["encrypted_head"] == str(trained / "inbox" / "head")
        assert document("decrypt", trained)["deviation"] < 0.01
        assert document("evaluate", trained)


class TestText:
    def test_plan(self, blindtune):
        ran = blindtune("plan", "--steps", 2)
        assert ran.code == 0
        assert ran.err == ""
        assert "Operations by level" in ran.out
        assert max(map(len, ran.out.splitlines())) <= 80

    @pytest.mark.parametrize("columns", [80, 120])
    def test_evaluate_shows_three_heads(self, blindtune, trained, monkeypatch, columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert blindtune("decrypt", trained).code == 0
        ran = blindtune("evaluate", trained)
        assert ran.code == 0
        rows = ran.out.splitlines()
        assert max(map(len, rows)) <= columns
        assert rows[2].count("┃") == 5
        # No word is cut: three heads have room.
        assert "…" not in ran.out
        assert "balanced" not in "".join(rows[1:5])
        html = (trained / "report" / "report.html").read_text()
        assert "encrypted, uncalibrated" in html
        assert "converged plaintext, balanced" in html

    @pytest.mark.usefixtures("token")
    def test_status(self, blindtune, trained, server):
        ran = blindtune("status", trained, "--server", server.url)
        assert ran.code == 0
        assert "1 of 1" in ran.out

    def test_altered_head_is_refused_and_nothing_written(self, blindtune, trained):
        from blindtune.client.study import StudyDirectory
        from blindtune.models.heads import Encoded, logistic
        from blindtune.models.rehearsal import Choice, Rehearsal

        directory = StudyDirectory(trained)
        whitening, rehearsed = directory.whitening()
        other = Choice(
            whitening,
            logistic(),
            Rehearsal(0.5 * rehearsed, (0.0,)),
            Encoded(np.zeros((0, 1)), np.zeros((1, 0, 1))),
            0.0,
        )
        directory.save(directory.settings(), other, directory.embeddings())
        ran = blindtune("decrypt", trained)
        assert ran.code == 2
        assert "the server did not run this study's steps" in ran.err
        assert not directory.head.exists()

    def test_predictions_as_csv(self, blindtune, scans, tmp_path):
        from blindtune.models import load_backbone
        from blindtune.models.linear import LinearHead

        backbone = load_backbone("blindtune_deit_96")
        origin = {"name": backbone.name, "fingerprint": backbone.fingerprint, "size": backbone.size}
        rng = np.random.default_rng(0)
        weight, bias = rng.normal(size=(3, backbone.dimension)), np.zeros(3)
        LinearHead(weight, bias, ("a", "b", "c,d"), "multiclass", origin).save(tmp_path / "head")
        scan = sorted(scans.glob("*.dcm"))[0]
        ran = blindtune("predict", tmp_path / "head", scan)
        assert ran.code == 0, ran.err
        (row,) = csv.DictReader(io.StringIO(ran.out))
        assert list(row) == ["file", "prediction", "a", "b", "c,d"]
        assert row["file"] == scan.name
        assert abs(sum(float(row[c]) for c in ("a", "b", "c,d")) - 1) < 1e-3
        assert blindtune("predict", tmp_path / "head", scan, "--out", tmp_path / "p.csv").code == 0
        assert (tmp_path / "p.csv").read_text() == ran.out
        blindtune("predict", tmp_path / "head", tmp_path / "none.dcm").refused("none.dcm")
        other = LinearHead(weight, bias, ("a", "b", "c"), "multiclass", {**origin, "fingerprint": "0" * 64})
        other.save(tmp_path / "other")
        blindtune("predict", tmp_path / "other", scan).refused("not the ones that the head was trained on")
