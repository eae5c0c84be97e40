"""The picture shows each step: utilisation, the bubble in parts, its time."""

from __future__ import annotations

import pytest

from pipelab import ConfigurationError, Monitor, plot_monitor
from pipelab.tuning.monitor.picture import plot_recovery
from tests.tuning.monitor.watched import after
from tests.view.scenes import axes_of, render


@pytest.mark.parametrize("clock", ["device", "wall"])
def test_it_shows_every_step_that_is_kept(clock):
    monitor = after(3, clock=clock)
    picture, steps = plot_monitor(monitor), monitor.history()
    render(picture)
    lines = axes_of(picture, "utilisation").lines
    assert [list(line.get_ydata()) for line in lines] == [
        list(u) for u in zip(*(s.utilisation for s in steps), strict=True)
    ]
    bars = axes_of(picture, "bubble").containers
    heights = [sum(group[k].get_height() for group in bars) for k in range(3)]
    assert heights == pytest.approx([step.bubble for step in steps], abs=0.003)
    assert list(axes_of(picture, "seconds").lines[0].get_ydata()) == [step.seconds for step in steps]
    assert f"1f1b, steps 0 to 2, {clock} clock." in picture.alt
    assert "device 2 is busy" in picture.alt and "fill and drain" in picture.alt


def test_a_recovery_shows_step_times_both_losses_and_what_happened():
    seconds, losses, whole = [1.0, 2.0, 2.0, 1.2], [3.0, 2.5, 2.0, 1.5], [3.0, 2.5, 2.0, 1.25]
    marks = {"slow": 1, "moved": 3, "moved after the last step": 4}
    picture = plot_recovery(seconds, losses, whole, marks, title="A run")
    render(picture)
    top, low = axes_of(picture, "seconds"), axes_of(picture, "loss")
    assert list(top.lines[0].get_ydata()) == seconds
    assert [list(line.get_ydata()) for line in low.lines[:2]] == [whole, losses]
    for axes in (top, low):
        assert [line.get_xdata()[0] for line in axes.lines[-2:]] == [0.5, 2.5]
    assert [text.get_text() for text in top.texts] == ["slow", "moved"]
    assert picture.alt == (
        "A run. slow from step 1 on, moved from step 3 on. A step takes 1.000 s at step 0, 2.000 s at step 1, 1.200 s "
        "at step 3. Step time by the device clock. The two losses differ by at most 2.5e-01."
    )


def test_before_the_first_step_it_says_what_to_do():
    with pytest.raises(ConfigurationError, match="no step with measured costs was observed: call step"):
        plot_monitor(Monitor())
    with pytest.raises(ConfigurationError, match="without measure_costs=False"):
        plot_monitor(after(1, measure_costs=False))
