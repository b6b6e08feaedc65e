"""One contract for every engine: values against numpy, bookkeeping, refusals, serialisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from blindtune.errors import EngineError
from blindtune.he import blob
from blindtune.he.blob import Header, Kind
from blindtune.he.clear import ClearEngine, CountingEngine
from blindtune.he.cpu import has_ifma
from blindtune.he.engine import Ciphertext, Engine, KeySet, Ledger
from blindtune.he.fast.engine import FastEngine
from blindtune.he.fast.vector import Variant
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.he.openfhe.bootstrapping_owner import BootstrappingKey
from blindtune.he.openfhe.engine import OpenFheEngine
from blindtune.he.openfhe.secret import OpenFheSecretKey
from blindtune.he.seal import SealEngine, galois_element, galois_elements
from blindtune.he.secret import SecretKey
from blindtune.params import Parameters, ParametersLiteral
from blindtune.plan import insecure_test_parameters
from tests.openfhe import needs_openfhe

KEYS = KeySet((1, 5, 511))
TOP = 11

needs_ifma = pytest.mark.skipif(not has_ifma(), reason="the processor has no AVX-512 IFMA")
needs_seal = pytest.mark.skipif(find_spec("tenseal") is None, reason="TenSEAL is not installed")


class One:
    """An engine's operations on one ciphertext instead of a batch."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def multiply_accumulate(
        self, lefts: list[Ciphertext], rights: list[Ciphertext], onto: Ciphertext | None = None
    ) -> Ciphertext:
        found: list[Ciphertext] = self._engine.multiply_accumulate(
            [lefts], [rights], None if onto is None else [onto]
        )
        return found[0]

    def relinearise(self, a: Ciphertext) -> Ciphertext:
        found: list[Ciphertext] = self._engine.relinearise([a])
        return found[0]

    def rescale(self, a: Ciphertext) -> Ciphertext:
        found: list[Ciphertext] = self._engine.rescale([a])
        return found[0]

    def rotate(self, a: Ciphertext, steps: int, onto: Ciphertext | None = None) -> Ciphertext:
        found: list[Ciphertext] = self._engine.rotate([a], steps, None if onto is None else [onto])
        return found[0]

    def conjugate(self, a: Ciphertext, onto: Ciphertext | None = None) -> Ciphertext:
        found: list[Ciphertext] = self._engine.conjugate([a], None if onto is None else [onto])
        return found[0]


@dataclass(frozen=True)
class Bench:
    """An engine with its key owner's side, and how near numpy it must stay."""

    engine: Any
    encrypt: Callable[[NDArray[Any]], Ciphertext]
    decrypt: Callable[[Ciphertext], NDArray[Any]]
    near: float

    @property
    def one(self) -> Any:
        return One(self.engine)

    def values(self, seed: int) -> NDArray[np.complex128]:
        rng = np.random.default_rng(seed)
        slots = self.engine.parameters.slots
        return rng.uniform(-1, 1, slots) + 1j * rng.uniform(-1, 1, slots)

    def pair(self, seed: int = 0) -> tuple[NDArray[np.complex128], Ciphertext]:
        values = self.values(seed)
        return values, self.encrypt(values)

    def holds(self, c: Ciphertext, expected: NDArray[Any], level: int, looser: float = 1) -> None:
        np.testing.assert_allclose(self.decrypt(c), expected, atol=looser * self.near, rtol=0)
        assert (c.level, c.product, c.size) == (level, False, 2)

    def product(self, a: Ciphertext, b: Ciphertext) -> Ciphertext:
        e = self.one
        return e.rescale(e.relinearise(e.multiply_accumulate([a], [b])))


@pytest.fixture(scope="module")
def seal_engine(tiny_key: SecretKey) -> SealEngine:
    return tiny_key.engine(KEYS)


@pytest.fixture
def seal_bench(seal_engine: SealEngine, tiny_key: SecretKey) -> Bench:
    engine = seal_engine
    engine.ledger = Ledger()
    return Bench(engine, lambda v: engine.load(tiny_key.encrypt(v)), tiny_key.decrypt, 1.2e-5)


