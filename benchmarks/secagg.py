"""Secure aggregation beside plain averaging, and against plain sums over many random sessions.

    python -m benchmarks.secagg [--parts overhead sessions] [--parameters 5700000] [--parties 3 10 50]
        [--cases 100000] [--processes 2]

Seconds are of one process that plays all parts one after the other, so a member's share is the time of one
hospital. Written to ``benchmarks/results/secagg.json`` and ``docs/benchmarks/secagg.md``; a part that is not
asked for stays as it was measured.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.commands import ROOT, keep, kept, machine
from benchmarks.page import table
from blindtune.federation.identity import Identity, Roster
from blindtune.federation.secagg import protocol
from blindtune.federation.secagg.aggregator import Aggregator
from blindtune.federation.secagg.journal import Journal
from blindtune.federation.secagg.local import aggregate
from blindtune.federation.secagg.member import Member
from blindtune.federation.secagg.protocol import STAGES
from blindtune.federation.secagg.session import Policy, Session

PAGE = ROOT / "docs" / "benchmarks" / "secagg.md"
SHARD = 500
"""Sessions between new keys and journals: drawing and journals slow down with what they remember."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["overhead", "sessions"]
    parser.add_argument("--parts", nargs="*", choices=parts, default=parts)
    parser.add_argument("--parameters", type=int, default=5_700_000)
    parser.add_argument("--parties", type=int, nargs="*", default=[3, 10, 50])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    found = kept("secagg")
    if "overhead" in given.parts:
        about = {"machine": machine(), "parameters": given.parameters}
        cells = [(n, gone) for n in given.parties for gone in (0, 1) if n > 3 or not gone]
        found["overhead"] = {**about, "rows": [overhead(given.parameters, *cell) for cell in cells]}
        keep("secagg", found)
    if "sessions" in given.parts:
        for drawn in sessions(given.cases, given.processes, found.get("sessions", {})):
            keep("secagg", found | {"sessions": drawn})
            print(f"{drawn['sessions']:,} sessions of {given.cases:,}", flush=True)
    PAGE.write_text(render(kept("secagg")))
    print(PAGE.read_text())


@contextmanager
def group(count: int) -> Iterator[list[Member]]:
    """Members with journals in a folder of their own."""
    names = [f"site-{i:02d}" for i in range(1, count + 1)]
    identities = {name: Identity.generate() for name in names}
    roster = Roster({name: i.public for name, i in identities.items()})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        members = []
        for name in names:
            journal = Journal(Path(folder) / name)
            stack.callback(journal.close)
            members.append(Member(name, identities[name], roster, journal, Policy()))
        yield members


def session_of(members: list[Member], length: int, round_: int) -> Session:
    """A session of the whole group."""
    roster = members[0].roster
    threshold = Policy().threshold(len(members))
    return Session("bench", round_, 0, f"{round_:064x}", "update", length, 1.0, threshold, roster)


def overhead(parameters: int, parties: int, gone: int) -> dict[str, Any]:
    """Seconds and bytes of one aggregation by stage, and of a plain average of the same vectors."""
    rng = np.random.default_rng(0)
    vector = rng.uniform(-1, 1, parameters).astype(np.float32)
    start = time.perf_counter()
    total = np.zeros(parameters)
    for _ in range(parties):
        total += vector
    plain = time.perf_counter() - start
    with group(parties) as members:
        session = session_of(members, parameters, 0)
        known = {m.number: m for m in members}
        spent: dict[str, float] = {}
        up: dict[str, int] = {}

        def ask(stage: str, sent: Mapping[int, bytes]) -> dict[int, bytes]:
            # The last ones drop out with their vectors due.
            here = [n for n in sent if n <= parties - gone or STAGES.index(stage) < STAGES.index("masked")]
            start = time.perf_counter()
            answers = {n: protocol.answer(known[n], session, stage, sent[n], lambda: vector) for n in here}
            spent[stage] = (time.perf_counter() - start) / len(here)
            up[stage] = sum(map(len, answers.values())) // len(here)
            of_members.append(time.perf_counter() - start)
            return answers

        of_members: list[float] = []
        start = time.perf_counter()
        found = protocol.aggregate(Aggregator(session), list(known), ask)
        central = time.perf_counter() - start - sum(of_members)
    error = float(np.abs(found.values - len(found.members) * vector.astype(np.float64)).max())
    return {
        "parties": parties,
        "dropped": gone,
        "threshold": session.threshold,
        "seconds_member": spent,
        "seconds_server": central,
        "seconds_plain_average": plain,
        "bytes_member_up": up,
        "bytes_plain_up": 4 * parameters,
        "largest_error": error,
        "bound": session.quantiser.error(len(found.members)),
    }


