from tests.teaching.exercises.wrong import Wrong

_RECEIVES = """
def receives(rows, source, destination):
    def parts(cell):
        op = "F" if "F" in cell else "B"
        return int(cell.split(op)[0]), op

    def taker(cell):
        stage, op = parts(cell)
        return stage + (1 if op == "F" else -1)

    def named(cell):
        return f"{taker(cell)}{parts(cell)[1]}{cell.split(parts(cell)[1])[1]}"

    p, last = len(rows), max(parts(cell)[0] for row in rows for cell in row)

    def goes(cell):
        return 0 <= taker(cell) <= last and taker(cell) % p == destination

    found = [cell for cell in rows[source] if goes(cell)]
    return {answer}
"""
_LATER = ("several stages a device",)


def _receives(says, answer, open=()):
    return Wrong("order_on_the_wire", _RECEIVES.replace("{answer}", answer), says=says, open=open)


WRONG = [
    _receives(
        "in which device 1 needs them",
        "sorted(found, key=lambda cell: rows[destination].index(named(cell)))",
        open=("one stage a device",),
    ),
    _receives("The gradients are missing", "[cell for cell in found if 'F' in cell]"),
    _receives("0F0 is missing", "[cell for cell in found if 'B' in cell]"),
    _receives("First all activations and then all gradients", "sorted(found, key=lambda c: 'B' in c)", open=_LATER),
    _receives(
        "The way round is missing",
        "[cell for cell in found if source + (1 if 'F' in cell else -1) == destination]",
        open=_LATER,
    ),
    _receives(
        "Behind the last stage there is nobody",
        "[cell for cell in rows[source] if taker(cell) % p == destination]",
    ),
    _receives("that take the messages", "[named(cell) for cell in found]"),
    _receives("stage 0 is the first stage", "list(rows[source])"),
    _receives("the order of their names", "sorted(found)", open=_LATER),
    _receives("the other direction", "receives(rows, destination, source) if source > destination else found", open=()),
    _receives("Device 0 never runs", "[cell for cell in rows[destination]]"),
    _receives("their order is not", "found[::-1]", open=("one stage a device",)),
    _receives(
        "simulate does not answer here",
        "[str(m.producer) for m in __import__('pipelab').simulate("
        "__import__('pipelab').Schedule.from_rows(rows)).messages if m.source == source]",
    ),
]
