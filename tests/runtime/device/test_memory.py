"""Activation bytes are read from real tensors, and are what the theory says."""

from __future__ import annotations

import gc

import pytest
import torch

from pipelab import Pipeline, build_schedule
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.runtime.device.memory import MemoryMeter, WallError

P = 4


@pytest.fixture(scope="module")
def model():
    return TransformerLM(layers=16, width=32, heads=2)


@pytest.fixture(scope="module")
def whole(model):
    """What the whole batch of 64 costs, in one piece."""
    return peaks(model, "naive", 1, 64)


@pytest.fixture(scope="module")
def one(model):
    """What a micro-batch of 8 costs."""
    return peaks(model, "naive", 1, 8)


def peaks(model, name, m, batch, *, chunks=None, recompute=False):
    schedule = build_schedule(name, devices=P, microbatches=m, chunks=chunks, recompute=recompute)
    pipeline = Pipeline(model, schedule, loss=next_byte_loss, device="cpu")
    report = pipeline.step(*text_batch(batch=batch))
    gc.collect()
    assert [memory.settle() for memory in pipeline._engine._stepper.memory.values()] == [0] * P, (
        "a step leaves nothing behind"
    )
    return report.peak_activation_bytes


@pytest.mark.parametrize("m", [1, 2, 4, 8, 16])
def test_at_a_fixed_batch_gpipe_holds_all_of_it_whatever_m(model, whole, m):
    for found, true in zip(peaks(model, "gpipe", m, 64), whole, strict=True):
        assert found == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("m", [1, 2, 4, 8, 16])
def test_at_a_fixed_batch_device_r_of_1f1b_holds_min_p_minus_r_m_over_m_of_it(model, whole, m):
    for r, found in enumerate(peaks(model, "1f1b", m, 64)):
        assert found == pytest.approx(whole[r] * min(P - r, m) / m, rel=0.1)


@pytest.mark.parametrize("m", [1, 3, 4, 8])
def test_at_a_fixed_micro_batch_size_gpipe_grows_with_m_and_1f1b_does_not(model, one, m):
    gpipe, one_f_one_b = peaks(model, "gpipe", m, 8 * m), peaks(model, "1f1b", m, 8 * m)
    for r in range(P):
        assert gpipe[r] == pytest.approx(m * one[r], rel=0.1)
        assert one_f_one_b[r] == pytest.approx(min(P - r, m) * one[r], rel=0.1)


def test_interleaving_costs_activations_at_m_8_and_not_at_m_4(model, one):
    """5.5 shares against 4 on device 0; equal at m = 4."""
    assert peaks(model, "interleaved", 4, 32, chunks=2)[0] == pytest.approx(4 * one[0], rel=0.1)
    assert peaks(model, "interleaved", 8, 64, chunks=2)[0] == pytest.approx(5.5 * one[0], rel=0.1)


def test_recomputation_keeps_inputs_and_one_micro_batch(model):
    one, kept = peaks(model, "naive", 1, 16)[0], peaks(model, "gpipe", 4, 64)[0]
    recomputed = peaks(model, "gpipe", 4, 64, recompute=True)[0]
    stage_input = 16 * 32 * 8  # int64 tokens
    assert kept == pytest.approx(4 * one, rel=0.1)
    assert recomputed == pytest.approx(one + 4 * stage_input, rel=0.1)


def test_bytes_over_time_rise_and_fall_on_the_timeline(model):
    pipeline = Pipeline(model, build_schedule("1f1b", devices=P, microbatches=4), loss=next_byte_loss, device="cpu")
    report = pipeline.step(*text_batch())
    for r, holding in enumerate(report.timeline.holdings):
        assert holding.device == r
        assert holding.peak == report.peak_activation_bytes[r]
        assert holding.steps[-1][1] < holding.peak / 20
        assert [t for t, _ in holding.steps] == sorted(t for t, _ in holding.steps)


def test_a_storage_that_is_saved_twice_counts_once_and_parameters_do_not_count():
    meter = MemoryMeter()
    weight = torch.randn(10, 10, requires_grad=True)
    meter.reset([weight])
    x = torch.randn(10, 10, requires_grad=True)
    saved = meter.saving()
    with saved:
        y = (x * x) @ weight  # saves x twice, x*x, and the weight's storage
    assert meter.held == 2 * 10 * 10 * 4
    y.sum().backward()
    del y
    saved.close()
    assert meter.held == 0
    assert meter.peak == 2 * 10 * 10 * 4


def test_what_is_saved_and_dropped_in_the_middle_of_a_forward_is_not_held():
    meter = MemoryMeter()
    meter.reset([])
    x = torch.randn(10, 10, requires_grad=True)
    saved = meter.saving()
    with saved:
        (x * 2).exp().sum().item()  # its graph is gone at once
        y = x.exp()
    assert meter.held == 10 * 10 * 4
    del y
    saved.close()
    assert meter.held == 0


def test_a_storage_that_two_graphs_saved_is_held_until_both_have_let_go():
    meter = MemoryMeter()
    meter.reset([])
    mask, x = torch.randn(10, 10), torch.randn(10, 10, requires_grad=True)
    graphs = [meter.saving(), meter.saving()]
    losses = []
    for saved in graphs:
        with saved:
            losses.append((x * mask).sum())
    held = meter.hold([mask])
    assert meter.held == 10 * 10 * 4
    for saved, loss in zip(graphs, losses, strict=True):
        loss.backward()
        saved.close()
        assert meter.held == 10 * 10 * 4
    del held
    assert meter.held == 0


@pytest.mark.parametrize("boxed", [False, True])
def test_what_was_changed_in_place_since_it_was_saved_is_refused_to_who_asks_for_it(boxed):
    """Hooks switch off autograd's own check, and a wrong gradient would come of it."""
    meter = MemoryMeter()
    meter.reset([])
    x = torch.randn(10, requires_grad=True)
    saved = meter.saving(boxed=boxed)
    with saved:
        unharmed, harmed = x.exp(), x.exp()
        harmed.add_(1)
    saved.check()
    unharmed.sum().backward()
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation: .* \[10\] was saved at version 0"):
        harmed.sum().backward()


def test_behind_a_wall_each_tensor_counts_as_it_comes():
    meter = MemoryMeter()
    meter.reset([], room=2.5 * 10 * 10 * 4)
    x = torch.randn(10, 10, requires_grad=True)
    reached = []
    with pytest.raises(WallError), meter.saving():
        for _ in range(4):
            reached.append((x if not reached else reached[-1]).exp())
    assert len(reached) == 2 and meter.held == 2 * 10 * 10 * 4, "the third is the one too many"


def test_what_outlives_its_backward_is_looked_after():
    meter = MemoryMeter()
    meter.reset([])
    x = torch.randn(10, 10, requires_grad=True)
    saved = meter.saving()
    with saved:
        y = x.exp()
    y.sum().backward(retain_graph=True)
    saved.close()
    assert meter.settle() == 10 * 10 * 4
    del y
    assert meter.settle() == 0


def test_it_can_be_switched_off(model):
    schedule = build_schedule("1f1b", devices=P, microbatches=4)
    pipeline = Pipeline(model, schedule, loss=next_byte_loss, measure_memory=False, device="cpu")
    assert pipeline.step(*text_batch()).peak_activation_bytes == (0, 0, 0, 0)
