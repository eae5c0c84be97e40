from __future__ import annotations

import json
import re
import threading

import pytest

from pipelab import ConfigurationError, Schedule, explore
from pipelab.teaching.explorer import Settings
from pipelab.teaching.explorer import widget as module
from pipelab.teaching.explorer.measure import Measured
from pipelab.teaching.running.runs import Run
from tests.view.scenes import boxes

LONG = 20


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(explorer):
    """What the browser draws from."""
    return json.loads(explorer.view)


def ask(explorer, do, **message):
    """A message as the browser sends it; all that was sent back, the answer last."""
    sent = []
    explorer.send = lambda content, buffers=None: sent.append(content)
    explorer._received(None, {"id": "1", "do": do, **message}, [])
    assert "Traceback" not in json.dumps(sent)
    assert sent[-1]["answers"] == "1"
    return sent


def said(explorer, do, **message):
    return ask(explorer, do, **message)[-1].get("said")


def turn(explorer, **values):
    return said(explorer, "set", values=values)


@pytest.fixture
def slow_measure(monkeypatch):
    """A measurement without a model: it waits for ``gate`` between its two signs of progress."""
    gate, begun = threading.Event(), threading.Event()

    def measure(settings, progress):
        progress("building the model")
        begun.set()
        assert gate.wait(LONG)
        progress("step 1 of 1")
        timeline = settings.timeline()
        return Measured(timeline, timeline, (4.0, 3.0), 1e-7, (1,) * settings.devices)

    measure.gate, measure.begun = gate, begun
    monkeypatch.setattr(module, "measure", measure)
    yield measure
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "pipelab run":
            thread.join(LONG)
    assert Run._one.acquire(blocking=False)  # nothing is left running
    Run._one.release()


# ---- what it begins with ---------------------------------------------------------------------------------------------


def test_the_full_explorer_lets_everything_be_turned():
    explorer = explore()
    names = [one["name"] for one in told(explorer)["controls"]]
    assert {"schedule", "devices", "microbatches", "warmup", "limit", "recompute", "compare"} <= set(names)
    assert "chunks" not in names  # 1F1B has none
    assert told(explorer)["preset"] == ""
    explorer.set(schedule="interleaved")
    names = [one["name"] for one in told(explorer)["controls"]]
    assert ("chunks" in names, "warmup" in names) == (True, False)


def test_i_and_w_are_turned_where_a_backward_is_split():
    halves = {"input_gradient", "weight_gradient"}

    def shown(explorer):
        return halves & {one["name"] for one in told(explorer)["controls"]}

    explorer = explore()
    assert shown(explorer) == set()
    assert shown(explorer.set(compare="zb-h1")) == shown(explorer.set(schedule="zb-v", compare="")) == halves
    assert "chunks" not in [one["name"] for one in told(explorer)["controls"]]  # it knows one number of them
    assert shown(explore("1f1b", free=["tI"])) == {"input_gradient"}
    assert told(explore("zb-h1", free=["m"], tW=2))["preset"] == "Preset: p = 4, tF = 1, tB = 1, tI = 0.5, tW = 2."


def test_what_no_formula_is_known_for_is_named():
    said = (
        "No formula of V-Half is known for: makespan, bubble fraction, own idle on the idlest device, in flight on the "
        "fullest device."
    )
    assert said in told(explore("1f1b", compare="v-half"))["notes"]
    assert "No formula" not in told(explore("zb-h1"))["notes"]


def test_a_preset_shows_its_few_controls_and_says_what_is_fixed():
    explorer = explore("gpipe", free=["m"], p=3, compare="1f1b", curve="held", overhead=0.5)
    view = told(explorer)
    assert [one["name"] for one in view["controls"]] == ["microbatches", "fixed"]
    assert view["preset"] == "Preset: p = 3, tF = 1, tB = 1, α = 0.5."
    assert view["titles"] == ["GPipe", "1F1B"]
    assert len(view["scenes"]) == len(view["figures"]) == len(view["curve"]["lines"]) == 2
    assert (view["curve"]["figure"], view["curve"]["against"]) == ("held", "microbatches")


