"""What the checks of lesson 5 accept, and that their truth is the simulator's."""

import math
from random import Random

import numpy as np
import pytest

from pipelab.errors import PipelabError
from pipelab.schedules import build_schedule
from pipelab.schedules.reserved import reserve
from pipelab.simulation import simulate
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_05 import _least_squares, best_of, makespan
from pipelab.teaching.exercises.lesson_05_frozen import COUNTS, FAMILIES, LATENCIES, forecasts, simulated
from pipelab.teaching.exercises.lesson_05_reading import (
    _1F1B_OF_FOUR,
    _BOTH_VARY,
    _GPIPE_OF_FOUR,
    _SLOW_ARITHMETIC,
    lost,
    rate,
    reasons_for,
)
from pipelab.teaching.exercises.lesson_05_verdict import LIMITS, OTHERS, fastest, find, losses, reason_for
from pipelab.teaching.grading.check import try_parts
from pipelab.tuning.lines import fit_line
from pipelab.tuning.profile import CostProfile


def open_parts(name, seed=3, **answers):
    return {part for part, finding in try_parts(exercise(name), answers, seed).items() if finding is not None}


# ---- the line -----------------------------------------------------------------------------------------------------


def polyfit(batch, timings):
    b, t = np.array([(batch / m, t) for m, t in timings]).T
    beta, alpha = np.polyfit(b, t, 1)
    return alpha, beta


def relative(batch, timings):
    line = fit_line([(batch / m, t) for m, t in timings])
    return [line.alpha, line.beta]


