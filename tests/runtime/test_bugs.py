"""Bugs that were found and mended, told as stories, so that they stay away."""

from __future__ import annotations

import functools
import threading

import pytest
import torch
from torch import nn

from pipelab import (
    ConfigurationError,
    PipelabError,
    Pipeline,
    Schedule,
    ScheduleParseError,
    StageError,
    build_schedule,
    check_schedule,
    simulate,
)
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.models.cut import cut_model
from pipelab.runtime.device.clocks import CudaMeter
from tests.runtime.small import Work, check_step, data, mlp, mse, tuple_net

SPLIT = "0F0,0F1,0W0,0F2,0W1,0W2\n1F0,1I0,1W0,1F1,1I1,1F2,1I2,1W1,1W2\n"


class TwoWeights(nn.Module):
    """W = A + B: autograd gives A and B one and the same gradient tensor."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.randn(inputs, outputs)) for _ in range(2))
        self.unused = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return torch.tanh(x @ (self.a + self.b))


def test_weight_gradients_that_share_a_tensor_are_not_added_twice():
    """W put the shared tensor into both ``.grad`` fields and added the next micro-batch to it twice."""
    torch.manual_seed(0)
    model = nn.Sequential(TwoWeights(5, 6), TwoWeights(6, 3)).double()
    check_step(model, Schedule.from_csv(SPLIT))


def test_hooks_on_accumulated_gradients_fire_for_w_as_they_do_for_b():
    model, calls = mlp(2), []
    model[1][0].weight.register_post_accumulate_grad_hook(lambda p: calls.append(1))
    Pipeline(model, Schedule.from_csv(SPLIT), loss=mse).step(*data())
    assert len(calls) == 3


class Doubled(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin = nn.Linear(inputs, outputs)

    def forward(self, x):
        return torch.tanh(self.lin(x.mul_(2)))


class DoubledOracle(Doubled):
    def forward(self, x):
        return torch.tanh(self.lin(x * 2))


@pytest.mark.parametrize("recompute", [False, True])
def test_a_stage_that_begins_in_place_spoils_neither_its_input_nor_the_callers(recompute):
    """Under R the forward had doubled the kept input, and recomputing doubled it again; without, a leaf refused."""
    torch.manual_seed(0)
    model = nn.Sequential(Doubled(5, 6), Doubled(6, 6), Doubled(6, 3)).double()
    oracle = nn.Sequential(DoubledOracle(5, 6), DoubledOracle(6, 6), DoubledOracle(6, 3)).double()
    oracle.load_state_dict(model.state_dict())
    x, y = data()
    before = x.clone()
    pipeline = Pipeline(model, build_schedule("1f1b", 3, 4, recompute=recompute), loss=mse)
    report = pipeline.step(x, y)
    loss = mse(oracle(x), y)
    loss.backward()
    assert torch.equal(x, before)
    assert report.loss == pytest.approx(loss.item(), rel=1e-12)
    for a, b in zip(model.parameters(), oracle.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_two_chunks_on_one_device_do_not_share_the_memory_of_what_they_hand_over():
    check_step(mlp(8), build_schedule("interleaved", 1, 3, 4))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3), nn.ReLU(inplace=True)).double()
    check_step(model, build_schedule("interleaved", 1, 2, 4))


def test_a_table_may_recompute_some_micro_batches_only():
    table = Schedule.from_csv("0F0,0F1,0R0,0B0,0B1\n1F0,1B0,1F1,1R1,1B1\n")
    assert check_schedule(table) == []
    check_step(mlp(4), table)


WEIGHT = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=WEIGHT),
        nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.0, ignore_index=1),
        functools.partial(nn.functional.cross_entropy, reduction="sum"),
        functools.partial(nn.functional.cross_entropy, ignore_index=2, weight=WEIGHT),
    ],
)
def test_losses_that_weigh_or_ignore_classes_are_weighed_as_they_average(loss):
    x, _ = data()
    targets = torch.randint(3, (64,), generator=torch.Generator().manual_seed(0))
    check_step(mlp(), build_schedule("1f1b", 4, 7), loss=loss, inputs=x, targets=targets)


def test_batchmean_averages_over_sequences():
    x, y = data()
    check_step(
        nn.Sequential(mlp(), nn.LogSoftmax(-1)),
        build_schedule("1f1b", 2, 7),
        loss=nn.KLDivLoss(reduction="batchmean"),
        inputs=x,
        targets=y.softmax(-1),
    )


def test_a_plain_function_that_may_ignore_targets_is_asked_to_say_so():
    targets = torch.full((64,), -100)
    targets[:40] = 1
    pipeline = Pipeline(mlp(), build_schedule("1f1b", 4, 4), loss=lambda o, t: nn.functional.cross_entropy(o, t))
    with pytest.raises(ConfigurationError, match=r"ignore_index.*loss_terms"):
        pipeline.step(data()[0], targets)


@pytest.mark.parametrize(
    "module", [nn.MultiheadAttention(6, 2, dropout=0.5), nn.LSTM(6, 6, 2, dropout=0.5), nn.RReLU()]
)
def test_other_modules_that_draw_are_refused_under_r_too(module):
    with pytest.raises(ConfigurationError, match="would draw another mask"):
        Pipeline(nn.Sequential(nn.Linear(5, 6), module), build_schedule("gpipe", 2, 2, recompute=True), loss=mse)


def test_one_pipeline_does_not_run_two_steps_at_once():
    begun, go_on = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def forward(self, x):
            if x.device.type == "cpu":
                begun.set()
                assert go_on.wait(10)
            return x

    pipeline = Pipeline(nn.Sequential(mlp(2), Slow()), build_schedule("1f1b", 2, 2), loss=mse)
    thread = threading.Thread(target=lambda: pipeline.step(*data()))
    thread.start()
    try:
        assert begun.wait(10)
        with pytest.raises(PipelabError, match="running a step in another thread"):
            pipeline.step(*data())
    finally:
        go_on.set()
        thread.join()
    assert pipeline.step(*data()).loss is not None


def test_pipelines_in_several_threads_leave_the_process_as_it_was():
    """Overlapping save and restore of standard output and intra-op threads used to put back each other's value."""
    import sys

    before, out = torch.get_num_threads(), sys.stdout
    torch.set_num_threads(2)
    try:

        def work():
            pipeline = Pipeline(mlp(), build_schedule("1f1b", 2, 4), loss=mse)
            for _ in range(10):
                pipeline.step(*data())

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.get_num_threads() == 2
        assert sys.stdout is out
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("where", ["record", "synchronize"])
def test_an_error_on_a_shared_gpu_lets_the_next_slot_in(where, monkeypatch):
    class Event:
        def __init__(self, enable_timing):
            pass

        def record(self, stream):
            if armed and where == "record":
                raise RuntimeError("device-side assert")

        def synchronize(self):
            if armed and where == "synchronize":
                raise RuntimeError("device-side assert")

    armed = False
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    lock = threading.Lock()
    meter = CudaMeter(torch.device("cuda", 0), lock)
    meter.begin()
    armed = True
    with pytest.raises(RuntimeError, match="device-side"):
        meter.end()
    assert not lock.locked()
    if where == "record":
        with pytest.raises(RuntimeError, match="device-side"):
            meter.begin()
        assert not lock.locked()