def test_by_default_a_curve_goes_against_the_first_free_number():
    assert told(explore(free=["schedule", "tF", "p"]))["curve"]["against"] == "devices"
    assert told(explore(free="L"))["curve"]["against"] == "latency"
    assert told(explore(free=["schedule"]))["curve"]["against"] == "microbatches"
    assert told(explore(against="w"))["curve"]["against"] == "warmup"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"schedule": "1f1"}, r"Schedule cannot be '1f1'.*did you mean '1f1b'\?"),
        ({"free": ["microbatch"]}, r"no control 'microbatch'.*did you mean 'microbatches'\?"),
        ({"speed": 3}, "no control 'speed'"),
        ({"m": 500}, "takes values from 1 to 128: 500 became 128"),
        ({"m": "many"}, "not 'many'; it stays 4"),
        ({"m": 10**400}, "takes values from 1 to 128"),
        ({"recompute": "no"}, r"Recompute forwards \(R\) must be on or off; a str was ignored"),
        ({"curve": "speed"}, "curve is one of makespan, bubble, .*, not 'speed'"),
        ({"against": "tF"}, "against is one of microbatches, .*, not 'tF'"),
        ({"against": "nothing"}, "no control 'nothing'"),
        ({"schedule": "interleaved", "m": 9}, r"groups of equal size.* Nearest that works: m = 8 or m = 10"),
    ],
)  # fmt: skip
def test_what_there_is_not_or_cannot_be_is_refused_with_the_nearest(arguments, says):
    with pytest.raises(ConfigurationError, match=says):
        explore(**arguments)


def test_every_control_is_told_with_its_range_and_value():
    controls = {one["name"]: one for one in told(explore(m=6))["controls"]}
    assert controls["microbatches"]["value"] == 6
    assert (controls["microbatches"]["low"], controls["microbatches"]["high"]) == (1, 128)
    assert controls["schedule"]["choices"][0] == ["naive", "Naive"]
    assert controls["limit"]["value"] is None


# ---- turning ---------------------------------------------------------------------------------------------------------


def test_turning_a_number_in_the_browser_is_turning_it_in_python():
    explorer = explore()
    assert turn(explorer, microbatches=8) is None
    assert (explorer.settings, explorer.timeline.makespan) == (Settings(microbatches=8), 22)
    assert told(explorer)["scenes"][0]["end"] == 22
    assert [figure["name"] for figure in told(explorer)["figures"][0]][:2] == ["makespan", "bubble"]
    assert explorer.set(m=8).settings == Settings(microbatches=8)


def test_what_is_fixed_is_a_switch_that_times_and_memory_and_words_follow():
    """At m = 8 a batch of 64 has micro-batches of 8, as the lesson's runs do: half the time, half the memory."""
    explorer = explore("gpipe", free=["m"], m=8, fixed="batch")
    switch = next(one for one in told(explorer)["controls"] if one["name"] == "fixed")
    assert (switch["kind"], switch["value"]) == ("either", "batch")
    assert [value for value, _ in switch["choices"]] == ["batch", "microbatch"]
    assert told(explorer)["sizes"] == "The batch of 64 sequences is fixed: m = 8 cuts it into micro-batches of 8."
    small = {figure.name: figure.simulated for figure in explorer.figures}
    turn(explorer, fixed="microbatch")
    words = "The micro-batch of 16 sequences is fixed: m = 8 of them make a batch of 128."
    assert told(explorer)["sizes"] == words
    large = {figure.name: figure.simulated for figure in explorer.figures}
    for name in ("makespan", "held", "memory"):
        assert large[name] == pytest.approx(2 * small[name])
    assert (large["bubble"], large["rate"]) == pytest.approx((small["bubble"], small["rate"]))


def test_the_switch_is_there_wherever_m_can_be_turned():
    def names(explorer):
        return [one["name"] for one in told(explorer)["controls"]]

    assert names(explore("gpipe", free=["m"])) == ["microbatches", "fixed"]
    assert names(explore("gpipe", free=["hold", "m"])) == ["microbatches", "fixed"]
    assert names(explore("gpipe", free=["p"])) == ["devices"]


@pytest.mark.parametrize("old", [{"hold": "micro-batch"}, {"hold": "batch"}, {"fixed": "micro-batch"}], ids=str)
def test_the_switchs_name_and_values_of_old_still_work(old):
    [value] = old.values()
    assert explore(**old).settings.fixed == value.replace("-", "")


def test_only_what_is_free_can_be_turned_from_the_browser():
    explorer = explore("1f1b", free=["m"])
    turn(explorer, microbatches=6, devices=8, schedule="gpipe", compare="gpipe", limit=1)
    assert explorer.settings == Settings(microbatches=6)
    explorer.set(devices=3)  # in Python anything goes
    assert explorer.settings.devices == 3


def test_a_symbol_from_the_browser_does_not_turn_what_is_fixed():
    explorer = explore("1f1b", free=["m"])
    turn(explorer, p=8, m=9)
    assert explorer.settings.devices == 4


