"""The demonstration: a hospital and a cloud as two processes, from scans to a decrypted head, offline."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from blindtune.cli import encryption, exchange, render, results

EMBEDDED = "blindtune_deit_96"
SYNTHETIC = (
    "The scans of this study are synthetic: a program drew them, no patient ever existed. The figures show "
    "that training on ciphertexts equals training in clear, not how well disease is found."
)


def demo(
    data: Annotated[Path | None, typer.Option(help="Your own scans instead of synthetic ones.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV for --data: file,label[,patient,split].")] = None,
    backbone: Annotated[str, typer.Option(help="Any timm model; the default is in the package.")] = EMBEDDED,
    weights: Annotated[Path | None, typer.Option(help="The backbone's weights (.safetensors).")] = None,
    out: Annotated[Path, typer.Option(help="Where hospital/ and cloud/ are made.")] = Path("blindtune-demo"),
) -> None:
    """Show everything: a hospital encrypts, a cloud trains on ciphertexts, the hospital decrypts.

    Without --data the scans are synthetic: drawn by a program, no patient ever existed. The figures
    then show that encrypted training equals training in clear, not how well pneumonia is found.
    """
    features = out / "hospital" / "study" / "private" / "features"
    with _kept_only(features, out):
        _demo(data, labels, backbone, weights, out)


@contextmanager
def _kept_only(features: Path, out: Path) -> Iterator[None]:
    """Begin with an empty directory; after a failure keep computed features, to go on from."""
    from blindtune.errors import InputError

    existed = out.exists()
    if existed and (not out.is_dir() or any(p.is_file() and p.parent != features for p in out.rglob("*"))):
        raise InputError(
            "the directory is not empty", where=str(out), remedy="Remove it or choose another --out."
        )
    try:
        yield
    except BaseException:
        # Everything here was made by this run: children before their parents.
        for path in sorted(out.rglob("*"), reverse=True):
            if path.parent != features:
                with suppress(OSError):
                    path.rmdir() if path.is_dir() else path.unlink()
        if not existed:
            with suppress(OSError):
                out.rmdir()
        raise


def _demo(data: Path | None, labels: Path | None, backbone: str, weights: Path | None, out: Path) -> None:
    from blindtune.imaging.synthetic import write_synthetic_cohort

    site, cloud = out / "hospital", out / "cloud"
    render.make_directory(site)
    study = site / "study"
    console = render.console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True)

    if data is None:
        say("[bold]1. Scans[/bold]  drawing [bold]synthetic[/bold] chest DICOM files (no real patients)")
        data = site / "scans"
        write_synthetic_cohort(data)
    else:
        say(f"[bold]1. Scans[/bold]  from {data}")
    say(f"[bold]2. Hospital[/bold]  blindtune encrypt {data} --out {study}")
    synthetic = data == site / "scans"
    note = [SYNTHETIC] if synthetic else None
    encryption.encrypt(data, study, labels=labels, backbone=backbone, weights=weights, note=note)
    with _cloud(cloud) as (url, token, process):
        os.environ["BLINDTUNE_TOKEN"] = token
        say(f"[bold]3. Cloud[/bold]  blindtune serve --data-dir {cloud}  (process {process}, {url})")
        say(f"[bold]4. Hospital[/bold]  blindtune submit {study} --server {url}  (process {os.getpid()})")
        exchange.submit(study, server=url)
        say(f"[bold]5. Cloud trains on ciphertexts; hospital[/bold]  blindtune fetch {study}")
        exchange.fetch(study)
    _show_what_the_cloud_holds(site, cloud)
    say(f"[bold]6. Hospital[/bold]  blindtune decrypt {study}")
    results.decrypt(study)
    say(f"[bold]7. Hospital[/bold]  blindtune evaluate {study}")
    results.evaluate(study)
    if synthetic:
        say(
            "[yellow]The scans of this demo are synthetic.[/yellow] "
            "blindtune demo --data DIR --labels CSV runs it on yours."
        )


@contextmanager
def _cloud(directory: Path) -> Iterator[tuple[str, str, int]]:
    """A server in another process with a directory of its own: its address, token and process id."""
    from blindtune.errors import RemoteError

    token = secrets.token_urlsafe(32)
    command = [
        sys.executable,
        "-m",
        "blindtune.cli.main",
        "serve",
        "--data-dir",
        str(directory),
        "--port",
        "0",
    ]
    server = subprocess.Popen(
        command,
        env={**os.environ, "BLINDTUNE_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            raise RemoteError("the cloud process did not start", remedy="Run blindtune serve to see why.")
        yield url, token, server.pid
    finally:
        server.terminate()
        server.communicate(timeout=30)


def _show_what_the_cloud_holds(site: Path, cloud: Path) -> None:
    """Look for the secret key and for images in everything that the cloud wrote."""
    from blindtune.errors import BundleError
    from blindtune.imaging.formats import sniff_format
    from blindtune.wire.bundle import holds_secret_key

    files = [p for p in cloud.rglob("*") if p.is_file()]
    keys = [p for p in files if holds_secret_key(p)]
    images = [p for p in files if sniff_format(p) is not None]
    if keys or images:
        raise BundleError(f"the cloud's directory holds {len(keys)} secret keys and {len(images)} images")
    size = sum(p.stat().st_size for p in files)
    render.rows(
        "What the two directories hold",
        [
            (str(cloud), f"{len(files)} files, {render.megabytes(size)}: 0 secret keys, 0 images"),
            (str(site), "scans, embeddings, labels and the secret key (mode 0600)"),
        ],
    )
