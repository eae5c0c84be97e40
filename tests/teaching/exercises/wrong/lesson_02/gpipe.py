from tests.teaching.exercises.wrong import Wrong


def gpipe(body, says, parts=()):
    return Wrong("gpipe", f"def gpipe(devices, microbatches):\n    p, m = devices, microbatches\n{body}", says, parts)


WRONG = [
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
]
