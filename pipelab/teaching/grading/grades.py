"""Grades as values: of a part, an exercise, a notebook, all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ExerciseGrade", "NotebookGrade", "PartGrade", "Report"]


@dataclass(frozen=True)
class PartGrade:
    """One part of an exercise. ``message`` says what is wrong, "" if it is right; ``picture`` is a PNG in base64."""

    name: str
    points: float
    possible: float
    message: str = ""
    picture: str = ""
    alt: str = ""


@dataclass(frozen=True)
class ExerciseGrade:
    """One exercise. ``notes`` are what was odd about its cells; ``override`` is the reason where a person decided."""

    exercise: str
    title: str
    parts: tuple[PartGrade, ...]
    notes: tuple[str, ...] = ()
    overridden: float | None = None
    override: str = ""
    seconds: float = 0.0

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(part.points for part in self.parts) if self.overridden is None else self.overridden

    @property
    def possible(self) -> float:
        """Points there are."""
        return sum(part.possible for part in self.parts)

    @property
    def message(self) -> str:
        """What the learner should read next: the first part's reason, then what was odd."""
        if self.override:
            return f"set by the instructor: {self.override}"
        wrong = next((part for part in self.parts if part.message), None)
        said = "all points" if wrong is None else wrong.message
        if wrong is not None and len(self.parts) > 1 and not all(part.message == wrong.message for part in self.parts):
            said = f"{wrong.name}: {said}"
        notes = "; ".join(self.notes)
        return f"{said} ({notes})" if notes else said

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        parts = [
            {"part": p.name, "points": _whole(p.points), "possible": _whole(p.possible), "message": p.message}
            for p in self.parts
        ]
        return {
            "exercise": self.exercise,
            "points": _whole(self.points),
            "possible": _whole(self.possible),
            "message": self.message,
            "parts": parts,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class NotebookGrade:
    """One notebook. ``problem`` says why it could not be graded at all; ``lesson`` is the name of its lesson."""

    path: Path
    learner: str
    lesson: str
    title: str = ""
    exercises: tuple[ExerciseGrade, ...] = ()
    problem: str = ""

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(exercise.points for exercise in self.exercises)

    @property
    def possible(self) -> float:
        """Points there are."""
        return sum(exercise.possible for exercise in self.exercises)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        told = {
            "path": str(self.path),
            "learner": self.learner,
            "lesson": self.lesson,
            "points": _whole(self.points),
            "possible": _whole(self.possible),
            "exercises": [exercise.to_json() for exercise in self.exercises],
        }
        return told | ({"problem": self.problem} if self.problem else {})


@dataclass(frozen=True)
class Report:
    """All grades of one run. ``seed`` drew the cases; ``warnings`` concern the run as a whole."""

    notebooks: tuple[NotebookGrade, ...]
    seed: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        """Points earned."""
        return sum(notebook.points for notebook in self.notebooks)

    @property
    def possible(self) -> float:
        """Points there are."""
        return sum(notebook.possible for notebook in self.notebooks)

    @property
    def complete(self) -> bool:
        """Whether every notebook could be graded and has all points."""
        return all(not n.problem and n.points >= n.possible for n in self.notebooks)

    def learners(self) -> list[str]:
        """Everyone of whom there is a notebook, in order."""
        return list(dict.fromkeys(notebook.learner for notebook in self.notebooks))

    def of(self, learner: str) -> Sequence[NotebookGrade]:
        """One learner's notebooks."""
        return [notebook for notebook in self.notebooks if notebook.learner == learner]

    def to_json(self) -> dict[str, Any]:
        """Plain data: points, possible, notebooks with their exercises."""
        return {
            "points": _whole(self.points),
            "possible": _whole(self.possible),
            "seed": self.seed,
            "warnings": list(self.warnings),
            "notebooks": [notebook.to_json() for notebook in self.notebooks],
        }


def _whole(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
