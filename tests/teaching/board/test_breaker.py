from __future__ import annotations

import json
import re
from functools import partial

import pytest

from pipelab import ConfigurationError, Schedule, ScheduleError, break_schedule, build_schedule
from pipelab.models import TransformerLM
from pipelab.schedules import format_slot
from pipelab.teaching.board import early_spots
from pipelab.teaching.design import trial
from tests import tables


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_model(monkeypatch):
    """What a run trains: 4 layers in place of 48."""
    model = partial(TransformerLM, layers=4, width=8, heads=2)
    monkeypatch.setattr(trial, "try_schedule", partial(trial.try_schedule, batch=8, model=model))


def told(breaker):
    return json.loads(breaker.view)


def said(breaker, do, **message):
    """A message as the browser sends it; the sentence of the answer, or None."""
    sent = []
    breaker.send = lambda content, buffers=None: sent.append(content)
    breaker._received(None, {"id": "1", "do": do, **message}, [])
    assert "Traceback" not in json.dumps(sent)
    assert sent[-1]["answers"] == "1"
    return sent[-1].get("said")


def at(breaker, token):
    """(device, position) of an action of the sound schedule."""
    [place] = [
        (r, k) for r, row in enumerate(breaker.schedule.programs) for k, s in enumerate(row) if format_slot(s) == token
    ]
    return place


# ---- breaking --------------------------------------------------------------------------------------------------------


def test_it_begins_whole():
    view = told(break_schedule("1f1b", 3, 3))
    assert (view["whole"], view["sound"], view["hangs"], view["place"]) == (True, True, False, None)
    assert len(view["scenes"]) == 1
    assert view["violations"] == []
    assert [len(row) for row in view["actions"]] == [6, 6, 6]


def test_an_action_that_is_dropped_leaves_others_waiting_for_ever():
    breaker = break_schedule("1f1b", 3, 3)
    device, position = at(breaker, "1F1")
    assert said(breaker, "break", way="drop", device=device, position=position) is None
    view = told(breaker)
    assert (view["whole"], view["sound"], view["hangs"], view["place"]) == (False, False, True, [1, 1])
    assert view["said"] == "1F1 is left out on device 1."
    assert view["sentences"][0].startswith("The step never ends")
    assert any("2F1" in sentence for sentence in view["sentences"])
    assert view["violations"]
    assert len(view["scenes"]) == 2
    assert view["scenes"][1]["title"].endswith("as far as it runs")


def test_two_that_are_swapped_may_be_harmless():
    breaker = break_schedule("1f1b", 2, 3).swap(*at(break_schedule("1f1b", 2, 3), "0F0"))
    assert breaker.consequence.sound
    assert told(breaker)["said"] == "0F0 and 0F1 have changed places on device 0."
    assert told(breaker)["hangs"] is False


def test_one_that_starts_early_computes_from_what_is_not_there():
    breaker = break_schedule("gpipe", 2, 2)
    device, position = at(breaker, "1F0")
    assert told(breaker)["actions"][device][position] == ["1F0", True, True]
    breaker.start_early(device, position)
    assert not breaker.consequence.sound
    assert "would compute from an input that is not there yet" in told(breaker)["sentences"][0]
    assert told(breaker)["said"] == "1F0 now starts one column early on device 1."


def test_the_page_marks_what_can_be_started_early_and_what_can_be_swapped():
    breaker = break_schedule("1f1b", 3, 4)
    early = set(early_spots(breaker.schedule))
    for r, row in enumerate(told(breaker)["actions"]):
        assert [entry[1] for entry in row] == [(r, k) in early for k in range(len(row))]
        assert [entry[2] for entry in row] == [True] * (len(row) - 1) + [False]


def test_each_break_is_made_in_the_sound_schedule_anew():
    breaker = break_schedule("1f1b", 2, 2)
    breaker.drop(1, 0)
    breaker.drop(0, 0)
    assert breaker.table.programs[1] == breaker.schedule.programs[1]
    assert len(breaker.table.programs[0]) == 3


