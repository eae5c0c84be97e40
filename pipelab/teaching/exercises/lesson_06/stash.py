"""Exercise of lesson 6: how long does a version live, and how many are there at once?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.schedules.updates import Updating, over, versions
from pipelab.schedules.warmups import with_warmups
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, numbers, read_whole
from pipelab.teaching.exercises.lesson_06.version_number import METHODS

Rows = list[list[str]]
RULES = {"pipedream": "newest", "vertical-sync": "input", "2bw": "delayed"}


@dataclass(frozen=True)
class Life:
    """One version on one device: the actions that need it, in the device's order, and after which it is not needed."""

    needs: tuple[str, ...]
    last: str


def _case(part: str, method: str, rows: Rows) -> Case:
    small = f"{METHODS[method]}, the table {' / '.join(' '.join(row) for row in rows)}"
    size = f"{METHODS[method]}, p = {len(rows)}, {sum('F' in cell for cell in rows[0])} micro-batches"
    ahead = [next((k for k, cell in enumerate(row) if "B" in cell), 1) - 1 for row in rows]
    if ahead != list(range(len(rows) - 1, -1, -1)):
        size += f", warm-ups {', '.join(map(str, ahead))}"
    backwards, updates = (sum(op in cell for cell in rows[0]) for op in "BU")
    if method != "2bw" and updates < backwards:
        size += f", {updates} updates"
    return Case(part, {"_rows": rows, "_method": method, "_words": small if sum(map(len, rows)) <= 14 else size})


def _rows(schedule: Schedule) -> Rows:
    return [[str(slot) for slot in row] for row in schedule.programs]


def _plain(method: str, p: int, count: int, every: int = 1) -> Rows:
    """The method's own table, of ``count`` micro-batches (for 2BW: of so many batches)."""
    return _rows(over(build_schedule(method, p, every), count) if method == "2bw" else build_schedule(method, p, count))


def _warmed(depths: list[int], count: int, every: int = 1) -> Rows:
    """1F1B's pattern with other warm-ups, and an update after every ``every`` backwards."""
    made: Rows = []
    for row in _rows(with_warmups(depths, count)):
        made.append([])
        for cell in row:
            made[-1].append(cell)
            stage, _, i = cell.partition("B")
            if i and (int(i) + 1) % every == 0:
                made[-1].append(f"{stage}U{i}")
    return made


def _drawn(random: Random) -> list[Case]:
    cases = []
    for method in METHODS:
        p = random.randint(2, 5)
        depths = sorted((random.randint(0, 5) for _ in range(p)), reverse=True)
        depths[0] += depths[0] == p - 1  # so that the usual warm-up is not right by chance
        if method == "2bw":
            every = random.randint(p, p + 3)
            depths = [min(depth, every) for depth in depths]
            tables = [_plain(method, p, 3, every), _warmed(depths, 4 * every, every)]
        else:
            tables = [_plain(method, p, random.randint(p, 2 * p + 4)), _warmed(depths, random.randint(6, 10))]
            tables.append(_warmed(depths, 12, random.randint(2, 3)))
        cases += [_case(part, method, rows) for rows in tables for part in (method, "peak")]
    return [*cases, _case("pipedream", "pipedream", _plain("pipedream", 11, 13))]


@reserved
def lives(rows: Rows, method: str) -> tuple[list[list[Life]], list[int]]:
    """Each device's versions, without those that are never replaced; and the most that a device has at once."""
    plain = Schedule.from_rows(rows)
    first = next((k for k, cell in enumerate(c for c in rows[0] if "F" not in c) if "U" in cell), 1)
    updating = Updating(RULES[method], first if method == "2bw" else 1)
    used = versions(Schedule(method, plain.programs, plain.placement, plain.weights, updating))
    found, peaks = [], []
    for r, row in enumerate(rows):
        updates = [cell for cell in row if "U" in cell]
        needs: list[list[str]] = [[] for _ in range(len(updates) + 1)]
        done = 0
        for cell in row:
            if "U" in cell:
                needs[done].append(cell)  # what makes the next version reads this one
                done += 1
            else:
                needs[used[Action(r, "F", int(cell[len(str(r)) + 1 :]))]].append(cell)
        found.append([Life(tuple(need), need[-1]) for need in needs[:-1]])
        peaks.append(_peak(row, [life.last for life in found[-1]]))
    return found, peaks


def _peak(row: list[str], last: list[str]) -> int:
    """The most versions between two actions of ``row``, if version k is freed after action ``last[k]``."""
    made, most, freed = 1, 1, 0
    for cell in row:
        made += "U" in cell
        freed += last.count(cell)
        most = max(most, made - freed)
    return most


def _ask(call: Call, case: Case) -> Any:
    return call("peak" if case.part == "peak" else "last_needs", case["_rows"], case["_method"])


def _judge(case: Case, data: Any) -> Finding | None:
    return _judge_peak(case, data) if case.part == "peak" else _judge_last(case, data)


def _judge_last(case: Case, data: Any) -> Finding | None:
    rows, method = case["_rows"], case["_method"]
    data = as_lists(data)
    if not isinstance(data, list) or len(data) != len(rows) or any(not isinstance(row, list) for row in data):
        raise Refused(f"{case.words}: last_needs should return a list of {len(rows)} lists, one per device")
    truth, _ = lives(rows, method)
    for r, row in enumerate(data):
        updates = sum("U" in cell for cell in rows[r])
        if len(row) == updates + 1 and [_text(cell) for cell in row[:-1]] == [life.last for life in truth[r]]:
            return Finding(
                f"{case.words}: device {r} has {updates} updates, and you name {len(row)} actions. The newest version "
                "is never freed: leave it out."
            )
        if len(row) != updates:
            return Finding(
                f"{case.words}: for device {r} you name {len(row)} actions. It runs {updates} updates, so versions 0 "
                f"to {updates - 1} are replaced one day, and each of them has its last need."
            )
    wrong = [(r, k) for r in range(len(rows)) for k, life in enumerate(truth[r]) if _text(data[r][k]) != life.last]
    if not wrong:
        return None
    r, k = min(wrong, key=lambda place: (place[1], place[0]))
    return _wrong(case, r, k, _text(data[r][k]), truth[r][k], [[_text(cell) for cell in row] for row in data])


