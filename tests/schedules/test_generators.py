"""What each generator writes, held against the formulas of the papers: exactly, for hundreds of shapes."""

import importlib
import re
from fractions import Fraction
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given

from pipelab import Costs, simulate
from pipelab.schedules import Action, build_schedule, check_schedule, recipes
from tests import oracle, tables
from tests.strategies import allowed_microbatches, schedules

P, M, V = range(1, 9), range(1, 21), range(1, 4)


def shapes_of(name):
    known = recipes()[name].chunks
    return [
        (p, m, v) for v in (V if known is None else [known]) for p in P for m in allowed_microbatches(name, p, v, M[-1])
    ]


@cache
def table(name, p, m, v=None):
    return build_schedule(name, devices=p, microbatches=m, chunks=v)


@cache
def unit_run(name, p, m, v=1):
    """Predicted at tF = tB = 1 per chunk: v per device share, so that every time is a whole number, exactly."""
    return simulate(table(name, p, m, v), Costs(forward=v, backward=v), check=False)


def bubble_fraction(run):
    return 1 - Fraction(sum(run.busy)) / (run.schedule.devices * Fraction(run.makespan))


def every(name):
    return [pytest.param(name, p, id=f"{name} p={p}") for p in P]


# ---- sound, whole, and nothing twice ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(recipes()))
def test_every_generator_passes_the_checker_for_every_small_shape(name):
    for p, m, v in shapes_of(name):
        assert check_schedule(table(name, p, m, v)) == [], (name, p, m, v)


@given(schedules())
def test_every_generator_passes_the_checker_and_a_second_opinion(schedule):
    assert check_schedule(schedule) == []
    assert oracle.run_all_that_can(schedule)


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b", "interleaved"])
def test_each_stage_runs_each_microbatch_forward_once_and_backward_once(name):
    for p, m, v in shapes_of(name):
        schedule = table(name, p, m, v)
        wanted = {Action(s, op, i) for s in range(p * v) for op in "FB" for i in range(schedule.microbatches)}
        listed = [action for *_, action in schedule.actions()]
        assert len(listed) == len(wanted)
        assert set(listed) == wanted


def test_outside_hands_hold_on_to_the_textbook_tables():
    assert table("naive", 2, 2).to_csv() == "0F0,0B0\n1F0,1B0\n"
    assert table("gpipe", 2, 3).to_csv() == "0F0,0F1,0F2,0B0,0B1,0B2\n1F0,1F1,1F2,1B0,1B1,1B2\n"
    assert table("1f1b", 2, 3).to_csv() == "0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n"
    assert table("interleaved", 2, 2, 2).to_csv() == (
        "0F0,0F1,2F0,2F1,2B0,2B1,0B0,0B1\n1F0,1F1,3F0,3B0,3F1,3B1,1B0,1B1\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "module"),
    [("naive", "naive"), ("gpipe", "gpipe"), ("1f1b", "one_f_one_b"), ("interleaved", "interleaved")],
)
def test_the_drawing_above_each_generator_is_what_it_writes(name, module):
    doc = importlib.import_module(f"pipelab.schedules.generators.{module}").__doc__
    size = {letter: int(number) for letter, number in re.findall(r"([pmv]) = (\d+)", re.search("p = .*time", doc)[0])}
    pictures = [row.split() for row in re.findall(r"device \d+(?: \(.*?\))? +(.*)", doc)]
    grid = table(name, size["p"], size.get("m", 1), size.get("v")).to_grid().splitlines()[1:]
    for picture, row in zip(pictures, grid, strict=True):
        for drawn, cell in zip(picture, row.partition("|")[2].split(), strict=True):
            assert drawn in cell, (picture, row)  # drawings may leave out the stage: F0 for 2F0


# ---- in flight -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "p"), every("gpipe"))
def test_gpipe_holds_all_m_microbatches_on_every_device(name, p):
    for m in M:
        assert unit_run(name, p, m).peak_microbatches == (m,) * p


@pytest.mark.parametrize(("name", "p"), every("1f1b"))
def test_1f1b_holds_at_most_p_minus_r_microbatches(name, p):
    for m in M:
        assert unit_run(name, p, m).peak_microbatches == tuple(min(p - r, m) for r in range(p))


