"""Exercise of lesson 9: in which order must a device post its receives?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.schedules.reserved import reserve_also, reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

Rows = Sequence[Sequence[str]]
_PARTS = ("one stage a device", "several stages a device")


def _case(rows: Rows, source: int, destination: int, what: str) -> Case:
    part = _PARTS[_stages(rows) > len(rows)]
    words = f"{what}, from device {source} to device {destination}"
    return Case(part, {"_rows": [list(row) for row in rows], "_from": source, "_to": destination, "_words": words})


def _built(name: str, p: int, m: int, v: int, source: int, destination: int) -> Case:
    table = build_schedule(name, p, m, v if v > 1 else None)
    title = {"1f1b": "1F1B", "gpipe": "GPipe", "interleaved": "interleaved 1F1B"}[name]
    words = f"{title}, p = {p}, m = {m}" + (f", v = {v}" if v > 1 else "")
    return _case([[str(a) for a in row] for row in table.programs], source, destination, words)


def _drawn(random: Random) -> list[Case]:
    cases = []
    for k in range(10):
        p, v = random.randint(2, 5), random.randint(2, 3) if k % 2 else 1
        pairs = [(r, (r + step) % p) for r in range(p) for step in (1, p - 1)]
        name = "interleaved" if v > 1 else random.choice(("1f1b", "gpipe"))
        m = random.choice((p, 2 * p)) if v > 1 else random.randint(1, 2 * p)
        cases.append(_built(name, p, m, v, *random.choice(pairs)))
    cases.append(_built("interleaved", 4, 4, 2, *random.choice(((3, 0), (0, 3)))))
    return cases


def _ask(call: Call, case: Case) -> Any:
    with reserve_also("routes", "simulate"):
        return call("receives", case["_rows"], case["_from"], case["_to"])


@reserved
def sent(rows: Rows, source: int, destination: int) -> list[str]:
    """What ``source`` sends to ``destination``, in its order."""
    stages = _stages(rows)
    return [cell for cell in rows[source] if _goes_to(cell, len(rows), stages, source) == destination]


def _stages(rows: Rows) -> int:
    return 1 + max(Action.parse(cell).stage for row in rows for cell in row)


def _goes_to(cell: str, p: int, stages: int, source: int) -> int | None:
    """The device that takes the result of ``cell``; None where no other does."""
    action = Action.parse(cell)
    taker = action.stage + (1 if action.op == "F" else -1)
    return taker % p if 0 <= taker < stages and taker % p != source else None


def _judge(case: Case, data: Any) -> Finding | None:
    rows, source, destination = case["_rows"], case["_from"], case["_to"]
    listed = as_lists(data)
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        strange = next((one for one in listed if not isinstance(one, str)), None) if isinstance(listed, list) else data
        raise Refused(
            f"{case.words}: receives should return a list of actions such as '0F0', and there is {kind_of(strange)}"
        )
    given, wanted = [one.strip() for one in listed], sent(rows, source, destination)
    if given == wanted:
        return None
    k = next((k for k, pair in enumerate(zip(given, wanted, strict=False)) if pair[0] != pair[1]), None)
    where = min(len(given), len(wanted)) if k is None else k
    mine, theirs = (repr(row[where]) if where < len(row) else "nothing" for row in (given, wanted))
    start = f"{case.words}: at place {where} you receive {mine}, and device {source} sends {theirs} there. "
    return Finding(start + _mistake(given, wanted, rows, source, destination), partial(_framed, rows, source, wanted))


def _mistake(given: list[str], wanted: list[str], rows: Rows, source: int, destination: int) -> str:
    row = rows[source]
    known = the_only((given == other, why) for other, why in _mistakes(rows, source, destination, wanted))
    if known:
        return known
    strange = next((cell for cell in given if cell not in row), None)
    if strange is not None:
        return f"Device {source} never runs {strange!r}. List what device {source} ran to make each message."
    extra = next((cell for cell in given if cell not in wanted), None)
    if extra is not None:
        action, taker = Action.parse(extra), _goes_to(extra, len(rows), _stages(rows), source)
        if taker is None:
            end = "last stage" if action.op == "F" else "first stage"
            return f"The result of {extra} goes to no other device: stage {action.stage} is the {end}."
        return f"The result of {extra} goes to device {taker}, which has the next stage on its way."
    missing = next((cell for cell in wanted if cell not in given), None)
    if missing is not None:
        action = Action.parse(missing)
        taker = action.stage + (1 if action.op == "F" else -1)
        return f"{missing} is missing: stage {taker} takes its result, and stage {taker} is on device {destination}."
    if sorted(given) == sorted(wanted):
        return "The messages are right, and their order is not. A channel without tags keeps the order of sending."
    return "Each message comes once."


def _mistakes(rows: Rows, source: int, destination: int, wanted: list[str]) -> list[tuple[list[str], str]]:
    """What each of the usual mistakes would return, and why it is one."""
    p, row = len(rows), [Action.parse(cell) for cell in rows[source]]

    def chosen(goes: Callable[[Action], bool]) -> list[str]:
        return [str(a) for a in row if goes(a)]

    def taken(cell: str) -> str:
        a = Action.parse(cell)
        return f"{a.stage + (1 if a.op == 'F' else -1)}{a.op}{a.microbatch}"

    def right(a: Action) -> bool:
        return str(a) in wanted

    def at_the_edge(a: Action) -> bool:
        return (a.stage + (1 if a.op == "F" else -1)) % p == destination != source

    needed = [cell for cell in rows[destination] if cell in {taken(one) for one in wanted}]
    by_need = sorted(wanted, key=lambda cell: needed.index(taken(cell)) if taken(cell) in needed else len(needed))
    return [
        (
            by_need,
            f"That is the order in which device {destination} needs them. The channel keeps the order of sending. A "
            "receive takes what comes next, whatever it is meant for. It finds another tensor, and no error.",
        ),
        (
            [taken(cell) for cell in wanted],
            f"These are the actions of device {destination} that take the messages. Name the actions of device "
            f"{source} that made them.",
        ),
        (
            chosen(lambda a: right(a) and a.op == "F"),
            "The gradients are missing. A backward sends its result too, to the device of the stage before.",
        ),
        (
            [*chosen(lambda a: right(a) and a.op == "F"), *chosen(lambda a: right(a) and a.op == "B")],
            "First all activations and then all gradients is not the order of sending. There is one channel for both.",
        ),
        (
            chosen(lambda a: source + (1 if a.op == "F" else -1) == destination and right(a)),
            f"The way round is missing: behind device {p - 1} the next stage is on device 0 again.",
        ),
        (
            chosen(at_the_edge),
            "Behind the last stage there is nobody to send an activation to, and before stage 0 nobody to send a "
            "gradient to.",
        ),
        (
            chosen(lambda a: abs(source - destination) in (1, p - 1)),
            f"That is all that device {source} runs. Ask of each action which stage takes its result, and where it is.",
        ),
        (
            sorted(wanted),
            "That is the order of their names. What counts is the order in which the source runs them.",
        ),
        (sent(rows, destination, source), "That is the other direction: source sends, and destination receives."),
    ]


def _framed(rows: Rows, source: int, wanted: Sequence[str]) -> view.Picture:
    places = [(source, k) for k, cell in enumerate(rows[source]) if cell in wanted]
    table = Schedule.from_rows(rows)
    return view.plot_table(table, title="The table", marked=places, note="Framed: what goes over this channel.")


EXERCISE = Exercise(
    name="order_on_the_wire",
    lesson="09b_deadlocks",
    title="Order on the wire",
    answers=("receives",),
    parts=dict(zip(_PARTS, (1, 2), strict=True)),
    visible=[
        _case([["0F0", "0B0"], ["1F0", "1B0"]], 0, 1, "p = 2, m = 1"),
        _case([["0F0", "0B0"], ["1F0", "1B0"]], 1, 0, "p = 2, m = 1"),
        _case([["0F0", "0F1", "0B1", "0B0"], ["1F1", "1F0", "1B1", "1B0"]], 0, 1, "p = 2, device 1 takes F1 before F0"),
        _built("1f1b", 3, 4, 1, 1, 2),
        _built("1f1b", 3, 2, 1, 2, 1),
        _built("gpipe", 4, 3, 1, 3, 0),
        _built("interleaved", 3, 1, 2, 2, 0),
        _case([["0F0", "2F0", "2B0", "0B0"], ["1F0", "3F0", "3B0", "1B0"]], 0, 1, "p = 2, m = 1, two stages on each"),
        _case([["0F0", "2F0", "2B0", "0B0"], ["1F0", "3F0", "3B0", "1B0"]], 1, 0, "p = 2, m = 1, two stages on each"),
        _built("interleaved", 2, 2, 2, 0, 1),
        _built("interleaved", 2, 4, 2, 1, 0),
        _built("interleaved", 3, 3, 2, 2, 0),
        _built("interleaved", 4, 4, 2, 0, 3),
        _built("interleaved", 4, 8, 3, 1, 2),
        _built("interleaved", 4, 4, 2, 1, 3),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
