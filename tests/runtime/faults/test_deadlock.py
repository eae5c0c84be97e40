"""Tables that the checker would refuse, run behind its back: the wire itself sees that nobody can go on."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelab import DeadlockError, Pipeline, Schedule, check_schedule
from tests.runtime.small import data, mlp, mse

RING = "0F0, 0B1, 0F1, 0B0\n1F0, 1B0, 1F1, 1B1"


@pytest.fixture
def unchecked(monkeypatch):
    for module in ("setup.settings", "steps.walk"):
        monkeypatch.setattr(f"pipelab.runtime.{module}.require_sound", lambda *args, **kwargs: None)


def deadlocked(text, **told):
    pipeline = Pipeline(mlp(4), Schedule.from_csv(text, name="mine"), loss=mse, time_limit=10, **told)
    begun = time.perf_counter()
    with pytest.raises(DeadlockError) as caught:
        pipeline.step(*data())
    assert time.perf_counter() - begun < 1.5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pipelab device")]
    return caught.value


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_ring_is_named(unchecked, clock):
    error = deadlocked(RING, clock=clock)
    assert error.ring == (0, 1)
    text = str(error)
    assert "deadlock: device 0 waits for device 1 waits for device 0" in text
    assert "device 0 waits before 0B1 for the gradient of 1B1 from device 1" in text
    assert "device 1 waits before 1F1 for the activation of 0F1 from device 0" in text


def test_it_is_named_after_a_step_that_went_well(unchecked):
    """As with a table that depends on the batch: nothing of an earlier step stands in the way."""
    model = mlp(4)
    sound = Pipeline(model, Schedule.from_csv("0F0, 0B0\n1F0, 1B0", name="sound"), loss=mse)
    assert sound.step(*data()).loss > 0
    deadlocked(RING)
    assert sound.step(*data()).loss > 0


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_a_ring_of_sends_that_block_is_named(unchecked, clock):
    error = deadlocked("0F0, 0B0, 0F1, 0B1\n1F0, 1F1, 1B0, 1B1", outstanding=0, clock=clock)
    assert error.ring == (0, 1)
    assert "device 1 waits before 1F1 for the activation of 0F1 from device 0" in str(error)


def test_only_the_ring_is_listed_and_who_waits_behind_it_is_counted(unchecked):
    error = deadlocked("0F0, 0F1, 0B0, 0B1\n1F0, 1B1, 1F1, 1B0\n2F0, 2B0, 2F1, 2B1")
    assert error.ring == (1, 2)
    assert "device 1 waits for device 2 waits for device 1" in str(error) and "and 1 more behind them" in str(error)


@pytest.mark.parametrize("launch_clock", ["device", "wall"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.tuples(*[st.permutations([0, 0, 1, 1, 2, 2])] * 3))
def test_what_the_checker_calls_sound_runs_and_nothing_else_does(unchecked, launch_clock, turns):
    """The checker and the detective do not know each other."""
    rows = [[f"{s}{'FB'[i in row[:k]]}{i}" for k, i in enumerate(row)] for s, row in enumerate(turns)]
    schedule = Schedule.from_rows(rows, name="shuffled")
    found = check_schedule(schedule)
    assert {violation.code for violation in found} <= {"wait-cycle"}
    pipeline = Pipeline(mlp(3), schedule, loss=mse, clock=launch_clock, time_limit=10)
    if found:
        with pytest.raises(DeadlockError):
            pipeline.step(*data(6))
    else:
        assert pipeline.verify(*data(6)) < 1e-10
