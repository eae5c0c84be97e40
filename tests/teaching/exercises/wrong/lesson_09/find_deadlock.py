from tests.teaching.exercises.wrong import Wrong

_FIND = """
def find_deadlock(programs):
    at = [0] * len(programs)

    def step(device):
        return programs[device][at[device]] if at[device] < len(programs[device]) else None

    moved = True
    while moved:
        moved = False
        for device in range(len(programs)):
            now = step(device)
            if now is None or now[0] != "send":
                continue
            there = step(now[1])
            if there is not None and {match}:
                at[device] += 1
                at[now[1]] += 1
                moved = True
    waits = {device: step(device)[1] for device in range(len(programs)) if step(device) is not None}
    kinds = {device: step(device)[0] for device in waits}
    rings = []
    for device in waits:
        path = [device]
        while waits.get(path[-1]) not in (None, *path):
            path.append(waits[path[-1]])
        if waits.get(path[-1]) == device and min(path) == device:
            rings.append(path)
    found = sorted(device for ring in rings for device in ring)
    return {answer}
"""
_MATCH = "there == ('recv', device, now[2])"
_SECOND = ("which devices",)

_AT_ONCE = """
def find_deadlock(programs):
    at, sent, moved = [0] * len(programs), [], True
    while moved:
        moved = False
        for device, row in enumerate(programs):
            while at[device] < len(row):
                kind, other, label = row[at[device]]
                if kind == "send":
                    sent.append((device, other, label))
                elif (other, device, label) in sent:
                    sent.remove((other, device, label))
                else:
                    break
                at[device] += 1
                moved = True
    waits = {d: row[at[d]][1] for d, row in enumerate(programs) if at[d] < len(row)}
    return sorted(d for d in waits if waits.get(waits[d]) == d)
"""
_FACING = """
def find_deadlock(programs):
    found = set()
    for a, row in enumerate(programs):
        for k, (kind, b, label) in enumerate(row):
            if kind == "send" and len(programs[b]) > k and programs[b][k][:2] == ("send", a):
                found |= {a, b}
    return sorted(found)
"""


def _find(says, answer="found", match=_MATCH, open=_SECOND):
    text = _FIND.replace("{answer}", answer).replace("{match}", match)
    return Wrong("find_deadlock", text, says=says, open=open)


WRONG = [
    Wrong("find_deadlock", _AT_ONCE, says="if a send returned at once"),
    Wrong("find_deadlock", _FACING, says="only if both devices are there at the same time"),
    _find("waits behind the ring", "sorted(waits)"),
    _find("a device that is through", "found + [d for d in waits if waits[d] not in waits]"),
    _find("does not match a send of another", match="there[:2] == ('recv', device)", open=()),
    _find("There is more than one ring", "sorted(rings[0]) if rings else []"),
    _find("at a receive may be in the ring", "sorted(d for d in waits if kinds[d] == 'send')", open=()),
    _find("at a send is in the ring", "sorted(d for d in waits if kinds[d] == 'recv')", open=()),
    _find("The ring is 0 -> 1 -> 0", "[]", open=()),
    _find("Devices are counted from 0", "[d + 1 for d in found]"),
    _find("name each of them once", "found + found[:1]"),
    _find("All devices get through", "list(range(len(programs)))", open=()),
]
