from __future__ import annotations

from dataclasses import replace

import pytest

from pipelab import ConfigurationError, ScheduleError, build_schedule
from pipelab.teaching.course.work import LEDGER
from pipelab.teaching.design.leaderboard import FOLDER, Leaderboard, hidden_goals
from pipelab.teaching.design.standing import Standing

H1 = build_schedule("zb-h1", 4, 8)


@pytest.fixture
def board(tmp_path):
    return Leaderboard(tmp_path / FOLDER)


def own(board):
    return [one for one in board.read()[0] if one.own]


def test_a_schedule_stands_where_its_rival_of_the_same_order_does(board):
    assert board.enter(H1, "copy").name == "copy.csv"
    (mine,) = own(board)
    (rival,) = [one for one in board.read()[0] if one.name == "ZB-H1"]
    assert replace(rival, name="copy", own=True) == mine
    assert [one.time for one in board.read()[0]] == sorted(one.time for one in board.read()[0])
    assert "copy (yours)" in str(board)


def test_1f1b_is_the_measure(board):
    (base,) = [one for one in board.read()[0] if one.name == "1F1B"]
    assert set(base.times) == {1}
    assert 0 < board.bound < min(one.time for one in board.read()[0])


def test_the_settings_are_the_same_every_time_and_differ_from_each_other():
    costs = [goal.costs for goal in hidden_goals()]
    assert len({(c.forward, c.backward, c.latency) for c in costs}) == len(costs) >= 5
    hidden_goals.cache_clear()
    assert [goal.costs for goal in hidden_goals()] == costs
    for one in costs:
        assert one.backward <= one.input_gradient + one.weight_gradient


def test_nothing_is_written_over(board):
    first = board.enter(H1, "mine")
    assert board.enter(H1, "mine") == first, "the same again is the same entry"
    second = board.enter(build_schedule("1f1b", 4, 8), "mine")
    assert (first.name, second.name) == ("mine.csv", "mine-2.csv")
    assert first.read_text() == H1.to_csv()
    assert sorted(path.name for path in board.folder.iterdir()) == ["mine-2.csv", "mine.csv"], (
        "and nothing half-written"
    )


def test_a_generator_rows_and_a_v_can_be_entered(board):
    board.enter(lambda p, m: H1.programs, "rows")
    board.enter(build_schedule("zb-v", 4, 8), "vee")
    assert {one.name for one in own(board)} == {"rows", "vee"}


@pytest.mark.parametrize("text", [b"0F0,what", b"\xff\xfe\x00", b"", b"0F0,0B0\n", b"0B0,0F0\n"])
def test_a_file_that_cannot_be_read_is_named_and_left_alone(board, text):
    board.enter(H1, "good")
    torn = board.folder / "torn.csv"
    torn.write_bytes(text)
    standings, problems = board.read()
    assert [one.name for one in standings if one.own] == ["good"]
    assert len(problems) == 1
    assert problems[0].startswith("leaderboard/torn.csv is not shown, and stays as it is: ")
    assert problems[0] in str(board)
    assert torn.read_bytes() == text


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        (build_schedule("1f1b", 3, 8), ConfigurationError, "p = 4 and m = 8"),
        (build_schedule("interleaved", 4, 8, 3), ConfigurationError, "allows 2"),
        ("0B0,0F0\n", ScheduleError, "0F0"),
    ],
)
def test_what_cannot_stand_there_is_refused_and_not_kept(board, given, error, says):
    with pytest.raises(error, match=says):
        board.enter(given, "mine")
    assert not board.folder.exists()


def test_a_name_is_no_path(board):
    assert board.enter(H1, "../../up and away").parent == board.folder
    for name in (" ", "!?", "a" * 300):
        with pytest.raises(ConfigurationError, match="needs a name"):
            board.enter(H1, name)
    with pytest.raises(ConfigurationError, match="got 'None'"):
        board.enter(H1, None)


def test_who_is_beaten_in_time_and_memory():
    fast, small, both = (Standing("", False, (time,), held, 0) for time, held in ((0.8, 6), (1.0, 2), (0.8, 2)))
    assert fast.beaten_by(both)
    assert small.beaten_by(both)
    assert not fast.beaten_by(small)
    assert not both.beaten_by(both)


def test_a_notebook_shows_table_and_picture(board):
    board.enter(H1, "mine <b>")
    shown = board._repr_mimebundle_()
    assert "<b>mine-b- (yours)</b>" in shown["text/html"]
    assert "Micro-batches held, and time:" in shown["text/html"]
    assert "None of yours yet" not in shown["text/plain"]


def test_an_empty_one_says_how_to_begin(board):
    assert "None of yours yet: enter(schedule, name) adds one." in str(board)


def test_here_is_the_work_folder_around_the_notebook(tmp_path, monkeypatch):
    (tmp_path / LEDGER).write_text("[]")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Leaderboard.here().folder == tmp_path / FOLDER
