from tests.teaching.exercises.wrong import Wrong

_READ = """
def read_sweep(rows, limit):
    fitting = [row for row in rows if {fits}]
    best = {pick}(fitting, key=lambda row: {key})
    def split(row):
        return row["step"] / row["batch"] * row["idle"], row["step"] / row["batch"] * (100 - row["idle"])
    reasons = {{}}
    for row in rows:
        idle, busy = (a - b for a, b in zip(split(row), split(best)))
        {reason}
    return best["m"], reasons
"""
_REASON = 'reasons[row["m"]] = "memory" if row["peak"] > limit else "bubble" if idle > busy else "granularity"'


def _read(says, open=(), fits='row["peak"] <= limit', pick="max", key='row["batch"] / row["step"]', reason=_REASON):
    text = _READ.format(fits=fits, pick=pick, key=key, reason=reason)
    return Wrong("reading", text, says=says, open=open)


WRONG = [
    _read("It has the smallest bubble", ("batch fixed",), pick="min", key='row["idle"]'),
    _read("but the limit is", fits="True"),
    _read("because its batch is the smallest", ("batch varies",), pick="min", key='row["step"]'),
    _read("trains", pick="min", key='row["step"] * row["peak"]', open=("batch fixed",)),
    _read("its speed is irrelevant", reason='reasons[row["m"]] = "bubble" if idle > busy else "granularity"'),
    _read(
        "are idle",
        reason='reasons[row["m"]] = "memory" if row["peak"] > limit else "granularity" if idle > busy else "bubble"',
    ),
    _read(
        "so it runs. It trains",
        ("batch fixed",),
        reason='reasons[row["m"]] = "memory" if row["m"] > best["m"] or row["peak"] > limit else "bubble"',
    ),
    _read("your dict has no reason for", reason="pass"),
    _read(
        "For each sequence its devices are idle",
        ("batch varies",),
        reason='idle, busy = (row["step"] * a - best["step"] * b for a, b in '
        '((row["idle"], best["idle"]), (100 - row["idle"], 100 - best["idle"])))\n        ' + _REASON,
    ),
    _read(
        "as the ratio of idle to busy time",
        ("batch varies",),
        reason='i, j = row["idle"] / 100, best["idle"] / 100\n'
        '        each, least = row["step"] / row["batch"], best["step"] / best["batch"]\n'
        "        idle, busy = each * i / (1 + i) - least * j / (1 + j), each / (1 + i) - least / (1 + j)\n        "
        + _REASON,
    ),
    _read(
        "forgotten to divide it by 100",
        reason='i, j = row["idle"], best["idle"]\n'
        '        each, least = row["step"] / row["batch"], best["step"] / best["batch"]\n'
        "        idle, busy = each * i - least * j, each * (1 - i) - least * (1 - j)\n        " + _REASON,
    ),
    _read(
        "within the limit",
        ("batch fixed", "batch varies"),
        key='row["m"]',
        reason='reasons[row["m"]] = "memory" if row["peak"] > limit else "bubble"',
    ),
]
