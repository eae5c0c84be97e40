from __future__ import annotations

import threading
import traceback
import weakref

import pytest
import torch
from torch import nn

from pipelab import (
    Action,
    ConfigurationError,
    Costs,
    Link,
    Links,
    Pipeline,
    Schedule,
    ScheduleError,
    StageError,
    build_schedule,
    check_schedule,
)
from pipelab.models import KeyedDropout, TransformerLM, dropout_key, next_byte_loss, text_batch
from pipelab.runtime import gradient_error, unsplit_gradients
from tests.runtime.small import check_step, data, mlp, mse, tuple_net


def one_f_one_b(p=4, m=4):
    return build_schedule("1f1b", devices=p, microbatches=m)


def no_worker_is_left():
    return not [thread for thread in threading.enumerate() if thread.name.startswith("pipelab")]


# ---- the loss ---------------------------------------------------------------------------------------------------


def test_a_summed_loss_counts_every_micro_batch_whole():
    check_step(mlp(), one_f_one_b(m=12), loss=nn.MSELoss(reduction="sum"))


def test_targets_that_the_loss_ignores_do_not_weigh():
    """Mean over 64 sequences of which some are ignored: each micro-batch weighs by the terms it has left."""
    model = mlp()
    x, _ = data()
    targets = torch.randint(3, (64,), generator=torch.Generator().manual_seed(0))
    targets[:11] = -100
    check_step(model, one_f_one_b(m=8), loss=nn.CrossEntropyLoss(), inputs=x, targets=targets)


def test_the_loss_may_weigh_terms_in_its_own_way():
    x, y = data()
    weights = torch.arange(1.0, 65.0, dtype=torch.float64)

    def weighted(output, targets):
        value, weight = targets
        return (weight[:, None] * (output - value) ** 2).sum() / weight.sum()

    check_step(
        mlp(), one_f_one_b(m=5), loss=weighted, inputs=x, targets=(y, weights), loss_terms=lambda t: float(t[1].sum())
    )


def test_a_batch_without_loss_terms_is_refused():
    pipeline = Pipeline(mlp(), one_f_one_b(), loss=nn.CrossEntropyLoss())
    with pytest.raises(ConfigurationError, match="no loss terms"):
        pipeline.step(data()[0], torch.full((64,), -100))


