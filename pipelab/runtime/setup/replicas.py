"""The modules on this process's devices, and what stages have in common that live in two places.

In a two-way pipeline a stage has two homes: both start from the same weights, get the sum of both gradients, and are
stepped alike. The gradient's norm goes over all stages, wherever they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pipelab.runtime.peers import Peers
from pipelab.schedules.schedule import Schedule

__all__ = ["Replicas"]


class Replicas:
    """``modules[r, s]`` is stage s on device r. The first home here has the caller's module, a second one a copy."""

    def __init__(
        self, schedule: Schedule, stages: Mapping[int, nn.Module], places: Sequence[torch.device], peers: Peers
    ) -> None:
        self.placement, self.stages, self.places, self.peers = schedule.placement, stages, tuple(places), peers
        self._twice = {s for s, homes in enumerate(schedule.placement) if len(homes) > 1}
        self.modules: dict[tuple[int, int], nn.Module] = {}
        for s, stage in stages.items():
            homes = [r for r in schedule.placement[s] if r in peers.own]
            for number, r in enumerate(homes):
                module = stage if number == 0 else copy.deepcopy(stage)
                self.modules[r, s] = module.to(places[r])

    def tensors_on(self, r: int) -> list[Tensor]:
        """Parameters and buffers of device r."""
        return [tensor for (home, _), module in self.modules.items() if home == r for tensor in _tensors(module)]

    def prepare(self, training: bool) -> None:
        """No old gradients; and a stage's second home starts from what the first one, the caller's module, holds."""
        for module in self.modules.values():
            if training:
                for parameter in module.parameters():
                    parameter.grad = None
        if not self._twice:
            return
        firsts = {s: _tensors(self.modules[self.placement[s][0], s]) for s in self._twice if self._leads(s)}
        whole = {s: tensors for part in self.peers.exchange(firsts) for s, tensors in part.items()}
        with torch.no_grad():
            for (r, s), module in self.modules.items():
                if s in whole and r != self.placement[s][0]:
                    for copied, original in zip(_tensors(module), whole[s], strict=True):
                        copied.copy_(original)

    def reduce(self) -> None:
        """A stage that lives on two devices gets the sum of both gradients on both."""
        if not self._twice:
            return
        mine = {k: [p.grad for p in module.parameters()] for k, module in self.modules.items() if k[1] in self._twice}
        everyones = {key: grads for part in self.peers.exchange(mine) for key, grads in part.items()}
        for (_, s), module in self.modules.items():
            if s not in self._twice:
                continue
            owners = [everyones[r, s] for r in self.placement[s]]
            for parameter, *given in zip(module.parameters(), *owners, strict=True):
                grads = [grad.to(parameter.device) for grad in given if grad is not None]
                parameter.grad = torch.stack(grads).sum(0) if grads else None

    def clip(self, limit: float | None) -> float | None:
        """Clip by the norm over all stages, as clip_grad_norm_ does for the unsplit model; returns the norm."""
        if limit is None:
            return None
        norms = dict(sorted((s, norm) for part in self.peers.agree(self._norms) for s, norm in part.items()))
        if not norms:
            return 0.0
        total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
        for (r, _), module in self.modules.items():
            torch.nn.utils.clip_grads_with_norm_(module.parameters(), limit, total.to(self.places[r]))
        return float(total)

    def _norms(self) -> dict[int, Tensor]:
        norms = {}
        for s, stage in self.stages.items():
            grads = [p.grad for p in stage.parameters() if p.grad is not None]
            if grads and self._leads(s):
                norms[s] = torch.nn.utils.get_total_norm(grads).cpu()
        return norms

    def _leads(self, s: int) -> bool:
        """Whether the first home of stage s is here: it speaks for the stage."""
        return self.placement[s][0] in self.peers.own


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
