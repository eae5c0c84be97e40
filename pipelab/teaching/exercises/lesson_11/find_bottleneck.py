"""Exercise of lesson 11: which resource bounds a flow, how many items a second it lets through, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import close, kind_of, read_number, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_NAME, _RATE, _ENOUGH = "bottleneck", "throughput", "enough workers"
_CALLS = {_NAME: "bottleneck", _RATE: "throughput", _ENOUGH: "enough_workers"}
Stages = Sequence[Mapping[str, Any]]
Resources = Mapping[str, Mapping[str, Any]]


def _stage(name: str, on: str, ms: int = 0, kilobytes: int = 0) -> dict[str, Any]:
    return {"name": name, "on": on, "ms": ms, "kilobytes": kilobytes}


def _resource(workers: int = 1, bandwidth: int | None = None) -> dict[str, Any]:
    return {"workers": workers, "bandwidth": bandwidth}


def _case(part: str, stages: Stages, resources: Resources, pool: str = "core") -> Case:
    told = [f"{s['name']} on {s['on']}: {s['ms']} ms" if s["ms"] else _moves(s) for s in stages]
    who = [
        f"{name}: {r['workers']} worker{'s' * (r['workers'] > 1)}"
        + (f" of {r['bandwidth']} kB/ms" if r["bandwidth"] else "")
        for name, r in resources.items()
    ]
    words = f"{'; '.join(told)}. {'; '.join(who)}"
    words += f". Pool {pool}" if part == _ENOUGH else ""
    return Case(part, {"_stages": list(stages), "_resources": dict(resources), "_pool": pool, "_words": words})


def _moves(stage: Mapping[str, Any]) -> str:
    return f"{stage['name']} on {stage['on']}: {stage['kilobytes']} kB"


def _some(random: Random, part: str) -> Case:
    """A reader, some work, a writer. No two resources are equally loaded, nor in proportion 1 to a whole number."""
    while True:
        bandwidth = random.choice((20, 40, 50, 100))
        stages = [
            _stage("read", "disk", kilobytes=bandwidth * random.randint(2, 20)),
            _stage("map", "core", ms=random.randint(10, 90)),
            _stage("sort", random.choice(("core", "core", "sorter")), ms=random.randint(5, 60)),
            _stage("pack", random.choice(("core", "packer")), ms=random.randint(5, 60)),
            _stage("write", random.choice(("disk", "link")), kilobytes=bandwidth * random.randint(2, 20)),
        ]
        speed = {"disk": bandwidth, "link": bandwidth // 10 * random.randint(5, 15)}
        used = dict.fromkeys(str(stage["on"]) for stage in stages)
        resources = {
            name: _resource(1 if name in speed else random.randint(1, 6), speed.get(name)) for name in sorted(used)
        }
        loads = [loads_of(stages, resources)[name] for name in resources]
        others = max(load for name, load in loads_of(stages, resources).items() if name != "core")
        ratio = work_of("core", stages, resources) / others
        apart = abs(ratio - round(ratio)) > 0.02 and ratio > 1.1
        if len({round(load, 6) for load in loads}) == len(loads) and apart:
            return _case(part, stages, resources)


def _drawn(random: Random) -> list[Case]:
    return [_some(random, part) for part in _CALLS for _ in range(5)]


def _ask(call: Call, case: Case) -> Any:
    pool = [case["_pool"]] if case.part == _ENOUGH else []
    return call(_CALLS[case.part], case["_stages"], case["_resources"], *pool)


def _takes(stage: Mapping[str, Any], resources: Resources) -> float:
    bandwidth = resources[stage["on"]]["bandwidth"]
    return float(stage["kilobytes"] / bandwidth) if bandwidth else float(stage["ms"])


def work_of(name: str, stages: Stages, resources: Resources) -> float:
    """Milliseconds of work that an item is for a resource."""
    return sum(_takes(stage, resources) for stage in stages if stage["on"] == name)


@reserved
def loads_of(stages: Stages, resources: Resources) -> dict[str, float]:
    """Milliseconds between two items, at least, for each resource."""
    return {name: work_of(name, stages, resources) / r["workers"] for name, r in resources.items()}


@reserved
def enough(stages: Stages, resources: Resources, pool: str) -> int:
    """The fewest workers of ``pool`` with which another resource is the bottleneck, or as slow."""
    others = max(load for name, load in loads_of(stages, resources).items() if name != pool)
    return max(1, math.ceil(round(work_of(pool, stages, resources) / others, 9)))


def _judge(case: Case, data: Any) -> Finding | None:
    stages, resources = case["_stages"], case["_resources"]
    return {_NAME: _of_name, _RATE: _of_rate, _ENOUGH: _of_enough}[case.part](case, data, stages, resources)


def _of_name(case: Case, data: Any, stages: Stages, resources: Resources) -> Finding | None:
    loads = loads_of(stages, resources)
    wanted = max(loads, key=loads.__getitem__)
    if data == wanted:
        return None
    if not isinstance(data, str):
        raise Refused(f"{case.words}: bottleneck should return one of {', '.join(resources)}; it is {kind_of(data)}")
    if data in [stage["name"] for stage in stages] and data not in resources:
        return Finding(f"{case.words}: '{data}' is a stage. Return the name of the resource.")
    if data not in resources:
        raise Refused(f"{case.words}: bottleneck should return one of {', '.join(resources)}; it is {kind_of(data)}")
    start = f"{case.words}: bottleneck returned '{data}', but '{wanted}' needs {loads[wanted]:g} ms for each item, "
    start += f"and '{data}' {loads[data]:g} ms. "
    work = {name: work_of(name, stages, resources) for name in resources}
    longest = max(stages, key=lambda stage: _takes(stage, resources))
    alone = {
        n: max([_takes(s, resources) for s in stages if s["on"] == n]) / resources[n]["workers"] for n in resources
    }
    by_ms = {n: sum(s["ms"] for s in stages if s["on"] == n) / resources[n]["workers"] for n in resources}
    known = [
        (longest["on"], "It has the longest stage. What counts is all that a resource does for an item."),
        (max(alone, key=alone.__getitem__), "Stages that share a resource add up there."),
        (max(work, key=work.__getitem__), "Several workers share the work of a resource."),
        (max(by_ms, key=by_ms.__getitem__), "Bytes take time too: kilobytes / bandwidth."),
        (min(loads, key=loads.__getitem__), "That is the least loaded one."),
    ]
    return Finding(start + next((why for name, why in known if name == data), ""))


def _of_rate(case: Case, data: Any, stages: Stages, resources: Resources) -> Finding | None:
    given, loads = read_number(data, f"{case.words}: throughput"), loads_of(stages, resources)
    wanted = 1000 / max(loads.values())
    if close(given, wanted):
        return None
    start = f"{case.words}: throughput returned {given:.6g} items a second instead of {wanted:.6g}. "
    times = [_takes(stage, resources) for stage in stages]
    work = [work_of(name, stages, resources) for name in resources]
    by_ms = [sum(s["ms"] for s in stages if s["on"] == n) / r["workers"] for n, r in resources.items()]
    alone = [max(_takes(s, resources) for s in stages if s["on"] == n) / r["workers"] for n, r in resources.items()]
    known = [
        (1000 / sum(times), "That is one item after another. In a pipeline each resource has an item of its own."),
        (1000 / sum(loads.values()), "The resources' times were added up. They work at the same time."),
        (1000 / max(times), "That is the longest stage alone. Add up what a resource does, and share it."),
        (1000 / max(work), "The workers are missing: they share the work of a resource."),
        (1000 / max(by_ms), "The bytes are missing. A stage on a disk or link takes kilobytes / bandwidth."),
        (1000 / max(alone), "Stages that share a resource add up there."),
        (1000 / min(loads.values()), "That is the fastest resource. The slowest one decides."),
        (max(loads.values()), "That is the time between two items, in ms. The throughput is its inverse."),
        (1 / max(loads.values()), "That is items in a millisecond. A second has 1000."),
    ]
    return Finding((start + the_only((close(given, value), why) for value, why in known)).rstrip())


def _of_enough(case: Case, data: Any, stages: Stages, resources: Resources) -> Finding | None:
    pool = case["_pool"]
    given, wanted = read_whole(data, f"{case.words}: enough_workers"), enough(stages, resources, pool)
    if given == wanted:
        return None
    loads = {name: load for name, load in loads_of(stages, resources).items() if name != pool}
    other, work = max(loads, key=loads.__getitem__), work_of(pool, stages, resources)
    start = f"{case.words}: enough_workers returned {given} instead of {wanted}. "
    if given < 1:
        return Finding(f"{start}A pool has at least one worker.")
    shared = (
        f"With {given} of them '{pool}' needs {work / given:.4g} ms for an item, and '{other}' {loads[other]:.4g}. "
    )
    if given < wanted:
        return Finding(f"{start}{shared}So '{pool}' is still the bottleneck.")
    if given == wanted + 1 and close(work / wanted, loads[other]):
        return Finding(f"{start}{shared}With one fewer they are equal, and one more gains nothing.")
    return Finding(f"{start}{shared}Fewer are enough.")


_GENOME = [
    _stage("read", "disk", kilobytes=800),
    _stage("map", "core", ms=60),
    _stage("write", "disk", kilobytes=400),
]
_DISK = {"disk": _resource(1, 40), "core": _resource(1)}
_VIDEO = [
    _stage("motion", "core", ms=30),
    _stage("transform", "core", ms=40),
    _stage("code", "coder", ms=50),
    _stage("send", "link", kilobytes=100),
]
_LINK = {"core": _resource(2), "coder": _resource(1), "link": _resource(1, 10)}
_STORE = [
    _stage("load", "disk", kilobytes=800),
    _stage("check", "core", ms=13),
    _stage("store", "disk", kilobytes=400),
    _stage("sum", "core", ms=15),
    _stage("tell", "other", ms=5),
]
_SHARED = [
    _stage("load", "disk", kilobytes=200),
    _stage("a", "core", ms=20),
    _stage("b", "core", ms=25),
    _stage("c", "lone", ms=30),
    _stage("d", "pair", ms=50),
]
_PAIR = {"disk": _resource(1, 50), "core": _resource(1), "lone": _resource(1), "pair": _resource(2)}
_MIXED = [*_GENOME[:2], _stage("sort", "core", ms=28), _stage("pack", "packer", ms=34), _GENOME[2]]
_MANY = {"disk": _resource(1, 40), "core": _resource(4), "packer": _resource(2)}

EXERCISE = Exercise(
    name="find_bottleneck",
    lesson="11_pipelines_everywhere",
    title="Find the bottleneck",
    answers=tuple(_CALLS.values()),
    parts={_NAME: 1, _RATE: 1, _ENOUGH: 2},
    visible=[
        _case(_NAME, _GENOME, _DISK),
        _case(_NAME, _VIDEO, _LINK),
        _case(_NAME, _STORE, _DISK | {"other": _resource(1)}),
        _case(_NAME, _SHARED, _PAIR),
        _case(_RATE, _MIXED, _MANY),
        _case(_RATE, _GENOME, _DISK),
        _case(_RATE, _VIDEO, _LINK),
        _case(_RATE, _SHARED, _PAIR),
        _case(_ENOUGH, _GENOME, _DISK),
        _case(_ENOUGH, [*_GENOME[:1], _stage("map", "core", ms=70), *_GENOME[2:]], _DISK),
        _case(_ENOUGH, _VIDEO, _LINK | {"link": _resource(1, 4)}),
        _case(_ENOUGH, _SHARED, _PAIR | {"core": _resource(3)}),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
