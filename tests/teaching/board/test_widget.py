from __future__ import annotations

import json
import re

import pytest

from pipelab import ConfigurationError, build_schedule, draw_schedule, puzzles
from pipelab.teaching.board import PUZZLES, Board, IllegalMove, puzzle
from pipelab.teaching.running.runs import Run
from tests.teaching.board.boards import act
from tests.teaching.board.test_puzzles import SOLUTIONS

HALF = "0F0,0F1\n,1F0,1B0\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(board):
    """What the browser draws from."""
    return json.loads(board.view)


def ask(board, do, **message):
    """A message as the browser sends it; all that was sent back, the answer last."""
    sent = []
    board.send = lambda content, buffers=None: sent.append(content)
    board._received(None, {"id": "1", "do": do, **message}, [])
    assert "Traceback" not in json.dumps(sent)
    assert sent[-1]["answers"] == "1"
    return sent


def said(board, do, **message):
    return ask(board, do, **message)[-1].get("said")


def place(board, *moves):
    """Moves such as "0F0@0", one message each."""
    for move in moves:
        action, time = move.split("@")
        device = board.board.rules.home(act(action))
        assert said(board, "place", device=device, time=int(time), action=action) is None


def solve(board, name):
    """The solution of a puzzle, in the order of time."""
    starts = Board.from_schedule(SOLUTIONS[name], puzzle(name).rules).starts
    place(board, *(f"{action}@{start}" for action, start in sorted(starts.items(), key=lambda pair: pair[1])))


# ---- moves -----------------------------------------------------------------------------------------------------------


def test_a_move_in_the_browser_is_a_move_in_python():
    drawn, played = draw_schedule(2, 2), draw_schedule(2, 2, name="other")
    place(drawn, "0F0@0", "0F1@1", "1F0@1")
    played.place(0, 0, "0F0").place(0, 1, act("0F1")).place(1, 1, "1F0")
    assert drawn.board == played.board
    assert [action[:4] for action in told(drawn)["actions"]] == [["0F0", 0, 0, 1], ["0F1", 0, 1, 1], ["1F0", 1, 1, 1]]
    assert told(drawn)["done"] == [3, 8]
    assert told(drawn)["said"] == "1F0 is on device 1 at t = 1."
    assert told(drawn)["status"] == {"done": False, "sentence": "3 of 8 actions placed."}


def test_looking_at_a_cell_tells_what_may_stand_there_and_why_the_rest_may_not():
    board = draw_schedule(2, 2)
    assert ask(board, "look", device=0, time=0)[0] == {
        "cell": [0, 0],
        "here": None,
        "choices": [["0F0", True, ""], ["0B0", False, "0B0 needs 0F0, which is not placed yet (this device)"]],
    }
    place(board, "0F0@0")
    assert ask(board, "look", device=0, time=0)[0] == {"cell": [0, 0], "here": "0F0", "choices": []}
    assert told(board)["done"] == [1, 8]  # looking places nothing


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"device": 1, "time": 0, "action": "1F0"}, r"1F0 needs 0F0.*\."),
        ({"device": 0, "time": 0, "action": "1F0"}, "1F0 .*device 1.*"),
        ({"device": 0, "time": 2, "action": "0F0"}, r"0F0 is already on device 0.*take it away there first\."),
        ({"device": 0, "time": 0, "action": "0F1"}, ".*0F0.*"),
        ({"device": 0, "time": 999, "action": "0F1"}, "0F1 would end at t = 1000, but the board ends at t = 16: .*"),
        ({"device": 0, "time": -1, "action": "0F1"}, ".*-1.*"),
        ({"device": 9, "time": 1, "action": "0F1"}, ".*9.*"),
        ({"device": 0, "time": 1, "action": "0Q1"}, "'0Q1': unknown op 'Q'.*"),
        ({"device": 0, "time": 1, "action": None}, "'None' .*"),
        ({"device": 0, "time": 1, "action": "9F9"}, ".*9F9.*"),
        ({"device": "x", "time": 1, "action": "0F1"}, "That was not understood: .*"),
        ({"time": 1, "action": "0F1"}, "That was not understood: .*"),
    ],
)
def test_a_move_that_cannot_be_is_answered_with_the_reason_and_changes_nothing(message, says):
    board = draw_schedule(2, 2)
    place(board, "0F0@0")
    before, view = board.board, board.view
    assert re.fullmatch(says, said(board, "place", **message))
    assert (board.board, board.view) == (before, view)


@pytest.mark.parametrize("cell", [{"device": 2, "time": 0}, {"device": 0, "time": -1}, {"device": 0, "time": 10**6}])
def test_there_is_nothing_to_see_beside_the_board(cell):
    assert said(draw_schedule(2, 2), "look", **cell) == "the board has devices 0..1 and columns 0..15"


