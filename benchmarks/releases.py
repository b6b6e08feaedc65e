"""The sanitised release: killed at lines all over it, and errors of heads against the bound of the noise.

    python -m benchmarks.releases

Kills: each release runs in a process that kills itself (SIGKILL) at one line of the release's own code, each
line in turn, on a fresh copy of a study and on one that was released before. Afterwards the release is asked
for again. Written to ``docs/audit-releases.md`` and
``benchmarks/results/releases.json``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.commands import ROOT, keep, machine
from benchmarks.page import table
from blindtune import files
from blindtune.client import decrypt, encoding, flood, release, releases
from blindtune.client.encrypt import encrypt_study
from blindtune.client.keyfile import read_key, write_key
from blindtune.client.prepare import prepare
from blindtune.client.study import StudyDirectory
from blindtune.he.secret import SecretKey
from blindtune.imaging import Embeddings
from blindtune.models import linear
from blindtune.models.builtin import head_for
from blindtune.models.heads import Head
from blindtune.params import INSECURE, ParametersLiteral
from blindtune.privacy import noise
from blindtune.wire.study import train_here

WATCHED = {m.__file__ for m in (decrypt, release, releases, linear, noise, files)}
PAGE = ROOT / "docs" / "audit-releases.md"
SIZES = ((60, 6, 2), (500, 30, 2), (500, 30, 3), (500, 30, 5), (3000, 62, 2), (3000, 30, 10), (12000, 14, 2))
"""Rows, features and classes of the studies whose errors are measured."""


def counted_release(root: Path, last: int = 0) -> int:
    """Release a study's head, and kill this process at the line numbered ``last``; the lines that ran."""
    ran = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal ran
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            ran += 1
            if ran == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    directory = StudyDirectory(root)
    key = read_key(directory.key_file)
    sys.settrace(trace)
    release.release_head(directory, key)
    sys.settrace(None)
    return ran


