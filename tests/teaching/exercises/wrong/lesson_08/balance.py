from tests.teaching.exercises.wrong import Wrong

_BALANCE = """
from statistics import mean, median, pstdev

def balance(rows, devices):
    busy = [0.0] * devices
    for device, start, end in rows:
        busy[device] += {what}
    return {score}
"""
_SOME = ("some devices idle",)


def _balance(says, score="mean(busy) / max(busy)", what="end - start", open=()):
    return Wrong("balance", _BALANCE.format(score=score, what=what), says=says, open=open)


_NAMED = """
from statistics import mean

def balance(rows, devices):
    busy = {}
    for device, start, end in rows:
        busy[device] = busy.get(device, 0) + end - start
    return mean(busy.values()) / max(busy.values())
"""

_SPANS = """
from statistics import mean

def balance(rows, devices):
    first, last = {}, {}
    for device, start, end in sorted(rows, key=lambda row: row[1]):
        first.setdefault(device, start)
        last[device] = end
    busy = [last.get(r, 0) - first.get(r, 0) for r in range(devices)]
    return mean(busy) / max(busy)
"""

_LAST = """
from statistics import mean

def balance(rows, devices):
    busy = [0.0] * devices
    for device, start, end in rows:
        busy[device] = end - start
    return mean(busy) / max(busy)
"""

WRONG = [
    Wrong("balance", _NAMED, says="leaves the idle devices out", open=_SOME),
    Wrong("balance", _SPANS, says="The gaps between are not work"),
    Wrong("balance", _LAST, says="only the last row of each device"),
    _balance("That is max over mean", score="max(busy) / mean(busy)"),
    _balance("min over max", score="min(busy) / max(busy)"),
    _balance("1 minus the relative spread", score="1 - pstdev(busy) / mean(busy)"),
    _balance(
        "mean utilisation",
        score="mean(busy) / (max(row[2] for row in rows) - min(row[1] for row in rows))",
    ),
    _balance("divides by the last end", score="mean(busy) / max(row[2] for row in rows)"),
    _balance("That counts rows", what="1"),
    _balance("That adds up the ends", what="end"),
    _balance("in per cent", score="100 * mean(busy) / max(busy)"),
    _balance("That is rounded", score="round(mean(busy) / max(busy), 2)"),
]
