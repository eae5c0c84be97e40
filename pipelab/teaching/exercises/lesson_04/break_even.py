"""Exercise of lesson 4: how slow may messages be before interleaving stops paying?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import read_number
from pipelab.teaching.exercises.lesson_04.beside_interleaved import size_words

_NEAR = 0.01  # an answer within 1 % is right
_CLOSE = 0.05  # from here on an answer is a search that ended too soon
_EXCHANGED = "Are the two schedules exchanged? The first argument is 1F1B's, the second the interleaved one."
_PARTS = ("tF = tB", "other costs")


def _lead(first: Schedule, second: Schedule, costs: Costs, own: Costs | None = None) -> float:
    """By how much the second schedule is faster. ``own``: other costs for the second."""
    one, two = (simulate(table, cost, check=False) for table, cost in ((first, costs), (second, own or costs)))
    return one.makespan - two.makespan


@reserved
def latency_where_equal(
    first: Schedule, second: Schedule, forward: float, backward: float, scale: float = 1.0
) -> float:
    """The message latency from which on ``second`` is no faster than ``first``.

    ``scale``: as if each action of the second cost that much more than it does (for a mistake that is known).
    """

    def lead(latency: float) -> float:
        costs = Costs(forward=forward, backward=backward, latency=latency)
        own = Costs(forward=scale * forward, backward=scale * backward, latency=latency)
        return _lead(first, second, costs, own)

    low, high = 0.0, forward + backward
    if lead(low) <= 0:
        return 0.0
    while lead(high) > 0:
        low, high = high, 2 * high
        if high > 1e6 * (forward + backward):
            return high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if lead(middle) > 0 else (low, middle)
    return high


def _case(p: int, groups: int, v: int, forward: float, backward: float) -> Case:
    m = groups * p
    part = _PARTS[forward != backward]
    words = f"1F1B against interleaved, {size_words(p, m, v)}, tF = {forward:g}, tB = {backward:g}"
    given = {"devices": p, "groups": groups, "v": v, "tF": forward, "tB": backward, "_words": words}
    first = build_schedule("1f1b", devices=p, microbatches=m)
    second = build_schedule("interleaved", devices=p, microbatches=m, chunks=v)
    return Case(part, {**given, "_first": first.to_csv(), "_second": second.to_csv()})


def _cases(sizes: Sequence[tuple[int, int, int, float, float]]) -> list[Case]:
    return [_case(*size) for size in sizes]


def _drawn(random: Random) -> list[Case]:
    sizes: list[tuple[int, int, int, float, float]] = []
    for equal in (True, False):
        for _ in range(4):
            p, v = random.randint(2, 4), random.randint(2, 3)
            forward = random.choice((0.02, 0.7, 5.0, 30.0)) * random.uniform(0.8, 1.2)
            backward = forward if equal else forward * random.choice((0.5, 1.5, 2.0, 2.5))
            sizes.append((p, random.randint(1, 3), v, round(forward, 4), round(backward, 4)))
    sizes.append((random.choice((5, 6)), random.randint(1, 2), 4, 2.0, random.choice((2.0, 3.0))))
    return _cases(sizes)


def _tables(case: Case) -> tuple[Schedule, Schedule]:
    return Schedule.from_csv(case["_first"], name="1f1b"), Schedule.from_csv(case["_second"], name="interleaved")


def _ask(call: Call, case: Case) -> Any:
    return call("break_even", *_tables(case), case["tF"], case["tB"])


def _judge(case: Case, data: Any) -> Finding | None:
    given = read_number(data, f"{case.words}: break_even")
    first, second = _tables(case)
    forward, backward = case["tF"], case["tB"]
    start = f"{case.words}: break_even returned {given:.4g}. "
    if given <= 0:
        return Finding(
            f"{start}With messages that take no time interleaving is ahead, so the answer is above 0. {_EXCHANGED}"
        )
    if given > 1e6 * (forward + backward):
        return Finding(f"{start}That is longer than any step here. {_EXCHANGED}")

    def lead(latency: float) -> float:
        return _lead(first, second, Costs(forward=forward, backward=backward, latency=latency))

    if lead(given * (1 - _NEAR)) > 0 >= lead(given * (1 + _NEAR)):
        return None
    there = lead(given)
    unsure = 1e-6 * (forward + backward)
    tells = (
        f"At that latency interleaving is still ahead by {there:.4g} units"
        if there > unsure
        else f"At that latency interleaving is already behind by {-there:.4g} units"
        if there < -unsure
        else "At that latency the two are equal, but they are equal before it too"
    )
    why = _ended(given, case, ahead=there > unsure) or _known(given, case)
    return Finding(f"{start}{tells}. {why}", partial(_curves, case, given))


def _ended(given: float, case: Case, ahead: bool) -> str:
    """What is wrong with a search that looks for the right thing; "" if it does not look like one."""
    forward, backward = case["tF"], case["tB"]
    right = latency_where_equal(*_tables(case), forward, backward)
    if abs(given - right) <= _CLOSE * right:
        return "That is close, but not within 1 %: take a finer step, or halve the interval more often."
    ends = {"tF": forward, "tF + tB": forward + backward, "tB": backward}
    end = next((name for name, value in ends.items() if abs(given - value) <= 2e-3 * value), "")
    if ahead and end:
        return (
            f"{given:.4g} is {end}: is it the upper end of your interval? That end has to be a latency at which "
            "interleaving is no longer ahead. Make it larger until it is one."
        )
    return ""


def _known(given: float, case: Case) -> str:
    """Which mistake gives this latency; else a word on how to look for it."""
    p, v, forward, backward = case["devices"], case["v"], case["tF"], case["tB"]
    m = p * case["groups"]
    first, second = _tables(case)
    work = forward + backward
    saved = (p - 1) * work * (1 - 1 / v)
    right = latency_where_equal(first, second, forward, backward)

    def near(value: float) -> bool:
        """Whether a mistake that gives ``value``, which is not nearly right, gave this answer."""
        return abs(given - value) <= 2 * _NEAR * abs(value) and abs(value - right) > _CLOSE * right

    if near(saved / (2 * m * p * (v - 1))):
        return (
            "That is the saved bubble time divided by the number of all added messages. Most messages travel while "
            "devices compute. Only those on the longest path make the step longer."
        )
    if near(saved / (2 * p * (v - 1))):
        return (
            "That is the saved bubble time divided by the messages that are added while the pipeline fills and drains. "
            "GPipe waits for messages only there. 1F1B also waits in its steady phase, so it loses more."
        )
    if near(saved / (2 * (p - 1))) or near(saved / (2 * (p * v - 1))):
        return (
            "That is the saved bubble time divided by the messages on one schedule's way. Both schedules wait for "
            "messages: compare both makespans at the same latency."
        )
    if near(saved):
        return "That is the saved bubble time, as if there were one message. But many messages follow one another."
    if near(latency_where_equal(first, second, forward, backward, scale=1 / v)):
        return (
            "That divides a chunk's cost by v twice. Costs takes the cost of all layers of a device, and divides it "
            "among the chunks itself."
        )
    if backward != 1 and near(latency_where_equal(first, second, forward, 1.0)):
        return "That is the latency for tB = 1, the default of Costs. Give Costs both times."
    if forward != backward and near(latency_where_equal(first, second, forward, forward)):
        return f"That is the latency for tB = tF = {forward:g}. Give Costs both times."
    if forward != 1 and any(near(latency_where_equal(first, second, 1.0, tB)) for tB in (backward / forward, 1.0)):
        return f"That is the latency for tF = 1. The answer is in the unit of the two times, and here tF = {forward:g}."
    return (
        "Simulate both at one latency and look which is ahead. Is your interval wide enough for these times? Is your "
        "step fine enough for an answer within 1 %?"
    )


def _curves(case: Case, given: float) -> view.Picture:
    """Both makespans over the latency, with the latency that was returned in the middle."""
    x = [given * k / 4 for k in range(9)]
    tables = dict(zip(("1F1B", f"interleaved, v = {case['v']}"), _tables(case), strict=True))
    curves = {
        name: [
            simulate(table, Costs(forward=case["tF"], backward=case["tB"], latency=at), check=False).makespan
            for at in x
        ]
        for name, table in tables.items()
    }
    return view.plot_curves(
        [round(at, 6) for at in x],
        curves,
        across="latency of a message, in the unit of the two times",
        up="makespan, same unit",
        title="Where do the two meet?",
        note=f"Predicted. The latency that you returned, {given:.4g}, is in the middle.",
    )


EXERCISE = Exercise(
    name="break_even",
    lesson="04b_what_it_costs",
    title="When does interleaving stop paying?",
    answers=("break_even",),
    parts={"tF = tB": 2, "other costs": 2},
    visible=_cases(
        [
            (2, 1, 2, 1, 1),
            (2, 2, 2, 1, 1),
            (4, 1, 2, 1, 1),
            (4, 2, 2, 1, 1),
            (3, 2, 3, 40, 40),
            (3, 1, 2, 3, 2),  # tF is not 1 and tB not twice that: mistakes differ at once
            (2, 2, 2, 1, 2),
            (4, 1, 2, 1, 2),
            (4, 2, 2, 0.01, 0.02),
        ]
    ),
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
