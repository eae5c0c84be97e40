"""An optimizer goes back to what it was, bit for bit, and its next step is what it would have been."""

import threading
from collections import deque
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError
from pipelab.runtime.setup.before import as_now, require_copies

KINDS = {
    "Adadelta": {},
    "Adafactor": {},
    "Adagrad": {},
    "Adam": {"amsgrad": True},
    "AdamW": {"foreach": True},
    "Adamax": {},
    "ASGD": {},
    "NAdam": {},
    "RAdam": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Rprop": {},
    "SGD": {"momentum": 0.9, "nesterov": True, "foreach": True},  # this one adds into the gradients
}


def made(kind):
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2))]
    return parameters, getattr(torch.optim, kind)(parameters, lr=0.1, **KINDS[kind])


def give(parameters, seed):
    torch.manual_seed(seed)
    for p in parameters:
        p.grad = torch.randn_like(p)


def told(parameters, optimizer):
    state = [dict(optimizer.state[p]) for p in parameters]
    return [p.detach().clone() for p in parameters], [p.grad.clone() for p in parameters], state


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 2])
def test_a_step_that_is_undone_leaves_no_trace(kind, steps):
    (one, first), (other, second) = made(kind), made(kind)
    for parameters, optimizer in ((one, first), (other, second)):
        for step in range(steps):
            give(parameters, step)
            optimizer.step()
        give(parameters, 7)
    back = as_now(first)
    first.step()
    first.step()
    assert back() is first
    torch.testing.assert_close(told(one, first), told(other, second), rtol=0, atol=0)
    for parameters, optimizer in ((one, first), (other, second)):
        for p in parameters:
            p.grad.mul_(0.5)
        optimizer.step()
    torch.testing.assert_close(told(one, first), told(other, second), rtol=0, atol=0)


def test_what_others_hold_of_an_optimizer_is_still_its_own():
    """A scheduler holds the groups, a caller a state's tensor, a hook whatever it is bound to."""
    parameters, optimizer = made("Adam")
    give(parameters, 0)
    optimizer.step()
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    group, average, memory = optimizer.param_groups[0], optimizer.state[parameters[0]]["exp_avg"], parameters[0].data
    before = average.clone()
    back = as_now(optimizer)
    parameters[0].data = torch.zeros(3, 2)
    group["lr"] = 5.0
    optimizer.step()
    back()
    assert optimizer.param_groups[0] is group
    assert group["lr"] == 0.1
    assert optimizer.state[parameters[0]]["exp_avg"] is average
    assert torch.equal(average, before)
    assert parameters[0].data_ptr() == memory.data_ptr()
    optimizer.step()
    assert seen == [1, 1]


def test_an_optimizer_around_another_goes_back_with_it():
    class Around(torch.optim.Optimizer):
        def __init__(self, inner):
            self.inner, self.calls, self.slow = inner, [0], nn.Linear(1, 1)
            super().__init__(inner.param_groups, {})

        def step(self):
            self.calls[0] += 1
            self.slow.bias.data += 1
            self.inner.step()

    parameters, inner = made("Adam")
    give(parameters, 0)
    optimizer = Around(inner)
    kept = [p.detach().clone() for p in (*parameters, optimizer.slow.bias)]
    back = as_now(optimizer)
    optimizer.step()
    assert inner.state
    back()
    assert not inner.state
    assert optimizer.calls == [0]
    assert all(map(torch.equal, (*parameters, optimizer.slow.bias), kept))


def test_what_cannot_be_copied_is_named():
    _, optimizer = made("SGD")
    require_copies(optimizer)
    optimizer.lock = threading.Lock()
    with pytest.raises(ConfigurationError, match=r"this SGD cannot be copied \(TypeError: .*lock.*leave post_valid"):
        require_copies(optimizer)


@pytest.mark.parametrize("holder", [deque, set, lambda all_of_them: SimpleNamespace(ps=all_of_them)])
def test_whatever_holds_the_parameters_holds_the_same_ones_afterwards(holder):
    parameters, optimizer = made("SGD")
    give(parameters, 0)
    optimizer.mine = holder(parameters)
    back = as_now(optimizer)
    optimizer.step()
    back()
    held = optimizer.mine.ps if isinstance(optimizer.mine, SimpleNamespace) else optimizer.mine
    assert set(map(id, held)) == set(map(id, parameters))
