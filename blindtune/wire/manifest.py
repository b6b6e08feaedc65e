"""The manifest of a bundle: everything about a study that may cross the line, as a checked schema.

It has no field that could hold a secret key, an image, a label, a file name, a path, or the number of
samples. Unknown fields are refused. Which parts a bundle holds, and how many ciphertexts each, follows
from layout and program: :func:`expected_parts` computes it, and reading compares.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from blindtune import params
from blindtune.errors import BlindtuneError, BundleError
from blindtune.he import blob
from blindtune.he.engine import KeySet
from blindtune.he.openfhe.bootstrapping import LEFT, Bootstrapping
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.wire.models import BootstrappingModel, Small, Strict

MAX_MANIFEST_BYTES = 16 << 20

Identifier = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Member = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PartName = Annotated[str, Field(pattern=r"^[a-z]{1,16}(-[0-9]{1,7}){0,3}$")]


class ParametersModel(Strict):
    """:class:`blindtune.params.Parameters` on the wire."""

    ring_degree: int
    primes: Annotated[list[int], Field(max_length=params.MAX_PRIMES)]
    scale_bits: int
    security: int

    def checked(self) -> params.Parameters:
        """The parameters, checked against the security table."""
        p = params.Parameters(self.ring_degree, tuple(self.primes), self.scale_bits, self.security)
        return params.check(p)


class LayoutModel(Strict):
    """:class:`blindtune.kernels.layout.Layout` on the wire; the slots follow from the ring."""

    lanes: Small
    widths: Annotated[list[Small], Field(min_length=1, max_length=64)]
    baby: Small
    row_blocks: Small
    weight_blocks: Small


class ProgramModel(Strict):
    """:class:`blindtune.kernels.training.Program` on the wire."""

    steps: Annotated[int, Field(ge=1, le=64)]
    degree: Annotated[int, Field(ge=1, le=7)]
    sets: Annotated[list[Annotated[int, Field(ge=0, le=63)]], Field(max_length=64)]
    retain: Annotated[list[Annotated[float, Field(ge=-1, le=1)]], Field(max_length=64)]
    momentum: Annotated[
        list[Annotated[float, Field(ge=-1, le=1)]], Field(default_factory=list, max_length=64)
    ]
    started: bool = False
    refreshes: Annotated[list[Annotated[int, Field(ge=1, le=63)]], Field(default_factory=list, max_length=63)]

    def checked(self) -> Program:
        """The program, checked."""
        return Program(
            self.steps,
            self.degree,
            tuple(self.sets),
            tuple(self.retain),
            tuple(self.momentum),
            self.started,
            tuple(self.refreshes),
        )


class EngineModel(Strict):
    """The format of a part's items: :mod:`blindtune.he.blob`, seeds expanded as SEAL 4 does."""

    name: Literal["seal-residues"] = "seal-residues"
    version: Literal["1"] = "1"


class Part(Strict):
    """One file of a bundle."""

    name: PartName
    sha256: Sha256
    size: Annotated[int, Field(ge=8, le=1 << 40)]


class Manifest(Strict):
    """What a bundle is.

    Attributes:
        kind: ``keys`` (evaluation keys), ``data`` (a member's encrypted study), ``start`` (weights that a
            training starts from), ``head`` (the result).
        study: random identifier of the study.
        members: all members whose data the study trains on.
        member: whose bundle this is.
        key: identifier of the key that everything is encrypted under.
        bootstrapping: how the server makes weights fresh, where it does so by itself.
    """

    format: Literal["blindtune-bundle"] = "blindtune-bundle"
    version: Literal[1] = 1
    kind: Literal["keys", "data", "start", "head"]
    study: Identifier
    members: Annotated[list[Member], Field(min_length=1, max_length=1000)]
    member: Member
    key: Identifier
    engine: EngineModel = EngineModel()
    parameters: ParametersModel
    bootstrapping: BootstrappingModel | None = None
    layout: LayoutModel
    program: ProgramModel
    parts: Annotated[list[Part], Field(max_length=100_000)]

    @property
    def checked_parameters(self) -> params.Parameters:
        """The parameters, checked."""
        return self.parameters.checked()

    @property
    def checked_bootstrapping(self) -> Bootstrapping | None:
        """How the server makes weights fresh, checked against parameters, layout and program."""
        m, p = self.bootstrapping, self.checked_parameters
        if m is None:
            return None
        found, _ = m.checked(p)
        layout, program = self.checked_layout, self.checked_program
        if m.period != layout.lanes * max(layout.widths):
            raise BundleError("other slots are bootstrapped than weights repeat after")
        lowest = max((program.levels_after(r) for r in program.refreshes), default=p.levels)
        if lowest + LEFT > p.levels:
            raise BundleError("no level is left for a bootstrap, or none is planned")
        return found

    @property
    def key_parameters(self) -> params.Parameters:
        """The parameters of the evaluation keys, checked."""
        m, p = self.bootstrapping, self.checked_parameters
        return m.checked(p)[1] if m else p

    @property
    def checked_layout(self) -> Layout:
        """The layout, checked."""
        m = self.layout
        slots = self.parameters.ring_degree // 2
        return Layout(slots, m.lanes, tuple(m.widths), m.baby, m.row_blocks, m.weight_blocks)

    @property
    def checked_program(self) -> Program:
        """The program, checked."""
        return self.program.checked()

    @property
    def keys(self) -> KeySet:
        """The key set that the layout needs."""
        return self.checked_layout.keys()


