from __future__ import annotations

import pytest
import torch

from pipelab import ConfigurationError
from pipelab.models import KeyedDropout, dropout_key


def mask(layer=0, seed=0, step=0, first=0, batch=8, shape=(16, 32), p=0.25, device="cpu"):
    with dropout_key(seed, step, first):
        return KeyedDropout(p, layer)(torch.ones(batch, *shape, device=device))


def test_a_part_of_the_batch_gets_its_part_of_the_mask():
    whole = mask(batch=12)
    assert torch.equal(torch.cat([mask(batch=5), mask(batch=7, first=5)]), whole)


def test_a_part_of_each_sequence_gets_its_part_of_the_mask():
    halves = []
    for part in (0, 1):
        drop = KeyedDropout(0.25, 0)
        drop.part = part
        with dropout_key(0, 0):
            halves.append(drop(torch.ones(8, 8, 32)))
    assert torch.equal(torch.cat(halves, 1), mask())


@pytest.mark.parametrize("change", [{"layer": 1}, {"seed": 1}, {"step": 1}, {"first": 1}])
def test_seed_step_layer_and_sequence_each_change_it(change):
    a, b = mask(batch=1), mask(batch=1, **change)
    agreement = float(((a > 0) == (b > 0)).double().mean())
    assert agreement == pytest.approx(0.75**2 + 0.25**2, abs=0.08), "as independent masks agree"


def test_it_drops_the_given_part_and_keeps_the_mean():
    drawn = mask(batch=64, p=0.1)
    assert float((drawn == 0).double().mean()) == pytest.approx(0.1, abs=0.01)
    assert float(drawn.mean()) == pytest.approx(1, abs=0.01)
    assert drawn.unique().tolist() == [0.0, pytest.approx(1 / 0.9)]


def test_neighbouring_places_and_sequences_are_independent():
    drawn = (mask(batch=64) > 0).double()
    for a, b in ((drawn[:-1], drawn[1:]), (drawn[..., :-1], drawn[..., 1:]), (drawn[:, :-1], drawn[:, 1:])):
        assert float((a * b).mean()) == pytest.approx(0.75**2, abs=0.01)


def test_evaluation_and_p_0_pass_everything():
    x = torch.randn(3, 4)
    assert KeyedDropout(0.5, 0).eval()(x) is x
    assert KeyedDropout(0.0, 0)(x) is x


def test_without_a_key_it_draws_like_ordinary_dropout():
    torch.manual_seed(0)
    a = KeyedDropout(0.5, 0)(torch.ones(100))
    torch.manual_seed(0)
    assert torch.equal(a, torch.nn.functional.dropout(torch.ones(100), 0.5))


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_impossible_probabilities_are_refused(p):
    with pytest.raises(ConfigurationError, match="at least 0 and below 1"):
        KeyedDropout(p, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine")
def test_a_gpu_draws_the_same_mask():
    assert torch.equal(mask(device="cuda").cpu(), mask())
