"""What stands where, on boards that moves made and on boards that were loaded."""

import copy
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, ScheduleError, simulate
from pipelab.schedules import TimeTable, build_schedule
from pipelab.simulation import Costs
from pipelab.teaching.board import Board, Rules
from tests.strategies import schedules
from tests.teaching.board.boards import (
    act,
    in_flight,
    laid_out,
    loaded,
    place_all,
    played,
    scattered,
    tokens,
)


def test_boards_are_equal_by_what_stands_where():
    rules = Rules(2, 2)
    one, other = loaded(rules, "0F0@0", "0F1@1"), loaded(rules, "0F1@1", "0F0@0")
    assert one == other
    assert hash(one) == hash(other)
    assert one != loaded(rules, "0F0@0", "0F1@2")
    assert one != loaded(Rules(2, 2, limit=2), "0F0@0", "0F1@1")


def test_boards_are_copied_and_sent():
    board = laid_out("1f1b", 2, 3, limit=(2, 1))
    assert pickle.loads(pickle.dumps(board)) == board
    assert copy.deepcopy(board) == board


@pytest.mark.parametrize(
    ("moves", "words"),
    [
        (["2F0@0"], "there is no stage 2"),
        (["0F0@-1"], r"0F0 at t = -1: the board has columns 0\.\.23"),
        (["0F0@24"], r"0F0 at t = 24: the board has columns 0\.\.23"),
        (["0F0@3", "0B1@2"], "device 0: 0F0 starts at t = 3, but 0B1 runs until t = 4"),
    ],
)
def test_what_no_grid_can_show_is_refused(moves, words):
    with pytest.raises(ConfigurationError, match=words):
        loaded(Rules(2, 2, backward=2), *moves)


def test_an_action_stands_in_all_its_columns():
    board = place_all(Rules(1, 1, forward=2, backward=3), "0F0@1", "0B0@4")
    assert [board.at(0, t) and str(board.at(0, t)) for t in range(8)] == [
        *(None, "0F0", "0F0", None),
        *("0B0", "0B0", "0B0", None),
    ]
    assert (board.makespan, board.end(act("0F0"))) == (7, 3)
    assert board.bubble_fraction == pytest.approx(2 / 7)


def test_what_is_missing_is_in_the_order_of_its_way():
    board = place_all(Rules(2, 2), "0F0@0", "1F0@1")
    assert tokens(board.missing) == ["1B0", "0B0", "0F1", "1F1", "1B1", "0B1"]
    assert not board.complete
    assert laid_out("gpipe", 2, 2).complete


def test_an_empty_board_has_no_columns():
    board = Board.empty(Rules(2, 2))
    assert (board.makespan, board.bubble_fraction, board.peaks, board.held(0)) == (0, 0.0, (0.0, 0.0), ())


def test_what_is_held_column_by_column():
    board = place_all(Rules(2, 2), "0F0@0", "1F0@1", "0F1@2", "1B0@3", "0B0@4")
    assert board.held(0) == (1, 1, 2, 2, 2)
    assert board.held(1) == (0, 1, 1, 1, 0)
    assert board.peaks == (2, 1)


@given(scattered() | played())
def test_what_is_held_is_what_the_oracle_counts(board):
    for device in range(board.rules.devices):
        counted = [in_flight(board.rules, board.starts, device, t) for t in range(board.makespan)]
        assert board.held(device) == pytest.approx(tuple(counted))
        assert board.peaks[device] == pytest.approx(max(counted, default=0))


@given(schedules(["gpipe", "1f1b", "interleaved"], 4, 8, 3), st.integers(1, 3), st.integers(1, 3))
def test_a_laid_out_schedule_has_the_figures_of_the_simulation(schedule, forward, backward):
    rules = Rules(schedule.devices, schedule.microbatches, schedule.chunks, forward, backward)
    board = Board.from_schedule(schedule, rules)
    costs = Costs(forward=(forward,) * rules.stages, backward=(backward,) * rules.stages)
    predicted = simulate(schedule, costs)
    assert board.makespan == predicted.makespan
    assert board.bubble_fraction == pytest.approx(predicted.bubble_fraction)
    assert board.peaks == pytest.approx(predicted.peak_microbatches)
    assert board.schedule().programs == schedule.programs
    drawn = board.timeline()
    assert drawn.spans == predicted.spans
    assert {replace(m, size=0.0) for m in drawn.messages} == {replace(m, size=0.0) for m in predicted.messages}
    assert drawn.peak_microbatches == pytest.approx(predicted.peak_microbatches)


def test_the_order_of_a_complete_board_is_a_schedule():
    schedule = laid_out("1f1b", 3, 4).schedule("mine")
    assert schedule.name == "mine"
    assert schedule.programs == build_schedule("1f1b", 3, 4).programs


def test_an_unfinished_board_has_no_schedule():
    with pytest.raises(ScheduleError, match="not complete: 7 of 8 actions are missing, the first is 1F0"):
        place_all(Rules(2, 2), "0F0@0").schedule()


def test_an_unfinished_board_has_a_timeline():
    timeline = place_all(Rules(2, 2, backward=2), "0F0@0", "1F0@2", "1B0@3").timeline()
    assert [(s.device, str(s.slot), s.start, s.end) for s in timeline.spans] == [
        (0, "0F0", 0, 1),
        (1, "1F0", 2, 3),
        (1, "1B0", 3, 5),
    ]
    assert [(m.kind, str(m.producer), str(m.consumer), m.sent, m.arrived) for m in timeline.messages] == [
        ("activation", "0F0", "1F0", 1, 1)
    ]
    assert timeline.clock_name == "drawn (the columns of the board)"
    assert timeline.makespan == 5
    assert timeline.gaps()
    assert timeline.critical_path()
    assert Board.empty(Rules(2, 2)).timeline().spans == ()


def test_the_timetable_has_each_action_where_it_starts():
    board = place_all(Rules(2, 1, forward=2), "0F0@1", "1F0@3")
    assert board.timetable() == TimeTable(((None, act("0F0")), (None, None, None, act("1F0"))))


def test_a_board_is_read_aloud():
    assert str(place_all(Rules(2, 2), "0F0@0")) == (
        "1 of 8 actions in 1 column (2 devices, 2 micro-batches; F takes 1 column, B 1 column)"
    )
