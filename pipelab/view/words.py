"""What pictures say: numbers with their units, titles, captions, alternative texts."""

from __future__ import annotations

from collections.abc import Sequence

from pipelab.schedules.catalogue import recipes
from pipelab.schedules.schedule import Schedule
from pipelab.timeline import Timeline
from pipelab.view.memory import held

__all__ = [
    "alt_timeline",
    "headline",
    "joined",
    "memory_note",
    "number",
    "percent",
    "schedule_title",
    "size_words",
    "time_scale",
    "time_words",
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


def time_words(value: float, unit: str) -> str:
    """A time with its unit: 14 units, 352.1 ms."""
    shown, factor = time_scale(unit, value)
    return f"{number(value * factor)} {shown}"


def headline(timeline: Timeline) -> str:
    """Makespan and bubble fraction."""
    makespan = time_words(timeline.makespan, timeline.unit)
    return f"makespan {makespan}  ·  bubble fraction {percent(timeline.bubble_fraction)}"


def schedule_title(schedule: Schedule) -> str:
    """The schedule's name as its paper writes it, where it is known."""
    recipe = recipes().get(schedule.name)
    title = schedule.name if recipe is None else recipe.title
    return title + (" with recomputation" if "R" in schedule.ops else "")


def size_words(schedule: Schedule) -> str:
    """p, m and v; weights where they are not 1."""
    p, m, v = schedule.devices, schedule.microbatches, schedule.chunks
    words = f"p = {_count(p, 'device')}, m = {_count(m, 'micro-batch')}{_weights(schedule)}"
    return words + (f", v = {v} chunks per device" if v > 1 else "")


def _count(value: int, noun: str) -> str:
    return f"{value} {noun}" if value == 1 else f"{value} {noun}{'es' if noun.endswith('ch') else 's'}"


def _weights(schedule: Schedule) -> str:
    weights = set(schedule.weights)
    if len(weights) > 1:
        return " of uneven size"
    weight = next(iter(weights), 1.0)
    return "" if weight == 1 else f" of weight {weight:g}"


def memory_note(timeline: Timeline) -> str:
    """What the memory strips show, and what a micro-batch is."""
    memory = held(timeline)
    note = f"Strips below the rows: {memory.meaning}, on one scale for all devices."
    if timeline.sequences is not None:
        note += f" A micro-batch of weight 1 has {_count_of(timeline.sequences)}."
    return note


def _count_of(sequences: float) -> str:
    return "1 sequence" if sequences == 1 else f"{number(sequences)} sequences"


def joined(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def alt_timeline(timeline: Timeline) -> str:
    """A timeline in words: schedule, p, m, v, clock, makespan, bubble fraction, peaks per device."""
    schedule = timeline.schedule
    v = "" if schedule.chunks > 1 else ", v = 1 chunk per device"
    sentences = [
        f"Schedule {schedule_title(schedule)} ({schedule.name}), {size_words(schedule)}{v}",
        f"Clock: {timeline.clock_name}",
        f"Makespan {time_words(timeline.makespan, timeline.unit)}",
        f"Bubble fraction {percent(timeline.bubble_fraction)}",
        _peaks(timeline),
    ]
    return ". ".join(sentences) + "."


def _peaks(timeline: Timeline) -> str:
    memory = held(timeline)
    peaks = ", ".join(memory.words(peak) for peak in memory.peaks)
    last = timeline.schedule.devices - 1
    where = "on device 0" if last == 0 else f"on devices 0 to {last}"
    return f"Peak {memory.name} {where}: {peaks}"
