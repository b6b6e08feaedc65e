"""Training steps at a provider, one at a time: the data go up once, then only encrypted weights go and come.

A hospital in federated rounds gives its provider the current weights under encryption, gets the next ones
back, and opens them. What it then tells others of them it sanitises: a CKKS decryption's error depends on
the key, and whoever computed the ciphertext could learn the key from it (Li and Micciancio 2021). Noise
larger by far than that error hides it (Li, Micciancio, Schultz and Sorrell 2022).
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from blindtune.client.decrypt import open_weights
from blindtune.client.encoding import Scaling, encode_weights
from blindtune.client.encrypt import base_manifest, write_data, write_keys
from blindtune.client.keyfile import read_key, write_key
from blindtune.client.remote import Remote
from blindtune.errors import BundleError, KeyFileError, PlanError
from blindtune.files import whole_file
from blindtune.he.flooding import deviation
from blindtune.he.secret import SecretKey
from blindtune.models.heads import STEEPEST, Encoded, Head
from blindtune.params import Parameters, ParametersLiteral
from blindtune.plan import Plan, plan
from blindtune.privacy.noise import discrete_gaussian
from blindtune.wire.bundle import Bundle, write_bundle
from blindtune.wire.manifest import Manifest
from blindtune.wire.study import train_here

Floats = NDArray[np.float64]

SCALE_BITS, FIRST_BITS, SPECIAL_BITS = 50, 57, 59
"""A step is shallow, so that its scale can be large: what hides the error of a decryption is then far below
what matters to training. SEAL itself evaluates: primes of more than 50 bits are beyond the accelerators."""

RING_DEGREE = 16384
ERROR = 2.0**-29
"""Bound of the error of decrypted slots after one step, in root mean square: over ten times the largest that
was measured (2^-32.8; 60 to 4,000 rows, 4 to 192 directions)."""

STATISTICAL_BITS = 30
"""Bits of statistical security of what is told of decrypted weights."""

GRID = 8
"""Steps of the grid of what is told, in the bound of a weight's error."""


class Provider(Protocol):
    """Whoever computes on ciphertexts."""

    def train(self, study: str, bundles: list[Path], start: Path, target: Path) -> None:
        """Train a study's bundles from ``start`` and leave the head's bundle at ``target``."""
        ...


@dataclass(frozen=True)
class HttpProvider:
    """A blindtune server.

    Attributes:
        remote: an open connection.
    """

    remote: Remote

    def train(self, study: str, bundles: list[Path], start: Path, target: Path) -> None:
        """See :class:`Provider`; bundles that are there already are not sent again."""
        self.remote.submit([*bundles, start])
        self.remote.start(study)
        self.remote.wait(study)
        key = Bundle(start).manifest.key
        self.remote.fetch(study, target, key=key)


@dataclass(frozen=True)
class HereProvider:
    """The same computation in this process, for trying and for tests."""

    cores: int = 1

    def train(self, study: str, bundles: list[Path], start: Path, target: Path) -> None:
        """See :class:`Provider`."""
        keys, *data = bundles
        train_here(keys, data, target, start=start, cores=self.cores)


