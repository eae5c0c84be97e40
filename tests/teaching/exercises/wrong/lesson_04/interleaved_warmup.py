from tests.teaching.exercises.wrong import Wrong

_WARMUP = """
def interleaved_warmup(device, devices, microbatches, chunks):
    r, p, m, v = device, devices, microbatches, chunks
    g = m // max(1, m // p)
    return {}
"""


def _warmup(answer, says, open=()):
    return Wrong("interleaved_warmup", _WARMUP.format(answer), says=says, open=open)


WRONG = [
    _warmup("min(p - 1 - r, m * v)", "That is 1F1B's"),
    _warmup("2 * (p - 1 - r) + (v - 1) * g", "No device can run that many", open=("m = p", "other groups")),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * p, m * v)", "That is right for groups of p = 4", open=("other groups",)),
    _warmup("min(2 * (p - 1 - r), m * v)", "forwards of the chunks before"),
    _warmup("min(2 * (p - r) + (v - 1) * g, m * v)", "Two too many"),
    _warmup("min((p - 1 - r) + (v - 1) * g, m * v)", "although it has forwards left that could run"),
    _warmup("min(2 * (p - 1 - r) + v * g, m * v)", "v in place of v - 1"),
    _warmup("min(2 * (p - 1) + (v - 1) * g, m * v)", "device 0's, on every device"),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * m, m * v)", "Forwards go in groups of g", open=("m > p", "other groups")),
    _warmup("min(2 * (p - 1 - r) + v - 1, m * v)", "a whole group of g"),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * g + 1, m * v)", "How many forwards has the device run by then"),
    _warmup("m * v", "GPipe's order, with chunks", open=("m > p", "other groups")),
    _warmup(
        "min(p - 1 - r if v == 1 else 2 * (p - 1 - r) + (v - 1) * g, m * v)",
        "is doubled for v = 1 too",
        open=("m > p", "m = p"),
    ),
    _warmup("p - 4 - r", "fewer than no forwards"),
]
