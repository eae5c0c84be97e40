"""Why devices are idle: a timeline's bubble in parts that add up to it, by simulations that know one thing more each.

::

    idle(T)  = p * makespan(T) - busy(T)
    fill     = idle(balanced)                        balanced: each op takes its mean, messages take no time
    imbalance = idle(own)      - idle(balanced)      own: slots take what they cost
    updates  = idle(updating)  - idle(own)           updating: and so do updates on the way, if there are any
    messages = idle(sending)   - idle(updating)      sending: messages take their time too
    other    = idle(timeline)  - idle(sending)       0 but under the wall clock: there the rest of the machine
    ---------------------------------------------
    together: idle(timeline)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass

from pipelab.schedules.action import actions_of
from pipelab.schedules.schedule import Schedule
from pipelab.simulation.costs import CostModel, SlotCosts
from pipelab.simulation.simulate import sweep
from pipelab.timeline import Timeline

__all__ = ["Causes", "split_bubble"]

_Slots = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Causes:
    """Parts of the bubble fraction. Together they are it, but for rounding.

    All but ``messages`` and ``fill`` can be below 0: an uneven pipeline may suit a schedule better than an even one,
    and a slot that was held up counts as busy.
    """

    fill: float
    """Fill and drain: what the table leaves idle if all stages cost the same and messages take no time."""
    imbalance: float
    """What is added because stages and micro-batches do not cost the same."""
    updates: float
    """What is added by updates on the way, which stand beside the makespan (schedules without a flush)."""
    messages: float
    """What is added by the time that messages take."""
    other: float
    """Under the wall clock, what the simulation of all these does not explain: other work on the machine."""

    @property
    def total(self) -> float:
        """The bubble fraction."""
        return sum(astuple(self))


def split_bubble(timeline: Timeline, costs: CostModel) -> Causes:
    """The bubble of ``timeline`` by cause. Slots and messages take ``costs``.

    Under any clock but "wall" the timeline must be the simulation of them.

    >>> table = build_schedule("1f1b", devices=4, microbatches=4)
    >>> split_bubble(simulate(table, Costs(latency=1)), Costs(latency=1)).total
    0.5294117647058824
    """
    schedule = timeline.schedule
    rows = [range(len(program)) for program in schedule.programs]
    slots = tuple(tuple(costs.slot_cost(schedule, r, k) for k in row) for r, row in enumerate(rows))
    own = _without_updates(schedule, slots)
    asked: list[CostModel] = [SlotCosts(_balanced(schedule, own)), SlotCosts(own), SlotCosts(slots), costs]
    if "U" not in schedule.ops:
        del asked[2]
    if timeline.clock != "wall":
        del asked[-1]  # that is the timeline itself
    idle = [_idle(simulated) for simulated in sweep(schedule, asked, check=False)]
    if "U" not in schedule.ops:
        idle.insert(2, idle[1])
    idle += [_idle(timeline)] * (5 - len(idle))
    whole = schedule.devices * timeline.makespan or 1.0
    return Causes(*((later - before) / whole for before, later in zip([0.0, *idle], idle, strict=False)))


def _idle(timeline: Timeline) -> float:
    return timeline.schedule.devices * timeline.makespan - sum(timeline.busy)


def _updates(schedule: Schedule, r: int, k: int) -> bool:
    return all(action.op == "U" for action in actions_of(schedule.programs[r][k]))


def _without_updates(schedule: Schedule, slots: _Slots) -> _Slots:
    if "U" not in schedule.ops:
        return slots
    return tuple(
        tuple(0.0 if _updates(schedule, r, k) else cost for k, cost in enumerate(row)) for r, row in enumerate(slots)
    )


def _balanced(schedule: Schedule, slots: _Slots) -> _Slots:
    """Each slot at the mean of its kind: those with the same ops, by the weights of their micro-batches."""
    kinds = [[_kind(schedule, r, k) for k in range(len(row))] for r, row in enumerate(slots)]
    cost: defaultdict[str, float] = defaultdict(float)
    weight: defaultdict[str, float] = defaultdict(float)
    for row, named in zip(slots, kinds, strict=True):
        for one, (ops, heavy) in zip(row, named, strict=True):
            cost[ops] += one
            weight[ops] += heavy
    return tuple(tuple(cost[ops] / weight[ops] * heavy for ops, heavy in named) for named in kinds)


def _kind(schedule: Schedule, r: int, k: int) -> tuple[str, float]:
    """The ops of a slot, and the weight of its micro-batches."""
    actions = actions_of(schedule.programs[r][k])
    return "".join(action.op for action in actions), sum(schedule.weights[action.microbatch] for action in actions)
