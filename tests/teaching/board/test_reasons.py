import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab.schedules import CODES, Action
from pipelab.teaching.board import BOARD_CODES, Board, Rules
from tests.fuzz.cases import fuzzed
from tests.teaching.board.boards import act, crowded, loaded, may_stand, place_all, played, scattered, waits

RULES = Rules(3, 4, forward=1, backward=2)


def reason(board, device, time, token):
    found = board.why_not(device, time, act(token))
    return None if found is None else (found.code, found.message)


# ---- each reason, in its words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("placed", "move", "code", "words"),
    [
        ([], (0, 0, "0W0"), "unknown", "0W0: this board has only F and B"),
        ([], (0, 0, "3F0"), "unknown", "3F0: there is no stage 3; stages are 0..2"),
        ([], (0, 0, "0F4"), "unknown", "0F4: there is no micro-batch 4; micro-batches are 0..3"),
        ([], (3, 0, "0F0"), "unknown", "there is no device 3; devices are 0..2"),
        ([], (1, 0, "0F0"), "misplaced", "0F0 runs on device 0, not on device 1, because stage 0 is there"),
        (["0F0@2"], (0, 5, "0F0"), "duplicate", "0F0 is already on device 0 at t = 2; take it away there first"),
        ([], (0, -1, "0F0"), "off-board", "0F0 at t = -1: time begins at t = 0"),
        (
            [],
            (0, 72, "0F0"),
            "off-board",
            "0F0 would end at t = 73, but the board ends at t = 72: even one action at a time takes only 36 columns",
        ),
        (["0F0@0"], (0, 0, "0F1"), "occupied", "0F0 is already at t = 0 on device 0"),
        (
            ["0F0@0", "1F0@1", "2F0@2", "2B0@3"],
            (2, 4, "2F1"),
            "occupied",
            "device 2 runs 2B0 from t = 3 and is free at t = 5",
        ),
        (
            ["0F0@0", "0F1@1", "1F0@1", "2F0@2", "1F1@3", "2F1@4"],
            (2, 3, "2B0"),
            "occupied",
            "2B0 takes 2 columns, and 2F1 is in the way at t = 4",
        ),
        ([], (1, 1, "1F0"), "no-input", "1F0 needs 0F0, which is not placed yet (device 0)"),
        ([], (0, 9, "0B0"), "no-input", "0B0 needs 0F0, which is not placed yet (this device)"),
        (["0F0@0"], (0, 9, "0B0"), "no-input", "0B0 needs 1B0, which is not placed yet (device 1)"),
        (["0F0@1"], (1, 1, "1F0"), "too-early", "1F0 needs 0F0, which device 0 finishes only at t = 2"),
        (
            ["0F0@0", "1F0@1", "2F0@4"],
            (2, 3, "2B0"),
            "occupied",
            "2B0 takes 2 columns, and 2F0 is in the way at t = 4",
        ),
        (
            ["0F0@0", "1F0@1", "2F0@4"],
            (2, 2, "2B0"),
            "order",
            "2B0 needs 2F0, which this device finishes only at t = 5",
        ),
    ],
)
def test_every_refusal_says_why(placed, move, code, words):
    assert reason(place_all(RULES, *placed), *move) == (code, words)


def test_codes_are_those_of_the_checker_and_three_of_the_board():
    assert set(BOARD_CODES) == {"occupied", "memory", "off-board"}
    assert not set(BOARD_CODES) & set(CODES)


def test_a_refusal_names_what_blocks():
    found = place_all(RULES, "0F0@1").why_not(1, 1, act("1F0"))
    assert (found.device, found.position, found.action, found.blocker) == (1, 1, act("1F0"), act("0F0"))


def test_of_two_late_inputs_the_later_one_is_named():
    rules = Rules(2, 1, backward=3)
    board = place_all(rules, "0F0@4", "1F0@5", "1B0@6")
    assert reason(board, 0, 4, "0B0")[0] == "occupied"
    assert reason(board, 0, 5, "0B0") == ("too-early", "0B0 needs 1B0, which device 1 finishes only at t = 9")


def test_what_was_loaded_and_stands_too_early_holds_back_what_it_needs():
    board = loaded(RULES, "1F0@1", "0F1@0")
    assert reason(board, 0, 1, "0F0") == (
        "too-early",
        "0F0 would end at t = 2, but 1F0 needs it and already starts at t = 1",
    )


# ---- the memory cap --------------------------------------------------------------------------------------------------


def test_the_cap_is_a_rule():
    board = place_all(Rules(2, 4, limit=2), "0F0@0", "0F1@1")
    sentence = "device 0 would hold 3 micro-batches at t = 4, but its limit is 2: run a backward first"
    assert reason(board, 0, 4, "0F2") == ("memory", sentence)


def test_a_backward_makes_room_when_it_ends():
    board = place_all(Rules(2, 4, backward=2, limit=(2, 1)), "0F0@0", "0F1@1", "1F0@1", "1B0@2", "0B0@4")
    assert reason(board, 0, 3, "0F2")[0] == "memory"
    assert reason(board, 0, 6, "0F2") is None


