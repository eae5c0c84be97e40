"""All shapes that fit, the best of them, and what is said where there is none."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipelab import Cluster, ConfigurationError, ModelFacts, plan_parallelism
from pipelab.tuning.shapes.planner import shapes
from pipelab.tuning.shapes.shape import Job

GPT = ModelFacts.gpt(24, 2304, 24)
FREE = dict.fromkeys(("dp", "pp", "tp", "microbatch", "chunks", "recompute", "sharding"))


@st.composite
def problems(draw):
    """A model, a cluster and a batch."""
    heads = draw(st.sampled_from([4, 8, 12, 16]))
    groups = draw(st.sampled_from([None, 4]))
    sizes = {"layers": draw(st.integers(1, 30)), "width": 64 * heads, "heads": heads, "kv_heads": groups}
    facts = ModelFacts(**sizes, tokens=draw(st.sampled_from([128, 1024])), vocabulary=1000)
    nodes, per_node = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 6, 8]))
    memory = draw(st.sampled_from(["500MB", "2GB", "80GB"]))
    return facts, Cluster.of("a100", nodes, per_node=per_node, memory=memory), draw(st.sampled_from([24, 32, 48]))


def planned(facts, cluster, batch, **more):
    try:
        return plan_parallelism(facts, cluster, batch, **more)
    except ConfigurationError as error:
        assert re.search("none of [0-9]+ shapes fits|no dp|no shape", str(error))
        return None


@settings(max_examples=12)
@given(problems())
def test_every_shape_that_is_found_can_be_and_fits(problem):
    facts, cluster, batch = problem
    plan = planned(facts, cluster, batch, best=1000)
    assume(plan is not None)
    assert 1 <= len(plan.best) <= plan.fitting <= plan.considered
    for one in plan.best:
        shape = one.shape
        assert shape.dp * shape.pp * shape.tp == cluster.devices
        assert shape.dp * shape.microbatch * shape.microbatches == batch
        assert facts.heads % shape.tp == 0
        assert shape.chunks == 1 or shape.microbatches % shape.pp == 0
        assert one.memory.total <= cluster.allowed
        assert 0 < one.utilisation <= one.hardware_utilisation < cluster.reached
        assert 0 <= one.time.bubble_fraction < 1
    seconds = [one.time.total for one in plan.best]
    assert seconds == sorted(seconds)


@settings(max_examples=12)
@given(problems(), st.sampled_from([1.5, 4, 100]))
def test_more_memory_never_makes_the_best_slower(problem, factor):
    facts, cluster, batch = problem
    plan = planned(facts, cluster, batch)
    assume(plan is not None)
    more = plan_parallelism(facts, replace(cluster, memory=cluster.allowed * factor / cluster.usable), batch)
    assert more.best[0].time.total <= plan.best[0].time.total
    assert more.fitting >= plan.fitting


@settings(max_examples=12)
@given(problems())
def test_quicker_links_never_make_the_best_slower(problem):
    facts, cluster, batch = problem
    plan = planned(facts, cluster, batch)
    assume(plan is not None)
    quick = plan_parallelism(facts, replace(cluster, between=cluster.inside), batch)
    assert quick.best[0].time.total <= plan.best[0].time.total


def test_what_is_fixed_stays_and_several_values_may_be_allowed():
    cluster = Cluster.of("a100", 2)
    plan = plan_parallelism(GPT, cluster, 64, tp=(2, 4), recompute="full", sharding=["none"], chunks=1, best=99)
    assert {one.shape.tp for one in plan.best} == {2, 4}
    assert {(one.shape.recompute, one.shape.sharding, one.shape.chunks) for one in plan.best} == {("full", "none", 1)}
    free = plan_parallelism(GPT, cluster, 64)
    assert free.best[0].time.total < plan.best[0].time.total


def test_each_dp_pp_and_tp_is_there_once_with_its_quickest_settings():
    plan = plan_parallelism(GPT, Cluster.of("a100", 1), 16, best=99)
    kinds = [(one.shape.dp, one.shape.pp, one.shape.tp) for one in plan.best]
    assert len(kinds) == len(set(kinds))
    assert len(list(shapes(plan.job, FREE))) == plan.considered > len(kinds)
    assert len(plan_parallelism(GPT, Cluster.of("a100", 1), 16, best=2).best) == 2


def test_one_device_has_one_shape():
    plan = plan_parallelism(ModelFacts.gpt(2, 128, 2), Cluster.of("a100", 1, per_node=1), 1, recompute="none")
    assert str(plan.best[0].shape) == "dp 1, pp 1, tp 1, b = 1, m = 1, recompute none, sharding none"


def test_sixteen_thousand_devices_take_no_longer_than_a_second_or_two():
    begun = time.process_time()
    plan_parallelism(ModelFacts.gpt(128, 25600, 160), Cluster.of("h100", 2048), 16384)
    assert time.process_time() - begun < 5  # on a machine with other work


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": 7}, "plan_parallelism takes ModelFacts, got 7; try ModelFacts.gpt(24, 2304, 24)"),
        ({"cluster": "a100"}, "plan_parallelism takes Cluster, got 'a100'; try Cluster.of('a100', nodes=4)"),
        ({"batch": 0}, "batch must be a whole number of at least 1, got 0; try 1"),
        ({"batch": 7}, "no shape"),
        ({"tp": 5}, "no shape has tp = 5: with everything else as given, tp can be 1, 2, 4, 8"),
        ({"tp": 2.5}, "tp must be a whole number of at least 1, got 2.5"),
        ({"dp": 3, "tp": 2}, "no shape has dp = 3: with everything else as given, dp can be 1, 2, 4, 8"),
        ({"recompute": "all"}, "recompute must be 'none', 'selective', 'full', got 'all'; or leave it out"),
        ({"sharding": 3}, "sharding must be 'none', 'optimizer', 'gradients', 'parameters', got 3"),
        ({"order": "dp-tp-pp"}, "order must be 'tp-dp-pp' or 'tp-pp-dp', got 'dp-tp-pp'"),
        ({"best": 0}, "best must be a whole number"),
        ({"cluster": Cluster.of("a100", 2, memory="1GB")}, "fits into 900.0 MB a device; dp "),
    ],
)
def test_errors_say_what_works(changed, says):
    given = {"model": GPT, "cluster": Cluster.of("a100", 2), "batch": 64, **changed}
    if given["batch"] == 7:
        given["pp"] = 1
        given["tp"] = 1
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        plan_parallelism(**given)


def test_a_batch_that_cannot_be_shared_gets_one_that_can():
    odd = ModelFacts.gpt(1, 64, 1)
    with pytest.raises(ConfigurationError, match=r"no dp \* pp \* tp = 16 devices splits 1 layers.* try a batch of 16"):
        plan_parallelism(odd, Cluster.of("a100", 2), 7)


def test_torch_is_not_loaded():
    code = (
        "import sys; from pipelab import Cluster, ModelFacts, plan_parallelism;"
        "plan_parallelism(ModelFacts.gpt(4, 64, 4), Cluster.of('a100', 1), 8); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_job_is_what_all_shapes_have_in_common():
    plan = plan_parallelism(GPT, Cluster.of("a100", 1), 8, overlap=False, order="tp-pp-dp")
    assert plan.job == Job(GPT, Cluster.of("a100", 1), 8, True, False, "tp-pp-dp")
