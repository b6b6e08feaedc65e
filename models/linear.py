"""A linear head on raw backbone embeddings: what decryption gives, what prediction uses."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blindtune.errors import InputError, ModelError
from blindtune.models.heads import Start
from blindtune.models.softmax import log_loss, probabilities, step_length
from blindtune.models.whitening import Whitening

Floats = NDArray[np.float64]
HEAD_JSON, HEAD_WEIGHTS = "head.json", "head.safetensors"
MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class LinearHead:
    """``logits = embeddings @ weight.T + bias``.

    Attributes:
        weight: (K, d).
        bias: (K,).
        classes: class names; two for a binary head with its one logit.
        kind: ``binary``, ``multiclass``, ``multilabel`` or ``regression``.
        backbone: name and fingerprint of the backbone whose embeddings it takes, and its input.
        provenance: how it was trained; no patient data.
    """

    weight: Floats
    bias: Floats
    classes: tuple[str, ...]
    kind: str
    backbone: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def logits(self, embeddings: NDArray[np.floating]) -> Floats:
        """(n, d) to (n, K).

        Raises:
            InputError: embeddings of another dimension.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.weight.shape[1]:
            raise InputError(
                f"embeddings of shape {embeddings.shape}, the head takes {self.weight.shape[1]} features",
                remedy="Use the backbone that the head was trained on.",
            )
        return np.asarray(embeddings, np.float64) @ self.weight.T + self.bias

    def probabilities(self, embeddings: NDArray[np.floating]) -> Floats:
        """(n, d) to class probabilities (n, classes); not for regression."""
        z = self.logits(embeddings)
        if self.kind == "multiclass":
            return probabilities(z)
        p = 0.5 * (1 + np.tanh(z / 2))
        return np.hstack([1 - p, p]) if self.kind == "binary" else np.asarray(p)

    def loss(self, embeddings: NDArray[np.floating], labels: NDArray[Any]) -> float:
        """Mean log loss on rows (n, d), over labels for ``multilabel``; mean squared error for regression."""
        z = self.logits(embeddings)
        if self.kind == "regression":
            return float(np.mean((z - labels.reshape(len(z), -1)) ** 2))
        if self.kind == "multiclass":
            return log_loss(z, labels)
        sign = np.where(labels.reshape(len(z), -1) > 0, 1.0, -1.0)
        return float(np.mean(np.logaddexp(0.0, -sign * z)))

    def save(self, directory: Path) -> None:
        """Write ``head.safetensors`` and ``head.json``; both appear whole."""
        from safetensors.numpy import save_file

        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # safetensors writes the buffer as it lies: a transposed view would come back scrambled.
        arrays = {"weight": self.weight, "bias": self.bias}
        tensors = {name: np.ascontiguousarray(a, np.float32) for name, a in arrays.items()}
        temporary = directory / (HEAD_WEIGHTS + ".partial")
        save_file(tensors, temporary)
        temporary.chmod(0o600)
        os.replace(temporary, directory / HEAD_WEIGHTS)
        text = json.dumps(
            {
                "format": "blindtune-head",
                "version": 1,
                "kind": self.kind,
                "classes": list(self.classes),
                "backbone": self.backbone,
                "provenance": self.provenance,
            },
            indent=1,
        )
        temporary = directory / (HEAD_JSON + ".partial")
        temporary.write_text(text)
        temporary.chmod(0o600)
        os.replace(temporary, directory / HEAD_JSON)

    @classmethod
    def load(cls, directory: Path) -> LinearHead:
        """Read what :meth:`save` wrote.

        Raises:
            ModelError: missing, damaged, or shapes that do not fit.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = directory / HEAD_JSON
        if not path.is_file() or not (directory / HEAD_WEIGHTS).is_file():
            raise ModelError(
                "no head here",
                where=directory.name,
                remedy="Run blindtune decrypt, or give the head's directory.",
            )
        try:
            if path.stat().st_size > MAX_JSON_BYTES:
                raise ValueError("too large")
            meta = json.loads(path.read_text())
            tensors = load_file(directory / HEAD_WEIGHTS)
            weight, bias = tensors["weight"].astype(np.float64), tensors["bias"].astype(np.float64)
            classes = tuple(str(c) for c in meta["classes"])
            outputs = 1 if meta["kind"] == "binary" else len(classes)
            if weight.ndim != 2 or weight.shape[0] != outputs or bias.shape != (outputs,):
                raise ValueError("shapes")
            if not np.isfinite(weight).all() or not np.isfinite(bias).all():
                raise ValueError("not finite")
            return cls(
                weight, bias, classes, str(meta["kind"]), dict(meta["backbone"]), dict(meta["provenance"])
            )
        except (SafetensorError, ValueError, KeyError, TypeError, OSError, RecursionError):
            raise ModelError(
                "the head is damaged", where=directory.name, remedy="Decrypt it again."
            ) from None


def assemble(
    whitening: Whitening, start: Start | None, weights: Floats, held: Floats, labels: NDArray[Any]
) -> tuple[Floats, Floats]:
    """Trained weights on whitened features to a linear layer on raw ones: (K, d) and (K,).

    With a start, its own weights are added, and the trained change is as long as held-out rows want it.

    Args:
        weights: (columns, K).
        held, labels: validation rows, raw features (n, d).
    """
    weight, bias = whitening.fold(weights)
    if start is None:
        return weight, bias
    length = step_length(start.logits(held), held @ weight.T + bias, labels)
    return start.weight.T + length * weight, start.bias + length * bias


def attach_head(model: Any, directory: Path) -> Any:
    """Make a saved head the classifier of a timm model, in place; returns the model.

    ``attach_head(timm.create_model("deit_tiny_patch16_224", pretrained=True), Path("study/head"))``

    Raises:
        ModelError: a damaged head, or a model whose classifier takes another number of features.
    """
    import torch

    head = LinearHead.load(directory)
    model.reset_classifier(head.weight.shape[0])
    classifier = model.get_classifier()
    if not isinstance(classifier, torch.nn.Linear) or classifier.in_features != head.weight.shape[1]:
        raise ModelError(
            f"the model's classifier does not take {head.weight.shape[1]} features",
            remedy="Use the backbone that the head was trained on.",
        )
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.bias.copy_(torch.from_numpy(head.bias))
    return model
