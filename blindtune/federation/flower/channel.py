"""A coordinator's channel over a Flower grid."""

from __future__ import annotations

import time
from collections.abc import Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from blindtune.errors import FederationError
from blindtune.federation.channel import Answer, Request
from blindtune.federation.flower.apps import QUERY
from blindtune.federation.flower.envelope import Asked, nonce, pieces, read_answer, request_records
from blindtune.federation.identity import Roster

POLL = 0.05
"""Seconds between two looks for answers."""


class FlowerChannel:
    """Sites behind a grid, all asked at a time.

    Args:
        grid: reaches the nodes.
        nodes: Flower's number of a node by member. It says where to send, and no more: whose answer it is,
            its signature says.
        roster: the members.
        plan: digest of the plan, sent with every request.
        limit: most bytes of an answer.
        timeout: seconds after which a site is missing from the answer.
    """

    def __init__(
        self, grid: Grid, nodes: Mapping[str, int], roster: Roster, plan: str, limit: int, timeout: float
    ) -> None:
        self._grid, self._nodes, self._roster = grid, nodes, roster
        self._plan, self._limit, self._timeout = plan, limit, timeout

    def ask(self, requests: Mapping[str, Request]) -> dict[str, Answer]:
        """See :class:`blindtune.federation.channel.Channel`."""
        asked = {name: Asked(self._plan, nonce(), r) for name, r in requests.items() if name in self._nodes}
        # Most requests share their body: cut up once, and found again by its place in memory.
        bodies = {id(a.request.body): pieces(a.request.body) for a in asked.values()}
        messages = [
            # Not delivered any more when nobody waits for the answer.
            Message(request_records(a, bodies[id(a.request.body)]), self._nodes[n], QUERY, ttl=self._timeout)
            for n, a in asked.items()
        ]
        numbers = self._grid.push_messages(messages)
        waiting = {number: name for number, name in zip(numbers, asked, strict=True) if number}
        found: dict[str, Answer] = {}
        end = time.monotonic() + self._timeout
        while waiting and time.monotonic() < end:
            replies = list(self._grid.pull_messages(list(waiting)))
            for reply in replies:
                name = waiting.pop(reply.metadata.reply_to_message_id)
                # Flower's own errors: the node is gone.
                if reply.has_content():
                    found[name] = self._read(reply, name, asked[name].nonce)
            if not replies:
                time.sleep(POLL)
        return found

    def _read(self, reply: Message, name: str, drawn: bytes) -> Answer:
        try:
            return read_answer(reply.content, self._limit, self._roster, name, drawn)
        except FederationError as error:
            return Answer(refusal=error.what)
