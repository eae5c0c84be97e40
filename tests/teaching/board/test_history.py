from hypothesis import given
from hypothesis import strategies as st

from pipelab.teaching.board import Board, History, Rules
from tests.teaching.board.boards import act

BOARD = Board.empty(Rules(2, 2))
FIRST = BOARD.place(0, 0, act("0F0"))
SECOND = FIRST.place(1, 1, act("1F0"))


def test_undo_and_redo():
    history = History(BOARD).do(FIRST).do(SECOND)
    assert (history.can_undo, history.can_redo) == (True, False)
    assert history.undo().board == FIRST
    assert history.undo().undo().board == BOARD
    assert history.undo().undo().can_undo is False
    assert history.undo().redo() == history


def test_a_new_step_forgets_what_was_undone():
    other = FIRST.place(0, 1, act("0F1"))
    history = History(BOARD).do(FIRST).do(SECOND).undo().do(other)
    assert (history.board, history.can_redo) == (other, False)
    assert history.undo().board == FIRST


def test_steps_that_are_not_there_change_nothing():
    history = History(BOARD)
    assert history.undo() == history.redo() == history
    assert history.do(Board.empty(Rules(2, 2))) == history


@given(st.lists(st.sampled_from(["do", "undo", "redo"]), max_size=30))
def test_a_history_is_a_list_and_a_place_in_it(steps):
    history, boards, at = History(BOARD), [BOARD], 0
    for k, step in enumerate(steps):
        if step == "do":
            board = Board(BOARD.rules, {act("0F0"): k % 14})
            if board != boards[at]:
                boards, at = [*boards[: at + 1], board], at + 1
            history = history.do(board)
        elif step == "undo":
            history, at = history.undo(), max(at - 1, 0)
        else:
            history, at = history.redo(), min(at + 1, len(boards) - 1)
        assert history.board == boards[at]
        assert (history.can_undo, history.can_redo) == (at > 0, at < len(boards) - 1)
