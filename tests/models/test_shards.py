"""Tensors that several processes hold, and others. No process is started: torch's fake group speaks for the others."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from pipelab.models.shards import is_split, like, local, parts_of, whole, with_part
from pipelab.runtime.device.memory import MemoryMeter
from pipelab.runtime.faults.finite import describe_non_finite
from pipelab.runtime.measuring.model_states import read_model_states


@pytest.fixture
def mesh():
    dist.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    yield init_device_mesh("cpu", (2,), mesh_dim_names=("tp",))
    dist.destroy_process_group()


FULL = torch.arange(24.0).view(6, 4)


def split(mesh, placement=None):
    return distribute_tensor(FULL, mesh, [placement or Shard(0)], src_data_rank=None)


def test_of_a_plain_tensor_all_is_here():
    assert not is_split(FULL)
    assert local(FULL) is whole(FULL) is like(FULL, FULL) is with_part(FULL, FULL) is FULL
    assert [*parts_of(FULL)] == [FULL]


def test_a_part_is_here_and_is_made_from_all_of_it(mesh):
    held = split(mesh)
    assert is_split(held)
    assert torch.equal(local(held), FULL[3:])
    assert [part.shape for part in parts_of(held)] == [(3, 4)]
    again = like(held, FULL * 2)
    assert again.placements == held.placements
    assert torch.equal(local(again), FULL[3:] * 2)
    assert torch.equal(local(with_part(held, FULL[3:] + 1)), FULL[3:] + 1)
    assert local(again).untyped_storage().nbytes() == FULL.nbytes // 2, "no part keeps the whole alive"


def test_bytes_are_those_that_are_here(mesh):
    """A DTensor's own storage says nothing: it has no address, and the size of the whole."""
    meter = MemoryMeter()
    meter.reset(())
    kept = meter.hold([split(mesh), split(mesh, Replicate())])
    assert meter.held == FULL.nbytes // 2 + FULL.nbytes
    del kept
    assert meter.held == 0
    module = torch.nn.Linear(4, 6, bias=False)
    module.weight = torch.nn.Parameter(split(mesh))
    module.weight.grad = split(mesh)
    states = read_model_states([module], [])
    assert states.weights == states.gradients == FULL.nbytes // 2


def test_what_a_graph_saves_of_it_is_counted_and_watched(mesh):
    meter, held = MemoryMeter(), split(mesh)
    meter.reset([held])
    x = distribute_tensor(torch.ones(4, 4), mesh, [Replicate()], src_data_rank=None)
    saved = meter.saving()
    with saved:
        y = (held.clone().requires_grad_() @ x).exp()
    assert meter.held == 4 * (4 * 4 + 3 * 4), "x, and the part of y that is here"
    saved.check()
    with torch.no_grad():
        x.add_(1)
    saved.check()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_value_that_is_not_finite_is_found_where_it_is(mesh):
    held = split(mesh)
    local(held)[1, 2] = torch.inf
    assert "the first at [1, 2]: inf" in describe_non_finite(held)
