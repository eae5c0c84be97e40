import pytest
from hypothesis import given

from pipelab.errors import ConfigurationError
from pipelab.schedules import Action, Schedule, Updating, actions_of, build_schedule, format_slot, parse_slot
from tests.strategies import actions, slots


@given(actions(max_stage=500, max_microbatch=5000))
def test_an_action_is_read_back_as_it_was_written(action):
    assert Action.parse(str(action)) == action


@given(slots())
def test_a_slot_is_read_back_as_it_was_written(slot):
    assert parse_slot(format_slot(slot)) == slot


def test_an_action_is_written_stage_op_microbatch():
    assert str(Action(3, "F", 0)) == "3F0"
    assert Action.parse("12W345") == Action(stage=12, op="W", microbatch=345)


def test_blanks_around_an_action_do_not_matter():
    assert Action.parse("  3F0 ") == Action(3, "F", 0)


def test_actions_sort_by_stage_first():
    assert sorted([Action(2, "B", 0), Action(10, "B", 0), Action(2, "B", 1)])[-1] == Action(10, "B", 0)


def test_a_fused_forward_and_backward_is_written_as_pytorch_writes_it():
    assert format_slot((Action(4, "F", 1), Action(3, "B", 0))) == "(4F1;3B0)OVERLAP_F_B"


def test_other_fused_slots_have_no_suffix():
    assert format_slot((Action(4, "F", 1), Action(3, "I", 0))) == "(4F1;3I0)"
    assert format_slot((Action(3, "B", 0), Action(4, "F", 1))) == "(3B0;4F1)"


def test_the_actions_of_a_slot_come_in_the_order_in_which_they_run():
    pair = (Action(4, "F", 1), Action(3, "B", 0))
    assert actions_of(pair) == pair
    assert actions_of(pair[0]) == (pair[0],)


def test_brackets_around_one_action_fuse_nothing():
    assert parse_slot("(3F0)") == Action(3, "F", 0)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("0FO", "did you mean 0F0?"),
        ("OFO", "did you mean 0F0?"),
        ("3f0", "did you mean 3F0?"),
        ("3 F 0", "did you mean 3F0?"),
        ("3_b_1", "did you mean 3B1?"),
        ("F0", "has no stage"),
        ("3F", "has no micro-batch"),
        ("3X0", "unknown op 'X'; ops are F, B, I, W, R, U"),
        ("3FB0", "unknown op 'FB'"),
        ("f", "like 3F0"),
        ("", "like 3F0"),
        ("forward", "like 3F0"),
    ],
)
def test_what_is_no_action_is_told_what_it_lacks(token, said):
    with pytest.raises(ValueError) as caught:
        Action.parse(token)
    assert said in str(caught.value)
    assert f"'{token}'" in str(caught.value)


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("(4F1;3B0", "write actions in brackets"),
        ("(4F1;3B0)OVERLAP", "write actions in brackets"),
        ("(4F1;3X0)", "unknown op 'X'"),
        ("(4F1;)", "is not an action"),
        ("()", "is not an action"),
        ("(4F1;3I0)OVERLAP_F_B", "OVERLAP_F_B fuses one F with one B"),
        ("(4F1;3B0;2B0)OVERLAP_F_B", "OVERLAP_F_B fuses one F with one B"),
    ],
)
def test_what_is_no_fused_slot_is_told_what_it_lacks(token, said):
    with pytest.raises(ValueError) as caught:
        parse_slot(token)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [(("oldest",), "try one of newest, input, delayed"), (("newest", 0), "every must be"), (("newest", 1.5), "every")],
)
def test_a_rule_that_there_is_not_is_refused(given, says):
    with pytest.raises(ConfigurationError, match=says):
        Updating(*given)


def test_what_is_no_rule_is_refused_by_the_table():
    with pytest.raises(ConfigurationError, match="updating is an Updating, got 'newest'"):
        Schedule.from_csv("0F0,0B0,0U0", updating="newest")


def test_a_pipeline_speaks_of_devices_micro_batches_and_ops():
    words = build_schedule("1f1b", devices=4, microbatches=4).words
    action = Action(3, "B", 1)
    assert words.device(2) == "device 2"
    assert (words.action(action), words.slot((Action(4, "F", 1), action))) == ("3B1", "(4F1;3B1)OVERLAP_F_B")
    assert words.in_full(action) == "backward of micro-batch 1, stage 3"
    assert words.group((Action(4, "F", 1), action)) == "F+B"
    assert words.comes(action) is None
