"""Exercise of lesson 5: m* by the formula, with recomputation too, and the best m that can be run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import as_lists, close, read_number, read_whole

NEAR = 1.05  # a step that is at most 5 % longer than the shortest counts as best


@reserved
def makespan(m: float, p: int, batch: int, alpha: float, beta: float) -> float:
    """T(m), the formula of the lesson."""
    return (m + p - 1) * (alpha + beta * batch / m)


@reserved
def best_of(p: int, batch: int, alpha: float, beta: float, multiple: int = 1) -> int:
    """The m with the least T(m) among the multiples that are no larger than the batch."""
    return min(range(multiple, batch + 1, multiple), key=lambda m: makespan(m, p, batch, alpha, beta))


def _m_cases(part: str, cases: Sequence[tuple[int, int, float, float, int]]) -> list[Case]:
    made = []
    for p, batch, alpha, beta, multiple in cases:
        words = f"p = {p}, B = {batch}, alpha = {alpha:g}, beta = {beta:g}"
        if part != "the optimum":
            words += f", multiples of {multiple}"
        given = {"devices": p, "batch": batch, "alpha": alpha, "beta": beta, "multiple": multiple, "_words": words}
        made.append(Case(part, given))
    return made


def _again_cases(cases: Sequence[tuple[int, int, float, float, float, float]]) -> list[Case]:
    made = []
    for p, batch, alpha, beta, alpha_r, beta_r in cases:
        words = f"p = {p}, B = {batch}, alpha = {alpha:g}, beta = {beta:g}, alpha_r = {alpha_r:g}, beta_r = {beta_r:g}"
        given = {"devices": p, "batch": batch, "alpha": alpha, "beta": beta, "_r": [alpha_r, beta_r], "_words": words}
        made.append(Case("with recomputation", given))
    return made


def _drawn_m(random: Random) -> list[Case]:
    cases: list[tuple[int, int, float, float, int]] = []
    for k in range(10):
        p, batch = random.randint(2, 12), random.choice((24, 60, 64, 100, 256, 1000))
        beta = round(random.uniform(0.2, 4), 3)
        ratio = random.choice((0.02, 0.5, 3, 20, 200)) * random.uniform(0.7, 1.4)  # alpha over beta
        cases.append((p, batch, round(beta * ratio, 4), beta, random.choice((2, p)) if k % 2 else 1))
    part = random.uniform(0.2, 0.5)  # of alpha and of beta: the forward's
    again = [(*case[:4], round(part * case[2], 4), round(part * case[3], 4)) for case in cases[:5]]
    return [*_m_cases("the optimum", cases), *_m_cases("a feasible m", cases), *_again_cases(again)]


def _ask_m(call: Call, case: Case) -> Any:
    given = case["devices"], case["batch"], case["alpha"], case["beta"]
    if case.part == "with recomputation":
        return call("m_star_recomputed", *given, *case["_r"])
    return call("m_star", *given) if case.part == "the optimum" else call("choose_m", *given, case["multiple"])


def _judge_m(case: Case, data: Any) -> Finding | None:
    p, batch, alpha, beta = case["devices"], case["batch"], case["alpha"], case["beta"]
    if isinstance(as_lists(data), list) and len(as_lists(data)) == 1:  # an array of one number
        data = as_lists(data)[0]
    if case.part == "the optimum":
        given, right = read_number(data, f"{case.words}: m_star"), math.sqrt((p - 1) * beta * batch / alpha)
        if _near(given, right):
            return None
        return Finding(f"{case.words}: m_star returned {given:.5g}. {_star_mistake(given, p, batch, alpha, beta)}")
    if case.part == "with recomputation":
        given = read_number(data, f"{case.words}: m_star_recomputed")
        if _near(given, math.sqrt((p - 1) * beta * batch / (alpha + case["_r"][0]))):
            return None
        return Finding(f"{case.words}: m_star_recomputed returned {given:.5g}. {_again_mistake(given, case)}")
    m = read_whole(data, f"{case.words}: choose_m")
    start, multiple = f"{case.words}: choose_m returned {m}. ", case["multiple"]
    if m < 1:
        return Finding(start + "m* may be below 1, but there is always at least one micro-batch.")
    if m > batch:
        why = f"A batch of {batch} sequences cannot be cut into {m} micro-batches. Where m* is too large, take the"
        return Finding(f"{start}{why} largest m that is possible.")
    if m % multiple:
        return Finding(f"{start}That is not a multiple of {multiple}.")
    best = best_of(p, batch, alpha, beta, multiple)
    mine, least = (makespan(k, p, batch, alpha, beta) for k in (m, best))
    if mine <= NEAR * least:
        return None
    tells = f"T({m}) is {mine:.4g} ms, {mine / least - 1:.0%} longer than T({best}) = {least:.4g} ms."
    return Finding(f"{start}{tells} {_choice_mistake(m, case, best)}")


def _near(given: float, right: float) -> bool:
    """Two decimals will do."""
    return abs(given - right) <= max(0.004 * right, 0.00501)


def _again_mistake(given: float, case: Case) -> str:
    p, batch, alpha, beta, (alpha_r, beta_r) = *(case[k] for k in ("devices", "batch", "alpha", "beta")), case["_r"]

    def star(fixed: float, each: float) -> float:
        return math.sqrt((p - 1) * each * batch / fixed)

    known = (
        (
            star(alpha, beta),
            "That is m* without recomputation. Each further micro-batch now also pays the fixed cost of a second "
            "forward.",
        ),
        (
            star(alpha + alpha_r, beta + beta_r),
            "That counts the second forward in the bubble too. A device can run it while it waits, so the bubble is "
            "still p - 1 times t(b).",
        ),
        (
            star(alpha, beta + beta_r),
            "beta_r is paid for every sequence once, however the batch is cut. It adds to the work and does not move "
            "m*. alpha_r does.",
        ),
        (star(alpha_r, beta), "That leaves out alpha: the first forward and the backward have a fixed cost too."),
        (star(alpha + alpha_r, beta_r), "The bubble is p - 1 times t(b), so the beta under the root is that of t(b)."),
    )
    for value, why in known:
        if close(given, value, 1e-3):
            return why
    return (
        "At m* the two terms of T that move are equal: (alpha + alpha_r) m, and (p - 1) beta B / m. At yours they are "
        f"{(alpha + alpha_r) * given:.4g} and {(p - 1) * beta * batch / given if given else math.inf:.4g}."
    )


def _star_mistake(given: float, p: int, batch: int, alpha: float, beta: float) -> str:
    inside = (p - 1) * beta * batch / alpha
    star = math.sqrt(inside)
    if p == 1:
        return (
            "With one device there is no bubble to share out, because p - 1 = 0. T only rises with m, so it is least "
            "at m* = 0. (Only choose_m has to return an m that can be run.)"
        )
    if given in (math.floor(star), math.ceil(star), batch if star > batch else None):
        return "m* need not be a whole number, and it has no limits. Rounding is for choose_m."
    known = (
        (
            math.sqrt(p * beta * batch / alpha),
            f"That has p where p - 1 belongs. The bubble lasts p - 1 = {p - 1} micro-batches.",
        ),
        (math.sqrt((p - 1) * beta / alpha), "The batch B is missing. A micro-batch has b = B/m sequences."),
        (inside, "The root is missing. The slope of T is alpha - (p - 1) beta B / m², which has m squared."),
        (
            math.sqrt((p - 1) * alpha * batch / beta),
            "Alpha and beta have changed places. A larger fixed cost asks for fewer micro-batches.",
        ),
        (
            math.sqrt(beta * batch / alpha),
            "p - 1 is missing. More devices make a longer bubble, which asks for more micro-batches.",
        ),
        ((p - 1) * math.sqrt(beta * batch / alpha), "p - 1 belongs under the root too."),
        (
            (p - 1 + math.sqrt((p - 1) ** 2 + 4 * inside)) / 2,
            "At that m, alpha m is as long as the whole bubble. But (p - 1) alpha, a part of the bubble, does not move "
            "with m. Compare alpha m with the other part alone, (p - 1) beta B / m.",
        ),
        (
            batch / star,
            "That is B/m*, the sequences in a micro-batch. The question is for m*, the number of micro-batches.",
        ),
        (math.sqrt((p - 1) * batch / alpha), "Beta is missing. One more sequence in a micro-batch costs beta."),
        (math.sqrt(batch), "The root of B is a rule of thumb. It ignores p and what an action costs."),
        (4.0 * p, "4p is a place to start. It ignores alpha and beta."),
        (float(batch), "m = B has the smallest bubble, but it pays alpha for every sequence."),
    )
    for value, why in known:
        if close(given, value, 1e-4):
            return why
    return (
        "At m* the two terms of T that move are equal, alpha m and (p - 1) beta B / m. At yours they are "
        f"{alpha * given:.4g} and {(p - 1) * beta * batch / given if given else math.inf:.4g}."
    )


def _choice_mistake(m: int, case: Case, best: int) -> str:
    p, batch, multiple = case["devices"], case["batch"], case["multiple"]
    possible = range(multiple, batch + 1, multiple)
    divisors = [k for k in possible if batch % k == 0]
    if p == 1:
        return "With one device there is no bubble, and each further micro-batch pays the fixed cost once more."
    told = "Left of m* there are too few micro-batches to share the bubble."
    if m > best:
        told = "Right of m* the fixed cost is paid too often."
    if m == possible[-1] and m > best:
        told += " The largest m has the smallest bubble, but it pays the fixed cost most often."
    if m == 4 * p:
        told += " 4p is only a place to start."
    if batch % best and m == min(divisors, key=lambda k: _formula(k, case), default=multiple):
        told += " Note that m need not divide the batch."
    if m == round(math.sqrt(batch)):
        told += " The root of B ignores p, alpha and beta."
    if m in (_below(case), _below(case) + multiple):
        told += " m* lies between two values that can be run. Compare T at both, instead of always rounding one way."
    return told


def _formula(m: float, case: Case) -> float:
    return makespan(m, case["devices"], case["batch"], case["alpha"], case["beta"])


def _below(case: Case) -> int:
    """The largest multiple that is at most m*."""
    star = math.sqrt((case["devices"] - 1) * case["beta"] * case["batch"] / case["alpha"])
    return math.floor(star / case["multiple"]) * int(case["multiple"])


_WORKED = (4, 64, 4.44, 1.57, 1)


EXERCISE = Exercise(
    name="best_m",
    lesson="05_choosing_m",
    title="Find m*",
    answers=("m_star", "choose_m", "m_star_recomputed"),
    parts={"the optimum": 1, "a feasible m": 1, "with recomputation": 1},
    visible=[
        *_m_cases("the optimum", [(3, 20, 2.5, 4.0, 1), _WORKED, (8, 512, 3.0, 0.2, 1), (1, 32, 2.0, 1.0, 1)]),
        *_m_cases(
            "a feasible m",
            [
                (3, 20, 2.5, 4.0, 1),
                _WORKED,
                (1, 32, 2.0, 1.0, 1),  # m* = 0
                (8, 6, 0.1, 5.0, 1),  # m* beyond the batch
                (3, 40, 60.0, 0.3, 1),  # m* below 1
                (8, 512, 3.0, 0.2, 8),
                (4, 64, 30.0, 0.5, 4),  # m* below 4
                (4, 10, 0.1, 5.0, 4),  # 8 is the largest multiple
                (2, 12, 12.0, 1.2, 1),  # m* = 1.1
                (2, 12, 4.0, 1.2, 1),  # m* = 1.9
                (3, 13, 1.0, 1.5, 1),  # no m divides the batch but 1 and 13
            ],
        ),
        *_again_cases([(2, 16, 3.0, 1.0, 1.0, 0.5), (4, 64, 4.44, 1.57, 1.5, 0.55), (8, 512, 3.0, 0.2, 1.2, 0.08)]),
    ],
    drawn=_drawn_m,
    ask=_ask_m,
    judge=_judge_m,
)
