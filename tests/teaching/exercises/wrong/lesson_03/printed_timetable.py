from tests.teaching.exercises.wrong import Wrong

_WARMUP = """
def warmup(device, devices, microbatches):
    return {}
"""


def _warmup(answer, says, open=()):
    return Wrong("warmup", _WARMUP.format(answer), says=says, open=open)


_TABLE = """
def one_f_one_b(devices, microbatches):
    rows = []
    for r in range(devices):
        w = {w}
        row = [f"{{r}}F{{i}}" for i in range(w)]
        for i in range(microbatches - w):
            row += [f"{{r}}F{{w + i}}", f"{{r}}B{{i}}"]
        row += [f"{{r}}B{{i}}" for i in range({cool}, microbatches)]
        rows.append(row)
    return rows
"""


def _table(w, says, cool="microbatches - w", open=()):
    return Wrong("one_f_one_b", _TABLE.format(w=w, cool=cool), says=says, open=open)


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


_CHOOSE = """
def choose(batch, devices, bytes_per_sequence, limit, idle):
    p = devices
    for name in {names}:
        for m in range(1, batch + 1):
            in_flight = {gpipe} if name == "gpipe" else {one}
            held = in_flight * {size} * bytes_per_sequence
            if {divides} and held <= limit and {bubble} <= idle:
                return name, m
    return "none", 0
"""
_CHOICE = {
    "names": '("gpipe", "1f1b")',
    "gpipe": "m",
    "one": "min(p, m)",
    "size": "(batch / m)",
    "divides": "batch % m == 0",
    "bubble": "(p - 1) / (m + p - 1)",
}


def _choose(says, open=(), **changes):
    return Wrong("what_fits", _CHOOSE.format(**{**_CHOICE, **changes}), says=says, open=open)


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
    _warmup("min(devices - 1, microbatches)", "p - 1 on every device"),
    _warmup("devices - 1", "p - 1 on every device"),
    _warmup("min(devices - device, microbatches)", "p - r, one too many"),
    _warmup("devices - 1 - device", "a batch of m = 1 has no more forwards", open=("m < p",)),
    _warmup("min(devices - 2 - device, microbatches)", "fewer than no forwards"),
    _warmup("max(min(devices - 2 - device, microbatches), 0)", "too few"),
    _warmup("min(device, microbatches)", "wait cycle"),
    _warmup("microbatches", "is GPipe"),
    _warmup("0", "one micro-batch is under way at a time"),
    _table("min(devices - 1, microbatches)", "right on device 0 alone", open=("m >= p", "gradients")),
    _table("min(devices - 1, microbatches)", "is GPipe", open=("m < p",)),
    _table("min(devices - r, microbatches)", "one too many"),
    _table("devices - 1 - r", "a micro-batch below 0", open=("m < p",)),
    _table("devices - 1 - r", "m < p a warm-up", cool="max(microbatches - w, 0)", open=("m < p",)),
    _table("min(devices - 1 - r, microbatches)", "a micro-batch below 0", cool="microbatches - w - 3", open=("m < p",)),
    _table("min(devices - 1 - r, microbatches)", "is missing", cool="microbatches - w + 1"),
    _table("0", "Without a warm-up"),
    _table("min(r, microbatches)", "wait cycle"),
    _table("microbatches", "All forwards before the first backward is GPipe"),
    Wrong(
        "one_f_one_b",
        """
def one_f_one_b(devices, microbatches):
    from pipelab import build_schedule
    return build_schedule("1f1b", devices=devices, microbatches=microbatches)
""",
        says="does not answer here",
    ),
    _faults(
        "Waiting is no fault",
        open=("too-early",),
        idle=_IDLE.format("too-early"),
    ),
    _faults(
        "Waiting is no fault",
        open=("no-input",),
        idle=_IDLE.format("no-input"),
    ),
    _faults("finishes 1B0 only at t = 3", open=("too-early",), late="slots[need] > slots[action]"),
    _faults("may run there", open=("too-early",), late="slots[need] + 1 >= slots[action]"),
    _faults("they count from 0", open=("too-early",), shift=1),
    _faults(
        "that is 'no-input'", open=("too-early", "no-input"), no_input='found.add((r, slots[action], "too-early"))'
    ),
    _faults("is not among your faults", open=("too-early", "no-input"), needs="backward = [f'{r}F{i}']"),
    _faults("1F1 is not in the table", open=("no-input",), needs="backward = backward[1:]"),
    _faults("What is missing has no slot", missing='found.add((r, None, "missing"))'),
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
    # "GPipe with smaller m", as if the micro-batch were what is fixed
    _choose("whatever m", gpipe="min(p, m)"),
    _choose("whatever m", size="(batch / p / p)"),
    _choose("whatever m", names='("gpipe",)', gpipe="1"),
    _choose("does not divide", open=("m",), divides="True"),
    _choose("micro-batches of", one="1", open=("m",)),
    _choose("the least is asked for", open=("m",), one="m / 2 if m > p else m", bubble="(p - 1) / m"),
    _choose("the least is asked for", open=("m",), bubble="(p - 1) / m"),
    _choose("of all device-time", open=("m",), bubble="0"),
    _choose("the simpler table", names='("1f1b",)', open=("the schedule",)),
    _choose("keeps to both limits", names='("gpipe",)'),
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
