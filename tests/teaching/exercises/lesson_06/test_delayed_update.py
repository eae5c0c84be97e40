"""What the check of the delayed update accepts."""

import torch

from pipelab.runtime.measuring.delayed import delayed_training
from pipelab.teaching.exercises import exercise
from pipelab.teaching.exercises.lesson_06.delayed_update import _near, _other, _truth
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts


def with_an_optimizer(model, state, loss, microbatches, lr, momentum):
    """The whole batch at once, at the old weights of a second model, stepped by torch's own optimizer."""
    if not state:
        state["optimizer"] = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
        state["previous"] = {name: p.detach().clone() for name, p in model.named_parameters()}
    newest = {name: p.detach().clone() for name, p in model.named_parameters()}
    old = {name: p.clone().requires_grad_() for name, p in state["previous"].items()}
    x, y = (torch.cat(part) for part in zip(*microbatches, strict=True))
    value = loss(torch.func.functional_call(model, old, (x,)), y)
    for p, g in zip(model.parameters(), torch.autograd.grad(value, list(old.values())), strict=True):
        p.grad = g
    state["optimizer"].step()
    state["previous"] = newest


def test_torchs_optimizer_and_one_forward_of_the_batch_are_as_right():
    assert not open_parts("delayed_update", train_batch=with_an_optimizer)


def test_new_parameter_objects_are_refused():
    def replaced(model, *given):
        with_an_optimizer(model, *given)
        for module in model:
            for name, p in list(module.named_parameters(recurse=False)):
                setattr(module, name, torch.nn.Parameter(p.detach().clone()))
        given[0]["optimizer"].param_groups[0]["params"] = list(model.parameters())

    assert any("other parameter objects" in said for said in messages("delayed_update", train_batch=replaced))


def test_the_check_tells_the_right_formula_from_others_in_every_case():
    for case in exercise("delayed_update").cases(5):
        truth = _truth(case)
        assert all(_near(a, b) for a, b in zip(_other(case), truth[1:], strict=True))
        for changed in ({"delay": 0}, {"delay": 2}, {"base": 1}, {"kept": True}):
            assert not all(_near(a, b) for a, b in zip(_other(case, **changed), truth[1:], strict=True))


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: delayed_training(torch.nn.Linear(1, 1), [], None, None, [], None))


def test_weights_that_are_nan_a_fixed_rate_and_a_state_outside_are_no_answers():
    """Stories: max() skips a nan; lr was 0.1 in every case; and only one model was trained."""
    outside = {}

    def shared(model, state, *given):
        with_an_optimizer(model, outside, *given)

    def fixed(model, state, loss, microbatches, lr, momentum):
        with_an_optimizer(model, state, loss, microbatches, 0.1, momentum)

    def spoilt(model, state, *given):
        if "clean" in state:
            for p, clean in zip(model.parameters(), state["clean"], strict=True):
                p.data.copy_(clean)
        with_an_optimizer(model, state, *given)
        state["clean"] = [p.detach().clone() for p in model.parameters()]
        list(model.parameters())[-1].data.fill_(float("nan"))

    for answer in (shared, fixed, spoilt):
        assert open_parts("delayed_update", train_batch=answer), answer.__name__
    assert not _near([1.0, float("nan")], [1.0, 2.0])
