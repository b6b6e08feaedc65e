"""Make ``blindtune_deit_96``, the small backbone that ships inside the package, and measure it.

Three steps, each with files in ``--work`` so that it can be rerun alone:

    python benchmarks/distill_deit.py views  --work /tmp/bt_distill  # augmented views + teacher's answers
    python benchmarks/distill_deit.py train  --work /tmp/bt_distill
    python benchmarks/distill_deit.py probe  --work /tmp/bt_distill

The student is DeiT-tiny with every second block, 96-pixel input and 12-pixel patches (64 tokens). It
starts from the teacher: blocks 2, 4, ... 12, the position embedding interpolated, the patch projection
shrunk by pseudo-inverse resizing (Beyer et al., "FlexiViT", arXiv 2212.08013, as timm implements it).
It then regresses what the 224-pixel teacher says of the same crop: the final embedding (squared error on
standardised features plus 1 - cosine) and, as deep supervision, the class token and the mean patch token
after each kept block.

No label is used. Only training splits are shown, and since PneumoniaMNIST is the same collection as the
X-rays, images of one set's training split that also stand in the other's validation or test split are
left out (found by correlation at 28 pixels, where true pairs lie above 0.97 and others below).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity, smooth_l1_loss

SEED = 20
STUDENT_SIZE, TEACHER_SIZE = 96, 224
KEPT_BLOCKS = (1, 3, 5, 7, 9, 11)
SAME_IMAGE = 0.97
DEIT = "deit_tiny_patch16_224"
TABLE_START, TABLE_END = "<!-- probe -->", "<!-- end of probe -->"


# --------------------------------------------------------------------------- data


def xray_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open() as file:
        return list(csv.DictReader(file))


def centre_box(image: Image.Image) -> tuple[float, float, float, float]:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def shrink(image: Image.Image, size: int, box: tuple[float, float, float, float]) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def standard_rows(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def load_training_images(xrays: Path, pneumonia: Path, mnist: Path) -> list[list[Image.Image]]:
    """The three sources, each a list of greyscale images, cross-set duplicates of held-out images removed."""
    rows = xray_rows(xrays)
    images = [Image.open(xrays / row["file"]).convert("L") for row in rows]
    training = np.array([row["split"] == "train" for row in rows])
    tiny = standard_rows(np.stack([shrink(image, 28, centre_box(image)) for image in images]))
    with np.load(pneumonia, allow_pickle=False) as arrays:
        small, held_out = arrays["train_images"], [arrays["val_images"], arrays["test_images"]]
    drop_small = (standard_rows(small) @ tiny[~training].T).max(axis=1) > SAME_IMAGE
    drop_xray = (tiny @ standard_rows(np.concatenate(held_out)).T).max(axis=1) > SAME_IMAGE
    keep_xray = training & ~drop_xray
    print(
        f"X-rays {keep_xray.sum()} of {training.sum()}, PneumoniaMNIST {(~drop_small).sum()} of {len(small)}"
    )
    with np.load(mnist, allow_pickle=False) as arrays:
        digits = arrays["x_train"][:600]
    return [
        [image for image, keep in zip(images, keep_xray, strict=True) if keep],
        [Image.fromarray(image) for image in small[~drop_small]],
        [Image.fromarray(image) for image in digits],
    ]


def views(
    images: list[Image.Image], copies: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(96-pixel, 224-pixel) pairs of the same crop; the first copy of each image is the plain centre crop."""
    for copy in range(copies):
        for image in images:
            box, view = centre_box(image), image
            if copy:
                side = min(image.size) * np.sqrt(rng.uniform(0.4, 1.0))
                left = rng.uniform(0, image.width - side)
                top = rng.uniform(0, image.height - side)
                box = (left, top, left + side, top + side)
                gain, offset = rng.uniform(0.7, 1.3), rng.uniform(-0.1, 0.1)
                gamma, invert, flip = rng.uniform(0.75, 1.35), rng.uniform() < 0.03, rng.uniform() < 0.5
                ramp = np.clip(((np.arange(256) / 255) ** gamma - 0.5) * gain + 0.5 + offset, 0, 1)
                ramp = 1 - ramp if invert else ramp
                view = view.point([round(255 * value) for value in ramp])
                if flip:
                    view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            yield shrink(view, STUDENT_SIZE, box), shrink(view, TEACHER_SIZE, box)


