"""Training spread over nodes: tiles, their sums, and a two-node Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindtune.errors import BundleError
from blindtune.he.engines import evaluation_engine
from blindtune.kernels.blocks import Blocks, DataPart, ResidualPart
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program, State, Trainer
from blindtune.server.cluster import Shard, Tile, dumped, sent, tiles
from blindtune.server.training import Pulse, Training
from tests.server.placing import Place

LAYOUT = Layout(512, 2, (8, 4), 2, 3, 2)
PROGRAM = Program(2, 3, (0, 1), (1.0, 0.9))


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 12))
def test_tiles_share_out_every_pair_once_and_evenly(heads: int, rows: int, nodes: int) -> None:
    found = tiles(heads, rows, nodes)
    assert 1 <= len(found) <= nodes
    pairs = [pair for tile in found for pair in product(tile.heads, tile.rows)]
    assert sorted(pairs) == list(product(range(heads), range(rows)))
    most = max(len(tile.heads) * len(tile.rows) for tile in found)
    assert most >= -(-heads * rows // nodes)
    for across in range(1, min(heads, nodes) + 1):
        down = min(rows, nodes // across)
        assert most <= -(-heads // across) * -(-rows // down)


def test_tiles_send_little_unless_the_copies_of_rows_do_not_fit() -> None:
    assert tiles(1, 4, 2) == [Tile(range(1), range(2)), Tile(range(1), range(2, 4))]
    assert tiles(2, 1, 2) == [Tile(range(1), range(1)), Tile(range(1, 2), range(1))]
    assert tiles(2, 2, 2) == [Tile(range(1), range(2)), Tile(range(1, 2), range(2))]
    by_rows = [Tile(range(2), range(1)), Tile(range(2), range(1, 2))]
    assert tiles(2, 2, 2, lambda tile: len(tile.rows) < 2) == by_rows
    assert tiles(2, 2, 2, lambda _: False) == by_rows


def test_sums_of_tiles_are_the_sums_of_the_whole(tiny_key: Any, draw_study: Callable[..., Any]) -> None:
    study = draw_study(LAYOUT, PROGRAM, (500, 20, 3), 2)
    galois = {element: tiny_key.galois_key(element) for element in tiny_key.galois_elements(LAYOUT.keys())}
    keys = tiny_key.relinearisation_key(), galois
    data, residuals = study.encrypted(tiny_key.encrypt)
    parts: dict[Any, list[bytes]] = {}
    for (i, j, g, b), item in sorted(data.items()):
        parts.setdefault(DataPart(i, j), []).append(item)
        assert len(parts[DataPart(i, j)]) == g * LAYOUT.baby + b + 1
    parts |= {ResidualPart(*key): items for key, items in residuals.items()}
    engine = evaluation_engine(tiny_key.parameters, LAYOUT.keys(), *keys)
    whole = Blocks(engine, LAYOUT, {}, {})
    for part, items in parts.items():
        whole.put(part, [engine.load(item) for item in items])
    states: list[State] = []
    Trainer(whole).train(PROGRAM, on_step=states.append)
    whole = Blocks(engine, LAYOUT, {}, {})
    for part, items in parts.items():
        whole.put(part, [engine.load(item) for item in items])
    shared = [Tile(range(1), range(2)), Tile(range(1), range(2, 3)), Tile(range(1, 2), range(3))]
    shards = [Shard(tiny_key.parameters, LAYOUT, keys, tile, 1) for tile in shared]
    for tile, shard in zip(shared, shards, strict=True):
        shard.reserve(PROGRAM)
        held = [part for part in parts if tile.holds(part)]
        assert len(held) < len(parts)
        for part in held:
            shard.put(part, "some", [sent(item) for item in parts[part]])
    for step, weights in enumerate(([], states[0].weights)):
        expected = bytes_of(engine, whole.sums(PROGRAM, step, weights, lambda *_: None))
        placed = dumped(engine, weights)
        total: dict[int, Any] = {}
        for tile, shard in zip(shared, shards, strict=True):
            blobs, (counts, calls, seconds) = shard.sums(PROGRAM, step, placed)
            assert set(counts) == set(calls) == set(seconds)
            for n, head in enumerate(tile.heads):
                column = [engine.load(row[n].tobytes()) for row in blobs]
                if head in total:
                    column = [engine.add(a, b) for a, b in zip(total[head], column, strict=True)]
                total[head] = column
        assert bytes_of(engine, zip(total[0], total[1], strict=True)) == expected


def bytes_of(engine: Any, grid: Any) -> list[list[bytes]]:
    return [[blob.tobytes() for blob in row] for row in dumped(engine, grid)]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[None]:
    """A Ray cluster of two nodes of one core, on this machine's loopback."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'blindtune[ray]')")
    from ray.cluster_utils import Cluster

    # A busy machine is no broken one.
    patient = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "200",
        "RAY_worker_register_timeout_seconds": "200",
        "RAY_health_check_failure_threshold": "100",
    }
    nodes = {"num_cpus": 1, "object_store_memory": 80 << 20}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in patient.items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={**nodes, "include_dashboard": False})
        try:
            made.add_node(**nodes)
            patch.setenv("RAY_ADDRESS", made.address)
            yield
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    yield made
    made.service.close()


def test_two_nodes_give_the_head_of_one_machine(
    two_nodes: None, make_study: Any, place: Place, tmp_path: Path
) -> None:
    study = make_study("s", steps=3)
    south = place.service.tenants.make("south")
    local, spread = place.start(study, south), place.start(study)
    for executor in ("local", "ray"):
        claim = place.service.leases.claim("host", 1)
        assert claim is not None
        assert claim.id == (local if executor == "local" else spread)
        Training(place.service, claim, tmp_path / executor, Pulse(), executor).run()
    heads = [place.head(study, tmp_path / (t or "north"), t) / "parts" / "weights" for t in (south, None)]
    assert heads[0].read_bytes() == heads[1].read_bytes()
    found = place.done(spread)
    assert found.progress is not None
    assert found.progress["done"] == found.progress["total"] == 3 * (2 + 1)
    assert found.progress["operations"]["multiply"] == found.progress["planned"]["multiply"]
    # What a node refuses is said as it would be here.
    nonsense = make_study("nonsense")
    nonsense.key.encrypt = lambda values: b"no ciphertext" * 100
    place.start(nonsense)
    claim = place.service.leases.claim("host", 1)
    assert claim is not None
    with pytest.raises(BundleError, match="part data-0-0: neither a ciphertext nor a key"):
        Training(place.service, claim, tmp_path / "nonsense-work", Pulse(), "ray").run()
