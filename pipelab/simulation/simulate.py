"""An event-driven simulation of a schedule, linear in its number of actions.

A slot starts when its device is free and everything that it needs has arrived::

    start(slot) = max(end of the slot before it on its device, arrival of each message it needs)
    arrival     = when the channel is free after sending + bytes / bandwidth + latency
"""

from __future__ import annotations

from pipelab.errors import ConfigurationError, ScheduleError, whole_number
from pipelab.schedules.action import Action, actions_of, format_slot
from pipelab.schedules.checker import check_schedule
from pipelab.schedules.dependencies import SlotGraph
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.wire import Channel, routes
from pipelab.simulation.costs import CostModel, Costs, MemoryModel
from pipelab.timeline import Holding, Message, Span, Timeline

__all__ = ["peak_activation_bytes", "simulate"]

_TEXTBOOK = Costs(forward=1.0, backward=1.0)


def simulate(
    schedule: Schedule,
    costs: CostModel = _TEXTBOOK,
    *,
    batch: int | None = None,
    clock: str = "predicted",
    check: bool = True,
) -> Timeline:
    """Predict when each slot of ``schedule`` runs, given what things cost (default: tF = tB = 1).

    ``batch`` is the number of sequences in the whole batch: with it, micro-batches get the weights that it gives them
    and what is in flight is also counted in sequences. Raises ScheduleError with the checker's violations if the
    schedule is not sound; with ``check=False`` only once it gets stuck.

    >>> simulate(build_schedule("1f1b", devices=4, microbatches=4), Costs(forward=1, backward=1)).makespan
    14.0
    """
    if not isinstance(schedule, Schedule):
        hint = "build one with build_schedule('1f1b', devices=4, microbatches=4)"
        raise ConfigurationError(f"simulate takes a Schedule, got {type(schedule).__name__}; {hint}")
    if not hasattr(costs, "slot_cost"):
        raise ConfigurationError(f"costs must be Costs, got {type(costs).__name__}; try Costs(forward=1, backward=2)")
    if batch is not None:
        batch = whole_number("batch", "", batch)
        schedule = schedule.for_batch(batch)
    if check:
        violations = check_schedule(schedule)
        if violations:
            raise ScheduleError.refuse(schedule.name, violations)
    graph = schedule.graph
    sends = _sends(graph)
    ends: dict[tuple[int, int], float] = {}
    device_free = [0.0] * schedule.devices
    channel_free: dict[Channel, float] = {}
    arrivals: dict[tuple[Action, int], float] = {}
    spans: list[Span] = []
    updates: list[Span] = []
    messages: list[Message] = []
    for device, position, edges in graph.topological():
        slot = schedule.programs[device][position]
        start = device_free[device]
        for edge in edges:
            if edge.crosses:
                start = max(start, arrivals[edge.action, device])
            elif edge.source.device != device:
                start = max(start, ends[edge.source.slot])
        end = start + costs.slot_cost(schedule, device, position)
        ends[device, position] = device_free[device] = end
        is_update = all(action.op == "U" for action in actions_of(slot))
        (updates if is_update else spans).append(Span(device, position, slot, start, end))
        for channel, producer, consumer in sends.get((device, position), ()):
            size = costs.message_size(schedule, producer, channel.kind)
            leaves = max(end, channel_free.get(channel, 0.0)) + size / costs.bandwidth
            channel_free[channel] = leaves
            arrivals[consumer, channel.destination] = arrived = leaves + costs.latency
            ends_at = (channel.kind, producer, consumer, device, channel.destination)
            messages.append(Message(*ends_at, sent=end, arrived=arrived, size=size))
    missing = sum(map(len, schedule.programs)) - len(ends)
    if missing:
        stuck = [
            f"{format_slot(slot)} on device {device}"
            for device, program in enumerate(schedule.programs)
            for position, slot in enumerate(program)
            if (device, position) not in ends
        ]
        raise ScheduleError(f"the simulation is stuck: {missing} slots wait for ever, the first is {stuck[0]}")
    spans.sort(key=lambda span: (span.device, span.position))
    return Timeline(
        schedule=schedule,
        spans=tuple(spans),
        messages=tuple(sorted(messages, key=lambda message: (message.sent, message.arrived))),
        clock=clock,
        unit=costs.unit,
        sequences=None if batch is None else batch / sum(schedule.weights),
        updates=tuple(updates),
        holdings=_holdings(schedule, spans, costs),
    )


def peak_activation_bytes(
    schedule: Schedule, costs: CostModel = _TEXTBOOK, *, batch: int | None = None
) -> tuple[float, ...]:
    """The most activation bytes held on each device; empty where ``costs`` do not know them.

    What a device holds is decided by its own order, whatever its actions cost: nothing is simulated, and nothing is
    said of whether the schedule is sound. ``simulate(...).peak_bytes`` of one that is says the same.
    """
    if batch is not None:
        schedule = schedule.for_batch(whole_number("batch", "", batch))
    spans = [
        Span(device, position, slot, position, position + 1.0)
        for device, program in enumerate(schedule.programs)
        for position, slot in enumerate(program)
    ]
    return tuple(holding.peak for holding in _holdings(schedule, spans, costs))


def _sends(graph: SlotGraph) -> dict[tuple[int, int], list[tuple[Channel, Action, Action]]]:
    """Slot -> the messages that it sends."""
    found: dict[tuple[int, int], list[tuple[Channel, Action, Action]]] = {}
    for channel, messages in routes(graph).items():
        for route in messages:
            found.setdefault(route.sent_by, []).append((channel, route.producer, route.consumer))
    return found


def _holdings(schedule: Schedule, spans: list[Span], costs: CostModel) -> tuple[Holding, ...]:
    """Activation bytes over time where costs know them.

    A micro-batch is kept from its F to the last of its B or W; one that is recomputed only as its input until its R.
    The gradient that a backward starts from is there while it runs.
    """
    if not isinstance(costs, MemoryModel) or (isinstance(costs, Costs) and costs.activation_bytes == 0):
        return ()
    recomputed = schedule.recomputed
    forward: dict[tuple[int, int, int], float] = {}
    kept_from: dict[tuple[int, int, int], float] = {}
    changes: list[list[tuple[float, int, float]]] = [[] for _ in range(schedule.devices)]
    ends: dict[tuple[int, int, int], float] = {}
    for span in spans:
        for action in actions_of(span.slot):
            key = (span.device, action.stage, action.microbatch)
            if action.op == "F":
                forward[key] = span.start
                ends.setdefault(key, span.end)
            if action.op == ("R" if key[1:] in recomputed else "F"):
                kept_from[key] = span.start
            elif action.op in "BIW":
                ends[key] = span.end
            if action.op in "BI" and action.stage + 1 < schedule.stages:
                gradient = costs.message_size(schedule, Action(action.stage + 1, "B", action.microbatch), "gradient")
                changes[span.device] += [(span.start, 1, gradient), (span.end, 0, -gradient)]
    for key, start in kept_from.items():
        device, stage, i = key
        held = costs.held_bytes(schedule, Action(stage, "F", i))
        changes[device] += [(start, 1, held), (ends[key], 0, -held)]
        if (stage, i) in recomputed and key in forward:
            kept_input = costs.kept_input_bytes(schedule, Action(stage, "F", i))
            changes[device] += [(forward[key], 1, kept_input), (start, 0, -kept_input)]
    result = []
    for device, found in enumerate(changes):
        total, steps = 0.0, []
        for t, _, change in sorted(found):
            total += change
            steps.append((t, max(total, 0.0)))
        result.append(Holding(device, tuple(steps)))
    return tuple(result)