def render(found: dict[str, Any]) -> str:
    """The page, with the parts that were measured."""
    text = "# Secure aggregation\n\nWritten by `python -m benchmarks.secagg`.\n"
    if "overhead" in found:
        text += _overhead(found["overhead"])
    if "sessions" in found:
        drawn = found["sessions"]
        m = drawn["machine"]
        text += (
            f"\n{drawn['sessions']:,} sessions of 3 to 7 hospitals drawn by Hypothesis, dropouts at any "
            f"stage (in {drawn['dropouts']:,}), {drawn['values']:,} values in all: every sum is the plain "
            f"sum modulo 2^32, and within its bound of the floats'. "
            f"Python {m['python']}, commit {m['commit']}.\n"
        )
    return text


def _overhead(measured: dict[str, Any]) -> str:
    m = measured["machine"]
    heads = ["hospitals", "dropped", "threshold", "a hospital, s", "the server, s", "plain average, s"]
    heads += ["sent by a hospital, bytes", "in clear, bytes", "largest error", "bound"]
    rows = [
        [
            *(str(r[k]) for k in ("parties", "dropped", "threshold")),
            f"{sum(r['seconds_member'].values()):.2f}",
            f"{r['seconds_server']:.2f}",
            f"{r['seconds_plain_average']:.2f}",
            f"{sum(r['bytes_member_up'].values()):,}",
            f"{r['bytes_plain_up']:,}",
            f"{r['largest_error']:.2e}",
            f"{r['bound']:.2e}",
        ]
        for r in measured["rows"]
    ]
    return (
        f"\n{measured['parameters']:,} values in [-1, 1] on one core of {m['cpu']}, Python {m['python']}, "
        f"commit {m['commit']}; computing alone, no network. `plain average` is the same vectors added in "
        f"clear, by all hospitals together.\n\n{table(heads, rows)}\n"
    )


def sessions(count: int, processes: int, before: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Sessions that Hypothesis draws (members, dropouts at any stage, vectors), each against the plain sum.

    Every sum must be that of the members told, modulo 2^32, and within the quantiser's bound of the floats'.
    Only sessions that ended and were compared are counted.

    Args:
        before: of a run that was broken off; it goes on if the code is the same.

    Yields:
        what was done so far, after every shard.
    """
    shards = [min(SHARD, count - first) for first in range(0, count, SHARD)]
    found = {"machine": machine(), "shards": 0, "sessions": 0, "dropouts": 0, "values": 0}
    commit = found["machine"]["commit"]
    if "dirty" not in commit and before.get("machine", {}).get("commit") == commit:
        found |= before
    left = range(found["shards"], len(shards))
    with ProcessPoolExecutor(processes) as pool:
        for one in pool.map(_shard, left, [shards[n] for n in left]):
            found["shards"] += 1
            for name, more in zip(("sessions", "dropouts", "values"), one, strict=True):
                found[name] += more
            yield found


def _shard(number: int, count: int) -> tuple[int, int, int]:
    """Draw so many sessions: those that were right, those of them with dropouts, and values in them.

    A wrong sum is an AssertionError.
    """
    right: list[tuple[int, int, int]] = []
    rounds = itertools.count()
    with ExitStack() as stack:
        groups = {n: stack.enter_context(group(n)) for n in (3, 4, 5, 7)}

        @seed(number)
        @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate])
        @given(st.sampled_from(sorted(groups)), st.data())
        def one(parties: int, data: st.DataObject) -> None:
            members = groups[parties]
            floats = st.floats(-1.5, 1.5, width=32)
            length = data.draw(st.integers(1, 6))
            session = session_of(members, length, next(rounds))
            vectors = {
                m.number: np.array(data.draw(st.lists(floats, min_size=length, max_size=length)))
                for m in members
            }
            few = st.lists(st.integers(1, parties), max_size=parties - session.threshold, unique=True)
            gone = {n: data.draw(st.sampled_from(STAGES)) for n in data.draw(few)}
            found = aggregate(session, members, vectors, gone)
            assert set(found.members) >= {m.number for m in members} - gone.keys()
            encoded = [session.quantiser.encode(vectors[m]) for m in found.members]
            plain: NDArray[np.uint32] = np.sum(encoded, axis=0, dtype=np.uint32)
            np.testing.assert_array_equal(session.quantiser.decode(plain), found.values)
            clipped = np.sum([np.clip(vectors[m], -1, 1) for m in found.members], axis=0)
            assert np.abs(clipped - found.values).max() <= session.quantiser.error(len(found.members))
            right.append((1, bool(gone), length))

        one()
    sessions, dropouts, values = map(sum, zip(*right, strict=True))
    return sessions, dropouts, values


if __name__ == "__main__":
    main()
