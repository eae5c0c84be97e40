"""Exercise of lesson 11: what parareal can gain at most, and into how many slices time is cut best."""

from __future__ import annotations

from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_GAIN, _MOST, _BEST = "speed-up", "most iterations", "best number of slices"
_CALLS = {_GAIN: "speed_up", _MOST: "most_iterations", _BEST: "best_slices"}


def _gain(slices: int, iterations: int, coarse: float, fine: float) -> Case:
    return Case(_GAIN, {"slices": slices, "iterations": iterations, "coarse": coarse, "fine": fine})


def _most(slices: int, coarse: float, fine: float, wanted: float) -> Case:
    return Case(_MOST, {"slices": slices, "coarse": coarse, "fine": fine, "wanted": wanted})


def _best(work: float, iterations: int, coarse: float, limit: int) -> Case:
    return Case(_BEST, {"work": work, "iterations": iterations, "coarse": coarse, "limit": limit})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(6):
        slices = random.randint(4, 40)
        coarse, fine = random.randint(1, 9), random.randint(20, 300)
        cases.append(_gain(slices, random.randint(1, slices), coarse, fine))
    while len(cases) < 12:
        slices, coarse, fine = random.randint(4, 40), random.randint(1, 9), random.randint(20, 300)
        wanted = random.choice((1.5, 2.5, 3.5, 4.5, 12.5))
        exact = (slices * fine / wanted - slices * coarse) / (coarse + fine)
        if abs(exact - round(exact)) > 0.02:
            cases.append(_most(slices, coarse, fine, wanted))
    for _ in range(6):
        iterations = random.randint(1, 5)
        cases.append(_best(random.randint(200, 5000), iterations, random.randint(1, 9), random.choice((8, 16, 32, 64))))
    return cases


def _ask(call: Call, case: Case) -> Any:
    return call(_CALLS[case.part], **case.given)


@reserved
def takes(slices: int, iterations: int, coarse: float, fine: float) -> float:
    """From the first guess to the last correction, with a worker for each slice."""
    return slices * coarse + iterations * (coarse + fine)


@reserved
def gain(slices: int, iterations: int, coarse: float, fine: float) -> float:
    """Against the fine solver alone."""
    return slices * fine / takes(slices, iterations, coarse, fine)


@reserved
def most(slices: int, coarse: float, fine: float, wanted: float) -> int:
    """The most iterations with which the speed-up is at least ``wanted``; 0 if one is too many."""
    return max((k for k in range(1, slices + 1) if gain(slices, k, coarse, fine) >= wanted), default=0)


def _length(slices: int, case: Case) -> float:
    return takes(slices, case["iterations"], case["coarse"], case["work"] / slices)


def _judge(case: Case, data: Any) -> Finding | None:
    return {_GAIN: _of_gain, _MOST: _of_most, _BEST: _of_best}[case.part](case, data)


def _of_gain(case: Case, data: Any) -> Finding | None:
    n, k, c, f = (case[name] for name in ("slices", "iterations", "coarse", "fine"))
    given, wanted = read_number(data, f"{case.words}: speed_up"), gain(n, k, c, f)
    if close(given, wanted):
        return None
    known = [
        (n * f / (k * (n * c + f)), "The first guesses are missing: one coarse sweep before the first iteration."),
        (
            n * f / (n * c + k * (n * c + f)),
            "Each iteration was given a whole coarse sweep. A slice goes on as soon as the one before it is corrected, "
            "so the sweeps overlap, and each iteration adds one coarse and one fine solve.",
        ),
        (n * f / (n * c + k * f), "The corrections are missing: each iteration ends with a coarse solve."),
        (n * f / (k * (c + f)), "The first guesses are missing: they come one after another."),
        (n / k, "That is the bound for coarse solves that take no time."),
        (float(n), "That is as if nothing were repeated, and guesses took no time."),
        (takes(n, k, c, f), "That is the time. The speed-up is the serial time over it."),
        (1 / wanted, "That is the inverse: the serial time comes on top."),
        (f / takes(n, k, c, f), "The serial time was taken for one slice. The fine solver alone does all of them."),
        (n * (c + f) / takes(n, k, c, f), "The fine solver alone needs no coarse solves."),
        (n * f / (n * c + k * n * (c + f)), "All slices were solved one after another. Each has a worker of its own."),
    ]
    start = f"{case.words}: speed_up returned {given:.6g} instead of {wanted:.6g}. "
    return Finding((start + the_only((close(given, value), why) for value, why in known)).rstrip())


def _of_most(case: Case, data: Any) -> Finding | None:
    n, c, f, wanted = (case[name] for name in ("slices", "coarse", "fine", "wanted"))
    given, right = read_whole(data, f"{case.words}: most_iterations"), most(n, c, f, wanted)
    if given == right:
        return None
    start = f"{case.words}: most_iterations returned {given} instead of {right}. "
    if given < 0:
        return Finding(f"{start}If one iteration is too many, return 0.")
    if given > n:
        return Finding(f"{start}After {n} iterations all {n} slices are those of the fine solver. More change nothing.")
    if given > right:
        told = f"With {given} the speed-up is {gain(n, given, c, f):.3g}, below {wanted:g}."
        free = int(n / wanted)
        told += " That is the bound n / k, without the coarse solves." if given == free else ""
        return Finding(start + told)
    return Finding(f"{start}With {right} the speed-up is {gain(n, right, c, f):.3g}, which is still enough.")


def _of_best(case: Case, data: Any) -> Finding | None:
    low, high = case["iterations"], case["limit"]
    given = read_whole(data, f"{case.words}: best_slices")
    if not low <= given <= high:
        why = "more than the workers" if given > high else "fewer slices than iterations"
        return Finding(f"{case.words}: best_slices returned {given}, {why}. It must be from {low} to {high}.")
    right = min(range(low, high + 1), key=lambda n: _length(n, case))
    mine, best = _length(given, case), _length(right, case)
    if close(mine, best):
        return None
    start = f"{case.words}: best_slices returned {given}, which takes {mine:.6g}; {right} slices take {best:.6g}. "
    exact = (case["iterations"] * case["work"] / case["coarse"]) ** 0.5
    known = [
        (high, "Each slice adds a coarse solve before the last one can begin. So the largest number is not best."),
        (low, "More slices make each fine solve shorter."),
        (round((case["work"] / case["coarse"]) ** 0.5), "The iterations are missing: each repeats the fine solve."),
        (int(exact), "The best real number was rounded down. Its upper neighbour is better here."),
        (int(exact) + 1, "The best real number was rounded up. Its lower neighbour is better here."),
    ]
    return Finding((start + next((why for value, why in known if value == given), "")).rstrip())


EXERCISE = Exercise(
    name="parareal_bound",
    lesson="11_pipelines_everywhere",
    title="Parareal's bound",
    answers=tuple(_CALLS.values()),
    parts={_GAIN: 2, _MOST: 1, _BEST: 2},
    visible=[
        _gain(8, 2, 3, 50),
        _gain(4, 1, 1, 20),
        _gain(16, 3, 2, 77),
        _gain(10, 10, 1, 30),
        _most(8, 1, 40, 2.5),
        _most(16, 5, 60, 2.5),
        _most(30, 1, 90, 4.5),
        _most(6, 10, 25, 3.5),
        _best(1000, 2, 7, 64),
        _best(100, 1, 4, 16),
        _best(500, 3, 4, 64),
        _best(900, 2, 2, 16),
        _best(1700, 1, 3, 64),
        _best(60, 2, 8, 32),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
