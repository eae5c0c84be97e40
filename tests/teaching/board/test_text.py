import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, PipelabError, ScheduleParseError
from pipelab.teaching.board import Board, Rules
from tests.teaching.board.boards import act, place_all, played, scattered

RULES = Rules(2, 2, backward=2)


@given(played() | scattered())
def test_a_board_is_saved_and_loaded(board):
    assert Board.from_csv(board.to_csv(), board.rules) == board


def test_the_text_is_a_grid():
    board = place_all(RULES, "0F0@0", "1F0@2", "1B0@3")
    assert board.to_csv() == "0F0\n,,1F0,1B0\n"


def test_empty_boards_and_devices_are_saved_too():
    assert Board.empty(RULES).to_csv() == '""\n""\n'
    assert Board.from_csv(place_all(RULES, "0F0@3").to_csv(), RULES).starts == {act("0F0"): 3}


@pytest.mark.parametrize(
    "text", ["0F0,,,\n,1F0,,\n", "\ufeff0F0\r\n,1F0\r\n", "\n0F0\n,1F0\n\n", "0f0,.\n-,1F0".replace("f", "F")]
)
def test_what_spreadsheets_and_people_write_is_read(text):
    assert Board.from_csv(text, RULES).starts == {act("0F0"): 0, act("1F0"): 1}


def test_unsound_tables_are_read_and_told():
    board = Board.from_csv("0F0,0F1\n1F0,,1F1", RULES)
    assert [violation.code for violation in board.violations()] == ["too-early"]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("", (0, 0), "the table is empty"),
        ("  \n \n", (0, 0), "the table is empty"),
        ("table.csv", (0, 0), "is a file's name"),
        ("0F0,x\n1F0", (0, 1), "'x' is not an action"),
        ("0F0\n,1FO", (1, 1), "did you mean 1F0?"),
        (
            "0F0",
            (1, 0),
            'the text has 1 row, but the board has 2 devices; an idle device needs a row too, written ""',
        ),
        ("0F0\n1F0\n2F0", (2, 0), "the text has 3 rows, but the board has 2 devices; give one row per device"),
        ("0F0\n2F0", (1, 0), "there is no stage 2; stages are 0..1"),
        ("0F2\n1F0", (0, 0), "there is no micro-batch 2"),
        ("0W0\n1F0", (0, 0), "0W0: this board has only F and B"),
        ("0F0,0U0\n1F0", (0, 1), "0U0: this board has only F and B"),
        ("0F0,(0F1;0B0)OVERLAP_F_B\n1F0", (0, 1), "is fused; on a board each action has cells of its own"),
        ("1F0\n0F0", (0, 0), "1F0 is on device 0, but its place is on device 1"),
        ("0F0,,0F0\n1F0", (0, 2), "0F0 is here a second time; it is already on device 0 at t = 0"),
        ("0F0,0B0,0F1\n1F0", (0, 2), "0F1 starts at t = 2, but 0B0 runs from t = 1 to t = 3"),
        ("," * 24 + "0F0\n1F0", (0, 24), r"0F0 does not fit on the board, whose columns are 0..23"),
        ("0F99999999\n1F0", (0, 0), "counts beyond what a table"),
        ("PK\x03\x04\x00\x00\x08\n\x00\x01", (0, 0), "is not an action"),
    ],
)
def test_damaged_text_is_refused_with_its_place(text, place, words):
    with pytest.raises(ScheduleParseError) as caught:
        Board.from_csv(text, RULES)
    assert words in str(caught.value)
    assert (caught.value.row, caught.value.column) == place


def test_a_cell_without_end_is_no_table():
    with pytest.raises(ScheduleParseError, match="no CSV text"):
        Board.from_csv('"' + "a" * 200_000, RULES)


def test_bytes_are_not_text():
    with pytest.raises(ConfigurationError, match=r"got bytes; try Path\(name\).read_text"):
        Board.from_csv(b"0F0\n1F0", RULES)


@given(
    st.text(max_size=60) | st.lists(st.sampled_from(["0F0", "1F0", "0B0", "1B1", "", ",", "\n", "x", '"'])).map("".join)
)
def test_whatever_the_text_it_is_a_board_or_a_refusal_in_words(text):
    try:
        board = Board.from_csv(text, RULES)
    except PipelabError as problem:
        assert str(problem)
    else:
        assert Board.from_csv(board.to_csv(), RULES) == board
