from tests.teaching.exercises.wrong import Wrong

_ALL = """
from itertools import combinations


def cut_for_nodes(costs, sizes, devices, inside, between):
    p, half = devices, devices // 2

    def weight(k, first, stop, link):
        work, size = sum(costs[first:stop]), sizes[stop - 1]
        return {weight}

    def heaviest(cuts):
        bounds = (0, *cuts, len(costs))
        return max(
            weight(k, bounds[k], bounds[k + 1], between if {slow} else inside) for k in range(p)
        )

    cuts = list(min(combinations(range(1, len(costs)), p - 1), key=heaviest))
    return {cuts}


def crossings(nodes, order, chunks):
    p, v = len(nodes), chunks
    row = [nodes[device] for device in order]
    inner, wrap = sum(a != b for a, b in zip(row, row[1:])), row[-1] != row[0]
    return {count}


def best_order(nodes, chunks):
    return {order}
"""
_RIGHT = {
    "weight": "max(work, size / link if k < p - 1 else 0)",
    "slow": "k == half - 1",
    "cuts": "cuts",
    "count": "2 * (v * inner + (v - 1) * wrap)",
    "order": "sorted(range(len(nodes)), key=nodes.__getitem__)",
}


def _but(part, says, **changed):
    text = _ALL
    for name, value in {**_RIGHT, **changed}.items():
        text = text.replace("{" + name + "}", value)
    return Wrong("node_boundary", text, says=says, open=(part,))


def _cut(says, **changed):
    return _but("which cut", says, **changed)


def _count(says, count):
    return _but("how many cross", says, count=count)


def _order(says, order):
    return _but("which order", says, order=order)


WRONG = [
    _cut("if messages took no time", weight="work"),
    _cut("if all links were like those inside", slow="False"),
    _cut("if all links were slow", slow="True"),
    _cut("the slow link is behind stage", slow="k == half"),
    _cut("were added", weight="work + (size / link if k < p - 1 else 0)"),
    _cut("The last stage sends nothing", weight="max(work, size / link)"),
    _cut("multiplied by the bandwidth", weight="max(work, size * link if k < p - 1 else 0)"),
    _cut("as many layers as any other", cuts="[round(k * len(costs) / p) for k in range(1, p)]"),
    _cut("forgets to balance the work", weight="size if k == half - 1 else 0"),
    _cut("These are numbers of layers", cuts="[b - a for a, b in zip([0, *cuts], [*cuts, len(costs)])]"),
    _cut("of each but stage 0", cuts="[0, *cuts]"),
    _cut("Each stage needs a layer", cuts="[cut - 2 for cut in cuts]"),
    _count("activations alone", "v * inner + (v - 1) * wrap"),
    _count("The way round is missing", "2 * v * inner"),
    _count("once too often", "2 * v * (inner + wrap)"),
    _count("That is one round", "2 * inner"),
    _count("devices in the order 0, 1, 2", "2 * sum(a != b for a, b in zip(nodes * v, (nodes * v)[1:]))"),
    _count("That is all messages", "2 * (p * v - 1)"),
    _order("the order of their numbers", "list(range(len(nodes)))"),
    _order("name the devices", "sorted(nodes)"),
    _order("closes inside a node", "(lambda row: row[1:] + row[:1])(sorted(range(len(nodes)), key=nodes.__getitem__))"),
    _order(
        "Keep a node's devices together",
        "sorted(range(len(nodes)), key=lambda d: (nodes[:d].count(nodes[d]), nodes[d]))",
    ),
]
