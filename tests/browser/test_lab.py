"""What a learner meets first: lesson 0 with a guess to commit, a page of exercises with a check that fails."""

from __future__ import annotations

import json
import re

import pytest

from .lab import expect, open_notebook, outputs, run_all, run_cell, wait_idle, wait_open


def test_make_lab_opens_lesson_0_and_a_guess_is_kept(page, work):
    page.goto("/")
    wait_open(page)
    assert "notebooks/00_start_here.ipynb" in page.url
    run_all(page)
    field = outputs(page).locator("input[type=text]").first
    field.wait_for()
    field.fill("forty")
    field.press("Enter")
    outputs(page).get_by_text("This is not a number. Try 42.5 or 3/7.").wait_for()
    field.fill("40 %")
    outputs(page).get_by_role("button", name="Commit").click()
    outputs(page).get_by_text("committed: 40 %").wait_for()
    assert json.loads((work / "guesses.json").read_text())[0]["guess"] == 40
    wait_idle(page)
    asked = run_cell(page, 'reveal("00-idle"')  # ran before there was a guess: once more
    outputs(asked).locator("td", has_text="40 %").first.wait_for()
    assert json.loads((work / "guesses.json").read_text())[0]["measurement"] == pytest.approx(300 / 7)


def test_a_failed_check_is_a_sentence_and_the_link_back_works(page):
    open_notebook(page, "exercises/00_start_here_exercises.ipynb")
    run_all(page)
    said = outputs(page).locator(".jp-OutputArea-output", has_text="Not yet.").first
    said.wait_for()
    text = said.inner_text()
    assert re.match(r"Not yet\. utilisation is not written yet", text)
    assert "Traceback" not in text
    page.locator("summary", has_text="Hint 1: a nudge").first.click()
    page.locator(".jp-RenderedMarkdown details[open]", has_text="One cell is one time slot of one device").wait_for()
    page.get_by_role("link", name="Lesson 0").first.click()
    page.locator(".jp-RenderedMarkdown:visible", has_text="A model that is too large for one device").first.wait_for()


def test_the_index_of_work_leads_to_the_lessons(page):
    open_notebook(page, "index.ipynb")
    page.locator(".jp-RenderedMarkdown:visible", has_text="Nothing has been graded yet").first.wait_for()
    page.get_by_role("link", name="1F1B: the same work in less memory").first.click()
    page.locator(
        ".jp-RenderedMarkdown:visible", has_text="Does a device have to hold the whole batch?"
    ).first.wait_for()


def test_a_word_of_the_glossary_leads_to_the_cell_that_shows_it(page):
    open_notebook(page, "index.ipynb")
    picture = page.locator('.jp-RenderedMarkdown:visible img[alt^="Map of the course"]').first
    picture.wait_for()
    assert picture.evaluate("image => image.naturalWidth") > 500, "the map is shown"
    page.get_by_role("link", name="Words of the course").first.click()
    entry = page.locator(".jp-RenderedMarkdown:visible p", has_text="bubble ratio: ").first
    entry.wait_for()
    entry.get_by_role("link").click()
    cell = page.locator(".jp-CodeCell:visible", has_text="sixteen = run(tables[16]).timeline").first
    cell.wait_for()
    expect(cell).to_be_in_viewport()
