"""Other ways to accumulate are right, uneven cases are uneven, and what is no gradient gets a sentence."""

import torch

from pipelab.teaching.exercises import exercise
from tests.teaching.exercises.trying import messages, open_parts


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


def test_uneven_cases_are_uneven():
    for seed in range(50):
        for case in exercise("accumulate").cases(seed):
            assert (case["_n"] % case["_m"] != 0) == (case.part == "uneven micro-batches")


def test_a_model_that_is_never_run_and_gradients_that_never_come_get_a_sentence():
    assert "never called" in messages("accumulate", accumulate=lambda *args: None)[0]

    def forward_only(model, loss, inputs, targets, m):
        for x in inputs.tensor_split(m):
            model(x)

    assert "no .grad" in messages("accumulate", accumulate=forward_only)[0]