class Outsourced:
    """One hospital's rows at a provider, and steps on them.

    Args:
        directory: of this hospital, mode 0700: the key, and bundles on their way.
        provider: who computes.
        head: of one step, from encrypted weights.
        columns, outputs: of the weights, bias included.
        rows: training rows.

    Attributes:
        plan: parameters, packing, cost.
    """

    def __init__(
        self, directory: Path, provider: Provider, head: Head, columns: int, outputs: int, rows: int
    ) -> None:
        self._directory, self._provider, self._head = directory, provider, head
        self._columns, self._outputs = columns, outputs
        self._scaling = Scaling(head.interval, head.learning_rates[0], rows)
        self.plan: Plan = plan(rows, columns, outputs, head, parameters=step_parameters(head))
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = self._own_key()
        self._study, self._furthest = "", 0.0

    @property
    def error(self) -> float:
        """Bound of a weight's error after one step, in root mean square."""
        return ERROR * self._scaling.weight_factor

    def encrypt(self, features: Floats, encoded: Encoded) -> None:
        """Encrypt the rows as a study of the provider's; the same rows are not encrypted twice.

        Args:
            features: whitened, bias last, shape (rows, columns).
            encoded: targets and coefficients of every row and output.
        """
        outbox, memory = self._directory / "outbox", self._directory / "study.json"
        weight = np.abs(encoded.targets).max(initial=0.0) / 0.5
        longest = np.abs(features).sum(axis=0).max(initial=0.0) / len(features)
        self._furthest = self._head.learning_rates[0] * longest * STEEPEST * weight
        arrays = (features, encoded.targets, encoded.coefficients)
        content = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()
        if memory.is_file():
            told = json.loads(memory.read_text())
            if told["content"] == content:
                self._study = told["study"]
                return
        self._study = secrets.token_hex(16)
        shutil.rmtree(outbox, ignore_errors=True)
        write_keys(outbox / "keys", self._key, self._manifest("keys"))
        write_data(
            outbox / "data", self._key, self._manifest("data"), (features, encoded), self._head, self._scaling
        )
        with whole_file(memory) as path:
            path.write_text(json.dumps({"study": self._study, "content": content}))

    def step(self, weights: Floats) -> Floats:
        """The weights one step further, shape (columns, outputs) as given.

        Raises:
            PlanError: weights that the parameters may not hold after the step: nothing is sent.
            RemoteError: the provider cannot be reached, or failed.
            BundleError: what came back is not this study's.
        """
        most = 2.0 ** (FIRST_BITS - SCALE_BITS - 1) * self._scaling.weight_factor
        largest = np.abs(weights).max(initial=0.0) + self._furthest
        if largest > most:
            raise PlanError(
                f"weights of up to {largest:.1f} after this step, {most:.1f} fit",
                remedy="Agree on a lower learning rate, or a larger epsilon of the whitening.",
            )
        outbox, inbox = self._directory / "outbox", self._directory / "inbox"
        for old in (outbox / "start", inbox):
            shutil.rmtree(old, ignore_errors=True)
        items = [self._key.encrypt(s) for s in encode_weights(weights, self.plan.layout, self._scaling)]
        write_bundle(outbox / "start", self._manifest("start"), [("weights", items)])
        self._provider.train(
            self._study, [outbox / "keys", outbox / "data"], outbox / "start", inbox / "head"
        )
        return self._open(inbox / "head")

    def _open(self, path: Path) -> Floats:
        insecure = self._key.parameters.security == 0
        bundle, wanted = Bundle(path, insecure=insecure), self._manifest("head")
        bundle.verify()
        if bundle.manifest.model_copy(update={"parts": []}) != wanted:
            raise BundleError("not the head of this study's step", remedy="Ask the provider's operator.")
        return open_weights(bundle, self._key, self._scaling, self._columns, self._outputs)

    def _manifest(self, kind: Literal["keys", "data", "start", "head"]) -> Manifest:
        identity = (self._study, ["hospital"], "hospital")
        return base_manifest(kind, identity, self._key, self.plan.layout, self.plan.program)

    def _own_key(self) -> SecretKey:
        path = self._directory / "secret.key"
        if path.is_file():
            key = read_key(path)
            if not isinstance(key, SecretKey) or key.parameters != self.plan.parameters:
                raise KeyFileError(
                    "the key here is for another plan",
                    where=path.name,
                    remedy="Give a study its own directory.",
                )
            return key
        key = SecretKey.generate(self.plan.parameters)
        write_key(path, key)
        return key


def step_parameters(head: Head) -> Parameters:
    """Parameters of a single step from encrypted weights."""
    levels = head.program.levels
    return ParametersLiteral(RING_DEGREE, levels, SCALE_BITS, FIRST_BITS, SPECIAL_BITS, 128).checked()


def sanitised(weights: Floats, error: float, rounds: int) -> Floats:
    """Decrypted weights that may be told to others: noise hides the error that depends on the key.

    See :mod:`blindtune.he.flooding`; here the noise lies on the weights themselves.

    Args:
        error: bound of a weight's error, in root mean square.
        rounds: such vectors that are told under this key in all.
    """
    # On a grid, so that no digit below the noise tells anything; finer than the error, for where rounding
    # falls to the other side because of the error, whole steps of the grid are what the noise must hide.
    step = error / GRID
    sigma = deviation(math.sqrt(weights.size) * (error + step), rounds, STATISTICAL_BITS)
    noise = discrete_gaussian(sigma / step, weights.size).reshape(weights.shape)
    return np.asarray((np.rint(weights / step) + noise) * step)
