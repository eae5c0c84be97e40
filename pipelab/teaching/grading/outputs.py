"""A report as text, CSV, JUnit XML and pages of feedback."""

from __future__ import annotations

import csv
import html
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from pipelab.teaching.design.paper import html_page
from pipelab.teaching.grading.grades import ExerciseGrade, NotebookGrade, Report

__all__ = ["COLUMNS", "TOTALS", "as_csv", "as_junit", "as_text", "as_totals", "write_feedback"]

COLUMNS = ("learner", "name", "lesson", "notebook", "exercise", "part", "points", "possible", "message")
TOTALS = ("learner", "name", "points", "possible")
_BAR = 12


def as_text(report: Report, names: Mapping[str, str] | None = None) -> str:
    """For people: one learner's exercises in full, a class as a line each."""
    names = names or {}
    learners = report.learners()
    lines: list[str] = []
    if len(learners) <= 1:
        for notebook in report.notebooks:
            lines += [*_notebook_lines(notebook), ""]
    else:
        width = max(len(_called(learner, names)) for learner in learners)
        for learner in learners:
            mine = report.of(learner)
            points, possible = sum(n.points for n in mine), sum(n.possible for n in mine)
            problems = "; ".join(f"{n.path.name}: {n.problem}" if n.path.name else n.problem for n in mine if n.problem)
            told = _oneline(problems)
            lines.append(f"{_called(learner, names):<{width}}  {_of(points, possible):>10}  {told}".rstrip())
        lines.append("")
    lines.append(f"{_of(report.points, report.possible)} points")
    lines += [f"warning: {warning}" for warning in report.warnings]
    return clean("\n".join(lines)) + "\n"


def _notebook_lines(notebook: NotebookGrade) -> list[str]:
    if notebook.problem:
        return [_oneline(f"{notebook.path}: {notebook.problem}")]
    filled = round(_BAR * notebook.points / notebook.possible) if notebook.possible else 0
    bar = "█" * filled + "·" * (_BAR - filled)
    width = max((len(exercise.title) for exercise in notebook.exercises), default=0)
    points = _of(notebook.points, notebook.possible)
    lines = [f"{bar}  {points:>8}  {notebook.title or notebook.lesson}  ({_oneline(str(notebook.path))})"]
    for exercise in notebook.exercises:
        lines.append(
            f"  {exercise.title:<{width}}  {_of(exercise.points, exercise.possible)}  {_oneline(exercise.message)}"
        )
    return lines


def _oneline(message: str) -> str:
    return " ".join(clean(message).split())


def _called(learner: str, names: Mapping[str, str]) -> str:
    name = names.get(learner, "")
    return _oneline(f"{learner} ({name})" if name and name != learner else learner)


def _of(points: float, possible: float) -> str:
    return f"{points:g} of {possible:g}"


def clean(text: str) -> str:
    """Without control characters, turned writing and half characters: what a submission says may hold any."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]", "", text)


def as_csv(report: Report, names: Mapping[str, str] | None = None) -> str:
    """One row per part of each exercise, columns ``COLUMNS``; a notebook that could not be graded has one row.

    Where an instructor decided, the exercise has one row, with ``part`` empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for notebook in report.notebooks:
        head = [notebook.learner, (names or {}).get(notebook.learner, ""), notebook.lesson, str(notebook.path)]
        head = [_cell(text) for text in (head if notebook.path.name else [*head[:3], ""])]
        if notebook.problem:
            writer.writerow([*head, "", "", 0, 0, _cell(notebook.problem)])
        for exercise in notebook.exercises:
            if exercise.override:
                row = ["", f"{exercise.points:g}", f"{exercise.possible:g}", _cell(exercise.message)]
                writer.writerow([*head, exercise.exercise, *row])
                continue
            for k, part in enumerate(exercise.parts):
                said = "; ".join(filter(None, [part.message, *(exercise.notes if k == 0 else ())]))
                row = [part.name, f"{part.points:g}", f"{part.possible:g}", _cell(said)]
                writer.writerow([*head, exercise.exercise, *row])
    return out.getvalue()


def as_totals(report: Report, names: Mapping[str, str] | None = None) -> str:
    """One row per learner: ``TOTALS``, then one column of points per lesson; for a gradebook.

    ``possible`` is the same for all: the points of every lesson that anyone in the report handed in.
    """
    most = {notebook.lesson: notebook.possible for notebook in report.notebooks if notebook.possible}
    lessons = sorted(most)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*TOTALS, *(f"{lesson} (of {most[lesson]:g})" for lesson in lessons)])
    for learner in report.learners():
        mine = report.of(learner)
        by_lesson = {lesson: [n for n in mine if n.lesson == lesson] for lesson in lessons}
        columns = [f"{sum(n.points for n in found):g}" for found in by_lesson.values()]
        name = (names or {}).get(learner, "")
        points, possible = sum(n.points for n in mine), sum(most.values())
        writer.writerow([_cell(learner), _cell(name), f"{points:g}", f"{possible:g}", *columns])
    return out.getvalue()


