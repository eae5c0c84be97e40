"""What the check of versions' lives accepts, and that its truth is what the engine keeps."""

from random import Random

import pytest
import torch

from pipelab import Pipeline, build_schedule
from pipelab.schedules import Schedule, check_schedule
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_06.stash import _drawn, _plain, lives
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts


@pytest.mark.parametrize("method", ["pipedream", "vertical-sync", "2bw"])
@pytest.mark.parametrize("p", [2, 3, 4])
def test_the_peak_is_what_theory_says_and_what_a_run_measures(method, p):
    theory = {"pipedream": [p - r for r in range(p)], "vertical-sync": [p] * p, "2bw": [2] * p}[method]
    assert lives(_plain(method, p, 4 if method == "2bw" else 3 * p, p), method)[1] == theory
    layers = [torch.nn.Linear(2, 2) for _ in range(p)]
    most = [0] * p
    with Pipeline(
        torch.nn.Sequential(*layers),
        build_schedule(method, p, p),
        loss=torch.nn.functional.mse_loss,
        optimizer=lambda named: torch.optim.SGD([weight for _, weight in named], lr=0.1),
        measure_memory=False,
    ) as pipeline:
        for _ in range(4):
            report = pipeline.step(torch.randn(p, 2), torch.randn(p, 2))
            most = [max(pair) for pair in zip(most, report.weight_versions, strict=True)]
    assert most == theory


def test_drawn_tables_are_sound_and_no_version_is_used_before_it_is_made():
    for seed in range(5):
        for case in _drawn(Random(seed)):
            rows = case["_rows"]
            assert check_schedule(Schedule.from_rows(rows)) == []
            for row, device in zip(rows, lives(rows, case["_method"])[0], strict=True):
                made = [0, *(row.index(cell) for cell in row if "U" in cell)]
                for version, life in enumerate(device):
                    assert all(row.index(need) >= made[version] for need in life.needs)


def test_answers_may_be_tuples_or_generators():
    cases = exercise("stash").cases(3)
    truth = {(str(case["_rows"]), case["_method"]): lives(case["_rows"], case["_method"]) for case in cases}
    found = open_parts(
        "stash",
        last_needs=lambda rows, rule: (tuple(f" {life.last}" for life in row) for row in truth[str(rows), rule][0]),
        peak=lambda rows, rule: tuple(map(float, truth[str(rows), rule][1])),
    )
    assert not found


def test_an_answer_of_another_shape_gets_a_sentence():
    (said, *_) = messages("stash", last_needs=lambda rows, rule: 3, peak=lambda rows, rule: [1])
    assert "a list of 1 lists, one per device" in said
    (said, *_) = messages("stash", last_needs=lambda rows, rule: [[7] * 3 for _ in rows], peak=lambda rows, rule: [1])
    assert "runs no such action" in said


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: lives([["0F0", "0B0", "0U0"]], "pipedream"))


def test_an_answer_that_empties_its_lists_does_not_spoil_the_next():
    """Story: it was told that it had changed its arguments, and the cases stayed empty until the kernel ended."""
    before = [[list(row) for row in case["_rows"]] for case in exercise("stash").visible]

    def emptied(rows, rule):
        for row in rows:
            row.clear()
        return [[] for _ in rows]

    assert open_parts("stash", last_needs=emptied, peak=emptied)
    assert [case["_rows"] for case in exercise("stash").visible] == before
