"""What stands beside the explorer's picture, as HTML: figures and formulas, what they mean, the settings as code."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

from pipelab.teaching.explorer.figures import Figure, shown
from pipelab.teaching.explorer.settings import UNIT_SEQUENCES, WAITING, Settings
from pipelab.view.widgets.mathml import mathml

__all__ = ["notes", "preset", "static"]

_T = f"T = (tF + tB) b / {UNIT_SEQUENCES} + 2 α"
_SPLIT = f"T = (tF + tI + tW) b / {UNIT_SEQUENCES} + 3 α"
_AGAIN = f"tR = tF b / {UNIT_SEQUENCES} + α"
_FORMULAS = ("makespan", "bubble", "idle", "held", "messages")  # that nearly all schedules have


def preset(settings: Settings, free: Collection[str]) -> str:
    """In words, what a preset does not let turn, where it matters."""
    s = settings
    told = {
        "devices": f"p = {s.devices}",
        "microbatches": f"m = {s.microbatches}",
        "chunks": f"v = {s.v}" if s.v > 1 else "",
        "warmup": f"warm-up {s.warmup:+d}" if s.warmup else "",
        "forward": f"tF = {s.forward:.3g}",
        "backward": f"tB = {s.backward:.3g}",
        "input_gradient": f"tI = {s.halves[0]:.3g}" if s.splits else "",
        "weight_gradient": f"tW = {s.halves[1]:.3g}" if s.splits else "",
        "overhead": f"α = {s.overhead:.3g}" if s.overhead else "",
        "latency": f"latency {s.latency:.3g}" if s.latency else "",
        "limit": f"limit of {s.limit:g} MB on activations alone" if s.limit is not None else "",
        "recompute": "with recomputation" if s.recompute else "",
    }
    parts = [said for name, said in told.items() if said and name not in free]
    return f"Preset: {', '.join(parts)}." if parts else ""


def notes(settings: Sequence[Settings], found: Sequence[Sequence[Figure]], measured: str = "") -> str:
    """What the letters of the formulas mean, where a formula does not hold, and what a limit counts; as HTML.

    ``settings`` are those of the schedules shown, ``found`` the figures of each; ``measured`` is a sentence for what
    was run.
    """
    first = settings[0]
    kinds = sorted({one.splits for one in settings})
    terms = " or, with the backward in two, ".join(mathml(_SPLIT if splits else _T) for splits in kinds)
    said = [
        f"T is the time of one micro-batch on one device, forward and backward: {terms}.",
        "b is the number of sequences in a micro-batch.",
    ]
    if any(one.splits for one in settings):
        said.append(
            f"I is the gradient of the input and takes {mathml('tI')}, W that of the weights and takes "
            f"{mathml('tW')}. In a formula these two and {mathml('tF')} are times of one micro-batch, "
            f"{mathml(f't b / {UNIT_SEQUENCES} + α')}. From I to W a stage keeps {WAITING:g} times what it kept "
            "before: W needs gradients too. Own idle is between a device's first action and its last."
        )
    several = [one for one in settings if one.steps > 1]
    if several:
        said.append(
            f"Without a flush a step does not end with an empty pipeline. So the picture shows n = {several[0].steps} "
            "steps."
        )
    if first.recompute:
        said.append(f"Recomputing a micro-batch takes {mathml(_AGAIN)}.")
    for one, figures in zip(settings, found, strict=True):
        unknown = [figure.label.lower() for figure in figures if figure.name in _FORMULAS and not figure.formula]
        if unknown:
            title = html.escape(one.recipe.title)
            said.append(f"No formula of {title} is known for: {', '.join(unknown)}. The simulation alone gives these.")
    apart = dict.fromkeys(figure.note for one in found for figure in one if figure.note)
    if apart:
        said.append(html.escape(f"Where formula and simulation differ, {'; '.join(apart)}."))
    if first.limit is not None:
        said.append(
            "The limit counts activations alone. Pipeline's memory_limit also counts weights, gradients and optimizer "
            "state."
        )
    return " ".join([*said, html.escape(measured)] if measured else said)


def static(titles: Sequence[str], words: Sequence[str], found: Sequence[Sequence[Figure]], told: str, code: str) -> str:
    """The figures of each schedule of ``titles``, for pages on which no widget runs.

    ``words`` stand above the table, the HTML ``told`` below it, and the line ``code`` last.
    """
    one = len(titles) == 1
    heads = ["Figure", "Formula", "it gives", "simulated"] if one else ["Figure", *titles]
    rows = []
    for k, figure in enumerate(found[0]):
        label = f"{figure.label}, {figure.unit}" if figure.unit else figure.label
        cells = [html.escape(label)]
        if one:
            cells += [_formula(figure), shown(figure.expected, figure.unit), shown(figure.simulated, figure.unit)]
        else:
            cells += [_both(each[k]) for each in found]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f"<p>{' '.join(html.escape(text) for text in words if text)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p>{told}</p><p>These settings again: <code>{html.escape(code)}</code></p>"
    )


def _formula(figure: Figure) -> str:
    return mathml(figure.formula) if figure.formula else "–"


def _both(figure: Figure) -> str:
    value = shown(figure.simulated, figure.unit)
    return f"{value} ({_formula(figure)} = {shown(figure.expected, figure.unit)})" if figure.formula else value
