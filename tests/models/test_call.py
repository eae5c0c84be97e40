from __future__ import annotations

import pytest
import torch

from pipelab import ConfigurationError
from pipelab.models.call import Call, output_tensors, repeated

A, B = torch.zeros(2, 3), torch.ones(2)


def test_tensors_flow_and_all_else_is_the_same_in_every_call():
    call, tensors = Call.of({"a": A, "flag": False, "pair": (B, None)})
    assert [t.shape for t in tensors] == [A.shape, B.shape]
    args, kwargs = call.arguments((B, A))
    assert args == ()
    assert kwargs["a"] is B
    assert kwargs["flag"] is False
    assert kwargs["pair"] == (A, None)
    assert Call.of((A, 3))[0].arguments((B,)) == ((B, 3), {})
    assert Call.of(A)[0].arguments((B,)) == ((B,), {})


def test_another_number_of_inputs_is_refused():
    with pytest.raises(ConfigurationError, match="split for 1 input tensors, got 2"):
        Call.of(A)[0].arguments((A, B))


def test_outputs_are_tensors_without_caches_and_nothing():
    assert output_tensors(A) is A
    assert output_tensors((A, B)) == (A, B)
    assert output_tensors({"loss": None, "logits": A, "past_key_values": (B,)}) is A
    assert output_tensors((A, None)) is A
    assert output_tensors({"logits": A, "hidden": (B, A)}) == (A, B, A)
    with pytest.raises(ConfigurationError, match="returned no tensor, but a NoneType"):
        output_tensors(None)


def test_a_batch_of_any_size_is_made_of_an_example():
    assert repeated((torch.tensor([4, 5]),), 5)[0].tolist() == [4, 5, 4, 5, 4]
