"""The explorer's figures: what the formula says beside what the simulation found. Pure Python.

Where a formula does not hold (``formulas.py`` says what it assumes), a figure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipelab.quantities import format_bytes
from pipelab.teaching.explorer.formulas import KNOWN, departure
from pipelab.teaching.explorer.settings import Settings
from pipelab.timeline import Timeline
from pipelab.timeline.account import long_run_bubble
from pipelab.timeline.versions import versions_of

__all__ = ["FIGURES", "Figure", "figures", "over_limit", "shown", "value_of"]

# name -> (label, unit, read off a timeline). "held" and "memory" are those of the fullest device.
FIGURES: Mapping[str, tuple[str, str, Callable[[Settings, Timeline], float]]] = {
    "makespan": ("Makespan", "units", lambda s, t: t.makespan),
    "bubble": ("Bubble fraction", "%", lambda s, t: 100 * t.bubble_fraction),
    "idle": ("Own idle on the idlest device", "units", lambda s, t: _own_idle(t)),
    "long run": ("Bubble fraction over many steps", "%", lambda s, t: 100 * long_run_bubble(t)),
    "rate": ("Throughput without the update", "sequences per unit", lambda s, t: s.steps * s.sequences / t.makespan),
    "held": ("In flight on the fullest device", "sequences", lambda s, t: max(t.peak_sequences)),
    "memory": ("Activations on the fullest device", "MB", lambda s, t: max(t.peak_bytes) / 1e6),
    "messages": ("Messages in a step", "", lambda s, t: t.message_count / s.steps),
    "versions": ("Weight versions on the device with most", "", lambda s, t: float(_most_versions(t))),
}
# Figures that go without saying where no schedule beside it is of that kind.
_OF_A_KIND: Mapping[str, Callable[[Settings], bool]] = {
    "idle": lambda s: s.splits,
    "long run": lambda s: s.recipe.updating is not None,
    "versions": lambda s: s.recipe.updating is not None,
}


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


def _own_idle(timeline: Timeline) -> float:
    """What a device idles that steps on to its next step by itself, without a barrier (arXiv 2401.10241, 4)."""
    rows = map(timeline.on_device, range(timeline.schedule.devices))
    return max(row[-1].end - row[0].start - sum(span.duration for span in row) for row in rows)


def _most_versions(timeline: Timeline) -> int:
    found = versions_of(timeline)
    return 1 if found is None else max(found.peaks)


def value_of(name: str, settings: Settings, timeline: Timeline) -> float:
    """One figure of ``timeline``, which was made from ``settings``."""
    return FIGURES[name][2](settings, timeline)


def figures(settings: Settings, timeline: Timeline, beside: Settings | None = None) -> tuple[Figure, ...]:
    """All figures, formula beside simulation. ``beside``: of the schedule that is shown too."""
    known = KNOWN.get(settings.schedule, {})
    found = []
    for name, (label, unit, read) in FIGURES.items():
        if name in _OF_A_KIND and not any(map(_OF_A_KIND[name], filter(None, (settings, beside)))):
            continue
        formula, simulated = known.get(name), read(settings, timeline)
        if formula is None:
            found.append(Figure(name, label, unit, simulated))
            continue
        expected = formula.value(settings) * (100 if unit == "%" else 1)
        note = departure(name, settings) if abs(simulated - expected) > 1e-6 * max(expected, 1) else ""
        text = (settings.recompute and formula.again) or formula.text
        found.append(Figure(name, label, unit, simulated, text, expected, note))
    return tuple(found)


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
