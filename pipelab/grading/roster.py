"""Who is in the class, and points that a person has decided."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelab.errors import ConfigurationError
from pipelab.grading.grades import ExerciseGrade, NotebookGrade, Report

__all__ = ["Override", "apply_overrides", "apply_roster", "read_overrides", "read_roster"]


def read_roster(path: Path) -> dict[str, str]:
    """``learner`` -> ``name`` from a CSV file with these columns (``name`` may be left out)."""
    return {row["learner"]: row.get("name") or row["learner"] for row in _rows(path, ("learner",))}


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
            raise ConfigurationError(f"{path}, line {line}: an override needs a reason, the learner reads it")
    return found


def apply_roster(report: Report, roster: dict[str, str]) -> tuple[Report, list[str]]:
    """The report with a line for everyone of whom nothing was handed in; and those who are not on the roster."""
    there = set(report.learners())
    absent = [
        NotebookGrade(Path(), learner, "", "", (), "nothing handed in") for learner in roster if learner not in there
    ]
    strangers = [learner for learner in report.learners() if learner not in roster]
    return replace(report, notebooks=(*report.notebooks, *absent)), strangers


def apply_overrides(report: Report, overrides: Sequence[Override]) -> Report:
    """The report with these points in place of what was found. Raises ConfigurationError for one that fits nothing."""
    notebooks = list(report.notebooks)
    for override in overrides:
        places = [
            (n, e)
            for n, notebook in enumerate(notebooks)
            if notebook.learner == override.learner
            for e, exercise in enumerate(notebook.exercises)
            if exercise.exercise == override.exercise
        ]
        if not places:
            raise ConfigurationError(
                f"override for {override.learner}, {override.exercise}: there is no such exercise among the notebooks "
                "that were graded"
            )
        for n, e in places:
            exercises: list[ExerciseGrade] = list(notebooks[n].exercises)
            if not 0 <= override.points <= exercises[e].possible:
                raise ConfigurationError(
                    f"override for {override.learner}, {override.exercise}: {override.points:g} points, there are "
                    f"{exercises[e].possible:g}"
                )
            exercises[e] = replace(exercises[e], overridden=override.points, override=override.reason)
            notebooks[n] = replace(notebooks[n], exercises=tuple(exercises))
    return replace(report, notebooks=tuple(notebooks))


def _rows(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = [
                {(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)} for row in reader
            ]
            columns = [name.strip() for name in reader.fieldnames or ()]
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text in UTF-8; save it as CSV (UTF-8)") from None
    lacking = [name for name in needed if name not in columns]
    if lacking:
        raise ConfigurationError(
            f"{path} has no column {', '.join(lacking)}; its first line should name {', '.join(needed)}"
        )
    return rows
