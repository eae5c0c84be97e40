from tests.teaching.exercises.wrong import Wrong

_RULE = """
def fold(p, m, limit):
    stages = 2 * p
    takes = {takes}
    done = {{(op, s): 0 for s in range(stages) for op in takes}}
    rows, free, held, end = [[] for _ in range(p)], [0] * p, [0] * p, {{}}

    def ready(op, s, i):
        back = [("F", s), (op, s + 1)]
        needs = {{"F": [("F", s - 1)], "W": [("I", s)]}}.get(op, back)
        ends = [end.get((other, stage, i)) for other, stage in needs if 0 <= stage < stages]
        return None if None in ends else max(ends, default=0)

    while True:
        choices = []
        for (op, s), i in done.items():
            r = {home}
            time = ready(op, s, i) if i < m else None
            if time is not None and (op != "F" or held[r] + 1 + {spare} <= {limit}):
                choices.append((max(time, free[r]), "{prefer}".index(op), -s if op == "F" else s, op, s, i, r))
        if not choices:
            return rows
        time, _, _, op, s, i, r = min(choices)
        rows[r].append(f"{{s}}{{op}}{{i}}")
        end[op, s, i] = free[r] = time + takes[op]
        held[r] += {{"F": 1, "W": -1, "B": -1}}.get(op, 0)
        done[op, s] += 1
"""
_RIGHT = {
    "takes": '{"F": 1, "I": 1, "W": 1}',
    "home": "min(s, stages - 1 - s)",
    "spare": "(s < p)",
    "limit": "limit",
    "prefer": "IFWB",
}

_ONE_BY_ONE = """
def fold(p, m, limit):
    rows = []
    for r in range(p):
        near, far = r, 2 * p - 1 - r
        rows.append([f"{s}{op}{i}" for i in range(m) for s, op in ((near, "F"), (far, "F"), (far, "B"), (near, "B"))])
    return rows
"""

_TWICE = """
def fold(p, m, limit):
    rows = []
    for r in range(p):
        near, far = r, 2 * p - 1 - r
        order = [(near, "F"), (far, "F"), (far, "I"), (near, "I"), (far, "W")]
        rows.append([f"{s}{op}{i}" for i in range(m) for s, op in order])
    return rows
"""


def _wrong(says, open=(), **other):
    return Wrong("half_the_memory", _RULE.format(**(_RIGHT | other)), says, open)


WRONG = [
    _wrong("stages r and 2p - 1 - r belong on device r", home="s % p"),
    _wrong("missing", ("sound",), spare="0"),
    _wrong("the limit is", ("sound",), limit="2 * limit"),
    _wrong("Each W follows its I at once", ("three quarters",), takes='{"F": 1, "B": 2}', prefer="BFIW"),
    Wrong("half_the_memory", _ONE_BY_ONE, "one micro-batch at a time", ("half of the way", "three quarters")),
    Wrong("half_the_memory", _TWICE, "missing"),
]
