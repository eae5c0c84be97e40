"""plan_cuts against all cuts."""

import math
from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab import ConfigurationError, Link, Links, build_schedule, plan_cuts, simulate
from pipelab.tuning import CostProfile
from pipelab.tuning.planning.layers import Layers
from tests.fuzz.cases import fuzzed
from tests.tuning.planning.synthetic import layer_profile

costs = st.lists(st.integers(1, 9).map(float), min_size=4, max_size=9)
NAMES = ("1f1b", "gpipe", "naive")


def simulated(profile, schedule, bounds, batch, speeds=(), **link):
    made = Layers(profile).cut(bounds, schedule.devices, speeds)
    return simulate(schedule, made.costs(batch, **link), batch=batch)


@st.composite
def linked(draw, devices):
    """One link for all devices, nodes, or a link for each pair."""
    packed = st.sampled_from([None, "bf16", "int8"])
    one = st.builds(Link, st.sampled_from([0.0, 0.5, 4.0]), st.sampled_from([0.5, 4.0, math.inf]), packed)
    a, b = draw(one), draw(one)
    pairs = st.fixed_dictionaries(dict.fromkeys(permutations(range(devices), 2), one))
    alike = [
        st.just(Links(a.latency, a.bandwidth, compression=a.compression)),
        st.just(Links.nodes(2, inside=a, between=b)),
    ]
    return draw(st.one_of(*alike, pairs.map(lambda found: Links(pairs=found))))


@settings(max_examples=60, deadline=None)
@given(costs, st.sampled_from(NAMES), st.integers(2, 3), st.integers(1, 6), st.data())
def test_least_of_all(layers, name, devices, microbatches, data):
    speeds = data.draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=devices, max_size=devices))
    any_order, links = data.draw(st.booleans()), data.draw(linked(devices))
    profile = layer_profile(layers, once=0.25, sent=1.0)
    kinds = {"schedule": name, "microbatches": 1 if name == "naive" else microbatches, "batch": 12, "links": links}
    plan = plan_cuts(profile, devices, speeds=speeds, any_order=any_order, **kinds)
    schedule = build_schedule(name, devices, kinds["microbatches"])
    found = [
        simulated(
            *(profile, schedule, (0, *inner, len(layers)), 12, [speeds[r] for r in order]),
            links=Links(pairs={(a, b): links.of(order[a], order[b]) for a, b in permutations(range(devices), 2)}),
        )
        for inner in combinations(range(1, len(layers)), devices - 1)
        for order in permutations(range(devices))
        if any_order or order == tuple(range(devices))
    ]
    assert plan.exact
    longest = min(1.02 * min(timeline.makespan for timeline in found), plan.even.makespan) * (1 + 1e-9)
    near = [(max(timeline.busy), timeline.makespan) for timeline in found if timeline.makespan <= longest]
    assert (max(plan.timeline.busy), plan.makespan) == pytest.approx(min(near))
    assert plan.bound <= plan.makespan * (1 + 1e-9)
    assert plan.least == pytest.approx(min(max(timeline.busy) for timeline in found))
    assert plan.gain >= -1e-12


@fuzzed(
    *(st.lists(st.integers(1, 9).map(float), min_size=12, max_size=20), st.sampled_from(["1f1b", "interleaved"])),
    few=6,
    many=30,
)
def test_never_worse_than_even(layers, name):
    chunks = 2 if name == "interleaved" else 1
    plan = plan_cuts(layer_profile(layers, once=0.1), 4, schedule=name, chunks=chunks, microbatches=4, batch=8)
    bounds = [0, *plan.cuts, len(layers)]
    assert all(a < b for a, b in pairwise(bounds))
    assert plan.gain >= -1e-12
    assert plan.bound <= plan.makespan * (1 + 1e-9)
    again = simulated(layer_profile(layers, once=0.1), plan.schedule, bounds, 8)
    assert plan.makespan == pytest.approx(again.makespan)


def test_a_bound_counts_each_backward_once_where_some_are_whole_and_some_are_cut():
    plan = plan_cuts(layer_profile([1.0] * 6, split=True), 3, schedule="dualpipev", microbatches=6, batch=6)
    assert {"B", "I", "W"} <= set(plan.schedule.ops)
    assert plan.bound <= plan.makespan * (1 + 1e-9)


def test_what_is_hardly_shorter_does_not_pay_for_a_worse_balance():
    """Story: for 1.3 % a device of half speed got 4 of 48 layers, and idled while two others had 15."""
    plan = plan_cuts(layer_profile([1.0] * 48), 4, microbatches=8, batch=8, speeds=[1, 1, 0.5, 1])
    assert plan.sizes == (14, 14, 6, 14)
    assert max(plan.timeline.busy) == pytest.approx(plan.least)


