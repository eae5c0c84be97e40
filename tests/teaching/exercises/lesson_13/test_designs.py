"""That the three designs' good tables are real, and that solutions have room for bad luck with the draw."""

from __future__ import annotations

from random import Random

import pytest

from pipelab import build_schedule, check_schedule, simulate
from pipelab.teaching.exercises.lesson_13 import half_the_memory, reach_1f1b, slow_link
from pipelab.teaching.grading.check import try_parts
from tests.teaching.course.test_exercises import solved
from tests.teaching.exercises.trying import assert_reserved, findings

MODULES = {module.EXERCISE.name: module for module in (reach_1f1b, half_the_memory, slow_link)}


def asked(name, case):
    module = MODULES[name]
    if name == "slow_link":
        return module.asked(*slow_link._setting(case))
    return module.asked(case["p"], case["m"])


@pytest.mark.parametrize("name", MODULES)
def test_a_good_table_is_between_the_bound_and_the_plain_one(name):
    for case in MODULES[name].EXERCISE.cases(seed=2):
        one = asked(name, case)
        assert one.goal.bound <= one.good * (1 + 1e-9)
        assert one.good <= one.plain
        assert one.good < one.plain or case["m"] == 1


@pytest.mark.parametrize("name", ["half_the_memory", "slow_link"])
@pytest.mark.parametrize("seed", range(3))
def test_the_solution_gets_there_whatever_is_drawn(name, seed):
    answers = solved(name)
    assert [finding for finding in try_parts(MODULES[name].EXERCISE, answers, seed=seed + 10).values() if finding] == []


def test_the_good_tables_are_those_that_the_page_names():
    one = reach_1f1b.asked(4, 8)
    assert one.good == simulate(build_schedule("1f1b", 4, 8), reach_1f1b.COSTS).makespan == 33
    two = half_the_memory.asked(4, 8)
    half = build_schedule("v-half", 4, 8)
    assert two.good == simulate(half, half_the_memory.COSTS).makespan
    assert max(simulate(half, half_the_memory.COSTS).peak_microbatches) == two.goal.limits[0] < 4
    assert tuple(home for (home,) in half.placement) == two.homes
    assert check_schedule(half) == []


def test_more_of_the_way_earns_more_parts():
    """ZB-H1 of the catalogue knows nothing of messages and further memory: it gets a part of the way."""
    rows = {}
    for p, m in {(case["p"], case["m"]) for case in slow_link.EXERCISE.visible}:
        rows[p, m] = [list(map(str, row)) for row in build_schedule("zb-h1", p, m).programs]
    found = findings("slow_link", lambda p, m, *rest: rows[p, m], seed=None)
    assert "sound" not in found
    assert "% of the way, and this part asks for 75%" in found["three quarters"]


def test_drawn_cases_leave_room_for_1f1b():
    for seed in range(20):
        for case in slow_link._drawn(Random(seed)):
            assert case["limit"] >= min(case["p"], case["m"])


def test_references_do_not_answer_while_a_learner_is_asked():
    case = slow_link.EXERCISE.visible[0]
    assert_reserved(
        lambda: reach_1f1b.asked(2, 2), lambda: half_the_memory.asked(2, 2), lambda: asked("slow_link", case)
    )