@pytest.mark.parametrize(
    "value", ["", None, "abc", float("nan"), 1e99, True, 10**400, [], {}], ids=lambda v: repr(v)[:9]
)
def test_a_damaged_value_is_answered_and_what_is_shown_stays_drawable(value):
    explorer = explore(p=2)
    for name in ("microbatches", "limit", "forward", "recompute", "schedule", "fixed", "compare"):
        ask(explorer, "set", values={name: value})
        view = told(explorer)
        assert view["scenes"][0]["blocks"]["device"]
        assert 1 <= explorer.settings.microbatches <= 128


@pytest.mark.parametrize("message", [{}, {"values": 3}, {"values": None}, {"values": {"speed": 3}}, {"values": {}}])
def test_a_message_without_values_turns_nothing(message):
    explorer = explore()
    ask(explorer, "set", **message)
    assert explorer.settings == Settings()


def test_a_value_out_of_range_becomes_the_nearest_and_the_page_says_so():
    explorer = explore()
    turn(explorer, microbatches=999)
    assert explorer.settings.microbatches == 128
    assert told(explorer)["said"] == "Micro-batches m takes values from 1 to 128: 999 became 128."
    turn(explorer, microbatches=4)
    assert told(explorer)["said"] == ""


def test_what_cannot_be_keeps_the_last_picture_and_offers_ways_out():
    explorer = explore("interleaved")
    before = explorer.timeline
    turn(explorer, microbatches=9)
    view = told(explorer)
    assert (view["problem"]["possible"], explorer.timeline) == (False, before)
    assert view["scenes"][0]["title"].startswith("Interleaved 1F1B: p = 4 devices, m = 4")
    assert [offer["label"] for offer in view["problem"]["offers"]] == ["m = 8", "m = 10", "1F1B"]
    assert said(explorer, "run").startswith("these settings cannot be run: Interleaved needs m // p groups")
    turn(explorer, **view["problem"]["offers"][1]["values"])
    assert (told(explorer)["problem"], explorer.settings.microbatches) == (None, 10)


def test_what_does_not_fit_is_shown_with_its_limit_and_a_way_out():
    explorer = explore("gpipe", m=16, limit=120)
    view = told(explorer)
    assert view["problem"]["possible"]
    assert view["problem"]["sentence"].startswith("Out of memory under GPipe: device 0 would hold")
    assert view["scenes"][0]["memory"]["limits"] == [120] * 4
    turn(explorer, **view["problem"]["offers"][0]["values"])
    assert told(explorer)["problem"] is None


def test_comparing_shows_a_second_timeline_on_the_same_numbers():
    explorer = explore(m=8)
    turn(explorer, compare="gpipe")
    assert [timeline.schedule.name for timeline in explorer.timelines] == ["1f1b", "gpipe"]
    turn(explorer, compare="")
    assert len(explorer.timelines) == 1


def test_what_is_asked_of_a_picture_comes_when_it_is_asked_for():
    explorer = explore(compare="gpipe")
    blocks = told(explorer)["scenes"][0]["blocks"]
    assert "told" not in blocks
    answer = ask(explorer, "detail")[0]
    assert answer["edition"] == told(explorer)["edition"]
    assert [len(found["told"]) for found in answer["detail"]] == [32, 32]
    assert answer["detail"][0]["told"][0].startswith("0F0: forward of micro-batch 0")
    turn(explorer, microbatches=6)  # what was asked for before belongs to another picture
    assert answer["edition"] != told(explorer)["edition"] == ask(explorer, "detail")[0]["edition"]


# ---- the curve -------------------------------------------------------------------------------------------------------


def test_the_browser_asks_for_the_curve_until_it_is_done(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 0)
    explorer = explore(m=4)
    assert told(explorer)["curve"]["lines"][0]["points"] == []
    seen = []
    for _ in range(30):
        curve = ask(explorer, "curve")[0]["curve"]
        seen.append(len(curve["lines"][0]["points"]))
        if curve["done"]:
            break
    assert seen == list(range(1, len(seen) + 1))
    assert dict(curve["lines"][0]["points"])[4] == pytest.approx(100 * 3 / 7)
    assert curve["lines"][0]["now"] == [4, pytest.approx(100 * 3 / 7)]


def test_another_curve_may_be_asked_for_and_stays():
    explorer = explore(compare="gpipe")
    curve = ask(explorer, "curve", figure="held", against="devices")[0]["curve"]
    assert (curve["figure"], curve["against"], curve["across"]) == ("held", "devices", "Devices p")
    assert [line["name"] for line in curve["lines"]] == ["1F1B", "GPipe"]
    turn(explorer, microbatches=6)
    assert told(explorer)["curve"]["figure"] == "held"


