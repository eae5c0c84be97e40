"""What stands beside the explorer's picture, as HTML: figures and formulas, what they mean, the settings as code."""

from __future__ import annotations

import html
from collections.abc import Sequence

from pipelab.teaching.explorer.figures import Figure, shown
from pipelab.teaching.explorer.settings import UNIT_SEQUENCES, Settings
from pipelab.view.widgets.mathml import mathml

__all__ = ["notes", "static"]

_T = f"T = (tF + tB) b / {UNIT_SEQUENCES} + 2 α"
_AGAIN = f"tR = tF b / {UNIT_SEQUENCES} + α"


def notes(settings: Sequence[Settings], found: Sequence[Sequence[Figure]], measured: str = "") -> str:
    """What the letters of the formulas mean, where a formula does not hold, and what a limit counts; as HTML.

    ``settings`` are those of the schedules shown, ``found`` the figures of each; ``measured`` is a sentence for what
    was run.
    """
    first = settings[0]
    said = [
        f"T is the time of one micro-batch on one device, forward and backward: {mathml(_T)}.",
        "b is the number of sequences in a micro-batch.",
    ]
    several = [one for one in settings if one.steps > 1]
    if several:
        said.append(
            f"Without a flush a step does not end with an empty pipeline. So the picture shows n = {several[0].steps} "
            "steps."
        )
    if first.recompute:
        said.append(f"Recomputing a micro-batch takes {mathml(_AGAIN)}.")
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
