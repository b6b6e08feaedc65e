"""Where a hospital's server is and how it is trusted: as given, or as it was remembered."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blindtune.cli import render

if TYPE_CHECKING:
    from blindtune.client.remote import Remote

SERVER = "server.json"
PLACE = ("url", "ca", "client_cert")
"""What is remembered of a server."""

Place = dict[str, str | None]


def given_or_kept(kept: Path | None, server: str | None, ca: Path | None, client_cert: Path | None) -> Place:
    """Where the server is.

    Args:
        kept: a file that :func:`keep` may have written.

    Raises:
        InputError: neither given nor kept.
    """
    from blindtune.errors import InputError

    try:
        remembered = json.loads(kept.read_text()) if kept else {}
        place = {name: remembered.get(name) and str(remembered[name]) for name in PLACE}
    except (OSError, ValueError, AttributeError):
        place = dict.fromkeys(PLACE)
    given = {
        "url": server or os.environ.get("BLINDTUNE_SERVER"),
        "ca": str(ca.resolve()) if ca else None,
        "client_cert": str(client_cert.resolve()) if client_cert else None,
    }
    place |= {name: value for name, value in given.items() if value}
    if not place["url"]:
        raise InputError("no server", remedy="Give --server URL.")
    return place


def keep(file: Path, place: Place) -> None:
    """Remember where the server is."""
    file.write_text(json.dumps(place))


def remote(place: Place, token_file: Path | None, plain_http: bool) -> Remote:
    """The server there."""
    from blindtune.client.remote import Remote

    ca, certificate = (Path(p) if p else None for p in (place["ca"], place["client_cert"]))
    token = render.token(token_file)
    return Remote(str(place["url"]), token, allow_plain_http=plain_http, ca=ca, client_cert=certificate)
