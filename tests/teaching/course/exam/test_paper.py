"""An examination: drawn from a seed, filled in, graded by the grader of all exercises."""

from __future__ import annotations

import re

import nbformat
import pytest

from pipelab.commands.exam import run
from pipelab.errors import ConfigurationError
from pipelab.teaching.course.exam.drawn import COUNT, QUESTIONS, drawn, find_exercise, seed_of
from pipelab.teaching.course.exam.paper import exam_page, paper, write_exam
from pipelab.teaching.grading.grader import find_notebooks, grade
from pipelab.teaching.grading.submission import read_submission


def sources(page):
    return [cell.source for cell in page.cells]


def graded(path):
    (notebook,) = grade([path], progress=False, jobs=2).notebooks
    assert notebook.problem == ""
    return notebook


def test_a_seed_gives_the_same_examination_and_another_seed_another():
    drawn.cache_clear()
    first = [(one.question.name, dict(one.given)) for one in drawn(17)]
    drawn.cache_clear()
    assert [(one.question.name, dict(one.given)) for one in drawn(17)] == first
    assert first != [(one.question.name, dict(one.given)) for one in drawn(18)]
    same = {one.question.name: one.given for one in drawn(17)}
    assert any(same.get(one.question.name, one.given) != one.given for one in drawn(18)), "settings are drawn anew"


def test_over_some_seeds_every_template_comes_from_every_lesson():
    assert len(QUESTIONS) >= 12
    assert {one.question.name for seed in range(12) for one in drawn(seed)} == {one.name for one in QUESTIONS}
    for seed in range(12):
        lessons = [one.question.lesson for one in drawn(seed)]
        assert len(lessons) == COUNT
        assert lessons == sorted(lessons)


def test_a_name_brings_the_question_back_and_other_names_are_lessons():
    (third,) = [one for one in drawn(17) if one.number == 3]
    assert find_exercise("exam_17_3").cases(None) == third.exercise.cases(None)
    assert find_exercise("gpipe").title == "GPipe"
    assert [seed_of(name) for name in ("exam_5", "exam_5_2", "exam_x", "gpipe", None, 7)] == [
        5,
        5,
        None,
        None,
        None,
        None,
    ]
    with pytest.raises(ConfigurationError, match="no exercise 'exam_17_99'"):
        find_exercise("exam_17_99")
    with pytest.raises(ConfigurationError, match="--seed must be 0 to 999999999, got -3; try 3"):
        drawn(-3)


def test_the_page_asks_and_tells_nothing_and_the_key_tells_all():
    page, key = exam_page(17), exam_page(17, solved=True)
    nbformat.validate(page)
    text = "\n".join(sources(page))
    assert text.startswith("# Mock examination 17\n\n10 questions · about ")
    for one in drawn(17):
        assert one.question.ask(one.given) in text
        assert f'raise NotWritten("answer_{one.number}")' in text
        assert one.question.why(one.given) not in text
        assert one.question.why(one.given) in "\n".join(sources(key))
    assert "BEGIN SOLUTION" not in text
    assert "check(" not in text
    assert sum(one.question.points for one in drawn(17)) == sum(
        int(points) for points in re.findall(r"(\d+) points?\*", text)
    )


def test_untouched_it_earns_nothing_and_is_named(tmp_path):
    write_exam(17, tmp_path / "anna_exam_17.ipynb")
    notebook = graded(tmp_path)
    assert (notebook.learner, notebook.title) == ("anna", "exam · Mock examination 17")
    assert notebook.points == 0
    assert notebook.possible == sum(one.question.points for one in drawn(17))
    assert {exercise.message for exercise in notebook.exercises} == {"not attempted yet"}


def filled(tmp_path, answers):
    """The examination 17 with these answers: number -> text behind return."""
    page = exam_page(17)
    for cell in page.cells:
        found = re.match(r"def answer_(\d+)", cell.source)
        if found and int(found[1]) in answers:
            cell.source = re.sub(r"    # YOUR CODE HERE\n.*", f"    return {answers[int(found[1])]}", cell.source)
    path = tmp_path / "exam.ipynb"
    nbformat.write(page, path)
    return path


def test_answers_are_graded_with_reasons_and_the_package_does_not_answer_meanwhile(tmp_path):
    one, two, *_ = drawn(17)
    answers = {1: repr(one.question.truth(one.given)), 3: "__import__('pipelab').build_schedule('gpipe', 4, 4).devices"}
    answers[2] = "sum([1, 2]) - 4" if not two.question.options(two.given) else "'other'"
    right, wrong, asked, *rest = graded(filled(tmp_path, answers)).exercises
    assert (right.points, right.message) == (one.question.points, "all points")
    assert wrong.points == asked.points == 0
    assert two.question.why(two.given) in wrong.message
    assert "does not answer here" in asked.message
    assert {exercise.message for exercise in rest} == {"not attempted yet"}


@pytest.mark.slow  # a kernel for each question
def test_the_key_scores_all_points(tmp_path):
    write_exam(17, tmp_path / "key.ipynb", solved=True)
    notebook = graded(tmp_path / "key.ipynb")
    assert [(exercise.points, exercise.message) for exercise in notebook.exercises] == [
        (one.question.points, "all points") for one in drawn(17)
    ]


def test_without_metadata_it_is_recognised_by_its_cells_or_its_name(tmp_path):
    page = exam_page(17)
    page.metadata.pop("pipelab")
    nbformat.write(page, tmp_path / "mine.ipynb")
    assert read_submission(tmp_path / "mine.ipynb", []).lesson.name == "exam_17"
    for cell in page.cells:
        cell.metadata.clear()
    nbformat.write(page, tmp_path / "exam_17.ipynb")
    assert read_submission(tmp_path / "exam_17.ipynb", []).lesson.name == "exam_17"


def test_the_command_writes_it_once_and_the_key_elsewhere(tmp_path, capsys):
    class options:
        seed, work, key = 17, tmp_path, None

    assert run(options) == 0
    assert "Mock examination 17, 10 questions" in capsys.readouterr().out
    assert sources(nbformat.read(tmp_path / "exam_17.ipynb", 4)) == sources(exam_page(17))
    with pytest.raises(ConfigurationError, match=r"there is already .*; rename it, or draw another with --seed 18"):
        run(options)
    options.key = tmp_path / "key.ipynb"
    assert run(options) == 0
    assert "# Key of mock examination 17" in sources(nbformat.read(options.key, 4))[0]
    assert [one.learner for one in find_notebooks([tmp_path / "exam_17.ipynb"], [])] == [""]
    assert paper(17).minutes > 20
