"""What reports are made of, from step to step."""

from __future__ import annotations

import pytest
import torch

from pipelab import Pipeline, build_schedule
from tests.runtime.small import data, mlp, mse


@pytest.mark.parametrize("name", ["1f1b", "pipedream"])
def test_ever_other_batch_sizes_do_not_fill_the_memory(name):
    """A step without a flush has two sizes, its own and that of the step before: a table was kept for each pair."""
    settings = {"loss": mse, "optimizer": lambda named: torch.optim.SGD([p for _, p in named], lr=0.01)}
    with Pipeline(mlp(4), build_schedule(name, 2, 2), **settings) as pipeline:
        for k in range(70):
            assert pipeline.step(*data(2 + k)).batch == 2 + k
        assert len(pipeline._engine._reports._tables) == 64
