"""How a coordinator reaches sites: requests out, answers back; who does not answer in time is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from blindtune.errors import BlindtuneError


@dataclass(frozen=True)
class Request:
    """What a site is asked.

    Attributes:
        kind: such as ``secagg/advert``.
        head: JSON, small.
        body: bytes that come with it, such as a model.
    """

    kind: str
    head: bytes
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        data: the answer, or nothing if the site refused.
        refusal: why it refused, in its own words; empty otherwise.
    """

    data: bytes = b""
    refusal: str = ""

    @property
    def told(self) -> str:
        """The refusal as the coordinator tells it: what a site says of itself is no place for a long text."""
        return f"it refused: {self.refusal[:200]}"


class Channel(Protocol):
    """The coordinator's side of a transport."""

    def ask(self, requests: Mapping[str, Request]) -> dict[str, Answer]:
        """Ask sites by name, all at a time; a site that cannot be reached is not in the answer."""
        ...


Handler = Callable[[Request], bytes]
"""A site: it answers, or raises a :class:`blindtune.errors.BlindtuneError` to refuse."""


def answered(handler: Handler, request: Request) -> Answer:
    """A site's answer, with a refusal for every error: nothing of an unexpected one leaves the site."""
    try:
        return Answer(handler(request))
    except BlindtuneError as error:
        return Answer(refusal=error.what)
    except Exception as error:
        return Answer(refusal=f"the site failed ({type(error).__name__})")


class LocalChannel:
    """Sites in this process, asked one after the other.

    Args:
        sites: by name.
    """

    def __init__(self, sites: Mapping[str, Handler]) -> None:
        self.sites = dict(sites)

    def ask(self, requests: Mapping[str, Request]) -> dict[str, Answer]:
        """See :class:`Channel`."""
        return {n: answered(self.sites[n], r) for n, r in requests.items() if n in self.sites}
