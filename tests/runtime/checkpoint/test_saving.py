"""Training goes on from a checkpoint: bit for bit in the same launch, to rounding in any other."""

import copy

import pytest
import torch
from torch import nn

from pipelab import Checkpoint, ConfigurationError, Pipeline, build_schedule, split_model
from pipelab.models import dropout_key
from tests.runtime.checkpoint.small import LAUNCHES, adam, batch, model, momentum, opened, state, trained
from tests.runtime.setup import test_ties as ties
from tests.runtime.small import data, mse, tuple_net


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


# ---- another schedule goes on -----------------------------------------------------------------------------------


def rising(optimizer):
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=12)


def test_training_that_is_rescheduled_equals_that_of_the_unsplit_model():
    split, whole = tuple_net(dropout=0.2), tuple_net(dropout=0.2)
    optimizer = adam(list(whole.named_parameters()))
    scheduler, step = rising(optimizer), 0
    with Pipeline(
        split, build_schedule("1f1b", 4, 4), loss=mse, optimizer=adam, lr_scheduler=rising, clip_norm=0.1, seed=7
    ) as pipeline:
        for schedule, cuts in (
            (pipeline.schedule, None),
            (build_schedule("interleaved", 4, 4, 2), None),
            (build_schedule("gpipe", 2, 3), [5]),
            (build_schedule("zb-h1", 2, 4), None),  # with the cuts that are there
        ):
            pipeline.reschedule(schedule, cuts)
            for _ in range(2):
                report = pipeline.step(*data(seed=step))
                optimizer.zero_grad()
                with dropout_key(7, step):
                    loss = mse(whole(data(seed=step)[0]), data(seed=step)[1])
                loss.backward()
                nn.utils.clip_grad_norm_(whole.parameters(), 0.1)
                optimizer.step()
                scheduler.step()
                assert (report.step, report.schedule.name) == (step, schedule.name)
                assert report.loss == pytest.approx(loss.item(), abs=1e-12)
                step += 1
        assert len(pipeline._engine.stages()[0][1].names) == 5
    for a, b in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_rescheduled_pipeline_is_bit_for_bit_a_new_one_that_loads(launch, tmp_path):
    """Scheduler, scaler, clipping, plain dropout, batch statistics; frozen weights stay so."""
    other, cuts = ("gpipe", 2, 3), [2]

    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)

    with opened(launch, grad_scaler=scaler()) as pipeline:
        trained(pipeline, range(3))
        pipeline.save(tmp_path)
    with opened(launch, model(5), schedule=other, cuts=cuts, grad_scaler=scaler()) as pipeline:
        pipeline.load(tmp_path)
        true = trained(pipeline, range(3, 6)), state(pipeline)
    with opened(launch, grad_scaler=scaler()) as pipeline:
        trained(pipeline, range(3))
        pids = pids_of(pipeline)
        pipeline.reschedule(build_schedule(*other), cuts)
        assert pids_of(pipeline) == pids, "no process is started anew"
        assert (trained(pipeline, range(3, 6)), state(pipeline)) == true


def pids_of(pipeline):
    return pipeline._engine._pool.pids if pipeline.launch == "processes" else None


@pytest.mark.parametrize("launch", LAUNCHES)
def test_what_is_built_keeps_its_stages_on_other_devices(launch):
    """A built stage can be frozen too; in processes it is built again, and gets the weights of the first."""

    def stage(s):
        return nn.Linear((6, 4, 5, 7)[s], (4, 5, 7, 3)[s]).double()

    settings = {"loss": nn.MSELoss(), "optimizer": adam, "lr_scheduler": None, "clip_norm": None}
    with opened(launch, stage, schedule=("1f1b", 4, 4), **settings) as pipeline:
        trained(pipeline, range(1), torch.float64)
        alike = nn.Sequential(*map(stage, range(4)))
        alike.load_state_dict({name.removeprefix("stages."): t for name, t in pipeline.state_dict().items()})
        optimizer = adam(list(alike.named_parameters()))
        torch.optim.Optimizer.load_state_dict(optimizer, numbered(pipeline.optimizer_state()))
        dict(pipeline.named_parameters())["stages.2.bias"].requires_grad_(launch == "threads")
        alike[2].bias.requires_grad_(launch == "threads")
        before = state(pipeline)
        with pytest.raises(ConfigurationError, match="build_stage has made 4 stages, and schedule '1f1b' has 2; take"):
            pipeline.reschedule(build_schedule("1f1b", 2, 4))
        with pytest.raises(ConfigurationError, match="cuts are for a model that is cut here"):
            pipeline.reschedule(pipeline.schedule, [1, 2, 3])
        assert state(pipeline) == before
        pipeline.reschedule(build_schedule("interleaved", 2, 4, 2))
        for step in range(1, 3):
            x, y = batch(step, torch.float64)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(alike(x), y)
            loss.backward()
            optimizer.step()
            assert pipeline.step(x, y).loss == pytest.approx(loss.item(), abs=1e-12)


def numbered(kept):
    """A state by names in the form of torch.optim's."""
    names = [name for group in kept["param_groups"] for name in group["params"]]
    (group,) = kept["param_groups"]
    return {
        "state": {number: kept["state"][name] for number, name in enumerate(names)},
        "param_groups": [{**group, "params": list(range(len(names)))}],
    }


@pytest.mark.parametrize("launch", LAUNCHES)
def test_what_cannot_be_rescheduled_goes_on_as_it_was(launch):
    schedule = build_schedule("1f1b", 1, 4)

    def only_of_parts(named):
        if len(named) > 6:
            raise ValueError("too many at once")
        return adam(named)

    split = split_model(ties.LM(), ties.batch()[0], 2)  # a stack: no tracing
    with Pipeline(split, build_schedule("1f1b", 2, 4), loss=ties.loss, launch=launch) as pipeline:
        with pytest.raises(ConfigurationError, match="into 2 stages, the schedule has 1; split it again: split_model"):
            pipeline.reschedule(schedule)
        pipeline.reschedule(build_schedule("gpipe", 2, 3))
        assert pipeline.verify(*ties.batch()) < 1e-12
    losses = []
    for fails in (False, True):
        with opened(launch, model(), optimizer=only_of_parts) as pipeline:
            trained(pipeline, range(2))
            if fails:
                before = state(pipeline)
                with pytest.raises(ValueError, match="too many at once"):
                    pipeline.reschedule(schedule)
                with pytest.raises(ConfigurationError, match="schedule must be a Schedule"):
                    pipeline.reschedule("1f1b")
                assert state(pipeline) == before and pipeline.schedule.devices == 2
            losses.append(trained(pipeline, range(2, 4)))
    assert losses[0] == losses[1], "random generators too"


@pytest.mark.parametrize("launch", LAUNCHES)
def test_micro_batches_under_way_are_drained_first(launch):
    with opened(
        launch, model(plain=False), schedule=("pipedream", 2, 4), lr_scheduler=None, clip_norm=None
    ) as pipeline:
        trained(pipeline, range(1))
        with pytest.raises(ConfigurationError, match=r"rescheduling is not possible while .* \(1\).*call drain\(\)"):
            pipeline.reschedule(build_schedule("1f1b", 2, 4))
        trained(pipeline, range(1))
        pipeline.drain()
        before = state(pipeline)
        pipeline.reschedule(build_schedule("1f1b", 2, 4))
        assert state(pipeline) == before
        trained(pipeline, range(2))


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
