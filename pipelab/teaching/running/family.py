"""The family of schedules side by side: one script measures them for the demo, for README and for lessons 6 and 7."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pipelab.quantities import format_bytes, format_time, render_table
from pipelab.schedules import actions_of, build_schedule
from pipelab.schedules.updates import over
from pipelab.simulation import Costs, simulate
from pipelab.teaching.running.experiment import Experiment, Setting, prepare, run_experiment
from pipelab.timeline import Timeline
from pipelab.timeline.account import long_run_bubble
from pipelab.timeline.versions import staleness

__all__ = ["FILLED", "FLUSHING", "WITHOUT_FLUSH", "family_table", "measure_family"]

DEVICES = 4
FLUSHING = {
    "naive": ("naive", 1, False),
    "gpipe": ("gpipe", 1, False),
    "gpipe + R": ("gpipe", 1, True),
    "1f1b": ("1f1b", 1, False),
    "interleaved v=2": ("interleaved", 2, False),
}
FILLED = {"1f1b": ("1f1b", 1, False)} | {
    name: (name, chunks, False)
    for chunks, names in (
        (1, ("chimera", "zb-h1", "zb-h2")),
        (2, ("looped-bfs", "interleaved-zb", "zb-v", "v-half", "v-min", "dualpipev")),
    )
    for name in names
}
"""1F1B, and what fills its bubble."""
WITHOUT_FLUSH = {name: (name, 1, False) for name in ("pipedream", "vertical-sync", "2bw")}


def measure_family(
    setting: Setting,
    microbatches: int = 4,
    cases: Mapping[str, tuple[str, int, bool]] = FLUSHING | WITHOUT_FLUSH,
    *,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Experiment]:
    """Run each schedule on 4 devices. With ``setting.verify`` each has the error of a step in float64.

    ``cases``: name of the schedule, chunks, and whether to recompute, by what the table calls it. ``told`` hears the
    name of each piece of the work before it begins.
    """
    measured = prepare(replace(setting, verify=False))
    proven = prepare(replace(setting, dtype="float64", clock="unit", steps=1)) if setting.verify else None
    found: dict[str, Experiment] = {}
    for label, (name, chunks, recompute) in cases.items():
        schedule = build_schedule(name, DEVICES, microbatches, chunks, recompute=recompute)
        found[label] = run_experiment(measured, schedule, microbatches, told=partial(_named, told, label))
        if proven is not None:
            told(f"{label}: the proof")
            proof = run_experiment(proven, schedule, microbatches, told=lambda _: None)
            found[label] = replace(
                found[label], max_gradient_error=proof.max_gradient_error, max_weight_error=proof.max_weight_error
            )
    return found


def family_table(found: Mapping[str, Experiment], columns: Sequence[str] | None = None) -> str:
    """One line for each. ``columns`` are those to show: all, if None."""
    rows = {label: _line(e) for label, e in found.items()}
    shown = list(columns or next(iter(rows.values())))
    return render_table(["schedule", *shown], [[label, *(line[c] for c in shown)] for label, line in rows.items()])


def _values(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _named(told: Callable[[str], None], name: str, piece: str) -> None:
    told(f"{name}: {piece}")


def _line(e: Experiment) -> dict[str, str]:
    """By column. A part that is predicted and measured has both."""
    peaks = [format_bytes(value).removesuffix(" MB") for value in e.report.peak_activation_bytes]
    error = e.max_gradient_error if e.max_weight_error is None else e.max_weight_error
    return {
        "bubble": f"{_bubble(e, e.predicted):.1%} / {_bubble(e, e.measured):.1%}",
        "makespan": f"{format_time(e.predicted.makespan, e.predicted.unit)} / "
        f"{format_time(e.measured.makespan, e.measured.unit)}",
        "sequences in flight": _values(e.measured.peak_sequences),
        "peak activation bytes": " ".join(peaks) + " MB",
        "versions": _values(e.peak_weight_versions or (1,) * e.measured.schedule.devices),
        "stale": str(max(staleness(e.measured.schedule))),
        "messages": str(e.measured.message_count),
        "error": "" if error is None else f"{error:.0e}",
    }


def _bubble(e: Experiment, timeline: Timeline) -> float:
    """The bubble fraction; of a schedule without a flush that of many steps with the same costs."""
    schedule = timeline.schedule
    if schedule.updating is None:
        return timeline.bubble_fraction
    step = build_schedule(schedule.name, schedule.devices, e.microbatches)
    costs = e.costs if timeline is e.predicted else _means(timeline)
    return long_run_bubble(simulate(over(step, 4), costs))


def _means(timeline: Timeline) -> Costs:
    """What each stage's actions cost on average."""
    stages = timeline.schedule.stages
    found: dict[str, list[list[float]]] = {op: [[] for _ in range(stages)] for op in "FBRU"}
    for span in (*timeline.spans, *timeline.updates):
        for action in actions_of(span.slot):
            found[action.op][action.stage].append(span.duration)
    forward, backward, _, update = ([sum(x) / max(len(x), 1) for x in rows] for rows in found.values())
    return Costs(forward=forward, backward=backward, update=update)
