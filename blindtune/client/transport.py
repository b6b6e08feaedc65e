"""HTTP as the client needs it: bounded answers, further tries, and every failure as one error."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import httpx
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from blindtune.errors import RemoteError
from blindtune.wire.manifest import MAX_MANIFEST_BYTES
from blindtune.wire.tls import is_loopback

BLOCK = 1 << 18
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further try of what failed in passing; a server may ask for more."""

LONGEST_PAUSE = 30.0
PASSING = (429, 502, 503, 504)


def _line(text: str) -> str:
    # It came from a machine that is not trusted and goes to a terminal.
    return "".join(c if c.isprintable() else " " for c in text[:400])


Line = Annotated[str, AfterValidator(_line)]


@dataclass(frozen=True)
class Refusal:
    """How the server says no (RFC 9457)."""

    detail: Line
    remedy: Line


Refusals = TypeAdapter(Refusal)
Anything: TypeAdapter[Any] = TypeAdapter(Any)


class StatusError(RemoteError):
    """The server refused or failed, with this HTTP status."""

    def __init__(self, what: str, *, where: str, remedy: str, status: int) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.status = status


class Transport:
    """One server's connections.

    Attributes:
        host: for messages; never the whole address.

    Args:
        context: what servers are verified with.

    Raises:
        RemoteError: an address or a token that cannot be used. All methods raise it too when the
            server cannot be reached, refuses or fails.
    """

    def __init__(self, url: str, token: str, allow_plain_http: bool, context: ssl.SSLContext) -> None:
        self.host = _check_url(url, allow_plain_http)
        if not token or not token.isascii() or not token.isprintable():
            raise RemoteError("the token is empty or not ASCII", remedy="Copy it from the server once more.")
        self._http = httpx.Client(
            base_url=url.rstrip("/") + "/v1",
            headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
            verify=context,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = 1 << 20,
        patience: float = 60,
        remedy: str = "",
    ) -> tuple[bytes, httpx.Headers]:
        """The answer's body and headers.

        A POST has a key of its own, the same in each try: the server does it once.

        Args:
            body: makes the request's body, anew for each try.
            headers: of the request.
            limit: bytes an answer may have.
            patience: seconds without an answer.
            remedy: for a connection that breaks for good.
        """
        answer = bytearray()

        def take(pieces: Iterator[bytes]) -> None:
            answer.clear()
            for piece in pieces:
                answer.extend(piece)
                if len(answer) > limit:
                    raise self.strange()

        found = self.exchange(
            method, path, take, content=content, body=body, headers=headers, patience=patience, remedy=remedy
        )
        return bytes(answer), found

    def exchange(
        self,
        method: str,
        path: str,
        take: Callable[[Iterator[bytes]], None],
        *,
        content: bytes | None = None,
        body: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 60,
        remedy: str = "",
    ) -> httpx.Headers:
        """Hand the pieces of an answer's body to ``take``, from the start in each try; see :meth:`call`."""
        timeout = httpx.Timeout(60, connect=10, read=patience)
        given = {
            **(headers or {}),
            **({"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}),
        }
        for pause in (*PAUSES, None):
            asked = 0.0
            try:
                sent = body() if body else content
                with self._http.stream(
                    method, path, content=sent, headers=given, timeout=timeout
                ) as response:
                    if response.status_code not in PASSING or pause is None:
                        self._refuse(response)
                        take(response.iter_raw(BLOCK))
                        return response.headers
                    asked = _seconds(response.headers.get("retry-after", ""))
            except httpx.TransportError as error:
                if pause is None:
                    raise self._unreachable(error, remedy) from None
            except httpx.HTTPError as error:
                raise self.error(f"the request failed ({type(error).__name__})") from None
            time.sleep(max(pause, asked))
        raise AssertionError("the last try returns or raises")

    def _refuse(self, response: httpx.Response) -> None:
        if response.is_success:
            return
        what, remedy = f"the server answered {response.status_code}", "Is this a blindtune server?"
        try:
            said = Refusals.validate_json(_start(response))
            what, remedy = said.detail, said.remedy
        except ValidationError:
            pass
        if response.status_code == 401:
            what, remedy = "the server does not accept the token", "Give the token of this server."
        raise StatusError(what, where=self.host, remedy=remedy, status=response.status_code)

    def json(self, method: str, path: str, content: bytes | None = None) -> Any:
        """The answer as JSON."""
        try:
            body, _ = self.call(method, path, content=content, limit=MAX_MANIFEST_BYTES)
            return Anything.validate_json(body)
        except ValidationError:
            raise self.strange() from None

    def _unreachable(self, error: httpx.TransportError, remedy: str) -> RemoteError:
        if "certificate" in str(error).lower():
            return self.error(
                "the server's certificate is not trusted, or it wants one of ours",
                "Check the address with its owner, and --ca and --client-cert.",
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not remedy:
            return self.error("cannot reach the server", "Is it running, and is its address right?")
        if remedy:
            return self.error("the server went down mid-upload", remedy)
        # A server that wants a client's certificate hangs up on those without one.
        secured = self._http.base_url.scheme == "https"
        also = "; if it repeats, the server may want --client-cert" * secured
        return self.error("the connection broke off", f"Try again{also}.")

    def strange(self) -> RemoteError:
        """The error for an answer that no blindtune server gives."""
        return self.error("the answer is not a blindtune server's", "Check the address and the versions.")

    def error(self, what: str, remedy: str = "") -> RemoteError:
        """An error that names the host."""
        return RemoteError(what, where=self.host, remedy=remedy)


def _seconds(header: str) -> float:
    """A Retry-After in seconds, bounded; dates are not told apart from nothing."""
    return min(float(header), LONGEST_PAUSE) if header.isdecimal() and len(header) < 9 else 0.0


def _start(response: httpx.Response) -> bytes:
    start = b""
    for piece in response.iter_raw(BLOCK):
        start += piece
        if len(start) > 1 << 16:
            break
    return start


def _check_url(url: str, allow_plain_http: bool) -> str:
    """The host of a usable address."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    host = parsed.host
    if parsed.scheme not in ("http", "https") or not host or parsed.userinfo or parsed.query:
        raise RemoteError(
            "the server's address is not usable", remedy="Give https://host or https://host:port."
        )
    if parsed.scheme == "http" and not allow_plain_http and not is_loopback(host):
        raise RemoteError(
            "plain http would show the token to whoever listens",
            where=host,
            remedy="Use https, or an SSH tunnel to localhost.",
        )
    return host
