"""Structured logs: one JSON object a line, without anything a tenant sent.

Nothing formats a request's path, body or headers: a request is told by its route's template and its
identifier. Of an exception the kind and the places in the code are kept, never the message, which could hold
anything.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import sys
import traceback
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import IO, Any

ROOT = "blindtune.server"
"""The logger above all of the server's."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The identifier of the request that is being answered."""

_GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}")


def new_request_id(given: str = "") -> str:
    """A request's identifier: the one a client or a proxy gave if it is a plain word, else a random one."""
    return given if _GIVEN.fullmatch(given) else secrets.token_hex(8)


class JsonLines(logging.Formatter):
    """Formats records as JSON objects; ``extra={"fields": {...}}`` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if identifier := request_id.get():
            line["request"] = identifier
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = told(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, default=str)


def told(error: BaseException) -> dict[str, Any]:
    """An exception without its message: its kind, where it was raised, and the ones that caused it."""
    frames = traceback.extract_tb(error.__traceback__)
    found: dict[str, Any] = {
        "type": type(error).__name__,
        "at": [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames][-12:],
    }
    cause = error.__cause__ or error.__context__
    if cause is not None and cause is not error:
        found["cause"] = type(cause).__name__
    return found


def configure(level: str = "info", stream: IO[str] | None = None) -> None:
    """Send the logs of this process to a stream, stderr by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    # uvicorn's own errors in the same form; its access log is switched off for ours.
    for name in (ROOT, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper() if name == ROOT else logging.WARNING)
