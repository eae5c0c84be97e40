"""Timelines that are played, linked with what stands beside them, and saved, in a real JupyterLab.

``make test`` runs three of these where it finds a browser, ``make test-browser`` all.
"""

from __future__ import annotations

import re

import pytest

from pipelab import Costs, build_schedule, simulate
from pipelab.timeline.waits import Waits
from pipelab.view import palette
from pipelab.view.words import lanes_note

from .lab import run_cell
from .test_widgets import opened, turn, widget

try:
    from playwright.sync_api import expect
except ImportError:
    expect = None

# ---- played --------------------------------------------------------------------------------------------------------

CLOCK = "1f1b', devices=4, microbatches=8"


def clock(found):
    """The time that is shown, as it stands beside the buttons."""
    return float(found.get_by_label("Time of the step").input_value())


def test_a_timeline_is_played_paused_stepped_and_scrubbed(notebook_with):
    page = opened(notebook_with, f"TimelineView(simulate(build_schedule('{CLOCK}), Costs(forward=1, backward=2)))")
    found = widget(page, "timeline")
    devices, say = found.locator(".pl-devices"), found.locator(".pl-say")
    expect(devices).to_be_hidden()
    found.get_by_role("button", name="Play", exact=True).click()
    expect(devices).to_be_visible()
    page.wait_for_function(
        "root => Number(root.querySelector('input[type=number]').value) > 1.5", arg=found.element_handle()
    )
    before = clock(found)
    page.wait_for_timeout(400)
    assert clock(found) > before
    found.get_by_role("button", name="Pause").click()
    stopped = clock(found)
    page.wait_for_timeout(300)
    assert clock(found) == stopped < 33
    assert float(found.get_by_role("slider", name="Time", exact=True).input_value()) == pytest.approx(stopped, rel=1e-3)
    found.get_by_role("button", name="One step forward").click()
    timeline = simulate(build_schedule("1f1b", 4, 8), Costs(forward=1, backward=2))
    assert clock(found) == next(moment for moment in Waits(timeline).moments if moment > stopped)
    found.get_by_role("slider", name="Time", exact=True).fill("32.5")
    expect(say).to_contain_text("t = 32.5 units, 63 of 64 actions done. Running: 0B7.")
    found.get_by_label("Speed").select_option("4")
    found.get_by_role("application").focus()
    page.keyboard.press("Space")
    expect(say).to_contain_text("t = 33 units, 64 of 64 actions done.")
    expect(found.get_by_role("button", name="Play", exact=True)).to_be_visible()
    page.keyboard.press("Space")  # from its end it begins again
    page.wait_for_function(
        "root => Number(root.querySelector('input[type=number]').value) < 20", arg=found.element_handle()
    )
    page.keyboard.press("Escape")
    expect(devices).to_be_hidden()


@pytest.mark.slow
def test_what_is_to_play_begins_by_itself_but_not_for_who_wants_less_motion(notebook_with):
    timeline = f"TimelineView(simulate(build_schedule('{CLOCK})), play=True)"
    page = opened(notebook_with, timeline)
    found = widget(page, "timeline")
    expect(found.get_by_role("button", name="Pause")).to_be_visible()
    page.emulate_media(reduced_motion="reduce")
    run_cell(page, "TimelineView")
    found = widget(page, "timeline")
    page.wait_for_timeout(500)
    expect(found.get_by_label("Time of the step")).to_have_value("")
    play = found.get_by_role("button", name="Play", exact=True)
    found.get_by_label("Speed").select_option("2")
    play.click()
    seen = set()
    for _ in range(30):
        seen.add(found.get_by_label("Time of the step").input_value())
        page.wait_for_timeout(60)
    assert {"0", "1", "2"} <= seen
    assert all(float(time).is_integer() for time in seen), "it steps from event to event, and shows nothing between"


@pytest.mark.slow
def test_messages_fly_and_activations_pile_up(notebook_with):
    """What the devices' canvas shows, in pixels: with slow messages something is on its way between two boxes."""
    page = opened(notebook_with, "TimelineView(simulate(build_schedule('gpipe', 2, 4), Costs(latency=1)))")
    found = widget(page, "timeline")
    time = found.get_by_role("slider", name="Time", exact=True)
    sights = {}
    for at in ("1.2", "1.8", "3.5", "12.9"):
        time.fill(at)
        sights[at] = found.locator(".pl-devices canvas").evaluate("canvas => canvas.toDataURL()")
    assert len(set(sights.values())) == len(sights)


# ---- messages in lanes ---------------------------------------------------------------------------------------------

