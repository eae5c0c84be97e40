from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelab import PipelabError
from pipelab.teaching.explorer import Settings, figures
from pipelab.teaching.explorer.figures import FIGURES, over_limit, shown, value_of
from pipelab.teaching.explorer.settings import WAITING

from .states import anything, even

OF_A_KIND = ("idle", "long run", "versions")


def by_name(settings):
    return {figure.name: figure for figure in figures(settings, settings.timeline())}


def off(figure):
    """Whether formula and simulation differ."""
    return figure.expected is not None and figure.expected != pytest.approx(figure.simulated, rel=1e-6, abs=1e-6)


# ---- formula and simulation ------------------------------------------------------------------------------------------


@given(even())
def test_the_formulas_say_what_the_simulation_finds_where_they_are_meant_to(settings):
    found = {f.name: f for f in figures(settings, settings.timeline(), beside=Settings("zb-h1"))}
    with_formula = {name for name, figure in found.items() if figure.formula}
    without = {"makespan", "bubble", "idle", "held"} if settings.schedule in ("v-half", "v-min") else set()
    assert with_formula >= {"makespan", "bubble", "idle", "held", "messages"} - without
    for name in with_formula - {"long run"}:
        assert found[name].expected == pytest.approx(found[name].simulated, rel=1e-9, abs=1e-9)
        assert found[name].note == ""


@given(anything(max_p=6, max_m=24, compare="", limit=None))
def test_where_a_formula_does_not_say_what_was_found_a_note_says_why(settings):
    try:
        found = figures(settings, settings.timeline())
    except PipelabError:
        assume(False)
    for figure in found:
        assert bool(figure.note) == off(figure)


@pytest.mark.parametrize(
    ("settings", "names", "note"),
    [
        (Settings(latency=0.5), {"makespan", "bubble"}, "the formula assumes messages that take no time"),
        (
            Settings(microbatches=12, fixed="batch", batch=64),
            {"makespan", "bubble", "held"},
            "the formula assumes micro-batches of one size",
        ),
        (Settings(microbatches=8, warmup=2), {"held"}, "the formula assumes a warm-up of p - 1 - r"),
        (Settings(schedule="interleaved", microbatches=10), {"held"}, "the formula assumes m a multiple of p"),
        (Settings(schedule="interleaved", microbatches=3), {"makespan", "bubble"}, "the formula assumes m a multiple"),
        (
            Settings("zb-h1", microbatches=8, weight_gradient=2),
            {"makespan", "bubble", "idle"},
            "the formula assumes tW of",
        ),
        (Settings("zb-v", microbatches=8), {"makespan", "bubble", "idle"}, "the formula assumes tF = tI = tW"),
        (Settings("chimera", backward=2), {"makespan", "bubble"}, "the formula assumes tF = tB"),
        (
            Settings(microbatches=8, warmup=-1, latency=1),
            {"makespan", "bubble", "held"},
            "the formula assumes a warm-up of p - 1 - r",
        ),
    ],
    ids=[
        "latency",
        "uneven",
        "deeper",
        "groups of five",
        "one small group",
        "long W",
        "unequal",
        "both ways",
        "shallower and latency",
    ],
)
def test_what_a_formula_is_not_for(settings, names, note):
    noted = {figure.name: figure.note for figure in by_name(settings).values() if figure.note}
    assert noted.keys() == names
    assert all(said.startswith(note) for said in noted.values())


def test_two_reasons_are_told_together():
    [note] = {f.note for f in by_name(Settings(warmup=-1, microbatches=8, latency=1)).values() if f.name == "makespan"}
    assert note == "the formula assumes a warm-up of p - 1 - r and messages that take no time"


# ---- the figures -----------------------------------------------------------------------------------------------------


def test_the_worked_example():
    found = by_name(Settings(microbatches=8))
    assert found["makespan"].simulated == 22
    assert found["bubble"].simulated == pytest.approx(100 * 3 / 11)
    assert found["rate"].simulated == pytest.approx(128 / 22)
    assert found["held"].simulated == 64
    assert found["messages"].simulated == 48
    assert (found["bubble"].unit, found["bubble"].formula) == ("%", "(p - 1) / (m + p - 1)")


@pytest.mark.parametrize(
    ("name", "makespan", "bubble", "messages"),
    [("naive", 32, 3 / 4, 6), ("gpipe", 14, 3 / 7, 24), ("1f1b", 14, 3 / 7, 24), ("interleaved", 11, 3 / 11, 56)],
)
def test_at_p_4_m_4_the_formulas_give_the_figures_of_the_course(name, makespan, bubble, messages):
    expected = {name: figure.expected for name, figure in by_name(Settings(schedule=name)).items()}
    assert expected["makespan"] == pytest.approx(makespan)
    assert expected["bubble"] == pytest.approx(100 * bubble)
    assert expected["messages"] == messages


def test_recomputation_has_a_formula_of_its_own():
    plain, again = (by_name(Settings(schedule="gpipe", recompute=recompute)) for recompute in (False, True))
    assert again["bubble"].formula != plain["bubble"].formula
    assert again["bubble"].expected < plain["bubble"].expected
    assert again["memory"].simulated < plain["memory"].simulated / 2


