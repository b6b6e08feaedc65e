"""A throw-away certificate authority for trials; a hospital group has one that its security team runs."""

from __future__ import annotations

import ipaddress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blindtune.errors import KeyFileError
from blindtune.files import write_secret

AUTHORITY, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"
DAYS = 30


def make(directory: Path, hosts: list[str]) -> None:
    """Write an authority's certificate, and a key and certificate of a server that it vouches for.

    The authority's own key is forgotten: it signs this one certificate and never another.

    Args:
        directory: that exists.
        hosts: names and addresses of the server.

    Raises:
        KeyFileError: files are there already, or cannot be written.
    """
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "blindtune trial authority")])
    signing = _builder(own, own, authority.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    names = x509.SubjectAlternativeName([_host(h) for h in hosts])
    serving = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "aggregator")]), own, server.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
        )
        .add_extension(names, critical=False)
    )
    signing = signing.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False
    ).add_extension(_signs_certificates(), critical=True)
    key = server.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    try:
        write_secret(directory / KEY, key)
        write_secret(directory / CERTIFICATE, serving.sign(authority, hashes.SHA256()).public_bytes(pem))
        write_secret(directory / AUTHORITY, signing.sign(authority, hashes.SHA256()).public_bytes(pem))
    except OSError as error:
        raise KeyFileError(
            "no certificates can be written here",
            where=directory.name,
            remedy="Choose a new directory; keys are kept.",
        ) from error


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clocks of hospitals differ.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
    )


def _signs_certificates() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
