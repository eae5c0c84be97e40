"""With post_validation devices step early, and what comes of it is what comes without, bit for bit."""

import copy
import threading
import time

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Pipeline, StageError, TimeLimitError, build_schedule
from tests.runtime.setup import test_ties as ties
from tests.runtime.small import data, mlp, mse
from tests.runtime.test_pipeline import TWO_WAY

ZB_H1 = build_schedule("zb-h1", 4, 4)


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9, weight_decay=0.01)


def nesterov(named):
    """Where it steps several tensors at once, it adds into their gradients."""
    return torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9, nesterov=True, foreach=True)


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.01, weight_decay=0.01)


def adamw(named):
    return torch.optim.AdamW([p for _, p in named], lr=0.01)


def scaler():
    return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)


def spike(model, gradient):
    """The gradient of the first parameter is ``gradient`` times as large from now on; returns what ends it."""
    return next(model.parameters()).register_hook(lambda g: g * gradient)


def trained(schedule, *, steps=4, spikes=None, model=mlp, batch=data, loss=mse, **told):
    """All that comes of training, in which every second gradient is larger: weights, states, gradients; and reports."""
    made, reports, told = model(), [], copy.deepcopy(told)
    with Pipeline(made, schedule, loss=loss, **told) as pipeline:
        for step in range(steps):
            x, y = batch()
            hook = spike(made, spikes[step]) if spikes and step in spikes else None
            reports.append(pipeline.step(x, y * (3 if step % 2 and y.is_floating_point() else 1)))
            if hook is not None:
                hook.remove()
        weights = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
        gradients = {name: tensor.clone() for name, tensor in pipeline.gradients().items()}
        return (weights, pipeline.optimizer_state(), gradients), reports


def same(one, other):
    """Bit for bit; nan is nan."""
    if isinstance(one, torch.Tensor):
        return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def both(schedule, launch="threads", **told):
    """The reports with post_validation, once what came of it is found to be what comes without."""
    true, plain = trained(schedule, launch=launch, **told)
    found, reports = trained(schedule, launch=launch, post_validation=True, **told)
    assert same(found, true)
    for mine, its in zip(reports, plain, strict=True):
        assert (mine.loss, repr(mine.gradient_norm), mine.skipped) == (its.loss, repr(its.gradient_norm), its.skipped)
        assert its.stepped_early == ()
        assert not its.rolled_back
    return reports


@pytest.mark.parametrize("launch", ["threads", "processes"])
@pytest.mark.parametrize(
    ("name", "optimizer"), [("1f1b", sgd), ("zb-h1", adam), ("zb-v", adamw), ("interleaved", nesterov)]
)
def test_it_is_the_ordinary_update_bit_for_bit_clipped_and_not(name, optimizer, launch):
    schedule = build_schedule(name, 4, 4)
    falling = {"lr_scheduler": lambda made: torch.optim.lr_scheduler.StepLR(made, 1, 0.9)}
    reports = both(schedule, launch, optimizer=optimizer, clip_norm=0.3, **falling)
    assert [report.rolled_back for report in reports] == [False, True, False, True]
    assert reports[0].stepped_early == tuple(range(schedule.stages))
    assert 0 < len(reports[1].stepped_early) < schedule.stages, "who sees more than the limit by itself does not step"


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_tied_parameter_is_stepped_when_its_gradients_are_together(launch):
    reports = both(
        ties.SCHEDULES["1f1b"], launch, optimizer=adam, clip_norm=0.85, model=ties.LM, batch=ties.batch, loss=ties.loss
    )
    assert [report.rolled_back for report in reports] == [True, True, False, False]
    for report in reports:
        assert report.stepped_early == (1, 2, 3), "stage 0 has the embedding that is also the head"


def test_stages_on_two_devices_wait_for_each_other():
    for report in both(TWO_WAY, optimizer=adam, clip_norm=0.5):
        assert (report.stepped_early, report.rolled_back) == ((), False)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_step_that_the_scaler_skips_is_undone(clip):
    """Only stage 0 sees the infinite gradient: the others have stepped by then."""
    spikes = {0: float("inf"), 2: float("inf")}
    reports = both(ZB_H1, optimizer=adam, clip_norm=clip, grad_scaler=scaler(), steps=3, spikes=spikes)
    assert [report.skipped for report in reports] == [True, False, True]
    assert reports[0].rolled_back and reports[2].rolled_back
    assert reports[0].stepped_early == reports[2].stepped_early == (1, 2, 3)
    assert all(seconds > 0 for seconds in reports[0].update_seconds[1:])


def test_a_norm_that_is_not_finite_without_a_scaler_goes_on_as_it_would_have():
    (report,) = both(ZB_H1, optimizer=sgd, clip_norm=0.5, steps=1, spikes={0: float("nan")})
    assert report.rolled_back


