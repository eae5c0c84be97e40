"""What actions and messages cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from pipelab.errors import ConfigurationError
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.links import Links

__all__ = ["CostModel", "Costs", "CostsByKind", "MemoryModel", "PerStage", "SlotCosts"]

PerStage = float | Sequence[float]


class CostModel(Protocol):
    """What :func:`simulate` asks of costs.

    With ``links`` they say what each pair of devices has; without, all have one latency and one bandwidth.
    """

    @property
    def unit(self) -> str:
        """Of all times."""
        ...

    @property
    def latency(self) -> float:
        """Of a message."""
        ...

    @property
    def bandwidth(self) -> float:
        """Bytes per unit of time."""
        ...

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        """How long one slot runs."""
        ...

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        """Bytes of the message that ``producer`` sends."""
        ...


@runtime_checkable
class CostsByKind(CostModel, Protocol):
    """Costs that are the same for all actions of one op and stage, in micro-batches of one weight, recomputed or not.

    They are asked once for each such kind, sizes and bytes too, and never slot by slot.
    """

    def cost_of(self, schedule: Schedule, actions: tuple[Action, ...]) -> float:
        """How long a slot of these actions runs."""
        ...


@runtime_checkable
class MemoryModel(CostModel, Protocol):
    """Costs that also know what is held.

    With ``waiting_for_weights(schedule, action)`` they say what is kept from I to W; without, it is all that was held.
    """

    def held_bytes(self, schedule: Schedule, action: Action) -> float:
        """Activation bytes that a stage keeps of one micro-batch."""
        ...

    def kept_input_bytes(self, schedule: Schedule, action: Action) -> float:
        """What it keeps instead where it recomputes."""
        ...


@dataclass(frozen=True)
class Costs:
    """Costs by op.

    A number is the cost of a **full device share** of the model for a micro-batch of weight 1. With v chunks per
    device each chunk costs 1/v of it. The naive schedule's one micro-batch has weight m and costs m times as much. A
    sequence gives each stage's own cost (one entry per stage, not divided again).

    ``input_gradient`` and ``weight_gradient`` are the halves of a split backward (default: half of ``backward``
    each), ``recompute`` defaults to ``forward``. ``fused`` maps the ops of a fused slot, such as ``"FB"``, to its cost
    as a fraction of the sum of its parts (default 1). A message takes ``latency + bytes / bandwidth``; messages of one
    channel follow one another on it. ``links`` give each pair of devices its own. Bytes are those of a micro-batch of
    weight 1. ``message_bytes`` is the size of a message; gradients are as large as activations. ``activation_bytes`` is
    what a full device share keeps until its backward, and ``waiting_bytes`` what it still keeps from I to W (default:
    the same). ``input_bytes`` is the input that a stage keeps instead, from its forward until it recomputes. All times
    are in ``unit``.
    """

    forward: PerStage = 1.0
    backward: PerStage = 1.0
    input_gradient: PerStage | None = None
    weight_gradient: PerStage | None = None
    recompute: PerStage | None = None
    update: PerStage = 0.0
    latency: float = 0.0
    bandwidth: float = math.inf
    message_bytes: PerStage = 0.0
    activation_bytes: PerStage = 0.0
    waiting_bytes: PerStage | None = None
    input_bytes: PerStage = 0.0
    fused: Mapping[str, float] = field(default_factory=dict)
    unit: str = "units"
    links: Links | None = None

    def __post_init__(self) -> None:
        times = ("forward", "backward", "input_gradient", "weight_gradient", "recompute", "update")
        for name in (*times, "message_bytes", "activation_bytes", "waiting_bytes", "input_bytes"):
            value = getattr(self, name)
            entries = value if isinstance(value, Sequence) else () if value is None else (value,)
            if any(not (entry >= 0 and math.isfinite(entry)) for entry in entries):
                raise ConfigurationError(f"cost '{name}' must be finite and not negative, got {value!r}")
        for ops, factor in self.fused.items():
            if not (factor >= 0 and math.isfinite(factor)):
                raise ConfigurationError(f"fused['{ops}'] must be finite and not negative, got {factor!r}; try 1")
        Links.either(self.latency, self.bandwidth, self.links)  # checks them

    def action_cost(self, schedule: Schedule, action: Action) -> float:
        """How long one action runs."""
        half = self.backward if isinstance(self.backward, Sequence) else self.backward / 2
        if isinstance(half, Sequence):
            half = [value / 2 for value in half]
        given: dict[str, PerStage] = {
            "F": self.forward,
            "B": self.backward,
            "I": half if self.input_gradient is None else self.input_gradient,
            "W": half if self.weight_gradient is None else self.weight_gradient,
            "R": self.forward if self.recompute is None else self.recompute,
            "U": self.update,
        }
        cost = _per_stage(given[action.op], schedule, action.stage, f"cost of {action.op}")
        return cost * (1.0 if action.op == "U" else schedule.weights[action.microbatch])

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        """How long one slot runs."""
        return self.cost_of(schedule, actions_of(schedule.programs[device][position]))

    def cost_of(self, schedule: Schedule, actions: tuple[Action, ...]) -> float:
        """The sum of a slot's actions, times ``fused`` where it is fused."""
        factor = self.fused.get("".join(action.op for action in actions), 1.0) if len(actions) > 1 else 1.0
        return factor * sum(self.action_cost(schedule, action) for action in actions)

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        """Bytes of the message that ``producer`` sends; per-stage entries are by the stage whose output it is."""
        stage = producer.stage if kind == "activation" else producer.stage - 1
        size = self.message_bytes
        entry = size if not isinstance(size, Sequence) else _entry(size, schedule, stage, "message_bytes")
        return entry * schedule.weights[producer.microbatch]

    def held_bytes(self, schedule: Schedule, action: Action) -> float:
        """Activation bytes that a stage keeps of one micro-batch."""
        whole = _per_stage(self.activation_bytes, schedule, action.stage, "activation_bytes")
        return whole * schedule.weights[action.microbatch]

    def waiting_for_weights(self, schedule: Schedule, action: Action) -> float:
        """Bytes that it still keeps of one micro-batch from I to W."""
        if self.waiting_bytes is None:
            return self.held_bytes(schedule, action)
        whole = _per_stage(self.waiting_bytes, schedule, action.stage, "waiting_bytes")
        return whole * schedule.weights[action.microbatch]

    def kept_input_bytes(self, schedule: Schedule, action: Action) -> float:
        """Bytes of a stage's input for one micro-batch: the same for every number of chunks a device has."""
        size = self.input_bytes
        entry = size if not isinstance(size, Sequence) else _entry(size, schedule, action.stage, "input_bytes")
        return entry * schedule.weights[action.microbatch]


