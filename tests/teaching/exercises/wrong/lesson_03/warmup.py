from tests.teaching.exercises.wrong import Wrong

_WARMUP = """
def warmup(device, devices, microbatches, message=0):
    return {}
"""


def _warmup(answer, says, open=()):
    return Wrong("warmup", _WARMUP.format(answer), says=says, open=open)


WRONG = [
    _warmup("min(devices - 1, microbatches)", "p - 1 on every device"),
    _warmup("devices - 1", "p - 1 on every device"),
    _warmup("min(devices - device, microbatches)", "p - r, one too many"),
    _warmup("devices - 1 - device", "a batch of m = 1 has no more forwards", open=("m < p",)),
    _warmup("min(devices - 2 - device, microbatches)", "fewer than 0 forwards"),
    _warmup("max(min(devices - 2 - device, microbatches), 0)", "too few"),
    _warmup("min(device, microbatches)", "wait cycle"),
    _warmup("microbatches", "is GPipe"),
    _warmup("min(devices - 1 - device, microbatches)", "right where messages are free", open=("messages",)),
    _warmup(  # the way back forgotten
        "min(devices - 1 - device + (devices - 1 - device) * message // 2, microbatches)",
        "4 slots of work and 2 messages",
        open=("messages",),
    ),
    _warmup(  # work of one slot, not of two
        "min((devices - 1 - device) * (1 + 2 * message), microbatches)", "too many", open=("messages",)
    ),
    _warmup("min(devices - 1 - device + devices * message, microbatches)", "too many", open=("messages",)),
    _warmup("0", "only one micro-batch is under way at a time"),
]
