"""An error crosses to another process as the same type and sentence."""

import pickle

import pytest

from pipelab.errors import ConfigurationError, ScheduleError, StageError
from pipelab.runtime.device.worker import stage_error
from pipelab.runtime.processes.errors import CarriedError
from pipelab.schedules import Schedule, check_schedule
from pipelab.schedules.action import Action


def over(error):
    return pickle.loads(pickle.dumps(CarriedError.of(error))).rebuild(1)


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_sentence_stays_a_sentence():
    found = over(raised(ConfigurationError("m must be 4; try 4")))
    assert type(found) is ConfigurationError
    assert str(found) == "m must be 4; try 4"
    assert not getattr(found, "__notes__", None), "no traceback of another process under it"


def test_violations_travel():
    unsound = Schedule.from_csv("0F0\n1F0,1B0\n")
    violations = check_schedule(unsound)
    found = over(raised(ScheduleError.refuse("it", violations)))
    assert [str(v) for v in found.violations] == [str(v) for v in violations]


@pytest.mark.parametrize("original", [ZeroDivisionError("nought"), KeyError("k"), RuntimeError("boom")])
def test_a_stage_error_keeps_type_place_and_cause(original):
    made = stage_error(original, 2, Action.parse("5B3"))
    made.__cause__ = raised(original)
    found = over(made)
    assert isinstance(found, StageError)
    assert isinstance(found, type(original))
    assert (found.device, found.stage, found.action, found.microbatch) == (2, 5, "5B3", 3)
    assert type(found.__cause__) is type(original)
    assert "In the process of device 2" in found.__cause__.__notes__[0]
    assert "raise error" in found.__cause__.__notes__[0], "the line that raised"


def test_what_was_heard_is_passed_on_as_it_was_said():
    once = CarriedError.of(raised(ZeroDivisionError("nought")))
    twice = CarriedError.of(once.rebuild(1))
    assert not once.echo
    assert twice.echo
    assert twice.trace == once.trace
