from dataclasses import replace

import pytest

from pipelab import ConfigurationError, Costs, build_schedule, compare, simulate
from pipelab.teaching.explorer import Settings
from pipelab.teaching.explorer.measure import PIECES, Measured, measure, remark, require_runnable


def measured(settings):
    told = []
    return measure(settings, told.append), told


@pytest.mark.slow
def test_the_48_layer_model_trains_and_is_laid_over_its_prediction():
    found, told = measured(Settings(devices=2, microbatches=4))
    assert found.predicted.schedule == found.measured.schedule
    assert (found.predicted.unit, found.measured.unit, found.measured.clock) == ("s", "s", "device")
    assert compare(found.predicted, found.measured).same_order
    assert found.gradient_error < 1e-3
    assert found.losses[-1] < found.losses[0]
    assert len(found.peak_activation_bytes) == 2
    assert found.peak_activation_bytes[0] > found.peak_activation_bytes[1] > 1e6
    assert len(told) == PIECES
    assert told[0] == "building the model"
    assert told[-1] == f"step {len(found.losses)} of {len(found.losses)}"
    assert "Its gradients equal those of the unsplit model" in found.sentence
    assert " → ".join(f"{loss:.3f}" for loss in found.losses) in found.sentence


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chimera", "zb-v", "dualpipev"])
def test_what_fills_idle_time_runs_as_predicted(name):
    settings = Settings(name, devices=2, microbatches=4, fixed="batch", batch=16)
    found, _ = measured(settings)
    assert compare(found.predicted, found.measured).same_order
    assert found.gradient_error < 1e-3
    assert found.peak_activation_bytes == pytest.approx(found.predicted.peak_bytes, rel=0.05)
    assert max(settings.timeline().peak_bytes) == pytest.approx(max(found.peak_activation_bytes), rel=0.1)


@pytest.mark.parametrize("forward, says", [(1.1, ""), (1.4, "are 40% apart"), (0.6, "are 40% apart")])
def test_it_is_remarked_where_prediction_and_measurement_are_far_apart(forward, says):
    schedule = build_schedule("gpipe", 4, 4)
    slower = simulate(schedule, Costs(forward=forward, backward=forward))
    found = remark(compare(simulate(schedule), slower))
    assert says in found
    assert bool(says) == bool(found)


@pytest.mark.slow
def test_a_latency_in_units_is_felt_in_units_of_the_measured_forward():
    """Each message is on its way for as long as two forwards of a micro-batch take, predicted and measured alike."""
    settings = Settings(devices=2, microbatches=2, schedule="gpipe", latency=2)
    found, _ = measured(settings)
    plain = settings.timeline()
    forward = sum(s.duration for s in found.predicted.spans if s.slot.op == "F") / 4
    for timeline in (found.predicted, found.measured):
        assert all(m.arrived - m.sent > forward for m in timeline.messages)
        assert timeline.bubble_fraction == pytest.approx(plain.bubble_fraction, abs=0.15)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            Settings(devices=16, schedule="interleaved", chunks=4, microbatches=16),
            r"p \* v = 64 stages are more than the 48 layers",
        ),
        (Settings(microbatches=17), "a step of 272 sequences takes too long here; .* take m of at most 16"),
        (Settings(fixed="batch", batch=300), "a step of 300 sequences"),
    ],
)
def test_what_the_model_or_a_laptop_cannot_do_is_refused_before_anything_starts(settings, says):
    told = []
    with pytest.raises(ConfigurationError, match=says):
        measure(settings, told.append)
    assert told == []


@pytest.mark.parametrize("settings", [Settings(microbatches=16), Settings(fixed="batch", batch=64, microbatches=64)])
def test_what_can_be_run_is_not_refused(settings):
    assert require_runnable(settings) is None
    assert require_runnable(replace(settings, devices=16)) is None


def test_what_came_of_a_run_in_a_sentence():
    timeline = Settings().timeline()
    found = Measured(timeline, timeline, (4.25, 4.0), 3e-6, (1, 1, 1, 1))
    assert found.sentence == (
        "The 48-layer model trained for 2 steps, loss 4.250 → 4.000. Its gradients equal those of the unsplit model: "
        "largest error 3e-06 in float32."
    )


@pytest.mark.slow
def test_without_a_flush_the_weights_are_held_against_the_formula():
    found, told = measured(Settings(schedule="pipedream", devices=2, microbatches=4))
    assert found.gradient_error is None
    assert found.weight_error < 1e-4
    assert found.weight_versions == (2, 1)
    assert compare(found.predicted, found.measured).same_order
    assert len(told) == PIECES
    assert "After a drain its weights equal those that the schedule's formula gives" in found.sentence
