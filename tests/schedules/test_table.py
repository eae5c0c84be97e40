"""Arrays and objects say the same."""

import pickle

import numpy as np
import pytest
from hypothesis import given

from pipelab.schedules import Schedule, build_schedule
from pipelab.schedules.table import Table, in_turns
from tests.strategies import programs, schedules, sound_tables


@given(programs())
def test_any_programs_come_back_as_they_were(rows):
    assert Table.of_programs(rows).programs() == rows


@given(schedules(max_p=4, max_m=8))
def test_a_schedule_of_arrays_is_the_schedule_of_its_objects(schedule):
    twin = Schedule(schedule.name, schedule.programs, schedule.placement, schedule.weights, schedule.updating)
    assert twin == schedule
    assert hash(twin) == hash(schedule)
    assert twin.table.key == schedule.table.key
    assert all(isinstance(row, tuple) for row in (schedule.programs, *schedule.programs))


@given(sound_tables())
def test_a_table_knows_where_its_actions_stand(schedule):
    table = schedule.table
    begin = table.slot_bounds[table.device]
    found = zip(table.device.tolist(), (table.slot - begin).tolist(), table.actions(), strict=True)
    assert list(found) == list(schedule.actions())


def test_arrays_are_sent_and_not_the_objects_that_were_looked_at():
    schedule = build_schedule("1f1b", 4, 400)
    bare = pickle.dumps(schedule)
    assert len(schedule.programs) == 4
    assert len(pickle.dumps(schedule)) == len(bare) < 12 * len(schedule.table) * 2
    assert pickle.loads(bare) == schedule


def test_a_schedule_without_a_field_says_which():
    with pytest.raises(AttributeError, match="no attribute 'program'"):
        _ = build_schedule("1f1b", 2, 2).program  # type: ignore[attr-defined]


def test_forwards_and_backwards_take_turns_behind_the_warm_up():
    rows = in_turns([1, 0], np.arange(3), np.array([[0], [1]])).programs()
    assert rows == Schedule.from_csv("0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n").programs
