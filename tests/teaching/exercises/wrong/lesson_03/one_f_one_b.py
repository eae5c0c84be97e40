from tests.teaching.exercises.wrong import Wrong

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


WRONG = [
    _table("min(devices - 1, microbatches)", "right only on device 0", open=("m >= p", "gradients")),
    _table("min(devices - 1, microbatches)", "is GPipe", open=("m < p",)),
    _table("min(devices - r, microbatches)", "one too many"),
    _table("devices - 1 - r", "a micro-batch below 0", open=("m < p",)),
    _table("devices - 1 - r", "at most m forwards", cool="max(microbatches - w, 0)", open=("m < p",)),
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
]
