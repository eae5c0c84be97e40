"""What all six exercises share: figures and verdict are judged apart, and both verdicts occur."""

from random import Random

import pytest

from pipelab.schedules.reserved import reserve
from pipelab.teaching.exercises.lesson_12 import (
    EXERCISES,
    best_size,
    busier,
    held_by_rule,
    idle_time,
    mean_gradient,
    recompute_price,
)
from pipelab.teaching.exercises.lesson_12.evidence import EVIDENCE, VERDICT
from tests.teaching.exercises.trying import assert_reserved

MODULES = (busier, idle_time, held_by_rule, recompute_price, mean_gradient, best_size)
each = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.EXERCISE.name)


def verdict(module, case):
    return module._holds(case, module.truth(case))


def said(module, part, data):
    case = next(case for case in module.EXERCISE.visible if case.part == part)
    finding = module.EXERCISE.verdict(case, {"data": data})
    return None if finding is None else finding.message


def test_there_are_six():
    assert tuple(module.EXERCISE for module in MODULES) == EXERCISES


@each
def test_claims_are_true_in_some_cases_and_false_in_others(module):
    """Otherwise a constant verdict would earn the point."""
    assert {verdict(module, case) for case in module.EXERCISE.visible} == {True, False}
    drawn = [case for seed in range(3) for case in module.EXERCISE.drawn(Random(seed))]
    assert {verdict(module, case) for case in drawn} == {True, False}


@each
def test_each_part_is_earned_without_the_other(module):
    case = module.EXERCISE.visible[0]
    figures, true = module.truth(case), verdict(module, case)
    assert said(module, EVIDENCE, [figures, "no verdict"]) is None
    assert said(module, VERDICT, [["no", "figures"], true]) is None
    assert "your verdict is" in said(module, VERDICT, [figures, not true])
    assert "your figures are" in said(module, EVIDENCE, [[figure + 1 for figure in figures], true])


@each
def test_rounding_costs_nothing(module):
    case = module.EXERCISE.visible[0]
    figures = [figure * (1 + 1e-9) for figure in module.truth(case)]
    assert said(module, EVIDENCE, [figures, True]) is None


@each
@pytest.mark.parametrize("data", [3, "0", {"a": 1}, [1, 2, 3], [[1.0], True, True]])
def test_what_is_no_pair_gets_a_sentence(module, data):
    for part in (EVIDENCE, VERDICT):
        assert "should return two things" in said(module, part, data)


@each
def test_a_verdict_that_is_no_truth_value_and_too_few_figures_get_a_sentence(module):
    assert "should be True or False" in said(module, VERDICT, [[0.0], 1])
    assert "should have" in said(module, EVIDENCE, [[], True])


@each
def test_the_reference_refuses_while_a_learners_function_runs(module):
    assert_reserved(lambda: module.truth(module.EXERCISE.visible[0]))


@each
def test_the_asking_side_knows_no_truth(module):
    """While a notebook is graded the catalogue is closed in the whole kernel, not in the learner's calls alone."""
    (name,) = module.EXERCISE.answers
    with reserve("graded"):
        for case in module.EXERCISE.cases(seed=None):
            assert module.EXERCISE.ask(lambda called, *args: (called, len(args)), case)[0] == name
