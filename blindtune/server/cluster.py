"""Training on a Ray cluster: tiles of weight blocks and row blocks, each on a node of its own.

A node is given the ciphertexts of its tile once and keeps them; in each step the encrypted weights go out
and the tiles' inner sums come back. They are added as residues, so the head is the one that a single machine
gives, bit for bit. What goes over the network is public or encrypted; the nodes of a cluster trust one
another, as Ray has it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import BlindtuneError, MissingPackageError, StorageError
from blindtune.he.engine import Ciphertext, Engine, Ledger
from blindtune.he.engines import evaluation_engine
from blindtune.kernels import cost
from blindtune.kernels.blocks import Blocks, DataPart, Part, Report
from blindtune.kernels.layout import Layout
from blindtune.kernels.products import Grid
from blindtune.kernels.training import Program
from blindtune.params import Parameters
from blindtune.wire.bundle import Bundle
from blindtune.wire.study import block_parts, fresh, key_items

Sent = NDArray[np.uint8]
"""A blob on its way: Ray passes arrays on in shared memory, and copies bytes three times."""

Blobs = list[list[Sent]]
Counts = tuple[dict[tuple[str, int], int], dict[tuple[str, int], int], dict[tuple[str, int], float]]


@dataclass(frozen=True)
class Tile:
    """What one node works on: consecutive weight blocks by consecutive row blocks."""

    heads: range
    rows: range

    def holds(self, part: Part) -> bool:
        """Whether the tile's work needs a part of the study."""
        return part.row in self.rows and (isinstance(part, DataPart) or part.head in self.heads)


