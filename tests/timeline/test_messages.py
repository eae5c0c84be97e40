import json

import pytest

from pipelab import Costs, Link, Links, simulate
from pipelab.schedules import Action, build_schedule
from pipelab.timeline.messages import Overlap, lanes
from pipelab.timeline.spans import Message, Span

A = Action(0, "F", 0)


def message(sent, arrived, source=0, destination=1):
    return Message("activation", A, A, source, destination, sent, arrived)


def test_the_hidden_part_is_the_receivers_work_while_a_message_is_under_way():
    """Device 1 works from 1 to 3 and from 4 to 6, device 0 from 0 to 9."""
    work = [Span(1, 0, A, 1.0, 3.0), Span(1, 1, A, 4.0, 6.0), Span(0, 0, A, 0.0, 9.0)]
    found = Overlap.of([message(0, 2), message(2, 5), message(7, 9), message(5, 6, 1, 0)], work)
    assert found.links == {(0, 1): (2 + 3 + 2, 1 + 2 + 0), (1, 0): (1, 1)}
    assert found.fraction == 0.5
    assert found.fractions == {(0, 1): pytest.approx(3 / 7), (1, 0): 1}


def test_nothing_is_hidden_where_one_waits_for_the_other_and_all_is_where_no_message_takes_time():
    schedule = build_schedule("gpipe", 2, 1)
    slow = simulate(schedule, Costs(links=Links(pairs={(0, 1): Link(2.0)})))
    assert (slow.overlap.fraction, slow.overlap.links) == (0, {(0, 1): (2, 0), (1, 0): (2, 0)})
    assert simulate(schedule).overlap.fraction == 1


def test_gpipe_hides_a_latency_behind_the_micro_batches_that_came_before():
    """p = 2, m = 3, L = 1: the first F and the first B back are waited for, the others come while their taker works."""
    found = simulate(build_schedule("gpipe", 2, 3), Costs(latency=1)).overlap
    assert found.links == {(0, 1): (3, 2), (1, 0): (3, 2)}


def test_messages_that_are_under_way_at_once_have_a_row_each():
    sent = [message(0, 2), message(1, 3), message(2, 4), message(5, 5)]
    assert [(lane.device, lane.name, [len(row) for row in lane.rows]) for lane in lanes(sent, 2)] == [
        (0, "sends", [2, 1]),
        (0, "receives", []),
        (1, "sends", []),
        (1, "receives", [2, 1]),
    ]


def test_the_trace_has_a_track_for_what_a_device_sends_and_one_for_what_it_receives():
    timeline = simulate(build_schedule("gpipe", 2, 1), Costs(latency=2))
    events = json.loads(timeline.to_chrome_trace())["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    bars = [(names[e["pid"], e["tid"]], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X" and e["tid"]]
    assert sorted(bars) == [
        ("device 0 receives", "1B0", 5000, 2000),
        ("device 0 sends", "0F0", 1000, 2000),
        ("device 1 receives", "0F0", 1000, 2000),
        ("device 1 sends", "1B0", 5000, 2000),
    ]
