"""What was drawn in the browser is there again: in the next cell, and after the kernel."""

import pytest

from pipelab import ConfigurationError, draw_schedule
from tests.teaching.board.boards import act
from tests.teaching.board.test_widget import ask, place, told


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_is_drawn_in_the_browser_is_kept_and_there_again(here):
    board = draw_schedule(2, 2)
    place(board, "0F0@0", "0F1@1")
    assert (here / "drawings" / "drawing-p2-m2.csv").read_text() == board.board.to_csv()
    assert draw_schedule(2, 2).board == board.board
    assert draw_schedule(2, 3).board.starts == {}
    ask(board, "undo")
    assert draw_schedule(2, 2).board == board.board
    assert told(draw_schedule(2, 2))["done"] == [1, 8]


def test_a_name_tells_two_drawings_of_one_size_apart(here):
    place(draw_schedule(2, 2, name="mine"), "0F0@0")
    assert draw_schedule(2, 2).board.starts == {}
    assert draw_schedule(2, 2, name="mine").board.starts == {act("0F0"): 0}


def test_boards_with_other_rules_do_not_share_a_drawing(here):
    """A board whose backwards take two columns put the drawing of the other one aside, as unreadable."""
    board = draw_schedule(2, 2)
    place(board, "0F0@0", "0F1@1")
    for rules in (
        {"forward": 2},
        {"backward": 2},
        {"limit": 1},
        {"limit": (2, None)},
        {"chunks": 2},
        {"backward": (1, 1)},
        {"layout": "two-way"},
    ):
        assert draw_schedule(2, 2, **rules).board.starts == {}
    assert draw_schedule(2, 2).board == board.board
    place(draw_schedule(2, 2, limit=(2, 1.5)), "0F0@0")
    assert sorted(path.name for path in (here / "drawings").iterdir()) == [
        "drawing-p2-m2-limit-2-1.5.csv",
        "drawing-p2-m2.csv",
    ]


def test_a_kept_drawing_that_cannot_be_read_is_put_aside_and_not_lost(here):
    folder = here / "drawings"
    folder.mkdir()
    for number, text in enumerate(["torn {", "torn again"]):
        (folder / "drawing-p2-m2.csv").write_text(text)
        assert draw_schedule(2, 2).board.starts == {}
        assert (folder / f"drawing-p2-m2{'-2' * number}.unreadable").read_text() == text
    assert not (folder / "drawing-p2-m2.csv").exists()


def test_bytes_that_are_no_text_are_put_aside_too(here):
    (here / "drawings").mkdir()
    (here / "drawings" / "drawing-p2-m2.csv").write_bytes(b"\xff\xfe\x00")
    assert draw_schedule(2, 2).board.starts == {}
    assert (here / "drawings" / "drawing-p2-m2.unreadable").exists()


def test_where_nothing_can_be_written_one_can_draw_all_the_same(here):
    (here / "drawings").write_text("a file is in the way")
    board = draw_schedule(2, 2)
    place(board, "0F0@0")
    assert board.board.starts == {act("0F0"): 0}
    assert "could not be kept in drawings/" in told(board)["said"]


def test_moves_from_python_are_not_written_down(here):
    draw_schedule(2, 2).place(0, 0, "0F0")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", ".hidden"])
def test_a_name_is_a_file_in_the_folder_of_drawings(name):
    with pytest.raises(ConfigurationError, match="name must be a file's name without a folder"):
        draw_schedule(2, 2, name=name)
