from tests.teaching.exercises.wrong import Wrong

_TEXT = """
def best_size(schedules, fixed, each):
    def step(schedule, takes, times=2):
        return simulate(schedule, Costs(forward=takes, backward=times * takes)).makespan

    batch, root = max(schedules), round(max(schedules) ** 0.5)
    right = {{size: step(one, fixed + each * size) for size, one in schedules.items()}}
    figures = [{figure} for size, one in schedules.items()]
    return figures, {verdict}
"""
_RIGHT = {"figure": "right[size]", "verdict": "right[root] <= min(right.values()) * (1 + 1e-9)"}


def _but(says, *parts, **changed):
    return Wrong("best_size", _TEXT.format(**{**_RIGHT, **changed}), says=says, open=parts)


WRONG = [
    _but("The fixed cost of an action is missing", "evidence", figure="step(one, each * size)"),
    _but("a backward takes twice as long", "evidence", figure="step(one, fixed + each * size, 1)"),
    _but("The backwards are missing", "evidence", figure="step(one, fixed + each * size, 0)"),
    _but("All sizes cost the same here", "evidence", figure="step(one, 1)"),
    _but("The cost of one sequence was taken", "evidence", figure="step(one, fixed + each)"),
    _but("That is a step divided by m", "evidence", figure="right[size] * size / batch"),
    _but("That is the time for one sequence", "evidence", figure="right[size] / batch"),
    _but("no size has a shorter step", "verdict", verdict="True"),
    _but("no size has a shorter step", "verdict", verdict="right[root] < right[1] and right[root] < right[batch]"),
    _but("your verdict is False", "verdict", verdict="False"),
]
