"""Schemathesis against a running server: no 5xx, and nothing that is not documented."""

from __future__ import annotations

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.members import Members
from tests.server.apart import apart
from tests.server.api.conftest import Caller

CHECKS = [
    checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]
ENDLESS = "/v1/events"
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    stateful_step_count=12,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with apart(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["north", "operator"])
def headers(server, request):
    return server.headers(request.param)


@pytest.fixture
def schema(server, study):
    """The server's document; calls often name what is there: a study with its bundles, and its job."""
    with httpx.Client(base_url=server.url, timeout=60) as http:
        north = Caller(http, server.tokens["north"])
        for bundle in study.bundles():
            north.send(bundle)
        known = {
            "study": study.id,
            "job": north.post(f"/studies/{study.id}/jobs").json()["id"],
            "name": "weights",
            **dict.fromkeys(("stage", "item", "sender"), "said"),
        }
        members, messages = Members("said", "unsaid"), f"/studies/{study.id}/messages"
        north.say(f"{messages}/terms/terms/offer", members.offer)
        north.say(f"{messages}/said/said/said", members.message("said", "said", "said", bytes(1000)))
    found = schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json").exclude(path=ENDLESS)

    @found.hook
    def map_path_parameters(context, path_parameters):
        # Three of four times, chosen by what was drawn.
        for name in known.keys() & (path_parameters or {}).keys():
            if sum(str(path_parameters[name]).encode()) % 4:
                path_parameters[name] = known[name]
        return path_parameters

    return found


def test_every_call_is_answered_as_documented(schema, headers):
    for found in schema.get_all_operations():

        @given(case=found.ok().as_strategy())
        @settings(SETTINGS, max_examples=6)
        def check(case):
            case.call_and_validate(headers=headers, checks=CHECKS)

        check()


def test_sequences_of_calls_are_answered_as_documented(schema, headers):
    class Sequences(schema.as_state_machine()):
        def get_call_kwargs(self, case):
            return {"headers": headers}

        def validate_response(self, response, case, additional_checks=(), **given):
            case.validate_response(response, checks=CHECKS)

    run_state_machine_as_test(Sequences, settings=settings(SETTINGS, max_examples=8))
