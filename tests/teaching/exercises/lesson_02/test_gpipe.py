"""What the checks of lesson 2 accept besides the solution, and that their truth is the simulator's."""

from fractions import Fraction
from random import Random

import numpy as np
import pytest
import torch

from pipelab.errors import PipelabError
from pipelab.schedules import Action, Schedule, build_schedule, check_schedule
from pipelab.schedules.reserved import reserve
from pipelab.simulation import Costs, simulate
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_02 import least, serial_table
from pipelab.teaching.grading.check import try_parts


def open_parts(name, seed=5, **answers):
    return {part for part, finding in try_parts(exercise(name), answers, seed).items() if finding is not None}


def messages(name, **answers):
    return [finding.message for finding in try_parts(exercise(name), answers).values() if finding is not None]


# ---- truth ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("p", "m"), [(1, 1), (2, 5), (4, 4), (5, 3)])
def test_the_serial_table_overlaps_nothing(p, m):
    table = Schedule.from_rows(serial_table(p, m))
    assert check_schedule(table) == []
    run = simulate(table, Costs(forward=2, backward=3))
    assert run.makespan == m * p * 5
    assert run.utilisation == pytest.approx(1 / p)


def test_the_lessons_three_waits_of_a_device_and_their_sum():
    p, m, f, b = 5, 3, 2, 7
    run = simulate(build_schedule("gpipe", p, m), Costs(forward=f, backward=b))
    for r in range(p):
        waits = [gap.end - gap.start for gap in run.gaps(r)]
        wanted = [r * f, (p - 1 - r) * (f + b), r * b]
        assert waits == [wait for wait in wanted if wait]
        assert sum(waits) == (p - 1) * (f + b)


@pytest.mark.parametrize("m", [1, 4, 16])
def test_recomputation_adds_as_many_forwards_as_there_are_microbatches(m):
    p, f, b = 4, 2, 3
    for ahead in (1, 2):
        run = simulate(build_schedule("gpipe", p, m, recompute=True), Costs(forward=f, backward=b, recompute=ahead))
        assert run.makespan == m * (f + ahead + b) + (p - 1) * (f + b)


def test_the_least_m_for_90_per_cent():
    assert [least(p, 90) for p in range(1, 40)] == [max(1, 9 * (p - 1)) for p in range(1, 40)]


def test_references_refuse_while_a_learners_function_runs():
    for reference in (lambda: serial_table(2, 2), lambda: least(2, 90)):
        with reserve("it is the exercise"), pytest.raises(PipelabError):
            reference()


# ---- other right answers --------------------------------------------------------------------------------------------


def test_rows_in_other_forms_are_as_right():
    def gpipe(p, m):
        return tuple(tuple(Action(r, op, i) for op in "FB" for i in range(m)) for r in range(p))

    def generator(p, m):
        for r in range(p):
            yield [f"{r}F{i}" for i in range(m)] + [f"{r}B{i}" for i in range(m)]

    def schedule(p, m):
        return Schedule.from_rows(generator(p, m))

    def timed(p, m):  # with its idle slots
        return [["."] * r + row for r, row in enumerate(generator(p, m))]

    for form in (gpipe, generator, schedule, timed):
        assert open_parts("gpipe", gpipe=form) == set()


def test_backwards_may_go_down_through_the_microbatches():
    def gpipe(p, m):
        return [[f"{r}F{i}" for i in range(m)] + [f"{r}B{i}" for i in reversed(range(m))] for r in range(p)]

    assert open_parts("gpipe", gpipe=gpipe) == set()


def test_a_right_table_for_a_multiple_of_p_alone_earns_a_part():
    def gpipe(p, m):
        assert m >= p
        return [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]

    assert open_parts("gpipe", gpipe=gpipe) == {"m < p"}


def test_the_serial_run_may_be_drawn_as_a_timetable():
    def serial_rows(p, m):
        rows = [[None] * (2 * p * m) for _ in range(p)]
        for i in range(m):
            for r in range(p):
                rows[r][2 * p * i + r] = f"{r}F{i}"
                rows[r][2 * p * (i + 1) - 1 - r] = f"{r}B{i}"
        return rows

    def serial_makespan(p, m, forward, backward):
        return np.float64(m * p * (forward + backward))

    assert open_parts("serial", serial_rows=serial_rows, serial_makespan=serial_makespan) == set()


def test_numbers_in_other_forms_are_as_right():
    def bubble_fraction(p, m, forward, backward):
        return Fraction(p - 1, m + p - 1)

    def bubble_ratio(p, m, forward, backward):
        return np.float32((p - 1) / m)

    def least_microbatches(p, percent):
        m = 1
        while m / (m + p - 1) < percent / 100:
            m += 1
        return float(m)

    answers = {"bubble_ratio": bubble_ratio, "least_microbatches": least_microbatches}
    assert open_parts("bubbles", bubble_fraction=bubble_fraction, **answers) == set()