# ---- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b", "interleaved"])
def test_training_equals_the_unsplit_models_step_for_step(name):
    """AdamW, a learning-rate schedule and clipping by the norm over all stages, dropout on."""
    split, whole = tuple_net(dropout=0.2), tuple_net(dropout=0.2)
    pipeline = Pipeline(
        split,
        build_schedule(name, devices=4, microbatches=4),
        loss=mse,
        optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=0.05),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5),
        clip_norm=0.1,
        seed=7,
    )
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.5)
    for step in range(6):
        x, y = data(seed=step)
        report = pipeline.step(x, y)
        optimizer.zero_grad()
        with dropout_key(7, step):
            loss = mse(whole(x), y)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(whole.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        assert report.loss == pytest.approx(loss.item(), rel=1e-9)
        assert report.gradient_norm == pytest.approx(float(norm), rel=1e-9)
        assert report.step == step
        assert all(seconds > 0 for seconds in report.update_seconds)
    for a, b in zip(split.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_optimizers_get_the_unsplit_models_names():
    seen = []

    def make(named):
        seen.extend(name for name, _ in named)
        return torch.optim.SGD(named, lr=0.1)

    model = TransformerLM(layers=4, width=8, heads=2)
    Pipeline(model, build_schedule("interleaved", devices=2, microbatches=2), loss=next_byte_loss, optimizer=make)
    assert sorted(seen) == sorted(name for name, _ in model.named_parameters())


def test_without_an_optimizer_weights_stay_and_each_step_starts_from_no_gradient():
    model = mlp()
    before = [p.clone() for p in model.parameters()]
    pipeline = Pipeline(model, one_f_one_b(), loss=mse)
    x, y = data()
    pipeline.step(x, y)
    once = {name: grad.clone() for name, grad in pipeline.gradients().items()}
    pipeline.step(x, y)
    assert gradient_error(pipeline.gradients(), once) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_frozen_layers_stay_out_of_it():
    model = mlp()
    for parameter in model[:3].parameters():
        parameter.requires_grad_(False)
    pipeline, _ = check_step(model, one_f_one_b())
    assert len(pipeline.gradients()) == 2 * 5


def test_a_stage_without_parameters_needs_no_optimizer():
    model = nn.Sequential(nn.Linear(5, 3).double(), nn.Tanh(), nn.Tanh())
    pipeline = Pipeline(
        model, one_f_one_b(3, 3), loss=mse, optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=0.1)
    )
    first = pipeline.step(*data()).loss
    for _ in range(20):
        last = pipeline.step(*data()).loss
    assert last < first


# ---- what passes between stages -----------------------------------------------------------------------------------


class Widen(nn.Module):
    """Shapes differ between stages, and between micro-batches with their sequence length."""

    def __init__(self, width):
        super().__init__()
        self.lin = nn.Linear(width, width + 2)

    def forward(self, x):
        return torch.cat([self.lin(x), x.mean(-1, keepdim=True)], -1)


def test_shapes_may_differ_between_stages():
    torch.manual_seed(0)
    model = nn.Sequential(*(Widen(5 + 3 * k) for k in range(4)), nn.Linear(17, 3)).double()
    check_step(model, one_f_one_b(m=7))


class TwoArguments(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)

    def forward(self, x, mask):
        return self.lin(x) * mask, mask


class MakeMask(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(5, 6)

    def forward(self, x):
        return self.lin(x), (x[:, :1] > 0).to(x.dtype)


class Drop(nn.Module):
    def forward(self, x, mask):
        return x[:, :3] * 1.0


class Unpacking(nn.Module):
    """The oracle of layers that take several arguments."""

    def __init__(self, parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        for part in self.parts:
            x = part(*x) if isinstance(x, tuple) else part(x)
        return x

    def pipeline_sections(self):
        return (), tuple(f"parts.{k}" for k in range(len(self.parts))), ()


@pytest.mark.parametrize("recompute", [False, True])
def test_layers_may_take_several_arguments_some_of_which_take_no_gradient(recompute):
    torch.manual_seed(0)
    model = Unpacking([MakeMask(), TwoArguments(), TwoArguments(), Drop()]).double()
    check_step(model, build_schedule("1f1b", devices=4, microbatches=4, recompute=recompute))


def test_an_output_that_the_next_stage_does_not_use_gets_a_zero_gradient():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            return self.a(x), self.b(x)

    class UseOne(nn.Module):
        def forward(self, x):
            return x[0] * 2

    check_step(nn.Sequential(Pair(), UseOne()).double(), one_f_one_b(2, 4))


def test_inputs_and_targets_may_be_tuples():
    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 6)

        def forward(self, given):
            a, b = given
            return self.lin(a + b)

    torch.manual_seed(0)
    model = nn.Sequential(Add(), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = data()
    given = {"loss": lambda out, t: mse(out, t[0] + t[1]), "inputs": (x, x * 2), "targets": (y, y * 0.1)}
    check_step(model, one_f_one_b(3, 5), loss_terms=lambda targets: targets[0].numel(), **given)
    refused("targets are a tuple of 2 tensors.*pass loss_terms=", model=model, schedule=one_f_one_b(3, 5), **given)


def test_a_mask_among_the_targets_counts_what_it_lets_through():
    """Counting all elements instead weighed micro-batches as if none were masked: a silent other gradient."""

    def masked(out, given):
        y, mask = given
        return (((out - y) ** 2).mean(-1) * mask).sum() / mask.sum()

    x, y = data()
    mask = (torch.arange(len(x)) % 3 > 0).double()
    counted = {"loss_terms": lambda given: given[1].sum()}
    check_step(mlp(4), one_f_one_b(2, 5), loss=masked, inputs=x, targets=(y, mask), **counted)


def test_stages_come_from_build_stage_too():
    whole = mlp(4)
    built = []

    def build_stage(s):
        built.append(s)
        return whole[s]

    x, y = data()
    pipeline = Pipeline(build_stage, one_f_one_b(), loss=mse)
    reference = unsplit_gradients(whole, mse, x, y)
    pipeline.step(x, y)
    assert built == [0, 1, 2, 3]
    found = {name.removeprefix("stages."): grad for name, grad in pipeline.gradients().items()}
    assert gradient_error(found, reference.gradients) < 1e-12


# ---- batch normalisation, in-place, random numbers ----------------------------------------------------------------


def norm_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()


def test_recomputing_does_not_move_running_statistics_twice():
    """Story: checkpointing that simply runs the forward again updates batch-norm buffers twice."""
    plain, recomputed = norm_net(), norm_net()
    x, y = data()
    for model, recompute in ((plain, False), (recomputed, True)):
        pipeline = Pipeline(model, build_schedule("gpipe", devices=3, microbatches=4, recompute=recompute), loss=mse)
        pipeline.step(x, y)
        assert int(model[1].num_batches_tracked) == 4
    for (name, a), (_, b) in zip(plain.named_buffers(), recomputed.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(plain.parameters(), recomputed.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)


def test_recomputing_a_dropout_that_would_redraw_its_mask_is_refused():
    model = nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.1), nn.Linear(6, 3)).double()
    with pytest.raises(ConfigurationError, match="KeyedDropout"):
        Pipeline(model, build_schedule("gpipe", devices=3, microbatches=4, recompute=True), loss=mse)
    Pipeline(model, build_schedule("gpipe", devices=3, microbatches=4), loss=mse).step(*data())


def test_an_in_place_change_of_a_saved_tensor_is_caught_though_hooks_switch_off_autograds_check():
    class Spoil(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(5, 3)

        def forward(self, x):
            h = torch.exp(self.lin(x))
            result = h * 2
            h.add_(1)
            return result

    model = nn.Sequential(Spoil()).double()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        Pipeline(model, one_f_one_b(1, 2), loss=mse).step(*data())


def test_a_stage_may_change_its_own_activations_in_place():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3), nn.ReLU(inplace=True)).double()
    check_step(model, one_f_one_b(2, 4), cuts=[2])


# ---- the caller's settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True])
def test_workers_re_enter_the_callers_autocast(recompute):
    """Story: autocast caches weights cast without a graph in F; R must not use those."""
    seen = []

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = nn.Linear(6, 6)

        def forward(self, x):
            out = self.lin(x)
            if x.device.type == "cpu":  # not the probe
                seen.append(out.dtype)
            return out.float() + x

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), Look(), Look(), nn.Linear(6, 3))
    x, y = (t.float() for t in data())
    schedule = build_schedule("1f1b", devices=4, microbatches=4, recompute=recompute)
    pipeline = Pipeline(model, schedule, loss=lambda out, t: mse(out.float(), t))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        report = pipeline.step(x, y)
        loss = mse(model(x).float(), y)
    assert set(seen) == {torch.bfloat16}
    assert report.loss == pytest.approx(loss.item(), rel=1e-2)
    true = torch.autograd.grad(loss, list(model.parameters()))
    worst = max(float((p.grad - g).abs().max()) for p, g in zip(model.parameters(), true, strict=True))
    assert worst <= 0.05 * max(float(g.abs().max()) for g in true)


