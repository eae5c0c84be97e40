from tests.teaching.exercises.wrong import Wrong

_BOTH = """
from math import ceil, floor

def hidden_share(messages, busy):
    def within(sent, arrived):
        return sum(max(0, min(arrived, end) - max(sent, start)) for start, end in busy)

    total = sum(b - a for a, b in messages)
    if not total:
        return {none}
    hidden = sum(within(a, b) for a, b in messages)
    return {share}


def least_size(latency, bandwidth, sequence_bytes, alpha, beta):
    each = sequence_bytes / bandwidth
    {size}
"""
_SHARE = "hidden / total"
_SIZE = """if beta > each:
        return max(1, ceil((latency - alpha) / (beta - each)))
    return 1 if beta == each and latency <= alpha else None"""


def _share(says, share=_SHARE, none="1.0"):
    text = _BOTH.format(share=share, none=none, size=_SIZE)
    return Wrong("when_it_hides", text, says=says, open=("hidden share",))


def _size(says, size):
    text = _BOTH.format(share=_SHARE, none="1.0", size=size)
    return Wrong("when_it_hides", text, says=says, open=("least size",))


WRONG = [
    _share("That is the part that is not hidden", "1 - hidden / total"),
    _share(
        "That is the mean of the messages' shares",
        "sum(within(a, b) / (b - a) for a, b in messages if b > a) / len(messages)",
    ),
    _share("That counts messages", "sum(within(a, b) == b - a for a, b in messages) / len(messages)"),
    _share("hidden from end to end", "sum(b - a for a, b in messages if within(a, b) == b - a) / total"),
    _share(
        "compared with one busy interval",
        "sum(within_first(a, b) for a, b in messages) / total".replace(
            "within_first(a, b)", "next((x for s, e in busy if (x := min(b, e) - max(a, s)) > 0), 0)"
        ),
    ),
    _share("divided by the busy time", "hidden / sum(b - a for a, b in busy)"),
    _share(
        "the moment of arrival only", "sum(b - a for a, b in messages if any(s <= b <= e for s, e in busy)) / total"
    ),
    _share("the moment of sending only", "sum(b - a for a, b in messages if any(s <= a < e for s, e in busy)) / total"),
    _share(
        "were counted once",
        "(lambda ticks: sum(any(s <= t < e for s, e in busy) for t in ticks) / len(ticks))"
        "({t / 4 for a, b in messages for t in range(int(4 * a), int(4 * b))})",
    ),
    _share("nothing has to be hidden", none="0.0"),
    _size("so it sticks out", _SIZE.replace("ceil", "floor")),
    _size(
        "at least 1 sequence",
        _SIZE.replace("max(1, ceil((latency - alpha) / (beta - each)))", "ceil((latency - alpha) / (beta - each))"),
    ),
    _size("Alpha is missing", _SIZE.replace("latency - alpha", "latency")),
    _size("Latency and alpha were added", _SIZE.replace("latency - alpha", "latency + alpha")),
    _size("The bytes are missing", "return max(1, ceil((latency - alpha) / beta))"),
    _size("The two slopes were added", _SIZE.replace("beta - each)", "beta + each)")),
    _size(
        "a larger micro-batch makes it worse",
        """for b in range(1, 10000):
        if latency + each * b <= alpha + beta * b:
            return b
    return None""",
    ),
    _size("As long is enough", _SIZE.replace("ceil(", "1 + floor(")),
    _size("it stays hidden from there on", "return None"),
    _size("so it never hides", _SIZE.replace("else None", "else 1")),
]
