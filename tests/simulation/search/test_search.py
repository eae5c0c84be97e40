"""The search: as good as the papers, never worse than the catalogue, within its limits, and honest about its bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipelab import ConfigurationError, CostProfile, Costs, build_schedule, check_schedule, simulate
from pipelab.simulation.search import search_schedule
from tests.tuning.profiles import profile as measured

UNIT = Costs(forward=1, backward=2)
UNEVEN = Costs(
    forward=[1, 1.1, 0.9, 1.2],
    backward=[2, 2.4, 1.9, 2.6],
    input_gradient=[0.9, 1.1, 0.8, 1.1],
    weight_gradient=[1.1, 1.3, 1.1, 1.5],
    latency=0.2,
)


@pytest.mark.parametrize(
    ("p", "m", "v", "makespan"), [(4, 8, 1, 27), (4, 8, 2, 25.5), (8, 16, 1, 55), (8, 16, 2, 51.5)]
)
def test_with_equal_costs_and_the_memory_of_1f1b_it_reaches_what_the_papers_reach(p, m, v, makespan):
    """ZB-H1's m(tF+tI+tW) + (p-1)(tF+tI-tW), ZB-V's half of that bubble; no order takes less."""
    found = search_schedule(p, m, v, UNIT, seconds=20)
    assert found.makespan == makespan == found.bound
    assert found.proven
    assert found.schedule.name == ("zb-h1" if v == 1 else found.schedule.name), "of equals, the one with its own name"
    assert max(found.timeline.peak_microbatches) <= p


@pytest.mark.parametrize("limit", [None, 2.0, 3.0, [4, 4, 3, 2]])
def test_it_keeps_to_the_limit_and_is_sound(limit):
    found = search_schedule(4, 6, 1, UNEVEN, limit, seconds=1)
    assert check_schedule(found.schedule) == []
    limits = limit if isinstance(limit, list) else [limit or 4.0] * 4
    peaks = simulate(found.schedule, UNEVEN).peak_microbatches
    assert all(peak <= most for peak, most in zip(peaks, limits, strict=True))
    assert found.makespan == simulate(found.schedule, UNEVEN).makespan >= found.bound * (1 - 1e-9)


@pytest.mark.parametrize(("p", "m", "v"), [(2, 5, 1), (3, 6, 2), (4, 8, 1), (4, 8, 2)])
@pytest.mark.parametrize("latency", [0, 0.3])
def test_it_is_never_worse_than_the_best_of_the_catalogue_that_fits(p, m, v, latency):
    costs = Costs(forward=1, backward=2.1, input_gradient=0.8, weight_gradient=1.3, latency=latency)
    found = search_schedule(p, m, v, costs, seconds=0.5)
    assert found.known
    assert found.makespan <= found.known[0][1] == min(makespan for _, makespan in found.known)
    for name, makespan in found.known:
        assert simulate(build_schedule(name, p, m, v), costs).makespan == makespan


def test_small_steps_find_what_no_rule_and_no_paper_has():
    """At tI > tW and with messages the catalogue's V waits; the search ends below it, and above the bound."""
    costs = Costs(forward=1, backward=1.8, input_gradient=0.7, weight_gradient=1.1, latency=0.1)
    found = search_schedule(4, 8, 2, costs, seconds=5)
    assert found.source.endswith("improved")
    assert found.bound <= found.makespan < found.known[0][1]


def test_it_tells_each_better_table_and_ends_in_time():
    told = []
    found = search_schedule(4, 8, 2, UNEVEN_V, 3.0, seconds=2, progress=lambda *one: told.append(one))
    assert [makespan for _, makespan, _ in told] == sorted({makespan for _, makespan, _ in told}, reverse=True)
    assert told[-1][1] == pytest.approx(found.makespan)
    assert found.seconds < 10
    assert "no order takes less than" in str(found)


UNEVEN_V = Costs(forward=1, backward=2, input_gradient=1.4, weight_gradient=0.6, latency=0.3)


