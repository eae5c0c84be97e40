"""Each lesson in the browser, from top to bottom, as a learner runs it."""

from __future__ import annotations

import faulthandler

import nbformat
import pytest

from pipelab.teaching.course.source import read_course

from .lab import ROOT, SCREENSHOTS, complaints, open_notebook, outputs, prompts, run_all, shoot_all, wait_idle

LESSONS = [lesson.name for lesson in read_course(ROOT / "course")]


def folded_cells(name):
    """Which code cells of a lesson, counted from 1, hide their source until it is clicked."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    return {n for n, cell in enumerate(code, 1) if cell.metadata.get("jupyter", {}).get("source_hidden")}


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS[::-1])  # the longest first: two run at a time
def test_a_lesson_runs_from_top_to_bottom(page, name):
    faulthandler.cancel_dump_traceback_later()  # may take longer than other tests; every wait in here ends by itself
    open_notebook(page, f"notebooks/{name}.ipynb")
    run_all(page)
    wait_idle(page, 400)
    shoot_all(page, SCREENSHOTS / "lessons" / f"{name}.png")
    folded = folded_cells(name)  # JupyterLab shows no number before them; the cell behind one has counted it
    ran = prompts(page)
    assert ran == ["" if n in folded else f"[{n}]:" for n in range(1, len(ran) + 1)]
    assert len(ran) not in folded
    assert complaints(page) == []
    pictures = outputs(page).locator("img")
    assert pictures.count() > 0
    assert all(picture.get_attribute("alt") for picture in pictures.all())