@pytest.fixture(scope="module")
def fast_benches(tiny_key: SecretKey) -> Callable[[str], Bench]:
    """Benches of the engine with kernels, one for each variant, made when first asked for."""
    relin = tiny_key.relinearisation_key()
    galois = {e: tiny_key.galois_key(e) for e in tiny_key.galois_elements(KEYS)}

    @cache
    def made(name: str) -> Bench:
        variant, threads = (Variant.IFMA, 1) if name == "ifma" else (Variant.PORTABLE, 2)
        engine = FastEngine(tiny_key.parameters, KEYS, relin, galois, threads, variant)
        return Bench(
            engine,
            lambda v: engine.load(tiny_key.encrypt(v)),
            lambda c: tiny_key.decrypt(tiny_key.load(engine.dump(c))),
            1.2e-5,
        )

    return made


@pytest.fixture(scope="module")
def openfhe_key() -> OpenFheSecretKey:
    # Of 120 keys with a scale of 30 bits some rotate with an error of 1.6e-5.
    parameters = ParametersLiteral(1024, TOP, 32, 44, 60, security=0).checked()
    return OpenFheSecretKey.generate(parameters)


@pytest.fixture(scope="module")
def openfhe_bench(openfhe_key: OpenFheSecretKey) -> Bench:
    key, engine = openfhe_key, openfhe_key.engine(KEYS)
    return Bench(engine, lambda v: engine.load(key.encrypt(v)), key.decrypt, 1.2e-5)


@pytest.fixture(scope="module")
def bootstrapping_bench() -> Bench:
    key = BootstrappingKey.generate(Bootstrapping(1024, TOP, 32, security=0))
    engine = key.engine(KEYS)
    return Bench(engine, lambda v: engine.load(key.encrypt(v)), key.decrypt, 1e-9)


@pytest.fixture(
    params=[
        "clear",
        pytest.param("seal", marks=needs_seal),
        pytest.param("ifma", marks=[needs_seal, needs_ifma]),
        pytest.param("portable", marks=needs_seal),
        pytest.param("openfhe", marks=needs_openfhe),
        pytest.param("bootstrapping", marks=needs_openfhe),
    ]
)
def bench(request: pytest.FixtureRequest, tiny: Parameters) -> Bench:
    if request.param in ("openfhe", "bootstrapping"):
        found: Bench = request.getfixturevalue(f"{request.param}_bench")
        found.engine.ledger = Ledger()
        return found
    if request.param in ("ifma", "portable"):
        fast: Bench = request.getfixturevalue("fast_benches")(request.param)
        fast.engine.ledger = Ledger()
        return fast
    if request.param == "clear":
        clear = ClearEngine(tiny, KEYS)
        return Bench(clear, clear.encrypt, clear.decrypt, 1e-12)
    seal: Bench = request.getfixturevalue("seal_bench")
    return seal


