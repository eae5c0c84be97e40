"""The picture of a tuning: what is crossed out, where the wall is, what was chosen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelab import shortlist
from pipelab.tuning import Measurement
from pipelab.tuning.picture import plot_tuning
from tests.tuning.profiles import profile
from tests.view.scenes import axes_of, render


@pytest.fixture(scope="module")
def tuning():
    found = shortlist(profile(), 64, memory_limit="45MB", schedules=["naive", "gpipe", "1f1b", "interleaved"])
    few = {
        f.candidate: Measurement((f.makespan, 1.1 * f.makespan, 0.9 * f.makespan), f.memory) for f in found.fitting[:3]
    }
    return replace(found, measured=few)


@pytest.fixture(scope="module")
def picture(tuning):
    return plot_tuning(tuning)


def curves(axes):
    """The lines of families, by their number of points and values."""
    return [line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata()) > 1]


def test_each_family_is_a_line_in_both_panels_and_an_entry_of_the_legend(picture, tuning):
    families = {f.candidate.family for f in tuning.forecasts}
    legend = {text.get_text() for text in picture.legends[0].get_texts()}
    assert families <= legend and {"sweet spot", "measured", "memory limit 45.0 MB"} <= legend
    looks = {
        (line.get_color(), line.get_marker(), line.get_markerfacecolor())
        for line in picture.legends[0].get_lines()
        if line.get_label() in families
    }
    assert len({look[1:] for look in looks}) == len(families), "markers alone tell them apart"


def test_of_the_whole_catalogue_the_six_fastest_are_drawn():
    found = shortlist(profile(), 64, microbatches=[4, 8], memory_limit="60MB")
    picture = plot_tuning(found)
    shown = [line for line in picture.legends[0].get_lines() if str(line.get_marker()) not in ("None", "")]
    looks = {(line.get_marker(), line.get_markerfacecolor()) for line in shown}
    fastest = list(dict.fromkeys(f.candidate.schedule for f in found.fitting))[:6]
    drawn = {f.candidate.family for f in found.forecasts if f.candidate.schedule in fastest}
    assert {line.get_label() for line in shown} - {"sweet spot"} == drawn
    assert len(looks) == len(drawn) + 1
    assert "Drawn: the 6 fastest of 13 schedules" in " ".join(t.get_text() for t in picture.texts)
    test_everything_stays_on_the_page(picture)


def test_what_crosses_the_wall_is_crossed_out(picture, tuning):
    over = sum(f.excess is not None for f in tuning.forecasts)
    for panel in ("throughput", "memory"):
        crosses = [line for line in axes_of(picture, panel).lines if line.get_marker() == "x"]
        assert sum(len(line.get_xdata()) for line in crosses) == over > 0
    wall = next(line for line in axes_of(picture, "memory").lines if line.get_gid() == "wall")
    assert set(wall.get_ydata()) == {45e6}


def test_the_choice_m_star_and_4p_are_marked(picture, tuning):
    top = axes_of(picture, "throughput")
    ring = next(line for line in top.lines if line.get_gid() == "choice")
    assert ring.get_xdata()[0] == tuning.best.microbatches
    assert ring.get_ydata()[0] == pytest.approx(64 / tuning.seconds(tuning.best))
    for name, place in (("m*", tuning.best_microbatches), ("4p", 16)):
        rule = next(line for line in top.lines if line.get_gid() == name)
        assert rule.get_xdata()[0] == pytest.approx(place)


def test_what_was_measured_far_above_the_prediction_stays_in_the_picture(tuning):
    fast = {c: replace(m, seconds=tuple(x / 3 for x in m.seconds)) for c, m in tuning.measured.items()}
    top = axes_of(plot_tuning(replace(tuning, measured=fast)), "throughput")
    ring = next(line for line in top.lines if line.get_gid() == "choice")
    assert ring.get_ydata()[0] < top.get_ylim()[1] / 1.05


def test_limits_that_differ_are_drawn_as_parts():
    found = shortlist(profile(), 64, memory_limit=["100MB"] * 3 + ["25MB"], schedules=["gpipe", "1f1b"])
    low = axes_of(plot_tuning(found), "memory")
    wall = next(line for line in low.lines if line.get_gid() == "wall")
    assert set(wall.get_ydata()) == {1.0} and "% of its limit" in low.get_ylabel()
    fits = {f.candidate.microbatches for f in found.fitting if f.candidate.family == "1f1b"}
    line = next(x for x in low.lines if x.get_marker() == "o" and x.get_markerfacecolor() == x.get_color())
    assert all((y <= 1) == (m in fits) for m, y in zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_a_wall_far_away_does_not_flatten_the_curves():
    picture = plot_tuning(shortlist(profile(), 64, memory_limit="80GiB"))
    low = axes_of(picture, "memory")
    assert low.get_ylim()[1] < 1e9 and not [line for line in low.lines if line.get_gid() == "wall"]
    assert "memory limit 85.9 GB (far above)" in {t.get_text() for t in picture.legends[0].get_texts()}


def test_words_say_the_clock_what_is_fixed_and_the_values(picture, tuning):
    text = " ".join(t.get_text() for t in picture.texts)
    assert "Fixed batch of 64 sequences, p = 4" in text and "Clock: device" in text
    assert f"Sweet spot: {tuning.best}" in picture.alt and "(too much) at" in picture.alt


def test_everything_stays_on_the_page(picture):
    render(picture)
    page = picture.bbox
    for text in [*picture.texts, *picture.legends[0].get_texts()]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= page.x1 and box.y0 >= 0 and box.y1 <= page.y1, text.get_text()


def test_without_a_limit_or_a_measurement_there_is_neither():
    free = plot_tuning(shortlist(profile(), 64))
    legend = {text.get_text() for text in free.legends[0].get_texts()}
    assert "measured" not in legend and not any("limit" in text for text in legend)
    assert not [line for line in axes_of(free, "memory").lines if line.get_gid() == "wall"]
