"""The course in a real browser: JupyterLab as ``make lab`` starts it, on a freshly filled work folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")

from playwright.sync_api import TimeoutError, sync_playwright

from pipelab.course.work import fill_work

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learner") / "work"
    fill_work(ROOT, folder)
    return folder


@pytest.fixture(scope="module")
def lab(work, tmp_path_factory):
    """The address of a JupyterLab that looks at ``work`` with the options of the Makefile."""
    home = tmp_path_factory.mktemp("home")
    recipe = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "jupyter lab " in line)
    options = [word for word in recipe.split() if word.startswith("--") and "root_dir" not in word]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{kind}_DIR": str(home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{kind}_DIR": str(home / kind) for kind in ("WORKSPACES", "SETTINGS")}
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={work}"),
            *("--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token="),
        ],
        env=os.environ | places,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api").close()
                break
            except OSError:
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser):
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    opened.set_default_timeout(60_000)
    yield opened
    opened.close()


def cell(page, text):
    """The cell whose source holds ``text``, brought into view (JupyterLab draws what is in view)."""
    found = page.locator(".jp-CodeCell", has_text=text).first
    found.scroll_into_view_if_needed()
    return found


def run_all(page):
    """Run all cells; again if the page was not listening yet."""
    for _ in range(5):
        page.keyboard.press("Escape")
        page.get_by_text("Run", exact=True).first.click()
        page.get_by_text("Run All Cells", exact=True).click()
        try:
            page.wait_for_function(
                "() => [...document.querySelectorAll('.jp-InputPrompt')].some(e => /[*\\d]/.test(e.textContent))",
                timeout=5000,
            )
            return
        except TimeoutError:
            continue
    raise AssertionError("nothing runs")


def wait_idle(page):
    page.wait_for_function(
        "() => { const p = [...document.querySelectorAll('.jp-InputPrompt')].map(e => e.textContent);"
        " return p.length && !p.some(t => t.includes('*')); }",
        timeout=120_000,
    )


def test_make_lab_opens_lesson_0_and_a_guess_is_kept(lab, page, work):
    page.goto(lab)
    page.wait_for_selector(".jp-Notebook")
    assert "notebooks/00_start_here.ipynb" in page.url
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    assert page.locator(".jp-Dialog").count() == 0, "a kernel is asked for"
    run_all(page)
    field = page.locator(".jp-OutputArea input[type=text]").first
    field.wait_for()
    field.fill("forty")
    field.press("Enter")
    page.get_by_text("that is not a number; try 42.5 or 3/7").wait_for()
    field.fill("40 %")
    page.get_by_role("button", name="Commit").click()
    page.get_by_text("committed: 40 %").wait_for()
    assert json.loads((work / "guesses.json").read_text())[0]["guess"] == 40
    wait_idle(page)
    asked = cell(page, 'reveal("00-idle"')  # ran before there was a guess: once more
    asked.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    asked.locator("td", has_text="40 %").first.wait_for()
    assert json.loads((work / "guesses.json").read_text())[0]["measurement"] == pytest.approx(300 / 7)


def test_a_failed_check_is_a_sentence_and_the_link_back_works(lab, page):
    page.goto(f"{lab}/lab/workspaces/another/tree/exercises/00_start_here_exercises.ipynb")
    page.wait_for_selector(".jp-Notebook")
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    run_all(page)
    said = page.locator(".jp-OutputArea-output", has_text="Not yet.").first
    said.wait_for()
    text = said.inner_text()
    assert re.match(r"Not yet\. utilisation is not written yet", text)
    assert "Traceback" not in text
    hint = page.locator("summary", has_text="Hint 1: a nudge").first
    hint.scroll_into_view_if_needed()
    hint.click()
    page.locator(".jp-RenderedMarkdown details[open]", has_text="All devices count together").wait_for()
    link = page.get_by_role("link", name="Lesson 0").first
    link.scroll_into_view_if_needed()
    link.click()
    page.locator(".jp-RenderedMarkdown:visible", has_text="A model that is too large for one device").first.wait_for()
