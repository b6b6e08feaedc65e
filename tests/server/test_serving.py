"""``blindtune serve`` as an operator runs it: TLS both ways, renewal, JSON logs, an end in time."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from blindtune.client.remote import Remote
from blindtune.errors import InputError, RemoteError
from blindtune.wire.tls import client_context
from tests.certificates import Authority

TOKEN = "a token for these tests only"
STUDY = "0123456789abcdef" * 2


@contextmanager
def serving(data_dir, *options):
    """A server by its command: its process and address; its log is in ``data_dir.log``."""
    command = [
        sys.executable,
        "-m",
        "blindtune.cli.main",
        "serve",
        "--data-dir",
        str(data_dir),
        "--port",
        "0",
    ]
    environment = {**os.environ, "BLINDTUNE_TOKEN": TOKEN}
    with (
        data_dir.with_suffix(".log").open("w") as log,
        subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, env=environment, text=True
        ) as process,
    ):
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def serial(url, context):
    """The serial number of the certificate that a server shows."""
    address = httpx.URL(url)
    with (
        socket.create_connection((address.host, address.port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return connection.getpeercert()["serialNumber"]


def test_mutual_tls_from_the_command_to_the_client(authority, tmp_path):
    certificate, key = authority.pair("server")
    mine = authority.joined("clinic")
    options = ["--tls-cert", str(certificate), "--tls-key", str(key), "--tls-client-ca", str(authority.file)]
    with serving(tmp_path / "data", *options) as (process, url):
        assert url.startswith("https://127.0.0.1:")
        known = Remote(url, TOKEN, ca=authority.file, client_cert=mine)
        with known as remote, pytest.raises(RemoteError, match="no such thing here"):
            remote.status(STUDY)
        for given in ({"ca": authority.file}, {"client_cert": mine}, {}):
            with (
                Remote(url, TOKEN, **given) as remote,
                pytest.raises(RemoteError, match=r"certificate|client-cert"),
            ):
                remote.status(STUDY)
        context = client_context(authority.file, mine)
        before = serial(url, context)
        authority.pair("server")
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 120
        while serial(url, context) == before:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert process.poll() is None


def test_logs_are_json_lines_without_what_a_tenant_sent_and_pages_do_not_hold_up_the_end(tmp_path):
    with serving(tmp_path / "data") as (process, url):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        opened = threading.Event()

        def read():
            # A page that stays open.
            with httpx.stream("GET", f"{url}/v1/events", headers=headers, timeout=120) as page:
                for _ in page.iter_text():
                    opened.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert opened.wait(120)
        answer = httpx.get(f"{url}/v1/studies/{STUDY}", headers=headers)
        assert answer.status_code == 404
        process.send_signal(signal.SIGTERM)
        # Well within what a service manager grants; no promise of less on a busy machine.
        process.wait(30)
        reader.join()
    log = (tmp_path / "data.log").read_text()
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (line,) = [x for x in lines if x.get("request") == answer.headers["x-request-id"]]
    assert (line["route"], line["status"], line["token"]) == ("/v1/studies/{study}", 404, "given")
    assert STUDY not in log
    assert TOKEN not in log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "plain http beyond this machine"),
        (["--tls-cert", "server.crt"], "half of what TLS needs"),
        (["--tls-cert", "none.crt", "--tls-key", "none.key"], "none.crt: the certificate or its key"),
    ],
)
def test_what_would_expose_tokens_is_refused(tmp_path, options, said):
    with serving(tmp_path / "data", *options) as (process, url):
        assert process.wait(120) == 2
    assert url == ""
    assert said in (tmp_path / "data.log").read_text()


def test_the_client_refuses_certificates_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Remote("https://localhost", TOKEN, ca=tmp_path / "none.pem")


def test_old_protocols_are_refused(authority, tmp_path):
    certificate, key = authority.pair("server")
    with serving(tmp_path / "data", "--tls-cert", str(certificate), "--tls-key", str(key)) as (_, url):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.load_verify_locations(authority.file)
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLS"):
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            serial(url, old)
        old.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        assert serial(url, old)
