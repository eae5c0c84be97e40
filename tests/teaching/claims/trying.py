"""The cells that settle claims, taken from the pages and run here as they stand, or damaged."""

from __future__ import annotations

import functools
from pathlib import Path

from pipelab.teaching.course.source import read_lesson

COURSE = Path(__file__).parents[3] / "course"


@functools.cache
def pages():
    return {path.stem: read_lesson(path) for path in sorted(COURSE.glob("12*.py"))}


@functools.cache
def cells():
    """Claim -> (what its page runs before, other trials left out; the cell that settles it)."""
    found = {}
    for lesson in pages().values():
        before = []
        for cell in lesson.page("lesson"):
            if cell.kind == "code" and ".settle(" not in cell.text:
                before.append(cell.text)
            for piece in cell.text.split('verdicts.settle("')[1:] if cell.kind == "code" else ():
                found[piece.partition('"')[0]] = ("\n\n".join(before), cell.text)
    return found


def settled(name, *damage):
    """The claim as its cell settles it. ``damage``: pairs (a piece of the cell, what stands there instead)."""
    before, cell = cells()[name]
    for old, new in damage:
        assert old in cell, f"{old!r} is not in the cell of {name}"
        cell = cell.replace(old, new)
    space = {"__name__": "__main__"}
    exec(before, space)
    exec(cell, space)
    return space["verdicts"].settled[name]
