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
from pipelab.teaching.exercises.lesson_04.beside_interleaved import (
    beside,
    group_of,
    group_words,
    held,
    other_groups,
    right_table,
    sized,
    sizes_of,
)
from pipelab.teaching.exercises.lesson_04.depths import depths_of

_SIZES = [(2, 2, 2), (2, 4, 2), (3, 3, 2), (3, 6, 2), (4, 4, 2), (4, 8, 2), (3, 6, 3), (4, 8, 1)]
# All forwards first is another table than a warm-up that is too deep only where m > p: there the two are told apart.
_HELD = [(2, 4, 2), (2, 2, 2), *_SIZES[2:]]
_OTHER = [(3, 5, 2), (2, 3, 2), (4, 10, 2), (3, 8, 3), (4, 3, 2), (3, 2, 2)]
_PARTS = ("sound", "time", "in flight")


def _drawn(random: Random) -> list[Case]:
    cases = []
    for part in _PARTS:
        groups = [(random.randint(2, 5), random.randint(1, 3), random.randint(2, 4)) for _ in range(3)]
        groups += [
            (random.randint(2, 5), random.randint(2, 4), 1),
            (1, random.randint(2, 4), random.randint(2, 3)),
            (random.randint(2, 4), random.choice((4, 5)), random.randint(2, 3)),
            (random.randint(2, 4), 2, random.choice((5, 6))),
            (random.randint(3, 5), 3, 2),
        ]
        cases += sized(part, [*((p, p * k, v) for p, k, v in groups), (8, 16, 2)])
    p = random.choice((2, 3, 4))
    return [
        *cases,
        *sized("other groups", [*other_groups(random), *other_groups(random)]),
        *sized("gradients", [(p, 2 * p, random.choice((2, 3)))]),
    ]


def _ask(call: Call, case: Case) -> Any:
    return call("interleaved", *sizes_of(case))


def _judge(case: Case, data: Any) -> Finding | None:
    p, m, v = sizes_of(case)
    table = read_table(data, f"interleaved({p}, {m}, {v})", p)
    found = _strange(table, case) or _misplaced(table, case) or _lacking(table, case) or _unsound(table, case)
    if found is None and case.part in ("time", "other groups", "gradients"):
        found = _slow(table, case)
    if found is None and case.part in ("in flight", "other groups", "gradients"):
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
            groups = f" They should make {group_words(p, m)} at p = {p}." if m % p else ""
            why = f"{case.words}: device {device} runs {action}, but there are micro-batches 0..{m - 1}.{groups}"
            return Finding(why)
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
    """Whether each group comes back, on the last stage, in the reverse of the order in which it went through."""
    p, m, v = sizes_of(case)
    g = group_of(p, m)
    ways = [[a.microbatch for a in _order(table, p - 1, op) if a.stage == p * v - 1] for op in "FB"]
    forth, back = ([way[first : first + g] for first in range(0, m, g)] for way in ways)
    return p > 1 and forth == [group[::-1] for group in back]


