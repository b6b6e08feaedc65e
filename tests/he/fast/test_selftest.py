"""The self-test passes what equals SEAL, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from blindtune.errors import EngineError
from blindtune.he.fast import selftest
from blindtune.he.fast.engine import FastEngine
from blindtune.he.fast.vector import Variant
from tests.he.fast.pairs import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_pass(variant: Variant, threads: int) -> None:
    selftest.check(variant, threads)


def test_a_wrong_result_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FastEngine._rescale

    def wrong(self: FastEngine, batch: list[Any], level: int) -> list[Any]:
        found = right(self, batch, level)
        self._row(found[-1], 1, 0)[17] ^= 1
        return found

    monkeypatch.setattr(FastEngine, "_rescale", wrong)
    with pytest.raises(EngineError, match=r"a rescale at level 4 differs from SEAL's"):
        selftest.check.__wrapped__(Variant.PORTABLE, 1)
