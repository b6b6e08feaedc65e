"""What the processor offers, as far as kernels choose by it."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def has_ifma() -> bool:
    """Whether AVX-512 IFMA, the multiply-add of 52-bit integers, is there."""
    import llvmlite.binding

    try:
        features = llvmlite.binding.get_host_cpu_features()
    except RuntimeError:
        # LLVM knows no such processor.
        return False
    return bool(features.get("avx512ifma")) and bool(features.get("avx512f"))
