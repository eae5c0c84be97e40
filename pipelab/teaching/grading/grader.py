"""Grades notebooks: finds them, runs each exercise's slice apart, has it judged apart, and puts it all together."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.build import FOLDERS
from pipelab.teaching.course.exam.drawn import find_exercise
from pipelab.teaching.course.source import course_folder, read_course
from pipelab.teaching.course.work import SUFFIX
from pipelab.teaching.exercises.definition import Exercise
from pipelab.teaching.grading.grades import ExerciseGrade, NotebookGrade, PartGrade, Report
from pipelab.teaching.grading.sandbox import PACKAGE, Outcome, Slice, copy_package, run_slice
from pipelab.teaching.grading.submission import Answer, Submission, Template, UnreadableError, read_submission

__all__ = ["Found", "find_notebooks", "grade", "nothing_from"]

LEANS = 4  # how often an exercise is run again with a cell of another one that it leans on
SECONDS = 60.0  # for one exercise: its cells, and all its cases
_OURS = set(FOLDERS.values())


@dataclass(frozen=True)
class Found:
    """A notebook to grade, and whose it is ("" where nothing says so)."""

    path: Path
    learner: str


def grade(
    paths: Sequence[Path],
    *,
    course: Path | None = None,
    jobs: int | None = None,
    seconds: float = SECONDS,
    seed: int | None = None,
    pictures: bool = False,
    progress: bool = True,
) -> Report:
    """Grade notebooks and folders of notebooks. None of them is changed.

    ``course``: the trusted sources (default: those beside the package). ``jobs``: exercises at a time (default: the
    cores). ``seconds``: what one exercise may take. ``seed`` draws the cases (default: a new one each time).
    ``pictures``: have judges draw them, for feedback pages. Raises ConfigurationError for paths without a notebook.
    """
    folder = course_folder(course)
    templates = [Template.of(lesson) for lesson in read_course(folder) if lesson.exercises]
    found = find_notebooks(paths, [template.lesson.name for template in templates])
    taken = [_take(one, templates) for one in found]
    drawn = secrets.randbits(32) if seed is None else seed
    trusted = _digest(PACKAGE, folder)
    with tempfile.TemporaryDirectory(prefix="pipelab-trusted-") as name:
        # What is judged by is out of the way before the first submission runs.
        package = copy_package(PACKAGE, Path(name))
        run = _Run(
            package,
            _digest(package, compiled=True),
            drawn,
            seconds,
            pictures,
        )
        done = _grade_all(run, taken, jobs or _cores(), progress)
        unchanged = trusted == _digest(PACKAGE, folder) and run.intact
    every = [_assemble(k, one, sub, done) for k, (one, sub) in enumerate(zip(found, taken, strict=True))]
    notebooks = (*_once(every), *nothing_from(paths, found))
    changed = "files of pipelab changed during the grading: by a submission? Take a clean clone and grade again"
    return Report(notebooks, drawn, () if unchanged else (changed,))


def _grade_all(
    run: _Run, taken: Sequence[Submission | str], jobs: int, progress: bool
) -> dict[tuple[int, str], ExerciseGrade]:
    """Everything that has to be run, ``jobs`` at a time: (number of the submission, exercise) -> grade."""
    todo = [
        (k, submission, answer)
        for k, submission in enumerate(taken)
        if isinstance(submission, Submission)
        for name, answer in submission.answers.items()
        if not answer.missing and name not in submission.untouched
    ]
    done: dict[tuple[int, str], ExerciseGrade] = {}
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        running = {pool.submit(run.exercise, sub, answer): (k, answer.exercise) for k, sub, answer in todo}
        ended = as_completed(running)
        try:
            for future in tqdm(ended, "grading", len(running), unit="exercise", disable=not progress, leave=False):
                key = running[future]
                try:
                    done[key] = future.result()
                except Exception as error:  # noqa: BLE001 - one exercise never ends the grading of others
                    done[key] = _nothing(key[1], f"could not be graded ({type(error).__name__}): please report this")
        except BaseException:
            for future in running:
                future.cancel()
            raise
    return done


# ---- what there is to grade ---------------------------------------------------------------------------------------


def find_notebooks(paths: Sequence[Path], lessons: Sequence[str]) -> list[Found]:
    """The notebooks in ``paths``, and whose they are.

    In a folder, the first folder below it names the learner; where notebooks lie side by side, what their names have
    beside the lesson's does. Lessons (the pages to read) are left out. Raises ConfigurationError.
    """
    found: list[Found] = []
    for path in paths:
        if path.is_dir():
            named = _plain_name(path) if len(paths) > 1 else ""
            inside = [Found(p, _learner(p, path, lessons) or named) for p in _notebooks_in(path)]
            if not inside:
                raise ConfigurationError(
                    f"{path} holds no notebook with exercises (.ipynb); give a notebook or a folder of them"
                )
            found += inside
        elif path.exists():
            found.append(Found(path, _rest_of_name(path, lessons)))
        else:
            raise ConfigurationError(f"there is no {path}; give a notebook or a folder of them")
    first: dict[Path, Found] = {}
    for one in found:
        first.setdefault(one.path.resolve(), one)
    return list(first.values())


def nothing_from(paths: Sequence[Path], found: Sequence[Found]) -> list[NotebookGrade]:
    """A line for each learner's folder in which no exercises were found, with what is there instead."""
    lines = []
    there = {one.learner for one in found}
    for path in paths:
        for folder in sorted(path.iterdir()) if path.is_dir() else ():
            if folder.is_dir() and folder.name not in there | _OURS and not folder.name.startswith("."):
                others = sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
                has = f"only {', '.join(others[:3])}" if others else "an empty folder"
                lines.append(NotebookGrade(folder, folder.name, "", "", (), f"no exercises handed in: {has}"))
    return lines


