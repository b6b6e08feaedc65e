"""Passive key recovery from decryptions (Li and Micciancio, ePrint 2020/1533, section 4).

A ciphertext ``(a, b)`` decrypts to the polynomial ``m = a + b·s``. Whoever computed the ciphertext and is
handed ``m`` divides: ``s = (m - a) / b``. A quotient without any coefficient but -1, 0 and 1 is the key: of a
wrong ``m`` it is as good as random, and such with probability ``(3 / q)^N``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune.audit.results import AttackResult, proportion, versions
from blindtune.client.encoding import Scaling
from blindtune.client.flood import Flood, flood, release_parameters
from blindtune.he.codec import SealCodec
from blindtune.he.fast.tables import reversed_bits
from blindtune.he.flooding import STATISTICAL_BITS, coefficients
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.params import Parameters
from blindtune.plan import insecure_test_parameters, smallest_parameters

Words = NDArray[np.uint64]
Coefficients = NDArray[np.int64]
Parts = tuple[Words, Words]
ATTACK = "key recovery"
FORMS = (
    "none: the decrypted polynomial is told",
    "none: decoded slots are told, in double precision",
    f"noise flooding, {STATISTICAL_BITS} bits",
)
LEVELS = 11
"""Levels of the usual three steps of degree seven."""


SIZES: dict[str, Callable[[int], Parameters]] = {
    "insecure": lambda _security: insecure_test_parameters(2, 1024),
    "usual": lambda security: smallest_parameters(LEVELS, security),
    "release": lambda security: release_parameters(LEVELS, security),
}
"""Parameters by name: those of tests, of studies, and of studies that are planned for release."""


class Attacker:
    """Whoever computed ciphertexts, and is told what they decrypt to.

    Args:
        parameters: of the key; public.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._codec, self._n, self._q = SealCodec(parameters), parameters.ring_degree, parameters.primes[0]
        self._order = reversed_bits(self._n)
        self._root = _least_root(self._n, self._q)
        self._powers = _powers(self._root, self._n, self._q)
        self._inverses = _powers(pow(self._root, -1, self._q), self._n, self._q)

    def parts(self, item: bytes) -> Parts:
        """A ciphertext's ``a`` and ``1 / b`` modulo the first prime, transformed."""
        _, found = self._codec.residues(item)
        a, b = (found[0, k, 0] for k in (0, 1))
        return a, _inverted(b, self._q)

    def from_polynomial(self, parts: Parts, told: Words) -> Coefficients | None:
        """The key from a ciphertext and its exact decryption, transformed (N,); None if it is not the key."""
        a, inverse = parts
        q = np.uint64(self._q)
        key = self._coefficients(_times((told + q - a) % q, inverse, self._q)).astype(np.int64)
        centred = np.where(key > self._q // 2, key - self._q, key)
        return centred if (np.abs(centred) <= 1).all() else None

    def from_coefficients(self, parts: Parts, told: Coefficients) -> Coefficients | None:
        """The key from a ciphertext and the coefficients (N,) that it is said to decrypt to."""
        return self.from_polynomial(parts, self._transformed(told))

    def _transformed(self, found: Coefficients) -> Words:
        values = _times((found % self._q).astype(np.uint64), self._powers, self._q)
        return _dft(values, pow(self._root, 2, self._q), self._q)[self._order]

    def _coefficients(self, transformed: Words) -> Words:
        values = _dft(transformed[self._order], pow(self._root, -2, self._q), self._q)
        shrunk = _times(values, np.full(self._n, pow(self._n, -1, self._q), np.uint64), self._q)
        return _times(shrunk, self._inverses, self._q)


@dataclass(frozen=True)
class Tally:
    """Tries at one size of parameters, and how many of them gave the key away.

    Attributes:
        name: of :data:`SIZES`.
        security: as asked for.
        tries: done so far.
        hits: by form, in the order of :data:`FORMS`.
    """

    name: str
    security: int
    tries: int = 0
    hits: tuple[int, ...] = (0,) * len(FORMS)

    @property
    def parameters(self) -> Parameters:
        """Of the keys."""
        return SIZES[self.name](self.security)

    @property
    def target(self) -> str:
        """In words."""
        p = self.parameters
        return (
            f"{self.name} parameters, ring degree {p.ring_degree}, scale 2^{p.scale_bits}, {p.security_name}"
        )

    def after(self, earlier: Sequence[AttackResult]) -> Tally:
        """With the tries of an earlier run of these versions on this target, if there is one."""
        same = {r.protection: r for r in earlier if (r.target, r.versions) == (self.target, versions())}
        if not set(FORMS) <= same.keys() or len({same[form].trials for form in FORMS}) > 1:
            return self
        tries = same[FORMS[0]].trials
        shares = [same[form].figures["keys recovered"].value or 0.0 for form in FORMS]
        return Tally(self.name, self.security, tries, tuple(round(share * tries) for share in shares))

    def plus(self, found: Sequence[bool]) -> Tally:
        """With one more try."""
        hits = tuple(a + b for a, b in zip(self.hits, found, strict=True))
        return Tally(self.name, self.security, self.tries + 1, hits)

    def results(self) -> list[AttackResult]:
        """A result for each form of decryption; none before the first try."""
        command = f"blindtune audit keys --tries {self.tries} --parameters {self.name}"
        return [
            AttackResult(
                attack=ATTACK,
                target=self.target,
                protection=form,
                figures={"keys recovered": proportion(hits, self.tries)},
                trials=self.tries,
                control=self.hits[0] == self.tries,
                command=f"{command} --security {self.security}",
                versions=versions(),
            )
            for form, hits in zip(FORMS, self.hits, strict=True)
            if self.tries
        ]


def audit(
    sizes: Sequence[str],
    tries: int,
    security: int = 128,
    on_try: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    earlier: Sequence[AttackResult] = (),
    keep: Callable[[list[AttackResult]], None] = lambda _results: None,
) -> list[AttackResult]:
    """Attack throw-away keys: raw decryptions, and sanitised ones.

    Args:
        sizes: of :data:`SIZES`.
        tries: keys a size, with those of an earlier run.
        security: of the parameters that are not ``insecure``.
        on_try: called with tries done and in all.
        earlier: what a run that was stopped had found; it goes on from there.
        keep: called with all results so far after each try.

    Returns:
        A result a target and form of decryption; sanitised ones come with the raw one as their control.
    """
    tallies = [Tally(name, security).after(earlier) for name in sizes]
    for at, tally in enumerate(tallies):
        p = tally.parameters
        attacker, plan = Attacker(p), whole_ring(p)
        while tallies[at].tries < tries:
            tallies[at] = tallies[at].plus(one(attacker, p, plan))
            keep(told(tallies))
            on_try(sum(min(t.tries, tries) for t in tallies), tries * len(sizes))
    return told(tallies)


def told(tallies: Sequence[Tally]) -> list[AttackResult]:
    """The results of several sizes."""
    return [r for tally in tallies for r in tally.results()]


def whole_ring(p: Parameters) -> Flood:
    """The noise of a release that tells all coefficients: the attack needs as many as the key has."""
    layout = Layout(p.slots, 1, (p.slots,), 1, 1, 1)
    return flood(p, layout, Scaling(12.0, 3.0, p.slots), np.ones((2, 1)))


def one(attacker: Attacker, p: Parameters, plan: Flood) -> tuple[bool, bool, bool]:
    """One fresh key, a ciphertext under it, and whether each of :data:`FORMS` gives the key away."""
    key = SecretKey.generate(p)
    values = np.random.default_rng().normal(size=(2, p.slots))
    item = key.encrypt(values[0] + 1j * values[1])
    handle, parts = key.load(item), attacker.parts(item)
    told = coefficients(key.decrypt(handle), p.scale)
    return (
        attacker.from_polynomial(parts, key.polynomial(handle)) is not None,
        attacker.from_coefficients(parts, told) is not None,
        attacker.from_coefficients(parts, plan.noisy(told)) is not None,
    )


def _least_root(n: int, q: int) -> int:
    """The least primitive 2n-th root of unity modulo q, which SEAL's transform takes."""
    exponent = (q - 1) // (2 * n)
    base = next(b for b in range(2, q) if pow(b, exponent * n, q) == q - 1)
    root = pow(base, exponent, q)
    odd = _times(_powers(root * root % q, n, q), np.full(n, root, np.uint64), q)
    return int(odd.min())


def _times(a: Words, b: Words, q: int) -> Words:
    """Products modulo q below 2^61: the quotient in extended precision is off by one at most."""
    quotient = (a.astype(np.longdouble) * b.astype(np.longdouble) / q).astype(np.uint64)
    rest = (a * b - quotient * np.uint64(q)).astype(np.int64)
    rest = np.where(rest < 0, rest + q, rest)
    return np.where(rest >= q, rest - q, rest).astype(np.uint64)


def _inverted(a: Words, q: int) -> Words:
    """Inverses modulo a prime, by Fermat; zero stays zero."""
    found, square, exponent = np.ones_like(a), a, q - 2
    while exponent:
        if exponent & 1:
            found = _times(found, square, q)
        square = _times(square, square, q)
        exponent >>= 1
    return found


def _powers(base: int, count: int, q: int) -> Words:
    found, step = np.ones(1, np.uint64), base
    while len(found) < count:
        found = np.concatenate([found, _times(found, np.full(len(found), step, np.uint64), q)])
        step = step * step % q
    return found[:count]


def _dft(values: Words, root: int, q: int) -> Words:
    """Values of a polynomial at the powers of a root of unity modulo q, in their order."""
    n = len(values)
    found, half = values[reversed_bits(n)], 1
    while half < n:
        twiddles = _powers(pow(root, n // (2 * half), q), half, q)
        pairs = found.reshape(-1, 2, half)
        even = pairs[:, 0]
        odd = _times(pairs[:, 1], np.broadcast_to(twiddles, even.shape), q)
        whole = np.uint64(q)
        found = np.stack([(even + odd) % whole, (even + whole - odd) % whole], axis=1).reshape(n)
        half *= 2
    return found
