"""Small real studies of two members under SEAL at insecure parameters, and servers to send them to."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray

from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import pack_block, pack_lanes, pack_weights, unpack_weights
from blindtune.kernels.training import Program
from blindtune.params import ParametersLiteral
from blindtune.server.api.app import create_app
from blindtune.server.database import Database
from blindtune.server.pool import Pool
from blindtune.server.service import Service
from blindtune.wire.bundle import Bundle, write_bundle
from blindtune.wire.manifest import Manifest, layout_model, parameters_model, program_model
from tests.server.serving import serving

TOKEN = "a token for tests only"
COEFFICIENTS = (0.3, -0.1)


@dataclass
class PooledStudy:
    """A two-member study in clear, and as bundles on disk."""

    directory: Path
    steps: int = 2
    wide: bool = False
    started: bool = False
    members: tuple[str, ...] = ("north", "south")
    id: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        self._bundles: list[Path] = []
        retain = (1.0, *[0.9] * (self.steps - 1))
        self.program = Program(self.steps, 3, (0,) * self.steps, retain, started=self.started)
        self.parameters = ParametersLiteral(1024, self.program.levels, security=0).checked()
        widths, baby = ((128,), 1) if self.wide else ((4, 2), 2)
        self.layout = Layout(self.parameters.slots, 2, widths, baby, 1, 1)
        self.key = SecretKey.generate(self.parameters)
        rng = np.random.default_rng(0)
        self.rows = {}
        for member in self.members:
            x = rng.normal(size=(200, 11)) / 40
            self.rows[member] = x, rng.normal(size=(200, 2)), rng.uniform(0.5, 1.5, size=(200, 2))

    def manifest(self, kind: str, member: str) -> Manifest:
        """A manifest without parts."""
        return Manifest(
            kind=kind,
            study=self.id,
            members=list(self.members),
            member=member,
            key=self.key.key_id,
            parameters=parameters_model(self.parameters),
            layout=layout_model(self.layout),
            program=program_model(self.program),
            parts=[],
        )

    def keys(self) -> Path:
        """Write the bundle of keys."""
        keys = self.layout.keys()
        galois = [self.key.galois_key(e) for e in self.key.galois_elements(keys)]
        parts = [("relinearisation", [self.key.relinearisation_key()]), ("galois", galois)]
        write_bundle(self.directory / "keys", self.manifest("keys", self.members[0]), parts)
        return self.directory / "keys"

    def data(self, member: str, name: str | None = None) -> Path:
        """Write a member's bundle of data."""
        x, y, s = self.rows[member]
        blocks: dict[int, list[bytes]] = {}
        for (j, _, _), slots in pack_block(x, self.layout):
            blocks.setdefault(j, []).append(self.key.encrypt(slots))
        residual = [s * y, *(s * c for c in COEFFICIENTS)]
        parts = [(f"data-0-{j}", items) for j, items in blocks.items()]
        parts.append(("residual-0-0-0", [self.key.encrypt(pack_lanes(r, self.layout)) for r in residual]))
        path = self.directory / (name or member)
        write_bundle(path, self.manifest("data", member), parts)
        return path

    def bundles(self) -> list[Path]:
        """Write all bundles, once."""
        if not self._bundles:
            self._bundles = [self.keys(), *(self.data(m) for m in self.members)]
        return self._bundles

    def start(self, weights: NDArray[np.float64], name: str = "start") -> Path:
        """Write a bundle of weights (11, 2) to start from."""
        items = [self.key.encrypt(v) for v in pack_weights(weights, self.layout)]
        write_bundle(self.directory / name, self.manifest("start", "north"), [("weights", items)])
        return self.directory / name

    def dense(self, start: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """The same steps in clear on the pooled rows."""
        x, y, s = (np.concatenate(a) for a in zip(*self.rows.values(), strict=True))
        w = np.zeros((11, 2)) if start is None else start
        for step in range(self.steps):
            u = 2 * x @ w
            p = sum(c * u ** (2 * k + 1) for k, c in enumerate(COEFFICIENTS))
            w = self.program.retain[step] * w + x.T @ (s * (y - p))
        return w

    def decrypt(self, head: Path) -> NDArray[np.float64]:
        """The weights in a bundle of a head."""
        items = Bundle(head, insecure=True).items("weights")
        return unpack_weights([self.key.decrypt(self.key.load(i)) for i in items], self.layout)[:11]


@pytest.fixture
def study(tmp_path: Path) -> PooledStudy:
    return PooledStudy(tmp_path)


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., PooledStudy]:
    """Makes a study in a directory of its own name."""
    return lambda name, **given: PooledStudy(tmp_path / name, **given)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> PooledStudy:
    """A study that trains for seconds; its bundles are written once."""
    return PooledStudy(tmp_path_factory.mktemp("slow"), steps=8, wide=True)


