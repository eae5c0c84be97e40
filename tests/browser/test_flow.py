"""The timeline of a flow as a widget: it speaks of workers and items, and letters stand for stages."""

from __future__ import annotations

import re

import pytest

from .lab import SCREENSHOTS, outputs, shoot
from .test_widgets import opened, widget

try:
    from playwright.sync_api import expect
except ImportError:
    expect = None

FLOW = """from pipelab.flow import Flow, Resource, Stage
core = Resource("core", 2)
flow = Flow(Stage("map", str, core), Stage("pack", str, core), Stage("write", str, Resource("disk")), name="genome")
TimelineView(flow.predict(8, {"map": 1, "pack": 2, "write": 3}))"""


@pytest.mark.slow
def test_a_flow_is_pointed_at_and_played(notebook_with):
    page = opened(notebook_with, FLOW)
    found = widget(page, "timeline")
    say, stage = found.locator(".pl-say"), found.get_by_role("application")
    expect(found.locator("h3").first).to_have_text("genome: 3 stages, 3 workers, 8 items")
    for name in ("map", "pack", "write"):
        expect(found.locator(".pl-legend")).to_contain_text(name)
    stage.focus()
    page.keyboard.press("Home")
    expect(say).to_contain_text("map 0: item 0 of map, on core 0")
    page.keyboard.press("End")
    expect(say).to_contain_text(re.compile("Core 0 has finished its part; disk runs on until write 7"))
    account = found.locator(".pl-account")
    expect(account).to_contain_text("core 0: 27 s = work")
    assert "m (" not in account.inner_text() and "gives" not in account.inner_text()
    found.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function(
        "root => Number(root.querySelector('input[type=number]').value) > 6", arg=found.element_handle()
    )
    found.get_by_role("button", name="Pause").click()
    shoot(page, SCREENSHOTS / "flow.png")
    expect(say).to_contain_text("actions done")
    found.locator("summary", has_text="As a table").click()
    rows = found.locator(".pl-table tbody tr")
    expect(rows.filter(has=page.get_by_role("cell", name="pack 3", exact=True))).to_contain_text("Takes")
    assert "micro-batch" not in outputs(page).inner_text()
    assert "device" not in outputs(page).inner_text()
