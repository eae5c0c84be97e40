import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab import ConfigurationError, explore
from pipelab.teaching.explorer.code import line
from pipelab.teaching.explorer.curves import AGAINST
from pipelab.teaching.explorer.figures import FIGURES
from pipelab.teaching.explorer.settings import CONTROLS

from .states import anything


def opened_by(code):
    return eval(code, {"explore": explore})


def state(explorer):
    shown = json.loads(explorer.view)
    names = [one["name"] for one in shown["controls"]]
    return explorer.settings, names, shown["curve"]["figure"], shown["curve"]["against"], shown["preset"]


@settings(max_examples=20)
@given(
    anything(max_p=4, max_m=8),
    st.none() | st.lists(st.sampled_from(sorted(CONTROLS)), max_size=3, unique=True),
    st.sampled_from(sorted(FIGURES)),
    st.none() | st.sampled_from(AGAINST),
)
def test_the_line_opens_an_explorer_that_shows_the_same(shown, free, figure, against):
    given = {name: getattr(shown, name) for name in CONTROLS}
    try:
        first = explore(given.pop("schedule"), free=free, curve=figure, against=against, **given)
    except ConfigurationError:
        return
    assert state(opened_by(first.code)) == state(first)
    assert opened_by(first.code).code == first.code


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({}, 'explore("1f1b")'),
        ({"free": ["m"]}, 'explore("1f1b", free=["m"])'),
        (
            {"schedule": "gpipe", "m": 8, "fixed": "batch", "compare": "1f1b", "free": ["m"], "curve": "held"},
            'explore("gpipe", m=8, fixed="batch", compare="1f1b", free=["m"], curve="held")',
        ),
        ({"limit": "60MB", "tB": 2, "against": "p"}, 'explore("1f1b", tB=2, limit=60, against="p")'),
    ],
)
def test_the_line_tells_what_is_not_as_usual_and_no_more(arguments, code):
    assert explore(**arguments).code == code


def test_the_line_follows_what_is_turned():
    explorer = explore("gpipe", free=["m"])
    explorer.set(m=6)
    assert opened_by(explorer.code).settings == explorer.settings
    assert json.loads(explorer.view)["code"] == explorer.code == 'explore("gpipe", m=6, free=["m"])'


def test_settings_that_cannot_be_leave_the_line_of_the_picture():
    explorer = explore("interleaved", m=8)
    explorer.set(m=9)  # no two equal groups
    assert explorer.problem is not None
    assert opened_by(explorer.code).settings.microbatches == 8


def test_a_line_without_anything_free_is_a_preset_too():
    assert line(explore().settings, [], "bubble", "microbatches") == 'explore("1f1b", free=[])'
