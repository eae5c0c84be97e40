"""Versions of one stage's weights: memory is taken where it must be, and given back as soon as it can be."""

from __future__ import annotations

import copy
import itertools
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pipelab import ConfigurationError, Pipeline, Schedule, build_schedule
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
    versions.begin()
    memory = [p.data_ptr() for p in versions.parameters]
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


def test_gradients_that_came_before_a_parameter_was_frozen_are_left_out():
    module, versions = made(behind=1)
    versions.begin()
    forward(module, versions, 0).backward()
    versions.rest()
    frozen, before = versions.parameters[0].requires_grad_(False), versions.parameters[0].detach().clone()
    versions.begin()
    versions.update(in_use={0})
    assert torch.equal(frozen, before)
    assert all(p.grad is not None for p in versions.parameters[1:])


def test_a_parameter_that_trains_from_now_on_has_memory_of_its_own_in_each_version():
    module, versions = made(behind=0)
    (late := module[1].bias).requires_grad_(False)
    versions.begin()
    forward(module, versions, 0).backward()
    versions.update(in_use={0})
    versions.rest()
    late.requires_grad_(True)
    versions.begin()
    forward(module, versions, 1).backward()
    before = late.detach().clone()
    versions.update(in_use={0})  # in place: no one needs version 1 any more
    assert not torch.equal(late, before)
    versions.use(0)
    assert torch.equal(module[1].bias, before)


def test_the_gradients_of_an_update_are_gone_when_others_come():
    module, versions = made(behind=1)
    versions.begin()
    forward(module, versions, 0).backward()
    versions.update(in_use={0})
    forward(module, versions, 0).backward()
    assert all(p.grad is None for p in versions.parameters)
    forward(module, versions, 1).backward()
    versions.update(in_use={0, 1})
    versions.rest()
    assert torch.equal(module[1].bias.grad, torch.full_like(module[1].bias, 2.0)), "of one forward in each version"


# ---- in a pipeline ---------------------------------------------------------------------------------------------------


def stack(layers=4, width=5, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers))).double()


def batches(count, size=8, width=5):
    torch.manual_seed(1)
    return [(torch.randn(size, width).double(), torch.randn(size, width).double()) for _ in range(count)]


def mse(output, target):
    return ((output - target) ** 2).mean()


def sgd(named):
    return torch.optim.SGD([p for _, p in named], lr=0.5)


def trained(model, schedule, given, **options):
    with Pipeline(model, schedule, loss=mse, optimizer=sgd, **options) as pipeline:
        for x, y in given:
            pipeline.step(x, y)
    return model


def off(model, other):
    named = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in named)


class Checkpointed(nn.Module):
    """A layer whose forward runs again in its backward."""

    def __init__(self, layer, reentrant):
        super().__init__()
        self.layer, self.reentrant = layer, reentrant

    def forward(self, x):
        return checkpoint(self.layer, x, use_reentrant=self.reentrant)


HALVES = "0F0,0F1,0W0,0U0,0F2,0W1,0U1,0W2,0U2\n1F0,1F1,1I0,1W0,1U0,1F2,1I1,1W1,1U1,1I2,1W2,1U2\n"
"""I and W in place of B; and before those of micro-batch 1 comes a forward of a newer version."""


@pytest.mark.filterwarnings("ignore:stage 1 cannot split", "ignore:None of the inputs")
@pytest.mark.parametrize(
    ("table", "reentrant"),
    [*itertools.product(["pipedream", "vertical-sync", "2bw"], [False, True]), ("halves", False)],
)
def test_what_a_checkpoint_runs_again_meets_the_version_of_its_forward(table, reentrant):
    schedule = Schedule.from_csv(HALVES) if table == "halves" else build_schedule(table, 4, 4)
    given, plain = batches(5), stack()
    again = nn.Sequential(*(Checkpointed(layer, reentrant and k > 0) for k, layer in enumerate(stack())))
    assert off(trained(plain, schedule, given), trained(again, schedule, given)) < 1e-14


