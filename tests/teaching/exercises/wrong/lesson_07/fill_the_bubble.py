from tests.teaching.exercises.wrong import Wrong

_ROWS = """
def filled(devices):
    microbatches = devices + 1
    rows = []
    for r in range(devices):
        ahead, late = {ahead}, {late}
        row = [f"{{r}}F{{i}}" for i in range(ahead)]
        for i in range(microbatches):
            row += [f"{{r}}F{{ahead + i}}"] if ahead + i < microbatches else []
            row.append(f"{{r}}I{{i}}")
            row += [f"{{r}}W{{i - late}}"] if i >= late else []
        row += [f"{{r}}W{{i}}" for i in range({rest}, microbatches)]
        rows.append(",".join(row))
    return "\\n".join(rows)
"""


def _rows(says, ahead="devices - 1 - r", late="r", rest="max(microbatches - late, 0)"):
    return Wrong("fill_the_bubble", _ROWS.format(ahead=ahead, late=late, rest=rest), says=says)


WRONG = [
    _rows("Each W follows its I at once", late="0"),
    _rows("All W's come at the end", late="microbatches"),
    _rows("move them, and nothing else", ahead="min(2 * (devices - 1 - r), microbatches)", late="2 * r"),
    _rows("nobody waits for a W", late="max(r - 1, 0)"),
    _rows("run a W that waits", late="r + 1"),
    _rows("is missing", rest="microbatches"),
    _rows("run a W that waits", late="devices - 1 - r"),
    Wrong(
        "fill_the_bubble",
        """
def filled(devices):
    from pipelab import build_schedule
    return build_schedule("zb-h1", devices=devices, microbatches=devices + 1).to_csv()
""",
        says="does not answer here",
    ),
]
