"""Both sides' TLS over a socket pair, files that cannot be used, and listening without TLS."""

from __future__ import annotations

import ssl
from contextlib import suppress

import pytest

from blindtune.errors import InputError
from blindtune.wire.tls import Certificate, check_exposure, client_context
from tests.certificates import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> ssl.SSLObject:
    """A handshake in memory; the server's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname=host),
    ]
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return ends[0]


def test_a_client_that_trusts_the_authority_comes_in_over_tls_12_or_newer(authority):
    certificate = Certificate(*authority.pair("server"))
    client = client_context(authority.file)
    assert shake(certificate.context, client).version() == "TLSv1.3"
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(certificate.context, client).version() == "TLSv1.2"


def test_older_versions_are_off_on_both_sides(authority):
    for context in (Certificate(*authority.pair("server")).context, client_context(authority.file)):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("host", ["example.org", "127.0.0.2"])
def test_a_server_of_another_name_is_refused(authority, host):
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(Certificate(*authority.pair("server")).context, client_context(authority.file), host)


def test_a_server_of_another_authority_is_refused(authority, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    for trusted in (client_context(stranger.file), client_context()):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(Certificate(*authority.pair("server")).context, trusted)


def test_mutual_tls_lets_in_whom_the_authority_signed(authority, tmp_path):
    certificate = Certificate(*authority.pair("server"), client_ca=authority.file)
    known = client_context(authority.file, authority.joined("client"))
    assert shake(certificate.context, known).getpeercert()["subject"] == ((("commonName", "client"),),)
    stranger = client_context(authority.file, Authority(tmp_path, "stranger").joined("strange"))
    for refused in (client_context(authority.file), stranger):
        with pytest.raises(ssl.SSLError):
            shake(certificate.context, refused)


def test_a_renewed_certificate_serves_what_comes_and_half_a_pair_changes_nothing(authority):
    files = authority.pair("server")
    certificate, client = Certificate(*files), client_context(authority.file)

    def serial():
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
        end = client.wrap_bio(to_client, to_server, server_hostname="localhost")
        for _ in range(3):
            for each in (end, server):
                with suppress(ssl.SSLWantReadError):
                    each.do_handshake()
        return end.getpeercert()["serialNumber"]

    before = serial()
    authority.pair("server")
    certificate.reload()
    after = serial()
    assert after != before
    files[1].write_text("")
    with pytest.raises(InputError):
        certificate.reload()
    assert serial() == after


def test_files_that_cannot_be_used_are_refused_with_the_reason(authority, tmp_path):
    certificate, key = authority.pair("server")
    other = authority.pair("other")[1]
    locked = authority.pair("locked", b"a passphrase")
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nothing")
    cases = [
        (lambda: Certificate(tmp_path / "none.crt", key), "no such file"),
        (lambda: Certificate(certificate, other), "mismatch"),
        (lambda: Certificate(nonsense, key), "cannot be used"),
        (lambda: Certificate(*locked), "locked by a passphrase"),
        (lambda: Certificate(certificate, key, client_ca=nonsense), "nonsense.pem"),
        (lambda: client_context(tmp_path / "none.pem"), "no such file"),
        (lambda: client_context(authority.file, certificate), "cannot be used"),
    ]
    for attempt, said in cases:
        with pytest.raises(InputError, match=said):
            attempt()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "cloud.example.org"])
def test_plain_http_beyond_loopback_needs_the_operators_word(host):
    with pytest.raises(InputError, match="plain http"):
        check_exposure(host, encrypted=False, insecure_http=False)
    check_exposure(host, encrypted=True, insecure_http=False)
    check_exposure(host, encrypted=False, insecure_http=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_loopback_may_be_plain(host):
    check_exposure(host, encrypted=False, insecure_http=False)