@pytest.mark.parametrize("message", [{"figure": "speed"}, {"against": "fixed"}, {"figure": []}, {"against": None}])
def test_a_curve_that_there_is_not_is_answered_with_those_there_are(message):
    explorer = explore()
    assert "bubble" in said(explorer, "curve", **message) or "microbatches" in said(explorer, "curve", **message)
    assert told(explorer.set(m=5))["curve"]["figure"] == "bubble"


# ---- what a notebook keeps -------------------------------------------------------------------------------------------


def test_without_a_browser_it_is_a_picture_that_says_in_words_what_it_shows():
    explorer = explore(m=3, p=2)
    data, _ = explorer._repr_mimebundle_()
    assert data.keys() == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    [alt] = re.findall(r'<img alt="([^"]*)"', data["text/html"])
    assert alt == data["text/plain"]
    assert "p = 2 devices, m = 3 micro-batches" in alt
    assert len(alt) > 40


def test_without_a_browser_there_are_figures_formulas_and_the_line_that_opens_it_again():
    html = explore("gpipe", m=8, p=2, fixed="batch", free=["m"])._repr_mimebundle_()[0]["text/html"]
    bare = re.sub("<[^>]*>", " ", html)
    assert html.count("<math ") == 5  # four formulas, and what T is
    assert "The batch of 64 sequences is fixed: m = 8 cuts it into micro-batches of 8. Preset: p = 2" in bare
    assert "11.1%" in bare
    assert "explore(&quot;gpipe&quot;, p=2, m=8, fixed=&quot;batch&quot;, free=[&quot;m&quot;])" in html
    two = explore(compare="gpipe")._repr_mimebundle_()[0]["text/html"]
    assert two.count("<math ") == 9
    assert "<th>1F1B</th><th>GPipe</th>" in two


def test_notes_tell_what_the_letters_mean_and_what_a_limit_counts(slow_measure):
    explorer = explore("gpipe")
    assert "time of one micro-batch on one device" in told(explorer)["notes"]
    assert "counts activations alone" not in told(explorer)["notes"]
    assert "counts activations alone" in told(explorer.set(limit=500))["notes"]
    assert "Recomputing" in told(explorer.set(recompute=True))["notes"]
    said = told(explorer.set(latency=1))["notes"]
    assert "Where formula and simulation differ, the formula assumes messages that take no time." in said
    slow_measure.gate.set()
    explorer.set(compare="1f1b").run()
    assert "The picture shows 1F1B with recomputation again when you change a control." in told(explorer)["notes"]


def test_formulas_are_set_as_formulas():
    figures = {figure["name"]: figure for figure in told(explore())["figures"][0]}
    assert "<mfrac>" in figures["bubble"]["math"]
    assert figures["memory"]["math"] == ""


@pytest.mark.parametrize(
    "name, strips", [("naive", False), ("gpipe", False), ("1f1b", True), ("looped-bfs", False), ("zb-v", True)]
)
def test_phases_are_shown_where_there_is_a_steady_one(name, strips):
    """GPipe only fills and drains: a strip that says warm-up is of another schedule's words."""
    explorer = explore(name, p=2, m=4)
    assert told(explorer)["phases"] == bool(boxes(explorer.picture(), "phases")) == strips


def test_its_picture_is_of_what_is_shown(slow_measure):
    explorer = explore(p=2, m=2, compare="gpipe")
    assert "GPipe" in explorer.picture().alt
    assert "GPipe" in explorer.set(m=4).picture().alt
    slow_measure.gate.set()
    explorer.set(compare="").run()
    assert "measured" in explorer.picture().alt.lower()


