"""The explorer's figures: what the formula says beside what the simulation found. Pure Python.

T is the time of one micro-batch on one device's layers, forward and backward; tR is the time to recompute it. The
formulas are those of the papers: GPipe (arXiv 1811.06965, 2.3), 1F1B and interleaved 1F1B (arXiv 2104.04473, 2.2). A
recomputation needs no gradient and delays none, so it adds to the work and not to the bubble. The formulas hold for
messages that take no time, micro-batches of one size, the schedule's own warm-up, and interleaved groups of p. Where
one of these does not hold, a figure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelab.quantities import format_bytes
from pipelab.teaching.explorer.settings import UNIT_SEQUENCES, Settings
from pipelab.timeline import Timeline
from pipelab.timeline.account import long_run_bubble
from pipelab.timeline.versions import versions_of

__all__ = ["FIGURES", "FORMULAS", "Figure", "Formula", "figures", "shown", "value_of"]


@dataclass(frozen=True)
class Formula:
    """``text`` as it is written (``again`` with recomputation, where that differs), and its ``value``."""

    text: str
    value: Callable[[Settings], float]
    again: str = ""


def _pass(s: Settings, sequences: float) -> float:
    """tF + tB of a micro-batch of so many sequences on a device's full share."""
    return (s.forward + s.backward) * sequences / UNIT_SEQUENCES + 2 * s.overhead


def _again(s: Settings, sequences: float) -> float:
    """tR of it: a second forward, where there is recomputation."""
    return s.forward * sequences / UNIT_SEQUENCES + s.overhead if s.recompute else 0.0


def _filled(s: Settings, v: int = 1) -> float:
    """m micro-batches of work and the bubble, (p - 1)/v passes: a recomputation delays no gradient."""
    b = s.sequences / s.microbatches
    return s.microbatches * (_pass(s, b) + _again(s, b)) + (s.devices - 1) * _pass(s, b) / v


def _idle(s: Settings, v: int = 1) -> float:
    return (s.devices - 1) * _pass(s, s.sequences / s.microbatches) / v / _filled(s, v)


def _naive(s: Settings) -> float:
    """All devices in turn; of the recomputations only the last device's takes time of its own."""
    return s.devices * _pass(s, s.sequences) + _again(s, s.sequences)


def _interleaved_held(s: Settings) -> float:
    p, m, v = s.devices, s.microbatches, s.chunks
    return min(2 * (p - 1) + (v - 1) * p + 1, m * v) / v


_PLAIN = {
    "makespan": Formula("(m + p - 1) T", _filled, "m (T + tR) + (p - 1) T"),
    "bubble": Formula("(p - 1) / (m + p - 1)", _idle, "(p - 1) T / (m (T + tR) + (p - 1) T)"),
}
_MESSAGES = Formula("2 m (p v - 1)", lambda s: 2 * s.microbatches * (s.devices * s.v - 1) if s.devices > 1 else 0)
_WHOLE_MESSAGES = Formula("2 m (p - 1)", lambda s: 2 * s.microbatches * (s.devices - 1))
_BY_SCHEDULE: Mapping[str, Mapping[str, Formula]] = {
    "naive": {
        "makespan": Formula("p T of the whole batch", _naive, "p T + tR of the whole batch"),
        "bubble": Formula(
            "(p - 1) / p",
            lambda s: 1 - (_pass(s, s.sequences) + _again(s, s.sequences)) / _naive(s),
            "1 - (T + tR) / (p T + tR)",
        ),
        "held": Formula("b m", lambda s: float(s.sequences)),
        "messages": Formula("2 (p - 1)", lambda s: 2 * (s.devices - 1)),
    },
    "gpipe": {
        **_PLAIN,
        "held": Formula("b m", lambda s: float(s.sequences)),
        "messages": _WHOLE_MESSAGES,
    },
    "1f1b": {
        **_PLAIN,
        "held": Formula("b min(p, m)", lambda s: min(s.devices, s.microbatches) * s.sequences / s.microbatches),
        "messages": _WHOLE_MESSAGES,
    },
    "interleaved": {
        "makespan": Formula("(m + (p - 1) / v) T", lambda s: _filled(s, s.chunks), "m (T + tR) + (p - 1) T / v"),
        "bubble": Formula(
            "(p - 1) / (v m + p - 1)",
            lambda s: _idle(s, s.chunks),
            "(p - 1) T / (v m (T + tR) + (p - 1) T)",
        ),
        "held": Formula(
            "b min(2 (p - 1) + (v - 1) p + 1, m v) / v",
            lambda s: _interleaved_held(s) * s.sequences / s.microbatches,
        ),
        "messages": _MESSAGES,
    },
}


def _without_flush(versions: Formula) -> Mapping[str, Formula]:
    """n steps are shown, with one filling and one draining: in between nothing idles."""
    return {
        "makespan": Formula("(n m + p - 1) T", _steps_filled, "n m (T + tR) + (p - 1) T"),
        "bubble": Formula(
            "(p - 1) / (n m + p - 1)",
            lambda s: (s.devices - 1) * _pass(s, s.sequences / s.microbatches) / _steps_filled(s),
            "(p - 1) T / (n m (T + tR) + (p - 1) T)",
        ),
        "long run": Formula("0", lambda s: 0.0),
        "held": Formula("b p", lambda s: s.devices * s.sequences / s.microbatches),
        "messages": _WHOLE_MESSAGES,
        "versions": versions,
    }


