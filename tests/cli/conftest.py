"""The command line in this process or in one of its own, small studies, and a server to send them to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TOKEN = "a token for these tests only"
SECRETS = (
    *("BLINDTUNE_TOKEN", "BLINDTUNE_PASSPHRASE", "BLINDTUNE_SERVER", "BLINDTUNE_DEBUG"),
    *("BLINDTUNE_MACHINE", "XDG_CONFIG_HOME"),
)
MAIN = (sys.executable, "-m", "blindtune.cli.main")


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def refused(self, *words: str, code: int = 2) -> None:
        """One line that says what is wrong, and the exit code; notes may stand before it."""
        lines = self.err.splitlines()
        assert self.code == code, self.err
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.err
        assert "Traceback" not in self.err
        assert "unexpected" not in self.err
        assert self.out == ""
        for word in words:
            assert word in lines[-1]

    def stopped(self) -> None:
        """What Ctrl-C leaves on the terminal."""
        self.refused("stopped; run the same command again to go on", code=130)


def environment(**more: str) -> dict[str, str]:
    """This environment without anything that the commands would read, and more."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return {**kept, "COLUMNS": "80", "HF_HUB_OFFLINE": "1", **more}


def spawn(
    *args: object, program: tuple[str, ...] = MAIN, log: Path | None = None, **env: str
) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a terminal starts it.

    Args:
        log: a file for its stderr; a pipe that nobody reads would hold it up once it is full.
    """
    with log.open("w") if log else nullcontext(subprocess.PIPE) as errors:
        return subprocess.Popen(
            [*program, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment(**env),
            start_new_session=True,
        )


def end(process: subprocess.Popen[str]) -> Ran:
    """Wait for a command."""
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def blindtune(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ran]]:
    """Runs a command in this process, through the real entry point."""
    from blindtune.cli import interrupts, main

    before = signal.getsignal(signal.SIGINT)

    def run(*args: object) -> Ran:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        monkeypatch.setattr(interrupts, "pressed", False)
        monkeypatch.setattr(sys, "argv", ["blindtune", *map(str, args)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        found = capfd.readouterr()
        return Ran(int(ended.value.code or 0), found.out, found.err)

    yield run
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def subprocess_blindtune() -> Callable[..., Ran]:
    """Runs a command in another process."""
    return lambda *args, **env: end(spawn(*args, **env))


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command in another process; see :func:`spawn`. Ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*args: object, **given: object) -> subprocess.Popen[str]:
        started.append(spawn(*args, **given))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def wait_for() -> Callable[[subprocess.Popen[str]], Ran]:
    """Waits for what :func:`start` gave."""
    return end


@pytest.fixture
def tree() -> Callable[[Path], dict[str, object]]:
    """Everything below a directory: kind, mode and content by path."""

    def look(root: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in sorted(root.rglob("*")):
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "directory"
            found[str(path.relative_to(root))] = (oct(path.stat().st_mode), content)
        return found

    return look


def write_embeddings(path: Path, rows: int = 60, kinds: int = 2, **changed: object) -> Path:
    """Separable embeddings of 16 features, split by patient."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % kinds
    centres = rng.normal(size=(kinds, 16)) * 0.8
    arrays = {
        "embeddings": (rng.normal(size=(rows, 16)) + centres[labels]).astype(np.float32),
        "labels": labels,
        "classes": np.array(["clear-lung", "opaque-lung", "wet-lung"][:kinds]),
        "patients": np.array([f"PAT-{i:04d}-SMITH" for i in range(rows)]),
        **changed,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.fixture(scope="session")
def make_embeddings() -> Callable[..., Path]:
    """Writes an .npz of embeddings; see :func:`write_embeddings`."""
    return write_embeddings


@pytest.fixture(scope="session")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows, two classes."""
    return write_embeddings(tmp_path_factory.mktemp("embeddings") / "two.npz")


def _finish(*args: object, **env: str) -> Ran:
    ran = end(spawn(*args, **env))
    assert ran.code == 0, ran.err
    return ran


@pytest.fixture(scope="session")
def pristine(embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encrypted study of one step; read only."""
    out = tmp_path_factory.mktemp("pristine") / "study"
    _finish("encrypt", embeddings, "--out", out, "--steps", 1)
    return out


@pytest.fixture
def study(pristine: Path, tmp_path: Path) -> Path:
    """A copy of an encrypted study."""
    return Path(shutil.copytree(pristine, tmp_path / "study"))


@pytest.fixture(scope="session")
def other(embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another study of the same data, under another key; read only."""
    out = tmp_path_factory.mktemp("other") / "study"
    _finish("encrypt", embeddings, "--out", out, "--steps", 1)
    return out


@pytest.fixture(scope="session")
def pristine_trained(pristine: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study with its encrypted head; read only."""
    out = Path(shutil.copytree(pristine, tmp_path_factory.mktemp("trained") / "study"))
    _finish("submit", out, "--server", server.url, BLINDTUNE_TOKEN=TOKEN)
    _finish("fetch", out, BLINDTUNE_TOKEN=TOKEN)
    return out


@pytest.fixture
def trained(pristine_trained: Path, tmp_path: Path) -> Path:
    """A copy of a study whose encrypted head came back."""
    return Path(shutil.copytree(pristine_trained, tmp_path / "trained"))


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About thirty synthetic DICOM files and their labels."""
    from blindtune.imaging import write_synthetic_cohort

    directory = tmp_path_factory.mktemp("scans") / "scans"
    write_synthetic_cohort(directory, patients=24)
    return directory


@dataclass
class Server:
    """``blindtune serve`` in another process."""

    data: Path
    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        """As a power cut does."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def serving(data: Path, **env: str) -> Iterator[Server]:
    """A server on a free port; its log is in ``data.log``."""
    log = data.with_suffix(".log")
    options = ("--data-dir", data, "--port", 0, "--cores", 1)
    process = spawn("serve", *options, log=log, BLINDTUNE_TOKEN=TOKEN, **env)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    try:
        assert url, log.read_text()
        yield Server(data, process, url)
    finally:
        if process.poll() is None:
            process.terminate()
        # Closes its pipe too; a server that a test killed has closed it.
        if process.stdout and not process.stdout.closed:
            process.communicate(timeout=30)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests."""
    with serving(tmp_path_factory.mktemp("server") / "cloud") as running:
        yield running


@pytest.fixture
def serve() -> Callable[..., object]:
    """Starts a server of the test's own on a data directory; a context manager."""
    return serving


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """The servers' token, where commands look for it."""
    monkeypatch.setenv("BLINDTUNE_TOKEN", TOKEN)
    return TOKEN


class Relay:
    """Passes bytes on to a server, and acts once when so many have gone one way.

    Args:
        up: after how many bytes from the client; ``down`` from the server.
        act: called once then, before these bytes are passed on; nothing moves while it runs.
    """

    def __init__(self, port: int, act: Callable[[], None], *, up: float = 1e99, down: float = 1e99) -> None:
        self._port, self._act, self._limits = port, act, {"up": up, "down": down}
        self._passed = {"up": 0, "down": 0}
        self._lock, self._acted = threading.Lock(), False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept nobody any more."""
        # A thread in accept() keeps the port otherwise.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                client.close()
                continue
            for way, source, sink in (("up", client, server), ("down", server, client)):
                threading.Thread(target=self._pass, args=(way, source, sink), daemon=True).start()

    def _pass(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                with self._lock:
                    self._passed[way] += len(data)
                    if self._passed[way] > self._limits[way] and not self._acted:
                        self._acted = True
                        self._act()
                sink.sendall(data)
        for end_ in (source, sink):
            with suppress(OSError):
                end_.shutdown(socket.SHUT_RDWR)
            end_.close()


@pytest.fixture
def relay() -> Iterator[Callable[..., Relay]]:
    """Makes relays; see :class:`Relay`."""
    made: list[Relay] = []

    def make(*args: object, **given: object) -> Relay:
        made.append(Relay(*args, **given))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def interrupt() -> Callable[[subprocess.Popen[str]], None]:
    """Ctrl-C as a terminal sends it: to the whole process group."""

    def send(process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)

    return send


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sends SIGINT to this process when a function is called for the n-th time."""

    def at(place: str, call: int = 1) -> None:
        module, _, name = place.partition(":")
        owner: Any = import_module(module)
        *path, last = name.split(".")
        for part in path:
            owner = getattr(owner, part)
        inner, calls = owner.__dict__[last], 0
        unbound = inner.__func__ if isinstance(inner, (classmethod, staticmethod)) else inner

        def outer(*args: Any, **given: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                signal.raise_signal(signal.SIGINT)
            return unbound(*args, **given)

        monkeypatch.setattr(owner, last, type(inner)(outer) if unbound is not inner else outer)

    return at


SITES = ("east", "north", "west")


@pytest.fixture
def draft() -> dict[str, Any]:
    """A federated study of three sites, as its authors write it."""
    return {
        "study": "trial",
        "classes": ["clear-lung", "opaque-lung", "wet-lung"],
        "model": {"kind": "head", "features": 16},
        "rounds": 3,
        "local": {"every": 2, "unit": "epochs", "batch": 8, "rate": 0.2},
    }


@pytest.fixture
def plan(blindtune: Callable[..., Ran], draft: dict[str, Any], tmp_path: Path) -> Path:
    """Its plan's file."""
    (tmp_path / "draft.json").write_text(json.dumps(draft))
    ran = blindtune("federate", "plan", tmp_path / "draft.json", "--out", tmp_path / "plan", "--json")
    assert ran.code == 0, ran.err
    return tmp_path / "plan" / "plan.json"


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """A folder with a file of embeddings for each of its sites."""
    place = tmp_path / "sites"
    place.mkdir()
    for i, name in enumerate(SITES):
        write_embeddings(place / f"{name}.npz", rows=60 + 12 * i, kinds=3)
    return place
