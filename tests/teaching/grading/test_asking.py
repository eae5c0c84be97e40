from __future__ import annotations

import contextlib
import signal
import threading
import time

import pytest
import torch

from pipelab import build_schedule
from pipelab.teaching.exercises.definition import Case, Exercise
from pipelab.teaching.grading import NotWritten
from pipelab.teaching.grading.asking import ask_case


def asked(function, *args, seconds=5.0, **options):
    exercise = Exercise(
        name="double",
        lesson="",
        title="Double it",
        answers=("double",),
        parts={"all": 1},
        visible=[Case("all", {"n": 1})],
        ask=lambda call, case: call("double", *args, **options),
        judge=lambda case, data: None,
        seconds=seconds,
    )
    answers = {} if function is None else {"double": function}
    return ask_case(exercise, answers, exercise.visible[0])


def refusal(*args, **options):
    return asked(*args, **options)["refused"]


def stub(n):
    raise NotWritten("double")


def prints(n):
    print(2 * n)


def changes(rows):
    rows.append(1)
    return rows


def loops(n):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def test_what_comes_back_is_plain_data():
    assert asked(lambda n: (2 * n,), 4) == {"data": [8]}


@pytest.mark.parametrize(
    "function, says",
    [
        (stub, "not written yet"),
        (prints, "it printed its answer; return it instead"),
        (lambda n: None, "is a return missing?"),
        (lambda n: n / 0, "double(4) raised ZeroDivisionError: division by zero"),
        (lambda: 3, "raised TypeError"),
        (None, "there is no double: run the cell that defines it"),
        (8, "double is int '8'; it should be the function double"),
        (lambda n: exit(3), "raised SystemExit"),
        (lambda n: build_schedule("gpipe", n, 4), "this exercise asks you to write it (Double it)"),
        (lambda n: iter(int, 1), "too large"),
    ],
)
def test_each_slip_has_its_sentence(function, says):
    assert says in refusal(function, 4)


def test_arguments_have_to_stay_as_they_are():
    rows = [[1], [2]]
    assert "changed its arguments" in refusal(changes, rows)
    assert asked(changes, [3], _keep=False) == {"data": [3, 1]}


def test_a_call_that_never_ends_is_ended_even_where_it_swallows_exceptions():
    before = signal.getsignal(signal.SIGALRM)
    began = time.monotonic()
    assert "did not return within 0.3 s" in refusal(loops, 4, seconds=0.3)
    assert time.monotonic() - began < 5
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_beside_the_main_thread_there_are_no_timers_and_calls_work():
    found = []
    thread = threading.Thread(target=lambda: found.append(asked(lambda n: n, 4)))
    thread.start()
    thread.join()
    assert found == [{"data": 4}]


def test_after_a_check_the_catalogue_answers_again():
    refusal(lambda n: build_schedule("gpipe", n, 4), 4)
    assert build_schedule("gpipe", 2, 2).devices == 2


def test_a_call_with_tensors_is_told_in_one_line():
    """They were shown as a matrix is, which tore the sentence apart."""
    assert "\n" not in refusal(lambda rows: 1 / 0, [torch.zeros(2, 2)])