def test_wall_messages_arrive_when_they_were_there_and_not_when_they_were_taken():
    """Device 1 was busy while its inputs arrived, and the gaps' reasons blamed a link that did not exist."""
    model = nn.Sequential(nn.Linear(5, 5), Work(0.03), nn.Linear(5, 3)).double()
    pipeline = Pipeline(model, build_schedule("gpipe", 3, 4), loss=mse, clock="wall")
    for _ in range(20):  # on a busy machine device 0 may be late itself
        report = pipeline.step(*data())
        last = next(m for m in report.wall.messages if str(m.consumer) == "1F3")
        row = report.wall.on_device(1)
        if last.sent < row[1].end:
            break
    assert last.sent <= last.arrived < row[2].end < row[3].start, "it waited for device 1, not device 1 for it"
    before = [gap for gap in report.wall.gaps(1) if row[0].end <= gap.start < row[3].start]
    assert all(gap.cause != "link" for gap in before)


def test_a_profile_holds_what_a_run_holds_and_leaves_buffers_alone():
    model = TransformerLM(layers=8, width=16, heads=2)
    x, y = text_batch()
    pipeline = Pipeline(model, build_schedule("gpipe", 4, 4), loss=next_byte_loss, device="cpu")
    costs = pipeline.profile(x, y)
    peaks = pipeline.step(x, y).peak_activation_bytes
    for kept, peak in zip(costs.activation_bytes, peaks, strict=True):
        assert 4 * kept == pytest.approx(peak, rel=0.1)
    recomputing = build_schedule("gpipe", 4, 4, recompute=True)
    peaks = Pipeline(model, recomputing, loss=next_byte_loss, device="cpu").step(x, y).peak_activation_bytes
    for predicted, peak in zip(simulate(recomputing, costs, batch=64).peak_bytes, peaks, strict=True):
        assert predicted == pytest.approx(peak, rel=0.1)
    norm = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    pipeline = Pipeline(norm, build_schedule("1f1b", 3, 4), loss=mse)
    pipeline.profile(*data())
    assert int(norm[1].num_batches_tracked) == 0
    with pytest.raises(ConfigurationError, match="repeats"):
        pipeline.profile(*data(), repeats=0)


