"""What could be run, and what a profile says about each."""

from __future__ import annotations

import math

import pytest

from pipelab import ConfigurationError, build_schedule
from pipelab.schedules import recipes
from pipelab.tuning import Candidate
from pipelab.tuning.candidates import best_first, forecast, grid, list_candidates
from tests.tuning.profiles import MB, profile

FREE = (math.inf,) * 4


def test_the_grid_has_powers_of_two_multiples_of_p_and_the_neighbours_of_m_star():
    assert grid(64, 4, 9.5) == (1, 2, 4, 8, 9, 10, 12, 16, 20, 24, 32, 48, 64)
    assert grid(10, 3) == (1, 2, 3, 4, 6, 8, 9)


def test_candidates_are_those_that_can_be_built():
    good, bad = list_candidates(64, 4)
    assert not bad
    assert sum(c.schedule == "naive" for c in good) == 1
    assert {c.microbatches for c in good if c.schedule == "interleaved"} == set(grid(64, 4))  # no 9, no 13
    assert 9 not in {c.microbatches for c in list_candidates(64, 4, around=9.5)[0] if c.schedule == "interleaved"}
    assert {c.recompute for c in good} == {True, False}
    for candidate in good:
        candidate.build(4)


def test_what_was_asked_for_and_cannot_be_is_kept_with_its_reason():
    good, bad = list_candidates(64, 4, microbatches=[9, 128], schedules=["1f1b", "interleaved"], recompute=[False])
    assert [str(c) for c in good] == ["1f1b, m = 9"]
    reasons = {str(entry.candidate): entry.reason for entry in bad}
    assert "needs m // p groups of equal size" in reasons["interleaved v = 2, m = 9"]
    assert "the batch has 64" in reasons["1f1b, m = 128"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch": 3}, "cannot fill p = 4 devices.*4p = 16"),
        ({"schedules": []}, "there is no candidate: schedules is empty"),
        ({"schedules": "1f1b"}, "schedules must be a list, got '1f1b'; try"),
        ({"microbatches": []}, "there is no candidate: microbatches is empty"),
        ({"recompute": []}, "there is no candidate: recompute is empty"),
        ({"schedules": ["interleaved"], "chunks": []}, "chunks is empty"),
        ({"schedules": ["interleaved"], "microbatches": [9]}, "no candidate left.*groups of equal size"),
        ({"schedules": ["1f1d"]}, "did you mean '1f1b'"),
        ({"microbatches": [0]}, "at least 1"),
        ({"microbatches": [4, "8"]}, "microbatches .m. must be a whole number"),
        ({"microbatches": 4}, "microbatches must be a list, got 4; try .4."),
        ({"chunks": 2}, "chunks must be a list"),
        ({"recompute": True}, "recompute must be a list"),
    ],
)
def test_lists_that_leave_nothing_are_refused(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        list_candidates(**({"batch": 64, "devices": 4} | settings))


def test_the_whole_catalogue_that_flushes_is_tried_each_with_its_own_v():
    good, bad = list_candidates(64, 4, chunks=[3])
    assert {c.schedule for c in good} == {name for name, recipe in recipes().items() if recipe.updating is None}
    tried = {(c.schedule, c.chunks) for c in good}
    assert {("zb-v", 2), ("interleaved-zb", 3), ("looped-bfs", 3), ("chimera", 1), ("zb-h1", 1)} <= tried and not bad


def test_what_no_m_can_have_is_left_out_with_its_reason():
    """Chimera halves the pipeline."""
    good, bad = list_candidates(12, 3, recompute=[False])
    assert "chimera" not in {c.schedule for c in good}
    assert [entry.candidate.schedule for entry in bad] == ["chimera"] and "even" in bad[0].reason


def test_what_was_found_is_its_own_table():
    table = build_schedule("zb-h1", 4, 8)
    assert Candidate("searched", 8, table=table).build(4) is table


def test_names_say_what_differs():
    names = [Candidate("naive", 1), Candidate("1f1b", 8), Candidate("interleaved", 8, 2, True)]
    assert [str(c) for c in names] == ["naive", "1f1b, m = 8", "interleaved v = 2 + R, m = 8"]


@pytest.mark.parametrize(
    "candidate", [Candidate("1f1b", 12), Candidate("gpipe", 8, 1, True), Candidate("interleaved", 8, 2)]
)
def test_the_parts_of_a_step_add_up_and_mean_what_they_say(candidate):
    found = forecast(candidate, profile(), 64, FREE, {})
    parts = found.parts
    assert parts.work + parts.overhead + parts.recompute + parts.idle == pytest.approx(found.makespan)
    assert parts.work == pytest.approx(3 * 0.0005 * 64), "the same whatever m"
    assert parts.overhead == pytest.approx(3 * 0.002 * candidate.microbatches), "alpha, once an action"
    assert parts.idle == pytest.approx(found.bubble_fraction * found.makespan)
    assert (parts.recompute > 0) == candidate.recompute
    assert found.step == found.makespan + 0.001
    assert found.sequences_per_second == pytest.approx(64 / found.step)
    assert found.tokens_per_second == pytest.approx(32 * 64 / found.step)


@pytest.mark.parametrize("name", ["zb-h1", "zb-v", "dualpipev"])
def test_the_parts_count_halves_too(name):
    """F, I and W are 1 + 1.2 + 0.9 forwards, F and B 3; dualpipev has both."""
    found = forecast(Candidate(name, 8, recipes()[name].chunks), profile(), 64, FREE, {})
    parts = found.parts
    assert parts.work + parts.overhead + parts.idle == pytest.approx(found.makespan) and parts.recompute == 0
    assert 3 * 0.0005 * 64 < parts.work <= 3.1 * 0.0005 * 64 * (1 + 1e-9)


def test_what_does_not_fit_says_where():
    found = forecast(Candidate("gpipe", 8), profile(), 64, (100 * MB, 100 * MB, 60 * MB, 100 * MB), {})
    assert found.excess == "needs 68.1 MB on device 2, and 60.0 MB are allowed"
    assert forecast(Candidate("1f1b", 16), profile(), 64, (60 * MB,) * 4, {}).excess is None


def test_the_fastest_comes_first_and_of_equals_the_one_that_needs_less():
    found = [
        forecast(Candidate(name, m), profile(), 64, FREE, {}) for name, m in (("gpipe", 4), ("1f1b", 4), ("1f1b", 8))
    ]
    order = [f.candidate.schedule for f in best_first(found, key=lambda f: 1.0)]
    assert order == ["1f1b", "gpipe", "1f1b"] or order == ["1f1b", "1f1b", "gpipe"]
    steps = [f.step for f in best_first(found)]
    assert steps == sorted(steps)


def test_one_table_is_one_candidate():
    """gpipe and 1f1b at m = 1 are naive's table: measured twice, they took the places of two others."""
    good, bad = list_candidates(16, 4)
    tables = [(c.build(4).programs, c.build(4).placement) for c in good]
    assert len(set(tables)) == len(tables) and not bad
    asked, bad = list_candidates(64, 4, schedules=["1f1b", "gpipe"], microbatches=[1, 4], recompute=[False])
    assert len(asked) == 3 and bad[0].reason == "gpipe, m = 1 is the same table as 1f1b, m = 1"


def test_what_does_not_flush_is_refused_before_anything_is_measured():
    with pytest.raises(ConfigurationError, match=r"schedules that flush; pipedream, 2bw learn otherwise"):
        list_candidates(64, 4, schedules=["1f1b", "pipedream", "2bw"])
