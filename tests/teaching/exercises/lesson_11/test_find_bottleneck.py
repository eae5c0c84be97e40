"""That the figures of the check are those of a flow that is predicted."""

from random import Random

import pytest

from pipelab.flow import Flow, Resource, Stage
from pipelab.teaching.exercises.lesson_11.find_bottleneck import EXERCISE, _drawn, enough, loads_of
from tests.teaching.exercises.trying import assert_reserved

CASES = [*EXERCISE.visible, *(case for seed in range(3) for case in _drawn(Random(seed)))]


def predicted(stages, resources, items=300):
    """Milliseconds between two items of a long run."""
    made = {
        name: Resource(name, workers=r["workers"], kind="disk" if r["bandwidth"] else "core")
        for name, r in resources.items()
    }
    costs = {s["name"]: float(s["ms"] or s["kilobytes"] / resources[s["on"]]["bandwidth"]) for s in stages}
    flow = Flow(*(Stage(s["name"], len, made[s["on"]], buffer=None) for s in stages))
    return flow.predict(items, costs).makespan / items


@pytest.mark.parametrize("case", CASES[::4], ids=lambda case: case.part)
def test_a_flow_keeps_the_pace_of_its_bottleneck(case):
    stages, resources = case["_stages"], case["_resources"]
    assert predicted(stages, resources) == pytest.approx(max(loads_of(stages, resources).values()), rel=0.05)


@pytest.mark.parametrize("case", [case for case in CASES if case.part == "enough workers"], ids=lambda case: case.words)
def test_enough_workers_are_the_fewest_that_leave_it_to_another_resource(case):
    stages, resources, pool = case["_stages"], case["_resources"], case["_pool"]

    def pace(workers):
        return max(loads_of(stages, resources | {pool: {**resources[pool], "workers": workers}}).values())

    right = enough(stages, resources, pool)
    assert pace(right) == pytest.approx(pace(1000))
    assert right == 1 or pace(right - 1) > pace(right)


def test_there_is_one_bottleneck_in_each_case():
    for case in CASES:
        loads = sorted(loads_of(case["_stages"], case["_resources"]).values())
        assert loads[-1] > loads[-2] + 1e-6 or case.part == "enough workers"


@pytest.mark.parametrize("data", [None, [], float("nan"), {"a": 1}, "x"])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    case = EXERCISE.visible[0]
    given = case["_stages"], case["_resources"]
    assert_reserved(lambda: loads_of(*given), lambda: enough(*given, "core"))
