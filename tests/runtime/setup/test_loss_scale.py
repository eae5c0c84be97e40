"""fp16's loss scaling: one gradient that is not finite, on any stage, skips the update of all."""

import copy

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Pipeline, build_schedule
from tests.runtime.small import data, mlp, mse

SCHEDULE = build_schedule("1f1b", 4, 4)


def scaler(**more):
    return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2, **more)


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_steps_scales_and_skips_are_those_of_the_unsplit_model(launch):
    model, unsplit, own, true = mlp(), mlp(), scaler(), scaler()
    unsplit.load_state_dict(model.state_dict())
    optimizer = sgd(list(unsplit.named_parameters()))
    schedulers = {"lr_scheduler": lambda made: torch.optim.lr_scheduler.StepLR(made, 1, 0.5)}
    x, y = data()
    with Pipeline(
        model, SCHEDULE, loss=mse, optimizer=sgd, grad_scaler=own, clip_norm=0.2, launch=launch, **schedulers
    ) as pipeline:
        lr = 0.1
        for step in range(5):
            targets = y * (float("inf") if step == 2 else 1)
            optimizer.zero_grad()
            for group in optimizer.param_groups:
                group["lr"] = lr
            true.scale(mse(unsplit(x), targets)).backward()
            true.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(unsplit.parameters(), 0.2)
            true.step(optimizer)
            true.update()
            report = pipeline.step(x, targets)
            assert report.skipped == (step == 2)
            assert own.get_scale() == true.get_scale()
            if not report.skipped:
                lr /= 2
                assert report.gradient_norm == pytest.approx(norm.item(), rel=1e-12)
            for mine, its in zip(model.parameters(), unsplit.parameters(), strict=True):
                torch.testing.assert_close(mine, its, atol=1e-12, rtol=0)
        assert pipeline.verify(x, y) < 1e-12, "the proof is of gradients without a scale"
        assert pipeline.optimizer_state()["grad_scaler"]["scale"] == own.get_scale()
        state = copy.deepcopy(pipeline.optimizer_state())
        own.load_state_dict({**own.state_dict(), "scale": 2.0})
        assert pipeline.step(x, y).loss == pytest.approx(mse(unsplit(x), y).item(), abs=1e-9)
        pipeline.load_optimizer_state(state)
        assert own.get_scale() == state["grad_scaler"]["scale"]


def test_a_scaler_that_is_off_changes_nothing():
    model = mlp()
    Pipeline(model, SCHEDULE, loss=mse, optimizer=sgd, grad_scaler=scaler(enabled=False)).step(*data())


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigurationError, match=r"grad_scaler must be a torch.amp.GradScaler, got float"):
        Pipeline(mlp(), SCHEDULE, loss=mse, optimizer=sgd, grad_scaler=1024.0)
    with pytest.raises(ConfigurationError, match="grad_scaler needs an optimizer"):
        Pipeline(mlp(), SCHEDULE, loss=mse, grad_scaler=scaler())
