"""A link on loopback, and hospitals that come to it in threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Context, Message

from blindtune.errors import RemoteError
from blindtune.federation.channel import Handler
from blindtune.federation.coordinator import Coordinator
from blindtune.federation.flower import certificates, node
from blindtune.federation.flower.apps import client_app, most_bytes
from blindtune.federation.flower.channel import FlowerChannel
from blindtune.federation.flower.fleet import Fleet
from blindtune.federation.flower.link import Link, Tls, link
from blindtune.federation.members import CURVE, public_pem

App = Callable[[Message, Context], Message]


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with certificates for loopback."""
    place = tmp_path_factory.mktemp("certificates")
    certificates.make(place, ["127.0.0.1", "localhost"])
    return place


class Stopped(BaseException):
    """Ends a hospital's thread."""


class Stoppable(Fleet):
    """Calls of a process that may be gone: as after a kill, nothing is said any more."""

    gone = False

    def call(self, name: str, *args: Any, **given: Any) -> Any:
        if self.gone and name in ("activate-node", "pull-messages"):
            raise Stopped
        if self.gone:
            raise RemoteError("gone")
        return super().call(name, *args, **given)


@dataclass
class Network:
    """A study whose sites are reached over TLS.

    Attributes:
        made: what :class:`Study` of the directory above made.
        linked: the aggregator's end.
        limit: most bytes of a message's body.
    """

    made: Any
    linked: Link
    keys: dict[str, ec.EllipticCurvePrivateKey]
    authority: Path
    limit: int
    timeout: float
    fleets: list[Stoppable] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    @property
    def channel(self) -> FlowerChannel:
        """The coordinator's."""
        plan = self.made.agreement.digest
        return FlowerChannel(
            self.linked.grid, self.linked.nodes, self.made.roster, plan, self.limit, self.timeout
        )

    def coordinator(self, name: str = "coordinator") -> Coordinator:
        """A coordinator as its process makes it."""
        made = self.made
        place = made.directory / name
        return Coordinator(made.agreement, made.roster, self.channel, place, made.start, made.policy)

    def fleet(self, name: str) -> Stoppable:
        """A member's calls."""
        address = f"127.0.0.1:{self.linked.port}"
        self.fleets.append(Stoppable(address, self.authority / "ca.pem", self.keys[name]))
        return self.fleets[-1]

    def app(self, name: str, handler: Handler | None = None, **changed: Any) -> App:
        """A member's app."""
        told = {"identity": self.made.identities[name], "plan": self.made.agreement.digest, **changed}
        return client_app(handler or self.made.channel.sites[name], name, limit=self.limit, **told)

    def start(self, name: str, app: App | None = None) -> Stoppable:
        """A member that comes, and is there when this returns."""
        fleet, here = self.fleet(name), threading.Event()
        found = node.Node(fleet, app or self.app(name), self.limit, lambda text: here.set())

        def attend() -> None:
            with suppress(Stopped, SystemExit):
                found.run()

        self.threads.append(threading.Thread(target=attend, daemon=True))
        self.threads[-1].start()
        assert here.wait(30)
        return fleet

    def start_all(self, *but: str) -> None:
        """All members but some."""
        for name in self.made.names:
            if name not in but:
                self.start(name)

    def stop(self) -> None:
        """End all threads."""
        for fleet in self.fleets:
            fleet.gone = True
        for thread in self.threads:
            thread.join(30)
        for fleet in self.fleets:
            fleet.close()


@pytest.fixture
def network(study: Callable[..., Any], authority: Path) -> Iterator[Callable[..., Network]]:
    """Makes networks; takes what ``study`` takes, and ``timeout`` and ``limit``."""
    with ExitStack() as stack:

        def make(timeout: float = 60.0, limit: int | None = None, **plan: Any) -> Network:
            made = study(**plan)
            keys = {n: ec.generate_private_key(CURVE()) for n in made.names}
            most = limit or most_bytes(made.agreement)
            doors = {n: public_pem(key) for n, key in keys.items()}
            tls = Tls(authority / "server.pem", authority / "server.key")
            linked = stack.enter_context(link(doors, "127.0.0.1", 0, tls, most))
            found = Network(made, linked, keys, authority, most, timeout)
            stack.callback(found.stop)
            return found

        yield make
