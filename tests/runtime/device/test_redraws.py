"""A forward that runs again, in R or in torch.utils.checkpoint, draws the same masks or is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from pipelab import ConfigurationError, Pipeline, StageError, build_schedule
from pipelab.models import KeyedDropout, dropout_key
from pipelab.runtime.device.redraws import NoRedraw

LAUNCHES = ["threads", "processes"]


class Layer(nn.Module):
    def __init__(self, index, drop, checkpointed):
        super().__init__()
        self.lin, self.drop, self.checkpointed = nn.Linear(6, 6), drop(index), checkpointed

    def inner(self, x):
        return self.drop(torch.tanh(self.lin(x)))

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False) if self.checkpointed else self.inner(x)


def net(drop, checkpointed, layers=4):
    torch.manual_seed(0)
    return nn.Sequential(*[Layer(i, drop, checkpointed) for i in range(layers)]).double()


def data():
    torch.manual_seed(1)
    return torch.randn(12, 6).double(), torch.randn(12, 6).double()


@pytest.mark.parametrize("clock", ["device", "wall"])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_keyed_dropout_is_the_same_in_a_checkpoint(launch, clock):
    """Its key was gone in the backward, and the recomputed forward drew from torch's generator: a wrong gradient."""
    found = []
    for checkpointed in (False, True):
        model = net(lambda i: KeyedDropout(0.5, i), checkpointed)
        schedule = build_schedule("1f1b", 4, 6)
        with Pipeline(model, schedule, loss=nn.MSELoss(), launch=launch, clock=clock) as pipeline:
            assert pipeline.verify(*data()) < 1e-13 if not checkpointed else True
            pipeline.step(*data())
            found.append([p.grad.clone() for p in model.parameters()])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, atol=1e-14, rtol=0)


def test_keyed_dropout_in_a_backward_without_its_key_says_so():
    """The unsplit model, with a backward outside dropout_key()."""
    model = net(lambda i: KeyedDropout(0.5, i), True)
    x, y = data()
    with dropout_key(0, 0):
        loss = nn.functional.mse_loss(model(x), y)
    with pytest.raises(ConfigurationError, match=r"its key does not reach it.*call backward\(\) inside dropout_key"):
        loss.backward()
    with dropout_key(0, 0):
        nn.functional.mse_loss(model(x), y).backward()
    nn.functional.mse_loss(model(x), y).backward()  # without keys: torch keeps its generator's state itself


def test_plain_dropout_in_a_checkpoint_is_refused_where_devices_draw_at_once():
    """Threads share torch's generator: on a wall clock one in fifty masks was another than in the forward."""
    schedule = build_schedule("1f1b", 4, 6)
    with pytest.raises(StageError, match=r"the backward of stage 3 draws random numbers \(dropout\).*KeyedDropout"):
        Pipeline(net(lambda i: nn.Dropout(0.5), True), schedule, loss=nn.MSELoss(), clock="wall").step(*data())
    Pipeline(net(lambda i: nn.Dropout(0.5), True), schedule, loss=nn.MSELoss(), clock="device").step(*data())
    Pipeline(net(lambda i: nn.Dropout(0.5), False), schedule, loss=nn.MSELoss(), clock="wall").step(*data())


def test_noise_on_a_gradient_is_no_redraw():
    model = net(lambda index: KeyedDropout(0.0, index), False)
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: grad + 0.01 * torch.randn_like(grad))
    Pipeline(model, build_schedule("1f1b", 4, 6), loss=nn.MSELoss(), clock="wall").step(*data())


class Functional(nn.Module):
    """A mask that no module shows."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 6)

    def forward(self, x):
        return functional.dropout(self.lin(x), 0.5, self.training)


def test_a_mask_that_no_module_shows_is_refused_when_it_is_recomputed():
    model = nn.Sequential(Functional(), Functional()).double()
    schedule = build_schedule("gpipe", 2, 3).with_recompute()
    with pytest.raises(StageError, match=r"recomputing stage \d \(R\) draws random numbers \(dropout\)"):
        Pipeline(model, schedule, loss=nn.MSELoss()).step(*data())
    Pipeline(model.eval(), schedule, loss=nn.MSELoss()).step(*data())


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: functional.dropout(x, 0.3),
        lambda x: torch.dropout(x, 0.3, True),
        lambda x: functional.rrelu(x, training=True),
        lambda x: nn.Dropout2d(0.2)(x[None, :, :, None]),
        lambda x: torch.rand_like(x),
        lambda x: torch.bernoulli(x.sigmoid()),
        lambda x: x.sigmoid().bernoulli(),
        lambda x: x.clone().normal_(),
        lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.5),
        lambda x: nn.MultiheadAttention(6, 2, dropout=0.5).double()(x, x, x),
    ],
)
def test_what_draws_is_seen(draw):
    with pytest.raises(ConfigurationError, match="draws random numbers"), NoRedraw("this"):
        draw(torch.randn(4, 6).double())


def test_what_does_not_draw_passes():
    x = torch.randn(4, 6).double()
    layer = nn.MultiheadAttention(6, 2).double()
    with NoRedraw("this"):
        assert torch.equal(functional.dropout(x, 0.3, False), x)
        assert torch.equal(functional.dropout(x, 0.0), x)
        layer(x, x, x)
        functional.scaled_dot_product_attention(x[None], x[None], x[None])
        torch.rand(3, generator=torch.Generator())
        with dropout_key(0, 0):
            KeyedDropout(0.5, 0)(x)
