"""The widgets in a real JupyterLab: turned, pointed at, played and run, by mouse and by keyboard.

``make test`` runs three of these where it finds a browser, ``make test-browser`` all.
"""

from __future__ import annotations

import re

import pytest

from pipelab.schedules import build_schedule
from pipelab.teaching.board import PUZZLES, Board, puzzle

from .lab import SCREENSHOTS, cell, outputs, run_all, run_cell, shoot, wait_idle

try:
    from playwright.sync_api import expect
except ImportError:
    expect = None

START = "from pipelab import *"


def widget(page, kind, number=0):
    """A widget in the output areas, once it is drawn."""
    found = outputs(page).locator(f".pl-{kind}").nth(number)
    found.locator("canvas, .pl-cell").first.wait_for()
    return found


def opened(notebook_with, *cells):
    page = notebook_with([f"{START}\n{cells[0]}", *cells[1:]])
    run_all(page)
    wait_idle(page)
    return page


def figure(found, name):
    return found.locator(f"[data-figure={name}]").first


def turn(found, name, value):
    """Type a value into a field, as a learner does."""
    field = found.get_by_role("spinbutton", name=name, exact=True)
    field.fill(str(value))
    field.press("Enter")


# ---- the timeline --------------------------------------------------------------------------------------------------


def test_a_timeline_answers_to_pointer_and_keyboard(notebook_with):
    page = opened(notebook_with, "TimelineView(simulate(build_schedule('1f1b', devices=4, microbatches=8)))")
    found = widget(page, "timeline")
    say, stage = found.locator(".pl-say"), found.get_by_role("application")
    box = stage.bounding_box()
    stage.hover(position={"x": 110, "y": 20})
    expect(say).to_contain_text("0F0: forward of micro-batch 0, stage 0, on device 0")
    expect(say).to_contain_text("1F0 on device 1")
    stage.hover(position={"x": box["width"] / 3, "y": 20})
    expect(say).to_contain_text(re.compile(r"^Idle, 4 to 7 units\. Device 0 waits for 1B0 from device 1"))
    page.mouse.move(0, 0)
    stage.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(say).to_contain_text("Idle, 4 to 7 units")
    page.keyboard.press("ArrowDown")
    expect(say).to_contain_text("Device 1 waits for 2B0 from device 2")
    page.keyboard.press("Escape")
    for _ in range(5):
        page.keyboard.press("]")
    expect(say).to_contain_text("t = 4 units, 10 of 64 actions done. Starting: 3B0.")
    expect(say).to_contain_text("1F3, 2F2, 3F1")
    found.get_by_role("button", name="One step back").click()
    expect(say).to_contain_text("t = 3 units")
    assert page.locator(".jp-CodeCell").count() == 1, "keys reached the notebook"


@pytest.mark.slow
def test_a_timeline_zooms_shows_its_critical_path_and_has_a_twin_in_words(notebook_with):
    page = opened(notebook_with, "TimelineView(simulate(build_schedule('interleaved', 4, 8, chunks=2)))")
    found = widget(page, "timeline")
    slider = found.get_by_role("slider", name="Move the part", include_hidden=True)
    expect(slider).to_be_hidden()
    found.get_by_role("button", name="Zoom in").click()
    expect(slider).to_be_visible()
    slider.focus()
    page.keyboard.press("End")
    found.get_by_role("button", name="Show the whole time").click()
    expect(slider).to_be_hidden()
    found.get_by_role("checkbox", name="critical path").check()
    expect(found.locator(".pl-say")).to_contain_text("Critical path")
    picture = found.get_by_role("img").first
    assert "Makespan 19 units" in picture.get_attribute("aria-label")
    found.locator("summary", has_text="As a table").click()
    rows = found.locator(".pl-table tbody tr")
    backward = rows.filter(has=page.get_by_role("cell", name="4B0", exact=True))
    expect(backward).to_contain_text("backward of micro-batch 0")
    assert rows.count() > 4 * 8 * 2 * 2
    expect(rows.filter(has_text="idle").first).to_contain_text("waits for")


