from tests.teaching.exercises.wrong import Wrong

_BOTH = """
from math import ceil, floor

def loads(stages):
    found = {}
    for resource, a, c in stages:
        x, y = found.get(resource, (0, 0))
        found[resource] = {load}
    return found


def gpu_share(stages, b):
    times = {}
    for resource, a, c in stages:
        times[resource] = times.get(resource, 0) + a + c * b
    others = [time for name, time in times.items() if name != "gpu"]
    gpu = times["gpu"]
    return {share}


def least_batch(stages, item_bytes, buffers, limit):
    found = loads(stages)
    launch, each = found.pop("gpu")
    low, high = 1, {fits}
    for a, c in found.values():
        if each > c:
            low = max(low, {bound})
        elif each < c:
            high = {upper}
        elif {equal}:
            return None
    return {answer}
"""
_RIGHT = {
    "load": "(x + a, y + c)",
    "share": "gpu / max(times.values())",
    "fits": "limit // (item_bytes * buffers)",
    "bound": "ceil((a - launch) / (each - c))",
    "upper": "min(high, floor((launch - a) / (c - each)))",
    "equal": "a > launch",
    "answer": "low if low <= high else None",
}


def _but(part, says, **changed):
    text = _BOTH
    for name, value in {**_RIGHT, **changed}.items():
        text = text.replace("{" + name + "}", value)
    return Wrong("least_batch", text, says=says, open=(part,))


def _share(says, share):
    return _but("busy share", says, share=share)


def _batch(says, **changed):
    return _but("least batch", says, **changed)


WRONG = [
    _share("looked at one by one", "gpu / max(a + c * b for _, a, c in stages)"),
    _share("one batch after the other", "gpu / sum(times.values())"),
    _share("do not add up", "min(1, gpu / sum(others))"),
    _share("That is above 1", "max(times.values()) / gpu"),
    _share("Then it is busy all the time", "gpu / max(others)"),
    _share("The launch is missing", "next(c for name, _, c in stages if name == 'gpu') * b / max(times.values())"),
    _share("in which the GPU is idle", "1 - gpu / max(times.values())"),
    _batch("(3.5 + 6.75)", load="max((a, c), (x, y))"),
    _batch("That does not fit: 2 batches", fits="10**9"),
    _batch("That does not fit: 2 batches", fits="limit // item_bytes"),
    _batch("So the GPU waits", bound="floor((a - launch) / (each - c))"),
    _batch("A batch has at least 1 item", answer="min(low, 0) if low <= high else None"),
    _batch("As long is enough", bound="ceil(a / (each - c))"),
    _batch("As long is enough", bound="floor((a - launch) / (each - c)) + 1"),
    _batch("As long is enough", answer="high if low <= high else None"),
    _batch("a larger batch makes it worse", upper="high"),
    _batch("no resource takes longer than the GPU, and", equal="True"),
    _batch("So the GPU waits. No batch that fits changes that", equal="False"),
    _batch("no resource takes longer than the GPU, and", upper="0"),
]
