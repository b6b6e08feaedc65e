"""TLS of both sides: certificates from PEM files, TLS 1.2 or newer, and when a server may do without."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path

from blindtune.errors import InputError


class Certificate:
    """A server's certificate and key, with the authority that clients' certificates must come from.

    Attributes:
        context: for the server; connections without a certificate are refused if ``client_ca`` is given.

    Raises:
        InputError: a file is missing, malformed, locked by a passphrase, or not of the same pair.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self.reload()
        if client_ca is not None:
            _trust(self.context, client_ca)
            self.context.verify_mode = ssl.CERT_REQUIRED

    def reload(self) -> None:
        """Take the pair from its files once more: a renewed one serves the connections to come.

        Raises:
            InputError: as said; the pair from before stays.
        """
        # On trial first: half a renewed pair must not replace a whole one.
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._certificate, self._key)
        _load(self.context, self._certificate, self._key)


def client_context(ca: Path | None = None, certificate: Path | None = None) -> ssl.SSLContext:
    """What a client verifies servers with, always.

    Args:
        ca: the authorities to trust instead of the system's.
        certificate: the client's own certificate with its key in one file, for mutual TLS.

    Raises:
        InputError: a file cannot be used.
    """
    # The system's store, as administrators expect, where httpx alone would trust certifi's list.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is not None:
        _trust(context, ca)
    else:
        context.load_default_certs()
    if certificate is not None:
        _load(context, certificate, None)
    return context


def check_exposure(host: str, encrypted: bool, insecure_http: bool) -> None:
    """Refuse to show tokens to a network.

    Args:
        host: address to listen at.
        encrypted: whether TLS is on.
        insecure_http: the operator's word that something else encrypts, such as a proxy.

    Raises:
        InputError: plain HTTP beyond loopback without that word.
    """
    if not (encrypted or insecure_http or is_loopback(host)):
        raise InputError(
            "plain http beyond this machine would show tokens to whoever listens",
            where=host,
            remedy="Give --tls-cert and --tls-key, or --insecure-http if a proxy in front encrypts.",
        )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _load(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    def passphrase() -> bytes:
        # Otherwise OpenSSL would ask at the terminal.
        raise ValueError("its key is locked by a passphrase")

    try:
        context.load_cert_chain(certificate, key, passphrase)
    except (OSError, ValueError) as error:
        raise _unusable(certificate, error) from error


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        raise _unusable(authority, error) from error


def _unusable(file: Path, error: Exception) -> InputError:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return InputError(
        f"the certificate or its key cannot be used ({str(reason).lower().replace('_', ' ')})",
        where=file.name,
        remedy="Give PEM files of one pair, the key without a passphrase.",
    )
