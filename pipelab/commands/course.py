"""``pipelab course``: build the notebooks from their sources, fill a learner's folder, check the sources."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from pipelab.errors import ConfigurationError
from pipelab.teaching.course.beside.faults import Fault
from pipelab.teaching.course.build import FOLDERS, exercises_page, lesson_page, write_notebook
from pipelab.teaching.course.execute import executed, kept
from pipelab.teaching.course.index import write_index
from pipelab.teaching.course.pages.documents import data_faults, documents, read_data_of
from pipelab.teaching.course.rules.exercises import exercise_faults
from pipelab.teaching.course.rules.lesson import lesson_faults
from pipelab.teaching.course.source import Lesson, course_folder, read_course
from pipelab.teaching.course.work import INDEX, fill_work

__all__ = ["add_arguments", "build_course", "check_course", "fill", "index", "run"]

NOT_CHECKED = "whether pages are built and run without errors (make course), pictures and their words (make test)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "what",
        choices=["build", "work", "check"],
        help="build: all pages; work: the learner's folder; check: what is wrong in the sources",
    )
    parser.add_argument("--course", type=Path, metavar="DIR", help="the sources (default: course/ of the repository)")
    parser.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="default work")
    parser.add_argument("--again", action="store_true", help="build: also execute pages whose source is unchanged")
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="build, check: only these, such as 02")
    parser.add_argument("--quick", action="store_true", help="check: do not try solutions and wrong answers")


def run(options: argparse.Namespace) -> int:
    """Build, fill or check."""
    if options.what == "check":
        return 1 if check_course(options.course, only=options.only, quick=options.quick) else 0
    if options.what == "build":
        build_course(options.course, again=options.again, only=options.only)
    else:
        fill(options.work, options.course)
    return 0


def build_course(
    folder: Path | None = None, *, again: bool = False, only: Sequence[str] = (), say: Callable[[str], None] = print
) -> list[Path]:
    """Build all pages; returns those that changed. ``again`` executes unchanged ones too; ``only``: these lessons."""
    sources = course_folder(folder)
    lessons = read_course(sources)
    changed = []
    chosen = _chosen(lessons, only)
    for lesson in tqdm(chosen, desc="lessons", unit="lesson", leave=False):
        for page in FOLDERS:
            path = sources.parent / FOLDERS[page] / f"{lesson.name}.ipynb"
            if _build(lesson, lessons, page, path, again):
                changed.append(path)
                say(f"built {path.parent.name}/{path.name}")
    for path, text in documents(lessons).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
            say(f"built {path.relative_to(sources.parent)}")
    if not changed:
        say("nothing to build: every page is up to date")
    return changed


def _chosen(lessons: Sequence[Lesson], only: Sequence[str]) -> list[Lesson]:
    found = [lesson for lesson in lessons if not only or any(lesson.name.startswith(name) for name in only)]
    if not found:
        names = ", ".join(lesson.name for lesson in lessons)
        raise ConfigurationError(f"no lesson begins with {' or '.join(only)}; lessons are {names}")
    return found


def check_course(
    folder: Path | None = None, *, only: Sequence[str] = (), quick: bool = False, say: Callable[[str], None] = print
) -> list[Fault]:
    """Say what is wrong in the sources and beside them. ``quick``: without trying solutions and wrong answers."""
    from pipelab.teaching.grading.trying import answer_faults

    lessons = read_course(folder)
    chosen, data, root = _chosen(lessons, only), read_data_of(lessons), lessons[0].path.parent.parent
    faults = [] if data is None else data_faults(lessons, data)
    if only:
        faults = [fault for fault in faults if fault.path in {lesson.path for lesson in chosen}]
    for lesson in tqdm(chosen, desc="lessons", unit="lesson", leave=False):
        faults += lesson_faults(lesson, lessons, data.about if data else None)
        faults += exercise_faults(lesson, root)
        faults += () if quick else answer_faults(lesson, root)
    for fault in faults:
        say(str(fault))
    left = "solutions, wrong answers, " if quick else ""
    say(f"{len(chosen)} lessons, {len(faults)} faults. Not checked here: {left}{NOT_CHECKED}")
    return faults


def _build(lesson: Lesson, lessons: Sequence[Lesson], page: str, path: Path, again: bool) -> bool:
    if page == "lesson":
        built = lesson_page(lesson, lessons)
    elif not lesson.exercises:
        return False
    else:
        built = exercises_page(lesson, solved=page == "solutions")
    if page != "exercises":
        path.parent.mkdir(parents=True, exist_ok=True)
        built = (None if again else kept(built, path)) or executed(built, path.parent)
    return write_notebook(built, path)


def fill(work: Path, folder: Path | None = None, *, say: Callable[[str], None] = print) -> None:
    """Copy into ``work`` what is not there yet, and write its index."""
    sources = course_folder(folder)
    added, outdated = fill_work(sources.parent, work)
    index(work, folder, say=say)
    if added:
        say(f"{work}: {len(added)} new file(s); the files that were there are unchanged")
    else:
        say(f"{work}: nothing new")
    for path in outdated:
        say(f"{path}: the course has a newer version; yours is unchanged. Rename yours and repeat this to get it")


def index(
    work: Path,
    folder: Path | None = None,
    graded: Mapping[str, float] | None = None,
    *,
    say: Callable[[str], None] = print,
) -> None:
    """Write the index of ``work``, with the points of exercises that have just been graded."""
    if not write_index(work, read_course(folder), graded):
        say(f"{work / INDEX}: this file is not an index of the course, so it is unchanged; rename it to get one")
