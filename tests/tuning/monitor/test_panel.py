"""The panel follows the steps, at most twice a second, and is a plain table where widgets do not run."""

from __future__ import annotations

import json
import time

from pipelab import Monitor
from pipelab.tuning.monitor import panel as module
from tests.tuning.monitor.watched import BATCH, watched


def html(panel):
    return json.loads(panel.view)["html"]


def test_it_is_written_anew_while_steps_run_and_ends_with_the_last(monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.3)
    monitor, seen = Monitor(every=1), []
    panel = monitor.panel()
    panel.observe(lambda change: seen.append(change), "view")
    assert html(panel) == "<p>no step yet</p>"
    with watched(monitor, steps=1) as pipeline:
        first = html(panel)
        assert "1f1b, step 0" in first and first.count("<th>device ") == 3 and "fill and drain" in first
        begun = time.monotonic()
        for _ in range(20):
            pipeline.step(*BATCH)
        while "step 20:" not in html(panel):
            assert time.monotonic() - begun < 20
            time.sleep(0.01)
        assert len(seen) <= 2 + (time.monotonic() - begun) / 0.3


def test_beside_it_stands_the_table_as_it_is_now(tmp_path, monkeypatch):
    monitor = Monitor()
    panel = monitor.panel()
    assert panel._repr_mimebundle_()[0]["text/plain"] == "no step yet"
    with watched(monitor, steps=2):
        shown, _ = panel._repr_mimebundle_()
    assert shown["text/plain"] == str(monitor.summary())
    assert shown["text/html"].startswith("<table>")
    monkeypatch.chdir(tmp_path)
    assert panel.save("svg").exists()


def test_without_costs_it_tells_what_there_is():
    monitor = Monitor(every=1)
    panel = monitor.panel()
    watched(monitor, steps=1, measure_costs=False)
    assert "costs were not measured" in html(panel) and "sequences/s" in html(panel)
