"""What everything costs, as plain data: one micro-batch through all stages and back, one device at work at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelab.errors import ConfigurationError
from pipelab.quantities import ModelStates
from pipelab.runtime.report import StepReport
from pipelab.schedules.action import Action
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import Costs

__all__ = ["MicrobatchCosts", "StageCosts", "microbatch_costs", "require_one_microbatch"]


@dataclass(frozen=True)
class StageCosts:
    """One stage, one micro-batch."""

    seconds: dict[str, float]
    """What each op took."""
    kept: float
    """Bytes that it keeps after its forward: activations, or only its input where it recomputes."""
    sent: float
    """Bytes of the message to the next stage; 0 from the last."""
    waiting: float
    """Bytes that it keeps from I to W; 0 where its backward is whole."""
    saved: float = 0.0
    """How many more bytes the message would be without compression."""


@dataclass(frozen=True)
class MicrobatchCosts:
    """A micro-batch of ``sequences``."""

    sequences: int
    stages: tuple[StageCosts, ...]
    messages: tuple[tuple[float, float], ...]
    """(bytes, seconds from the sending to its being used) of each message: its receiver was waiting for it."""
    model_states: tuple[ModelStates, ...] = ()
    """What each stage holds with the gradients and the optimizer state that training adds; only if it was asked for."""
    updates: tuple[float, ...] = ()
    """Seconds of each stage's update; only if it was asked for."""

    def priced(self, input_bytes: float) -> Costs:
        """As a simulation takes them; ``input_bytes`` is stage 0's."""

        def each(read: Callable[[StageCosts], float]) -> list[float]:
            return [read(stage) for stage in self.stages]

        split, sent = "I" in self.stages[0].seconds, each(lambda stage: stage.sent)
        return Costs(
            forward=each(lambda stage: stage.seconds["F"]),
            backward=each(lambda stage: stage.seconds["B"]),
            input_gradient=each(lambda stage: stage.seconds["I"]) if split else None,
            weight_gradient=each(lambda stage: stage.seconds["W"]) if split else None,
            message_bytes=sent,
            activation_bytes=each(lambda stage: stage.kept),
            waiting_bytes=each(lambda stage: stage.waiting) if split else None,
            input_bytes=[input_bytes, *each(lambda stage: stage.sent + stage.saved)[:-1]],
            unit="s",
        )


def microbatch_costs(report: StepReport, updates: Sequence[tuple[ModelStates, float]] = ()) -> MicrobatchCosts:
    """Read them off a step of one micro-batch, or of several equal ones: each op's last."""
    schedule = report.schedule
    seconds: list[dict[str, float]] = [{} for _ in range(schedule.stages)]
    kept, sent, waiting, saved = ([0.0] * schedule.stages for _ in range(4))
    for device, log in enumerate(report.logs):
        held = 0
        costs = report.slot_costs.slots[device]
        for slot, cost, after in zip(schedule.programs[device], costs, log.after, strict=True):
            assert isinstance(slot, Action)
            seconds[slot.stage][slot.op] = cost
            if slot.op == "F":
                kept[slot.stage] = float(after - held)
            elif slot.op == "I":
                waiting[slot.stage] = kept[slot.stage] + float(after - held)
            held = after
    messages = []
    for d in report.deliveries:
        messages.append((float(d.size), max(d.taken - d.sent, 0.0)))
        if d.channel.kind == "activation":
            sent[d.route.producer.stage], saved[d.route.producer.stage] = float(d.size), float(d.saved)
    stages = tuple(StageCosts(*stage) for stage in zip(seconds, kept, sent, waiting, saved, strict=True))
    speeds = [report.speeds[homes[0]] for homes in schedule.placement]
    model_states = tuple(held for held, _ in updates)
    times = tuple(time / speed for (_, time), speed in zip(updates, speeds, strict=False))
    return MicrobatchCosts(report.batch // schedule.microbatches, stages, tuple(messages), model_states, times)


def require_one_microbatch(schedule: Schedule) -> None:
    """Raise ConfigurationError for a table that is not of one micro-batch, or has no flush."""
    if schedule.microbatches != 1 or "U" in schedule.ops:
        raise ConfigurationError(
            f"measure_microbatch is for one micro-batch and a schedule that flushes, '{schedule.name}' has "
            f"{schedule.microbatches}{' and updates on the way' if 'U' in schedule.ops else ''}; try "
            f"build_schedule('1f1b', devices={schedule.devices}, microbatches=1)"
        )