# ---- the explorer --------------------------------------------------------------------------------------------------


TYPED = """root => {
  const field = root.querySelector("[data-control=microbatches]");
  field.value = "6";
  field.dispatchEvent(new Event("input", {bubbles: true}));
  return root.querySelector("[data-control=microbatches-slider]").value;
}"""


def test_a_preset_is_turned_by_field_slider_and_mouse(notebook_with):
    page = opened(notebook_with, "explore('1f1b', free=['m'])")
    found = widget(page, "explorer")
    expect(figure(found, "bubble")).to_have_text("42.9%")
    turn(found, "Micro-batches m", 8)
    expect(figure(found, "bubble")).to_have_text("27.3%")
    slider = found.get_by_role("slider", name="Micro-batches m, slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(found.get_by_role("spinbutton", name="Micro-batches m", exact=True)).to_have_value("9")
    expect(figure(found, "makespan")).to_have_text("24")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 12, box["y"] + box["height"] / 2)
    page.mouse.down()
    for step in range(30):
        page.mouse.move(box["x"] + 12 + step * 4, box["y"] + box["height"] / 2)
    page.mouse.up()
    value = int(slider.input_value())
    assert value > 30
    expect(figure(found, "makespan")).to_have_text(str(2 * (value + 3)))
    assert int(found.get_attribute("data-answers")) <= 34, "each was answered, none was left over"
    expect(found.locator(".pl-curve")).to_have_attribute("data-done", "true")
    expect(found.locator(".pl-curve svg")).to_have_attribute("aria-label", re.compile("Bubble fraction"))
    assert found.evaluate(TYPED) == "6", "the slider goes with the field before the kernel has answered"


@pytest.mark.slow
def test_i_and_w_are_turned_where_a_backward_is_split(notebook_with):
    page = opened(notebook_with, "explore(m=8, tB=2)")
    found = widget(page, "explorer")
    half = found.get_by_role("spinbutton", name="Weights' gradient tW (units)", exact=True)
    expect(half).to_have_count(0)
    found.get_by_label("Schedule", exact=True).select_option("zb-v")
    expect(half).to_have_attribute("placeholder", "tB / 2")
    expect(figure(found, "idle")).to_have_text("0")
    turn(found, "Weights' gradient tW (units)", 0.5)
    expect(found).to_contain_text("Where formula and simulation differ, the formula assumes tF = tI = tW.")
    turn(found, "Weights' gradient tW (units)", "")
    expect(figure(found, "makespan")).to_have_text("25.5")


@pytest.mark.slow
def test_values_out_of_range_and_impossible_settings_explain_themselves(notebook_with):
    page = opened(notebook_with, "explore()")
    found = widget(page, "explorer")
    turn(found, "Micro-batches m", 5000)
    expect(found).to_contain_text("5000 became 128")
    turn(found, "Devices p", -3)
    expect(found).to_contain_text("-3 became 1")
    turn(found, "Devices p", 4)
    turn(found, "Micro-batches m", 9)
    found.get_by_label("Schedule", exact=True).select_option("interleaved")
    problem = found.locator(".pl-problem[role=alert]")
    expect(problem).to_contain_text("m = 9, p = 4 cannot make 2 equal groups; try 8 or 10.")
    problem.get_by_role("button", name="m = 8").click()
    expect(problem).to_be_empty()
    expect(figure(found, "makespan")).to_have_text("19")
    found.get_by_label("Compare with").select_option("1f1b")
    expect(found.get_by_role("columnheader", name="1F1B", exact=True)).to_be_visible()
    found.get_by_role("radiogroup", name="What is fixed").get_by_role("radio", name="the batch, cut into m").check()
    expect(found).to_contain_text("The batch of 64 sequences is fixed: m = 8 cuts it into micro-batches of 8.")
    turn(found, "Limit on activations alone (MB)", 60)
    expect(problem).to_contain_text("Out of memory under Interleaved 1F1B: device 0 would hold")
    expect(found).to_contain_text("Hollow: over the limit on activations.")
    expect(found.locator(".pl-over title").last).to_contain_text("; over the limit on activations")
    problem.get_by_role("button").first.click()
    expect(problem).to_be_empty()
    assert "Traceback" not in found.inner_text()


