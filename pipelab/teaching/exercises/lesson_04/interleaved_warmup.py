"""Exercises of lesson 4 on placement and warm-up: where chunks live, and how many forwards come first."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from random import Random
from typing import Any

from pipelab import view
from pipelab.schedules import Schedule, build_schedule, check_schedule
from pipelab.schedules.reserved import reserved
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole
from pipelab.timeline import Timeline

LESSON = "04_interleaved"


@reserved
def with_depths(
    depths: Sequence[int], microbatches: int, chunks: int, *, group: int | None = None, name: str = "yours"
) -> Schedule:
    """Interleaved 1F1B with other warm-ups: device r runs ``depths[r]`` forwards first, then pairs, then the rest.

    Forwards go in groups of ``group`` micro-batches (default p; it divides m), each group through all chunks. A depth
    below 0 counts as 0, one above m v as m v. How the rows are made is the exercise ``interleaved``.
    """
    p, total = len(depths), microbatches * chunks
    size = group or p
    order = [(c, g + i) for g in range(0, microbatches, size) for c in range(chunks) for i in range(size)]
    rows = []
    for r, depth in enumerate(depths):
        w = min(max(depth, 0), total)
        shape = "F" * w + "FB" * (total - w) + "B" * w
        row = []
        for k, op in enumerate(shape):
            c, i = order[shape[:k].count(op)]
            row.append(f"{(c if op == 'F' else chunks - 1 - c) * p + r}{op}{i}")
        rows.append(row)
    return Schedule.from_rows(rows, name=name)


@reserved
def depths_of(p: int, m: int, v: int) -> list[int]:
    """The warm-ups of arXiv 2104.04473 and Megatron-LM, in forwards of a chunk."""
    return [min(2 * (p - 1 - r) + (v - 1) * p, m * v) for r in range(p)]


@cache
def right_table(p: int, m: int, v: int) -> tuple[Schedule, Timeline]:
    """The catalogue's table and its timeline, tF = tB = 1."""
    schedule = build_schedule("interleaved", devices=p, microbatches=m, chunks=v)
    return schedule, simulate(schedule)


def held(timeline: Timeline) -> str:
    """What is in flight on each device."""
    return ", ".join(f"{peak:.3g}" for peak in timeline.peak_microbatches)


def size_words(p: int, m: int, v: int) -> str:
    """How a message begins."""
    return f"p = {p}, m = {m}, v = {v}"


def sized(part: str, sizes: Sequence[tuple[int, int, int]]) -> list[Case]:
    """Cases of (p, groups, v): m is a multiple of p, so it is given as how many times p."""
    return [Case(part, {"p": p, "groups": g, "v": v, "_words": size_words(p, g * p, v)}) for p, g, v in sizes]


def sizes_of(case: Case) -> tuple[int, int, int]:
    """(p, m, v) of a case."""
    return case["p"], case["p"] * case["groups"], case["v"]


# ---- Where do the chunks live? ------------------------------------------------------------------------------------


def _homes(part: str, sizes: Sequence[tuple[int, int, int]]) -> list[Case]:
    """Cases of (devices, chunks, layers of one chunk)."""
    return [
        Case(part, {"devices": p, "chunks": v, "layers": each * p * v} if part == "layers" else {"p": p, "v": v})
        for p, v, each in sizes
    ]


def _drawn_homes(random: Random) -> list[Case]:
    sizes = [(random.randint(2, 9), random.randint(2, 5), random.randint(2, 6)) for _ in range(4)]
    edges = [(12, 4, 1), (1, 3, 2), (random.randint(2, 6), 1, 3), (random.randint(2, 5), random.choice((6, 7)), 2)]
    return [case for part in ("stages", "layers") for case in _homes(part, [*sizes, *edges])]


def _ask_homes(call: Call, case: Case) -> Any:
    if case.part == "stages":
        p, v = case["p"], case["v"]
        return [call("device_of", stage, p, v) for stage in range(p * v)]
    p, v = case["devices"], case["chunks"]
    return [call("layers_on", r, case["layers"], p, v) for r in range(p)]


