"""A large upload over a line that is cut at random: what has to be sent again, and the server's memory.

    python -m benchmarks.uploads --work /tmp/uploads [--gigabytes 2] [--cuts 20] [--seed 0]

A study of many blocks goes through a proxy on loopback that counts bytes and cuts all connections at drawn
places. It is random bytes in the form of ciphertexts: no server can tell them from encrypted data. ``submit``
goes on by itself; where it gives up it is run again. Written to ``docs/benchmarks/uploads.md`` and
``benchmarks/results/uploads.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.commands import ROOT, keep, machine, serving
from benchmarks.memory import peak_bytes
from blindtune.client.remote import Remote
from blindtune.client.uploading import CHUNK
from blindtune.errors import RemoteError
from blindtune.he import blob
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.params import ParametersLiteral
from blindtune.wire.bundle import Bundle, file_sha256, write_bundle
from blindtune.wire.manifest import (
    Manifest,
    expected_parts,
    layout_model,
    parameters_model,
    program_model,
)

PAGE = ROOT / "docs" / "benchmarks" / "uploads.md"
BLOCK = 1 << 16


def write_study(target: Path, size: int) -> Bundle:
    """A bundle of data of at least ``size`` bytes."""
    program = Program(3, 7, (0,) * 3, (1.0,) * 3)
    parameters = ParametersLiteral(16384, program.levels).checked()
    item = blob.fresh_bytes(parameters)
    widths = (64, 64)
    blocks = -(-size // (item * sum(widths)))
    layout = Layout(parameters.slots, 1, widths, 8, blocks, 1)
    manifest = Manifest(
        kind="data",
        study=secrets.token_hex(16),
        members=["synthetic"],
        member="synthetic",
        key=secrets.token_hex(16),
        parameters=parameters_model(parameters),
        layout=layout_model(layout),
        program=program_model(program),
        parts=[],
    )
    wanted = expected_parts(manifest)
    write_bundle(
        target, manifest, ((n, [os.urandom(item) for _ in range(c)]) for n, (c, _) in wanted.items())
    )
    return Bundle(target)


class Proxy:
    """Passes connections on, and cuts all of them whenever so many bytes went towards the server.

    Attributes:
        sent: bytes that went towards the server.
        cuts: made so far.
    """

    def __init__(self, port: int, places: list[int]) -> None:
        self._port, self._places = port, sorted(places)
        self._open: set[asyncio.StreamWriter] = set()
        self.sent = self.cuts = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, there}
        self._open |= both
        try:
            await asyncio.gather(self._up(reader, there), self._down(there_reader, writer))
        except (OSError, asyncio.CancelledError):
            # Cut, or the end.
            pass
        finally:
            self._open -= both
            for end in both:
                end.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while piece := await reader.read(BLOCK):
            there.write(piece)
            await there.drain()
            self.sent += len(piece)
            if self._places and self.sent >= self._places[0]:
                self._places.pop(0)
                self.cuts += 1
                for end in self._open:
                    end.transport.abort()
        there.transport.abort()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(BLOCK):
            writer.write(piece)
            await writer.drain()
        writer.transport.abort()


@contextmanager
def running(proxy: Proxy) -> Iterator[int]:
    """A proxy in a thread; its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    loop, stop = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with await asyncio.start_server(proxy.serve, sock=listening):
            await stop.wait()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def measure(work: Path, size: int, cuts: int, seed: int) -> dict[str, Any]:
    """Upload once; what it took."""
    study = write_study(work / "study", size)
    draw = random.Random(seed)
    with serving(work / "server", "--log-level", "error") as (url, token, process):
        before = peak_bytes(process.pid)
        proxy = Proxy(httpx.URL(url).port or 0, [draw.randrange(study.size) for _ in range(cuts)])
        runs, began = 0, time.perf_counter()
        with running(proxy) as port:
            while True:
                runs += 1
                try:
                    with Remote(f"http://127.0.0.1:{port}", token) as remote:
                        remote.submit([study.directory])
                        state = remote.status(study.manifest.study)
                    break
                except RemoteError:
                    if runs > 10 * (cuts + 1):
                        raise
        seconds, after = time.perf_counter() - began, peak_bytes(process.pid)
    kept = {file_sha256(p) for p in (work / "server" / "blobs").rglob("*") if p.is_file()}
    return {
        "bytes": study.size,
        "parts": len(study.manifest.parts),
        "chunk": CHUNK,
        "cuts": proxy.cuts,
        "runs_of_submit": runs,
        "bytes_sent": proxy.sent,
        "bytes_sent_again": proxy.sent - study.size,
        "arrived": state.uploaded == ["synthetic"],
        "hashes_equal": {p.sha256 for p in study.manifest.parts} <= kept,
        "seconds": seconds,
        "server_peak_before": before,
        "server_peak_after": after,
    }


def page(found: dict[str, Any]) -> str:
    """The page of the results."""
    m = found["machine"]
    again = found["bytes_sent_again"] / max(1, found["cuts"])
    rows = [
        ("study", f"{found['bytes'] / 1e9:.2f} GB in {found['parts']} parts"),
        ("cuts of all connections", str(found["cuts"])),
        ("runs of `submit`", str(found["runs_of_submit"])),
        ("arrived whole, hashes equal", str(found["arrived"] and found["hashes_equal"])),
        ("sent again, with all heads of requests", f"{found['bytes_sent_again'] / 1e6:.1f} MB"),
        ("a cut, in chunks of 8 MiB", f"{again / found['chunk']:.2f}"),
        ("server's memory, peak before and after", f"{found['server_peak_before'] / 1e6:.0f} and "
                                                   f"{found['server_peak_after'] / 1e6:.0f} MB"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""# A large upload over a line that is cut

Written by `python -m benchmarks.uploads` on {m["cpu"]}, {m["cores"]} cores, Python {m["python"]},
commit {m["commit"]}. A proxy on loopback cut all connections at random places of the upload; the hospital's
`submit` went on by itself, or was run again.

| | |
|---|---|
{table}
"""


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    told = machine()
    found = {**measure(given.work, int(given.gigabytes * 1e9), given.cuts, given.seed), "machine": told}
    keep("uploads", found)
    PAGE.write_text(page(found))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