def postgresql_programs() -> Path | None:
    """The newest installed server's programs; Debian keeps them out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[4]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server of the tests' own, on a Unix socket alone: the socket's directory."""
    there = postgresql_programs()
    if there is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    # Its name is short: the path of a socket has 107 bytes at most.
    directory = Path(tempfile.mkdtemp(prefix="bt-pg-"))
    data, before = directory / "data", []
    if os.geteuid() == 0:
        # It refuses to run as root.
        user = pwd.getpwnam("nobody")
        os.chown(directory, user.pw_uid, user.pw_gid)
        before = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        before += ["--pdeathsig=KILL"]
    plain = {"env": {"PATH": os.environ["PATH"], "LC_ALL": "C"}, "cwd": "/", "stdin": subprocess.DEVNULL}
    initialise = [there / "initdb", "-D", data, "-U", "blindtune", "-A", "trust", "-E", "UTF8", "-N"]
    subprocess.run([*before, *initialise], check=True, capture_output=True, **plain)
    # Nothing here has to survive a power cut.
    serve = [there / "postgres", "-D", data, "-k", directory, "-c", "listen_addresses=", "-F"]
    with open(directory / "log", "wb") as log:
        server = subprocess.Popen([*before, *serve], stdout=log, stderr=log, **plain)
    try:
        until = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(host=str(directory), user="blindtune", dbname="postgres").close()
                break
            except psycopg.OperationalError:
                assert server.poll() is None, (directory / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
        yield str(directory)
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def postgresql_url(postgresql: str) -> str:
    """An empty database of the server's."""
    name = f"t{secrets.token_hex(8)}"
    with psycopg.connect(host=postgresql, user="blindtune", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"postgresql+psycopg://blindtune@/{name}?host={postgresql}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database of each kind, with its tables."""
    opened = Database(database_url)
    yield opened
    opened.close()


@dataclass
class Running:
    """A server in this process: its address, what it works with, and the tenant of its token."""

    url: str
    service: Service
    tenant: str
    token: str = TOKEN


@contextmanager
def run_server(data_dir: Path, port: int = 0, training: bool = True, **where: str) -> Iterator[Running]:
    service = Service.open(data_dir, insecure=True, **where)
    pool = Pool(service, workers=1, cores=1)
    tenant = service.tenants.make("default")
    service.tenants.set_given(tenant, TOKEN)

    @asynccontextmanager
    async def lifespan(_):
        if training:
            pool.start()
        yield
        if training:
            pool.stop()

    with closing(service), serving(create_app(service, lifespan=lifespan), port) as url:
        yield Running(url, service, tenant)


@pytest.fixture
def start_server(tmp_path: Path) -> Callable[..., AbstractContextManager[Running]]:
    """Starts a server on the test's data directory; a context manager."""
    return lambda **given: run_server(tmp_path / "server", **given)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with run_server(tmp_path / "server") as running:
        yield running


@pytest.fixture
def idle_server(tmp_path: Path) -> Iterator[Running]:
    """A server that trains nothing."""
    with run_server(tmp_path / "server", training=False) as running:
        yield running