def tiles(heads: int, rows: int, nodes: int, fits: Callable[[Tile], bool] = lambda _: True) -> list[Tile]:
    """Share out all pairs of weight block and row block, so that the node with most has as few as can be.

    Of ways that are equally good the one is taken that sends least: of a weight block each of its nodes sends
    a sum. Nodes with the same row block each hold a copy of its rows, though.

    Args:
        fits: whether a node can hold a tile; if none of the ways fits, the one that copies least is taken.
    """
    ways = [(a, b) for a in range(1, min(heads, nodes) + 1) for b in range(1, min(rows, nodes // a) + 1)]
    most = min(-(-heads // a) * -(-rows // b) for a, b in ways)
    best = sorted((b, a) for a, b in ways if -(-heads // a) * -(-rows // b) == most)
    shared = [[Tile(h, r) for h in _cut(heads, a) for r in _cut(rows, b)] for b, a in best]
    return next((found for found in shared if all(map(fits, found))), shared[-1])


def _cut(count: int, pieces: int) -> list[range]:
    ends = [count * n // pieces for n in range(pieces + 1)]
    return [range(a, b) for a, b in pairwise(ends)]


class Shard:
    """A tile's ciphertexts and the work on them, on its node.

    Args:
        keys: from :func:`~blindtune.wire.study.key_items`.
        cores: threads.
    """

    def __init__(
        self,
        parameters: Parameters,
        layout: Layout,
        keys: tuple[bytes, dict[int, bytes]],
        tile: Tile,
        cores: int,
    ) -> None:
        self._tile, self._cores = tile, cores
        self._engine = evaluation_engine(parameters, layout.keys(), *keys, cores=cores)
        self._blocks = Blocks(self._engine, layout, {}, {})

    def reserve(self, program: Program) -> None:
        """Take the memory that training will need."""
        layout = _layout_of(self._blocks.layout, self._tile)
        self._engine.reserve(cost.working_bytes(layout, program, self._engine.parameters))

    def put(self, part: Part, name: str, items: Sequence[Sent]) -> None:
        """Load a part of the study; see :func:`~blindtune.wire.study.fresh`."""
        blobs = (item.tobytes() for item in items)
        self._blocks.put(part, fresh(self._engine, blobs, name, self._cores))

    def sums(self, program: Program, step: int, weights: Blobs) -> tuple[Blobs, Counts]:
        """The tile's inner sums of a step, and the operations they took."""
        ledger = self._engine.ledger = Ledger()
        loaded = [[self._engine.load(c.tobytes()) for c in row] for row in weights]
        found = self._blocks.partial_sums(
            program, step, loaded, self._tile.heads, self._tile.rows, lambda *_: None
        )
        return dumped(self._engine, found), (dict(ledger.counts), dict(ledger.calls), dict(ledger.seconds))


class Cluster:
    """A study's blocks on the nodes of a Ray cluster; see :class:`~blindtune.kernels.training.Work`.

    Made by :func:`cluster`.
    """

    def __init__(self, engine: Engine, layout: Layout, keys: Bundle) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.engine, self.layout = engine, layout
        listed: Any = ray.nodes  # it has no types
        nodes = [n for n in listed() if n["Alive"] and n["Resources"].get("CPU", 0) >= 1]
        nodes.sort(key=lambda n: -n["Resources"]["CPU"])
        if not nodes:
            raise StorageError("no node of the Ray cluster has a core", remedy="Start its nodes.")
        program = keys.manifest.checked_program
        least = int(min(n["Resources"].get("memory", 0) for n in nodes))

        def fits(tile: Tile) -> bool:
            return cost.memory_bytes(_layout_of(layout, tile), program, engine.parameters) <= least

        self._tiles = tiles(layout.weight_blocks, layout.row_blocks, len(nodes), fits)
        shared = ray.put(key_items(keys))
        remote: Any = ray.remote(Shard)
        self._shards = []
        for tile, node in zip(self._tiles, nodes, strict=False):
            cores = int(node["Resources"]["CPU"])
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            placed = remote.options(num_cpus=cores, scheduling_strategy=there)
            self._shards.append(placed.remote(engine.parameters, layout, shared, tile, cores))

    def load(self, program: Program, bundles: Sequence[Bundle], on_part: Callable[[int], None]) -> None:
        """Place all members' ciphertexts, each where its tiles are.

        Raises:
            BundleError: an item that is not a fresh ciphertext of this study.
        """
        pending = [shard.reserve.remote(program) for shard in self._shards]
        for bundle, name, part in block_parts(bundles):
            items = [sent(item) for item in bundle.items(name)]
            for tile, shard in zip(self._tiles, self._shards, strict=True):
                if tile.holds(part):
                    pending.append(shard.put.remote(part, name, items))
            # A few on their way: the study may be larger than this machine.
            while len(pending) > 4 * len(self._shards):
                _first(pending)
            on_part(bundle.open_part(name).stat().st_size)
        while pending:
            _first(pending)

    def phases(self, program: Program, step: int) -> int:
        """See :class:`~blindtune.kernels.training.Work`: one a tile."""
        return len(self._tiles)

    def sums(self, program: Program, step: int, weights: Grid, report: Report) -> Grid:
        """See :class:`~blindtune.kernels.training.Work`."""
        import ray

        level = weights[0][0].level if weights else self.engine.parameters.levels
        placed = ray.put(dumped(self.engine, weights))
        at = {
            shard.sums.remote(program, step, placed): tile
            for tile, shard in zip(self._tiles, self._shards, strict=True)
        }
        total: dict[int, list[Ciphertext]] = {}
        pending = list(at)
        while pending:
            done, (blobs, counts) = _first(pending)
            self.engine.ledger.add(_ledger(counts))
            for n, head in enumerate(at.pop(done).heads):
                column = [self.engine.load(row[n].tobytes()) for row in blobs]
                if head in total:
                    column = [self.engine.add(a, b) for a, b in zip(total[head], column, strict=True)]
                total[head] = column
            report("backward", level)
        return [list(row) for row in zip(*(total[head] for head in sorted(total)), strict=True)]


@contextmanager
def cluster(engine: Engine, layout: Layout, keys: Bundle) -> Iterator[Cluster]:
    """A cluster with a study's keys on its nodes: the one at ``RAY_ADDRESS``, or one of this machine alone.

    What a node refuses is raised here as it was there.

    Args:
        engine: of this process, for adding up.

    Raises:
        MissingPackageError: Ray is not installed.
        StorageError: the cluster cannot be reached, or a node of it failed.
    """
    # Ray would report its use to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        from ray.exceptions import RayError, RayTaskError
    except ImportError as error:
        raise MissingPackageError("Ray is not installed", remedy="pip install 'blindtune[ray]'.") from error
    failed = StorageError(
        "the Ray cluster, or a node of it, failed", remedy="Look at its logs, then try again."
    )
    address = os.environ.get("RAY_ADDRESS", "local")
    try:
        dashboard = False if address == "local" else None
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=dashboard)
    except (ConnectionError, RayError, RuntimeError) as error:
        raise failed from error
    try:
        yield Cluster(engine, layout, keys)
    except RayTaskError as error:
        if isinstance(error.cause, BlindtuneError | MemoryError):
            raise error.cause from error
        raise failed from error
    except RayError as error:
        raise failed from error
    finally:
        ray.shutdown()


def _layout_of(layout: Layout, tile: Tile) -> Layout:
    """The layout of a tile's blocks alone."""
    return replace(layout, row_blocks=len(tile.rows), weight_blocks=len(tile.heads))


def _first(pending: list[Any]) -> tuple[Any, Any]:
    """Wait for one of the results on their way, and take it from the list."""
    import ray

    (done,), _ = ray.wait(pending, num_returns=1)
    pending.remove(done)
    return done, ray.get(done)


def sent(blob: bytes) -> Sent:
    """A blob, ready to be sent."""
    return np.frombuffer(blob, np.uint8)


def dumped(engine: Engine, grid: Grid) -> Blobs:
    """Ciphertexts, ready to be sent."""
    return [[sent(engine.dump(c)) for c in row] for row in grid]


def _ledger(counts: Counts) -> Ledger:
    number, calls, seconds = counts
    return Ledger(Counter(number), Counter(calls), defaultdict(float, seconds))
