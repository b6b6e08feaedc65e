"""What the commands share for the terminal: console, progress bars, sizes, JSON, passphrases."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console() -> Console:
    """Messages go to stderr, so that stdout stays for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextmanager
def progress(quiet: bool = False, *columns: Any) -> Iterator[Progress]:
    """A progress display on stderr that leaves nothing behind when there is no terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    terminal = console()
    shown = Progress(
        TextColumn("{task.description:<27}"),
        BarColumn(),
        TextColumn("{task.percentage:>4.0f} %"),
        *columns,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=terminal,
        disable=quiet or not terminal.is_terminal,
    )
    with shown:
        yield shown


def megabytes(size: float) -> str:
    """A size for people."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def rows(title: str, pairs: list[tuple[str, str]]) -> None:
    """A small table of names and values on stdout."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False, title_style="bold")
    table.add_column(style="cyan")
    table.add_column()
    for pair in pairs:
        table.add_row(*pair)
    Console(highlight=False).print(table)


def passphrase(*, ask: bool, confirm: bool = False) -> str | None:
    """The passphrase from BLINDTUNE_PASSPHRASE, or from the terminal when asked for."""
    given = os.environ.get("BLINDTUNE_PASSPHRASE")
    if given or not ask:
        return given
    import typer

    from blindtune.errors import KeyFileError

    if not sys.stdin.isatty():
        raise KeyFileError("the key needs a passphrase", remedy="Set BLINDTUNE_PASSPHRASE or use a terminal.")
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm))


def load_key(path: Path) -> Any:
    """A secret key, asking for its passphrase if it is locked."""
    from blindtune.client.keyfile import is_locked, read_key

    return read_key(path, passphrase(ask=is_locked(path)))


def token(file: Path | None) -> str:
    """The server's token, from a file or BLINDTUNE_TOKEN.

    Raises:
        InputError: neither is there.
    """
    from blindtune.errors import InputError

    if file is not None:
        if not file.is_file() or file.stat().st_size > 4096:
            raise InputError("no token file here", where=file.name, remedy="Copy the server's token file.")
        return file.read_text().strip()
    found = os.environ.get("BLINDTUNE_TOKEN", "")
    if not found:
        raise InputError("no token", remedy="Set BLINDTUNE_TOKEN or give --token-file.")
    return found


def tell(title: str, told: dict[str, Any], json_: bool) -> None:
    """Named values, as a table or as one JSON document."""
    if json_:
        print_json(told)
    else:
        rows(title, [(k.replace("_", " "), _said(v)) for k, v in told.items() if v is not None])


def _said(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def make_directory(path: Path) -> None:
    """A private directory.

    Raises:
        InputError: it cannot be made.
    """
    from blindtune.errors import InputError

    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InputError(
            f"the directory cannot be made ({error.strerror})",
            where=path.name,
            remedy="Choose a directory that you may write to.",
        ) from error