class TestContract:
    def test_fresh(self, bench: Bench) -> None:
        x, a = bench.pair()
        bench.holds(a, x, TOP)

    def test_add_and_subtract(self, bench: Bench) -> None:
        (x, a), (y, b) = bench.pair(), bench.pair(1)
        bench.holds(bench.engine.add(a, b), x + y, TOP)
        bench.holds(bench.engine.subtract(a, b), x - y, TOP)
        bench.holds(a, x, TOP)

    @pytest.mark.parametrize("steps", [1, 5, 511, -1, 513, 0, 512])
    def test_rotate_brings_later_slots_forward(self, bench: Bench, steps: int) -> None:
        x, a = bench.pair()
        bench.holds(bench.one.rotate(a, steps), np.roll(x, -steps), TOP)

    def test_conjugate(self, bench: Bench) -> None:
        x, a = bench.pair()
        bench.holds(bench.one.conjugate(a), x.conj(), TOP)

    def test_sum_of_products_and_its_bookkeeping(self, bench: Bench) -> None:
        e = bench.one
        pairs = [bench.pair(i) for i in range(6)]
        x, c = [p[0] for p in pairs], [p[1] for p in pairs]
        first = e.multiply_accumulate(c[:2], c[2:4])
        assert (first.level, first.product, first.size) == (TOP, True, 3)
        total = e.multiply_accumulate(c[4:5], c[5:6], onto=first)
        assert (total.level, total.product, total.size) == (TOP, True, 3)
        relinearised = e.relinearise(total)
        assert (relinearised.level, relinearised.product, relinearised.size) == (TOP, True, 2)
        expected = (x[0] * x[2] + x[1] * x[3] + x[4] * x[5]) * e.parameters.drift(TOP)
        bench.holds(e.rescale(relinearised), expected, TOP - 1)
        # The accumulator that went in is untouched.
        alone = (x[0] * x[2] + x[1] * x[3]) * e.parameters.drift(TOP)
        bench.holds(e.rescale(e.relinearise(first)), alone, TOP - 1)

    def test_products_add_and_rotate_before_the_rescale(self, bench: Bench) -> None:
        e = bench.one
        (x, a), (y, b) = bench.pair(), bench.pair(1)
        product = e.relinearise(e.multiply_accumulate([a], [b]))
        both = e.add(product, e.rotate(product, 5))
        expected = (x * y + np.roll(x * y, -5)) * e.parameters.drift(TOP)
        bench.holds(e.rescale(both), expected, TOP - 1)

    def test_rescale_before_relinearise(self, bench: Bench) -> None:
        e = bench.one
        (x, a), (y, b) = bench.pair(), bench.pair(1)
        c = e.rescale(e.multiply_accumulate([a], [b]))
        assert (c.level, c.product, c.size) == (TOP - 1, False, 3)
        lowered = e.at_level(c, TOP - 3)
        assert (lowered.level, lowered.product, lowered.size) == (TOP - 3, False, 3)
        # What the rescale rounds in the third polynomial is multiplied by the secret's square.
        bench.holds(e.relinearise(lowered), x * y * e.parameters.drift(TOP), TOP - 3, looser=20)

    @pytest.mark.parametrize("factor", [0.9, -0.25, 1.0, 3.0, 1e-5])
    def test_scalar_product_has_no_drift(self, bench: Bench, factor: float) -> None:
        x, a = bench.pair()
        bench.holds(bench.engine.multiply_scalar(a, factor), factor * x, TOP - 1)

    @pytest.mark.parametrize("level", [TOP, 7, 0])
    def test_at_level_keeps_the_values(self, bench: Bench, level: int) -> None:
        x, a = bench.pair()
        bench.holds(bench.engine.at_level(a, level), x, level)

    def test_every_level_can_be_spent_and_none_more(self, bench: Bench) -> None:
        e = bench.one
        x, a = bench.pair()
        for level in range(TOP, 0, -1):
            one = e.at_level(bench.encrypt(np.ones(e.parameters.slots)), level)
            a, x = bench.product(a, one), x * e.parameters.drift(level)
            bench.holds(a, x, level - 1)
        with pytest.raises(EngineError, match="no level left"):
            e.multiply_accumulate([a], [a])
        with pytest.raises(EngineError, match="without a level left"):
            e.multiply_scalar(a, 0.5)

    def test_refusals(self, bench: Bench) -> None:
        e = bench.one
        x, a = bench.pair()
        low, product = e.at_level(a, 5), e.multiply_accumulate([a], [a])
        flat = e.relinearise(product)
        refused: list[tuple[str, Callable[[], object]]] = [
            ("differ", lambda: e.add(a, low)),
            ("differ", lambda: e.subtract(a, low)),
            ("differ", lambda: e.add(a, flat)),
            ("differ", lambda: e.add(product, flat)),
            ("differ", lambda: e.multiply_accumulate([a], [low])),
            ("differ", lambda: e.multiply_accumulate([a, low], [a, low])),
            ("unrescaled", lambda: e.multiply_accumulate([product], [product])),
            ("unrescaled", lambda: e.multiply_accumulate([flat], [flat])),
            ("sums of \\[0\\] by", lambda: e.multiply_accumulate([], [])),
            ("\\[2\\] by \\[1\\]", lambda: e.multiply_accumulate([a, a], [a])),
            ("onto", lambda: e.multiply_accumulate([a], [a], onto=a)),
            ("onto", lambda: e.multiply_accumulate([a], [a], onto=flat)),
            ("onto", lambda: e.multiply_accumulate([low], [low], onto=product)),
            ("nothing to relinearise", lambda: e.relinearise(a)),
            ("nothing to rescale", lambda: e.rescale(a)),
            ("unrescaled", lambda: e.multiply_scalar(product, 0.5)),
            ("resolution", lambda: e.multiply_scalar(a, 100 / e.parameters.scale)),
            ("no key for a rotation by 2", lambda: e.rotate(a, 2)),
            ("before relinearisation", lambda: e.rotate(product, 1)),
            ("before relinearisation", lambda: e.conjugate(product)),
            ("cannot become", lambda: e.at_level(low, 6)),
            ("cannot become", lambda: e.at_level(a, -1)),
            ("cannot become", lambda: e.at_level(flat, 5)),
        ]
        counted = e.ledger.counts.copy()
        for message, attempt in refused:
            with pytest.raises(EngineError, match=message):
                attempt()
        assert e.ledger.counts == counted, "what is refused is not counted"
        assert (a.level, low.level) == (TOP, 5)
        bench.holds(low, x, 5)
        bench.holds(a, x, TOP)

    def test_the_ledger_counts_by_operation_and_level(self, bench: Bench) -> None:
        e = bench.one
        _, a = bench.pair()
        bench.engine.ledger = Ledger()
        c = e.rescale(e.relinearise(e.multiply_accumulate([a, a, a], [a, a, a])))
        e.add(e.conjugate(e.rotate(c, 1)), e.rotate(c, 0))
        e.multiply_scalar(e.at_level(a, 4), 0.5)
        e.at_level(e.at_level(a, 4), 4)
        assert e.ledger.counts == {
            ("multiply", 11): 3,
            ("relinearise", 11): 1,
            ("rescale", 11): 1,
            ("rotate", 10): 2,
            ("add", 10): 1,
            ("switch", 11): 2,
            ("multiply_scalar", 4): 1,
        }
        assert e.ledger.total_seconds > 0
        twice = Ledger()
        twice.add(e.ledger)
        twice.add(e.ledger)
        assert twice.counts["multiply", 11] == 6
        assert twice.total_seconds == pytest.approx(2 * e.ledger.total_seconds)

    def test_batches_and_rows_of_rights(self, bench: Bench) -> None:
        e = bench.engine
        pairs = [bench.pair(i) for i in range(3)]
        x, c = [p[0] for p in pairs], [p[1] for p in pairs]
        drift = e.parameters.drift(TOP)
        sums = e.multiply_accumulate([c[:2], c[1:]], [[c[2], c[1]], [c[0], c[2]], [c[1], c[1]]])
        lefts, rights = [x[:2], x[1:]], [[x[2], x[1]], [x[0], x[2]], [x[1], x[1]]]
        expected = [a[0] * b[0] + a[1] * b[1] for a in lefts for b in rights]
        assert len(sums) == len(expected)
        for one, values in zip(e.rescale(e.relinearise(sums)), expected, strict=True):
            bench.holds(one, values * drift, TOP - 1)
        for turned, values in zip(e.rotate(c, 5), x, strict=True):
            bench.holds(turned, np.roll(values, -5), TOP)
        for turned, values in zip(e.conjugate(c), x, strict=True):
            bench.holds(turned, values.conj(), TOP)

    @pytest.mark.parametrize("relinearised", [True, False])
    def test_rotations_and_conjugations_onto_others(self, bench: Bench, relinearised: bool) -> None:
        e = bench.engine
        (x, a), (y, b) = bench.pair(), bench.pair(1)
        products = e.multiply_accumulate([[a]], [[b], [a]])
        flat = e.relinearise(products)
        onto = flat if relinearised else products
        expected, drift = [x * y, x * x], e.parameters.drift(TOP)
        for turned, values in zip(e.rescale(e.rotate(flat, 1, onto)), expected, strict=True):
            bench.holds(turned, (np.roll(values, -1) + values) * drift, TOP - 1)
        for turned, values in zip(e.rescale(e.conjugate(flat, onto)), expected, strict=True):
            bench.holds(turned, (values.conj() + values) * drift, TOP - 1)
        name = "rotate" if relinearised else "rotate_relinearise"
        assert e.ledger.counts[name, TOP] >= 4
        with pytest.raises(EngineError, match="onto a ciphertext of another"):
            e.rotate(flat, 1, e.rescale(onto))
        with pytest.raises(EngineError, match="or too few"):
            e.rotate(flat, 1, onto[:1])
        with pytest.raises(EngineError, match="no ciphertext"):
            e.rotate([], 1)

    def test_dump_and_load(self, bench: Bench) -> None:
        e = bench.one
        x, a = bench.pair()
        product = e.multiply_accumulate([a], [a])
        for c in (a, e.at_level(a, 3), product, e.relinearise(product), bench.product(a, a)):
            again = e.load(e.dump(c))
            assert (again.level, again.product, again.size) == (c.level, c.product, c.size)
            assert e.dump(again) == e.dump(c)
        bench.holds(e.rotate(e.load(e.dump(a)), 5), np.roll(x, -5), TOP)
        loaded = e.load(e.dump(product))
        bench.holds(e.rescale(e.relinearise(loaded)), x * x * e.parameters.drift(TOP), TOP - 1)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda d: b"",
            lambda d: d[:3],
            lambda d: d[:20],
            lambda d: d[: len(d) // 2],
            lambda d: d[:-1],
            lambda d: b"\x00" * len(d),
            lambda d: b"\xff" * len(d),
            lambda d: b"PK\x03\x04" + d[4:],
            lambda d: d[:4] + b"[]" + d[6:],
        ],
    )
    def test_damage_is_refused(self, bench: Bench, damage: Callable[[bytes], bytes]) -> None:
        data = bench.engine.dump(bench.pair()[1])
        with pytest.raises(EngineError):
            bench.engine.load(damage(data))

    def test_ciphertexts_of_other_parameters_are_refused(self, bench: Bench) -> None:
        other = insecure_test_parameters(11, ring_degree=2048)
        if isinstance(bench.engine, ClearEngine):
            foreign = ClearEngine(other, KEYS)
            blobs = [foreign.dump(foreign.encrypt(np.ones(1024)))]
        else:
            primes = ParametersLiteral(1024, 11, 31, security=0).checked()
            header = Header(Kind.CIPHERTEXT, 12, seeded=False)
            residues = [np.ones((12, p.ring_degree), np.uint64) for p in (other, primes)]
            pairs = zip((other, primes), residues, strict=True)
            blobs = [blob.write(header, p, [one, one]) for p, one in pairs]
        for data in blobs:
            with pytest.raises(EngineError):
                bench.engine.load(data)


