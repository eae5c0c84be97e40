"""Where the time of a device goes, term by term of its schedule's formula. Pure Python.

::

    makespan = m (tF + tB)  +  (p - 1)(tF + tB)        GPipe and 1F1B on any device; interleaved: (p - 1)(tF + tB) / v
               work            idle = fill + wait + drain
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelab.schedules.action import actions_of
from pipelab.timeline.timeline import Timeline

__all__ = ["KINDS", "Account", "account"]

KINDS = ("work", "fill", "wait", "link", "drain")
"""What a device does with its time. "fill": before its first action; "drain": after its last; "link": for a message
that is on its way; "wait": for anything else."""


@dataclass(frozen=True)
class Account:
    """``rows[r]`` has the time of device r for each of ``KINDS``; together they are the makespan.

    ``work`` and ``idle`` are the terms as formulas (arXiv 1811.06965, 2.3; 2104.04473, 2.2), ``expected`` is what the
    second one gives with the times of this run. ``holds`` names the schedules for which it is derived, where this is
    none of them.
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
    p, m, v = schedule.devices, schedule.microbatches, schedule.chunks
    passes = sum(span.duration for span in timeline.spans if any(a.op != "R" for a in actions_of(span.slot))) / (p * m)
    one = "tF" if schedule.forward_only else "(tF + tB)"
    again = "(tF + tB + tR)" if "R" in schedule.ops else one
    whole = " of the whole batch" if schedule.name == "naive" else ""
    family = "interleaved 1F1B" if v > 1 else "GPipe and 1F1B"
    derived = schedule.name in ({"interleaved"} if v > 1 else {"gpipe", "1f1b", "naive"})
    return Account(
        rows=tuple(tuple(round(time, 12) + 0.0 for time in row) for row in rows),
        work=again.strip("()") + whole if whole else f"m {again}",
        idle=f"(p − 1){'' if one[0] == '(' else ' '}{one}{' / v' if v > 1 else ''}{whole}",
        expected=(p - 1) * passes / v,
        holds="" if derived else family,
    )