def medians(batch, timings):
    by_size = {}
    for m, t in timings:
        by_size.setdefault(batch / m, []).append(t)
    line = fit_line([(b, sorted(t)[len(t) // 2]) for b, t in by_size.items()])
    return np.array([line.alpha, line.beta])


def relative_without_the_slow_first_run(batch, timings):
    return relative(batch, timings[1:] if len(timings) > 6 else timings)


def means(batch, timings):
    by_size = {m: [t for size, t in timings if size == m] for m, _ in timings}
    return polyfit(batch, [(m, sum(t) / len(t)) for m, t in by_size.items()])


def without_the_slow_first_run(batch, timings):
    return polyfit(batch, [pair for pair in timings if pair[0] < max(m for m, _ in timings) or len(timings) < 7])


RIGHT_FITS = [
    polyfit,
    relative,
    medians,
    means,
    without_the_slow_first_run,
    relative_without_the_slow_first_run,
]


@pytest.mark.parametrize("fit", RIGHT_FITS)
@pytest.mark.parametrize("seed", range(4))
def test_any_sensible_fit_counts(fit, seed):
    assert not open_parts("straight_line", seed, fit=fit)


@pytest.mark.parametrize("seed", range(4))
def test_two_points_and_the_origin_never_count(seed):
    def ends(batch, timings):
        points = sorted((batch / m, t) for m, t in timings)
        (x, y), (u, v) = points[0], points[-1]
        beta = (v - y) / (u - x)
        return y - beta * x, beta

    def origin(batch, timings):
        return 0, sum(t for _, t in timings) / sum(batch / m for m, _ in timings)

    for case in exercise("straight_line").cases(seed)[2:]:
        if case.part == "measured":
            pairs = [tuple(pair) for pair in case["_timings"]]
            for answer in (ends(case["batch"], pairs), origin(case["batch"], pairs)):
                assert exercise("straight_line").judge(case, list(answer)) is not None


def through(points, i, j):
    (x, y), (u, v) = points[i], points[j]
    beta = (v - y) / (u - x) if u != x else 0.0
    return [y - beta * x, beta]


@pytest.mark.parametrize("seed", range(4))
def test_no_two_timings_make_the_line(seed):
    """Whichever two are picked, by their place from either end, some case on the page refuses."""
    straight = exercise("straight_line")
    cases = {"visible": [], "all": []}
    for case in straight.cases(seed):
        if case.part == "measured":
            points = [(case["batch"] / m, t) for m, t in case["_timings"]]
            cases["all"].append((case, points))
            if case in straight.visible:
                cases["visible"].append((case, points))
    passed = {"visible": 0, "all": 0}
    places = [(i, j) for i in range(-10, 10) for j in range(-10, 10) if i != j]
    for kind, tried in cases.items():
        for i, j in places:
            passed[kind] += all(straight.judge(case, through(points, i, j)) is None for case, points in tried)
    assert passed["visible"] == 0
    assert passed["all"] == 0


# ---- m* and slices ------------------------------------------------------------------------------------------------


def neighbours(p, batch, alpha, beta, multiple):
    star = math.sqrt((p - 1) * beta * batch / alpha)
    below = min(max(math.floor(star / multiple), 1), batch // multiple) * multiple
    above = min(below + multiple, batch // multiple * multiple)
    return min((below, above), key=lambda m: (m + p - 1) * (alpha + beta * batch / m))


def test_the_formula_is_the_simulators_makespan():
    line = CostProfile.shipped().line()
    for p, m in ((2, 5), (4, 8), (3, 2)):
        for name in ("gpipe", "1f1b"):
            units = simulate(build_schedule(name, p, m)).makespan / 2  # tF = tB = 1
            assert units * line(64 / m) == pytest.approx(makespan(m, p, 64, line.alpha, line.beta))


def test_the_neighbours_of_m_star_are_enough_and_numpy_numbers_count():
    def star(p, batch, alpha, beta):
        return np.float64(math.sqrt((p - 1) * beta * batch / alpha))

    assert not open_parts("best_m", m_star=star, choose_m=lambda *given: np.int64(neighbours(*given)))


def test_m_star_may_be_rounded_to_two_decimals_and_be_an_array_of_one():
    def star(p, batch, alpha, beta):
        return round(math.sqrt((p - 1) * beta * batch / alpha), 2)

    for seed in range(4):
        answers = {"m_star": star, "choose_m": lambda *given: np.array([neighbours(*given)])}
        assert not open_parts("best_m", seed, **answers)


@pytest.mark.parametrize("rule", ["p", "rounded", "4p", "sqrt"])
def test_no_rule_of_thumb_passes_all_cases(rule):
    def star(p, batch, alpha, beta):
        right = math.sqrt((p - 1) * beta * batch / alpha)
        wrong = {"p": math.sqrt(p * beta * batch / alpha), "rounded": round(right), "4p": 4 * p}
        return wrong.get(rule, math.sqrt(batch))

    def choose(p, batch, alpha, beta, multiple):
        wanted = round(star(p, batch, alpha, beta)) if rule in ("4p", "sqrt") else batch
        return min(max(wanted // multiple, 1) * multiple, batch // multiple * multiple)

    assert open_parts("best_m", m_star=star, choose_m=choose) == {"the optimum", "a feasible m"}


def test_slices_may_come_from_numpy():
    def sizes(batch, m):
        return np.array([len(part) for part in np.array_split(np.arange(batch), m)])

    assert not open_parts("slices", sizes=sizes, loss_weights=lambda batch, m: sizes(batch, m) / batch)


# ---- sweeps -------------------------------------------------------------------------------------------------------


def test_the_frozen_table_is_the_shipped_profiles():
    rows = {(row["schedule"], row["m"], row["latency"]): row for row in forecasts()}
    assert set(rows) == {(family, m, latency) for family in FAMILIES for m in COUNTS for latency in LATENCIES}
    for family, m, latency in Random(5).sample(sorted(rows), 24):
        row = rows[family, m, latency]
        for key, value in simulated(family, m, latency=latency).items():
            assert row[key] == pytest.approx(value, abs=0.11)


def test_the_frozen_sweeps_are_the_shipped_profiles():
    for family, rows, factors in (
        ("1f1b", _SLOW_ARITHMETIC, (0.25, 2.0)),
        ("gpipe", _GPIPE_OF_FOUR, (1.0, 1.0)),
        ("1f1b", _1F1B_OF_FOUR, (1.0, 1.0)),
        ("1f1b", _BOTH_VARY, (1.0, 1.0)),
    ):
        for m, batch, *figures in rows:
            found = simulated(family, m, batch, alpha=factors[0], beta=factors[1])
            assert figures == pytest.approx(list(found.values()), abs=0.11)


def by_side(rows, limit):
    """The reasons by the side on which a row lies: what the lesson says."""
    fitting = [row for row in rows if row["peak"] <= limit]
    best = max(fitting, key=lambda row: row["batch"] / row["step"])
    told = {}
    both_vary = len({row["batch"] for row in rows}) > 1 < len({row["batch"] / row["m"] for row in rows})
    for row in rows:
        side = "Bubble" if row["m"] < best["m"] else "granularity"
        if both_vary:  # then the side says nothing
            idle, busy = (
                row["step"] / row["batch"] * share(row["idle"]) - best["step"] / best["batch"] * share(best["idle"])
                for share in (lambda part: part, lambda part: 100 - part)
            )
            side = "Bubble" if idle > busy else "granularity"
        told[str(row["m"])] = "memory" if row["peak"] > limit else side
    return [best["m"], told]


@pytest.mark.parametrize("seed", range(3))
def test_reasons_may_come_from_the_side_and_keys_as_text(seed):
    assert not open_parts("reading", seed, read_sweep=by_side)


def test_keys_may_be_tensors():
    torch = pytest.importorskip("torch")

    def read(rows, limit):
        m, told = by_side(rows, limit)
        return torch.tensor(m), {torch.tensor(int(key)): word for key, word in told.items()}

    assert not open_parts("reading", read_sweep=read)


@pytest.mark.parametrize("seed", range(6))
def test_in_some_sweep_the_whole_step_misleads(seed):
    """Where batch and micro-batch both vary, splitting the step and not a sequence's time gives a wrong reason."""
    for case in exercise("reading").cases(seed):
        rows, limit = case["_rows"], case["limit"]
        if len({row["batch"] for row in rows}) == 1 or len({row["batch"] / row["m"] for row in rows}) == 1:
            continue
        best = max((row for row in rows if row["peak"] <= limit), key=rate)
        told = {}
        for row in rows:
            idle = row["step"] * row["idle"] - best["step"] * best["idle"]
            busy = row["step"] * (100 - row["idle"]) - best["step"] * (100 - best["idle"])
            told[row["m"]] = "bubble" if idle > busy else "granularity"
        wrong = [row for row in rows if told[row["m"]] not in (reasons_for(row, best, limit) or told.values())]
        assert [row for row in wrong if row["peak"] <= limit], case.words
        assert max(row["m"] for row in rows if row["peak"] <= limit) != best["m"]


def test_any_choice_within_5_percent_counts():
    def second(rows, limit):
        fitting = sorted((row for row in rows if row["peak"] <= limit), key=lambda row: row["step"] / row["batch"])
        best = fitting[0]["batch"] / fitting[0]["step"]
        near = [row for row in fitting if row["batch"] / row["step"] * 1.05 >= best]
        told = dict(by_side(rows, limit)[1])
        told.pop(str(near[-1]["m"]), None)
        return near[-1]["m"], told

    assert not open_parts("reading", read_sweep=second)


# ---- the verdict --------------------------------------------------------------------------------------------------


def test_every_reason_is_clear():
    """No named configuration loses about as much for another reason."""
    named = set()
    for (limit, latency), others in OTHERS.items():
        for other in others:
            row = find(*other, latency)
            reason = reason_for(row, limit)
            named.add(reason)
            if reason == "memory":
                assert row["peak"] > 1.05 * limit
            else:
                first, second, *_ = sorted(losses(row, fastest(limit, latency)).values(), reverse=True)
                assert first > 1.5 * max(second, 1)
                assert row["peak"] < 0.98 * limit
                assert row["step"] > 1.05 * fastest(limit, latency)["step"]
    assert named == {"memory", "messages", "recompute", "bubble", "granularity"}


def test_the_four_cases_have_four_answers():
    best = {key: fastest(*key) for key in OTHERS}
    assert {(row["schedule"], row["m"]) for row in best.values()} == {
        ("1f1b", 8),
        ("1f1b", 13),
        ("gpipe", 8),
        ("gpipe + R", 8),
    }
    assert set(OTHERS) == {(limit, latency) for limit in LIMITS for latency in LATENCIES}


def test_an_answer_may_be_looked_up_by_hand_and_name_reasons_in_a_dict():
    choice = {(120, 0): ("GPipe", 8), (42, 0): ("1f1b", 14.0), (120, 10): ("gpipe", 6), (42, 10): ("gpipe+R", 8)}

    def defend(limit, latency, others):
        reasons = {other: reason_told(other, limit, latency) for other in others}
        return [*choice[limit, latency], reasons]

    told = {key: [reason_for(find(*other, key[1]), key[0]) for other in others] for key, others in OTHERS.items()}

    def reason_told(other, limit, latency):
        return told[limit, latency][OTHERS[limit, latency].index(other)].upper()

    assert not open_parts("defend", defend=defend)


def test_reasons_may_be_a_numpy_array():
    choice = {(120, 0): ("1f1b", 8), (42, 0): ("1f1b", 13), (120, 10): ("gpipe", 8), (42, 10): ("gpipe + R", 8)}
    told = {key: [reason_for(find(*other, key[1]), key[0]) for other in others] for key, others in OTHERS.items()}
    assert not open_parts(
        "defend", defend=lambda limit, latency, _: (*choice[limit, latency], np.array(told[limit, latency]))
    )


def test_references_refuse_while_a_learners_function_runs():
    row = find("1f1b", 8, 0)
    with reserve("this exercise"):
        for fetch in (
            lambda: best_of(2, 8, 1.0, 1.0),
            lambda: reason_for(row, 42),
            lambda: fastest(42, 0),
            lambda: losses(row, row),
            lambda: lost(row, row),
            lambda: rate({"batch": 1, "step": 1}),
            lambda: reasons_for(row, row, 42),
            lambda: makespan(1, 1, 1, 1.0, 1.0),
            lambda: _least_squares([(1, 1), (2, 2)], lambda y: 1.0),
        ):
            with pytest.raises(PipelabError, match="does not answer here"):
                fetch()
        assert forecasts()  # data that learners are given
