import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, PipelabError, ScheduleError, check_schedule
from pipelab.schedules import actions_of, recipes
from pipelab.teaching.explorer import Settings
from pipelab.teaching.explorer.settings import CONTROLS, choices, control, explored, normalised, require_names

from .states import anything, even

NUMBERS = [one for one in CONTROLS.values() if one.kind in ("whole", "number")]
DAMAGED = ["", None, "abc", math.nan, math.inf, -math.inf, 1e99, True, 10**400, -(10**400), [], {}, "1e400", 2j]

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.sampled_from([10**400, -(10**400), 1e99, "nan", "12", "1f1b", "1F1B", "batch"]),
)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "name"),
    [("m", "microbatches"), ("p", "devices"), ("v", "chunks"), ("w", "warmup"), ("tF", "forward"), ("tB", "backward"),
     ("tI", "input_gradient"), ("alpha", "overhead"), ("L", "latency"), ("B", "batch"), ("limit", "limit"),
     ("hold", "fixed"), ("recompute", "recompute")],
)  # fmt: skip
def test_a_control_goes_by_its_name_or_its_symbol(given, name):
    assert control(given) is control(name) is CONTROLS[name]


@pytest.mark.parametrize(
    ("typed", "meant"), [("microbatch", "microbatches"), ("devcies", "devices"), ("overhed", "overhead"), ("tb", "tB")]
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(typed, meant):
    with pytest.raises(ConfigurationError, match=rf"no control '{typed}'; the controls are .*did you mean '{meant}'\?"):
        control(typed)


def test_symbols_are_spelled_out():
    assert require_names({"m": 3, "p": 2, "limit": None}) == {"microbatches": 3, "devices": 2, "limit": None}
    with pytest.raises(ConfigurationError, match="no control 'xyz'"):
        require_names({"xyz": 3})


def test_every_schedule_of_the_catalogue_can_be_chosen_and_compared_with():
    assert {name for name, _ in choices("schedule")} == set(recipes())
    assert choices("compare") == [("", "nothing"), *choices("schedule")]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"schedule": "1f1"}, r"Schedule cannot be '1f1'; it can be naive, gpipe, .*did you mean '1f1b'\?"),
        ({"compare": "gpip"}, r"Compare with cannot be 'gpip'.*did you mean 'gpipe'\?"),
        (
            {"fixed": "batches"},
            r"What is fixed cannot be 'batches'; it can be batch, microbatch; did you mean 'batch'\?",
        ),
        ({"schedule": None}, "Schedule cannot be 'None'"),
        ({"schedule": 10**400}, "Schedule cannot be 'a int'"),
        ({"mircobatches": 3}, "did you mean 'microbatches'"),
    ],
)
def test_a_choice_or_a_name_that_there_is_not_is_refused(values, says):
    with pytest.raises(ConfigurationError, match=says):
        normalised(Settings(), values)


# ---- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "name", "becomes", "said"),
    [
        ({"m": 500}, "microbatches", 128, "Micro-batches m takes values from 1 to 128: 500 became 128."),
        ({"m": 0}, "microbatches", 1, "Micro-batches m takes values from 1 to 128: 0 became 1."),
        ({"p": 3.6}, "devices", 4, "Devices p takes whole numbers from 1 to 16: 3.6 became 4."),
        ({"tB": -1}, "backward", 0.1, "Backward tB takes values from 0.1 to 10: -1 became 0.1."),
        ({"w": -20}, "warmup", -8, "Warm-up: p - 1 - r plus takes values from -8 to 8: -20 became -8."),
        ({"m": "abc"}, "microbatches", 4, "Micro-batches m needs a number from 1 to 128, not 'abc'; it stays 4."),
        ({"m": True}, "microbatches", 4, "Micro-batches m needs a number from 1 to 128, not 'True'; it stays 4."),
        ({"limit": -3}, "limit", None, "Limit on activations alone must be above 0; now there is no limit."),
        ({"recompute": "no"}, "recompute", False, "Recompute forwards (R) must be on or off; a str was ignored."),
    ],
)  # fmt: skip
def test_a_value_out_of_range_becomes_the_nearest_and_a_sentence_says_so(values, name, becomes, said):
    settings, words = normalised(Settings(), values)
    assert getattr(settings, name) == becomes
    assert words == said


@pytest.mark.parametrize(
    ("values", "name", "becomes"),
    [({"m": "8"}, "microbatches", 8), ({"m": 8.0}, "microbatches", 8), ({"limit": ""}, "limit", None),
     ({"limit": "60"}, "limit", 60), ({"schedule": "GPipe"}, "schedule", "gpipe"), ({"compare": None}, "compare", ""),
     ({"recompute": 1}, "recompute", True)],
)  # fmt: skip
def test_what_is_in_range_is_taken_without_a_word(values, name, becomes):
    settings, words = normalised(Settings(), values)
    assert (getattr(settings, name), words) == (becomes, "")


