from tests.teaching.exercises.wrong import Wrong

# What a part needs besides the answer that is wrong: the other functions of the exercise, right.
ROWS = """
def serial_rows(devices, microbatches):
    return [[f"{r}{op}{i}" for i in range(microbatches) for op in "FB"] for r in range(devices)]
"""
TIME = """
def serial_makespan(devices, microbatches, forward, backward):
    return microbatches * devices * (forward + backward)
"""


def rows(body, says):
    return Wrong("serial", TIME + f"def serial_rows(devices, microbatches):\n    {body}\n", says, ("table",))


def time(body, says):
    head = "def serial_makespan(devices, microbatches, forward, backward):\n"
    return Wrong("serial", ROWS + head + f"    {body}\n", says, ("makespan",))


WRONG = [
    rows(
        'return [[f"{r}{op}{i}" for op in "FB" for i in range(microbatches)] for r in range(devices)]',
        "sound, but not serial: device 0 starts 0F1 at t = 1",
    ),
    rows(
        'return [[f"{r}{op}{i}" for i in range(microbatches - 1) for op in "FB"] for r in range(devices)]',
        "is nowhere in your table",
    ),
    rows(
        'return [[f"{r}{op}{i + 1}" for i in range(microbatches) for op in "FB"] for r in range(devices)]',
        "counting starts at 0",
    ),
    rows(
        'return [[f"{r}{op}{i}" for i in range(devices) for op in "FB"] for r in range(devices)]',
        "your table runs micro-batch",
    ),
    rows(
        'return [[f"0{op}{i}" for i in range(microbatches) for op in "FB"] for r in range(devices)]',
        "device 1 holds stage 1",
    ),
    rows(
        'return [[f"{r}{op}{i}" for i in reversed(range(microbatches)) for op in "FB"] for r in range(devices)]',
        "in the order of numbers",
    ),
    rows(
        'return [f"{r}{op}{i}" for i in range(microbatches) for r in range(devices) for op in "FB"]',
        "should return 2 rows, one per device",
    ),
    time("return (microbatches + devices - 1) * (forward + backward)", "That is GPipe's time"),
    time("return microbatches * (forward + backward)", "That is what one device works"),
    time("return 2 * devices * microbatches", "are not one slot each"),
    time("return devices * (forward + backward)", "one micro-batch's way"),
    time("return 2 * microbatches * devices * (forward + backward)", "twice the time"),
    time("return microbatches * (devices * (forward + backward) - 1)", "not by one slot either"),
]
