from tests.teaching.exercises.wrong import Wrong

_WARM = """
def design(p, m):
    rows = []
    for r in range(p):
        ahead = {ahead}
        row = [f"{{r}}F{{i}}" for i in range(ahead)]
        for i in range(m):
            row.append(f"{{r}}B{{i}}")
            if ahead + i < m:
                row.append(f"{{r}}F{{ahead + i}}")
        rows.append(row)
    return rows
"""

_FORWARDS = """
def design(p, m):
    return [[f"{r}F{i}" for i in range(m)] for r in range(p)]
"""

_ONE_BY_ONE = """
def design(p, m):
    return [[f"{r}{op}{i}" for i in range(m) for op in "FB"] for r in range(p)]
"""

_REVERSED = """
def design(p, m):
    return [[f"{r}F{i}" for i in range(m)] + [f"{r}B{i}" for i in reversed(range(m))] for r in range(p)]
"""

_WHOLE_MODEL = """
def design(p, m):
    return [[f"{s}{op}{i}" for i in range(m) for op in "FB" for s in range(p)] for r in range(p)]
"""

_SLOW = ("half of the way", "all the way")


def _warm(ahead, says, *parts):
    return Wrong("reach_1f1b", _WARM.format(ahead=ahead), says, parts)


WRONG = [
    _warm("m", "as in GPipe. What it holds should not grow with m", "sound"),
    _warm("p - r", "but the micro-batches are 0..", "sound"),
    _warm("min(p - r + 1, m)", "F before its first backward", "sound"),
    _warm("min(p - r, m, 2)", "there is time for more F", "all the way"),
    Wrong("reach_1f1b", _ONE_BY_ONE, "begins its second F only after a backward", _SLOW),
    Wrong("reach_1f1b", _REVERSED, "as in GPipe", ("sound",)),
    Wrong("reach_1f1b", _WHOLE_MODEL, "stage r belongs on device r"),
    Wrong("reach_1f1b", _FORWARDS, "no backwards"),
]
