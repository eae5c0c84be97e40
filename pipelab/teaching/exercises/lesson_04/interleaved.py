"""Exercise of lesson 4: write interleaved 1F1B, and train with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, actions_of
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import read_table, trained, unsound
from pipelab.teaching.exercises.lesson_04.beside_interleaved import beside, held, right_table, sized, sizes_of
from pipelab.teaching.exercises.lesson_04.depths import depths_of

_SIZES = [(2, 1, 2), (2, 2, 2), (3, 1, 2), (3, 2, 2), (4, 1, 2), (4, 2, 2), (3, 2, 3), (4, 2, 1)]
# All forwards first is another table than a warm-up that is too deep only where m > p: there the two are told apart.
_HELD = [(2, 2, 2), (2, 1, 2), *_SIZES[2:]]
_PARTS = ("sound", "time", "in flight")


def _drawn(random: Random) -> list[Case]:
    cases = []
    for part in _PARTS:
        sizes = [(random.randint(2, 5), random.randint(1, 3), random.randint(2, 4)) for _ in range(3)]
        edges = [
            (random.randint(2, 5), random.randint(2, 4), 1),
            (1, random.randint(2, 4), random.randint(2, 3)),
            (random.randint(2, 4), random.choice((4, 5)), random.randint(2, 3)),
            (random.randint(2, 4), 2, random.choice((5, 6))),
        ]
        cases += sized(part, [*sizes, *edges, (random.randint(3, 5), 3, 2), (8, 2, 2)])
    p = random.choice((2, 3, 4))
    return [*cases, *sized("gradients", [(p, 2, random.choice((2, 3)))])]


def _ask(call: Call, case: Case) -> Any:
    return call("interleaved", *sizes_of(case))


def _judge(case: Case, data: Any) -> Finding | None:
    p, m, v = sizes_of(case)
    table = read_table(data, f"interleaved({p}, {m}, {v})", p)
    found = _strange(table, case) or _misplaced(table, case) or _lacking(table, case) or _unsound(table, case)
    if found is None and case.part in ("time", "gradients"):
        found = _slow(table, case)
    if found is None and case.part in ("in flight", "gradients"):
        found = _heavy(table, case)
    if found is None and case.part == "gradients":
        return trained(table, case)
    return found


def _strange(table: Schedule, case: Case) -> Finding | None:
    """Actions of stages or micro-batches that there are not."""
    p, m, v = sizes_of(case)
    for device, _, action in table.actions():
        if action.op not in "FB":
            return Finding(f"{case.words}: device {device} runs {action}; the actions here are F and B.")
        if action.stage >= p * v:
            why = f"{case.words}: device {device} runs {action}, but there are p v = {p * v} stages, 0..{p * v - 1}."
            return Finding(why)
        if action.microbatch >= m:
            return Finding(f"{case.words}: device {device} runs {action}, but there are micro-batches 0..{m - 1}.")
        if action.op == "F" and _order(table, device, "F").count(action) == v > 1 and action.stage == device:
            return Finding(
                f"{case.words}: device {device} runs {action} {v} times. An action is named by its stage, 0 to "
                f"{p * v - 1}, not by its device: chunk c of device {device} is stage c p + {device}."
            )
    return None


def _misplaced(table: Schedule, case: Case) -> Finding | None:
    p, _, v = sizes_of(case)
    wrong = [(device, k, a) for device, k, a in table.actions() if a.stage % p != device]
    if not wrong:
        return None
    device, position, action = wrong[0]
    start = (
        f"{case.words}: device {device} runs {action}, but stage {action.stage} lives on device {action.stage % p}. "
    )
    if all(a.stage // v == d for d, _, a in table.actions()):
        why = (
            "Yours are neighbouring chunks, stage = device * v + chunk: they gain nothing, because micro-batch 0 still "
            f"passes whole devices before it reaches device {p - 1}."
        )
    elif all(a.stage < v for _, _, a in table.actions()):
        why = "An action is named by its stage, 0 to p v - 1, not by its chunk."
    else:
        why = f"Round-robin: device {device} holds stages " + ", ".join(str(c * p + device) for c in range(v)) + "."
    marked = [(device, position)]
    return Finding(start + why, partial(view.plot_table, table, title=f"Your table, {case.words}", marked=marked))


def _lacking(table: Schedule, case: Case) -> Finding | None:
    p, m, v = sizes_of(case)
    there = {action for _, _, action in table.actions()}
    wanted = [Action(s, op, i) for r in range(p) for op in "FB" for s in range(r, p * v, p) for i in range(m)]
    lacking = next((action for action in wanted if action not in there), None)
    if lacking is None:
        return None
    kind = "forward" if lacking.op == "F" else "backward"
    rows = (
        f"Each device runs m v = {m * v} forwards and as many backwards, of v = {v} stages."
        if v > 1
        else f"Each device runs {m} forwards and {m} backwards."
    )
    return Finding(
        f"{case.words}: {lacking} is missing: device {lacking.stage % p} never runs micro-batch {lacking.microbatch} "
        f"{kind} through stage {lacking.stage}. {rows}"
    )


def _order(table: Schedule, device: int, op: str) -> list[Action]:
    return [a for slot in table.programs[device] for a in actions_of(slot) if a.op == op]


def _group(table: Schedule, case: Case) -> int:
    """How many forwards device 0 runs on its first chunk before it turns to another."""
    stages = [action.stage for action in _order(table, 0, "F")]
    return next((k for k, stage in enumerate(stages) if stage != stages[0]), len(stages))


def _first(table: Schedule, device: int) -> int:
    """Forwards on a device before its first pair."""
    shape = "".join(a.op for slot in table.programs[device] for a in actions_of(slot))
    return max(len(shape) - len(shape.lstrip("F")) - 1, 0)


def _shapes(table: Schedule) -> list[str]:
    """Each device's row as a text of F and B."""
    return ["".join(a.op for slot in row for a in actions_of(slot)) for row in table.programs]


