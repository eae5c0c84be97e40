"""Schedules without a flush, really run: against their formulas, computed literally in one process."""

from __future__ import annotations

import copy
import operator
import time
from functools import partial

import pytest
import torch
from torch import nn

from pipelab import Pipeline, build_schedule
from pipelab.errors import ConfigurationError, NonFiniteError, PipelabError, ScheduleError, StageError, TimeLimitError
from pipelab.runtime.device.versions import Versions
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.measuring.delayed import delayed_training
from pipelab.schedules import Schedule
from tests.runtime.small import mlp, mse, tuple_net

OPTIMIZERS = {
    "sgd": lambda named: torch.optim.SGD([p for _, p in named], lr=0.05),
    "momentum": lambda named: torch.optim.SGD([p for _, p in named], lr=0.02, momentum=0.9),
    "adam": lambda named: torch.optim.Adam([p for _, p in named], lr=0.01),
}
RULES = ("pipedream", "vertical-sync", "2bw")
PEAKS = {
    "pipedream": lambda p: tuple(range(p, 0, -1)),
    "vertical-sync": lambda p: (p,) * p,
    "2bw": lambda p: (2,) * p,
}


def used(rule, p, m, begun=0):
    """The version that micro-batch i uses on stage s, as the papers have it; ``begun``: the pipeline was empty then."""
    if rule == "2bw":
        return lambda s, i: max(i // m - 1, begun // m)
    if rule == "vertical-sync":
        return lambda s, i: max(i - (p - 1), begun)
    return lambda s, i: max(i - (p - 1 - s), begun)


def batches(count, size, seed=1):
    torch.manual_seed(seed)
    return [(torch.randn(size, 5).double(), torch.randn(size, 3).double()) for _ in range(count)]


def pieces(given, m):
    return [pair for x, y in given for pair in zip(x.tensor_split(m), y.tensor_split(m), strict=True)]


def stages_of(pipeline):
    """The names of each stage's parameters."""
    found = [[] for _ in range(pipeline.schedule.stages)]
    for s, module in pipeline._engine.stages():
        found[s] = [name for name, _ in pipeline._engine._replicas.owned(s, module)]
    return found


def names(model, p):
    with Pipeline(copy.deepcopy(model), build_schedule("1f1b", p, 2), loss=mse) as pipeline:
        return stages_of(pipeline)


def apart(model, true):
    """The largest error of the weights, as a fraction of the largest weight."""
    found = {name: p.detach() for name, p in model.named_parameters()}
    largest = max(tensor.abs().max() for tensor in true.values())
    return float(max((found[name] - true[name]).abs().max() for name in true) / largest)


def reference(model, rule, p, m, optimizer, given, begun=0):
    every = m if rule == "2bw" else 1
    made = (names(model, p), OPTIMIZERS[optimizer], mse, pieces(given, m), used(rule, p, m, begun), every)
    return delayed_training(model, *made)


GRID = [(rule, p, m) for rule in RULES for p in (2, 3, 4) for m in (1, 2, 4, 6) if rule != "2bw" or m >= p]
QUICK = {("pipedream", 4, 2), ("pipedream", 3, 6), ("vertical-sync", 4, 4), ("vertical-sync", 2, 1), ("2bw", 4, 4)}
LAUNCHES = [
    pytest.param(*shape, launch, id=f"{shape[0]}-{shape[1]}-{shape[2]}-{launch}", marks=marks)
    for launch in ("threads", "processes")
    for shape in GRID
    for marks in [[] if shape in QUICK and (launch == "threads" or shape[1:] == (4, 4)) else [pytest.mark.slow]]
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("rule", "p", "m", "launch"), LAUNCHES)
def test_it_is_its_formula(rule, p, m, launch, optimizer):
    """At least 50 updates; at the end, and with the peak of versions that the papers give."""
    model = mlp()
    steps = 52 if rule == "2bw" else -(-52 // m)
    given, start = batches(steps, 3 * m), copy.deepcopy(model)
    schedule = build_schedule(rule, p, m)
    options = {"loss": mse, "optimizer": OPTIMIZERS[optimizer], "launch": launch, "device": "cpu"}
    with Pipeline(model, schedule, **options) as pipeline:
        reports = [pipeline.step(x, y) for x, y in given]
        assert pipeline.under_way == min(p - 1, m * steps)
        assert pipeline.drain().weight_versions
        assert pipeline.under_way == 0
        assert pipeline.drain() is None
    assert max(report.weight_versions for report in reports) == PEAKS[rule](p)
    true = reference(start, rule, p, m, optimizer, given)
    assert len(true) - 1 >= 50
    assert apart(model, true[-1]) <= 1e-9
    assert apart(start, true[-1]) > 0.01, "it has learnt something"


@pytest.mark.parametrize("rule", RULES)
def test_it_is_its_formula_step_by_step(rule):
    """While micro-batches are under way each stage holds what its own updates so far have made of it."""
    p, m, model = 3, 4, mlp()
    start, given = copy.deepcopy(model), batches(5, 8)
    true, whose = reference(start, rule, p, m, "momentum", given), names(start, p)
    with Pipeline(model, build_schedule(rule, p, m), loss=mse, optimizer=OPTIMIZERS["momentum"]) as pipeline:
        for k, (x, y) in enumerate(given):
            pipeline.step(x, y)
            for s, own in enumerate(whose):
                finished = (k + 1) * m - (p - 1 - s)
                version = finished // m if rule == "2bw" else finished
                found = dict(model.named_parameters())
                for name in own:
                    torch.testing.assert_close(found[name].detach(), true[version][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_a_drain_in_between_begins_anew_from_the_newest_weights(rule):
    p, m, model = 3, 4, mlp()
    start, given = copy.deepcopy(model), batches(6, 8)
    with Pipeline(model, build_schedule(rule, p, m), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        for k, (x, y) in enumerate(given):
            pipeline.step(x, y)
            if k == 2:
                pipeline.drain()
    half = reference(start, rule, p, m, "sgd", given[:3])[-1]
    start.load_state_dict(half)
    assert apart(model, reference(start, rule, p, m, "sgd", given[3:])[-1]) <= 1e-12


@pytest.mark.parametrize("sends", [{"outstanding": 1}, {"sends": "batched"}])
@pytest.mark.parametrize("rule", RULES)
def test_it_runs_where_one_message_at_most_may_be_on_its_way(rule, sends):
    """As between GPUs, where a send blocks until it is received."""
    p, m, model = 4, 5, mlp()
    start, given = copy.deepcopy(model), batches(4, 5)
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], "clock": "wall", **sends}
    with Pipeline(model, build_schedule(rule, p, m), **options) as pipeline:
        for x, y in given:
            pipeline.step(x, y)
    assert apart(model, reference(start, rule, p, m, "sgd", given)[-1]) <= 1e-12


def test_a_gradient_that_is_not_finite_is_found_in_the_version_that_it_is_of():
    model = mlp()
    model[4].register_full_backward_hook(lambda module, grads, _: tuple(g * float("nan") for g in grads))
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], "check_finite": True}
    with (
        Pipeline(model, build_schedule("pipedream", 3, 4), **options) as pipeline,
        pytest.raises(NonFiniteError, match=r"device 1, stage 1, action 1B0"),
    ):
        pipeline.step(*batches(1, 8)[0])


def test_closing_drains():
    model, given = mlp(), batches(3, 8)
    start = copy.deepcopy(model)
    pipeline = Pipeline(model, build_schedule("pipedream", 3, 4), loss=mse, optimizer=OPTIMIZERS["adam"])
    for x, y in given:
        pipeline.step(x, y)
    pipeline.close()
    assert apart(model, reference(start, "pipedream", 3, 4, "adam", given)[-1]) <= 1e-12


@pytest.mark.parametrize("rule", RULES)
def test_uneven_micro_batches_and_recomputation(rule):
    """PipeDream takes each micro-batch's own mean, 2BW the mean over the batch: of 7 sequences in pieces of 2 and 1."""
    p, m, model = 3, 4, mlp()
    start, given = copy.deepcopy(model), batches(5, 7)
    schedule = build_schedule(rule, p, m, recompute=True)
    with Pipeline(model, schedule, loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        report = [pipeline.step(x, y) for x, y in given][-1]
    assert report.batch == 7
    true = reference(start, rule, p, m, "sgd", given)[-1]
    assert apart(model, true) <= 1e-12


def test_several_tensors_between_stages_and_dropout_that_is_keyed():
    """Dropout's masks are the same whether a backward runs in the step of its forward or in the next."""
    torch.manual_seed(0)
    found = []
    for steps, m in ((4, 2), (4, 2)):
        model = tuple_net(layers=6, dropout=0.1)
        options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"]}
        recompute = bool(found)
        with Pipeline(model, build_schedule("pipedream", 3, m, recompute=recompute), **options) as pipeline:
            for x, y in batches(steps, 6):
                pipeline.step(x, y)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-13)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_bytes_of_weights_are_those_of_the_versions(launch):
    model, (x, y) = mlp(layers=8, width=16), batches(1, 16)[0]
    flushed = Pipeline(copy.deepcopy(model), build_schedule("1f1b", 4, 8), loss=mse, device="cpu").step(x, y)
    one = [held.model_states.weights for held in flushed.memory]
    for rule in RULES:
        options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], "launch": launch, "device": "cpu"}
        with Pipeline(copy.deepcopy(model), build_schedule(rule, 4, 8), **options) as pipeline:
            reports = [pipeline.step(x, y) for _ in range(3)]
        assert reports[-1].weight_versions == PEAKS[rule](4)
        held = [found.model_states.weights for found in reports[-1].memory]
        assert held == [versions * weights for versions, weights in zip(PEAKS[rule](4), one, strict=True)]
        # Activations are 1F1B's, whatever the weights: versions do not count among them.
        assert reports[-1].peak_activation_bytes == flushed.peak_activation_bytes