@pytest.mark.slow
def test_what_is_fixed_is_a_switch_formulas_are_set_and_a_line_opens_the_settings_again(notebook_with):
    page = opened(notebook_with, "explore('gpipe', free=['m'], m=8, fixed='batch')")
    found = widget(page, "explorer")
    expect(found).to_contain_text("The batch of 64 sequences is fixed: m = 8 cuts it into micro-batches of 8.")
    before = figure(found, "memory").inner_text()
    fraction = found.locator("math mfrac").first
    assert fraction.bounding_box()["height"] > 1.5 * found.locator("math mi").first.bounding_box()["height"]
    expect(fraction.locator("mo", has_text="/")).to_be_hidden()
    switch = found.get_by_role("radiogroup", name="What is fixed")
    switch.get_by_role("radio", name="the batch, cut into m").focus()
    page.keyboard.press("ArrowDown")
    expect(switch.get_by_role("radio", name="the micro-batch, 16 sequences")).to_be_checked()
    expect(found).to_contain_text("The micro-batch of 16 sequences is fixed: m = 8 of them make a batch of 128.")
    expect(figure(found, "memory")).not_to_have_text(before)
    line = found.locator("code.pl-code")
    expect(line).to_have_text('explore("gpipe", m=8, free=["m"])')
    found.get_by_role("button", name="Copy this line").click()
    expect(found).to_contain_text(re.compile("Copied|Selected: copy it with Ctrl"))
    found.locator(".pl-figures").scroll_into_view_if_needed()
    shoot(page, SCREENSHOTS / "explorer-fixed.png")


@pytest.mark.slow
def test_run_it_runs_and_lays_measured_over_predicted(notebook_with, work):
    page = opened(notebook_with, "explore('gpipe', free=['m', 'p'], devices=2, microbatches=2)")
    found = widget(page, "explorer")
    run = found.get_by_role("button", name="Run it")
    run.click()
    run.press("Enter")  # twice: one run, and a sentence
    expect(found.get_by_role("button", name="Stop")).to_be_visible()
    expect(found.get_by_role("progressbar")).to_be_visible()
    expect(found).to_have_attribute("data-run", "done", timeout=60_000)
    expect(found).to_contain_text("Its gradients equal those of the unsplit model")
    expect(found).to_contain_text("measured below predicted")
    expect(found.get_by_role("columnheader", name="measured")).to_be_visible()
    for kind, suffix in (("picture", "png"), ("svg", "svg"), ("gif", "gif"), ("csv", "csv"), ("trace", "json")):
        found.get_by_label("What to save").select_option(kind)
        found.get_by_role("button", name="Save").click()
        name = re.compile(rf"Saved as (\S+\.{suffix}), beside this notebook")
        expect(found).to_contain_text(name)
        assert (work / "trials" / name.search(found.inner_text())[1]).stat().st_size > 20
    run.click()
    expect(found).to_have_attribute("data-run", "running")
    turn(found, "Micro-batches m", 3)
    expect(found).to_contain_text("The settings changed, so the run was stopped.")
    assert "Traceback" not in found.inner_text()
    page.wait_for_timeout(1000)
    assert found.get_attribute("data-run") == "stopped", "a stopped run tells nothing more"


@pytest.mark.slow
def test_a_busy_and_a_restarted_kernel_are_told(notebook_with):
    busy = "import time\nwith shown._lock:  # JupyterLab serves widgets beside a cell that runs\n    time.sleep(3)"
    page = opened(notebook_with, "shown = explore('1f1b', free=['m'])\nshown", busy)
    found = widget(page, "explorer")
    again = page.locator(".jp-CodeCell").nth(1)
    again.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    turn(found, "Micro-batches m", 8)
    expect(found).to_contain_text("The kernel is busy")
    expect(figure(found, "bubble")).to_have_text("27.3%")
    expect(found).not_to_contain_text("The kernel is busy")
    page.get_by_role("menubar").get_by_text("Kernel", exact=True).click()
    page.get_by_text("Restart Kernel…", exact=True).first.click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    turn(found, "Micro-batches m", 16)
    expect(found).to_contain_text("Run this cell again")
    cell(page, "shown = explore").locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(figure(widget(page, "explorer"), "bubble")).to_have_text("42.9%", timeout=20_000)
    turn(widget(page, "explorer"), "Micro-batches m", 16)
    expect(figure(widget(page, "explorer"), "bubble")).to_have_text("15.8%")


