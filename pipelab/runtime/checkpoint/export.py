"""A checkpoint's weights in one file, as most other programs read them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pipelab.errors import ConfigurationError

__all__ = ["export_safetensors"]


def export_safetensors(folder: str | os.PathLike[str], file: str | os.PathLike[str]) -> Path:
    """Write the weights of the checkpoint in ``folder`` (or of the newest one in it) to one safetensors file.

    Under the unsplit model's names: ``model.load_state_dict(safetensors.torch.load_file(file))`` reads them. A tied
    parameter stands under its first name. The file is there whole or not at all. Raises ConfigurationError.
    """
    from safetensors.torch import save_file

    from pipelab.runtime.checkpoint.folder import find_checkpoint, read_description, sync
    from pipelab.runtime.checkpoint.tensors import TensorReader

    path, target = find_checkpoint(Path(folder)), Path(file)
    if target.is_dir() or not target.parent.is_dir():
        raise ConfigurationError(
            f"{target} must be a file in a folder that is there; try {target / 'model.safetensors'}"
        )
    read_description(path)  # of a format whose weights mean the same
    reader = TensorReader(path)
    tensors = reader.read([name for name in reader.shapes if name.startswith("model.")])
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        save_file({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, draft, {"format": "pt"})
        sync(draft)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    sync(target.parent)
    return target
