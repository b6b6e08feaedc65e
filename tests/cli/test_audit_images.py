"""``blindtune audit inversion`` and ``embedding`` on a folder of scans."""

from __future__ import annotations

import json

import pytest

from blindtune.audit.results import read_results, write_results

LITTLE = ("--sites", 3, "--epsilon", 8)


@pytest.mark.parametrize(
    ("command", "options", "pictures"),
    [
        ("inversion", ("--images", 2, "--batch", 1, "--iterations", 2), ["inversion.png"]),
        ("embedding", ("--side", 16, "--epochs", 1), ["embedding.png", "gradient.png"]),
    ],
)
def test_an_audit_writes_results_and_pictures(blindtune, scans, tmp_path, command, options, pictures):
    out = tmp_path / "out"
    ran = blindtune("audit", command, scans, *options, *LITTLE, "--out", out, "--json")
    assert ran.code == 0, ran.err
    results = read_results(out / f"{command}.json")
    assert json.loads(ran.out) == [r.to_json() for r in results]
    assert results[0].control
    assert str(scans) not in ran.out
    assert "SYN-" not in ran.out
    for picture in pictures:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    assert out.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("embedding", "--side", 20), "multiple of 8"),
        (("inversion", "--labels", "x.csv"), "labels without scans"),
        (("inversion", "--network", "nothing"), "no network of this name"),
        (("inversion", "--network", "resnet18", "--norm", "batch"), "another side"),
    ],
)
def test_what_does_not_fit_is_one_line(blindtune, arguments, words):
    blindtune("audit", *arguments).refused(words)


def test_a_report_of_results_and_a_study(blindtune, study, tmp_path):
    results = tmp_path / "results.json"
    write_results(results, [])
    out = tmp_path / "report"
    ran = blindtune("audit", "report", "--study", study, "--out", out, "--json")
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)
    assert told["promises"][0]["kept"]
    assert told["configuration"]["Encrypted training"]["level of security"] == "128-bit"
    assert "opaque-lung" not in ran.out + (out / "privacy.html").read_text()
    blindtune("audit", "report").refused("nothing to report on")
    blindtune("audit", "report", results).refused("no attack results")
    blindtune("audit", "report", tmp_path / "nothing.json").refused("no results here")
