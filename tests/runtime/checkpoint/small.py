"""A small model with all that there is to remember, and how it is trained."""

import torch
from torch import nn

from pipelab import Pipeline, build_schedule
from pipelab.models import KeyedDropout

LAUNCHES = ["threads", "processes"]


def model(seed=0, *, plain=True, dtype=torch.float32):
    """``plain``: with dropout that draws from the common generator, in one stage, and with batch statistics."""
    torch.manual_seed(seed)
    odd = [nn.Dropout(0.3), nn.BatchNorm1d(8)] if plain else []
    layers = [nn.Linear(6, 8), nn.Tanh(), KeyedDropout(0.2, 0), *odd, nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).to(dtype)


def batch(step, dtype=torch.float32):
    drawn = torch.Generator().manual_seed(step)
    size = 13 if step % 2 else 12
    return torch.randn(size, 6, generator=drawn, dtype=dtype), torch.randn(size, 3, generator=drawn, dtype=dtype)


def adam(named):
    return torch.optim.AdamW([p for _, p in named], lr=0.02)


def momentum(named):
    return torch.optim.SGD([p for _, p in named], lr=0.02, momentum=0.9)


def falling(optimizer):
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 4], 0.5)


def opened(launch="threads", built=None, *, schedule=("1f1b", 2, 4), **more):
    told = {"loss": nn.MSELoss(), "optimizer": adam, "lr_scheduler": falling, "clip_norm": 0.5, **more}
    return Pipeline(model() if built is None else built, build_schedule(*schedule), launch=launch, **told)


def trained(pipeline, steps, dtype=torch.float32):
    return [pipeline.step(*batch(step, dtype)).loss for step in steps]


def state(pipeline):
    """All that a training step may change, in the end as text: equal only if every bit is."""
    torch.set_printoptions(precision=20, threshold=10**6)
    try:
        weights = {name: tensor.tolist() for name, tensor in sorted(pipeline.state_dict().items())}
        kept = pipeline.optimizer_state() if pipeline.settings.optimizer else None
        return repr((weights, kept, pipeline.step_number))
    finally:
        torch.set_printoptions(profile="default")
