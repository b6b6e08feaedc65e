"""The encrypted head comes back: check it, open it, unwhiten it, calibrate it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune import __version__
from blindtune.client.encoding import Scaling, decode
from blindtune.client.keyfile import StudyKey
from blindtune.client.settings import Settings
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, EngineError, InputError, KeyFileError
from blindtune.kernels.packing import Slots
from blindtune.models.calibration import Calibration, calibrate, identity
from blindtune.models.linear import LinearHead, assemble
from blindtune.wire.bundle import Bundle

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A setting's head.

    Attributes:
        setting: what tells it from others; empty for a single one.
        head: linear on raw embeddings, calibrated.
        uncalibrated: the same without calibration.
        loss: log loss of ``head`` on the validation rows; mean squared error for regression.
    """

    setting: dict[str, Any]
    head: LinearHead
    uncalibrated: LinearHead
    loss: float


@dataclass(frozen=True)
class Opened:
    """A decrypted head, or those of several settings.

    Attributes:
        candidates: one a setting.
        chosen: number of the one with the least loss on validation rows, the first of equals.
        deviation: largest difference of a weight from the same steps in clear, relative to the setting's
            largest weight there. Noise leaves well under a hundredth; more means that the server did
            something else.
    """

    candidates: tuple[Candidate, ...]
    chosen: int
    deviation: float

    @property
    def head(self) -> LinearHead:
        """The chosen head, calibrated."""
        return self.candidates[self.chosen].head

    @property
    def uncalibrated(self) -> LinearHead:
        """The same without calibration."""
        return self.candidates[self.chosen].uncalibrated


TRUSTED_DEVIATION = 0.05


def open_head(directory: StudyDirectory, key: StudyKey) -> Opened:
    """Decrypt the head in the inbox.

    Raises:
        BundleError: not this study's head, altered, or not a ciphertext.
        KeyFileError: another study's key.
        InputError: no head came back yet.
    """
    settings = directory.settings()
    bundle = checked_head(directory, settings, key)
    weights = open_weights(bundle, key, settings.scaling, settings.columns, settings.heads)
    _, rehearsed = directory.whitening()
    pairs = zip(settings.split(weights), settings.split(rehearsed), strict=True)
    deviation = max(float(np.abs(w - r).max() / max(np.abs(r).max(), 1e-12)) for w, r in pairs)
    candidates, chosen = choose(directory, settings, weights, "encrypted")
    if settings.grid:
        told = [{**c.setting, "validation_loss": c.loss} for c in candidates]
        candidates[chosen] = _told(candidates[chosen], {"chosen": chosen, "settings": told})
    return Opened(tuple(candidates), chosen, deviation)


def choose(
    directory: StudyDirectory, settings: Settings, weights: Floats, how: str
) -> tuple[list[Candidate], int]:
    """The heads of all settings, and the number of the best on validation rows.

    Args:
        weights: of all settings on whitened features (columns, G · K).
    """
    data = directory.embeddings()
    held = data.indices("val")
    found = []
    for setting, part in zip(settings.grid or ({},), settings.split(weights), strict=True):
        head, plain = finish(directory, settings, part, how, setting)
        found.append(Candidate(setting, head, plain, head.loss(data.features[held], data.labels[held])))
    return found, min(range(len(found)), key=lambda n: found[n].loss)


def _told(candidate: Candidate, grid: dict[str, Any]) -> Candidate:
    """A candidate whose heads say what they were chosen from."""
    heads = (candidate.head, candidate.uncalibrated)
    head, plain = (replace(h, provenance={**h.provenance, "grid": grid}) for h in heads)
    return replace(candidate, head=head, uncalibrated=plain)


def checked_head(directory: StudyDirectory, settings: Settings, key: StudyKey) -> Bundle:
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


def decrypted(bundle: Bundle, key: StudyKey) -> list[Slots]:
    """The slot vectors of a head's bundle, for the key owner alone.

    Raises:
        BundleError: not ciphertexts of this key's.
    """
    try:
        return [key.decrypt(key.load(item)) for item in bundle.items("weights")]
    except EngineError as error:
        raise BundleError(f"the encrypted head: {error.what}", remedy="Fetch it again.") from error


def open_weights(bundle: Bundle, key: StudyKey, scaling: Scaling, columns: int, outputs: int) -> Floats:
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
    directory: StudyDirectory,
    settings: Settings,
    weights: Floats,
    how: str,
    setting: Mapping[str, Any] | None = None,
) -> tuple[LinearHead, LinearHead]:
    """Unwhiten and calibrate weights on whitened features: the calibrated head and the plain one.

    Args:
        setting: of a grid, that the weights are of.
    """
    whitening, _ = directory.whitening()
    data = directory.embeddings()
    held = data.indices("val")
    features, labels = data.features[held].astype(np.float64), data.labels[held]
    start = directory.start()
    weight, bias = assemble(whitening, start, weights, features, labels)

    def head(calibration: Calibration) -> LinearHead:
        layer = calibration.fold(weight, bias)
        provenance = _provenance(settings, how, calibration.mode, setting or {})
        return LinearHead(*layer, settings.classes, settings.kind, settings.backbone, provenance)

    # With a start, the length of the step was fitted to the same rows already.
    fitted = (
        identity(settings.outputs) if start else calibrate(features @ weight.T + bias, labels, settings.kind)
    )
    return head(fitted), head(identity(settings.outputs))


def _provenance(
    settings: Settings, how: str, calibration: str, setting: Mapping[str, Any]
) -> dict[str, object]:
    own = dict(settings.head)
    if setting:
        own |= {
            "learning_rates": [setting["learning_rate"]] * settings.head["steps"],
            "shrinkage": setting["shrinkage"],
            "balanced": setting["weights"] == "balanced",
        }
    return {
        "trained": how,
        "calibration": calibration,
        "security": settings.security,
        "members": len(settings.members),
        "blindtune": __version__,
        **own,
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
