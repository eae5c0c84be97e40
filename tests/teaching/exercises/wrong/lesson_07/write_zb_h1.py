from tests.teaching.exercises.wrong import Wrong

_TABLE = """
def zb_h1(devices, microbatches):
    rows = []
    for r in range(devices):
        ahead, late = {ahead}, {late}
        row = [f"{{r}}F{{i}}" for i in range(ahead)]
        for i in range(microbatches):
            row += [f"{{r}}F{{ahead + i}}"] if ahead + i < microbatches else []
            row.append(f"{{r}}I{{i}}")
            row += [f"{{r}}W{{i - late}}"] if i >= late else []
        row += [f"{{r}}W{{i}}" for i in range({rest}, microbatches)]
        rows.append(row)
    return rows
"""


def _table(says, ahead="min(devices - 1 - r, microbatches)", late="r", rest="max(microbatches - late, 0)", open=()):
    return Wrong("write_zb_h1", _TABLE.format(ahead=ahead, late=late, rest=rest), says=says, open=open)


WRONG = [
    _table("Each W follows its I at once", late="0", open=("m >= p", "gradients")),
    _table("All W's come at the end", late="microbatches", open=("m >= p", "gradients")),
    _table(
        "ZB-H2 does that", ahead="min(2 * (devices - 1 - r), microbatches)", late="2 * r", open=("m >= p", "gradients")
    ),
    _table(
        "Device 1 runs 4 F before its first backward",
        ahead="min(devices - 1, microbatches)",
        open=("m >= p", "gradients"),
    ),
    _table("ZB-H2 does that", ahead="min(devices - r, microbatches)", open=("m >= p", "gradients")),
    _table("Device 0 runs 1 F before its first backward", ahead="0"),
    _table("but the micro-batches are 0..0", ahead="devices - 1 - r", open=("m < p",)),
    _table("is not an action", rest="microbatches - late", open=("m < p",)),
    _table("is missing", rest="microbatches"),
    _table("nobody waits for a W", late="r // 2", open=("m >= p", "gradients")),
    _table("run a W that waits", late="r + 1", open=("m >= p", "gradients")),
    Wrong(
        "write_zb_h1",
        """
def zb_h1(devices, microbatches):
    from pipelab import build_schedule
    return build_schedule("zb-h1", devices=devices, microbatches=microbatches)
""",
        says="does not answer here",
    ),
]
