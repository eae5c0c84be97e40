import pickle
from csv import reader
from dataclasses import replace

import pytest
from hypothesis import given

from pipelab import ConfigurationError, ScheduleError
from pipelab.schedules import Action, Schedule, actions_of, build_schedule, check_schedule
from tests import tables
from tests.strategies import schedules, with_split_backward

# ---- what a table knows about itself ---------------------------------------------------------------------------------


def test_a_table_knows_its_devices_stages_chunks_and_microbatches():
    schedule = build_schedule("interleaved", devices=4, microbatches=8, chunks=2)
    assert (schedule.devices, schedule.stages, schedule.chunks, schedule.microbatches) == (4, 8, 2, 8)
    assert schedule.stages_on(1) == (1, 5)
    assert schedule.share == 0.5
    assert schedule.ops == {"F", "B"}


def test_every_action_is_listed_with_its_place():
    listed = list(tables.read(tables.FUSED).actions())
    assert listed[:3] == [(0, 0, Action(0, "F", 0)), (0, 1, Action(0, "F", 1)), (0, 1, Action(0, "B", 0))]
    assert len(listed) == 12


def test_where_a_stage_lives_is_read_from_the_table_and_never_reckoned():
    assert tables.read(tables.V_SHAPED).placement == ((0,), (1,), (1,), (0,))


def test_a_schedule_is_a_value():
    one, other = (build_schedule("1f1b", devices=3, microbatches=5) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    with pytest.raises(AttributeError):
        one.name = "mine"


def test_the_needs_of_a_table_are_resolved_once_and_never_sent_along():
    """Workers in other processes get the table alone, and work its needs out themselves."""
    schedule = build_schedule("1f1b", devices=3, microbatches=5)
    bare = pickle.dumps(schedule)
    assert schedule.graph is schedule.graph
    assert [str(edge.supplier) for edge in schedule.graph.edges_into(1, 0)] == ["0F0"]
    assert schedule.for_batch(16).graph is schedule.graph
    assert len(pickle.dumps(schedule)) == len(bare)
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule == build_schedule("1f1b", devices=3, microbatches=5)
    assert again.graph.edges_into(1, 0) == schedule.graph.edges_into(1, 0)


def test_a_changed_table_has_needs_of_its_own():
    schedule = build_schedule("gpipe", devices=2, microbatches=2)
    assert [str(edge.supplier) for edge in schedule.graph.edges_into(0, 2)] == ["0F0", "1B0"]
    again = schedule.with_recompute()
    assert [str(edge.supplier) for edge in again.graph.edges_into(0, 2)] == ["0F0"]
    assert str(again.programs[0][2]) == "0R0"


def test_a_stage_cannot_be_put_on_a_device_that_does_not_exist():
    with pytest.raises(ConfigurationError, match=r"stage 1 on devices \(2,\), there are devices 0\.\.1"):
        Schedule.from_csv("0F0\n1F0\n", placement=[(0,), (2,)])


@pytest.mark.parametrize("weights", [(1.0, 0.0), (1.0, -1.0), (1.0, float("nan"))])
def test_a_microbatch_of_no_size_is_refused(weights):
    with pytest.raises(ConfigurationError, match="weights must be positive"):
        Schedule.from_csv("0F0,0F1,0B0,0B1\n", weights=weights)


def test_a_table_of_forwards_is_an_evaluation_schedule():
    assert tables.read(tables.FORWARD_ONLY).forward_only
    assert not tables.read(tables.SPLIT).forward_only


@given(schedules(max_p=4, max_m=8))
def test_the_forward_part_keeps_the_order_of_the_forwards(schedule):
    part = schedule.forward_part()
    assert part.forward_only
    assert check_schedule(part) == []
    for before, after in zip(schedule.programs, part.programs, strict=True):
        assert after == tuple(a for slot in before for a in actions_of(slot) if a.op == "F")


# ---- micro-batches and the batch -------------------------------------------------------------------------------------


def test_64_sequences_in_12_microbatches_are_four_of_6_and_eight_of_5():
    schedule = build_schedule("1f1b", devices=4, microbatches=12)
    assert schedule.microbatch_sizes(64) == (6,) * 4 + (5,) * 8


def test_uneven_microbatches_weigh_what_they_hold_and_the_weights_still_add_up_to_m():
    schedule = build_schedule("1f1b", devices=4, microbatches=12).for_batch(64)
    assert schedule.weights == pytest.approx((6 * 12 / 64,) * 4 + (5 * 12 / 64,) * 8)
    assert sum(schedule.weights) == pytest.approx(12)
    assert schedule.microbatch_sizes(64) == (6,) * 4 + (5,) * 8


def test_a_batch_that_divides_leaves_the_weights_alone():
    schedule = build_schedule("gpipe", devices=4, microbatches=4)
    assert schedule.for_batch(64) == schedule


def test_the_single_microbatch_of_naive_holds_the_whole_batch():
    schedule = build_schedule("naive", devices=4, microbatches=4)
    assert schedule.microbatch_sizes(64) == (64,)
    assert schedule.for_batch(64).weights == (4.0,)


def test_weights_given_by_hand_cut_the_batch():
    assert Schedule.from_csv("0F0,0F1,0B0,0B1\n", weights=(3, 1)).microbatch_sizes(8) == (6, 2)


def test_weights_that_cut_a_sequence_in_two_are_refused():
    with pytest.raises(ConfigurationError, match=r"6\.75, 2\.25 sequences.*try for_batch\(9\)"):
        Schedule.from_csv("0F0,0F1,0B0,0B1\n", weights=(3, 1)).microbatch_sizes(9)


def test_more_microbatches_than_sequences_are_refused_with_the_m_that_works():
    with pytest.raises(ConfigurationError, match="at least 12 sequences, got 8; try m = 8"):
        build_schedule("1f1b", devices=4, microbatches=12).microbatch_sizes(8)


# ---- recomputation ---------------------------------------------------------------------------------------------------


def test_recomputation_puts_an_r_right_before_each_backward():
    schedule = build_schedule("gpipe", devices=2, microbatches=2, recompute=True)
    assert schedule.to_csv() == tables.RECOMPUTED


def test_recomputation_of_a_split_backward_comes_before_its_first_half_and_once():
    row = tables.read(tables.SPLIT).with_recompute().to_csv().splitlines()[1]
    assert row == "1F0,1R0,1I0,1F1,1R1,1I1,1W0,1W1"


def test_recomputation_stands_alone_before_a_fused_slot():
    row = tables.read(tables.FUSED).with_recompute().to_csv().splitlines()[0]
    assert row == "0F0,0R0,(0F1;0B0)OVERLAP_F_B,0R1,(0F2;0B1)OVERLAP_F_B,0R2,0B2"


def test_recomputation_stands_inside_a_slot_that_has_the_forward_too():
    """Before the slot there would be nothing to recompute yet: the checker used to refuse what came of it."""
    row = tables.read("0F0,(0F1;0B1),(0F2;0I2;0B0),0W2\n").with_recompute()
    assert row.to_csv() == "0F0,(0F1;0R1;0B1),0R0,(0F2;0R2;0I2;0B0),0W2\n"
    assert check_schedule(row) == []
    assert tables.read("0F0,(0F1;0B1;0B0)\n").with_recompute().to_csv() == "0F0,0R0,(0F1;0R1;0B1;0B0)\n"


def test_recomputing_what_is_recomputed_already_changes_nothing():
    schedule = tables.read(tables.RECOMPUTED)
    assert schedule.with_recompute() == schedule


@given(schedules(max_p=4, max_m=8))
def test_any_schedule_stays_sound_when_it_recomputes(schedule):
    again = schedule.with_recompute()
    assert check_schedule(again) == []
    assert [a for *_, a in again.actions() if a.op != "R"] == [a for *_, a in schedule.actions()]


def test_stage_0_recomputes_too_where_its_backward_is_a_lone_w():
    """Stage 0 may leave I out: then its W is its whole backward, and needs what any backward needs."""
    plain = build_schedule("1f1b", devices=2, microbatches=2)
    lean = with_split_backward(plain, lazy=False, first_input_gradient=False).with_recompute()
    assert check_schedule(lean) == []
    assert {(a.stage, a.microbatch) for *_, a in lean.actions() if a.op == "R"} == {(0, 0), (0, 1), (1, 0), (1, 1)}


# ---- PyTorch's dialect -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (tables.RECOMPUTED, r"device 0, position 2: PyTorch's tables have no 0R0"),
        (tables.UPDATES, r"device 0, position 3: PyTorch's tables have no 0U0"),
        (tables.FUSED_HALVES, r"device 0, position 2: PyTorch's tables have no \(0F2;0I0\)"),
        (tables.TWO_WAY, r"stage 0 lives on devices \(0, 1\).*exactly one"),
    ],
)
def test_the_torch_dialect_refuses_what_pytorch_does_not_know(text, said):
    schedule = tables.read(text)
    with pytest.raises(ScheduleError, match=said):
        schedule.to_csv(dialect="torch")
    assert schedule.to_csv() == text


