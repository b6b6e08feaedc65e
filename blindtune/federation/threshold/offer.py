"""The terms of a study on their way from who made them to the other hospitals, signed as all messages are.

The signature tells who offers; whether the members are the right ones each hospital finds out by comparing
the fingerprint of the terms, or a roster that it has by another way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from blindtune.errors import FederationError
from blindtune.federation.identity import Identity
from blindtune.federation.threshold.mailbox import Mailbox
from blindtune.federation.threshold.message import opened, signed
from blindtune.federation.threshold.terms import Terms
from blindtune.wire.message import MAX_TERMS, OFFER, Statement, overhead, parsed

STAGE = OFFER[0]


@dataclass(frozen=True)
class Offer:
    """Terms, and the member who offers them."""

    terms: Terms
    sender: str


def post(mailbox: Mailbox, terms: Terms, name: str, identity: Identity) -> None:
    """Offer terms to the other members.

    Raises:
        FederationError: not a member's identity, or other terms lie in the study's mailbox.
    """
    if terms.members.get(name) != identity.public.hex():
        raise FederationError(
            "this identity is not the member's", where=name, remedy="Give the key that the roster lists."
        )
    body = terms.model_dump_json().encode()
    statement = Statement(
        terms=terms.digest.hex(),
        code=terms.code,
        stage=STAGE,
        item=STAGE,
        sender=name,
        before="0" * 64,
        body=hashlib.sha256(body).hexdigest(),
    )
    mailbox.post(*OFFER, signed(identity, statement, body))


def fetch(mailbox: Mailbox, study: str) -> Offer | None:
    """What is offered in a study's mailbox; None if nothing is.

    Raises:
        FederationError: altered, or the terms of another study.
        ParametersError: parameters outside the security table.
        PlanError: a layout or program that cannot be.
    """
    message = mailbox.fetch(*OFFER, MAX_TERMS + overhead())
    if message is None:
        return None
    try:
        statement, _, _, end = parsed(message)
    except ValueError:
        raise FederationError("what is offered is not a message", where=STAGE) from None
    terms = Terms.parse(message[end:])
    opened(message, terms.roster, STAGE, STAGE, statement.sender)
    if terms.study != study or statement.terms != terms.digest.hex():
        raise FederationError("the terms of another study", where=STAGE, remedy="Ask whoever made the study.")
    return Offer(terms, statement.sender)
