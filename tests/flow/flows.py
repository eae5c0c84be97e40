"""Flows at random, and an executor that knows nothing of heaps or events: it looks at all jobs, again and again."""

from __future__ import annotations

from hypothesis import strategies as st

from pipelab.flow import Flow, Resource, Stage
from pipelab.flow.plan import Plan

ITEMS = st.integers(1, 7)


@st.composite
def flows(draw, buffers=True):
    """A flow of one to four stages whose work is to put its arguments into a tuple with its name."""
    resources = [Resource(name, draw(st.integers(1, 3))) for name in "XYZ"[: draw(st.integers(1, 3))]]
    stages = []
    for s, name in enumerate("abcd"[: draw(st.integers(1, 4))]):
        split = draw(st.sampled_from([1, 1, 1, 2]))
        room = draw(st.sampled_from([None, "double", 1, 2, 3, 4])) if buffers else None
        earlier, back = draw(st.integers(0, s)), draw(st.integers(0, 3))
        stages.append(
            Stage(
                name,
                _work(name, split),
                draw(st.sampled_from(resources)),
                after=draw(st.sampled_from([None, "a"])) if s == 2 else "the stage before",
                needs=_needs("abcd"[earlier], back, earlier == s) if back else None,
                batch=draw(st.sampled_from([1, 1, 2, 3, "all"])),
                split=split,
                buffer=room,
                ordered=draw(st.booleans()),
                kind=_parity if draw(st.booleans()) else None,
            )
        )
    return Flow(*stages)


def _parity(i):
    return "even" if i % 2 == 0 else "odd"


def _work(name, split):
    return (lambda *given: [(name, k, given) for k in range(split)]) if split > 1 else lambda *given: (name, given)


def _needs(name, back, own):
    """Job i needs an earlier job of a stage; of another stage job 0 always is there."""
    return lambda i: [(name, i - back)] if own and i >= back else [] if own else [(name, 0)]


def costs_of(draw, flow):
    """Whole seconds, so that many things happen at once."""
    return {
        (stage.name, kind): draw(st.integers(0, 4))
        for stage in flow.stages
        for kind in (("even", "odd") if stage.kind else ("",))
    }


def slow(plan: Plan, costs, every=0):
    """(worker, start) of each job, second by second."""
    layout = plan.layout
    start, end, worker = {}, {}, {}
    now, gone = 0, set()
    free = set(range(len(layout.rows)))

    def done(job):
        return job in end and job not in running

    running: set[int] = set()
    while len(start) < len(plan) or running:
        for job in [one for one in running if end[one] <= now]:
            running.discard(job)
            free.add(worker[job])
        gone = {j for j in range(len(plan)) if done(j) and all(done(t) for t in plan.takers[j])}
        begun = True
        while begun:
            begun = False
            for r in range(len(layout.resources)):
                able = [
                    j
                    for j in range(len(plan))
                    if plan.resource(j) == r and j not in start and may_begin(plan, j, start, done, gone, now, every)
                ]
                workers = [w for w in layout.workers(r) if w in free]
                if able and workers:
                    job = min(able, key=lambda j: (-plan.stage[j], plan.index[j]))
                    worker[job] = min(workers)
                    start[job], end[job] = now, now + costs[job]
                    free.discard(worker[job])
                    running.add(job)
                    begun = True
            if any(end[one] <= now for one in running) and not begun:
                break
        now = now if any(end[one] <= now for one in running) else now + 1
        assert now < 10_000, "it stands still"
    return worker, start


def may_begin(plan, job, start, done, gone, now, every):
    s = plan.stage[job]
    if not all(done(other) for other in plan.needs[job]):
        return False
    if not plan.layout.upstream[s] and plan.taken(job)[-1] * every > now:
        return False
    if plan.layout.stages[s].ordered and plan.index[job] and job - 1 not in start:
        return False
    left = sum(plan.stage[j] == s for j in gone)
    return plan.buffers[s] is None or plan.place[job] < plan.buffers[s] + left
