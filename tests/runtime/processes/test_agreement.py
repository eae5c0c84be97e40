"""What ranks that build different things are told. (With real ranks: test_torchrun.py.)"""

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Schedule, build_schedule
from pipelab.runtime.processes.agreement import require_agreement
from pipelab.runtime.setup.settings import Settings
from pipelab.simulation.links import Links
from tests.runtime.small import mlp, mse


class Recorded:
    """Peers that hear what the others have said."""

    def __init__(self, heard=None):
        self.said, self.heard = [], heard

    def exchange(self, value):
        self.said.append(value)
        return [value] if self.heard is None else [self.heard.said[len(self.said) - 1], value]


def compare(first, second):
    """Rank 0 builds ``first``, rank 1 ``second``."""
    rank0 = Recorded()
    settings, model, cuts = first
    require_agreement(rank0, settings, model, cuts)
    rank0.exchange(None)
    from pipelab.runtime.processes import agreement

    rank0.said[1] = agreement._told(*first)
    require_agreement(Recorded(heard=rank0), *second)


def built(schedule=None, model=None, cuts=None, **settings):
    schedule = build_schedule("1f1b", 2, 4) if schedule is None else schedule
    return Settings(schedule, **{"loss": mse, **settings}), mlp() if model is None else model, cuts


def other_batchnorm():
    return nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5).double())


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            {},
            {"schedule": build_schedule("gpipe", 2, 4)},
            "rank 0 has '1f1b' for 2 devices, 4 micro-batches, rank 1 has 'gpipe'",
        ),
        (
            {},
            {"schedule": build_schedule("1f1b", 2, 6)},
            "4 micro-batches, rank 1 has '1f1b' for 2 devices, 6 micro-batches",
        ),
        (
            {"schedule": Schedule.from_csv("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", name="mine")},
            {"schedule": Schedule.from_csv("0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1\n", name="mine")},
            "slot 1 of device 1 is 1B0 on rank 0 and 1F1 on rank 1",
        ),
        (
            {"schedule": build_schedule("gpipe", 2, 2)},
            {"schedule": Schedule.from_csv(build_schedule("gpipe", 2, 2).to_csv(), name="gpipe", weights=[0.5, 1.5])},
            "has other programs, placement or weights on rank 1",
        ),
        (
            {"model": mlp()},
            {"model": mlp(layers=9)},
            "7.0.weight is float64[3, 6] on rank 0 and float64[6, 6] on rank 1",
        ),
        ({"model": mlp()}, {"model": lambda s: None}, "rank 0 was given a model, rank 1 build_stage(s)"),
        (
            {"model": mlp()},
            {"model": mlp().float()},
            "0.0.weight is float64[6, 5] on rank 0 and float32[6, 5] on rank 1",
        ),
        ({"cuts": [2]}, {"cuts": [3]}, "cuts is (2,) on rank 0 and (3,) on rank 1"),
        ({"seed": 1}, {"seed": 2}, "seed is 1 on rank 0 and 2 on rank 1"),
        ({}, {"optimizer": torch.optim.SGD}, "optimizer is False on rank 0 and True on rank 1"),
        ({}, {"loss": nn.MSELoss()}, "loss is 'mse' on rank 0 and 'MSELoss' on rank 1"),
        ({"clip_norm": 1.0}, {}, "clip_norm is 1.0 on rank 0 and None on rank 1"),
        ({"links": Links(1.0)}, {}, "links is Links(latency=1.0"),
        ({"clock": "wall"}, {}, "clock is 'wall' on rank 0 and 'device' on rank 1"),
    ],
)
def test_the_difference_is_named(first, second, message):
    with pytest.raises(ConfigurationError) as caught:
        compare(built(**first), built(**second))
    assert message in str(caught.value)


def test_the_same_is_the_same():
    compare(built(), built())
    compare(built(model=lambda s: s), built(model=lambda s: s + 0))
