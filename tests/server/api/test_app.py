"""The application as a whole: open addresses, the OpenAPI document, no tenant sees another's."""

from __future__ import annotations

from blindtune.errors import StorageError


def test_health_and_readiness_are_open(api, monkeypatch, refused):
    assert api.http.get("/v1/health").json() == {"status": "ok"}
    assert api.http.get("/v1/ready").json() == {"status": "ok"}

    def broken():
        raise StorageError("the server's database cannot be used now")

    monkeypatch.setattr(api.service.database, "reading", broken)
    assert "database" in refused(api.http.get("/v1/ready"), 503)
    assert api.http.get("/v1/health").json() == {"status": "ok"}


def routes(api):
    document = api.http.get("/v1/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield path, method.upper(), told


def test_the_document_tells_every_route_its_problems_and_its_token(api):
    open_to_all = {"/v1/health", "/v1/ready"}
    for path, method, told in routes(api):
        if path in open_to_all or not path.startswith("/v1") or method == "OPTIONS":
            continue
        assert told["security"] == [{"HTTPBearer": []}], path
        assert {"401", "403", "404", "422", "429", "503", "507"} <= set(told["responses"]), path
        assert told["responses"]["401"]["content"].keys() == {"application/problem+json"}


def test_references_in_the_document_lead_somewhere(api):
    document = api.http.get("/v1/openapi.json").json()

    def follow(node):
        if isinstance(node, dict):
            if "$ref" in node:
                place = document
                for name in node["$ref"].removeprefix("#/").split("/"):
                    place = place[name]
            for value in node.values():
                follow(value)
        elif isinstance(node, list):
            for value in node:
                follow(value)

    follow(document)


def test_nothing_is_open_without_a_token(api, refused):
    ids = {"study": "0" * 32, "job": "0" * 32, "upload": "0" * 32, "token": "0" * 16}
    ids |= {"kind": "data", "member": "north", "name": "weights"}
    ids |= {"stage": "first", "item": "public", "sender": "north"}
    tried = 0
    for path, method, told in routes(api):
        # Metrics are for this machine too.
        if "security" not in told or path == "/metrics":
            continue
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic bm9ydGg6bm9ydGg="}):
            answer = api.http.request(method, path.format(**ids), headers=headers)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
            tried += 1
    assert tried > 40


def test_path_tricks_name_nothing(api, refused):
    for path in ("/studies/..%2f..%2ftoken", "/studies/" + "A" * 32, "/studies/%00", "/nowhere"):
        refused(api.north.get(path), 404)


def test_a_method_that_an_address_lacks(api, refused):
    answer = api.north.ask("PUT", "/studies")
    refused(answer, 405)
    assert "GET" in answer.headers["allow"]


def test_another_tenants_things_are_as_if_they_were_not(api, study, make_study):
    """Every route with an identifier in it answers for another tenant's as for one that nobody has."""
    for path in study.bundles():
        api.north.send(path)
    job = api.north.post(f"/studies/{study.id}/jobs").json()["id"]
    other = make_study("other")
    bundle = other.data("south")
    assert (
        api.north.post(
            f"/studies/{other.id}/bundles", content=(bundle / "manifest.json").read_bytes()
        ).status_code
        == 200
    )
    content = (bundle / "parts" / "data-0-0").read_bytes()
    upload = api.north.announce(content).headers["location"].rsplit("/", 1)[-1]
    north = next(t["id"] for t in api.north.get("/tokens").json()["items"])
    theirs = {"study": study.id, "job": job, "upload": upload, "token": north}
    nobodys = {"study": "0" * 32, "job": "0" * 32, "upload": "0" * 32, "token": "0" * 16}
    rest = {"kind": "data", "member": "north", "name": "weights"}
    rest |= {"stage": "first", "item": "public", "sender": "north"}
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
    }
    tried = 0
    for path, method, _ in routes(api):
        named = [n for n in theirs if f"{{{n}}}" in path]
        # Whoever opens a bundle or leaves a message makes what it names.
        if not named or path.endswith("/bundles") or method == "PUT":
            continue
        answers = [
            api.south.ask(method, path.format(**ids, **rest).removeprefix("/v1"), headers=headers)
            for ids in (theirs, nobodys)
        ]
        assert [a.status_code for a in answers] == [404, 404], (method, path)
        if method != "HEAD":
            texts = [{k: v for k, v in a.json().items() if k != "request"} for a in answers]
            assert texts[0] == texts[1], (method, path)
        tried += 1
    assert tried >= 14
    assert api.south.get("/studies").json()["items"] == api.south.get("/jobs").json()["items"] == []
    # A tenant may hold a study of the same name without learning of the other.
    api.south.send(study.data("north", "again"))
    assert api.south.get(f"/studies/{study.id}").json()["state"] == "uploading"
    assert api.north.get(f"/studies/{study.id}").json()["state"] == "queued"
