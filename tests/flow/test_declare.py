"""What is wrong with a declaration is said in a sentence, before anything starts."""

import pytest

from pipelab import ConfigurationError
from pipelab.flow import Flow, FlowCosts, Resource, Stage

CORE = Resource("core")


def stage(name="a", **options):
    return Stage(name, str, options.pop("on", CORE), **options)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Resource(""), "a resource needs a name"),
        (lambda: Resource("core", workers=0), "workers of 'core' must be a whole number of at least 1, got 0; try 1"),
        (lambda: Resource("core", kind="cpu"), "'core' is of kind 'cpu'; there are core, gpu, disk, link"),
        (lambda: Resource("disk", kind="disk", bandwidth=-1), "bandwidth of 'disk' must be positive bytes per second"),
        (lambda: Resource("core", bandwidth=1e6), "'core' is a core, and only a disk or a link has a bandwidth"),
        (lambda: Resource("link", kind="link", latency=-1), "the latency of 'link' must be seconds from 0 on"),
        (lambda: Stage("", str, "core"), "a stage needs a name"),
        (lambda: Stage("a", "str", "core"), "work of stage 'a' must be a function, got 'str'"),
        (lambda: Stage("a", str, 3), "stage 'a' runs on a Resource or on the name of one, got 3"),
        (lambda: stage(batch=0), "batch of stage 'a' must be a whole number"),
        (lambda: stage(batch="every"), "batch of stage 'a' must be a whole number"),
        (lambda: stage(buffer=0), "buffer of stage 'a' must be a whole number"),
        (lambda: Flow(), "a flow needs at least one stage"),
        (lambda: Flow("map"), "a flow is made of stages, got 'map'"),
        (lambda: Flow(stage(), stage()), "two stages are called 'a'"),
        (lambda: Flow(stage(), stage("b", on="cor")), "'cor', which no stage declares; did you mean 'core'?"),
        (lambda: Flow(stage(on="core")), r"try Resource\('core'\)"),
        (lambda: Flow(stage(), stage("b", on=Resource("core", 2))), "declare it once and give its name"),
        (lambda: Flow(stage(on=Resource("c", 2)), stage("b", on=Resource("c 1"))), "would be called 'c 1'"),
        (
            lambda: Flow(stage("map"), stage("b", after="mop")),
            "comes after 'mop', which no stage is; did you mean 'map'",
        ),
        (lambda: Flow(stage(), stage("b", after=["a", "a"])), "names a stage twice"),
        (
            lambda: Flow(stage("x", after="z"), stage("y"), stage("z")),
            "stages come after each other in a circle: .*; let one take the items",
        ),
        (
            lambda: Flow(Stage("a", str, Resource("disk", kind="disk", bandwidth=1e6))),
            "does not say how many bytes a job moves; give size=len",
        ),
    ],
)
def test_what_cannot_be_declared(make, said):
    with pytest.raises(ConfigurationError, match=said):
        make()


@pytest.mark.parametrize(
    ("do", "said"),
    [
        (lambda flow: flow.predict(0, {"a": 1}), "items must be a whole number of at least 1, got 0"),
        (lambda flow: flow.run([]), "items must be a whole number of at least 1, got 0"),
        (lambda flow: flow.predict(3, {"b": 1}), r"the cost of 'a' is not given, only of b; flow.profile\(items\)"),
        (lambda flow: flow.predict(3, {"a": -1}), "the cost of 'a' must be seconds from 0 on, got -1"),
        (lambda flow: flow.predict(3, 0.5), "costs are FlowCosts or seconds by stage, got 0.5"),
        (lambda flow: flow.predict(3, {"a": 1}, every=-1), "every must be seconds between two items"),
        (lambda flow: flow.run([1], launch="fork"), "launch must be 'threads' or 'processes', got 'fork'"),
        (lambda flow: flow.run([1], clock="cpu"), "clock must be 'wall' or 'device', got 'cpu'"),
    ],
)
def test_what_cannot_be_asked_of_a_flow(do, said):
    with pytest.raises(ConfigurationError, match=said):
        do(Flow(stage()))


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (lambda i: [("b", 0)], r"a 0 needs \('b', 0\), and there is no such stage"),
        (lambda i: [("a", i - 1)], r"a 0 needs \('a', -1\), and 'a' has jobs 0 to 2; leave it out there"),
    ],
)
def test_needs_that_nobody_makes(needs, said):
    with pytest.raises(ConfigurationError, match=said):
        Flow(stage(needs=needs)).predict(3, {"a": 1})


def test_stages_that_make_unequal_numbers_cannot_be_joined():
    flow = Flow(stage(), stage("b", batch=2), stage("c", after=["a", "b"]))
    with pytest.raises(ConfigurationError, match="there are 4 of 'a', 2 of 'b'; let them make equally many"):
        flow.predict(4, {"a": 1, "b": 1, "c": 1})


def test_costs_by_kind_and_a_faster_disk_than_was_measured():
    disk = Resource("disk", kind="disk", bandwidth=1e6)
    flow = Flow(Stage("w", len, disk, size=len, kind=lambda i: "IP"[i % 2]))
    costs = FlowCosts({("w", "I"): 0.5, ("w", "P"): 0.1}, {("w", "I"): 1e6, ("w", "P"): 1e6})
    assert [span.duration for span in flow.predict(2, costs).spans] == pytest.approx([1, 1])
    fast = Flow(Stage("w", len, Resource("disk", kind="disk", bandwidth=4e6), size=len, kind=lambda i: "IP"[i % 2]))
    assert [span.duration for span in fast.predict(2, costs).spans] == pytest.approx([0.5, 0.25])


def test_a_batch_costs_in_proportion_to_what_it_takes():
    costs = FlowCosts({("a", ""): 3.0}, takes={("a", ""): 3})
    timeline = Flow(stage(batch=3)).predict(7, costs)
    assert [span.duration for span in timeline.spans] == [3, 3, 1]
    assert [span.duration for span in Flow(stage(batch="all")).predict(6, costs).spans] == [6]


@pytest.mark.parametrize("said", [{"kind": lambda i: "IPB"[i]}, {"needs": lambda i: [("a", i // 0)]}, {"needs": abs}])
def test_a_function_of_the_index_that_fails_is_named_before_anything_runs(said):
    ran = []
    flow = Flow(Stage("a", ran.append, Resource("core")), Stage("b", print, "core", **said))
    with pytest.raises(ConfigurationError, match=r"of stage 'b' failed: \w+Error"):
        flow.profile(range(5), progress=False)
    assert ran == []
