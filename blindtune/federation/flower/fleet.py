"""A hospital's calls of Flower's Fleet API: protobuf over TLS, every answer bounded.

Flower's own client reads answers of any size into memory, and its node fetches an app, whose code it would
run. This one has no call for apps.
"""

from __future__ import annotations

import ssl
import time
from base64 import b64encode
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError, Message

from blindtune.errors import FederationError, InputError, RemoteError
from blindtune.federation.members import public_pem

MEDIA = "application/protobuf"
TIMEOUT = 30.0
"""Seconds without a byte after which a call has failed."""
KEPT = 60.0
"""Seconds that an idle connection is kept; the aggregator keeps it somewhat longer."""
PAUSES = (0.2, 1.0, 4.0)
"""Seconds before a call is tried again."""

R = TypeVar("R", bound=Message)


class Fleet:
    """Calls to one aggregator.

    Args:
        address: HOST:PORT.
        authority: file with the certificate that vouches for the aggregator's.
        key: of this hospital's connection.

    Raises:
        InputError: the certificate cannot be used.
    """

    def __init__(self, address: str, authority: Path, key: ec.EllipticCurvePrivateKey) -> None:
        self._address, self._authority = address, authority
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_verify_locations(authority)
        except (OSError, ssl.SSLError) as error:
            raise InputError(
                "no certificate of an authority", where=authority.name, remedy="Give it as PEM."
            ) from error
        self._key = key
        self.public = public_pem(key)
        # Connections outlast a training: to make one takes three times as long as a call.
        limits = httpx.Limits(keepalive_expiry=KEPT)
        self._http = httpx.Client(verify=context, timeout=TIMEOUT, limits=limits)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def call(self, name: str, request: Message, answer: type[R], most: int, again: bool = True) -> R:
        """One call.

        Args:
            name: such as ``pull-messages``.
            most: most bytes of the answer.
            again: whether it may be tried again after a failure on the way.

        Raises:
            InputError: the aggregator's certificate is not vouched for.
            RemoteError: the aggregator cannot be reached.
            FederationError: it refuses, or answers what is none.
        """
        for pause in (*(PAUSES if again else ()), None):
            try:
                return self._once(name, request, answer, most)
            except RemoteError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, name: str, request: Message, answer: type[R], most: int) -> R:
        url = f"https://{self._address}/v1/fleet/{name}"
        try:
            with self._http.stream(
                "POST", url, content=request.SerializeToString(), headers=self._headers()
            ) as response:
                status, data = response.status_code, _bounded(response, most)
        except httpx.TransportError as error:
            raise self._failure(error) from error
        except httpx.InvalidURL as error:
            raise InputError("not an address", where=self._address[:80], remedy="Give HOST:PORT.") from error
        if status >= 500:
            raise RemoteError(f"the aggregator failed ({status})", where=self._address)
        if status != 200:
            raise FederationError(
                f"the aggregator refuses this hospital's connection ({status})",
                where=self._address,
                remedy="Compare the rosters, and this machine's clock with the aggregator's.",
            )
        found: R = answer()
        try:
            found.ParseFromString(data)
        except DecodeError:
            raise FederationError("an answer that cannot be read", where=self._address) from None
        return found

    def _headers(self) -> dict[str, str]:
        now = datetime.now(timezone.utc).isoformat()
        signature = self._key.sign(now.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "content-type": MEDIA,
            "accept": MEDIA,
            # What is unpacked would be bounded only after it had been.
            "accept-encoding": "identity",
            "flwr-public-key": b64encode(self.public).decode(),
            "flwr-timestamp": now,
            "flwr-signature": b64encode(signature).decode(),
        }

    def _failure(self, error: httpx.TransportError) -> InputError | RemoteError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return InputError(
                    f"{self._authority.name} does not vouch for the aggregator ({cause.verify_message})",
                    where=self._address,
                    remedy="Ask the aggregator for its authority's certificate; nothing was sent.",
                )
            cause = cause.__cause__ or cause.__context__
        return RemoteError("the aggregator cannot be reached", where=self._address)


def _bounded(response: httpx.Response, most: int) -> bytes:
    data = bytearray()
    for piece in response.iter_raw():
        data += piece
        if len(data) > most:
            raise FederationError(f"an answer of more than {most:,} bytes", where="aggregator")
    return bytes(data)
