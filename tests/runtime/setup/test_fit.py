"""Whether stages fit: small ones are asked with real data, which is quicker, large ones without any."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Pipeline, build_schedule
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.setup import fit as probe
from pipelab.runtime.setup.fit import FitCheck, check_fit
from pipelab.runtime.setup.microbatches import make_inputs
from tests.runtime.small import check_step, data, mse

SCHEDULE = build_schedule("1f1b", 2, 4)


@pytest.fixture(params=["little", "large"])
def asked(request, monkeypatch):
    """Where the modules run when they are asked."""
    if request.param == "large":
        monkeypatch.setattr(probe, "_LITTLE", -1)
    return "cpu" if request.param == "little" else "meta"


class Watched(nn.Module):
    """Counts, remembers outside of itself, and works in place."""

    def __init__(self, calls):
        super().__init__()
        self.register_buffer("total", torch.zeros(3, dtype=torch.float64))
        self.seen, self.calls = 0, calls

    def __deepcopy__(self, memo):
        copied = Watched(self.calls)
        copied.total = memo.get(id(self.total), self.total.clone())
        return copied

    def forward(self, x):
        self.seen += 1
        self.calls.append(x.device.type)
        self.total += x.detach().sum(0)
        return x.mul_(2)


def stages(*modules):
    return [nn.Sequential(module).double() for module in modules]


def test_asking_leaves_no_trace_in_modules_data_and_random_numbers(asked):
    calls = []
    watched = Watched(calls)
    x, y = torch.randn(4, 3, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
    before, state = x.clone(), torch.get_rng_state()
    check_fit([nn.Sequential(watched, nn.Dropout(0.5))], mse, x, y)
    assert calls == [asked]
    assert (watched.seen, float(watched.total.abs().sum())) == (0, 0.0)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_stages_that_fit_are_only_run_as_often_as_there_are_micro_batches(asked):
    calls = []
    model = nn.Sequential(nn.Linear(5, 3).double(), Watched(calls))
    pipeline = Pipeline(model, SCHEDULE, loss=mse)
    for _ in range(2):
        pipeline.step(*data())
    assert model[1].seen == 8
    assert calls == [asked, *["cpu"] * 8], "a second batch of the same kind is not asked again"


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("modules", "loss", "says"),
    [
        ((nn.Linear(4, 3),), mse, r"stage 0 cannot take the inputs float64\[4, 5\]"),
        ((nn.Linear(5, 3), nn.Linear(4, 3)), mse, r"stage 1 cannot take what stage 0 gives, float64\[4, 3\]"),
        ((nn.LazyLinear(3),), mse, "stage 0 cannot take the inputs .* uninitialized parameter"),
        ((nn.Linear(5, 2),), nn.CrossEntropyLoss(), "the loss cannot take the last stage's output"),
        ((nn.Linear(5, 3),), nn.MSELoss(reduction="none"), r"must be a scalar, got float64\[4, 3\]"),
        ((nn.Linear(5, 3),), lambda out, target: 1.0, "must return a scalar tensor, got float"),
    ],
)
def test_what_does_not_fit_is_named(modules, loss, says):
    target = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ConfigurationError, match=says):
        check_fit(stages(*modules), loss, torch.zeros(4, 5, dtype=torch.float64), target)


def test_what_a_models_own_code_raises_is_left_to_the_run(asked):
    class Picky(nn.Module):
        def forward(self, x):
            raise ValueError("the stage's own words")

    assert check_fit(stages(Picky()), mse, *data()) is None


@pytest.mark.usefixtures("asked")
def test_a_model_that_cannot_run_without_data_still_runs():
    class Peek(nn.Module):
        def forward(self, x):
            return x * 1.0 if x.sum().item() > 0 else x / 1.0

    check_step(nn.Sequential(nn.Linear(5, 3).double(), Peek()), SCHEDULE)


def test_work_is_little_by_what_a_forward_multiplies(monkeypatch):
    """100 parameters for each of 1000 numbers."""
    monkeypatch.setattr(probe, "_LITTLE", 1e5)
    calls = []

    class Where(nn.Module):
        def forward(self, x):
            calls.append(x.device.type)
            return x

    for rows in (100, 101):
        check_fit([nn.Sequential(nn.Linear(10, 10, bias=False), Where())], None, torch.zeros(rows, 10), None)
    assert calls == ["cpu", "meta"]


def test_each_kind_of_micro_batch_is_asked_once():
    calls = []

    class Where(nn.Module):
        def forward(self, x):
            calls.append((tuple(x.shape), x.dtype))
            return x

    check = FitCheck({0: Where()}, None, TimeLimit(None))
    for shape, dtype in (
        ((4, 3), torch.float32),
        ((2, 3), torch.float32),
        ((4, 2), torch.float32),
        ((4, 3), torch.int64),
    ):
        check.check(make_inputs(torch.zeros(shape, dtype=dtype), [shape[0]])[0], None)
    assert calls == [((4, 3), torch.float32), ((4, 2), torch.float32), ((4, 3), torch.int64)]
