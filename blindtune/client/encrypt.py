"""From a prepared study to the two bundles that may leave the hospital."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.client.encoding import Scaling, encode
from blindtune.client.flood import expected, flood, refuse_imprecise
from blindtune.client.keyfile import StudyKey, write_key
from blindtune.client.prepare import Prepared
from blindtune.client.releases import Journal
from blindtune.client.settings import Settings
from blindtune.client.study import StudyDirectory
from blindtune.client.workers import cores, ordered
from blindtune.errors import KeyFileError
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.he.openfhe.bootstrapping_owner import BootstrappingKey
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.packing import Slots
from blindtune.kernels.training import Program
from blindtune.models.grid import told
from blindtune.models.heads import Encoded, Head
from blindtune.wire.bundle import write_bundle
from blindtune.wire.manifest import Manifest, expected_parts, layout_model, parameters_model, program_model
from blindtune.wire.models import bootstrapping_model

Floats = NDArray[np.float64]
OnBytes = Callable[[str, int], None]
"""Called with what was just written (``keys`` or ``data``) and its bytes."""
WORTH_WORKERS = 32 << 20
"""Bytes from which on a bundle is written by several processes: less is done before they have started."""


def own_key(
    prepared: Prepared,
    directory: StudyDirectory,
    literal: Bootstrapping | None = None,
    passphrase: str | None = None,
) -> tuple[StudyKey, Prepared]:
    """Make a study's own key and keep it in its directory.

    Args:
        literal: for weights that the server bootstraps.

    Returns:
        The key; and the study, planned for the key's very primes.
    """
    directory.create()
    # A run that was killed may have left a key that nothing was sent under.
    directory.key_file.unlink(missing_ok=True)
    made: StudyKey
    made = BootstrappingKey.generate(literal) if literal else SecretKey.generate(prepared.plan.parameters)
    write_key(directory.key_file, made, passphrase)
    return made, replace(prepared, plan=replace(prepared.plan, parameters=made.parameters))


def encrypt_study(
    prepared: Prepared,
    key: StudyKey,
    directory: StudyDirectory,
    *,
    member: str = "hospital",
    members: Sequence[str] | None = None,
    study: str | None = None,
    backbone: dict[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    release: bool = False,
    on_bytes: OnBytes = lambda _what, _size: None,
) -> Settings:
    """Encrypt a prepared study and save what decryption will need.

    Args:
        member, members: this hospital, and all of the study's; alone by default.
        study: identifier; a fresh random one by default.
        backbone: name and fingerprint of the backbone, for the head's provenance.
        release: the head is to be released: the key must be the study's own.

    Raises:
        KeyFileError: the key has other parameters than the plan.
        PlanError: too little would be left of a released head.
    """
    plan, choice, head = prepared.plan, prepared.choice, prepared.choice.head
    if key.parameters != plan.parameters:
        raise KeyFileError(
            "the key has other parameters than the plan",
            remedy="Plan for the key's parameters, or make a key for this study.",
        )
    study = study or secrets.token_hex(16)
    members = tuple(members or (member,))
    scaling = Scaling(head.interval, head.learning_rates[0], plan.rows)
    planned = None
    if release:
        planned = flood(key.parameters, plan.layout, scaling, choice.rehearsal.weights, len(members))
        refuse_imprecise(planned, key.parameters)
    directory.create()
    if planned:
        directory.releases.unlink(missing_ok=True)
        Journal.create(directory.releases, key.key_id).close()
    identity = (study, members, member)
    manifest = base_manifest("keys", identity, key, plan.layout, plan.program)
    write_keys(directory.keys_bundle, key, manifest, lambda n: on_bytes("keys", n))
    train = prepared.data.indices("train")
    features = choice.whitening.apply(prepared.data.features[train])
    manifest = base_manifest("data", identity, key, plan.layout, plan.program)
    write_data(
        directory.data_bundle,
        key,
        manifest,
        (features, choice.encoded),
        head,
        scaling,
        lambda n: on_bytes("data", n),
    )
    settings = Settings(
        study=study,
        member=member,
        members=members,
        key=key.key_id,
        kind=head.kind,
        classes=prepared.data.classes,
        backbone=backbone or {},
        head={
            "name": head.name,
            "degree": head.degree,
            "steps": head.steps,
            "learning_rates": list(head.learning_rates),
            "decay": head.decay,
            "balanced": head.balanced,
            "shrinkage": head.shrinkage,
            "momentum": head.momentum,
            "directions": choice.whitening.columns - 1,
            "epsilon": choice.whitening.epsilon,
        },
        interval=scaling.interval,
        rate=scaling.rate,
        rows=scaling.rows,
        columns=choice.whitening.columns,
        outputs=prepared.outputs,
        security=key.parameters.security_name,
        notes=notes,
        release=asdict(planned) if planned else None,
        grid=tuple(told(s) for s in head.settings) if len(head.settings) > 1 else (),
    )
    reference = None
    if planned and len(members) == 1:
        reference = expected(features, choice.encoded, head, plan.layout, scaling, key.parameters)
    directory.save(settings, choice, prepared.data, reference)
    return settings


def base_manifest(
    kind: Any, identity: tuple[str, Sequence[str], str], key: StudyKey, layout: Layout, program: Program
) -> Manifest:
    """A manifest without parts; ``identity`` is study, members and member."""
    study, members, member = identity
    bootstrapping = None
    if isinstance(key, BootstrappingKey):
        bootstrapping = bootstrapping_model(key.literal, key.key_parameters)
    return Manifest(
        kind=kind,
        study=study,
        members=list(members),
        member=member,
        key=key.key_id,
        parameters=parameters_model(key.parameters),
        bootstrapping=bootstrapping,
        layout=layout_model(layout),
        program=program_model(program),
        parts=[],
    )


def write_keys(
    target: Path,
    key: StudyKey,
    manifest: Manifest,
    on_bytes: Callable[[int], None] = lambda _: None,
    workers: int | None = None,
) -> Manifest:
    """Write the bundle of evaluation keys: relinearisation, the layout's rotations, conjugation, and what
    a bootstrap takes.

    Args:
        workers: processes; as many as there are cores by default, if there is enough to do.
    """
    elements = [0, *key.galois_elements(manifest.keys)]

    def make(element: int) -> bytes:
        return key.galois_key(element) if element else key.relinearisation_key()

    with ordered(lambda: elements, make, _workers(key, manifest, workers)) as blobs:
        parts = expected_parts(manifest).items()
        listed = ((name, list(islice(blobs, count))) for name, (count, _) in parts)
        return write_bundle(target, manifest, listed, on_bytes)


def write_data(
    target: Path,
    key: StudyKey,
    manifest: Manifest,
    matrices: tuple[Floats, Encoded],
    head: Head,
    scaling: Scaling,
    on_bytes: Callable[[int], None] = lambda _: None,
    workers: int | None = None,
) -> Manifest:
    """Encrypt one member's rows: whitened features (n, columns), targets and weights (n, K).

    Args:
        workers: processes; as many as there are cores by default, if there is enough to do.
    """
    layout = manifest.checked_layout
    own = replace(layout, row_blocks=-(-len(matrices[0]) // layout.rows))
    manifest = manifest.model_copy(update={"layout": layout_model(own)})

    def packed() -> Iterator[tuple[str, list[Slots]]]:
        return encode(*matrices, head, own, scaling)

    # Encoding once more here, for the names, takes a hundredth of encrypting.
    count = _workers(key, manifest, workers)
    with ordered(lambda: (v for _, part in packed() for v in part), key.encrypt, count) as blobs:
        listed = ((name, list(islice(blobs, len(part)))) for name, part in packed())
        return write_bundle(target, manifest, listed, on_bytes)


def _workers(key: StudyKey, manifest: Manifest, wanted: int | None) -> int:
    """How many processes a bundle is worth."""
    if isinstance(key, BootstrappingKey):
        # OpenFHE has threads of its own, which do not live through a fork.
        return 1
    if wanted is None:
        size = sum(count * largest for count, largest in expected_parts(manifest).values())
        wanted = cores() if size >= WORTH_WORKERS else 1
    if wanted > 1:
        # What is imported and compiled before the fork is there in all workers.
        key.encrypt(np.zeros(key.parameters.slots))
    return wanted
