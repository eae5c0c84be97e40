"""The house stands as CONTRIBUTING.md draws it: the picture there is read here, and every import is held against it."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pipelab"
MOST_ENTRIES, MOST_LINES = 15, 400

LONG_MODULES: dict[str, str] = {}
"""Modules that may be longer, each with its reason; there is none."""
FULL_FOLDERS: dict[str, str] = {
    "pipelab/teaching/exercises": "a folder for each of the 14 lessons, and the two files that all share"
}
"""The same of folders, each with its reason."""


# ---- who imports whom ------------------------------------------------------------------------------------------------


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(name: str, text: str, is_folder: bool = False) -> set[str]:
    """All modules that a source names in an import: anywhere in it, type-checking ones and relative ones too.

    In an ``__init__`` a module's dotted name in quotes counts as well: doors (``_HOMES``) load by it. That Python runs
    the ``__init__`` of each folder on the way does not.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = name.split(".")[: (1 if is_folder else 0) - node.level or None] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            inside = {f"{source}.{alias.name}" for alias in node.names}
            found |= inside & set(FILES) or {source}
            found |= {source} if inside - set(FILES) else set()
        elif is_folder and isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            found |= {node.value} & set(FILES)
    return found


IMPORTED = {name: imported(name, path.read_text(), path.name == "__init__.py") for name, path in FILES.items()}
GRAPH = {name: found & set(FILES) - {name} for name, found in IMPORTED.items()}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pipelab.errors", {"pipelab.errors"}),
        ("from pipelab.view import picture, plot_table", {"pipelab.view", "pipelab.view.picture"}),
        ("from pipelab.view import picture", {"pipelab.view.picture"}),
        ("from . import page, rows", {"pipelab.view.page", "pipelab.view.rows"}),
        ("from .page import draw", {"pipelab.view.page"}),
        ("from ..errors import PipelabError", {"pipelab.errors"}),
        ("if TYPE_CHECKING:\n    import torch", {"torch"}),
        ("def f():\n    import pipelab.version", {"pipelab.version"}),
    ],
)
def test_every_kind_of_import_is_seen(text, found):
    assert imported("pipelab.view.table", text) == found
    if "from ." not in text:
        assert imported("pipelab.view", text, is_folder=True) == found


def test_from_its_init_a_folder_is_one_dot_and_a_door_imports_what_it_names():
    assert imported("pipelab.view", "from .page import draw", is_folder=True) == {"pipelab.view.page"}
    text = "_HOMES = {'pipelab.tuning.tuner': ['tune']}"
    assert imported("pipelab", text, is_folder=True) == {"pipelab.tuning.tuner"}
    assert imported("pipelab.tuning.profile", text) == set()


def test_no_modules_import_each_other_in_a_circle():
    found = circle(GRAPH)
    assert not found, f"a circle of imports: {' imports '.join(found)}"


def test_a_circle_is_found():
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == {"a", "b", "c"}


# ---- the picture in CONTRIBUTING.md ----------------------------------------------------------------------------------


class Row(NamedTuple):
    """One line of the picture: a floor, a letter where rows of a floor stand upon each other, what lives there."""

    floor: int
    letter: str
    paths: tuple[str, ...]
    under_torch: bool

    def may_import(self, other: "Row") -> bool:
        """Itself, lower floors, and of its own floor rows with an earlier letter."""
        beneath = other.floor == self.floor and self.letter > other.letter > ""
        return other == self or other.floor < self.floor or beneath

    def __str__(self) -> str:
        return f"{self.floor}{self.letter} {', '.join(self.paths)}"


def picture() -> list[str]:
    """The lines of the picture: the first block of the section."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## The house")[2]
    return section.split("```")[1].strip("\n").splitlines()


def read_rows(lines: list[str]) -> list[Row]:
    """The rows. A path after the first is said from the folder that the first one is in."""
    rows, under = [], False
    for line in lines:
        under = under or bool(re.match(r"\s*- .* torch - ", line))
        found = re.match(r"\s*(\d)([a-z]?)\s+(pipelab/\S*(?:, \S+)*)\s{2,}\S", line)
        if found:
            first, *others = found[3].split(", ")
            folder = first.rstrip("/").rpartition("/")[0]
            paths = (first, *(f"{folder}/{other}" for other in others))
            rows.append(Row(int(found[1]), found[2], paths, under))
    return rows


ROWS = read_rows(picture())


def row_of(name: str) -> Row:
    """The row with the longest path that leads to a module."""
    path = FILES[name].relative_to(ROOT).as_posix()
    leading = [(len(own), row) for row in ROWS for own in row.paths if path == own or (own[-1] == "/" and own in path)]
    assert leading, f"{path} stands on no floor of the picture in CONTRIBUTING.md"
    return max(leading, key=lambda pair: pair[0])[1]


def test_the_picture_fits_on_one_screen():
    lines = picture()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100


def test_the_picture_names_what_there_is_each_once():
    named = [path for row in ROWS for path in row.paths]
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert len(set(named)) == len(named)
    assert {row.floor for row in ROWS} == set(range(8))
    assert {row.under_torch for row in ROWS} == {True, False}
    empty = set(ROWS) - set(map(row_of, FILES))
    assert not empty, f"rows in which nothing lives: {[*map(str, empty)]}"


def test_every_module_imports_only_what_stands_lower():
    wrong = [
        f"{name} ({row_of(name)}) imports {other} ({row_of(other)})"
        for name, others in GRAPH.items()
        for other in sorted(others)
        if not row_of(name).may_import(row_of(other))
    ]
    assert not wrong, "\n".join(wrong)


def test_under_the_torch_line_nothing_imports_torch():
    wrong = [
        name
        for name, found in IMPORTED.items()
        if row_of(name).under_torch and any(x.split(".")[0] == "torch" for x in found)
    ]
    assert wrong == []


# ---- its size --------------------------------------------------------------------------------------------------------


def test_no_module_is_longer_than_400_lines():
    """Python only: JavaScript, and data that programs wrote, are no modules."""
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in FILES.values()}
    long = {path: lines for path, lines in lengths.items() if lines > MOST_LINES}
    assert long.keys() == LONG_MODULES.keys(), f"longer than {MOST_LINES} lines, or named here and no longer so: {long}"


def entries(folder: Path) -> list[str]:
    """What one sees in a folder: modules, other files and folders; not ``__init__.py``, ``py.typed``, caches."""
    unseen = ("__init__.py", "py.typed", "__pycache__")
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in unseen and entry.name[0] != ".")


def test_no_folder_shows_more_than_fifteen_entries():
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    full = {path.relative_to(ROOT).as_posix(): len(entries(path)) for path in folders}
    full = {path: count for path, count in full.items() if count > MOST_ENTRIES}
    assert full.keys() == FULL_FOLDERS.keys(), f"more than {MOST_ENTRIES}, or named here and no longer so: {full}"
