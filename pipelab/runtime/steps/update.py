"""The update at the flush: each stage's optimizer on its device, all devices at once; and what devices then hold."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.quantities import ModelStates
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.clocks import SlotMeter
from pipelab.runtime.device.threads import Outcome, Overdue, run_threads
from pipelab.runtime.device.worker import stage_error
from pipelab.runtime.faults.limit import stuck_error
from pipelab.runtime.measuring.model_states import Planner, read_model_states, rehearse_update
from pipelab.runtime.setup import optimizer_state
from pipelab.runtime.setup.optimizer_state import OptimizerState
from pipelab.runtime.setup.optimizers import Optimizers, Schedulers, step_schedulers
from pipelab.runtime.setup.replicas import Replicas
from pipelab.runtime.steps.flight import Flight

__all__ = ["Updates", "Verdict"]


@dataclass(frozen=True)
class Verdict:
    """What is to be done: nothing (``skipped``), or to step the stages but those that were, ``early``, and may stay so.

    ``norm`` is the gradient's over all stages. ``rolled_back``: early steps were undone.
    """

    norm: float | None = None
    skipped: bool = False
    early: tuple[int, ...] = ()
    rolled_back: bool = False

    def steps(self, s: int) -> bool:
        """Whether stage s is to be stepped now."""
        return not self.skipped and (self.rolled_back or s not in self.early)


class Updates:
    """Steps ``optimizers``, by (device, stage), and then ``schedulers``.

    ``meter(r)`` makes what times device r, ``times(r)`` is how long that takes, in costs. ``idle``: no process has any,
    and nothing is stepped.
    """

    def __init__(
        self,
        replicas: Replicas,
        meter: Callable[[int], SlotMeter],
        times: Callable[[int], float],
        optimizers: Optimizers,
        schedulers: Schedulers,
        *,
        idle: bool = False,
    ) -> None:
        self.idle = idle
        self._replicas, self.meter, self.times = replicas, meter, times
        self._places, self._own = replicas.places, replicas.peers.own
        self.optimizers, self.schedulers = optimizers, schedulers
        self._planner = Planner()
        self.flight: Flight | None = None
        """Where weights change on the way: what is kept of them meanwhile."""

    @property
    def on_cpu(self) -> bool:
        """Whether all devices of this process are CPU cores."""
        return all(self._places[r].type == "cpu" for r in self._own)

    @contextmanager
    def at_work(self, key: tuple[int, int], meter: SlotMeter) -> Iterator[None]:
        """Time the update of one stage on its device; an error in it says where it was."""
        meter.begin()
        try:
            yield
        except (Exception, SystemExit) as error:
            raise stage_error(error, *key) from error
        finally:
            meter.end()
        if (times := self.times(key[0])) > 1:
            meter.hold(times, lambda: None)

    def step(self, loss: float | None, verdict: Verdict, early: Mapping[int, float]) -> list[float]:
        """Step what ``verdict`` says, and then the schedulers. ``early[r]``: seconds of early updates on device r.

        Returns, device by device: bytes of weights, gradients and optimizer state, seconds of early updates and of
        those now, CPU time, versions.
        """

        def work(r: int) -> float:
            meter = self.meter(r)
            for (device, s), made in self.optimizers.items():
                if device == r and verdict.steps(s):
                    with self.at_work((r, s), meter):
                        made.step()
            return float(sum(meter.readings().cost))

        outcomes = self._on_devices(work)
        if not verdict.skipped:
            step_schedulers(self.schedulers.values(), loss)
        numbers: list[float] = []
        for r, outcome in zip(self._own, outcomes, strict=True):
            held = self.model_states(r)
            numbers += [held.weights, held.gradients, held.optimizer, early[r], outcome.result, outcome.cpu, 1]
        return numbers

    def held(self) -> list[float]:
        """What :meth:`step` returns, where stages were updated on the way; weights and gradients in all versions."""
        flight = self.flight
        assert flight is not None
        numbers: list[float] = []
        for r in self._own:
            held, peaks = self.model_states(r) + flight.beside(r), flight.peaks(r)
            numbers += [held.weights, held.gradients, held.optimizer, 0.0, 0.0, 0.0, max(peaks.values(), default=1)]
        return numbers

    def model_states(self, r: int, *, planned: bool = False) -> ModelStates:
        """What device r holds besides activations; ``planned``: with what a training step will add."""
        modules = [module for (device, _), module in self._replicas.modules.items() if device == r]
        optimizers = [made for (device, _), made in self.optimizers.items() if device == r]
        if not planned:
            return read_model_states(modules, optimizers)
        found = self._planner.plan(modules, optimizers)
        if self.flight is None:
            return found
        stashed = sum(p.nbytes for module in modules for p in module.parameters() if p.requires_grad)
        return found + ModelStates(weights=(self.flight.most_versions[r] - 1) * stashed)

    def copied(self, keys: Iterable[tuple[int, int]]) -> int:
        """Bytes of a copy of what these stages' optimizers step: parameters, their gradients, and state."""
        made = [self.optimizers[key] for key in keys]
        stepped = [p for one in made for group in one.param_groups for p in group["params"]]
        return sum(p.nbytes * (1 + p.requires_grad) for p in stepped) + self._planner.plan((), made).optimizer

    def rehearse(self) -> dict[int, tuple[ModelStates, float]]:
        """What each stage here will hold in training, and seconds of an update of a copy of it."""

        def work(r: int) -> dict[int, float]:
            made = {s: optimizer for (device, s), optimizer in self.optimizers.items() if device == r}
            return {s: rehearse_update(optimizer, self.meter(r)) for s, optimizer in made.items()}

        costs = {s: cost for outcome in self._on_devices(work) for s, cost in outcome.result.items()}
        found = {}
        for key, module in self._replicas.modules.items():
            made = [self.optimizers[key]] if key in self.optimizers else []
            found[key[1]] = (self._planner.plan([module], made), costs.get(key[1], 0.0))
        return found

    # ---- what optimizers remember --------------------------------------------------------------------------------

    def state(self) -> OptimizerState:
        """Of the stages here, by the unsplit model's names. Of a stage that lives twice, the first home's."""
        parts = []
        for key, made in self._leading().items():
            part = optimizer_state.read(made, self._names(key))
            if key in self.schedulers:
                part["lr_scheduler"] = [{"params": self._stepped(key), "state": self.schedulers[key].state_dict()}]
            parts.append(part)
        return optimizer_state.merge(parts)

    def plan(self, state: Mapping[str, Any]) -> Callable[[], None]:
        """What makes the stages here go on from ``state``, which may hold more; it fails here or not at all.

        Raises ConfigurationError.
        """
        if state.get("lr_scheduler") and self.optimizers and not self.schedulers:
            raise ConfigurationError(
                "the state has a learning-rate scheduler's, and this Pipeline has none; make it with lr_scheduler=..., "
                "or leave 'lr_scheduler' out of the state"
            )
        loads = [(made, optimizer_state.plan(made, self._names(key), state)) for key, made in self.optimizers.items()]
        schedules = [
            (scheduler, copy.deepcopy(optimizer_state.scheduler_state(state, self._stepped(key))))
            for key, scheduler in self.schedulers.items()
        ]

        def apply() -> None:
            for made, told in (*loads, *schedules):
                made.load_state_dict(told)

        return apply

    def names(self) -> set[str]:
        """The parameters that optimizers here step."""
        return {name for key in self.optimizers for name in self._stepped(key)}

    def _stepped(self, key: tuple[int, int]) -> list[str]:
        names = self._names(key)
        return sorted(names[id(p)] for group in self.optimizers[key].param_groups for p in group["params"])

    def _names(self, key: tuple[int, int]) -> dict[int, str]:
        return {id(p): name for name, p in self._replicas.owned(key[1], self._replicas.modules[key])}

    def _leading(self) -> Optimizers:
        """One optimizer for each stage here."""
        return {(r, s): made for (r, s), made in self.optimizers.items() if self._replicas.placement[s][0] == r}

    def _on_devices(self, work: Callable[[int], Any]) -> list[Outcome]:
        """``work(r)`` for each device here, as an update runs: in the device's own thread, on one core."""
        own = self._own
        caller = CallerSettings([self._places[r] for r in own])
        runs = [partial(caller.run, partial(work, r), self._places[r]) for r in own]
        limit = self._replicas.peers.limit.seconds
        try:
            return run_threads(runs, lambda: None, one_core_each=self.on_cpu, limit=limit)
        except Overdue as found:
            self._replicas.busy = list(found.args[0].values())
            devices = [own[k] for k in found.args[0]]
            raise stuck_error(f"the update on device {' and '.join(map(str, devices))}", limit, devices) from None