# ---- the drawing board ---------------------------------------------------------------------------------------------


def solution(name, schedule, chunks=None):
    """The moves that solve a puzzle: (device, time, op) in the order of time."""
    now = puzzle(name)
    rules = now.rules
    board = Board.from_schedule(build_schedule(schedule, rules.devices, rules.microbatches, chunks), rules)
    assert now.verdict(board).done
    moves = sorted((time, action) for action, time in board.starts.items())
    return [(rules.home(action), time, action) for time, action in moves]


def cell_at(found, device, time):
    return found.get_by_role("gridcell", name=re.compile(rf"^device {device}, t = {time}:"))


@pytest.mark.parametrize(
    ("name", "schedule", "words"),
    [
        ("first-steps", "1f1b", "Solved, in 6 columns: this is 1F1B."),
        pytest.param("no-bubble", "zb-h2", "Solved, in 13 columns: this is ZB-H2.", marks=pytest.mark.slow),
    ],
)
def test_a_puzzle_is_played_to_its_end_by_keyboard_and_its_table_trains_the_model(
    notebook_with, work, name, schedule, words
):
    page = opened(notebook_with, f"puzzles('{name}')")
    found = widget(page, "board")
    moves = solution(name, schedule)
    at = [0, 0]
    cell_at(found, 0, 0).focus()
    for placed, (device, time, action) in enumerate(moves):
        for axis, (back, forth) in enumerate((("ArrowUp", "ArrowDown"), ("ArrowLeft", "ArrowRight"))):
            wanted = (device, time)[axis]
            while at[axis] != wanted:
                page.keyboard.press(forth if at[axis] < wanted else back)
                at[axis] += 1 if at[axis] < wanted else -1
        page.keyboard.press(action.op.lower())
        expect(found).to_have_attribute("data-placed", f"{placed + 1}/{len(moves)}")
    expect(found).to_have_attribute("data-done", "true")
    expect(found).to_contain_text(words)
    at = [one.name for one in PUZZLES].index(name)
    title = f"{at + 1}. {puzzle(name).title} (solved)"
    expect(found.get_by_label("Puzzle").locator("option").nth(at)).to_have_text(title)
    assert (work / "trials" / "drawings" / f"puzzle-{name}.csv").exists()
    found.get_by_role("button", name="Run it").click()
    expect(found).to_have_attribute("data-run", "done", timeout=60_000)
    expect(found).to_contain_text(
        re.compile(r"Its gradients are equal to those of the unsplit model: largest error \d\.\de-1\d in float64")
    )


@pytest.mark.slow
def test_a_puzzle_is_played_by_mouse_and_every_refusal_says_why(notebook_with):
    page = opened(notebook_with, "puzzles('memory-wall')")
    found = widget(page, "board")
    say = found.locator(".pl-say")
    moves = solution("memory-wall", "1f1b")
    for placed, (device, time, action) in enumerate(moves):
        cell = cell_at(found, device, time)
        dashed = cell.locator("span").all_text_contents() == [str(action)]
        cell.click()
        if not dashed:  # several could stand there: which is asked
            found.locator(".pl-palette").get_by_role("button", name=f"Place {action}", exact=True).click()
        expect(found).to_have_attribute("data-placed", f"{placed + 1}/{len(moves)}")
        if placed == 2:  # two forwards are under way on device 0: a third has no room, a backward no gradient
            cell_at(found, 0, 2).click()
            found.locator(".pl-palette").get_by_role("button", name=re.compile("^0F2: ")).click()
            expect(say).to_contain_text("its limit is 2")
            found.locator(".pl-palette").get_by_role("button", name=re.compile("^0B0: ")).click()
            expect(say).to_contain_text("0B0 needs 1B0, which is not placed yet")
    expect(found).to_have_attribute("data-done", "true")
    found.get_by_role("button", name="Undo").click()
    expect(found).to_have_attribute("data-placed", f"{len(moves) - 1}/{len(moves)}")
    page.keyboard.press("Control+y")  # the button has the focus, not the board
    found.get_by_role("button", name="Redo").click()
    expect(found).to_have_attribute("data-done", "true")
    found.get_by_role("button", name="Next puzzle").click()
    expect(found.get_by_role("heading", name="One forward, one backward")).to_be_visible()
    found.get_by_label("Puzzle").select_option("gpipe")
    expect(found.get_by_role("heading", name="GPipe")).to_be_visible()
    assert len(PUZZLES) == found.get_by_label("Puzzle").locator("option").count()


