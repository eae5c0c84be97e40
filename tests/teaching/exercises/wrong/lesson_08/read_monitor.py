from tests.teaching.exercises.wrong import Wrong

_MONITOR = """
from statistics import mean, median

def diagnose(rows):
    steps = sorted({{row["step"] for row in rows}})
    devices = sorted({{row["device"] for row in rows}})
    at = {{(row["step"], row["device"]): row for row in rows}}

    def busy(step, width=5):
        begin = min(max(step - width // 2, steps[0]), steps[-1] - width + 1)
        return [median(at[near, r]["busy"] for near in range(begin, begin + width)) for r in devices]

    def holds_up(step, width=5):
        now = busy(step, width)
        return None if mean(now) / max(now) > 0.95 else devices[now.index(max(now))]

    def layer(step, r):
        return at[step, r]["busy"] / at[step, r]["layers"]

    def total(column, chosen=steps):
        return [sum(at[step, r][column] for step in chosen) for r in devices]

    def against(chosen):
        return median(layer(s, device) / median(layer(s, r) for r in devices if r != device) for s in chosen)

    def alone(chosen):
        return median(layer(s, device) for s in chosen)

    if holds_up(steps[-1]) is None and {honest}:
        return None, None, "none"
    device = {device}
    since = steps[-1]
    while since > steps[0] and holds_up(since - 1) == device:
        since -= 1
    before, now = range(max(since - 5, steps[0]), since), range(since, steps[-1] + 1)
    slow = {slow}
    return device, {since}, {word} if slow else "too many layers"
"""
_RIGHT = {
    "honest": "True",
    "device": "holds_up(steps[-1])",
    "slow": "since > steps[0] and against(now) > 1.1 * against(before)",
    "word": "'slow device'",
    "since": "since",
}
WHO, WHY = ("which and since when",), ("why",)


def _monitor(says, open=WHO, **changes):
    return Wrong("read_monitor", _MONITOR.format(**{**_RIGHT, **changes}), says=says, open=open)


WRONG = [
    _monitor("that is about the past", device="total('busy').index(max(total('busy')))"),
    _monitor("It is the busiest in step", device="holds_up(steps[-1], 1)"),
    _monitor("It has the most layers", device="max(devices, key=lambda r: at[steps[-1], r]['layers'])"),
    _monitor("It idles longest", device="total('idle', steps[-5:]).index(max(total('idle', steps[-5:])))"),
    _monitor("its layers may be dear ones", device="max(devices, key=lambda r: median(layer(s, r) for s in steps))"),
    _monitor("in that step alone", device="max(at, key=lambda key: at[key]['busy'])[1]"),
    _monitor(
        "nobody holds the others up", honest="False", device="max(devices, key=lambda r: busy(steps[-1])[r])", open=()
    ),
    _monitor("from the first step on, step", since="max(since, steps[4])"),
    _monitor("a place in the list", since="steps.index(since)"),
    _monitor("That is where the rows end", since="steps[-1]"),
    _monitor("you say since step", since="steps[0]"),
    _monitor("not without a break", since="next(s for s in steps if holds_up(s) == device)"),
    _monitor(
        "One step may be disturbed",
        since="next(s for s in steps if at[s, device]['busy'] > 1.15 * mean(busy(s, 1)))",
    ),
    _monitor("has taken it longer since then", open=WHY, slow="False"),
    _monitor("it has not become slow", open=WHY, slow="True"),
    _monitor("The number of its layers is not the same", open=WHY, slow="since > steps[0]"),
    _monitor(
        "has taken it longer since then",
        open=WHY,
        slow="since > steps[0] and alone(now) > 1.1 * alone(before)",
    ),
    _monitor("why should be one of", open=WHY, word="'slow'"),
]
