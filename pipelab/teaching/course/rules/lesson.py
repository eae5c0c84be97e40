"""Rules of a lesson's page: each takes the lesson and yields where it is broken, and what to do."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import mean

from pipelab.teaching.course.beside.about import About
from pipelab.teaching.course.beside.faults import Fault
from pipelab.teaching.course.beside.glossary import bold_terms
from pipelab.teaching.course.build import FOLDERS, exercises_page, lesson_page
from pipelab.teaching.course.rules.prose import MEAN, lengths, prose_faults, sentences, strings
from pipelab.teaching.course.source import Cell, Lesson

__all__ = ["RULES", "earlier_words", "guesses", "lesson_faults"]

Found = Iterator[tuple[Cell | None, str]]
"""The cell in which a rule is broken (None: the header), and a sentence: what is wrong, and what to do."""
CELLS, MINUTES, GOALS, SETUP = 20, (5, 70), 3, 5
_HYPE = r"\b(simply|obviously|just|powerful|revolutionary|cutting-edge|state-of-the-art|seamless|amazing|exciting)\b"
_PLAIN = r"\b(has|have|had) just\b|\bjust (been|as|now|in|deep|enough|one|the|asked|under|below|before|after)\b"
_EMOJI = "[\U0001f300-\U0001faff\u2600-\u27bf\u2b50]"
_PLACES = r"(?:layers?|devices?|stages?|lessons?) \d+[b-d]?(?:(?: to | and |-)\d+[b-d]?)?"
_NAMED = rf"1F1B|ZB-H[12]|float\d+|fp\d+|bf16|int\d+|GPT-3(?: 175B)?|\d+-bit|{_PLACES}|\b[pmvtFB] ?="


def measure(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """Few enough cells, minutes that a sitting has, goals, and lessons that come before it."""
    core = [cell for cell in lesson.page("lesson") if cell.kind == "code" and cell.role != "further"]
    if len(core) > CELLS:
        yield None, f"{len(core)} code cells on the core path; at most {CELLS}: mark some as further, or make two pages"
    if not MINUTES[0] <= lesson.minutes <= MINUTES[1]:
        yield None, f"minutes: {lesson.minutes}; a page takes {MINUTES[0]} to {MINUTES[1]}: make two pages"
    if len(lesson.goals) < GOALS:
        yield None, f"{len(lesson.goals)} goals; name at least {GOALS}"
    earlier = [other.number for other in lessons[: lessons.index(lesson)]]
    for number in set(lesson.builds_on) - set(earlier):
        yield None, f"builds_on {number}, which does not come before it; earlier are {', '.join(earlier) or 'none'}"


def beginning(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """A question or a picture stands above the setup cell, and no plumbing."""
    cells = lesson.page("lesson")
    setup = next((number for number, cell in enumerate(cells) if cell.role == "setup"), None)
    if setup is None:
        yield None, 'the lesson has no setup cell; give one role="setup"'
        return
    pictures = [bool(re.search(r"\b(plot_\w+|TimelineView)\(", cell.text)) for cell in cells]
    if cells[0].kind != "markdown":
        yield cells[0], "the page begins with code; begin with a question in words"
    elif "?" not in cells[0].text and not any(pictures[1:2]):
        yield cells[0], "the first words ask nothing and no picture follows; begin with a question"
    for k, cell in enumerate(cells[:setup]):
        if cell.kind != "markdown" and not pictures[k]:
            yield cell, "a cell above the setup cell shows no picture; move it below"


def setups(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """One setup cell on each page, at most five lines or folded."""
    found = [cell for cell in lesson.cells if cell.role == "setup"]
    pages = ["lesson", "exercises"] if lesson.exercises else ["lesson"]
    if [cell.page for cell in found] != pages:
        yield None, f"setup cells are on {[cell.page for cell in found]}; one belongs on each of {pages}"
    for cell in found:
        lines = len(cell.text.strip().splitlines())
        if lines > SETUP and not (cell.options or {}).get("jupyter", {}).get("source_hidden", False):
            yield (
                cell,
                f'the setup cell has {lines} lines; at most {SETUP}, or fold it: jupyter={{"source_hidden": true}}',
            )


def doors(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """A page imports pipelab and pipelab.teaching, and nothing inside them."""
    for cell in lesson.cells:
        for name in re.findall(r"\b(?:from|import) (pipelab[\w.]*)", cell.text):
            if name not in ("pipelab", "pipelab.teaching"):
                yield cell, f"it imports {name}; a page comes in by pipelab and pipelab.teaching only"


def trials(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """A claim is put on trial, and something is broken."""
    heads = [line.lower() for line in _words(lesson).splitlines() if line.startswith("#")]
    for wanted in ("on trial", "break it"):
        if not any(wanted in head for head in heads):
            yield None, f"no heading has '{wanted}'; a lesson puts a claim on trial and breaks something"


def tries(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """Every Try it is followed by a folded answer: only a reader who ran it right knew what was to be seen."""
    seen = False
    for cell in _markdown(lesson):
        for said in cell.text.split("**Try it:**")[1:]:
            seen = True
            if "<details><summary>What you should see, and why</summary>" not in said.split("\n## ")[0]:
                yield cell, "a **Try it:** has no folded answer; add <details><summary>What you should see, and why"
        if re.search(r"^\*+Try(?! it:\*\*)", cell.text, re.MULTILINE):
            yield cell, "write **Try it:** as on other pages"
    if not seen:
        yield None, "no **Try it:** on the page; add one with a folded answer"


def guesses(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """Every guess has a name of its own, and a later cell answers it once. Verdicts ask and settle in the same way."""
    asked: dict[str, tuple[int, Cell]] = {}
    revealed: Counter[str] = Counter()
    for number, cell in enumerate(lesson.page("lesson")):
        if cell.kind != "code":
            continue
        questions = re.findall(r"\bpredict\(\s*\"([^\"]+)\"", cell.text)
        for names in re.findall(r"\bverdicts\.ask\(([^)]*)\)", cell.text):
            questions += re.findall(r"\"([^\"]+)\"", names)
        for name in questions:
            if name in asked:
                yield cell, f"predict: '{name}' is asked twice; use another name"
            asked[name] = number, cell
        for name in re.findall(r"\b(?:reveal|verdicts\.settle)\(\s*\"([^\"]+)\"", cell.text):
            revealed[name] += 1
            if name not in asked or asked[name][0] >= number:
                yield cell, f"reveal: '{name}' is not asked in an earlier cell; put predict in a cell of its own before"
    if not asked:
        yield None, "it asks for no prediction; add predict(...) before a cell, and reveal(...) after"
    start = lesson.name.partition("_")[0] + "-"
    for name, (_, cell) in asked.items():
        if revealed[name] != 1:
            yield cell, f"'{name}' is answered {revealed[name]} times; reveal it once"
        if not name.startswith(start):
            yield cell, f"'{name}' should begin with '{start}'"


def literals(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """What is measured is printed from what measured it: digits in a print's own text may only name things."""
    for cell in lesson.page("lesson"):
        for node in ast.walk(ast.parse(cell.text)) if cell.kind == "code" else ():
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                for text in _literal_text(node):
                    if re.search(r"\d", re.sub(_NAMED, "", text)):
                        yield (
                            cell,
                            f"a number in a print is a literal: '{text.strip()}'; print the value that was computed",
                        )


