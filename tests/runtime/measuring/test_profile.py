"""What one micro-batch costs, where backwards are split also."""

from __future__ import annotations

import pytest

from pipelab import Pipeline, build_schedule, simulate
from pipelab.models import TransformerLM, next_byte_loss, text_batch
from pipelab.runtime.measuring.profile import one_pass


def test_one_pass_goes_back_whole_and_by_the_halves_that_the_schedule_has():
    def row(name):
        return [str(action) for action in one_pass(build_schedule(name, 2, 4)).programs[0]]

    assert row("1f1b") == ["0F0", "0B0"]
    assert row("zb-h1") == ["0F0", "0B0", "0F1", "0I1", "0W1"]
    assert row("dualpipev") == ["0F0", "3F0", "3B0", "0B0", "0F1", "3F1", "3I1", "3W1", "0I1", "0W1"]


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_halves_are_priced_and_what_waits_for_w_is_counted(launch):
    model, (x, y) = TransformerLM(layers=4, width=32, heads=2), text_batch(batch=8)
    with Pipeline(model, build_schedule("dualpipev", 2, 4), loss=next_byte_loss, launch=launch) as pipeline:
        costs = pipeline.profile(x, y)
    for times in (costs.forward, costs.backward, costs.input_gradient, costs.weight_gradient):
        assert len(times) == 4 and min(times) > 0
    # Stage 0 starts from token ids, which have no gradient: its backward is all W, and I only keeps what came.
    assert costs.input_gradient[0] < costs.weight_gradient[0]
    assert costs.input_gradient[0] == min(costs.input_gradient)
    assert all(0 < waiting != kept for waiting, kept in zip(costs.waiting_bytes, costs.activation_bytes, strict=True))


@pytest.mark.parametrize("name", ["zb-h1", "zb-v", "interleaved-zb", "dualpipev"])
def test_peak_bytes_are_foretold(name):
    model, (x, y) = TransformerLM(layers=8, width=32, heads=2), text_batch(batch=16)
    schedule = build_schedule(name, 4, 8)
    with Pipeline(model, schedule, loss=next_byte_loss) as pipeline:
        costs = pipeline.profile(x, y, repeats=1)
        peaks = pipeline.step(x, y).peak_activation_bytes
    assert list(simulate(schedule, costs, batch=16).peak_bytes) == pytest.approx(peaks, rel=0.02)


def test_a_profile_needs_no_more_sequences_than_there_are():
    with Pipeline(
        TransformerLM(layers=4, width=16, heads=2), build_schedule("dualpipev", 2, 4), loss=next_byte_loss
    ) as p:
        assert len(p.profile(*text_batch(batch=4), repeats=1).forward) == 4
