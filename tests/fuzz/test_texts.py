"""Whatever is read as a table becomes one, or is refused in a sentence that says where."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pipelab import Schedule, ScheduleParseError, check_schedule
from pipelab.__main__ import main
from pipelab.errors import ConfigurationError, PipelabError, ScheduleError
from pipelab.schedules import Action, TimeTable
from pipelab.teaching.board.board import Board
from pipelab.teaching.board.rules import Rules
from pipelab.teaching.guesses import read_guess
from pipelab.tuning import CostProfile
from tests.fuzz.cases import fuzzed
from tests.fuzz.damage import damaged
from tests.fuzz.texts import numbers, texts, things

READERS: list[Callable] = [Schedule.from_csv, Schedule.from_grid, TimeTable.from_csv, TimeTable.from_grid]
SECONDS = 5


@contextlib.contextmanager
def quickly():
    begun = time.perf_counter()
    yield
    assert time.perf_counter() - begun < SECONDS


def use(table: Schedule | TimeTable) -> None:
    """Whatever came of a text can be checked, shown and written."""
    found = check_schedule(table)
    assert all(violation.message for violation in found)
    schedule = table.schedule() if isinstance(table, TimeTable) else table
    assert Schedule.from_csv(schedule.to_csv(), placement=schedule.placement, weights=schedule.weights) == Schedule(
        "table", schedule.programs, schedule.placement, schedule.weights
    )
    assert str(schedule).count("\n") == schedule.devices + 1
    if not check_schedule(schedule) and not schedule.forward_only and "U" not in schedule.ops:
        assert check_schedule(schedule.with_recompute()) == []


@fuzzed(texts, st.sampled_from(READERS), few=40, many=2000)
def test_a_text_is_a_table_or_is_refused_with_row_column_and_token(text, read):
    with quickly():
        try:
            use(read(text))
        except ScheduleParseError as error:
            assert 0 <= error.row <= text.count("\n") + len(text.splitlines())
            assert error.column >= 0
            assert isinstance(error.token, str)
            assert str(error).startswith(f"row {error.row}, column {error.column}: ")
            assert len(str(error)) < 400 and "\0" not in str(error)


@fuzzed(st.lists(things, max_size=4) | things, few=30, many=1500)
def test_rows_are_a_table_or_are_refused_in_a_sentence(rows):
    with quickly():
        try:
            use(Schedule.from_rows(rows))
        except (ScheduleParseError, ConfigurationError) as error:
            assert len(str(error)) < 600


@fuzzed(things, things, few=20, many=600)
def test_placement_and_weights_are_taken_or_refused(placement, weights):
    try:
        schedule = Schedule.from_csv("0F0,0B0,1F0,1B0\n", placement=placement, weights=weights)
        check_schedule(schedule)
        schedule.microbatch_sizes(8)
    except (ConfigurationError, ScheduleError) as error:
        assert str(error)


@pytest.mark.parametrize("text", [None, b"0F0,0B0", 3, ["0F0"]])
@pytest.mark.parametrize("read", READERS)
def test_what_is_no_text_is_refused(read, text):
    with pytest.raises(ConfigurationError, match="read from text, got"):
        read(text)


def test_a_cell_larger_than_csv_knows_is_refused():
    """It used to end in a bare _csv.Error."""
    with pytest.raises(ScheduleParseError, match="row 1, column 0: this is no CSV text"):
        Schedule.from_csv("0F0,0B0\n1F0," + "1" * 200_000)


def test_two_numbers_that_are_odd_alone_do_not_make_a_million_violations():
    """1000F1000 alone in a table took 15 seconds and a gigabyte to be told all that is missing."""
    for text in ("1000F1000\n", "900F0\n0F900\n"):
        with quickly(), pytest.raises(ScheduleParseError, match="counts beyond what a table of"):
            Schedule.from_csv(text)
    assert len(check_schedule(Schedule.from_csv("100F100\n"))) > 1000


def test_a_token_of_a_thousand_characters_is_shown_in_part_and_kept_whole():
    with pytest.raises(ScheduleParseError, match=r"'x{57}\.\.\.' is not an action") as caught:
        Schedule.from_csv("x" * 1000)
    assert caught.value.token == "x" * 1000


@pytest.mark.parametrize("cell", ["0F" + "9" * 5000, "0" * 5000 + "F0", "0F" + "9" * 30])
def test_a_number_beyond_any_table_is_refused_in_our_words(cell):
    """Python's own said to call sys.set_int_max_str_digits()."""
    with pytest.raises(ScheduleParseError, match=r"row 0, column 1: '0.*\.* counts beyond what a table can hold"):
        Schedule.from_csv(f"0F0,{cell}\n")


@pytest.mark.parametrize(
    "action", [Action("0", "F", 0), Action(0.5, "F", 0), Action(0, None, 0), Action(0, [], 0), Action(10**5000, "F", 0)]
)
def test_an_action_of_anything_but_numbers_is_refused_with_its_place(action):
    with pytest.raises(ScheduleParseError, match=r"row 0, column 1: Action\(.* is not an action"):
        Schedule.from_rows([["0F0", action]])


# ---- the command line ------------------------------------------------------------------------------------------------


def told(*args: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(args)
    return status, out.getvalue(), err.getvalue()


@fuzzed(
    texts.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60),
    st.sampled_from([["check"], ["check", "--timed"], ["check", "--recompute"], ["simulate"], ["schedule"]]),
    few=30,
    many=800,
)
def test_a_command_says_a_sentence_and_never_a_traceback(content, command):
    with pytest.MonkeyPatch.context() as patch, quickly(), tempfile.TemporaryDirectory() as folder:
        patch.chdir(folder)
        Path("a.csv").write_bytes(content)
        status, out, err = told(*command, "a.csv")
    if status == 2:
        assert err.startswith("pipelab: ") and not out
    elif command[0] == "check":
        assert (out.splitlines()[-1] == "sound") == (status == 0)
        assert not err or err.startswith("a.csv lists updates (U)")  # and by which rule it was checked
    else:
        assert status == 0 and out


# ---- other texts that are read ---------------------------------------------------------------------------------------


@fuzzed(texts, few=15, many=800)
def test_a_board_is_loaded_or_refused_in_a_sentence(text):
    with quickly():
        try:
            assert Board.from_csv(text, Rules(2, 2)).to_csv()
        except PipelabError as error:
            assert str(error)


@fuzzed(
    st.text() | numbers.map(str) | st.from_regex(r"-?\d{0,4}[.,/e]?-?\d{0,12} ?%?", fullmatch=True), few=30, many=1500
)
def test_a_guess_is_a_finite_number_or_none(text):
    with quickly():
        value = read_guess(text)
    assert value is None or abs(value) < float("inf")


def test_a_guess_with_a_giant_exponent_does_not_hang_the_notebook():
    with quickly():
        assert read_guess("1e999999999") is None
        assert read_guess("1e-999999999") in (None, 0.0)


SHIPPED = json.loads((resources.files("pipelab.tuning") / "profiles" / "worked_example.json").read_text())


@pytest.mark.parametrize("size", ["Infinity", "1" + "0" * 400])
def test_an_endless_number_in_a_cost_profile_is_refused(size):
    text = json.dumps(SHIPPED).replace('"update": ', f'"update": {size}, "was": ')
    with pytest.raises(ConfigurationError, match="no cost profile, or a damaged one"):
        CostProfile._read(text, "mine")


@fuzzed(damaged(SHIPPED), few=20, many=400)
def test_a_damaged_cost_profile_is_read_or_refused(text):
    try:
        CostProfile._read(text, "mine")
    except ConfigurationError as error:
        assert str(error)