def study(root: Path, rows: int, features: int, classes: int, *, ring: int = 1024) -> StudyDirectory:
    """A study that is planned for release under parameters without security, trained here."""
    rng = np.random.default_rng([rows, features, classes])
    labels = np.arange(rows) % classes
    x = rng.normal(size=(rows, features)) + rng.normal(size=(classes, features))[labels]
    splits = np.array(["train", "train", "train", "val", "test"])[np.arange(rows) // classes % 5]
    names = tuple(f"class {k}" for k in range(classes))
    patients = tuple(f"patient {i}" for i in range(rows))
    data = Embeddings(x.astype(np.float32), labels, names, patients, splits)
    head: Head = head_for("auto", 1 if classes == 2 else classes)
    sizes = flood.SCALE_BITS, flood.FIRST_BITS, flood.SPECIAL_BITS
    p = ParametersLiteral(ring, head.program.levels, *sizes, INSECURE).checked()
    key, directory = SecretKey.generate(p), StudyDirectory(root)
    prepared = prepare(data, head=head, directions=[features - 1], epsilons=[0.1], parameters=p)
    directory.create()
    write_key(directory.key_file, key)
    encrypt_study(prepared, key, directory, release=True)
    bundles = directory.keys_bundle, [directory.data_bundle]
    train_here(*bundles, directory.encrypted_head, insecure=True)
    return directory


def kill(source: Path, place: Path) -> dict[str, int]:
    """Kills at every line of a release, and what was there after each."""
    twin, one = place / "twin", place / "one"
    shutil.copytree(source, twin)
    first, again = counted_release(twin), counted_release(twin)
    counts = ("kills", "before_the_draw", "after_the_draw", "drawn_twice", "torn", "differing")
    found = dict.fromkeys(counts, 0)
    cases = [(source, line) for line in range(1, first + 1)] + [(twin, line) for line in range(1, again + 1)]
    for original, line in cases:
        shutil.rmtree(one, ignore_errors=True)
        shutil.copytree(original, one)
        there = _files(one)
        child = os.fork()
        if child == 0:
            counted_release(one, line)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "a release outlived its kill"
        before, shown = _kept(one), _files(one)
        counted_release(one)
        after, whole = _kept(one), _files(one)
        found["kills"] += 1
        found["before_the_draw"] += before is None
        found["after_the_draw"] += before is not None
        found["drawn_twice"] += before is not None and before != after
        found["torn"] += before is None and bool(shown)
        counted_release(one)
        kept = [name for name in {**there, **shown} if name in whole]
        earlier = {**shown, **there}
        found["differing"] += whole != _files(one) or any(earlier[name] != whole[name] for name in kept)
    return {**found, "lines": first, "lines_again": again}


def errors(place: Path) -> list[dict[str, Any]]:
    """The error of decrypted heads against its bound, and what is left after the noise."""
    found = []
    for size in SIZES:
        shutil.rmtree(place / "size", ignore_errors=True)
        directory = study(place / "size", *size, ring=4096)
        key, settings = read_key(directory.key_file), directory.settings()
        bundle = decrypt.checked_head(directory, settings, key)
        layout, scale = bundle.manifest.checked_layout, key.parameters.scale
        clean = directory.expected()
        assert clean is not None
        assert settings.release is not None
        wanted = encoding.encode_weights(clean, layout, settings.scaling)
        exact = flood.of_head(decrypt.decrypted(bundle, key), layout, scale)
        apart = (exact - flood.of_head(wanted, layout, scale)).astype(float)
        plan = flood.Flood(**settings.release)
        found.append(
            {
                **dict(zip(("rows", "features", "classes"), size, strict=True)),
                "head": settings.head["name"],
                "error_over_bound": float(np.linalg.norm(apart)) / plan.length,
                "bits": plan.bits,
            }
        )
        print(found[-1], flush=True)
    return found


def _files(root: Path) -> dict[str, bytes]:
    there = StudyDirectory(root).released
    names = ("head.json", "head.safetensors", release.RECORD)
    return {name: (there / name).read_bytes() for name in names if (there / name).is_file()}


def _kept(root: Path) -> bytes | None:
    directory = StudyDirectory(root)
    key = read_key(directory.key_file)
    bundle = decrypt.checked_head(directory, directory.settings(), key)
    with closing(releases.Journal(directory.releases, key.key_id)) as journal:
        told = journal.told(releases.digest(list(bundle.items("weights"))))
    return None if told is None else told.values.tobytes()


def main() -> None:
    """Kill, measure, and write the page."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        killed = kill(study(place / "study", 100, 6, 3).root, place)
        print(killed, flush=True)
        measured = errors(place)
    result = {"machine": machine(), "kills": killed, "errors": measured}
    keep("releases", result)
    PAGE.write_text(page(result))


def page(result: dict[str, Any]) -> str:
    """The page of a result."""
    k, m = result["kills"], result["machine"]
    rows = [
        [e["head"], f"{e['rows']:,}", str(e["features"]), str(e["classes"]), *_shares(e)]
        for e in result["errors"]
    ]
    head = ["head", "rows", "features", "classes", "error / bound", "bits left"]
    return f"""# Releases: kills and errors

Written by `python -m benchmarks.releases` on {m["cpu"]}, blindtune {m["commit"]}.

{k["kills"]} releases were killed (SIGKILL): at each of the {k["lines"]} lines that a first release runs, and
at each of the {k["lines_again"]} of one that had been released before. {k["before_the_draw"]} died before
the noise was on disk, {k["after_the_draw"]} after. Asked again, {k["drawn_twice"]} drew a second time,
{k["torn"]} had shown something that was not on disk, {k["differing"]} gave other bytes.

Error of decrypted heads against the bound that the noise is planned from (parameters without security, ring
degree 4096), and bits of the largest weight that the noise leaves:

{table(head, rows)}
"""


def _shares(e: dict[str, Any]) -> list[str]:
    return [f"1/{1 / e['error_over_bound']:.0f}", f"{e['bits']:.1f}"]


if __name__ == "__main__":
    main()
