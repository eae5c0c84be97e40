"""What each layer of a model costs, and from it what any stage would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import numpy as np

from pipelab.errors import ConfigurationError
from pipelab.models.cut import cut_layers
from pipelab.quantities import ModelStates
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.table import Array
from pipelab.tuning.lines import Line
from pipelab.tuning.profile import CostProfile, StageProfile

__all__ = ["Layers"]

_SUMS = ("forward", "backward", "bare_forward", "recompute", "input_gradient", "weight_gradient", "kept", "waiting")
"""What is the sum of a stage's layers, and something once a stage."""


@dataclass(frozen=True, eq=False)
class Layers:
    """A profile of the layers, ``profile_layers(...)``: one stage a layer, the model in one piece, and runs of layers.

    Each stage pays something once: what starts an action, hands over a message, checks the graph. It is the part of
    the layers' sum that the model in one piece does not cost, divided by the cuts between. The rest is the layers' own.
    Where a cut falls matters, too: what is large there takes longer to hand over. So the layers of a run are brought
    to what the run costs as one stage, each by the same amount.
    """

    profile: CostProfile

    def __post_init__(self) -> None:
        if not isinstance(self.profile, CostProfile):
            raise ConfigurationError(
                f"a cut is planned from a CostProfile of single layers, got {type(self.profile).__name__}; take one "
                "with profile_layers(model, inputs, targets, loss=...)"
            )
        if self.profile.devices != 1 or len(self.profile.stages) not in (2, 3) or 1 not in self.profile.stages:
            cuts = " and ".join(map(str, sorted(self.profile.stages)))
            raise ConfigurationError(
                f"a cut is planned from a profile of single layers, got one of p = {self.profile.devices} cut into "
                f"{cuts} stages; take one with profile_layers(model, inputs, targets, loss=...)"
            )

    def __len__(self) -> int:
        return max(self.profile.stages)

    @cached_property
    def _parts(self) -> tuple[StageProfile, ...]:
        return self.profile.cut(len(self))

    @cached_property
    def _lines(self) -> Mapping[str, tuple[Array, Array]]:
        """By name, (sums of the layers' own alpha and beta up to each layer, those that a stage has once)."""
        (whole,), found = self.profile.cut(1), {}
        for name in _SUMS:
            lines = [getattr(part, name) for part in self._parts]
            if any(line is None for line in lines):
                continue
            each, one = np.array([(line.alpha, line.beta) for line in lines]), getattr(whole, name)
            once = np.maximum((each.sum(0) - (one.alpha, one.beta)) / (len(self) - 1), 0)
            own = np.maximum(each - once, 0)
            for (first, end), run in self._runs:
                alone = getattr(run, name)
                own[first:end] += ((alone.alpha, alone.beta) - once - own[first:end].sum(0)) / (end - first)
            own = np.maximum(own, 0)
            found[name] = np.concatenate([np.zeros((1, 2)), own.cumsum(0)]), once
        return found

    @property
    def _runs(self) -> Iterator[tuple[tuple[int, int], StageProfile]]:
        """The layers of each run, from the first one to that after the last, and what they cost as one stage."""
        for count in self.profile.stages.keys() - {1, len(self)}:
            runs = cut_layers(len(self), count)
            yield from zip([(run.start, run.stop) for run in runs], self.profile.cut(count), strict=True)

    @cached_property
    def _updates(self) -> tuple[list[float], float]:
        each, (whole,) = [part.update for part in self._parts], self.profile.cut(1)
        once = max((sum(each) - whole.update) / (len(self) - 1), 0.0)
        return [0.0, *accumulate(max(one - once, 0.0) for one in each)], once

    @cached_property
    def _states(self) -> list[ModelStates]:
        return list(accumulate((part.model_states for part in self._parts), initial=ModelStates()))

    def stage(self, first: int, end: int, speed: float = 1.0) -> StageProfile:
        """Layers ``first`` to ``end - 1`` as a stage, on a device that is ``speed`` times as fast."""
        lines: dict[str, Line | None] = dict.fromkeys(_SUMS)
        for name, (sums, once) in self._lines.items():
            alpha, beta = (sums[end] - sums[first] + once) / (speed if name not in ("kept", "waiting") else 1.0)
            lines[name] = Line(float(alpha), float(beta))
        updates, beside = self._updates
        before, after = self._states[first], self._states[end]
        states = ModelStates(
            after.weights - before.weights, after.gradients - before.gradients, after.optimizer - before.optimizer
        )
        return StageProfile(
            **lines,  # type: ignore[arg-type]
            kept_input=self._parts[first].kept_input,
            sent=self._parts[end - 1].sent,
            model_states=states,
            update=(updates[end] - updates[first] + beside) / speed,
        )

    def cut(self, bounds: Sequence[int], devices: int, speeds: Sequence[float] = ()) -> CostProfile:
        """The model cut at ``bounds`` (0, the first layers of stages 1, 2, ..., and all); ``speeds``: by stage."""
        fast = speeds or (1.0,) * (len(bounds) - 1)
        stages = tuple(self.stage(a, b, speed) for (a, b), speed in zip(pairwise(bounds), fast, strict=True))
        about = {**self.profile.about, "cuts": list(bounds[1:-1])}
        return CostProfile(devices, {len(stages): stages}, self.profile.link, self.profile.tokens, about)

    def seconds(self, schedule: Schedule, batch: int, *, once: bool = False) -> tuple[Array, float]:
        """(sums up to each layer of what it takes in a step, what a stage takes beside).

        ``once``: of one micro-batch's forward and of what sends its gradient back, the smallest.
        """
        sizes = [weight * batch / sum(schedule.weights) for weight in schedule.weights]
        count, total = (1, min(sizes)) if once else (len(sizes), sum(sizes))
        names = {"F": "forward", "B": "backward", "I": "input_gradient", "W": "weight_gradient", "R": "recompute"}
        if "R" in schedule.ops:
            names["F"] = "bare_forward"
        used = [names[op] for op in names if op in schedule.ops and not (once and op in "WR")]
        if once and "I" in schedule.ops:
            used = [names["F"]]  # W may run while stages before it go on
        found: dict[str, tuple[Array, float]] = {}
        for name in used:
            if name not in self._lines:
                kind = "recompute" if name in ("bare_forward", "recompute") else "split"
                raise ConfigurationError(
                    f"schedule '{schedule.name}' needs {name.replace('_', ' ')}, and the layers were profiled without; "
                    f"take a profile with {kind}=True"
                )
            own, extra = self._lines[name]
            found[name] = own @ (count, total), float(extra @ (count, total))
        if {"backward", "input_gradient"} <= found.keys():  # a micro-batch goes back by one or the other
            whole, halves = found.pop("backward"), [found.pop(name) for name in ("input_gradient", "weight_gradient")]
            cut = sum(np.diff(part) for part, _ in halves)
            least = np.concatenate([[0.0], np.minimum(np.diff(whole[0]), cut).cumsum()])
            found["back"] = least, min(whole[1], sum(extra for _, extra in halves))
        sums = np.sum([part for part, _ in found.values()], axis=0)
        return sums, sum(extra for _, extra in found.values())

    def sent(self, schedule: Schedule, batch: int) -> Array:
        """By layer, the bytes of all activations that a cut behind it sends in a step."""
        lines = [part.sent for part in self._parts]
        found: Array = np.array([line.alpha * schedule.microbatches + line.beta * batch for line in lines])
        return found

    def bytes(self) -> tuple[Array, Array, Array]:
        """Sums up to each layer: model states; alpha and beta of what a micro-batch keeps."""
        sums, _ = self._lines["kept"]
        return np.array([states.total for states in self._states], float), sums[:, 0], sums[:, 1]
