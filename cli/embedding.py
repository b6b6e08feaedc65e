"""``blindtune audit embedding``: embeddings from gradients, scans and patients from embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli import audit, render
from blindtune.cli.inversion import Labels, Out, Scans, protected
from blindtune.cli.options import Json


def embedding(
    scans: Scans = None,
    labels: Labels = None,
    backbone: Annotated[str, typer.Option(help="Any timm model; the default is in the package.")] = (
        "blindtune_deit_96"
    ),
    weights: Annotated[Path | None, typer.Option(help="The backbone's weights (.safetensors).")] = None,
    side: Annotated[int, typer.Option(help="Of the drawn scans, a multiple of 8.", min=16, max=128)] = 48,
    epochs: Annotated[int, typer.Option(help="Passes in which the decoder learns.", min=1, max=1000)] = 20,
    batch: Annotated[int, typer.Option(help="Cases in a site's step.", min=1, max=64)] = 2,
    sites: Annotated[list[int] | None, typer.Option(help="Sites of a secure sum; repeat. 3 and 10.")] = None,
    epsilon: Annotated[list[float] | None, typer.Option(help="Budgets; may be repeated. 8, 3 and 1.")] = None,
    steps: Annotated[int, typer.Option(help="Private steps that a budget is for.", min=1)] = 30,
    sampling: Annotated[float, typer.Option(help="Chance to take part in one.", min=1e-6, max=1)] = 0.2,
    delta: Annotated[float, typer.Option(help="Delta of the budgets.", min=1e-12, max=0.1)] = 1e-4,
    out: Out = None,
    json_: Json = False,
) -> None:
    """Are embeddings patient data? Read them off a head's gradients, draw scans from them, link patients.

    Half of the patients stand for public images that a decoder learns from; the others are attacked. With
    --out, embeddings that are made are kept.
    """
    from blindtune.audit.embedding import attack_embeddings, attack_gradients, embeddings
    from blindtune.audit.pictures import side_by_side
    from blindtune.audit.reconstruction import sights
    from blindtune.audit.scans import Scans as Found
    from blindtune.errors import InputError
    from blindtune.models import load_backbone
    from blindtune.privacy.account import noise_for

    if side % 8:
        raise InputError(f"a side of {side}", where="--side", remedy="Give a multiple of 8.")
    found, network = Found.read(scans, labels), load_backbone(backbone, weights)
    if out is not None:
        render.make_directory(out)
    sums = [3, 10] if sites is None else sites
    budgets = [8.0, 3.0, 1.0] if epsilon is None else epsilon
    noises = [(e, noise_for(e, delta, sampling=sampling, count=steps)) for e in budgets]
    command = (
        f"blindtune audit embedding SCANS --backbone {backbone} --side {side} --epochs {epochs} "
        + protected(batch, sums, noises, steps, sampling, delta)
    )
    with render.progress(json_) as shown:
        embed = shown.add_task("embeddings", total=len(found))
        rows = embeddings(
            found,
            network,
            None if out is None else out / "cache",
            lambda done, total: shown.update(embed, completed=done, total=total),
        )
        victims = found.one_each(found.halves()[1])
        protections = sights(batch, sums, noises, clip=10.0)
        results, revealed = attack_gradients(found, rows, victims, protections, command)
        learn = shown.add_task("decoder", total=epochs)
        told, pictures, decoder, _ = attack_embeddings(
            found, rows, backbone, side, epochs, command, progress=lambda: shown.advance(learn)
        )
    if out is not None:
        side_by_side(out / "embedding.png", pictures)
        drawn = {name: decoder(x[:8]) for name, x in revealed.items()}
        side_by_side(out / "gradient.png", {"true": found.pixels(victims[:8], side), **drawn})
    audit.tell(results + told, None if out is None else out / "embedding.json", json_)
