from tests.teaching.exercises.wrong import Wrong

_ALL = """
def first(references):
    order = []

    def code(d):
        if d not in order:
            for r in references[d]:
                code(r)
            order.append(d)

    for d in range(len(references)):
        code(d)
    return order

def coding_order(references):
    count = len(references)
    return {order}

def put_out(order):
    found, shown = [], 0
    for place in range(len(order)):
        done, row = order[:place + 1], []
        {out}
        found.append(row)
    return found

def frames_held(order, references):
    most = 0
    for place in range(len(order)):
        done = order[:place]
        out = 0
        while out in done:
            out += 1
        needed = {r for d in order[place:] for r in references[d]}
        now = {held}
        most = max(most, now)
    return most
"""
_ORDER = "first(references)"
_OUT = """while shown in done:
            row.append(shown)
            shown += 1"""
_HELD = "sum(d >= out or d in needed for d in done) + 1"


def _but(says, *parts, order=_ORDER, out=_OUT, held=_HELD):
    text = _ALL.replace("{order}", order).replace("{out}", out).replace("{held}", held)
    return Wrong("order_frames", text, says=says, open=parts)


def _order(says, order):
    return _but(says, "every reference first", "fewest frames held", order=order)


def _fewest(says, order):
    return _but(says, "fewest frames held", order=order)


def _out(says, out):
    return _but(says, "display order", out=out)


def _held(says, held):
    return _but(says, "frames held", held=held)


WRONG = [
    _order("A B frame also waits for one that is shown later", "list(range(count))"),
    _order("frame 2 comes before frame 0, its reference.", "list(range(count))[::-1]"),
    _order("returned no frame", "[d for d in first(references) if d != count - 1]"),
    _order("twice", "[r for d in range(count) for r in (*references[d], d)]"),
    _order("There are frames 0 to", "[d + 1 for d in first(references)]"),
    _fewest(
        "which does not need it",
        "sorted(first(references), key=lambda d: all(d not in row for row in references))",
    ),
    _fewest("where 3 are enough", "sorted(first(references), key=lambda d: len(references[d]))"),
    _out("Frame 1 is shown before", "row.append(order[place])"),
    _out("Frame 2 waited for this one", "if shown in done:\n            row.append(shown)\n            shown += 1"),
    _out("Not all of these are decoded", "row.append(place)"),
    _out("in the order of display", _OUT + "\n        row = row[::-1]"),
    _out("There is one after each frame", _OUT + "\n        if not row: continue"),
    _held("needs a place too", "sum(d >= out or d in needed for d in done)"),
    _held("A frame that is out may still be a reference", "sum(d >= out for d in done) + 1"),
    _held("held until it is put out", "sum(d in needed for d in done) + 1"),
    _held("was counted twice", "sum((d >= out) + (d in needed) for d in done) + 1"),
    _held("no later frame needs, are dropped", "len(done) + 1"),
    _held("That is at the last frame", _HELD + "\n        most = 0"),
]