def _judge_homes(case: Case, data: Any) -> Finding | None:
    return _judge_stages(case, data) if case.part == "stages" else _judge_layers(case, data)


def _judge_stages(case: Case, data: Any) -> Finding | None:
    p, v = case["p"], case["v"]
    if not isinstance(data, list) or len(data) != p * v:
        raise Refused(f"{case.words}: there should be {p * v} answers, one for each stage")
    given = [read_whole(data[s], f"device_of({s}, {p}, {v})") for s in range(p * v)]
    wanted = [s % p for s in range(p * v)]
    if given == wanted:
        return None
    s = next(s for s in range(p * v) if given[s] != wanted[s])
    start = f"{case.words}: device_of({s}, {p}, {v}) returned {given[s]}, stage {s} lives on device {wanted[s]}. "
    ladder = [s // v for s in range(p * v)]
    if given == ladder:
        why = (
            f"Yours are neighbouring chunks: device 0 holds stages {', '.join(map(str, range(v)))}. Then micro-batch 0 "
            f"passes whole devices on its way down, and device {p - 1} starts as late as without chunks: nothing won."
        )
    elif given == [s // p for s in range(p * v)]:
        why = f"s // p counts how often the stages have gone round: it is the chunk, 0 to {v - 1}, not the device."
    elif given == [s % p if s // p % 2 == 0 else p - 1 - s % p for s in range(p * v)]:
        why = "Yours turns back at the last device, like a V. Round-robin starts again at device 0."
    elif given == [s % v for s in range(p * v)]:
        why = f"Yours counts round after v = {v} stages; there are p = {p} devices to go round."
    elif given == [d + 1 for d in wanted]:
        why = "Devices are counted from 0."
    else:
        counts = [given.count(r) for r in range(p)]
        why = "" if counts == [v] * p else f"Each device holds v = {v} stages; yours hold {counts}. "
        why += f"Stage {s} comes after stage {s - 1}: on the next device, and after the last one on device 0 again."
    return Finding(start + why)


def _judge_layers(case: Case, data: Any) -> Finding | None:
    p, v, layers = case["devices"], case["chunks"], case["layers"]
    words = f"p = {p}, v = {v}, {layers} layers"
    if not isinstance(data, list) or len(data) != p:
        raise Refused(f"{words}: there should be {p} answers, one for each device")
    given = [_whole_list(data[r], f"{words}: layers_on({r}, {layers}, {p}, {v})") for r in range(p)]
    each = layers // (p * v)
    wanted = [[(c * p + r) * each + k for c in range(v) for k in range(each)] for r in range(p)]
    if given == wanted:
        return None
    r = next(r for r in range(p) if given[r] != wanted[r])
    start = f"{words}: layers_on({r}, {layers}, {p}, {v}) returned {given[r]}; wanted is {wanted[r]}. "
    strange = [k for row in given for k in row if not 0 <= k < layers]
    if given == [list(range(r * each * v, (r + 1) * each * v)) for r in range(p)]:
        why = "That is one run of neighbouring layers, as without chunks. Here a device holds v runs, far apart."
    elif given == [list(range(r, layers, p)) for r in range(p)]:
        why = (
            f"Yours deals out single layers. A stage is a run of {each} neighbouring layers, and stages are dealt out."
        )
    elif given == [row[:each] for row in wanted]:
        why = f"That is the first chunk alone; each device holds v = {v} of them."
    elif given == [[(c * p + r) * each * v + k for c in range(v) for k in range(each * v)] for r in range(p)]:
        why = (
            f"Yours gives each stage layers/p = {each * v} layers, as many as a device holds in all. There are p v = "
            f"{p * v} stages: a stage has layers/(p v) = {each}."
        )
    elif strange:
        why = f"There are layers 0 to {layers - 1}, there is no layer {strange[0]}."
    elif [sorted(row) for row in given] == wanted:
        why = "The layers are right; give them in ascending order."
    else:
        why = f"Each of the p v = {p * v} stages has {each} layers; device {r} holds stages " + ", ".join(
            str(c * p + r) for c in range(v)
        )
        why += "."
    return Finding(start + why)


def _whole_list(data: Any, what: str) -> list[int]:
    data = as_lists(data)
    if isinstance(data, dict) and isinstance(data.get("set"), list):
        data = sorted(data["set"])
    if not isinstance(data, list):
        raise Refused(f"{what} should return a list of layer numbers, it returned {kind_of(data)}")
    flat = [k for item in data for k in (item if isinstance(item, list) else [item])]  # chunk by chunk is as good
    return [read_whole(k, f"{what}: each layer") for k in flat]


# ---- How many first, with chunks? ---------------------------------------------------------------------------------


def _drawn_sizes(random: Random) -> list[Case]:
    few = [(random.randint(3, 8), 1, random.randint(1, 4)) for _ in range(3)]
    many = [(random.randint(2, 8), random.randint(2, 4), random.randint(1, 4)) for _ in range(4)]
    few += [(random.randint(3, 6), 1, 1), (1, 1, random.randint(2, 4))]
    few += [(random.randint(3, 5), 1, random.choice((5, 6)))]
    many += [(random.randint(2, 5), random.choice((4, 5)), random.choice((5, 6))), (random.randint(3, 6), 5, 1)]
    return [*sized("m = p", few), *sized("m > p", [*many, (5, 2, 3), (1, 4, 3)])]


def _ask_depths(call: Call, case: Case) -> Any:
    p, m, v = sizes_of(case)
    return [call("interleaved_warmup", r, p, m, v) for r in range(p)]


def _judge_depths(case: Case, data: Any) -> Finding | None:
    p, m, v = sizes_of(case)
    if not isinstance(data, list) or len(data) != p:
        raise Refused(f"{case.words}: there should be {p} answers, one for each device")
    given = [read_whole(data[r], f"interleaved_warmup({r}, {p}, {m}, {v})") for r in range(p)]
    wanted = depths_of(p, m, v)
    last = m * v - 1  # a last forward and the first backward are a pair, whether one calls them so or not
    if [min(w, last) for w in given] == [min(w, last) for w in wanted] and max(given) <= m * v:
        return None
    r = next(r for r in range(p) if min(given[r], last) != min(wanted[r], last) or given[r] > m * v)
    start = f"{case.words}: interleaved_warmup({r}, {p}, {m}, {v}) returned {given[r]}. "
    if given[r] < 0:
        return Finding(start + "A device cannot run fewer than no forwards.")
    if given[r] > m * v:
        return Finding(
            f"{start}No device can run that many: m = {m} micro-batches through v = {v} chunks are {m * v} forwards."
        )
    table = with_depths(given, m, v)
    why = _known_depths(given, p, m, v) or (
        f"Device {r} starts in slot {r}, and its first gradient can be there in slot {p * v + p - 1 - r} (a slot is a "
        f"chunk's forward): p v = {p * v} stages down, {p - 1 - r} up. How many forwards fit between, if the last of "
        "them is that of the first pair?"
    )
    violations = check_schedule(table)
    if violations:
        picture = partial(view.plot_table, table, title=f"Your order, {case.words}")
        return Finding(f"{start}{why} With your warm-ups: {violations[0].message}.", picture)
    return Finding(f"{start}{why} {_cost(table, p, m, v)}", partial(beside, table, p, m, v))


def _known_depths(given: list[int], p: int, m: int, v: int) -> str:
    """Which mistake gives these warm-ups; "" if none that is known."""

    def are(*depths: int) -> bool:
        return given in ([min(w, m * v) for w in depths], list(depths))

    if are(*(p - 1 - r for r in range(p))) and v == 1:
        return (
            "That is 1F1B's, p - 1 - r. This order with v = 1 is not 1F1B: v = 1 has the doubled warm-up too, "
            "2(p - 1 - r)."
        )
    if are(*(p - 1 - r for r in range(p))):
        return "That is 1F1B's, p - 1 - r. Here micro-batch 0 goes round all devices v times before its first backward."
    if are(*(2 * (p - 1 - r) for r in range(p))):
        return f"Before the first backward there are also the (v - 1) p = {(v - 1) * p} forwards of the chunks before."
    if are(*((p - 1 - r) + (v - 1) * p for r in range(p))):
        return (
            "That is sound, and where messages take no time no slower. But a device then runs out of forwards before "
            "its first gradient can be there: the way is p - 1 - r devices down and as many up again. It waits, and "
            "any message that takes time makes it wait longer."
        )
    if are(*(2 * (p - r) + (v - 1) * p for r in range(p))):
        return "Two too many: with p - r for p - 1 - r the device itself is counted as one of those behind it."
    if are(*(2 * (p - 1 - r) + v * p for r in range(p))):
        return f"That is v for v - 1, {p} too many: the last chunk's forward of micro-batch 0 comes right after."
    if are(*(2 * (p - 1) + (v - 1) * p for _ in range(p))):
        return "That is device 0's, on every device. The devices further down have a shorter way."
    if are(*(2 * (p - 1 - r) + v - 1 for r in range(p))):
        return f"Of each chunk before the last a whole group of p = {p} micro-batches goes first, not one."
    if are(*(2 * (p - 1 - r) + (v - 1) * m for r in range(p))):
        return f"Forwards go in groups of p = {p}: only a group, not all m = {m}, goes through a chunk before the next."
    if are(*(m * v for _ in range(p))) and m > p:
        return "All forwards first, on every device: that is GPipe's order, with chunks."
    return ""


def _cost(table: Schedule, p: int, m: int, v: int) -> str:
    """What a sound table costs beside the right one, messages free and not."""
    mine, right = simulate(table), right_table(p, m, v)[1]
    told = []
    if mine.makespan > right.makespan + 1e-9:
        told.append(f"it takes {mine.makespan:.4g} units, not {right.makespan:.4g}")
    more = [r for r in range(p) if mine.peak_microbatches[r] > right.peak_microbatches[r] + 1e-6]
    if more:
        told.append(f"in flight are {held(mine)} shares on the devices instead of {held(right)}")
    slow = Costs(latency=0.25 / v)
    late, wanted = simulate(table, slow).makespan, simulate(right.schedule, slow).makespan
    if not told and late > wanted + 1e-9:
        told.append(f"with messages of {slow.latency:.3g} units it takes {late:.4g} units, not {wanted:.4g}")
    return f"With your warm-ups {' and '.join(told)}." if told else ""


def beside(given: Schedule, p: int, m: int, v: int) -> view.Picture:
    """The learner's order and the right one on one time axis."""
    return view.plot_schedules([simulate(given), right_table(p, m, v)[1]], ["Yours", "Interleaved 1F1B"], memory=True)


EXERCISES = (
    Exercise(
        name="placement",
        lesson=LESSON,
        title="Where do the chunks live?",
        answers=("device_of", "layers_on"),
        parts={"stages": 1, "layers": 1},
        visible=[
            case
            for part in ("stages", "layers")
            for case in _homes(part, [(3, 2, 2), (2, 3, 2), (2, 2, 3), (4, 2, 6), (4, 3, 4), (3, 1, 4)])
        ],
        drawn=_drawn_homes,
        ask=_ask_homes,
        judge=_judge_homes,
    ),
    Exercise(
        name="interleaved_warmup",
        lesson=LESSON,
        title="How many first, with chunks?",
        answers=("interleaved_warmup",),
        parts={"m > p": 1, "m = p": 1},
        visible=[
            # First the smallest size in which the known mistakes differ from one another.
            *sized("m > p", [(3, 3, 2), (2, 2, 2), (4, 2, 2), (4, 4, 2), (3, 2, 3), (4, 2, 1)]),
            *sized("m = p", [(3, 1, 2), (4, 1, 2), (4, 1, 3), (5, 1, 1)]),
        ],
        drawn=_drawn_sizes,
        ask=_ask_depths,
        judge=_judge_depths,
    ),
)