def test_taking_an_action_away_takes_what_leans_on_it():
    board = draw_schedule(2, 2)
    place(board, "0F0@0", "1F0@1", "1B0@2")
    assert said(board, "take", action="1F0") is None
    assert list(board.board.starts) == [act("0F0")]
    assert told(board)["said"] == "1F0 is taken away, and with it 1B0, which needs it."
    assert "1F0 is not on the board" in said(board, "take", action="1F0")
    assert "'nothing' is not an action" in said(board, "take", action="nothing")


def test_every_move_can_be_undone_and_done_again():
    board = draw_schedule(2, 2)
    seen = [board.board]
    place(board, "0F0@0", "1F0@1")
    seen += [board.board]
    ask(board, "take", action="0F0")
    ask(board, "load", text=HALF)
    ask(board, "clear")
    assert told(board)["undo"]
    for _ in range(3):
        ask(board, "undo")
    assert board.board == seen[1]
    assert told(board)["redo"]
    ask(board, "redo")
    assert board.board == seen[0]
    ask(board, "redo")
    assert len(board.board.starts) == 4
    for _ in range(9):
        ask(board, "undo")
    assert board.board == seen[0]
    assert (told(board)["undo"], said(board, "undo")) == (False, None)


def test_in_python_a_move_that_cannot_be_raises():
    board = draw_schedule(2, 2)
    with pytest.raises(IllegalMove, match="1F0 needs 0F0"):
        board.place(1, 0, "1F0")
    with pytest.raises(ConfigurationError, match="unknown op"):
        board.place(0, 0, "0Q0")


def test_a_memory_limit_refuses_too():
    board = draw_schedule(2, 3, limit=1)
    place(board, "0F0@0")
    answer = said(board, "place", device=0, time=1, action="0F1")
    assert answer == "Device 0 would hold 2 micro-batches at t = 1, but its limit is 1: run a backward first."
    assert told(board)["limits"] == [1, 1]


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["zzz", "0F0\n1F0\n2F0\n", "0F0,0F0\n", "\x00", "0F0;1F0", "5F5,5B5\n", "1F0\n0F0\n", "(0F0;0B0)\n"]
)
def test_a_damaged_grid_is_refused_with_a_sentence_and_the_board_stays(text):
    board = draw_schedule(2, 2)
    place(board, "0F0@0")
    before = board.board
    answer = said(board, "load", text=text, name="mine.csv")
    assert answer.startswith("mine.csv was not loaded, and the board has not changed. ")
    assert (board.board, draw_schedule(2, 2).board) == (before, before)


def test_a_file_without_a_name_or_text_is_answered_too():
    assert said(draw_schedule(2, 2), "load", text="zzz").startswith("that file was not loaded")
    assert said(draw_schedule(2, 2), "load", text=None).startswith("that file was not loaded")


def test_a_half_finished_grid_is_saved_and_loaded(here):
    board = draw_schedule(2, 2)
    place(board, "0F0@0", "0F1@1", "1F0@1", "1B0@2")
    assert said(board, "save", kind="csv") == "Saved as drawing-p2-m2.csv, beside this notebook."
    assert (here / "drawing-p2-m2.csv").read_text() == board.board.to_csv()
    other = draw_schedule(2, 2, name="other")
    assert said(other, "load", text=(here / "drawing-p2-m2.csv").read_text()) is None
    assert other.board == board.board
    assert draw_schedule(2, 2, csv=board.board.to_csv(), name="third").board == board.board


def test_saving_never_overwrites(here):
    board = draw_schedule(2, 2, name="mine")
    assert [board.save().name for _ in range(3)] == ["mine.csv", "mine-2.csv", "mine-3.csv"]
    assert board.save("picture").read_bytes().startswith(b"\x89PNG")
    assert said(board, "save", kind="exe") == "'exe' cannot be saved; save csv, picture, svg and gif"
    assert len(list(here.iterdir())) == 4


@pytest.mark.parametrize("sizes", [(17, 1), (1, 65), (16, 64)])
def test_a_board_that_nobody_could_fill_is_refused(sizes):
    with pytest.raises(ConfigurationError, match="too large to draw by hand; try p of at most 8"):
        draw_schedule(*sizes)


# ---- puzzles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLUTIONS)
def test_a_puzzle_played_in_the_browser_to_its_solution_is_solved(name):
    board = puzzles(name)
    view = told(board)
    assert (view["puzzle"], view["target"], len(view["hints"])) == (name, puzzle(name).target, 3)
    assert not view["status"]["done"]
    solve(board, name)
    view = told(board)
    assert view["status"]["done"]
    assert view["status"]["sentence"].startswith("Solved, in ")
    assert puzzle(name).learnt in view["status"]["sentence"]
    assert [entry[2] for entry in view["ladder"]] == [one.name == name for one in PUZZLES]
    assert view["score"]["rows"][0][:2] == ["yours", board.board.makespan]


