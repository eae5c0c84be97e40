import pytest
import torch

from pipelab import ConfigurationError, Pipeline, build_schedule
from tests.runtime.small import data, mlp, mse

SCHEDULE = build_schedule("1f1b", devices=2, microbatches=2)


def test_an_optimizer_over_the_whole_model_is_refused():
    """Each stage would step all parameters: twice here."""
    model = mlp()
    with pytest.raises(ConfigurationError, match="also steps 8 parameters that it was not given"):
        Pipeline(model, SCHEDULE, loss=mse, optimizer=lambda named: torch.optim.SGD(model.parameters(), lr=0.1))


def test_parameter_groups_and_a_part_of_the_parameters_are_fine():
    def optimizer(named):
        biases = [p for name, p in named if name.endswith("bias")]
        return torch.optim.SGD([{"params": biases, "lr": 0.5}], lr=0.1)

    model = mlp()
    before = {name: p.clone() for name, p in model.named_parameters()}
    Pipeline(model, SCHEDULE, loss=mse, optimizer=optimizer).step(*data(8))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.endswith("bias")}


def test_a_step_that_needs_a_closure_is_refused_before_anything_runs():
    """Story: only LBFGS was known by name, and any other failed in its first update, with a TypeError of Python's."""

    class Sharp(torch.optim.SGD):
        def step(self, closure):
            closure()

    for kind in (Sharp, torch.optim.LBFGS):
        with pytest.raises(ConfigurationError, match=rf"the step of {kind.__name__} needs a closure.*use an optimizer"):
            Pipeline(mlp(), SCHEDULE, loss=mse, optimizer=lambda named, kind=kind: kind([p for _, p in named], lr=0.1))
