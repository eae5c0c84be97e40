"""That the check's times and memory are those of a pipeline and of rings, and that its best shape is the best."""

from itertools import product
from random import Random

import pytest

from pipelab.schedules import build_schedule
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.lesson_10.choose_shape import (
    EXERCISE,
    _drawn,
    allowed,
    best,
    memory,
    pieces,
    time,
)
from tests.teaching.exercises.trying import assert_reserved, open_parts

CASES = [*EXERCISE.visible, *(case for seed in range(4) for case in _drawn(Random(seed)))]
BEST = [case for case in CASES if case.part == "best shape"]
FITS = {"layers": 8, "layer_parameters": 1e9, "layer_activations": 1e8, "message_bytes": 1e7}
FITS |= {"layer_seconds": 0.01, "fixed_seconds": 0.001}
CLUSTER = {"devices": 8, "node": 4, "memory": 80e9, "inside": 3e11, "between": 2e10}


def ring(ranks, size, link):
    """Hop by hop: n - 1 pieces to add up, n - 1 to hand out."""
    return sum(size / ranks / link for _ in range(2 * (ranks - 1)))


def walked(model, cluster, batch, shape):
    """Seconds of a step and bytes of its first device, layer by layer, with 1F1B's own timeline."""
    dp, pp, tp, m = shape
    size, layers, sent = batch / dp / m, model["layers"] / pp, batch / dp / m * model["message_bytes"]

    def link(ranks):
        nodes = {rank // cluster["node"] for rank in ranks}
        return cluster["inside" if len(nodes) == 1 else "between"]

    each = model["fixed_seconds"] + size * model["layer_seconds"] / tp
    each += sum(ring(tp, sent, link(range(tp))) for _ in ("forward", "backward") for _ in ("attention", "mlp"))
    slot = each * layers + (2 * sent / link(range(0, pp * tp, tp)) if pp > 1 else 0)
    timeline = simulate(build_schedule("1f1b", pp, m), Costs(slot / 3, 2 * slot / 3))
    gradients = 2 * model["layer_parameters"] * layers / tp
    step = timeline.makespan + ring(dp, gradients, link(range(0, dp * pp * tp, pp * tp)))
    held = timeline.peak_microbatches[0] * size * model["layer_activations"]
    return step, (16 * model["layer_parameters"] + held) * layers / tp


@pytest.mark.parametrize(
    "shape", [s for s in product((1, 2, 4), (1, 2, 4), (1, 2, 4, 8), (1, 2, 8)) if s[0] * s[3] < 9]
)
def test_time_and_memory_are_those_of_1f1b_and_of_rings(shape):
    step, held = walked(FITS, CLUSTER, 64, shape)
    assert time(FITS, CLUSTER, 64, shape) == pytest.approx(step)
    assert memory(FITS, 64, shape) == pytest.approx(held)


def search(model, cluster, batch):
    """All numbers, from the largest on down."""
    sizes = range(int(cluster["devices"]), 0, -1)
    found = {}
    for dp, pp, tp in product(sizes, sizes, sizes):
        if dp * pp * tp == cluster["devices"] and model["layers"] % pp == 0:
            for m in range(batch, 0, -1):
                if batch % (dp * m) == 0 and memory_by_hand(model, batch, dp, pp, tp, m) <= cluster["memory"]:
                    found[dp, pp, tp, m] = time_by_hand(model, cluster, batch, dp, pp, tp, m)
    return min(found, key=found.get, default=None)


def memory_by_hand(model, batch, dp, pp, tp, m):
    under_way = min(pp, m) * batch / dp / m
    return model["layers"] / pp / tp * (16 * model["layer_parameters"] + under_way * model["layer_activations"])


def time_by_hand(model, cluster, batch, dp, pp, tp, m):
    size, layers = batch / dp / m, model["layers"] / pp
    near = {
        span: cluster["inside"] if span <= cluster["node"] else cluster["between"]
        for span in (tp, pp * tp, dp * pp * tp)
    }
    slot = layers * (model["fixed_seconds"] + size * model["layer_seconds"] / tp)
    slot += 4 * layers * ring(tp, size * model["message_bytes"], near[tp])
    slot += (pp > 1) * 2 * size * model["message_bytes"] / near[pp * tp]
    return (m + pp - 1) * slot + ring(dp, 2 * layers / tp * model["layer_parameters"], near[dp * pp * tp])


def test_another_search_and_other_sums_are_as_right():
    assert not open_parts(
        "choose_shape",
        device_memory=lambda model, batch, shape: memory_by_hand(model, batch, *shape),
        step_time=lambda model, cluster, batch, shape: time_by_hand(model, cluster, batch, *shape),
        best_shape=search,
    )


@pytest.mark.parametrize("case", BEST[::3], ids=lambda case: case.words)
def test_the_best_shape_is_that_of_a_search_by_hand(case):
    facts = case["_model"], case["_cluster"], case["_batch"]
    found, wanted = search(*facts), best(*facts)
    assert (found is None) == (wanted is None)
    assert found is None or time(*facts, found) == pytest.approx(time(*facts, wanted))


def test_cases_have_many_different_answers():
    answers = {best(case["_model"], case["_cluster"], case["_batch"]) for case in BEST}
    assert None in answers
    assert len(answers) > 8
    for size in range(3):
        assert any(shape and shape[size] > 1 for shape in answers)
    assert any(min(shape[:3]) > 1 for shape in answers if shape)


def test_memory_decides_in_some_cases_and_the_largest_m_is_not_always_best():
    facts = [
        (case["_model"], case["_cluster"], case["_batch"]) for case in EXERCISE.visible if case.part == "best shape"
    ]
    free = [min(allowed(*given), key=lambda shape, given=given: time(*given, shape)) for given in facts]
    chosen = [best(*given) for given in facts]
    assert any(shape and shape != fast for shape, fast in zip(chosen, free, strict=True))
    assert any(shape and 1 < shape[3] < batch // shape[0] for shape, (*_, batch) in zip(chosen, facts, strict=True))


def test_tp_stays_inside_a_node_in_all_cases():
    """As the answer says."""
    for case in BEST:
        shape = best(case["_model"], case["_cluster"], case["_batch"])
        assert shape is None or shape[2] <= case["_cluster"]["node"]


@pytest.mark.parametrize("data", ["x", [], [1, 2], {"a": 1}, [1, 1, 1, 1.5], [0, 1, 1, 1], float("inf")])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    shape = (2, 2, 2, 4)
    assert_reserved(
        lambda: memory(FITS, 64, shape),
        lambda: pieces(FITS, CLUSTER, 64, shape),
        lambda: time(FITS, CLUSTER, 64, shape),
        lambda: best(FITS, CLUSTER, 64),
    )
