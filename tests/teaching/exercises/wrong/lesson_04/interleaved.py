from tests.teaching.exercises.wrong import Wrong

_PLACEMENT = """
def device_of(stage, devices, chunks):
    p, v = devices, chunks
    return {device}

def layers_on(device, layers, devices, chunks):
    r, p, v = device, devices, chunks
    each = layers // (p * v)
    return {layers}
"""
_DEVICE = "stage % p"
_LAYERS = "[(c * p + r) * each + k for c in range(v) for k in range(each)]"


def _device(answer, says):
    return Wrong("placement", _PLACEMENT.format(device=answer, layers=_LAYERS), says=says, open=("stages",))


def _layers(answer, says):
    return Wrong("placement", _PLACEMENT.format(device=_DEVICE, layers=answer), says=says, open=("layers",))


_WARMUP = """
def interleaved_warmup(device, devices, microbatches, chunks):
    r, p, m, v = device, devices, microbatches, chunks
    return {}
"""


def _warmup(answer, says, open=()):
    return Wrong("interleaved_warmup", _WARMUP.format(answer), says=says, open=open)


_TABLE = """
def interleaved(devices, microbatches, chunks):
    p, m, v = devices, microbatches, chunks
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
_RIGHT = {"size": "p", "w": "2 * (p - 1 - r) + (v - 1) * p", "stage": "c * p + r", "back": "v - 1 - c"}


def _table(says, open=(), **changes):
    return Wrong("interleaved", _TABLE.format(**{**_RIGHT, **changes}), says=says, open=open)


_PAIRS = """
def interleaved(devices, microbatches, chunks):
    p, total = devices, microbatches * chunks
    groups = [list(range(first, first + p)) for first in range(0, microbatches, p)]
    order = [(c, i) for group in groups for c in range(chunks) for i in group]
    turned = [(c, i) for group in groups for c in range(chunks) for i in reversed(group)]
    rows = []
    for r in range(p):
        forwards = [f"{{c * p + r}}F{{i}}" for c, i in order]
        backwards = [f"{{(chunks - 1 - c) * p + r}}B{{i}}" for c, i in {order}]
        w = min(2 * (p - 1 - r) + (chunks - 1) * p, total)
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
    order = [(c, g + i) for g in range(0, microbatches, p) for c in range(v) for i in range(p)]
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
            if forth < total and forth - back <= 2 * (p - 1 - r) + (v - 1) * p:
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

_EVEN = """
from pipelab import Costs, simulate

def break_even(plain, interleaved, forward, backward):
    f, b = forward, backward
    p, m, v = plain.devices, plain.microbatches, interleaved.chunks
    saved = (p - 1) * (f + b) * (1 - 1 / v)

    def lead(latency):
        return {lead}

    low, high = 0.0, {high}
    while {double} and lead(high) > 0:
        low, high = high, 2 * high
    for _ in range({halvings}):
        middle = (low + high) / 2
        low, high = (middle, high) if lead(middle) > 0 else (low, middle)
    return {answer}
"""
_BOTH = (
    "simulate(plain, Costs(forward={f}, backward={b}, latency=latency)).makespan"
    " - simulate(interleaved, Costs(forward={g}, backward={c}, latency=latency)).makespan"
)
_SEARCH = {
    "lead": _BOTH.format(f="f", b="b", g="f", c="b"),
    "high": "f",
    "double": "True",
    "halvings": 14,
    "answer": "high",
}


def _even(says, open=(), costs=None, **changes):
    if costs is not None:
        changes["lead"] = _BOTH.format(**{"f": "f", "b": "b", "g": "f", "c": "b", **costs})
    return Wrong("break_even", _EVEN.format(**{**_SEARCH, **changes}), says=says, open=open)


def _formula(answer, says):
    return _even(says, answer=answer, double="False", halvings=0)


