from tests.teaching.exercises.wrong import Wrong

_REASONS = """{
        (120, 0): ["bubble", "granularity", "recompute"],
        (42, 0): ["memory", "granularity", "memory", "recompute"],
        (30, 0): ["memory", "granularity"],
        (120, 10): ["messages", "bubble", "granularity", "recompute"],
        (42, 10): ["memory", "messages", "memory", "granularity"],
    }"""
_RIGHT = {
    (120, 0): ("1f1b", 8),
    (42, 0): ("1f1b", 13),
    (30, 0): ("1f1b + R", 8),
    (120, 10): ("gpipe", 8),
    (42, 10): ("gpipe + R", 8),
}
_DEFEND = """
def defend(limit, latency, others):
    choice = {choice}
    reasons = {reasons}
    return (*choice[limit, latency], {told})
"""


def _defend(says, open, reasons=_REASONS, told="reasons[limit, latency]", **changes):
    choice = _RIGHT | {tuple(map(int, key.split("_")[1:])): value for key, value in changes.items()}
    return Wrong("defend", _DEFEND.format(choice=choice, reasons=reasons, told=told), says=says, open=open)


def _reasons(says, old, new):
    assert old in _REASONS
    return _defend(says, open=("reasons",), reasons=_REASONS.replace(old, new))


WRONG = [
    Wrong(
        "defend",
        "def defend(limit, latency, others):\n    return ('1f1b', 8), ['memory'] * 4",
        says="2 entries instead",
    ),
    _defend("holds the whole batch, for any m", ("free messages",), c_42_0=("gpipe", 16)),
    _defend("a larger m holds less", ("free messages",), c_42_0=("1f1b", 8)),
    _defend("too many micro-batches", ("free messages",), c_120_0=("1f1b", 16), c_42_0=("1f1b", 16)),
    _defend("waits for them again and again", ("slow messages",), c_120_10=("1f1b", 8), c_42_10=("1f1b", 13)),
    _defend("which this limit does not ask for", ("slow messages",), c_120_10=("gpipe + R", 8)),
    _defend("too many micro-batches", ("free messages",), c_30_0=("1f1b", 24)),
    _defend("too few micro-batches", ("free messages",), c_120_0=("gpipe", 4)),
    _reasons("It does not run at all", '["memory", "messages", "memory"', '["recompute", "messages", "memory"'),
    _reasons("so it fits", '["messages", "bubble", "granularity", "recompute"]', '["memory"] * 4'),
    _reasons(
        "It loses no time there", '["bubble", "granularity", "recompute"]', '["granularity", "bubble", "recompute"]'
    ),
    _reasons(
        "Something else costs it more",
        '["memory", "granularity", "memory", "recompute"]',
        '["memory", "granularity", "memory", "bubble"]',
    ),
]
