"""Encryption parameters: an unchecked literal becomes checked, frozen parameters.

Security follows the 2024 guideline table (Bossuat et al., "Security Guidelines for Implementing
Homomorphic Encryption", ePrint 2024/463, ternary secrets). Every prime counts, the key-switching
prime too. It is stricter than the table built into SEAL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from blindtune.errors import ParametersError

SECURITY_TABLE: dict[int, dict[int, int]] = {
    128: {4096: 106, 8192: 214, 16384: 430, 32768: 868, 65536: 1747},
    192: {4096: 73, 8192: 147, 16384: 297, 32768: 597, 65536: 1199},
    256: {4096: 56, 8192: 114, 16384: 230, 32768: 462, 65536: 929},
}
"""Largest log2 of the full modulus QP for each security level and ring degree."""

INSECURE = 0
"""The security level of test parameters: no bound is checked. Never accepted by a server by default."""

MAX_PRIMES = 64
MAX_PRIME_BITS = 60
MIN_RING_DEGREE, MAX_RING_DEGREE = 1024, 65536


@dataclass(frozen=True)
class Parameters:
    """Checked CKKS parameters; build them with :meth:`ParametersLiteral.checked` or :func:`check`.

    Attributes:
        ring_degree: N, a power of two; a ciphertext has ``N / 2`` complex slots.
        primes: the data primes, first one first, then the key-switching primes.
        scale_bits: log2 of the nominal scale that every ciphertext carries after a rescale.
        security: 128, 192, 256, or 0 for ``insecure`` test parameters.
        special: key-switching primes.
        digits: that a key switch takes, each of as many data primes; 0 for one a prime.
    """

    ring_degree: int
    primes: tuple[int, ...]
    scale_bits: int
    security: int
    special: int = 1
    digits: int = 0

    @property
    def slots(self) -> int:
        """Complex slots in a ciphertext."""
        return self.ring_degree // 2

    @property
    def levels(self) -> int:
        """Rescales that a fresh ciphertext can take; the level of a fresh ciphertext."""
        return len(self.primes) - 1 - self.special

    @property
    def key_digits(self) -> int:
        """Components of a key-switching key."""
        return self.digits or self.levels + 1

    @property
    def scale(self) -> float:
        """The nominal scale."""
        return float(2**self.scale_bits)

    @property
    def modulus_bits(self) -> float:
        """log2 of the full modulus QP, all primes counted."""
        return sum(math.log2(p) for p in self.primes)

    @property
    def security_name(self) -> str:
        """``"128-bit"``, or ``"insecure"`` for test parameters."""
        return f"{self.security}-bit" if self.security else "insecure"

    def drift(self, level: int) -> float:
        """What a rescale at ``level`` multiplies the value by, since scales are kept nominal: Δ / q.

        Primes alternate around 2^scale_bits, so it stays within about 0.2 % of 1 and does not build up.
        """
        return self.scale / self.primes[level]


@dataclass(frozen=True)
class ParametersLiteral:
    """Unchecked parameters, as a person writes them; :meth:`checked` finds the primes and checks them.

    Attributes:
        ring_degree: N, a power of two.
        levels: rescales wanted.
        scale_bits: log2 of the scale, and of the primes that rescales divide by.
        first_bits: bits of the first data prime, which holds the result.
        special_bits: bits of the key-switching prime.
        security: 128, 192, 256, or 0 for ``insecure`` test parameters.
    """

    ring_degree: int
    levels: int
    scale_bits: int = 30
    first_bits: int = 42
    special_bits: int = 50
    security: int = 128

    def checked(self) -> Parameters:
        """Find the primes and check the result.

        Raises:
            ParametersError: outside the security table or the engine's reach.
        """
        if not 0 < self.levels <= MAX_PRIMES - 2:
            raise ParametersError(f"{self.levels} levels", remedy=f"Choose 1 to {MAX_PRIMES - 2}.")
        # Primes of rescales lie on both sides of the scale, the others below their power of two.
        most = (MAX_PRIME_BITS - 1, MAX_PRIME_BITS, MAX_PRIME_BITS)
        for bits, top in zip((self.scale_bits, self.first_bits, self.special_bits), most, strict=True):
            if not 20 <= bits <= top:
                raise ParametersError(f"a prime of {bits} bits", remedy=f"Choose 20 to {top}.")
        _check_ring(self.ring_degree)
        edge = _primes_below(self.first_bits, self.ring_degree)
        first = next(edge)
        special = next(edge) if self.special_bits == self.first_bits else None
        if special is None:
            special = next(_primes_below(self.special_bits, self.ring_degree))
        middle = _primes_around(self.scale_bits, self.ring_degree, self.levels, {first, special})
        return check(Parameters(self.ring_degree, (first, *middle, special), self.scale_bits, self.security))


def check(parameters: Parameters) -> Parameters:
    """Check parameters from anywhere, the wire included; returns them.

    Raises:
        ParametersError: a prime that is none, that repeats or does not fit the ring, or a modulus
            above the 2024 table's bound for the ring and the security level.
    """
    p = parameters
    _check_ring(p.ring_degree)
    if not 3 <= len(p.primes) <= MAX_PRIMES:
        raise ParametersError(f"{len(p.primes)} primes", remedy=f"Use 3 to {MAX_PRIMES}.")
    if len(set(p.primes)) != len(p.primes):
        raise ParametersError("a prime stands twice in the modulus", remedy="Use distinct primes.")
    for q in p.primes:
        if not 2**19 < q < 2**MAX_PRIME_BITS or q % (2 * p.ring_degree) != 1 or not is_prime(q):
            raise ParametersError(
                f"{q} is not a prime of 20 to {MAX_PRIME_BITS} bits that is 1 mod {2 * p.ring_degree}",
                remedy="Let blindtune choose the primes: use ParametersLiteral.",
            )
    _check_digits(p)
    if not 15 <= p.scale_bits < MAX_PRIME_BITS:
        raise ParametersError(f"a scale of {p.scale_bits} bits", remedy="Use 15 to 59.")
    if any(abs(math.log2(q) - p.scale_bits) > 0.5 for q in p.primes[1 : -p.special]):
        raise ParametersError(
            "a rescaling prime is far from the scale", remedy="Use ParametersLiteral, which chooses them."
        )
    if p.security == INSECURE:
        return p
    if p.security not in SECURITY_TABLE:
        raise ParametersError(f"no security level {p.security}", remedy="Choose 128, 192 or 256.")
    bound = SECURITY_TABLE[p.security].get(p.ring_degree)
    if bound is None or p.modulus_bits > bound:
        allowed = "no modulus at all" if bound is None else f"at most {bound} bits"
        raise ParametersError(
            f"a modulus of {p.modulus_bits:.1f} bits at ring degree {p.ring_degree} is not {p.security}-bit "
            f"secure; the 2024 table allows {allowed}",
            remedy="Use fewer levels or a larger ring.",
        )
    return p


def most_levels(ring_degree: int, scale_bits: int, edge_bits: int, security: int) -> int:
    """Levels that the table leaves beside first and special prime of ``edge_bits`` together.

    One bit is kept back: the primes nearest to a power of two may lie above it.
    """
    left = SECURITY_TABLE[security].get(ring_degree, 0) - edge_bits - 1
    return min(max(left, 0) // scale_bits, MAX_PRIMES - 2)


@lru_cache(maxsize=4096)
def is_prime(n: int) -> bool:
    """Miller-Rabin with the bases that decide every n below 2^64 (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if n < 2 or any(n % b == 0 for b in bases):
        return n in bases
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for base in bases:
        x = pow(base, d, n)
        if x in (1, n - 1):
            continue
        for _ in range(s - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def _check_ring(ring_degree: int) -> None:
    if ring_degree & (ring_degree - 1) or not MIN_RING_DEGREE <= ring_degree <= MAX_RING_DEGREE:
        raise ParametersError(
            f"ring degree {ring_degree}",
            remedy=f"Choose a power of two from {MIN_RING_DEGREE} to {MAX_RING_DEGREE}.",
        )


def _check_digits(p: Parameters) -> None:
    """A digit has to stay below the product of the key-switching primes, or its noise drowns the values."""
    data = p.levels + 1
    rows = -(-data // p.key_digits) if p.digits >= 0 and p.special >= 1 and data >= 2 else 0
    if rows < 1 or -(-data // rows) != p.key_digits:
        raise ParametersError(f"{p.digits} digits of {data} data primes, {p.special} special primes")
    digits = [math.prod(p.primes[at : min(at + rows, data)]) for at in range(0, data, rows)]
    if p.digits and 2 * math.prod(p.primes[-p.special :]) < max(digits):
        raise ParametersError("special primes that are shorter than a digit", remedy="Use more of them.")


def _primes_below(bits: int, ring_degree: int) -> Iterator[int]:
    q = 2**bits + 1 - 2 * ring_degree
    while q > 2 ** (bits - 1):
        if is_prime(q):
            yield q
        q -= 2 * ring_degree
    raise ParametersError(f"too few primes of {bits} bits", remedy="Choose larger primes or a smaller ring.")


def _primes_around(bits: int, ring_degree: int, count: int, taken: set[int]) -> list[int]:
    """The primes nearest to 2^bits, nearest first: nominal scales then drift least."""
    step, centre = 2 * ring_degree, 2**bits + 1
    chosen: list[int] = []
    for distance in range(1, 2**bits // (4 * step)):
        for q in (centre + distance * step, centre - distance * step):
            if q not in taken and is_prime(q):
                chosen.append(q)
        if len(chosen) >= count:
            return chosen[:count]
    raise ParametersError(f"too few primes of {bits} bits", remedy="Choose larger primes or a smaller ring.")
