"""What the lesson says and what its folded answers promise, by the simulator and the checker."""

from itertools import pairwise, product
from pathlib import Path

from pipelab.schedules import Schedule, build_schedule, check_schedule
from pipelab.schedules.warmups import with_warmups
from pipelab.simulation import Costs, simulate
from pipelab.teaching.board import follow, swap
from pipelab.teaching.course.source import read_lesson
from tests.teaching.exercises.trying import assert_reserved

COURSE = Path(__file__).parents[4] / "course"
PAGE = [
    cell
    for name in ("03_one_f_one_b", "03b_beside_gpipe")
    for cell in read_lesson(COURSE / f"{name}.py").page("lesson")
]


def defined(name):
    """What the lesson's cell that defines ``name`` leaves behind, without what it shows."""
    (text,) = [cell.text for cell in PAGE if f"def {name}(" in cell.text]
    space = {}
    exec("from pipelab.teaching import *", space)
    exec(text, space)
    return space


def shifted(d, m, costs=None):
    return simulate(with_warmups([max(3 - r + d, 0) for r in range(4)], m), costs or Costs())


def test_warmups_of_the_syllabus():
    assert {d: shifted(d, 8).makespan for d in (-3, -1, 0, 1)} == {-3: 64, -1: 36, 0: 22, 1: 22}
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


def test_try_without_the_bound():
    slot_by_slot = defined("slot_by_slot")["slot_by_slot"]
    table = Schedule.from_rows(slot_by_slot(4, 8, most=lambda r: 8))
    assert len(slot_by_slot(4, 8, most=lambda r: 8)[0]) == 22
    assert table.programs != build_schedule("1f1b", 4, 8).programs
    assert simulate(table).peak_microbatches == (7, 5, 3, 1)
    many = simulate(Schedule.from_rows(slot_by_slot(5, 20, most=lambda r: 20)))
    assert many.peak_microbatches == tuple(2 * (5 - r) - 1 for r in range(5))
    assert many.makespan == simulate(build_schedule("1f1b", 5, 20)).makespan


def test_try_a_backward_of_two_and_other_m():
    slow = Costs(forward=1, backward=2)
    assert [shifted(d, 8, slow).makespan for d in (-3, -2, -1, 0, 1, 2)] == [96, 75, 54, 33, 33, 33]
    for m in range(1, 17):
        shallow, right, deep = (shifted(d, m) for d in (-1, 0, 1))
        assert (shallow.makespan == right.makespan) == (m == 1)
        assert deep.makespan == right.makespan
        higher = [new - old for old, new in zip(right.peak_microbatches, deep.peak_microbatches, strict=True)]
        assert higher == [float(m > held) for held in right.peak_microbatches]


def test_try_the_repaired_timetable():
    rows = [[f"{r}{op}{i}" for op in "FB" for i in range(4)] for r in range(3)]
    rows.append(["3F0", "3B0", "3F1", "3B1", "3F2", "3B2", "3F3", "3B3"])
    repaired = Schedule.from_rows(rows)
    assert not check_schedule(repaired)
    assert simulate(repaired).makespan == 14
    assert simulate(repaired).peak_microbatches == (4, 4, 4, 1)


def test_break_it_by_swapping_neighbours_on_device_1():
    sound = build_schedule("1f1b", devices=4, microbatches=8)
    ops = [slot.op for slot in sound.programs[1]]
    found = {"FB": [], "BF": []}
    for k, (one, other) in enumerate(pairwise(ops)):
        if one != other:
            ran = follow(swap(sound, 1, k), sound)
            assert ran.sound
            found[one + other].append((ran.ran.makespan, ran.ran.peak_microbatches[1]))
    assert set(found["FB"]) == {(24, 3)}
    assert found["BF"] == [(22, 4), *[(24, 4)] * (len(found["BF"]) - 2), (22, 4)]


def test_a_backward_in_two_pieces_beats_the_bound_for_whole_ones():
    space = defined("in_halves")
    costs = Costs(forward=1, backward=2)
    assert simulate(space["whole"], costs).makespan == (8 + 4 - 1) * 3
    late = simulate(space["in_halves"](lambda r: r), costs)
    assert late.makespan == 27
    assert late.peak_microbatches == (4, 4, 4, 4)
    assert not check_schedule(space["in_halves"](lambda r: r))
    assert 27 < simulate(space["in_halves"](lambda r: 0), costs).makespan < 33


def test_messages_that_take_time_make_1f1b_the_longer_one():
    slow = Costs(latency=0.5)
    spans = [simulate(build_schedule(name, 4, 16), slow).makespan for name in ("gpipe", "1f1b")]
    assert spans == [41, 52]


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: with_warmups([1, 0], 2))
