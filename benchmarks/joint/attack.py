"""What someone has who holds the server's directory and all hospitals' but one, and where shares lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blindtune.federation.threshold.party import SHARE_FILE
from blindtune.federation.threshold.terms import Terms
from blindtune.he.bits import pack, packed_words
from blindtune.he.fast.tables import reversed_bits
from blindtune.he.openfhe import joint
from blindtune.he.openfhe.library import least_root
from blindtune.he.openfhe.opening import Opened, fuse
from blindtune.he.openfhe.share import SecretShare
from blindtune.wire.bundle import Bundle

PIECE = 64
"""Numbers in a row that are looked for."""


def attack(work: Path, terms: Terms, *, insecure: bool = False) -> dict[str, Any]:
    """Look for every share in every file, and decrypt with all shares but one.

    Args:
        work: the directories of a study whose head was opened.
    """
    shares = shares_of(work, terms)
    p = terms.checked_parameters
    result = Bundle(work / "server" / "head", insecure=insecure).items("weights")
    opened = Opened.read(next(result), p, terms.final_level, terms.periods[0])
    zero = np.zeros(opened.period, np.complex128)
    partials = {name: share.partial(opened, zero) for name, share in shares.items()}
    whole = fuse(opened, list(partials.values()), p)
    without = {n: fuse(opened, [x for m, x in partials.items() if m != n], p) for n in shares}
    return {
        "files_with_a_share": files_with(work, {n: pieces_of(s) for n, s in shares.items()}),
        "largest_value_opened_by_all": float(np.abs(whole).max()),
        "largest_value_without": {n: float(np.abs(v).max()) for n, v in without.items()},
        "correlation_without": {n: float(np.corrcoef(v.real, whole.real)[0, 1]) for n, v in without.items()},
    }


def shares_of(work: Path, terms: Terms) -> dict[str, SecretShare]:
    """Every hospital's share, from its own directory."""
    p, found = terms.checked_parameters, {}
    # The public item lies behind it.
    behind = joint.header_of(joint.PUBLIC, p).bytes(p)
    for name in terms.roster.names:
        data = (work / name / "private" / SHARE_FILE).read_bytes()
        found[name] = SecretShare.from_bytes(p, terms.digest, data[:-behind])
    return found


def pieces_of(share: SecretShare) -> list[bytes]:
    """A piece of every form that a share could lie in somewhere: evaluations as words and as blobs pack them,
    and coefficients as residues and as small numbers."""
    primes, rows = np.array(share.parameters.primes[:-1], np.uint64), share.residues()
    packed = np.zeros(packed_words(primes, rows.shape[1]), np.uint64)
    if not pack(rows, primes, packed):
        raise ValueError("a share that is not below its primes")
    residues, small = coefficients(rows[0], int(primes[0]))
    forms = [rows[0].astype("<u8"), packed, residues]
    forms += [small.astype(kind) for kind in ("<i1", "<i4", "<i8")]
    return [form[len(form) // 2 :][:PIECE].tobytes() for form in forms]


def coefficients(row: Any, q: int) -> tuple[Any, Any]:
    """A share's coefficients (N,) from its evaluations (N,) modulo q: as residues, and as -1, 0 and 1."""
    n = len(row)
    inverse, powers = pow(least_root(q, n), -1, q), [1]
    for _ in range(n - 1):
        powers.append(powers[-1] * inverse % q)
    twist = np.array(powers, object)[reversed_bits(n)]
    a = row.astype(object)
    # Butterflies of Gentleman and Sande, 1966.
    h, t = n // 2, 1
    while h:
        pairs = a.reshape(h, 2, t)
        low, high = pairs[:, 0], pairs[:, 1]
        a = np.stack([(low + high) % q, (low - high) * twist[h : 2 * h, None] % q], axis=1).reshape(-1)
        h, t = h // 2, 2 * t
    residues = (a * pow(n, -1, q) % q).astype(np.uint64)
    small = np.where(residues == q - 1, -1, residues.astype(np.int64))
    if np.abs(small).max() > 1:
        raise ValueError("a share that is not ternary")
    return residues.astype("<u8"), small


def files_with(work: Path, pieces: dict[str, list[bytes]]) -> dict[str, list[str]]:
    """The files below a directory that hold one of the pieces, by name."""
    found: dict[str, list[str]] = {name: [] for name in pieces}
    for path in sorted(path for path in work.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for name, wanted in pieces.items():
            if any(piece in data for piece in wanted):
                found[name].append(str(path.relative_to(work)))
    return found
