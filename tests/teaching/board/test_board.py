import pickle
import subprocess
import sys
import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, ScheduleError, check_schedule
from pipelab.schedules import build_schedule, recipes
from pipelab.teaching.board import Board, Choice, IllegalMove, Opening, Rules
from tests import tables
from tests.fuzz.cases import fuzzed
from tests.strategies import schedules
from tests.teaching.board.boards import (
    act,
    completed,
    laid_out,
    loaded,
    may_stand,
    place_all,
    played,
    scattered,
    tokens,
)

ROOT = Path(__file__).parents[3]


# ---- placing ---------------------------------------------------------------------------------------------------------


def test_a_move_makes_a_new_board():
    empty = Board.empty(Rules(2, 2))
    board = empty.place(0, 0, act("0F0"))
    assert board.at(0, 0) == act("0F0")
    assert not empty.starts


def test_a_board_cannot_be_changed():
    board = Board.empty(Rules(2, 2))
    with pytest.raises(FrozenInstanceError):
        board.starts = {}
    with pytest.raises(TypeError):
        board.starts[act("0F0")] = 0
    mine = {act("0F0"): 0}
    board = Board(Rules(2, 2), mine)
    mine.clear()
    assert board.starts


def test_an_illegal_move_says_why():
    with pytest.raises(IllegalMove, match="1F0 needs 0F0, which is not placed yet") as caught:
        Board.empty(Rules(2, 2)).place(1, 0, act("1F0"))
    assert caught.value.violation.code == "no-input"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.violation) == (str(caught.value), caught.value.violation)


@given(st.data())
def test_any_legal_moves_make_a_sound_board_and_any_complete_one_a_sound_schedule(data):
    board = data.draw(completed())
    if board is None:
        return
    assert board.violations() == ()
    assert check_schedule(board.schedule()) == []
    assert all(peak <= limit + 1e-9 for peak, limit in zip(board.peaks, board.rules.limits, strict=True))
    if board.rules.forward == board.rules.backward == 1:
        assert check_schedule(board.timetable()) == []


@given(played())
def test_no_legal_move_makes_an_unsound_board(board):
    assert board.violations() == ()


# ---- taking away -----------------------------------------------------------------------------------------------------


def test_what_leans_on_an_action_goes_with_it():
    board, also = laid_out("gpipe", 2, 2).remove(act("1F0"))
    assert tokens(also) == ["1B0", "0B0"]
    assert tokens(board.missing) == ["1F0", "1B0", "0B0"]


def test_the_last_of_its_way_goes_alone():
    board, also = laid_out("gpipe", 2, 2).remove(act("0B1"))
    assert (also, tokens(board.missing)) == ((), ["0B1"])


def test_without_a_backward_later_forwards_may_be_too_many():
    board = place_all(Rules(2, 4, limit=2), "0F0@0", "0F1@1", "1F0@1", "1B0@2", "0B0@3", "0F2@4", "1F1@5", "1F2@6")
    removal = board.removal(act("1B0"))
    assert (tokens(removal.leaning), tokens(removal.crowded)) == (["0B0"], ["0F2", "1F2"])
    assert removal.also == (*removal.leaning, *removal.crowded)
    assert removal.sentence == (
        "1B0 is taken away, and with it 0B0, which needs it. 0F2 and 1F2 go too: without those backwards a device "
        "would hold more than its limit"
    )


def test_of_later_forwards_only_as_many_go_as_are_too_many():
    """Where 0F2 has gone, 0B1 makes room for 0F3 as before."""
    removal = laid_out("1f1b", 2, 4, limit=2).removal(act("0B0"))
    assert (tokens(removal.leaning), tokens(removal.crowded)) == ([], ["0F2", "1F2", "1B2", "0B2"])


def test_where_two_backwards_go_two_forwards_may_be_too_many():
    rules = Rules(1, 3, 2, limit=1.5)
    board = place_all(rules, "0F0@0", "1F0@1", "1B0@2", "0B0@3", "0F1@4", "0F2@5", "1F1@6")
    removal = board.removal(act("1B0"))
    assert (tokens(removal.leaning), tokens(removal.crowded)) == (["0B0"], ["0F2", "1F1"])


def test_a_forward_that_was_too_many_before_stays():
    board = loaded(Rules(2, 3, limit=1), "0F0@0", "0F1@1", "0F2@2")
    assert board.removal(act("0F2")).crowded == ()


def test_a_removal_is_told():
    board = laid_out("gpipe", 2, 2)
    assert board.removal(act("1F0")).sentence == "1F0 is taken away, and with it 1B0 and 0B0, which need it"
    assert board.removal(act("1B0")).sentence == "1B0 is taken away, and with it 0B0, which needs it"
    assert board.removal(act("0B0")).sentence == "0B0 is taken away"


