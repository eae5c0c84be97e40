"""What pictures say: numbers with their units, titles, captions, alternative texts."""

from __future__ import annotations

from collections.abc import Sequence

from pipelab.quantities import format_bytes
from pipelab.schedules.catalogue import recipes
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.updates import part_in
from pipelab.timeline import Message, Timeline
from pipelab.timeline.versions import versions_of
from pipelab.view.memory import Held, held, kept_versions

__all__ = [
    "alt_timeline",
    "headline",
    "lanes_note",
    "memory_note",
    "message_kinds",
    "message_words",
    "number",
    "percent",
    "schedule_title",
    "sentences",
    "size_words",
    "time_scale",
    "time_words",
    "versions_note",
    "versions_used",
]


def number(value: float) -> str:
    """Four digits that count: 14, 352.1, 0.02531."""
    return f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def percent(value: float) -> str:
    """27.3%, and never -0.0%."""
    return f"{round(value * 100, 1) + 0.0:.1f}%"


def time_scale(unit: str, longest: float) -> tuple[str, float]:
    """The unit to show times in and the factor to it: seconds become ms or µs where ``longest`` is short."""
    if unit == "s" and 0 < longest < 1:
        return ("ms", 1e3) if longest >= 1e-3 else ("µs", 1e6)
    return unit, 1.0


def time_words(value: float, unit: str, longest: float | None = None) -> str:
    """A time with its unit, 14 units or 352.1 ms; in the unit that suits ``longest``, where it stands beside others."""
    shown, factor = time_scale(unit, value if longest is None else longest)
    return f"{number(value * factor)} {shown}"


def headline(timeline: Timeline, longest: float | None = None) -> str:
    """Makespan and bubble fraction; times in the unit that suits ``longest``, where it is given."""
    makespan = time_words(timeline.makespan, timeline.unit, longest)
    return f"makespan {makespan} · bubble fraction {percent(timeline.bubble_fraction)}"


def schedule_title(schedule: Schedule) -> str:
    """The schedule's name as its paper writes it, where it is known."""
    recipe = None if schedule.words.size else recipes().get(schedule.name)
    title = schedule.name if recipe is None else recipe.title
    return title + (" with recomputation" if "R" in schedule.ops else "")


def size_words(schedule: Schedule) -> str:
    """p, m and v; weights where they are not 1. Or what the schedule itself says."""
    if schedule.words.size:
        return schedule.words.size
    p, m, v = schedule.devices, schedule.microbatches, schedule.chunks
    here = part_in(schedule)
    step = "" if here is None else " a step" if here.first < m else " on their way"
    m -= 0 if here is None or here.first == m else here.first
    words = f"p = {_count(p, 'device')}, m = {_count(m, 'micro-batch')}{_weights(schedule)}{step}"
    homes = max(map(len, schedule.placement), default=1)
    if homes > 1:
        return words + f", {_count(v, 'stage')} on each device, each of them on {homes} devices"
    return words + (f", v = {v} chunks per device" if v > 1 else "")


def _count(value: float, noun: str) -> str:
    return f"1 {noun}" if value == 1 else f"{number(value)} {noun}{'es' if noun.endswith('ch') else 's'}"


def _weights(schedule: Schedule) -> str:
    weights = {round(weight, 9) for weight in schedule.weights}
    if len(weights) > 1:
        return " of uneven size"
    weight = next(iter(weights), 1.0)
    return "" if weight == 1 else f" of weight {weight:g}"


def memory_note(timelines: Sequence[Timeline], curves: Sequence[Held]) -> str:
    """What the memory strips show, and what is held fixed; "" where there are none."""
    if not curves:
        return ""
    one = "on one scale" if len(timelines) > 1 else f"on one scale for all {timelines[0].words.rows}"
    note = f"Strips below the rows: {curves[0].meaning}, {one}."
    sizes = {timeline.sequences for timeline in timelines}
    if None in sizes:
        return note
    batches = {number((timeline.sequences or 0) * sum(timeline.schedule.weights)) for timeline in timelines}
    if len(sizes) == 1:
        even = all(weight == 1 for timeline in timelines for weight in timeline.schedule.weights)
        note += f" A micro-batch {'' if even else 'of weight 1 '}has {_count(sizes.pop() or 0, 'sequence')}."
    elif len(batches) == 1:
        note += f" Each has the same batch, of {batches.pop()} sequences."
    return note


def message_kinds(timelines: Sequence[Timeline]) -> list[str]:
    """What lanes of these timelines may show."""
    return ["activation", "gradient", *(["sum of gradients"] if any(timeline.sums for timeline in timelines) else [])]


