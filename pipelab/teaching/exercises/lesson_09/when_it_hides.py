"""Exercise of lesson 9: which part of a message's time is hidden, and from which size on all of it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

from pipelab import view
from pipelab.schedules.reserved import reserve_also, reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding
from pipelab.teaching.exercises.judging import close, read_number, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

Pairs = Sequence[Sequence[float]]  # (sent, arrived), or (start, end)
_SHARE, _SIZE = "hidden share", "least size"
_GIVEN = ("latency", "bandwidth", "sequence_bytes", "alpha", "beta")


def _share_case(messages: Pairs, busy: Pairs) -> Case:
    def told(pairs: Pairs) -> str:
        some = ", ".join(f"{a:g} to {b:g}" for a, b in pairs[:6])
        return (some or "none") + (", ..." if len(pairs) > 6 else "")

    words = f"messages {told(messages)}; busy {told(busy)}"
    return Case(_SHARE, {"_messages": [list(m) for m in messages], "_busy": [list(b) for b in busy], "_words": words})


def _size_case(*given: float) -> Case:
    """Latency, bandwidth, bytes of a sequence, alpha, beta."""
    words = ", ".join(f"{name} = {value:g}" for name, value in zip(_GIVEN, given, strict=True))
    return Case(_SIZE, {"_given": list(given), "_words": words})


def _drawn(random: Random) -> list[Case]:
    cases = []
    for _ in range(8):
        times = sorted(random.sample(range(200), 2 * random.randint(1, 6)))
        busy = [(a / 4, b / 4) for a, b in zip(times[::2], times[1::2], strict=True)]
        sent = [random.randrange(190) / 4 for _ in range(random.randint(2, 7))]
        cases.append(_share_case([(t, t + random.randint(1, 60) / 4) for t in sent], busy))
    for k in range(10):
        beta = random.randint(2, 16) / 8
        slope = [random.randint(1, 15) / 8 * beta / 2, beta, beta + random.randint(1, 8) / 8][0 if k < 6 else k % 3]
        alpha = random.randint(2, 20) / 4
        latency = alpha + random.choice((-1, 1, 1, 1)) * random.randint(1, 7) / 4
        bandwidth = 2.0 ** random.randint(10, 16)
        cases.append(_size_case(latency, bandwidth, slope * bandwidth, alpha, beta))  # all of them exact
    return cases


def _ask(call: Call, case: Case) -> Any:
    if case.part == _SIZE:
        return call("least_size", *case["_given"], _none=True)
    with reserve_also("Overlap.of"):
        return call("hidden_share", *([tuple(pair) for pair in case[name]] for name in ("_messages", "_busy")))


def _within(message: Sequence[float], busy: Pairs) -> float:
    """How long the device is busy while the message is on its way."""
    sent, arrived = message
    return sum(max(min(arrived, end) - max(sent, start), 0) for start, end in busy)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0


@reserved
def share(messages: Pairs, busy: Pairs) -> float:
    """The part of the messages' time in which the device is busy; 1 where they take none."""
    return _ratio(sum(_within(m, busy) for m in messages), sum(b - a for a, b in messages))


@reserved
def least(latency: float, bandwidth: float, sequence_bytes: float, alpha: float, beta: float) -> int | None:
    """From how many sequences on a message is no longer than a forward; None if from none."""
    slope = Fraction(sequence_bytes) / Fraction(bandwidth)
    missing, gain = Fraction(latency) - Fraction(alpha), Fraction(beta) - slope
    if gain > 0:
        return max(1, math.ceil(missing / gain))
    return 1 if gain == 0 and missing <= 0 else None


def _judge(case: Case, data: Any) -> Finding | None:
    return _judge_size(case, data) if case.part == _SIZE else _judge_share(case, data)


def _judge_share(case: Case, data: Any) -> Finding | None:
    messages, busy = case["_messages"], case["_busy"]
    given, wanted = read_number(data, f"{case.words}: hidden_share"), share(messages, busy)
    if close(given, wanted):
        return None
    why = the_only((close(given, value), why) for value, why in _share_mistakes(messages, busy))
    start = f"{case.words}: hidden_share returned {given:.5g} instead of {wanted:.5g}. "
    return Finding(f"{start}{_counted(messages, busy)} {why}".rstrip())


