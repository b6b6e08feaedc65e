"""The aggregator's grid and its state, in one process and in memory.

Studies are kept by the coordinator. What is here are messages on their way, which a restart may lose: a
request that was lost is a site that did not answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState
from flwr.supercore.inflatable.inflatable_object import no_object_id_recompute
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.inmemory_grid import InMemoryGrid

from blindtune.errors import FederationError
from blindtune.federation.flower.objects import identifiers, label, put_together, taken_apart


class BoundedStore(InMemoryObjectStore):
    """Objects of messages, no more of them a message than our largest one has.

    Args:
        limit: most bytes of a message's body.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def preregister(self, run_id: int, object_tree: ObjectTree) -> list[str]:
        """See Flower; refuses trees with too many objects.

        Raises:
            FederationError: as said.
        """
        identifiers(object_tree, self.limit)
        return super().preregister(run_id, object_tree)


class State(InMemoryLinkState):
    """Flower's state of nodes and messages, for one run that lasts as long as the process.

    Args:
        limit: most bytes of a message's body.
    """

    def __init__(self, limit: int) -> None:
        self.bounded = BoundedStore(limit)
        super().__init__(NoOpFederationManager(), self.bounded)

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """A node that comes again was restarted, or cut off: what it was asked before is lost."""
        with self.lock:
            self.deactivate_node(node_id)
            lost = [
                number
                for number, message in self.message_ins_store.items()
                if message.metadata.dst_node_id == node_id and message.metadata.delivered_at
            ]
            self.forget(lost)
            return super().activate_node(node_id, heartbeat_interval)

    def forget(self, numbers: Iterable[str]) -> None:
        """Drop requests, what was answered to them, and the objects of both."""
        asked = set(numbers)
        with self.lock:
            replies = {self.message_ins_id_to_message_res_id.get(number) for number in asked}
            self.delete_messages(asked)
        for number in {*asked, *replies}:
            if number is not None:
                self.object_store.delete(number)

    def _cleanup_expired_task_tokens_locked(self) -> None:
        """The run's task is this process: it does not have to tell itself that it lives."""


class StateFactory(LinkStateFactory):
    """A state in the form in which Flower hands states around."""

    def __init__(self, state: State) -> None:
        self.state_instance = state


class LinkGrid(InMemoryGrid):
    """A grid over :class:`State`, for one caller that asks one question after the other."""

    def __init__(self, state: State) -> None:
        super().__init__(StateFactory(state))
        self._state = state
        self._open: set[str] = set()
        self._arriving: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Identifiers of the messages; empty for nodes that were never here.

        What was asked before and is still open is forgotten: nobody waits for it.
        """
        self._state.forget(self._open)
        self._arriving.clear()
        state, run = self._state, self.run.run_id
        numbers = []
        # Within, what several messages share is hashed once.
        with no_object_id_recompute():
            for message in messages:
                label(message)
                tree, content = taken_apart(message)
                # One a message: Flower ends a session when its objects are there.
                session = state.start_session(run)
                stored, missing = state.store_message_and_object_tree(
                    remove_content_from_message(message), tree, session
                )
                for number in missing:
                    state.store_object(run, session, number, content(number))
                numbers.append(message.metadata.message_id if stored else "")
        self._open = {number for number in numbers if number}
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answers that have arrived whole, errors of Flower for nodes that are gone."""
        asked = set(message_ids)
        found = []
        for reply in self._state.get_message_res(asked - self._arriving.keys(), self.run.run_id):
            if reply.has_error():
                found.append(reply)
            else:
                self._arriving[reply.metadata.reply_to_message_id] = reply
        for number in asked & self._arriving.keys():
            whole = self._whole(self._arriving[number])
            if whole is not None:
                found.append(whole)
        for reply in found:
            number = reply.metadata.reply_to_message_id
            self._arriving.pop(number, None)
            self._open.discard(number)
            self._state.forget([number])
        return found

    def _whole(self, reply: Message) -> Message | None:
        """A reply with its content, or None if objects are still on their way."""
        store, root = self._state.bounded, reply.metadata.message_id
        try:
            numbers = identifiers(store.get_object_tree(root), store.limit)
            # Empty while it is on its way.
            contents = {number: store.get(number) or b"" for number in numbers}
            if not all(contents.values()):
                return None
            content = put_together(root, contents).content
        except (NoObjectInStoreError, FederationError, ValueError):
            # Nothing that could be read: the channel says so of its sender.
            content = RecordDict()
        return make_message(metadata=reply.metadata, content=content)