def test_a_step_builds_graphs_even_if_the_caller_does_not():
    with torch.no_grad():
        pipeline = Pipeline(mlp(), one_f_one_b(), loss=mse)
        pipeline.step(*data())
    assert all(float(g.abs().max()) > 0 for g in pipeline.gradients().values())


def test_the_number_of_intra_op_threads_is_restored_even_after_an_error():
    before = torch.get_num_threads()
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return x

    model = nn.Sequential(nn.Linear(5, 3).double(), Look())
    torch.set_num_threads(2)
    try:
        Pipeline(model, one_f_one_b(2, 2), loss=mse).step(*data())
        assert torch.get_num_threads() == 2
        assert 1 in seen
    finally:
        torch.set_num_threads(before)


# ---- evaluation ---------------------------------------------------------------------------------------------------


def test_evaluate_gives_the_unsplit_models_loss_and_outputs_and_leaves_no_trace():
    model = nn.Sequential(norm_net(), KeyedDropout(0.5, 0))
    model[0].eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pipeline = Pipeline(model, one_f_one_b(2, 5), loss=mse)
    x, y = data()
    report = pipeline.evaluate(x, y)
    assert [m.training for m in (model, model[0], model[1])] == [True, False, True]
    model.eval()
    torch.testing.assert_close(report.outputs, model(x), rtol=1e-12, atol=1e-12)
    assert report.loss == pytest.approx(mse(model(x), y).item(), rel=1e-12)
    assert not report.outputs.requires_grad
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert report.timeline.schedule.forward_only
    assert pipeline.step_number == 0


def test_evaluate_needs_neither_targets_nor_loss():
    model = mlp()
    x, _ = data()
    report = Pipeline(model, build_schedule("interleaved", devices=2, microbatches=4)).evaluate(x)
    assert report.loss is None
    torch.testing.assert_close(report.outputs, model(x), rtol=1e-12, atol=1e-12)


