"""That the check's formulas are what a line of stages does, item by item, and what it accepts."""

from random import Random

import pytest

from pipelab.teaching.exercises.lesson_11.latency_and_throughput import EXERCISE, _drawn, ends, truth
from tests.teaching.exercises.trying import assert_reserved, open_parts

DRAWN = [case for seed in range(5) for case in _drawn(Random(seed))]


def by_grid(times, arrivals):
    """End of item i at stage s, each from its two neighbours in a table."""
    table = [[0.0] * len(arrivals) for _ in range(len(times) + 1)]
    table[0] = list(arrivals)
    for s, time in enumerate(times, start=1):
        for i in range(len(arrivals)):
            table[s][i] = max(table[s - 1][i], table[s][i - 1] if i else 0.0) + time
    return table[-1]


def many(times):
    """Results per second, from the distance of two late ones."""
    left = by_grid(times, [0.0] * 60)
    return 1 / (left[-1] - left[-2])


def test_a_table_of_ends_is_as_right_as_the_formulas():
    assert not open_parts(
        "latency_and_throughput",
        latency=lambda times: by_grid(times, [0.0])[0],
        rate=many,
        speed_up=lambda times, n: n * sum(times) / by_grid(times, [0.0] * n)[-1],
        stream_latency=lambda times, i, every: by_grid(times, [k * every for k in range(i + 1)])[-1] - i * every,
    )


@pytest.mark.parametrize("case", DRAWN, ids=lambda case: case.words)
def test_the_truth_is_the_closed_form(case):
    times, more = case["_times"], case["_more"]
    forms = {
        "latency": lambda: sum(times),
        "rate": lambda: 1 / max(times),
        "speed_up": lambda n: n * sum(times) / (sum(times) + (n - 1) * max(times)),
        "stream_latency": lambda i, every: sum(times) + i * max(0, max(times) - every),
    }
    assert truth(case["_function"], times, *more) == pytest.approx(forms[case["_function"]](*more))


def test_streams_are_drawn_on_both_sides_of_what_the_slowest_stage_can_take():
    sides = [case["_more"][1] < max(case["_times"]) for case in DRAWN if case["_function"] == "stream_latency"]
    assert any(sides)
    assert not all(sides)


@pytest.mark.parametrize("data", ["x", None, [], [1, 2], {"a": 1}, float("inf")])
def test_what_is_no_number_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: ends([1], [0]), lambda: truth("latency", [1]))
