"""Exercise of lesson 3: what is wrong with a printed timetable?"""

from __future__ import annotations

import re
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import CODES, TimeTable, Violation, build_schedule, check_schedule, format_slot
from pipelab.schedules.dependencies import earliest_slots
from pipelab.schedules.reserved import reserve_also, reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import kind_of, read_whole

FAULTS = ("too-early", "missing", "no-input")
Rows = list[list[str]]
Triple = tuple[int, int | str, str]  # device, time slot (or the text of what is missing), code

PUBLISHED: Rows = [
    ["0F0", "0F1", "0F2", "0F3", ".", ".", "0B0", "0B1", "0B2", "0B3"],
    [".", "1F0", "1F1", "1F2", "1F3", "1B0", "1B1", "1B2", "1B3", "."],
    [".", ".", "2F0", "2F1", "2F2", "2F3", "2B0", "2B1", "2B2", "2B3"],
    [".", ".", ".", "3F0", "3B0", "3B1", "3B2", "3B3", ".", "."],
]  # source text 004, counted from 0


def _table(rows: Rows) -> TimeTable:
    return TimeTable.from_csv("\n".join(",".join(row) for row in rows))


def _triple(violation: Violation) -> Triple:
    place = str(violation.action) if violation.position is None else violation.position
    return violation.device, place, violation.code


@reserved
def printed_faults(rows: Rows) -> dict[Triple, Violation]:
    """The faults of a timetable as triples, each with the checker's sentence."""
    return {_triple(violation): violation for violation in check_schedule(_table(rows))}


def _timed(name: str, p: int, m: int) -> Rows:
    schedule = build_schedule(name, devices=p, microbatches=m)
    rows = earliest_slots(schedule.programs, schedule.placement)
    width = max(map(len, rows)) + 1
    return [["." if slot is None else format_slot(slot) for slot in row] + ["."] * (width - len(row)) for row in rows]


def plant(rows: Rows, code: str, random: Random) -> Rows:
    """``rows`` with faults: an action taken out, or a part of a device's row a slot earlier; and some legal waits."""
    rows = [list(row) for row in rows]
    p = len(rows)
    for _ in range(random.randint(1, 3)):
        row = rows[random.randrange(p)]
        if code == "too-early":
            idle = [t for t, cell in enumerate(row[:-1]) if cell == "." and row[t + 1] != "."]
            if idle:
                t = random.choice(idle)
                row.append(row.pop(t))  # all that follows starts a slot earlier
        else:
            full = [t for t, cell in enumerate(row) if "F" in cell or "B" in cell]
            if full:
                row[random.choice(full)] = "."
    late = rows[0]  # what device 0 runs back, nobody waits for
    last = max(t for t, cell in enumerate(late) if cell != ".")
    for row in rows:
        row.append(".")
    late[last], late[last + 1] = ".", late[last]
    return rows


def _drawn_faults(random: Random) -> list[Case]:
    cases = []
    for code in FAULTS:
        kept = 0
        while kept < 4:
            p, m = random.randint(2, 6), random.choice((random.randint(2, 9), random.randint(11, 14)))
            rows = plant(_timed(random.choice(("1f1b", "gpipe")), p, m), code, random)
            codes = {violation.code for violation in check_schedule(_table(rows))}
            if code in codes <= set(FAULTS) and _whole(rows, p, m):
                cases.append(_fault_case(code, rows))
                kept += 1
        cases.append(_fault_case(code, _timed("1f1b", random.randint(2, 5), random.randint(1, 8))))
        cases.append(_fault_case(code, _without(_timed("gpipe", 2, 12), random)))
    return cases


def _without(rows: Rows, random: Random) -> Rows:
    """``rows`` with a forward of a two-digit micro-batch taken out, and its gradient a slot early."""
    rows = [list(row) for row in rows]
    lost = rows[1].index(f"1F{random.choice((10, 11))}")
    rows[1][lost] = "."
    first = next(t for t, cell in enumerate(rows[0]) if "B" in cell)
    rows[0][first - 1], rows[0][first] = rows[0][first], "."
    return rows


def _whole(rows: Rows, p: int, m: int) -> bool:
    """Whether stages and micro-batches can still be counted off the table."""
    schedule = _table(rows).schedule()
    return schedule.stages == p and schedule.microbatches == m


def _fault_case(part: str, rows: Rows, words: str = "") -> Case:
    schedule = _table(rows).schedule()
    small = f"the table {' / '.join(' '.join(row) for row in rows)}" if len(rows) * len(rows[0]) <= 16 else ""
    words = words or small or f"a table of {schedule.devices} devices and {schedule.microbatches} micro-batches"
    return Case(part, {"_rows": rows, "_words": words})


def _visible_faults() -> list[Case]:
    waits = [["0F0", ".", "0F1", ".", ".", "0B0", "0B1"], [".", "1F0", ".", "1F1", "1B0", "1B1", "."]]
    same_slot = [["0F0", "0F1", "0B0", "0B1", "."], [".", "1F0", "1B0", "1F1", "1B1"]]
    no_forward = [["0F0", "0F1", ".", "0B0", "0B1"], [".", "1F0", "1B0", "1B1", "."]]
    no_backward = [["0F0", "0F1", ".", "0B0", "0B1"], [".", "1F0", "1B0", "1F1", "."]]
    backward_alone = [["0F0", "0B0", ".", "0B1"]]  # the highest number occurs in a backward only
    gap = [["0F0", "0F2", ".", ".", "0B0", "0B2"], [".", "1F0", "1F2", "1B0", "1B2", "."]]  # nothing of micro-batch 1
    tables = [waits, same_slot, no_forward, no_backward, backward_alone, gap]
    long = _without(_timed("gpipe", 2, 12), Random(0))
    return [
        *(_fault_case(code, rows) for code in FAULTS for rows in tables),
        *(_fault_case(code, long) for code in FAULTS),
        *(_fault_case(code, PUBLISHED, "the published timetable") for code in FAULTS),
    ]


