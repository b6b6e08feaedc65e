"""From bundles to trainers: how a study's ciphertexts are named in parts, and how they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from blindtune.errors import BundleError, EngineError
from blindtune.he.codec import galois_elements
from blindtune.he.engine import Ciphertext, Engine
from blindtune.he.engines import evaluation_engine
from blindtune.kernels.blocks import Blocks, DataPart, Part, ResidualPart
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Trainer
from blindtune.wire.bundle import Bundle, write_bundle
from blindtune.wire.manifest import Manifest


def check_study(keys: Manifest, data: Sequence[Manifest]) -> Layout:
    """Check that bundles make one study under one key, from their manifests.

    Returns:
        The layout over all members' rows.

    Raises:
        BundleError: another kind, study, key, parameters, packing or program, or a member missing or twice.
    """
    first = keys
    if first.kind != "keys" or any(m.kind != "data" for m in data):
        raise BundleError("a study is one bundle of keys and one bundle of data a member")
    for m in data:
        if (m.key, m.parameters, m.bootstrapping) != (first.key, first.parameters, first.bootstrapping):
            raise BundleError(
                f"the data of {m.member} are under another key than the study's evaluation keys",
                remedy="Encrypt and submit again with the study's key.",
            )
        if (m.study, m.members, m.program) != (first.study, first.members, first.program):
            raise BundleError(f"the data of {m.member} belong to another study")
        if replace(m.checked_layout, row_blocks=1) != replace(first.checked_layout, row_blocks=1):
            raise BundleError(f"the data of {m.member} are packed in another way")
    found = sorted(m.member for m in data)
    if found != sorted(first.members):
        raise BundleError(
            "the study's members and the bundles differ", remedy="Every member uploads once before the start."
        )
    return replace(first.checked_layout, row_blocks=sum(m.layout.row_blocks for m in data))


def check_start(keys: Manifest, start: Manifest | None) -> None:
    """Check that weights to start from belong to a study's keys, and are there if its program calls for them.

    Raises:
        BundleError: another kind, study, key, packing or program, or missing.
    """
    if start is None:
        if keys.checked_program.started:
            raise BundleError("the weights to start from are missing", remedy="Submit them, then start.")
        return
    mine, its = ((m.study, m.key, m.parameters, m.bootstrapping, m.program) for m in (keys, start))
    same = start.kind == "start" and its == mine
    packing = replace(keys.checked_layout, row_blocks=1)
    if not same or replace(start.checked_layout, row_blocks=1) != packing:
        raise BundleError("the weights to start from belong to another study")


def load_start(engine: Engine, layout: Layout, start: Bundle) -> list[list[Ciphertext]]:
    """Weights to start from, by weight block and column block.

    Raises:
        BundleError: an item that is not a fresh ciphertext of this study.
    """
    found, columns = fresh(engine, start.items("weights"), "weights"), len(layout.widths)
    return [found[k * columns : (k + 1) * columns] for k in range(layout.weight_blocks)]


def load_engine(keys: Bundle, cores: int = 1, on_part: Callable[[int], None] = lambda _: None) -> Engine:
    """An evaluation engine from a bundle of keys, on so many threads.

    Args:
        on_part: called with the bytes of each part loaded.
    """
    m = keys.manifest
    bootstrapping = m.checked_bootstrapping
    if not bootstrapping:
        engine = evaluation_engine(m.checked_parameters, m.keys, *key_items(keys), cores=cores)
        on_part(keys.size)
        return engine
    from blindtune.he.openfhe.bootstrapping_engine import BootstrappingEngine

    def items() -> Iterator[bytes]:
        for part in m.parts:
            yield from keys.items(part.name)
            on_part(part.size)

    blobs = items()
    return BootstrappingEngine(bootstrapping, m.key_parameters.primes, m.keys, next(blobs), blobs)


def key_items(keys: Bundle) -> tuple[bytes, dict[int, bytes]]:
    """The relinearisation key, and the Galois keys by Galois element."""
    m = keys.manifest
    elements = galois_elements(m.keys, m.checked_parameters.ring_degree)
    return next(keys.items("relinearisation")), dict(zip(elements, keys.items("galois"), strict=True))


def load_trainer(
    engine: Engine,
    layout: Layout,
    bundles: Sequence[Bundle],
    on_part: Callable[[int], None] = lambda _: None,
    threads: int = 1,
) -> Trainer:
    """Load all members' ciphertexts.

    Args:
        threads: for engines that load from several threads at a time.

    Raises:
        BundleError: an item that is not a fresh ciphertext of this study.
    """
    blocks = Blocks(engine, layout, {}, {})
    for bundle, name, part in block_parts(bundles):
        blocks.put(part, fresh(engine, bundle.items(name), name, threads))
        on_part(bundle.open_part(name).stat().st_size)
    return Trainer(blocks)


def block_parts(bundles: Sequence[Bundle]) -> Iterator[tuple[Bundle, str, Part]]:
    """Where the parts of all members' data belong, their row blocks one after the other in the order given.

    Yields:
        A bundle, the name of a part of it, and its place in the study.
    """
    first = 0
    for bundle in bundles:
        own, program = bundle.manifest.checked_layout, bundle.manifest.checked_program
        for i in range(own.row_blocks):
            for j in range(len(own.widths)):
                yield bundle, f"data-{i}-{j}", DataPart(first + i, j)
            for k in range(own.weight_blocks):
                for s in range(max(program.sets) + 1):
                    yield bundle, f"residual-{s}-{k}-{i}", ResidualPart(s, k, first + i)
        first += own.row_blocks


def train_here(
    keys: Path,
    data: Sequence[Path],
    target: Path,
    *,
    start: Path | None = None,
    cores: int = 1,
    insecure: bool = False,
) -> None:
    """Train bundles in this process, as a server would, and write the encrypted head's bundle.

    For trying a head out before it is submitted; needs no secret key.

    Args:
        keys, data: bundle directories.
        target: the head's bundle, made.
        start: bundle of the weights to start from, for a program that wants them.
        cores: threads.

    Raises:
        BundleError: bundles that are altered or do not belong together.
    """
    study = open_study(keys, data, start=start, cores=cores, insecure=insecure)
    weights = study.trainer.train(study.manifest.checked_program, start=study.start)
    write_head(target, study.manifest, dumped(study.trainer, weights))


class OpenStudy(NamedTuple):
    """A study that is loaded, ready to be trained.

    Attributes:
        manifest: of its keys.
        start: the weights to start from, for a program that wants them.
    """

    manifest: Manifest
    trainer: Trainer
    start: list[list[Ciphertext]] | None


def open_study(
    keys: Path, data: Sequence[Path], *, start: Path | None = None, cores: int = 1, insecure: bool = False
) -> OpenStudy:
    """Verify and load a study's bundles; see :func:`train_here`."""
    key_bundle = Bundle(keys, insecure=insecure)
    bundles = [Bundle(path, insecure=insecure) for path in data]
    started = Bundle(start, insecure=insecure) if start else None
    for bundle in (key_bundle, *bundles, *([started] if started else [])):
        bundle.verify()
    layout = check_study(key_bundle.manifest, [b.manifest for b in bundles])
    check_start(key_bundle.manifest, started.manifest if started else None)
    engine = load_engine(key_bundle, cores)
    trainer = load_trainer(engine, layout, bundles, threads=cores)
    return OpenStudy(key_bundle.manifest, trainer, load_start(engine, layout, started) if started else None)


