"""A server in a process of its own, whose memory is its own too: ``python -m tests.server.apart DATA_DIR``.

It makes the tenants north and south and prints its address and tokens as one JSON line.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Apart:
    """What the process said, and its process."""

    port: int
    tokens: dict[str, str]
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def headers(self, whose: str) -> dict[str, str]:
        """Of a request by north, south or operator."""
        return {"Authorization": f"Bearer {self.tokens[whose]}"}

    def peak(self) -> int:
        """Most bytes of memory that it held since :meth:`forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [x for x in status.splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) << 10

    def forget_peak(self) -> int:
        """Begin anew; what it holds now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.peak()


@contextmanager
def apart(data_dir: Path) -> Iterator[Apart]:
    """Run one."""
    command = [sys.executable, "-m", "tests.server.apart", str(data_dir)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            yield Apart(told["port"], told["tokens"], psutil.Process(process.pid))
        finally:
            process.terminate()


def main(data_dir: Path) -> None:
    """Serve until ended; nothing is trained."""
    import uvicorn

    from blindtune.server.api.app import create_app
    from blindtune.server.service import Service
    from blindtune.server.watch import Watched

    service = Service.open(data_dir, insecure=True)
    tokens = {"operator": service.tenants.issue(None, ["operator"])[1]}
    for name in ("north", "south"):
        tenant = service.tenants.make(name)
        tokens[name] = service.tenants.issue(tenant, ["read", "submit"])[1]
        tokens[f"lapsed-{name}"] = service.tenants.issue(tenant, ["read", "submit"], days=1e-9)[1]
    listening = socket.create_server(("127.0.0.1", 0))
    # The line waits in the pipe's backlog: whoever reads it may connect at once.
    print(json.dumps({"port": listening.getsockname()[1], "tokens": tokens}), flush=True)
    app = create_app(service)
    config = uvicorn.Config(
        Watched(app, app.state.metrics), log_level="error", ws="none", http="h11", timeout_graceful_shutdown=1
    )
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
