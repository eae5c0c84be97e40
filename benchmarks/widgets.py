"""How long a learner waits: from turning a control to the new picture, in a real JupyterLab and a real Chromium.

For p = 8, m = 32 the median of single turns, what a dragged slider leaves behind, and the largest schedule that should
stay usable (p = 16, m = 128, v = 2). Times are milliseconds, read in the browser: from the event of the control to the
frame in which the new picture stands. Needs a Chromium and playwright (``make test-browser`` installs the latter).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.browser.lab import FLAGS, Lab, chromium, missing, open_notebook, run_all, wait_idle

TURN = """async ([name, value]) => {
  const root = document.querySelector(".pl-explorer");
  const slider = root.querySelector(`[data-control="${name}-slider"]`);
  const drawn = () => Number(root.dataset.drawn || 0);
  const before = drawn();
  slider.value = String(value);
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  while (drawn() === before) await new Promise((done) => setTimeout(done, 4));
  const found = {waited: Number(root.dataset.latency), draw: Number(root.dataset.draw)};
  await new Promise((done) => setTimeout(done, 600)); // a hand rests, and the curve is computed
  return found;
}"""
DRAG = """async ([name, from, to, every]) => {
  const root = document.querySelector(".pl-explorer");
  const slider = root.querySelector(`[data-control="${name}-slider"]`);
  const drawn = () => Number(root.dataset.answers || 0);
  const before = drawn();
  for (let value = from; value <= to; value += 1) {
    slider.value = String(value);
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    await new Promise((done) => setTimeout(done, every));
  }
  const last = performance.now();
  const shown = () => root.querySelector(".pl-timeline h3, .pl-picture h3").textContent;
  while (!shown().includes(`m = ${to} `)) await new Promise(requestAnimationFrame);
  const waited = performance.now() - last;
  await new Promise((done) => setTimeout(done, 600));
  return {events: to - from + 1, answers: drawn() - before, waited};
}"""


def explorer(page, work, source):
    """A notebook with one explorer, open and run."""
    path = work / "bench.ipynb"
    python = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [new_code_cell(f"from pipelab import explore\n{source}")]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": python}), path)
    open_notebook(page, "bench.ipynb")
    run_all(page)
    wait_idle(page)
    page.locator(".pl-explorer canvas").first.wait_for()
    page.wait_for_timeout(1500)


def told(name, values):
    deciles = quantiles(values, n=10)
    print(f"{name:<58} median {median(values):6.1f} ms, nine of ten below {deciles[-1]:6.1f} ms ({len(values)} turns)")


def main() -> None:
    if why := missing():
        sys.exit(why)
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        work, home = Path(folder) / "work", Path(folder) / "home"
        work.mkdir()
        home.mkdir()
        lab = Lab(work, home)
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            context = browser.new_context(base_url=lab.address, viewport={"width": 1400, "height": 1000})
            context.request.get(f"/api/status?token={lab.token}")
            page = context.new_page()
            for name, chunks in (("1f1b", ""), ("interleaved", ", chunks=2")):
                explorer(page, work, f"explore({name!r}, devices=8, microbatches=32, free=['m', 'tB']{chunks})")
                turns = [page.evaluate(TURN, ["microbatches", m]) for _ in range(3) for m in (24, 32, 40, 32)]
                turns += [page.evaluate(TURN, ["backward", 1 + k / 10]) for k in range(1, 21)]
                told(f"{name}, p = 8, m = 32: control to picture", [turn["waited"] for turn in turns])
                told("    of it drawing", [turn["draw"] for turn in turns])
            explorer(page, work, "explore('1f1b', devices=8, microbatches=32, free=['m'])")
            drag = page.evaluate(DRAG, ["microbatches", 8, 68, 16])
            print(
                f"a slider dragged over {drag['events']} values in 1 s: {drag['answers']} pictures, the last "
                f"{drag['waited']:.0f} ms after the last event"
            )
            explorer(page, work, "explore('interleaved', devices=16, microbatches=112, chunks=2, free=['m'])")
            turns = [page.evaluate(TURN, ["microbatches", m]) for m in (128, 112, 128, 112, 128)]
            told("interleaved, p = 16, m = 128, v = 2: control to picture", [turn["waited"] for turn in turns])
            told("    of it drawing", [turn["draw"] for turn in turns])
        finally:
            browser.close()
            lab.close()


if __name__ == "__main__":
    main()