@pytest.mark.parametrize("drain", [False, True])
def test_a_layer_that_is_frozen_stays_as_it_is_and_goes_on_when_it_is_not(drain):
    model, given = stack(), batches(6)
    with Pipeline(model, build_schedule("pipedream", 4, 4), loss=mse, optimizer=sgd) as pipeline:
        for k, (x, y) in enumerate(given):
            if k in (2, 4):
                if drain:
                    pipeline.drain()
                model[0].requires_grad_(k == 4)
                before = copy.deepcopy(model[0])
            pipeline.step(x, y)
            if k >= 2:
                assert (off(model[0], before) > 0) == (k >= 4)


@pytest.mark.parametrize("frozen_first", [False, True])
def test_after_a_drain_training_goes_on_with_what_is_frozen_now(frozen_first):
    """Layer 0 was trained on although frozen; or, frozen at first, its gradients were never cleared."""
    model, given, schedule = stack(), batches(4), build_schedule("pipedream", 4, 4)
    with Pipeline(model, schedule, loss=mse, optimizer=sgd) as pipeline:
        model[0].requires_grad_(not frozen_first)
        pipeline.step(*given[0])
        pipeline.drain()
        model[0].requires_grad_(frozen_first)
        start = copy.deepcopy(model)
        for x, y in given[1:]:
            pipeline.step(x, y)
    assert off(model, trained(start, schedule, given[1:])) == 0


def test_hooks_of_parameters_run_as_with_a_flush():
    counts = []
    for name in ("1f1b", "pipedream"):
        model, seen = stack(), Counter()
        model[0][0].weight.register_hook(lambda grad: seen.update(["grad"]) or grad * 0)  # noqa: B023
        model[1][0].weight.register_post_accumulate_grad_hook(lambda p: seen.update(["after"]))  # noqa: B023
        with Pipeline(model, build_schedule(name, 2, 4), loss=mse, optimizer=sgd) as pipeline:
            pipeline.step(*batches(1)[0])
            model[1][0].bias.register_hook(lambda grad: seen.update(["late"]))  # noqa: B023
            pipeline.step(*batches(1)[0])
        counts.append(seen)
        assert torch.equal(model[0][0].weight, stack()[0][0].weight)
    assert counts == [
        Counter(grad=8, after=8, late=4),
        Counter(grad=8, after=8, late=5),
    ]  # late: of the one under way, too


class Scaled(nn.Parameter):
    """A parameter of a class of its own."""


class WithScale(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        layer.weight = Scaled(layer.weight.detach())
        layer.weight.scale = 2.0

    def forward(self, x):
        assert isinstance(self.layer.weight, Scaled)
        return self.layer(x) * self.layer.weight.scale


def test_a_version_has_its_parameters_class_and_attributes():
    model = nn.Sequential(WithScale(nn.Linear(5, 5)), nn.Linear(5, 5)).double()
    before = copy.deepcopy(model)
    assert off(trained(model, build_schedule("pipedream", 2, 4), batches(2)), before) > 0


class Keeps(nn.Module):
    """Reads its weight in its first call, and never again."""

    def __init__(self):
        super().__init__()
        self.layer, self.kept = nn.Linear(5, 5), []

    def forward(self, x):
        self.kept = self.kept or [self.layer.weight]
        return x @ self.kept[0].T


@pytest.mark.parametrize("name", ["pipedream", "2bw"])
def test_code_that_keeps_a_parameter_from_an_earlier_version_is_refused(name):
    model = nn.Sequential(Keeps(), nn.Linear(5, 5)).double()
    with (
        Pipeline(model, build_schedule(name, 2, 4), loss=mse, optimizer=sgd) as pipeline,
        pytest.raises(ConfigurationError, match=r"read it from its layer in each call \(layer.weight\)"),
    ):
        for x, y in batches(4):
            pipeline.step(x, y)


def test_an_optimizer_that_makes_nan_is_not_blamed_for_changing_a_version():
    model = stack()
    with torch.no_grad():
        model[1][0].weight[0, 0] = float("nan")
    trained(model, build_schedule("pipedream", 3, 4), batches(1))