def test_saving_never_overwrites(here):
    explorer = explore(p=2, m=2)
    assert explorer.save("csv").name == "1f1b-p2-m2.csv"
    assert explorer.save("csv").name == "1f1b-p2-m2-2.csv"
    assert said(explorer, "save", kind="trace") == "Saved as 1f1b-p2-m2-trace.json, beside this notebook."
    assert said(explorer, "save", kind="picture") == "Saved as 1f1b-p2-m2.png, beside this notebook."
    assert Schedule.from_csv((here / "1f1b-p2-m2.csv").read_text()).programs == explorer.timeline.schedule.programs
    assert json.loads((here / "1f1b-p2-m2-trace.json").read_text())["traceEvents"]
    assert (here / "1f1b-p2-m2.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(here.iterdir())) == 4


@pytest.mark.parametrize("kind", ["pdf", None, "../x", 3])
def test_what_cannot_be_saved_is_told_what_can(here, kind):
    assert said(explore(), "save", kind=kind) == f"'{kind}' cannot be saved; save picture, svg, gif, csv and trace"
    assert list(here.iterdir()) == []


# ---- Run it ----------------------------------------------------------------------------------------------------------


def test_run_it_lays_what_was_measured_beside_what_was_predicted(slow_measure):
    slow_measure.gate.set()
    explorer = explore(p=2, m=2)
    found = explorer.run()
    assert found is explorer.measured
    assert explorer.run_state["state"] == "done"
    assert explorer.run_state["words"] == found.sentence
    measured = told(explorer)["measured"]
    assert measured["names"] == ["predicted", "measured"]
    assert len(measured["scenes"]) == len(measured["bubbles"]) == 2
    assert measured["sentence"] == found.sentence


def test_a_run_is_started_watched_and_stopped_from_the_browser(slow_measure):
    explorer = explore()
    assert said(explorer, "run") is None
    assert slow_measure.begun.wait(LONG)
    assert explorer.run_state == {"state": "running", "words": "building the model", "done": 1, "total": 7}
    assert said(explorer, "run") == "it is already running; stop it first, or wait"
    assert said(explorer, "stop") is None
    slow_measure.gate.set()
    explorer._wait()
    assert explorer.run_state["state"] == "stopped"
    assert explorer.measured is None


def test_two_explorers_cannot_run_at_once(slow_measure):
    first, second = explore(), explore()
    first.run(wait=False)
    assert slow_measure.begun.wait(LONG)
    assert (
        said(second, "run")
        == "another run is still going in this notebook. It is being stopped; press again in a moment"
    )
    assert second.run_state == {}
    slow_measure.gate.set()
    first._wait()
    assert second.run() is not None


def test_settings_that_change_during_a_run_stop_it_and_say_so(slow_measure):
    explorer = explore()
    explorer.run(wait=False)
    assert slow_measure.begun.wait(LONG)
    left = explorer._run
    turn(explorer, microbatches=8)
    words = "The settings changed, so the run was stopped."
    assert explorer.run_state == {"state": "stopped", "words": words}
    slow_measure.gate.set()
    assert left.wait(LONG)
    assert left.progress.state == "stopped"
    assert explorer.measured is None
    assert explorer.run_state["words"] == words


def test_settings_that_stay_the_same_leave_a_run_alone(slow_measure):
    explorer = explore()
    explorer.run(wait=False)
    assert slow_measure.begun.wait(LONG)
    turn(explorer, microbatches=4)
    ask(explorer, "curve")
    slow_measure.gate.set()
    explorer._wait()
    assert explorer.measured is not None


def test_what_was_measured_is_not_shown_beside_other_settings(slow_measure):
    slow_measure.gate.set()
    explorer = explore()
    explorer.run()
    explorer.set(m=8)
    assert (explorer.measured, told(explorer)["measured"], explorer.run_state) == (None, None, {})


def test_settings_turned_in_python_just_as_a_run_ends_are_not_shown_with_its_result(slow_measure, monkeypatch):
    """The page was being told of the result when a cell turned m: the old result came back over the new settings."""
    explorer = explore()
    telling, go_on, show = threading.Event(), threading.Event(), explorer.show

    def slow_show(view):
        if threading.current_thread().name == "pipelab run":
            telling.set()
            assert go_on.wait(LONG)
        show(view)

    monkeypatch.setattr(explorer, "show", slow_show)
    slow_measure.gate.set()
    explorer.run(wait=False)
    left = explorer._run
    assert telling.wait(LONG)
    threading.Timer(0.05, go_on.set).start()
    explorer.set(m=8)
    assert left.wait(LONG)
    assert (explorer.measured, told(explorer)["measured"], explorer.run_state) == (None, None, {})


def test_what_the_model_cannot_run_is_refused_before_anything_starts(slow_measure):
    assert "takes too long here" in said(explore(m=40), "run")
    assert not slow_measure.begun.is_set()
    with pytest.raises(ConfigurationError, match="more than the 48 layers"):
        explore("interleaved", p=10, m=10, v=5).run()


def test_a_run_that_fails_says_why(monkeypatch):
    def measure(settings, progress):
        raise ConfigurationError("no memory for that; try m = 2")

    monkeypatch.setattr(module, "measure", measure)
    explorer = explore()
    with pytest.raises(ConfigurationError, match="try m = 2"):
        explorer.run()
    assert (explorer.run_state["state"], explorer.run_state["words"]) == ("failed", "no memory for that; try m = 2")


def test_unknown_commands_are_answered():
    assert said(explore(), "dance") == "this widget does not know 'dance'"
