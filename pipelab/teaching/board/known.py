"""The schedules that a board is measured against, and by which it is recognised."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from pipelab.schedules.action import Action
from pipelab.schedules.catalogue import Recipe, build_schedule, recipes, round_robin
from pipelab.schedules.reserved import reserved
from pipelab.schedules.schedule import Program, Schedule
from pipelab.teaching.board.rules import Rules

__all__ = ["known_schedules", "titles_of"]

Order = tuple[tuple[tuple[int, str, int], ...], ...]


@reserved
def known_schedules(rules: Rules) -> tuple[tuple[str, Schedule], ...]:
    """(title, schedule) of all that fit the sizes of ``rules``: the catalogue's, and a few that it does not list.

    Whatever joins the catalogue is here by itself, if its actions are F and B of even micro-batches with stage s on
    device s mod p. (Naive is not, but for m = 1: its one micro-batch is the whole batch.) The others are one
    micro-batch after the other; GPipe with its backwards in reverse order; and with several chunks all forwards before
    all backwards, chunk by chunk (arXiv 2211.05953). They are left out where the catalogue has the same order.
    """
    return tuple((title, schedule) for title, schedule, _ in _known(rules.devices, rules.microbatches, rules.chunks))


@reserved
def titles_of(schedule: Schedule, rules: Rules) -> tuple[str, ...]:
    """The known schedules in which every device runs what it runs in ``schedule``.

    Micro-batches may have other names: they are told apart by the order in which stage 0 runs them forward.
    """
    own = _order(schedule)
    return tuple(title for title, _, order in _known(rules.devices, rules.microbatches, rules.chunks) if order == own)


@cache
def _known(p: int, m: int, v: int) -> tuple[tuple[str, Schedule, Order], ...]:
    found: list[tuple[str, Schedule, Order]] = []
    for recipe in recipes().values():
        if _fits(recipe, p, m, v):
            schedule = build_schedule(recipe.name, p, m, v)
            if _on_a_board(schedule, p, m, v):
                found.append((recipe.title, schedule, _order(schedule)))
    for title, programs in _unlisted(p, m, v):
        schedule = Schedule(title, programs, round_robin(p, v), (1.0,) * m)
        order = _order(schedule)
        if all(order != other for _, _, other in found):
            found.append((title, schedule, order))
    return tuple(found)


def _fits(recipe: Recipe, p: int, m: int, v: int) -> bool:
    if recipe.chunks is None and recipe.default_chunks > 1 and v == 1:
        return False  # what is made for several chunks has another name where there is one
    return recipe.chunks in (None, v) and recipe.check(p, m, v) is None


def _on_a_board(schedule: Schedule, p: int, m: int, v: int) -> bool:
    even = schedule.weights == (1.0,) * m and schedule.placement == round_robin(p, v)
    return even and all(
        isinstance(slot, Action) and slot.op in "FB" for program in schedule.programs for slot in program
    )


def _unlisted(p: int, m: int, v: int) -> Iterator[tuple[str, tuple[Program, ...]]]:
    def programs(forwards: list[tuple[int, int]], backwards: list[tuple[int, int]]) -> tuple[Program, ...]:
        return tuple(
            (
                *(Action(c * p + r, "F", i) for c, i in forwards),
                *(Action(c * p + r, "B", i) for c, i in backwards),
            )
            for r in range(p)
        )

    chunks, up = range(v), range(m)
    ahead = [(c, i) for c in chunks for i in up]
    if v > 1:
        yield "Breadth-first", programs(ahead, [(c, i) for c in reversed(chunks) for i in up])
    else:
        yield "GPipe, backwards in reverse order", programs(ahead, ahead[::-1])
    each = [programs([(c, i) for c in chunks], [(c, i) for c in reversed(chunks)]) for i in up]
    serial = tuple(tuple(slot for one in each for slot in one[r]) for r in range(p))
    yield "one micro-batch after the other", serial


def _order(schedule: Schedule) -> Order:
    """The programs, with micro-batches numbered in the order in which stage 0 runs them forward."""
    first = [action.microbatch for _, _, action in schedule.actions() if (action.stage, action.op) == (0, "F")]
    number = {i: k for k, i in enumerate(first)}
    rows: list[list[tuple[int, str, int]]] = [[] for _ in schedule.programs]
    for device, _, action in schedule.actions():
        rows[device].append((action.stage, action.op, number.get(action.microbatch, -1)))
    return tuple(map(tuple, rows))
