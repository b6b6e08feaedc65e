"""Parameters: what is found is checked, what is checked stays below the table, what is wrong is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import ParametersError
from blindtune.params import (
    INSECURE,
    SECURITY_TABLE,
    Parameters,
    ParametersLiteral,
    check,
    is_prime,
    most_levels,
)

RINGS = [1024, 2048, 4096, 8192, 16384, 32768, 65536]


def trial_division(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1))


def test_the_table_is_the_one_of_eprint_2024_463() -> None:
    assert SECURITY_TABLE[128] == {4096: 106, 8192: 214, 16384: 430, 32768: 868, 65536: 1747}
    assert SECURITY_TABLE[192] == {4096: 73, 8192: 147, 16384: 297, 32768: 597, 65536: 1199}
    assert SECURITY_TABLE[256] == {4096: 56, 8192: 114, 16384: 230, 32768: 462, 65536: 929}


def test_small_numbers_are_prime_when_trial_division_says_so() -> None:
    assert [n for n in range(5000) if is_prime(n)] == [n for n in range(5000) if trial_division(n)]


@pytest.mark.parametrize("n", [3215031751, 3825123056546413051, 2**61 + 1, 561, 341550071728321, 0, 1, -7])
def test_pseudoprimes_are_not_prime(n: int) -> None:
    assert not is_prime(n)


@pytest.mark.parametrize("n", [2**61 - 1, 2**31 - 1, 37, 2, 1000000007])
def test_known_primes_are_prime(n: int) -> None:
    assert is_prime(n)


def test_the_design_chain_fits_the_table_and_one_level_more_does_not() -> None:
    p = ParametersLiteral(16384, 11).checked()
    assert p.levels == 11
    assert p.modulus_bits == pytest.approx(42 + 11 * 30 + 50, abs=1e-3)
    assert [q.bit_length() for q in (p.primes[0], p.primes[-1])] == [42, 50]
    assert (p.slots, p.scale, p.security_name) == (8192, 2.0**30, "128-bit")
    with pytest.raises(
        ParametersError, match=r"452\.0 bits.*not 128-bit secure.*at most 430 bits.*fewer levels"
    ):
        ParametersLiteral(16384, 12).checked()


@given(
    ring=st.sampled_from(RINGS),
    levels=st.integers(-1, 70),
    scale=st.integers(15, 62),
    first=st.integers(15, 62),
    special=st.integers(15, 62),
    security=st.sampled_from([0, 128, 192, 256, 100]),
)
def test_a_literal_gives_sound_parameters_or_is_refused(
    ring: int, levels: int, scale: int, first: int, special: int, security: int
) -> None:
    try:
        p = ParametersLiteral(ring, levels, scale, first, special, security).checked()
    except ParametersError:
        return
    assert p.levels == levels
    assert len(set(p.primes)) == len(p.primes) == levels + 2
    assert all(is_prime(q) and q % (2 * ring) == 1 for q in p.primes)
    if security:
        assert p.modulus_bits <= SECURITY_TABLE[security][ring]
    # Few primes are that near at small scales, so drift is held to what check() promises there.
    assert all(2**-0.5 <= p.drift(level) <= 2**0.5 for level in range(1, levels + 1))
    assert check(p) is p
    # The rescaling primes are the nearest that there are, nearest first, above the scale and below.
    distances = [abs(q - (2**scale + 1)) for q in p.primes[1:-1]]
    assert distances == sorted(distances)
    nearer = range(2 * ring, distances[-1], 2 * ring)
    between = {q for d in nearer for q in (2**scale + 1 - d, 2**scale + 1 + d) if is_prime(q)}
    assert between <= set(p.primes)


def test_the_tables_bound_is_a_bound() -> None:
    assert 429 < ParametersLiteral(16384, 11, special_bits=57).checked().modulus_bits < 430
    # The primes nearest to 2^30 multiply to a little more than 2^330 here, so 430 bits are just too many.
    over = ParametersLiteral(16384, 11, special_bits=58, security=INSECURE).checked()
    assert 430 < over.modulus_bits < 430.001
    for bits, said in ((58, r"430\.0"), (59, r"431\.0")):
        with pytest.raises(ParametersError, match=rf"{said} bits .* at most 430 bits"):
            ParametersLiteral(16384, 11, special_bits=bits).checked()


def test_drift_stays_small_and_does_not_build_up() -> None:
    p = ParametersLiteral(16384, 11).checked()
    drifts = [p.drift(level) for level in range(1, 12)]
    assert max(abs(d - 1) for d in drifts) < 2.5e-3
    assert abs(math.prod(drifts) - 1) < 1e-4
    assert min(drifts) < 1 < max(drifts)
    assert p.drift(3) == 2**30 / p.primes[3]


GOOD = ParametersLiteral(1024, 3, security=INSECURE).checked()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (replace(GOOD, ring_degree=1000), "ring degree 1000"),
        (replace(GOOD, ring_degree=512), "ring degree 512"),
        (replace(GOOD, ring_degree=0), "ring degree 0"),
        (replace(GOOD, ring_degree=-1024), "ring degree -1024"),
        (replace(GOOD, ring_degree=131072), "ring degree 131072"),
        (replace(GOOD, primes=GOOD.primes[:2]), "2 primes"),
        (replace(GOOD, primes=()), "0 primes"),
        (replace(GOOD, primes=GOOD.primes * 20), "100 primes"),
        (replace(GOOD, primes=(*GOOD.primes[:-1], GOOD.primes[0])), "stands twice"),
        (replace(GOOD, primes=(GOOD.primes[0] + 2048, *GOOD.primes[1:])), "is not a prime"),
        (replace(GOOD, primes=(*GOOD.primes[:-1], 12289)), "is not a prime of 20"),
        (replace(GOOD, primes=(*GOOD.primes[:-1], -3)), "is not a prime"),
        (replace(GOOD, primes=(*GOOD.primes[:-1], 2**61 - 1)), "is not a prime"),
        (replace(GOOD, scale_bits=14), "scale of 14"),
        (replace(GOOD, scale_bits=28), "far from the scale"),
        (replace(GOOD, security=128), "no modulus at all"),
        (replace(GOOD, security=99), "no security level 99"),
        (replace(GOOD, security=-1), "no security level"),
    ],
)
def test_wrong_parameters_are_refused(broken: Parameters, message: str) -> None:
    with pytest.raises(ParametersError, match=message):
        check(broken)


def test_most_levels_is_the_last_that_fits() -> None:
    for security, table in SECURITY_TABLE.items():
        for ring, bound in table.items():
            levels = most_levels(ring, 30, 42 + 50, security)
            # One bit is kept back for primes above their powers of two.
            if levels < 62:
                assert 93 + 30 * (levels + 1) > bound
            if levels > 0:
                assert 93 + 30 * levels <= bound
                assert ParametersLiteral(ring, levels, security=security).checked().levels == levels
    assert most_levels(16384, 30, 42 + 50, 128) == 11
    assert most_levels(4096, 30, 42 + 50, 128) == 0
    assert most_levels(1024, 30, 42 + 50, 128) == 0


def test_digits_and_special_primes_go_together() -> None:
    # Five data primes of 30 bits after one of 42; special ones of 50.
    single = ParametersLiteral(4096, 5, security=INSECURE).checked()
    assert (single.special, single.key_digits, single.levels) == (1, 6, 5)
    q = single.primes[-1] - 8192
    while not is_prime(q):
        q -= 8192
    double = replace(single, primes=(*single.primes, q), special=2, digits=3)
    assert (check(double).key_digits, double.levels) == (3, 5)
    assert double.modulus_bits == pytest.approx(single.modulus_bits + 50, abs=0.1)
    # Four digits would be of two primes each, which makes three; of three primes each they are too long.
    for wrong in (
        {"digits": 4},
        {"digits": 1},
        {"digits": 7},
        {"digits": -1},
        {"special": 0},
        {"special": 7},
    ):
        with pytest.raises(ParametersError):
            check(replace(double, **wrong))