def parameters_model(p: params.Parameters) -> ParametersModel:
    """Parameters for the wire."""
    return ParametersModel(
        ring_degree=p.ring_degree, primes=list(p.primes), scale_bits=p.scale_bits, security=p.security
    )


def layout_model(layout: Layout) -> LayoutModel:
    """A layout for the wire."""
    return LayoutModel(
        lanes=layout.lanes,
        widths=list(layout.widths),
        baby=layout.baby,
        row_blocks=layout.row_blocks,
        weight_blocks=layout.weight_blocks,
    )


def program_model(program: Program) -> ProgramModel:
    """A program for the wire."""
    return ProgramModel(
        steps=program.steps,
        degree=program.degree,
        sets=list(program.sets),
        retain=list(program.retain),
        momentum=list(program.momentum),
        started=program.started,
        refreshes=list(program.refreshes),
    )


def parse_manifest(data: bytes | str, *, insecure: bool = False) -> Manifest:
    """Read and check a manifest from anywhere: schema, parameters, layout, program and parts.

    Args:
        insecure: accept test parameters without a security level.

    Raises:
        BundleError: with the first thing that is wrong; no content of the manifest is echoed.
        ParametersError: parameters outside the security table.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleError(f"a manifest of {len(data)} bytes", where="manifest.json")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(x) for x in first["loc"])[:80]
        if not re.fullmatch(r"[A-Za-z0-9_.]*", field):
            field = "an unknown field"
        raise BundleError(
            f"the manifest is not valid: {field or 'JSON'}: {first['type']}",
            where="manifest.json",
            remedy="Write the bundle again with this version of blindtune.",
        ) from None
    checked = manifest.checked_parameters
    if checked.security == params.INSECURE and not insecure:
        raise BundleError("insecure test parameters", remedy="Encrypt at 128 bits or more.")
    if manifest.member not in manifest.members or len(set(manifest.members)) != len(manifest.members):
        raise BundleError("the bundle's member is not one of the study's members, or one stands twice")
    try:
        wanted = expected_parts(manifest)
    except BlindtuneError as error:
        raise BundleError(f"the manifest contradicts itself: {error}", where="manifest.json") from error
    if [p.name for p in manifest.parts] != list(wanted):
        raise BundleError(
            "the parts are not the ones that layout and program call for",
            where="manifest.json",
            remedy="Write the bundle again.",
        )
    for part in manifest.parts:
        count, largest = wanted[part.name]
        if part.size > 8 + count * (8 + largest):
            raise BundleError(f"part {part.name} is larger than {count} items can be", where="manifest.json")
    return manifest


def expected_parts(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Names of the parts a bundle must hold, each with its items and an item's largest size in bytes."""
    p, layout, program = manifest.checked_parameters, manifest.checked_layout, manifest.checked_program
    if program.levels > p.levels:
        raise BundleError(f"{program.steps} steps need {program.levels} levels, not {p.levels}")
    # Of a joint key's fresh ciphertexts and keys no polynomial is a seed.
    ciphertext = blob.fresh_bytes(p, seeded=False)
    bootstrapping, keys = manifest.checked_bootstrapping, manifest.key_parameters
    key = blob.key_bytes(keys, seeded=False)
    if manifest.kind == "keys":
        if bootstrapping:
            # Large: a part each.
            count = len(bootstrapping.galois_elements(layout.keys()))
            return {"relinearisation": (1, key), **{f"galois-{n}": (1, key) for n in range(count)}}
        return {"relinearisation": (1, key), "galois": (len(layout.keys().rotations) + 1, key)}
    if manifest.kind == "start":
        if not program.started:
            raise BundleError("weights to start from, for a program that starts from zero")
        return {"weights": (layout.weight_blocks * len(layout.widths), ciphertext)}
    if manifest.kind == "head":
        return {"weights": (layout.weight_blocks * len(layout.widths), blob.largest_bytes(p))}
    parts = {}
    count = layout.row_blocks * (len(layout.widths) + (max(program.sets) + 1) * layout.weight_blocks)
    if count > 100_000:
        raise BundleError(f"{count} parts", remedy="Split the study.")
    for i in range(layout.row_blocks):
        for j, width in enumerate(layout.widths):
            parts[f"data-{i}-{j}"] = (width, ciphertext)
    for s in range(max(program.sets) + 1):
        for k in range(layout.weight_blocks):
            for i in range(layout.row_blocks):
                parts[f"residual-{s}-{k}-{i}"] = (program.terms, ciphertext)
    return parts
