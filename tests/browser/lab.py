"""A real JupyterLab in a real browser, and what a learner does in it: open, run, look at what comes out.

Imports without playwright, so that tests can be collected, and skipped, where there is none.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

try:
    from playwright.sync_api import expect
except ImportError:
    expect = None

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "out" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
SHEET = 2_400  # pixels of height in one screenshot of a long notebook

# What JupyterLab writes to the console on its own, in an empty notebook: text, and why it is no fault of ours.
ALLOWED: dict[str, str] = {}


@cache
def chromium() -> str | None:
    """Where a Chromium is that starts: Ubuntu has one that only says how to get another."""
    for found in filter(None, map(shutil.which, NAMES)):
        if subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return None


@cache
def missing() -> str | None:
    """Why browser tests cannot run here, and what to do about it; None where they can."""
    if chromium() is None:
        return (
            "no Chromium here: browser tests are skipped; on Debian: apt-get install chromium, then make test-browser"
        )
    if expect is None:
        return "no playwright here: browser tests are skipped; make test-browser installs it and runs them"
    return None


@dataclass
class Lab:
    """A JupyterLab on loopback that looks at the folder ``work``. It and its kernels end with ``close``."""

    work: Path
    home: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._settings("apputils-extension/notification", fetchNews="false", checkForUpdates=False)
        lines = (ROOT / "Makefile").read_text().splitlines()
        first = next(re.search(r",([^,)]+)\)$", line) for line in lines if line.startswith("PAGE = "))
        assert first is not None
        recipe = next(line for line in lines if "jupyter lab " in line).replace("$(PAGE)", first[1])
        options = [word for word in recipe.split() if word.startswith("--") and "root_dir" not in word]
        places = {f"JUPYTER_{kind}_DIR": str(self.home / kind) for kind in ("CONFIG", "DATA", "RUNTIME")}
        places |= {f"JUPYTERLAB_{kind}_DIR": str(self.home / kind) for kind in ("WORKSPACES", "SETTINGS")}
        self._log = (self.home / "jupyter.log").open("w")
        self._server = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter", "lab", *options, f"--ServerApp.root_dir={self.work}"),
                *("--no-browser", "--allow-root", f"--port={self.address.rpartition(':')[2]}"),
                f"--IdentityProvider.token={self.token}",
                "--ServerApp.shutdown_no_activity_timeout=300",  # in case this process is killed before close()
            ],
            env=os.environ | places,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        for _ in range(240):
            try:
                self.ask("api/status")
                return
            except OSError:
                time.sleep(0.25)
        self.close()
        raise AssertionError(f"JupyterLab does not answer:\n{(self.home / 'jupyter.log').read_text()}")

    def _settings(self, plugin: str, **values: object) -> None:
        path = self.home / "SETTINGS" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def ask(self, path: str, method: str = "GET") -> object:
        """What the server's REST interface answers."""
        request = urllib.request.Request(f"{self.address}/{path}", method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def stop_kernels(self) -> None:
        for session in self.ask("api/sessions"):
            self.ask(f"api/sessions/{session['id']}", "DELETE")

    def close(self) -> None:
        try:
            family = psutil.Process(self._server.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            family = []
        self._server.terminate()
        try:
            self._server.wait(20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        _, left = psutil.wait_procs(family, timeout=5)
        for process in left:
            process.kill()
        self._log.close()


def open_notebook(page: Page, path: str) -> None:
    """Open ``path`` of the work folder in a workspace of its own, and wait for its kernel."""
    page.goto(f"/lab/workspaces/{secrets.token_hex(4)}/tree/{path}")
    wait_open(page)


def wait_open(page: Page) -> None:
    """Until a notebook is shown and its kernel idles. No dialog may ask for anything."""
    page.wait_for_selector(".jp-Notebook:visible")
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    assert page.locator(".jp-Dialog").count() == 0, "a dialog is open"


def outputs(place: Page | Locator) -> Locator:
    """The output areas of a page or of one cell: nothing in here is found in a source or in the text of the page."""
    return place.locator(".jp-Cell-outputArea")


def complaints(page: Page) -> list[str]:
    """Errors in the output areas, and what was written to stderr: JupyterLab marks both alike."""
    return outputs(page).locator("[data-mime-type='application/vnd.jupyter.stderr']").all_inner_texts()


def cell(page: Page, text: str) -> Locator:
    """The first code cell whose source holds ``text``."""
    source = page.locator(".jp-Cell-inputArea", has_text=text)
    return page.locator(".jp-Notebook:visible .jp-CodeCell").filter(has=source).first


def prompts(page: Page) -> list[str]:
    """What stands before each code cell: ``[ ]:``, ``[*]:`` or ``[3]:``."""
    return page.locator(".jp-Notebook:visible .jp-CodeCell .jp-InputPrompt").all_text_contents()


def wait_for(found: Callable[[], bool], page: Page, seconds: float) -> bool:
    """Whether ``found`` turns true within ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        page.wait_for_timeout(50)
    return False


def run_all(page: Page) -> None:
    """Run all cells, by the menu; again if the page was not listening yet. Does not wait for their end."""
    for _ in range(5):
        page.keyboard.press("Escape")
        page.get_by_role("menubar").get_by_text("Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        if wait_for(lambda: any(re.search(r"[*\d]", prompt) for prompt in prompts(page)), page, 5):
            return
    raise AssertionError("nothing runs")


def wait_idle(page: Page, seconds: float = 120) -> None:
    """Until no cell runs or waits to run."""
    assert wait_for(lambda: not any("*" in prompt for prompt in prompts(page)), page, seconds), prompts(page)


def run_cell(page: Page, text: str, seconds: float = 60) -> Locator:
    """Run the cell whose source holds ``text``, as a learner does, and wait for its end. Returns it."""
    chosen = cell(page, text)
    prompt = chosen.locator(".jp-InputPrompt")
    before = prompt.text_content()
    chosen.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    ran = re.compile(r"\[\d+\]")
    assert wait_for(lambda: (now := prompt.text_content()) != before and bool(ran.search(now)), page, seconds), (
        f"the cell with {text!r} did not run: {prompt.text_content()}"
    )
    return chosen


def shoot(page: Page, path: Path) -> None:
    """A screenshot of the window."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)


def shoot_all(page: Page, path: Path) -> None:
    """Screenshots of the whole notebook, from its top: ``NAME-1.png``, ``NAME-2.png``, ..."""
    size = page.viewport_size
    page.set_viewport_size({"width": size["width"], "height": SHEET})
    panel = page.locator(".jp-NotebookPanel:visible .jp-WindowedPanel-outer")
    panel.evaluate("panel => { panel.scrollTop = 0; }")
    for sheet in range(1, 100):
        page.wait_for_timeout(200)  # cells are laid out as they come into view
        shoot(page, path.with_stem(f"{path.stem}-{sheet}"))
        if page.locator(".jp-Notebook:visible .jp-Cell").last.bounding_box()["y"] < SHEET - 100:
            break
        panel.evaluate("panel => { panel.scrollTop += panel.clientHeight; }")
    page.set_viewport_size(size)


if __name__ == "__main__":
    sys.exit(missing())
