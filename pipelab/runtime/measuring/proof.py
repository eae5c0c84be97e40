"""The proof: a step's gradients against those of all stages in one piece on the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.runtime.measuring.reference import Chain, chain_gradients, gradient_error
from pipelab.runtime.peers import Peers
from pipelab.runtime.setup.assembly import named_parameters
from pipelab.runtime.setup.settings import Settings

__all__ = ["prove_gradients"]


def prove_gradients(
    found: Mapping[str, Tensor],
    stages: Mapping[int, nn.Module],
    given: tuple[Any, Any],
    settings: Settings,
    peers: Peers,
    places: Sequence[torch.device],
    *,
    step: int,
) -> float:
    """max |g - g*| / max |g*| over the whole model.

    ``found``, ``stages`` and ``given`` (inputs, targets) are what this process has of them; with several processes
    copies of all meet in the one that drives device 0, which computes g* there.
    """
    whole = len(peers.own) == settings.schedule.devices
    sent: dict[int, nn.Module] = dict(stages) if whole else {}
    peers.agree(lambda: None if whole else sent.update(_copies(stages)))
    parts = peers.gather((sent, found, given))
    place = places[settings.schedule.placement[0][0]] if whole else torch.device("cpu")

    def compare() -> float:
        if parts is None:
            return 0.0
        chained = dict(sorted(pair for stages, _, _ in parts for pair in stages.items()))
        grads = {name: grad for _, found, _ in parts for name, grad in found.items()}
        x, y = (next((one[k] for _, _, one in parts if one[k] is not None), None) for k in (0, 1))
        named = {n: p for s, stage in chained.items() for n, p in named_parameters(s, stage) if p.requires_grad}
        assert settings.loss is not None
        chain = Chain(list(chained.values()), place)
        true = chain_gradients(chain, settings.loss, x, y, named, seed=settings.seed, step=step)
        return gradient_error(grads, true.gradients)

    return peers.agree(compare)[0]


def _copies(stages: Mapping[int, nn.Module]) -> dict[int, nn.Module]:
    try:
        return {s: copy.deepcopy(stage).cpu() for s, stage in stages.items()}
    except RuntimeError as error:
        raise ConfigurationError(
            f"verify takes a copy of each stage, and one cannot be copied ({str(error).splitlines()[0]}): does a layer "
            "keep its output? Keep output.detach(), or use launch='threads'"
        ) from error