def test_where_there_is_no_formula_nothing_is_expected():
    found = by_name(Settings())
    assert {name for name, figure in found.items() if figure.expected is None} == {"rate", "memory"}
    assert [figure.name for figure in found.values()] == [name for name in FIGURES if name not in OF_A_KIND]
    both = figures(Settings(schedule="zb-h1"), Settings(schedule="zb-h1").timeline(), Settings(schedule="2bw"))
    assert [figure.name for figure in both] == list(FIGURES)


@given(even(max_p=4, max_m=8), st.sampled_from(sorted(FIGURES)))
def test_one_figure_alone_is_the_same_as_among_all(settings, name):
    found = by_name(settings)
    if name in OF_A_KIND and name not in found:
        return
    assert value_of(name, settings, settings.timeline()) == found[name].simulated


def test_at_a_fixed_batch_gpipe_needs_the_same_memory_whatever_m_and_1f1b_less_and_less():
    def needs(name):
        states = [Settings(schedule=name, fixed="batch", batch=64, microbatches=m) for m in (4, 8, 16)]
        return [value_of("memory", settings, settings.timeline()) for settings in states]

    assert needs("gpipe") == pytest.approx([needs("gpipe")[0]] * 3, rel=0.1)
    one, two, three = needs("1f1b")
    assert two < 0.6 * one
    assert three < 0.6 * two


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(27.2727, "%", "27.3%"), (14.0, "units", "14"), (0.0253123, "", "0.02531"), (123456.0, "", "123456"),
     (None, "", "–")],
)  # fmt: skip
def test_values_are_shown_with_the_digits_that_count(value, unit, text):
    assert shown(value, unit) == text


# ---- the memory limit ------------------------------------------------------------------------------------------------


def test_without_a_limit_everything_fits():
    assert over_limit(Settings(), Settings().timeline()) == ""


def test_the_fullest_device_is_named_with_what_it_would_hold_and_what_is_allowed():
    settings = Settings(microbatches=8, limit=60)
    said = over_limit(settings, settings.timeline())
    peaks = settings.timeline().peak_bytes
    assert peaks[1] > 60e6 > peaks[2]
    assert said == (
        f"Out of memory under 1F1B: device 0 would hold {peaks[0] / 1e6:.1f} MB of activations, and the limit on "
        "activations is 60.0 MB. 1 other device is over it too."
    )
    assert "2 other devices are over it too" in over_limit(replace(settings, limit=30), settings.timeline())


@given(even(max_p=4, max_m=8), st.sampled_from([5.0, 20.0, 40.0, 80.0]))
def test_a_limit_is_told_just_where_it_is_crossed(settings, limit):
    timeline = settings.timeline()
    crossed = max(timeline.peak_bytes) > limit * 1e6
    assert bool(over_limit(replace(settings, limit=limit), timeline)) == crossed


# ---- without a flush -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "versions"), [("pipedream", 4), ("vertical-sync", 4), ("2bw", 2)])
@pytest.mark.parametrize("m", [1, 4, 8])
def test_without_a_flush_the_bubble_goes_and_versions_come(name, versions, m):
    if name == "2bw" and m < 4:
        return
    settings = Settings(schedule=name, microbatches=m)
    found = by_name(settings)
    assert (found["long run"].simulated, found["versions"].simulated) == (0, versions)
    assert found["bubble"].simulated == pytest.approx(100 * 3 / (settings.steps * m + 3))
    assert (found["held"].simulated, found["messages"].simulated) == (64, 6 * m)
    assert all(figure.expected == pytest.approx(figure.simulated) for figure in found.values() if figure.formula)


def test_a_schedule_that_flushes_has_its_bubble_in_every_step_and_one_version():
    found = {f.name: f for f in figures(Settings(), Settings().timeline(), Settings(schedule="2bw"))}
    assert found["long run"].simulated == found["bubble"].simulated
    assert found["versions"].simulated == 1


# ---- a backward in two -----------------------------------------------------------------------------------------------


def test_the_bubble_is_filled_with_w_as_the_papers_say():
    """p = 4, m = 8 and equal costs: the figures of README's table, 1F1B's bubble (p - 1)(tF + tI + tW) beside them."""

    def figure(name, which):
        return by_name(Settings(schedule=name, microbatches=8, backward=2))[which]

    for name, makespan, idle in (("zb-h1", 27, 3), ("zb-h2", 27, 0), ("zb-v", 25.5, 0)):
        for which, value in (("makespan", makespan), ("idle", idle)):
            assert (figure(name, which).expected, figure(name, which).simulated) == (value, value)
    assert figure("1f1b", "makespan").simulated == 33


def test_memory_counts_what_is_kept_from_i_to_w():
    """1F1B's last device holds one micro-batch; under ZB-H1 four wait there for their W, with gradients."""
    plain, split = (Settings(schedule=name, microbatches=8).timeline().peak_bytes for name in ("1f1b", "zb-h1"))
    assert split[3] / plain[3] == pytest.approx(4 * WAITING, rel=0.02)
