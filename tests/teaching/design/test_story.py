from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from pipelab import ConfigurationError, Costs, ScheduleError, build_schedule
from pipelab.models import TransformerLM
from pipelab.teaching.design.goal import Goal
from pipelab.teaching.design.story import Story, tell_story

GOAL = Goal(2, 3, costs=Costs(forward=1, backward=2, latency=0.5))


@pytest.fixture(scope="module")
def story():
    rating = GOAL.rate(build_schedule("zb-h1", 2, 3), "ours <&>")
    small = {"batch": 6, "steps": 1, "model": lambda: TransformerLM(layers=4, width=8, heads=2)}
    return Story(rating, rating.prove(**small), GOAL.search(seconds=0.2))


@pytest.fixture(scope="module")
def html(story):
    return story.html()


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.heads, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        self.open += [] if tag in ("meta", "img", "br") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.heads += [data] if self.open and self.open[-1] == "h2" else []


def test_the_page_is_whole_and_needs_no_other_file(html):
    page = Reader(html)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert page.heads == ["The goal", "What it reaches", "The longest gaps", "It trains", "Beside others", "The table"]


def test_it_has_figures_proof_comparison_and_the_table_as_text(story, html):
    assert "<h1>ours &lt;&amp;&gt;</h1>" in html
    assert str(GOAL) in html
    assert "equal to those of the unsplit model" in html
    assert "A search found a schedule that takes" in html
    assert story.rating.schedule.to_csv().splitlines()[0] in html
    for one in GOAL.catalogue:
        assert f"<td style='text-align:left'>{one.schedule.name}</td>" in html
    assert re.search(r"<b>ours &lt;&amp;&gt;</b>", html), "its own row stands out"


def test_the_run_had_the_predicted_makespan(story):
    """A composition could drift from what ran: here the same links and costs were at work."""
    assert story.trial.right
    assert story.trial.timeline.makespan == pytest.approx(story.rating.makespan)


def test_it_is_saved_beside_the_leaderboard_and_never_over_another(story, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Story, "html", lambda self: "a page")
    first, again = story.save(), story.save()
    assert first == again
    assert first.parent == tmp_path / "leaderboard"
    first.write_text("mine")
    assert story.save() != first
    assert first.read_text() == "mine"


def test_it_is_saved_where_it_is_wanted(story, html, tmp_path, monkeypatch):
    monkeypatch.setattr(Story, "html", lambda self: html)
    path = story.save(tmp_path / "new" / "story.html")
    assert path.read_text() == html
    with pytest.raises(ConfigurationError, match=r"got 'story.pdf'; try 'story.html'"):
        story.save(tmp_path / "story.pdf")


def test_it_says_when_nothing_fits(story):
    assert "A search found nothing that fits." in str(Story(story.rating, story.trial, None))


def test_a_proof_that_is_there_is_not_made_again_and_must_be_of_this_schedule(story):
    told = tell_story(GOAL, story.rating.schedule, trial=story.trial, seconds=0.1)
    assert told.trial is story.trial
    with pytest.raises(ConfigurationError, match="of another schedule"):
        tell_story(GOAL, build_schedule("1f1b", 2, 3), trial=story.trial, seconds=0.1)


def test_what_is_not_sound_has_no_story():
    with pytest.raises(ScheduleError, match="1B0"):
        tell_story(GOAL, "0F0,0B0\n1B0,1F0\n")
