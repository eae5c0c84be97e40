"""Exercise of lesson 3: which schedule, and how many micro-batches, under a limit on memory?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import kind_of, read_whole


def _bubble(p: int, m: int) -> float:
    return (p - 1) / (m + p - 1)


def _ratio(p: int, m: int) -> float:
    return (p - 1) / m


def _sequences(name: str, batch: int, p: int, m: int) -> float:
    """What device 0 holds, in sequences, at a fixed batch."""
    return batch if name == "gpipe" else min(p, m) * batch / m


@reserved
def least(
    batch: int, p: int, bytes_per_sequence: int, limit: int, idle: float, bubble: Callable[[int, int], float] = _bubble
) -> tuple[str, int]:
    """The schedule and the least m that keep to both limits; GPipe where it can; ("none", 0) where neither can."""
    for name in ("gpipe", "1f1b"):
        for m in range(1, batch + 1):
            fits = batch % m == 0 and _sequences(name, batch, p, m) * bytes_per_sequence <= limit
            if fits and bubble(p, m) <= idle:
                return name, m
    return "none", 0


MB = 1_000_000
_PARTS = ("the schedule", "m")


def _choices(cases: Sequence[tuple[int, int, int, int, float]]) -> list[Case]:
    names = ("batch", "p", "bytes", "limit", "idle")
    made = []
    for part in _PARTS:
        for given in cases:
            batch, p, size, limit, idle = given
            words = (
                f"a batch of {batch} on {p} devices, {size / MB:g} MB a sequence, at most {limit / MB:g} MB and "
                f"{idle:.0%} idle"
            )
            made.append(Case(part, {**dict(zip(names, given, strict=True)), "_words": words}))
    return made


def _drawn_choices(random: Random) -> list[Case]:
    cases: list[tuple[int, int, int, int, float]] = []
    while len(cases) < 12:
        p, batch = random.randint(2, 8), random.choice((24, 36, 48, 60, 64, 96, 120, 128))
        size = random.randint(2, 9) * MB
        idle = random.randint(5, 60) / 100
        share = random.choice((1.0, 1.3, random.uniform(0.1, 0.95), random.uniform(0.1, 0.95), 0.5 * p / batch))
        limit = int(share * batch * size)
        on_the_edge = any(abs(_bubble(p, m) - idle) < 1e-9 for m in range(1, batch + 1))
        if not on_the_edge:
            cases.append((batch, p, size, limit, idle))
    return _choices(cases)


def _ask_choice(call: Call, case: Case) -> Any:
    return call("choose", case["batch"], case["p"], case["bytes"], case["limit"], case["idle"])


def _judge_choice(case: Case, data: Any) -> Finding | None:
    if not isinstance(data, list) or len(data) != 2:
        raise Refused(f"{case.words}: choose should return (schedule, m); it returned {kind_of(data)}")
    if not isinstance(data[0], str):
        raise Refused(f"{case.words}: the schedule is the text 'gpipe', '1f1b' or 'none', not {kind_of(data[0])}")
    name = data[0].strip().lower()
    m = 0 if data[1] is None else read_whole(data[1], f"{case.words}: m")
    if name not in ("gpipe", "1f1b", "none"):
        raise Refused(f"{case.words}: the schedule is 'gpipe', '1f1b' or 'none', not {data[0]!r}")
    limits = (case["batch"], case["p"], case["bytes"], case["limit"], case["idle"])
    right, right_m = least(*limits)
    if name == right and (m == right_m or case.part == "the schedule"):
        return None
    if (name, m) == least(*limits, _ratio):
        return Finding(_answered(case, name, m) + _told_ratio(case, right, right_m))
    if case.part == "the schedule":
        return _wrong_schedule(case, name, m, right, right_m)
    return _wrong_m(case, name, m, right, right_m)


def _mb(value: float) -> str:
    return f"{value / MB:.4g} MB"


def _answered(case: Case, name: str, m: int) -> str:
    return f"{case.words}: choose returned {(name, m)!r}. "


def _told_ratio(case: Case, right: str, right_m: int) -> str:
    """That the answer keeps the bubble ratio within the limit, not the fraction."""
    p = case["p"]
    return (
        "That is the answer for the bubble ratio, (p - 1)/m. The limit is on the bubble fraction, (p - 1)/(m + p - 1). "
        f"{right} with m = {right_m} idles {p - 1}/{right_m + p - 1} = {_bubble(p, right_m):.1%} of total device time."
    )


def _too_much(case: Case, name: str, m: int) -> str:
    """Why a choice does not keep to the limits; "" if it does."""
    batch, p = case["batch"], case["p"]
    if not 1 <= m <= batch or batch % m:
        return f"m = {m} does not divide the batch of {batch}."
    held = _sequences(name, batch, p, m)
    if held * case["bytes"] > case["limit"]:
        if name == "gpipe":
            return (
                f"GPipe holds all {batch} sequences of the batch on every device, whatever m: "
                f"{_mb(held * case['bytes'])}. Another m only cuts the same batch into other slices."
            )
        return (
            f"1F1B has min(p, m) = {min(p, m)} micro-batches of {batch // m} sequences in flight on device 0: "
            f"{_mb(held * case['bytes'])}."
        )
    if _bubble(p, m) > case["idle"]:
        return f"With m = {m} the bubble is {p - 1}/{m + p - 1} = {_bubble(p, m):.1%} of total device time."
    return ""


def _wrong_schedule(case: Case, name: str, m: int, right: str, right_m: int) -> Finding:
    start = _answered(case, name, m)
    if name == "none":
        return Finding(f"{start}But {right} with m = {right_m} keeps to both limits.")
    reason = _too_much(case, name, m)
    if right == "none":
        why = reason or "Nothing keeps to both limits."
        return Finding(f"{start}{why} Neither schedule keeps to both limits, with any m that divides the batch.")
    if right == "gpipe":
        whole = _mb(case["batch"] * case["bytes"])
        return Finding(f"{start}The whole batch fits, {whole}, so GPipe can do it, and its table is the simpler one.")
    return Finding(start + (reason or f"GPipe would hold {_mb(case['batch'] * case['bytes'])}."))


def _wrong_m(case: Case, name: str, m: int, right: str, right_m: int) -> Finding:
    if name != right:
        return _wrong_schedule(case, name, m, right, right_m)
    start = _answered(case, name, m)
    if name == "none":
        return Finding(f"{start}If nothing fits, m is 0.")
    reason = _too_much(case, name, m)
    if reason:
        return Finding(start + reason)
    return Finding(f"{start}That keeps to both limits, but so does m = {right_m}, and the least m is asked for.")


EXERCISE = Exercise(
    name="what_fits",
    lesson="03b_beside_gpipe",
    title="What fits?",
    answers=("choose",),
    parts={"the schedule": 1, "m": 2},
    visible=_choices(
        [
            (8, 2, MB, 8 * MB, 0.6),
            (12, 8, MB, 12 * MB, 0.6),
            (3, 2, MB, 3 * MB, 0.25),
            (12, 3, MB, 12 * MB, 0.33),
            (8, 2, MB, 8 * MB, 0.3),
            (8, 2, MB, 5 * MB, 0.6),
            (64, 4, 3 * MB, 192 * MB, 0.3),
            (64, 4, 3 * MB, 100 * MB, 0.45),
            (64, 4, 3 * MB, 100 * MB, 0.1),
            (64, 4, 3 * MB, 10 * MB, 0.3),
            (64, 4, 3 * MB, 192 * MB, 0.02),
            (60, 3, 2 * MB, 70 * MB, 0.2),
        ]
    ),
    drawn=_drawn_choices,
    ask=_ask_choice,
    judge=_judge_choice,
)
