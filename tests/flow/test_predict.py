"""Predictions hold the rules that ``dispatch.py`` states, and agree with an executor that tries all jobs in turn."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError
from pipelab.flow import Flow, FlowCosts, Resource, Stage
from pipelab.flow.dispatch import require_room
from pipelab.flow.plan import Plan
from pipelab.flow.predict import predict
from tests.flow.flows import ITEMS, costs_of, flows, slow


def planned(flow, items):
    plan = Plan(flow._layout, items)
    require_room(plan)
    return plan


@st.composite
def cases(draw):
    """(plan, seconds of each job, seconds between items); what is refused is left out."""
    flow, items = draw(flows()), draw(ITEMS)
    try:
        plan = planned(flow, items)
    except ConfigurationError:
        plan = planned(draw(flows(buffers=False)), items)
        flow = None
    costs = FlowCosts.of(costs_of(draw, flow)) if flow else None
    seconds = costs.of_jobs(plan) if costs else [draw(st.integers(0, 3)) for _ in range(len(plan))]
    return plan, seconds, draw(st.sampled_from([0, 0, 1, 2]))


@given(cases())
def test_the_rules_hold(case):
    plan, seconds, every = case
    found = predict(plan, seconds, every)
    rows = {job: worker for worker, job in found.begun}
    assert sorted(rows) == list(range(len(plan)))
    for job in range(len(plan)):
        assert plan.layout.rows[rows[job]][0] == plan.resource(job)
        assert all(found.end[other] <= found.start[job] for other in plan.needs[job])
        if not plan.layout.upstream[plan.stage[job]]:
            assert found.start[job] >= plan.taken(job)[-1] * every
    for worker in range(len(plan.layout.rows)):
        mine = [job for w, job in found.begun if w == worker]
        assert all(found.end[a] <= found.start[b] for a, b in itertools.pairwise(mine))
    for s, room in enumerate(plan.buffers):
        jobs = range(plan.first[s], plan.first[s] + plan.counts[s])
        until = {j: max((found.end[t] for t in plan.takers[j]), default=found.end[j]) for j in jobs}
        for j in jobs if room is not None else ():
            assert sum(found.start[k] <= found.start[j] < until[k] for k in jobs) <= room
        if plan.layout.stages[s].ordered:
            begun = [job for _, job in found.begun if plan.stage[job] == s]
            assert begun == sorted(begun)


@given(cases())
def test_an_executor_that_looks_at_all_jobs_agrees(case):
    plan, seconds, every = case
    found = predict(plan, seconds, every)
    if 0 in seconds:
        return  # in no time several things follow each other at one moment; there the order is a matter of taste
    worker, start = slow(plan, seconds, every)
    assert {job: w for w, job in found.begun} == worker
    assert list(found.start) == [start[job] for job in range(len(plan))]


@given(cases())
def test_no_makespan_is_below_its_bounds(case):
    plan, seconds, every = case
    timeline = predict(plan, seconds, every).timeline("flow", clock="predicted")
    longest = [0.0] * len(plan)
    for job in plan.serial:
        longest[job] = seconds[job] + max((longest[other] for other in plan.needs[job]), default=0.0)
    assert timeline.end >= max(longest) - 1e-9
    for r, resource in enumerate(plan.layout.resources):
        work = sum(s for job, s in enumerate(seconds) if plan.resource(job) == r)
        assert timeline.end >= work / resource.workers - 1e-9


@given(cases())
def test_every_idle_second_has_its_reason(case):
    plan, seconds, every = case
    timeline = predict(plan, seconds, every).timeline("flow", clock="predicted")
    for worker, busy in enumerate(timeline.busy):
        gaps = timeline.gaps(worker)
        assert busy + sum(gap.end - gap.start for gap in gaps) == pytest.approx(timeline.makespan)
        assert not [gap.sentence for gap in gaps if "busy elsewhere" in gap.sentence]


@given(cases())
def test_the_chain_that_fixed_the_makespan_has_no_holes_if_items_are_there(case):
    plan, seconds, every = case
    timeline = predict(plan, seconds, every).timeline("flow", clock="predicted")
    path = timeline.critical_path()
    assert path[-1].end == timeline.end
    if not every and 0 not in seconds:
        assert sum(span.duration for span in path) == pytest.approx(timeline.makespan)


@given(flows(), ITEMS)
def test_what_is_said_to_be_enough_is_enough(flow, items):
    plan = Plan(flow._layout, items)
    plan.buffers = list(plan.enough)
    assert len(predict(plan, [1] * len(plan)).begun) == len(plan)


def test_ten_thousand_jobs_are_predicted_before_anyone_waits():
    core = Resource("core", 4)
    flow = Flow(Stage("a", id, core), Stage("b", id, Resource("disk")), Stage("c", id, core, batch=2))
    begin = time.thread_time()
    timeline = flow.predict(4000, {"a": 1, "b": 0.3, "c": 0.7})
    assert time.thread_time() - begin < 2
    assert timeline.makespan == pytest.approx(1350, rel=0.01)


def test_items_that_come_late_are_waited_for_and_said_so():
    flow = Flow(Stage("a", id, Resource("core")))
    timeline = flow.predict(3, {"a": 1}, every=4)
    assert timeline.makespan == 9
    assert timeline.gaps()[0].sentence == "core waits for item 1: it comes only at 4.000 s"
