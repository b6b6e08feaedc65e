"""What the processor offers."""

from __future__ import annotations

import llvmlite.binding
import pytest

from blindtune.he.cpu import has_ifma


@pytest.mark.parametrize(
    ("features", "expected"),
    [({"avx512ifma": True, "avx512f": True}, True), ({"avx512f": True}, False), ({}, False)],
)
def test_has_ifma(monkeypatch: pytest.MonkeyPatch, features: dict[str, bool], expected: bool) -> None:
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    assert has_ifma.__wrapped__() is expected


def test_an_unknown_processor_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise RuntimeError("failed to get host cpu features")

    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", unknown)
    assert not has_ifma.__wrapped__()
