from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError
from pipelab.models import TransformerLM, next_byte_loss, text_batch


def test_the_worked_example_has_48_layers_and_starts_near_a_uniform_guess():
    model = TransformerLM()
    assert len(model.layers) == 48
    inputs, targets = text_batch()
    loss = next_byte_loss(model(inputs), targets).item()
    assert loss == pytest.approx(torch.log(torch.tensor(256.0)).item(), abs=0.7)


def test_it_is_causal():
    """A byte changes no score before it."""
    model = TransformerLM(layers=3, width=16, heads=2).double()
    tokens, _ = text_batch(batch=2)
    changed = tokens.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 256
    difference = (model(tokens) - model(changed)).detach().abs().amax((0, 2))
    assert float(difference[:20].max()) == 0
    assert float(difference[20:].min()) > 0


def attended(block, x):
    """What the rows of ``out`` get."""
    seen = []
    hook = block.out.register_forward_hook(lambda _, given, made: seen.append(given[0]))
    block(x)
    hook.remove()
    return seen[0]


def test_columns_and_rows_cut_evenly_are_whole_heads():
    """Two halves of a layer, each with half of the heads and of the hidden numbers, add up to the layer."""
    block = TransformerLM(layers=1, width=16, heads=4).layers[0].double()
    x = torch.randn(2, 8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        middle = x + block.out(attended(block, x))
        sums = [0.0, 0.0]
        for part in (0, 1):
            half = copy.deepcopy(block)
            for name, dim in (("qkv", 0), ("out", 1), ("up", 0), ("down", 1)):
                layer = half.get_submodule(name)
                layer.weight = nn.Parameter(layer.weight.chunk(2, dim)[part].clone())
                layer.bias = nn.Parameter(layer.bias.chunk(2)[part].clone() if dim == 0 else layer.bias / 2)
            sums[0] += half.out(attended(half, x))
            sums[1] += half.down(nn.functional.gelu(half.up(half.norm2(middle))))
        assert torch.allclose(x + sums[0], middle, rtol=0, atol=1e-14)
        assert torch.allclose(middle + sums[1], block(x), rtol=0, atol=1e-14)


def test_weights_depend_on_the_seed_alone_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    a = TransformerLM(layers=2, width=8, heads=2)
    assert torch.rand(1) == before
    b = TransformerLM(layers=2, width=8, heads=2)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_impossible_shapes_are_refused():
    with pytest.raises(ConfigurationError, match="layers must be a whole number of at least 1, got 0"):
        TransformerLM(layers=0)
    with pytest.raises(ConfigurationError, match="divisible by heads: 10 and 4; try width"):
        TransformerLM(width=10, heads=4)
    with pytest.raises(ConfigurationError, match="dropout must be"):
        TransformerLM(dropout=1)
