"""What a step takes: parts that add up, and a makespan that the simulator agrees with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelab import Cluster, Costs, Link, ModelFacts, build_schedule, simulate
from pipelab.tuning.shapes.cost import assumptions, head_time, layer_time, ring, step_time
from pipelab.tuning.shapes.shape import Job, Shape

GPT = ModelFacts.gpt(24, 2048, 16, tokens=1024)
NODE = Cluster.of("a100", 1)


def job(devices: int = 8, batch: int = 64, model: ModelFacts = GPT, **more) -> Job:
    return Job(model, Cluster.of("a100", max(1, devices // 8), per_node=min(8, devices)), batch, **more)


def simulated(of: Job, shape: Shape) -> float:
    """The makespan that the simulator finds for the same layers, head and messages."""
    layer, head = layer_time(of, shape), head_time(of, shape)
    stages = shape.pp * shape.chunks
    small, rest = divmod(of.model.layers, stages)
    counts = [small + (s < rest) for s in range(stages)]
    last = [s == stages - 1 for s in range(stages)]
    forward = [
        n * (layer.forward + layer.tensor) + end * (head.forward + head.tensor)
        for n, end in zip(counts, last, strict=True)
    ]
    backward = [
        n * (layer.backward + layer.again + layer.tensor + layer.tensor_again) + end * (head.backward + head.tensor)
        for n, end in zip(counts, last, strict=True)
    ]
    link = of.cluster.link(*of.group(shape, "pp"))
    sent = shape.microbatch * of.model.tokens * of.model.width * of.model.value_bytes / shape.tp
    schedule = build_schedule(shape.schedule, shape.pp, shape.microbatches, shape.chunks)
    costs = Costs(forward=forward, backward=backward, latency=link.time(sent))
    return simulate(schedule, costs).makespan


@settings(max_examples=20)
@given(
    p=st.sampled_from([1, 2, 3, 4, 6, 8]),
    groups=st.integers(1, 6),
    v=st.sampled_from([1, 1, 2, 3]),
    layers=st.sampled_from([24, 48]),
    recompute=st.sampled_from(["none", "selective", "full"]),
)
def test_the_makespan_of_equal_stages_is_that_of_the_simulator(p, groups, v, layers, recompute):
    shape = Shape(1, p, 1, 1, p * groups, v, recompute)
    of = job(p, p * groups, replace(GPT, layers=layers))
    assume(of.problem(shape) is None)
    time = step_time(of, shape)
    assert time.total - time.update == pytest.approx(simulated(of, shape), rel=0.005)


@pytest.mark.parametrize(
    ("p", "v", "m", "off"), [(4, 1, 8, 0.005), (8, 1, 8, 0.005), (8, 2, 48, 0.02), (8, 2, 8, 0.07)]
)
def test_unequal_stages_are_near_it(p, v, m, off):
    of, shape = job(p, m, replace(GPT, layers=25)), Shape(1, p, 1, 1, m, v)
    time = step_time(of, shape)
    assert time.total - time.update == pytest.approx(simulated(of, shape), rel=off)


@pytest.mark.parametrize(("v", "times"), [(1, 2), (1, 8), (2, 2), (2, 4), (3, 4)])
def test_messages_that_are_longer_than_work_are_not_underrated(v, times):
    of, shape = job(4, 32), Shape(1, 4, 1, 1, 32, v)
    chunk = GPT.layers / 4 / v * layer_time(of, shape).forward
    links = {"inside": Link(times * chunk), "between": Link(times * chunk)}
    of = replace(of, cluster=replace(of.cluster, **links))
    time, real = step_time(of, shape), simulated(of, shape)
    assert 0.999 * real <= time.total - time.update < 1.3 * real


def test_the_bubble_is_the_textbooks_where_a_head_costs_nothing():
    of = job(4, 16, replace(GPT, vocabulary=1))
    assert step_time(of, Shape(1, 4, 1, 1, 16)).bubble_fraction == pytest.approx(3 / 19, abs=0.005)
    assert step_time(of, Shape(1, 4, 1, 1, 16, 2)).bubble_fraction == pytest.approx(3 / 35, abs=0.005)


def test_a_ring_sends_all_but_a_share_and_waits_for_each_round():
    assert ring(Link(0, 10.0), 100, 4) == pytest.approx(100 / 10 * 3 / 4)
    assert ring(Link(2.0, 10.0), 0, 4) == 6
    assert ring(Link(2.0, 10.0), 100, 1) == 0


def test_recomputation_adds_what_it_computes_again():
    none, selective, full = (step_time(job(8), Shape(8, 1, 1, 1, 8, 1, how)) for how in ("none", "selective", "full"))
    assert none.recompute == 0 < selective.recompute < full.recompute
    assert none.compute == selective.compute == full.compute
    forward = GPT.layers * layer_time(job(8), Shape(8, 1, 1, 1, 8)).forward
    assert full.recompute == pytest.approx(8 * forward)


def test_tensor_parallelism_pays_four_all_reduces_a_layer_and_more_between_nodes():
    shape = Shape(1, 1, 8, 1, 64)
    layer, link = layer_time(job(8), shape), NODE.inside
    size = GPT.tokens * GPT.width * 2
    assert layer.tensor == pytest.approx(2 * 2 * 7 / 8 * size / link.bandwidth + 28 * link.latency)
    wide = replace(GPT, heads=32)
    inside = step_time(job(16, model=wide), Shape(2, 1, 8, 1, 32))
    crossing = step_time(job(16, model=wide), Shape(1, 1, 16, 1, 64))
    assert crossing.tensor > 2 * inside.tensor


def test_messages_between_replicas_hide_behind_work_if_they_may():
    shape = Shape(16, 1, 1, 1, 4)
    shown, partly = (step_time(job(16, overlap=kind), shape).data for kind in (False, True))
    assert shown - partly == pytest.approx(GPT.layers * layer_time(job(16), shape).backward)
    assert step_time(job(16), Shape(16, 1, 1, 4, 1)).data == 0
    bandwidth, parameters = 8 * NODE.between.bandwidth, GPT.parameters - GPT.head_parameters
    assert shown == pytest.approx(2 * 15 / 16 * 4 * parameters / bandwidth, rel=0.15)  # and some latency


def test_sharding_further_sends_more_with_many_microbatches():
    of = job(16, overlap=False)
    kinds = ("optimizer", "gradients", "parameters")
    times = [step_time(of, Shape(16, 1, 1, 1, 4, sharding=kind)).data for kind in kinds]
    assert times == sorted(times) and times[0] < times[1] < times[2]


def test_the_parts_add_up_and_the_assumptions_are_sentences():
    time = step_time(job(), Shape(2, 2, 2, 1, 32, sharding="optimizer", recompute="full"))
    assert sum(time.parts.values()) == time.total
    assert all(part >= 0 for part in time.parts.values())
    assert any("65%" in one for one in assumptions(job()))
    assert all(one.endswith(".") for one in (*assumptions(job()), *assumptions(job(overlap=False))))
