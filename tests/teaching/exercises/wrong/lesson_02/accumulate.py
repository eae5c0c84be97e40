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
FRACTION = """
def bubble_fraction(devices, microbatches, forward, backward):
    return (devices - 1) / (microbatches + devices - 1)
"""
RATIO = """
def bubble_ratio(devices, microbatches, forward, backward):
    return (devices - 1) / microbatches
"""
LEAST = """
def least_microbatches(devices, percent):
    return max(1, -(-percent * (devices - 1) // (100 - percent)))
"""


def rows(body, says):
    return Wrong("serial", TIME + f"def serial_rows(devices, microbatches):\n    {body}\n", says, ("table",))


def time(body, says):
    head = "def serial_makespan(devices, microbatches, forward, backward):\n"
    return Wrong("serial", ROWS + head + f"    {body}\n", says, ("makespan",))


def gpipe(body, says, parts=()):
    return Wrong("gpipe", f"def gpipe(devices, microbatches):\n    p, m = devices, microbatches\n{body}", says, parts)


def fraction(body, says):
    head = "def bubble_fraction(devices, microbatches, forward, backward):\n    p, m, f, b = devices, microbatches, "
    return Wrong("bubbles", RATIO + LEAST + head + f"forward, backward\n    {body}\n", says, ("fraction",))


def ratio(body, says):
    head = "def bubble_ratio(devices, microbatches, forward, backward):\n    p, m, f, b = devices, microbatches, "
    return Wrong("bubbles", FRACTION + LEAST + head + f"forward, backward\n    {body}\n", says, ("ratio",))


def least(body, says):
    head = "import math\n\ndef least_microbatches(devices, percent):\n"
    return Wrong("bubbles", FRACTION + RATIO + head + f"    {body}\n", says, ("least m",))


def accumulate(body, says, parts=()):
    return Wrong("accumulate", f"def accumulate(model, loss, inputs, targets, microbatches):\n{body}", says, parts)


