"""Runs, with threads: right results whatever the order, real clocks, and an end at once when something fails."""

import sys
import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from pipelab import ConfigurationError
from pipelab.flow import Flow, FlowError, Resource, Stage
from pipelab.flow.plan import Plan
from tests.flow.flows import ITEMS, flows


def serial(flow, items):
    """The results of the last stages, each job evaluated once, by recursion."""
    plan, made = Plan(flow._layout, len(items)), {}

    def result(job):
        if job not in made:
            values = {other: result(other) for other in plan.needs[job]}
            made[job] = flow.stages[plan.stage[job]].work(*plan.inputs(job, items, values))
        return made[job]

    found = {flow.stages[s].name: [result(plan.job(s, i)) for i in range(plan.counts[s])] for s in plan.sinks}
    return found if len(found) > 1 else next(iter(found.values()))


@settings(max_examples=40, deadline=None)
@given(flows(), ITEMS)
def test_any_flow_gives_what_a_serial_evaluation_gives(flow, items):
    given_items = [f"item {i}" for i in range(items)]
    try:
        report = flow.run(given_items, progress=False)
    except ConfigurationError:
        return
    assert report.results == serial(flow, given_items)
    assert sorted(job for _, job in report.realised.begun) == list(range(len(report.realised.plan)))


def no_threads_left():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pipelab")] == []


def test_a_job_that_raises_ends_all_and_is_named():
    def fail(i):
        if i == 3:
            raise KeyError("no such read")
        return i

    flow = Flow(Stage("map", fail, Resource("core", 2)), Stage("write", str, Resource("disk")))
    with pytest.raises(FlowError, match=r"'map' 3 failed: KeyError: 'no such read'; the flow has stopped") as caught:
        flow.run(range(100), progress=False)
    assert (caught.value.stage, caught.value.index) == ("map", 3)
    assert isinstance(caught.value.__cause__, KeyError)
    assert no_threads_left()


def test_who_is_held_is_let_go_when_another_fails():
    disk = Resource("disk", kind="disk", bandwidth=1)
    flow = Flow(
        Stage("write", len, disk, size=lambda i: 1e6, after=None, buffer=None),
        Stage("fail", lambda i: 1 / 0, Resource("core"), after=None),
    )
    begin = time.perf_counter()
    with pytest.raises(FlowError, match="'fail' 0 failed: ZeroDivisionError"):
        flow.run(["x"], progress=False)
    assert time.perf_counter() - begin < 60  # not the eleven days that the disk would take
    assert no_threads_left()


def test_an_interrupt_ends_all():
    def interrupt(i):
        if i == 2:
            raise KeyboardInterrupt
        return i

    with pytest.raises(KeyboardInterrupt):
        Flow(Stage("a", interrupt, Resource("core"))).run(range(100), progress=False)
    assert no_threads_left()


def test_parts_that_are_missing_are_named():
    flow = Flow(Stage("cut", lambda x: [x], Resource("core"), split=2), Stage("b", str, "core"))
    with pytest.raises(FlowError, match=r"'cut' 0 failed: it made 1 parts, and split=2 asks for a list of 2"):
        flow.run(range(3), progress=False)


def test_a_disk_is_held_as_long_as_its_bytes_take():
    disk = Resource("disk", kind="disk", bandwidth=1e6, latency=1e-3)
    report = Flow(Stage("write", len, disk, size=len)).run([bytes(2000)] * 5, progress=False)
    assert all(span.duration >= 0.003 for span in report.timeline.spans)
    assert report.costs["write"] < 0.003
    assert report.costs.bytes["write", ""] == 2000
    assert report.serial_time >= 0.015
    assert "disk held to 1.0 MB/s and 1 ms a job" in report.timeline.clock_name


def test_items_come_when_they_are_due():
    report = Flow(Stage("a", str, Resource("core"))).run(range(4), every=0.02, progress=False)
    starts = [span.start for span in report.wall.spans]
    assert all(start >= 0.02 * i for i, start in enumerate(starts))
    assert all(latency >= 0 for latency in report.latencies)


def test_the_device_clock_composes_what_each_job_cost():
    data = np.random.default_rng(0).normal(size=(200, 200))
    flow = Flow(
        Stage("a", lambda i: data @ data, Resource("core", 2)), Stage("b", lambda x: x @ data, Resource("other"))
    )
    report = flow.run(range(6), clock="device", progress=False)
    assert report.timeline.clock == "device"
    assert sum(report.timeline.busy) == pytest.approx(report.serial_time)
    assert report.serial_time == pytest.approx(sum(one.seconds for one in report.measured))
    assert report.wall.clock == "wall"


def test_a_profile_runs_each_job_alone_and_knows_kinds_and_batches():
    seen = []
    flow = Flow(
        Stage("a", seen.append, Resource("core"), kind=lambda i: "I" if i % 4 == 0 else "P"),
        Stage("b", len, "core", batch=3),
    )
    costs = flow.profile(range(8), progress=False)
    assert seen == list(range(8))
    assert set(costs.seconds) == {("a", "I"), ("a", "P"), ("b", "")}
    assert costs.takes["b", ""] == 3


def test_a_thread_plays_a_gpu_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = Resource("gpu", kind="gpu")
    report = Flow(Stage("a", str, gpu)).run(range(3), progress=False)
    assert report.timeline.clock_name.endswith("a thread plays gpu")
    assert Flow(Stage("a", str, gpu)).predict(3, report.costs).note == "a thread plays gpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_does_the_work_and_is_waited_for():
    def multiply(i):
        x = torch.full((2048, 2048), float(i), device="cuda")
        for _ in range(20):
            x = x @ x / 2048
        return x

    flow = Flow(
        Stage("a", multiply, Resource("gpu", kind="gpu")), Stage("b", lambda x: x.sum().item(), Resource("core"))
    )
    report = flow.run(range(4), progress=False)
    assert report.results[0] == 0
    assert report.timeline.note == ""
    assert report.costs["a"] > 10 * report.costs["b"]


def test_results_of_several_last_stages_come_by_name():
    core = Resource("core", 2)
    flow = Flow(Stage("a", str, core), Stage("b", len, core), Stage("c", list, core, after="a"))
    assert flow.run([1, 23], progress=False).results == {"b": [1, 2], "c": [["1"], ["2", "3"]]}


def test_a_job_that_ends_the_program_ends_the_flow_only():
    with pytest.raises(FlowError, match="'a' 0 failed: SystemExit: 0"):
        Flow(Stage("a", lambda item: sys.exit(0), Resource("core"))).run(range(2), progress=False)


@pytest.mark.parametrize("made", [{0: 1, 1: 2}, {1, 2}, np.array(3), torch.tensor(3)])
def test_what_is_no_list_of_parts_is_named(made):
    flow = Flow(Stage("cut", lambda item: made, Resource("core"), split=2), Stage("b", abs, "core"))
    with pytest.raises(FlowError, match="'cut' 0 failed"):
        flow.run(range(1), progress=False)


@pytest.mark.parametrize("ask", ["run", "profile"])
def test_a_number_is_no_items(ask):
    with pytest.raises(ConfigurationError, match=r"got 4; try range\(4\)"):
        getattr(Flow(Stage("a", abs, Resource("core"))), ask)(4)
