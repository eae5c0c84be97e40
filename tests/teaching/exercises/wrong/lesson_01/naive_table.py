from tests.teaching.exercises.wrong import Wrong

TIME = """

def naive_time(devices, microbatches, forward, backward, latency=0):
    return devices * microbatches * (forward + backward) + 2 * (devices - 1) * latency
"""

TABLE = """
def naive_table(devices):
    rows = [["."] * (2 * devices) for _ in range(devices)]
    for r, row in enumerate(rows):
        row[r], row[2 * devices - 1 - r] = f"{r}F0", f"{r}B0"
    return rows

"""


WRONG = [
    Wrong(
        "naive_table",
        """
def naive_table(devices):
    rows = [["."] * (2 * devices) for _ in range(devices)]
    for r, row in enumerate(rows):
        row[r], row[devices + r] = f"{r}F0", f"{r}B0"
    return rows
"""
        + TIME,
        says="So backwards run in the reverse order",
        open=("table",),
    ),
    Wrong(
        "naive_table",
        """
def naive_table(devices):
    return [[f"{r}F0", f"{r}B0"] for r in range(devices)]
"""
        + TIME,
        says="Every device starts at t = 0",
        open=("table",),
    ),
    Wrong(
        "naive_table",
        """
def naive_table(devices):
    rows = [["."] * (2 * devices + 1) for _ in range(devices)]
    for r, row in enumerate(rows):
        row[r], row[2 * devices - r] = f"{r}F0", f"{r}B0"
    return rows
"""
        + TIME,
        says="no device waits longer than needed",
        open=("table",),
    ),
    Wrong(
        "naive_table",
        """
def naive_table(devices):
    rows = [["."] * (4 * devices) for _ in range(devices)]
    for r, row in enumerate(rows):
        for i in range(2):
            row[2 * r + i], row[4 * devices - 2 * r - 2 + i] = f"{r}F{i}", f"{r}B{i}"
    return rows
"""
        + TIME,
        says="only one micro-batch, number 0",
        open=("table",),
    ),
    Wrong(
        "naive_table",
        """
def naive_table(devices):
    rows = [["."] * (2 * devices) for _ in range(devices)]
    for r, row in enumerate(rows):
        row[r], row[2 * devices - 1 - r] = f"{r + 1}F0", f"{r + 1}B0"
    return rows
"""
        + TIME,
        says="count from 0",
        open=("table",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return devices * (forward + backward) + 2 * (devices - 1) * latency
""",
        says="Naive sends the whole batch, 2 times",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return (microbatches + devices - 1) * (forward + backward) + 2 * (devices - 1) * latency
""",
        says="nothing overlaps",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return microbatches * (forward + backward) + 2 * (devices - 1) * latency
""",
        says="That is how long one device works",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return devices * microbatches * (forward + backward)
""",
        says="That is the work alone",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return devices * microbatches * (forward + backward) + (devices - 1) * latency
""",
        says="one way only",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return devices * microbatches * (forward + backward) + 2 * devices * latency
""",
        says="3 devices have 2 boundaries",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward, latency=0):
    return microbatches * (devices * (forward + backward) + 2 * (devices - 1) * latency)
""",
        says="a message for each micro-batch",
        open=("time",),
    ),
]
