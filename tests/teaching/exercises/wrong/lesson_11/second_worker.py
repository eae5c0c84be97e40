from tests.teaching.exercises.wrong import Wrong

_ALL = """
from itertools import product

def right(seconds, workers):
    return min(w / t for t, w in zip(seconds, workers))


def profit(seconds, prices, worth, workers):
    return worth * right(seconds, workers) - sum(p * w for p, w in zip(prices, workers))


def throughput(seconds, workers):
    pairs = list(zip(seconds, workers))
    return {rate}


def gain(seconds, workers, stage, prices, worth):
    more = [w + (s == stage) for s, w in enumerate(workers)]
    before, after = right(seconds, workers), right(seconds, more)
    return {gain}


def best_workers(seconds, prices, worth, most):
    every = list(product(range(1, most + 1), repeat=len(seconds)))
    def brings(workers):
        return profit(seconds, prices, worth, workers)
    {best}
"""
_RIGHT = {
    "rate": "min(w / t for t, w in pairs)",
    "gain": "worth * (after - before) - prices[stage]",
    "best": "return list(max(every, key=brings))",
}


def _but(part, says, **changed):
    text = _ALL
    for name, value in {**_RIGHT, **changed}.items():
        text = text.replace("{" + name + "}", value)
    return Wrong("second_worker", text, says=says, open=(part,))


def _rate(says, rate):
    return _but("throughput", says, rate=rate)


def _gain(says, gain):
    return _but("one more worker", says, gain=gain)


def _best(says, best):
    return _but("best numbers", says, best=best)


_GREEDY = """workers = [1] * len(seconds)
    while max(workers) < most:
        slowest = {slowest}
        more = [w + (s in slowest) for s, w in enumerate(workers)]
        if brings(more) <= brings(workers):
            break
        workers = more
    return workers"""
_ONE = "[min(range(len(seconds)), key=lambda s: workers[s] / seconds[s])]"
_ALL_OF_THEM = "[s for s, w in enumerate(workers) if w / seconds[s] == right(seconds, workers)]"

WRONG = [
    _rate("one item at a time", "1 / sum(seconds)"),
    _rate("That has one worker at each stage", "1 / max(seconds)"),
    _rate("That is the fastest stage", "max(w / t for t, w in pairs)"),
    _rate("rates do not add up", "sum(w / t for t, w in pairs)"),
    _rate("the time between two results", "max(t / w for t, w in pairs)"),
    _rate("You added up the stages", "1 / sum(t / w for t, w in pairs)"),
    _gain("another stage sets the pace now", "worth / seconds[stage] - prices[stage]"),
    _gain("The price of the worker is missing", "worth * (after - before)"),
    _gain("the difference to what came in before", "worth * after - prices[stage]"),
    _gain("only while this stage is slowest", "worth * before / workers[stage] - prices[stage]"),
    _gain("That is the gain in items", "after - before"),
    _gain("were there before are paid", "profit(seconds, prices, worth, more) - worth * before"),
    _gain("The sign is the wrong way round", "prices[stage] - worth * (after - before)"),
    _gain("has a gain below 0", "max(0, worth * (after - before) - prices[stage])"),
    _best("set the pace together", _GREEDY.replace("{slowest}", _ONE)),
    _best("cost more than their items bring", "return list(max(every, key=lambda w: right(seconds, w)))"),
    _best("one more worker there brings more", "return [1] * len(seconds)"),
    _best("stage 0 does with 3 workers as well", "return [most] * len(seconds)"),
    _best("each stage needs 1 to", "return [round(worth * t) for t in seconds]"),
    _best("several more together do", _GREEDY.replace("{slowest}", _ALL_OF_THEM)),
]
