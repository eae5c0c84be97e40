from dataclasses import replace

import pytest

from pipelab import ConfigurationError, build_schedule
from pipelab.schedules import Schedule
from pipelab.schedules.warmups import with_warmups
from pipelab.teaching.board import PUZZLES, Board, IllegalMove, Rules, bound, puzzle
from pipelab.teaching.board.known import known_schedules
from tests.teaching.board.boards import act, loaded, place_all
from tests.teaching.board.optimum import optimum

NAMES = ["first-steps", "gpipe", "memory-wall", "1f1b", "tight-memory", "b-is-2f", "interleaved"]
NAMES += ["fill-the-bubble", "no-bubble", "v-shape"]

TIGHT = """\
0F0,0F1,0B0,0F2,0B1,0F3,0B2,0B3
1F0,1F1,1B0,1B1,1F2,1F3,1B2,1B3
2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3
"""

SOLUTIONS = {
    "first-steps": build_schedule("gpipe", 2, 2),
    "gpipe": build_schedule("gpipe", 3, 4),
    "memory-wall": build_schedule("1f1b", 2, 4),
    "1f1b": build_schedule("1f1b", 3, 4),
    "tight-memory": Schedule.from_csv(TIGHT),
    "b-is-2f": build_schedule("1f1b", 2, 3),
    "interleaved": build_schedule("interleaved", 2, 2, 2),
    "fill-the-bubble": build_schedule("zb-h1", 3, 4),
    "no-bubble": build_schedule("zb-h2", 2, 4),
    "v-shape": build_schedule("zb-v", 2, 3),
}

every_puzzle = pytest.mark.parametrize("one", PUZZLES, ids=lambda one: one.name)


def solved(one):
    """Its solution, placed move by move in the order of time."""
    laid_out = Board.from_schedule(SOLUTIONS[one.name], one.rules)
    board = one.empty()
    for action, start in sorted(laid_out.starts.items(), key=lambda pair: pair[1]):
        board = board.place(one.rules.home(action), start, action)
    return board


def test_the_ladder():
    assert [one.name for one in PUZZLES] == NAMES
    assert sum(one.rules.devices != one.rules.microbatches for one in PUZZLES) >= 3


@every_puzzle
def test_a_puzzle_is_small_and_told(one):
    assert len(one.rules.actions()) <= (24 if one.rules.ops == "FB" else 36)
    assert len(one.hints) == 3
    assert all(text.endswith(".") for text in (one.text, one.goal, one.learnt))
    assert all(hint.endswith((".", "?")) for hint in one.hints)
    assert str(one.target) in one.goal
    assert one.empty() == Board.empty(one.rules)


@every_puzzle
def test_a_puzzle_can_be_solved(one):
    verdict = one.verdict(solved(one))
    assert verdict.done
    assert one.learnt in verdict.sentence


@every_puzzle
def test_the_target_is_what_can_be_reached(one):
    assert bound(one.rules) <= one.target
    if bound(one.rules) == one.target:
        return  # a solution proves it
    assert optimum(one.rules) <= one.target
    if one.name != "memory-wall":  # which is about room, and leaves two columns for another try
        assert optimum(one.rules) == one.target


@every_puzzle
def test_one_micro_batch_after_the_other_does_not_solve_it(one):
    serial = dict(known_schedules(one.rules))["one micro-batch after the other"]
    assert not one.verdict(Board.from_schedule(serial, one.rules)).done


@pytest.mark.parametrize("name", ["memory-wall", "1f1b", "tight-memory", "b-is-2f"])
def test_all_forwards_first_does_not_fit_where_memory_is_short(name):
    rules = puzzle(name).rules
    for title in ("GPipe", "GPipe, backwards in reverse order"):
        with pytest.raises(IllegalMove, match="its limit is"):
            Board.from_schedule(dict(known_schedules(rules))[title], rules)


def test_breadth_first_does_not_fit_where_interleaving_does():
    rules = puzzle("interleaved").rules
    with pytest.raises(IllegalMove, match=r"device 1 holds 2 micro-batches .* its limit is 1\.5"):
        Board.from_schedule(dict(known_schedules(rules))["Breadth-first"], rules)


@pytest.mark.parametrize(("name", "warmups"), [("1f1b", (1, 1, 0)), ("1f1b", (2, 0, 0)), ("tight-memory", (1, 1, 0))])
def test_a_shorter_warm_up_is_too_slow(name, warmups):
    one = puzzle(name)
    verdict = one.verdict(Board.from_schedule(with_warmups(warmups, 4), one.rules))
    assert not verdict.done
    assert verdict.sentence.endswith("In this order nothing can start earlier, so the order has to change.")


@pytest.mark.parametrize(
    ("name", "title", "words"),
    [
        (
            "fill-the-bubble",
            "1F1B in single actions",
            "in 16 columns: 2 more than the goal of 14. In this order nothing",
        ),
        ("no-bubble", "ZB-H1", "in 13 columns. But device 0 idles at t = 2, and here no device may idle"),
        ("no-bubble", "1F1B in single actions", "in 14 columns: 1 more than the goal of 13."),
        ("v-shape", "V-Half", "in 21 columns: 2 more than the goal of 19."),
        ("v-shape", "V-Min", "in 21 columns: 2 more than the goal of 19."),
    ],
)
def test_what_fits_and_does_not_fill_the_bubble_is_told_why(name, title, words):
    one = puzzle(name)
    verdict = one.verdict(Board.from_schedule(dict(known_schedules(one.rules))[title], one.rules))
    assert not verdict.done
    assert verdict.sentence.startswith(f"All actions are placed, {words}")


