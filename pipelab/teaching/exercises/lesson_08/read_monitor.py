"""Exercise of lesson 8: which device holds all others up, since when, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from statistics import fmean, median
from typing import Any

from pipelab import view
from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole
from pipelab.teaching.exercises.lesson_08.monitored import KINDS, RECORDED, Run, made_up

WHO, WHY = "which and since when", "why"
REASONS = ("slow device", "too many layers", "none")
EVEN = 0.95  # above this load balance nobody holds the others up
NEAR = 3  # steps before or after that are accepted
ROSE = 1.1  # the least rise of what a layer takes, beside the other devices, that makes a device slow

Row = Mapping[str, float]
ByStep = Mapping[int, Mapping[int, Row]]


def _by_step(rows: Sequence[Row]) -> ByStep:
    found: dict[int, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        found[int(row["step"])][int(row["device"])] = row
    return found


@reserved
def parts(rows: Sequence[Row]) -> dict[int, list[float]]:
    """By step, each device's part of all busy seconds: what the whole machine does cancels. Medians of five steps."""
    by_step = _by_step(rows)
    steps, devices = sorted(by_step), sorted(next(iter(by_step.values())))
    each = {
        step: [row[r]["busy"] / sum(one["busy"] for one in row.values()) for r in devices]
        for step, row in by_step.items()
    }
    found = {}
    for k, step in enumerate(steps):
        begin = min(max(k - 2, 0), max(len(steps) - 5, 0))
        around = steps[begin : begin + 5]
        found[step] = [median(each[near][r] for near in around) for r in devices]
    return found


@reserved
def holder(shares: Sequence[float]) -> int | None:
    """Who holds the others up."""
    if fmean(shares) / max(shares) > EVEN:
        return None
    return max(range(len(shares)), key=lambda r: shares[r])


@reserved
def truth(rows: Sequence[Row]) -> tuple[int | None, int | None, str]:
    """(device, since, why)."""
    shares = parts(rows)
    steps = sorted(shares)
    device = holder(shares[steps[-1]])
    if device is None:
        return None, None, "none"
    since = steps[-1]
    for step in reversed(steps):
        if holder(shares[step]) != device:
            break
        since = step
    before, now = [step for step in steps if step < since][-5:], [step for step in steps if step >= since]
    slow = bool(before) and dearness(rows, device, now) > ROSE * dearness(rows, device, before)
    return device, since, "slow device" if slow else "too many layers"


@reserved
def dearness(rows: Sequence[Row], device: int, steps: Sequence[int]) -> float:
    """What a layer takes on ``device`` in these steps, relative to the other devices in the same steps; the median."""
    by_step, found = _by_step(rows), []
    for step in steps:
        layer = {r: row["busy"] / row["layers"] for r, row in by_step[step].items()}
        found.append(layer[device] / median(time for r, time in layer.items() if r != device))
    return median(found)


def _case(part: str, rows: Sequence[Row], what: str) -> Case:
    steps = sorted(_by_step(rows))
    devices = len({row["device"] for row in rows})
    words = f"{what}: {devices} devices, steps {steps[0]} to {steps[-1]}"
    return Case(part, {"_rows": [dict(row) for row in rows], "_words": words})


def _both(run: Run, what: str) -> list[Case]:
    return [_case(part, run.rows, what) for part in (WHO, WHY)]


def _drawn(random: Random) -> list[Case]:
    return [case for kind in KINDS for case in _both(made_up(kind, random), "a run")]


def _ask(call: Call, case: Case) -> Any:
    return call("diagnose", [dict(row) for row in case["_rows"]])


def _judge(case: Case, data: Any) -> Finding | None:
    rows, given = case["_rows"], as_lists(data)
    if not isinstance(given, list) or len(given) != 3:
        raise Refused(f"{case.words}: diagnose should return (device, since, why), it returned {kind_of(data)}")
    device, since, why = truth(rows)
    if case.part == WHY:
        found = _judge_why(case, given[2], device, why)
    elif given[0] is None or given[1] is None:
        found = None if device is None and given[0] is given[1] else _missed(case, device, given)
    else:
        who, step = (read_whole(one, f"{case.words}: {n}") for one, n in zip(given, ("device", "since"), strict=False))
        found = _judge_who(case, who, step, device, since)
    return Finding(found, partial(_picture, rows)) if found else None


def _missed(case: Case, device: int | None, given: Sequence[Any]) -> str:
    if device is None:
        return f"{case.words}: you return {given[0]} and {given[1]}. Where nobody holds the others up, both are None."
    return (
        f"{case.words}: you return {given[0]} as device and {given[1]} as since. In the median of the last five steps "
        f"the load balance is {_balance(case):.2f}, so some device holds the others up."
    )


def _balance(case: Case) -> float:
    shares = parts(case["_rows"])
    last = shares[max(shares)]
    return fmean(last) / max(last)


def _judge_who(case: Case, who: int, step: int, device: int | None, since: int | None) -> str | None:
    rows = case["_rows"]
    steps = sorted(_by_step(rows))
    if who == device and since is not None:
        return None if abs(step - since) <= NEAR else f"{case.words}: {_other_step(rows, who, step, since, steps)}"
    start = f"{case.words}: you say device {who}. {_blamed(rows, who, device, steps)}"
    if device is None:
        return f"{start}In the last five steps the load balance is {_balance(case):.2f}: nobody holds the others up."
    return f"{start}In the last five steps another device is the busiest in the median. Whom do all wait for now?"


