import os

import pytest
import torch

from pipelab.runtime.processes.block import Block, pack_with_tensors, unpack_with_tensors

TENSORS = [
    torch.arange(6).view(2, 3),
    torch.randn(3, dtype=torch.float64),
    torch.tensor(True),
    torch.randn(2, 2).to(torch.bfloat16),
    torch.empty(0, 4),
    torch.randn(2, dtype=torch.complex64),
]


def test_both_ends_see_the_same_memory():
    here = Block.holding(TENSORS)
    there = Block(here.specs, os.dup(here.file))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(TENSORS, there.tensors, strict=True))
    there.tensors[0].fill_(7)
    assert here.tensors[0].tolist() == [[7, 7, 7], [7, 7, 7]]
    assert TENSORS[0].tolist() == [[0, 1, 2], [3, 4, 5]], "the block holds copies"


def test_its_tensors_outlive_the_block_and_have_versions_of_their_own():
    first, *rest = Block.holding(TENSORS).tensors
    first.add_(1)
    assert first.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert first._version > rest[0]._version, "an in-place change of one is no change of the others"


def test_its_file_is_closed_with_it():
    block = Block.holding(TENSORS)
    file = block.file
    del block
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_values_travel_with_their_tensors_in_a_block():
    value = {"outputs": (TENSORS[0], [TENSORS[1]]), "count": 3}
    data, specs, block = pack_with_tensors(value, "it")
    found = unpack_with_tensors(data, specs, os.dup(block.file))
    assert found["count"] == 3
    assert torch.equal(found["outputs"][0], TENSORS[0])
    assert torch.equal(found["outputs"][1][0], TENSORS[1])


def test_memory_without_memfd_is_a_file_without_a_name(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    here = Block.holding(TENSORS[:2])
    there = Block(here.specs, os.dup(here.file))
    assert torch.equal(there.tensors[1], TENSORS[1])