BARS = """(root, colour) => {
  const canvas = root.querySelector(".pl-canvas canvas");
  const sharp = canvas.width / canvas.clientWidth;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const rows = new Map();
  for (let k = 0; k < data.length; k += 4) {
    if (!colour.every((part, c) => data[k + c] === part)) continue;
    const y = Math.floor(k / 4 / canvas.width / sharp);
    rows.set(y, (rows.get(y) || 0) + 1 / sharp);
  }
  return [...rows];
}"""
ACTIVATION, GRADIENT = (
    [int(palette.MESSAGES[kind][k : k + 2], 16) for k in (1, 3, 5)] for kind in ("activation", "gradient")
)


def test_lanes_show_what_each_device_sends_and_receives(notebook_with):
    """Two devices, 4 messages of a unit each way: 4 bars a lane, a unit wide, in two lanes on each device."""
    slow = "simulate(build_schedule('gpipe', 2, 4), Costs(latency=1))"
    page = opened(notebook_with, f"TimelineView({slow}, lanes=True)")
    found = widget(page, "timeline")
    note = lanes_note(simulate(build_schedule("gpipe", 2, 4), Costs(latency=1)))
    expect(found).to_contain_text(note)
    expect(found.get_by_role("img")).to_have_attribute("aria-label", re.compile(re.escape(note)))
    expect(found.locator(".pl-legend")).to_contain_text("gradient under way")
    wide = found.get_by_role("application").bounding_box()["width"] - 92 - 92  # without what stands beside the rows
    for colour in (ACTIVATION, GRADIENT):
        bars = [length for _, length in found.evaluate(BARS, colour) if length > 20]
        assert len(bars) == pytest.approx(2 * 7, abs=2)  # sent by one, received by the other
        assert bars == pytest.approx([4 * wide / 12] * len(bars), rel=0.1)
    play, save = (found.get_by_role("button", name=name).bounding_box()["y"] for name in ("Play", "Save"))
    assert play == pytest.approx(save, abs=4), "all tools have room on one line of 960"
    stage, say = found.get_by_role("application"), found.locator(".pl-say")
    high = stage.bounding_box()["height"]
    x = 92 + wide * 1.5 / 12  # the first message is on its way from 1 to 2
    bars = sorted(y for y, _ in found.evaluate(BARS, ACTIVATION))
    for y in (bars[1], bars[-2]):
        stage.hover(position={"x": x, "y": 20})
        expect(say).to_contain_text("0F1")
        stage.hover(position={"x": x, "y": y})
        expect(say).to_have_text(
            "Activation of 0F0 for 1F0, from device 0 to device 1: sent at t = 1, there at t = 2. Device 1 works in "
            "0.0% of this time: that part is hidden."
        )
    found.get_by_role("checkbox", name="messages").uncheck()
    expect(found).not_to_contain_text("Lanes below a row")
    assert found.evaluate(BARS, ACTIVATION) == []
    assert found.get_by_role("application").bounding_box()["height"] < high


@pytest.mark.slow
def test_the_explorer_has_lanes_of_what_it_compares(notebook_with):
    page = opened(notebook_with, "explore('gpipe', compare='1f1b', free=['L'], L=1)")
    found = widget(page, "explorer")
    found.get_by_role("checkbox", name="messages").check()  # at once: what they show is still on its way
    expect(found).to_contain_text("of the messages' time is hidden")
    assert found.evaluate(BARS, ACTIVATION)
    turn(found, "Latency of a message (units)", 0)
    expect(found).to_contain_text("No message takes any time.")
    assert found.evaluate(BARS, ACTIVATION) == []


# ---- linked --------------------------------------------------------------------------------------------------------


def test_what_is_pointed_at_is_lit_in_the_table_and_in_the_account(notebook_with):
    page = opened(notebook_with, f"TimelineView(simulate(build_schedule('{CLOCK}), Costs(forward=1, backward=2)))")
    found = widget(page, "timeline")
    stage, order, account = found.get_by_role("application"), found.locator(".pl-order"), found.locator(".pl-account")
    stage.focus()
    expect(order.locator("[aria-current=true]")).to_have_text("0F0")
    page.keyboard.press("ArrowDown")
    for _ in range(6):
        page.keyboard.press("ArrowRight")
    expect(order.locator("[aria-current=true]")).to_have_text("1F3")
    expect(order.locator(".pl-needs")).to_have_text(["0F3"])
    expect(order.locator(".pl-taker")).to_have_text(["1B3", "2F3"])
    expect(found.locator(".pl-say")).to_contain_text("The device holds this micro-batch from t = 10 until t = 19")
    expect(account).to_contain_text("device 1: 33 units")
    expect(account.locator("[aria-current=true]")).to_have_text("work 24 = m (tF + tB)")
    page.keyboard.press("Home")
    expect(account.locator("[aria-current=true]")).to_have_text("fill 1")
    expect(account).to_contain_text("idle 9 = (p − 1) (tF + tB)")
    page.keyboard.press("End")
    expect(account.locator("[aria-current=true]")).to_have_text("drain 2")
    order.get_by_role("cell", name="3B7", exact=True).click()
    expect(found.locator(".pl-say")).to_contain_text("3B7: backward of micro-batch 7")
    expect(account).to_contain_text("device 3")


