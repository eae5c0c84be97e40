"""The panel follows the steps, at most twice a second, and is a plain table where widgets do not run."""

from __future__ import annotations

import json

from pipelab import Monitor
from pipelab.tuning.monitor import panel as module
from tests.tuning.monitor.watched import BATCH, watched


def html(panel):
    return json.loads(panel.view)["html"]


def test_it_is_written_anew_while_steps_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monitor = Monitor(every=1)
    panel = monitor.panel()
    assert html(panel) == "<p>no step yet</p>"
    with watched(monitor, steps=1) as pipeline:
        first = html(panel)
        assert "1f1b, step 0" in first and first.count("<th>device ") == 3 and "fill and drain" in first
        pipeline.step(*BATCH)
        assert html(panel) == first
        now[0] += 0.5
        pipeline.step(*BATCH)
        assert "step 2" in html(panel)


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