@needs_seal
def test_drift_of_clear_slots_is_seals_to_noise() -> None:
    # A 40-bit scale: noise is then far below the drift, which a square doubles at each level.
    p = ParametersLiteral(2048, 4, 40, 58, 58, security=0).checked()
    key, clear = SecretKey.generate(p), ClearEngine(p, KeySet(()))
    seal = key.engine(KeySet(()))
    x = np.exp(1j * np.random.default_rng(3).uniform(0, 2 * np.pi, p.slots))
    ours, theirs = clear.encrypt(x), seal.load(key.encrypt(x))

    def square(e: Engine, c: Ciphertext) -> Ciphertext:
        return e.rescale(e.relinearise(e.multiply_accumulate([[c]], [[c]])))[0]

    exact = x
    for _ in range(4):
        ours, theirs, exact = square(clear, ours), square(seal, theirs), exact * exact
    apart = np.abs(clear.decrypt(ours) - key.decrypt(theirs)).max()
    drifted = np.abs(clear.decrypt(ours) - exact).max()
    assert apart < 5e-8
    assert drifted > 5 * apart


def test_the_counting_engine_keeps_the_same_books(tiny: Parameters) -> None:
    e = CountingEngine(tiny, KEYS)
    a = e.encrypt()
    (c,) = e.rescale(e.relinearise(e.multiply_accumulate([[a, a]], [[a, a]])))
    assert (c.level, c.product, c.size) == (TOP - 1, False, 2)
    assert e.load(e.dump(c)) == c
    done = {("multiply", 11): 2, ("relinearise", 11): 1, ("rescale", 11): 1, ("dump", 10): 1, ("load", 10): 1}
    assert e.ledger.counts == done
    with pytest.raises(EngineError, match="differ"):
        e.add(a, c)
    for damaged in (b"", b"[1]", b"{}", b"\xff"):
        with pytest.raises(EngineError):
            e.load(damaged)