def _cell(text: str) -> str:
    """On one line, and not taken for a formula by a spreadsheet."""
    text = _oneline(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def as_junit(report: Report) -> str:
    """JUnit XML: a suite per notebook, a case per exercise; less than all points is a failure."""
    root = ET.Element("testsuites")
    for notebook in report.notebooks:
        failed = sum(exercise.points < exercise.possible for exercise in notebook.exercises)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=clean(str(notebook.path)),
            tests=str(len(notebook.exercises) or 1),
            failures=str(failed),
            errors=str(int(bool(notebook.problem))),
        )
        if notebook.problem:
            case = ET.SubElement(suite, "testcase", classname=clean(notebook.learner or "notebook"), name="notebook")
            ET.SubElement(case, "error", message=clean(notebook.problem))
        for exercise in notebook.exercises:
            name = clean(notebook.learner or notebook.lesson)
            case = ET.SubElement(
                suite, "testcase", classname=name, name=exercise.exercise, time=f"{exercise.seconds:.1f}"
            )
            if exercise.points < exercise.possible:
                told = f"{_of(exercise.points, exercise.possible)}: {clean(exercise.message)}"
                ET.SubElement(case, "failure", message=told)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


# ---- feedback -----------------------------------------------------------------------------------------------------

_STYLE = """
table { width: 100%; table-layout: fixed } th:nth-child(1) { width: 11rem } th:nth-child(2) { width: 5rem }
pre { margin: 0; font: inherit } td.n { white-space: nowrap } pre { white-space: pre-wrap }
"""


def write_feedback(report: Report, folder: Path, names: Mapping[str, str] | None = None) -> list[Path]:
    """One HTML page per learner, complete in itself. Returns the pages."""
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Path] = {}
    for learner in report.learners():
        stem = re.sub(r"[^\w.-]+", "_", clean(learner)).strip("._")[:60] or "feedback"
        while stem.lower() in written:
            stem += "_"
        path = folder / f"{stem}.html"
        path.write_text(_page(report, learner, (names or {}).get(learner, "")), encoding="utf-8")
        written[stem.lower()] = path
    return list(written.values())


def _page(report: Report, learner: str, name: str) -> str:
    mine = report.of(learner)
    points, possible = sum(n.points for n in mine), sum(n.possible for n in mine)
    title = f"pipelab: {name or learner}" if name or learner else "pipelab: feedback"
    body = [f"<h1>{_html(title)}</h1>", f"<p>{_of(points, possible)} points.</p>"]
    for notebook in mine:
        body.append(f"<h2>{_html(notebook.title or notebook.lesson or notebook.path.name or 'No notebook')}</h2>")
        if notebook.problem:
            body.append(f"<p>{_html(notebook.problem)}</p>")
            continue
        body.append(f"<p>{_html(notebook.path.name)}: {_of(notebook.points, notebook.possible)} points.</p>")
        body += [_exercise(exercise) for exercise in notebook.exercises]
    return html_page(_html(title), "".join(body), _STYLE)


def _exercise(exercise: ExerciseGrade) -> str:
    rows = []
    for part in exercise.parts:
        said = f"<pre>{_html(part.message)}</pre>" if part.message else "right"
        if part.picture:
            said += f'<img alt="{_html(part.alt)}" src="data:image/png;base64,{_html(part.picture)}">'
        rows.append(
            f"<tr><td>{_html(part.name)}</td><td class=n>{_of(part.points, part.possible)}</td><td>{said}</td></tr>"
        )
    head = f"<h3>{_html(exercise.title)}: {_of(exercise.points, exercise.possible)}</h3>"
    notes = [f"Set by the instructor: {exercise.override}."] if exercise.override else []
    notes += [note[0].upper() + note[1:] + "." for note in exercise.notes]
    said = "".join(f"<p>{_html(note)}</p>" for note in notes)
    if (
        len({part.message for part in exercise.parts}) == 1
        and exercise.parts[0].message
        and not exercise.parts[0].picture
    ):
        return f"{head}{said}<pre>{_html(exercise.parts[0].message)}</pre>"
    table = f"<table><tr><th>part</th><th>points</th><th>what was found</th></tr>{''.join(rows)}</table>"
    return head + said + table


def _html(text: str) -> str:
    return html.escape(clean(text), quote=True)
