from tests.teaching.exercises.wrong import Wrong

_ALL = """
import math

def takes(stage, resources):
    bandwidth = resources[stage["on"]]["bandwidth"]
    return stage["kilobytes"] / bandwidth if bandwidth else stage["ms"]

def work(name, stages, resources):
    return sum(takes(s, resources) for s in stages if s["on"] == name)

def load(name, stages, resources):
    return work(name, stages, resources) / resources[name]["workers"]

def alone(name, stages, resources):
    return max(takes(s, resources) for s in stages if s["on"] == name) / resources[name]["workers"]

def by_ms(name, stages, resources):
    return sum(s["ms"] for s in stages if s["on"] == name) / resources[name]["workers"]

def bottleneck(stages, resources):
    return {name}

def throughput(stages, resources):
    loads = [load(name, stages, resources) for name in resources]
    times = [takes(s, resources) for s in stages]
    return {rate}

def enough_workers(stages, resources, pool):
    mine = work(pool, stages, resources)
    other = max(load(name, stages, resources) for name in resources if name != pool)
    return {enough}
"""
_NAME = "max(resources, key=lambda name: load(name, stages, resources))"
_RATE, _ENOUGH = "1000 / max(loads)", "max(1, math.ceil(mine / other))"


def _but(part, says, name=_NAME, rate=_RATE, enough=_ENOUGH):
    text = _ALL.replace("{name}", name).replace("{rate}", rate).replace("{enough}", enough)
    return Wrong("find_bottleneck", text, says=says, open=(part,))


def _name(says, name):
    return _but("bottleneck", says, name=name)


def _rate(says, rate):
    return _but("throughput", says, rate=rate)


def _enough(says, enough):
    return _but("enough workers", says, enough=enough)


def _most(of):
    return _NAME.replace("load(", f"{of}(")


WRONG = [
    _name("It has the longest stage", "max(stages, key=lambda s: takes(s, resources))['on']"),
    _name("'map' is a stage", "max(stages, key=lambda s: takes(s, resources))['name']"),
    _name("Stages that share a resource add up there", _most("alone")),
    _name("Several workers share the work", _most("work")),
    _name("Bytes take time too", _most("by_ms")),
    _name("the least loaded one", _NAME.replace("max(", "min(", 1)),
    _name("should return one of disk, core", "0"),
    _rate("one item after another", "1000 / sum(times)"),
    _rate("They work at the same time", "1000 / sum(loads)"),
    _rate("That is the longest stage alone", "1000 / max(times)"),
    _rate("The workers are missing", "1000 / max(work(name, stages, resources) for name in resources)"),
    _rate("The bytes are missing", "1000 / max(by_ms(name, stages, resources) for name in resources)"),
    _rate("Stages that share a resource add up there", "1000 / max(alone(n, stages, resources) for n in resources)"),
    _rate("That is the fastest resource", "1000 / min(loads)"),
    _rate("The throughput is its inverse", "max(loads)"),
    _rate("A second has 1000", "1 / max(loads)"),
    _enough("is still the bottleneck", "max(1, int(mine / other))"),
    _enough("one more gains nothing", "int(mine / other) + 1"),
    _enough("is still the bottleneck", "resources[pool]['workers']"),
    _enough("Fewer are enough", "math.ceil(mine / other) + 3"),
    _enough("at least one worker", "0"),
]
