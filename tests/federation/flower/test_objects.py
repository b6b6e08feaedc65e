"""Messages as objects: ours come back, others are refused before they take memory."""

from __future__ import annotations

import json

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_object_id, no_object_id_recompute

from blindtune.errors import FederationError
from blindtune.federation.flower import envelope
from blindtune.federation.flower.objects import identifiers, label, most_objects, put_together, taken_apart


def message(records):
    metadata = Metadata(1, "", 1, 2, "", "", 1.8e9, 60.0, "query")
    return make_message(metadata, RecordDict(records))


def contents(found):
    with no_object_id_recompute():
        label(found)
        tree, content = taken_apart(found)
        return tree, {n: content(n) for n in identifiers(tree, 1 << 30)}


@pytest.mark.parametrize("body", [b"", b"small", bytes(3 * envelope.PIECE), b"ab" * envelope.PIECE])
def test_messages_come_back(body):
    sent = message(envelope.pieces(body))
    tree, objects = contents(sent)
    assert tree.object_id == sent.metadata.message_id
    assert len(objects) <= most_objects(len(body))
    found = put_together(tree.object_id, objects)
    assert b"".join(r["data"] for r in found.content.values()) == body
    assert found.metadata.message_id == sent.metadata.message_id


def test_trees_with_more_objects_than_the_largest_message_are_refused():
    tree = ObjectTree(object_id="0", children=[ObjectTree(object_id=f"{i}") for i in range(1, 50)])
    with pytest.raises(FederationError, match="too many pieces"):
        identifiers(tree, 10 * envelope.PIECE)
    assert len(identifiers(tree, 47 * envelope.PIECE)) == 50


def test_arrays_are_refused_before_they_are_put_together():
    # Flower would repeat the one piece as often as the array's head says.
    array = Array("uint8", (8,), "bytes", b"12345678")
    tree, objects = contents(message({"a": ArrayRecord({"x": array})}))
    [(number, content)] = [(n, c) for n, c in objects.items() if c.startswith(b"Array ")]
    head, _, body = content.partition(b"\0")
    told = {**json.loads(body), "arraychunk_ids": [0] * 1000}
    text = json.dumps(told).encode()
    bomb = b" ".join([*head.split(b" ")[:2], str(len(text)).encode()]) + b"\0" + text
    objects[number] = bomb
    with pytest.raises(FederationError, match="cannot be read"):
        put_together(tree.object_id, objects)


@pytest.mark.parametrize(
    "content", [b"", b"\0", b"Message", b"Message  3\0\xff\xff\xff", b"Nonsense  0\0", b"\xff\0"]
)
def test_bytes_that_are_no_object(content):
    with pytest.raises(FederationError, match="cannot be read"):
        put_together(get_object_id(content), {get_object_id(content): content})


def test_a_record_is_no_message():
    content = ConfigRecord({"a": 1}).deflate()
    with pytest.raises(FederationError, match="cannot be read"):
        put_together(get_object_id(content), {get_object_id(content): content})
