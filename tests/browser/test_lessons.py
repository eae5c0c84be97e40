"""Each lesson in the browser, from top to bottom, as a learner runs it."""

from __future__ import annotations

import faulthandler

import pytest

from pipelab.teaching.course.source import read_course

from .lab import ROOT, SCREENSHOTS, complaints, open_notebook, outputs, prompts, run_all, shoot_all, wait_idle

LESSONS = [lesson.name for lesson in read_course(ROOT / "course")]


@pytest.mark.slow
@pytest.mark.parametrize("name", LESSONS[::-1])  # the longest first: two run at a time
def test_a_lesson_runs_from_top_to_bottom(page, name):
    faulthandler.cancel_dump_traceback_later()  # may take longer than other tests; every wait in here ends by itself
    open_notebook(page, f"notebooks/{name}.ipynb")
    run_all(page)
    wait_idle(page, 400)
    shoot_all(page, SCREENSHOTS / "lessons" / f"{name}.png")
    ran = prompts(page)
    assert ran == [f"[{n}]:" for n in range(1, len(ran) + 1)]
    assert complaints(page) == []
    pictures = outputs(page).locator("img")
    assert pictures.count() > 0
    assert all(picture.get_attribute("alt") for picture in pictures.all())
