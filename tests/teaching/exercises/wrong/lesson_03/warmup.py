from tests.teaching.exercises.wrong import Wrong

_WARMUP = """
def warmup(device, devices, microbatches):
    return {}
"""


def _warmup(answer, says, open=()):
    return Wrong("warmup", _WARMUP.format(answer), says=says, open=open)


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
]
