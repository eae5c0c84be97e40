"""Training goes on from a checkpoint: bit for bit in the same launch, to rounding in any other."""

import copy

import pytest
import torch
from torch import nn

from pipelab import Checkpoint, ConfigurationError, Pipeline, build_schedule
from tests.runtime.checkpoint.small import LAUNCHES, adam, batch, model, momentum, opened, state, trained
from tests.runtime.setup import test_ties as ties


@pytest.mark.parametrize("optimizer", [adam, momentum])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_it_goes_on_bit_for_bit(launch, optimizer, tmp_path):
    """Adam or momentum, scheduler, clipping, both kinds of dropout, batch statistics, uneven batches."""
    with opened(launch, optimizer=optimizer) as pipeline:
        trained(pipeline, range(3))
        path = pipeline.save(tmp_path, data={"epoch": 1, "left": torch.arange(3), "of": (2, None)})
        true = trained(pipeline, range(3, 6)), state(pipeline)
        drawn = torch.rand(2)
    with opened(launch, model(seed=5), optimizer=optimizer) as pipeline:
        trained(pipeline, range(1))
        found = pipeline.load(tmp_path)
        assert (found.path, found.step_number) == (path, 3) == (tmp_path / "step-00000003", pipeline.step_number)
        assert found.data["left"].equal(torch.arange(3)) and found.data["of"] == (2, None)
        assert (trained(pipeline, range(3, 6)), state(pipeline)) == true
        assert torch.rand(2).equal(drawn), "the caller's own generator, too"


OTHERS = [("threads", ("gpipe", 1, 4)), ("threads", ("interleaved", 2, 4, 2)), ("processes", ("gpipe", 3, 6))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder, losses after it) by launch; float64."""
    found = {}
    for launch in LAUNCHES:
        with opened(launch, model(plain=False, dtype=torch.float64)) as pipeline:
            trained(pipeline, range(2), torch.float64)
            folder = tmp_path_factory.mktemp(launch)
            pipeline.save(folder)
            found[launch] = folder, trained(pipeline, range(2, 5), torch.float64)
    return found


@pytest.mark.parametrize("source", LAUNCHES)
@pytest.mark.parametrize(("launch", "schedule"), OTHERS)
def test_it_goes_on_in_another_launch_schedule_and_cut(source, launch, schedule, saved):
    folder, true = saved[source]
    with opened(launch, model(7, plain=False, dtype=torch.float64), schedule=schedule) as pipeline:
        pipeline.load(folder)
        assert trained(pipeline, range(2, 5), torch.float64) == pytest.approx(true, abs=1e-12)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_what_two_stages_hold_is_saved_once(launch, tmp_path):
    def made():
        return Pipeline(ties.LM(), build_schedule("1f1b", 3, 4), loss=ties.loss, optimizer=ties.adam, launch=launch)

    with made() as pipeline:
        pipeline.step(*ties.batch())
        pipeline.save(tmp_path)
        true = [pipeline.step(*ties.batch()).loss for _ in range(2)]
        names = sorted(pipeline.state_dict())
    with made() as pipeline:
        pipeline.load(tmp_path)
        assert [pipeline.step(*ties.batch()).loss for _ in range(2)] == true
        assert "embed.weight" in names and "head.weight" not in names


@pytest.mark.parametrize("launch", LAUNCHES)
def test_stages_that_are_built_and_a_loss_that_learns(launch, tmp_path):
    def stage(s):
        torch.manual_seed(s)
        return nn.Linear(6, 6) if s == 0 else nn.Linear(6, 3)

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, outputs, targets):
            return ((self.scale * outputs - targets) ** 2).mean()

    stack = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    for built, loss in ((stage, nn.MSELoss()), (stack, Scaled())):
        folder = tmp_path / type(loss).__name__
        with opened(launch, copy.deepcopy(built), loss=copy.deepcopy(loss)) as pipeline:
            trained(pipeline, range(2))
            pipeline.save(folder)
            true = trained(pipeline, range(2, 4)), state(pipeline)
        with opened(launch, copy.deepcopy(built), loss=copy.deepcopy(loss)) as pipeline:
            pipeline.load(folder)
            assert (trained(pipeline, range(2, 4)), state(pipeline)) == true
            assert ("loss.scale" in pipeline.state_dict()) == (built is stack)
        with opened("threads", copy.deepcopy(built), loss=copy.deepcopy(loss), schedule=("1f1b", 1, 4)) as pipeline:
            if built is stage:
                before = state(pipeline)
                with pytest.raises(ConfigurationError, match="are called by s, so by as many stages"):
                    pipeline.load(folder)
                assert state(pipeline) == before
            else:
                pipeline.load(folder)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_scaler_goes_on_where_it_was(launch, tmp_path):
    def made():
        return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

    with opened(launch, grad_scaler=made()) as pipeline:
        trained(pipeline, range(3))
        pipeline.save(tmp_path)
        true = trained(pipeline, range(3, 6)), state(pipeline)
    with opened(launch, grad_scaler=made()) as pipeline:
        pipeline.load(tmp_path)
        assert pipeline.settings.grad_scaler.get_scale() == 2.0**11
        assert (trained(pipeline, range(3, 6)), state(pipeline)) == true


def test_without_an_optimizer_weights_are_taken_and_with_one_it_is_asked(tmp_path):
    with opened() as pipeline:
        trained(pipeline, range(2))
        pipeline.save(tmp_path / "full")
        weights = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
    with opened(built=model(3), optimizer=None, lr_scheduler=None) as pipeline:
        assert pipeline.load(tmp_path / "full") == Checkpoint(tmp_path / "full" / "step-00000002", 2)
        assert all(weights[name].equal(tensor) for name, tensor in pipeline.state_dict().items())
        assert pipeline.step_number == 2
        pipeline.save(tmp_path / "bare")
    with opened(built=model(3)) as pipeline:
        before = state(pipeline)
        with pytest.raises(ConfigurationError, match=r"saved without an optimizer.*load\(folder, optimizer=False\)"):
            pipeline.load(tmp_path / "bare")
        assert state(pipeline) == before
        pipeline.load(tmp_path / "full", optimizer=False)
        assert all(weights[name].equal(tensor) for name, tensor in pipeline.state_dict().items())
        assert pipeline.step_number == 0 and pipeline.optimizer_state()["state"] == {}


def test_in_the_middle_of_a_step_of_another_thread_nothing_is_saved(tmp_path):
    """Half of the weights would be older than the others."""
    with opened() as pipeline, pipeline._engine._working(), pytest.raises(Exception, match="is running a step"):
        pipeline.save(tmp_path)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_gpu_goes_on_bit_for_bit(launch, tmp_path):
    losses = []
    for built, load in ((model(), False), (model(4), True)):
        with opened(launch, built, device="cuda:0", schedule=("1f1b", 2, 4)) as pipeline:
            if load:
                pipeline.load(tmp_path)
            else:
                trained(pipeline, range(2))
                pipeline.save(tmp_path)
            losses.append([pipeline.step(*batch(step)).loss for step in range(2, 5)])
    assert losses[0] == losses[1]
