from tests.teaching.exercises.wrong import Wrong

_STASH = """
def used_by(rows, rule):
    # the version of each forward, and of its backward, on each device
    newest = []
    for row in rows:
        count, uses = 0, {{}}
        for cell in row:
            if "U" in cell:
                count += 1
            if "F" in cell:
                uses[int(cell.split("F")[1])] = count
        newest.append(uses)
    if rule == "vertical-sync":
        return {sync}
    if rule == "2bw":
        row = [cell for cell in rows[0] if "F" not in cell]
        m = next(k for k, cell in enumerate(row) if "U" in cell)
        return [{{i: {bw} for i in uses}} for uses in newest]
    return newest


def last_needs(rows, rule):
    found = []
    for uses, row in zip(used_by(rows, rule), rows):
        last, newest = {{}}, 0
        for cell in row:
            if "U" in cell:
                {at_update}
                newest += 1
            {other}:
                last[uses[int(cell.replace("F", "B").split("B")[1])]] = {cell}
        found.append([last.get(k, row[0]) for k in range({count})])
    return found


def peak(rows, rule):
    most = []
    for row, freed in zip(rows, last_needs(rows, rule)):
        now = top = {one}
        for cell in row:
            {step}
            top = max(top, now)
        most.append({top})
    return most
"""
_RIGHT = {
    "sync": "[newest[0]] * len(rows)",
    "bw": "max(i // m - 1, 0)",
    "at_update": "last[newest] = cell",
    "other": "else",
    "cell": "cell",
    "count": "newest",
    "one": "1",
    "step": 'now += ("U" in cell) - freed.count(cell)',
    "top": "top",
}


def _stash(says, *parts, **changes):
    return Wrong("stash", _STASH.format(**{**_RIGHT, **changes}), says=says, open=parts)


ALL = ("pipedream", "vertical-sync", "2bw")
WRONG = [
    _stash("its backward needs the same version", *ALL, other='elif "F" in cell'),
    _stash("still the newest version", *ALL, at_update="pass"),
    _stash("The newest version is never freed", *ALL, count="newest + 1"),
    _stash("are replaced one day", *ALL, count="newest - 1"),
    _stash("right without vertical sync", "vertical-sync", sync="newest"),
    _stash("ran with it", "2bw", bw="i // m"),
    _stash("Holding it longer", *ALL, cell="row[-1]"),
    _stash("Device 0 runs no such action", *ALL, cell="cell[1:]"),
    _stash("stage 0 gave it to that", "vertical-sync", sync="[newest[-1]] * len(rows)"),
    _stash("all versions that are ever made", "peak", step='now += "U" in cell'),
    _stash("That counts the updates", "peak", one="0", step='now += "U" in cell'),
    _stash("leave the newest version out", "peak", one="0"),
    _stash("how many micro-batches are in flight", "peak", one="0", step='now += ("F" in cell) - ("B" in cell)'),
    _stash("one too many", "peak", top="top + 1"),
    _stash("one too many", "peak", step='now += "U" in cell; top = max(top, now); now -= freed.count(cell)'),
    Wrong(
        "stash",
        """
def last_needs(rows, rule):
    from pipelab.schedules import Schedule
    from pipelab.schedules.updates import ages
    return ages(Schedule.from_rows(rows))


def peak(rows, rule):
    return last_needs(rows, rule)
""",
        says="does not answer here",
    ),
]