@pytest.mark.parametrize("v", V)
@pytest.mark.parametrize(("name", "p"), every("interleaved"))
def test_interleaving_holds_its_warm_up_and_one_more_chunk(name, p, v):
    for m in allowed_microbatches(name, p, v):
        group = m // max(1, m // p)  # p of them where p divides m
        warmups = [min(2 * (p - 1 - r) + (v - 1) * group, m * v) for r in range(p)]
        shares = [min(w + 1, m * v) / v for w in warmups]
        assert unit_run(name, p, m, v).peak_microbatches == pytest.approx(shares)


@pytest.mark.parametrize(("name", "p"), every("naive"))
def test_naive_holds_one_microbatch_and_that_is_the_whole_batch(name, p):
    for m in M:
        assert unit_run(name, p, m).peak_microbatches == (1,) * p
        assert unit_run(name, p, m).peak_sequences == (m,) * p


# ---- bubbles, exactly ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "p"), [*every("gpipe"), *every("1f1b")])
def test_gpipe_and_1f1b_idle_for_p_minus_1_of_m_plus_p_minus_1(name, p):
    for m in M:
        run = unit_run(name, p, m)
        assert run.makespan == 2 * (m + p - 1)
        assert bubble_fraction(run) == Fraction(p - 1, m + p - 1)
        assert run.bubble_fraction == pytest.approx((p - 1) / (m + p - 1))
        assert run.bubble_ratio == pytest.approx((p - 1) / m)


@pytest.mark.parametrize(("name", "p"), every("naive"))
def test_naive_uses_one_pth_of_its_devices_whatever_m(name, p):
    for m in M:
        run = unit_run(name, p, m)
        assert run.makespan == 2 * m * p
        assert bubble_fraction(run) == 1 - Fraction(1, p)
        assert run.utilisation == pytest.approx(1 / p)


@pytest.mark.parametrize("v", V)
@pytest.mark.parametrize(("name", "p"), every("interleaved"))
def test_interleaving_divides_the_bubble_time_by_v(name, p, v):
    """For every m of at least p that it takes, multiple of p or not; with fewer, the way round p devices has gaps."""
    for m in allowed_microbatches(name, p, v):
        run = unit_run(name, p, m, v)
        if m >= p:
            assert bubble_fraction(run) == Fraction(p - 1, v * m + p - 1)
            assert run.makespan - 2 * m * v == 2 * (p - 1)  # bubble time, in chunks: (p-1)(tF+tB)/v of a share
        else:
            assert run.makespan == 2 * (p * v + m - 1)


@pytest.mark.parametrize("backward", [1, 2, 3])
def test_one_group_of_six_reaches_the_bound_of_four_devices(backward):
    """Story: m had to be a multiple of p, which is the rule of the paper and not of the schedule."""
    run = simulate(table("interleaved", 4, 6, 2), Costs(backward=backward))
    assert run.makespan == (6 + 3 / 2) * (1 + backward)
    assert run.makespan == 15 or backward > 1


@pytest.mark.parametrize(
    ("name", "v", "makespan", "idle", "messages"),
    [
        ("naive", 1, 32, 3 / 4, 6),
        ("gpipe", 1, 14, 3 / 7, 24),
        ("1f1b", 1, 14, 3 / 7, 24),
        ("interleaved", 2, 11, 3 / 11, 56),
    ],
)
def test_the_worked_example_p4_m4(name, v, makespan, idle, messages):
    run = simulate(table(name, 4, 4, v))
    assert run.makespan == makespan
    assert run.bubble_fraction == pytest.approx(idle)
    assert run.message_count == messages


def test_messages_cross_each_of_the_borders_between_stages_twice_per_microbatch():
    for p in range(2, 9):
        for m in (1, 4, 9):
            assert unit_run("gpipe", p, m).message_count == unit_run("1f1b", p, m).message_count == 2 * (p - 1) * m
        for v in V:
            for m in allowed_microbatches("interleaved", p, v, 12):
                assert unit_run("interleaved", p, m, v).message_count == 2 * (p * v - 1) * m


# ---- 1F1B ------------------------------------------------------------------------------------------------------------


