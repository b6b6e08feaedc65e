"""The aggregator's server: Flower's Fleet API over TLS for the hospitals on the roster, and nothing else.

A stock SuperLink serves three APIs at one port. With the Control API whoever reaches it may start a run, that
is, hand code to every connected SuperNode; the Runtime API is for apps that run apart from it. Here neither
exists, and no run has code.
"""

from __future__ import annotations

import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from flwr.app import Context, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from blindtune.errors import InputError, RemoteError
from blindtune.federation.flower.apps import quiet
from blindtune.federation.flower.grid import LinkGrid, State, StateFactory
from blindtune.federation.flower.objects import OBJECT

KEY_HEADER = b"flwr-public-key"
BODY = OBJECT + (1 << 12)
"""Most bytes of an HTTP body: an object in its frame."""
STOPPING = 5.0
"""Seconds that requests get to end when the server stops."""


@dataclass(frozen=True)
class Tls:
    """Files of the aggregator's certificate, with its chain, and of its key."""

    certificate: Path
    key: Path


class Doorkeeper:
    """Turns away, before a body is read, whoever has no key on the roster, and what is too large.

    Args:
        app: what stands behind it.
        keys: public keys as their header has them.
    """

    def __init__(self, app: ASGIApp, keys: frozenset[bytes]) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            length = headers.get(b"content-length", b"")
            status = 0
            if headers.get(KEY_HEADER) not in self._keys:
                status = 401
            elif not length.isdigit() or int(length) > BODY:
                status = 413
            if status:
                await send({"type": "http.response.start", "status": status, "headers": []})
                await send({"type": "http.response.body"})
                return
        await self._app(scope, receive, send)


class Link:
    """A running server.

    Attributes:
        port: where it listens.
        grid: reaches the hospitals.
        nodes: Flower's number of each member.
        context: of the run, for a ServerApp.
    """

    def __init__(self, state: State, members: Mapping[str, bytes]) -> None:
        self._state, self.port = state, 0
        self.nodes = {n: state.create_node(NOOP_FLWR_AID, n, key, 0) for n, key in members.items()}
        run = state.create_run(
            fab_id=None,
            fab_version=None,
            fab_hash=None,
            override_config={},
            federation_id=NOOP_FEDERATION_ID,
            federation_config=None,
            flwr_aid=NOOP_FLWR_AID,
            primary_task_type=TaskType.SERVER_APP,
        )
        (self._run,) = state.get_run_info(run_ids=[run])
        task = self._run.primary_task_id
        assert task is not None
        state.claim_task(task)
        state.activate_task(task)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, SUPERLINK_NODE_ID, task
        self.grid = LinkGrid(state)
        self.grid.set_run(self._run)
        self.context = Context(run, SUPERLINK_NODE_ID, node_config={}, state=RecordDict(), run_config={})

    @property
    def online(self) -> list[str]:
        """Members that are connected."""
        here = {node.node_id for node in self._state.get_node_info(statuses=[NodeStatus.ONLINE])}
        return [name for name, number in self.nodes.items() if number in here]

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of messages sent to hospitals, and got from them, so far."""
        (run,) = self._state.get_run_info(run_ids=[self._run.run_id])
        return run.bytes_sent, run.bytes_recv


@contextmanager
def link(members: Mapping[str, bytes], host: str, port: int, tls: Tls, limit: int) -> Iterator[Link]:
    """Serve while the block runs.

    Args:
        members: keys of connections by name, as :attr:`~blindtune.federation.members.Members.doors`.
        port: 0 for any free one.
        limit: most bytes of a message's body.

    Raises:
        InputError: certificate or key cannot be used.
        RemoteError: the address cannot be listened at.
    """
    quiet()
    state = State(limit)
    found = Link(state, members)
    config = uvicorn.Config(
        _app(state, members),
        host=host,
        port=port,
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
        log_level="critical",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(STOPPING),
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            "the certificate or its key cannot be used",
            where=tls.certificate.name,
            remedy="Give both as PEM; blindtune federate certificates makes some for trials.",
        ) from error
    assert config.ssl is not None
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_run, args=(server,), name="blindtune link", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.01)
    if not server.started:
        raise RemoteError(
            "cannot listen at this address", where=f"{host}:{port}", remedy="Choose another port or host."
        )
    found.port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.should_exit = True
        thread.join(2 * STOPPING)


def _app(state: State, members: Mapping[str, bytes]) -> FastAPI:
    keys = frozenset(b64encode(key) for key in members.values())
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[
            Middleware(Doorkeeper, keys=keys),
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
        ],
    )
    app.state.linkstate_factory = StateFactory(state)
    app.state.enable_supernode_auth = True
    app.include_router(router)
    return app


def _run(server: uvicorn.Server) -> None:
    try:
        server.run()
    except SystemExit:
        # uvicorn's way to say that it cannot listen.
        return
