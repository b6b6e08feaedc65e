"""From bundles to a trained head under SEAL, and every way in which bundles do not make one study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import BundleError, EngineError
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.wire.bundle import Bundle, write_bundle
from blindtune.wire.manifest import (
    Manifest,
    expected_parts,
    layout_model,
    parameters_model,
    program_model,
)
from blindtune.wire.study import check_study, load_engine, load_trainer

LAYOUT = Layout(512, 4, (4, 2), 2, 1, 1)
PROGRAM = Program(2, 3, (0, 1), (1.0, 0.9))
BLOCKS = {"north": 2, "south": 1}


class Hospital:
    """Writes a study's bundles; each method takes changes to the manifest."""

    def __init__(self, key: SecretKey, folder: Path, study: Any) -> None:
        self.key, self.folder, self.study = key, folder, study
        self.encrypted = study.encrypted(key.encrypt)

    def manifest(self, kind: str, member: str, layout: Layout, **changes: Any) -> Manifest:
        given = {
            "kind": kind,
            "study": "5" * 32,
            "members": sorted(BLOCKS),
            "member": member,
            "key": self.key.key_id,
            "parameters": parameters_model(self.key.parameters),
            "layout": layout_model(layout),
            "program": program_model(PROGRAM),
            "parts": [],
        }
        return Manifest(**{**given, **changes})  # type: ignore[arg-type]

    def write(self, name: str, manifest: Manifest, parts: list[tuple[str, list[bytes]]]) -> Bundle:
        write_bundle(self.folder / name, manifest, parts)
        return Bundle(self.folder / name, insecure=True)

    def keys(self, name: str = "keys", **changes: Any) -> Bundle:
        galois = [self.key.galois_key(e) for e in self.key.galois_elements(LAYOUT.keys())]
        parts = [("relinearisation", [self.key.relinearisation_key()]), ("galois", galois)]
        return self.write(name, self.manifest("keys", "north", LAYOUT, **changes), parts)

    def parts(self, member: str) -> list[tuple[str, list[bytes]]]:
        data, residuals = self.encrypted
        first = 0 if member == "north" else BLOCKS["north"]
        found = []
        for i in range(BLOCKS[member]):
            for j, width in enumerate(LAYOUT.widths):
                keys = [(first + i, j, k // LAYOUT.baby, k % LAYOUT.baby) for k in range(width)]
                found.append((f"data-{i}-{j}", [data[k] for k in keys]))
        for s in (0, 1):
            for i in range(BLOCKS[member]):
                found.append((f"residual-{s}-0-{i}", residuals[s, 0, first + i]))
        return found

    def data(self, member: str, name: str = "", **changes: Any) -> Bundle:
        layout = replace(LAYOUT, row_blocks=BLOCKS[member])
        return self.write(
            name or member, self.manifest("data", member, layout, **changes), self.parts(member)
        )

    def dummy(self, name: str, manifest: Manifest) -> Bundle:
        counts = expected_parts(manifest)
        return self.write(name, manifest, [(n, [b"x"] * c) for n, (c, _) in counts.items()])


@pytest.fixture
def hospital(tiny_key: SecretKey, tmp_path: Path, draw_study: Callable[..., Any]) -> Hospital:
    study = draw_study(replace(LAYOUT, row_blocks=3), PROGRAM, (384, 11, 3), 8)
    return Hospital(tiny_key, tmp_path, study)


def test_two_members_train_as_one(hospital: Hospital, tiny_key: SecretKey) -> None:
    keys, data = hospital.keys(), [hospital.data("north"), hospital.data("south")]
    layout = check_study(keys.manifest, [b.manifest for b in data])
    assert layout == replace(LAYOUT, row_blocks=3)
    engine = load_engine(keys)
    seen: list[int] = []
    trainer = load_trainer(engine, layout, data, seen.append)
    assert sum(seen) == sum(b.size for b in data)
    head = trainer.train(PROGRAM)
    dense = hospital.study.dense()
    found = hospital.study.head(head, lambda c: tiny_key.decrypt(tiny_key.load(engine.dump(c))))
    np.testing.assert_allclose(found, dense, atol=1e-4)


def test_bundles_that_make_no_study(hospital: Hospital) -> None:
    h = hospital
    keys, north, south = h.keys(), h.data("north"), h.data("south")
    blocks = replace(LAYOUT, row_blocks=1)

    def south_with(name: str, layout: Layout = blocks, **changes: Any) -> Bundle:
        return h.dummy(name, h.manifest("data", "south", layout, **changes))

    fewer = h.key.parameters
    fewer = replace(fewer, primes=(*fewer.primes[:-2], fewer.primes[-1]))
    refused = [
        ("one bundle of keys", north, [north, south]),
        ("one bundle of keys", keys, [keys, south]),
        ("members and the bundles differ", keys, [north]),
        ("members and the bundles differ", keys, []),
        ("members and the bundles differ", keys, [north, north]),
        ("members and the bundles differ", keys, [north, south, south]),
        ("south are under another key", keys, [north, south_with("a", key="b" * 32)]),
        (
            "south are under another key",
            keys,
            [north, south_with("b", parameters=parameters_model(fewer))],
        ),
        ("south belong to another study", keys, [north, south_with("c", study="6" * 32)]),
        ("south belong to another study", keys, [north, south_with("d", members=["east", "south"])]),
        (
            "south belong to another study",
            keys,
            [north, south_with("e", program=program_model(replace(PROGRAM, retain=(1.0, 1.0))))],
        ),
        ("south are packed in another way", keys, [north, south_with("f", replace(blocks, baby=1))]),
        ("south are packed in another way", keys, [north, south_with("g", replace(blocks, lanes=8))]),
        ("south are packed in another way", keys, [north, south_with("h", replace(blocks, widths=(2, 4)))]),
    ]
    for message, given, data in refused:
        with pytest.raises(BundleError, match=message):
            check_study(given.manifest, [b.manifest for b in data])


def test_items_that_are_not_fresh_ciphertexts(hospital: Hospital, tiny_key: SecretKey) -> None:
    engine = load_engine(hospital.keys())
    fresh = engine.load(tiny_key.encrypt(np.ones(512)))
    low = engine.at_level(fresh, 2)
    wrong = [
        (engine.dump(low), "not fresh"),
        (engine.dump(engine.multiply_accumulate([[low]], [[low]])[0]), "not fresh"),
        (b"no ciphertext at all", "does not load|neither a ciphertext"),
    ]
    for number, (item, message) in enumerate(wrong):
        parts = hospital.parts("south")
        parts[1][1][1] = item
        manifest = hospital.manifest("data", "south", replace(LAYOUT, row_blocks=1))
        bad = hospital.write(f"bad{number}", manifest, parts)
        with pytest.raises(BundleError, match=rf"data-0-1.*({message})"):
            load_trainer(engine, LAYOUT, [bad])


def test_keys_of_another_order_or_damaged_are_refused(hospital: Hospital) -> None:
    keys = hospital.keys()
    relin, galois = list(keys.items("relinearisation")), list(keys.items("galois"))
    manifest = hospital.manifest("keys", "north", LAYOUT)
    swapped = hospital.write("swapped", manifest, [("relinearisation", relin), ("galois", galois[::-1])])
    with pytest.raises(EngineError, match="does not hold element"):
        load_engine(swapped)
    mixed = hospital.write("mixed", manifest, [("relinearisation", galois[:1]), ("galois", galois)])
    damaged = [galois[0][:-20], *galois[1:]]
    broken = hospital.write("broken", manifest, [("relinearisation", relin), ("galois", damaged)])
    for bundle, message in ((mixed, "key of another kind"), (broken, "Galois key does not load")):
        with pytest.raises(EngineError, match=message):
            load_engine(bundle)


def test_loads_in_order_on_threads(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLINDTUNE_ACCELERATOR", "seal")
    engine, layout = load_engine(hospital.keys()), replace(LAYOUT, row_blocks=3)
    bundles = [hospital.data("north"), hospital.data("south")]
    one, many = (load_trainer(engine, layout, bundles, threads=n) for n in (1, 3))
    for name in ("_data", "_residuals"):
        a, b = getattr(one.work, name), getattr(many.work, name)
        assert list(a) == list(b)
        for key in a:
            alike = zip(*(x[key] if isinstance(x[key], list) else [x[key]] for x in (a, b)), strict=True)
            assert all(engine.dump(c) == engine.dump(d) for c, d in alike)
    parts = hospital.parts("south")
    parts[0][1][0] = parts[0][1][0][:-8] + b"\xff" * 8
    bad = hospital.write("bad", hospital.manifest("data", "south", replace(LAYOUT, row_blocks=1)), parts)
    with pytest.raises(BundleError, match=r"data-0-0.*does not load"):
        load_trainer(engine, LAYOUT, [bad], threads=3)