def test_a_forward_only_schedule_evaluates_and_refuses_to_train():
    pipeline = Pipeline(mlp(), one_f_one_b().forward_part(), loss=mse)
    x, y = data()
    assert pipeline.evaluate(x, y).loss == pytest.approx(mse(mlp()(x), y).item())
    with pytest.raises(ScheduleError, match="evaluate"):
        pipeline.step(x, y)


# ---- tables of the learner's own ----------------------------------------------------------------------------------


def test_a_split_backward_gives_the_same_gradient():
    """ZB-H1 at p = 2, m = 3 by hand; stage 0 leaves out I, as nobody waits for its input's gradient."""
    table = Schedule.from_csv("0F0,0F1,0W0,0F2,0W1,0W2\n1F0,1I0,1W0,1F1,1I1,1F2,1I2,1W1,1W2\n")
    assert check_schedule(table) == []
    check_step(tuple_net(4), table, outstanding=1)


def test_fused_slots_run_as_one():
    table = Schedule.from_csv("0F0,0F1,(0F2;0B0)OVERLAP_F_B,0B1,0B2\n1F0,1B0,(1F1;1B1),(1F2;1B2)\n")
    assert check_schedule(table) == []
    _, report = check_step(tuple_net(4), table)
    assert len(report.timeline.on_device(0)) == 5


TWO_WAY = Schedule.from_csv(
    # Micro-batches 0 and 1 go down the devices, 2 and 3 come up: each stage lives on both.
    "0F0,0F1,1F2,1F3,1B2,0B0,1B3,0B1\n0F2,0F3,1F0,1F1,1B0,0B2,1B1,0B3\n",
    name="two-way",
)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_stage_on_two_devices_gets_the_sum_of_both_gradients_and_is_stepped_alike(clip):
    assert TWO_WAY.placement == ((0, 1), (0, 1))
    assert check_schedule(TWO_WAY) == []
    check_step(tuple_net(4), TWO_WAY)
    split, whole = tuple_net(4), tuple_net(4)
    pipeline = Pipeline(
        split,
        TWO_WAY,
        loss=mse,
        clip_norm=clip,
        optimizer=lambda named: torch.optim.Adam([p for _, p in named], lr=0.05),
    )
    optimizer = torch.optim.Adam(whole.parameters(), lr=0.05)
    for step in range(4):
        x, y = data(seed=step)
        report = pipeline.step(x, y)
        optimizer.zero_grad()
        loss = mse(whole(x), y)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(whole.parameters(), clip)
        optimizer.step()
        assert report.loss == pytest.approx(float(loss.detach()), rel=1e-8)


def test_a_table_that_leans_on_an_endless_buffer_is_refused_on_the_strict_wire():
    """Story: it ran into the deadlock that the checker can foretell, because nobody asked the checker."""
    assert [violation.code for violation in check_schedule(TWO_WAY, outstanding=1)] == ["wait-cycle"]
    with pytest.raises(ScheduleError, match="blocks until"):
        Pipeline(tuple_net(4), TWO_WAY, loss=mse, outstanding=1)


def test_a_refused_table_comes_with_its_violations_before_anything_starts():
    calls = []

    class Count(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x

    broken = Schedule.from_csv("0F0,0B0,0F1,0B1\n1F0,1F1,1B1\n")
    with pytest.raises(ScheduleError) as caught:
        Pipeline(nn.Sequential(nn.Linear(5, 3).double(), Count()), broken, loss=mse)
    assert list(caught.value.violations) == check_schedule(broken)
    assert "1B0" in str(caught.value)
    assert calls == []


def test_updates_in_the_table_need_an_optimizer():
    with pytest.raises(ConfigurationError, match=r"updates weights while .* give optimizer="):
        Pipeline(mlp(2), Schedule.from_csv("0F0,0B0,0U0\n1F0,1B0,1U0\n"), loss=mse)


# ---- bad input ----------------------------------------------------------------------------------------------------


def refused(match, *, model=None, schedule=None, loss=mse, inputs=None, targets=None, **settings):
    x, y = data()
    with pytest.raises(ConfigurationError, match=match):
        pipeline = Pipeline(model or mlp(), schedule or one_f_one_b(), loss=loss, **settings)
        pipeline.step(x if inputs is None else inputs, y if targets is None else targets)
    assert no_worker_is_left()


def test_more_stages_than_layers():
    refused("4 stages need at least 4 layers, the model has 3", model=mlp(3))


def test_more_micro_batches_than_sequences():
    refused(r"m = 80 .* at least 80 sequences, got 64; try m = 64", schedule=one_f_one_b(m=80))


def test_a_loss_that_is_not_a_scalar():
    refused(r"must be a scalar, got float64\[16, 3\]", loss=lambda out, t: (out - t) ** 2)
    refused("must be a scalar", loss=nn.MSELoss(reduction="none"))
    refused("must return a scalar tensor, got float", loss=lambda out, t: 1.0)


def test_inputs_and_targets_of_different_length():
    refused("same length along the batch, got 64 and 63", targets=data()[1][:63])


def test_inputs_that_are_no_tensors():
    refused("inputs must be a tensor or a tuple of tensors, got str", inputs="text")


def test_a_stage_whose_output_does_not_fit_the_next():
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(7, 3)).double()
    refused(r"stage 1 cannot take what stage 0 gives, float64\[.*, 6\]", model=model, schedule=one_f_one_b(2, 2))


