"""Notebooks that were damaged on the way: each learner gets a grade or a sentence, and nobody else notices."""

from __future__ import annotations

import json
import os
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import strategies as st

from pipelab.errors import ConfigurationError
from pipelab.teaching.grading.grader import grade
from pipelab.teaching.grading.outputs import as_csv, as_junit, as_text, as_totals, write_feedback
from pipelab.teaching.grading.roster import check_overrides, read_overrides, read_roster
from pipelab.teaching.grading.submission import Submission, UnreadableError, read_submission
from tests.fuzz.cases import fuzzed
from tests.fuzz.damage import damaged
from tests.fuzz.texts import texts
from tests.teaching.grading.notebooks import RIGHT, answered, page, save, templates

pytestmark = [pytest.mark.filterwarnings("ignore::nbformat.warnings.DuplicateCellId")]
pytestmark += [pytest.mark.filterwarnings("ignore::nbformat.warnings.MissingIDFieldWarning")]

PAGES = [json.loads(json.dumps(notebook)) for notebook in (answered(RIGHT), page("02_gpipe", solved=True))]
sources = st.text() | st.sampled_from(
    [
        *(
            "def utilisation(rows:\n return",
            "\0",
            "\ud800",
            "%%bash\nls",
            "!ls",
            "?",
            "check('utilisation', 1)",
            "\f\v\x1c",
        ),
        *("def utilisation" + " " * 5000, "from " * 5000, "utilisation:" * 5000, "import " * 5000, RIGHT * 200),
    ]
)


@st.composite
def handed_in(draw: st.DrawFn, pages: list[dict] = PAGES) -> bytes:
    """A page whose JSON, cells or bytes are damaged."""
    notebook = json.loads(json.dumps(draw(st.sampled_from(pages))))
    for _ in range(draw(st.integers(0, 3))):
        cell = draw(st.sampled_from(notebook["cells"]))
        kind = draw(st.sampled_from(["source", "lines", "type", "id", "double", "outputs", "metadata"]))
        if kind == "double":
            notebook["cells"].insert(draw(st.integers(0, len(notebook["cells"]))), json.loads(json.dumps(cell)))
        elif kind == "outputs":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 100_000}]
        elif kind == "metadata":
            cell["metadata"] = {"pipelab": {"exercise": draw(st.text() | st.none()), "role": draw(st.text())}}
        else:
            value = draw(sources)
            cell[{"type": "cell_type", "lines": "source"}.get(kind, kind)] = (
                [value, value] if kind == "lines" else value
            )
    text = draw(damaged(notebook)) if draw(st.booleans()) else json.dumps(notebook)
    raw = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 5)) == 0:
        k = draw(st.integers(0, len(raw)))
        raw = raw[:k] + draw(st.binary(max_size=4)) + raw[k + draw(st.integers(0, 4)) :]
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xff\xfe"])) + raw


def taken(content: bytes) -> Submission | str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00_start_here.ipynb"
        path.write_bytes(content)
        try:
            return read_submission(path, templates())
        except UnreadableError as problem:
            assert str(problem)
            return str(problem)


@fuzzed(handed_in(), few=12, many=2000)
def test_a_damaged_notebook_is_taken_apart_or_refused_in_a_sentence(content):
    found = taken(content)
    if isinstance(found, Submission):
        assert set(found.answers) == set(found.lesson.exercises)
        cells = [text for answer in found.answers.values() for text in answer.cells]
        assert all(isinstance(text, str) and text.encode() is not None for text in (*found.setup, *found.cells, *cells))
        assert found.defining("elsewhere", ()) is None or "elsewhere" in "".join(found.cells)


def told_of(report, folder: Path) -> dict[str, str]:
    """Learner -> what is said; every form of the report can be written."""
    ET.fromstring(as_junit(report))
    for text in (as_csv(report), as_totals(report), as_text(report), json.dumps(report.to_json())):
        assert text.encode("utf-8")
    assert len(write_feedback(report, folder)) == len(report.learners())
    assert len(as_text(report).splitlines()) == len(report.learners()) + 2
    return {n.learner: n.problem or " ".join(e.message for e in n.exercises) for n in report.notebooks}


@fuzzed(st.lists(handed_in(PAGES[:1]), min_size=6, max_size=6), few=0, many=2)
def test_whatever_the_others_hand_in_a_right_answer_gets_its_points(contents):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as pages:
        for k, content in enumerate(contents):
            (Path(folder) / f"learner-{k}").mkdir()
            (Path(folder) / f"learner-{k}" / "00_start_here.ipynb").write_bytes(content)
        save(answered(RIGHT), Path(folder) / "right" / "00_start_here.ipynb")
        report = grade([Path(folder)], seconds=20, progress=False)
        told = told_of(report, Path(pages))
    assert told["right"] == "all points"
    assert all(told.values())
    assert not any("please report this" in text for text in told.values())
    assert report.warnings == ()


def test_what_is_no_file_and_what_is_named_oddly_gets_a_line_each(tmp_path):
    """A name with a line break in it used to write a line of its own into the report, whatever it said there."""
    work = tmp_path / "work"
    for name in ("folder/00_start_here.ipynb", "empty", "pipe", "loop", "hollow", "above", "x\nright  2 of 2"):
        (work / name).mkdir(parents=True)
    (work / "empty" / "00_start_here.ipynb").write_bytes(b"")
    os.mkfifo(work / "pipe" / "00_start_here.ipynb")
    (work / "loop" / "00_start_here.ipynb").symlink_to("00_start_here.ipynb")
    (work / "hollow" / "00_start_here.ipynb").symlink_to("nowhere")
    (work / "above" / "up").symlink_to("..")
    (work / "x\nright  2 of 2" / "00_start_here.ipynb").write_text("{}")
    odd = os.fsencode(work) + b"/caf\xe9"
    os.mkdir(odd)
    Path(os.fsdecode(odd + b"/\xe9.ipynb")).write_text("[]")
    os.mkfifo(tmp_path / "fay.ipynb")  # named itself: it was waited for without end
    told = told_of(grade([work, tmp_path / "fay.ipynb"], progress=False), tmp_path / "pages")
    assert len(told) == 9
    assert "not a file" in told.pop("fay")
    assert all("not a notebook" in text or "no exercises handed in" in text for text in told.values())


@fuzzed(
    texts | texts.map(lambda text: f"learner,exercise,points,reason,name\n{text}"),
    st.sampled_from(["utf-8", "utf-16", "latin-1"]),
    few=15,
    many=600,
)
def test_a_roster_and_decided_points_are_read_or_refused_in_a_sentence(text, encoding):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "class.csv"
        path.write_bytes(text.encode(encoding, "replace"))
        for read in (read_roster, read_overrides):
            try:
                found = read(path)
                if isinstance(found, list):
                    check_overrides(found)
            except ConfigurationError as error:
                assert str(error)