# --------------------------------------------------------------------------- networks


def make_teacher(weights: Path) -> Any:
    import timm

    overlay = {"file": str(weights)}
    return timm.create_model(DEIT, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay).eval()


def make_student(teacher: Any | None) -> Any:
    """The network of ``blindtune_deit_96``; random if no teacher is given."""
    import timm
    from timm.layers import resample_patch_embed

    from blindtune.models.registry import EMBEDDED

    spec = EMBEDDED["blindtune_deit_96"]
    student = timm.create_model(spec.architecture, num_classes=0, **spec.arguments)
    if teacher is None:
        return student
    state = {}
    for key, value in teacher.state_dict().items():
        if key.startswith("blocks."):
            _, block, rest = key.split(".", 2)
            if int(block) in KEPT_BLOCKS:
                state[f"blocks.{KEPT_BLOCKS.index(int(block))}.{rest}"] = value
        else:
            state[key] = value
    state["patch_embed.proj.weight"] = resample_patch_embed(
        state["patch_embed.proj.weight"], list(student.patch_embed.patch_size)
    )
    grid = student.patch_embed.grid_size
    position = state["pos_embed"]
    patches = position[:, 1:].reshape(1, 14, 14, -1).permute(0, 3, 1, 2)
    patches = torch.nn.functional.interpolate(patches, grid, mode="bicubic", antialias=True)
    state["pos_embed"] = torch.cat([position[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)], 1)
    student.load_state_dict(state, strict=True)
    return student


def to_input(pixels: np.ndarray) -> torch.Tensor:
    """(n, s, s) uint8 -> (n, 3, s, s) normalised by the ImageNet mean and deviation that DeiT uses."""
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    deviation = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
    return (torch.from_numpy(pixels).float().div(255).unsqueeze(1) - mean) / deviation


def hidden(model: Any, x: torch.Tensor, kept: tuple[int, ...]) -> torch.Tensor:
    """(n, 2·kept + 1, width): class token and mean patch token after each kept block, then the embedding."""
    x = model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))
    answers = []
    for index, block in enumerate(model.blocks):
        x = block(x)
        if index in kept:
            answers += [x[:, 0], x[:, 1:].mean(dim=1)]
    return torch.stack([*answers, model.norm(x)[:, 0]], dim=1)


# --------------------------------------------------------------------------- steps