@pytest.mark.parametrize("text", [tables.SPLIT, tables.FUSED, tables.V_SHAPED, tables.FORWARD_ONLY])
def test_the_torch_dialect_writes_what_pytorch_knows_unchanged(text):
    assert tables.read(text).to_csv(dialect="torch") == text


def test_an_unknown_dialect_is_told_the_known_ones():
    with pytest.raises(ConfigurationError, match="'toch'; there are 'pipelab' and 'torch'"):
        tables.read(tables.SPLIT).to_csv(dialect="toch")


def as_torch_reads_it(token):
    torch_schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    action = torch_schedules._Action.from_str(token)
    parts = action.sub_actions or (action,)
    return tuple((part.stage_index, part.computation_type.value, part.microbatch_index) for part in parts)


@pytest.mark.parametrize(
    "schedule",
    [
        build_schedule("naive", devices=4, microbatches=4),
        build_schedule("gpipe", devices=4, microbatches=6),
        build_schedule("1f1b", devices=4, microbatches=6),
        build_schedule("interleaved", devices=4, microbatches=8, chunks=3),
        tables.read(tables.SPLIT),
        tables.read(tables.FUSED),
    ],
    ids=lambda schedule: schedule.name,
)
def test_pytorch_reads_the_torch_dialect_as_we_mean_it(schedule):
    rows = list(reader(schedule.to_csv(dialect="torch").splitlines()))
    assert len(rows) == schedule.devices
    for row, program in zip(rows, schedule.programs, strict=True):
        for token, slot in zip(row, program, strict=True):
            assert as_torch_reads_it(token) == tuple((a.stage, a.op, a.microbatch) for a in actions_of(slot))


def test_pytorch_finds_nothing_to_read_where_a_device_has_nothing_to_do():
    torch_schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    idle = replace(tables.read("0F0,0B0\n"), programs=(tables.read("0F0,0B0\n").programs[0], ()))
    rows = list(reader(idle.to_csv(dialect="torch").splitlines()))
    assert len(rows) == 2
    assert [torch_schedules._Action.from_str(token) for token in rows[1]] in ([], [None])
