"""A memory limit per device: the wall is met in the action that crosses it, for real."""

from __future__ import annotations

import gc
import pickle

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, OutOfMemoryError, Pipeline, StageError, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from tests.runtime.small import data, mlp, mse


def adam(named):
    return torch.optim.AdamW([p for _, p in named], lr=1e-3)


def pipeline(name="gpipe", m=8, limit=None, model=None, **settings):
    schedule = build_schedule(name, 4, m, recompute=settings.pop("recompute", False))
    return Pipeline(
        model or TransformerLM(layers=8, width=16, heads=2),
        schedule,
        loss=next_byte_loss,
        memory_limit=limit,
        **settings,
    )


BATCH = text_batch(0, 32)


@pytest.fixture(scope="module")
def needs():
    """Bytes that each of the four devices needs for GPipe at m = 8."""
    return [held.total for held in pipeline(optimizer=adam).step(*BATCH).memory]


def test_what_is_needed_is_enough_and_a_byte_less_is_not(needs):
    assert pipeline(limit=needs, optimizer=adam).step(*BATCH).loss > 0
    for device in range(4):
        less = [need - (r == device) for r, need in enumerate(needs)]
        with pytest.raises(OutOfMemoryError) as caught:
            pipeline(limit=less, optimizer=adam).step(*BATCH)
        error = caught.value
        assert error.device == device and error.allowed == needs[device] - 1 < error.needed
        assert f"out of memory on device {device} in " in str(error) and error.action in str(error)


def test_the_error_says_where_what_and_what_to_do(needs):
    with pytest.raises(OutOfMemoryError, match=r"device 0 in 0F\d: .* needed, .* allowed\. It holds weights") as caught:
        pipeline(limit=[0.6 * needs[0], *needs[1:]], optimizer=adam).step(*BATCH)
    assert isinstance(caught.value, MemoryError) and isinstance(caught.value, StageError)
    assert caught.value.model_states < caught.value.allowed
    assert "recomputation" in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.device, again.needed, again.action) == (0, caught.value.needed, caught.value.action)


def test_after_the_wall_nothing_stays_held_and_the_pipeline_still_works(needs):
    made = pipeline(limit=0.6 * max(needs))
    for _ in range(2):
        with pytest.raises(OutOfMemoryError):
            made.step(*BATCH)
    gc.collect()
    assert all(meter.settle() == 0 for meter in made._engine._stepper.memory.values())
    assert made.step(BATCH[0][:8], BATCH[1][:8]).loss > 0, "a smaller batch fits"


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_an_error_that_is_kept_keeps_nothing_from_the_next_step(launch, needs):
    """As sys.last_value in a notebook: its traceback held the micro-batch that did not fit, and the next step paid."""
    fits = BATCH[0][:16], BATCH[1][:16]
    with pipeline(limit=0.6 * max(needs), launch=launch) as made:
        before = made.step(*fits).peak_activation_bytes
        for _ in range(2):
            with pytest.raises(OutOfMemoryError) as caught:
                made.step(*BATCH)
            kept = caught.value
            assert made.step(*fits).peak_activation_bytes == before
    assert kept.__context__ is None


def test_an_optimizer_is_rehearsed_once(monkeypatch):
    """Plain SGD has no state: it was rehearsed again in each step, 31 ms became 201."""
    calls = []
    monkeypatch.setattr("pipelab.runtime.measuring.model_states._planned_state", lambda made: calls.append(made) or 0)
    made = pipeline(limit="1GB", optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=0.1))
    for _ in range(3):
        made.step(*BATCH)
    assert len(calls) == 4


def test_1f1b_and_recomputation_run_where_gpipe_does_not(needs):
    limit = 0.6 * max(needs)
    for m in (1, 4, 16, 32):
        with pytest.raises(OutOfMemoryError):
            pipeline("gpipe", m, limit, optimizer=adam).step(*BATCH)
    assert pipeline("1f1b", 16, limit, optimizer=adam).step(*BATCH).loss > 0
    assert pipeline("gpipe", 16, limit, optimizer=adam, recompute=True).step(*BATCH).loss > 0


def test_the_state_that_adam_will_add_counts_from_the_first_step_on():
    """Else the first step would fit, and the second would not."""
    model_states = max(held.model_states.total for held in pipeline(optimizer=adam).step(*BATCH).memory)
    weights = max(held.model_states.weights for held in pipeline().step(*BATCH).memory)
    assert model_states > 3.9 * weights
    with pytest.raises(ConfigurationError, match=r"before the first activation .*optimizer state"):
        pipeline(limit=model_states - 1, optimizer=adam).step(*BATCH)
    assert pipeline("1f1b", 32, 8 * model_states, optimizer=adam).step(*BATCH).loss > 0


def test_an_optimizer_is_rehearsed_without_being_touched():
    seen = []

    def fused(named):
        seen.append(torch.optim.AdamW([p for _, p in named], fused=True))
        return seen[-1]

    model = mlp()
    made = Pipeline(model, build_schedule("1f1b", 4, 4), loss=mse, optimizer=fused, memory_limit="1GB")
    report = made.step(*data())
    assert len(seen) == 4, "the factory is called once a stage, whatever is tried beforehand"
    found = sum(t.nbytes for o in seen for s in o.state.values() for t in s.values())
    assert sum(held.model_states.optimizer for held in report.memory) == found
    weights = sum(p.nbytes for p in model.parameters())
    assert sum(held.model_states.weights for held in report.memory) == weights
    assert sum(held.model_states.gradients for held in report.memory) == weights


def test_a_message_that_waits_counts_too():
    """Stage 0 hands on far more than anyone else keeps: it is the message that does not fit on device 1."""
    model = nn.Sequential(nn.Linear(4, 4096), nn.Linear(4096, 4))
    made = Pipeline(
        model, build_schedule("gpipe", 2, 4), loss=nn.functional.mse_loss, memory_limit=["1GB", "1MB"], optimizer=None
    )
    with pytest.raises(OutOfMemoryError, match="on device 1 in the message for 1F0"):
        made.step(torch.randn(256, 4), torch.randn(256, 4))


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("lots", "memory_limit must be positive bytes"),
        (-5, "memory_limit must be positive bytes"),
        ([1e9, 1e9], "given for 2 devices, there are 4"),
        ("1kB", "before the first activation"),
        (b"60MB", "memory_limit must be positive bytes"),
        ([10**400, "1kB", None, float("inf")], "on device 1, which holds"),
    ],
)
def test_limits_that_cannot_work_are_said_before_anything_starts(limit, says):
    with pytest.raises(ConfigurationError, match=says):
        pipeline(limit=limit).step(*BATCH)


def test_what_is_not_measured_cannot_be_limited():
    with pytest.raises(ConfigurationError, match="needs measure_memory=True"):
        pipeline(limit=1e9, measure_memory=False)


def test_evaluation_meets_the_wall_as_well():
    with pytest.raises(OutOfMemoryError):
        made = pipeline("naive", 1, None)
        held = made.evaluate(*BATCH).memory[1]
        pipeline("naive", 1, held.total - 1).evaluate(*BATCH)


def test_between_processes_the_error_is_the_same(needs):
    with pipeline(limit=[*needs[:2], 0.6 * needs[2], needs[3]], launch="processes") as made:
        with pytest.raises(OutOfMemoryError) as caught:
            made.step(*BATCH)
        assert caught.value.device == 2 and caught.value.needed > caught.value.allowed
        assert made.step(BATCH[0][:8], BATCH[1][:8]).loss > 0
