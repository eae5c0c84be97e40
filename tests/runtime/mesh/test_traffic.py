"""Bytes of collectives. Torch's fake group speaks for other processes; real ones are in test_tensor, test_sharded."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from pipelab import Pipeline, TrafficCounter, build_schedule
from pipelab.runtime.mesh.traffic import Traffic, shard_traffic, tensor_traffic
from tests.runtime.small import data, mlp, mse


@pytest.fixture
def mesh():
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    dist.destroy_process_group()


def test_each_kind_is_counted_on_its_axis(mesh):
    part, whole = torch.zeros(8), torch.zeros(16)
    with TrafficCounter(mesh) as counter:
        dist.all_reduce(whole, group=mesh.get_group("tp"))
        dist.broadcast(whole, 0, group=mesh.get_group("tp"))
        for _ in range(2):
            dist.all_gather_into_tensor(whole, part, group=mesh.get_group("dp"))
        dist.reduce_scatter_tensor(part, whole, group=mesh.get_group("dp"))
        whole.add_(1)
    assert counter.found == {
        ("tp", "all-reduce"): Traffic(1, 64.0),
        ("tp", "broadcast"): Traffic(1, 32.0),
        ("dp", "all-gather"): Traffic(2, 64.0),
        ("dp", "reduce-scatter"): Traffic(1, 32.0),
    }


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    size = 1000.0
    for n in (2, 4, 8):
        both = Traffic.of("reduce-scatter", size, n) + Traffic.of("all-gather", size, n)
        assert Traffic.of("all-reduce", size, n).sent == both.sent == 2 * (n - 1) / n * size


def test_along_the_sequence_as_many_bytes_move():
    """Norms apart: what was an all-reduce is now its two halves (arXiv 2205.05198, section 4.2.2)."""
    plain, sequence = (tensor_traffic(12, 4, 2**20, 4, sequence=on) for on in (False, True))
    assert sum(one.sent for one in sequence.values()) == plain["all-reduce"].sent


def test_gathered_for_each_forward_and_backward():
    once, again = (shard_traffic([100.0, 300.0], 4, 2, again=on)["all-gather"] for on in (False, True))
    assert (once.count, once.sent) == (2, 200.0)
    assert (again.count, again.sent) == (16, 1600.0)


class Multiplications(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts them."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func._opname in ("mm", "addmm")
        return func(*args, **(kwargs or {}))


def test_who_looks_at_each_operator_sees_those_of_devices_in_threads():
    """As TrafficCounter does: workers re-enter it. 8 layers, 4 micro-batches: forward, two backward, less one."""
    with Pipeline(mlp(), build_schedule("1f1b", 4, 4), loss=mse, device="cpu") as pipeline:
        pipeline.step(*data())  # tries whether stages fit
        with Multiplications() as counter:
            pipeline.step(*data())
    assert counter.found == 4 * (3 * 8 - 1)