def test_reset_makes_it_whole_again():
    breaker = break_schedule("1f1b", 2, 2)
    whole = {**told(breaker), "said": "This is the sound schedule again."}
    breaker.drop(1, 0)
    assert said(breaker, "reset") is None
    assert told(breaker) == whole
    assert breaker.table is breaker.schedule


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (
            {"way": "burn", "device": 0, "position": 0},
            "there is no way 'burn' to break it; there are drop, swap, early",
        ),
        ({"device": 0, "position": 0}, "there is no way 'None' to break it.*"),
        ({"way": "drop", "device": 5, "position": 0}, r"there is no device 5; devices are 0\.\.1"),
        ({"way": "drop", "device": 0, "position": -1}, "device 0 has no position -1.*"),
        ({"way": "swap", "device": 0, "position": 3}, "0B1 is the last action of device 0.*"),
        ({"way": "early", "device": 0, "position": 0}, "0F0 starts at t = 0 on device 0.*try 0B0.*"),
        ({"way": "drop", "device": "x", "position": 0}, "That was not understood: .*"),
        ({"way": "drop", "position": 0}, "That was not understood: .*"),
    ],
)
def test_a_place_that_there_is_not_is_answered_and_changes_nothing(message, says):
    breaker = break_schedule("gpipe", 2, 2)
    view = breaker.view
    assert re.fullmatch(says, said(breaker, "break", **message))
    assert breaker.view == view
    with pytest.raises(ConfigurationError, match="no device 5"):
        breaker.drop(5, 0)


def test_what_is_not_sound_to_begin_with_is_refused_with_the_checkers_words():
    with pytest.raises(ScheduleError, match="1B0"):
        break_schedule(Schedule.from_csv("0F0,0B0\n1B0,1F0\n"))
    with pytest.raises(ConfigurationError, match="did you mean '1f1b'"):
        break_schedule("1f1")


@pytest.mark.parametrize("name", ["split", "fused", "V-shaped", "updates", "recomputed", "two-way"])
def test_tables_by_hand_can_be_broken_too(name):
    breaker = break_schedule(tables.read(tables.SOUND[name]))
    for position in range(len(breaker.schedule.programs[0])):
        breaker.drop(0, position)
        assert told(breaker)["sentences"]


# ---- Run it ----------------------------------------------------------------------------------------------------------


def test_what_is_not_sound_is_not_run():
    breaker = break_schedule("1f1b", 2, 2).drop(1, 0)
    assert said(breaker, "run").startswith("refused before anything starts, because ")
    assert breaker.run_state == {}
    with pytest.raises(ConfigurationError, match="refused before anything starts"):
        breaker.run()


def test_a_harmless_swap_trains_with_the_right_gradients(small_model):
    breaker = break_schedule("gpipe", 2, 2)
    breaker.swap(*at(breaker, "1B0"))
    assert breaker.consequence.sound
    found = breaker.run()
    assert found.right
    assert [str(slot) for slot in found.table.programs[1]] == ["1F0", "1F1", "1B1", "1B0"]
    assert breaker.run_state["state"] == "done"
    breaker.reset()
    assert (breaker.trial, breaker.run_state) == (None, {})


# ---- files and pictures ----------------------------------------------------------------------------------------------


def test_the_broken_table_is_saved_and_never_over_another(here):
    breaker = break_schedule("1f1b", 2, 2).drop(1, 0)
    assert said(breaker, "save", kind="csv") == "Saved as broken-1f1b.csv, beside this notebook."
    assert breaker.save().name == "broken-1f1b-2.csv"
    assert Schedule.from_csv((here / "broken-1f1b.csv").read_text()).programs == breaker.table.programs
    assert breaker.start_early(1, 0).save("csv").exists()
    assert said(breaker, "save", kind="picture") == "Saved as broken-1f1b.png, beside this notebook."
    assert said(breaker, "save", kind="mp3") == "'mp3' cannot be saved; save csv, picture and svg"


@pytest.mark.parametrize("way", ["whole", "drop", "early"])
def test_its_picture_says_in_words_what_it_shows_and_what_follows(way):
    breaker = break_schedule("1f1b", 2, 2)
    if way != "whole":
        said(breaker, "break", way=way, device=1, position=0)
    data, _ = breaker._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data
    [alt] = re.findall(r'<img alt="([^"]*)"', data["text/html"])
    assert len(alt) > 40
    assert breaker.consequence.sentences[0] in data["text/plain"]


def test_in_words_it_is_its_schedule_and_what_follows():
    assert repr(break_schedule(build_schedule("gpipe", 2, 2))).startswith("Breaker(gpipe: The order is sound")
