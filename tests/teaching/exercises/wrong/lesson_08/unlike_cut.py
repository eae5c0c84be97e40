from tests.teaching.exercises.wrong import Wrong

_UNLIKE = """
from itertools import combinations, permutations

def times(costs, speeds, sizes):
    found, begin = [], 0
    for size, speed in zip(sizes, speeds):
        found.append(sum(costs[begin : begin + size]) / speed)
        begin += size
    return found

def all_sizes(layers, p):
    for inner in combinations(range(1, layers), p - 1):
        bounds = [0, *inner, layers]
        yield [b - a for a, b in zip(bounds, bounds[1:])]

def right(costs, speeds):
    return min(all_sizes(len(costs), len(speeds)), key=lambda sizes: max(times(costs, speeds, sizes)))

def whole(layers, parts):
    sizes = [max(1, int(part)) for part in parts[:-1]]
    return sizes + [layers - sum(sizes)]

def cut_for(costs, speeds):
    p, layers = len(speeds), len(costs)
    return {cut}

def best_order(costs, speeds):
    p = len(speeds)
    def slowest(order):
        placed = [speeds[r] for r in order]
        return max(times(costs, placed, right(costs, placed)))
    order = {order}
    sizes = right(costs, [speeds[r] for r in order])
    place = [order.index(r) for r in range(p)]
    return {answer}
"""
_RIGHT = {
    "cut": "right(costs, speeds)",
    "order": "list(min(permutations(range(p)), key=slowest))",
    "answer": "(order, sizes)",
}


def _given(says, cut):
    return Wrong("unlike_cut", _UNLIKE.format(**{**_RIGHT, "cut": cut}), says=says, open=("given order",))


def _any(says, **changes):
    return Wrong("unlike_cut", _UNLIKE.format(**{**_RIGHT, **changes}), says=says, open=("any order",))


WRONG = [
    _given("is multiplied by the speed", "right(costs, [1 / speed for speed in speeds])"),
    _given("best cut for equal devices", "right(costs, [1] * p)"),
    _given("in the other order", "right(costs, speeds[::-1])"),
    _given("in proportion to the speeds", "whole(layers, [layers * speed / sum(speeds) for speed in speeds])"),
    _given("neither at costs nor at speeds", "[layers // p + (r < layers % p) for r in range(p)]"),
    _given("Return how many layers lie between", "[sum(right(costs, speeds)[:r]) for r in range(p)]"),
    _given("1 is in no stage", "[max(1, int(layers * speed / sum(speeds))) for speed in speeds]"),
    _any("The devices are sorted by speed", order="sorted(range(p), key=lambda r: -speeds[r])"),
    _any("The devices are sorted by speed", order="sorted(range(p), key=lambda r: speeds[r])"),
    _any("Another order is better", order="list(range(p))"),
    _any("Yours is by device", answer="(order, [sizes[k] for k in place])"),
    _any("at which place each device stands", answer="(place, sizes)"),
    _any("should both go by places", answer="(place, [sizes[k] for k in place])"),
    _any("should return two lists", answer="[*zip(order, sizes)]"),
    _any("each device 0 to", answer="([r + 1 for r in order], sizes)"),
    _any("In your own order", answer="(order, right(costs, [1] * p))"),
]
