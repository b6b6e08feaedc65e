"""Messages over HTTP: said, uploaded, read whole and in ranges; what is no message."""

from __future__ import annotations

import hashlib

import pytest

from tests.members import Members, told

STUDY = "5a" * 16
ADDRESS = f"/studies/{STUDY}/messages/first/public/north"
MEMBERS = Members("north", "south")
MESSAGE = MEMBERS.message("first", "public", "north", bytes(range(256)) * 40)


@pytest.fixture
def api(api):
    """With terms that tell who may speak."""
    api.north.say(f"/studies/{STUDY}/messages/terms/terms/offer", MEMBERS.offer)
    return api


def test_a_message_before_any_bundle(api, refused):
    refused(api.north.get(ADDRESS), 404)
    answer = api.north.ask("PUT", ADDRESS, json=told(MESSAGE))
    assert (answer.status_code, answer.json()) == (200, {"missing": True})
    refused(api.north.get(ADDRESS), 404)
    place = api.north.announce(MESSAGE).headers["location"].removeprefix("/v1")
    assert api.north.append(place, 0, MESSAGE[:5000]).status_code == 204
    refused(api.north.get(ADDRESS), 404)
    assert api.north.append(place, 5000, MESSAGE[5000:]).status_code == 204
    assert api.north.ask("PUT", ADDRESS, json=told(MESSAGE)).json() == {"missing": False}
    whole = api.north.get(ADDRESS)
    assert whole.content == MESSAGE
    tag = {"If-None-Match": whole.headers["etag"]}
    assert api.north.get(ADDRESS, headers=tag).status_code == 304
    part = api.north.get(ADDRESS, headers={"Range": "bytes=0-99"})
    assert (part.status_code, part.content) == (206, MESSAGE[:100])
    longer = api.north.get(ADDRESS, headers={"Range": "bytes=0-99999999"})
    assert (longer.status_code, longer.content) == (206, MESSAGE)
    assert api.north.get(ADDRESS, headers={"Range": "bytes=99999999-"}).status_code == 416
    assert "another message" in refused(api.north.ask("PUT", ADDRESS, json=told(MESSAGE + b"x")), 409)
    refused(api.south.get(ADDRESS), 404)
    assert api.north.ask("DELETE", f"/studies/{STUDY}").status_code == 204
    refused(api.north.get(ADDRESS), 404)


def test_what_is_no_message_is_refused(api, refused):
    for body in (b"", b"[]", b"{" * 1000):
        refused(api.north.ask("PUT", ADDRESS, content=body), 422)
    sizes = ({"size": 7}, {"size": "8"}, {"size": 1 << 40})
    for change in (*sizes, {"sha256": "x"}, {"more": 1}, {"signature": "0"}):
        refused(api.north.ask("PUT", ADDRESS, json={**told(MESSAGE), **change}), 422)
    refused(api.north.ask("PUT", ADDRESS, content=bytes(1 << 17)), 413)
    for content, words in ((b"\x89PNG" + bytes(100), "not a part"), (b"blindtune-secret-key", "secret key")):
        address = ADDRESS.replace("public", f"item-{len(content)}")
        signed = told(MEMBERS.message("first", f"item-{len(content)}", "north", b""))
        said = {**signed, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        assert api.north.ask("PUT", address, json=said).json() == {"missing": True}
        place = api.north.announce(content).headers["location"].removeprefix("/v1")
        assert words in refused(api.north.append(place, 0, content), 422)
        refused(api.north.get(address), 404)


def test_a_token_of_the_tenant_does_not_speak_for_every_member(api, refused):
    other = MEMBERS.message("first", "public", "north", b"", by="south")
    assert "not signed by the member" in refused(api.north.ask("PUT", ADDRESS, json=told(other)), 422)
    # Another tenant's study of the same name has terms of its own, or none.
    assert "no terms" in refused(api.south.ask("PUT", ADDRESS, json=told(MESSAGE)), 422)
    api.north.say(ADDRESS, MESSAGE)


@pytest.mark.parametrize("name", ["-a", "A", "a.b", "a" * 81, "a%2Fb", "%00", "%0a", "a_b"])
@pytest.mark.parametrize("at", [-1, -2, -3])
def test_names_that_no_message_has(api, refused, name, at):
    places = ADDRESS.split("/")
    places[at] = name
    for method in ("GET", "PUT"):
        refused(api.north.ask(method, "/".join(places), json=told(MESSAGE)), 404)
