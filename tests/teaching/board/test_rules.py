import math

import pytest
from hypothesis import given

from pipelab import ConfigurationError
from pipelab.schedules import Action, build_schedule, recipes
from pipelab.teaching.board import Rules
from tests.teaching.board.boards import act, some_rules


def test_stages_live_where_the_catalogue_puts_them():
    rules = Rules(2, 4, 2)
    assert rules.placement == build_schedule("interleaved", 2, 4, 2).placement
    assert [rules.home(Action(stage, "F", 0)) for stage in range(rules.stages)] == [0, 1, 0, 1]
    assert rules.stages_on(1) == (1, 3)


def test_stages_go_down_and_back_up_or_both_ways():
    vee, both = Rules(3, 3, 2, layout="v"), Rules(2, 4, layout="two-way")
    assert vee.placement == build_schedule("zb-v", 3, 3).placement
    assert [vee.stages_on(r) for r in range(3)] == [(0, 5), (1, 4), (2, 3)]
    assert both.placement == build_schedule("chimera", 2, 4).placement
    assert [both.home(Action(0, "F", i)) for i in range(4)] == [0, 1, 0, 1]
    assert both.stages_on(0) == both.stages_on(1) == (0, 1)


def test_a_backward_in_two_takes_columns_of_its_own():
    rules = Rules(2, 1, forward=2, backward=[3, 1])
    assert list(map(str, rules.actions())) == ["0F0", "1F0", "1I0", "1W0", "0I0", "0W0"]
    assert [rules.duration(act(token)) for token in ("0F0", "0I0", "0W0")] == [2, 3, 1]
    assert list(map(str, rules.inputs(act("0I0")))) == ["0F0", "1I0"]
    assert list(map(str, rules.inputs(act("0W0")))) == ["0I0"]
    assert hash(rules) == hash(Rules(2, 1, forward=2, backward=(3, 1)))


def test_the_actions_are_the_forwards_and_backwards_on_their_way():
    assert list(map(str, Rules(2, 2).actions())) == ["0F0", "1F0", "1B0", "0B0", "0F1", "1F1", "1B1", "0B1"]


@given(some_rules())
def test_there_is_a_forward_and_a_backward_of_each_stage_and_micro_batch(rules):
    wanted = {Action(s, op, i) for s in range(rules.stages) for op in rules.ops for i in range(rules.microbatches)}
    assert set(rules.actions()) == wanted
    assert len(rules.actions()) == len(wanted)


def test_durations_are_in_columns_of_a_stage():
    rules = Rules(2, 2, forward=2, backward=3)
    assert [rules.duration(act(token)) for token in ("0F1", "1B0")] == [2, 3]


@given(some_rules())
def test_inputs_and_users_are_the_two_sides_of_one_thing(rules):
    pairs = {(action, source) for action in rules.actions() for source in rules.inputs(action)}
    assert pairs == {(user, source) for source in rules.actions() for user in rules.users(source)}
    assert {str(a) for a in rules.inputs(act("0F0"))} == set()


def test_a_limit_is_for_all_devices_or_one_a_device():
    assert Rules(2, 2).limits == (math.inf, math.inf)
    assert Rules(2, 2, limit=2).limits == (2.0, 2.0)
    assert Rules(2, 2, limit=[2, None]).limits == (2.0, math.inf)
    assert hash(Rules(2, 2, limit=[2, None])) == hash(Rules(2, 2, limit=(2, None)))


def test_a_limit_in_shares_is_counted_in_chunks():
    assert Rules(2, 2, 2, limit=(2, 1.5)).capacities == (4, 3)
    assert Rules(2, 3, 3, limit=4 / 3).capacities == (4, 4)
    assert Rules(2, 2, 2, limit=1.9).capacities == (3, 3)
    assert Rules(1, 9, 11, limit=15 / 11).capacities == (15,)  # 15 / 11 * 11 is a little less than 15


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"devices": 0}, r"devices \(p\) must be a whole number of at least 1, got 0"),
        ({"microbatches": 2.5}, r"microbatches \(m\) must be a whole number"),
        ({"chunks": True}, r"chunks \(v\)"),
        ({"forward": 0}, "forward must be a whole number of at least 1, got 0; try 1"),
        ({"backward": "2"}, "backward must be a whole number of at least 1, got '2'; try 2"),
        ({"backward": (1,)}, r"backward is one number, or a pair for I and W, got \(1,\); try \(1, 1\)"),
        ({"backward": (1, 0)}, r"backward \(W\) must be a whole number of at least 1, got 0"),
        ({"layout": "vee"}, "layout is one of loop, v, two-way, not 'vee'"),
        ({"layout": "v"}, "in a V each device has 2 chunks, got chunks=1; try chunks=2"),
        ({"layout": "two-way", "devices": 3}, "got devices=3 and chunks=1; try devices=2, chunks=1"),
        ({"limit": 0}, "limit must be at least 1 micro-batch, or None for no limit, got 0"),
        ({"limit": 0.5}, "try 1"),
        ({"limit": math.nan}, "got nan"),
        ({"limit": "2"}, "got '2'"),
        ({"limit": True}, "got True"),
        ({"limit": (2, 2, 2)}, "limit is given for 3 devices, but there are 2; give one number, or 2"),
        ({"limit": (2, 0)}, "got 0"),
    ],
)
def test_what_no_table_could_keep_is_refused(given_, words):
    with pytest.raises(ConfigurationError, match=words):
        Rules(**{"devices": 2, "microbatches": 2, **given_})


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("0W0", "this board has only F and B"),
        ("2F0", "there is no stage 2; stages are 0..1"),
        ("0F3", "there is no micro-batch 3; micro-batches are 0..2"),
    ],
)
def test_what_is_not_on_a_board_is_told(token, words):
    assert words in Rules(2, 3).unknown(act(token))
    assert Rules(2, 3).unknown(act("1B2")) is None


def test_a_board_is_longer_than_any_table_of_the_catalogue():
    for recipe in recipes().values():
        rules = Rules(4, 4, recipe.default_chunks)
        assert rules.columns == 2 * 4 * rules.stages * 2


def test_rules_are_read_aloud():
    assert str(Rules(3, 4, backward=2, limit=(3, 2, None))) == (
        "3 devices, 4 micro-batches; F takes 1 column, B 2 columns; at most 3, 2, any number in flight"
    )
    assert str(Rules(1, 1, 2, limit=2)) == (
        "1 device, 2 stages on each, 1 micro-batch; F takes 1 column, B 1 column; at most 2 in flight"
    )
    assert str(Rules(2, 3, 2, backward=(2, 1), layout="v")) == (
        "2 devices, 2 stages on each in a V, 3 micro-batches; F takes 1 column, I 2 columns, W 1 column"
    )