@pytest.mark.parametrize("value", DAMAGED, ids=lambda value: repr(value)[:9])
@pytest.mark.parametrize("one", NUMBERS, ids=lambda one: one.name)
def test_a_damaged_value_leaves_the_number_in_its_range_and_whole_where_it_has_to_be(one, value):
    settings, said = normalised(Settings(limit=20.0), {one.name: value})
    after = getattr(settings, one.name)
    assert said or (one.optional and value in ("", None))
    if after is None:
        assert one.optional
        return
    assert one.low <= after <= one.high
    assert isinstance(after, int) or one.kind == "number"


@given(st.dictionaries(st.sampled_from(sorted(CONTROLS)), junk))
def test_whatever_is_put_in_the_result_is_in_range_or_it_is_refused_with_a_sentence(values):
    try:
        settings, _ = normalised(Settings(), values)
    except ConfigurationError as refused:
        assert len(str(refused)) < 400
        return
    assert normalised(settings, {name: getattr(settings, name) for name in CONTROLS}) == (settings, "")


# ---- what settings mean ----------------------------------------------------------------------------------------------


def test_what_is_fixed_is_the_microbatch_or_the_batch():
    settings = Settings(microbatches=8)
    assert settings.sequences == 128
    assert replace(settings, fixed="batch", batch=48).sequences == 48


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(microbatches=12, fixed="batch"), "m = 12 cuts it into micro-batches of 5 or 6."),
        (Settings(microbatches=3), "The micro-batch of 16 sequences is fixed: m = 3 of them make a batch of 48."),
        (Settings("naive", fixed="batch"), "is fixed. The naive pipeline runs the whole batch of 64 at once."),
        (Settings("naive", microbatches=2), "is fixed. The naive pipeline runs the whole batch of 32 at once."),
    ],
)
def test_the_sizes_are_said_in_words(settings, says):
    assert settings.sizes.endswith(says)


@pytest.mark.parametrize("name", explored())
def test_chunks_count_only_for_schedules_that_have_them(name):
    settings = Settings(schedule=name, microbatches=8, chunks=3)
    assert settings.v == settings.build().stages / 4 == (recipes()[name].chunks or 3)


def test_the_other_schedule_has_the_same_numbers_and_its_own_warm_up():
    settings = Settings(compare="gpipe", warmup=2, latency=0.5)
    assert settings.other() == Settings(schedule="gpipe", latency=0.5)
    assert Settings().other() is None


def test_more_microbatches_than_sequences_are_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"batch of 8 sequences cannot be cut into m = 12.*try m = 8"):
        Settings(fixed="batch", batch=8, microbatches=12).build()


@given(anything(max_p=5, max_m=16))
def test_whatever_can_be_built_is_sound(settings):
    try:
        schedule = settings.build()
    except (ConfigurationError, ScheduleError):
        return
    assert check_schedule(schedule) == []
    assert schedule.devices == settings.devices
    assert ("R" in schedule.ops) == settings.recompute


@given(anything(max_p=5, max_m=16))
def test_a_timeline_is_in_units_and_knows_batch_and_bytes(settings):
    try:
        timeline = settings.timeline()
    except PipelabError:
        return
    assert timeline.unit == "units"
    assert sum(timeline.schedule.weights) * timeline.sequences == pytest.approx(settings.sequences * settings.steps)
    assert len(timeline.peak_bytes) == settings.devices
    assert min(timeline.peak_bytes) > 0


@given(even(max_p=4, max_m=8))
def test_an_action_takes_alpha_and_its_share_of_the_work(settings):
    """alpha + t b / 16 on a full share, 1/v of it for a chunk; a recomputation costs a forward."""
    timeline = settings.timeline()
    b = settings.sequences * settings.steps / timeline.schedule.microbatches
    tI, tW = settings.halves
    work = {"F": settings.forward, "R": settings.forward, "B": settings.backward, "I": tI, "W": tW}
    for span in timeline.spans:
        expected = sum((settings.overhead + work[a.op] * b / 16) / settings.v for a in actions_of(span.slot))
        assert span.duration == pytest.approx(expected)


def test_i_and_w_take_half_of_a_backward_each_unless_they_are_told():
    assert Settings(backward=3).halves == (1.5, 1.5)
    assert Settings(backward=3, input_gradient=1).halves == (1, 1.5)
    assert normalised(Settings(input_gradient=1), {"tI": ""})[0].halves == (0.5, 0.5)
    assert normalised(Settings(), {"tW": "x"})[1].endswith("it stays tB / 2.")


def test_a_warm_up_is_added_to_1f1bs_own():
    row = Settings(devices=3, microbatches=6, warmup=1).build().programs[0]
    assert "".join(action.op for action in row) == "FFFFBFBFBBBB"
    assert Settings(warmup=2, schedule="gpipe").build() == Settings(schedule="gpipe").build()


def test_bytes_are_those_that_the_48_layer_model_was_measured_with():
    """p = m = 4, 1F1B: 76.3, 57.2, 38.1 and 19.1 MB were measured once; the first stage holds a little less."""
    peaks = Settings().timeline().peak_bytes
    assert peaks[0] / peaks[3] == pytest.approx(4, rel=0.02)
    assert 60e6 < peaks[0] < 130e6
