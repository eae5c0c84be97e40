from tests.teaching.exercises.wrong import Wrong

_TEXT = """
def held_by_rule(schedule):
    p, m, v = schedule.devices, schedule.microbatches, schedule.chunks
    right = [float(peak) for peak in simulate(schedule).peak_microbatches]
    rule = [min(p - r, m) for r in range(p)]
    rows = [[action.op for action in row] for row in schedule.programs]
    return {figures}, {verdict}
"""


def _but(says, *parts, figures="right", verdict="right == rule"):
    return Wrong("held_by_rule", _TEXT.format(figures=figures, verdict=verdict), says=says, open=parts)


WRONG = [
    _but("That is the rule itself", "evidence", figures="rule"),
    _but("That is the rule itself", "evidence", "verdict", figures="rule", verdict="True"),
    _but("A backward lets its micro-batch go", "evidence", figures="[m for _ in rows]"),
    _but("what is left at the end", "evidence", figures="[row.count('F') - row.count('B') for row in rows]"),
    _but("Each chunk counted in full", "evidence", figures="[v * peak for peak in right]"),
    _but("That is the fullest device", "evidence", figures="[max(right)] * p"),
    _but("in front of the first backward is missing", "evidence", figures="[row.index('B') - 1 for row in rows]"),
    _but("your verdict is True", "verdict", verdict="max(right) == min(p, m)"),
    _but("your verdict is False", "verdict", verdict="max(right) < m"),
]