def _steps_filled(s: Settings) -> float:
    b = s.sequences / s.microbatches
    return s.steps * s.microbatches * (_pass(s, b) + _again(s, b)) + (s.devices - 1) * _pass(s, b)


_KNOWN: Mapping[str, Mapping[str, Formula]] = {
    **{
        name: {**known, "long run": known["bubble"], "versions": Formula("1", lambda s: 1.0)}
        for name, known in _BY_SCHEDULE.items()
    },
    "pipedream": _without_flush(Formula("p", lambda s: float(s.devices))),
    "vertical-sync": _without_flush(Formula("p", lambda s: float(s.devices))),
    "2bw": _without_flush(Formula("2", lambda s: 2.0)),
}
_ALL = [one for known in _KNOWN.values() for one in known.values()]
FORMULAS = tuple(sorted({text for one in _ALL for text in (one.text, one.again) if text}))

# name -> (label, unit, read off a timeline). "held" and "memory" are those of the fullest device.
FIGURES: Mapping[str, tuple[str, str, Callable[[Settings, Timeline], float]]] = {
    "makespan": ("Makespan", "units", lambda s, t: t.makespan),
    "bubble": ("Bubble fraction", "%", lambda s, t: 100 * t.bubble_fraction),
    "long run": ("Bubble fraction over many steps", "%", lambda s, t: 100 * long_run_bubble(t)),
    "rate": ("Throughput without the update", "sequences per unit", lambda s, t: s.steps * s.sequences / t.makespan),
    "held": ("In flight on the fullest device", "sequences", lambda s, t: max(t.peak_sequences)),
    "memory": ("Activations on the fullest device", "MB", lambda s, t: max(t.peak_bytes) / 1e6),
    "messages": ("Messages in a step", "", lambda s, t: t.message_count / s.steps),
    "versions": ("Weight versions on the device with most", "", lambda s, t: float(_most_versions(t))),
}
_ENDLESS = ("long run", "versions")  # where nobody does without a flush they go without saying


@dataclass(frozen=True)
class Figure:
    """One figure. ``expected`` is the formula's value, None where there is no formula; ``note`` says what is off."""

    name: str
    label: str
    unit: str
    simulated: float
    formula: str = ""
    expected: float | None = None
    note: str = ""


def shown(value: float | None, unit: str) -> str:
    """A figure's value as a page shows it: four digits that count, one behind the point for a percentage."""
    if value is None:
        return "–"
    return f"{value:.1f}%" if unit == "%" else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _most_versions(timeline: Timeline) -> int:
    found = versions_of(timeline)
    return 1 if found is None else max(found.peaks)


def value_of(name: str, settings: Settings, timeline: Timeline) -> float:
    """One figure of ``timeline``, which was made from ``settings``."""
    return FIGURES[name][2](settings, timeline)


def figures(settings: Settings, timeline: Timeline, *, endless: bool = False) -> tuple[Figure, ...]:
    """All figures, formula beside simulation. ``endless``: beside it stands a schedule without a flush."""
    known = _KNOWN.get(settings.schedule, {})
    found = []
    for name, (label, unit, read) in FIGURES.items():
        if name in _ENDLESS and not endless and settings.recipe.updating is None:
            continue
        formula, simulated = known.get(name), read(settings, timeline)
        if formula is None:
            found.append(Figure(name, label, unit, simulated))
            continue
        expected = formula.value(settings) * (100 if unit == "%" else 1)
        note = _departure(name, settings) if abs(simulated - expected) > 1e-6 * max(expected, 1) else ""
        text = (settings.recompute and formula.again) or formula.text
        found.append(Figure(name, label, unit, simulated, text, expected, note))
    return tuple(found)


def _departure(name: str, settings: Settings) -> str:
    """Why formula and simulation differ."""
    reasons = []
    if settings.warmup and settings.schedule == "1f1b":
        reasons.append("a warm-up of p - 1 - r")
    if settings.sequences % settings.microbatches and settings.schedule != "naive":
        reasons.append("micro-batches of one size")
    if settings.schedule == "interleaved" and settings.microbatches % settings.devices:
        reasons.append("m a multiple of p")
    if settings.latency and name in ("makespan", "bubble", "long run"):
        reasons.append("messages that take no time")
    if settings.recompute and settings.recipe.updating is not None and name == "long run":
        reasons.append("no recomputation")
    return f"the formula assumes {' and '.join(reasons)}" if reasons else ""


def over_limit(settings: Settings, timeline: Timeline) -> str:
    """A sentence where a device's activations need more than the limit, else ""."""
    if settings.limit is None or not timeline.peak_bytes:
        return ""
    allowed = settings.limit * 1e6
    over = [r for r, peak in enumerate(timeline.peak_bytes) if peak > allowed]
    if not over:
        return ""
    r = max(over, key=lambda r: timeline.peak_bytes[r])
    rest = len(over) - 1
    others = f" {rest} other device{'s are' if rest > 1 else ' is'} over it too." if rest else ""
    return (
        f"Out of memory under {settings.recipe.title}: device {r} would hold {format_bytes(timeline.peak_bytes[r])} of "
        f"activations, and the limit on activations is {format_bytes(allowed)}.{others}"
    )
