"""Who is in the class, and points that a person has decided."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.exam.drawn import find_exercise
from pipelab.teaching.grading.grades import ExerciseGrade, NotebookGrade, Report

__all__ = ["Override", "apply_overrides", "apply_roster", "check_overrides", "read_overrides", "read_roster"]


def read_roster(path: Path) -> dict[str, str]:
    """``learner`` -> ``name`` from a CSV file with these columns (``name`` may be left out)."""
    found: dict[str, str] = {}
    for row in _rows(path, ("learner",)):
        learner = row["learner"]
        if not learner or learner in found:
            raise ConfigurationError(f"{path} names {learner!r} twice" if learner else f"{path}: a row has no learner")
        found[learner] = row.get("name") or learner
    return found


@dataclass(frozen=True)
class Override:
    """Points that an instructor gives, with the reason."""

    learner: str
    exercise: str
    points: float
    reason: str


def read_overrides(path: Path) -> list[Override]:
    """A CSV file with columns ``learner``, ``exercise``, ``points``, ``reason``."""
    found = []
    for line, row in enumerate(_rows(path, ("learner", "exercise", "points", "reason")), start=2):
        try:
            found.append(Override(row["learner"], row["exercise"], float(row["points"]), row["reason"].strip()))
        except ValueError:
            raise ConfigurationError(f"{path}, line {line}: points is {row['points']!r}, not a number") from None
        if not found[-1].reason:
            raise ConfigurationError(f"{path}, line {line}: an override needs a reason, which the learner will read")
    return found


def apply_roster(report: Report, roster: dict[str, str]) -> tuple[Report, list[str]]:
    """The report with a line for everyone of whom nothing was handed in; and those who are not on the roster."""
    there = set(report.learners())
    absent = [
        NotebookGrade(Path(), learner, "", "", (), "nothing handed in") for learner in roster if learner not in there
    ]
    strangers = [learner for learner in report.learners() if learner not in roster]
    return replace(report, notebooks=(*report.notebooks, *absent)), strangers


def check_overrides(overrides: Sequence[Override]) -> None:
    """Raise ConfigurationError for an exercise that does not exist or points beyond its own: before anything is run."""
    for override in overrides:
        exercise = find_exercise(override.exercise)
        if not 0 <= override.points <= exercise.points:
            raise ConfigurationError(
                f"override for {override.learner}, {override.exercise}: {override.points:g} points, there are "
                f"{exercise.points}"
            )


def apply_overrides(report: Report, overrides: Sequence[Override]) -> tuple[Report, list[Override]]:
    """The report with these points in place of what was found; and the overrides that fit no notebook in it."""
    notebooks, unused = list(report.notebooks), []
    for override in overrides:
        places = [
            (n, e)
            for n, notebook in enumerate(notebooks)
            if notebook.learner == override.learner
            for e, exercise in enumerate(notebook.exercises)
            if exercise.exercise == override.exercise
        ]
        unused += [] if places else [override]
        for n, e in places:
            exercises: list[ExerciseGrade] = list(notebooks[n].exercises)
            exercises[e] = replace(exercises[e], overridden=override.points, override=override.reason)
            notebooks[n] = replace(notebooks[n], exercises=tuple(exercises))
    return replace(report, notebooks=tuple(notebooks)), unused


def _rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = [
                {(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)} for row in reader
            ]
            columns = [name.strip() for name in reader.fieldnames or ()]
    except (UnicodeDecodeError, csv.Error):
        raise ConfigurationError(f"{path} is not CSV in UTF-8; save it as CSV (UTF-8)") from None
    lacking = [name for name in needed if name not in columns]
    if lacking:
        hint = " (its columns are separated by ';'; use commas)" if any(";" in name for name in columns) else ""
        raise ConfigurationError(
            f"{path} has no column {', '.join(lacking)}; its first line should name {', '.join(needed)}{hint}"
        )
    return [row for row in rows if any(row.values())]
