"""Chooses what evaluates on this machine: kernels for its processor, portable ones, SEAL itself, or OpenFHE.

All read and write the same blobs and give the same results but for noise; they differ in speed. The choice
falls on the first of ``ifma``, ``portable``, ``seal`` and ``openfhe`` that is installed, that the processor
has, that serves the parameters and that passes its self-test, unless the caller or
``BLINDTUNE_ACCELERATOR`` names one.
"""

from __future__ import annotations

import logging
import os

from blindtune.errors import EngineError, MissingPackageError
from blindtune.he.codec import sealapi
from blindtune.he.cpu import has_ifma
from blindtune.he.engine import Engine, KeySet
from blindtune.he.openfhe.library import openfhe, supports
from blindtune.params import Parameters

ACCELERATORS = ("ifma", "portable", "seal", "openfhe")
"""Fastest first."""

_VARIABLE = "BLINDTUNE_ACCELERATOR"
_log = logging.getLogger(__name__)


def evaluation_engine(
    parameters: Parameters,
    keys: KeySet,
    relinearisation: bytes,
    galois: dict[int, bytes],
    *,
    cores: int = 1,
    accelerator: str | None = None,
) -> Engine:
    """The fastest engine that serves these parameters here.

    Args:
        parameters: checked parameters.
        keys: the rotations that the Galois keys hold.
        relinearisation: serialised relinearisation key.
        galois: serialised Galois keys by Galois element, one key each.
        cores: threads of an operation.
        accelerator: one of :data:`ACCELERATORS`, instead of a choice.

    Raises:
        EngineError: a key that does not load under these parameters, or lacks a rotation; a named
            accelerator that cannot be used.
    """
    chosen = choose(parameters, cores=cores, accelerator=accelerator)
    if chosen == "seal":
        from blindtune.he.seal import SealEngine

        return SealEngine(parameters, keys, relinearisation, galois)
    if chosen == "openfhe":
        from blindtune.he.openfhe.engine import OpenFheEngine

        return OpenFheEngine(parameters, keys, relinearisation, galois)
    from blindtune.he.fast.engine import FastEngine
    from blindtune.he.fast.vector import Variant

    return FastEngine(parameters, keys, relinearisation, galois, cores, Variant(chosen))


def choose(parameters: Parameters | None = None, *, cores: int = 1, accelerator: str | None = None) -> str:
    """The accelerator that :func:`evaluation_engine` takes; compiles its kernels, as its self-test runs.

    Raises:
        EngineError: a named accelerator that cannot be used.
    """
    named = accelerator or os.environ.get(_VARIABLE) or None
    if named is not None:
        if named not in ACCELERATORS:
            raise EngineError(
                f"no accelerator is called {named!r}", remedy=f"Choose one of {', '.join(ACCELERATORS)}."
            )
        reason = _unusable(named, parameters, cores)
        if reason is not None:
            raise EngineError(
                f"the accelerator {named!r} cannot be used: {reason}",
                remedy=f"Unset {_VARIABLE}: blindtune then chooses.",
            )
        _log.info("evaluating with %s, as told", named)
        return named
    reasons = []
    for name in ACCELERATORS:
        reason = _unusable(name, parameters, cores)
        if reason is None:
            break
        reasons.append(f"{name}: {reason}")
    else:
        raise EngineError(
            f"nothing can evaluate here ({'; '.join(reasons)})", remedy="Install TenSEAL or OpenFHE."
        )
    if reasons:
        _log.warning("evaluating with %s (%s)", name, "; ".join(reasons))
    else:
        _log.info("evaluating with %s", name)
    return name


def warm(cores: int = 1) -> str:
    """Compile, or load from the cache, what engines on this machine will use; its name."""
    return choose(cores=cores)


def _unusable(name: str, parameters: Parameters | None, cores: int) -> str | None:
    """Why an accelerator cannot be used here; None if it can."""
    if name in ("seal", "openfhe"):
        return _library(name, parameters)
    if name == "ifma" and not has_ifma():
        return "this processor has no AVX-512 IFMA"
    try:
        from blindtune.he.fast.engine import supports
        from blindtune.he.fast.selftest import check
        from blindtune.he.fast.vector import Variant

        reason = None if parameters is None else supports(parameters)
        if reason is None:
            check(Variant(name), cores)
    except Exception as error:
        # Whatever the compiler or the machine came up with, SEAL still computes.
        return f"{type(error).__name__}: {error}"
    return reason


def _library(name: str, parameters: Parameters | None) -> str | None:
    """Why a library cannot be used; None if it can."""
    try:
        if name == "seal":
            sealapi()
            return None
        openfhe()
    except MissingPackageError as error:
        return error.what
    return None if parameters is None else supports(parameters)
