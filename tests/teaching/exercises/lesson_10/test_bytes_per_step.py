"""That the check counts what rings and pipelines really send."""

from itertools import pairwise
from random import Random

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import simulate
from pipelab.teaching.exercises.lesson_10.bytes_per_step import EXERCISE, _drawn, _facts, _shape, sent
from tests.teaching.exercises.trying import assert_reserved

CASES = [*EXERCISE.visible, *(case for seed in range(3) for case in _drawn(Random(seed)))]


def scattered(n, size):
    """Bytes that a device sends in a ring until each has the sum of one piece, hop by hop."""
    return sum(size / n for _ in range(n - 1))


def gathered(n, size):
    """Bytes that a device sends in a ring until each has all pieces."""
    have, sends = {0}, 0
    while len(have) < n:
        sends += size / n
        have.add(len(have))
    return sends


def walked(case):
    """The same, step by step: one micro-batch and one layer after the other."""
    model, shape, total = case["_model"], case["_shape"], 0.0
    dp, pp, tp, m = (shape[name] for name in ("dp", "pp", "tp", "m"))
    activation = shape["batch"] // (dp * m) * model["tokens"] * model["width"] * model["number_bytes"]
    layer = model["layer_parameters"] * model["number_bytes"] / tp
    for microbatch in range(m):
        for _ in range(model["layers"] // pp):
            if case.part == "tensor parallel":
                total += sum(scattered(tp, activation) + gathered(tp, activation) for _ in range(4))
            elif case.part == "ZeRO-3":
                total += 2 * gathered(dp, layer) + scattered(dp, layer)
            elif case.part == "data parallel" and microbatch == m - 1:
                total += scattered(dp, layer) + gathered(dp, layer)
        if case.part == "pipeline":
            line = [s % pp for s in range(pp * shape["v"])]
            pairs = list(pairwise(line))
            total += activation * sum(a == case["_device"] != b for a, b in [*pairs, *((b, a) for a, b in pairs)])
    return total


def test_the_counts_are_those_of_a_walk_through_the_step():
    for case in CASES:
        assert sent(case.part, case["_model"], case["_shape"], case["_device"]) == pytest.approx(walked(case)), case


@pytest.mark.parametrize(("name", "v"), [("1f1b", 1), ("interleaved", 2)])
def test_a_schedule_sends_as_many_messages(name, v):
    model, shape = _facts(8, 1, 1, 1, 1), _shape(1, 4, 1, 4, v)
    table = build_schedule(name, 4, 4, v) if v > 1 else build_schedule(name, 4, 4)
    messages = simulate(table).messages
    for device in range(4):
        assert sum(m.source == device for m in messages) == sent("pipeline", model, shape, device)


def test_drawn_cases_divide_evenly():
    for case in CASES:
        model, shape = case["_model"], case["_shape"]
        assert shape["batch"] % (shape["dp"] * shape["m"]) == 0
        assert model["layers"] % (shape["pp"] * (shape["v"] if case.part == "pipeline" else 1)) == 0


def test_zero3_sends_less_than_tensor_parallelism_where_micro_batches_are_large():
    """As the answer says: weights do not depend on the batch."""
    model = _facts(48, 8192, 2048, 12 * 8192**2, 2)
    for m, less in ((1, True), (64, False)):
        small = _shape(8, 1, 1, m) | {"batch": 512}
        whole = _shape(1, 1, 8, m) | {"batch": 64}
        assert (sent("ZeRO-3", model, small, 0) < sent("tensor parallel", model, whole, 0)) == less


@pytest.mark.parametrize("data", ["x", None, [], float("nan"), {"a": 1}])
def test_what_is_no_number_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_reference_refuses_while_a_learners_function_runs():
    case = EXERCISE.visible[0]
    assert_reserved(lambda: sent(case.part, case["_model"], case["_shape"], 0))
