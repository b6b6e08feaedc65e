"""The two halves of a study as Flower's apps, and what both ends of the line share."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from blindtune.errors import FederationError
from blindtune.federation.agreement import Agreement
from blindtune.federation.channel import Answer, Handler, answered
from blindtune.federation.contributions import model_bytes, statistics_parcel, update_parcel
from blindtune.federation.flower.envelope import answer_records, read_request
from blindtune.federation.identity import Identity
from blindtune.federation.secagg.messages import MAX_BYTES

QUERY = "query"
"""Flower's type of our messages."""
LARGEST = 1 << 31
"""Bytes of a message's body: what the aggregator holds of each hospital in memory."""


def server_app(run: Callable[[Grid], None]) -> ServerApp:
    """A ServerApp whose main is ``run``."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run(grid)

    return app


def client_app(
    handler: Handler,
    name: str,
    identity: Identity,
    plan: str,
    limit: int,
    told: Callable[[str, Answer], None] = lambda kind, answer: None,
) -> ClientApp:
    """A ClientApp that answers for one hospital.

    Args:
        handler: the site.
        name, identity: under which answers are signed.
        plan: digest of the plan that this hospital approved; requests under another are refused.
        limit: most bytes of a request's body.
        told: gets the kind of every request, and its answer.
    """
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        asked = read_request(message.content, limit)
        if asked.plan == plan:
            answer = answered(handler, asked.request)
        else:
            answer = Answer(refusal="another plan than this hospital approved")
        told(asked.request.kind[:40], answer)
        return Message(answer_records(name, identity, asked.nonce, answer), reply_to=message)

    return app


def most_bytes(plan: Agreement) -> int:
    """The largest body of a message in a study.

    Raises:
        FederationError: one that is too large for this transport.
    """
    update, before = update_parcel(plan).length, statistics_parcel(plan)
    counted = before.length if before else 0
    found = max(model_bytes(plan), 4 * update, 4 * counted, MAX_BYTES)
    if found > LARGEST:
        raise FederationError(
            f"a model whose messages have {found:,} bytes",
            where="plan",
            remedy=f"Over a network they have {LARGEST:,} at most: choose a smaller model.",
        )
    return found


def quiet() -> None:
    """Keep Flower's log to itself: it tells users what is ours to tell, and repeats what strangers sent."""
    if not os.environ.get("BLINDTUNE_DEBUG"):
        logging.getLogger("flwr").setLevel(logging.CRITICAL)