def test_what_is_not_placed_cannot_be_taken_away():
    with pytest.raises(
        ConfigurationError, match="0F1 is not on the board, so it cannot be taken away; the board has 1 action"
    ):
        place_all(Rules(2, 2), "0F0@0").remove(act("0F1"))
    with pytest.raises(ConfigurationError, match="the board is empty"):
        Board.empty(Rules(2, 2)).remove(act("9F9"))


@given(st.data())
def test_taking_away_leaves_a_sound_board(data):
    board = data.draw(played())
    if not board.starts:
        return
    action = data.draw(st.sampled_from(sorted(board.starts)))
    left, also = board.remove(action)
    assert left.violations() == ()
    assert {**left.starts, action: board.starts[action], **{a: board.starts[a] for a in also}} == board.starts
    assert len(set(also)) == len(also) == len(board.starts) - len(left.starts) - 1


@given(st.data())
def test_taking_away_takes_no_more_than_it_must(data):
    """Whatever went could not have stayed: put back as the only thing where it stood, it would break a rule."""
    board = data.draw(played())
    if not board.starts:
        return
    left, also = board.remove(data.draw(st.sampled_from(sorted(board.starts))))
    for action in also[:1]:
        assert not may_stand(left, board.rules.home(action), board.starts[action], action)


@given(st.data())
def test_on_a_board_that_is_over_its_limit_only_what_leans_goes(data):
    """What was wrong before stays as it was: the learner sees it, and may mend it."""
    board = data.draw(scattered())
    forwards = [a for a in sorted(board.starts) if a.op == "F"]
    if not forwards:
        return
    removal = board.removal(data.draw(st.sampled_from(forwards)))
    wrong = {v.action for v in board.violations() if v.code == "memory"}
    assert not wrong & set(removal.crowded) or any(a.op in "BIW" for a in removal.leaning)
    assert {v.action for v in removal.board.violations() if v.code == "memory"} <= wrong


# ---- what could come next --------------------------------------------------------------------------------------------


def test_ready_is_all_that_may_stand_there():
    board = place_all(Rules(2, 3), "0F0@0", "0F1@1", "1F0@1")
    assert tokens(board.ready(0, 2)) == ["0F2"]
    assert tokens(board.ready(1, 2)) == ["1F1", "1B0"]
    assert board.ready(0, 1) == ()


@given(played(most=30), st.data())
def test_ready_agrees_with_the_oracle(board, data):
    device = data.draw(st.integers(0, board.rules.devices - 1))
    time = data.draw(st.integers(0, board.makespan + 2))
    wanted = {a for a in board.rules.actions() if may_stand(board, device, time, a)}
    assert set(board.ready(device, time)) == wanted


def test_choices_are_each_stages_next_two_with_their_reasons():
    board = place_all(Rules(2, 2, 2), "0F0@0")
    assert board.choices(0, 1) == (
        Choice(act("0F1"), None),
        Choice(act("0B0"), "0B0 needs 1B0, which is not placed yet (device 1)"),
        Choice(act("2F0"), "2F0 needs 1F0, which is not placed yet (device 1)"),
        Choice(act("2B0"), "2B0 needs 2F0, which is not placed yet (this device)"),
    )
    assert [choice.legal for choice in board.choices(0, 1)] == [True, False, False, False]
    assert {choice.reason for choice in board.choices(0, 0)} == {"0F0 is already at t = 0 on device 0"}
    assert laid_out("gpipe", 2, 2).choices(0, 20) == ()


@fuzzed(played(most=30), few=15, many=60)
def test_earliest_is_the_first_column_that_the_oracle_allows(board):
    for action in board.rules.actions():
        device = board.rules.home(action)
        wanted = next((t for t in range(board.makespan + 2) if may_stand(board, device, t, action)), None)
        assert board.earliest(action) == wanted, str(action)


def test_earliest_is_none_while_it_cannot_be_placed():
    board = place_all(Rules(2, 2, limit=1), "0F0@0")
    assert board.earliest(act("1F0")) == 1
    assert board.earliest(act("0F0")) is None
    assert board.earliest(act("1B0")) is None
    assert board.earliest(act("0F1")) is None
    assert board.earliest(act("7F0")) is None


def test_what_could_be_placed_anywhere():
    board = place_all(Rules(2, 3), "0F0@0", "0F1@1", "1F0@1")
    assert board.ready_anywhere() == (
        Opening(0, 2, act("0F2")),
        Opening(1, 2, act("1B0")),
        Opening(1, 2, act("1F1")),
    )


def test_one_micro_batch_is_offered_for_each_stage_and_direction():
    board = place_all(Rules(2, 2), "0F0@0", "0F1@1")
    assert board.ready_anywhere() == (Opening(1, 1, act("1F0")),)