@pytest.mark.slow
def test_a_grid_is_saved_half_finished_and_loaded_and_a_damaged_one_is_refused(notebook_with, work, tmp_path):
    page = opened(notebook_with, "draw_schedule(2, 2, name='mine')")
    found = widget(page, "board")
    cell_at(found, 0, 0).dblclick()
    expect(found).to_have_attribute("data-placed", "1/8")
    found.get_by_role("button", name="Save").click()
    expect(found).to_contain_text("Saved as mine.csv")
    assert (work / "trials" / "mine.csv").read_text().startswith("0F0")
    found.get_by_role("button", name="Run it").click()
    expect(found).to_contain_text("The board must be complete before it can run")
    damaged = tmp_path / "damaged.csv"
    damaged.write_bytes(b"0F0,1F9\n\x00\xff\n")
    loader = found.locator("input[type=file]")
    loader.set_input_files(damaged)
    expect(found.locator(".pl-say")).to_contain_text("damaged.csv was not loaded, and the board has not changed.")
    expect(found).to_have_attribute("data-placed", "1/8")
    good = tmp_path / "good.csv"
    good.write_text("0F0,0F1,,0B0,,0B1\n,1F0,1B0,1F1,1B1,\n")
    loader.set_input_files(good)
    expect(found).to_have_attribute("data-placed", "8/8")
    expect(found).to_contain_text("This is 1F1B")
    cell_at(found, 1, 1).focus()
    page.keyboard.press("Delete")
    expect(found.locator(".pl-say")).to_contain_text("1F0 is taken away, and")
    run_cell(page, "draw_schedule")  # the cell again: what was drawn is there again
    assert int(widget(page, "board").get_attribute("data-placed").split("/")[0]) > 0


# ---- break it ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sound_schedule_is_broken_and_says_what_follows(notebook_with):
    page = opened(notebook_with, "break_schedule('1f1b', devices=2, microbatches=3)")
    found = widget(page, "breaker")
    found.get_by_label("Device", exact=True).select_option("1")
    found.get_by_label("Action", exact=True).select_option(label="1B0")
    found.get_by_role("button", name="Drop it").click()
    expect(found).to_have_attribute("data-hangs", "true")
    expect(found).to_contain_text("1B0 is not in the table")
    expect(found).to_contain_text("forever")
    found.get_by_role("button", name="Run it").click()
    expect(found).to_contain_text("Refused before anything starts")
    found.get_by_label("Action", exact=True).select_option(label="1F0")
    found.get_by_role("button", name="Start it early").click()
    expect(found).to_contain_text("device 1 starts 1F0 at t = 0, but device 0 finishes 0F0 only at t = 1")
    found.get_by_role("button", name="Restore").click()
    expect(found).to_have_attribute("data-hangs", "false")
    found.get_by_label("Device", exact=True).select_option("0")
    found.get_by_label("Action", exact=True).select_option(label="0B2")
    found.get_by_role("button", name="Swap with the next").click()
    expect(found).to_contain_text("0B2 is the last of its device")


# ---- for everyone --------------------------------------------------------------------------------------------------

