"""``ways``: what many steps cost, for people and for scripts."""

from __future__ import annotations

import json
from typing import Any


def test_a_joint_keys_weights_are_refreshed(blindtune: Any) -> None:
    options = ("--hospitals", 3, "--classes", 10, "--steps", 10)
    first, second = json.loads(blindtune("ways", *options, "--json").out)
    assert (first["way"], first["possible"], first["rounds"]) == ("refresh", True, 4)
    assert first["refreshes"] == [2, 4, 6, 8]
    assert not second["possible"]
    told = blindtune("ways", *options).out
    assert "refresh: to take" in told
    assert "2, 4, 6, 8" in told
    assert "no ring holds 46 levels" in told


def test_memory_decides_what_a_single_owner_can_do(blindtune: Any) -> None:
    options = ("--classes", 10, "--steps", 12, "--json")
    found = json.loads(blindtune("ways", *options, "--memory", 64).out)
    assert [way["way"] for way in found if way["possible"]] == ["levels", "bootstrapping"]
    found = json.loads(blindtune("ways", *options, "--memory", 4).out)
    assert not any(way["possible"] for way in found)
    assert "GiB" in found[1]["why_not"]