@pytest.mark.parametrize(("name", "limit"), [("fill-the-bubble", 2), ("no-bubble", 2), ("v-shape", 1.5)])
def test_the_bubble_is_not_filled_with_less_room(name, limit):
    """The limit is the least of its kind: the solution breaks any smaller one."""
    one = puzzle(name)
    with pytest.raises(IllegalMove, match="its limit is"):
        Board.from_schedule(SOLUTIONS[name], replace(one.rules, limit=limit))


def test_a_solution_of_ones_own_fills_the_bubble_too():
    one = puzzle("fill-the-bubble")
    starts = dict(solved(one).starts)
    starts[act("2W1")], starts[act("2W2")] = starts[act("2W2")], starts[act("2W1")]
    assert one.verdict(Board(one.rules, starts)).sentence.startswith("Solved, in 14 columns. Each W waits")


def test_two_small_gpipes_climb_the_memory_wall_and_are_told_of_more():
    one = puzzle("memory-wall")
    rows = [["0F0", "0F1", "0B0", "0B1", "0F2", "0F3", "0B2", "0B3"]]
    rows.append([token.replace("0F", "1F").replace("0B", "1B") for token in rows[0]])
    verdict = one.verdict(Board.from_schedule(Schedule.from_rows(rows), one.rules))
    assert verdict.done
    assert verdict.sentence.startswith("Solved, in 12 columns. A backward frees the room")
    assert verdict.sentence.endswith("It can be done in 10, and not in fewer. Do you see how?")


def test_what_is_left_to_win_is_what_fits_and_no_more_is_promised_than_is_known():
    one = replace(puzzle("tight-memory"), target=30)
    serial = Board.from_schedule(dict(known_schedules(one.rules))["one micro-batch after the other"], one.rules)
    late = Board(one.rules, {action: start + 1 for action, start in serial.starts.items()})
    assert one.verdict(late).sentence.endswith(" It can be done in 24. Do you see how?")
    assert one.verdict(serial).sentence.endswith(one.learnt)


def test_gpipes_puzzle_wants_all_forwards_first():
    one = puzzle("gpipe")
    verdict = one.verdict(Board.from_schedule(build_schedule("1f1b", 3, 4), one.rules))
    assert verdict.sentence == "Here all forwards come first, but on device 0 0B0 comes before 0F3."
    half = place_all(one.rules, "0F0@0", "1F0@1", "2F0@2", "2B0@3")
    assert one.verdict(half).sentence == ("Here all forwards come first, but on device 2 2B0 comes before 2F1.")
    reverse = dict(known_schedules(one.rules))["GPipe, backwards in reverse order"]
    assert one.verdict(Board.from_schedule(reverse, one.rules)).done


def test_a_verdict_says_what_could_be_next():
    one = puzzle("first-steps")
    nothing = one.verdict(one.empty()).sentence
    assert nothing == "The board is empty. There are 8 actions to place, and 0F0 needs no input."
    board = place_all(one.rules, "0F0@0", "0F1@1")
    assert one.verdict(board).sentence == "2 of 8 actions placed. 1F0 could be next, on device 1 at t = 1."
    assert not one.verdict(board).done


def test_a_verdict_says_where_nothing_can_be_next():
    one = puzzle("interleaved")
    late = place_all(one.rules, "0F1@30", "0F0@31", "1F1@31")
    assert one.verdict(late).sentence == (
        "3 of 16 actions placed. It cannot be finished like this: 1F0 and 2F1 can no longer be placed: take away what "
        "is in the way."
    )


def test_a_verdict_says_early_that_it_is_late():
    one = puzzle("first-steps")
    assert one.verdict(place_all(one.rules, "0F0@6")).sentence == (
        "1 of 8 actions placed. The table already reaches t = 7, and the goal is 6 columns. 0F1 could be next, on "
        "device 0 at t = 0."
    )


def test_a_verdict_tells_waiting_from_a_wrong_order():
    one = puzzle("first-steps")
    board = solved(one)
    late = Board(one.rules, {a: t + (t >= 4) for a, t in board.starts.items()})
    assert one.verdict(late).sentence == (
        "All actions are placed, in 7 columns: 1 more than the goal of 6. The order is right. It takes 6 if every "
        "action starts as early as it can."
    )
    serial = dict(known_schedules(one.rules))["one micro-batch after the other"]
    later = Board(one.rules, {a: t + 1 for a, t in Board.from_schedule(serial, one.rules).starts.items()})
    assert one.verdict(later).sentence == (
        "All actions are placed, in 9 columns: 3 more than the goal of 6. This order needs only 8. For fewer columns "
        "the order has to change."
    )


def test_a_board_that_breaks_the_rules_solves_nothing():
    one = puzzle("first-steps")
    starts = {**solved(one).starts, act("1F0"): 0}
    verdict = one.verdict(Board(one.rules, starts))
    assert not verdict.done
    assert verdict.sentence == (
        "This board breaks the rules: device 1 starts 1F0 at t = 0, but device 0 finishes 0F0 only at t = 1."
    )


def test_a_board_of_another_puzzle_is_refused():
    with pytest.raises(ConfigurationError, match=r"not one of puzzle '1f1b'.*puzzle\('1f1b'\).empty\(\)"):
        puzzle("1f1b").verdict(loaded(Rules(2, 2)))


def test_a_puzzle_is_found_by_its_name():
    assert puzzle("GPipe") is PUZZLES[1]
    with pytest.raises(ConfigurationError, match=r"there is no puzzle 'memory'; .*did you mean 'memory-wall'"):
        puzzle("memory")
    with pytest.raises(ConfigurationError, match="there is no puzzle '3'"):
        puzzle(3)
