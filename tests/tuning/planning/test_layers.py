"""From layers to stages: bytes are exact, time is the layers' own and something once a stage."""

from dataclasses import replace

import pytest
import torch

from pipelab import ConfigurationError, plan_cuts, profile_costs, profile_layers, split_model
from pipelab.models import TransformerLM, next_byte_loss
from pipelab.tuning.planning.layers import Layers
from tests.tuning.planning.synthetic import layer_profile


def test_what_a_stage_pays_once_is_counted_once():
    layers = Layers(layer_profile([1.0, 2.0, 3.0], once=0.5))
    assert layers.stage(0, 3).forward.alpha == pytest.approx(0.5)
    assert layers.stage(1, 3).backward(2) == pytest.approx(0.5 + 2 * 10)
    assert layers.stage(1, 3, speed=2.0).backward(2) == pytest.approx(0.25 + 10)
    assert layers.stage(1, 3, speed=2.0).kept(2) == layers.stage(1, 3).kept(2)


@pytest.fixture(scope="module")
def data():
    text = torch.randint(0, 256, (4, 9), generator=torch.Generator().manual_seed(0))
    return text[:, :-1], text[:, 1:]


def test_bytes_of_stages_are_those_that_the_cut_model_keeps(data):
    model = TransformerLM(layers=5, width=16, heads=2, tokens=8)
    more = {"loss": next_byte_loss, "sizes": (2, 4), "repeats": 1, "progress": False, "split": True}
    more["optimizer"] = lambda named: torch.optim.Adam([p for _, p in named])
    layers = Layers(profile_layers(model, *data, recompute=True, **more))
    cuts = (1, 4)
    whole = profile_costs(model, *data, devices=3, chunks=(1,), cuts={3: cuts}, **more).cut(3)
    made = layers.cut((0, *cuts, 5), 3).cut(3)
    for one, other in zip(whole, made, strict=True):
        assert other.kept(4) == pytest.approx(one.kept(4), rel=1e-6)
        assert other.kept_input(4) == pytest.approx(one.kept_input(4))
        assert other.sent(4) == one.sent(4)
        assert other.model_states == one.model_states
        assert other.waiting(4) == pytest.approx(one.waiting(4), rel=0.3)


def test_models_without_visible_layers(data):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    x, y = torch.randn(4, 8), torch.randn(4, 4)
    split = split_model(model, x, 3)
    profile = profile_layers(split, x, y, loss=torch.nn.functional.mse_loss, repeats=1, progress=False)
    assert plan_cuts(profile, 2, batch=4).sizes in {(1, 2), (2, 1)}


def test_what_has_no_layers_is_refused():
    x, y = torch.randn(4, 8), torch.randn(4, 8)
    one = torch.nn.Linear(8, 8)
    for model, said in ((lambda s: one, "build_stage"), (torch.nn.Sequential(one), "1 layer")):
        with pytest.raises(ConfigurationError, match=said):
            profile_layers(model, x, y, loss=torch.nn.functional.mse_loss, progress=False)


def test_layers_of_a_run_come_to_what_the_run_costs():
    """Found on a chain of convolutions: a cut through large pictures costs more, so early layers seem dear."""
    alone = layer_profile([2.0, 2.0, 1.0, 1.0], once=0.5)
    together = layer_profile([3.0, 2.0], once=0.5).cut(2)
    layers = Layers(replace(alone, stages={**alone.stages, 2: together}))
    for (first, end), run in zip(((0, 2), (2, 4)), together, strict=True):
        for name in ("forward", "backward"):
            found, true = getattr(layers.stage(first, end), name), getattr(run, name)
            assert (found.alpha, found.beta) == pytest.approx((true.alpha, true.beta))
    assert layers.stage(1, 2).forward.beta == pytest.approx(1.5)
