"""Pages, docs and messages are in plain English: the part of that rule which a program can check."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import mean

import pytest

from pipelab.teaching.course.rules.prose import (
    AVOID,
    MEAN,
    avoided,
    length,
    lengths,
    prose_faults,
    sentences,
    strings,
)
from pipelab.teaching.course.source import read_course

ROOT = Path(__file__).parents[4]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]
LESSONS = read_course(ROOT / "course")

SAID = [
    *(
        "commands",
        "tuning",
        "tuning/shapes",
        "teaching/board",
        "teaching/claims",
        "teaching/course",
        "teaching/design",
        "teaching/course/beside",
        "teaching/course/pages",
        "teaching/course/exam",
        *("teaching/course/rules/lesson.py", "teaching/course/rules/exercises.py"),
        "teaching/explorer",
        "teaching/grading",
    ),
    *("schedules", "schedules/generators", "simulation", "flow", "timeline", "view", "view/widgets"),
    *(f"teaching/{name}" for name in ("running", "guesses.py", "machine.py")),
    "__main__.py",
]
"""What learners read of the package: strings and docstrings of these modules."""
MODULES = [
    path
    for name in SAID
    for path in (sorted((ROOT / "pipelab" / name).glob("*.py")) if "." not in name else [ROOT / "pipelab" / name])
]


# ---- the pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_in_plain_english(page):
    found = sentences((ROOT / page).read_text())
    assert prose_faults(found) == []
    assert mean(lengths(found)) <= MEAN


@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.name for lesson in LESSONS])
def test_what_checks_say_is_in_plain_english(lesson):
    folder = ROOT / "pipelab" / "teaching" / "exercises" / f"lesson_{lesson.name[:2]}"
    for path in [*folder.glob("*.py")] or pytest.fail(f"no checks in {folder}"):
        assert prose_faults([one for text in strings(path.read_text()) for one in sentences(text)]) == [], path.name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT / "pipelab").as_posix())
def test_messages_and_docstrings_are_in_plain_english(path):
    assert prose_faults([one for text in strings(path.read_text()) for one in sentences(text)]) == []


# ---- the rule itself -------------------------------------------------------------------------------------------------


def test_code_formulas_and_links_count_as_one_word():
    assert sentences("Call `f(a, b, c)` for $a + b$ as in [the page](there.md). Then go.") == [
        "Call code for formula as in the page.",
        "Then go.",
    ]
    assert length("Call code for formula – as in the page.") == 8


def test_items_cells_and_headings_are_sentences_and_code_blocks_are_not():
    page = "# A head\n\nTwo items:\n\n- one thing\n  in two lines\n- another\n\n```\na = 1\n```\n\n| a cell | 1 |\n"
    assert sentences(page) == ["A head", "Two items:", "one thing in two lines", "another", "a cell", "1"]


def test_a_hint_that_is_folded_is_read_too():
    assert sentences("<details><summary>Hint 1</summary>\n\nLook at device 0.\n\n</details>") == [
        "Hint 1",
        "Look at device 0.",
    ]


def test_strings_of_a_source_are_found_with_what_is_put_in_as_one_word():
    source = (
        'def f(x):\n    """One two three four five."""\n    return f"device {x + 1} waits for " f"{x} and {x} more"\n'
    )
    assert strings(source) == ["One two three four five.", "device x waits for x and x more"]


@pytest.mark.parametrize(
    "phrase",
    [
        "how many per cent are idle",
        "as a part of all device-time",
        "so long the device holds",
        "it is there however small the batch",
        "until a clipping threshold meets it",
        "of the 8 micro-batches device 0 holds 7",
        "what device 0 holds more than under 1F1B is the price of the smaller bubble",
        "with your warm-ups in flight are 4.5",
        "its one micro-batch then weighs m",
        "A laptop will do.",
    ],
)
def test_turns_of_phrase_that_readers_read_twice_are_found(phrase):
    assert avoided(phrase) != []


@pytest.mark.parametrize(
    "phrase",
    ["What percentage of device time is idle?", "However, it is small.", "A message waits as long as it has to."],
)
def test_plain_words_are_left_alone(phrase):
    assert avoided(phrase) == []


def test_every_phrase_to_avoid_comes_with_common_words():
    assert all(re.compile(phrase) and better for phrase, better in AVOID.items())
