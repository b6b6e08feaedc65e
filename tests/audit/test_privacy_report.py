"""One page for a data-protection officer: what it says follows from what was handed in."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from blindtune.audit.privacy_report import PrivacyReport, collected, columns, shown
from blindtune.audit.results import AttackResult, proportion, write_results
from blindtune.client.study import Settings
from blindtune.errors import InputError
from blindtune.federation.agreement import HeadModel, Local, Privacy
from blindtune.federation.setup import draft
from blindtune.report.figures import Figure

RESULT = AttackResult(
    attack="gradient inversion",
    target="a <network>, 32 px",
    protection="none: one image's gradient",
    figures={
        "MSE": Figure(1e-9),
        "patients re-identified": proportion(9, 10),
        "FID": Figure(None, reason="needs two images"),
        "ANOVA of SSIM, p": Figure(0.04),
    },
    trials=10,
    control=True,
    command="blindtune audit inversion SCANS",
    versions={"blindtune": "0.1.0"},
)
STUDY = Settings(
    study="s", member="north", members=("north", "south"), key="k", kind="multiclass",
    classes=("secret-name", "b"), backbone={"name": "deit"}, head={"name": "logistic"}, interval=8.0,
    rate=4.0, rows=100, columns=65, outputs=1, security="128-bit",
)  # fmt: skip


def plan(private: bool, secure: bool = True):
    noise = {"noise": 3.0, "clip": 1.0, "sampling": 0.2, "patients": {"north": 40, "south": 30}}
    privacy = Privacy(**noise, survivors=2) if private else None
    model = HeadModel(features=4)
    local = Local(every=1, unit="batches")
    return draft("s", ["a", "b"], model, rounds=5, local=local, privacy=privacy, secure=secure)[0]


def test_what_is_promised_follows_from_the_configuration():
    none = PrivacyReport()
    assert (none.promises(), none.epsilon, none.configuration()) == ([], None, {})
    bare = PrivacyReport(plan=plan(private=False, secure=False))
    assert [p.kept for p in bare.promises()] == [False, False]
    assert "Plan secure sums" in bare.promises()[0].basis
    good = PrivacyReport(plan=plan(private=True), study=STUDY, delta=1e-4)
    assert [p.kept for p in good.promises()] == [True, False, True, True]
    assert 0 < good.epsilon < 3
    assert f"epsilon {good.epsilon:.3g} at delta 0.0001" in good.promises()[-1].what
    insecure = PrivacyReport(study=replace(STUDY, security="insecure", members=("north",)))
    assert [p.kept for p in insecure.promises()] == [False]
    assert len(good.assumptions()) > len(bare.assumptions()) > len(none.assumptions())


def test_the_page_says_it_all_and_names_no_class():
    failed = replace(RESULT, control=False, target="another")
    report = PrivacyReport(
        title="Report & more", study=STUDY, plan=plan(private=True), budget=(3.0, 1e-4, 1.5),
        results=[RESULT, failed],
    )  # fmt: skip
    page = report.html()
    assert "Report &amp; more" in page
    assert "a &lt;network&gt;" in page
    assert "90.0 %" in page
    assert "Can a patient&#39;s image be rebuilt" in page
    assert "The control failed" in page
    assert "needs two images" in page
    assert page.count("blindtune audit inversion SCANS") == 1
    for hidden in ("secret-name", "north", "ANOVA", "<script"):
        assert hidden not in page
    assert "1 of 2 figures" in page
    assert "nothing here was attacked" in PrivacyReport(study=STUDY).html()


def test_both_files_are_written_and_results_read_back(tmp_path):
    write_results(tmp_path / "a.json", [RESULT])
    (tmp_path / "other.json").write_text('{"format": "something else"}')
    found = collected([tmp_path, tmp_path / "a.json"])
    assert found == [RESULT, RESULT]
    json_path, html_path = PrivacyReport(results=found).write(tmp_path / "out")
    told = json.loads(json_path.read_text())
    assert told["attacks"] == [RESULT.to_json()] * 2
    assert html_path.read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(InputError, match="no attack results"):
        collected([tmp_path / "out"])
    with pytest.raises(InputError, match="not a file of attack results"):
        collected([tmp_path / "other.json"])


def test_figures_as_people_read_them():
    assert shown("patients re-identified", 0.125) == "12.5 %"
    assert shown("MSE", 0.125) == "0.125"
    assert shown("gap", -1.5) == "−1.5"
    assert columns([RESULT]) == ["patients re-identified", "MSE", "FID"]
