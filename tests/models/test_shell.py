from __future__ import annotations

import cloudpickle
import pytest
import torch
from torch import nn

from pipelab import ConfigurationError
from pipelab.models.shell import Result, Run, Shape, Stub, copy_of, running


def run(**more):
    return Run(references=(torch.zeros(5, 7), torch.zeros(5, 2)), received={}, first=1, last=None, **more)


def test_a_stand_in_follows_the_sizes_of_what_came_and_is_full_of_nan():
    seen = Result.of((torch.zeros(3, 4), {"mask": torch.zeros(1, 4, dtype=torch.bool)}, None))
    hidden, rest, nothing = seen.following([(3, 4), (3, 2)]).made(run())
    assert hidden.shape == (5, 7)
    assert hidden.isnan().all()
    assert rest["mask"].shape == (1, 7)
    assert nothing is None


def test_a_stub_has_no_tensors_but_tells_shapes_and_types():
    stub = Stub(nn.Sequential(nn.Linear(3, 4).double()))
    assert not list(stub.parameters())
    weight = stub.get_submodule("0").weight
    assert (weight.shape, weight.dtype) == ((4, 3), torch.float64)
    assert stub.get_submodule("0").in_features == 3
    with pytest.raises(ConfigurationError, match="called a Linear that another stage has"):
        stub.get_submodule("0")(torch.zeros(1))


def test_a_copy_follows_the_modes_and_hooks_of_the_original_until_it_travels():
    layer = nn.Linear(2, 2)
    copied, told = copy_of(layer, _layer=0), []
    assert isinstance(copied, nn.Linear)
    assert copied.weight is layer.weight
    layer.eval()
    assert not copied.training
    copied.train()
    assert layer.training
    layer.register_forward_hook(lambda *_: told.append(1))
    copied(torch.zeros(1, 2))
    assert told
    layer._forward_hooks.clear()
    sent = cloudpickle.loads(cloudpickle.dumps(copied))
    layer.eval()
    assert sent.training
    assert torch.equal(sent.weight, layer.weight)


def test_the_closing_layer_ends_a_run_and_what_comes_early_does_not_count():
    state = run(counts=False)
    state.last = 3
    closing, gated = copy_of(nn.Identity(), _layer=3), copy_of(nn.Identity(), _gate=Result(Shape((2,), torch.float32)))
    with running(state):
        assert gated(torch.zeros(2)).isnan().all()
        state.counts = True
        assert not gated(torch.zeros(2)).isnan().any()
        closing(torch.ones(2))
        raise AssertionError("the run had ended")
    assert state.finished[3].tolist() == [1, 1]
