"""A timeline as plain data: the compact description from which it is drawn, played and linked.

Columns, not objects: entry k of each column of ``blocks`` is one slot. Times start at 0, in the unit that is shown.
Every sentence in it comes from the timeline and its waits; who draws it (the browser, or ``animation.py``) computes
places on the screen, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from pipelab.schedules.action import OPS, Action, actions_of, format_slot
from pipelab.schedules.dependencies import ACTIVATION, GRADIENT
from pipelab.schedules.phases import phases
from pipelab.timeline import Span, Timeline
from pipelab.timeline.account import KINDS, account
from pipelab.timeline.messages import Overlap, lanes
from pipelab.timeline.versions import Versions, versions_of
from pipelab.timeline.waits import Waits
from pipelab.view import palette, words
from pipelab.view.memory import Held, Share, held, kept_versions, shares
from pipelab.view.rows import extent
from pipelab.view.widgets.mathml import mathml

__all__ = ["detail", "scene"]


def scene(
    timeline: Timeline,
    *,
    title: str | None = None,
    limits: Sequence[float] | None = None,
    whole: bool = True,
    longest: float = 0.0,
) -> dict[str, Any]:
    """``timeline`` for the browser. ``limits`` are memory limits per device, in what the memory strip counts.

    Without ``whole`` it is enough to be drawn; what it takes to be asked is then in :func:`detail`. ``longest``: what
    else stands on the same axis is as long, so that both are shown in one unit.
    """
    schedule = timeline.schedule
    end = extent(timeline)
    unit, factor = words.time_scale(timeline.unit, max(end, longest))
    if title is None:
        title = f"{words.schedule_title(schedule)}: {words.size_words(schedule)}"
    (curve,) = held([timeline])
    (kept,) = kept_versions([timeline])
    versions = versions_of(timeline)

    def at(time: float) -> float:
        return _short((time - timeline.start) * factor)

    return {
        "title": title,
        "figures": words.headline(timeline, max(end, longest)),
        "clock": f"Clock: {timeline.clock_name}.",
        "alt": words.alt_timeline(timeline),
        "unit": unit,
        "counting": timeline.words.counting,
        "circles": timeline.words.circles,
        "row": timeline.words.row,
        "devices": [timeline.words.device(r) for r in range(schedule.devices)],
        "stages": [
            [timeline.words.stages[s] if timeline.words.stages else s for s in schedule.stages_on(r)]
            for r in range(schedule.devices)
        ],
        "end": _short(timeline.makespan * factor),
        "extent": _short(end * factor),
        "blocks": _blocks(timeline, at, versions) | (detail(timeline, longest) if whole else {}),
        "updates": [_update(span, at, versions) for span in timeline.updates],
        "gaps": [
            [gap.device, at(gap.start), at(gap.end), gap.cause, f"{gap.sentence[0].upper()}{gap.sentence[1:]}."]
            for gap in timeline.gaps()
        ],
        "phases": [_phases(timeline, r, at) for r in range(schedule.devices)],
        "memory": _strip(curve, words.memory_note([timeline], [curve]), at, limits),
        "versions": None if kept is None else _strip(kept, words.versions_note([timeline], strips=True), at, None),
        "account": _account(timeline, factor),
        "legend": _legend(timeline),
    }


def detail(timeline: Timeline, longest: float = 0.0) -> dict[str, Any]:
    """What is asked of a timeline, and what it takes to be played: more columns of its blocks, each entry one slot.

    Besides them its critical path, and its messages: [from slot, which of its parts, to slot, sent, arrived]. Then
    what each micro-batch keeps on a device: [device, stage, micro-batch, [[time, amount from then on], ...], in words].
    Last, two lanes for each device, of what it sends and what it receives: rows of [kind, sent, arrived,
    which message].
    """
    waits, versions = Waits(timeline), versions_of(timeline)
    (curve,) = held([timeline])
    _, factor = words.time_scale(timeline.unit, max(extent(timeline), longest))
    kinds, all_messages = words.message_kinds([timeline]), (*timeline.messages, *timeline.sums)
    under_way = zip(all_messages, Overlap.of(all_messages, (*timeline.spans, *timeline.updates)).times, strict=True)
    timed = [(m, words.message_words(timeline, m, hidden)) for m, (way, hidden) in under_way if way > 0]
    which = {m: k for k, (m, _) in enumerate(timed)}

    def at(time: float) -> float:
        return _short((time - timeline.start) * factor)

    return {
        "moments": [at(moment) for moment in waits.moments],
        "critical": _critical(timeline),
        "ready": [at(wait.ready) for wait in waits.all],
        "takes": [[[s.source, at(s.arrived)] for s in wait.supplies] for wait in waits.all],
        "takers": [list(wait.takers) for wait in waits.all],
        "told": [_told(waits.sentence(wait), wait.span, versions) for wait in waits.all],
        "messages": [
            [s.source, actions_of(waits.spans[s.source].slot).index(s.supplier), k, at(s.sent), at(s.arrived)]
            for k, wait in enumerate(waits.all)
            for s in wait.supplies
            if s.kind in (ACTIVATION, GRADIENT)
        ],
        "kept": [
            [
                *(share.device, share.stage, share.microbatch),
                [[at(time), _short(amount * curve.factor)] for time, amount in share.steps],
                _kept_words(timeline, curve, share),
            ]
            for share in shares(timeline, curve)
        ],
        "lanes": {
            "note": words.lanes_note(timeline),
            "kinds": [[f"{kind} under way", palette.MESSAGES[kind]] for kind in kinds],
            "rows": [
                [[[kinds.index(m.kind), at(m.sent), at(m.arrived), which[m]] for m in row] for row in lane.rows]
                for lane in lanes(all_messages, timeline.schedule.devices)
            ],
            "told": [told for _, told in timed],
        },
    }


def _told(sentence: str, span: Span, versions: Versions | None) -> str:
    """What a slot waited for, and which weights it works with."""
    known = [] if versions is None else [versions.sentence(action) for action in actions_of(span.slot)]
    return words.sentences(sentence, *known)


def _update(span: Span, at: Any, versions: Versions | None) -> list[Any]:
    """[device, start, end, slot] of an update; where weights change on the way also the version made, and words."""
    found = [span.device, at(span.start), at(span.end), format_slot(span.slot)]
    if versions is None:
        return found
    first = actions_of(span.slot)[0]
    return [*found, versions.used.get(first), versions.sentence(first)]


def _kept_words(timeline: Timeline, curve: Held, share: Share) -> str:
    begin, (end, left) = share.steps[0][0], share.steps[-1]
    until = (
        "until the end of the step, and longer" if left > 0 else f"until {timeline.time_words(end - timeline.start)}"
    )
    most = curve.words(max(amount for _, amount in share.steps))
    what = most if curve.unit else f"{most} of the {curve.name}"
    return f"The device holds this micro-batch from {timeline.time_words(begin - timeline.start)} {until}: {what}."


def _account(timeline: Timeline, factor: float) -> dict[str, Any]:
    found = account(timeline)
    return {
        "kinds": list(KINDS),
        "rows": [[_short(time * factor) for time in row] for row in found.rows],
        "work": mathml(found.work.replace("−", "-")) if found.work else "",
        "idle": mathml(found.idle.replace("−", "-")) if found.idle else "",
        "expected": _short(found.expected * factor),
        "holds": found.holds,
    }


def _short(value: float) -> float:
    """Six digits that count: enough for any screen."""
    return float(f"{value:.6g}") + 0.0


def _blocks(timeline: Timeline, at: Any, versions: Versions | None) -> dict[str, Any]:
    """Slots as columns. ``parts``: [look, stage, micro-batch] of each action of a slot.

    A look is [op, colour, ink]; of a stage that has a name, [letter, colour, ink, name].

    Where weights change on the way, ``versions`` has those that the actions of each slot use.
    """
    schedule = timeline.schedule
    looks: dict[tuple[str, ...], int] = {}
    names = schedule.words.stages
    chunk_of = {stage: k for r in range(schedule.devices) for k, stage in enumerate(schedule.stages_on(r))}

    @cache
    def look(action: Action) -> tuple[str, ...]:
        letter, colour = palette.look(schedule, action, chunk_of.get(action.stage, 0))
        return letter, colour, palette.text_colour(colour), *([names[action.stage]] if names else [])

    parts = [
        [[looks.setdefault(look(a), len(looks)), a.stage, a.microbatch] for a in actions_of(span.slot)]
        for span in timeline.spans
    ]
    return {
        "looks": [list(look) for look in looks],
        "device": [span.device for span in timeline.spans],
        "start": [at(span.start) for span in timeline.spans],
        "end": [at(span.end) for span in timeline.spans],
        "parts": parts,
        "versions": None
        if versions is None
        else [[versions.used.get(a) for a in actions_of(span.slot)] for span in timeline.spans],
    }


def _phases(timeline: Timeline, device: int, at: Any) -> list[list[Any]]:
    spans: Mapping[int, Span] = {span.position: span for span in timeline.on_device(device)}
    found: list[list[Any]] = []
    for phase in phases(timeline.schedule.programs[device]):
        inside = [spans[k] for k in range(phase.start, phase.stop) if k in spans]
        if inside:
            found.append([phase.name, at(inside[0].start), at(inside[-1].end)])
    return found


def _strip(curve: Held, note: str, at: Any, limits: Sequence[float] | None) -> dict[str, Any]:
    steps = []
    for row in curve.steps:
        lasting = {at(time): _short(value * curve.factor) for time, value in row}  # the last of those at one time
        steps.append([[time, value] for time, value in lasting.items()])
    shown = None if limits is None else [limit * curve.factor for limit in limits]
    return {
        "name": curve.name,
        "note": note,
        "axis": curve.axis,
        "top": curve.top if shown is None else max(curve.top, *(limit for limit in shown if limit < 4 * curve.top), 0),
        "steps": steps,
        "peaks": [f"peak {curve.words(peak)}" for peak in curve.peaks],
        "limits": shown,
    }


def _critical(timeline: Timeline) -> list[int]:
    index = {(span.device, span.position): k for k, span in enumerate(timeline.spans)}
    path = ((span.device, span.position) for span in timeline.critical_path())
    return [index[place] for place in path if place in index]


def _legend(timeline: Timeline) -> list[list[str]]:
    """[letter, word, colour, ink] of the ops that occur; then of chunks, with a part of the colour for each op."""
    if timeline.words.stages:
        looks = palette.stage_looks(timeline.schedule)
        return [[letter, name, colour, palette.text_colour(colour)] for letter, name, colour in looks]
    ops = {action.op for span in (*timeline.spans, *timeline.updates) for action in actions_of(span.slot)}
    shades = palette.chunk_shades([timeline.schedule])
    return [
        [op, OPS[op].replace("full ", ""), palette.OPS[op], palette.text_colour(palette.OPS[op])]
        for op in OPS
        if op in ops
    ] + [["", name, _side_by_side(colours), palette.INK] for name, colours in shades]


def _side_by_side(colours: Sequence[str]) -> str:
    """A background in CSS."""
    part = 100 / len(colours)
    stops = (f"{colour} {k * part:g}% {(k + 1) * part:g}%" for k, colour in enumerate(colours))
    return f"linear-gradient(90deg, {', '.join(stops)})"
