"""The sanitised release of a study's head: the decryption under noise that hides the key, drawn once.

``STUDY/release`` holds what may leave: a head as :mod:`blindtune.client.decrypt` writes one, and
``release.json``, which says what was done. See :mod:`blindtune.he.flooding` for what the noise is worth, and
:mod:`.flood` for what its size rests on. The noise hides the key, not the patients: a released head tells of
its training data what a head in clear does. No differential privacy is offered here: the rows of an ordinary
study are not cut before they are encrypted, so that nothing bounds what one patient adds.
"""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from blindtune.client.decrypt import checked_head, choose, decrypted
from blindtune.client.encoding import decode, encode_weights
from blindtune.client.flood import Flood, flood, of_head, refuse_imprecise, vectors_of
from blindtune.client.releases import Coefficients, Journal, digest
from blindtune.client.settings import Settings
from blindtune.client.study import StudyDirectory
from blindtune.errors import BundleError, InputError, PlanError
from blindtune.files import whole_file
from blindtune.he.flooding import STATISTICAL_BITS
from blindtune.he.secret import SecretKey
from blindtune.kernels.layout import Layout
from blindtune.models.linear import LinearHead

RECORD = "release.json"


@dataclass(frozen=True)
class Released:
    """A released head.

    Attributes:
        head: the sanitised head.
        record: what was done; on disk as ``release.json``.
    """

    head: LinearHead
    record: dict[str, Any]


def release_head(directory: StudyDirectory, key: SecretKey) -> Released:
    """Release the head in the inbox; asked again, the same bytes.

    Raises:
        PlanError: the study was not planned for release; says how many bits would be left.
        PrivacyError: another head was released under this key, or its journal cannot be used.
        BundleError: not this study's head, altered, or not what its steps give: nothing is released.
        KeyFileError, InputError: as :func:`~blindtune.client.decrypt.open_head`.
    """
    settings = directory.settings()
    bundle = checked_head(directory, settings, key)
    layout = bundle.manifest.checked_layout
    planned = _planned(directory, settings, key, layout)
    reference = directory.expected()

    def draw() -> Coefficients:
        exact = of_head(decrypted(bundle, key), layout, key.parameters.scale)
        if reference is not None:
            wanted = encode_weights(reference, layout, settings.scaling)
            _refuse_foreign(exact, of_head(wanted, layout, key.parameters.scale), planned)
        return planned.noisy(exact)

    with closing(Journal(directory.releases, settings.key)) as journal:
        told = journal.once(digest(list(bundle.items("weights"))), draw)
    vectors = vectors_of(told.values, layout, key.parameters.scale)
    weights = decode(vectors, layout, settings.scaling, settings.columns, settings.heads)
    record = {
        "study": settings.study,
        "key": settings.key,
        "released": told.released,
        "ciphertext": digest(list(bundle.items("weights"))),
        "statistical_bits": STATISTICAL_BITS,
        "releases_under_this_key": planned.releases,
        "error_checked_on_this_head": reference is not None,
        "bits_of_precision": round(planned.bits, 1),
        "noise_over_largest_weight": planned.noise / planned.largest,
        "differential_privacy": None,
    }
    # Of a grid all settings are drawn, and the one leaves that is chosen on validation rows.
    candidates, chosen = choose(directory, settings, weights, "encrypted, sanitised")
    head = candidates[chosen].head
    head.save(directory.released)
    with whole_file(directory.released / RECORD) as path:
        path.write_text(json.dumps(record, indent=1))
    return Released(head, record)


def _planned(directory: StudyDirectory, settings: Settings, key: SecretKey, layout: Layout) -> Flood:
    if settings.release is None:
        _, rehearsed = directory.whitening()
        members = len(settings.members)
        refuse_imprecise(flood(key.parameters, layout, settings.scaling, rehearsed, members), key.parameters)
        raise PlanError(
            "the study was not planned for release: its key may serve others",
            where=directory.root.name,
            remedy="Encrypt with --release.",
        )
    try:
        return Flood(**settings.release)
    except TypeError:
        raise InputError(
            "damaged", where="private/study.json", remedy="Restore it, or encrypt the study again."
        ) from None


def _refuse_foreign(exact: Coefficients, wanted: Coefficients, planned: Flood) -> None:
    """What the noise is worth rests on the error's bound: here it is seen whether this head keeps it."""
    length = float(np.linalg.norm((exact - wanted).astype(np.float64)))
    if length > planned.length:
        raise BundleError(
            "the head differs from the same steps in clear by more than encryption explains: "
            "nothing was released",
            remedy="Submit the study again, to another server if it stays. Do not tell the server.",
        )
