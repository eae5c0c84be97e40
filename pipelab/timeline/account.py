"""Where the time of a device goes, term by term of its schedule's formula. Pure Python.

::

    makespan = m (tF + tB)  +  (p - 1)(tF + tB)        GPipe and 1F1B on any device; interleaved: (p - 1)(tF + tB) / v
               work            idle = fill + wait + drain
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.schedules.action import actions_of
from pipelab.timeline.timeline import Timeline

__all__ = ["KINDS", "Account", "account", "long_run_bubble"]

KINDS = ("work", "fill", "wait", "link", "drain")
"""What a device does with its time. "fill": before its first action; "drain": after its last; "link": for a message
that is on its way; "wait": for anything else."""


@dataclass(frozen=True)
class Account:
    """``rows[r]`` has the time of device r for each of ``KINDS``; together they are the makespan.

    ``work`` and ``idle`` are the terms as formulas (arXiv 1811.06965, 2.3; 2104.04473, 2.2), ``expected`` is what the
    second one gives with the times of this run. ``holds`` names the schedules for which it is derived, where this is
    none of them. A flow has no formulas.
    """

    rows: tuple[tuple[float, ...], ...]
    work: str
    idle: str
    expected: float
    holds: str


def account(timeline: Timeline) -> Account:
    """The account of all devices.

    >>> account(simulate(build_schedule("1f1b", devices=4, microbatches=8))).rows[1]
    (16.0, 1.0, 4.0, 0.0, 1.0)
    """
    schedule = timeline.schedule
    rows = [[busy, *(0.0,) * (len(KINDS) - 1)] for busy in timeline.busy]
    for gap in timeline.gaps():
        rows[gap.device][KINDS.index(gap.cause if gap.cause in KINDS else "wait")] += gap.end - gap.start
    told = tuple(tuple(round(time, 12) + 0.0 for time in row) for row in rows)
    if schedule.words.stages:
        return Account(told, "", "", 0.0, "")
    p, m, v = schedule.devices, schedule.microbatches, max(round(1 / schedule.share), 1)  # two homes make no chunks
    passes = sum(span.duration for span in timeline.spans if any(a.op != "R" for a in actions_of(span.slot))) / (p * m)
    one = "tF" if schedule.forward_only else "(tF + tB)"
    again = "(tF + tB + tR)" if "R" in schedule.ops else one
    whole = " of the whole batch" if schedule.name == "naive" else ""
    family = "interleaved 1F1B" if v > 1 else "GPipe and 1F1B"
    plain = {"gpipe", "1f1b", "naive", "pipedream", "vertical-sync", "2bw"}
    derived = schedule.name in ({"interleaved"} if v > 1 else plain)
    return Account(
        rows=told,
        work=again.strip("()") + whole if whole else f"m {again}",
        idle=f"(p − 1){'' if one[0] == '(' else ' '}{one}{' / v' if v > 1 else ''}{whole}",
        expected=(p - 1) * passes / v,
        holds="" if derived else family,
    )


def long_run_bubble(timeline: Timeline) -> float:
    """The bubble fraction over many steps. A schedule that flushes has its bubble in each of them.

    Without a flush the pipeline fills and drains only once. So what counts is the time between: from the start of the
    first backward on device 0 to the end of its last forward. Updates are work there.

    >>> long_run_bubble(simulate(over(build_schedule("pipedream", devices=4, microbatches=4), 3)))
    0.0
    """
    if timeline.schedule.updating is None:
        return timeline.bubble_fraction
    row = timeline.on_device(0)
    backwards = [span.start for span in row if any(a.op in "BIW" for a in actions_of(span.slot))]
    forwards = [span.end for span in row if any(a.op == "F" for a in actions_of(span.slot))]
    if not backwards or not forwards or forwards[-1] <= backwards[0]:
        return timeline.bubble_fraction  # it has never been full
    begin, end = backwards[0], forwards[-1]
    spans = (*timeline.spans, *timeline.updates)
    busy = sum(max(min(span.end, end) - max(span.start, begin), 0.0) for span in spans)
    return max(1 - busy / (timeline.schedule.devices * (end - begin)), 0.0)
