"""What a profile alone decides: the whole catalogue, what is left out and why, and what a search finds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelab import ConfigurationError, CostProfile, Link, Links, check_schedule, shortlist
from pipelab.simulation.search import search_schedule
from tests.tuning.profiles import profile

FEW = {"microbatches": [8], "recompute": [False]}


def test_the_catalogue_is_predicted_and_the_search_is_at_least_as_good():
    found = shortlist(profile(), 64, **FEW, search=2)
    best = found[found.best]
    assert best.candidate.schedule == "searched" and best.excess is None
    assert check_schedule(best.timeline.schedule) == []
    assert best.step <= min(f.step for f in found.forecasts)
    assert {"zb-v", "zb-h1", "dualpipev", "looped-bfs"} < {f.candidate.schedule for f in found.forecasts}


@pytest.mark.parametrize("limit", ["26MB", "38MB", ["60MB", "40MB", "40MB", "30MB"]])
def test_what_is_found_keeps_to_the_limits(limit):
    """Bytes of weights and state are taken off first; the search may spend what is left."""
    found = shortlist(profile(), 64, **FEW, memory_limit=limit, search=1)
    assert all(f.excess is None for f in found.forecasts if f.candidate.schedule == "searched")
    assert found.best == found.fitting[0].candidate


def test_each_pair_of_devices_has_its_own_link():
    nodes = Links.nodes(2, inside=Link(1e-4), between=Link(5e-3, 1e9))
    found = shortlist(profile(), 64, **FEW, links=nodes)
    for f in found.fitting[:3]:
        assert f.makespan == profile().predict(f.timeline.schedule, 64, links=nodes).makespan
    text = "; links are modelled: 4 with 0.1 ms a message; 8 with 5 ms a message, 1.0 GB per second"
    assert text in found.report()
    told = found.to_json()
    assert told["link"] == {"latency": 1e-4, "bandwidth": None} and len(told["links"]) == 12
    assert told["links"][1] == {"from": 0, "to": 2, "latency": 5e-3, "bandwidth": 1e9}
    with pytest.raises(ConfigurationError, match="devices 0 and 4, but there are 4"):
        shortlist(profile(), 64, **FEW, links=Links(pairs={(0, 4): Link()}))


def test_a_cut_that_was_not_profiled_is_left_out_with_its_reason():
    found = shortlist(profile(chunks=(1,)), 64, **FEW)
    assert {f.candidate.chunks for f in found.forecasts} == {1}
    (why,) = [entry.reason for entry in found.discarded]
    assert why.endswith("with v = 2: the profile has no such cut") and "zb-v" in why


def test_a_profile_without_halves_leaves_out_what_needs_them_and_the_search():
    found = shortlist(profile(split=False), 64, **FEW, search=1)
    assert {f.candidate.schedule for f in found.forecasts} == {
        "naive",
        "gpipe",
        "1f1b",
        "interleaved",
        "looped-bfs",
        "chimera",
    }
    reasons = [entry.reason for entry in found.discarded]
    assert any(reason.startswith("dualpipev, ") and "without the halves of a backward" in reason for reason in reasons)
    assert any(reason.startswith("search: ") for reason in reasons)
    with pytest.raises(ConfigurationError, match=r"no candidate left. zb-h1: the profile was taken without the halves"):
        shortlist(profile(split=False), 64, **FEW, schedules=["zb-h1"])


def test_the_shipped_profile_prices_tables_that_split_backwards_and_the_search():
    found = shortlist(CostProfile.shipped(), 64, schedules=["1f1b", "zb-h1"], microbatches=[8], search=1)
    assert {f.candidate.schedule for f in found.forecasts} == {"1f1b", "zb-h1", "searched"}
    assert not found.discarded


def test_where_only_recomputation_fits_the_search_says_so():
    found = shortlist(profile(), 64, microbatches=[8], memory_limit="18MB", search=1)
    assert all(f.candidate.recompute for f in found.fitting)
    assert any("the search knows no R" in entry.reason for entry in found.discarded)


@pytest.mark.parametrize("v", [1, 2])
def test_with_measured_costs_a_found_table_is_at_least_as_good_as_the_catalogue(v):
    """Uneven stages, whole backwards that take less than their halves, and 60 sequences in 8 micro-batches."""
    made = profile()
    cuts = {
        n: tuple(s if k % 3 else replace(made.scaled(beta=1.2).stages[n][k], kept=s.kept) for k, s in enumerate(cut))
        for n, cut in made.stages.items()
    }
    made = replace(made, stages=cuts)
    costs = made.costs(60, link=True)
    found = search_schedule(4, 8, v, costs, 40e6, batch=60, seconds=2)
    assert found.known and all(found.makespan <= makespan for _, makespan in found.known)
    assert max(found.timeline.peak_bytes) <= 40e6
    again = made.predict(found.schedule, 60, link=True)
    assert again.makespan == pytest.approx(found.makespan) and again.peak_bytes == found.timeline.peak_bytes