def test_what_was_solved_stays_solved_in_a_new_widget():
    solve(puzzles(), "first-steps")
    again = puzzles("gpipe")
    assert [entry[2] for entry in told(again)["ladder"]] == [True] + [False] * 9
    assert not told(again)["status"]["done"]


def test_one_goes_from_puzzle_to_puzzle_and_finds_everything_as_it_was():
    board = puzzles()
    place(board, "0F0@0", "0F1@1")
    assert said(board, "puzzle", name="gpipe") is None
    assert (told(board)["puzzle"], told(board)["undo"], board.board.starts) == ("gpipe", False, {})
    ask(board, "puzzle", name="first-steps")
    assert len(board.board.starts) == 2
    answer = said(board, "puzzle", name="gpip")
    assert answer.endswith("did you mean 'gpipe'?")
    assert told(board)["puzzle"] == "first-steps"
    assert "there is no puzzle 'None'" in said(board, "puzzle")


def test_a_puzzle_that_there_is_not():
    with pytest.raises(ConfigurationError, match=r"there is no puzzle 'interleved'.*did you mean 'interleaved'\?"):
        puzzles("interleved")


def test_where_one_draws_freely_there_are_no_puzzles():
    view = told(draw_schedule(2, 2))
    assert (view["puzzle"], view["ladder"], view["hints"], view["target"]) == (None, [], [], None)


# ---- Run it ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "m", "rules"),
    [("zb-v", 4, {"backward": (1, 1), "chunks": 2, "layout": "v"}), ("chimera", 2, {"layout": "two-way"})],
)
def test_halves_a_v_and_two_directions_train_the_model_too(name, m, rules):
    board = draw_schedule(2, m, csv=Board.from_schedule(build_schedule(name, 2, m)).to_csv(), **rules)
    assert board.run().right
    assert board.trial.timeline.makespan == board.board.makespan


def test_the_page_knows_which_letters_are_actions():
    assert (told(draw_schedule(2, 2))["ops"], told(puzzles("no-bubble"))["ops"]) == ("FB", "FIW")
    rows = told(draw_schedule(2, 4, backward=(1, 1), csv=Board.from_schedule(SOLUTIONS["no-bubble"]).to_csv()))["score"]
    assert [row[0] for row in rows["rows"]][-1] == "no table of F, I and W is shorter than"


@pytest.mark.slow
def test_a_small_board_trains_the_model_with_the_right_gradients():
    board = draw_schedule(2, 2, backward=2)
    board.load("0F0,0F1,,,0B0,,,0B1\n,1F0,1B0,,1F1,1B1\n")
    found = told(board)["status"]
    assert found["done"], found
    trial = board.run()
    assert trial is board.trial
    assert trial.right
    assert trial.timeline.makespan == board.board.makespan == 9  # the board's own columns
    assert board.run_state["state"] == "done"
    assert "equal to those of the unsplit model" in board.run_state["words"]
    assert told(board)["trial"][0]["end"] == 9
    board.undo()
    assert (board.trial, told(board)["trial"], board.run_state) == (None, None, {})


def test_an_unfinished_board_cannot_be_run_and_what_is_missing_is_told():
    board = draw_schedule(2, 2)
    place(board, "0F0@0", "0F1@1", "1F0@1", "1B0@2")
    words = "the board must be complete before it can run: 0B0, 1F1, 1B1 and more are still missing"
    assert said(board, "run") == words
    with pytest.raises(ConfigurationError, match=words):
        board.run()
    assert board.run_state == {}
    assert Run._one.acquire(blocking=False)
    Run._one.release()


def test_a_loaded_board_that_breaks_the_rules_cannot_be_run():
    board = draw_schedule(2, 1)
    board.load("0F0,0B0\n1F0,1B0\n")
    assert told(board)["status"]["sentence"].startswith("This board breaks the rules: ")
    assert any(action[6] for action in told(board)["actions"])
    assert said(board, "run").startswith("this board cannot run: ")


def test_a_board_with_more_stages_than_the_model_has_layers_is_refused():
    board = draw_schedule(1, 1, chunks=49)
    for time, action in enumerate(board.board.rules.actions()):
        board.place(0, time, action)
    assert said(board, "run") == "the model has only 48 layers, too few for 49 stages"


# ---- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("csv", ["", HALF], ids=["empty", "half finished"])
def test_a_board_has_a_picture_that_says_in_words_what_it_shows(csv):
    board = draw_schedule(2, 2, csv=csv) if csv else draw_schedule(2, 2)
    data, _ = board._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    [alt] = re.findall(r'<img alt="([^"]*)"', data["text/html"])
    assert alt == data["text/plain"].replace("'", "&#x27;")
    assert len(alt) > 40


def test_an_empty_puzzles_picture_tells_what_is_asked():
    assert puzzle("gpipe").goal in puzzles("gpipe").picture().alt