def test_heavy_head_gets_company_elsewhere():
    plan = plan_cuts(layer_profile([1.0] * 11 + [4.0]), 4, microbatches=8, batch=8)
    assert plan.sizes[-1] == 1
    assert plan.gain > 0.1
    assert "bottleneck" in str(plan)


def test_memory_is_a_second_constraint():
    """The first stages hold more micro-batches: under a limit they get fewer layers, which costs time."""
    profile = layer_profile([1.0] * 12, kept=[1.0] * 12)
    free = plan_cuts(profile, 4, microbatches=8, batch=8)
    assert free.sizes == (3, 3, 3, 3)
    tight = plan_cuts(profile, 4, microbatches=8, batch=8, memory_limit=9)
    assert tight.sizes[0] == 2
    assert max(held.total for held in tight.memory) <= 9
    assert not tight.even_fits
    assert tight.gain < 0
    assert tight.bound > free.bound  # what cannot fit does not count
    with pytest.raises(ConfigurationError, match=r"no cut was found that fits.*allowed"):
        plan_cuts(profile, 4, microbatches=8, batch=8, memory_limit=5)


def test_unlike_devices_stand_where_they_serve_best():
    profile = layer_profile([8.0, 1.0, 1.0, 1.0, 1.0])
    given = plan_cuts(profile, 3, microbatches=6, batch=6, speeds=[1, 1, 4])
    free = plan_cuts(profile, 3, microbatches=6, batch=6, speeds=[1, 1, 4], any_order=True)
    assert free.order[0] == 2
    assert free.makespan < given.makespan
    assert "in the order" in str(free)


def test_a_node_boundary_moves_the_cut_to_where_little_is_sent():
    profile = layer_profile([1.0] * 12, sent=[8.0] * 4 + [1.0] + [8.0] * 7)
    inside, between = Link(0.0, 100.0), Link(0.5, 1.0)
    near = plan_cuts(profile, 4, microbatches=8, batch=8, links=Links.nodes(4, inside=inside, between=between))
    far = plan_cuts(profile, 4, microbatches=8, batch=8, links=Links.nodes(2, inside=inside, between=between))
    assert (near.cuts, far.cuts[1]) == ((3, 6, 9), 5)
    assert far.gain > 0.2
    slow = Links(pairs={(1, 2): Link(0.0, 0.01)})  # 8 messages of a byte each way are most of the step
    assert plan_cuts(profile, 4, microbatches=8, batch=8, links=slow).bound > 800


def test_neighbours_in_the_pipeline_stand_on_one_node():
    """Equal devices, but those on one node are not those that follow one another."""
    links = Links(pairs={pair: Link(3.0) for pair in ((0, 1), (0, 3), (1, 2), (2, 3))})
    kinds = {"microbatches": 8, "batch": 8, "links": links}
    given = plan_cuts(layer_profile([1.0] * 8), 4, **kinds)
    free = plan_cuts(layer_profile([1.0] * 8), 4, any_order=True, **kinds)
    assert {frozenset(free.order[:2]), frozenset(free.order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert free.makespan < given.makespan
    again = simulated(layer_profile([1.0] * 8), free.schedule, (0, *free.cuts, 8), 8, links=links.placed(free.order))
    assert free.makespan == again.makespan


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"speeds": [1, 2]}, "speeds is given for 2 devices, there are 4"),
        ({"speeds": [1, 1, 0, 1]}, "device 2 must be a positive number"),
        ({"speeds": ["fast"] * 4}, "device 0 must be a positive number"),
        ({"speeds": 2}, "speeds must be a list of 4 numbers"),
        ({"schedule": 4}, "schedule must be a name or a Schedule, got int"),
        ({"schedule": "pipedream"}, "updates weights on the way"),
        ({"schedule": "interleaved", "chunks": 4}, "16 stages, and the model has 12 layers"),
        ({"schedule": "zb-h1"}, "take a profile with split=True"),
        ({"recompute": True}, "take a profile with recompute=True"),
        ({"latency": 1.0, "links": Links()}, "leave them out, or give them to Links"),
        ({"links": Links(pairs={(0, 4): Link(1.0)})}, "devices 0 and 4, but there are 4 devices"),
    ],
)
def test_refused(more, said):
    with pytest.raises(ConfigurationError, match=said):
        plan_cuts(layer_profile([1.0] * 12), 4, batch=8, **more)


def test_other_profiles_are_refused():
    with pytest.raises(ConfigurationError, match="profile_layers"):
        plan_cuts(CostProfile.shipped(), 4, batch=8)
    with pytest.raises(ConfigurationError, match="profile_layers"):
        plan_cuts("layers.json", 4, batch=8)


def test_orders_of_many():
    with pytest.raises(ConfigurationError, match="at most 8"):
        plan_cuts(layer_profile([1.0] * 12), 9, batch=18, speeds=[1] * 8 + [2], any_order=True)
    assert math.isfinite(plan_cuts(layer_profile([1.0] * 12), 9, batch=18, any_order=True).makespan)  # all alike
