"""Whether the kernels equal SEAL on this machine: every operation once, on a throw-away key.

What differs in a processor, a compiler or a build of SEAL shows here, before a study is computed wrongly.
It also compiles everything.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from blindtune.errors import EngineError
from blindtune.he.codec import SealCodec, conjugation_element, galois_element, sealapi
from blindtune.he.engine import Ciphertext, Engine, KeySet
from blindtune.he.fast.engine import FastEngine
from blindtune.he.fast.vector import Variant
from blindtune.he.seal import SealEngine
from blindtune.params import ParametersLiteral

# Four-byte and eight-byte residues, and a prime more than four times another.
_PARAMETERS = ParametersLiteral(1024, 4, security=0)
_STEPS = 3


@lru_cache(maxsize=8)
def check(variant: Variant, threads: int) -> None:
    """Compare a variant with SEAL.

    Raises:
        EngineError: an operation whose result differs.
    """
    s, parameters, n = sealapi(), _PARAMETERS.checked(), _PARAMETERS.ring_degree
    codec = SealCodec(parameters)
    maker = s.KeyGenerator(codec.context)
    encryptor, encoder = s.Encryptor(codec.context, maker.secret_key()), s.CKKSEncoder(codec.context)
    relinearisation = codec.dump_key(maker.create_relin_keys())
    galois = {
        element: codec.dump_key(maker.create_galois_keys([element]), element)
        for element in (galois_element(_STEPS, n), conjugation_element(n))
    }
    keys = KeySet((_STEPS,))
    rng, blobs = np.random.default_rng(0), []
    for _ in range(2):
        plain = s.Plaintext()
        encoder.encode(rng.uniform(-1, 1, parameters.slots).tolist(), parameters.scale, plain)
        blobs.append(codec.dump_fresh(encryptor.encrypt_symmetric(plain)))
    theirs = _results(SealEngine(parameters, keys, relinearisation, galois), blobs)
    ours = _results(fast := FastEngine(parameters, keys, relinearisation, galois, threads, variant), blobs)
    for name, expected in theirs.items():
        if fast.dump(ours[name]) != codec.dump(expected):
            raise EngineError(f"{name} differs from SEAL's")


def _results(engine: Engine, blobs: list[bytes]) -> dict[str, Ciphertext]:
    """The results of every operation, at two levels."""
    found = {}
    for level in (engine.parameters.levels, 1):
        a, b = (engine.at_level(engine.load(data), level) for data in blobs)
        products = engine.multiply_accumulate([[a, b, a, b, a, a]], [[b, b, b, a, a, a], [a] * 6])
        products = engine.multiply_accumulate([[b]], [[b], [a]], onto=products)
        flat = engine.relinearise(products)
        results = {
            "a lowered level": a,
            "a sum": engine.add(a, b),
            "a difference": engine.subtract(a, b),
            "a sum of products": products[0],
            "a second sum of products": products[1],
            "a relinearisation": flat[1],
            "a rescale": engine.rescale(flat)[1],
            "a scalar product": engine.multiply_scalar(a, -0.3),
            "a rotation": engine.rotate([a, b], _STEPS)[1],
            "a rotation onto another": engine.rotate([a], _STEPS, [b])[0],
            "a conjugation": engine.conjugate([b])[0],
        }
        found.update({f"{name} at level {level}": c for name, c in results.items()})
    return found
