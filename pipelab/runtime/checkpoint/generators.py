"""The states of torch's random generators in one process: what plain dropout, say, draws from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

__all__ = ["random_state", "require_random_state", "set_random_state"]


def random_state(places: Sequence[torch.device]) -> dict[str, Any]:
    """Of the CPU, and of the GPUs among ``places``."""
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(gpu) for gpu in _gpus(places)]}


def require_random_state(state: Mapping[str, Any]) -> None:
    """Raise TypeError unless it is one."""
    own = torch.get_rng_state()
    if state["cpu"].dtype != own.dtype or state["cpu"].shape != own.shape:
        raise TypeError("a generator's state has another size")
    if any(kept.dtype != torch.uint8 for kept in state["cuda"]):
        raise TypeError("a GPU generator's state is no bytes")


def set_random_state(state: Mapping[str, Any], places: Sequence[torch.device]) -> None:
    """Go on from there. GPUs do if there are as many as there were."""
    torch.set_rng_state(state["cpu"])
    gpus = _gpus(places)
    if len(gpus) == len(state["cuda"]):
        for gpu, kept in zip(gpus, state["cuda"], strict=True):
            torch.cuda.set_rng_state(kept, gpu)


def _gpus(places: Sequence[torch.device]) -> list[torch.device]:
    return [place for place in dict.fromkeys(places) if place.type == "cuda"]
