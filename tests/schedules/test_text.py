import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ScheduleError, ScheduleParseError
from pipelab.schedules import Action, Schedule, TimeTable
from pipelab.schedules.text import draw_grid, read_csv, read_grid, write_csv
from tests import tables
from tests.strategies import programs, slots, sound_tables

F, B = Action(0, "F", 0), Action(0, "B", 0)

rows = st.lists(st.lists(st.one_of(st.none(), slots()), min_size=1, max_size=8).map(tuple), min_size=1, max_size=5)


@given(rows.map(tuple))
def test_any_table_is_read_back_from_csv_as_it_was_written_idle_cells_too(table):
    assert read_csv(write_csv(table)) == table


@given(rows.map(tuple))
def test_any_table_is_read_back_from_its_drawing(table):
    columns = max(map(len, table))
    padded = tuple(row + (None,) * (columns - len(row)) for row in table)
    assert read_grid(draw_grid(table)) == padded


@given(programs())
def test_csv_has_exactly_one_line_per_device(rows):
    text = write_csv(rows)
    assert text.endswith("\n")
    assert len(text.splitlines()) == len(rows)


@given(sound_tables(max_p=8, max_m=20, max_v=4))
def test_a_sound_schedule_survives_csv(schedule):
    told = {"weights": schedule.weights, "updating": schedule.updating}
    read = Schedule.from_csv(schedule.to_csv(), name=schedule.name, **told)
    assert read == schedule


@given(sound_tables(max_p=8, max_m=20, max_v=4))
def test_a_sound_schedule_survives_being_drawn(schedule):
    told = {"weights": schedule.weights, "updating": schedule.updating}
    read = Schedule.from_grid(schedule.to_grid(), name=schedule.name, **told)
    assert read == schedule


@pytest.mark.parametrize("name", tables.SOUND)
def test_tables_by_hand_survive_both_forms(name):
    text = tables.SOUND[name]
    schedule = tables.read(text)
    assert schedule.to_csv() == text
    assert Schedule.from_grid(schedule.to_grid()).to_csv() == text


def test_a_stage_on_two_devices_is_found_in_the_text():
    assert tables.read(tables.TWO_WAY).placement == ((0, 1), (0, 1))


def test_the_drawing_counts_time_slots_and_marks_idle_ones():
    drawn = tables.read("0F0,0B0\n1F0,1B0\n").to_grid()
    assert drawn == (
        "time     |   0   1   2   3\n"
        "device 0 | 0F0   .   . 0B0\n"
        "device 1 |   . 1F0 1B0   .\n"
    )  # fmt: skip


def test_the_drawing_of_ten_devices_stays_in_line():
    lines = draw_grid([[F]] * 11).splitlines()
    assert {line.index("|") for line in lines} == {len("device 10 ")}
    assert len(read_grid("\n".join(lines))) == 11


def test_a_table_that_waits_for_ever_cannot_be_drawn_and_says_who_knows_why():
    with pytest.raises(ScheduleError, match="check_schedule says which and why"):
        tables.read("0B0,0F0\n").to_grid()


def test_people_write_idle_time_as_a_dot_a_dash_or_nothing():
    assert read_csv("0F0, . ,-, ,0B0\n") == ((F, None, None, None, B),)


def test_a_slot_of_one_action_is_that_action_however_it_is_given():
    """A tuple of one used to stay one, and no longer equalled itself after it had been written and read."""
    assert Schedule.from_rows([[(F,), "(0B0)"]]).programs == ((F, B),)


def test_an_order_takes_no_notice_of_idle_cells():
    assert tables.read("0F0,,.,0B0\n").programs == ((F, B),)


def test_text_from_a_spreadsheet_is_read():
    assert read_csv('\ufeff"0F0", 0B0\r\n\r\n') == ((F, B),)


def test_blank_lines_at_the_end_are_not_devices():
    assert len(read_csv("0F0,0B0\n\n  \n")) == 1


def test_a_table_pasted_between_triple_quotes_does_not_gain_a_device():
    """A notebook cell opens its quotes, breaks the line and starts the table: device 0 is the row with the actions."""
    pasted = """
0F0,0B0
1F0,1B0
"""
    assert Schedule.from_csv(pasted).placement == ((0,), (1,))


def test_a_device_with_nothing_to_do_is_still_a_device_after_csv():
    """Written as a blank line at the end of the file, the last device used to vanish on the way back."""
    idle_last = Schedule("idle", ((F, B), ()), ((0,),), (1.0,))
    assert len(idle_last.to_csv().splitlines()) == 2
    assert Schedule.from_csv(idle_last.to_csv()).devices == 2


def test_a_device_with_nothing_to_do_is_still_a_device_when_drawn():
    idle_last = Schedule("idle", ((F, B), ()), ((0,),), (1.0,))
    assert Schedule.from_grid(idle_last.to_grid()).programs == idle_last.programs


@pytest.mark.parametrize(
    ("text", "row", "column", "token", "said"),
    [
        ("0F0,0FO\n1F0,1B0\n", 0, 1, "0FO", "did you mean 0F0?"),
        ("0F0,0B0\n1F0,,f\n", 1, 2, "f", "like 3F0"),
        ("0F0,0B0\nF0,1B0\n", 1, 0, "F0", "has no stage"),
        ("0F0,0X0\n", 0, 1, "0X0", "unknown op 'X'"),
        ("0F0,(0F1;0B0\n", 0, 1, "(0F1;0B0", "write actions in brackets"),
    ],
)
def test_a_csv_cell_that_cannot_be_read_is_named_by_row_column_and_text(text, row, column, token, said):
    with pytest.raises(ScheduleParseError) as caught:
        read_csv(text)
    error = caught.value
    assert (error.row, error.column, error.token) == (row, column, token)
    assert str(error).startswith(f"row {row}, column {column}: ")
    assert token in str(error)
    assert said in str(error)


@pytest.mark.parametrize("text", ["", "\n\n", "   \n"])
def test_an_empty_csv_is_refused_with_an_example(text):
    with pytest.raises(ScheduleParseError, match="one row of actions per device, such as 0F0,0B0"):
        read_csv(text)


@pytest.mark.parametrize(
    ("text", "row", "column", "said"),
    [
        ("time | 0 1\ndevice 0 | 0F0 0FO\n", 0, 1, "did you mean 0F0?"),
        ("device 0 | 0F0 0B0\ndevice 1 | . 1X0\n", 1, 1, "unknown op 'X'"),
        ("device 0 | 0F0 0B0\n1F0 1B0\n", 1, 0, "has no '|'"),
        ("device 0 | 0F0 0B0\ndevice 2 | 2F0 2B0\n", 1, 0, "stands where 'device 1' should"),
        ("time | 0 1 2\n", 0, 0, "has no rows"),
        ("", 0, 0, "has no rows"),
    ],
)
def test_a_drawing_that_cannot_be_read_is_named_by_row_and_time_slot(text, row, column, said):
    with pytest.raises(ScheduleParseError) as caught:
        read_grid(text)
    assert (caught.value.row, caught.value.column) == (row, column)
    assert said in str(caught.value)


def test_the_times_of_a_timed_table_survive_both_forms():
    table = TimeTable.from_csv(tables.PUBLISHED_004)
    assert table.rows[3][:4] == (None, None, None, Action(3, "F", 0))
    assert [len(row) for row in table.rows] == [10, 9, 10, 8]
    again = TimeTable.from_grid(table.to_grid())
    assert [row[: len(given)] for row, given in zip(again.rows, table.rows, strict=True)] == list(table.rows)
