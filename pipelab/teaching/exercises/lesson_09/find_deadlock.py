"""Exercise of lesson 9: which devices wait for one another in a ring, where sends and receives block?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from pipelab.schedules import Action, build_schedule
from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import shown, the_only

Step = tuple[str, int, str]  # "send" or "recv", the other device, label
Programs = Sequence[Sequence[Step]]
_PARTS = ("is there a ring", "which devices")


def _case(part: str, programs: Programs, words: str) -> Case:
    return Case(part, {"_programs": [[list(step) for step in row] for row in programs], "_words": words})


def _programs(case: Case) -> list[list[Step]]:
    return [[(kind, other, label) for kind, other, label in row] for row in case["_programs"]]


def _read(text: str) -> list[list[Step]]:
    """Programs from rows such as ``"1!F0 1?B0"``: send F0 to device 1, receive B0 from it."""
    return [
        [("send" if "!" in word else "recv", int(word[0]), word[2:]) for word in row.split()] for row in text.split("|")
    ]


def _of_schedule(name: str, p: int, m: int) -> list[list[Step]]:
    """Each action receives what it needs, and then sends what it made."""
    programs: list[list[Step]] = []
    for r, row in enumerate(build_schedule(name, p, m).programs):
        programs.append([])
        for action in row:
            assert isinstance(action, Action)
            ahead = 1 if action.op == "F" else -1
            label = f"{action.op}{action.microbatch}"
            programs[-1] += [("recv", r - ahead, label)] * (0 <= r - ahead < p)
            programs[-1] += [("send", r + ahead, label)] * (0 <= r + ahead < p)
    return programs


def _drawn(random: Random) -> list[Case]:
    """Messages in one order for all, which always get through; then some steps change places or go missing."""
    cases: list[Case] = []
    while len(cases) < 24:
        p, rings = random.randint(2, 6), len(cases) % 3 > 0
        programs: list[list[Step]] = [[] for _ in range(p)]
        for k in range(random.randint(p, 3 * p)):
            a, b = random.sample(range(p), 2)
            programs[a].append(("send", b, f"F{k}"))
            programs[b].append(("recv", a, f"F{k}"))
        for _ in range(random.randint(0, 2 * p if rings else 1)):
            row = random.choice(programs)
            if len(row) > 1:
                k = random.randrange(len(row) - 1)
                row[k], row[k + 1] = row[k + 1], row[k]
        if random.random() < (0.2 if rings else 0.5):
            row = random.choice([row for row in programs if row])
            row.pop(random.randrange(len(row)))
        has = bool(in_rings(programs))
        if has == rings:
            part = _PARTS[0] if len(cases) < 12 else _PARTS[1]
            cases.append(_case(part, programs, f"p = {p}, {sum(map(len, programs))} sends and receives"))
    return cases


def _ask(call: Call, case: Case) -> Any:
    return call("find_deadlock", _programs(case))


@dataclass(frozen=True)
class Rules:
    """How a run goes on; other values are those of known mistakes."""

    blocking: bool = True
    labels: bool = True


@reserved
def run(programs: Programs, rules: Rules = Rules()) -> tuple[list[int], list[str]]:
    """(where each device stops, what passed on the way); who gets through stops behind its last step."""
    at, passed, sent = [0] * len(programs), [], Counter[tuple[int, int, str]]()

    def step(r: int) -> Step | None:
        return programs[r][at[r]] if at[r] < len(programs[r]) else None

    def goes(r: int) -> bool:
        now = step(r)
        if now is None:
            return False
        kind, other, label = now
        if not rules.blocking:
            key = (r, other, label) if kind == "send" else (other, r, label)
            if kind == "recv" and not sent[key]:
                return False
            sent[key] += 1 if kind == "send" else -1
            at[r] += 1
            return True
        there = step(other)
        if kind != "send" or there is None or there[:2] != ("recv", r) or (rules.labels and there[2] != label):
            return False
        passed.append(f"{label} from {r} to {other}")
        at[r], at[other] = at[r] + 1, at[other] + 1
        return True

    while any([goes(r) for r in range(len(programs))]):  # noqa: C419 - all of them, not the first alone
        pass
    return at, passed


def _rings(programs: Programs, at: Sequence[int]) -> list[list[int]]:
    """The rings of devices that stand at ``at``, each from its lowest device on in the order of waiting."""
    waits = {r: row[k][1] for r, (row, k) in enumerate(zip(programs, at, strict=True)) if k < len(row)}
    found = []
    for first in waits:
        path = [first]
        while (other := waits.get(path[-1], -1)) >= first and other not in path:
            path.append(other)
        if other == first:
            found.append(path)
    return found


@reserved
def in_rings(programs: Programs, rules: Rules = Rules()) -> list[int]:
    """The devices of all rings, sorted."""
    return sorted(r for ring in _rings(programs, run(programs, rules)[0]) for r in ring)


def _judge(case: Case, data: Any) -> Finding | None:
    programs = _programs(case)
    data = as_lists(data["set"] if isinstance(data, dict) and "set" in data else data)
    if not isinstance(data, list):
        raise Refused(f"{case.words}: find_deadlock should return a list of devices, it returned {kind_of(data)}")
    given = [read_whole(r, f"{case.words}: each device") for r in data]
    wanted = in_rings(programs)
    if sorted(given) == wanted or (case.part == _PARTS[0] and bool(given) == bool(wanted)):
        return None
    start = f"{case.words}: find_deadlock returned {shown(given)}. "
    strange = next((r for r in given if not 0 <= r < len(programs)), None)
    if strange is not None:
        return Finding(f"{start}The devices are 0 to {len(programs) - 1}: there is no device {strange}.")
    if sorted(set(given)) == wanted:
        return Finding(f"{start}These are the right devices, but name each of them once.")
    return Finding(f"{start}{_story(programs)} {_mistake(programs, sorted(given))}".rstrip())


def _does(step: Step) -> str:
    kind, other, label = step
    return f"{kind} {label} {'to' if kind == 'send' else 'from'} {other}"


def _story(programs: Programs) -> str:
    """What happens, in a few sentences."""
    at, passed = run(programs)
    stuck = [r for r, row in enumerate(programs) if at[r] < len(row)]
    gone = ", ".join(passed[-3:])
    before = f"{'... ' if len(passed) > 3 else ''}{gone} got through" if passed else "Nothing gets through"
    before = f"{before[0].upper()}{before[1:]}."
    if not stuck:
        return f"All devices get through. The last messages: {gone}." if passed else "There is nothing to do."
    stops = "; ".join(f"device {r} at {_does(programs[r][at[r]])}" for r in stuck[:6])
    rings = _rings(programs, at)
    if not rings:
        return f"{before} Then these wait, but in no ring: {stops}."
    told = " and ".join(" -> ".join(map(str, (*ring, ring[0]))) for ring in rings)
    return f"{before} Then these wait: {stops}. The ring{'s are' if len(rings) > 1 else ' is'} {told}."


def _mistake(programs: Programs, given: list[int]) -> str:
    """The usual mistake that gives these devices."""
    at, wanted = run(programs)[0], in_rings(programs)
    stuck = [r for r, row in enumerate(programs) if at[r] < len(row)]
    sends = [r for r in stuck if programs[r][at[r]][0] == "send"]
    through = [r for r in stuck if programs[r][at[r]][1] not in stuck]
    behind = next((r for r in stuck if r not in wanted), None)
    over = [r for r in given if r in through]
    known = [
        (
            in_rings(programs, Rules(labels=False)),
            "It would be right if labels did not count. A receive of one label does not match a send of another.",
        ),
        (
            in_rings(programs, Rules(blocking=False)),
            "It would be right if a send returned at once. Here it blocks until the other device is at the matching "
            "receive.",
        ),
        *(
            (sorted(ring), "There is more than one ring: return the devices of all of them.")
            for ring in _rings(programs, at)
        ),
        ([r + 1 for r in wanted], "Devices are counted from 0."),
        (
            _facing(programs) or wanted,
            "Two sends that face each other wait only if both devices are there at the same time.",
        ),
        (
            stuck,
            f"Device {over[0]} waits for a device that is through, which is no ring."
            if over
            else f"Device {behind} waits behind the ring, and nobody in the ring waits for it.",
        ),
        *(
            [
                (sends, "A device that waits at a receive may be in the ring as well as one at a send."),
                ([r for r in stuck if r not in sends], "A device that waits at a send is in the ring as well."),
            ]
            if wanted and given
            else ()
        ),
    ]
    return the_only((given == devices != wanted, why) for devices, why in known)


def _facing(programs: Programs) -> list[int]:
    """Devices whose sends to each other stand at the same place of their programs."""
    found = set()
    for a, row in enumerate(programs):
        for k, (kind, b, _) in enumerate(row):
            there = programs[b][k : k + 1]
            if kind == "send" and there and there[0][:2] == ("send", a):
                found |= {a, b}
    return sorted(found)


EXERCISE = Exercise(
    name="find_deadlock",
    lesson="09b_deadlocks",
    title="Find the deadlock",
    answers=("find_deadlock",),
    parts=dict.fromkeys(_PARTS, 2),
    visible=[
        _case(part, programs, words)
        for part, programs, words in [
            (_PARTS[0], _read("1!F0 1?B0 | 0?F0 0!B0"), "p = 2, F0 goes and B0 comes back"),
            (_PARTS[0], _read("1!F1 1?B0 | 0!B0 0?F1"), "p = 2, both send first"),
            (_PARTS[0], _read("2!F0 1!F1 1?B1 | 0?F1 0!B1 | 0?F0"), "p = 3, sends at one place that never meet"),
            (_PARTS[0], _read("1?B0 1!F1 | 0?F1 0!B0"), "p = 2, both receive first"),
            (_PARTS[0], _read("1?B0 1!F0 1?B1 | 0!B1 0?F0 0!B0"), "p = 2, B1 comes where B0 is wanted"),
            (_PARTS[0], _read("1!F0 1!F1 | 0?F1 0?F0"), "p = 2, two messages, received in the other order"),
            (_PARTS[0], _read("1!F0 2?F2 | 2!F1 0?F0 | 0!F2 1?F1"), "p = 3, a round trip, all send first"),
            (_PARTS[0], _read("1!F0 2?F2 | 0?F0 2!F1 | 1?F1 0!F2"), "p = 3, a round trip, device 0 sends first"),
            (_PARTS[0], _of_schedule("gpipe", 3, 2), "GPipe, p = 3, m = 2"),
            (_PARTS[1], _read("1!F1 1?B0 | 0!B0 0?F1 | 1?F0 "), "p = 3, two send, one waits"),
            (_PARTS[1], _read("1!F0 | 0?F0 0?F1 | "), "p = 3, a receive that nobody sends to"),
            (_PARTS[1], _read("1!F0 1!F1 | 0?F1 0?F0 2!F1 | 1?F1"), "p = 3, received in the other order"),
            (_PARTS[1], _read("1!F0 1?B0 | 0!B0 0?F0 | 3!F0 3?B0 | 2!B0 2?F0"), "p = 4, in two pairs"),
            (_PARTS[1], _of_schedule("1f1b", 3, 4), "1F1B, p = 3, m = 4"),
            (_PARTS[1], _read("1!F0 3?F3 | 2!F1 0?F0 | 3!F2 1?F1 | 0!F3 2?F2 | 2?F4"), "p = 5, a round trip of four"),
        ]
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
