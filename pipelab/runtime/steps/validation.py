"""What an update goes by: whether the gradients of all stages are finite, and their norm.

That is known at the flush. With ``post_validation`` a device does not wait for it: when its own part is over it takes
for granted that nothing is clipped or skipped, and makes its update. At the flush the update is validated. If it should
have been another, it is undone and made anew, bit for bit as without ``post_validation`` (arXiv 2401.10241, section 4).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipelab.models.shards import whole
from pipelab.runtime.device.threads import one_intra_op_thread
from pipelab.runtime.faults.where import UPDATING
from pipelab.runtime.setup.before import as_now, require_copies
from pipelab.runtime.setup.loss_scale import advance, scale_of, unscale
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.steps.update import Updates, Verdict

__all__ = ["Validation"]

T = TypeVar("T", bound=Tensor)


class Validation:
    """Clips gradients by the norm over all stages, wherever they are, which counts each parameter once.

    ``early``: the stages here, by (device, stage), that need not wait for it. One whose gradients come from other
    devices too (it lives twice, or is the home of a tied parameter) has to.
    """

    def __init__(self, settings: Settings, replicas: Replicas, updates: Updates) -> None:
        self._replicas, self._updates, self._peers = replicas, updates, replicas.peers
        self._limit, scaler = settings.clip_norm, settings.grad_scaler
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self._needed = settings.post_validation or self._scaler is not None or self._limit is not None
        stepped = updates.optimizers if settings.post_validation else ()
        self.early = [key for key in stepped if not replicas.needs_others(key[1])]
        for key in self.early:
            require_copies(updates.optimizers[key])
        self._seen: dict[tuple[int, int], tuple[bool, Tensor | None]] = {}
        self._undo: dict[tuple[int, int], Callable[[], Any]] = {}
        self._lock = threading.Lock()  # around looking whether a step was given up, and what follows from it
        self.seconds = dict.fromkeys(replicas.peers.own, 0.0)
        """What early updates cost in the last step, device by device."""

    def step(self, r: int) -> None:
        """Device r has ended its part: step its stages, unless its own gradients forbid it already."""
        meter, at, stepped = self._updates.meter(r), self._peers.whereabouts, self._undo
        here, at[r] = at[r], UPDATING
        for key in [key for key in self.early if key[0] == r]:
            with self._updates.at_work(key, meter):
                finite, norm = self._look(key)
                if finite and self._within(norm):
                    self._step(key, stepped)
        self.seconds[r], at[r] = sum(meter.readings().cost), here

    def _step(self, key: tuple[int, int], stepped: dict[tuple[int, int], Callable[[], Any]]) -> None:
        """Step one stage, unless its step of the pipeline is given up by then; if that is so afterwards, undo it."""
        optimizer = self._updates.optimizers[key]
        back = as_now(optimizer)
        if stepped is not self._undo:
            return
        kept = False
        try:
            optimizer.step()
            with self._lock:
                if kept := stepped is self._undo:
                    stepped[key] = back
        finally:
            if not kept:
                back()

    def undo(self) -> None:
        """Make undone what has not been validated. What is still at work in a thread of its own undoes itself."""
        with self._lock:
            stepped = self._undo
            self._forget()
        for back in stepped.values():
            back()

    def verdict(self) -> Verdict:
        """At the flush, with the gradients of all: undo what is not valid, and clip."""
        if not self._needed:
            return Verdict()
        told = self._peers.agree(self._look_at_all)
        finite = all(one for one, *_ in told)
        if self._scaler is not None:
            advance(self._scaler, finite=finite)
        norm = self._total(dict(pair for _, norms, _ in told for pair in norms.items()))
        early = tuple(sorted(s for *_, stages in told for s in stages))
        valid = finite and self._within(norm)
        if valid:
            self._forget()
        else:
            self.undo()
            self._clip(norm)
        return Verdict(None if norm is None else float(norm), not finite, early, bool(early) and not valid)

    def _forget(self) -> None:
        self._seen, self._undo = {}, {}

    def _total(self, norms: dict[int, Tensor]) -> Tensor | None:
        if self._limit is None:
            return None
        each = [norm for _, norm in sorted(norms.items())]
        return torch.linalg.vector_norm(torch.stack(each)) if each else torch.zeros(())

    def _within(self, norm: Tensor | None) -> bool:
        """Whether the factor by which clip_grad_norm_ would clip is 1."""
        return norm is None or self._limit is None or bool(self._limit / (norm + 1e-6) >= 1)

    def _clip(self, norm: Tensor | None) -> None:
        """As clip_grad_norm_ does for the unsplit model."""
        if norm is None or self._limit is None:
            return
        for (r, s), module in self._replicas.modules.items():
            own = [parameter for _, parameter in self._replicas.owned(s, module)]
            for same in _by_mesh(own):
                torch.nn.utils.clip_grads_with_norm_(same, self._limit, norm.to(self._replicas.places[r]))

    def _look_at_all(self) -> tuple[bool, dict[int, Tensor], list[int]]:
        """Of the stages here: whether all is finite, the norms, and who has been stepped."""
        with one_intra_op_thread(self._updates.on_cpu):  # as on its device: a sum depends on how it is shared out
            found = {key: self._look(key) for key in self._replicas.modules}
        norms = {s: norm for (_, s), (_, norm) in found.items() if norm is not None}
        return all(finite for finite, _ in found.values()), norms, [s for _, s in self._undo]

    def _look(self, key: tuple[int, int]) -> tuple[bool, Tensor | None]:
        """Whether a stage's gradients, unscaled, are finite; and their norm, of its first home's. Once a step."""
        seen = self._seen  # of this step, even if that is given up meanwhile
        if key not in seen:
            r, s = key
            owned = [p for _, p in self._replicas.owned(s, self._replicas.modules[key])]
            finite, norm = self._scaler is None or unscale(owned, scale_of(self._scaler)), None
            grads = [p.grad for p in owned if p.grad is not None]
            if self._limit is not None and grads and self._replicas.placement[s][0] == r:
                norm = _norm(grads).cpu()
            seen[key] = finite, norm
        return seen[key]


def _norm(grads: Iterable[Tensor]) -> Tensor:
    """Of all of them; of what several processes hold each part counts once, and a copy is no second one."""
    norms = [whole(torch.nn.utils.get_total_norm(same)) for same in _by_mesh(grads)]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def _by_mesh(tensors: Iterable[T]) -> Iterable[list[T]]:
    """Those that the same processes hold, in one operation: torch takes no others together."""
    found: dict[Any, list[T]] = defaultdict(list)
    for tensor in tensors:
        found[getattr(tensor, "device_mesh", None)].append(tensor)
    return found.values()