@pytest.mark.parametrize("rule", RULES)
def test_a_stage_has_one_gradient_at_a_time_and_the_report_counts_it(rule):
    """That of the last update lived on while the next ones came, and those in versions were not counted."""
    model, given, live = mlp(), batches(4, 8), {}
    with Pipeline(model, build_schedule(rule, 3, 4), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        pipeline.step(*given[0])
        flight = pipeline._engine._stepper.flight
        for (_, s), runner in flight.runners.items():

            def note(_, s=s, versions=runner.versions):
                here = sum(p.grad.nbytes for p in versions.parameters if p.grad is not None)
                live[s] = max(here + versions.gradient_bytes, live.get(s, 0))

            for p in runner.module.parameters():
                p.register_post_accumulate_grad_hook(note)
        report = [pipeline.step(x, y) for x, y in given[1:]][-1]
        one = {s: runner.versions.bytes for (_, s), runner in flight.runners.items()}
    assert live == one
    assert [held.model_states.gradients for held in report.memory] == [one[s] for s in range(3)]


def test_sparse_gradients_that_wait_for_the_rest_of_their_batch_are_counted():
    model = nn.Sequential(nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Flatten()), nn.Linear(8, 3))
    x, y = torch.randint(0, 10, (8, 2)), torch.randn(8, 3)
    with Pipeline(model, build_schedule("2bw", 2, 4), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        assert [held.model_states.gradients for held in pipeline.step(x, y).memory] == [160, 108]


@pytest.mark.parametrize("rule", RULES)
def test_a_drain_keeps_no_version_for_forwards_that_will_not_come(rule, monkeypatch):
    kept, update = {}, Versions.update

    def watched(versions, in_use, *more):
        update(versions, in_use, *more)
        kept[id(versions)] = set(versions._leaves)

    monkeypatch.setattr(Versions, "update", watched)
    with Pipeline(mlp(), build_schedule(rule, 4, 4), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        for x, y in batches(4, 8):
            pipeline.step(x, y)
        pipeline.drain()
        runners = pipeline._engine._stepper.flight.runners
    found = [kept[id(runners[s, s].versions)] for s in range(3)]  # the last stage has nothing to drain
    assert found == [{4 if rule == "2bw" else 16}] * 3


def test_what_a_device_is_told_of_its_table_is_worked_out_once(monkeypatch):
    with Pipeline(mlp(), build_schedule("pipedream", 3, 4), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        for x, y in batches(3, 8):
            pipeline.step(x, y)
        monkeypatch.setattr("pipelab.runtime.steps.flight.ages", None)
        pipeline.step(*batches(1, 8)[0])
        monkeypatch.undo()


def test_a_memory_limit_counts_the_versions_before_anything_starts():
    model, (x, y) = mlp(layers=8, width=16), batches(1, 16)[0]
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"]}
    with Pipeline(copy.deepcopy(model), build_schedule("pipedream", 4, 8), **options) as pipeline:
        needed = max(held.total for held in pipeline.step(x, y).memory)
        assert pipeline._engine._stepper.flight.most_versions == pipeline.step(x, y).weight_versions
    with Pipeline(copy.deepcopy(model), build_schedule("pipedream", 4, 8), memory_limit=needed, **options) as pipeline:
        assert pipeline.step(x, y).loss > 0
    one = sum(p.nbytes for p in model[:2].parameters())
    options["memory_limit"] = 3 * one
    with (
        Pipeline(copy.deepcopy(model), build_schedule("pipedream", 4, 8), **options) as pipeline,
        pytest.raises(ConfigurationError, match=r"memory_limit allows .* on device 0, which holds"),
    ):
        pipeline.step(x, y)


def test_evaluation_in_between_sees_the_newest_weights():
    model, given = mlp(), batches(3, 8)
    with Pipeline(model, build_schedule("pipedream", 3, 4), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        for x, y in given:
            pipeline.step(x, y)
            with torch.no_grad():
                assert pipeline.evaluate(x, y).loss == pytest.approx(float(mse(model(x), y)), rel=1e-12)
    assert all(type(p) is nn.Parameter for p in model.parameters())


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_checkpoint_is_taken_at_a_drain(launch, tmp_path):
    given = batches(6, 8)
    options = {"loss": mse, "optimizer": OPTIMIZERS["adam"], "launch": launch, "device": "cpu"}
    whole, again = mlp(), mlp(seed=1)
    with Pipeline(whole, build_schedule("pipedream", 2, 4), **options) as pipeline:
        for k, (x, y) in enumerate(given):
            pipeline.step(x, y)
            if k == 2:
                with pytest.raises(
                    PipelabError, match=r"saving is not possible while micro-batches are under way \(1\).*dr"
                ):
                    pipeline.save(tmp_path)
                pipeline.drain()
                pipeline.save(tmp_path)
    with Pipeline(again, build_schedule("pipedream", 2, 4), **options) as pipeline:
        pipeline.load(tmp_path)
        for x, y in given[3:]:
            pipeline.step(x, y)
        with pytest.raises(PipelabError, match="loading is not possible"):
            pipeline.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_drain_has_the_number_of_the_step_that_it_finishes():
    with Pipeline(mlp(), build_schedule("2bw", 2, 2), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        (x, y), *_ = batches(1, 4)
        told = [pipeline.step(x, y), pipeline.step(x, y), pipeline.drain(), pipeline.step(x, y)]
    assert [report.step for report in told] == [0, 1, 1, 2]


# ---- what fails ------------------------------------------------------------------------------------------------------


class Sometimes(nn.Module):
    """Does ``work`` before its forward, once there is some."""

    def __init__(self):
        super().__init__()
        self.work = None

    def forward(self, x):
        if self.work is not None:
            self.work()
        return x


def fails():
    raise ValueError("now and then")


def test_after_an_error_the_pipeline_is_empty_and_goes_on():
    stage = Sometimes()
    model, given = nn.Sequential(*mlp(), stage).double(), batches(4, 8)
    with Pipeline(model, build_schedule("pipedream", 3, 4), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        pipeline.step(*given[0])
        stage.work = fails
        with pytest.raises(StageError, match="now and then"):
            pipeline.evaluate(*given[1])
        assert pipeline.under_way == 2, "an evaluation takes nothing with it"
        with pytest.raises(StageError, match="now and then"):
            pipeline.step(*given[1])
        assert pipeline.under_way == 0
        stage.work = None
        start = copy.deepcopy(model)
        for x, y in given[2:]:
            pipeline.step(x, y)
    assert apart(model, reference(start, "pipedream", 3, 4, "sgd", given[2:])[-1]) <= 1e-12


@pytest.mark.parametrize("clock", ["device", "wall"])
@pytest.mark.parametrize("seconds", [0.5, 1.2])
def test_after_its_time_limit_a_step_leaves_nothing_behind(clock, seconds, tmp_path):
    """Whether or not its thread ends in the half second that it then has."""
    stage = Sometimes()
    model, given = nn.Sequential(*mlp(), stage).double(), batches(4, 8)
    parameters = list(model.parameters())
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], "clock": clock}
    with Pipeline(model, build_schedule("pipedream", 3, 4), **options) as pipeline:
        pipeline.step(*given[0])
        pipeline._engine.peers.limit, slow = TimeLimit(0.2), pipeline._engine.peers.limit
        stage.work = partial(time.sleep, seconds)
        with pytest.raises(TimeLimitError, match="Stages may differ in how many updates"):
            pipeline.step(*given[1])
        stage.work, pipeline._engine.peers.limit = None, slow
        assert pipeline.under_way == 0 and pipeline.drain() is None
        assert all(map(operator.is_, model.parameters(), parameters))
        for thread in pipeline._engine._replicas.busy:
            thread.join()
        start = copy.deepcopy(model)
        for x, y in given[2:]:
            pipeline.step(x, y)
        pipeline.drain()
        assert apart(model, reference(start, "pipedream", 3, 4, "sgd", given[2:])[-1]) <= 1e-12
        with pytest.raises(PipelabError, match=r"saving is not possible after a step that has failed.*load\(folder\)"):
            pipeline.save(tmp_path)
        pipeline.load_state_dict(pipeline.state_dict())
        pipeline.save(tmp_path)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_stage_that_fails_when_others_are_through_leaves_nothing_on_them(launch, tmp_path):
    """Other ranks thought that micro-batches were under way, and the next step was wrong, or stuck."""

    class Late(torch.optim.SGD):
        updates, first = 0, False

        def step(self, closure=None):
            self.updates += 1
            if self.first and self.updates == 2:
                time.sleep(0.5)
                raise ValueError("late")
            return super().step(closure)

    def optimizer(named):
        made = Late([p for _, p in named], lr=0.05)
        made.first = named[0][0].startswith("0.")
        return made

    model, given = mlp(), batches(4, 8)
    initial = copy.deepcopy(model.state_dict())
    options = {"loss": mse, "optimizer": optimizer, "launch": launch, "device": "cpu"}
    with Pipeline(model, build_schedule("pipedream", 3, 4), **options) as pipeline:
        pipeline.save(tmp_path)
        with pytest.raises(StageError, match=r"(?s)late.*Stages may differ in how many updates"):
            pipeline.step(*given[0])
        assert pipeline.under_way == 0 and pipeline.drain() is None
        start = copy.deepcopy(model)
        for x, y in given[1:]:
            pipeline.step(x, y)
        assert pipeline.under_way == 2
        pipeline.drain()
        assert apart(model, reference(start, "pipedream", 3, 4, "sgd", given[1:])[-1]) <= 1e-12
        with pytest.raises(PipelabError, match="saving is not possible after a step that has failed"):
            pipeline.save(tmp_path)
        pipeline.load(tmp_path)
        pipeline.save(tmp_path)
    assert apart(model, initial) == 0


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_step_that_is_refused_leaves_what_is_under_way(launch, tmp_path):
    """The caller of processes thought that nothing was, and saved weights of different updates."""
    torch.manual_seed(0)
    x, y = torch.randn(8, 5).double(), torch.randint(3, (8,))
    options = {"loss": nn.CrossEntropyLoss(), "optimizer": OPTIMIZERS["sgd"], "launch": launch, "device": "cpu"}
    with Pipeline(mlp(), build_schedule("pipedream", 3, 4), **options) as pipeline:
        pipeline.step(x, y)
        with pytest.raises(ConfigurationError, match="target") as refused:
            pipeline.step(x, torch.full_like(y, -100))
        assert not getattr(refused.value, "__notes__", None)
        assert pipeline.under_way == 2
        with pytest.raises(PipelabError, match=r"micro-batches are under way \(2\)"):
            pipeline.save(tmp_path)
        with pytest.raises(PipelabError, match=r"micro-batches are under way \(2\)"):
            pipeline.load_state_dict(pipeline.state_dict())
        assert pipeline.drain().weight_versions
        pipeline.save(tmp_path)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_block_that_ends_by_an_exception_trains_on_nothing(launch):
    model = mlp()
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], "launch": launch, "device": "cpu"}
    with pytest.raises(KeyError), Pipeline(model, build_schedule("pipedream", 3, 4), **options) as pipeline:
        pipeline.step(*batches(1, 8)[0])
        weights = copy.deepcopy(model.state_dict())
        raise KeyError
    assert apart(model, weights) == 0
    assert pipeline.under_way == 0
    pipeline.close()
    assert apart(model, weights) == 0


class Replacing(torch.optim.SGD):
    """SGD whose result lies in new memory."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad


@pytest.mark.parametrize("rule", ["pipedream", "vertical-sync", "2bw"])
def test_an_optimizer_that_replaces_the_memory_trains_alike(rule):
    """Story: the next version's forwards went on with the memory from before: every version was one update older."""
    found = []
    for kind in (torch.optim.SGD, Replacing):
        model = mlp()
        options = {"loss": mse, "optimizer": lambda named, kind=kind: kind([p for _, p in named], lr=0.1)}
        with Pipeline(model, build_schedule(rule, 3, 3), **options) as pipeline:
            peaks = [pipeline.step(x, y).peak_activation_bytes for x, y in batches(4, 9)]
        found.append((model.state_dict(), peaks))
    (plain, held), (replaced, other) = found
    assert all(torch.allclose(plain[name], replaced[name], rtol=1e-13, atol=0) for name in plain)
    assert held == other


# ---- what goes wrong without a stash ---------------------------------------------------------------------------------


class ThroughData(torch.optim.Optimizer):
    """SGD as older code writes it: autograd does not notice."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= 0.05 * p.grad


def test_without_a_stash_autograd_refuses_the_backward():
    schedule, (x, y) = build_schedule("pipedream", 3, 4), batches(1, 8)[0]
    with (
        Pipeline(mlp(), schedule, loss=mse, optimizer=OPTIMIZERS["sgd"], stash=False) as pipeline,
        pytest.raises(StageError, match="modified by an inplace operation"),
    ):
        pipeline.step(x, y)


def test_without_a_stash_an_update_through_data_gives_a_wrong_gradient_in_silence():
    def optimizer(named):
        return ThroughData([p for _, p in named])

    given, found = batches(4, 8), {}
    for stash in (True, False):
        model = mlp()
        with Pipeline(model, build_schedule("pipedream", 3, 4), loss=mse, optimizer=optimizer, stash=stash) as pipeline:
            for x, y in given:
                pipeline.step(x, y)
        found[stash] = apart(model, reference(mlp(), "pipedream", 3, 4, "sgd", given)[-1])
    assert found[True] <= 1e-12
    assert found[False] > 1e-6


# ---- what cannot work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        (
            {"optimizer": None},
            ConfigurationError,
            "updates weights while micro-batches are on their way: give optimizer",
        ),
        ({"clip_norm": 1.0}, ConfigurationError, "no moment has the gradients of all stages.*'1f1b', which flushes"),
        (
            {"lr_scheduler": torch.optim.lr_scheduler.ReduceLROnPlateau},
            ConfigurationError,
            "updates weights before it is known; take a scheduler that counts updates, such as StepLR, or '1f1b'",
        ),
        ({"grad_scaler": torch.amp.GradScaler("cpu")}, ConfigurationError, "cannot skip an update together"),
        (
            {"model": nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))},
            ConfigurationError,
            "statistics",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:stage")
def test_what_cannot_work_is_refused(changed, error, says):
    model = changed.pop("model", mlp())
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], **changed}
    with pytest.raises(error, match=says):
        Pipeline(model, build_schedule("pipedream", 2, 4), **options)


def test_rows_that_the_next_step_would_not_go_on_with_are_refused():
    """The engine makes the later steps from the rule: it would run them in place of the rows it was given."""
    schedule = build_schedule("pipedream", 2, 2)
    rows = [["0F0", "0B0", "0U0", "0F1", "0B1", "0U1"], ["1F0", "1B0", "1U0", "1F1", "1B1", "1U1"]]
    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"]}
    with pytest.raises(ScheduleError, match=r"has other rows than the endless table .* leave updating out"):
        Pipeline(mlp(), Schedule.from_rows(rows, updating=schedule.updating), **options)
    with Pipeline(mlp(), Schedule.from_rows(rows), **options) as pipeline:
        assert pipeline.step(*batches(1, 4)[0]).weight_versions == (1, 1)


def test_tied_parameters_are_refused():
    model = mlp(width=5)
    model[4][0].weight = model[2][0].weight
    with pytest.raises(ConfigurationError, match="updates the two at different times"):
        Pipeline(model, build_schedule("2bw", 4, 4), loss=mse, optimizer=OPTIMIZERS["sgd"])


def test_two_buffers_need_enough_micro_batches():
    with pytest.raises(ConfigurationError, match=r"2BW needs m >= p: with m = 3 on p = 4 devices.*try m = 4"):
        build_schedule("2bw", 4, 3)


def test_there_is_no_one_gradient_to_verify():
    with (
        Pipeline(mlp(), build_schedule("2bw", 2, 2), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline,
        pytest.raises(ScheduleError, match="no one gradient of the batch"),
    ):
        pipeline.verify(*batches(1, 4)[0])


def test_costs_are_measured_with_a_schedule_that_flushes():
    with (
        Pipeline(mlp(), build_schedule("pipedream", 3, 1), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline,
        pytest.raises(ConfigurationError, match=r"'pipedream' has 1 and updates .*'1f1b', devices=3, microbatches=1"),
    ):
        pipeline.measure_microbatch(*batches(1, 4)[0], updates=True)


def test_an_optimizer_that_steps_memory_of_its_own_is_found_out():
    class Remembers(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})
            self.memory = [p.data for group in self.param_groups for p in group["params"]]

        def step(self, closure=None):
            for memory in self.memory:
                memory += 1

    options = {"loss": mse, "optimizer": lambda named: Remembers([p for _, p in named])}
    with (
        Pipeline(mlp(), build_schedule("pipedream", 3, 4), **options) as pipeline,
        pytest.raises(PipelabError, match="Remembers has changed a version of the weights that is still in use"),
    ):
        pipeline.step(*batches(1, 8)[0])


def test_a_table_of_ones_own_is_run_to_its_end_in_each_step():
    """Updates wherever they are written; without a rule a forward uses the weights that are there."""
    text = "0F0,0F1,0B0,0U0,0B1,0U1\n1F0,1B0,1U0,1F1,1B1,1U1\n"
    model, given = mlp(), batches(3, 6)
    start = copy.deepcopy(model)
    with Pipeline(model, Schedule.from_csv(text), loss=mse, optimizer=OPTIMIZERS["sgd"]) as pipeline:
        for x, y in given:
            assert pipeline.step(x, y).weight_versions == (2, 1)
            assert pipeline.under_way == 0

    def version(s, i):
        return i - i % 2 if s == 0 else i

    made = (names(start, 2), OPTIMIZERS["sgd"], mse, pieces(given, 2), version)
    assert apart(model, delayed_training(start, *made)[-1]) <= 1e-12


def test_a_scheduler_acts_at_each_update_of_its_stage():
    rates = {}

    def scheduler(optimizer):
        made = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        rates[len(rates)] = made
        return made

    options = {"loss": mse, "optimizer": OPTIMIZERS["sgd"], "lr_scheduler": scheduler}
    with Pipeline(mlp(), build_schedule("pipedream", 2, 4), **options) as pipeline:
        pipeline.step(*batches(1, 8)[0])
        assert [made.get_last_lr()[0] for made in rates.values()] == [0.05 * 0.5**3, 0.05 * 0.5**4]
