"""Every operation equals SEAL's residue by residue, whatever the shape."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.errors import EngineError
from blindtune.he.engine import Ciphertext, Engine, KeySet
from blindtune.he.fast.engine import FastEngine, supports
from blindtune.he.fast.vector import Variant
from blindtune.params import Parameters, ParametersLiteral
from tests.he.fast.pairs import STEPS, VARIANTS, Pair, owner, pair


@st.composite
def chains(draw: st.DrawFn) -> Parameters:
    """Chains of narrow and wide moduli, lazy and strict, also such as differ much."""
    levels = draw(st.integers(1, 5))
    scale = draw(st.sampled_from([28, 30, 31, 32, 33, 36, 40, 43, 44, 45, 49]))
    # SEAL wants room for a product's scale at level 1.
    first, special = draw(st.integers(scale + 1, 50)), draw(st.sampled_from([36, 45, 49, 50]))
    degree = draw(st.sampled_from([1024, 2048, 4096]))
    return ParametersLiteral(degree, levels, scale, first, special, security=0).checked()


def everything(engine: Engine, a: list[Ciphertext], rows: int, groups: int = 2) -> list[Ciphertext]:
    """Results of every operation that is SEAL's step by step."""
    count = len(a)
    rights = [[a[(i + k) % count] for i in range(2 * count + 1)] for k in range(rows)]
    lefts = [[a[(i * (m + 1) + m) % count] for i in range(2 * count + 1)] for m in range(groups)]
    products = engine.multiply_accumulate(lefts, rights)
    few = [[row[:count] for row in table] for table in (lefts, rights)]
    onto = engine.multiply_accumulate(*few, onto=products)
    flat = engine.relinearise(onto)
    found = [*products, *onto, *flat, *engine.rescale(onto), *engine.rescale(flat)]
    found += engine.rotate(a, STEPS[1])
    found += engine.rotate(flat, STEPS[0], onto=flat)
    found += engine.conjugate(a, onto=a)
    found += [engine.add(a[0], a[-1]), engine.subtract(onto[0], products[0])]
    return [*found, engine.multiply_scalar(a[0], -0.37), engine.multiply_scalar(a[-1], 1e-2)]


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=12)
@given(
    parameters=chains(),
    threads=st.integers(1, 3),
    count=st.integers(1, 4),
    rows=st.integers(1, 3),
    groups=st.integers(1, 3),
    lowered=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_all_operations_equal_seals(
    variant: Variant,
    parameters: Parameters,
    threads: int,
    count: int,
    rows: int,
    groups: int,
    lowered: int,
    seed: int,
) -> None:
    made = owner(parameters)
    both = pair(made, variant, threads)
    data = made.encrypted(count, seed)
    level = max(1, parameters.levels - lowered)
    theirs, ours = (
        everything(e, [e.at_level(e.load(d), level) for d in data], rows, groups)
        for e in (both.seal, both.fast)
    )
    for x, y in zip(theirs, ours, strict=True):
        both.same(x, y)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("scale", "first", "special"), [(30, 42, 50), (43, 50, 49)])
def test_the_greatest_residues_overflow_nothing(
    variant: Variant, scale: int, first: int, special: int
) -> None:
    made = owner(ParametersLiteral(1024, 2, scale, first, special, security=0).checked())
    both = pair(made, variant, 2)
    found = []
    for e in (both.seal, both.fast):
        a, b = e.load(made.greatest()), e.load(made.greatest(3, product=True))
        # More terms than a lazy sum may have.
        sums = e.multiply_accumulate([[a] * 4100] * 2, [[a] * 4100], onto=[b, b])
        found.append([*sums, *everything(e, [a], 1), *e.relinearise([b]), *e.rescale([b])])
    for x, y in zip(*found, strict=True):
        both.same(x, y)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("product", [False, True])
def test_a_rotation_onto_an_unrelinearised_sum(variant: Variant, product: bool) -> None:
    made = owner(ParametersLiteral(2048, 3, security=0).checked())
    both = pair(made, variant, 2)
    data, values = made.encrypted(3, 1), []
    for e in (both.seal, both.fast):
        batch = [e.load(d) for d in data]
        sums = e.multiply_accumulate([batch], [batch, batch[::-1]])
        onto = sums if product else e.rescale(sums)
        flat = e.relinearise(onto)
        turned = e.rotate(flat, STEPS[0], onto) + e.conjugate(flat, onto)
        if product:
            turned = e.rescale(turned)
        values.append([made.key.decrypt(made.key.load(e.dump(c))) for c in turned])
    np.testing.assert_allclose(values[1], values[0], atol=2e-5, rtol=0)