def _blamed(rows: Sequence[Row], who: int, device: int | None, steps: Sequence[int]) -> str:
    """The usual reason to blame ``who``; "" if there is none."""
    by_step = _by_step(rows)
    devices = sorted(by_step[steps[0]])

    def most(column: str, chosen: Sequence[int], per: str = "") -> int:
        def total(r: int) -> float:
            each = [by_step[s][r][column] / (by_step[s][r][per] if per else 1) for s in chosen]
            return median(each) if per else sum(each)

        return max(devices, key=total)

    alone = max((s for s in steps), key=lambda s: max(row["busy"] for row in by_step[s].values()))
    if who not in devices:
        return f"The devices are {devices[0]} to {devices[-1]}. "
    if who == most("busy", steps[-1:]) and who != holder(parts(rows)[steps[-1]]):
        return f"It is the busiest in step {steps[-1]}, the last. But one step may be disturbed, so take medians. "
    if who == most("busy", steps) and _was(rows, who):
        return "It has the largest sum over all steps, but that is about the past. It is as busy as the others again. "
    if who == most("busy", steps, "layers") and who != most("busy", steps[-5:]):
        return (
            "A layer takes it longest. But its layers may be dear ones, such as a head, and it has fewer of them. "
            "Its busy time is what counts. "
        )
    if who == most("idle", steps) or who == most("idle", steps[-5:]):
        return "It idles longest, so it waits for others. The one that all wait for idles least. "
    if who == most("busy", [alone]):
        return f"It was far busier than the others in step {alone}, but in that step alone. "
    if who == most("layers", steps[-1:]):
        return "It has the most layers, or as many as any. Its busy time counts, not their number. "
    return "It was the busiest before. " if _was(rows, who) else ""


def _was(rows: Sequence[Row], who: int) -> bool:
    return any(holder(shares) == who for shares in parts(rows).values())


def _other_step(rows: Sequence[Row], who: int, step: int, since: int, steps: Sequence[int]) -> str:
    start = f"you say since step {step}. "
    earlier = [s for s in steps if s < since and holder(parts(rows)[s]) == who]
    if since == steps[0]:
        return f"{start}But device {who} has been the busiest from the first step on, step {since}."
    if abs(step + steps[0] - since) <= NEAR:
        return f"{start}That is a place in the list. `since` should be a number from the column `step`."
    if step not in steps:
        return f"{start}The rows have steps {steps[0]} to {steps[-1]}."
    if earlier and step <= earlier[-1]:
        return (
            f"{start}It did hold the others up then, but not without a break. Asked is since when it has done so "
            "until now."
        )
    if step < since:
        one = _by_step(rows)[step][who]["busy"] > 1.2 * fmean(row["busy"] for row in _by_step(rows)[step].values())
        if one:
            return f"{start}It was busy for long in that step, but not in the next ones. One step may be disturbed."
        return f"{start}After that there are still steps in which nobody waits for device {who}, by the median of five."
    if step > steps[-1] - 6:
        return f"{start}That is where the rows end. Device {who} has been the busiest for longer: go back."
    return f"{start}Device {who} was already the busiest before that, by the median of five steps."


def _judge_why(case: Case, said: Any, device: int | None, why: str) -> str | None:
    if not isinstance(said, str) or said.strip().lower() not in REASONS:
        raise Refused(f"{case.words}: why should be one of {', '.join(REASONS)}; it is {kind_of(said)}")
    word = said.strip().lower()
    if word == why:
        return None
    start = f"{case.words}: you say '{word}'. "
    if "none" in (word, why):
        return f"{start}But in the median of the last five steps the load balance is {_balance(case):.2f}."
    if why == "slow device":
        return (
            f"{start}But the number of layers of device {device} was the same before. Beside the other devices in the "
            "same step, a layer has taken it longer since then."
        )
    if len({row["layers"] for row in case["_rows"] if row["device"] == device}) > 1:
        return (
            f"{start}But what a layer takes device {device} is the same as before, beside the other devices. The "
            "number of its layers is not the same."
        )
    return (
        f"{start}But device {device} has been the busiest from the first step on, so it has not become slow. "
        "It has more work than the others."
    )


def _picture(rows: Sequence[Row]) -> view.Picture:
    by_step = _by_step(rows)
    steps = sorted(by_step)
    sums = {step: sum(row["busy"] for row in by_step[step].values()) for step in steps}
    shown = sorted({int(row["device"]) for row in rows}, key=lambda r: -max(p[r] for p in parts(rows).values()))[:5]
    curves = {f"Device {r}": [100 * by_step[step][r]["busy"] / sums[step] for step in steps] for r in sorted(shown)}
    return view.plot_curves(
        steps,
        curves,
        across="step",
        up="part of all busy seconds, %",
        title="What the monitor saw",
        note="Each device's busy seconds over those of all devices, step by step.",
    )


EXERCISE = Exercise(
    name="read_monitor",
    lesson="08b_unlike_devices",
    title="Read a monitor",
    answers=("diagnose",),
    parts={WHO: 2, WHY: 2},
    visible=[
        *_both(made_up("even", Random(1), disturbed=False), "a run without disturbed steps"),
        *_both(made_up("slow", Random(4), disturbed=False), "a run without disturbed steps"),
        *(case for what, run in RECORDED.items() for case in _both(run, what)),
        *(case for k, kind in enumerate(KINDS) for case in _both(made_up(kind, Random(k + 10)), "a run")),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
