from tests.teaching.exercises.wrong import Wrong

_WARMUP = """
def interleaved_warmup(device, devices, microbatches, chunks):
    r, p, m, v = device, devices, microbatches, chunks
    return {}
"""


def _warmup(answer, says, open=()):
    return Wrong("interleaved_warmup", _WARMUP.format(answer), says=says, open=open)


WRONG = [
    _warmup("min(p - 1 - r, m * v)", "That is 1F1B's"),
    _warmup("2 * (p - 1 - r) + (v - 1) * p", "No device can run that many", open=("m = p",)),
    _warmup("min(2 * (p - 1 - r), m * v)", "forwards of the chunks before"),
    _warmup("min(2 * (p - r) + (v - 1) * p, m * v)", "Two too many"),
    _warmup("min((p - 1 - r) + (v - 1) * p, m * v)", "any message that takes time"),
    _warmup("min(2 * (p - 1 - r) + v * p, m * v)", "v for v - 1"),
    _warmup("min(2 * (p - 1) + (v - 1) * p, m * v)", "device 0's, on every device"),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * m, m * v)", "Forwards go in groups of p", open=("m > p",)),
    _warmup("min(2 * (p - 1 - r) + v - 1, m * v)", "a whole group of p"),
    _warmup("min(2 * (p - 1 - r) + (v - 1) * p + 1, m * v)", "How many forwards fit between"),
    _warmup("m * v", "GPipe's order, with chunks", open=("m > p",)),
    _warmup("min(p - 1 - r if v == 1 else 2 * (p - 1 - r) + (v - 1) * p, m * v)", "v = 1 has the doubled warm-up too"),
    _warmup("p - 4 - r", "fewer than no forwards"),
]