def test_next_is_what_has_its_input_whatever_its_number():
    board = place_all(Rules(2, 3, limit=1), "0F2@0")
    assert board.ready_anywhere() == (Opening(1, 1, act("1F2")),)
    assert board.choices(1, 1)[0] == Choice(act("1F2"), None)
    assert board.choices(1, 0)[0] == Choice(act("1F2"), "1F2 needs 0F2, which device 0 finishes only at t = 1")


def test_of_several_with_their_input_the_one_that_may_start_is_chosen():
    board = place_all(Rules(2, 2), "0F0@0", "0F1@1", "1F0@1", "1F1@2", "1B1@3", "1B0@4")
    assert board.choices(0, 4) == (Choice(act("0B1"), None),)
    assert board.choices(0, 5) == (Choice(act("0B0"), None),)


def test_gaps_are_filled():
    board = place_all(Rules(1, 3, forward=2), "0F0@0", "0F1@5")
    assert board.earliest(act("0F2")) == 2


@given(played(Rules(2, 2, 2, limit=1.5), most=16) | played())
def test_a_dead_end_is_where_nothing_can_be_placed(board):
    horizon = range(board.makespan + 2)
    moves = ((board.rules.home(action), t, action) for action in board.missing for t in horizon)
    free = any(may_stand(board, *move) for move in moves)
    assert (board.dead_end is not None) == (not free and not board.complete)


def test_a_dead_end_says_what_to_do():
    board = place_all(Rules(2, 2, 2, limit=1), "0F0@0", "0F1@1", "1F0@1", "1F1@2")
    assert board.dead_end == (
        "device 0 holds 1 micro-batch, which is the limit, and no backward can run: take some forwards away"
    )
    assert board.remove(act("0F1"))[0].dead_end is None


def test_the_end_of_the_board_is_a_dead_end_too():
    board = place_all(Rules(1, 1), "0F0@3")
    assert board.dead_end == "0B0 can no longer be placed: take away what is in the way"


# ---- out and in ------------------------------------------------------------------------------------------------------


ON_A_BOARD = sorted(set(recipes()) - {"naive", "dualpipev", "pipedream", "vertical-sync", "2bw"})


@given(schedules(ON_A_BOARD, 4, 8, 3))
def test_every_schedule_can_be_laid_out_and_is_as_early_as_its_grid(schedule):
    assert Board.from_schedule(schedule).timetable().schedule().programs == schedule.programs
    assert Board.from_schedule(schedule).timetable().to_grid() == schedule.to_grid()


def test_a_schedule_that_breaks_the_cap_is_refused():
    with pytest.raises(IllegalMove, match="device 0 holds 3 micro-batches from t = 2, when 0F2 begins"):
        laid_out("gpipe", 2, 4, limit=2)


@pytest.mark.parametrize(
    ("schedule", "rules", "words"),
    [
        (build_schedule("gpipe", 2, 2), Rules(2, 3), "build one with devices=2, microbatches=3, chunks=1"),
        (build_schedule("naive", 2, 2), None, r"micro-batches of weights \(2.0,\); on a board all weigh 1"),
        (
            build_schedule("gpipe", 2, 2, recompute=True),
            None,
            "runs 0R0 on device 0; this board has only F and B, one at a time",
        ),
        (tables.read(tables.FUSED), None, "one at a time"),
        (tables.read(tables.V_SHAPED), Rules(2, 1, 2), "differently: on this board stage s is on device s mod p"),
        (build_schedule("interleaved", 2, 2), Rules(2, 2, 2, layout="v"), "on this board stages go down and come back"),
        (
            build_schedule("1f1b", 2, 2),
            Rules(2, 2, backward=(1, 1)),
            "runs 0B0 on device 0; this board has only F, I and",
        ),
    ],
)
def test_what_does_not_fit_on_a_board_is_refused(schedule, rules, words):
    with pytest.raises(ConfigurationError, match=words):
        Board.from_schedule(schedule, rules)


def test_an_unsound_schedule_is_not_laid_out():
    schedule = build_schedule("1f1b", 2, 2)
    turned = replace(schedule, programs=(schedule.programs[0][::-1], schedule.programs[1]))
    with pytest.raises(ScheduleError, match="cannot run"):
        Board.from_schedule(turned)


# ---- speed -----------------------------------------------------------------------------------------------------------


def test_a_large_board_answers_at_once():
    """Every click asks for this much; 30 ms are wanted, five times that are allowed to a busy machine."""
    full = laid_out("1f1b", 8, 32, limit=8)
    half = {action: start for action, start in full.starts.items() if start < full.makespan // 2}
    took = []
    for _ in range(5):
        began = time.perf_counter()
        board = Board(full.rules, half)
        board.choices(0, full.makespan // 2)
        board.ready(0, full.makespan // 2)
        board.ready_anywhere()
        board.violations()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.15


def test_the_core_loads_nothing_heavy():
    code = (
        "import sys, pipelab.teaching.board; "
        "print([n for n in ('torch', 'numpy', 'matplotlib', 'ipywidgets', 'IPython') if n in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
