from __future__ import annotations

import pytest
import torch

from pipelab import ConfigurationError
from pipelab.models import text_batch, training_text


def test_it_is_the_language_reference():
    text = training_text()
    assert len(text) > 300_000
    assert b'The "for" statement' in text


def test_targets_are_the_inputs_one_byte_further_on():
    inputs, targets = text_batch(batch=5, tokens=20)
    assert inputs.shape == targets.shape == (5, 20)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert bytes(inputs[0].tolist()) in training_text()


def test_a_batch_depends_on_its_number_and_seed_alone():
    first = text_batch(3, seed=1)[0]
    torch.manual_seed(99)
    torch.rand(7)
    assert torch.equal(text_batch(3, seed=1)[0], first)
    assert not torch.equal(text_batch(4, seed=1)[0], first)
    assert not torch.equal(text_batch(3, seed=2)[0], first)


def test_sequences_longer_than_the_text_are_refused():
    with pytest.raises(ConfigurationError, match="try 32"):
        text_batch(tokens=10**9)
