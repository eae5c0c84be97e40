"""Packing a message for its way, and what that does to its numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelab.runtime.device.payload import Payload

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
ROUNDS = {torch.float16: 2**-11, torch.bfloat16: 2**-8, torch.float32: 2**-22, torch.float64: 2**-51}


def there_and_back(tensor, compression):
    """(what arrives, the payload that travels)."""
    packed = Payload((tensor,), True, (tensor.is_floating_point(),)).pack(compression)
    there = packed.copy_to(torch.device("cpu")).unpack()
    assert there.single and there.takes_gradient == (tensor.is_floating_point(),)
    assert there.saved == there.size - packed.size
    return there.tensors[0], packed


@given(
    st.sampled_from(sorted(DTYPES)),
    st.lists(st.integers(0, 9), max_size=3),
    st.integers(-30, 30),
    st.integers(0, 99),
    st.booleans(),
)
def test_packed_tensors_are_off_by_what_is_promised_and_never_larger(name, shape, exponent, seed, transposed):
    generator = torch.Generator().manual_seed(seed)
    wide = torch.randn(shape, generator=generator, dtype=torch.float64)
    wide *= 2.0 ** (exponent // 4 if name == "float16" else exponent)
    given = (wide.transpose(0, -1) if transposed and shape else wide).to(DTYPES[name])
    before = given.to(torch.float64)
    for compression in ("bf16", "int8"):
        arrived, packed = there_and_back(given, compression)
        assert arrived.shape == given.shape and arrived.dtype == given.dtype
        off = (arrived.to(torch.float64) - before).abs()
        size = before.abs()
        if compression == "bf16":
            bound = size * 2**-8
        else:
            largest = size.amax(-1, keepdim=True) if shape and size.numel() else size
            bound = largest * (1 / 254 + 1e-6) + size * ROUNDS[given.dtype]
        assert bool((off <= bound + (2**-25 if name == "float16" else 0)).all())
        assert packed.size <= given.nbytes
        assert packed.size < given.nbytes or torch.equal(arrived, given)


@pytest.mark.parametrize(("compression", "part"), [("bf16", 2 / 4), ("int8", 68 / 256)])
def test_bytes_that_travel(compression, part):
    _, packed = there_and_back(torch.randn(16, 32, 64), compression)
    assert packed.size == part * 16 * 32 * 64 * 4


@pytest.mark.parametrize("compression", ["bf16", "int8"])
def test_what_is_no_floating_point_number_or_would_not_get_smaller_is_left_alone(compression):
    numbers = torch.arange(12).view(3, 4)
    tensors = (
        numbers,
        numbers > 3,
        numbers.to(torch.int8),
        torch.randn(3, 4, dtype=torch.complex64),
        torch.zeros(0, 4),
        torch.randn(5, dtype=torch.bfloat16)[:2],
        torch.eye(3).to_sparse(),
    )
    payload = Payload(tensors, False, (False,) * len(tensors))
    packed = payload.pack(compression)
    assert packed.packed == () and all(a is b for a, b in zip(packed.tensors, tensors, strict=True))
    assert packed.unpack() is packed


def test_among_several_each_comes_back_to_its_place():
    tensors = (torch.arange(4), torch.randn(2, 8), torch.tensor([True]), torch.randn(3, 8, dtype=torch.float64))
    packed = Payload(tensors, False, (False, True, False, True)).pack("int8")
    assert [t.dtype for t in packed.tensors[1:3]] == [torch.int8, torch.float32]
    arrived = packed.unpack().tensors
    assert [(t.dtype, t.shape) for t in arrived] == [(t.dtype, t.shape) for t in tensors]
    assert torch.equal(arrived[0], tensors[0]) and torch.equal(arrived[2], tensors[2])
    assert (arrived[3] - tensors[3]).abs().max() < tensors[3].abs().max() / 250


@pytest.mark.parametrize("compression", ["bf16", "int8"])
def test_what_takes_no_gradient_travels_as_it_is(compression):
    mask, positions = torch.full((2, 8), -math.inf), torch.arange(1024.0)
    packed = Payload((torch.randn(2, 8), mask, positions), False, (True, False, False)).pack(compression)
    arrived = packed.unpack().tensors
    assert packed.packed == (torch.float32, None, None)
    assert torch.equal(arrived[1], mask) and torch.equal(arrived[2], positions)


def test_rows_of_zeros_and_the_largest_of_each_row_survive():
    rows = torch.tensor([[0.0] * 6, [3.0, -1.0, 0, 0, 0, 2], [1e-44] * 6, [-3e38, 1, 0, 0, 0, 0]])
    arrived, _ = there_and_back(rows, "int8")
    assert not arrived[0].any() and arrived[2].abs().max() <= 2e-44
    assert arrived[1, 0] == 3 and arrived[3, 0] == pytest.approx(-3e38)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_not_finite_behind_the_link(value):
    """With one scale a row there is no telling which of the row it was."""
    rows = torch.ones(3, 8)
    rows[1, 2] = value
    exact, _ = there_and_back(rows, "bf16")
    assert torch.equal(exact, rows) or math.isnan(value)
    arrived, _ = there_and_back(rows, "int8")
    assert arrived[1].isnan().all() and torch.equal(arrived[[0, 2]], rows[[0, 2]])


@pytest.mark.parametrize("compression", ["bf16", "int8"])
def test_what_takes_a_gradient_gives_a_leaf_that_can(compression):
    arrived, packed = there_and_back(torch.ones(4, 8, requires_grad=True) * 2, compression)
    assert not any(t.requires_grad for t in packed.tensors)
    assert arrived.is_leaf and not arrived.requires_grad
    arrived.requires_grad_()