def run_views(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(SEED)
    sources = load_training_images(args.xrays, args.pneumonia, args.mnist)
    teacher = make_teacher(args.teacher)
    pixels, answers, origin = [], [], []
    started, batch = time.monotonic(), []

    def flush() -> None:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            out = hidden(teacher, to_input(np.stack(batch)), KEPT_BLOCKS)
        answers.append(out.float().numpy().astype(np.float16))
        batch.clear()

    for source, (images, copies) in enumerate(zip(sources, args.copies, strict=True)):
        for small, large in views(images, copies, rng):
            pixels.append(small)
            origin.append(source)
            batch.append(large)
            if len(batch) == 64:
                flush()
                if len(pixels) % 1024 == 0:
                    print(f"{len(pixels)} views, {time.monotonic() - started:.0f} s", flush=True)
    if batch:
        flush()
    args.work.mkdir(parents=True, exist_ok=True)
    np.savez(
        args.work / "views.npz",
        pixels=np.stack(pixels),
        answers=np.concatenate(answers),
        origin=np.array(origin, dtype=np.int64),
    )


def save_student(student: Any, path: Path) -> None:
    state = {key: value.detach().half().contiguous() for key, value in student.state_dict().items()}
    save_file(state, path, metadata={"format": "pt", "licence": "Apache-2.0", "model": "blindtune_deit_96"})


def run_train(args: argparse.Namespace) -> None:
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    with np.load(args.work / "views.npz", allow_pickle=False) as arrays:
        pixels, answers, origin = arrays["pixels"], arrays["answers"], arrays["origin"]
    # What matters to a head is how images of one kind differ, so each source has its own deviations.
    sources = range(int(origin.max()) + 1)
    deviation = torch.from_numpy(
        np.stack([answers[origin == source].astype(np.float32).std(axis=0) for source in sources])
    )
    student = make_student(make_teacher(args.teacher))
    if args.start:
        student.load_state_dict(load_file(args.start))
    student.train()
    decay = [p for p in student.parameters() if p.ndim > 1]
    plain = [p for p in student.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.02}, {"params": plain, "weight_decay": 0.0}], lr=args.rate
    )
    steps = args.epochs * (len(pixels) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, args.rate, total_steps=steps, pct_start=0.08)
    blocks = tuple(range(len(KEPT_BLOCKS)))
    started, step = time.monotonic(), 0
    for epoch in range(args.stop_after or args.epochs):
        order, sums = rng.permutation(len(pixels)), np.zeros(3)
        for start in range(0, len(pixels) - args.batch + 1, args.batch):
            chosen = order[start : start + args.batch]
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bfloat16):
                out = hidden(student, to_input(pixels[chosen]), blocks).float()
            target = torch.from_numpy(answers[chosen]).float()
            error = (out - target) / deviation[origin[chosen]]
            final, cosine = (
                error[:, -1].square().mean(),
                1 - cosine_similarity(out[:, -1], target[:, -1]).mean(),
            )
            # Half the blocks leave some hidden features far off at first: they must not drown the rest.
            inner = smooth_l1_loss(error[:, :-1], torch.zeros(()).expand_as(error[:, :-1]))
            loss = final + 5 * cosine + 0.5 * inner
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            sums += [final.item(), cosine.item(), inner.item()]
            if step % 50 == 0:
                mean = sums / (start // args.batch + 1)
                print(
                    f"epoch {epoch} step {step}/{steps}: embedding {mean[0]:.3f} cosine {mean[1]:.4f} "
                    f"hidden {mean[2]:.3f}, {time.monotonic() - started:.0f} s",
                    flush=True,
                )
        save_student(student, args.out)


def as_backbone(name: str, model: Any, size: int) -> Any:
    from blindtune.models import Backbone

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Backbone(name, size, mean, std, 192, "0" * 64, "cpu", model.eval())


def embed_all(backbone: Any, images: list[np.ndarray]) -> np.ndarray:
    from blindtune.imaging import prepare

    return np.concatenate(
        [
            backbone.embed(np.stack([prepare(image, backbone.size) for image in images[start : start + 64]]))
            for start in range(0, len(images), 64)
        ]
    )


def linear_probe(features: np.ndarray, labels: np.ndarray, splits: np.ndarray) -> tuple[float, float, float]:
    """Test accuracy, MCC and AUC of a converged softmax regression, C by validation log loss."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, log_loss, matthews_corrcoef, roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    part = {name: splits == name for name in ("train", "val", "test")}
    best: tuple[float, Any] = (np.inf, None)
    for strength in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000))
        model.fit(features[part["train"]], labels[part["train"]])
        loss = log_loss(labels[part["val"]], model.predict_proba(features[part["val"]]))
        if loss < best[0]:
            best = (loss, model)
    truth, found = labels[part["test"]], best[1].predict_proba(features[part["test"]])
    scores = found if found.shape[1] > 2 else found[:, 1]
    decided = found.argmax(axis=1)
    auc = roc_auc_score(truth, scores, multi_class="ovr")
    return accuracy_score(truth, decided), matthews_corrcoef(truth, decided), auc


def run_probe(args: argparse.Namespace) -> None:
    import timm

    from blindtune.imaging import read_image
    from blindtune.models import load_backbone

    rows = xray_rows(args.xrays)
    names = sorted({row["label"] for row in rows})
    with np.load(args.pneumonia, allow_pickle=False) as arrays:
        small = []
        for part in ("train", "val", "test"):
            images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
            chosen = np.random.default_rng(SEED).permutation(len(images))[: args.probe_rows]
            small.append((part, images[chosen], labels[chosen]))
    sets = {
        "X-rays, 3 classes": (
            [read_image(args.xrays / row["file"]) for row in rows],
            np.array([names.index(row["label"]) for row in rows]),
            np.array([row["split"] for row in rows]),
        ),
        "PneumoniaMNIST": (
            [image.astype(np.float32) / 255 for _, images, _ in small for image in images],
            np.concatenate([labels.ravel() for _, _, labels in small]).astype(np.int64),
            np.concatenate([np.full(len(images), part) for part, images, _ in small]),
        ),
    }
    overlay = {"file": str(args.teacher)}
    at_96 = timm.create_model(
        DEIT, pretrained=True, num_classes=0, img_size=96, pretrained_cfg_overlay=overlay
    )
    torch.manual_seed(SEED)
    backbones = {
        "DeiT-tiny, 224 px": lambda: load_backbone(DEIT, args.teacher),
        "DeiT-tiny, 96 px": lambda: as_backbone("at_96", at_96, 96),
        "**blindtune_deit_96**": lambda: load_backbone("blindtune_deit_96", args.out),
        "its start, before distillation": lambda: as_backbone(
            "start", make_student(make_teacher(args.teacher)), 96
        ),
        "its network with random weights": lambda: as_backbone("random", make_student(None), 96),
    }
    lines = [
        "| data | backbone | test acc | test MCC | test AUC |",
        "|---|---|---|---|---|",
    ]
    for title, (images, labels, splits) in sets.items():
        for name, make in backbones.items():
            backbone = make()
            stored = args.work / f"probe-{title[:6]}-{name.strip('*')}.npy"
            if not (stored.exists() and name.startswith("DeiT")):
                np.save(stored, embed_all(backbone, images))
            acc, mcc, auc = linear_probe(np.load(stored), labels, splits)
            lines.append(f"| {title} | {name} | {acc:.3f} | {mcc:.3f} | {auc:.3f} |")
            print(lines[-1], flush=True)
    head, _, tail = args.table.read_text().partition(TABLE_START)
    rest = tail.partition(TABLE_END)[2]
    args.table.write_text(f"{head}{TABLE_START}\n" + "\n".join(lines) + f"\n{TABLE_END}{rest}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["views", "train", "probe"])
    parser.add_argument("--work", type=Path, required=True, help="folder for what the steps hand on")
    parser.add_argument(
        "--teacher", type=Path, default=Path("../shared/weights/deit_tiny_patch16_224.fp16.safetensors")
    )
    parser.add_argument("--xrays", type=Path, default=Path("/tmp/bt_xray"), help="the unzipped X-rays")
    parser.add_argument("--pneumonia", type=Path, default=Path("../shared/data/pneumoniamnist_28.npz"))
    parser.add_argument("--mnist", type=Path, default=Path("../shared/data/mnist.npz"))
    parser.add_argument("--copies", type=int, nargs=3, default=(8, 1, 1), help="views of an image, by source")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--stop-after", type=int, help="leave the schedule of --epochs after so many")
    parser.add_argument("--start", type=Path, help="a student to go on from instead of the teacher's blocks")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision where the processor has it")
    parser.add_argument(
        "--probe-rows", type=int, default=2000, help="PneumoniaMNIST images of a split that the probe takes"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("models/weights/blindtune_deit_96.safetensors"))
    parser.add_argument("--table", type=Path, default=Path("models/weights/README.md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    {"views": run_views, "train": run_train, "probe": run_probe}[args.step](args)


if __name__ == "__main__":
    main()
