"""torchvision, also where its compiled operators do not fit this torch: then two of them are declared, and never run.

The classes of Hugging Face import it, and ranks import those; so they are met through this module, which comes first.
"""

from __future__ import annotations

import importlib.util

import torch

if importlib.util.find_spec("torchvision") is not None:
    try:
        import torchvision
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
        import torchvision  # noqa: F401
