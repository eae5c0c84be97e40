"""The lesson's claims on warm-ups, by the simulator and the checker."""

from itertools import pairwise, product

from pipelab.schedules import check_schedule
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import simulate
from tests.teaching.exercises.trying import assert_reserved


def test_warmups_of_the_syllabus():
    slots = {d: simulate(with_warmups([max(3 - r + d, 0) for r in range(4)], 8)).makespan for d in (-3, -1, 0, 1)}
    assert slots == {-3: 64, -1: 36, 0: 22, 1: 22}
    assert simulate(with_warmups([4, 3, 2, 1], 8)).peak_microbatches == (5, 4, 3, 2)
    assert simulate(with_warmups([3, 3, 3, 3], 16)).makespan == 110


def test_the_lessons_sentence_on_wait_cycles():
    """An order of this shape gets stuck when a device has a deeper warm-up than the one before it, and only then."""
    for m, warmups in product((3, 5), product(range(4), repeat=3)):
        depths = [min(w, m - 1) for w in warmups]  # m and m - 1 are the same order
        deeper = any(before < behind for before, behind in pairwise(depths))
        assert bool(check_schedule(with_warmups(warmups, m))) == deeper


def test_the_lessons_formula_for_a_warmup_that_is_too_shallow():
    for p, m, d in product((2, 3, 4, 6), (6, 8, 13), (-3, -2, -1, 0, 1)):
        timeline = simulate(with_warmups([max(p - 1 - r + d, 0) for r in range(p)], m))
        pace = max(2, *(2 * (p - r) / n for r, n in enumerate(timeline.peak_microbatches)))
        assert timeline.makespan == 2 * p + (m - 1) * pace


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: with_warmups([1, 0], 2))
