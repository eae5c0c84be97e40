"""Steps that change nothing: what one micro-batch costs, and the proof that gradients are right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, whole_number
from pipelab.models.shards import is_split, whole
from pipelab.models.split import SplitModel
from pipelab.runtime.faults.stop import Stop
from pipelab.runtime.measuring.microbatch_costs import MicrobatchCosts, microbatch_costs
from pipelab.runtime.measuring.profile import first_sequences, one_pass
from pipelab.runtime.measuring.proof import prove_gradients
from pipelab.runtime.measuring.reference import buffers_kept
from pipelab.runtime.setup.fit import FitCheck
from pipelab.runtime.setup.microbatches import make_inputs
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.steps.call import common
from pipelab.runtime.steps.reports import Reports
from pipelab.runtime.steps.step import Stepper
from pipelab.runtime.steps.update import Updates
from pipelab.runtime.steps.walk import device_meter
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs

if TYPE_CHECKING:  # it loads torch.distributed
    from pipelab.runtime.mesh.data import DataParallel

__all__ = ["Rehearsals"]


class Rehearsals:
    """Steps of a pipeline without its update; gradients and buffers are as before afterwards."""

    def __init__(
        self,
        settings: Settings,
        replicas: Replicas,
        updates: Updates,
        fit: FitCheck,
        stop: Stop,
        whole: nn.Module | SplitModel | None,
        data: DataParallel | None = None,
    ) -> None:
        self._settings, self._replicas, self._updates, self._fit, self._stop = settings, replicas, updates, fit, stop
        self._whole, self._data = whole, data
        self._stages, self._peers = replicas.stages, replicas.peers

    def profile(self, inputs: Any, targets: Any, repeats: int, number: int) -> Costs:
        """What one micro-batch of weight 1 costs, stage by stage, with one device at work at a time."""
        repeats = whole_number("repeats", "", repeats)
        table = one_pass(self._settings.schedule)
        with self._rehearsal(table) as (alone, reports):
            lengths = self._peers.agree(partial(alone.length, inputs, targets))
            length = common("the number of sequences", lengths, skip_none=True)
            size = max(1, round(length / sum(self._settings.schedule.weights)))
            first = partial(first_sequences, count=size, times=table.microbatches)
            for _ in range(repeats + 1):
                report = reports.make(alone.record(first(inputs), first(targets), training=True, number=number))
            mine = float(make_inputs(first_sequences(inputs, size), [size])[0].size) if 0 in self._stages else None
            return microbatch_costs(report).priced(next(x for x in self._peers.exchange(mine) if x is not None))

    def measure_microbatch(self, inputs: Any, targets: Any, updates: bool, number: int) -> MicrobatchCosts:
        """What one micro-batch costs, of a table of one micro-batch: one pass. ``updates``: also what an update would.

        No weight changes.
        """
        with self._rehearsal(self._settings.schedule) as (alone, reports):
            report = reports.make(alone.record(inputs, targets, training=True, number=number))
            if not updates:
                return microbatch_costs(report)
            found = [pair for part in self._peers.agree(self._updates.rehearse) for pair in part.items()]
            return microbatch_costs(report, [pair for _, pair in sorted(found)])

    def verify(self, inputs: Any, targets: Any, number: int) -> float:
        """max |g - g*| / max |g*| of a step on this batch, against the caller's own model on the whole of it.

        Where there is no such model, because stages were built one by one: against the stages in a row.
        """
        with self._rehearsal(self._settings.schedule) as (alone, _):
            alone.record(inputs, targets, training=True, number=number)
            given = (inputs if 0 in self._stages else None, targets if self._is_last else None)
            if self._data is not None:
                given = self._data.whole(given[0]), self._data.whole(given[1])
            return prove_gradients(self._found(), self._replicas, self._whole, given, self._settings, step=number)

    def require_whole(self) -> None:
        """Raise ConfigurationError where there is nothing to compare with."""
        if self._whole is None and any(is_split(p) for stage in self._stages.values() for p in stage.parameters()):
            raise ConfigurationError(
                "verify compares with the model in one piece, and of stages that build_stage made each process has a "
                "part; pass the model itself, or compare gather(gradients()) with those of a model of your own"
            )

    def gradients(self, inputs: Any, targets: Any, number: int) -> dict[str, Tensor] | None:
        """All gradients of a step on this batch, by name, where device 0 is; None elsewhere."""
        with self._rehearsal(self._settings.schedule) as (alone, _):
            alone.record(inputs, targets, training=True, number=number)
            parts = self._peers.gather(self._found())
        return None if parts is None else {name: grad.cpu() for part in parts for name, grad in part.items()}

    def _found(self) -> dict[str, Tensor]:
        """This process's gradients."""
        named = [pair for s, stage in self._stages.items() for pair in self._replicas.owned(s, stage)]
        return {name: whole(_gradient(p).clone()) for name, p in named if p.requires_grad}

    @property
    def _is_last(self) -> bool:
        return self._settings.schedule.stages - 1 in self._stages

    @contextmanager
    def _rehearsal(self, schedule: Schedule) -> Iterator[tuple[Stepper, Reports]]:
        changed: dict[str, Any] = {"clip_norm": None, "clock": "device", "measure_costs": True, "grad_scaler": None}
        changed |= {"schedule": schedule, "post_validation": False, "speeds": self._settings.shown_speeds}
        settings = replace(self._settings, **changed)
        replicas = self._replicas
        meter = partial(device_meter, settings=settings, replicas=replicas)
        nothing = Updates(replicas, meter, settings.times, {}, {}, idle=True)
        grads = [(p, p.grad) for stage in self._stages.values() for p in stage.parameters()]
        run = [self._whole.model if isinstance(self._whole, SplitModel) else self._whole, self._settings.loss]
        with buffers_kept([*self._stages.values(), *(module for module in run if isinstance(module, nn.Module))]):
            try:
                stepper = Stepper(settings, replicas, nothing, self._fit, self._stop, self._data)
                yield stepper, Reports(settings, replicas.places)
            finally:
                for parameter, grad in grads:
                    parameter.grad = grad


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
