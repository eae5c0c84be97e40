"""Gates on the course's pages: every rule of a lesson and an exercise that a program can check."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from pipelab.teaching.course.build import FOLDERS, exercises_page, lesson_page
from pipelab.teaching.course.execute import kept
from pipelab.teaching.course.source import read_course
from pipelab.teaching.exercises import exercise

ROOT = Path(__file__).parents[3]
LESSONS = read_course(ROOT / "course")
NAMES = [lesson.name for lesson in LESSONS]
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=NAMES)


def committed(lesson, page):
    return nbformat.read(ROOT / FOLDERS[page] / f"{lesson.name}.ipynb", as_version=4)


def built(lesson, page):
    return lesson_page(lesson, LESSONS) if page == "lesson" else exercises_page(lesson, solved=page == "solutions")


def codes(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def words(lesson):
    return "\n\n".join(cell.text for cell in lesson.cells if cell.kind == "markdown")


# ---- pages and their sources --------------------------------------------------------------------------------------


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_committed_page_is_what_its_source_builds(lesson, page):
    path, fresh = ROOT / FOLDERS[page] / f"{lesson.name}.ipynb", built(lesson, page)
    filled = fresh if page == "exercises" else kept(fresh, path)
    assert filled is not None, "its source has changed since it was built: make course"
    assert nbformat.writes(filled, version=4, indent=1) + "\n" == path.read_text(), "make course"


@each_lesson
def test_every_try_it_is_followed_by_a_folded_answer(lesson):
    """Only a reader who ran it right knew what was to be seen."""
    tries = words(lesson).split("**Try it:**")[1:]
    assert tries
    for said in tries:
        assert "<details><summary>What you should see, and why</summary>" in said.split("\n## ")[0], said[:80]
    assert not re.search(r"^\*+Try(?! it:\*\*)", words(lesson), re.MULTILINE)


def test_there_are_no_pages_without_a_source():
    for folder in FOLDERS.values():
        assert sorted(path.stem for path in (ROOT / folder).glob("*.ipynb")) == NAMES


@each_lesson
@pytest.mark.parametrize("page", ["lesson", "solutions"])
def test_lessons_and_solutions_are_executed_top_to_bottom_without_an_error(lesson, page):
    cells = codes(committed(lesson, page))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings on the page"


@each_lesson
def test_exercises_are_clean(lesson):
    assert all(cell.execution_count is None and not cell.outputs for cell in codes(committed(lesson, "exercises")))


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_notebook_opens_without_asking(lesson, page):
    notebook = committed(lesson, page)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info.name == "python"
    assert notebook.nbformat_minor >= 5
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_titles_differ_so_that_open_tabs_can_be_told_apart():
    titles = [committed(lesson, page).cells[0].source.splitlines()[0] for lesson in LESSONS for page in FOLDERS]
    assert len(set(titles)) == len(titles)


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_links_lead_somewhere(lesson, page):
    folder = ROOT / FOLDERS[page]
    for cell in committed(lesson, page).cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source) if cell.cell_type == "markdown" else ():
            assert target.startswith("https://") or (folder / target).exists(), target


# ---- a lesson -----------------------------------------------------------------------------------------------------


@each_lesson
def test_a_lesson_keeps_its_measure(lesson):
    core = [cell for cell in lesson.page("lesson") if cell.kind == "code" and cell.role != "further"]
    assert len(core) <= 20
    assert 5 <= lesson.minutes <= 70  # what fresh readers took, guesses and Try its included
    assert len(lesson.goals) >= 3
    earlier = [other.number for other in LESSONS[: LESSONS.index(lesson)]]
    assert set(lesson.builds_on) <= set(earlier)


@each_lesson
def test_a_lesson_begins_with_a_question_or_a_picture_and_not_with_plumbing(lesson):
    """Above the setup cell stand words, or a cell that shows a picture; the words ask, or a picture follows them."""
    cells = lesson.page("lesson")
    setup = next(number for number, cell in enumerate(cells) if cell.role == "setup")
    assert cells[0].kind == "markdown"
    pictures = [bool(re.search(r"\b(plot_\w+|TimelineView)\(", cell.text)) for cell in cells]
    assert all(cell.kind == "markdown" or pictures[k] for k, cell in enumerate(cells[:setup]))
    assert "?" in cells[0].text or pictures[1]


@each_lesson
def test_a_setup_cell_is_short_or_folded(lesson):
    setups = [cell for cell in lesson.cells if cell.role == "setup"]
    assert [cell.page for cell in setups] == ["lesson", "exercises"]
    for cell in setups:
        assert len(cell.text.strip().splitlines()) <= 5 or _folded(cell), cell.text


def _folded(cell):
    return (cell.options or {}).get("jupyter", {}).get("source_hidden", False)


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_folded_cell_is_folded_on_the_page(lesson, page):
    folded = {cell.text.strip() for cell in lesson.cells if _folded(cell)}
    for cell in codes(built(lesson, page)):
        assert cell.metadata.get("jupyter", {}).get("source_hidden", False) == (cell.source in folded)


@each_lesson
@pytest.mark.parametrize("page", FOLDERS)
def test_a_page_comes_in_by_two_doors_only(lesson, page):
    """In cells and in the text: pipelab, and pipelab.teaching."""
    for cell in built(lesson, page).cells:
        for name in re.findall(r"\b(?:from|import) (pipelab[\w.]*)", cell.source):
            assert name in ("pipelab", "pipelab.teaching"), cell.source


@each_lesson
def test_a_lesson_puts_a_claim_on_trial_and_breaks_something(lesson):
    heads = [line.lower() for line in words(lesson).splitlines() if line.startswith("#")]
    assert any("on trial" in head for head in heads)
    assert any("break it" in head for head in heads)


def test_every_guess_has_a_name_of_its_own_and_is_answered_later():
    seen = Counter()
    for lesson in LESSONS:
        asked = {}
        for number, cell in enumerate(lesson.page("lesson")):
            if cell.kind == "code":
                asked |= dict.fromkeys(re.findall(r"\bpredict\(\s*\"([^\"]+)\"", cell.text), number)
                for name in re.findall(r"\breveal\(\s*\"([^\"]+)\"", cell.text):
                    assert asked[name] < number, f"{name} is revealed where it is asked"
                    seen[name] += 1
        assert asked, f"{lesson.name} asks for no prediction"
        assert all(seen[name] == 1 for name in asked), asked
        assert all(name.startswith(lesson.name.partition("_")[0] + "-") for name in asked)


@each_lesson
def test_no_number_in_a_print_is_a_literal(lesson):
    """What is measured is printed from what measured it: digits in a print's own text may only name things."""
    places = r"(?:layers?|devices?|stages?|lessons?) \d+b?(?:(?: to | and |-)\d+b?)?"
    named = rf"1F1B|ZB-H[12]|float\d+|fp\d+|bf16|int\d+|GPT-3(?: 175B)?|\d+-bit|{places}"
    harmless = re.compile(rf"{named}|\b[pmvtFB] ?=")
    for cell in lesson.page("lesson"):
        if cell.kind != "code":
            continue
        for node in ast.walk(ast.parse(cell.text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                for text in _literal_text(node):
                    assert not re.search(r"\d", harmless.sub("", text)), text


def _literal_text(call):
    """The literal text of a print's arguments, without format specifications."""
    for node in call.args:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            yield str(node.value)
        elif isinstance(node, ast.JoinedStr):
            yield from (part.value for part in node.values if isinstance(part, ast.Constant))


@each_lesson
@pytest.mark.parametrize("page", ["lesson", "solutions"])
def test_every_picture_has_words_beside_it(lesson, page):
    for cell in codes(committed(lesson, page)):
        for output in cell.outputs:
            data = output.get("data", {})
            shown = data.get("text/html", "")
            if "image/png" in data or "<img" in shown:
                (alt,) = re.findall(r'<img alt="([^"]*)"', shown)
                assert len(alt) > 40, alt


@each_lesson
def test_a_paragraph_after_a_list_is_no_part_of_its_last_point(lesson):
    assert not re.search(r"^(- |  ).*\n\*\*", words(lesson), re.MULTILINE), "an empty line is missing"


@each_lesson
def test_the_tone(lesson):
    text = words(lesson)
    assert not re.search("[\U0001f300-\U0001faff\u2600-\u27bf\u2b50]", text), "no emoji"
    assert not re.search(r"\w!(\s|$)", text), "no exclamation marks"
    hype = r"\b(simply|obviously|just|powerful|revolutionary|cutting-edge|state-of-the-art|seamless|amazing|exciting)\b"
    allowed = r"\b(has|have|had) just\b|\bjust (been|as|now|in|deep|enough|one|the|asked|under|below|before|after)\b"
    assert not re.search(hype, re.sub(allowed, "", text), re.IGNORECASE)


@each_lesson
def test_a_term_is_introduced_in_bold_once(lesson):
    terms = Counter(
        term.lower()
        for cell in lesson.page("lesson")
        if cell.kind == "markdown"
        for term in re.findall(r"\*\*([^*\n]+[^*\n:.])\*\*", cell.text)
    )
    assert {term for term, count in terms.items() if count > 1} == set()


# What a lesson introduces must not be used before it (lesson 0 shows one 1F1B table, as a table).
INTRODUCED = {
    2: [r"gpipe", r"recomput", r"bubble ratio"],
    3: [r"1f1b", r"warm-?up"],
    4: [r"interleav", r"virtual stage", r"chunks=", r"model chunk", r"round-robin", r"longest path"],
    5: [r"m\*", r"latency-bound", r"granularity", r"sweet spot", r"memory wall"],
    6: [r"weight stash", r"vertical sync", r"2bw"],
    7: [r"zero[- ]bubble", r"dualpipe", r"zb-"],
    8: [r"load balance", r"plan_cuts", r"greedy"],
    9: [r"(blocking|batched) sends?", r"node boundary"],
    10: [r"all-reduce", r"reduce-scatter", r"zero-3", r"device_?mesh"],
    11: [r"value at risk", r"split learning", r"federated"],
}


@each_lesson
def test_nothing_needs_a_later_lesson(lesson):
    for cell in lesson.cells:
        text = cell.text if cell.kind == "code" else re.sub(r"lessons? \d+[^.\n]*", "", cell.text)
        for number, terms in INTRODUCED.items():
            if number > int(lesson.name[:2]) and cell.role != "further":
                for term in terms:
                    found = re.search(term, text, re.IGNORECASE)
                    if found and not (term == r"1f1b" and (lesson.number == "0" or "lesson 0" in text)):
                        raise AssertionError(f"{found[0]!r} belongs to lesson {number}: {text[:200]}")


# ---- exercises ----------------------------------------------------------------------------------------------------

EACH = [(lesson, name) for lesson in LESSONS for name in lesson.exercises]
each_exercise = pytest.mark.parametrize("lesson, name", EACH, ids=[name for _, name in EACH])


@each_exercise
def test_a_stub_is_typed_explained_and_exemplified(lesson, name):
    answers = "\n\n".join(cell.text for cell in lesson.cells_of(name, "answer"))
    functions = {node.name: node for node in ast.parse(answers).body if isinstance(node, ast.FunctionDef)}
    for answer in exercise(name).answers:
        function = functions[answer]
        assert function.returns is not None
        assert all(argument.annotation is not None for argument in function.args.args)
        assert ">>> " in ast.get_docstring(function)


@each_exercise
def test_an_exercise_tries_few_and_many_microbatches_where_it_has_them(lesson, name):
    cases = exercise(name).cases(seed=3)
    sizes = [(case.given["p"], case.given["m"]) for case in cases if {"p", "m"} <= set(case.given)]
    if sizes:
        assert any(m < p for p, m in sizes)
        assert any(m == p for p, m in sizes)
        assert any(m > p for p, m in sizes)


@each_lesson
def test_no_line_of_a_solution_leaks_into_the_exercises(lesson):
    solved = {line for cell in lesson.cells if cell.role == "answer" for line in _solution_lines(cell.text)}
    page = "\n".join(cell.source for cell in exercises_page(lesson, solved=False).cells)
    shown = {normalised(line) for line in page.splitlines()}
    shown |= {normalised(part) for line in page.splitlines() for part in re.findall(r"`([^`]+)`", line)}
    leaks = {line for line in solved if len(line.split()) >= 4} & shown
    assert leaks == set()


def _solution_lines(text):
    for block in re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", text, re.DOTALL):
        yield from map(normalised, block.splitlines())


def normalised(line):
    """A line's tokens, without comments and spacing."""
    try:
        tokens = tokenize.generate_tokens(io.StringIO(line.strip()).readline)
        return " ".join(t.string for t in tokens if t.type != tokenize.COMMENT and t.string.strip())
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return " ".join(line.split())


@each_exercise
def test_cells_of_an_exercise_carry_what_nbgrader_reads(lesson, name):
    cells = [
        c for c in exercises_page(lesson, solved=False).cells if c.metadata.get("pipelab", {}).get("exercise") == name
    ]
    graded = [c.metadata.nbgrader for c in cells if c.metadata.get("nbgrader", {}).get("grade")]
    assert [(g.points, g.locked, g.solution) for g in graded] == [(exercise(name).points, True, False)]
    answers = [c.metadata.nbgrader for c in cells if c.metadata.get("nbgrader", {}).get("solution")]
    assert answers
    assert not any(g.grade or g.locked for g in answers)


def test_grade_ids_are_unique_on_a_page():
    for lesson in LESSONS:
        ids = [
            c.metadata.nbgrader.grade_id for c in exercises_page(lesson, solved=False).cells if "nbgrader" in c.metadata
        ]
        assert len(set(ids)) == len(ids)
