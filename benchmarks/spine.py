"""The spine, measured: encrypt, serve, submit, fetch, decrypt, evaluate, each through the command line.

    python benchmarks/spine.py --shared ../shared --work /tmp/spine [--cases pneumoniamnist xrays mnist]

Writes ``benchmarks/results/spine.json`` and the tables of ``docs/benchmarks.md``. Nothing of the data is
kept in the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "spine.json"
PAGE = ROOT / "docs" / "benchmarks.md"
ENCRYPTED, CLEAR, CONVERGED = "encrypted", "same steps in clear", "converged plaintext"
UNCALIBRATED, BALANCED = "encrypted, uncalibrated", "converged plaintext, balanced"


def blindtune(*arguments: str, token: str = "") -> dict[str, Any]:
    """Run a command with ``--json``; its answer, with the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "blindtune.cli.main", *arguments, "--json"],
        env={**os.environ, "BLINDTUNE_TOKEN": token},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"blindtune {arguments[0]}: {done.stderr.strip()}")
    return {**json.loads(done.stdout), "wall_seconds": time.perf_counter() - start}


@contextmanager
def server(directory: Path, cores: int) -> Iterator[tuple[str, str]]:
    """A server in a process of its own: its URL and token."""
    token = secrets.token_urlsafe(32)
    command = [sys.executable, "-m", "blindtune.cli.main", "serve", "--data-dir", str(directory)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--cores", str(cores)],
        env={**os.environ, "BLINDTUNE_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), token
    finally:
        process.terminate()
        process.wait(60)


def xrays(shared: Path, work: Path) -> list[str]:
    """The paediatric chest X-rays, from the images, DeiT-tiny at 224 px."""
    folder = work / "xrays"
    if not folder.is_dir():
        with zipfile.ZipFile(shared / "data" / "kermany_pcxr_256.zip") as archive:
            archive.extractall(folder)
    table = next(folder.rglob("labels.csv"))
    return [str(table.parent), "--labels", str(table), "--weights", str(weights_of(shared))]


def pneumoniamnist(shared: Path, work: Path) -> list[str]:
    """PneumoniaMNIST's 28-pixel images, DeiT-tiny at 224 px."""
    return [str(arrays(shared, work, "pneumoniamnist", "pneumoniamnist_28.npz", 224, _pneumonia))]


def mnist(shared: Path, work: Path) -> list[str]:
    """20,000 MNIST images in ten classes, DeiT-tiny at 96 px."""
    return [str(arrays(shared, work, "mnist", "mnist.npz", 96, _mnist))]


CASES: dict[str, Callable[[Path, Path], list[str]]] = {
    "pneumoniamnist": pneumoniamnist,
    "xrays": xrays,
    "mnist": mnist,
}


def _pneumonia(found: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {s: (found[f"{s}_images"], found[f"{s}_labels"].ravel()) for s in ("train", "val", "test")}


def _mnist(found: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    order = np.random.default_rng(0).permutation(60000)
    train, held = order[:20000], order[20000:22000]
    x, y = found["x_train"], found["y_train"]
    return {
        "train": (x[train], y[train]),
        "val": (x[held], y[held]),
        "test": (found["x_test"], found["y_test"]),
    }


def arrays(shared: Path, work: Path, name: str, file: str, size: int, read: Callable[[Any], Any]) -> Path:
    """Embeddings of small images given as arrays, made once in the work directory."""
    target = work / f"{name}.npz"
    if target.is_file():
        return target
    import timm
    import torch
    from PIL import Image

    network = timm.create_model(
        "deit_tiny_patch16_224",
        pretrained=True,
        num_classes=0,
        img_size=size,
        pretrained_cfg_overlay={"file": str(weights_of(shared))},
    ).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    columns: dict[str, np.ndarray] = {}
    for split, (images, labels) in read(np.load(shared / "data" / file)).items():
        out = []
        for start in range(0, len(images), 64):
            resized = [
                np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BICUBIC), np.float32)
                / 255
                for i in images[start : start + 64]
            ]
            with torch.inference_mode():
                grey = torch.from_numpy(np.stack(resized)).unsqueeze(1)
                out.append(network((grey - mean) / std).numpy())
        columns[f"{split}_x"], columns[f"{split}_y"] = np.concatenate(out), labels
    np.savez(target, **columns)
    return target


def weights_of(shared: Path) -> Path:
    """DeiT-tiny."""
    return shared / "weights" / "deit_tiny_patch16_224.fp16.safetensors"


def measure(name: str, shared: Path, work: Path, cores: int, repeats: int) -> dict[str, Any]:
    """One case from end to end; training is repeated and the quickest run told."""
    source = CASES[name](shared, work)
    study, cloud = work / f"{name}-study", work / f"{name}-cloud"
    for old in (study, cloud):
        shutil.rmtree(old, ignore_errors=True)
    encrypted = blindtune("encrypt", *source, "--out", str(study))
    timings = []
    for _ in range(repeats):
        shutil.rmtree(cloud, ignore_errors=True)
        shutil.rmtree(study / "inbox", ignore_errors=True)
        with server(cloud, cores) as (url, token):
            submitted = blindtune("submit", str(study), "--server", url, token=token)
            blindtune("fetch", str(study), token=token)
            timings.append(json.loads(next(cloud.rglob("timing.json")).read_text()))
    decrypted = blindtune("decrypt", str(study))
    report = blindtune("evaluate", str(study))
    best = min(timings, key=lambda t: t["seconds_training"])
    sizes = {
        kind: sum(p.stat().st_size for p in (study / "outbox" / kind / "parts").iterdir())
        for kind in ("keys", "data")
    }
    figures = {
        head: {
            k: report["heads"][head]["figures"].get(k, {}).get("value")
            for k in ("accuracy", "roc_auc", "mcc")
        }
        for head in (ENCRYPTED, UNCALIBRATED, CLEAR, CONVERGED, BALANCED)
    }
    return {
        "rows": encrypted["training_rows"],
        "encrypt": {k: v for k, v in encrypted.items() if k not in ("study", "next")},
        "seconds_submit": submitted["wall_seconds"],
        "timing": best,
        "seconds_training_of_each_run": [t["seconds_training"] for t in timings],
        "bytes": sizes,
        "deviation": decrypted["deviation"],
        "heads": figures,
    }


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    model = next(
        (
            x.split(":")[1].strip()
            for x in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in x
        ),
        platform.processor(),
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {n: version(n) for n in ("tenseal", "torch", "timm", "numpy", "scikit-learn")},
        "commit": commit.stdout.strip(),
        "load_at_start": os.getloadavg()[0],
    }


def page(results: dict[str, Any]) -> str:
    """The tables of ``docs/benchmarks.md``."""
    m = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        "Written by `python benchmarks/spine.py --shared ../shared --work /tmp/spine`; do not edit.",
        "",
        f"{m['cpu']}, {m['cores']} virtual cores, Python {m['python']}, "
        + ", ".join(f"{k} {v}" for k, v in m["packages"].items())
        + f", commit {m['commit']}, load {m['load_at_start']:.1f} when it started.",
        "",
        "A single hospital that can run the backbone can train such a head in clear in a second. What is",
        "measured here is what it costs that nobody else sees the data.",
        "",
        "## Cost",
        "",
        "| case | rows | directions | outputs | train s | each run s | operations s ÷ cores | wall ÷ that "
        "| load s | upload MB | keys MB | peak memory GB |",
        "|" + "---|" * 12,
    ]
    for name, r in results["cases"].items():
        t = r["timing"]
        share = t["seconds_operations"] / t["cores"]
        runs = ", ".join(f"{s:.1f}" for s in r["seconds_training_of_each_run"])
        lines.append(
            f"| {name} | {r['rows']} | {r['encrypt']['directions']} | {r['encrypt']['outputs']} | "
            f"{t['seconds_training']:.2f} | {runs} | {share:.2f} | {t['seconds_training'] / share:.2f} | "
            f"{t['seconds_loading']:.1f} | {r['bytes']['data'] / 1e6:.1f} | {r['bytes']['keys'] / 1e6:.1f} | "
            f"{t['peak_bytes'] / 1e9:.2f} |"
        )
    lines += [
        "",
        "## Accuracy on the test split",
        "",
        "`converged plaintext` is scikit-learn's softmax regression on the same features, C chosen on",
        "validation; `balanced` weighs classes equally, as the encrypted heads do before calibration.",
        "",
        "| case | figure | encrypted | same steps in clear | converged | encrypted, uncalibrated "
        "| converged, balanced |",
        "|" + "---|" * 7,
    ]
    for name, r in results["cases"].items():
        for key, label in (("accuracy", "accuracy"), ("roc_auc", "ROC-AUC"), ("mcc", "MCC")):
            cells = [r["heads"][h][key] for h in (ENCRYPTED, CLEAR, CONVERGED, UNCALIBRATED, BALANCED)]
            lines.append(f"| {name} | {label} | " + " | ".join(f"{c:.4f}" for c in cells) + " |")
    lines += [
        "",
        "Largest difference of a weight from the same steps in clear, relative to the largest weight: ",
    ]
    lines[-1] += ", ".join(f"{n} {100 * r['deviation']:.3f} %" for n, r in results["cases"].items()) + "."
    lines += [
        "",
        "## Operations",
        "",
        "| case | operation | count | seconds, all workers |",
        "|---|---|---|---|",
    ]
    for name, r in results["cases"].items():
        total: dict[str, list[float]] = {}
        for row in r["timing"]["operations"]:
            entry = total.setdefault(row["name"], [0, 0.0])
            entry[0] += row["count"]
            entry[1] += row["seconds"]
        for operation, (count, seconds) in sorted(total.items(), key=lambda x: -x[1][1]):
            lines.append(f"| {name} | {operation} | {count} | {seconds:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure the cases asked for; others keep their last result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"cases": {}}
    results["machine"] = machine()
    for name in given.cases:
        repeats = given.repeats if name != "mnist" else 1
        results["cases"][name] = measure(name, given.shared, given.work, given.cores, repeats)
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(page(results))
        print(name, json.dumps(results["cases"][name]["heads"][ENCRYPTED]), flush=True)


if __name__ == "__main__":
    main()
