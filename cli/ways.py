"""``ways``: whether so many steps fit the levels, and else what a refresh or a bootstrap costs."""

from __future__ import annotations

from typing import Annotated

import typer

from blindtune.cli import render
from blindtune.cli.options import Degree, Json, MachineFile, Memory, Security


def ways(
    steps: Annotated[int, typer.Option(help="Gradient steps.", min=1, max=64)] = 10,
    rows: Annotated[int, typer.Option(help="Training rows of a hospital.", min=1)] = 2048,
    hospitals: Annotated[
        int, typer.Option(help="Hospitals that hold a joint key; one owns its key alone.", min=1, max=50)
    ] = 1,
    features: Annotated[int, typer.Option(help="Whitened directions; with the bias, columns.", min=1)] = 63,
    classes: Annotated[int, typer.Option(help="Classes.", min=2)] = 2,
    degree: Degree = 7,
    security: Security = 128,
    memory: Memory = 16.0,
    machine: MachineFile = None,
    json_: Json = False,
) -> None:
    """Show the ways to train so many steps, each with its rounds, bytes, seconds and memory."""
    from blindtune.cli.hospital import machine_of
    from blindtune.depth import ways as found
    from blindtune.models.heads import one_vs_rest

    head = one_vs_rest(degree=degree, learning_rates=(4.0,) * steps)
    made = found(
        hospitals * rows,
        features + 1,
        classes if hospitals > 1 or classes > 2 else 1,
        head,
        joint=hospitals > 1,
        member_rows=(rows,) * hospitals,
        security=security,
        memory_limit=int(memory * 2**30),
        machine=machine_of(machine),
    )
    if json_:
        render.print_json([way.to_json() for way in made])
        return

    def both(*sizes: int) -> str:
        return ", ".join(map(render.megabytes, sizes))

    for way in made:
        title = f"{way.name}: to take" if way is made[0] and not way.why_not else way.name
        if way.plan is None:
            render.rows(title, [("cannot be done", way.why_not)])
            continue
        p, refreshes = way.plan.parameters, way.plan.program.refreshes
        told = [
            ("ring degree, levels", f"{p.ring_degree}, {p.levels}"),
            ("weights made fresh after steps", ", ".join(map(str, refreshes)) or "none"),
            ("rounds that all hospitals answer", str(way.rounds)),
            ("sent and received by one in all", both(way.sent, way.received)),
            ("rows of all, evaluation keys", both(way.plan.cost.upload_bytes, way.key_bytes)),
            ("server, memory", f"{way.seconds:.0f} s, {render.megabytes(way.memory)}"),
        ]
        if way.name == "bootstrapping":
            told.append(("command", "blindtune encrypt --bootstrap, with OpenFHE on both sides"))
        render.rows(title, told)