def test_1f1b_with_fewer_microbatches_than_devices_is_gpipe_where_it_only_warms_up():
    for p in P:
        for m in range(1, p):
            for r in range(p - m):
                assert table("1f1b", p, m).programs[r] == table("gpipe", p, m).programs[r]


def test_the_last_device_of_1f1b_takes_forward_and_backward_in_turn():
    last = table("1f1b", 4, 3).programs[3]
    assert [(a.op, a.microbatch) for a in last] == [("F", 0), ("B", 0), ("F", 1), ("B", 1), ("F", 2), ("B", 2)]


@pytest.mark.parametrize(
    ("depths", "slots", "held"),
    [
        pytest.param([0, 0, 0, 0], 64, 1, id="none: one micro-batch at a time"),
        pytest.param([2, 1, 0, 0], 36, 3, id="one too few: each waits"),
        pytest.param([3, 2, 1, 0], 22, 4, id="right"),
        pytest.param([4, 3, 2, 1], 22, 5, id="one too many: no faster, holds more"),
    ],
)
def test_the_warm_up_of_1f1b_is_just_deep_enough(depths, slots, held):
    run = simulate(tables.warm_up_by_hand(4, 8, depths))
    assert run.makespan == slots
    assert run.peak_microbatches[0] == held


def test_the_right_depth_by_hand_is_what_the_generator_writes():
    assert tables.warm_up_by_hand(4, 8, [3, 2, 1, 0]).programs == table("1f1b", 4, 8).programs


# ---- interleaved -----------------------------------------------------------------------------------------------------


def test_interleaving_with_one_chunk_is_not_1f1b():
    """Its warm-up is twice as deep: as fast, and it holds more."""
    one_chunk, plain = unit_run("interleaved", 4, 8, 1), unit_run("1f1b", 4, 8)
    assert one_chunk.makespan == plain.makespan
    assert one_chunk.peak_microbatches == (7, 5, 3, 1)
    assert plain.peak_microbatches == (4, 3, 2, 1)


def test_interleaved_forwards_go_in_groups_of_p_through_all_chunks():
    first = [str(a) for a in table("interleaved", 2, 4, 2).programs[0] if a.op == "F"]
    assert first == ["0F0", "0F1", "2F0", "2F1", "0F2", "0F3", "2F2", "2F3"]


def test_where_p_does_not_divide_m_interleaved_goes_in_fewer_and_larger_groups():
    first = [str(a) for a in table("interleaved", 2, 3, 2).programs[0] if a.op == "F"]
    assert first == ["0F0", "0F1", "0F2", "2F0", "2F1", "2F2"]
    assert [m for m in range(1, 21) if recipes()["interleaved"].check(4, m, 2) is None] == [
        *range(1, 9), 10, 12, 15, 16, 20,
    ]  # fmt: skip


@pytest.mark.parametrize("v", V)
@pytest.mark.parametrize("p", [2, 3, 4, 7])
def test_interleaved_takes_the_m_that_pytorch_takes_and_in_its_order(p, v, monkeypatch):
    """ScheduleInterleaved1F1B, whose word for a group is round: refused or not, and action by action."""
    torch_schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    theirs = torch_schedules.ScheduleInterleaved1F1B
    monkeypatch.setattr(theirs, "_prepare_schedule_with_comms", lambda self, actions: None)
    stages = [SimpleNamespace(group_size=p, group_rank=0, num_stages=p * v) for _ in range(v)]
    compared = 0
    for m in range(1, 31):
        if m not in allowed_microbatches("interleaved", p, v, m):
            with pytest.raises(ValueError, match="multiple of the number of rounds"):
                theirs(stages, m)
            continue
        order = theirs(stages, m).pipeline_order
        for r, row in enumerate(table("interleaved", p, m, v).programs):
            listed = [(a.stage_index, a.computation_type.value, a.microbatch_index) for a in order[r] if a is not None]
            assert listed == [(a.stage, a.op, a.microbatch) for a in row], (m, r)
        compared += m % p > 0
    assert compared > 1, "m that are no multiples of p"


def test_interleaved_backwards_go_through_the_chunks_the_other_way_round():
    last = [str(a) for a in table("interleaved", 2, 4, 2).programs[1] if a.op == "B"]
    assert last == ["3B0", "3B1", "1B0", "1B1", "3B2", "3B3", "1B2", "1B3"]
