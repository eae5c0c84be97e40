from tests.teaching.exercises.wrong import Wrong

_FAULTS = """
def faults(rows):
    slots = {{cell: t for row in rows for t, cell in enumerate(row) if cell != "."}}
    m = 1 + max(int(cell.replace("F", "B").split("B")[1]) for cell in slots)
    found = set()
    for r in range(len(rows)):
        for i in range(m):
            forward = [f"{{r - 1}}F{{i}}"] if r > 0 else []
            backward = [f"{{r}}F{{i}}"] + ([f"{{r + 1}}B{{i}}"] if r + 1 < len(rows) else [])
            {needs}
            for action, needs in ((f"{{r}}F{{i}}", forward), (f"{{r}}B{{i}}", backward)):
                if action not in slots:
                    {missing}
                    continue
                for need in needs:
                    if need not in slots:
                        {no_input}
                    elif {late}:
                        found.add((r, slots[action] + {shift}, "too-early"))
    {idle}
    return found
"""
_RIGHT = {
    "needs": "pass",
    "missing": 'found.add((r, action, "missing"))',
    "no_input": 'found.add((r, slots[action], "no-input"))',
    "late": "slots[need] >= slots[action]",
    "shift": 0,
    "idle": "pass",
}
_IDLE = 'found |= {{(r, t, "{}") for r, row in enumerate(rows) for t, cell in enumerate(row) if cell == "."}}'


def _faults(says, open=(), **changes):
    return Wrong("printed_timetable", _FAULTS.format(**{**_RIGHT, **changes}), says=says, open=open)


# A right way to find the faults, to be spoilt.
RIGHT_FAULTS = """
    slots = {cell: t for row in rows for t, cell in enumerate(row) if cell != "."}
    count = 1 + max(int(action.replace("F", "B").split("B")[1]) for action in slots)
    found = set()
    for r in range(len(rows)):
        for i in range(count):
            back = [f"{r}F{i}"] + [f"{r + 1}B{i}"] * (r + 1 < len(rows))
            for action, needs in ((f"{r}F{i}", [f"{r - 1}F{i}"] * (r > 0)), (f"{r}B{i}", back)):
                if action not in slots:
                    found.add((r, action, "missing"))
                    continue
                for need in needs:
                    if need not in slots:
                        found.add((r, slots[action], "no-input"))
                    elif slots[need] >= slots[action]:
                        found.add((r, slots[action], "too-early"))
    return found
"""


WRONG = [
    _faults(
        "Waiting is not a fault",
        open=("too-early",),
        idle=_IDLE.format("too-early"),
    ),
    _faults(
        "Waiting is not a fault",
        open=("no-input",),
        idle=_IDLE.format("no-input"),
    ),
    _faults("finishes 1B0 only at t = 3", open=("too-early",), late="slots[need] > slots[action]"),
    _faults("may run there", open=("too-early",), late="slots[need] + 1 >= slots[action]"),
    _faults("slots count from 0", open=("too-early",), shift=1),
    _faults(
        "the code is 'no-input'", open=("too-early", "no-input"), no_input='found.add((r, slots[action], "too-early"))'
    ),
    _faults("is not among your faults", open=("too-early", "no-input"), needs="backward = [f'{r}F{i}']"),
    _faults("1F1 is not in the table", open=("no-input",), needs="backward = backward[1:]"),
    _faults("A missing action has no slot", missing='found.add((r, None, "missing"))'),
    _faults("is missing on device", open=("missing",), missing="pass"),
    Wrong(
        "printed_timetable",
        """
def faults(rows):
    from pipelab import TimeTable, check_schedule
    table = TimeTable.from_csv("\\n".join(",".join(row) for row in rows))
    return {(v.device, str(v.action) if v.position is None else v.position, v.code) for v in check_schedule(table)}
""",
        says="check_schedule does not answer here",
    ),
    Wrong("printed_timetable", "def faults(rows):\n    return set()\n", says="is not among your faults"),
    Wrong(  # reads one digit of the micro-batch's number
        "printed_timetable",
        """
def faults(rows):
    rows = [[cell[:3] for cell in row] for row in rows]
"""
        + RIGHT_FAULTS,
        says="a table of 2 devices and 12 micro-batches",
        open=("missing",),
    ),
    Wrong(  # counts micro-batches by their forwards
        "printed_timetable",
        "def faults(rows):\n"
        + RIGHT_FAULTS.replace('replace("F", "B").split("B")[1]', 'split("F")[1]').replace(
            "for action in slots)", 'for action in slots if "F" in action)'
        ),
        says="is not among your faults",
        open=("missing",),
    ),
]