def test_at_the_limit_itself_the_two_agree_on_who_clips():
    norm = trained(ZB_H1, steps=1, optimizer=sgd, clip_norm=1.0)[1][0].gradient_norm
    rolled = []
    for more in (-1e-9, 0.0, 0.5e-6, 1e-6, 2e-6):
        (report,) = both(ZB_H1, optimizer=sgd, clip_norm=norm + more, steps=1)
        rolled.append(report.rolled_back)
    assert rolled[:3] == [True] * 3, "clip_grad_norm_ adds 1e-6 to the norm"
    assert rolled[-1] is False


# ---- when --------------------------------------------------------------------------------------------------------


class Noting(torch.optim.SGD):
    """Notes down when it steps."""

    def __init__(self, named, notes):
        super().__init__([p for _, p in named], lr=0.1, momentum=0.9)
        self.name, self.notes = named[0][0], lambda: notes

    def step(self):
        self.notes().append(self.name)
        super().step()


def noted(**told):
    """In which order stages are stepped and the last gradients of stage 0 come in."""
    model, notes = mlp(4), []
    next(model.parameters()).register_hook(lambda _: notes.append("B0"))
    told |= {"optimizer": lambda named: Noting(named, notes), "clip_norm": 9.0}
    report = Pipeline(model, build_schedule("1f1b", 4, 4), loss=mse, **told).step(*data())
    return notes, report


def test_a_device_steps_while_others_are_still_at_work():
    notes, _ = noted(post_validation=True)
    assert notes.index("3.0.weight") < max(k for k, note in enumerate(notes) if note == "B0")
    notes, _ = noted()
    assert notes[:4] == ["B0"] * 4


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_the_timeline_shows_an_update_at_the_end_of_its_own_device(clock):
    _, report = noted(post_validation=True, clock=clock)
    timeline = report.timeline
    assert [span.device for span in timeline.updates] == [0, 1, 2, 3]
    for span, seconds in zip(timeline.updates, report.update_seconds, strict=True):
        assert span.start == timeline.on_device(span.device)[-1].end
        assert span.duration == pytest.approx(seconds)
    assert timeline.updates[3].start < timeline.updates[0].start
    _, report = noted(clock=clock)
    assert {span.start for span in report.timeline.updates} == {report.timeline.end}


def test_what_is_made_anew_stands_at_the_flush_too():
    _, reports = trained(ZB_H1, optimizer=sgd, clip_norm=0.5, post_validation=True, steps=2)
    timeline, early = reports[1].timeline, reports[1].stepped_early
    first, again = timeline.updates[: len(early)], timeline.updates[len(early) :]
    assert tuple(action.stage for span in first for action in span.slot) == early
    assert [action.stage for span in again for action in span.slot] == [0, 1, 2, 3]
    assert {span.start for span in again} == {max(timeline.end, *(span.end for span in first))}
    assert all(a.position < b.position for a in first for b in again if a.device == b.device)


# ---- what goes wrong ---------------------------------------------------------------------------------------------


class Failing(nn.Module):
    """Its backward fails from the ``nth`` on."""

    def __init__(self, nth):
        super().__init__()
        self.nth, self.calls = nth, 0

    def forward(self, x):
        x = x * 1
        x.register_hook(self._count)
        return x

    def _count(self, gradient):
        self.calls += 1
        if self.calls >= self.nth:
            raise ValueError("too many")
        return gradient


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_an_error_elsewhere_undoes_what_was_stepped(launch):
    """All but device 0 have stepped when its last backward fails."""
    layers = list(mlp(4))
    model = nn.Sequential(nn.Sequential(layers[0], Failing(8)), *layers[1:])
    told = {"optimizer": adam, "clip_norm": 9.0, "post_validation": True, "launch": launch}
    with Pipeline(model, build_schedule("1f1b", 4, 4), loss=mse, **told) as pipeline:
        pipeline.step(*data())
        weights = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
        state = copy.deepcopy(pipeline.optimizer_state())
        with pytest.raises(StageError, match="too many"):
            pipeline.step(*data(seed=2))
        assert same(pipeline.state_dict(), weights)
        assert same(pipeline.optimizer_state(), state)


class Broken(torch.optim.SGD):
    def step(self):
        if len(self.param_groups[0]["params"]) == 2 and self.param_groups[0]["params"][0].shape[0] == 3:
            raise ValueError("the optimizer's own words")
        super().step()


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_an_error_in_an_early_update_names_its_stage_and_changes_nothing(clock):
    model = mlp(4)
    before = [p.detach().clone() for p in model.parameters()]
    pipeline = Pipeline(
        model,
        build_schedule("1f1b", 4, 4),
        loss=mse,
        optimizer=lambda named: Broken([p for _, p in named], lr=0.1),
        clip_norm=9.0,
        post_validation=True,
        clock=clock,
    )
    with pytest.raises(StageError, match="device 3, stage 3, in its update: the optimizer's own words"):
        pipeline.step(*data())
    assert all(map(torch.equal, model.parameters(), before))


