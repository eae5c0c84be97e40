"""What is no tensor comes back as it was: the same values and the same types."""

import json
import math
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError
from pipelab.runtime.checkpoint.plain import from_plain, nested, to_plain

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.sampled_from(["$tensor", "$tuple", "$pairs", "$counter"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS | st.tuples(st.integers()), inner)
    ),
    max_leaves=20,
)


def through(value):
    tensors = {}
    text = json.dumps(to_plain(value, ("data",), tensors))
    return from_plain(json.loads(text), {".".join(path): tensor for path, tensor in tensors.items()}.__getitem__)


@given(VALUES)
def test_values_come_back_with_their_types(value):
    assert repr(through(value)) == repr(value)


def test_tensors_counters_and_numpys_numbers():
    found = through({"a": [torch.arange(2), (torch.tensor(1.5),)], "b": Counter({3: 2}), "c": np.int64(4)})
    assert found["a"][0].equal(torch.arange(2)) and found["a"][1][0].item() == 1.5
    assert type(found["b"]) is Counter and found["b"] == {3: 2}
    assert type(found["c"]) is int
    assert math.isnan(through(math.nan)) and through(-math.inf) == -math.inf
    assert through(OrderedDict(a=1)) == {"a": 1}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [1, {2}]}, r"^data\.a\.1 is a set, which a checkpoint does not hold"),
        ({"f": print}, r"^data\.f is a builtin_function_or_method"),
        ({"s": torch.eye(2).to_sparse()}, r"^data\.s is a torch\.sparse_coo tensor"),
        ([b"x"], r"^data\.0 is a bytes"),
    ],
)
def test_what_cannot_be_written_down_is_named(value, message):
    with pytest.raises(ConfigurationError, match=message):
        to_plain(value, ("data",), {})


def test_nested_is_what_was_flat():
    assert nested({("a", "b.c"): 1, ("a", "d"): 2, ("e",): 3}) == {"a": {"b.c": 1, "d": 2}, "e": 3}


def test_keys_that_look_alike_as_text_stay_apart_and_a_tensor_is_no_key():
    tensors = {}
    value = {
        "x": {1: torch.tensor(1.0), "1": torch.tensor(2.0)},
        "a.b": torch.tensor(3.0),
        "a": {"b": torch.tensor(4.0)},
    }
    plain = to_plain(value, ("data",), tensors)
    nested(tensors)
    by_name = {".".join(path): tensor for path, tensor in tensors.items()}
    assert from_plain(json.loads(json.dumps(plain)), by_name.__getitem__) == value
    with pytest.raises(ConfigurationError, match="data has a tensor for a key"):
        to_plain({torch.tensor(1): 2}, ("data",), {})
