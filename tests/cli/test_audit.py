"""``blindtune audit`` where a run was stopped."""

from __future__ import annotations

import json

from blindtune.audit.results import read_results


def test_tries_in_the_file_of_results_are_gone_on_from(blindtune, tmp_path):
    out = tmp_path / "keys.json"
    for tries in (1, 2):
        options = ("--parameters", "insecure", "--tries", tries, "--out", out, "--json")
        ran = blindtune("audit", "keys", *options)
        assert ran.code == 0, ran.err
        found = read_results(out)
        assert json.loads(ran.out) == [r.to_json() for r in found]
        assert [r.trials for r in found] == [tries] * 3
    out.write_text("something else")
    blindtune("audit", "keys", "--tries", 1, "--out", out).refused("not a file of attack results")
