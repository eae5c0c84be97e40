"""What only a GPU shows. All stages share one GPU, or have one each where there are enough."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from pipelab import OutOfMemoryError, Pipeline, StageError, build_schedule, profile_costs, tune
from pipelab.models import KeyedDropout, TransformerLM, next_byte_loss, text_batch
from pipelab.runtime import gradient_error, unsplit_gradients
from tests.runtime.device import test_redraws as redraws
from tests.runtime.setup import test_ties as ties

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine"),
]
SCHEDULES = ["naive", "gpipe", "1f1b", "interleaved"]


def run(name, device, steps=1, *, clock="device", layers=16, recompute=False, **settings):
    model = TransformerLM(layers=layers, width=64, dropout=0.1).double().cuda()
    inputs, targets = text_batch()
    reference = unsplit_gradients(model, next_byte_loss, inputs.cuda(), targets.cuda())
    schedule = build_schedule(name, devices=4, microbatches=4, recompute=recompute)
    pipeline = Pipeline(model, schedule, loss=next_byte_loss, device=device, clock=clock, **settings)
    reports = [pipeline.step(inputs, targets)]
    error = gradient_error(pipeline.gradients(), reference.gradients)
    reports += [pipeline.step(inputs, targets) for _ in range(steps - 1)]
    assert reports[0].loss == pytest.approx(reference.loss, rel=1e-10)
    assert error <= 1e-10
    return reports[-1]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_four_stages_on_one_gpu_give_the_unsplit_gradient(name, recompute):
    run(name, "cuda:0", recompute=recompute)


@pytest.mark.parametrize("name", SCHEDULES)
def test_stages_with_a_gpu_each_give_the_unsplit_gradient(name):
    if torch.cuda.device_count() < 4:
        pytest.skip(f"needs 4 GPUs, {torch.cuda.device_count()} present")
    run(name, "cuda")


def test_the_device_clock_reads_cuda_events():
    report = run("gpipe", "cuda:0", steps=6, layers=48)
    assert all(cost > 0 for row in report.slot_costs.slots for cost in row)
    assert report.timeline.bubble_fraction == pytest.approx(3 / 7, abs=0.06)


def test_the_wall_clock_is_anchored_to_the_host():
    report = run("1f1b", "cuda:0", clock="wall", steps=2)
    assert report.timeline.makespan > 0
    for r in range(4):
        row = report.timeline.on_device(r)
        assert all(a.start <= b.start for a, b in pairwise(row))


def test_held_bytes_on_one_gpu_fall_4_3_2_1():
    peaks = run("1f1b", "cuda:0", layers=48).peak_activation_bytes
    assert [round(peak / peaks[3]) for peak in peaks] == [4, 3, 2, 1]


def test_the_allocators_peak_falls_with_1f1b_against_gpipe():
    """One GPU holds all four stages: 4 + 3 + 2 + 1 shares under 1F1B, 16 under GPipe."""
    peaks = {}
    for name in ("gpipe", "1f1b"):
        model = TransformerLM(layers=48, width=64).cuda()
        pipeline = Pipeline(model, build_schedule(name, 4, 4), loss=next_byte_loss, device="cuda:0")
        pipeline.step(*text_batch())  # from now on gradients are there
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        pipeline.step(*text_batch())
        peaks[name] = torch.cuda.max_memory_allocated() - before
    assert peaks["1f1b"] < 0.85 * peaks["gpipe"]


# ---- one process per device ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_four_processes_on_one_gpu_give_the_unsplit_gradient(name, recompute):
    """Ranks that share a GPU send through the host, over gloo."""
    run(name, "cuda:0", launch="processes", recompute=recompute)


@pytest.mark.parametrize("name", SCHEDULES)
def test_processes_with_a_gpu_each_give_the_unsplit_gradient(name):
    """Over NCCL, which needs a GPU for each rank."""
    if torch.cuda.device_count() < 4:
        pytest.skip(f"needs 4 GPUs, {torch.cuda.device_count()} present")
    run(name, "cuda", launch="processes", steps=3)


def test_processes_on_one_gpu_take_turns_under_the_device_clock():
    report = run("gpipe", "cuda:0", launch="processes", steps=6, layers=48)
    assert all(cost > 0 for row in report.slot_costs.slots for cost in row)
    assert report.timeline.bubble_fraction == pytest.approx(3 / 7, abs=0.06)
    spans = sorted((s.start, s.end) for s in report.wall.spans)
    assert all(a[1] <= b[0] + 1e-4 for a, b in pairwise(spans)), "one at a time"


def test_the_allocators_of_four_processes_peak_4_3_2_1_under_1f1b():
    report = run("1f1b", "cuda:0", launch="processes", layers=48, steps=3)
    peaks = report.peak_allocated_bytes
    assert None not in peaks
    assert [round(peak / peaks[3]) for peak in peaks] == [4, 3, 2, 1]


def test_weights_trained_on_a_gpu_come_back_to_the_callers_model_on_the_cpu():
    model, twin = (TransformerLM(layers=4, width=16, heads=2).double() for _ in range(2))
    schedule = build_schedule("1f1b", devices=2, microbatches=4)
    settings = {"loss": next_byte_loss, "optimizer": lambda n: torch.optim.SGD([p for _, p in n], lr=0.1)}
    with Pipeline(model, schedule, launch="processes", device="cuda:0", **settings) as pipeline:
        for step in range(3):
            pipeline.step(*text_batch(step))
        assert {p.device.type for p in model.parameters()} == {"cpu"}
    threads = Pipeline(twin, schedule, device="cpu", **settings)
    for step in range(3):
        threads.step(*text_batch(step))
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert float((a - b).detach().abs().max()) < 1e-9, name


# ---- memory limits, profiles, the tuner ------------------------------------------------------------------------------


def test_the_memory_wall_is_met_on_a_gpu_and_the_allocators_figure_stands_beside_it():
    schedule = build_schedule("gpipe", 4, 8)
    model, batch = TransformerLM(layers=16), text_batch()
    needs = [held.total for held in Pipeline(model, schedule, loss=next_byte_loss, device="cuda:0").step(*batch).memory]
    limited = Pipeline(model, schedule, loss=next_byte_loss, device="cuda:0", memory_limit=0.6 * max(needs))
    with pytest.raises(OutOfMemoryError, match=r"CUDA's allocator: .* in use"):
        limited.step(*batch)
    assert Pipeline(model, schedule, loss=next_byte_loss, device="cuda:0", memory_limit=needs).step(*batch).loss > 0


def test_a_profile_of_a_gpu_predicts_other_sizes():
    """Host staging, events and turns: t(b) of a small model is mostly launches, so alpha is large and the line flat."""
    model, batch = TransformerLM(layers=48), text_batch()
    profile = profile_costs(model, *batch, loss=next_byte_loss, device="cuda:0", chunks=(1,), sizes=(3, 10, 40))
    off = []
    for m in (4, 8, 32):
        pipeline = Pipeline(model, build_schedule("1f1b", 4, m), loss=next_byte_loss, device="cuda:0")
        reports = [pipeline.step(*batch) for _ in range(6)]
        predicted = profile.predict(pipeline.schedule, 64)
        off.append(abs(predicted.makespan / reports[-1].timeline.makespan - 1))
        for guess, real in zip(predicted.peak_bytes, reports[-1].peak_activation_bytes, strict=True):
            assert guess == pytest.approx(real, rel=0.05)
    assert sorted(off)[1] <= 0.25, off


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_the_tuner_runs_on_a_shared_gpu(launch):
    found = tune(
        TransformerLM(layers=16),
        *text_batch(0, 32),
        loss=next_byte_loss,
        device="cuda:0",
        launch=launch,
        measure=2,
        rounds=2,
        steps=2,
        progress=False,
    )
    assert found.clock == "device" and found.best in found.measured
    assert "cuda" in str(found.profile.about["devices"])
    if launch == "processes":
        assert "CUDA's allocator" in found.report()


@pytest.mark.parametrize("launch", ["threads", "processes"])
@pytest.mark.parametrize("device", ["cuda:0", "cuda"])
def test_a_tied_embedding_on_one_gpu_and_on_several(device, launch):
    """A holder on another GPU has a copy; what it computes with is the home's value of this step."""
    if device == "cuda" and torch.cuda.device_count() < 4:
        pytest.skip(f"needs 4 GPUs, {torch.cuda.device_count()} present")
    x, y = ties.batch()
    table = build_schedule("1f1b", devices=4, microbatches=6)
    told = {"loss": ties.loss, "optimizer": ties.adam, "clip_norm": 0.3, "launch": launch, "device": device}
    with Pipeline(ties.LM(), table, **told) as pipeline:
        assert pipeline.verify(x, y) <= 1e-10
        found = [(report.loss, report.gradient_norm) for report in (pipeline.step(x, y) for _ in range(3))]
        assert pipeline.verify(x, y) <= 1e-10
    assert torch.allclose(torch.tensor(found), torch.tensor(ties.trained(ties.LM())), atol=1e-6)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_fp16_with_a_scaler_skips_what_overflows_and_learns_from_the_rest(launch):
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**30, growth_interval=100)
    model = TransformerLM(layers=8, width=64).cuda()
    adam = {"optimizer": lambda named: torch.optim.AdamW([p for _, p in named], lr=1e-3), "launch": launch}
    table = build_schedule("1f1b", devices=4, microbatches=4)
    pipeline = Pipeline(model, table, loss=next_byte_loss, device="cuda:0", grad_scaler=scaler, **adam)
    with pipeline, torch.autocast("cuda", dtype=torch.float16):
        reports = [pipeline.step(*text_batch()) for _ in range(30)]
    skipped = [report.skipped for report in reports]
    assert skipped[0] and not skipped[-1], "a scale of 2 ** 30 overflows fp16, and is backed off"
    assert scaler.get_scale() == 2.0 ** (30 - sum(skipped))
    assert reports[-1].loss < reports[0].loss


def test_keyed_dropout_in_a_checkpoint_on_a_gpu_is_refused():
    """Autograd runs the backward in a thread of its own there, which no key reaches."""
    layers = redraws.net(lambda index: KeyedDropout(0.5, index), True)
    pipeline = Pipeline(layers, build_schedule("1f1b", 4, 4), loss=torch.nn.MSELoss(), device="cuda:0")
    with pytest.raises(StageError, match="its key does not reach it"):
        pipeline.step(*redraws.data())
