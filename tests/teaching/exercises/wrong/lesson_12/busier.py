from tests.teaching.exercises.wrong import Wrong

_TEXT = """
def busier(first, second, forward, backward):
    costs = {costs}
    pair = [simulate(schedule, costs) for schedule in (first, second)]
    figures = [{figure} for one in pair]
    return figures, {verdict}
"""
_RIGHT = {
    "costs": "Costs(forward=forward, backward=backward)",
    "figure": "one.utilisation",
    "verdict": "pair[1].utilisation - pair[0].utilisation > 0.01",
}


def _but(says, *parts, **changed):
    return Wrong("busier", _TEXT.format(**{**_RIGHT, **changed}), says=says, open=parts)


WRONG = [
    _but("how much of the time they are idle", "evidence", figure="one.bubble_fraction"),
    _but("Idle time was divided by busy time", "evidence", figure="1 - one.bubble_ratio"),
    _but("That is device 0 alone", "evidence", figure="one.busy[0] / one.makespan"),
    _but("That is the busiest device", "evidence", figure="max(one.busy) / one.makespan"),
    _but("All costs were 1", "evidence", costs="Costs()"),
    _but("These are the steps", "evidence", figure="one.makespan"),
    _but("more than one percentage point above", "verdict", verdict="pair[1].utilisation > pair[0].utilisation"),
    _but("more than one percentage point above", "verdict", verdict="pair[1].makespan < pair[0].makespan"),
    _but("your verdict is True", "verdict", verdict="True"),
    _but("your verdict is False", "verdict", verdict="False"),
    _but("should be True or False, it is text 'true'", "verdict", verdict="'true'"),
    Wrong(
        "busier",
        "def busier(first, second, forward, backward):\n    return simulate(first).utilisation\n",
        says="should return two things",
    ),
]