WRONG = [
    _device("stage // v", "neighbouring chunks"),
    _device("stage // p", "it is the chunk"),
    _device("stage % v", "counts round after v"),
    _device("stage % p if stage // p % 2 == 0 else p - 1 - stage % p", "like a V"),
    _device("stage % p + 1", "counted from 0"),
    _device("min(stage, p - 1)", "Each device holds v"),
    _layers("list(range(r * each * v, (r + 1) * each * v))", "one run of neighbouring layers"),
    _layers("list(range(r, layers, p))", "deals out single layers"),
    _layers("list(range(r * each, (r + 1) * each))", "the first chunk alone"),
    _layers("[c * p + r for c in range(v)]", "stages has"),
    _layers(
        "[(c * p + r) * (layers // p) + k for c in range(v) for k in range(layers // p)]", "a stage has layers/(p v)"
    ),
    _layers("[(c * p + r) * each + k + 1 for c in range(v) for k in range(each)]", "there is no layer"),
    _layers("[(c * p + r) * each + k for c in range(v - 1, -1, -1) for k in range(each)]", "in ascending order"),
    _warmup("min(p - 1 - r, m * v)", "That is 1F1B's"),
    _warmup("2 * (p - 1 - r) + (v - 1) * p", "No device can run that many", open=("m = p",)),
    _warmup("min(2 * (p - 1 - r), m * v)", "forwards of the chunks before"),
    _warmup("min(2 * (p - r) + (v - 1) * p, m * v)", "Two too many"),
    _warmup("min((p - 1 - r) + (v - 1) * p, m * v)", "any message that takes time"),
    _warmup("min(2 * (p - 1 - r) + v * p, m * v)", "v for v - 1"),
    _warmup("min(2 * (p - 1) + (v - 1) * p, m * v)", "device 0's, on every device"),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * m, m * v)", "Forwards go in groups of p", open=("m > p",)),
    _warmup("min(2 * (p - 1 - r) + v - 1, m * v)", "a whole group of p"),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * p + 1, m * v)", "How many forwards fit between"),
    _warmup("m * v", "GPipe's order, with chunks", open=("m > p",)),
    _warmup("min(p - 1 - r if v == 1 else 2 * (p - 1 - r) + (v - 1) * p, m * v)", "v = 1 has the doubled warm-up too"),
    _warmup("p - 4 - r", "fewer than no forwards"),
    _table("they gain nothing", stage="r * v + c"),
    _table("comes to the last chunk first", back="c"),
    _table("go through chunk 0 before chunk 1 begins", size="m"),  # with the lesson's warm-up: stuck
    _table(  # all micro-batches through chunk 0 first, and a warm-up for it: as fast, and holds more and more
        "what is in flight grows with m",
        size="m",
        w="2 * (p - 1 - r) + (v - 1) * m",
        open=("in flight", "gradients"),
    ),
    _table("go round the devices v = 2 times", w="p - 1 - r"),
    _table("before", size="1", w="p - 1 - r"),  # one micro-batch at a time round the devices
    _table("In groups of p the device has work", size="1", w="2 * (p - 1 - r) + v - 1", open=("time", "gradients")),
    _table("GPipe's order, with chunks", w="total", open=("in flight", "gradients")),
    _table("All devices have the same warm-up", w="2 * (p - 1) + (v - 1) * p", open=("time", "gradients")),
    _table("by then its first gradient", w="2 * (p - r) + (v - 1) * p", open=("in flight", "gradients")),
    _table("Its warm-up has", w="2 * (p - 1 - r) + (v - 1) * p + 1", open=("in flight", "gradients")),
    _table("go round the devices v = 2 times", w="2 * (p - 1 - r)"),
    Wrong("interleaved", _PAIRS.format(order="order", pair="backward, forward"), says="goes first, then its backward"),
    Wrong("interleaved", _PAIRS.format(order="turned", pair="forward, backward"), says="backward in reverse"),
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
    # the v-fold number of messages is ignored: as many on the way as 1F1B has
    _formula("saved / (2 * (p - 1))", "on one schedule's way"),
    _formula("saved / (2 * m * (p * v - 1) - 2 * m * (p - 1))", "over all messages that are added"),
    _formula("saved / (2 * p * (v - 1))", "GPipe waits for messages only there"),
    _formula("saved / (2 * (p * v - 1))", "on one schedule's way"),
    _formula("saved", "A message is not sent once"),
    _even("twice over", costs={"g": "f / v", "c": "b / v"}),
    _even("the default of Costs", costs={"b": "1.0", "c": "1.0"}),
    _formula("next(k / 40 * f for k in range(400) if lead(k / 40 * f) <= 1e-9)", "take a finer step"),
    _even("the upper end of your interval", double="False", open=("other costs",)),
    _even("Are the two schedules exchanged", lead=f"-({_SEARCH['lead']})"),
    _formula("next(k / 8 * f for k in range(8) if lead(k / 8 * f) >= 0)", "Are the two schedules exchanged"),
    _even("in the unit of the costs", costs={"f": "1.0", "b": "b / f", "g": "1.0", "c": "b / f"}, high="1.0"),
    _even("give Costs both costs", costs={"b": "f", "c": "f"}, open=("other costs",)),
    _even("Is your interval wide enough", high="1.0", double="False"),
    _even("halve the interval", halvings=2),
    _formula("0", "a latency above 0"),
]
