from tests.teaching.exercises.wrong import Wrong

# What a part needs besides the answer that is wrong: the other functions of the exercise, right.
ROWS = """
def serial_rows(devices, microbatches):
    return [[f"{r}{op}{i}" for i in range(microbatches) for op in "FB"] for r in range(devices)]
"""
TIME = """
def serial_makespan(devices, microbatches, forward, backward, latency):
    return microbatches * (devices * (forward + backward) + 2 * (devices - 1) * latency)
"""


def rows(body, says):
    return Wrong("serial", TIME + f"def serial_rows(devices, microbatches):\n    {body}\n", says, ("table",))


def time(body, says):
    head = "def serial_makespan(devices, microbatches, forward, backward, latency):\n"
    head += "    p, m, f, b, sent = devices, microbatches, forward, backward, (devices - 1) * latency\n"
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
    time("return (m + p - 1) * (f + b)", "That is GPipe's time"),
    time("return m * (f + b)", "That is the work of one device"),
    time("return m * (2 * p + 2 * sent)", "are not one unit each"),
    time("return p * (f + b) + 2 * sent", "the way of one micro-batch"),
    time("return 2 * m * p * (f + b)", "twice the time"),
    time("return m * (p * (f + b) - 1)", "not even by one unit"),
    time("return m * p * (f + b)", "leaves out the messages"),
    time("return m * (p * (f + b) + sent)", "each message in one direction"),
    time("return m * (p * (f + b) + 2 * p * latency)", "That counts p borders"),
    time("return m * p * (f + b) + 2 * sent", "each sends its own"),
    time("return m * (p * (f + b) + 2 * sent) + (m - 1) * latency", "from one micro-batch to the next"),
]
