import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError, FlowError, PipelabError, ScheduleError, ScheduleParseError, StageError
from pipelab.errors import whole_number
from pipelab.schedules import Schedule, build_schedule, check_schedule


class Counts:
    """An integer of another library, as numpy's and torch's are: not an int, but good as an index."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        if int(self.value) != self.value:
            raise TypeError("only whole tensors of a single element can be converted to an index")
        return int(self.value)


@pytest.mark.parametrize("error", [ConfigurationError, FlowError, ScheduleError, ScheduleParseError, StageError])
def test_everything_raised_on_purpose_can_be_caught_at_once(error):
    assert issubclass(error, PipelabError)


def test_what_went_wrong_is_also_pythons_own_kind_of_error():
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(ScheduleError, ValueError)
    assert issubclass(StageError, RuntimeError)


# ---- whole numbers ---------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**12))
def test_a_whole_number_is_taken_as_it_is(value):
    assert whole_number("devices", "p", value) == value


def test_the_integers_of_other_libraries_are_taken_as_ints():
    taken = whole_number("devices", "p", Counts(4))
    assert taken == 4
    assert type(taken) is int


@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        (0, 1),
        (-1, 1),
        (Counts(0), 1),
        (2.5, 2),
        (4.0, 4),
        (3.9, 4),
        (0.2, 1),
        (True, 1),
        (False, 1),
        ("4", 4),
        ("four", 1),
        (None, 1),
        (float("nan"), 1),
        (float("inf"), 1),
        ([4], 1),
    ],
)
def test_what_is_no_whole_number_of_at_least_1_is_refused_with_the_nearest(value, nearest):
    with pytest.raises(ConfigurationError) as caught:
        whole_number("microbatches", "m", value)
    shown = value.value if isinstance(value, Counts) else value
    assert str(caught.value) == (
        f"microbatches (m) must be a whole number of at least 1, got {shown!r}; try {nearest}"
    )  # fmt: skip


def test_a_number_that_turns_out_not_to_be_whole_is_refused_in_the_same_words():
    """A torch tensor of 2.5 has ``__index__``, which raises only when it is asked."""
    with pytest.raises(ConfigurationError, match=r"devices \(p\) must be a whole number"):
        whole_number("devices", "p", Counts(2.5))


# ---- refused schedules -----------------------------------------------------------------------------------------------


def violations_of(text):
    return check_schedule(Schedule.from_csv(text))


def test_a_refused_schedule_says_why_and_carries_the_reasons():
    violations = violations_of("0B0,0F0\n")
    error = ScheduleError.refuse("mine", violations)
    assert error.violations == tuple(violations)
    assert str(error).startswith("schedule 'mine' cannot run, the checker found 1 violation:\n  [order] ")


def test_of_many_reasons_the_first_are_told_and_the_others_counted():
    sound = build_schedule("gpipe", devices=2, microbatches=6)
    violations = check_schedule(replace(sound, programs=tuple(row[::-1] for row in sound.programs)))
    assert len(violations) == 12
    error = ScheduleError.refuse("gpipe", violations)
    assert "found 12 violations" in str(error)
    assert str(error).count("[order]") == 8
    assert "... and 4 more (check_schedule lists all)" in str(error)
    assert len(error.violations) == 12


# ---- from one process to another -------------------------------------------------------------------------------------


def same(error):
    return pickle.loads(pickle.dumps(error))


def test_a_refusal_crosses_to_another_process_with_its_reasons():
    error = ScheduleError.refuse("mine", violations_of("0B0,0F0\n"))
    assert str(same(error)) == str(error)
    assert same(error).violations == error.violations


def test_a_parse_error_crosses_to_another_process_with_its_place():
    """An exception that cannot be unpickled hangs the pool that it should have stopped."""
    error = ScheduleParseError("'f' is not an action", 1, 2, "f")
    assert str(same(error)) == str(error)
    assert (same(error).row, same(error).column, same(error).token) == (1, 2, "f")