UNNAMED = """root => {
  const named = (e) => e.getAttribute("aria-label") || e.title || (e.textContent.trim() && e.tagName !== "SELECT")
    || (e.labels && [...e.labels].some((label) => label.textContent.trim()));
  const all = "input, select, button, progress, [role=grid], [role=application], [tabindex='0'], canvas, svg";
  return [...root.querySelectorAll(all)]
    .filter((e) => e.getAttribute("aria-hidden") !== "true" && e.checkVisibility() && !named(e))
    .map((e) => e.outerHTML.slice(0, 120));
}"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_control_has_a_name_in_both_themes(notebook_with, theme):
    cells = [
        "TimelineView(simulate(build_schedule('1f1b', 4, 8), Costs(forward=1, backward=2)), critical=True)",
        "explore(compare='gpipe', limit=60)",
        "puzzles('1f1b')",
        "break_schedule('1f1b', 3, 3).drop(1, 2)",
    ]
    page = opened(notebook_with, *cells)
    if theme == "Dark":
        page.get_by_role("menubar").get_by_text("Settings", exact=True).click()
        page.get_by_text("Theme", exact=True).click()
        page.get_by_text("JupyterLab Dark", exact=True).click()
        page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    for kind in ("timeline", "explorer", "board", "breaker"):
        found = widget(page, kind)
        assert found.evaluate(UNNAMED) == []
        assert ("pl-dark" in found.get_attribute("class").split()) == (theme == "Dark")
        found.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        path = SCREENSHOTS / "widgets" / f"{kind}-{theme.lower()}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        found.screenshot(path=path)
    if theme == "Dark":
        page.get_by_role("menubar").get_by_text("Settings", exact=True).click()
        page.get_by_text("Theme", exact=True).click()
        page.get_by_text("JupyterLab Light", exact=True).click()
        page.wait_for_selector("body[data-jp-theme-light=true]", state="attached")


@pytest.mark.slow
def test_a_large_schedule_stays_usable(notebook_with):
    page = opened(
        notebook_with, "TimelineView(simulate(build_schedule('interleaved', 16, 128, chunks=2), check=False))"
    )
    found = widget(page, "timeline")
    stage = found.get_by_role("application")
    stage.focus()
    page.keyboard.press("ArrowRight")
    expect(found.locator(".pl-say")).to_contain_text("0F1: forward of micro-batch 1")
    for _ in range(4):
        page.keyboard.press("+")
    expect(found.get_by_role("slider", name="Move the part")).to_be_visible()
    found.locator(".pl-say").scroll_into_view_if_needed()
    shoot(page, SCREENSHOTS / "widgets" / "large.png")


@pytest.mark.slow
def test_settings_come_back_as_json(notebook_with):
    """What the browser draws from is what the kernel holds."""
    page = opened(
        notebook_with,
        "shown = explore('1f1b', free=['m'])\nshown",
        "import json\nprint(json.loads(shown.view)['titles'], shown.settings.microbatches)",
    )
    turn(widget(page, "explorer"), "Micro-batches m", 7)
    expect(figure(widget(page, "explorer"), "makespan")).to_have_text("20")
    ran = run_cell(page, "json.loads")
    expect(outputs(ran)).to_contain_text("['1F1B'] 7")


# ---- the monitor -----------------------------------------------------------------------------------------------------

STEPS = """
import torch
data = torch.randn(8, 4), torch.randn(8, 4)
model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(2)))
table = build_schedule("1f1b", 2, 4)
with Pipeline(model, table, loss=torch.nn.functional.mse_loss, device="cpu", monitor=monitor) as pipeline:
    for _ in range(3):
        pipeline.step(*data)
"""


def test_a_panel_follows_the_steps_of_a_later_cell(notebook_with):
    page = opened(notebook_with, "monitor = Monitor(every=1)\nmonitor.panel()", STEPS)
    found = outputs(page).locator(".pl-monitor")
    expect(found).to_contain_text("1f1b, step 2:")
    expect(found.get_by_role("rowheader", name="device 1")).to_be_visible()
    expect(found).not_to_contain_text("no step yet")
    shoot(page, SCREENSHOTS / "monitor.png")