def _counted(messages: Pairs, busy: Pairs) -> str:
    """Message by message."""
    if not sum(b - a for a, b in messages):
        return "No message takes any time, so nothing has to be hidden. The share is 1 then."
    listed = [f"{_within(m, busy):g} of {m[1] - m[0]:g}" for m in messages]
    some = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
    return f"Message by message, the hidden time is {some}."


def _share_mistakes(messages: Pairs, busy: Pairs) -> list[tuple[float, str]]:
    """What each of the usual mistakes would return, and why it is one."""
    total = sum(b - a for a, b in messages)
    hidden = sum(_within(m, busy) for m in messages)
    if not total:
        return []
    moments = sorted({t for pair in (*messages, *busy) for t in pair})
    under_way = [  # pieces of time in which anything is on its way
        (a, b) for a, b in pairwise(moments) if any(s <= a and b <= t for s, t in messages)
    ]
    whole = [m for m in messages if close(_within(m, busy), m[1] - m[0])]
    timed = [m for m in messages if m[1] > m[0]]
    first = [
        next((part for start, end in busy if (part := min(m[1], end) - max(m[0], start)) > 0), 0) for m in messages
    ]
    return [
        (1 - hidden / total, "That is the part that is not hidden: the time in which the device is idle."),
        (
            _ratio(sum(_within(u, busy) for u in under_way), sum(b - a for a, b in under_way)),
            "Two messages that are on their way at once were counted once. Each message counts with its own time.",
        ),
        (
            fmean(_within(m, busy) / (m[1] - m[0]) for m in timed),
            "That is the mean of the messages' shares. A long message counts for more: divide the sums.",
        ),
        (
            len(whole) / len(messages),
            "That counts messages. A message may be hidden in part, so add up its time and not its number.",
        ),
        (
            sum(b - a for a, b in whole) / total,
            "Only messages that are hidden from end to end were counted. A part of a message may be hidden too.",
        ),
        (
            sum(first) / total,
            "Each message was compared with one busy interval. While it travels the device may be busy several times.",
        ),
        (
            hidden / (sum(b - a for a, b in busy) or math.inf),
            "That was divided by the busy time. The question is for a part of the messages' time.",
        ),
        (
            sum(b - a for a, b in messages if any(s <= b <= e for s, e in busy)) / total,
            "You looked at the moment of arrival only. Before it the device may have been idle.",
        ),
        (
            sum(b - a for a, b in messages if any(s <= a <= e for s, e in busy)) / total,
            "You looked at the moment of sending only. The device may fall idle while the message is on its way.",
        ),
    ]


def _judge_size(case: Case, data: Any) -> Finding | None:
    given, wanted = case["_given"], least(*case["_given"])
    answer = None if data is None else read_whole(data, f"{case.words}: least_size")
    if answer == wanted:
        return None
    start = f"{case.words}: least_size returned {answer} instead of {wanted}. "
    if answer is not None and answer < 1:
        return Finding(f"{start}A micro-batch has at least 1 sequence, so the least answer is 1.")
    known = the_only((answer == value, why) for value, why in _size_mistakes(*given))
    picture = partial(_lines, answer, wanted, *given)
    return Finding(f"{start}{known or _compared(answer, wanted, *given)}", picture)


def _lines(answer: int | None, wanted: int | None, *given: float) -> view.Picture:
    latency, bandwidth, sequence_bytes, alpha, beta = given
    sizes = range(1, min(max(answer or 1, wanted or 1, 8), 100) + 3)
    curves = {
        "A message": [latency + b * sequence_bytes / bandwidth for b in sizes],
        "A forward": [alpha + beta * b for b in sizes],
    }
    marks = {} if answer is None else {"yours": float(answer)}
    across, up = "sequences b in a micro-batch", "milliseconds"
    return view.plot_curves(sizes, curves, across=across, up=up, title="A message and a forward", marks=marks)