def test_messages_that_wait_for_others_count():
    """A channel carries one message at a time; a table that would be late for it is not called better."""
    costs = Costs(forward=1, backward=2, message_bytes=1.0, bandwidth=0.5)
    found = search_schedule(3, 6, 1, costs, seconds=1)
    assert found.makespan == simulate(found.schedule, costs).makespan <= found.known[0][1]


def test_bytes_are_the_limit_where_costs_know_them():
    costs = Costs(forward=1, backward=2, activation_bytes=10.0, message_bytes=3.0)
    found = search_schedule(4, 8, 1, costs, 33.0, seconds=3)
    assert max(found.timeline.peak_bytes) <= 33
    more = search_schedule(4, 8, 1, replace(costs, waiting_bytes=1.0), 33.0, seconds=3)
    assert max(more.timeline.peak_bytes) <= 33 and more.makespan < found.makespan, "little waits for W"
    assert max(more.timeline.peak_microbatches) > 3


def test_costs_of_each_stage_and_uneven_microbatches_are_searched_as_they_are():
    """A profile's own costs: 10 sequences in 4 micro-batches, never worse than the catalogue's best that fits."""
    profile = measured()
    costs = profile.costs(10)
    found = search_schedule(4, 4, 1, costs, batch=10, seconds=1)
    assert found.makespan == pytest.approx(profile.predict(found.schedule, 10).makespan)
    for name, makespan in found.known:
        assert makespan == profile.predict(build_schedule(name, 4, 4, 1), 10).makespan >= found.makespan


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"memory_limit": 0.5},
            "one micro-batch alone takes 1 on device 3, and 0.5 are allowed there; give at least 1",
        ),
        ({"memory_limit": [1, 2]}, "memory_limit is one positive number, or one for each of 4"),
        ({"memory_limit": [9, 0.2, 9, 9]}, "alone takes 1 on device 1, and 0.2 are allowed there; give at least 1"),
        ({"memory_limit": -1}, "memory_limit is one positive number"),
        ({"memory_limit": "60MB"}, "one positive number, or one for each of 4 devices, in bytes .* got '60MB'"),
        ({"costs": Costs(forward=[1, 2])}, "given for 2 stages, but schedule 'searched' has 4"),
        ({"placement": [0, 1, 2]}, "placement names the device of each stage"),
        ({"seconds": 0}, "seconds must be positive"),
        ({"costs": measured(split=False).costs(64)}, "without the halves of a backward"),
        ({"costs": 3}, "costs must be Costs, got int; try Costs"),
        ({"costs": CostProfile.shipped()}, r"got CostProfile; pass profile.costs\(batch\)"),
        ({"devices": 0}, "devices"),
    ],
)
def test_bad_input_gets_a_sentence(given, says):
    with pytest.raises(ConfigurationError, match=says):
        search_schedule(**{"devices": 4, "microbatches": 4, "seconds": 1, **given})


def test_where_what_waits_for_w_is_more_than_was_held_one_micro_batch_at_a_time_still_fits():
    """The greedy rules count it for every stage at once and find nothing; one micro-batch alone takes 10 + 15.

    In whole backwards it takes 10 + 10, though they take as long as their halves; cut in two it takes 25.
    """
    sizes = {"activation_bytes": [10.0] * 4, "waiting_bytes": [15.0] * 4}
    costs = Costs(forward=1, backward=2, input_gradient=1, weight_gradient=1, **sizes)
    for limit in (30, np.array([25.0, 25.0]), 20):
        found = search_schedule(2, 2, 2, costs, limit, seconds=0.2)
        assert max(found.timeline.peak_bytes) <= np.max(limit)
        assert check_schedule(found.schedule) == []
    with pytest.raises(ConfigurationError, match="takes 20 on device 1, and 19 are allowed there; give at least 20"):
        search_schedule(2, 2, 2, costs, 19, seconds=0.2)
