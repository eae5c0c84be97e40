"""Versions of one stage's weights: memory is taken where it must be, and given back as soon as it can be."""

from __future__ import annotations

import torch
from torch import nn

from pipelab.runtime.device.memory import MemoryMeter
from pipelab.runtime.device.versions import Versions


def made(behind, **options):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight = module[0].weight  # one parameter in two places of a stage
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    return module, Versions(module, optimizer, None, MemoryMeter(), behind=behind, **options)


def forward(module, versions, version):
    versions.use(version)
    return module(torch.ones(1, 2)).sum()


def test_where_no_one_needs_the_old_version_it_is_changed_in_place():
    module, versions = made(behind=0)
    memory = [p.data_ptr() for p in versions.parameters]
    versions.begin()
    for version in range(3):
        forward(module, versions, version).backward()
        versions.update(in_use=())
    assert [p.data_ptr() for p in versions.parameters] == memory
    assert versions.peak == 1


def test_a_version_in_use_keeps_its_values_and_its_graph():
    module, versions = made(behind=0)
    versions.begin()
    before = [p.detach().clone() for p in versions.parameters]
    first, second = forward(module, versions, 0), forward(module, versions, 0)
    first.backward()
    versions.update(in_use={0})
    assert versions.peak == 2
    assert all(not torch.equal(old, p) for old, p in zip(before, versions.parameters, strict=True))
    versions.use(0)
    assert all(torch.equal(old, now) for old, now in zip(before, module.parameters(), strict=True))
    second.backward()  # of version 0, whose values have not changed
    grads = [p.grad.clone() for p in module.parameters()]
    versions.update(in_use=())
    assert all(torch.equal(grad, p.grad) for grad, p in zip(grads, versions.parameters, strict=True))
    versions.rest()
    assert [id(p) for p in module.parameters()] == [id(p) for p in versions.parameters]


def test_a_version_that_a_later_forward_will_use_is_kept():
    module, versions = made(behind=2)
    versions.begin()
    for k in range(5):
        forward(module, versions, max(k - 2, 0)).backward()
        versions.update(in_use=())
    assert versions.peak == 3
    assert sorted(versions._leaves) == [3, 4, 5]


def test_with_memory_of_its_own_the_callers_is_left_alone_until_the_pipeline_is_empty():
    module, versions = made(behind=0, apart=True)
    home, before = module[0].weight.data, module[0].weight.detach().clone()
    versions.begin()
    kept = forward(module, versions, 0)
    forward(module, versions, 0).backward()
    versions.update(in_use={0})
    home.fill_(7.0)  # as someone does who shares it
    kept.backward()
    assert torch.equal(home, torch.full_like(home, 7.0))
    versions.update(in_use=())
    newest = module[0].weight.detach().clone() if module[0].weight is versions.parameters[0] else versions.parameters[0]
    assert not torch.equal(newest, before)
    versions.empty()
    assert module[0].weight.data_ptr() == home.data_ptr()
    assert torch.equal(home, newest.detach())


def test_without_a_stash_there_is_one_version():
    module, versions = made(behind=3, stash=False)
    versions.begin()
    forward(module, versions, 0).backward()
    versions.update(in_use={0})
    assert versions.peak == 1
    assert versions.newest == 1


def test_what_is_frozen_is_no_version():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).requires_grad_(False)
    module[1].requires_grad_(True)
    optimizer = torch.optim.SGD(module[1].parameters(), lr=1.0)
    versions = Versions(module, optimizer, None, MemoryMeter(), behind=1)
    versions.begin()
    forward(module, versions, 0).backward()
    versions.update(in_use={0})
    assert versions.bytes == sum(p.nbytes for p in module[1].parameters())
    assert module[0].weight.requires_grad is False