def test_inputs_that_do_not_fit_the_first_stage():
    refused(r"stage 0 cannot take the inputs float64\[.*, 4\]", inputs=data()[0][:, :4])


def test_targets_that_do_not_fit_the_loss():
    refused("the loss cannot take the last stage's output", targets=torch.zeros(64, 7, dtype=torch.float64))


def test_an_output_that_is_no_tensor():
    class Mapping(nn.Module):
        def forward(self, x):
            return {"x": x}

    model = nn.Sequential(nn.Linear(5, 3).double(), Mapping())
    refused("output of stage 1 must be a tensor or a tuple of tensors, got dict", model=model, schedule=one_f_one_b(2))


def test_more_gpus_than_there_are():
    present = torch.cuda.device_count()
    refused(f"asks for {present + 1} GPUs|none is present", schedule=one_f_one_b(present + 1), device="cuda")
    refused("was asked for", device=["cuda:97", "cpu", "cpu", "cpu"])
    refused("4 devices, but 2 torch devices", device=["cpu", "cpu"])
    refused("not a torch device", device="gpu0")


def test_settings_that_do_not_exist():
    refused("clock must be one of 'device', 'wall', 'unit', got 'cpu'", clock="cpu")
    refused("launch must be one of 'threads'", launch="mpi")
    refused("schedule must be a Schedule, got str", schedule="1f1b")
    refused("clip_norm must be positive", clip_norm=0)
    refused("lr_scheduler needs an optimizer", lr_scheduler=lambda o: None)
    refused("latency must be finite and not negative", latency=-1)
    refused("bandwidth must be positive", bandwidth=0)
    refused("latency= and bandwidth= have nothing left to say", links=Links(), latency=1)
    refused("devices 0 and 4, but there are 4 devices", links=Links(pairs={(0, 4): Link()}))
    refused("cannot see the layers of Bilinear", model=nn.Bilinear(2, 2, 2))
    refused("4 stages need 3 cuts", cuts=[1])
    refused("cuts must rise", cuts=[2, 2, 3])
    refused("needs loss", loss=None)
    refused(r"build_stage\(0\) must return an nn.Module, got int", model=lambda s: s)


# ---- errors inside stages -----------------------------------------------------------------------------------------


class Boom(nn.Module):
    def __init__(self, nth=None, kind=ValueError):
        super().__init__()
        self.calls, self.nth, self.kind = 0, nth, kind

    def forward(self, x):
        self.calls += 1
        if self.nth is None or self.calls == self.nth:
            raise self.kind("the stage's own words")
        return x


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("outstanding", [None, 1])
def test_an_exception_in_a_stage_reaches_the_caller_and_no_one_hangs(place, outstanding):
    parts = [nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)]
    parts[place] = nn.Sequential(Boom(nth=3), parts[place])
    pipeline = Pipeline(nn.Sequential(*parts).double(), one_f_one_b(4, 8), loss=mse, outstanding=outstanding)
    x, y = data()
    with pytest.raises(StageError) as caught:
        pipeline.step(x, y)
    error = caught.value
    assert (error.device, error.stage, error.action, error.microbatch) == (place, place, f"{place}F2", 2)
    assert f"ValueError on device {place}, stage {place}, action {place}F2, micro-batch 2" in str(error)
    assert "the stage's own words" in str(error)
    frames = traceback.extract_tb(error.__cause__.__traceback__)
    assert frames[-1].name == "forward" and frames[-1].filename == __file__
    assert no_worker_is_left()
    assert pipeline.step(x, y).loss is not None, "the pipeline works again once the cause is gone"


