"""One JupyterLab and one browser for all tests in here; each test gets a page of its own, and kernels of its own."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from pipelab.commands.course import fill

from .lab import ALLOWED, FLAGS, SCREENSHOTS, Lab, chromium, missing, open_notebook, shoot

FAILED = pytest.StashKey[bool]()


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.browser)
    if why := missing():
        item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="package")  # closed with the last test in here: others count what is left running
def work(tmp_path_factory):
    """A learner's folder, freshly filled."""
    folder = tmp_path_factory.mktemp("learner") / "work"
    fill(folder)
    return folder


@pytest.fixture(scope="package")
def lab(work, tmp_path_factory):
    """JupyterLab as ``make lab`` starts it, with folders of its own for all that it keeps."""
    opened = Lab(work, tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield opened
        opened.close()


@pytest.fixture
def page(lab, browser, request):
    """A page that must leave no error in the browser's console. Its last sight is kept in ``out/screenshots/``."""
    context = browser.new_context(base_url=lab.address, viewport={"width": 1400, "height": 1000})
    context.request.get(f"/api/status?token={lab.token}")  # from here on a cookie says who we are
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    faults: list[str] = []
    opened.on("console", lambda said: faults.append(f"{said.text} ({said.location})") if said.type == "error" else None)
    opened.on("pageerror", lambda error: faults.append(str(error)))
    yield opened
    name = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    failed = request.node.stash.get(FAILED, True)
    shoot(opened, SCREENSHOTS / request.path.stem / f"{name}{'-failed' * failed}.png")
    context.close()
    lab.stop_kernels()
    faults = [fault for fault in faults if not any(known in fault for known in ALLOWED)]
    assert not faults, "errors in the browser's console:\n" + "\n".join(faults)


@pytest.fixture
def notebook_with(page, work, request):
    """Call it with the code cells of a small notebook, as texts: it is written, opened, and its page returned."""

    def opened(cells, name=None):
        name = name or re.sub(r"\W+", "_", request.node.name).strip("_")
        path = work / "trials" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        python = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        notebook = new_notebook(cells=[new_code_cell(text) for text in cells], metadata={"kernelspec": python})
        nbformat.write(notebook, path)
        open_notebook(page, f"trials/{path.name}")
        return page

    return opened