def test_a_stage_on_two_devices_follows_the_callers_model():
    two_way = Schedule.from_csv("0F0,0F1,1F2,1F3,1B2,0B0,1B3,0B1\n0F2,0F3,1F0,1F1,1B0,0B2,1B1,0B3\n")
    model = mlp(4)
    pipeline = Pipeline(model, two_way, loss=mse)
    model.load_state_dict(mlp(4, seed=9).state_dict())
    x, y = data()
    assert pipeline.step(x, y).loss == pytest.approx(mse(mlp(4, seed=9)(x), y).item(), rel=1e-12)
    with pytest.raises(ConfigurationError, match="names a device twice"):
        Schedule("twice", two_way.programs, ((0, 0), (1,)), two_way.weights)


def test_a_model_that_forgets_to_name_its_embedding_is_refused():
    class Forgets(TransformerLM):
        def pipeline_sections(self):
            return (), super().pipeline_sections().layers, ("head",)

    with pytest.raises(ConfigurationError, match=r"leaves out 'embed\."):
        cut_model(Forgets(layers=2, width=8, heads=2), 2)


def test_the_probe_gives_batch_normalisation_a_whole_micro_batch():
    class Peeks(nn.Module):
        def forward(self, x):
            assert x.sum().item() != 12345
            return x

    model = nn.Sequential(nn.Linear(5, 6), Peeks(), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    Pipeline(model, build_schedule("1f1b", 2, 4), loss=mse).step(*data())


def test_hooks_of_the_model_see_real_runs_only():
    model, seen = mlp(2), []
    model[0].register_forward_hook(lambda module, args, out: seen.append(out.device.type))
    Pipeline(model, build_schedule("1f1b", 2, 4), loss=mse).step(*data())
    assert seen == ["cpu"] * 4


def test_outputs_that_do_not_join_come_one_by_one():
    class Sums(nn.Module):
        def forward(self, x):
            return x.sum()

    model = nn.Sequential(nn.Linear(5, 3).double(), Sums())
    x, _ = data()
    outputs = Pipeline(model, build_schedule("1f1b", 2, 4)).evaluate(x).outputs
    assert [o.item() for o in outputs] == [model(part).item() for part in x.split(16)]


def test_targets_may_come_from_a_graph_or_from_inference_mode():
    x, y = data()
    attached = y.clone().requires_grad_() * 2
    Pipeline(mlp(), build_schedule("1f1b", 2, 4), loss=mse).step(x, attached)
    pipeline = Pipeline(mlp(), build_schedule("1f1b", 2, 4), loss=mse)
    with torch.inference_mode():
        pipeline.step(x.clone(), y.clone())


def test_a_schedulers_that_watches_the_loss_gets_it_and_frozen_models_can_be_clipped():
    model = mlp(2)
    pipeline = Pipeline(
        model,
        build_schedule("1f1b", 2, 2),
        loss=mse,
        optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=1.0),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=1e9),
    )
    for _ in range(3):
        pipeline.step(*data())
    assert all(o.param_groups[0]["lr"] < 1 for o in pipeline._engine._stepper.updates.optimizers.values())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigurationError, match="all are frozen"):
        Pipeline(model, build_schedule("1f1b", 2, 2), loss=mse, clip_norm=1.0).step(*data())


def test_a_loss_that_was_detached_trains_nothing_and_says_so():
    """It returned a loss and zero gradients, step after step."""
    pipeline = Pipeline(mlp(2), build_schedule("1f1b", 2, 2), loss=lambda o, t: mse(o, t).detach())
    with pytest.raises(ConfigurationError, match="was it detached"):
        pipeline.step(*data())