def _backwards_reversed(table: Schedule, case: Case) -> bool:
    """Whether each group of p comes back, on the last stage, in the reverse of the order in which it went through."""
    p, m, v = sizes_of(case)
    ways = [[a.microbatch for a in _order(table, p - 1, op) if a.stage == p * v - 1] for op in "FB"]
    forth, back = ([way[first : first + p] for first in range(0, m, p)] for way in ways)
    return p > 1 and forth == [group[::-1] for group in back]


def _unsound(table: Schedule, case: Case) -> Finding | None:
    found = unsound(table, case)
    if found is None:
        return None
    p, m, v = sizes_of(case)
    back = [_order(table, r, "B") for r in range(p)]
    shapes = _shapes(table)
    depths = [min(w, m * v) for w in depths_of(p, m, v)]
    why = ""
    if v > 1 and any(row and row[0].stage // p < v - 1 for row in back):
        why = (
            " The gradient comes to the last chunk first, and goes up through the chunks in reverse: chunk "
            f"{v - 1} before chunk {v - 2}."
        )
    elif _backwards_reversed(table, case):
        why = (
            " Within a group, yours takes the micro-batches backward in reverse. The gradient of the first one through "
            "is there first: backwards take the micro-batches of a group in the order of the forwards."
        )
    elif v > 1 and _group(table, case) > p:
        why = (
            f" On device 0, {_group(table, case)} micro-batches go through chunk 0 before chunk 1 begins; in groups of "
            f"p = {p} the first of them is back from device {p - 1} as soon as the group is through."
        )
    elif [len(shape) - len(shape.lstrip("F")) for shape in shapes] == depths:
        why = (
            f" Device {p - 1} runs its first backward after {depths[-1]} forwards. The warm-up is that long, and then "
            "comes a pair: the forward of a pair goes first, then its backward. Yours has them the other way round, or "
            "a warm-up that is too short by one, which gives the same rows."
        )
    elif any(_first(table, r) < (v - 1) * p for r in range(p)) and v > 1:
        why = (
            f" Micro-batch 0 has to go round the devices v = {v} times before the first backward: that takes at least "
            f"(v - 1) p = {(v - 1) * p} forwards in the warm-up."
        )
    elif 1 < _group(table, case) < p and v > 1:
        why = f" Groups of {_group(table, case)} are not enough to fill the way round p = {p} devices."
    return Finding(found.message + why, found.picture)


def _slow(table: Schedule, case: Case) -> Finding | None:
    """Takes longer than the order of arXiv 2104.04473, at tB = tF or at tB = 2 tF, messages free."""
    p, m, v = sizes_of(case)
    right = right_table(p, m, v)[0]
    for backward in (1, 2):
        costs = Costs(forward=1, backward=backward)
        mine, best = simulate(table, costs).makespan, simulate(right, costs).makespan
        if mine > best + 1e-6:
            return Finding(
                f"{case.words}: that is sound, but with tF = 1 and tB = {backward} it takes {mine:.4g} units; "
                f"interleaved 1F1B takes {best:.4g}. {_why_slow(table, case)}",
                partial(beside, table, p, m, v),
            )
    return None


def _why_slow(table: Schedule, case: Case) -> str:
    p, m, v = sizes_of(case)
    group = _group(table, case)
    shapes = _shapes(table)
    if v > 1 and group < p:
        return (
            f"On device 0 groups of {group} go through chunk 0 before chunk 1; the first of them is back from device "
            f"{p - 1} only after p = {p} slots. In groups of p the device has work until then."
        )
    early = next((r for r, shape in enumerate(shapes) if "BB" in shape.rstrip("B")), None)
    if early is not None:
        return (
            f"On device {early} two backwards come in a row while it still has forwards to run, as by lesson 3's rule, "
            "a backward that is ready goes first. Then the next group's forwards are late, and others wait for them. "
            "Here pairs are fixed: after the warm-up a forward and a backward in turn."
        )
    if len({_first(table, r) for r in range(p)}) == 1 and shapes[0] != "F" * m * v + "B" * m * v:
        return "All devices have the same warm-up; the further down a device is, the sooner its first gradient comes."
    return "A device that waits has nothing that may run: look at the order in which it takes its forwards."


def _heavy(table: Schedule, case: Case) -> Finding | None:
    """Holds more on a device than the order of arXiv 2104.04473."""
    p, m, v = sizes_of(case)
    mine, right = simulate(table), right_table(p, m, v)[1]
    more = [r for r in range(p) if mine.peak_microbatches[r] > right.peak_microbatches[r] + 1e-6]
    if not more:
        return None
    r = max(more, key=lambda r: mine.peak_microbatches[r] - right.peak_microbatches[r])
    shapes = _shapes(table)
    depth = 2 * (p - 1 - r) + (v - 1) * p
    if all(shape == "F" * m * v + "B" * m * v for shape in shapes):
        why = "All forwards before the first backward is GPipe's order, with chunks: it holds the whole batch."
    elif v > 1 and _group(table, case) > p:
        why = (
            f"On device 0, {_group(table, case)} micro-batches go through chunk 0 before chunk 1 begins, and all of "
            f"them wait to go on: what is in flight grows with m. Groups of p = {p} are enough to fill the way round."
        )
    elif _first(table, r) > depth:
        why = f"Its warm-up has {_first(table, r)} forwards; by then its first gradient has been there for a while."
    else:
        why = "A backward that is ready goes before another forward: it frees memory."
    return Finding(
        f"{case.words}: that is sound, but device {r} has {mine.peak_microbatches[r]:.3g} shares in flight; "
        f"interleaved 1F1B has {right.peak_microbatches[r]:.3g} there (all devices: {held(right)}). {why}",
        partial(beside, table, p, m, v),
    )


def _all(parts: Sequence[str]) -> list[Case]:
    return [case for part in parts for case in sized(part, _HELD if part == "in flight" else _SIZES)]


EXERCISE = Exercise(
    name="interleaved",
    lesson="04_interleaved",
    title="Write interleaved 1F1B",
    answers=("interleaved",),
    parts={"sound": 1, "time": 2, "in flight": 1, "gradients": 1},
    visible=[*_all(_PARTS), *sized("gradients", [(4, 2, 2)])],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
