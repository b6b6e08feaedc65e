"""The secret key at rest: its own file, mode 0600, encrypted under a passphrase where one is given.

scrypt (RFC 7914) derives the file key, AES-256-GCM encrypts; the readable header is authenticated too.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from blindtune import params
from blindtune.errors import KeyFileError
from blindtune.files import write_secret
from blindtune.he.openfhe.bootstrapping import Bootstrapping
from blindtune.he.openfhe.bootstrapping_owner import BootstrappingKey
from blindtune.he.secret import SecretKey
from blindtune.wire.bundle import SECRET_MARK

SCRYPT = {"n": 2**17, "r": 8, "p": 1}
"""128 MiB and about half a second: OWASP's recommendation for scrypt."""

MAX_FILE_BYTES = 64 << 20

StudyKey: TypeAlias = SecretKey | BootstrappingKey
"""What a study's key may be."""


def write_key(path: Path, key: StudyKey, passphrase: str | None = None) -> None:
    """Write a secret key file; never replaces one, and leaves none that is incomplete.

    Raises:
        KeyFileError: the file exists, or its directory does not.
    """
    p = key.key_parameters if isinstance(key, BootstrappingKey) else key.parameters
    header: dict[str, Any] = {
        "format": SECRET_MARK.decode(),
        "version": 1,
        "key": key.key_id,
        "parameters": {
            "ring_degree": p.ring_degree,
            "primes": list(p.primes),
            "scale_bits": p.scale_bits,
            "security": p.security,
        },
        "encrypted": passphrase is not None,
    }
    if isinstance(key, BootstrappingKey):
        header["bootstrapping"] = asdict(key.literal)
    data = key.to_bytes()
    if passphrase is not None:
        salt, nonce = os.urandom(16), os.urandom(12)
        header["kdf"] = {"name": "scrypt", "salt": salt.hex(), **SCRYPT}
        header["nonce"] = nonce.hex()
        data = AESGCM(_derive(passphrase, header["kdf"])).encrypt(nonce, data, _associated(header))
    text = json.dumps({**header, "data": base64.b64encode(data).decode()})
    try:
        write_secret(path, text.encode())
    except FileExistsError:
        raise KeyFileError(
            "a key exists here already",
            where=path.name,
            remedy="Choose another directory; keys are never replaced.",
        ) from None
    except (FileNotFoundError, NotADirectoryError):
        raise KeyFileError(
            "no directory here for the key", where=path.parent.name, remedy="Make it, or choose another."
        ) from None


def read_key(path: Path, passphrase: str | None = None) -> StudyKey:
    """Read a secret key file.

    Raises:
        KeyFileError: missing, readable by others, damaged, or the passphrase is wrong or missing.
    """
    header, data = _read(path)
    if header["encrypted"]:
        if passphrase is None:
            raise KeyFileError(
                "the key is locked",
                where=path.name,
                remedy="Give the passphrase (BLINDTUNE_PASSPHRASE or the prompt).",
            )
        try:
            secret = _derive(passphrase, header["kdf"])
            data = AESGCM(secret).decrypt(bytes.fromhex(header["nonce"]), data, _associated(header))
        except (InvalidTag, KeyError, ValueError, TypeError, OverflowError):
            raise KeyFileError(
                "wrong passphrase, or the key file was altered",
                where=path.name,
                remedy="Try again, or restore it.",
            ) from None
    m = header["parameters"]
    try:
        p = params.Parameters(
            int(m["ring_degree"]), tuple(map(int, m["primes"])), int(m["scale_bits"]), int(m["security"])
        )
        key_id = str(header["key"])
        if "bootstrapping" in header:
            literal = Bootstrapping(**{name: int(n) for name, n in header["bootstrapping"].items()})
            return BootstrappingKey.from_bytes(literal, p.primes, key_id, data)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        raise _damaged(path) from None
    return SecretKey.from_bytes(params.check(p), key_id, data)


def is_locked(path: Path) -> bool:
    """Whether a key file needs a passphrase."""
    return bool(_read(path)[0]["encrypted"])


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    if not path.is_file():
        raise KeyFileError(
            "no secret key here", where=path.name, remedy="Make one with blindtune keygen or encrypt."
        )
    info = path.stat()
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileError("others can read the key", where=path.name, remedy=f"chmod 600 {path.name}")
    if info.st_size > MAX_FILE_BYTES:
        raise _damaged(path)
    try:
        header = json.loads(path.read_text())
        data = base64.b64decode(header.pop("data"), validate=True)
        ok = header["format"] == SECRET_MARK.decode() and header["version"] == 1
        ok = ok and isinstance(header["encrypted"], bool) and isinstance(header["parameters"], dict)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _damaged(path) from None
    if not ok:
        raise _damaged(path)
    return header, data


def _derive(passphrase: str, kdf: dict[str, Any]) -> bytes:
    n, r, p = int(kdf["n"]), int(kdf["r"]), int(kdf["p"])
    if kdf["name"] != "scrypt" or not (2**14 <= n <= 2**20 and r == 8 and 1 <= p <= 16):
        raise ValueError("key derivation parameters out of range")
    return Scrypt(salt=bytes.fromhex(kdf["salt"]), length=32, n=n, r=r, p=p).derive(passphrase.encode())


def _associated(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def _damaged(path: Path) -> KeyFileError:
    return KeyFileError(
        "not a blindtune key file, or damaged", where=path.name, remedy="Restore it from a backup."
    )