SHARE = """root => {
  const over = root.querySelectorAll(".pl-canvas canvas")[1];
  const sharp = over.width / over.clientWidth;
  const lit = [];
  for (let y = 128; y < 150; y += 1) {
    const row = over.getContext("2d").getImageData(0, Math.round(y * sharp), over.width, 1).data;
    lit.push([...Array(over.width).keys()].filter((x) => row[4 * x + 3] > 60).length / sharp);
  }
  return Math.max(...lit);
}"""


@pytest.mark.slow
def test_a_block_lights_its_share_of_the_memory_strip(notebook_with):
    page = opened(notebook_with, f"TimelineView(simulate(build_schedule('{CLOCK})))")
    found = widget(page, "timeline")
    stage = found.get_by_role("application")
    wide = stage.bounding_box()["width"] - 92 - 92  # without what stands beside the rows
    assert found.evaluate(SHARE) == 0
    found.locator(".pl-order").get_by_role("cell", name="1F0", exact=True).click()
    held = found.evaluate(SHARE)
    assert held == pytest.approx(wide * (7 - 1) / 22, abs=6), "device 1 holds micro-batch 0 from t = 1 until t = 7"


@pytest.mark.slow
def test_a_timeline_is_saved_as_a_picture_and_as_an_animation(notebook_with, work):
    page = opened(notebook_with, "TimelineView(simulate(build_schedule('gpipe', 2, 3)))")
    found = widget(page, "timeline")
    for kind, suffix in (("picture", "png"), ("svg", "svg"), ("gif", "gif")):
        found.get_by_label("What to save").select_option(kind)
        found.get_by_role("button", name="Save").click()
        name = re.compile(rf"Saved as (gpipe\S*\.{suffix}), beside this notebook")
        expect(found).to_contain_text(name, timeout=30_000)
        assert (work / "trials" / name.search(found.inner_text())[1]).stat().st_size > 1000


# ---- in the explorer and on the board --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_explorer_plays_what_it_compares_on_one_clock_and_what_it_links_has_a_table_each(notebook_with):
    page = opened(notebook_with, "explore('gpipe', compare='1f1b', free=['m'])")
    found = widget(page, "explorer")
    found.get_by_role("button", name="Play", exact=True).click()  # at once: what it takes is still on its way
    found.get_by_role("button", name="Pause").click()
    found.get_by_role("slider", name="Time", exact=True).fill("4.5")
    say = found.locator(".pl-picture .pl-say")
    expect(say).to_contain_text("GPipe: p = 4 devices, m = 4 micro-batches: t = 4.5 units")
    expect(say).to_contain_text("1F1B: p = 4 devices, m = 4 micro-batches: t = 4.5 units")
    found.locator(".pl-order").get_by_role("cell", name="2B0", exact=True).last.click()
    expect(found.locator(".pl-order table").nth(1).locator("[aria-current=true]")).to_have_text("2B0")
    expect(found.locator(".pl-account")).to_contain_text("1F1B: p = 4 devices, m = 4 micro-batches, device 2: 14 units")
    found.get_by_role("spinbutton", name="Micro-batches m", exact=True).fill("8")
    expect(found.locator(".pl-devices")).to_be_hidden()  # another run: its clock has not begun


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "source", "name"),
    [
        ("explorer", "explore('1f1b', free=['m'], devices=2, microbatches=2)", "measured, device 1"),
        ("board", "draw_schedule(2, 2, csv='0F0,0F1,,0B0,,0B1\\n,1F0,1B0,1F1,1B1,\\n')", "device 1"),
    ],
    ids=["explorer", "board"],
)
def test_what_was_run_is_played_and_saved(notebook_with, work, kind, source, name):
    page = opened(notebook_with, source)
    found = widget(page, kind)
    found.get_by_role("button", name="Run it").click()
    expect(found).to_have_attribute("data-run", "done", timeout=90_000)
    found.get_by_label("Speed").select_option("4")
    found.get_by_role("button", name="Play", exact=True).click()
    expect(found.locator(".pl-devices canvas")).to_be_visible()
    found.get_by_role("button", name="Pause").click()
    stage = found.get_by_role("application")
    stage.focus()
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect(found.locator(".pl-account")).to_contain_text(name)
    found.get_by_label("What to save").select_option("gif")
    found.get_by_role("button", name="Save").click()
    saved = re.compile(r"Saved as (\S+\.gif), beside this notebook")
    expect(found).to_contain_text(saved, timeout=30_000)
    assert (work / "trials" / saved.search(found.inner_text())[1]).read_bytes().startswith(b"GIF89a")