def _ask_faults(call: Call, case: Case) -> Any:
    with reserve_also("check_schedule"):
        return call("faults", case["_rows"])


def _judge_faults(case: Case, data: Any) -> Finding | None:
    rows: Rows = case["_rows"]
    given = _read_triples(data, case)
    truth = printed_faults(rows)
    mine = {triple for triple in given if triple[2] == case.part}
    wanted = {triple for triple in truth if triple[2] == case.part}
    wrong = sorted(mine - wanted, key=_in_order)
    if wrong:
        return _no_fault(wrong[0], mine, wanted, truth, case)
    lacking = sorted(wanted - mine, key=_in_order)
    if lacking:
        return _overlooked(lacking[0], given, truth, case)
    return None


def _in_order(triple: Triple) -> tuple[bool, int, str, int]:
    device, place, _ = triple
    return isinstance(place, str), place if isinstance(place, int) else 0, str(place), device


def _read_triples(data: Any, case: Case) -> set[Triple]:
    listed = data.get("set") if isinstance(data, dict) else data
    if not isinstance(listed, list):
        raise Refused(f"{case.words}: faults should return a set of (device, place, code); it returned {kind_of(data)}")
    return {_read_triple(item, case) for item in listed}


def _read_triple(item: Any, case: Case) -> Triple:
    start = f"{case.words}: each fault is (device, place, code); one is {item!r}"[:300]
    if not isinstance(item, list) or len(item) != 3:
        raise Refused(start)
    device, place, code = item
    if code not in FAULTS:
        known = f" ({CODES[code]})" if code in CODES else ""
        raise Refused(f"{start}. The codes are {', '.join(FAULTS)}. The code {code!r}{known} is not one of them.")
    where = read_whole(device, f"{start}: its device")
    if code == "missing":
        if not isinstance(place, str):
            raise Refused(f"{start}. A missing action has no slot. Write its text there, such as '3F1'.")
        return where, place.strip(), code
    return where, read_whole(place, f"{start}: its slot"), code


def _cell(rows: Rows, device: int, place: int | str) -> str:
    """What stands at a place; "" outside of the table."""
    inside = isinstance(place, int) and 0 <= device < len(rows) and 0 <= place < len(rows[device])
    return rows[device][int(place)] if inside else ""


def _framed(rows: Rows, case: Case, device: int, place: int | str) -> view.Picture:
    marked = [(device, place)] if isinstance(place, int) and _cell(rows, device, place) else []
    note = "Framed: the place in question." if marked else ""
    return view.plot_table(_table(rows), title="The table that was tried", marked=marked, note=note)


def _no_fault(
    triple: Triple,
    mine: set[Triple],
    wanted: set[Triple],
    truth: dict[Triple, Violation],
    case: Case,
) -> Finding:
    """The learner named a place where nothing of that kind is wrong."""
    rows: Rows = case["_rows"]
    device, place, code = triple
    cell = _cell(rows, device, place)
    other = next((known for known in truth if known[:2] == (device, place)), None)
    if code != "missing" and wanted and mine == {(d, t + 1, c) for d, t, c in wanted if isinstance(t, int)}:
        why = "All your slots are one too high: slots count from 0."
    elif code == "missing" and any(place in row for row in rows):
        why = f"{place} is in the table."
    elif code == "missing":
        why = "The table needs no such action on that device."
    elif not cell:
        why = "There is no such slot in the table."
    elif cell == ".":
        why = f"Device {device} idles at t = {place}. Waiting is not a fault: it costs time, but every action is right."
    elif other is not None:
        why = f"{cell} is wrong there, but the code is '{other[2]}': {_told(truth[other])}."
    else:
        why = f"{cell} may run there: everything it needs is finished when slot {place} begins."
    return Finding(
        f"{case.words}: your faults include {triple!r}. {why}",
        partial(_framed, rows, case, device, place),
    )


def _told(violation: Violation) -> str:
    """The checker's sentence, without the halves of a backward that a later lesson splits it into."""
    return re.sub(r" or \d+I\d+", "", violation.message)


def _overlooked(
    triple: Triple,
    given: set[Triple],
    truth: dict[Triple, Violation],
    case: Case,
) -> Finding:
    device, place, _ = triple
    other = next((mine for mine in given if mine[:2] == (device, place)), None)
    instead = f" (you call it '{other[2]}')" if other is not None else ""
    return Finding(
        f"{case.words}: {triple!r} is not among your faults{instead}: {_told(truth[triple])}.",
        partial(_framed, case["_rows"], case, device, place),
    )


EXERCISE = Exercise(
    name="printed_timetable",
    lesson="03b_beside_gpipe",
    title="The published timetable",
    answers=("faults",),
    parts={"too-early": 2, "missing": 1, "no-input": 1},
    visible=_visible_faults(),
    drawn=_drawn_faults,
    ask=_ask_faults,
    judge=_judge_faults,
)