def _unsound(table: Schedule, case: Case) -> Finding | None:
    found = unsound(table, case)
    if found is None:
        return None
    p, m, v = sizes_of(case)
    g = group_of(p, m)
    back = [_order(table, r, "B") for r in range(p)]
    shapes = _shapes(table)
    depths = [min(w, m * v) for w in depths_of(p, m, v)]
    why = ""
    if v > 1 and any(row and row[0].stage // p < v - 1 for row in back):
        why = (
            " The gradient comes to the last chunk first and goes up through the chunks in reverse: chunk "
            f"{v - 1} before chunk {v - 2}."
        )
    elif _backwards_reversed(table, case):
        why = (
            " Within a group, yours runs the backwards in reverse order. The gradient of the first micro-batch comes "
            "first, so the backwards of a group keep the order of its forwards."
        )
    elif v > 1 and _group(table, case) > g:
        why = (
            f" On device 0, {_group(table, case)} micro-batches go through chunk 0 before chunk 1 begins; m = {m} "
            f"should make {group_words(p, m)} at p = {p}."
        )
    elif [len(shape) - len(shape.lstrip("F")) for shape in shapes] == depths:
        why = (
            f" Device {p - 1} runs its first backward after {depths[-1]} forwards. The warm-up is that long, and after "
            "it comes a pair: in a pair the forward goes first, then its backward. Yours has the two the other way "
            "round, or its warm-up is too short by one, which gives the same rows."
        )
    elif any(_first(table, r) < (v - 1) * g for r in range(p)) and v > 1:
        why = (
            f" Micro-batch 0 has to go round the devices v = {v} times before the first backward. With groups of {g} "
            f"that takes at least (v - 1) g = {(v - 1) * g} forwards in the warm-up."
        )
    elif 1 < _group(table, case) < g and v > 1:
        why = f" Your groups have {_group(table, case)} members; m = {m} should make {group_words(p, m)} at p = {p}."
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
    group, g = _group(table, case), group_of(p, m)
    shapes = _shapes(table)
    if v > 1 and group < g:
        return (
            f"On device 0 your groups of {group} go through chunk 0 before chunk 1, but the first of them is back from "
            f"device {p - 1} only after p = {p} slots. In groups of {g} the device has more work until then."
        )
    early = next((r for r, shape in enumerate(shapes) if "BB" in shape.rstrip("B")), None)
    if early is not None:
        return (
            f"On device {early} two backwards come in a row while it still has forwards to run, as by lesson 3's rule: "
            "a backward that is ready goes first. Then the next group's forwards are late, and other devices wait for "
            "them. Here the pairs are fixed: after the warm-up a forward and a backward in turn."
        )
    if len({_first(table, r) for r in range(p)}) == 1 and shapes[0] != "F" * m * v + "B" * m * v:
        return "All devices have the same warm-up; the further down a device is, the sooner its first gradient comes."
    return "A device waits because the next action in its row cannot run yet: look at the order of its forwards."


def _heavy(table: Schedule, case: Case) -> Finding | None:
    """Holds more on a device than the order of arXiv 2104.04473."""
    p, m, v = sizes_of(case)
    mine, right = simulate(table), right_table(p, m, v)[1]
    more = [r for r in range(p) if mine.peak_microbatches[r] > right.peak_microbatches[r] + 1e-6]
    if not more:
        return None
    r = max(more, key=lambda r: mine.peak_microbatches[r] - right.peak_microbatches[r])
    shapes, g = _shapes(table), group_of(p, m)
    depth = 2 * (p - 1 - r) + (v - 1) * g
    if all(shape == "F" * m * v + "B" * m * v for shape in shapes):
        why = "All forwards before the first backward: that is GPipe's order, with chunks. It holds the whole batch."
    elif v > 1 and _group(table, case) > g:
        why = (
            f"On device 0, {_group(table, case)} micro-batches go through chunk 0 before chunk 1 begins, and all of "
            f"them wait to go on: what is in flight grows with m. {group_words(p, m)} are enough."
        )
    elif _first(table, r) > depth:
        why = f"Its warm-up has {_first(table, r)} forwards; by then its first gradient has been there for a while."
    else:
        why = "A backward that is ready should go before another forward, because it frees memory."
    return Finding(
        f"{case.words}: that is sound, but device {r} has {mine.peak_microbatches[r]:.3g} shares in flight. "
        f"Interleaved 1F1B has {right.peak_microbatches[r]:.3g} there (all devices: {held(right)}). {why}",
        partial(beside, table, p, m, v),
    )


def _all(parts: Sequence[str]) -> list[Case]:
    return [case for part in parts for case in sized(part, _HELD if part == "in flight" else _SIZES)]


EXERCISE = Exercise(
    name="interleaved",
    lesson="04_interleaved",
    title="Write interleaved 1F1B",
    answers=("interleaved",),
    parts={"sound": 1, "time": 2, "in flight": 1, "other groups": 1, "gradients": 1},
    visible=[*_all(_PARTS), *sized("other groups", _OTHER), *sized("gradients", [(4, 8, 2)])],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
