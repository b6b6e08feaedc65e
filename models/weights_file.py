"""Reading weights from safetensors files, with one-line errors for whatever else turns up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blindtune.errors import ModelError

if TYPE_CHECKING:
    import torch

__all__ = ["read_weights"]

# Zip archives (torch.save since 1.6) and pickles of protocol 2 to 5.
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        ModelError: no such file, no permission, a pickled checkpoint, or a truncated or damaged file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(_PICKLED):
            raise ModelError(
                "is a pickled checkpoint, which could run code",
                where=path.name,
                remedy="Convert it where you trust it, with safetensors.torch.save_file.",
            )
        return load_file(path)
    except OSError as error:
        raise ModelError(
            f"the weights cannot be read ({error.strerror or 'damaged'})",
            where=str(path),
            remedy="Check the path.",
        ) from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(
            "is no safetensors file, or is truncated or damaged",
            where=path.name,
            remedy="Get the file again.",
        ) from error
