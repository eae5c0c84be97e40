"""What a plan tells: a table, parts in bytes and seconds, plain data."""

from __future__ import annotations

import json

import pytest

from pipelab import Cluster, ModelFacts, plan_parallelism

PLAN = plan_parallelism(ModelFacts.gpt(24, 2304, 24), Cluster.of("a100", 4), 512)


def test_it_is_a_readable_table():
    text = str(PLAN)
    assert "1.652 billion parameters, 512 sequences of 2048 tokens a step, 32 devices with 77.3 GB each to plan" in text
    for head in ("dp", "recompute", "tokens/s", "MFU", "bubble", "memory", "why its neighbours lose:"):
        assert head in text
    assert "its fullest device     device 0 of the pipeline: weights " in text
    assert "arithmetic; nothing here was run" in text
    assert max(map(len, text.splitlines())) < 180
    assert repr(PLAN).startswith("ParallelismPlan(") and repr(PLAN.best[0]).startswith("PlannedShape(dp ")


def test_speed_and_utilisation_follow_from_the_time():
    one = PLAN.best[0]
    tokens = 512 * 2048
    assert one.tokens_per_second == pytest.approx(tokens / one.time.total)
    rate = one.tokens_per_second * 3 * (24 * PLAN.job.model.layer_operations + PLAN.job.model.head_operations)
    assert one.utilisation == pytest.approx(rate / (32 * 312e12))


def test_recomputed_operations_count_for_the_hardware_alone():
    plan = plan_parallelism(PLAN.job.model, PLAN.job.cluster, 512, recompute="full")
    assert plan.best[0].hardware_utilisation / plan.best[0].utilisation == pytest.approx(4 / 3, abs=0.05)


def test_plain_data_has_everything():
    told = json.loads(json.dumps(PLAN.to_json(), allow_nan=False))
    assert told["devices"] == 32 and len(told["best"]) == len(PLAN.best)
    assert sum(told["best"][0]["time"].values()) == pytest.approx(told["best"][0]["seconds"])
    assert sum(told["best"][0]["memory"].values()) == pytest.approx(PLAN.best[0].memory.total)
    assert told["neighbours"] == dict(PLAN.neighbours)
