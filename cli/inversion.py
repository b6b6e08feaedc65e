"""``blindtune audit inversion``: images rebuilt from gradients, through each protection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blindtune.cli import audit, render
from blindtune.cli.options import Json

if TYPE_CHECKING:
    from rich.progress import TaskID

Scans = Annotated[
    Path | None, typer.Argument(help="A folder of labelled scans to attack; invented ones without it.")
]
Labels = Annotated[Path | None, typer.Option(help="CSV: file,label[,patient,split].")]
Out = Annotated[
    Path | None,
    typer.Option(help="Write results (.json) and pictures (.png) here. Pictures show patients: keep them."),
]


def protected(
    batch: int,
    sites: Sequence[int],
    noises: Sequence[tuple[float, float]],
    steps: int,
    sampling: float,
    delta: float,
) -> str:
    """The options of protections, for the command that makes the figures again."""
    several = "".join(f" --sites {n}" for n in sites) + "".join(f" --epsilon {e:g}" for e, _ in noises)
    return f"--batch {batch}{several} --steps {steps} --sampling {sampling:g} --delta {delta:g}"


def inversion(
    scans: Scans = None,
    labels: Labels = None,
    network: Annotated[str, typer.Option(help="Any timm network; head-only is in audit embedding.")] = (
        "deit_tiny_patch16_224"
    ),
    norm: Annotated[
        Literal["group", "batch"], typer.Option(help="Group normalisation, as in rounds, or a batch's.")
    ] = "group",
    mode: Annotated[
        Literal["training", "evaluation"], typer.Option(help="Of batch normalisation's statistics.")
    ] = "training",
    side: Annotated[int, typer.Option(help="Of the images in pixels.", min=16, max=224)] = 32,
    images: Annotated[int, typer.Option(help="Patients to attack, an image each.", min=1, max=1000)] = 4,
    batch: Annotated[int, typer.Option(help="Images in a site's step.", min=1, max=64)] = 2,
    sites: Annotated[list[int] | None, typer.Option(help="Sites of a secure sum; repeat. 3 and 10.")] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="Budgets; may be repeated. 8, 3 and 1.")] = None,
    steps: Annotated[int, typer.Option(help="Private steps that a budget is for.", min=1)] = 30,
    sampling: Annotated[float, typer.Option(help="Chance to take part in one.", min=1e-6, max=1)] = 0.2,
    delta: Annotated[float, typer.Option(help="Delta of the budgets.", min=1e-12, max=0.1)] = 1e-4,
    iterations: Annotated[int, typer.Option(help="Of each search; 0: none.", min=0, max=100_000)] = 100,
    restarts: Annotated[int, typer.Option(help="Searches; the best one counts.", min=1, max=100)] = 1,
    control_only: Annotated[bool, typer.Option(help="One image without protection, nothing else.")] = False,
    seed: Annotated[int, typer.Option(help="Of the network's weights and the patients.", min=0)] = 0,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Rebuild images from gradients: of one image, a site's step, secure sums, and with privacy noise.

    Half of the patients stand for public images that the attacker knows; others are attacked. With --out,
    a run that was stopped goes on with the next image.
    """
    from blindtune.audit.inversion import Strength
    from blindtune.audit.pictures import side_by_side
    from blindtune.audit.reconstruction import Setting, attack, sights
    from blindtune.audit.scans import Scans as Found
    from blindtune.privacy.account import noise_for

    found = Found.read(scans, labels)
    kind: Literal["group", "local"] = "local" if norm == "batch" else "group"
    setting = Setting(network, kind, mode, side, images, Strength(iterations, restarts), seed)
    budgets = [8.0, 3.0, 1.0] if epsilon is None else epsilon
    noises = [(e, noise_for(e, delta, sampling=sampling, count=steps)) for e in budgets]
    sums = [3, 10] if sites is None else sites
    own = kind == "local" and mode == "training"
    protections = sights(batch, sums, noises, statistics=own)[: 1 if control_only else None]
    state = None
    if out is not None:
        state = out / "state"
        for directory in (out, state):
            render.make_directory(directory)
    command = (
        f"blindtune audit inversion SCANS --network {network} --norm {norm} --mode {mode} --side {side} "
        f"--images {images} --iterations {iterations} --restarts {restarts} --seed {seed} "
        + ("--control-only" if control_only else protected(batch, sums, noises, steps, sampling, delta))
    )
    with render.progress(json_) as shown:
        bars: dict[str, TaskID] = {}

        def tick(name: str, done: int, total: int) -> None:
            if name not in bars:
                bars[name] = shown.add_task(name[:27], total=total)
            shown.update(bars[name], completed=done)

        results, pictures = attack(found, setting, protections, state=state, command=command, progress=tick)
    if out is not None:
        side_by_side(out / "inversion.png", pictures)
    audit.tell(results, None if out is None else out / "inversion.json", json_)