def test_parameters_in_use() -> None:
    made = owner(ParametersLiteral(16384, 10).checked())
    both = pair(made, VARIANTS[-1], 2)
    data = made.encrypted(2, 3)
    for level in (10, 4):
        theirs, ours = (
            everything(e, [e.at_level(e.load(d), level) for d in data], 2) for e in (both.seal, both.fast)
        )
        for x, y in zip(theirs, ours, strict=True):
            both.same(x, y)


@pytest.fixture(scope="module")
def tiny_pair() -> Pair:
    return pair(owner(ParametersLiteral(1024, 4, security=0).checked()), VARIANTS[-1], 2)


def test_a_lowered_ciphertext_is_a_view(tiny_pair: Pair) -> None:
    e, made = tiny_pair.fast, owner(tiny_pair.fast.parameters)
    a = e.load(made.encrypted(1, 0)[0])
    low = e.at_level(a, 2)
    assert low.raw.address == a.raw.address
    kept = e.dump(low)
    del a
    # Its memory is not handed out again while the view lives.
    for data in made.encrypted(4, 5):
        e.load(data)
    assert e.dump(low) == kept


def test_calls_from_several_threads_wait_for_each_other(tiny_pair: Pair) -> None:
    e, made = tiny_pair.fast, owner(tiny_pair.fast.parameters)
    batch = [e.load(d) for d in made.encrypted(2, 0)]
    expected = [e.dump(c) for c in e.rotate(batch, STEPS[0])]
    wrong = []

    def work() -> None:
        for _ in range(10):
            if [e.dump(c) for c in e.rotate(batch, STEPS[0])] != expected:
                wrong.append(True)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_what_hides_nothing_and_keys_are_no_ciphertexts(tiny_pair: Pair) -> None:
    made = owner(tiny_pair.fast.parameters)
    with pytest.raises(EngineError, match="a key instead"):
        tiny_pair.fast.load(made.relinearisation)
    a = tiny_pair.fast.load(made.encrypted(1, 0)[0])
    nothing = tiny_pair.fast.subtract(a, a)
    with pytest.raises(EngineError, match="hides nothing"):
        tiny_pair.fast.load(tiny_pair.fast.dump(nothing))


def test_parameters_that_kernels_do_not_serve() -> None:
    large = ParametersLiteral(1024, 2, special_bits=51, security=0).checked()
    reason = supports(large)
    assert reason is not None
    assert "50 bits" in reason
    made = owner(large)
    with pytest.raises(EngineError, match="need SEAL itself"):
        made.fast(Variant.PORTABLE, 1)
    assert supports(ParametersLiteral(1024, 2, security=0).checked()) is None


def test_a_missing_swapped_or_damaged_key_is_refused() -> None:
    made = owner(ParametersLiteral(1024, 4, security=0).checked())
    p, keys, relin, galois = made.parameters, KeySet(STEPS), made.relinearisation, made.galois
    element = next(iter(galois))
    some = {e: k for e, k in galois.items() if e != element}
    with pytest.raises(EngineError, match=f"element {element} is missing"):
        FastEngine(p, keys, relin, some)
    swapped = dict(zip(galois, reversed(galois.values()), strict=True))
    with pytest.raises(EngineError, match=f"does not hold element {element}"):
        FastEngine(p, keys, relin, swapped)
    with pytest.raises(EngineError, match="relinearisation key is a key of another kind"):
        FastEngine(p, keys, galois[element], galois)
    with pytest.raises(EngineError, match="a Galois key is a key of another kind"):
        FastEngine(p, keys, relin, {**galois, element: relin})
    with pytest.raises(EngineError, match="the relinearisation key does not load"):
        FastEngine(p, keys, relin[:-8], galois)
    with pytest.raises(EngineError, match="a Galois key does not load"):
        FastEngine(p, keys, relin, {**galois, element: galois[element][:100]})
    with pytest.raises(EngineError, match="does not load"):
        FastEngine(p, keys, owner(ParametersLiteral(1024, 2, security=0).checked()).relinearisation, galois)
