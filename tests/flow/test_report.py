"""What a report says of a run whose times are given: throughput, latency, the bottleneck, and why others idle."""

import pytest

from pipelab.flow import Flow, FlowReport, Resource, Stage
from pipelab.flow.costs import Measured
from pipelab.flow.plan import Plan
from pipelab.flow.predict import predict
from pipelab.view import plot_timeline
from pipelab.view.widgets.scene import scene


def report(seconds, items=6, every=0.0, **options):
    """Of a line of stages, each on a resource of its own, as if they had been measured."""
    flow = Flow(*(Stage(name, str, Resource(name.upper()), **options) for name in seconds))
    plan = Plan(flow._layout, items)
    costs = [seconds[plan.whose(job)[0]] for job in range(len(plan))]
    measured = tuple(Measured(job, cost) for job, cost in enumerate(costs))
    made = {job: job for job in range(len(plan)) if plan.stage[job] in plan.sinks}
    return FlowReport("line", predict(plan, costs, every), measured, made)


def test_throughput_tends_to_the_slowest_stage_and_latency_is_no_shorter_than_its_stages():
    told = report({"read": 1, "map": 3, "write": 1}, items=100)
    assert told.makespan == 302
    assert told.throughput == pytest.approx(100 / 302)
    assert told.bottleneck == "MAP"
    assert told.utilisation == pytest.approx({"READ": 100 / 302, "MAP": 300 / 302, "WRITE": 100 / 302})
    assert told.latency(0) == 5
    assert told.latency(99) == 302  # it was there at the start, and had to wait
    assert told.serial_time == 500


def test_items_that_come_slowly_enough_have_the_latency_of_one_alone():
    told = report({"read": 1, "map": 3, "write": 1}, items=10, every=3)
    assert set(told.latencies) == {5}
    assert told.explain().splitlines()[1] == "READ idles: 18.000 s for items to come, 4.000 s after its last job."


def test_it_says_who_waits_for_whom_and_for_how_long():
    told = report({"read": 1, "map": 3}, items=6).explain().splitlines()
    assert told[0] == (
        "MAP is the bottleneck: it works 94.7% of the time. 0.3158 items/s came out, and it allows 0.3333 at most."
    )
    assert told[1] == "READ idles: 8.000 s for lack of room, until map ends, 5.000 s after its last job."
    assert told[2] == "MAP idles: 1.000 s until the first results of read come."


def test_sentences_speak_of_workers_and_items():
    timeline = report({"read": 1, "map": 3, "write": 1}).timeline
    said = [gap.sentence for gap in timeline.gaps()]
    assert "READ has no room for what read 3 makes until item 0 of map is over" not in said
    assert "READ has no room for what read 2 makes until item 0 of map is over" in said
    assert "MAP waits for item 0 of read from READ: the flow is still filling" in said
    assert "WRITE waits for item 1 of map from MAP, which is running it" in said
    assert not [one for one in said if "device" in one or "micro-batch" in one]


def test_pictures_and_widgets_speak_so_too():
    timeline = report({"read": 1, "map": 3, "write": 1}).timeline
    picture = plot_timeline(timeline)
    assert picture.alt.startswith("Flow line, 3 stages, 3 workers, 6 items.")
    shown = {text.get_text() for axes in picture.axes for text in axes.texts}
    assert {"READ", "MAP", "WRITE", "read", "map", "write", "map 0", "idle", "results held"} <= shown
    one = scene(timeline)
    assert one["devices"] == ["READ", "MAP", "WRITE"]
    assert [entry[:2] for entry in one["legend"]] == [["R", "read"], ["M", "map"], ["W", "write"]]
    told = " ".join(one["blocks"]["told"])
    assert "map 0: item 0 of map, on MAP, 1.000 s to 4.000 s. Takes item 0 of read from READ" in told
    assert "Started when item 0 of map was over and made room." in told
    words = told + picture.alt + str(shown) + one["counting"] + " ".join(gap[4] for gap in one["gaps"])
    assert not [word for word in ("device", "micro-batch", "forward", "bubble in") if word in words]


def test_what_is_held_is_what_buffers_allow():
    told = report({"read": 1, "map": 3}, items=6, buffer=3).timeline
    assert told.peak_microbatches == (3, 1)


def test_a_report_is_a_table_and_in_a_notebook_also_a_picture():
    told = report({"read": 1, "map": 3})
    assert str(told).splitlines() == [
        "line: 6 items in 19.000 s, 0.3158 items/s; one after another 24.000 s; latency 11.500 s (median)",
        "Clock: wall (what happened on this machine)",
        "resource  workers  works",
        "--------  -------  -----",
        "READ            1  31.6%",
        "MAP             1  94.7%",
    ]
    shown = told._repr_mimebundle_()
    assert "READ" in shown["text/html"] and "<img alt=" in shown["text/html"]
