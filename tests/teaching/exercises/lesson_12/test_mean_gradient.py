"""Where the claim is true, and that a learner may use .grad."""

import pytest

from pipelab.teaching.exercises.lesson_12.mean_gradient import EXERCISE, RIGHT, truth
from tests.teaching.exercises.trying import open_parts


@pytest.mark.parametrize("case", EXERCISE.visible[:4], ids=lambda case: case.words)
def test_even_micro_batches_without_batch_normalisation_are_right(case):
    fine = case["_m"] == 1 or (case["_batch"] % case["_m"] == 0 and case["_norm"] == "layer")
    (error,) = truth(case)
    assert error < RIGHT if fine else error > 1e-3


def test_accumulating_in_grad_is_as_right():
    def answer(model, loss, inputs, targets, m):
        def gradients(pieces):
            model.zero_grad()
            for x, y in pieces:
                (loss(model(x), y) / len(pieces)).backward()
            return [weight.grad.clone() for weight in model.parameters()]

        true = gradients([(inputs, targets)])
        found = gradients(list(zip(inputs.tensor_split(m), targets.tensor_split(m), strict=True)))
        off = max(float((a - b).abs().max()) for a, b in zip(found, true, strict=True))
        error = off / max(float(one.abs().max()) for one in true)
        return [error], error < 1e-9

    assert not open_parts("mean_gradient", mean_gradient=answer)
