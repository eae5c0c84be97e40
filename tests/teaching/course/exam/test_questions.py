"""Each template, for many settings: the answer is the formula's that a learner can know, and slips are told apart."""

from __future__ import annotations

from math import sqrt
from random import Random

import pytest

from pipelab import build_schedule, check_schedule
from pipelab.schedules.reserved import ReservedError, reserve
from pipelab.teaching.course.exam.drawn import QUESTIONS
from pipelab.teaching.course.exam.question import PART
from pipelab.teaching.course.rules.prose import prose_faults, sentences
from pipelab.teaching.exercises.definition import Case

NAMED = {question.name: question for question in QUESTIONS}
each = pytest.mark.parametrize("question", QUESTIONS, ids=NAMED)


def settings(question, count=6):
    return [question.draw(Random(f"{question.name} {k}")) for k in range(count)]


def verdict(question, given, answer):
    exercise = question.exercise("exam_0_1", "exam_0", 1, given)
    return exercise.verdict(Case(PART, given), {"data": answer})


@each
def test_the_answer_earns_the_points_also_as_it_is_printed(question):
    for given in settings(question):
        truth = question.truth(given)
        assert verdict(question, given, truth) is None
        shown = question.shown(truth)
        assert verdict(question, given, shown if isinstance(truth, str) else float(shown)) is None


@each
def test_each_slip_is_refused_with_its_own_sentence_and_the_reason(question):
    seen, options = set(), set()
    for given in settings(question, 4):
        told = {}
        for value, why in question.slips(given):
            told.setdefault(question.shown(value), (value, why))
            options.add(why)
        for value, why in told.values():
            finding = verdict(question, given, value if isinstance(value, str) or question.digits else round(value))
            if finding is not None:
                assert question.why(given) in finding.message
                seen |= {why} if why in finding.message else set()
    assert bool(seen) == bool(options), "no usual mistake is told apart"


@each
def test_what_is_no_answer_is_told_what_is_asked_for(question):
    given = settings(question)[0]
    for nothing in ("blue", None, [1], True):
        assert verdict(question, given, nothing) is not None
    if options := question.options(given):
        assert f"should be one of {', '.join(options)}" in verdict(question, given, "blue").message
        assert verdict(question, given, f" {question.truth(given).upper()} ") is None


@each
def test_it_is_drawn_without_the_catalogue_which_is_closed_beside_the_learners_code(question):
    with reserve("an examination"):
        settings(question)


@each
def test_its_words_name_all_that_is_needed(question):
    for given in settings(question, 3):
        words = f"{question.ask(given)} {question.form(given)}."
        assert words.count("?") == 1
        assert prose_faults(sentences(f"{words} {question.why(given)}")) == []
        for name, value in given.items():
            if (
                isinstance(value, int)
                and not name.startswith("_")
                and name not in ("layers", "tokens", "sequences", "m")
            ):
                assert str(value) in words, name
        assert len(question.why(given)) > 20


def bubble(given):
    return 100 * (given["p"] - 1) / (given["m"] + given["p"] - 1)


def makespan(given):
    each = given["tF"] + given["tB"]
    return given["m"] * each + (given["p"] - 1) * each / given.get("v", 1)


def slot(given):
    return given["p"] + 2 * given["micro-batch"] + given["p"] - 1 - given["device"]


def held(given):
    count = given["m"] if given["schedule"] == "gpipe" else min(given["p"] - given["device"], given["m"])
    return count * given["batch"] / given["m"]


def version(given):
    p, s, i, every = given["p"], given["stage"], given["micro-batch"], given["_every"]
    behind = {"pipedream": i - (p - 1 - s), "vertical-sync": i - (p - 1), "2bw": i // every - 1}
    return max(0, behind[given["method"]])


def zero(given):
    p, m, tF, tI, tW = (given[name] for name in ("p", "m", "tF", "tI", "tW"))
    return m * (tF + tI + tW) + (p - 1) * (tF + tI - tW)


def latency(given):
    p, m = given["p"], given["m"]
    return (m + p - 1) * (given["tF"] + given["tB"]) + 2 * (p - 1) * given["latency"]


FORMULAS = {
    "bubble": bubble,
    "makespan": makespan,
    "slot": slot,
    "first": lambda given: given["p"] - given["device"],
    "held": held,
    "place": lambda given: given["layer"] // (given["layers"] // (given["p"] * given["v"])) % given["p"],
    "messages": lambda given: 2 * given["m"] * (given["p"] * given.get("v", 1) - 1),
    "zero": zero,
    "states": lambda given: (
        given["billions"] * {"Adam": 16, "SGD with momentum": 12, "plain SGD": 8}[given["optimizer"]] / given["p"]
    ),
    "version": version,
    "latency": latency,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_the_package_computes_what_the_lessons_formula_says(name):
    question = NAMED[name]
    for given in settings(question, 15):
        assert question.truth(given) == pytest.approx(FORMULAS[name](given)), given


def test_near_the_best_m_the_curve_is_flat_and_a_neighbour_is_as_good():
    question = NAMED["star"]
    for given in settings(question):
        best = sqrt((given["p"] - 1) * given["beta"] * given["batch"] / given["alpha"])
        for m in (max(1, int(best)), min(given["batch"], int(best) + 1)):
            if abs(m - best) < 0.6:
                assert verdict(question, given, m) is None, (given, best, m)
        assert verdict(question, given, 10 * given["batch"]) is not None


def test_of_two_choices_that_take_the_same_time_both_are_right():
    question, given = NAMED["fits"], {"p": 4, "batch": 32, "limit": 16, "alpha": 3, "beta": 1}
    times = {m: (m + 3) * (3 + 32 / m) for m in (4, 8, 16)}  # device 0 holds p/m of the batch
    assert times[4] == 77 == times[8]
    assert times[16] > 77
    right = [one for one in question.options(given) if verdict(question, given, one) is None]
    assert right == ["1f1b, m = 8"], "m = 4 holds the whole batch"
    given["limit"] = 32
    assert [one for one in question.options(given) if verdict(question, given, one) is None] == [
        "1f1b, m = 4",
        "1f1b, m = 8",
    ]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: one.name)
def test_what_knows_the_answer_does_not_tell_it_while_a_learners_function_runs(question):
    given = question.draw(Random(1))
    exercise = question.exercise("exam_1_1", "exam_1", 1, given)
    rows = build_schedule("1f1b", 2, 2)

    def asked(name, *_):
        for work in (question.truth, question.why, question.slips):
            with pytest.raises(ReservedError):
                work(given)
        with pytest.raises(ReservedError):
            check_schedule(rows)
        return 0

    with reserve("this is an examination"):
        exercise.ask(asked, exercise.visible[0])
