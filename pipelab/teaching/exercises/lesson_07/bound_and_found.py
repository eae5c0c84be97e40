"""Exercise of lesson 7: no order takes less than this, and here is one that takes hardly more."""

from __future__ import annotations

from functools import cache, partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import simulate
from pipelab.simulation.search.bound import lower_bound
from pipelab.simulation.search.greedy import build, rules
from pipelab.simulation.search.problem import Problem
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number
from pipelab.teaching.exercises.lesson_07.halves import misshapen, of_halves, read_csv

Given = tuple[int, int, float, float, float]  # p, m, tF, tI, tW
SEARCHED: Given = (4, 8, 10, 14, 6)
HELD, FACTOR = 6, 1.05


def _words(given: Given) -> str:
    return "p = {}, m = {}, tF = {:g}, tI = {:g}, tW = {:g}".format(*given)


def _case(*given: float) -> Case:
    return Case("bound", {"_given": list(given), "_words": _words(given)})  # type: ignore[arg-type]


def _drawn(random: Random) -> list[Case]:
    cases: list[Case] = []
    while len(cases) < 8:
        p = random.randint(2, 5)
        m = random.randint(1, p) if len(cases) % 2 else random.randint(p + 1, 3 * p)
        given = (p, m, random.randint(1, 12), random.randint(1, 12), random.randint(1, 12))
        if close(simulate(quickest(given), of_halves(*given[2:])).makespan, least(given)):
            cases.append(_case(*given))
    return cases


def _problem(given: Given) -> Problem:
    p, m, *times = given
    return Problem.of(range(p), p, m, of_halves(*times))


@reserved
def least(given: Given) -> float:
    """No order takes less."""
    return lower_bound(_problem(given))


@reserved
@cache
def quickest(given: Given) -> Schedule:
    """The quickest table that a greedy rule makes, whatever it holds."""
    problem, best = _problem(given), (float("inf"), Schedule.from_rows([["0F0"]]))
    for rule in rules():
        rows = build(problem, rule)
        timed = problem.timed(rows) if rows is not None else None
        if rows is not None and timed is not None and timed.makespan < best[0]:
            best = timed.makespan, problem.schedule(rows, "found")
        if best[0] <= lower_bound(problem) * (1 + 1e-9):
            break
    return best[1]


def _ask(call: Call, case: Case) -> Any:
    return call("least_makespan", *case["_given"]) if case.part == "bound" else call("found")


def _judge(case: Case, data: Any) -> Finding | None:
    if case.part == "found":
        return _judge_found(case, data)
    given: Given = tuple(case["_given"])
    bound, value = least(given), read_number(data, f"{case.words}: least_makespan")
    if close(value, bound):
        return None
    start = f"{case.words}: least_makespan returned {value:g}. "
    if value > bound:
        run = simulate(quickest(given), of_halves(*given[2:]))
        if value <= run.makespan * (1 + 1e-9):
            return None
        picture = partial(view.plot_schedules, [run], [f"Takes {run.makespan:g}"])
        return Finding(
            f"{start}That is no bound: there is a table that takes {run.makespan:g}. {_counted(given, value)}", picture
        )
    return Finding(f"{start}That is true, but no order takes less than {bound:g} either. {_counted(given, value)}")


def _counted(given: Given, value: float) -> str:
    """Which of the usual formulas it is; else what is missing, or that something is too much."""
    p, m, forward, gradient, weight = given
    whole = forward + gradient + weight
    for other, why in [
        ((m + p - 1) * whole, "You counted 1F1B, whose devices wait for whole backwards."),
        (
            m * whole + (p - 1) * (forward + gradient - weight),
            "You counted ZB-H1 with m >= p. A bound holds for all orders.",
        ),
        (m * whole, "You counted the work of one device. Only device 0 can begin at once."),
        (
            m * whole + (p - 1) * (forward + gradient),
            "You added the way there and the way back to the work. On the way back the last device may run its W's.",
        ),
        (p * (forward + gradient) + weight, "You counted the way of one micro-batch. Each device runs all of them."),
    ]:
        if close(value, other):
            return why
    if value > least(given):
        return "Add only times that must pass one after the other, in any order."
    return _low(given)


def _low(given: Given) -> str:
    """The device that makes the bound, and why."""
    p, m, forward, gradient, weight = given

    def ends(r: int) -> tuple[float, float, float, float]:
        arrives = p * forward + (p - 1 - r) * gradient
        return (r + m) * forward, arrives, m * weight, r * gradient + weight

    def total(r: int) -> float:
        busy, arrives, own, back = ends(r)
        return max(busy, arrives) + m * gradient + max(own, back)

    r = max(reversed(range(p)), key=total)
    busy, arrives, own, back = ends(r)
    before = (
        f"its first F comes at {r * forward:g}, and {m} F and {m} I take {m * (forward + gradient):g}"
        if busy >= arrives
        else f"its first I cannot start before {arrives:g}, and {m} I take {m * gradient:g}"
    )
    after = (
        f"All {m} W may come after that: {own:g}."
        if own >= back
        else f"After its last I there are I on each device before it, and a W on device 0: {back:g}."
    )
    return f"Look at device {r}: {before}. {after}"


def _judge_found(case: Case, data: Any) -> Finding | None:
    p, m, *times = SEARCHED
    table = read_csv(data, "found()", p)
    wrong = misshapen(table, case, p, m)
    if wrong is not None:
        return wrong
    run, bound = simulate(table, of_halves(*times)), least(SEARCHED)
    picture = partial(view.plot_schedules, [run], ["Yours"], memory=True)
    most = max(run.peak_microbatches)
    if most > HELD:
        return Finding(
            f"{case.words}: a device holds {most:g} micro-batches, and at most {HELD} are allowed. Give the search the "
            "limit.",
            picture,
        )
    if run.makespan <= FACTOR * bound:
        return None
    unused = (
        f" No device holds more than {most:g}. More memory is allowed: give search_schedule the limit."
        if most < HELD
        else " Was the search given the times of this exercise?"
    )
    return Finding(
        f"{case.words}: your table takes {run.makespan:g}, which is {run.makespan / bound:.3f} times the bound of "
        f"{bound:g}. At most {FACTOR} times is asked for.{unused}",
        picture,
    )


EXERCISE = Exercise(
    name="bound_and_found",
    lesson="07b_does_it_pay",
    title="Bound and found",
    answers=("least_makespan", "found"),
    parts={"bound": 2, "found": 2},
    visible=[
        _case(1, 2, 1, 1, 1),
        _case(2, 1, 2, 3, 1),
        _case(2, 4, 1, 1, 1),
        _case(3, 2, 2, 3, 4),
        _case(3, 3, 1, 1, 1),
        _case(4, 8, 2, 3, 1),
        _case(4, 8, 3, 2, 4),
        Case("found", {"_words": f"{_words(SEARCHED)}, at most {HELD} micro-batches on a device"}),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