def _plain_name(path: Path) -> str:
    name = path.resolve().name
    return "" if name in _OURS | {"work"} else name


def _notebooks_in(folder: Path) -> Iterable[Path]:
    """Pages with exercises; solutions only where ``folder`` itself is theirs, not in a clone that was handed in."""
    for path in sorted(folder.rglob("*.ipynb")):
        inside = path.relative_to(folder).parts
        top = (folder / inside[0]).parent.resolve() / inside[0]
        if not path.is_file() or not path.resolve().is_relative_to(top):  # no link to another's
            continue
        if any(part.startswith(".") for part in inside) or _kind(path) in ("lesson", "index", "glossary"):
            continue
        # What nbgrader releases is made of the solutions page and still says so: only a clone's folder tells.
        if len(inside) == 1 or path.parent.name != "solutions" or _kind(path) != "solutions":
            yield path


def _kind(path: Path) -> str:
    """The page of the course that a notebook's metadata names, or ""."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8-sig"))["metadata"]["pipelab"]["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _learner(path: Path, folder: Path, lessons: Sequence[str]) -> str:
    inside = path.relative_to(folder).parts
    if len(inside) > 1 and inside[0] not in _OURS:
        return inside[0]
    return _rest_of_name(path, lessons)


def _rest_of_name(path: Path, lessons: Sequence[str]) -> str:
    exam = re.search(r"exam_\d+", path.stem)
    for lesson in (*lessons, *([exam[0]] if exam else [])):
        if lesson in path.stem:
            rest = re.sub(r"\s*\(\d+\)$", "", path.stem.replace(lesson, ""))  # "(1)": what a browser adds to a copy
            return rest.removeprefix(SUFFIX).removesuffix(SUFFIX).strip(" _-.")
    return path.stem


# ---- one exercise -------------------------------------------------------------------------------------------------


def _take(found: Found, templates: Sequence[Template]) -> Submission | str:
    try:
        return read_submission(found.path, templates)
    except UnreadableError as problem:
        return str(problem)


@dataclass(frozen=True)
class _Run:
    """What all exercises of one grading have in common."""

    package: Path
    digest: str
    seed: int
    seconds: float
    pictures: bool

    @property
    def intact(self) -> bool:
        """Whether what is judged by is still what it was."""
        return _digest(self.package, compiled=True) == self.digest

    def exercise(self, submission: Submission, answer: Answer) -> ExerciseGrade:
        """Run one exercise's slice, and have it judged."""
        exercise = find_exercise(answer.exercise)
        cases = tuple((case.part, dict(case.given)) for case in exercise.cases(self.seed))
        setup = (*submission.trusted, *submission.setup)
        cells, notes, seconds = answer.cells, answer.notes, 0.0
        for _ in range(LEANS):
            slice_ = Slice(exercise.name, setup, cells, cases)
            outcome = run_slice(slice_, package=self.package, seconds=self.seconds)
            seconds += outcome.seconds
            verdicts = self._judged(exercise, cases, outcome)
            name = next(filter(None, (_unknown_name(verdict["message"]) for verdict in verdicts.values())), None)
            elsewhere = submission.defining(name, cells) if name else None
            if elsewhere is None:
                break
            # A notebook that was run from top to bottom has it: no honest answer is lost for leaning on another cell.
            cells, notes = (elsewhere, *cells), (*notes, f"it uses {name} from a cell of another exercise")
        parts = tuple(_part(name, points, verdicts[name]) for name, points in exercise.parts.items())
        return ExerciseGrade(exercise.name, exercise.title, parts, notes, seconds=seconds)

    def _judged(self, exercise: Exercise, cases: Sequence[Any], outcome: Outcome) -> dict[str, dict[str, Any]]:
        """The verdicts of a fresh process. One that does not come is no verdict of "right"."""
        if not self.intact:
            why = "not judged: a submission of this run has changed the judge's code; grade again without it"
            return {part: {"message": why} for part in exercise.parts}
        request = {
            "exercise": exercise.name,
            "cases": cases,
            "answers": outcome.answers,
            "ended": outcome.ended,
            "raised": outcome.raised,
            "pictures": self.pictures,
        }
        try:
            judged = subprocess.run(
                [sys.executable, "-P", "-m", "pipelab.teaching.grading.judge"],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=2 * self.seconds,
                env=os.environ
                | {"PYTHONPATH": str(self.package.parent), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
                check=False,
            )
            verdicts: dict[str, dict[str, Any]] = json.loads(judged.stdout)
            return verdicts
        except subprocess.TimeoutExpired:
            why = "its answer took too long to judge"
        except ValueError:
            last = (judged.stderr.strip().splitlines() or ["nothing"])[-1]
            why = f"its answer could not be judged ({last[:200]}): please report this"
        return {part: {"message": why} for part in exercise.parts}


def _unknown_name(message: str) -> str | None:
    found = re.search(r"NameError: name '(\w+)' is not defined", message)
    return found[1] if found else None


def _part(name: str, points: int, verdict: Mapping[str, Any]) -> PartGrade:
    message, picture = verdict["message"], verdict.get("picture", "")
    return PartGrade(name, 0 if message else points, points, message, picture, verdict.get("alt", ""))


def _assemble(
    k: int, found: Found, taken: Submission | str, done: dict[tuple[int, str], ExerciseGrade]
) -> NotebookGrade:
    if isinstance(taken, str):
        return NotebookGrade(found.path, found.learner, "", "", (), taken)
    grades = []
    for name in taken.lesson.exercises:
        exercise, answer = find_exercise(name), taken.answers[name]
        if (k, name) in done:
            grades.append(done[k, name])
            continue
        if answer.missing:
            names = " and ".join(exercise.answers)
            message = f"no answer: no cell defines {names}; copy the exercise's cell back from exercises/"
        else:
            message = "not attempted yet"
        grades.append(_nothing(name, message, () if name in taken.untouched else answer.notes))
    title = f"{taken.lesson.number} · {taken.lesson.title}"
    return NotebookGrade(found.path, found.learner, taken.lesson.name, title, tuple(grades))


def _nothing(name: str, message: str, notes: tuple[str, ...] = ()) -> ExerciseGrade:
    exercise = find_exercise(name)
    parts = tuple(PartGrade(part, 0, points, message) for part, points in exercise.parts.items())
    return ExerciseGrade(name, exercise.title, parts, notes)


def _once(notebooks: Sequence[NotebookGrade]) -> tuple[NotebookGrade, ...]:
    """Of several notebooks of one learner to one lesson the best counts; the others are told and count nothing."""
    best: dict[tuple[str, str], NotebookGrade] = {}
    for notebook in notebooks:
        key = (notebook.learner, notebook.lesson)
        if key not in best or notebook.points > best[key].points:
            best[key] = notebook

    def told(notebook: NotebookGrade) -> NotebookGrade:
        counted = best[notebook.learner, notebook.lesson]
        if not notebook.learner or not notebook.lesson or counted is notebook:
            return notebook
        return replace(notebook, exercises=(), problem=f"not counted: {counted.path.name} of the same lesson is")

    return tuple(map(told, notebooks))


def _digest(*folders: Path, compiled: bool = False) -> str:
    """Of everything that grading trusts; ``compiled``: also of what was made of it."""
    told = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*.py*" if compiled else "*.py")):
        told.update(str(path).encode() + path.read_bytes())
    return told.hexdigest()


def _cores() -> int:
    count: Callable[[], Any] = getattr(os, "process_cpu_count", os.cpu_count)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count() or 1
