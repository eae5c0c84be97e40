"""The schedules that a board is measured against, and by which it is recognised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.catalogue import Recipe, build_schedule, recipes
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Schedule
from pipelab.teaching.board.rules import Rules

__all__ = ["known_schedules", "titles_of"]

Order = tuple[tuple[tuple[int, str, int], ...], ...]


@reserved
def known_schedules(rules: Rules) -> tuple[tuple[str, Schedule], ...]:
    """(title, schedule) of all that fit the sizes of ``rules``: the catalogue's, and a few that it does not list.

    Whatever joins the catalogue is here by itself, if its micro-batches are even and its stages live where those of
    ``rules`` do. (Naive is not, but for m = 1: its one micro-batch is the whole batch.) On a board of I and W, a whole
    backward is I with its W right behind, and what overlaps runs one after the other. The others are one micro-batch
    after the other; GPipe with its backwards in reverse order; and with several chunks all forwards before all
    backwards, chunk by chunk (arXiv 2211.05953). They are left out where the catalogue has the same order.
    """
    return tuple((title, schedule) for title, schedule, _ in _known(_bare(rules)))


@reserved
def titles_of(schedule: Schedule, rules: Rules) -> tuple[str, ...]:
    """The known schedules in which every device runs what it runs in ``schedule``.

    Micro-batches may have other names: they are told apart by the order in which stage 0 runs them forward.
    """
    own = _order(schedule)
    return tuple(title for title, _, order in _known(_bare(rules)) if order == own)


def _bare(rules: Rules) -> Rules:
    """What an order is about: the rules without durations and limit."""
    return replace(rules, forward=1, backward=(1, 1) if "W" in rules.ops else 1, limit=None)


@cache
def _known(rules: Rules) -> tuple[tuple[str, Schedule, Order], ...]:
    found: list[tuple[str, Schedule, Order]] = []
    for recipe in recipes().values():
        if _fits(recipe, rules.devices, rules.microbatches, rules.chunks):
            built = build_schedule(recipe.name, rules.devices, rules.microbatches, rules.chunks)
            schedule = _on_a_board(built, rules)
            if schedule is not None:
                title = recipe.title if schedule == built else f"{recipe.title} in single actions"
                found.append((title, schedule, _order(schedule)))
    for title, actions in _unlisted(rules):
        rows: list[list[Action]] = [[] for _ in range(rules.devices)]
        for action in actions:
            rows[rules.home(action)].append(action)
        schedule = Schedule(title, tuple(map(tuple, rows)), rules.placement, (1.0,) * rules.microbatches)
        order = _order(schedule)
        if all(order != other for _, _, other in found):
            found.append((title, schedule, order))
    return tuple(found)


def _fits(recipe: Recipe, p: int, m: int, v: int) -> bool:
    if recipe.chunks is None and recipe.default_chunks > 1 and v == 1:
        return False  # what is made for several chunks has another name where there is one
    return recipe.chunks in (None, v) and recipe.check(p, m, v) is None


def _on_a_board(schedule: Schedule, rules: Rules) -> Schedule | None:
    """The schedule in actions of a board, None if it has others or lives elsewhere."""
    if schedule.weights != (1.0,) * rules.microbatches or schedule.placement != rules.placement:
        return None
    if not schedule.ops <= {*rules.ops, "B"} or any(rules.home(a) != device for device, _, a in schedule.actions()):
        return None
    rows = tuple(
        tuple(
            Action(action.stage, op, action.microbatch)
            for slot in program
            for action in actions_of(slot)
            for op in (rules.ops[1:] if action.op == "B" else action.op)
        )
        for program in schedule.programs
    )
    return replace(schedule, programs=rows) if rows != schedule.programs else schedule


def _unlisted(rules: Rules) -> Iterator[tuple[str, list[Action]]]:
    """Titles, and actions in an order in which they could run one at a time."""
    stages, up = range(rules.stages), range(rules.microbatches)
    forwards = [Action(s, "F", i) for s in stages for i in up]
    if rules.chunks > 1:
        title, late = "Breadth-first", up
    else:
        title, late = "GPipe, backwards in reverse order", up[::-1]
    yield title, [*forwards, *(Action(s, op, i) for s in stages[::-1] for i in late for op in rules.ops[1:])]
    yield "one micro-batch after the other", list(rules.actions())


def _order(schedule: Schedule) -> Order:
    """The programs, with micro-batches numbered in the order in which stage 0 runs them forward."""
    first = [action.microbatch for _, _, action in schedule.actions() if (action.stage, action.op) == (0, "F")]
    number = {i: k for k, i in enumerate(first)}
    rows: list[list[tuple[int, str, int]]] = [[] for _ in schedule.programs]
    for device, _, action in schedule.actions():
        rows[device].append((action.stage, action.op, number.get(action.microbatch, -1)))
    return tuple(map(tuple, rows))
