from tests.teaching.exercises.wrong import Wrong

UP = "ceil(gib_per_device(parameters, 1, moments) / gib)"


def fit(count: str, size: str = "2**30", whole: str = UP) -> str:
    """All three answers with one and the same mistake: ``count`` bytes a parameter, a GiB of ``size`` bytes."""
    return f"""
from math import ceil, floor

GIB = {size}

def training_bytes(parameters, moments=2):
    return parameters * ({count})

def gib_per_device(parameters, devices, moments=2):
    return training_bytes(parameters, moments) / GIB / devices

def least_devices(parameters, gib, moments=2):
    return {whole}
"""


def cut(forward: str, backward: str) -> str:
    return f"""
import torch

def forward_piece(stage, received, memory):
    {forward}

def backward_piece(gradient, memory):
    {backward}
"""


RECEIVE = 'memory["x"] = received.detach().requires_grad_()'
RUN = """
    memory["y"] = stage(memory["x"])
    return memory["y"]"""

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
    # What must fit?
    Wrong("must_fit", fit("2"), says="the 16-bit weights alone"),
    Wrong("must_fit", fit("2 + 4 + 4 * moments"), says="The gradients are forgotten"),
    Wrong("must_fit", fit("2 + 2 + 4 * moments"), says="no fp32 master copy"),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", size="10**9"),
        says="a GiB is 2^30 bytes, 7 % more",
        open=("GiB per device", "least devices"),
    ),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", size="10**9"),
        says="GB, 10^9 bytes, are not GiB",
        open=("GiB per device", "least devices"),
    ),
    Wrong("must_fit", fit("2 + 2 + 4"), says="The optimizer's moments are forgotten"),
    Wrong("must_fit", fit("16"), says="That is Adam's 16 bytes a parameter"),
    Wrong("must_fit", fit("4 + 4 + 4 + 4 * moments"), says="kept in 16 bits here"),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", whole="floor(gib_per_device(parameters, 1, moments) / gib)"),
        says="round up",
        open=("least devices",),
    ),
    Wrong(
        "must_fit",
        fit("8 + 4 * moments", whole="int(gib_per_device(parameters, 1, moments) / gib) + 1"),
        says="fits exactly",
        open=("least devices",),
    ),
    # Cut the graph
    Wrong(  # gradients right, in one process: each backward asks for its own stage alone, but no graph is cut
        "cut_graph",
        cut(
            """
    memory["x"], memory["w"] = received.requires_grad_(), list(stage.parameters())
    memory["y"] = stage(received)
    return memory["y"]""",
            """
    wanted = [memory["x"], *memory["w"]]
    sent, *grads = torch.autograd.grad(memory["y"], wanted, gradient, retain_graph=True)
    for parameter, grad in zip(memory["w"], grads):
        parameter.grad = grad
    return sent""",
        ),
        says="the graph is not cut",
    ),
    Wrong(  # one backward on the last device does it all
        "cut_graph",
        cut(
            """
    received.requires_grad_()
    memory["x"], memory["y"] = received, stage(received)
    if received.grad_fn is not None:
        received.retain_grad()
    return memory["y"]""",
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="the graph is not cut",
    ),
    Wrong(
        "cut_graph",
        cut(
            'memory["x"] = received.detach()' + RUN,
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="asks for no gradient",
    ),
    Wrong(
        "cut_graph",
        cut(
            RECEIVE + RUN,
            """
    memory["y"].sum().backward()
    return memory["x"].grad""",
        ),
        says="seeded with ones",
    ),
    Wrong(  # a receive buffer, made once, as engines have them; its .grad is never cleared
        "cut_graph",
        cut(
            """
    if "x" not in memory:
        memory["x"] = torch.empty_like(received).requires_grad_()
    memory["x"].data.copy_(received)"""
            + RUN,
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="stale boundary gradient",
        open=("two steps",),
    ),
    Wrong(
        "cut_graph",
        cut(RECEIVE + RUN, 'return torch.autograd.grad(memory["y"], memory["x"], gradient)[0]'),
        says="have no .grad",
    ),
    Wrong(
        "cut_graph",
        cut(
            RECEIVE + RUN,
            """
    memory["y"].backward(gradient)
    return gradient""",
        ),
        says="not of its output",
    ),
    Wrong("cut_graph", cut(RECEIVE + RUN, 'memory["y"].backward(gradient)'), says="return it"),
    Wrong(
        "cut_graph",
        cut(
            'memory["x"] = received.detach_().requires_grad_()' + RUN,
            """
    memory["y"].backward(gradient)
    return memory["x"].grad""",
        ),
        says="detach_() changes the very tensor",
    ),
    # Naive for any p
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