def lanes_note(timeline: Timeline) -> str:
    """What the lanes show, and how much of the messages' time is hidden."""
    told = "Lanes below a row: what the device sends, then what it receives."
    if timeline.sums:
        told += " Gradients are summed over the replicas: those are sent and received at once."
    overlap = timeline.overlap
    if not any(way for way, _ in overlap.links.values()):
        return f"{told} No message takes any time."
    return f"{told} {percent(overlap.fraction)} of the messages' time is hidden: the receiver works meanwhile."


def message_words(timeline: Timeline, message: Message, hidden: float) -> str:
    """What a message is, when it was under way, and the part of that time that is hidden."""
    sent, arrived = (timeline.time_words(time - timeline.start) for time in (message.sent, message.arrived))
    size = f", {format_bytes(message.size)}" if message.size else ""
    part, there = hidden / (message.arrived - message.sent), timeline.words.device(message.destination)
    kind = message.kind.capitalize()
    way = f"{kind} of {message.producer} for {message.consumer}, from {timeline.words.device(message.source)} to "
    if message.source == message.destination:
        way = f"{kind} of stage {message.producer.stage} over the replicas, on "
    return (
        f"{way}{there}{size}: sent at {sent}, there at {arrived}. {there.capitalize()} works in {percent(part)} of "
        "this time: that part is hidden."
    )


def versions_note(timelines: Sequence[Timeline], *, strips: bool = False) -> str:
    """What v3 on a block means, where weights change on the way, and the last strip; "" where they do not."""
    known = [versions_of(timeline) is not None for timeline in timelines]
    if not any(known):
        return ""
    note = "v3 on a block: it uses version 3 of its stage's weights, or makes it (U)."
    if strips:
        note += " Last strip: versions of the weights that the device keeps."
    if any(part_in(timeline.schedule) is not None for timeline in timelines):
        note += (
            " This is a part of an endless run: micro-batches and versions are counted from the oldest step that may "
            "still be on its way."
        )
    return note


def versions_used(timeline: Timeline) -> str:
    """In words, which version each forward uses, stage by stage; "" where weights do not change on the way."""
    found = versions_of(timeline)
    if found is None:
        return ""
    rows: dict[int, list[int]] = {}
    for action, version in sorted(found.used.items(), key=lambda pair: (pair[0].stage, pair[0].microbatch)):
        if action.op == "F":
            rows.setdefault(action.stage, []).append(version)
    listed = (f"stage {stage}: {_run(row)}" for stage, row in sorted(rows.items()))
    same = "backwards use the same" if timeline.stash else "no version is kept, so backwards use what is there"
    return f"Versions of the weights that forwards use, in the order of micro-batches, {'; '.join(listed)}; {same}."


def _run(versions: Sequence[int]) -> str:
    """Each one, or where there are many the first and the last."""
    shown = [*map(str, versions)] if len(versions) <= 16 else [*map(str, versions[:3]), "…", str(versions[-1])]
    return ", ".join(shown)


def sentences(*parts: str) -> str:
    """What is said, with a blank between; empty parts are left out."""
    return " ".join(filter(None, parts))


def alt_timeline(timeline: Timeline) -> str:
    """A timeline in words: schedule, p, m, v, clock, makespan, bubble fraction, peaks per device."""
    schedule = timeline.schedule
    v = "" if schedule.chunks > 1 else ", v = 1 chunk per device"
    known = (
        f"Flow {schedule.name}, " if schedule.words.size else f"Schedule {schedule_title(schedule)} ({schedule.name}), "
    )
    facts = [
        f"{known}{size_words(schedule)}{'' if schedule.words.size else v}",
        f"Clock: {timeline.clock_name}",
        f"Makespan {time_words(timeline.makespan, timeline.unit)}",
        f"Bubble fraction {percent(timeline.bubble_fraction)}",
        _peaks(held([timeline])[0], timeline),
    ]
    facts += [_peaks(kept, timeline) for kept in kept_versions([timeline]) if kept is not None]
    return sentences(". ".join(facts) + ".", versions_used(timeline))


def _peaks(memory: Held, timeline: Timeline) -> str:
    peaks = ", ".join(memory.words(peak) for peak in memory.peaks)
    last = timeline.schedule.devices - 1
    where = "on device 0" if last == 0 else f"on devices 0 to {last}"
    if timeline.words.stages:
        where = f"on {', '.join(map(timeline.words.device, range(last + 1)))}"
    return f"Peak {memory.name} {where}: {peaks}"
