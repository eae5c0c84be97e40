"""What the check of sweeps accepts, and that they are the shipped profile's."""

import pytest

from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_05.forecasts import simulated
from pipelab.teaching.exercises.lesson_05.reading import (
    _1F1B_OF_FOUR,
    _BOTH_VARY,
    _GPIPE_OF_FOUR,
    _SLOW_ARITHMETIC,
    lost,
    rate,
    reasons_for,
)
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_the_frozen_sweeps_are_the_shipped_profiles():
    for family, rows, factors in (
        ("1f1b", _SLOW_ARITHMETIC, (0.25, 2.0)),
        ("gpipe", _GPIPE_OF_FOUR, (1.0, 1.0)),
        ("1f1b", _1F1B_OF_FOUR, (1.0, 1.0)),
        ("1f1b", _BOTH_VARY, (1.0, 1.0)),
    ):
        for m, batch, *figures in rows:
            found = simulated(family, m, batch, alpha=factors[0], beta=factors[1])
            assert figures == pytest.approx(list(found.values()), abs=0.11)


def by_side(rows, limit):
    """The reasons by the side on which a row lies: what the lesson says."""
    fitting = [row for row in rows if row["peak"] <= limit]
    best = max(fitting, key=lambda row: row["batch"] / row["step"])
    told = {}
    both_vary = len({row["batch"] for row in rows}) > 1 < len({row["batch"] / row["m"] for row in rows})
    for row in rows:
        side = "Bubble" if row["m"] < best["m"] else "granularity"
        if both_vary:  # then the side says nothing
            idle, busy = (
                row["step"] / row["batch"] * share(row["idle"]) - best["step"] / best["batch"] * share(best["idle"])
                for share in (lambda part: part, lambda part: 100 - part)
            )
            side = "Bubble" if idle > busy else "granularity"
        told[str(row["m"])] = "memory" if row["peak"] > limit else side
    return [best["m"], told]


@pytest.mark.parametrize("seed", range(3))
def test_reasons_may_come_from_the_side_and_keys_as_text(seed):
    assert not open_parts("reading", seed, read_sweep=by_side)


def test_keys_may_be_tensors():
    torch = pytest.importorskip("torch")

    def read(rows, limit):
        m, told = by_side(rows, limit)
        return torch.tensor(m), {torch.tensor(int(key)): word for key, word in told.items()}

    assert not open_parts("reading", read_sweep=read)


@pytest.mark.parametrize("seed", range(6))
def test_in_some_sweep_the_whole_step_misleads(seed):
    """Where batch and micro-batch both vary, splitting the step and not a sequence's time gives a wrong reason."""
    for case in exercise("reading").cases(seed):
        rows, limit = case["_rows"], case["limit"]
        if len({row["batch"] for row in rows}) == 1 or len({row["batch"] / row["m"] for row in rows}) == 1:
            continue
        best = max((row for row in rows if row["peak"] <= limit), key=rate)
        told = {}
        for row in rows:
            idle = row["step"] * row["idle"] - best["step"] * best["idle"]
            busy = row["step"] * (100 - row["idle"]) - best["step"] * (100 - best["idle"])
            told[row["m"]] = "bubble" if idle > busy else "granularity"
        wrong = [row for row in rows if told[row["m"]] not in (reasons_for(row, best, limit) or told.values())]
        assert [row for row in wrong if row["peak"] <= limit], case.words
        assert max(row["m"] for row in rows if row["peak"] <= limit) != best["m"]


def test_any_choice_within_5_percent_counts():
    def second(rows, limit):
        fitting = sorted((row for row in rows if row["peak"] <= limit), key=lambda row: row["step"] / row["batch"])
        best = fitting[0]["batch"] / fitting[0]["step"]
        near = [row for row in fitting if row["batch"] / row["step"] * 1.05 >= best]
        told = dict(by_side(rows, limit)[1])
        told.pop(str(near[-1]["m"]), None)
        return near[-1]["m"], told

    assert not open_parts("reading", read_sweep=second)


def test_references_refuse_while_a_learners_function_runs():
    row = {"batch": 1, "step": 1}
    assert_reserved(lambda: lost(row, row), lambda: rate(row), lambda: reasons_for(row, row, 42))