def dumped(trainer: Trainer, weights: Sequence[Sequence[Ciphertext]]) -> list[list[bytes]]:
    """Trained weights, serialised."""
    return [[trainer.engine.dump(c) for c in block] for block in weights]


def write_head(target: Path, keys: Manifest, weights: Sequence[Sequence[bytes]]) -> Manifest:
    """Write trained weights, by weight block and column block, as a head bundle; its manifest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    manifest = keys.model_copy(update={"kind": "head", "parts": []})
    return write_bundle(target, manifest, [("weights", [handle for block in weights for handle in block])])


def fresh(engine: Engine, items: Iterable[bytes], name: str, threads: int = 1) -> list[Ciphertext]:
    """A part's ciphertexts.

    Args:
        threads: for engines that load from several threads at a time.

    Raises:
        BundleError: an item that is not a fresh ciphertext of this study.
    """
    try:
        found = list(_loaded(engine, iter(items), threads))
    except EngineError as error:
        raise BundleError(f"part {name}: {error.what}", remedy=error.remedy) from error
    if any(c.level != engine.parameters.levels or c.size != 2 or c.product for c in found):
        raise BundleError(f"part {name} holds a ciphertext that is not fresh")
    return found


def _loaded(engine: Engine, items: Iterator[bytes], threads: int) -> Iterator[Ciphertext]:
    if threads == 1:
        yield from map(engine.load, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        # A few items at a time: a part may be large.
        while few := list(islice(items, 4 * threads)):
            yield from pool.map(engine.load, few)
