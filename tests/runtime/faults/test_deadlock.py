"""Tables that the checker would refuse, run all the same: the wire itself sees that nobody can go on."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelab import DeadlockError, Pipeline, Schedule, ScheduleError, build_schedule, check_schedule
from pipelab.schedules.wire import SENDS
from tests.runtime.small import data, mlp, mse

ROOM = ("sends", "outstanding")
RING = "0F0, 0B0, 0F1, 0B1\n1F0, 1F1, 1B0, 1B1"


def runs(schedule, **told):
    assert check_schedule(schedule, **{name: told[name] for name in told if name in ROOM}) == []
    pipeline = Pipeline(mlp(schedule.stages), schedule, loss=mse, time_limit=10, **told)
    assert pipeline.verify(*data(schedule.microbatches * 2)) < 1e-14


def deadlocked(table, **told):
    schedule = Schedule.from_csv(table, name="mine") if isinstance(table, str) else table
    found = check_schedule(schedule, **{name: told[name] for name in told if name in ROOM})
    assert {violation.code for violation in found} == {"wait-cycle"}
    with pytest.raises(ScheduleError, match="wait cycle"):
        Pipeline(mlp(schedule.stages), schedule, loss=mse, **told)
    pipeline = Pipeline(mlp(schedule.stages), schedule, loss=mse, time_limit=10, check=False, **told)
    begun = time.perf_counter()
    with pytest.raises(DeadlockError) as caught:
        pipeline.step(*data(schedule.microbatches * 2))
    assert time.perf_counter() - begun < 1.5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipelab device")]
    return caught.value


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_ring_is_named(clock):
    error = deadlocked(RING, clock=clock)
    assert error.ring == (0, 1)
    text = str(error)
    assert "deadlock: device 0 waits for device 1 waits for device 0" in text
    assert "device 0 waits before 0B0 for the gradient of 1B0 from device 1" in text
    assert "device 1 waits before 1F1 for the activation of 0F1 from device 0" in text


def test_it_is_named_after_a_step_that_went_well():
    """As with a table that depends on the batch: nothing of an earlier step stands in the way."""
    model = mlp(4)
    sound = Pipeline(model, Schedule.from_csv("0F0, 0B0\n1F0, 1B0", name="sound"), loss=mse)
    assert sound.step(*data()).loss > 0
    deadlocked(RING)
    assert sound.step(*data()).loss > 0


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_ring_of_sends_that_block_is_named(clock):
    error = deadlocked(RING, outstanding=0, clock=clock)
    assert error.ring == (0, 1)
    assert "device 1 waits before 1F1 for the activation of 0F1 from device 0" in str(error)


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_in_1f1b_neighbours_that_both_send_first_meet_and_a_group_mends_it(clock):
    """Device 0 sends a forward while device 1 sends a gradient, and neither receives before it is rid of that."""
    schedule = build_schedule("1f1b", devices=2, microbatches=4)
    error = deadlocked(schedule, sends="blocking", clock=clock)
    assert error.ring == (0, 1)
    assert "device 0 waits before 0B0 until device 1 takes the activation of 0F1 (sends block here)" in str(error)
    assert "device 1 waits before 1F1 until device 0 takes the gradient of 1B0 (sends block here)" in str(error)
    assert "says which sends would do" in str(error)
    runs(schedule, sends="batched", clock=clock)


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_interleaved_devices_meet_in_a_ring_around_the_wrap_and_a_group_mends_it(clock):
    """All devices send a forward at the same time, the last one to the first."""
    schedule = build_schedule("interleaved", devices=3, microbatches=3, chunks=2)
    error = deadlocked(schedule, sends="blocking", clock=clock)
    assert error.ring == (0, 1, 2)
    assert "device 0 waits before 3F0 until device 1 takes the activation of 0F2" in str(error)
    assert "device 2 waits before 2F1 until device 0 takes the activation of 2F0" in str(error)
    runs(schedule, sends="batched", clock=clock)


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_group_does_not_help_where_messages_come_before_they_are_needed(clock):
    """Megatron posts such receives ahead, which is room for one message."""
    schedule = build_schedule("interleaved", devices=2, microbatches=4, chunks=2)
    error = deadlocked(schedule, sends="batched", clock=clock)
    assert error.ring == (0, 1)
    assert "device 0 waits before 0F3 until device 1 takes the gradient of 2B0" in str(error)
    runs(schedule, sends="batched", outstanding=1, clock=clock)


def test_only_the_ring_is_listed_and_who_waits_behind_it_is_counted():
    error = deadlocked("0F0, 0F1, 0B0, 0B1\n1F0, 1B0, 1F1, 1B1\n2F0, 2F1, 2B0, 2B1")
    assert error.ring == (1, 2)
    assert "device 1 waits for device 2 waits for device 1" in str(error) and "and 1 more behind them" in str(error)


@pytest.mark.parametrize("launch_clock", ["device", "wall"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.tuples(*[st.permutations([0, 0, 1, 1, 2, 2])] * 3), sends=st.sampled_from(SENDS))
def test_what_the_checker_calls_sound_runs_and_nothing_else_does(launch_clock, turns, sends):
    """The checker and the detective do not know each other."""
    rows = [[f"{s}{'FB'[i in row[:k]]}{i}" for k, i in enumerate(row)] for s, row in enumerate(turns)]
    schedule = Schedule.from_rows(rows, name="shuffled")
    found = check_schedule(schedule, sends=sends)
    assert {violation.code for violation in found} <= {"wait-cycle"}
    pipeline = Pipeline(mlp(3), schedule, loss=mse, clock=launch_clock, time_limit=10, sends=sends, check=False)
    if found:
        with pytest.raises(DeadlockError):
            pipeline.step(*data(6))
    else:
        assert pipeline.verify(*data(6)) < 1e-10


def test_the_rows_of_later_steps_are_checked_beforehand_too():
    schedule = build_schedule("2bw", 3, 4, recompute=True)
    assert check_schedule(schedule, sends="batched") == []
    how = {"loss": mse, "optimizer": lambda named: torch.optim.SGD([p for _, p in named], lr=0.1), "sends": "batched"}
    with pytest.raises(ScheduleError, match="wait cycle"):
        Pipeline(mlp(3), schedule, **how)
