from tests.teaching.exercises.wrong import Wrong

_TABLE = """
def interleaved(devices, microbatches, chunks):
    p, m, v = devices, microbatches, chunks
    g = m // max(1, m // p)
    total, size = m * v, {size}
    order = [(c, g + i) for g in range(0, m, size) for c in range(v) for i in range(size)]
    rows = []
    for r in range(p):
        w = min(max({w}, 0), total)
        forwards = [f"{{{stage}}}F{{i}}" for c, i in order]
        backwards = []
        for c, i in order:
            c = {back}
            backwards.append(f"{{{stage}}}B{{i}}")
        row = forwards[:w]
        for k in range(total - w):
            row += [forwards[w + k], backwards[k]]
        rows.append(row + backwards[total - w:])
    return rows
"""
_RIGHT = {"size": "g", "w": "2 * (p - 1 - r) + (v - 1) * g", "stage": "c * p + r", "back": "v - 1 - c"}


def _table(says, open=(), **changes):
    return Wrong("interleaved", _TABLE.format(**{**_RIGHT, **changes}), says=says, open=open)


_PAIRS = """
def interleaved(devices, microbatches, chunks):
    p, total = devices, microbatches * chunks
    g = microbatches // max(1, microbatches // p)
    groups = [list(range(first, first + g)) for first in range(0, microbatches, g)]
    order = [(c, i) for group in groups for c in range(chunks) for i in group]
    turned = [(c, i) for group in groups for c in range(chunks) for i in reversed(group)]
    rows = []
    for r in range(p):
        forwards = [f"{{c * p + r}}F{{i}}" for c, i in order]
        backwards = [f"{{(chunks - 1 - c) * p + r}}B{{i}}" for c, i in {order}]
        w = min(2 * (p - 1 - r) + (chunks - 1) * g, total)
        row = forwards[:w]
        for forward, backward in zip(forwards[w:], backwards):
            row += [{pair}]
        rows.append(row + backwards[total - w:])
    return rows
"""
# Lesson 3's rule, slot by slot: a ready backward first, else a forward, at most w + 1 in flight.
_GREEDY = """
def interleaved(devices, microbatches, chunks):
    p, v, total = devices, chunks, microbatches * chunks
    size = microbatches // max(1, microbatches // p)
    order = [(c, g + i) for g in range(0, microbatches, size) for c in range(v) for i in range(size)]
    rows, ran, done = [[] for _ in range(p)], [[0, 0] for _ in range(p)], set()
    while any(back < total for _, back in ran):
        now = []
        for r in range(p):
            forth, back = ran[r]
            if back < total:
                c, i = order[back]
                s = (v - 1 - c) * p + r
                if ("F", s, i) in done and (s == p * v - 1 or ("B", s + 1, i) in done):
                    now.append((r, "B", s, i))
                    continue
            if forth < total and forth - back <= 2 * (p - 1 - r) + (v - 1) * size:
                c, i = order[forth]
                s = c * p + r
                if s == 0 or ("F", s - 1, i) in done:
                    now.append((r, "F", s, i))
        for r, op, s, i in now:
            rows[r].append(f"{s}{op}{i}")
            ran[r]["FB".index(op)] += 1
            done.add((op, s, i))
    return rows
"""


WRONG = [
    _table("they gain nothing", stage="r * v + c"),
    _table("comes to the last chunk first", back="c"),
    _table("go through chunk 0 before chunk 1 begins", size="m"),  # with the lesson's warm-up: stuck,
    _table(  # all micro-batches through chunk 0 first, and a warm-up for it: as fast, and holds more and more
        "what is in flight grows with m",
        size="m",
        w="2 * (p - 1 - r) + (v - 1) * m",
        open=("in flight", "gradients", "other groups"),
    ),
    _table(  # the lesson's groups, whatever m
        "They should make 1 group of 5",
        size="p",
        w="2 * (p - 1 - r) + (v - 1) * p",
        open=("other groups",),
    ),
    _table("go round the devices v = 2 times", w="2 * (p - 1 - r) + (v - 1) * min(g, p)", open=("other groups",)),
    _table("go round the devices v = 2 times", w="p - 1 - r"),
    _table("before", size="1", w="p - 1 - r"),  # one micro-batch at a time round the devices,
    _table(
        "the first of them is back from",
        size="1",
        w="2 * (p - 1 - r) + v - 1",
        open=("time", "gradients", "other groups"),
    ),
    _table("GPipe's order, with chunks", w="total", open=("in flight", "gradients")),
    _table("All devices have the same warm-up", w="2 * (p - 1) + (v - 1) * g", open=("time", "gradients")),
    _table("by then its first gradient", w="2 * (p - r) + (v - 1) * g", open=("in flight", "gradients")),
    _table("Its warm-up has", w="2 * (p - 1 - r) + (v - 1) * g + 1", open=("in flight", "gradients")),
    _table("go round the devices v = 2 times", w="2 * (p - 1 - r)"),
    Wrong(
        "interleaved", _PAIRS.format(order="order", pair="backward, forward"), says="in a pair the forward goes first"
    ),
    Wrong("interleaved", _PAIRS.format(order="turned", pair="forward, backward"), says="backwards in reverse order"),
    Wrong("interleaved", _GREEDY, says="as by lesson 3's rule", open=("time", "gradients")),
    _table("not by its device", stage="r"),
    _table("not by its chunk", stage="c"),
    Wrong(
        "interleaved",
        """
def interleaved(devices, microbatches, chunks):
    from pipelab import build_schedule
    return build_schedule("interleaved", devices, microbatches, chunks=chunks)
""",
        says="does not answer here",
    ),
    Wrong(
        "interleaved",
        """
def interleaved(devices, microbatches, chunks):
    rows = []
    for r in range(devices):
        w = min(devices - 1 - r, microbatches)
        row = [f"{r}F{i}" for i in range(w)]
        for i in range(microbatches - w):
            row += [f"{r}F{w + i}", f"{r}B{i}"]
        rows.append(row + [f"{r}B{i}" for i in range(microbatches - w, microbatches)])
    return rows
""",
        says="is missing",
    ),
]
