from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipelab import Action, ConfigurationError, Costs, Schedule, ScheduleError, build_schedule, simulate
from pipelab.schedules.reserved import reserve
from pipelab.simulation import Link, Links
from pipelab.teaching.design.goal import Goal
from tests.tuning.profiles import profile

COSTS = Costs(forward=10, backward=20, input_gradient=12, weight_gradient=8, latency=4)
GOAL = Goal(4, 8, costs=COSTS, memory_limit=6)


def test_a_rating_is_the_simulators_word_and_the_searchs_bound():
    mine = GOAL.rate(build_schedule("zb-h1", 4, 8), name="mine")
    run = simulate(build_schedule("zb-h1", 4, 8), COSTS)
    assert (mine.makespan, mine.held) == (run.makespan, run.peak_microbatches)
    assert mine.fits
    assert mine.bound == GOAL.bound <= mine.makespan
    assert mine.over_bound == pytest.approx(mine.makespan / GOAL.bound - 1)
    assert "The fastest of the catalogue that fits is ZB-H1" in str(mine)
    assert "this takes as long" in str(mine)
    assert mine._repr_mimebundle_()["text/html"].startswith("<pre>mine: ")


def test_what_does_not_fit_says_where_and_is_not_compared_with_the_bound():
    gpipe = GOAL.rate(build_schedule("gpipe", 4, 8))
    assert not gpipe.fits
    assert gpipe.over_limit == (0, 1, 2, 3)
    assert "device 0 holds 8 micro-batches, and may hold 6 micro-batches" in str(gpipe)
    assert "more.\n" not in str(gpipe).split("No order")[1].split("The fastest")[0]
    assert gpipe.row()[-2:] == ("–", "no")


def test_the_catalogue_is_what_the_goal_allows_the_fastest_that_fits_first():
    names = [one.schedule.name for one in GOAL.catalogue]
    assert names[0] == "ZB-H1"
    assert {"1F1B", "GPipe", "ZB-H1"} <= set(names)
    assert not {"ZB-V", "Naive", "PipeDream", "Interleaved 1F1B"} & set(names)
    assert {"ZB-V", "V-Half", "Interleaved 1F1B", "Chimera"} <= {
        one.schedule.name for one in replace(GOAL, chunks=2).catalogue
    }
    fits = [one.fits for one in GOAL.catalogue]
    assert fits == sorted(fits, reverse=True)
    assert GOAL.table(GOAL.rate(build_schedule("1f1b", 4, 8))).count("\n") == len(names) + 2


def test_the_bound_holds_for_all_and_is_that_of_the_best_placement():
    wide = replace(GOAL, chunks=2, memory_limit=math.inf)
    assert wide.bound <= GOAL.bound
    for one in wide.catalogue:
        assert one.bound <= one.makespan * (1 + 1e-9)


def test_a_tighter_limit_raises_the_bound():
    assert replace(GOAL, memory_limit=2).bound > GOAL.bound
    assert Goal(4, 8).limits == (4, 4, 4, 4), "1F1B's memory, unless another is given"


def test_a_search_is_rated_like_anything_else():
    found = Goal(2, 3).search(seconds=0.3)
    assert found.fits
    assert found.makespan <= Goal(2, 3).best.makespan
    with pytest.raises(ConfigurationError, match="nothing fits"):
        Goal(2, 3, memory_limit=0.5).search(seconds=0.1)


