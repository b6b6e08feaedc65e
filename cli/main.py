"""The program: run a command, and tell every error in one line. Everything heavy is imported later."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from blindtune.cli import interrupts

STOPPED = "stopped; run the same command again to go on"
INTERRUPTED = 130


def run() -> None:
    """Entry point: errors as one line with exit code 2, Ctrl-C as one with 130, never a traceback."""
    # A notebook or a shell may start us with interrupts ignored: nohup, or a job in the background.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        code = _command(sys.argv[1:])
    except BrokenPipeError:
        os._exit(0)
    except (Exception, KeyboardInterrupt) as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if os.environ.get("BLINDTUNE_DEBUG"):
            raise
        message, code = _explained(error)
        if message:
            print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    interrupts.pressed = True
    raise KeyboardInterrupt


def _command(arguments: list[str]) -> int:
    import typer

    from blindtune.cli.commands import app

    # Not app(): it swallows interrupts, and prints usage errors in a frame of many lines.
    command = typer.main.get_command(app)
    try:
        with command.make_context("blindtune", arguments or ["--help"]) as context:
            command.invoke(context)
    except typer.Exit as end:
        return int(end.exit_code)
    return 0


def _explained(error: BaseException) -> tuple[str, int]:
    """What to print, and the exit code."""
    import typer

    from blindtune.errors import BlindtuneError

    if interrupts.pressed or isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return STOPPED, INTERRUPTED
    if isinstance(error, BlindtuneError):
        return str(error), error.exit_code
    if hasattr(error, "format_message"):
        # A usage error; which class it is depends on the version of typer.
        context = getattr(error, "ctx", None)
        path, said = context.command_path if context else "blindtune", error.format_message().rstrip(".")
        # Nothing is said for a group without a command: its help has been printed.
        return f"{said}. See {path} --help" if said else "", 2
    if isinstance(error, MemoryError):
        return "out of memory. Use fewer rows or directions, or a machine with more", 1
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}. Check the disk and the permissions", 1
    return f"unexpected {type(error).__name__}. BLINDTUNE_DEBUG=1 shows where; please report it", 1


if __name__ == "__main__":
    run()
