from tests.teaching.exercises.wrong import Wrong

TIME = """

def naive_time(devices, microbatches, forward, backward):
    return devices * microbatches * (forward + backward)
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
        says="backwards run in the reverse order of forwards",
        open=("table",),
    ),
    Wrong(
        "naive_table",
        """
def naive_table(devices):
    return [[f"{r}F0", f"{r}B0"] for r in range(devices)]
"""
        + TIME,
        says="Everyone starts at 0",
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
        says="nobody waits longer than needed",
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
        says="there is one micro-batch, number 0",
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
def naive_time(devices, microbatches, forward, backward):
    return devices * (forward + backward)
""",
        says="naive sends the whole batch",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward):
    return (microbatches + devices - 1) * (forward + backward)
""",
        says="nothing overlaps",
        open=("time",),
    ),
    Wrong(
        "naive_table",
        TABLE
        + """
def naive_time(devices, microbatches, forward, backward):
    return microbatches * (forward + backward)
""",
        says="one after the other",
        open=("time",),
    ),
]
