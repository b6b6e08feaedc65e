"""How fast this machine is: unit prices of the homomorphic operations, for the planner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Json, number


def bench(
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Keep the result: plans on this machine then predict by it.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the machine file here, for plans made elsewhere (--machine).")
    ] = None,
    cores: Annotated[int | None, typer.Option(help="Threads to measure with; all cores.", min=1)] = None,
    seconds: Annotated[
        float, typer.Option(help="Time to spend on measuring.", min=1.0, callback=number)
    ] = 10.0,
    json_: Json = False,
) -> None:
    """Measure this machine's homomorphic operations in about half a minute.

    Run it at the provider; the hospital's plan takes the file that it writes.
    """
    import json
    import os

    from blindtune.client.calibrate import RINGS
    from blindtune.client.calibrate import calibrate as measure
    from blindtune.kernels.machine import OPERATIONS, default_path

    targets = [*([default_path()] if calibrate else []), *([out] if out else [])]
    for path in targets:
        # Ask before the long work, not after it.
        render.make_directory(path.parent)
    with render.progress(json_) as shown:
        task = shown.add_task("measuring", total=None)
        found = measure(
            cores or os.cpu_count() or 1,
            seconds,
            lambda done, total: shown.update(task, completed=done, total=total),
        )
    for path in targets:
        _write(path, found.to_json())
    if json_:
        render.print_json({**json.loads(found.to_json()), "files": list(map(str, targets))})
        return
    rows = []
    for ring, levels in RINGS.items():
        for operation in OPERATIONS:
            times = [1e3 * found.seconds(operation, x, ring, 1, 1) for x in (levels, levels // 2, 1)]
            if any(times):
                rows.append((f"{operation} at N = {ring}", " / ".join(f"{t:.2f}" for t in times)))
    render.rows(f"{found.name}: ms at the top level, half way down, and at level 1", rows)
    for path in targets:
        render.console().print(f"written: {path}")


def _write(path: Path, text: str) -> None:
    """Write a file that appears whole."""
    import os

    from blindtune.errors import InputError

    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"the machine file cannot be written ({error.strerror})",
            where=path.name,
            remedy="Choose another --out.",
        ) from error