def paragraphs(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """A paragraph after a list is no part of its last point."""
    for cell in _markdown(lesson):
        if re.search(r"^(- |  ).*\n\*\*", cell.text, re.MULTILINE):
            yield cell, "a bold paragraph follows a list without an empty line; add one"


def tone(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """No emoji, no exclamation marks, no advertising."""
    for cell in _markdown(lesson):
        if found := re.search(_EMOJI, cell.text):
            yield cell, f"{found[0]} is an emoji; leave it out"
        if re.search(r"\w!(\s|$)", cell.text):
            yield cell, "an exclamation mark; end with a full stop"
        if found := re.search(_HYPE, re.sub(_PLAIN, "", cell.text), re.IGNORECASE):
            yield cell, f"'{found[0]}' adds nothing; leave it out"


def bold_once(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """A term is introduced in bold once."""
    seen: set[str] = set()
    for term, cell, _ in bold_terms(lesson):
        if term in seen:
            yield cell, f"'{term}' is bold a second time; a term is introduced once"
        seen.add(term)


def plain_words(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """Plain English, as far as a program can tell."""
    for goal in (lesson.title, *lesson.goals):
        yield from ((None, fault) for fault in prose_faults(sentences(goal)))
    for cell in lesson.cells:
        texts = [cell.text] if cell.kind == "markdown" else strings(cell.text)
        yield from ((cell, fault) for text in texts for fault in prose_faults(sentences(text)))
    found = lengths(one for cell in _markdown(lesson) for one in sentences(cell.text))
    if found and mean(found) > MEAN:
        yield None, f"{mean(found):.1f} words a sentence on average; at most {MEAN:g}: make two of the long ones"


def links(lesson: Lesson, lessons: Sequence[Lesson]) -> Found:
    """Links lead to a page of the course or to an address."""
    root = lesson.path.parent.parent
    pages = {f"../{FOLDERS[kind]}/{one.name}.ipynb" for kind in FOLDERS for one in lessons}
    pages |= {f"{one.name}.ipynb" for one in lessons}
    built = [lesson_page(lesson, lessons)]
    if lesson.exercises:
        built += [exercises_page(lesson, solved=solved) for solved in (False, True)]
    whole = {cell.text.strip(): cell for cell in lesson.cells}
    for cell in (cell for page in built for cell in page.cells if cell.cell_type == "markdown"):
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
            there = target in pages or (root / FOLDERS["lesson"] / target).exists()
            if not target.startswith("https://") and not there:
                yield whole.get(cell.source), f"the link to {target} leads nowhere; name a page of the course"


RULES: tuple[Callable[[Lesson, Sequence[Lesson]], Found], ...] = (
    *(measure, beginning, setups, doors, trials, tries, guesses, literals, paragraphs, tone, bold_once),
    *(plain_words, links),
)


def earlier_words(lesson: Lesson, lessons: Sequence[Lesson], about: About) -> Found:
    """Words that a lesson introduces are not used before it (lesson 0 shows one 1F1B table, as a table)."""
    numbers = {one.name: int(one.name[:2]) for one in lessons}
    later = {one: about.pages[one].introduces for one in about.pages if numbers.get(one, -1) > numbers[lesson.name]}
    for cell in (cell for cell in lesson.cells if cell.role != "further"):
        text = cell.text if cell.kind == "code" else re.sub(r"lessons? \d+[^.\n]*", "", cell.text)
        for name, words in later.items():
            for word in words:
                found = re.search(word, text, re.IGNORECASE)
                if found and not (word == "1f1b" and (lesson.number == "0" or "lesson 0" in text)):
                    yield cell, f"'{found[0]}' belongs to lesson {numbers[name]}; say it in other words, or as further"


def lesson_faults(lesson: Lesson, lessons: Sequence[Lesson], about: About | None) -> list[Fault]:
    """What is wrong on a lesson's page, with line and advice. Words of later lessons need ``about``."""
    found = [fault for rule in RULES for fault in rule(lesson, lessons)]
    found += list(earlier_words(lesson, lessons, about)) if about else []
    return sorted({Fault(lesson.path, cell.line if cell else 1, says) for cell, says in found})


def _markdown(lesson: Lesson) -> Iterator[Cell]:
    return (cell for cell in lesson.cells if cell.kind == "markdown")


def _words(lesson: Lesson) -> str:
    return "\n\n".join(cell.text for cell in _markdown(lesson))


def _literal_text(call: ast.Call) -> Iterator[str]:
    """The literal text of a print's arguments, without format specifications."""
    for node in call.args:
        if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
            yield str(node.value)
        elif isinstance(node, ast.JoinedStr):
            yield from (str(part.value) for part in node.values if isinstance(part, ast.Constant))
