from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelab import ConfigurationError, build_schedule, simulate
from pipelab.view import plot_timeline
from pipelab.view.widgets.widget import PipelabWidget, script, styles

ROOT = Path(__file__).parents[3]
TIMELINE = simulate(build_schedule("1f1b", 2, 2))
NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which no browser looks up


class Echo(PipelabWidget):
    """A widget that says back what it is told, and keeps what it sent."""

    def __init__(self):
        self.sent = []
        super().__init__("echo", {"count": 0})

    def send(self, content, buffers=None):
        self.sent.append(content)

    def picture(self):
        return plot_timeline(TIMELINE)

    def _commands(self):
        return {"say": lambda message: message["words"], "count": self._count, "refuse": self._refuse}

    def _count(self, message):
        self.show({"count": json.loads(self.view)["count"] + message["by"]})

    def _refuse(self, message):
        raise ConfigurationError("that cannot be; try 3")


def ask(widget, **message):
    """Send a message as the browser does; the answer."""
    widget._received(None, {"id": "7", **message}, [])
    return widget.sent[-1]


# ---- messages --------------------------------------------------------------------------------------------------------


def test_what_was_asked_for_is_done_before_it_is_answered():
    widget = Echo()
    assert ask(widget, do="count", by=2) == {"answers": "7"}
    assert json.loads(widget.view) == {"count": 2}


def test_a_command_may_answer_with_a_sentence():
    assert ask(Echo(), do="say", words="Saved.") == {"answers": "7", "said": "Saved."}


def test_a_mistake_is_answered_with_its_sentence():
    assert ask(Echo(), do="refuse") == {"answers": "7", "said": "that cannot be; try 3"}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"do": "dance"}, "this widget does not know 'dance'"),
        ({}, "this widget does not know 'None'"),
        ({"do": ["say"]}, r"this widget does not know '\['say'\]'"),
        ({"do": "say"}, "That was not understood: .say. with something missing or out of place."),
        ({"do": "count", "by": "x"}, "That was not understood: .*"),
    ],
)
def test_a_broken_message_is_answered_with_a_sentence_in_one_line(message, said):
    widget = Echo()
    answer = ask(widget, **message)
    assert re.fullmatch(said, answer["said"])
    assert "Traceback" not in answer["said"]
    assert json.loads(widget.view) == {"count": 0}


def test_a_message_without_an_id_is_done_and_answered_too():
    widget = Echo()
    widget._received(None, {"do": "count", "by": 1}, [])
    assert widget.sent == [{"answers": None}]
    assert json.loads(widget.view) == {"count": 1}


@pytest.mark.parametrize("content", [None, 3, "say", ["do", "say"], b"do"])
def test_what_is_no_message_at_all_is_passed_over(content):
    widget = Echo()
    widget._received(None, content, [])
    assert widget.sent == []


def test_messages_reach_it_the_way_jupyter_brings_them():
    widget = Echo()
    widget._handle_custom_msg({"id": "1", "do": "count", "by": 5}, [])
    assert widget.sent == [{"answers": "1"}]
    assert json.loads(widget.view) == {"count": 5}


# ---- what a notebook keeps -------------------------------------------------------------------------------------------


def test_its_output_is_the_widget_and_beside_it_one_picture_that_says_in_words_what_it_shows():
    data, metadata = Echo()._repr_mimebundle_()
    assert data.keys() == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
    [alt] = re.findall(r'<img alt="([^"]*)"', data["text/html"])
    assert alt == data["text/plain"] == plot_timeline(TIMELINE).alt
    assert len(alt) > 40
    assert metadata == {}


def test_every_widget_draws_from_a_picture_of_its_own():
    with pytest.raises(NotImplementedError):
        PipelabWidget("nothing", {}).picture()


# ---- what is sent to the browser -------------------------------------------------------------------------------------


def test_the_script_is_one_module_with_one_default_export():
    code = script()
    assert len(re.findall(r"^export default ", code, re.MULTILINE)) == 1
    assert len(re.findall(r"^\s*export\b", code, re.MULTILINE)) == 1
    assert not re.search(r"^\s*import\b|\bimport\(", code, re.MULTILINE)


def test_script_and_styles_fetch_nothing():
    code = script().replace(NAMESPACE, "")
    for word in ("http:", "https:", "fetch(", "XMLHttpRequest", "WebSocket", "eval(", "new Function", ".innerHTML"):
        assert word not in code, word
    assert "url(" not in styles()
    assert "@import" not in styles()


def test_all_files_of_the_script_are_in_it():
    folder = ROOT / "pipelab" / "view" / "widgets" / "static"
    names = {path.stem for path in folder.glob("*.js")}
    assert len(names) > 5
    for name in names:
        assert (folder / f"{name}.js").read_text(encoding="utf-8") in script(), name


def test_top_level_names_of_the_files_do_not_clash():
    """They share one module: a second `const` of one name would be a syntax error in the browser alone."""
    names = re.findall(r"^(?:async )?(?:const|let|var|function\*?|class) (\w+)", script(), re.MULTILINE)
    assert len(names) > 20
    assert sorted(names) == sorted(set(names))


# ---- without widgets -------------------------------------------------------------------------------------------------


def test_pictures_work_where_anywidget_is_missing_and_widgets_say_how_to_get_it():
    code = """
import sys
sys.modules["anywidget"] = None
import pipelab, pipelab.view
assert pipelab.plot_timeline(pipelab.simulate(pipelab.build_schedule("1f1b", 2, 2))).alt
for name in ("TimelineView", "explore", "draw_schedule", "break_schedule"):
    try:
        getattr(pipelab, name)
    except pipelab.ConfigurationError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    told = done.stdout.splitlines()
    assert len(told) == 4
    assert set(told) == {
        "widgets need anywidget, which is not installed here: pip install 'pipelab[lab]'; pictures (plot_timeline) "
        "work without it"
    }
