"""A compiled table says what the table says: each message has one mail slot, and is found in both ends' records."""

from __future__ import annotations

import pytest
from hypothesis import given

from pipelab import build_schedule
from pipelab.runtime.device.program import compile_table
from pipelab.schedules.action import actions_of
from pipelab.schedules.dependencies import needs
from tests import tables
from tests.strategies import sound_tables


def check(schedule):
    table = compile_table(schedule)
    for device, (program, compiled) in enumerate(zip(schedule.programs, table.programs, strict=True)):
        assert [tuple(act.action for act in slot.acts) for slot in compiled.slots] == list(map(actions_of, program))
        acts = [act for slot in compiled.slots for act in slot.acts]
        filled = [mail for slot in compiled.slots for _, mail in slot.receives]
        filled += [act.keep for act in acts if act.keep >= 0]
        used = [act.mail for act in acts if act.mail >= 0]
        assert sorted(filled) == sorted(used) == list(range(len(compiled.users))), "filled once, used once"
        for act in acts:
            wanted = [n for n in needs(act.action, schedule.stages, schedule.graph.places) if n.kind != "local"]
            assert (act.mail >= 0) == bool(wanted)
            assert act.mail < 0 or compiled.users[act.mail] == act.action
        sent = [act.action for act in acts if act.outlet >= 0]
        own = [p for p in table.passages if p.channel.source == device]
        assert [p.route.producer for p in sorted(own, key=lambda p: p.sent)] == sent
        taken = sorted((p for p in table.passages if p.channel.destination == device), key=lambda p: p.taken)
        assert [p.taken for p in taken] == list(range(len(taken)))
        received = [
            (compiled.inlets[inlet], compiled.users[mail]) for slot in compiled.slots for inlet, mail in slot.receives
        ]
        assert [(p.channel, p.route.consumer) for p in taken] == received
        for channel in compiled.inlets:
            in_order = [p.route for p in taken if p.channel == channel]
            assert in_order == table.messages[channel], "in the order of sending"


@given(sound_tables())
def test_of_every_table(schedule):
    check(schedule)


@pytest.mark.parametrize("name", tables.SOUND)
def test_of_tables_written_by_hand(name):
    check(tables.read(tables.SOUND[name]))


def test_it_is_compiled_once_whatever_the_batch():
    schedule = build_schedule("1f1b", 2, 3)
    assert compile_table(schedule) is compile_table(schedule.for_batch(7))
