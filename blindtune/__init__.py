"""blindtune: train classifier heads on encrypted embeddings.

A hospital prepares and encrypts (:func:`prepare`, :func:`encrypt_study`), an untrusted server trains
(``blindtune serve``), the hospital opens the head (:func:`open_head`). Names load on first use, so that
``import blindtune`` stays quick and the server never loads torch or the secret key.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blindtune.version import __version__ as __version__

if TYPE_CHECKING:
    from blindtune.client.decrypt import Opened as Opened
    from blindtune.client.decrypt import open_head as open_head
    from blindtune.client.encrypt import encrypt_study as encrypt_study
    from blindtune.client.evaluate import evaluate_study as evaluate_study
    from blindtune.client.features import embed_cohort as embed_cohort
    from blindtune.client.keyfile import read_key as read_key
    from blindtune.client.keyfile import write_key as write_key
    from blindtune.client.prepare import Prepared as Prepared
    from blindtune.client.prepare import prepare as prepare
    from blindtune.client.remote import Remote as Remote
    from blindtune.client.study import StudyDirectory as StudyDirectory
    from blindtune.errors import BlindtuneError as BlindtuneError
    from blindtune.he.secret import SecretKey as SecretKey
    from blindtune.imaging import Embeddings as Embeddings
    from blindtune.imaging import load_cohort as load_cohort
    from blindtune.imaging import load_embeddings as load_embeddings
    from blindtune.models.heads import Head as Head
    from blindtune.models.heads import logistic as logistic
    from blindtune.models.heads import one_vs_rest as one_vs_rest
    from blindtune.models.heads import ridge as ridge
    from blindtune.models.linear import LinearHead as LinearHead
    from blindtune.models.linear import attach_head as attach_head
    from blindtune.plan import Plan as Plan
    from blindtune.plan import plan as make_plan
    from blindtune.wire.study import train_here as train_here

_HOME = {
    "client.decrypt": ("Opened", "open_head"),
    "client.encrypt": ("encrypt_study",),
    "client.evaluate": ("evaluate_study",),
    "client.features": ("embed_cohort",),
    "client.keyfile": ("read_key", "write_key"),
    "client.prepare": ("Prepared", "prepare"),
    "client.remote": ("Remote",),
    "client.study": ("StudyDirectory",),
    "errors": ("BlindtuneError",),
    "he.secret": ("SecretKey",),
    "imaging": ("Embeddings", "load_cohort", "load_embeddings"),
    "models.heads": ("Head", "logistic", "one_vs_rest", "ridge"),
    "models.linear": ("LinearHead", "attach_head"),
    "plan": ("Plan",),
    "wire.study": ("train_here",),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = ["__version__", "make_plan", *sorted(_MODULE)]


def __getattr__(name: str) -> Any:
    if name == "make_plan":  # "plan" itself is the module
        return import_module("blindtune.plan").plan
    if name not in _MODULE:
        raise AttributeError(f"module 'blindtune' has no attribute {name!r}")
    return getattr(import_module(f"blindtune.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
