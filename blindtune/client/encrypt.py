"""From a prepared study to the two bundles that may leave the hospital."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.client.encoding import Scaling, encode
from blindtune.client.prepare import Prepared
from blindtune.client.study import Settings, StudyDirectory
from blindtune.errors import KeyFileError
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.kernels.training import Program
from blindtune.models.heads import Head
from blindtune.wire.bundle import write_bundle
from blindtune.wire.manifest import Manifest, layout_model, parameters_model, program_model

Floats = NDArray[np.float64]
OnBytes = Callable[[str, int], None]
"""Called with what was just written (``keys`` or ``data``) and its bytes."""


def encrypt_study(
    prepared: Prepared,
    key: SecretKey,
    directory: StudyDirectory,
    *,
    member: str = "hospital",
    members: Sequence[str] | None = None,
    study: str | None = None,
    backbone: dict[str, Any] | None = None,
    notes: tuple[str, ...] = (),
    on_bytes: OnBytes = lambda _what, _size: None,
) -> Settings:
    """Encrypt a prepared study and save what decryption will need.

    Args:
        member, members: this hospital, and all of the study's; alone by default.
        study: identifier; a fresh random one by default.
        backbone: name and fingerprint of the backbone, for the head's provenance.

    Raises:
        KeyFileError: the key has other parameters than the plan.
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
    directory.create()
    identity = (study, members, member)
    manifest = base_manifest("keys", identity, key, plan.layout, plan.program)
    write_keys(directory.keys_bundle, key, manifest, lambda n: on_bytes("keys", n))
    train = prepared.data.indices("train")
    targets, weights = head.encode(prepared.data.labels[train], prepared.outputs)
    features = choice.whitening.apply(prepared.data.features[train])
    manifest = base_manifest("data", identity, key, plan.layout, plan.program)
    write_data(
        directory.data_bundle,
        key,
        manifest,
        (features, targets, weights),
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
    )
    directory.save(settings, choice.whitening, choice.rehearsal.weights, prepared.data)
    return settings


def base_manifest(
    kind: Any, identity: tuple[str, Sequence[str], str], key: SecretKey, layout: Layout, program: Program
) -> Manifest:
    """A manifest without parts; ``identity`` is study, members and member."""
    study, members, member = identity
    return Manifest(
        kind=kind,
        study=study,
        members=list(members),
        member=member,
        key=key.key_id,
        parameters=parameters_model(key.parameters),
        layout=layout_model(layout),
        program=program_model(program),
        parts=[],
    )


def write_keys(
    target: Path, key: SecretKey, manifest: Manifest, on_bytes: Callable[[int], None] = lambda _: None
) -> Manifest:
    """Write the bundle of evaluation keys: relinearisation, the layout's rotations, conjugation."""

    def parts() -> Iterator[tuple[str, list[bytes]]]:
        yield "relinearisation", [key.relinearisation_key()]
        yield "galois", [key.galois_key(e) for e in key.galois_elements(manifest.keys)]

    return write_bundle(target, manifest, parts(), on_bytes)


def write_data(
    target: Path,
    key: SecretKey,
    manifest: Manifest,
    matrices: tuple[Floats, Floats, Floats],
    head: Head,
    scaling: Scaling,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Encrypt one member's rows: whitened features (n, columns), targets and weights (n, K)."""
    layout = manifest.checked_layout
    own = replace(layout, row_blocks=-(-len(matrices[0]) // layout.rows))
    manifest = manifest.model_copy(update={"layout": layout_model(own)})
    packed = encode(*matrices, head, own, scaling)
    parts = ((name, [key.encrypt(v) for v in vectors]) for name, vectors in packed)
    return write_bundle(target, manifest, parts, on_bytes)
