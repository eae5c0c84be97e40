"""The quick verdict and the quick order are those of the objects, which explain themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.compiled import compiled, resolve
from pipelab.schedules.wire import routes
from tests.strategies import damaged, programs, reordered, sound_tables, with_fused_pairs

any_table = st.one_of(sound_tables(), reordered(), damaged())


def slow_verdict(schedule):
    """What is wrong with it, by the part of the checker that explains."""
    from pipelab.schedules import checker

    once = Schedule(schedule.name, schedule.programs, schedule.placement, schedule.weights)
    once.__dict__["resolved"] = None
    return checker.check_schedule(once)


def slots_in_order(made):
    begin = made.table.slot_bounds
    device = made.table.slot_device[made.order]
    return list(zip(device.tolist(), (made.order - begin[device]).tolist(), strict=True))


@given(any_table)
def test_a_table_is_compiled_exactly_if_nothing_is_wrong_with_it(schedule):
    assert (schedule.resolved is not None) == (slow_verdict(schedule) == [])


@given(programs())
def test_words_in_any_order_are_sound_for_both_or_for_neither(rows):
    schedule = Schedule.from_rows(rows)
    assert (schedule.resolved is not None) == (slow_verdict(schedule) == [])


@given(any_table)
def test_slots_come_in_the_order_of_the_graph(schedule):
    made = schedule.resolved or compiled(schedule.graph, schedule.table)
    assert slots_in_order(made) == [(device, position) for device, position, _ in schedule.graph.topological()]


@given(sound_tables())
def test_messages_are_those_of_the_wire_each_channel_in_its_order(schedule):
    made = schedule.resolved
    table, wire = made.table, routes(schedule.graph)
    sent = list(zip(table.actions(made.producer), table.actions(made.consumer), made.channel.tolist(), strict=True))
    found = [
        [(producer, consumer) for producer, consumer, k in sent if k == channel] for channel in range(made.channels)
    ]
    assert found == [[(route.producer, route.consumer) for route in wire[channel]] for channel in sorted(wire)]
    assert (np.diff(made.sender) >= 0).all()


@given(sound_tables())
def test_both_ways_to_compile_a_sound_table_agree(schedule):
    quick, slow = schedule.resolved, compiled(schedule.graph, schedule.table)
    for name in ("order", "producer", "consumer", "sender", "channel", "need"):
        assert getattr(quick, name).tolist() == getattr(slow, name).tolist()
    assert (quick.several, quick.apart) == (slow.several, slow.apart)


@pytest.mark.parametrize(
    "action", [Action(0, "X", 0), Action(-1, "F", 0), Action(10**30, "F", 0), Action(0, "F", -1), Action(7, "F", 0)]
)
def test_what_is_no_action_of_any_pipeline_is_not_compiled(action):
    sound = build_schedule("1f1b", 2, 2)
    wrong = Schedule("wrong", (*sound.programs[:1], (*sound.programs[1], action)), sound.placement, sound.weights)
    assert resolve(wrong.table, wrong.placement, wrong.microbatches) is None
    assert wrong.table.programs() == wrong.programs


def test_a_small_table_of_large_numbers_takes_no_room():
    huge = Schedule("huge", ((Action(10**9, "F", 10**9),),), ((0,),) * 10, (1.0,) * 10)
    assert huge.resolved is None


def test_two_messages_for_one_slot_are_both_waited_for():
    made = with_fused_pairs(build_schedule("1f1b", 3, 4)).resolved
    assert sum(map(len, made.several.values())) + int((made.need >= 0).sum()) == len(made.producer)
    assert made.several
