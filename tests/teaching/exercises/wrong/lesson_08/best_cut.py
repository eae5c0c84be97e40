from tests.teaching.exercises.wrong import Wrong

_TABLE = """
def best_cut(costs, stages):
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    layers = {layers}
    best = [({first}, []) for total in sums]
    for s in range(1, stages):
        best = [
            min(
                (({both}, [*best[i][1], i]) for i in range({least}, j)),
                default=(float("inf"), []),
            )
            for j in range(len(sums))
        ]
    bounds = [0, *best[layers][1], layers]
    sizes = [end - begin for begin, end in zip(bounds, bounds[1:])]
    return {answer}
"""
_RIGHT = {
    "first": "total",
    "layers": "len(costs)",
    "both": "max(best[i][0], sums[j] - sums[i])",
    "least": "s",
    "answer": "sizes",
}

_GREEDY = """
def best_cut(costs, stages):
    mean, sizes = sum(costs) / stages, [0]
    held = 0
    for k, cost in enumerate(costs):
        must = len(costs) - k == stages - len(sizes)
        if sizes[-1] and len(sizes) < stages and (must or {full}):
            sizes.append(0)
            held = 0
        sizes[-1] += 1
        held += cost
    return sizes
"""

_EVEN = """
def best_cut(costs, stages):
    small, rest = divmod(len(costs), stages)
    return {sizes}
"""

_ALL = """
from itertools import combinations

def best_cut(costs, stages):
    best = None
    for inner in combinations(range(1, len(costs)), stages - 1):
        bounds = [0, *inner, len(costs)]
        pairs = list(zip(bounds, bounds[1:]))
        worst = max(sum(costs[a:b]) for a, b in pairs)
        if best is None or worst < best[0]:
            best = worst, [b - a for a, b in pairs]
    return best[1]
"""

_NEAREST = """
def best_cut(costs, stages):
    sums = [sum(costs[:j]) for j in range(len(costs) + 1)]
    bounds = [0]
    for k in range(1, stages):
        goal = sums[-1] * k / stages
        near = range(bounds[-1] + 1, len(costs) - (stages - k) + 1)
        bounds.append(min(near, key=lambda j: abs(sums[j] - goal)))
    bounds.append(len(costs))
    return [b - a for a, b in zip(bounds, bounds[1:])]
"""

_BY_LIMIT = """
def best_cut(costs, stages):
    def fill(limit):
        sizes, held = [0], 0
        for cost in costs:
            if held + cost > limit:
                sizes.append(0)
                held = 0
            sizes[-1] += 1
            held += cost
        return sizes

    limits = sorted({sum(costs[a:b]) for a in range(len(costs)) for b in range(a + 1, len(costs) + 1)})
    limit = next(limit for limit in limits if limit >= max(costs) and len(fill(limit)) <= stages)
    sizes = fill(limit)
    return """


def _table(says, open=(), **changes):
    return Wrong("best_cut", _TABLE.format(**{**_RIGHT, **changes}), says=says, open=open)


def _even(says, sizes):
    return Wrong("best_cut", _EVEN.format(sizes=sizes), says=says)


def _greedy(says, full):
    return Wrong("best_cut", _GREEDY.format(full=full), says=says)


WRONG = [
    _table("Did you add the stages up", both="best[i][0] + sums[j] - sums[i]"),
    _table("the sum of squares", first="total**2", both="best[i][0] + (sums[j] - sums[i]) ** 2"),
    _table("1 is in no stage", layers="len(costs) - 1 or 1", least="min(s, j - 1)"),
    _table("Those are the places of the cuts", answer="bounds"),
    _table("Those are the places of the cuts", answer="bounds[1:-1]"),
    _table("Those are the places of the cuts", answer="bounds[:-1]"),
    _table("Read from the other end", answer="sizes[::-1]"),
    _table("should be one number for each stage", answer="[costs[a:b] for a, b in zip(bounds, bounds[1:])]"),
    _greedy("before it is above the mean", "held + cost > mean"),
    _greedy("until it has the mean", "held >= mean"),
    _even("Equal numbers of layers", "[small + (s < rest) for s in range(stages)]"),
    _even("Equal numbers of layers", "[small] * (stages - 1) + [small + rest]"),
    _even("are in no stage", "[small] * stages"),
    Wrong("best_cut", _NEAREST, says="may miss both"),
    Wrong("best_cut", _BY_LIMIT + "sizes", says="one number for each stage, 4 in all", open=("small",)),
    Wrong("best_cut", _BY_LIMIT + "sizes + [0] * (stages - len(sizes))", says="has no layer", open=("small",)),
    Wrong("best_cut", _ALL, says="did not return within", open=("large",)),
]
