"""Other right answers to what must fit, and cases in which rounding decides nothing."""

from __future__ import annotations

import numpy as np
import torch

from pipelab.teaching.exercises import exercise
from tests.teaching.exercises.trying import findings


def test_numbers_may_be_numpy_or_float():
    def total(parameters, moments=2):
        return np.float64(parameters) * (8 + 4 * moments)

    def each(parameters, devices, moments=2):
        return torch.tensor(total(parameters, moments) / 2**30 / devices, dtype=torch.float64)

    def least(parameters, gib, moments=2):
        return np.ceil(total(parameters, moments) / 2**30 / gib)

    assert findings("must_fit", total, each, least) == {}


def test_cases_are_drawn_so_that_rounding_decides_nothing():
    from random import Random

    made = exercise("must_fit")
    for seed in range(200):
        for case in made.drawn(Random(seed)):
            if case.part == "least devices":
                need = case["parameters"] * (8 + 4 * case["moments"]) / 2**30 / case["gib"]
                assert need == round(need) or abs(need - round(need)) > 1e-6
