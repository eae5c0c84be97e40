from tests.teaching.exercises.wrong import Wrong

_TEXT = """
def idle_time(schedules, sequences, fixed, each):
    figures, right = [], []
    for schedule, size in zip(schedules, sequences):
        takes = {takes}
        timeline = simulate(schedule, Costs(forward=takes, backward={times} * takes))
        p = schedule.devices
        right.append(p * timeline.makespan - sum(timeline.busy))
        figures.append({figure})
    return figures, {verdict}
"""
_RIGHT = {
    "takes": "fixed + each * size",
    "times": "2",
    "figure": "right[-1]",
    "verdict": "max(right) - min(right) <= 0.01 * max(right)",
}


def _but(says, *parts, **changed):
    return Wrong("idle_time", _TEXT.format(**{**_RIGHT, **changed}), says=says, open=parts)


WRONG = [
    _but("the idle time of one device", "evidence", figure="right[-1] / p"),
    _but("fractions of the total time", "evidence", figure="timeline.bubble_fraction"),
    _but("ratios to the busy time", "evidence", figure="timeline.bubble_ratio"),
    _but("The fixed cost of an action is missing", "evidence", takes="each * size"),
    _but("a backward takes twice as long", "evidence", times="1"),
    _but("All costs were 1", "evidence", takes="1", times="1"),
    _but("differ by at most one per cent", "verdict", verdict="len(set(timeline.busy)) == 1"),
    _but("your verdict is False", "verdict", verdict="len(set(sequences)) == 1"),
    _but("your verdict is True", "verdict", verdict="True"),
]