def _text(cell: Any) -> str:
    return cell.strip() if isinstance(cell, str) else kind_of(cell)


def _wrong(case: Case, r: int, k: int, given: str, life: Life, data: Rows) -> Finding:
    rows, method = case["_rows"], case["_method"]
    start = f"{case.words}: on device {r} version {k} is last needed by {life.last}; you say {given}. "
    row = rows[r]
    marked = [(r, row.index(cell)) for cell in (given, life.last) if cell in row]
    if given not in row:
        why = f"Device {r} runs no such action."
    elif method == "vertical-sync" and data == [[one.last for one in device] for device in lives(rows, "pipedream")[0]]:
        why = (
            "That is right without vertical sync. Here a later micro-batch still comes to this device with a version "
            "that stage 0 gave it, although newer ones are there."
        )
    elif row.index(given) > row.index(life.last):
        why = f"Nobody needs it after {life.last}. Holding it longer is memory for nothing."
    elif "U" in life.last:
        why = f"It is then still the newest version, and {life.last} makes the next one from it."
    elif given[len(str(r))] == "F" and given.replace("F", "B") in life.needs:
        why = f"{given} uses it, but its backward needs the same version: {life.last} comes later."
    else:
        used = life.last.replace("B", "F")
        whose = "stage 0 gave it to that micro-batch" if method == "vertical-sync" else f"{used} ran with it"
        why = f"{life.last} still needs it, because {whose}."
    return Finding(start + why, partial(_framed, case, marked))


def _judge_peak(case: Case, data: Any) -> Finding | None:
    rows, method = case["_rows"], case["_method"]
    given = [
        read_whole(one, f"{case.words}: device {r}")
        for r, one in enumerate(numbers(data, f"{case.words}: what peak returned", len(rows)))
    ]
    found, peaks = lives(rows, method)
    if given == peaks:
        return None
    r = next(r for r in range(len(rows)) if given[r] != peaks[r])
    start = f"{case.words}: device {r} keeps at most {peaks[r]} version{'s' * (peaks[r] > 1)}; peak says {given[r]}. "
    return Finding(start + _why_peak(given, peaks, found, case), partial(_framed, case, []))


def _why_peak(given: list[int], peaks: list[int], found: list[list[Life]], case: Case) -> str:
    rows, method = case["_rows"], case["_method"]
    if given == [len(device) + 1 for device in found]:
        return "That counts all versions that are ever made. Some are freed before the next one comes."
    if given == [len(device) for device in found]:
        return "That counts the updates. Some versions are freed before the next one comes."
    if method == "vertical-sync" and given == lives(rows, "pipedream")[1]:
        return "That is right without vertical sync. Here versions wait for micro-batches that have not come yet."
    if given == [peak - 1 for peak in peaks]:
        return "Did you leave the newest version out? It is in memory too. Or are versions freed too early?"
    if given == [_in_flight(row) for row in rows]:
        return "That is how many micro-batches are in flight. Two of them may use the same version."
    if all(a in (b, b + 1) for a, b in zip(given, peaks, strict=True)):
        return (
            "That is one too many. A version whose last need is the update itself is replaced in place. One whose last "
            "need is a backward is freed before the next action begins."
        )
    return "Go through the row: an update adds a version, and a version goes right after the last action that needs it."


def _in_flight(row: list[str]) -> int:
    now = most = 0
    for cell in row:
        now += ("F" in cell) - ("B" in cell)
        most = max(most, now)
    return most


def _framed(case: Case, places: list[tuple[int, int]]) -> view.Picture:
    note = "Framed: the action that you name, and the last one that needs the version." if places else ""
    title = f"The table, {METHODS[case['_method']]}"
    return view.plot_table(Schedule.from_rows(case["_rows"], name="table"), title=title, marked=places, note=note)


def _visible() -> list[Case]:
    tables = {
        "pipedream": [_plain("pipedream", 1, 3), _plain("pipedream", 2, 2), _plain("pipedream", 2, 4)],
        "vertical-sync": [_plain("vertical-sync", 2, 2), _plain("vertical-sync", 2, 4), _plain("vertical-sync", 3, 6)],
        "2bw": [_plain("2bw", 2, 2, 2), _plain("2bw", 2, 3, 3), _plain("2bw", 3, 3, 3)],
    }
    tables["pipedream"] += [_plain("pipedream", 4, 8), _warmed([3, 2, 2], 8), _warmed([2, 1, 0], 8, 2)]
    tables["vertical-sync"] += [_plain("vertical-sync", 4, 9), _warmed([3, 2, 0], 8), _warmed([2, 1, 0], 8, 2)]
    tables["2bw"].append(_warmed([3, 3, 0], 12, 3))
    return [_case(part, method, rows) for method in tables for rows in tables[method] for part in (method, "peak")]


EXERCISE = Exercise(
    name="stash",
    lesson="06_without_a_flush",
    title="How long does a version live?",
    answers=("last_needs", "peak"),
    parts={"pipedream": 1, "vertical-sync": 1, "2bw": 1, "peak": 1},
    visible=_visible(),
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