def test_a_fraction_from_idle_and_work_is_as_right():
    def bubble_fraction(p, m, forward, backward):
        idle, work = p * (p - 1) * (forward + backward), p * m * (forward + backward)
        return idle / (idle + work)

    assert open_parts("bubbles", bubble_fraction=bubble_fraction) == {"ratio", "least m"}


def test_accumulation_may_weigh_afterwards_or_with_autograd_grad():
    def summed(model, loss, inputs, targets, m):
        for parameter in model.parameters():
            parameter.grad = None
        for x, t in zip(torch.tensor_split(inputs, m), torch.tensor_split(targets, m), strict=True):
            (loss(model(x), t) * len(x)).backward()
        for parameter in model.parameters():
            parameter.grad /= len(inputs)

    def by_hand(model, loss, inputs, targets, m):
        parameters = list(model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for x, t in zip(torch.tensor_split(inputs, m), torch.tensor_split(targets, m), strict=True):
            for a, g in zip(total, torch.autograd.grad(loss(model(x), t), parameters), strict=True):
                a += g * len(x) / len(inputs)
        for parameter, gradient in zip(parameters, total, strict=True):
            parameter.grad = gradient
        return total

    def uneven_the_other_way(model, loss, inputs, targets, m):
        model.zero_grad()
        sizes = [len(x) for x in inputs.tensor_split(m)][::-1]
        for x, t in zip(inputs.split(sizes), targets.split(sizes), strict=True):
            (loss(model(x), t) * len(x) / len(inputs)).backward()

    for accumulate in (summed, by_hand, uneven_the_other_way):
        assert open_parts("accumulate", accumulate=accumulate) == set()


# ---- drawn cases and messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["serial", "gpipe", "bubbles", "accumulate"])
def test_drawn_cases_are_of_every_part_or_its_visible_ones_decide(name):
    for seed in range(20):
        drawn = {case.part for case in exercise(name).drawn(Random(seed))}
        assert drawn <= set(exercise(name).parts)
        assert len(drawn) >= 2


def test_uneven_cases_are_uneven():
    for seed in range(50):
        for case in exercise("accumulate").cases(seed):
            assert (case["_n"] % case["_m"] != 0) == (case.part == "uneven micro-batches")


def test_the_smallest_counterexample_names_device_time_and_what_is_under_way():
    def serial_rows(p, m):
        return [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]

    (message, _) = messages("serial", serial_rows=serial_rows)
    assert message.startswith("p = 2, m = 2: sound, but not serial: device 0 starts 0F1 at t = 1, while micro-batch 0")
    assert "takes 6 slots, the serial run 8" in message


def test_devices_that_turn_round_differently_cost_time_and_that_is_said():
    def gpipe(p, m):
        rows = [[f"{r}{op}{i}" for op in "FB" for i in range(m)] for r in range(p)]
        rows[-1] = rows[-1][:m] + rows[-1][m:][::-1]
        return rows

    first = messages("gpipe", gpipe=gpipe)[0]
    assert "device 2 runs its backwards in the order 1, 0, device 0 in the order 0, 1" in first
    assert "GPipe takes 8" in first


@pytest.mark.parametrize(
    "given", [[], [[], []], "0F0", 7, [["0F0"]], {"0": "0F0"}, [["x"]] * 2, "rows", "fused", "idle"]
)
def test_what_is_no_table_gets_a_sentence(given):
    strange = {
        "rows": lambda p, m: [[f"{r}F{i}" for i in range(m)] for r in range(p)],
        "fused": lambda p, m: [[f"({r}F{i};{r}B{i})OVERLAP_F_B" for i in range(m)] for r in range(p)],
        "idle": lambda p, m: [[f"0{op}{i}" for op in "FB" for i in range(m)], *([] for _ in range(p - 1))],
    }
    function = strange.get(given, lambda p, m: given) if isinstance(given, str) else lambda p, m: given
    assert len(messages("gpipe", gpipe=function)) >= 2
    assert len(messages("serial", serial_rows=function, serial_makespan=lambda p, m, f, b: m * p * (f + b))) == 1


def test_a_model_that_is_never_run_and_gradients_that_never_come_get_a_sentence():
    assert "never called" in messages("accumulate", accumulate=lambda *args: None)[0]

    def forward_only(model, loss, inputs, targets, m):
        for x in inputs.tensor_split(m):
            model(x)

    assert "no .grad" in messages("accumulate", accumulate=forward_only)[0]