def _compared(
    answer: int | None, wanted: int | None, latency: float, bandwidth: float, sequence_bytes: float, *work: float
) -> str:
    """At which size the answer does not hold."""
    (alpha, beta), slope = work, sequence_bytes / bandwidth

    def told(b: int) -> str:
        return f"At b = {b} a message takes {latency + b * slope:g} and a forward {alpha + beta * b:g}"

    if wanted is None:
        where = answer or 1
        if latency + where * slope > alpha + beta * where:
            never = "Each further sequence adds" if slope > beta else "And each further sequence adds"
            return f"{told(where)}. {never} {slope:g} to the message and {beta:g} to the forward, so it never hides."
        later = math.floor((alpha - latency) / (slope - beta)) + 1
        return (
            f"{told(later)}: it hides no more. A sequence adds {slope:g} to the message and only {beta:g} to the "
            "forward. On such a link a larger micro-batch makes it worse, so the answer is None."
        )
    if answer is None:
        return f"{told(wanted)}, and it stays hidden from there on."
    if answer < wanted:
        return f"{told(answer)}, so it sticks out. Round up where the quotient is not whole."
    as_long = latency + (answer - 1) * slope == alpha + beta * (answer - 1)
    return f"{told(answer - 1)}, so it is hidden there already.{' As long is enough.' if as_long else ''}"


def _size_mistakes(
    latency: float, bandwidth: float, sequence_bytes: float, alpha: float, beta: float
) -> list[tuple[int, str]]:
    slope, wanted = sequence_bytes / bandwidth, least(latency, bandwidth, sequence_bytes, alpha, beta)
    values = [
        (
            latency,
            beta - slope,
            "Alpha is missing. The forward has a fixed cost too, and it hides a part of the latency.",
        ),
        (
            latency + alpha,
            beta - slope,
            "Latency and alpha were added. They stand on two sides: alpha is time in which the message hides.",
        ),
        (
            latency - alpha,
            beta,
            "The bytes are missing. Each sequence makes the message longer too, by sequence_bytes / bandwidth.",
        ),
        (latency - alpha, beta + slope, "The two slopes were added. What counts is how much faster the forward grows."),
        (
            latency - alpha,
            beta - bandwidth / sequence_bytes,
            "The bandwidth was divided by the bytes. A sequence takes sequence_bytes / bandwidth on the link.",
        ),
    ]
    found = [(max(1, math.ceil(gap / gain)), why) for gap, gain, why in values if gain > 0]
    return [(value, why) for value, why in found if value != wanted and value > 1]


EXERCISE = Exercise(
    name="when_it_hides",
    lesson="09_messages",
    title="When does a message hide?",
    answers=("hidden_share", "least_size"),
    parts={_SHARE: 1, _SIZE: 2},
    visible=[
        _share_case([(2, 8), (4, 5), (5, 11)], [(1, 6), (8, 10)]),
        _share_case([(2, 6)], [(0, 3), (4, 5), (5, 8)]),
        _share_case([(4, 8), (1, 5)], [(0, 3), (7, 9)]),
        _share_case([], [(0, 3)]),
        _share_case([(3, 3)], []),
        _share_case([(0, 4), (3, 3)], []),
        _share_case([(0, 2.5), (1, 6), (7, 7.5), (9, 12)], [(0.5, 2), (2.25, 5), (7, 10)]),
        _size_case(9, 1000, 2000, 2, 2.5),
        _size_case(5, 1000, 500, 3, 1.25),
        _size_case(6, 1024, 512, 2, 1.25),
        _size_case(1, 1000, 2000, 3, 4),
        _size_case(4, 1024, 4096, 2, 3),
        _size_case(1, 1024, 4096, 8, 3),
        _size_case(2, 4096, 8192, 3, 2),
        _size_case(4, 4096, 8192, 3, 2),
        _size_case(20, 8192, 2048, 3.5, 1.375),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