PARTS = "zip(inputs.tensor_split(microbatches), targets.tensor_split(microbatches))"

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
    gpipe(
        """    rows = []
    for r in range(p):
        w = min(p - 1 - r, m)
        row = [f"{r}F{i}" for i in range(w)]
        for k in range(m - w):
            row += [f"{r}F{w + k}", f"{r}B{k}"]
        rows.append(row + [f"{r}B{k}" for k in range(m - w, m)])
    return rows
""",
        "sound, but not GPipe: device 2 runs 2B0 before its forward 2F1",
    ),
    gpipe(
        """    return [[f"{r}{op}{i}" for i in range(m) for op in "FB"] for r in range(p)]
""",
        "nothing overlaps",
    ),
    gpipe(
        """    return [[f"{r}{op}{i}" for op in "FB" for i in range(m - 1)] for r in range(p)]
""",
        "is nowhere in your table",
    ),
    gpipe(
        """    return [[f"{r}{op}{i}" for op in "FB" for i in range(1, m + 1)] for r in range(p)]
""",
        "counting starts at 0",
    ),
    gpipe(  # the first and the last written by hand: one and the same where m = 1
        """    rows = []
    for r in range(p):
        numbers = [0, *range(1, m - 1), m - 1]
        rows.append([f"{r}{op}{i}" for op in "FB" for i in numbers])
    return rows
""",
        "already stands on device 0",
        ("m < p", "m >= p"),
    ),
    gpipe(  # device 0 turns round, the others do not
        """    rows = [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]
    rows[0] = [f"0F{i}" for i in range(m)] + [f"0B{i}" for i in reversed(range(m))]
    return rows
""",
        "runs its backwards in the order",
    ),
    gpipe(  # backwards before forwards
        """    return [[f"{r}{op}{i}" for op in "BF" for i in range(m)] for r in range(p)]
""",
        "a backward needs what its forward kept",
    ),
    gpipe(
        """    return [[f"{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]
""",
        "has no stage",
    ),
    gpipe(
        """    from pipelab import build_schedule
    return build_schedule("gpipe", devices, microbatches)
""",
        "asks you to write it",
    ),
    fraction("return (p - 1) / m", "bubble ratio, idle over busy"),
    fraction("return p / (m + p)", "with p for p - 1"),
    fraction("return p / (m + p - 1)", "with p for p - 1 above the line"),
    fraction("return (p - 1) * f / ((p - 1) * f + m * (f + b))", "waiting for forwards alone"),
    fraction("return m / (m + p - 1)", "the busy part"),
    fraction("return (p - 1) * (f + b)", "the idle time of a device itself"),
    fraction("return 1 - 1 / p", "idle over all device-time is"),
    ratio("return (p - 1) / (m + p - 1)", "bubble fraction, idle over all"),
    ratio("return p / m", "with p for p - 1"),
    ratio("return p * (p - 1) / m", "divide by all devices' time"),
    ratio("return (p - 1) * b / (m * f)", "fall out of the quotient"),
    least("return 9 * devices", "with p for p - 1"),
    least("return math.ceil(100 * (devices - 1) / (100 - percent))", "the bubble ratio; asked for is the part"),
    least("return max(1, 9 * (devices - 1))", "here the target is another"),
    least(
        "q = percent / 100\n    return max(1, math.ceil(q * (devices - 1) / (1 - q)))",
        "a hair above a whole number",
    ),
    least("return percent * (devices - 1) // (100 - percent) + 1", "exactly, and at least"),
    least("return percent * (devices - 1) // (100 - percent)", "Too few"),
    least("return max(1, math.ceil((100 - percent) * (devices - 1) / percent))", "exchanged"),
    accumulate(
        f"""    model.zero_grad()
    for x, t in {PARTS}:
        loss(model(x), t).backward()
""",
        "the sum of the micro-batches' mean gradients",
    ),
    accumulate(
        f"""    model.zero_grad()
    for x, t in {PARTS}:
        (loss(model(x), t) / microbatches).backward()
""",
        "the mean of the micro-batches' means",
        ("uneven micro-batches",),
    ),
    accumulate(
        f"""    for x, t in {PARTS}:
        model.zero_grad()
        (loss(model(x), t) * len(x) / len(inputs)).backward()
""",
        "Only the last micro-batch's is left",
    ),
    accumulate(
        f"""    for x, t in {PARTS}:
        model.zero_grad()
        loss(model(x), t).backward()
""",
        "last micro-batch's alone",
    ),
    accumulate(
        f"""    for x, t in {PARTS}:
        (loss(model(x), t) * len(x) / len(inputs)).backward()
""",
        "It still holds the gradient of the step before",
    ),
    accumulate(
        f"""    model.zero_grad()
    for x, t in {PARTS}:
        (loss(model(x), t) * len(x)).backward()
""",
        "the gradient of the summed loss",
    ),
    accumulate(
        """    model.zero_grad()
    loss(model(inputs), targets).backward()
""",
        "in one piece",
    ),
    accumulate(
        """    model.zero_grad()
    size = len(inputs) // microbatches
    for k in range(microbatches):
        x, t = inputs[k * size : (k + 1) * size], targets[k * size : (k + 1) * size]
        (loss(model(x), t) / microbatches).backward()
""",
        "were left out",
        ("uneven micro-batches",),
    ),
    accumulate(
        """    model.zero_grad()
    for x, t in zip(inputs.chunk(microbatches), targets.chunk(microbatches)):
        (loss(model(x), t) * len(x) / len(inputs)).backward()
""",
        "micro-batches, not 12 of these sizes",
        ("uneven micro-batches",),
    ),
    Wrong(
        "accumulate",
        """
def accumulate(model, loss, inputs, targets, microbatches):
    model.zero_grad()
    pairs = zip(inputs.tensor_split(microbatches), targets.tensor_split(microbatches))
    sum(len(x) / len(inputs) * loss(model(x), t) for x, t in pairs).backward()
""",
        says="held at once",
    ),
]
