"""Strict schemas, and that of keys which the server bootstraps with."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from blindtune.errors import BundleError
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.params import MAX_PRIMES, Parameters

Small = Annotated[int, Field(ge=1, le=1 << 20)]


class Strict(BaseModel):
    """A schema that takes no unknown field and converts nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class BootstrappingModel(Strict):
    """:class:`blindtune.he.openfhe.bootstrapping.Bootstrapping` on the wire, beside what kernels see of it.

    Attributes:
        primes: of the whole modulus: data primes, then the special ones.
        special: how many of them are special.
        digits, period, budget: see there.
    """

    primes: Annotated[list[int], Field(min_length=3, max_length=MAX_PRIMES)]
    special: Annotated[int, Field(ge=1, le=MAX_PRIMES)]
    digits: Annotated[int, Field(ge=1, le=MAX_PRIMES)]
    period: Small
    budget: Annotated[int, Field(ge=2, le=8)]

    def checked(self, shown: Parameters) -> tuple[Bootstrapping, Parameters]:
        """The literal, and the parameters of its keys, all primes counted for security.

        Args:
            shown: what kernels see of them, checked.

        Raises:
            ParametersError: numbers that do not go together, or outside the security table.
            BundleError: other primes than the parameters have.
        """
        found = Bootstrapping(
            shown.ring_degree,
            shown.levels,
            self.period,
            shown.scale_bits,
            shown.primes[0].bit_length(),
            self.digits,
            self.budget,
            shown.security,
        )
        keys = found.key_parameters(self.primes)
        if self.special != keys.special or found.parameters(keys.primes) != shown:
            raise BundleError("the keys' primes are not those of the parameters")
        return found, keys


def bootstrapping_model(literal: Bootstrapping, keys: Parameters) -> BootstrappingModel:
    """A bootstrap for the wire, with the parameters of its keys."""
    return BootstrappingModel(
        primes=list(keys.primes),
        special=keys.special,
        digits=keys.digits,
        period=literal.period,
        budget=literal.budget,
    )
