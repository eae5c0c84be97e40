from tests.teaching.exercises.wrong import Wrong

_TABLE = """
def two_bw(devices, microbatches, batches):
    p, m, count = devices, microbatches, microbatches * batches
    rows = []
    for r in range(p):
        w = {w}
        row = [f"{{r}}F{{i}}" for i in range(w)]
        for i in range({count}):
            if w + i < {count}:
                row.append(f"{{r}}F{{w + i}}")
            row.append(f"{{r}}B{{i}}")
            {update}
        rows.append({whole})
    return rows
"""
_RIGHT = {
    "w": "min(p - 1 - r, count)",
    "count": "count",
    "update": 'if (i + 1) % m == 0: row.append(f"{r}U{i}")',
    "whole": "row",
}


def _table(says, open=(), **changes):
    return Wrong("two_bw", _TABLE.format(**{**_RIGHT, **changes}), says=says, open=open)


AFTER = ("updates", "training")
ORDER = ("order", "training")
WRONG = [
    _table("is PipeDream's", AFTER, update='row.append(f"{r}U{i}")'),
    _table(
        "the number of the batch's last micro-batch", AFTER, update='if (i + 1) % m == 0: row.append(f"{r}U{i // m}")'
    ),
    _table(
        "the number of the batch's last micro-batch",
        AFTER,
        update='if (i + 1) % m == 0: row.append(f"{r}U{i // m * m}")',
    ),
    _table("every device updates its stage", AFTER, update='if r == 0 and (i + 1) % m == 0: row.append(f"{r}U{i}")'),
    _table("every device updates its stage", AFTER, update="pass"),
    _table("that of a single large batch", AFTER, update='if i == count - 1: row.append(f"{r}U{i}")'),
    _table("needs the gradients of its whole batch", AFTER, update='if (i + 1) % m == 0: row.insert(-1, f"{r}U{i}")'),
    _table(
        "does not stand right after",
        AFTER,
        update="pass",
        whole='row + [f"{r}U{(b + 1) * m - 1}" for b in range(batches)]',
    ),
    _table("The batches end with", AFTER, update='if (i + 1) % p == 0: row.append(f"{r}U{i}")'),
    _table("where it lives", update='if (i + 1) % m == 0: row.append(f"0U{i}")'),
    _table(
        "which is a flush",
        ORDER,
        count="m",
        update="pass",
        w="min(p - 1 - r, m)",
        whole='[f"{r}{c[len(str(r))]}{int(c[len(str(r)) + 1:]) + b * m}" for b in range(batches) for c in row]',
    ),
    _table("The micro-batches of all batches are counted on", count="m"),
    _table("runs p - 1 - r forwards", ORDER, w="min(p - r, count)"),
    _table("runs p - 1 - r forwards", ORDER, w="min(p - 1, count)"),
    _table("wait cycle", w="min(r, count)"),
    Wrong(
        "two_bw",
        """
def two_bw(devices, microbatches, batches):
    from pipelab.schedules.updates import one_f_one_b_with_updates
    return one_f_one_b_with_updates(devices, microbatches * batches, microbatches)
""",
        says="does not answer here",
    ),
]
