"""The aggregator's door: who is let in, with what, and what is not there at all."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
)
from flwr.proto.node_pb2 import Node

from blindtune.errors import FederationError, InputError, RemoteError
from blindtune.federation.flower import certificates, fleet
from blindtune.federation.flower.fleet import Fleet
from blindtune.federation.flower.link import BODY, Tls, link
from blindtune.federation.members import CURVE, public_pem


def head_only(network, path, key=b"", length=0):
    """The status of a request of which no body is ever sent."""
    context = ssl.create_default_context(cafile=network.authority / "ca.pem")
    with (
        socket.create_connection(("127.0.0.1", network.linked.port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        lines = (
            f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/protobuf\r\n"
            f"content-length: {length}\r\nflwr-public-key: {b64encode(key).decode()}\r\n\r\n"
        )
        connection.sendall(lines.encode())
        return int(connection.recv(4096).split()[1])


def test_strangers_and_large_bodies_are_turned_away_unread(network):
    made = network(rounds=1)
    known = public_pem(made.keys["site-0"])
    stranger = public_pem(ec.generate_private_key(CURVE()))
    for key in (b"", stranger):
        assert head_only(made, "/v1/fleet/pull-messages", key, 1 << 40) == 401
    assert head_only(made, "/v1/fleet/pull-messages", known, BODY + 1) == 413
    # Let in with a key, but without its signature.
    assert head_only(made, "/v1/fleet/pull-messages", known) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run",
        "/v1/control/register-node",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "/docs",
        "/openapi.json",
        "/health",
    ],
)
def test_flowers_other_interfaces_are_not_there(network, path):
    made = network(rounds=1)
    assert head_only(made, path, public_pem(made.keys["site-0"])) == 404


def test_a_key_opens_its_own_node_only(network):
    made = network(rounds=1)
    own = made.fleet("site-0")
    request = ActivateNodeRequest(public_key=own.public, heartbeat_interval=30)
    number = own.call("activate-node", request, ActivateNodeResponse, 1000).node_id
    assert number == made.linked.nodes["site-0"]
    pull = PullMessagesRequest(node=Node(node_id=made.linked.nodes["site-1"]))
    with pytest.raises(FederationError, match="refuses"):
        own.call("pull-messages", pull, PullMessagesResponse, 1000)


def test_an_old_connection_is_refused(network):
    made = network(rounds=1)
    context = ssl.create_default_context(cafile=made.authority / "ca.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", made.linked.port), timeout=20) as raw,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(raw, server_hostname="127.0.0.1") as connection,
    ):
        connection.recv(1)


def test_another_aggregator_is_not_spoken_to(network, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "PAUSES", ())
    made = network(rounds=1)
    certificates.make(tmp_path, ["127.0.0.1"])
    address = f"127.0.0.1:{made.linked.port}"
    other = Fleet(address, tmp_path / "ca.pem", made.keys["site-0"])
    with pytest.raises(InputError, match="does not vouch"):
        other.call("activate-node", ActivateNodeRequest(), ActivateNodeResponse, 1000)
    named = Fleet(f"localhost.localdomain:{made.linked.port}", made.authority / "ca.pem", made.keys["site-0"])
    with pytest.raises((InputError, RemoteError)):
        named.call("activate-node", ActivateNodeRequest(), ActivateNodeResponse, 1000)
    for client in (other, named):
        client.close()


def test_answers_larger_than_expected_are_not_read(network):
    made = network(rounds=1)
    own = made.fleet("site-0")
    request = ActivateNodeRequest(public_key=own.public, heartbeat_interval=30)
    with pytest.raises(FederationError, match="more than 3 bytes"):
        own.call("activate-node", request, ActivateNodeResponse, 3)


def test_nobody_there(monkeypatch, authority):
    monkeypatch.setattr(fleet, "PAUSES", (0.01,))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = Fleet(f"127.0.0.1:{port}", authority / "ca.pem", ec.generate_private_key(CURVE()))
    with pytest.raises(RemoteError, match="cannot be reached"):
        client.call("activate-node", ActivateNodeRequest(), ActivateNodeResponse, 1000)
    client.close()


def test_what_cannot_be_served(authority, tmp_path):
    tls = Tls(authority / "server.pem", authority / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RemoteError, match="cannot listen"), link({}, "127.0.0.1", port, tls, 1):
            pass
    for wrong in (Tls(tmp_path / "none", tls.key), Tls(tls.certificate, tls.certificate)):
        with pytest.raises(InputError, match="cannot be used"), link({}, "127.0.0.1", 0, wrong, 1):
            pass
    with pytest.raises(InputError, match="no certificate"):
        Fleet("127.0.0.1:1", authority / "server.key", ec.generate_private_key(CURVE()))
