import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ScheduleError, build_schedule
from pipelab.schedules.reserved import ReservedError, reserve
from pipelab.schedules.warmups import with_warmups
from pipelab.teaching.board import Board, Rules, bound, recognise, score
from tests.strategies import schedules
from tests.teaching.board.boards import act, completed, loaded, place_all
from tests.teaching.board.optimum import optimum


def laid_out(name, rules):
    return Board.from_schedule(build_schedule(name, rules.devices, rules.microbatches, rules.chunks), rules)


# ---- the bound -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "columns"),
    [
        (Rules(4, 4), 14),
        (Rules(4, 1), 8),
        (Rules(2, 3, backward=2), 12),
        (Rules(2, 2, 2), 10),
        (Rules(4, 1, 3), 24),  # the way of one micro-batch
        (Rules(3, 4, limit=1), 24),  # memory: one at a time
        (Rules(3, 4, limit=(3, 2, 1)), 12),
        (Rules(3, 4, backward=(1, 1)), 14),  # (p - 1) tF + m (tF + tI + tW), as ZB-H1 takes
        (Rules(3, 4, backward=(3, 1)), 25),  # 2 tF + 4 (tF + tI) + 2 tI + tW
        (Rules(2, 3, 2, backward=(1, 1), layout="v"), 19),
        (Rules(4, 4, layout="two-way"), 10),  # as Chimera takes
        (Rules(4, 8, limit=2), 32),  # memory: 8 micro-batches, 8 columns each on device 0, 2 at a time
    ],
)
def test_the_bound_by_hand(rules, columns):
    assert bound(rules) == columns


@pytest.mark.parametrize(
    ("rules", "best"),
    [
        (Rules(1, 3), 6),
        (Rules(2, 2), 6),
        (Rules(3, 2), 8),
        (Rules(2, 3, forward=2), 12),
        (Rules(2, 3, limit=1), 12),
        (Rules(2, 2, 2), 10),
        (Rules(2, 2, 2, limit=1.5), 12),
        (Rules(2, 1, 2), 8),
        (Rules(3, 3, limit=2), 12),
        (Rules(2, 2, backward=(1, 1)), 7),
        (Rules(2, 2, backward=(2, 1)), 10),
        (Rules(2, 2, backward=(1, 1), limit=1), 10),
        (Rules(2, 1, 2, backward=(1, 1), layout="v"), 9),
        (Rules(2, 2, layout="two-way"), 4),
    ],
)
def test_no_table_at_all_is_shorter_than_the_bound(rules, best):
    assert optimum(rules) == best
    assert bound(rules) <= best
    if set(rules.limits) == {float("inf")}:
        assert bound(rules) == best


@given(schedules(["gpipe", "1f1b", "interleaved"], 6, 12, 3), st.integers(1, 3), st.integers(1, 3))
def test_no_schedule_of_the_catalogue_is_shorter_than_the_bound(schedule, forward, backward):
    free = Board.from_schedule(
        schedule, Rules(schedule.devices, schedule.microbatches, schedule.chunks, forward, backward)
    )
    capped = Rules(schedule.devices, schedule.microbatches, schedule.chunks, forward, backward, free.peaks)
    assert bound(free.rules) <= bound(capped) <= free.makespan


@given(completed())
def test_no_complete_board_is_shorter_than_the_bound(board):
    assert board is None or bound(board.rules) <= board.makespan


@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 3))
def test_gpipe_and_1f1b_reach_the_bound(p, m, backward):
    rules = Rules(p, m, backward=backward)
    assert laid_out("gpipe", rules).makespan == laid_out("1f1b", rules).makespan == bound(rules)


# ---- the score -------------------------------------------------------------------------------------------------------


def test_a_score_in_figures():
    found = score(laid_out("1f1b", Rules(4, 4)))
    assert (found.makespan, found.bound, found.peaks) == (14, 14, (4, 3, 2, 1))
    assert found.bubble_fraction == pytest.approx(3 / 7)
    assert found.recognised == "1F1B"
    assert {(k.title, k.makespan, k.peaks, k.fits) for k in found.known} == {
        ("GPipe", 14, (4, 4, 4, 4), True),
        ("1F1B", 14, (4, 3, 2, 1), True),
        ("GPipe, backwards in reverse order", 14, (4, 4, 4, 4), True),
        ("one micro-batch after the other", 32, (1, 1, 1, 1), True),
    }
    assert [known.makespan for known in found.known] == [14, 14, 14, 32]


def test_what_is_known_takes_the_columns_of_the_board():
    found = score(laid_out("interleaved", Rules(2, 4, 2, forward=2, backward=3, limit=(2.5, 1.5))))
    assert {(k.title, k.makespan, k.fits) for k in found.known} == {
        ("Interleaved 1F1B", 45, True),
        ("Breadth-first", 45, False),
        ("Looped BFS", 45, False),
        ("one micro-batch after the other", 80, True),
    }


def test_a_score_in_words():
    assert score(laid_out("gpipe", Rules(2, 3))).sentence == (
        "8 columns, and no complete table of F and B can be shorter. 25% of the cells are idle. Most micro-batches in "
        "flight on each device: 3, 3. This is GPipe."
    )


def test_idle_columns_do_not_hide_an_order():
    board = laid_out("gpipe", Rules(2, 2))
    late = Board(board.rules, {action: start + 2 for action, start in board.starts.items()})
    assert score(late).recognised == "GPipe"
    assert score(late).sentence.startswith("8 columns, 2 more than the bound of 6.")
    assert score(late).sentence.endswith(
        "This is the order of GPipe. It takes 6 columns if every action starts as early as it can."
    )


def test_an_order_of_ones_own_is_measured_against_the_best_that_fits():
    board = Board.from_schedule(with_warmups((2, 0), 3), Rules(2, 3))
    assert recognise(board) is None
    assert score(board).sentence.endswith(
        "It is none of the known schedules: GPipe, 1F1B and GPipe, backwards in reverse order take 8 columns."
    )
    board = Board.from_schedule(with_warmups((1, 1, 0), 4), Rules(3, 4, limit=2))
    assert score(board).sentence.endswith(
        "It is none of the known schedules, and shorter than those within this memory cap: one micro-batch after the "
        "other takes 24 columns."
    )


def test_several_that_are_the_same_are_all_named():
    assert recognise(laid_out("1f1b", Rules(3, 1))) == "GPipe and Naive and 1F1B"
    assert recognise(laid_out("1f1b", Rules(1, 3))) == "1F1B"


def test_only_complete_boards_have_a_score():
    for ask in (score, recognise):
        with pytest.raises(ScheduleError, match="not complete: 7 of 8 actions are missing, the first is 1F0"):
            ask(place_all(Rules(2, 2), "0F0@0"))


def test_a_board_that_breaks_a_rule_has_none():
    board = loaded(Rules(1, 1), "0F0@1", "0B0@0")
    with pytest.raises(ScheduleError, match="it finishes 0F0 only at t = 2") as caught:
        score(board)
    assert caught.value.violations[0].action == act("0B0")


def test_scores_keep_quiet_while_a_learner_is_asked_for_a_schedule():
    board = laid_out("gpipe", Rules(2, 2))
    score(board)
    with reserve("you are asked to write it"), pytest.raises(ReservedError):
        score(board)
    assert bound(board.rules) == 6


@given(completed())
def test_every_complete_board_has_a_score_in_words(board):
    if board is not None:
        found = score(board)
        assert (found.makespan, found.peaks) == (board.makespan, board.peaks)
        assert found.recognised is None or found.recognised in found.sentence