def _per_stage(value: PerStage, schedule: Schedule, stage: int, what: str) -> float:
    """A full share's cost is divided among a device's chunks; a per-stage list is taken as it is."""
    if isinstance(value, Sequence):
        return _entry(value, schedule, stage, what)
    return value * schedule.share


def _entry(values: Sequence[float], schedule: Schedule, stage: int, what: str) -> float:
    if len(values) != schedule.stages:
        raise ConfigurationError(
            f"{what} is given for {len(values)} stages, but schedule '{schedule.name}' has {schedule.stages}; "
            f"give one number, or {schedule.stages}"
        )
    return values[stage]


@dataclass(frozen=True)
class SlotCosts:
    """Costs that were measured slot by slot: ``slots[r][k]`` is what slot k of device r took.

    ``sizes`` are the bytes of each message by its producer and kind.
    """

    slots: tuple[tuple[float, ...], ...]
    sizes: Mapping[tuple[Action, str], float] = field(default_factory=dict)
    latency: float = 0.0
    bandwidth: float = math.inf
    unit: str = "s"
    links: Links | None = None

    def __post_init__(self) -> None:
        Links.either(self.latency, self.bandwidth, self.links)  # checks them

    def slot_cost(self, schedule: Schedule, device: int, position: int) -> float:
        """What the slot took."""
        return self.slots[device][position]

    def message_size(self, schedule: Schedule, producer: Action, kind: str) -> float:
        """The bytes that were sent."""
        return self.sizes.get((producer, kind), 0.0)
