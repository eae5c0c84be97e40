from dataclasses import replace

import pytest
from hypothesis import given, settings

from pipelab import ConfigurationError
from pipelab.schedules import recipes
from pipelab.teaching.explorer import Settings, problem_of
from pipelab.teaching.explorer.figures import over_limit
from pipelab.teaching.explorer.nearest import timelines_of

from .states import anything


def labels(problem):
    return [offer.label for offer in problem.offers]


# ---- what cannot be --------------------------------------------------------------------------------------------------


def test_what_can_be_and_fits_is_no_problem():
    assert problem_of(Settings()) is None
    assert problem_of(Settings(compare="gpipe", limit=1000)) is None


def test_interleaved_needs_whole_groups_and_the_nearest_two_m_are_offered():
    problem = problem_of(Settings(schedule="interleaved", microbatches=9))
    assert not problem.possible
    assert problem.sentence.startswith("Interleaved needs m // p groups of equal size")
    assert problem.sentence.endswith(".")
    assert labels(problem) == ["m = 8", "m = 10", "1F1B"]


def test_of_two_schedules_the_one_that_cannot_be_is_told():
    found, problem = timelines_of(Settings(microbatches=9, compare="interleaved"))
    assert found == ()
    assert "m = 9, p = 4" in problem.sentence
    assert labels(problem)[:2] == ["m = 8", "m = 10"]


def test_more_microbatches_than_sequences():
    problem = problem_of(Settings(fixed="batch", batch=6, microbatches=40))
    assert "a batch of 6 sequences cannot be cut into m = 40" in problem.sentence.lower()
    assert labels(problem) == ["m = 6", "m = 5"]


def test_a_batch_too_small_for_any_m_is_offered_larger(monkeypatch):
    """Story: interleaved took only multiples of p, so that a batch of 3 sequences had no way out at p = 4."""
    whole = replace(recipes()["interleaved"], check=lambda p, m, v: f"m = {m} is refused" if m % p else None)
    monkeypatch.setitem(recipes(), "interleaved", whole)
    assert labels(problem_of(Settings(schedule="interleaved", fixed="batch", batch=3, microbatches=4)))[0] == "B = 4"
    problem = problem_of(Settings(compare="interleaved", fixed="batch", batch=3, microbatches=5))
    assert labels(problem) == ["m = 4, B = 4"]


@pytest.mark.parametrize(
    ("settings", "offers"),
    [
        (Settings("zb-h2"), ["m = 7", "m = 8", "1F1B"]),
        (Settings("dualpipev", compare="zb-h2"), ["m = 8", "m = 9"]),
        (Settings("chimera", microbatches=6), ["m = 4", "m = 8", "1F1B"]),
        (Settings("chimera", devices=3), ["p = 2", "p = 4", "1F1B"]),
        (Settings("chimera", devices=5, microbatches=5), ["p = 4, m = 4", "p = 6, m = 6", "1F1B"]),
    ],
    ids=["many in flight", "two of them", "multiples of p", "even p", "even p and its multiple"],
)
def test_each_schedule_is_offered_the_shapes_that_it_has(settings, offers):
    assert labels(problem_of(settings)) == offers


# ---- what does not fit -----------------------------------------------------------------------------------------------


def test_what_does_not_fit_can_be_seen_all_the_same():
    found, problem = timelines_of(Settings(schedule="gpipe", microbatches=16, limit=120))
    assert len(found) == 1
    assert problem.possible
    assert problem.sentence.startswith("Out of memory under GPipe: device 0 would hold")
    assert "with recomputation" in labels(problem)
    assert "1F1B" in labels(problem)


def test_at_a_fixed_batch_more_microbatches_are_a_way_out_for_1f1b():
    problem = problem_of(Settings(fixed="batch", batch=64, microbatches=4, limit=60))
    assert "m = 7" in labels(problem)


def test_the_schedule_to_compare_with_has_to_fit_too():
    problem = problem_of(Settings(microbatches=16, compare="gpipe", limit=120))
    assert problem.possible
    assert len(timelines_of(Settings(microbatches=16, compare="gpipe", limit=120))[0]) == 2


def test_no_offer_is_made_twice():
    """m // 2 and m - 1 are one and the same at m = 2."""
    assert labels(problem_of(Settings(devices=6, microbatches=2, limit=20))) == ["m = 1", "with recomputation"]


@pytest.mark.parametrize("schedule", ["naive", "gpipe", "1f1b", "interleaved"])
@pytest.mark.parametrize("fixed", ["batch", "microbatch"])
@pytest.mark.parametrize("limit", [8, 30, 60, 110])
def test_the_m_offered_is_the_nearest_that_fits(schedule, fixed, limit):
    state = Settings(schedule=schedule, fixed=fixed, batch=24, devices=3, microbatches=12, chunks=2, limit=limit)
    fit = []
    for m in range(1, 25):
        try:
            timeline = replace(state, microbatches=m).timeline()
        except ConfigurationError:
            continue
        if not over_limit(state, timeline):
            fit.append(m)
    problem = problem_of(state)
    assert (problem is None) == (12 in fit)
    if problem is not None:
        offered = [o.values["microbatches"] for o in problem.offers if set(o.values) == {"microbatches"}]
        assert offered == sorted(fit, key=lambda m: (abs(m - 12), m))[:1]


def test_large_tables_get_offers_too_however_slow_the_machine():
    """The search gave up after some tenths of a second: on a slow day with nothing found."""
    found = problem_of(Settings(devices=8, schedule="gpipe", microbatches=64, limit=20))
    assert labels(found)[0] == "m = 1"
    assert len(found.offers) == 3


# ---- offers ----------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(anything(max_p=6, max_m=16))
def test_every_offer_works(state):
    """An offer is a promise: pressed, it leads to a schedule that can be, and that fits."""
    found, problem = timelines_of(state)
    if problem is None:
        assert found
        assert not any(map(over_limit, (state, state.other()), found))
        return
    assert problem.possible == bool(found)
    assert len(labels(problem)) == len(set(labels(problem))) <= 3
    for offer in problem.offers:
        after = replace(state, **offer.values)
        assert after != state
        assert problem_of(after) is None, offer.label


@given(anything(max_p=6, max_m=24, limit=None))
def test_where_memory_is_not_the_matter_something_always_works(state):
    problem = problem_of(state)
    assert problem is None or (problem.offers and not problem.sentence[0].islower() and "\n" not in problem.sentence)


@pytest.mark.parametrize("m", [33, 125, 127])
def test_offers_stay_within_what_the_controls_can_show(m):
    problem = problem_of(Settings(schedule="interleaved", devices=16, microbatches=m))
    offered = [offer.values["microbatches"] for offer in problem.offers if "microbatches" in offer.values]
    assert len(offered) == 2
    assert all(1 <= near <= 128 and recipes()["interleaved"].check(16, near, 2) is None for near in offered)
