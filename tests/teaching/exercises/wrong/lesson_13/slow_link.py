from tests.teaching.exercises.wrong import Wrong

_RULE = """
def overlap(p, m, t_forward, t_input, t_weight, t_message, limit):
    takes = {takes}
    rows, free, end = [[] for _ in range(p)], [0.0] * p, {{}}
    done = {{(op, r): 0 for op in takes for r in range(p)}}
    while len(end) < len(done) * m:
        choices = []
        for (op, r), i in done.items():
            if i == m or (op == "F" and i - done["{out}", r] >= {limit}):
                continue
            needs = {{"F": [("F", r - 1)], "I": [("F", r), ("I", r + 1)], "W": [("I", r)]}}[op]
            needs = [(end.get((o, s, i)), t_message * (s != r)) for o, s in needs if 0 <= s < p]
            if all(ended is not None for ended, _ in needs):
                time = max([free[r], *map(sum, needs)])
                choices.append((time, "IFW".index(op), r, op, i))
        time, _, r, op, i = min(choices)
        rows[r].append(f"{{r}}{{op}}{{i}}")
        end[op, r, i] = free[r] = time + takes[op]
        done[op, r] += 1
    return rows
"""
_RIGHT = {"takes": '{"F": t_forward, "I": t_input, "W": t_weight}', "out": "W", "limit": "limit"}

_1F1B = """
def overlap(p, m, t_forward, t_input, t_weight, t_message, limit):
    rows = []
    for r in range(p):
        ahead = min(p - r, m)
        row = [f"{r}F{i}" for i in range(ahead)]
        for i in range(m):
            row += {backward}
            if ahead + i < m:
                row.append(f"{r}F{ahead + i}")
        rows.append(row{behind})
    return rows
"""


def _wrong(says, open=(), **other):
    return Wrong("slow_link", _RULE.format(**(_RIGHT | other)), says, open)


def _one_f_one_b(says, open, backward, behind=""):
    return Wrong("slow_link", _1F1B.replace("{backward}", backward).replace("{behind}", behind), says, open)


_SLOW = ("half of the way", "three quarters")
WRONG = [
    _one_f_one_b("Each W follows its I at once", _SLOW, '[f"{r}I{i}", f"{r}W{i}"]'),
    _one_f_one_b("Each W follows its I at once", _SLOW, '[f"{r}B{i}"]'),
    _one_f_one_b("Too many W are put off", ("sound",), '[f"{r}I{i}"]', ' + [f"{r}W{i}" for i in range(m)]'),
    _wrong("It runs", ("sound",), limit="m"),
    _wrong("Too many W are put off", ("sound",), out="I"),
    _wrong("run more F meanwhile", ("three quarters",), limit="min(p - r, m)"),
    _wrong("is missing", takes='{"F": t_forward, "I": t_input}', out="I"),
]