@needs_seal
def test_seeded_fresh_ciphertexts_are_half_the_size(seal_bench: Bench, tiny_key: SecretKey) -> None:
    bench = seal_bench
    x = bench.values(4)
    data = tiny_key.encrypt(x)
    loaded = bench.engine.load(data)
    bench.holds(loaded, x, TOP)
    assert len(data) < 0.6 * len(bench.engine.dump(loaded))


class TestKeys:
    @pytest.fixture(
        params=[pytest.param("seal", marks=needs_seal), pytest.param("openfhe", marks=needs_openfhe)]
    )
    def owner(self, request: pytest.FixtureRequest) -> Any:
        return request.getfixturevalue({"seal": "tiny_key", "openfhe": "openfhe_key"}[request.param])

    def engine(self, owner: Any) -> Any:
        return SealEngine if isinstance(owner, SecretKey) else OpenFheEngine

    def keys(self, key: Any) -> tuple[bytes, dict[int, bytes]]:
        elements = galois_elements(KeySet((1,)), key.parameters.ring_degree)
        return key.relinearisation_key(), {e: key.galois_key(e) for e in elements}

    def test_a_missing_swapped_or_damaged_key_is_refused(self, owner: Any) -> None:
        engine, p, (relin, galois) = self.engine(owner), owner.parameters, self.keys(owner)
        element = galois_element(1, p.ring_degree)
        engine(p, KeySet((1,)), relin, galois)
        with pytest.raises(EngineError, match=r"Galois key of element .* is missing"):
            engine(p, KeySet((1, 5)), relin, galois)
        swapped = dict(zip(galois, reversed(galois.values()), strict=True))
        with pytest.raises(EngineError, match=f"does not hold element {element}"):
            engine(p, KeySet((1,)), relin, swapped)
        with pytest.raises(EngineError, match="the relinearisation key does not load"):
            engine(p, KeySet((1,)), relin[:-9], galois)
        with pytest.raises(EngineError, match="a Galois key does not load"):
            engine(p, KeySet((1,)), relin, {**galois, element: galois[element][: -len(relin) // 2]})
        with pytest.raises(EngineError, match="the relinearisation key is a"):
            engine(p, KeySet((1,)), galois[element], galois)

    def test_keys_of_other_parameters_are_refused(self, owner: Any) -> None:
        other = ParametersLiteral(1024, 4, special_bits=60, security=0).checked()
        relin, galois = self.keys(owner)
        foreign, foreign_galois = self.keys(type(owner).generate(other))
        engine = self.engine(owner)
        with pytest.raises(EngineError, match="relinearisation"):
            engine(owner.parameters, KeySet((1,)), foreign, galois)
        with pytest.raises(EngineError, match="Galois"):
            engine(owner.parameters, KeySet((1,)), relin, foreign_galois)


@needs_openfhe
def test_openfhe_refuses_a_key_switching_prime_that_is_not_its_own(tiny: Parameters) -> None:
    with pytest.raises(EngineError, match="special_bits = 60"):
        OpenFheSecretKey.generate(tiny)