def test_batch_normalisation_is_warned_of_and_verify_sees_the_difference():
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()
    with pytest.warns(UserWarning, match="BatchNorm1d at '1': it normalises over each micro-batch"):
        pipeline = Pipeline(model, build_schedule("1f1b", 3, 4), loss=mse)
    assert pipeline.verify(*data()) > 1e-3
    assert int(model[1].num_batches_tracked) == 0


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b", "interleaved"])
def test_verify_is_the_proof_in_one_line_and_changes_nothing(name):
    model = tuple_net(8, dropout=0.2)
    pipeline = Pipeline(
        model,
        build_schedule(name, 2, 4, recompute=True),
        loss=mse,
        optimizer=lambda named: torch.optim.SGD([p for _, p in named], lr=0.1),
    )
    pipeline.step(*data())
    before = {n: (p.detach().clone(), p.grad.clone()) for n, p in model.named_parameters()}
    assert pipeline.verify(*data(seed=5)) < 1e-12
    assert pipeline.step_number == 1
    for n, p in model.named_parameters():
        assert torch.equal(p, before[n][0]) and torch.equal(p.grad, before[n][1])
    wrong = Pipeline(model, build_schedule("1f1b", 2, 4), loss=lambda o, t: mse(o, t) * len(o))
    assert wrong.verify(*data()) > 0.1


def test_a_refused_step_leaves_gradients_as_they_were():
    model = mlp()
    pipeline = Pipeline(model, build_schedule("1f1b", 2, 2), loss=mse)
    x, y = data()
    pipeline.step(x, y)
    before = [p.grad.clone() for p in model.parameters()]
    with pytest.raises(ConfigurationError):
        pipeline.step(x, y[:3])
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("text", ["99999999F0,0B0\n", "0F0,0B0,0F9999999,0B9999999\n"])
def test_a_slip_of_the_hand_does_not_make_ten_million_violations(text):
    with pytest.raises(ScheduleParseError, match="counts beyond what a table"):
        Schedule.from_csv(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sends": "rendezvous"}, "sends must be one of 'asynchronous', 'blocking', 'batched', got 'rendezvous'"),
        ({"outstanding": -1}, "outstanding must be a whole number"),
        ({"outstanding": 1.5}, "outstanding must be a whole number"),
        ({"check": "no"}, "check must be True or False, got 'no'"),
        ({"outstanding": 0.0}, "outstanding must be a whole number"),
        ({"outstanding": False}, "outstanding must be a whole number"),
        ({"outstanding": []}, "outstanding must be a whole number"),
        ({"device": 0}, "device must be a name"),
        ({"window": 0}, "window must be a whole number"),
        ({"costs": 5}, "costs must be Costs, got int"),
        ({"seed": "a"}, "seed must be a whole number"),
        ({"cuts": 2}, "cuts must be whole numbers"),
        ({"cuts": [1.5]}, "cuts must be whole numbers"),
        ({"optimizer": lambda named: 5}, "optimizer must return a torch optimizer, got int"),
        ({"optimizer": lambda named: torch.optim.LBFGS([p for _, p in named])}, "LBFGS"),
        ({"loss_terms": 3}, "loss_terms must be a function"),
        ({"loss": 3}, "loss must be a function"),
        ({"loss": nn.MSELoss}, "loss is the class MSELoss"),
        ({"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters())}, "optimizer must be a function that makes one"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused_at_once(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Pipeline(mlp(), build_schedule("1f1b", 2, 2), **{"loss": mse, **settings})


def test_empty_tables_are_refused():
    with pytest.raises(ConfigurationError, match="at least one device"):
        Schedule("none", (), (), ())
    empty = Schedule("empty", ((),), (), ())
    assert [v.code for v in check_schedule(empty)] == ["missing"]


def test_an_errors_own_way_of_printing_does_not_hide_where_it_happened():
    """KeyError prints its message in quotes; some exceptions cannot even be made from a message."""

    class Odd(Exception):
        def __init__(self, a, b):
            raise_if = a, b
            super().__init__(f"{raise_if}")

    class Raises(nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, x):
            raise self.error

    for error in (KeyError("lost"), Odd(1, 2)):
        model = nn.Sequential(nn.Linear(5, 3).double(), Raises(error))
        with pytest.raises(StageError) as caught:
            Pipeline(model, build_schedule("1f1b", 2, 2), loss=mse).step(*data())
        assert str(caught.value).startswith(f"{type(error).__name__} on device 1, stage 1, action 1F0, micro-batch 0")


def test_an_unsound_table_can_still_be_printed():
    stuck = Schedule.from_csv("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    assert "1F0 1F1 1B0 1B1" in str(stuck)
