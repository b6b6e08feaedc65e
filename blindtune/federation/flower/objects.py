"""Messages as the objects that Flower stores and moves, taken apart and put together within limits."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    get_object_type_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from blindtune.errors import FederationError
from blindtune.federation.flower.envelope import PIECE

OBJECT = PIECE + (1 << 16)
"""Most bytes of an object, and nearly of an HTTP body."""
KINDS = ("Message", "RecordDict", "ConfigRecord")
"""What our messages consist of. Flower's arrays may name one piece many times over: a few bytes would ask
for any amount of memory."""


def most_objects(limit: int) -> int:
    """Objects of a message whose body has at most ``limit`` bytes."""
    return -(-limit // PIECE) + 3


def label(message: Message) -> None:
    """Give a message its identifier, which is the hash of its content."""
    message.metadata.__dict__["_message_id"] = message.object_id


def taken_apart(message: Message) -> tuple[ObjectTree, Callable[[str], bytes]]:
    """The tree of a message's objects, and a function that gives the content of one.

    To be called, with what it returns, in one ``no_object_id_recompute``: else every look hashes it all.
    """
    objects = get_all_nested_objects(message)
    return get_object_tree(message), lambda object_id: objects[object_id].deflate()


def identifiers(tree: ObjectTree, limit: int) -> list[str]:
    """The distinct objects of a tree.

    Args:
        limit: most bytes of the message's body.

    Raises:
        FederationError: more of them than such a body needs.
    """
    found: dict[str, None] = {}
    for node in iterate_object_tree(tree):
        found[node.object_id] = None
        if len(found) > most_objects(limit):
            raise FederationError("a message of too many pieces", where="federation")
    return list(found)


def put_together(root: str, contents: dict[str, bytes]) -> Message:
    """A message from its objects.

    Args:
        root: identifier of the message.
        contents: of all objects; emptied.

    Raises:
        FederationError: not one of our messages.
    """
    try:
        if any(get_object_type_from_object_content(c) not in KINDS for c in contents.values()):
            raise ValueError
        message = inflate_object_from_contents(root, contents)
        if not isinstance(message, Message):
            raise ValueError
    # A foreign parser of foreign bytes: whatever it stumbles over, the message is none.
    except Exception:
        raise FederationError("a message that cannot be read", where="federation") from None
    message.metadata.__dict__["_message_id"] = root
    return message
