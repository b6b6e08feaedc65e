"""Bootstrapping on the server, for a single owner's key: weights come back with all levels, and nobody helps.

For trainings of more steps than any ring holds levels for. The modulus is as long as the ring allows; rows
are encrypted at the few levels that the steps between two bootstraps need, weights alone go up to the top.
OpenFHE bootstraps (Cheon et al., Eurocrypt 2018; for keys that are not sparse, Bossuat et al., Eurocrypt
2021): it raises the modulus and takes the multiples of the old one off by a sine, which is the identity only
for coefficients that are small beside the first prime over the scale. Its error does not grow with the
weights: encrypt them large, in tens. Weights repeat in their slots, so few slots are bootstrapped.

Keys switch by several special primes and few digits, or they would weigh several times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blindtune.errors import ParametersError
from blindtune.he.codec import conjugation_element, galois_elements
from blindtune.he.engine import KeySet
from blindtune.params import INSECURE, MAX_PRIME_BITS, SECURITY_TABLE, Parameters, check

SPECIAL_BITS = 60
REDUCTION = 14
"""Levels of OpenFHE's approximate modular reduction for keys that are not sparse."""

LEFT = 1
"""Levels that a ciphertext has to have left."""

ON_THE_WAY = 4
"""A key that is loaded lies in memory as packed bytes, as residues twice, and as OpenFHE's bytes."""


@dataclass(frozen=True)
class Bootstrapping:
    """Parameters of a context that bootstraps.

    Attributes:
        ring_degree: N.
        levels: rescales between two bootstraps; rows are encrypted with as many.
        period: slots that are bootstrapped, after which weights repeat.
        scale_bits, first_bits: of the rescaling primes and of the first.
        digits: that a key switch takes; fewer take longer special primes.
        budget: levels that each of the two changes between slots and coefficients takes.
        security: 128, 192, 256, or 0 for tests.
    """

    ring_degree: int
    levels: int
    period: int
    scale_bits: int = 51
    first_bits: int = 59
    digits: int = 5
    budget: int = 3
    security: int = 128

    @property
    def depth(self) -> int:
        """Levels of the whole modulus."""
        return self.levels + REDUCTION + 2 * self.budget

    @property
    def special_primes(self) -> int:
        """Special primes: together longer than any digit."""
        longest = max(self.first_bits, self.scale_bits) + (self._rows - 1) * self.scale_bits
        return -(-longest // SPECIAL_BITS)

    @property
    def modulus_bits(self) -> float:
        """Bits of all primes, the special ones too; at most half a bit more than there are."""
        return self.first_bits + self.depth * self.scale_bits + self.special_primes * SPECIAL_BITS + 0.5

    @property
    def key_bytes(self) -> int:
        """Memory of one key-switching key."""
        return 2 * self.digits * self._limbs_bytes

    @property
    def table_bytes(self) -> int:
        """Memory of the matrices between slots and coefficients, at most."""
        return sum(2 * ((2 << bits) - 1) for bits in self._stages) * self._limbs_bytes

    @property
    def fits(self) -> bool:
        """Whether its numbers go together, and the modulus is within the 2024 table's bound."""
        return self._possible and (self.security == INSECURE or self.modulus_bits <= self._allowed)

    def check(self) -> Bootstrapping:
        """These parameters.

        Raises:
            ParametersError: none that bootstrap, or less secure than they say, by the 2024 table.
        """
        if not self._possible:
            raise ParametersError(
                f"{self.period} slots of ring degree {self.ring_degree} cannot be bootstrapped by "
                f"{self.digits} digits in {self.budget} levels a change"
            )
        if not self.fits:
            raise ParametersError(
                f"{self.modulus_bits:.0f} bits at ring degree {self.ring_degree}, where the 2024 table "
                f"allows {self._allowed}",
                remedy="Use fewer levels, a smaller scale or more digits.",
            )
        return self

    def key_parameters(self, primes: Sequence[int]) -> Parameters:
        """The parameters of its keys: over all primes, data primes first.

        Raises:
            ParametersError: see :meth:`check` and :func:`blindtune.params.check`; other primes than these
                parameters call for.
        """
        b = self.check()
        found = Parameters(b.ring_degree, tuple(primes), b.scale_bits, b.security, b.special_primes, b.digits)
        if len(primes) != b.depth + 1 + b.special_primes or primes[0].bit_length() != b.first_bits:
            raise ParametersError(f"{len(primes)} primes are not those of a bootstrap of {b.depth} levels")
        return check(found)

    def parameters(self, primes: Sequence[int]) -> Parameters:
        """What kernels see of them: the levels between two bootstraps, and one special prime."""
        return Parameters(
            self.ring_degree,
            (*primes[: self.levels + 1], primes[self.depth + 1]),
            self.scale_bits,
            self.security,
        )

    @property
    def rotations(self) -> tuple[int, ...]:
        """Rotations of OpenFHE's slots that a bootstrap takes.

        A change between slots and coefficients goes by stages of a few bits of the slot's number, each by
        baby and giant steps over multiples of its lowest bit; the shorter stage comes first on the way to
        coefficients and last on the way back. Slots that repeat are summed, three at a time, before.
        """
        found: set[int] = set()
        for stages in (self._stages, self._stages[::-1]):
            at = 0
            for bits in stages:
                found.update(step << at for step in range(1, (1 << bits) + 1))
                at += bits
        step, slots = self.period, self.ring_degree // 2
        if step < slots:
            found.add(step + 1)
        while step < slots:
            found.update((step, 2 * step, 3 * step))
            step *= 4
        return tuple(sorted(step for step in found if step < slots))

    def galois_elements(self, keys: KeySet) -> list[int]:
        """The elements of all Galois keys: a layout's and a bootstrap's."""
        top = 2 * self.ring_degree
        own = {pow(5, step, top) for step in self.rotations} | {conjugation_element(self.ring_degree)}
        return sorted(own.union(galois_elements(keys, self.ring_degree)))

    def memory_bytes(self, keys: KeySet) -> int:
        """Memory of an engine's keys and matrices, and of a key on its way."""
        count = 1 + len(self.galois_elements(keys))
        return (count + ON_THE_WAY) * self.key_bytes + self.table_bytes

    def sent_bytes(self, keys: KeySet) -> int:
        """All keys as they are sent: of each digit one polynomial, the other is a seed."""
        count = 1 + len(self.galois_elements(keys))
        return int(count * self.digits * self.modulus_bits * self.ring_degree / 8)

    @property
    def _rows(self) -> int:
        """Data primes of a digit."""
        return -(-(self.depth + 1) // max(1, self.digits))

    @property
    def _limbs_bytes(self) -> int:
        """Memory of a polynomial over all primes."""
        return (self.depth + 1 + self.special_primes) * 8 * self.ring_degree

    @property
    def _stages(self) -> list[int]:
        """Bits of the slot's number by stage: the shorter one, then the equal ones."""
        bits, others = self.period.bit_length() - 1, self.budget - 1
        each = -(-bits // self.budget)
        if each * others >= bits:
            each = bits // self.budget
        return [bits - each * others, *[each] * others]

    @property
    def _possible(self) -> bool:
        slots, period = self.ring_degree // 2, self.period
        sizes = self.levels >= 1 and 20 <= self.scale_bits < self.first_bits < MAX_PRIME_BITS
        stages = 2 <= self.budget < period.bit_length() and period == period & -period <= slots
        return sizes and stages and self.digits == -(-(self.depth + 1) // self._rows)

    @property
    def _allowed(self) -> int:
        return SECURITY_TABLE.get(self.security, {}).get(self.ring_degree, 0)