class Slow(torch.optim.SGD):
    def step(self):
        time.sleep(2.5)


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_an_early_update_that_ends_after_its_step_was_given_up_changes_nothing(clock):
    """It has stepped one stage of its device before it is stuck, and would step another."""
    go, stuck = threading.Event(), [False]

    class Stuck(torch.optim.Adam):
        def step(self):
            super().step()
            if stuck[0] and self.param_groups[0]["params"][0].shape[0] == 3:
                go.wait(60)
                super().step()

    model = mlp(4)
    told = {"optimizer": lambda named: Stuck([p for _, p in named], lr=0.1), "clip_norm": 9.0, "clock": clock}
    schedule = build_schedule("interleaved", 2, 2)
    made = Pipeline(model, schedule, loss=mse, post_validation=True, time_limit=1.0, **told)
    made.step(*data())
    before = copy.deepcopy((made.state_dict(), made.optimizer_state()))
    stuck[0] = True
    with pytest.raises(TimeLimitError, match="device 1 is still in the update"):
        made.step(*data())
    go.set()
    for thread in made._engine._replicas.busy:
        thread.join(10)
    assert same((made.state_dict(), made.optimizer_state()), before)
    stuck[0] = False
    assert made.step(*data()).stepped_early == (0, 1, 2, 3)


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_an_early_update_that_does_not_end_is_named(clock):
    pipeline = Pipeline(
        mlp(2),
        build_schedule("1f1b", 2, 2),
        loss=mse,
        optimizer=lambda named: Slow([p for _, p in named], lr=0.1),
        clip_norm=9.0,
        post_validation=True,
        clock=clock,
        time_limit=1.0,
    )
    with pytest.raises(TimeLimitError, match="device 1 is still in the update") as caught:
        pipeline.step(*data())
    assert "waiting" not in str(caught.value)


# ---- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told", "message"),
    [
        ("1f1b", {"optimizer": sgd}, "post_validation has nothing to validate.*give one of them"),
        ("1f1b", {"clip_norm": 1.0}, "post_validation needs an optimizer"),
        ("pipedream", {"optimizer": sgd, "clip_norm": 1.0}, "updates weights while.*at a flush.*'1f1b', which flushes"),
    ],
)
def test_what_cannot_work_is_refused(name, told, message):
    with pytest.raises(ConfigurationError, match=message):
        Pipeline(mlp(), build_schedule(name, 4, 4), loss=mse, post_validation=True, **told)


def test_a_limit_that_leaves_no_room_for_the_copy_is_refused():
    told = {"loss": mse, "optimizer": adam, "clip_norm": 9.0, "memory_limit": "120kB"}
    Pipeline(mlp(width=40), ZB_H1, **told).step(*data(batch=4))
    pipeline = Pipeline(mlp(width=40), ZB_H1, **told, post_validation=True)
    with pytest.raises(ConfigurationError, match=r"memory_limit allows 1.* and post_validation keeps a copy of "):
        pipeline.step(*data(batch=4))


def test_a_limit_counts_the_copy_only_where_there_is_one():
    """Device 0 is the home of a tied weight: it steps at the flush, and copies nothing."""
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4)))
    model[3].weight = model[0].weight
    told = {"loss": nn.MSELoss(), "optimizer": sgd, "clip_norm": 10.0, "memory_limit": [70_000, 1e7, 1e7, 1e7]}
    pipeline = Pipeline(model, build_schedule("1f1b", 4, 4), **told, post_validation=True)
    report = pipeline.step(torch.randn(4, 64), torch.randn(4, 64))
    assert 0 not in report.stepped_early


def test_a_limit_counts_the_copies_of_a_devices_early_stages_alone():
    """Device 0 has stage 0, the home of a tied weight, which steps at the flush, and stage 2, which is copied."""
    model = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4)))
    model[3].weight = model[0].weight
    weight, copied = 64 * 64 * 4, 3  # the weight, its gradient, its momentum
    for room, fits in ((-0.5, False), (0.5, True)):
        limit = (2 * 3 + copied + room) * weight
        told = {"loss": nn.MSELoss(), "optimizer": sgd, "clip_norm": 10.0, "memory_limit": [limit, 1e7]}
        pipeline = Pipeline(model, build_schedule("interleaved", 2, 2), **told, post_validation=True)
        if fits:
            assert 2 in pipeline.step(torch.randn(4, 64), torch.randn(4, 64)).stepped_early
        else:
            with pytest.raises(ConfigurationError, match="post_validation keeps a copy of"):
                pipeline.step(torch.randn(4, 64), torch.randn(4, 64))


def test_steps_that_change_nothing_stay_so():
    pipeline = Pipeline(mlp(), ZB_H1, loss=mse, optimizer=sgd, clip_norm=1.0, post_validation=True)
    before = [p.clone() for _, p in pipeline.named_parameters()]
    assert pipeline.verify(*data()) < 1e-12
    pipeline.profile(*data(), repeats=1)
    pipeline.evaluate(*data())
    assert all(torch.equal(p, q) for (_, p), q in zip(pipeline.named_parameters(), before, strict=True))
