"""Manifests: what is written is read, what is changed is refused, and nothing but our errors comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindtune.errors import BlindtuneError, BundleError, ParametersError
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.params import SECURITY_TABLE, Parameters, ParametersLiteral
from blindtune.wire.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    Part,
    expected_parts,
    layout_model,
    parameters_model,
    parse_manifest,
    program_model,
)
from blindtune.wire.models import bootstrapping_model
from tests.openfhe import keys_of


@pytest.fixture(scope="session")
def text(make_manifest: Callable[..., Manifest]) -> str:
    """A valid manifest."""
    bare = make_manifest()
    parts = [Part(name=n, sha256="0" * 64, size=100) for n in expected_parts(bare)]
    return bare.model_copy(update={"parts": parts}).model_dump_json()


def parse(value: Any) -> Manifest:
    return parse_manifest(json.dumps(value), insecure=True)


def test_round_trip(text: str, tiny: Parameters) -> None:
    manifest = parse_manifest(text, insecure=True)
    assert parse_manifest(text.encode(), insecure=True) == manifest
    assert manifest.model_dump_json() == text
    assert manifest.checked_parameters == tiny
    assert manifest.checked_layout == Layout(512, 2, (8, 4), 4, 2, 1)
    assert manifest.checked_program == Program(3, 3, (0, 1, 0), (1.0, 0.9, 1.0), (0.0, 0.25, 0.4))
    assert manifest.keys == manifest.checked_layout.keys()


def test_expected_parts_of_each_kind(make_manifest: Callable[..., Manifest]) -> None:
    data = expected_parts(make_manifest())
    assert {name: count for name, (count, _) in data.items()} == {
        "data-0-0": 8,
        "data-0-1": 4,
        "data-1-0": 8,
        "data-1-1": 4,
        **{f"residual-{s}-0-{i}": 3 for s in (0, 1) for i in (0, 1)},
    }
    keys = expected_parts(make_manifest(kind="keys"))
    rotations = len(Layout(512, 2, (8, 4), 4, 2, 1).keys().rotations)
    assert {n: c for n, (c, _) in keys.items()} == {"relinearisation": 1, "galois": rotations + 1}
    assert {n: c for n, (c, _) in expected_parts(make_manifest(kind="head")).items()} == {"weights": 2}


def test_insecure_parameters_are_refused_by_default(text: str) -> None:
    with pytest.raises(BundleError, match="insecure test parameters"):
        parse_manifest(text)


def test_parameters_above_the_table_are_refused(text: str) -> None:
    loose = ParametersLiteral(8192, 11, security=0).checked()
    value = json.loads(text)
    value["parameters"] = json.loads(parameters_model(loose).model_dump_json()) | {"security": 128}
    with pytest.raises(ParametersError, match="not 128-bit secure"):
        parse(value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("surprise",), 1),
        (("layout", "rows"), 3882),
        (("parts", 0, "path"), "/etc/passwd"),
        (("kind",), "images"),
        (("version",), 2),
        (("format",), "other"),
        (("engine", "name"), "seal"),
        (("engine", "version"), "2"),
        (("study",), "5" * 31),
        (("study",), "../" + "5" * 29),
        (("key",), "A" * 32),
        (("key",), "a" * 32 + "\n"),
        (("member",), "east"),
        (("member",), "../north"),
        (("member",), "n" * 33),
        (("members",), ["north", "north"]),
        (("members",), []),
        (("members",), ["north", "so/uth"]),
        (("layout", "lanes"), 3),
        (("layout", "lanes"), 1024),
        (("layout", "lanes"), 2.0),
        (("layout", "lanes"), "2"),
        (("layout", "widths"), [8, 5]),
        (("layout", "widths"), []),
        (("layout", "widths"), [8]),
        (("layout", "row_blocks"), 1),
        (("layout", "row_blocks"), 1 << 20),
        (("layout", "row_blocks"), 1 << 40),
        (("layout", "weight_blocks"), 1 << 20),
        (("program", "degree"), 2),
        (("program", "steps"), 4),
        (("program", "steps"), 60),
        (("program", "sets"), [0, 0, 0]),
        (("program", "sets"), [0, 2, 0]),
        (("program", "sets"), [1, 0, 1]),
        (("program", "retain"), [1.0, 2.0, 1.0]),
        (("program", "retain"), [1.0, None, 1.0]),
        (("program", "momentum"), [0.0, 0.25]),
        (("program", "momentum"), [0.0, 1.5, 0.5]),
        (("program", "momentum"), None),
        (("program", "started"), 1),
        (("parameters", "security"), 99),
        (("parameters", "scale_bits"), 20),
        (("parameters", "ring_degree"), 1 << 70),
        (("parameters", "primes"), [3, 5, 7]),
        (("parts",), []),
        (("parts", 0, "name"), "data-0-1"),
        (("parts", 0, "name"), "../../etc/passwd"),
        (("parts", 0, "name"), "data-0-0/x"),
        (("parts", 0, "name"), "data-0-0\n"),
        (("parts", 0, "name"), "data-0-0\x00"),
        (("parts", 0, "sha256"), "0" * 63),
        (("parts", 0, "size"), 1 << 40),
        (("parts", 0, "size"), 7),
        (("parts", 0, "size"), -1),
    ],
)
def test_changes_are_refused(text: str, path: tuple[Any, ...], value: Any) -> None:
    changed = json.loads(text)
    at = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(BlindtuneError):
        parse(changed)


def test_missing_fields_and_parts_out_of_order_are_refused(text: str) -> None:
    for field in ("kind", "study", "members", "member", "key", "parameters", "layout", "program", "parts"):
        value = json.loads(text)
        del value[field]
        with pytest.raises(BundleError, match=rf"{field}: missing"):
            parse(value)
    value = json.loads(text)
    value["parts"].reverse()
    with pytest.raises(BundleError, match="not the ones"):
        parse(value)
    value["parts"].append(value["parts"][0])
    with pytest.raises(BundleError, match="not the ones"):
        parse(value)


def test_field_names_of_others_are_not_echoed(text: str) -> None:
    value = json.loads(text) | {"patient <script> 12": 1}
    with pytest.raises(BundleError) as refused:
        parse(value)
    assert "patient" not in str(refused.value)


def test_huge_or_deep_manifests_are_refused() -> None:
    with pytest.raises(BundleError, match="bytes"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))
    for deep in ("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(BundleError):
            parse_manifest(deep)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        found += places(child, (*path, key))
    return found


@settings(max_examples=80)
@given(st.data())
def test_any_change_parses_or_is_refused(text: str, data: st.DataObject) -> None:
    value = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(value)))
        at = value
        for step in path[:-1]:
            at = at[step]
        kind = data.draw(st.sampled_from(["delete", "replace", "nudge", "grow"]))
        if kind == "delete":
            del at[path[-1]]
        elif kind == "nudge" and isinstance(at[path[-1]], int):
            at[path[-1]] += data.draw(st.sampled_from([-1, 1, 2**31, 2**63, -(2**70)]))
        elif kind == "grow" and isinstance(at[path[-1]], list):
            at[path[-1]] *= data.draw(st.integers(0, 40))
        else:
            at[path[-1]] = data.draw(JSON)
        if not places(value):
            break
    try:
        parse(value)
    except BlindtuneError as error:
        assert "\n" not in str(error)  # noqa: PT017


@settings(max_examples=150)
@given(st.data())
def test_any_damage_to_bytes_parses_or_is_refused(text: str, data: st.DataObject) -> None:
    raw = bytearray(text.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        stop = at + data.draw(st.integers(0, 3))
        raw[at:stop] = data.draw(st.binary(max_size=4))
    try:
        parse_manifest(bytes(raw), insecure=True)
    except BlindtuneError as error:
        assert "\n" not in str(error)  # noqa: PT017


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_noise_is_refused(noise: bytes | str) -> None:
    with pytest.raises(BundleError):
        parse_manifest(noise, insecure=True)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(BundleError):
        parse_manifest('{"kind": "\ud800"}')


def test_models_carry_what_they_were_made_of(tiny: Parameters, tmp_path: Path) -> None:
    layout = Layout(512, 4, (16, 8), 4, 3, 2)
    assert layout_model(layout).model_dump() == {
        "lanes": 4,
        "widths": [16, 8],
        "baby": 4,
        "row_blocks": 3,
        "weight_blocks": 2,
    }
    program = Program(2, 5, (0, 1), (1.0, 0.5), (0.0, 0.25), refreshes=(1,))
    assert program_model(program).checked() == program
    assert program_model(program).model_dump() == {
        "steps": 2,
        "degree": 5,
        "sets": [0, 1],
        "retain": [1.0, 0.5],
        "momentum": [0.0, 0.25],
        "started": False,
        "refreshes": [1],
    }
    assert parameters_model(tiny).checked() == tiny


@pytest.fixture
def bootstrapped(make_manifest: Callable[..., Manifest]) -> dict[str, Any]:
    """A manifest of the keys of a study that the server bootstraps, as JSON."""
    literal = Bootstrapping(1024, 7, 16, security=0)
    keys = keys_of(literal)
    bare = make_manifest(
        kind="keys",
        parameters=parameters_model(literal.parameters(keys.primes)),
        bootstrapping=bootstrapping_model(literal, keys),
        program=program_model(Program(3, 3, (0, 1, 0), (1.0, 0.9, 1.0), refreshes=(1, 2))),
    )
    parts = [Part(name=n, sha256="0" * 64, size=100) for n in expected_parts(bare)]
    value: dict[str, Any] = json.loads(bare.model_copy(update={"parts": parts}).model_dump_json())
    return value


def test_keys_that_bootstrap_are_a_part_each(bootstrapped: dict[str, Any]) -> None:
    manifest = parse(bootstrapped)
    literal, keys = manifest.checked_bootstrapping, manifest.key_parameters
    assert literal == Bootstrapping(1024, 7, 16, security=0)
    assert (keys.levels, keys.special, keys.key_digits) == (27, 6, 5)
    elements = literal.galois_elements(manifest.keys)
    assert [p.name for p in manifest.parts] == [
        "relinearisation",
        *(f"galois-{n}" for n in range(len(elements))),
    ]
    # Of all digits and special primes; rows are of the levels between two bootstraps.
    bits = sum(q.bit_length() for q in keys.primes)
    assert expected_parts(manifest)["galois-0"] == (1, 16 + 2 * 5 * bits * 1024 // 8)
    assert manifest.checked_parameters.levels == 7
    again = parse_manifest(manifest.model_dump_json(), insecure=True)
    assert again == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"digits": 4},
        {"digits": 6},
        {"digits": 0},
        {"digits": 1 << 40},
        {"special": 5},
        {"special": 7},
        {"period": 8},
        {"period": 32},
        {"period": 1 << 19},
        {"budget": 2},
        {"budget": 4},
        {"budget": 1},
        {"primes": []},
        {"primes": [97] * 34},
        {"primes": [1 << 4000] * 34},
        {"secret": 1},
    ],
)
def test_other_keys_than_a_bootstrap_takes_are_refused(
    bootstrapped: dict[str, Any], change: dict[str, Any]
) -> None:
    bootstrapped["bootstrapping"] |= change
    with pytest.raises(BundleError):
        parse(bootstrapped)


def test_a_bootstrap_that_does_not_fit_the_rest_is_refused(bootstrapped: dict[str, Any]) -> None:
    primes = bootstrapped["bootstrapping"]["primes"]
    for where, change in (
        ("bootstrapping", {"primes": [*primes[:20], primes[21], primes[20], *primes[22:-1]]}),
        ("bootstrapping", {"primes": [primes[1], primes[0], *primes[2:]]}),
        ("parameters", {"primes": [*primes[:7], primes[-1]]}),
        ("parameters", {"security": 128}),
        ("program", {"refreshes": []}),
    ):
        with pytest.raises((BundleError, ParametersError)):
            parse(bootstrapped | {where: bootstrapped[where] | change})
    with pytest.raises(BundleError):
        parse(bootstrapped | {"bootstrapping": None})
    with pytest.raises(BundleError, match="are not the ones"):
        parse(bootstrapped | {"parts": bootstrapped["parts"][:-1]})
    large = [part | {"size": 1 << 24} for part in bootstrapped["parts"]]
    with pytest.raises(BundleError, match="is larger than 1 items can be"):
        parse(bootstrapped | {"parts": large})


def test_special_primes_count_for_security(make_manifest: Callable[..., Manifest]) -> None:
    # What kernels see of it is far below the table's bound, the whole modulus above.
    literal = Bootstrapping(32768, 7, 16, security=0)
    keys = keys_of(literal)
    shown = literal.parameters(keys.primes)
    assert shown.modulus_bits < SECURITY_TABLE[128][32768] < keys.modulus_bits
    for security, refused in ((0, False), (128, True)):
        bare = make_manifest(
            kind="keys",
            parameters=parameters_model(replace(shown, security=security)),
            bootstrapping=bootstrapping_model(literal, keys),
            program=program_model(Program(3, 3, (0, 1, 0), (1.0, 0.9, 1.0), refreshes=(1, 2))),
        )
        if refused:
            with pytest.raises(ParametersError, match="the 2024 table allows 868"):
                expected_parts(bare)
        else:
            assert expected_parts(bare)
