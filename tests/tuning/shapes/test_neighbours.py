"""Why the neighbours of the best shape lose."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings

from pipelab import Cluster, ModelFacts, plan_parallelism
from pipelab.tuning.shapes.neighbours import why
from tests.tuning.shapes.test_planner import planned, problems

GPT = ModelFacts.gpt(40, 6144, 48)


@pytest.fixture(scope="module")
def plan():
    return plan_parallelism(GPT, Cluster.of("a100", 4), 256, sharding=("none", "optimizer"))


def test_every_direction_is_told(plan):
    told = " / ".join(change for change, _ in plan.neighbours)
    for word in ("tp", "pp", "dp", "b", "m", "v", "recompute", "sharding"):
        assert re.search(rf"\b{word} \w+ -> \w+", told), f"{word} in {told}"
    assert "gradients" not in told, "a sharding that was not allowed"


@settings(max_examples=12)
@given(problems())
def test_a_neighbour_is_slower_or_does_not_fit_or_cannot_be(problem):
    found = planned(*problem)
    assume(found is not None)
    kinds = (
        r"cannot be: .|does not fit: .* of .|[\d.]+% slower: .* instead of |as quick, but takes .* more|equal in time"
    )
    for change, reason in found.neighbours:
        assert "->" in change
        assert re.match(kinds, reason), reason


def test_reasons_name_what_grew(plan):
    best, job = plan.best[0], plan.job
    assert "cannot be: dp * pp * tp is" in why(job, best, replace(best.shape, dp=2 * best.shape.dp))
    small = replace(job, cluster=replace(job.cluster, memory=best.memory.total / job.cluster.usable))
    more = replace(best.shape, recompute="none", sharding="none")
    assert re.match(r"does not fit: [\d.]+ GB of [\d.]+ GB", why(small, best, more))
    free = replace(job.cluster, memory="1TB")
    idle = replace(best.shape, dp=1, pp=16, tp=2, microbatch=16, microbatches=16, chunks=1)
    assert re.match(r".*% slower: bubble [\d.]+% instead of [\d.]+%", why(replace(job, cluster=free), best, idle))


def test_a_kind_that_leaves_its_node_is_named():
    job_of = {"cluster": Cluster.of("a100", 2, between=Cluster.of("a100", 1).between), "batch": 16}
    plan = plan_parallelism(GPT, tp=8, pp=1, sharding="optimizer", **job_of)
    best = plan.best[0]
    reason = why(plan.job, best, replace(best.shape, dp=1, tp=16, microbatches=16 // best.shape.microbatch))
    assert re.search(r"slower: tp crosses the node boundary, messages inside layers .* instead of ", reason)
