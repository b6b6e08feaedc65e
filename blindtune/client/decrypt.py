"""The encrypted head comes back: check it, open it, unwhiten it, calibrate it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blindtune import __version__
from blindtune.client.encoding import Scaling, decode
from blindtune.client.study import Settings, StudyDirectory
from blindtune.errors import BundleError, EngineError, InputError, KeyFileError
from blindtune.he.secret import SecretKey
from blindtune.kernels.packing import Slots
from blindtune.models.calibration import Calibration, calibrate, identity
from blindtune.models.linear import LinearHead, assemble
from blindtune.wire.bundle import Bundle

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Opened:
    """A decrypted head.

    Attributes:
        head: linear on raw embeddings, calibrated.
        uncalibrated: the same without calibration.
        deviation: largest difference of a weight from the same steps in clear, relative to the largest
            weight there. Noise leaves well under a hundredth; more means that the server did something else.
    """

    head: LinearHead
    uncalibrated: LinearHead
    deviation: float


TRUSTED_DEVIATION = 0.05


def open_head(directory: StudyDirectory, key: SecretKey) -> Opened:
    """Decrypt the head in the inbox.

    Raises:
        BundleError: not this study's head, altered, or not a ciphertext.
        KeyFileError: another study's key.
        InputError: no head came back yet.
    """
    settings = directory.settings()
    bundle = checked_head(directory, settings, key)
    weights = open_weights(bundle, key, settings.scaling, settings.columns, settings.outputs)
    _, rehearsed = directory.whitening()
    deviation = float(np.abs(weights - rehearsed).max() / max(np.abs(rehearsed).max(), 1e-12))
    return Opened(*finish(directory, settings, weights, "encrypted"), deviation)


def checked_head(directory: StudyDirectory, settings: Settings, key: SecretKey) -> Bundle:
    """The head's bundle in the inbox, whole and of this study.

    Raises:
        BundleError: not this study's head, or altered.
        KeyFileError: another study's key.
        InputError: no head came back yet.
    """
    if key.key_id != settings.key:
        raise KeyFileError("this key did not encrypt the study", remedy="Give the study's own key.")
    if not directory.encrypted_head.is_dir():
        raise InputError(
            "no encrypted head here yet", where=directory.root.name, remedy="Run blindtune fetch first."
        )
    insecure = key.parameters.security == 0
    bundle = Bundle(directory.encrypted_head, insecure=insecure)
    _check_origin(bundle, settings, directory, insecure)
    bundle.verify()
    return bundle


def decrypted(bundle: Bundle, key: SecretKey) -> list[Slots]:
    """The slot vectors of a head's bundle, for the key owner alone.

    Raises:
        BundleError: not ciphertexts of this key's.
    """
    try:
        return [key.decrypt(key.load(item)) for item in bundle.items("weights")]
    except EngineError as error:
        raise BundleError(f"the encrypted head: {error.what}", remedy="Fetch it again.") from error


def open_weights(bundle: Bundle, key: SecretKey, scaling: Scaling, columns: int, outputs: int) -> Floats:
    """The weights of a head's bundle on whitened features, (columns, outputs).

    Raises:
        BundleError: not ciphertexts of this key's, or weights that training cannot give.
    """
    weights = decode(decrypted(bundle, key), bundle.manifest.checked_layout, scaling, columns, outputs)
    if not np.isfinite(weights).all() or np.abs(weights).max() > 1e6:
        raise BundleError(
            "the decrypted weights are not plausible",
            remedy="Fetch again; if it stays, the server did not run this study's steps.",
        )
    return weights


def finish(
    directory: StudyDirectory, settings: Settings, weights: Floats, how: str
) -> tuple[LinearHead, LinearHead]:
    """Unwhiten and calibrate weights on whitened features: the calibrated head and the plain one."""
    whitening, _ = directory.whitening()
    data = directory.embeddings()
    held = data.indices("val")
    features, labels = data.features[held].astype(np.float64), data.labels[held]
    start = directory.start()
    weight, bias = assemble(whitening, start, weights, features, labels)

    def head(calibration: Calibration) -> LinearHead:
        layer = calibration.fold(weight, bias)
        provenance = _provenance(settings, how, calibration.mode)
        return LinearHead(*layer, settings.classes, settings.kind, settings.backbone, provenance)

    # With a start, the length of the step was fitted to the same rows already.
    fitted = (
        identity(settings.outputs) if start else calibrate(features @ weight.T + bias, labels, settings.kind)
    )
    return head(fitted), head(identity(settings.outputs))


def _provenance(settings: Settings, how: str, calibration: str) -> dict[str, object]:
    return {
        "trained": how,
        "calibration": calibration,
        "security": settings.security,
        "members": len(settings.members),
        "blindtune": __version__,
        **settings.head,
    }


def _check_origin(bundle: Bundle, settings: Settings, directory: StudyDirectory, insecure: bool) -> None:
    m, ours = bundle.manifest, Bundle(directory.keys_bundle, insecure=insecure).manifest
    if m.kind != "head" or m.study != settings.study:
        raise BundleError("not this study's head", remedy="Fetch it with this study's directory.")
    if m.key != settings.key:
        raise BundleError("a head under another key", remedy="Fetch it with this study's directory.")
    if (m.parameters, m.program) != (ours.parameters, ours.program):
        raise BundleError("a head of other parameters or another program than were submitted")
    if (m.layout.lanes, m.layout.widths, m.layout.baby, m.layout.weight_blocks) != (
        ours.layout.lanes,
        ours.layout.widths,
        ours.layout.baby,
        ours.layout.weight_blocks,
    ):
        raise BundleError("a head in another packing than was submitted")