def test_a_forward_may_not_crowd_out_what_stands_later():
    rules = Rules(2, 4, limit=2)
    board = place_all(rules, "0F0@0", "1F0@1", "1B0@2", "0B0@3", "0F1@8", "0F2@9")
    sentence = (
        "device 0 would hold 3 micro-batches at t = 9, when 0F2 begins, but its limit is 2: run a backward before that"
    )
    assert reason(board, 0, 5, "0F3") == ("memory", sentence)


def test_a_forward_whose_backward_stands_already_is_held_only_until_then():
    board = loaded(Rules(1, 2, limit=1), "0B0@3", "0F1@4")
    assert reason(board, 0, 1, "0F0") is None
    assert reason(loaded(Rules(1, 2, limit=1), "0B0@3", "0F1@2"), 0, 1, "0F0")[0] == "memory"


def test_a_device_is_full_until_a_w_ends():
    """I frees nothing: what W needs is still there."""
    board = place_all(Rules(1, 2, backward=(1, 1), limit=1), "0F0@0", "0I0@1")
    said = "device 0 would hold 2 micro-batches at t = 2, but its limit is 1: run a W first"
    assert reason(board, 0, 2, "0F1") == ("memory", said)
    assert reason(board.place(0, 2, act("0W0")), 0, 3, "0F1") is None


def test_two_ways_a_micro_batch_has_its_own_device():
    said = "1F1 runs on device 0, not on device 1, because stage 1 of micro-batch 1 is there"
    assert reason(Board.empty(Rules(2, 2, layout="two-way")), 1, 0, "1F1") == ("misplaced", said)


def test_chunks_count_by_their_share():
    board = place_all(Rules(2, 2, 2, limit=(2, 1.5)), "0F0@0", "0F1@1", "1F0@1", "1F1@2", "2F0@2", "2F1@3", "3F0@3")
    sentence = "device 1 would hold 2 micro-batches at t = 4, but its limit is 1.5: run a backward first"
    assert reason(board, 1, 4, "3F1") == ("memory", sentence)


def test_no_limit_is_no_reason():
    board = place_all(Rules(1, 9), *(f"0F{i}@{i}" for i in range(8)))
    assert reason(board, 0, 8, "0F8") is None


# ---- against the oracle ----------------------------------------------------------------------------------------------


def some_move(board):
    actions = st.builds(
        Action, st.integers(0, board.rules.stages), st.sampled_from("FBFBIW"), st.integers(0, board.rules.microbatches)
    )
    horizon = st.integers(-1, board.makespan + 3) | st.integers(0, board.rules.columns + 1)
    return st.tuples(st.integers(0, board.rules.devices), horizon, actions | st.sampled_from(board.rules.actions()))


@given(st.data())
def test_why_not_agrees_with_the_oracle_on_boards_that_were_played(data):
    board = data.draw(played())
    for device, time, action in data.draw(st.lists(some_move(board), min_size=5, max_size=12)):
        assert (board.why_not(device, time, action) is None) == may_stand(board, device, time, action)


@given(st.data())
def test_why_not_agrees_with_the_oracle_on_boards_that_were_loaded(data):
    board = data.draw(scattered())
    for device, time, action in data.draw(st.lists(some_move(board), min_size=5, max_size=12)):
        assert (board.why_not(device, time, action) is None) == may_stand(board, device, time, action)


@fuzzed(played(most=12), few=15, many=60)
def test_why_not_agrees_with_the_oracle_in_every_cell_for_every_action(board):
    for device in range(board.rules.devices):
        for time in range(board.makespan + 2):
            for action in board.rules.actions():
                said = board.why_not(device, time, action)
                assert (said is None) == may_stand(board, device, time, action), (device, time, str(action), said)


@given(scattered())
def test_violations_are_all_that_is_wrong_and_nothing_else(board):
    rules, starts = board.rules, board.starts
    found = board.violations()
    inputs = {(v.action, v.blocker) for v in found if v.code != "memory"}
    assert inputs == set(waits(rules, starts))
    over = crowded(rules, starts, rules.columns)
    begins = {(rules.home(action), start) for action, start in starts.items() if action.op == "F"}
    assert {(v.device, v.position) for v in found if v.code == "memory"} == over & begins
    assert bool(over) == any(v.code == "memory" for v in found)
    assert all(v.code in {**CODES, **BOARD_CODES} for v in found)


def test_what_is_wrong_with_a_loaded_board_is_told():
    board = loaded(Rules(2, 3, limit=1), "0F0@0", "1F0@0", "0B0@3", "0F1@2", "0F2@1")
    assert [str(violation) for violation in board.violations()] == [
        "[too-early] device 1 starts 1F0 at t = 0, but device 0 finishes 0F0 only at t = 1",
        "[memory] device 0 holds 2 micro-batches from t = 1, when 0F2 begins, but its limit is 1",
        "[memory] device 0 holds 3 micro-batches from t = 2, when 0F1 begins, but its limit is 1",
        "[no-input] device 0 starts 0B0 at t = 3, but 1B0, which it needs, is not placed",
    ]
    late = loaded(Rules(1, 1), "0F0@3", "0B0@1")
    assert [str(v) for v in late.violations()] == [
        "[order] device 0 starts 0B0 at t = 1, but it finishes 0F0 only at t = 4"
    ]


def test_an_empty_board_breaks_nothing():
    assert Board.empty(RULES).violations() == ()
