from tests.teaching.exercises.wrong import Wrong

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


WRONG = [
    # "GPipe with smaller m", as if the micro-batch were what is fixed
    _choose("whatever m", gpipe="min(p, m)"),
    _choose("whatever m", size="(batch / p / p)"),
    _choose("whatever m", names='("gpipe",)', gpipe="1"),
    _choose("does not divide", open=("m",), divides="True"),
    _choose("micro-batches of", one="1", open=("m",)),
    _choose("the least m is asked for", open=("m",), bubble="(p - 1) / m * 2"),
    _choose("the answer for the bubble ratio", open=("m",), bubble="(p - 1) / m"),
    _choose("of total device time", open=("m",), bubble="0"),
    _choose("its table is the simpler one", names='("1f1b",)', open=("the schedule",)),
    _choose("keeps to both limits", names='("gpipe",)'),
]
