"""The command line: parse, call, render. Everything heavy is imported inside the commands."""

from __future__ import annotations

import os
import sys

import typer

from blindtune.cli import cloud, demo, hospital, results

app = typer.Typer(
    name="blindtune",
    help="Train medical-image classifier heads on data that the training machine never sees.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    hospital.keygen,
    hospital.plan,
    hospital.encrypt,
    cloud.serve,
    hospital.submit,
    hospital.status,
    hospital.fetch,
    results.decrypt,
    results.evaluate,
    results.predict,
    demo.demo,
):
    app.command()(command)


def run() -> None:
    """Entry point: errors as one line with exit code 2, never a traceback."""
    from blindtune.errors import BlindtuneError

    try:
        app(standalone_mode=False)
    except BlindtuneError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; run the same command again to go on", 130)
    except BrokenPipeError:
        os._exit(0)
    except Exception as error:
        _unexpected(error)


def _unexpected(error: Exception) -> None:
    import click

    if isinstance(error, click.exceptions.Abort):
        _fail("stopped; run the same command again to go on", 130)
    if isinstance(error, click.ClickException):
        error.show()
        sys.exit(error.exit_code)
    if os.environ.get("BLINDTUNE_DEBUG"):
        raise error
    if isinstance(error, MemoryError):
        _fail("out of memory. Use fewer rows or directions, or a machine with more", 1)
    if isinstance(error, OSError):
        _fail(f"{error.strerror or type(error).__name__}. Check the disk and the permissions", 1)
    _fail(f"unexpected {type(error).__name__}. BLINDTUNE_DEBUG=1 shows where; please report it", 1)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    run()