def test_the_error_is_still_of_its_own_type():
    model = nn.Sequential(nn.Linear(5, 3).double(), Boom(kind=ZeroDivisionError))
    with pytest.raises(ZeroDivisionError):
        Pipeline(model, one_f_one_b(2), loss=mse).step(*data())
    model = nn.Sequential(nn.Linear(5, 3).double(), Boom(kind=AssertionError))
    with pytest.raises(AssertionError):
        Pipeline(model, one_f_one_b(2), loss=mse).step(*data())


def test_an_exception_in_a_backward_says_so():
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            raise LookupError("no way back")

    class Layer(nn.Module):
        def forward(self, x):
            return Bad.apply(x)

    model = nn.Sequential(nn.Linear(5, 3).double(), Layer(), nn.Linear(3, 3).double())
    with pytest.raises(LookupError, match=r"on device 1, stage 1, action 1B0, micro-batch 0.*no way back"):
        Pipeline(model, one_f_one_b(3, 3), loss=mse).step(*data())
    assert no_worker_is_left()


def test_a_failed_step_frees_its_activations():
    """Story: saved-tensor hooks that keep the tensor itself build a cycle that nothing ever collects."""
    alive = []

    class Track(nn.Module):
        def forward(self, x):
            out = torch.exp(x)
            alive.append(weakref.ref(out))
            return out

    model = nn.Sequential(nn.Linear(5, 3).double(), Track(), Boom(nth=4))
    pipeline = Pipeline(model, one_f_one_b(3, 4), loss=mse)
    try:
        pipeline.step(*data())
        raise AssertionError("it should have failed")
    except ValueError:
        pass
    import gc

    gc.collect()
    assert [memory.settle() for memory in pipeline._engine._stepper.memory.values()] == [0, 0, 0]


def test_ctrl_c_stops_the_workers():
    import _thread

    class Interrupt(nn.Module):
        def forward(self, x):
            if x.device.type == "cpu":
                _thread.interrupt_main()
            return x

    model = nn.Sequential(nn.Linear(5, 3).double(), Interrupt())
    with pytest.raises(KeyboardInterrupt):
        Pipeline(model, one_f_one_b(2, 4), loss=mse).step(*data())
        import time

        time.sleep(1)
    assert no_worker_is_left()


# ---- names, state, profile ----------------------------------------------------------------------------------------


def test_names_and_state_are_the_unsplit_models():
    model, other = TransformerLM(layers=5, width=8, heads=2), TransformerLM(layers=5, width=8, heads=2, seed=9)
    pipeline = Pipeline(model, build_schedule("interleaved", devices=2, microbatches=2), loss=next_byte_loss)
    assert dict(pipeline.named_parameters()).keys() == dict(model.named_parameters()).keys()
    other.load_state_dict(pipeline.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    pipeline.load_state_dict(TransformerLM(layers=5, width=8, heads=2, seed=4).state_dict())
    fresh = TransformerLM(layers=5, width=8, heads=2, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))
    with pytest.raises(ConfigurationError, match="does not match"):
        pipeline.load_state_dict({})


def test_a_profile_prices_every_stage_and_changes_nothing():
    model = TransformerLM(layers=4, width=16, heads=2)
    x, y = text_batch(batch=8)
    pipeline = Pipeline(
        model,
        build_schedule("interleaved", devices=2, microbatches=2),
        loss=next_byte_loss,
        optimizer=lambda named: torch.optim.SGD(named, lr=1.0),
    )
    before = [p.clone() for p in model.parameters()]
    costs = pipeline.profile(x, y)
    assert isinstance(costs, Costs)
    assert len(costs.forward) == len(costs.backward) == 4
    assert all(cost > 0 for cost in (*costs.forward, *costs.backward, *costs.activation_bytes))
    assert list(costs.message_bytes) == [4 * 32 * 16 * 4] * 3 + [0.0]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    assert pipeline.step_number == 0


def test_actions_of_the_report_are_those_of_the_schedule():
    _, report = check_step(mlp(), one_f_one_b(m=5))
    for r in range(4):
        assert tuple(span.slot for span in report.wall.on_device(r)) == report.timeline.schedule.programs[r]
    assert report.timeline.on_device(0)[0].slot == Action(0, "F", 0)