def test_whatever_a_learner_holds_is_rated():
    rows = [["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]]
    small = Goal(2, 2)
    text = "\n".join(",".join(row) for row in rows)
    given = [rows, text, lambda p, m: rows, Schedule.from_csv(text), [[Action.parse(a) for a in row] for row in rows]]
    assert {small.rate(one).makespan for one in given} == {9}


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (build_schedule("1f1b", 3, 8), ConfigurationError, "p = 3 and m = 8, and the goal has p = 4 and m = 8"),
        (build_schedule("naive", 4, 8), ConfigurationError, "m = 1"),
        (build_schedule("zb-v", 4, 8), ConfigurationError, "2 stages on a device, and the goal allows 1"),
        (build_schedule("pipedream", 4, 8), ConfigurationError, "updates"),
        (build_schedule("1f1b", 4, 8).forward_part(), ConfigurationError, "no backwards"),
        ("0F0,0B0\n1B0,1F0\n", ScheduleError, "1B0"),
        (7, ConfigurationError, "one row of actions per device"),
    ],
)
def test_what_is_none_for_the_goal_is_refused_in_a_sentence(given, error, says):
    with pytest.raises(error, match=says):
        GOAL.rate(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"devices": 0}, "devices"),
        ({"chunks": 0}, "chunks"),
        ({"costs": 3}, "costs must be Costs"),
        ({"memory_limit": -1}, "memory_limit is one positive number"),
        ({"memory_limit": [1, 2]}, "one for each of 4 devices"),
        ({"costs": Costs(forward=(1, 2, 3))}, "given for 3 stages"),
    ],
)
def test_a_goal_that_nothing_could_keep_is_refused(given, says):
    with pytest.raises(ConfigurationError, match=says):
        Goal(**{"devices": 4, "microbatches": 8} | given)


def test_costs_by_stage_allow_the_placements_that_they_are_for():
    uneven = Goal(2, 4, 2, Costs(forward=(1, 2, 3, 4), backward=(2, 4, 6, 8)))
    assert {one.schedule.stages for one in uneven.catalogue} == {4}
    with pytest.raises(ConfigurationError, match="given for 4 stages, but schedule 'yours' has 2"):
        uneven.rate(build_schedule("1f1b", 2, 4))


def test_stages_may_lie_unevenly():
    """Five stages on four devices: device 0 has the first and the last."""
    rows = [["0F0", "4F0", "4B0", "0B0"], ["1F0", "1B0"], ["2F0", "2B0"], ["3F0", "3B0"]]
    mine = Goal(4, 1, 2).rate(rows)
    assert mine.held[0] == 2 * mine.held[1]
    assert 0 < mine.bound <= mine.makespan


def test_measured_costs_count_memory_in_bytes():
    measured = profile().costs(64)
    goal = Goal(profile().devices, 4, costs=measured, batch=64)
    mine = goal.rate(build_schedule("1f1b", profile().devices, 4))
    assert goal.in_bytes
    assert mine.held == mine.timeline.peak_bytes
    assert "MB" in mine.memory or "B" in mine.memory
    assert "Costs are measured" in str(goal)


def test_a_goal_says_itself_in_words():
    assert str(GOAL) == (
        "Devices: p = 4, with one stage on each. Micro-batches: m = 8. F takes 10 and B 20; I takes 12 and W 8. "
        "A message takes 4. A device may hold 6 micro-batches."
    )
    assert "at most 2 stages" in str(Goal(2, 2, 2))
    assert "any number" in str(Goal(2, 2, memory_limit=math.inf))
    assert "its bytes / 5" in str(Goal(2, 2, costs=Costs(bandwidth=5, message_bytes=10)))
    assert "differ" in str(Goal(4, 2, costs=Costs(links=Links(pairs={(0, 1): Link(1, 1)}))))


def test_stages_in_two_places_have_the_bound_of_their_work():
    both = replace(GOAL, chunks=2)
    chimera = both.rate(build_schedule("chimera", 4, 8))
    assert chimera.bound == pytest.approx(sum(chimera.timeline.busy) / 4)


def test_while_a_learners_function_runs_nothing_is_told():
    fresh, mine = replace(GOAL), [["0F0", "0B0"]]
    with reserve("this exercise"):
        for ask in (lambda: fresh.bound, lambda: fresh.catalogue, lambda: fresh.search(0.1)):
            with pytest.raises(Exception, match="does not answer here"):
                ask()
        assert Goal(1, 1).rate(mine).makespan == 3, "a learner may measure their own"


def test_costs_of_nothing_are_refused():
    with pytest.raises(ConfigurationError, match="nothing takes any time"):
        Goal(2, 2, costs=Costs(0, 0))
