"""A model without weights, to compare with."""

import torch

from pipelab.models import TransformerLM
from pipelab.runtime.measuring.bare import bare, fill, is_bare
from tests.runtime.setup import test_ties as ties


def test_it_has_shapes_and_no_memory_until_it_is_filled():
    model = TransformerLM(layers=2, width=8, heads=2, tokens=4)
    made = bare(model)
    assert is_bare(made)
    assert not is_bare(model) and not is_bare(None)
    assert {n: p.shape for n, p in made.named_parameters()} == {n: p.shape for n, p in model.named_parameters()}
    fill(made, full=True)
    assert not is_bare(made)
    made.load_state_dict(model.state_dict())
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    assert torch.equal(made(tokens), model(tokens))
    fill(made, full=False)
    assert is_bare(made)


def test_what_is_tied_stays_one():
    model = ties.LM()
    assert len(list(bare(model).parameters())) == len(list(model.parameters()))
