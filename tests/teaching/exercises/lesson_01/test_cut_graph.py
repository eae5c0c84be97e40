"""Lesson 1's judges: other right ways to answer are right, and what is refused is refused with its reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipelab.schedules import Action, TimeTable
from pipelab.teaching.exercises import exercise
from pipelab.teaching.grading.asking import ask_case
from pipelab.teaching.grading.check import try_parts


def findings(name, *functions, seed=3):
    made = exercise(name)
    found = try_parts(made, dict(zip(made.answers, functions, strict=True)), seed=seed)
    return {part: finding.message for part, finding in found.items() if finding is not None}


def times(devices, microbatches, forward, backward):
    return microbatches * devices * (forward + backward)


def test_numbers_may_be_numpy_or_float():
    def total(parameters, moments=2):
        return np.float64(parameters) * (8 + 4 * moments)

    def each(parameters, devices, moments=2):
        return torch.tensor(total(parameters, moments) / 2**30 / devices, dtype=torch.float64)

    def least(parameters, gib, moments=2):
        return np.ceil(total(parameters, moments) / 2**30 / gib)

    assert findings("must_fit", total, each, least) == {}


@pytest.mark.parametrize("idle", [".", "", None, "-"])
@pytest.mark.parametrize("ragged", [False, True])
def test_a_table_may_have_other_idle_cells_and_leave_out_those_at_the_end(idle, ragged):
    def table(p):
        rows = [[idle] * (2 * p) for _ in range(p)]
        for r in range(p):
            rows[r][r], rows[r][2 * p - 1 - r] = Action(r, "F", 0), f"{r}B0"
        return [row[: 2 * p - r] for r, row in enumerate(rows)] if ragged else rows

    assert findings("naive_table", table, times) == {}


def test_a_table_may_be_a_generator_or_a_timetable():
    def cells(p, r):
        return ["."] * r + [f"{r}F0"] + ["."] * (2 * (p - 1 - r)) + [f"{r}B0"] + ["."] * r

    def rows(p):
        for r in range(p):
            yield tuple(cells(p, r))

    def timed(p):
        lines = [f"device {r} | {' '.join(cells(p, r))}" for r in range(p)]
        return TimeTable.from_grid("\n".join(lines))

    assert findings("naive_table", rows, times) == {}
    assert findings("naive_table", timed, times) == {}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (lambda p: [["."]] * p, "the table is empty"),
        (lambda p: [], "should return"),
        (lambda p: "0F0 0B0", "list of rows"),
        (lambda p: [[f"{r}F0"] for r in range(p)], "has no 0B0"),
        (lambda p: [[f"{r}G0"] for r in range(p)], "unknown op"),
        (lambda p: [["0F0", "0B0"]] * p, "is not on it"),
        (lambda p: [["."] * r + [f"{r}F0", f"{r}B0"] for r in range(p)], "reverse order of forwards"),
    ],
)
def test_other_tables_are_refused(table, says):
    assert says in findings("naive_table", table, times)["table"]


def test_the_catalogue_does_not_answer():
    from pipelab import build_schedule

    def table(p):
        return build_schedule("naive", devices=p, microbatches=1)

    assert "asks you to write it" in findings("naive_table", table, times)["table"]


def keep_on_receiving(stage, received, memory):
    memory["pair"] = (received.detach().clone().requires_grad_(True), None)
    memory["pair"] = (memory["pair"][0], stage(memory["pair"][0]))
    return memory["pair"][1]


def send_back(gradient, memory):
    x, y = memory["pair"]
    torch.autograd.backward([y], [gradient])
    return x.grad.clone()


def cut_on_sending(stage, received, memory):
    received.requires_grad_()
    memory["edge"] = (received, stage(received))
    return memory["edge"][1].detach()


def back_from_edge(gradient, memory):
    x, y = memory.pop("edge")
    (y * gradient).sum().backward()
    return x.grad


def buffered(stage, received, memory):
    if "x" not in memory:
        memory["x"] = torch.zeros_like(received).requires_grad_()
    memory["x"].data.copy_(received)
    memory["x"].grad = None
    memory["y"] = stage(memory["x"])
    return memory["y"].detach()


def from_buffer(gradient, memory):
    memory["y"].backward(gradient)
    return memory["x"].grad


@pytest.mark.parametrize(
    "pieces", [(keep_on_receiving, send_back), (cut_on_sending, back_from_edge), (buffered, from_buffer)]
)
def test_other_ways_to_cut_are_right(pieces):
    assert findings("cut_graph", *pieces) == {}


def test_what_the_cut_tells_is_plain_data():
    made = exercise("cut_graph")
    answers = {"forward_piece": keep_on_receiving, "backward_piece": send_back}
    for case in made.cases(5):
        assert json.loads(json.dumps(answer := ask_case(made, answers, case))) == answer
        assert made.verdict(case, json.loads(json.dumps(answer))) is None


@pytest.mark.parametrize(
    ("forward", "backward", "says"),
    [
        (lambda s, x, m: x, lambda g, m: g, "not what the unsplit model computes"),
        (lambda s, x, m: (x, x), lambda g, m: g, "should return a tensor"),
        (keep_on_receiving, lambda g, m: [send_back(g, m)], "should return a tensor"),
        (keep_on_receiving, lambda g, m: send_back(2 * g, m), "twice as large"),
        (keep_on_receiving, lambda g, m: send_back(3 * g, m), "starts from the gradient that was handed in"),
        (keep_on_receiving, lambda g, m: send_back(g, m) * 2, "not the gradient of what it received"),
    ],
)
def test_other_cuts_are_refused(forward, backward, says):
    assert says in findings("cut_graph", forward, backward)["one cut"]


def test_ones_on_the_devices_before_the_last_are_recognised():
    def backward(gradient, memory):
        x, y = memory["pair"]
        last = y.shape[1] == 5  # of two stages
        y.backward(gradient if last else torch.ones_like(y))
        return x.grad

    message = findings("cut_graph", keep_on_receiving, backward)["one cut"]
    assert "seeded with ones" in message
    assert "that device 1 sent" in message


def test_cases_are_drawn_so_that_rounding_decides_nothing():
    from random import Random

    made = exercise("must_fit")
    for seed in range(200):
        for case in made.drawn(Random(seed)):
            if case.part == "least devices":
                need = case["parameters"] * (8 + 4 * case["moments"]) / 2**30 / case["gib"]
                assert need == round(need) or abs(need - round(need)) > 1e-6


def test_backward_before_forward_is_an_order():
    message = findings("naive_table", lambda p: [[f"{r}B0", f"{r}F0"] for r in range(p)], times)["table"]
    assert "a backward needs what its forward kept" in message
