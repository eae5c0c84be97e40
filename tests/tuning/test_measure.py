"""Profiles of a real model: its real bytes, its weights untouched, and errors that say what to do."""

from __future__ import annotations

import time
import warnings
from typing import ClassVar

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Pipeline, build_schedule, profile_costs
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.tuning.measure import default_sizes
from tests.runtime.small import Work, mse

BATCH = text_batch(0, 16)


def adam(named):
    return torch.optim.AdamW([p for _, p in named], lr=1e-3)


def small():
    return TransformerLM(layers=8, width=16, heads=2)


@pytest.fixture(scope="module")
def made():
    return profile_costs(
        small(), *BATCH, loss=next_byte_loss, sizes=(2, 4, 8), repeats=2, optimizer=adam, progress=False
    )


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b", "interleaved"])
@pytest.mark.parametrize("m", [4, 8, 12])
@pytest.mark.parametrize("recompute", [False, True])
def test_bytes_are_predicted_for_any_schedule_and_m(made, name, m, recompute):
    """At sizes that were not profiled, uneven ones too: 12 micro-batches of 16 sequences hold 2 or 1."""
    schedule = build_schedule(name, 4, m, recompute=recompute)
    predicted = made.memory(made.predict(schedule, 16))
    report = Pipeline(small(), schedule, loss=next_byte_loss, optimizer=adam).step(*BATCH)
    for held, real in zip(predicted, report.memory, strict=True):
        assert held.model_states == real.model_states
        assert held.activations == pytest.approx(real.activations, rel=0.05)


@pytest.mark.parametrize("name", ["zb-h1", "interleaved-zb", "zb-v"])
def test_bytes_are_predicted_for_backwards_cut_in_two(made, name):
    """What waits for W is not what waited for I, and no prediction knew."""
    schedule = build_schedule(name, 4, 8)
    predicted = made.memory(made.predict(schedule, 16))
    report = Pipeline(small(), schedule, loss=next_byte_loss, optimizer=adam).step(*BATCH)
    for held, real in zip(predicted, report.memory, strict=True):
        assert held.activations == pytest.approx(real.activations, rel=0.05)


def test_the_first_stage_has_no_I_to_speak_of(made):
    """Nobody asks for the gradient of tokens."""
    for s, stage in enumerate(made.stages[4]):
        assert (stage.input_gradient(4) < 0.3 * stage.weight_gradient(4)) == (s == 0)


def test_a_known_amount_of_work_is_found():
    """20 ms in stage 1's forward, whatever b: alpha, and no other stage's."""
    model = nn.Sequential(nn.Linear(5, 5), Work(0.02), nn.Linear(5, 5), nn.Linear(5, 5))
    found = profile_costs(
        model, torch.randn(8, 5), torch.randn(8, 5), loss=nn.functional.mse_loss, chunks=(1,), repeats=2, progress=False
    )
    assert 0.02 <= found.stages[4][1].forward.alpha < 0.025
    assert all(found.stages[4][s].forward.alpha < 0.01 for s in (0, 2, 3))
    assert found.tokens is None


def test_nothing_of_the_model_changes():
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    profile_costs(
        model, *BATCH, loss=next_byte_loss, sizes=(1, 2), repeats=1, optimizer=adam, chunks=(1,), progress=False
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


def test_between_processes_the_bytes_are_the_same(made):
    with_processes = profile_costs(
        small(),
        *BATCH,
        loss=next_byte_loss,
        sizes=(2, 8),
        repeats=1,
        chunks=(1,),
        optimizer=adam,
        launch="processes",
        progress=False,
    )
    for here, there in zip(made.stages[4], with_processes.stages[4], strict=True):
        assert here.model_states == there.model_states
        assert here.kept.beta == pytest.approx(there.kept.beta, rel=0.01)
    assert with_processes.link.points and with_processes.link(1e4) > 0
    assert with_processes.about["launch"] == "processes"


def test_sizes_are_powers_of_two_up_to_half_of_the_batch():
    assert default_sizes(64) == (1, 2, 4, 8, 16, 32)
    assert default_sizes(2) == (1, 2)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sizes": (4,)}, "two or more different numbers"),
        ({"sizes": (1, 17)}, "from 1 to 16"),
        ({"repeats": 0}, "repeats must be"),
        ({"sizes": (0, 1)}, "from 1 to 16"),
        ({"chunks": (5,)}, "stages"),
    ],
)
def test_what_cannot_be_profiled_is_said_before_anything_runs(settings, says):
    with pytest.raises(ConfigurationError, match=says):
        profile_costs(small(), *BATCH, loss=next_byte_loss, progress=False, **settings)


class SlowSGD(torch.optim.SGD):
    """An update of 20 ms."""

    cores: ClassVar[list[int]] = []

    def step(self, closure=None):
        if self.param_groups[0]["params"][0].device.type != "meta":  # that rehearsal is for bytes, not for time
            self.cores.append(torch.get_num_threads())
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        return super().step(closure)


def test_the_update_is_timed_as_it_runs():
    """On the caller's thread, with all its cores, 0.2 ms were read as 24, and decided which schedule was best."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = profile_costs(
            small(),
            *BATCH,
            loss=next_byte_loss,
            sizes=(1, 2),
            repeats=1,
            chunks=(1,),
            optimizer=lambda named: SlowSGD([p for _, p in named], lr=0.1),
            progress=False,
        )
    finally:
        torch.set_num_threads(before)
    assert set(SlowSGD.cores) == {1}, "one core each, as a device has"
    assert all(0.02 <= stage.update < 0.04 for stage in found.stages[4])
    assert found.update_seconds(build_schedule("1f1b", 4, 4)) < 0.04


def test_sizes_that_do_not_run_are_left_out():
    """Batch normalisation needs two sequences; a large micro-batch may not fit; neither is a reason to give up."""

    class Room(nn.Linear):
        def forward(self, x):
            if len(x) > 8:
                raise torch.OutOfMemoryError("CUDA out of memory, as it were")
            return super().forward(x)

    model = nn.Sequential(Room(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = profile_costs(
            model,
            torch.randn(32, 6),
            torch.randn(32, 6),
            loss=nn.functional.mse_loss,
            chunks=(1,),
            repeats=1,
            progress=False,
        )
    assert [b for b, _ in found.line().points] == [2, 4, 8]


def test_without_recomputation_a_dropout_of_ones_own_can_be_profiled():
    model = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Linear(6, 6), nn.Linear(6, 6))
    data = torch.randn(8, 6), torch.randn(8, 6)
    settings = {"loss": nn.functional.mse_loss, "chunks": (1,), "repeats": 1, "progress": False}
    with pytest.raises(ConfigurationError, match="recomput"):
        profile_costs(model, *data, **settings)
    found = profile_costs(model, *data, recompute=False, split=False, **settings)
    assert not found.recomputes and not found.splits and found.predict(build_schedule("1f1b", 4, 4), 8).makespan > 0
    with pytest.raises(ConfigurationError, match="without recomputation"):
        found.predict(build_schedule("1f1b", 4, 4, recompute=True), 8)


def test_a_model_that_cannot_run_here_is_said_to():
    class Needs(nn.Module):
        def forward(self, x):
            raise NotImplementedError("this layer needs tensor cores")

    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), Needs(), nn.Linear(6, 3)).double()
    with pytest.raises(ConfigurationError, match=r"the model cannot be profiled on this device.*needs tensor cores"):
        profile_costs(
            model, torch.randn(4, 6).double(), torch.randn(4, 3).double(), loss=mse, chunks=(1,), progress=False
        )
