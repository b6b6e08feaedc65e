"""A hospital's end of the link: asks for messages, has its app answer them, and comes back for ever.

It runs the app that it is given, which is the one that is installed here. Flower's own node would ask for
the run's app and start it in a process; this one has no such step, and takes three kinds of objects only.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from flwr.app import Context, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node as NodeInfo
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from google.protobuf.message import Message

from blindtune.errors import FederationError, RemoteError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Answer
from blindtune.federation.flower.apps import client_app, most_bytes, quiet
from blindtune.federation.flower.fleet import Fleet, R
from blindtune.federation.flower.objects import OBJECT, identifiers, label, put_together, taken_apart
from blindtune.federation.hospital import Hospital
from blindtune.federation.search import SearchPlan

LIFE = 15.0
"""Seconds between two signs of life that are promised; after twice as many the aggregator gives a node up."""
BEAT = 5.0
"""Seconds between two that are sent."""
BUSY, IDLE = 0.1, 1.0
"""Seconds between two looks for messages: in a round, and when nothing has come for ``QUIET`` seconds."""
QUIET = 10.0
LONGEST_PAUSE = 20.0
"""Seconds between two tries to come back."""
SMALL = 1 << 20
"""Most bytes of an answer that is no object."""
AT_ONCE = 4
"""Objects on their way at a time: on a long line, waiting is what takes time."""
ARRIVING = 50
"""Looks for an object that the aggregator announced but does not have yet."""


class Node:
    """One hospital's connection.

    Args:
        fleet: its calls.
        app: answers messages.
        limit: most bytes of a message's body.
        told: gets what a person may want to know.
    """

    def __init__(
        self, fleet: Fleet, app: ClientApp, limit: int, told: Callable[[str], None] = lambda text: None
    ) -> None:
        self._fleet, self._app, self._limit, self._told = fleet, app, limit, told
        self._pool = ThreadPoolExecutor(AT_ONCE, "blindtune objects")

    def run(self) -> None:
        """Answer until interrupted; come back whenever the connection is lost.

        Raises:
            InputError: the aggregator's certificate is not vouched for.
        """
        pause, said = 0.5, ""
        while True:
            try:
                with self._connected() as me:
                    self._told("connected; waiting for requests")
                    pause, said = 0.5, ""
                    self._attend(me)
            except (RemoteError, FederationError) as error:
                if error.what != said:
                    said = error.what
                    self._told(f"{said}; trying again")
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _attend(self, me: NodeInfo) -> None:
        last = time.monotonic()
        while True:
            found = self._call("pull-messages", PullMessagesRequest(node=me), PullMessagesResponse)
            if found.messages_list and found.message_object_trees:
                run = found.messages_list[0].metadata.run_id
                self._answer(me, run, found.message_object_trees[0])
                last = time.monotonic()
            else:
                time.sleep(BUSY if time.monotonic() - last < QUIET else IDLE)

    def _answer(self, me: NodeInfo, run: int, tree: ObjectTree) -> None:
        numbers = identifiers(tree, self._limit)
        contents = self._pool.map(lambda number: self._object(me, run, number), numbers)
        message = put_together(tree.object_id, dict(zip(numbers, contents, strict=True)))
        context = Context(run, me.node_id, node_config={}, state=RecordDict(), run_config={})
        start = time.monotonic()
        reply = self._app(message, context)
        spent = time.monotonic() - start
        with no_object_id_recompute():
            label(reply)
            tree, content = taken_apart(reply)
            pushed = self._fleet.call(
                "push-messages",
                PushMessagesRequest(
                    node=me,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[tree],
                    clientapp_runtime_list=[spent],
                ),
                PushMessagesResponse,
                SMALL,
            )
            wanted = [n for n in identifiers(tree, self._limit) if n in pushed.objects_to_push]
            for first in range(0, len(wanted), AT_ONCE):
                some = wanted[first : first + AT_ONCE]
                # Made here, where hashes are remembered, and a few at a time.
                sent = [self._sending(me, run, pushed.session_id, n, content(n)) for n in some]
                for sending in sent:
                    sending.result()

    def _sending(
        self, me: NodeInfo, run: int, session: str, number: str, content: bytes
    ) -> Future[PushObjectResponse]:
        request = PushObjectRequest(
            node=me, run_id=run, object_id=number, object_content=content, session_id=session
        )
        return self._pool.submit(self._fleet.call, "push-object", request, PushObjectResponse, SMALL)

    def _object(self, me: NodeInfo, run: int, number: str) -> bytes:
        request = PullObjectRequest(node=me, run_id=run, object_id=number)
        for _ in range(ARRIVING):
            found = self._fleet.call("pull-object", request, PullObjectResponse, OBJECT + SMALL)
            if found.object_available:
                return bytes(found.object_content)
            if not found.object_found:
                break
            time.sleep(BUSY)
        raise FederationError("a message of which a piece is missing", where="federation")

    def _call(self, name: str, request: Message, answer: type[R]) -> R:
        """A call that is not tried again: it is made again soon, or its time is over."""
        return self._fleet.call(name, request, answer, SMALL, again=False)

    @contextmanager
    def _connected(self) -> Iterator[NodeInfo]:
        """Come in, give signs of life meanwhile, and say goodbye."""
        request = ActivateNodeRequest(public_key=self._fleet.public, heartbeat_interval=LIFE)
        number = self._call("activate-node", request, ActivateNodeResponse).node_id
        me, gone = NodeInfo(node_id=number), threading.Event()

        def beat() -> None:
            sign = SendNodeHeartbeatRequest(node=me, heartbeat_interval=LIFE)
            while not gone.wait(BEAT):
                # Whether the aggregator is there, the other thread finds out.
                with suppress(RemoteError, FederationError):
                    self._call("send-node-heartbeat", sign, SendNodeHeartbeatResponse)

        thread = threading.Thread(target=beat, name="blindtune heartbeat", daemon=True)
        thread.start()
        try:
            yield me
        finally:
            gone.set()
            with suppress(RemoteError, FederationError):
                goodbye = DeactivateNodeRequest(node_id=number)
                self._call("deactivate-node", goodbye, DeactivateNodeResponse)


def take_part(
    hospital: Hospital,
    plan: Agreement | SearchPlan,
    fleet: Fleet,
    told: Callable[[str], None] = lambda text: None,
) -> None:
    """Answer an aggregator until interrupted.

    Args:
        told: gets what the hospital is asked, and what it answers.

    Raises:
        InputError: the aggregator's certificate is not vouched for.
    """

    def asked(kind: str, answer: Answer) -> None:
        told(f"{kind}: " + (f"refused: {answer.refusal}" if answer.refusal else "answered"))

    quiet()
    limit = most_bytes(plan if isinstance(plan, Agreement) else plan.base)
    app = client_app(hospital.site.handle, hospital.name, hospital.identity, plan.digest, limit, asked)
    Node(fleet, app, limit, told).run()
