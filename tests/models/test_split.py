"""Models that were not written for a pipeline, split: the stages in a row are the model."""

from __future__ import annotations

import copy
import functools
import re

import cloudpickle
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipelab import ConfigurationError, Pipeline, build_schedule, split_model
from pipelab.models.call import as_tuple
from pipelab.models.cut import call_layer
from tests.models.real import REAL, MixtureOfExperts

STACKS = ("gpt2", "llama", "vit", "bert", "mixture-of-experts")
SLOW = {"t5"}
TRACED = tuple(pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in REAL if name not in STACKS)


@functools.cache
def real(name, stages):
    case = REAL[name]()
    return case, split_model(case.model, case.example_inputs, stages)


def in_a_row(split, inputs):
    x = inputs
    for stage in split:
        x = call_layer(stage, x)
    return x


def gradients(model, loss):
    for p in model.parameters():
        p.grad = None
    loss.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def rows(inputs, count):
    found = tuple(tensor[:count] for tensor in as_tuple(inputs))
    return found[0] if isinstance(inputs, torch.Tensor) else found


def check(name, stages):
    case, split = real(name, stages)
    assert len(split) == stages
    assert split.way == case.way
    model = case.model.train()
    before = copy.deepcopy(model.state_dict())
    outputs, found = [], []
    for run in (split, functools.partial(in_a_row, split)):
        model.load_state_dict(before)
        output = run(case.inputs)
        outputs.append(as_tuple(output))
        found.append(gradients(model, case.loss(output, case.targets)))
    assert all(map(torch.equal, *outputs))
    largest = max(float(g.abs().max()) for g in found[0].values())
    for key, true in found[0].items():
        assert float((found[1][key] - true).abs().max()) <= 1e-12 * largest, key
    for count in (1, 3, 7):  # micro-batches of other sizes, in evaluation
        model.eval()
        with torch.no_grad():
            some = rows(case.inputs, count)
            for one, other in zip(as_tuple(split(some)), as_tuple(in_a_row(split, some)), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    model.train()


@pytest.mark.parametrize("stages", [2, 4])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_is_cut_between_its_layers(name, stages):
    check(name, stages)


@pytest.mark.parametrize("name", TRACED)
def test_any_other_model_is_traced(name):
    check(name, 4)


@pytest.mark.parametrize("name", [*STACKS, *TRACED])
def test_parameters_keep_their_names_and_identity(name):
    case, split = real(name, 4)
    whole = dict(case.model.named_parameters())
    owners = {}
    for s, stage in enumerate(split):
        for key, parameter in stage.named_unsplit_parameters():
            assert whole[key] is parameter
            owners.setdefault(key, []).append(s)
    assert owners.keys() == whole.keys()
    assert any(len(homes) > 1 for homes in owners.values()) == case.tied
    state = case.model.state_dict(keep_vars=True)
    found = {key: tensor for stage in split for key, tensor in stage.unsplit_state()}
    assert found.keys() == state.keys()
    assert all(found[key] is tensor for key, tensor in state.items())


@pytest.mark.parametrize("name", ["gpt2", "mixture-of-experts", "unet", "resnet"])
def test_a_stage_travels_without_the_tensors_of_others(name):
    case, split = real(name, 4)
    x, same = case.inputs, case.inputs
    case.model.eval()
    for stage in split:
        own = {id(tensor): tensor for tensor in (*stage.parameters(), *stage.buffers())}
        size = sum(tensor.numel() * tensor.element_size() for tensor in own.values())
        data = cloudpickle.dumps(stage)
        assert len(data) < 2 * size + 300_000
        sent = cloudpickle.loads(data)
        with torch.no_grad():
            x, same = call_layer(stage, x), call_layer(sent, same)
    for one, other in zip(as_tuple(x), as_tuple(same), strict=True):
        assert torch.equal(one, other)
    case.model.train()


class Dropping(nn.Module):
    def __init__(self, between=False):
        super().__init__()
        self.embed, self.drop = nn.Embedding(10, 8), nn.Dropout(0.5)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)) for _ in range(4))
        self.head, self.between, self.frozen = nn.Linear(8, 3), between, nn.Parameter(torch.ones(8), False)

    def forward(self, tokens, flag=False):
        x = self.drop(self.embed(tokens)) + self.frozen
        for layer in self.layers:
            x = layer(x)
            if self.between:
                x = self.drop(x)
        return {"logits": self.head(x), "nothing": None, "flag": flag}


TOKENS = torch.arange(12).view(4, 3) % 10


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("cuts", [None, ["layers.1", "layers.3"]])
def test_dropout_is_drawn_as_in_the_model_and_follows_its_mode(between, cuts):
    model = Dropping(between)
    split = split_model(model, {"tokens": TOKENS[:1], "flag": True}, 3, cuts)
    assert split.way == ("stack" if cuts is None else "traced")
    for mode in (True, False):
        model.train(mode)
        found = []
        for run in (split, functools.partial(in_a_row, split)):
            torch.manual_seed(3)
            found.append(run(TOKENS))
        assert torch.equal(*found)
        assert torch.equal(split(TOKENS), split(TOKENS)) != mode


def test_a_stage_in_evaluation_is_the_model_in_evaluation():
    model = Dropping()
    split = split_model(model, TOKENS, 2)
    modes = [(module, module.training) for stage in split for module in stage.modules()]
    for stage in split:
        stage.eval()
    assert not model.training
    for module, mode in modes:
        module.training = mode
    assert model.training


def test_splitting_leaves_no_trace():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Dropout(0.5))
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model[4].eval()
    split_model(model, torch.randn(2, 1, 4, 4, generator=torch.Generator()), 2)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model] == [True] * 4 + [False]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_on_layers_and_on_the_model_run_once_each():
    model, told = Dropping().eval(), []
    split = split_model(model, TOKENS, 2)
    model.layers[1].register_forward_hook(lambda *_: told.append("layer"))
    model.embed.register_forward_hook(lambda *_: told.append("embed"))
    model.register_forward_hook(lambda *_: told.append("model"))
    in_a_row(split, TOKENS)
    assert told == ["embed", "layer", "model"]


class Skewed(nn.Module):
    """A scale that its root has, read between layers; layers of unequal work."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((), 0.5))
        self.register_buffer("shift", torch.ones(8))
        sizes = [64, 8, 8, 8, 8]
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, n), nn.ReLU(), nn.Linear(n, 8)) for n in sizes)

    def forward(self, x):
        for number, block in enumerate(self.blocks):
            x = block(x + self.shift) * (self.scale if number > 2 else 1)
        return x


def test_layers_of_unequal_work_are_cut_where_it_is_even():
    split = split_model(Skewed(), torch.randn(2, 8), 2)
    assert [stage.layers for stage in split] == [range(1), range(1, 5)]
    assert [stage.layers.start for stage in split_model(Skewed(), torch.randn(2, 8), 3, [2, 4])] == [0, 2, 4]


def test_a_parameter_beside_the_layers_lives_where_it_is_read():
    model = Skewed()
    split = split_model(model, torch.randn(2, 8), 3, [2, 4])  # after layer 3, which is where stage 2 takes over
    names = [[name for name, _ in stage.named_unsplit_parameters()] for stage in split]
    assert ["scale" in told for told in names] == [False, False, True]
    x = torch.randn(5, 8)
    true = gradients(model, model(x).sum())
    found = gradients(model, in_a_row(split, x).sum())
    for name in true:
        torch.testing.assert_close(found[name], true[name])


def test_what_layers_leave_behind_is_carried():
    split = split_model(MixtureOfExperts(layers=4), TOKENS, 4)
    assert [len(stage.sent) for stage in split] == [2, 3, 4, 0]
    assert split.way == "stack"


def test_it_says_which_way_was_taken_and_why():
    _, split = real("unet", 4)
    assert "traced by torch.export, because it is no plain stack: " in str(split)
    text = str(split_model(Dropping(), TOKENS, 2))
    assert re.search(r"^Dropping in 2 stages, stack: layers is a list of 4 layers, called in order, .*; so it", text)
    assert "  stage 1: layers 2-3, 171 parameters" in text


class Odd(nn.Module):
    """Constants that depend on the mode, a part without gradient, a length that matters, a tied weight."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.three.weight = self.one.weight
        self.register_buffer("shift", torch.ones(4), persistent=False)
        self.unused = nn.Linear(2, 2)

    def forward(self, x, again=None):
        with torch.no_grad():
            size = self.one(x).abs().amax(-1, keepdim=True) + x.shape[1] * x.shape[0]
        y = self.one(x) * torch.tensor([1.0, 2.0, 3.0, 4.0] if self.training else [1.0, 1.0, 1.0, 2.0])
        y = self.two(y + self.shift).relu() + size
        return self.three(y) / x.shape[1], y + torch.arange(x.shape[1])[None, :, None]


def test_a_graph_keeps_constants_lengths_and_what_takes_no_gradient():
    model = Odd()
    split = split_model(model, torch.randn(2, 3, 4), 3)
    assert split.way == "traced"
    assert {key for stage in split for key, _ in stage.unsplit_state()} == set(model.state_dict())
    sent = [cloudpickle.loads(cloudpickle.dumps(stage)) for stage in split]
    for mode in (True, False):
        model.train(mode)
        for stage in sent:
            stage.train(mode)
        x = torch.randn(5, 7, 4)  # another length as well
        true = model(x)
        wanted = gradients(model, true[0].sum())
        found = in_a_row(split, x)
        assert all(map(torch.equal, true, found))
        assert all(map(torch.equal, true, in_a_row(sent, x)))
        for name, grad in gradients(model, found[0].sum()).items():
            torch.testing.assert_close(grad, wanted[name])


@pytest.mark.parametrize("cuts", [None, ["layers.1"]])
def test_a_class_of_a_notebook_cell_travels_and_a_copy_of_a_stage_has_its_own_tensors(cuts):
    class Local(Dropping):
        def forward(self, tokens):
            return super().forward(tokens)["logits"]

    model = Local().eval()
    split = split_model(model, TOKENS, 2, cuts)
    true = split(TOKENS)
    assert torch.equal(in_a_row([cloudpickle.loads(cloudpickle.dumps(stage)) for stage in split], TOKENS), true)
    copies = [copy.deepcopy(stage) for stage in split]
    assert torch.equal(in_a_row(copies, TOKENS), true)
    whole = {id(p) for p in model.parameters()}
    assert not any(id(p) in whole for stage in copies for p in stage.parameters())
    assert sum(p.numel() for stage in copies for p in stage.parameters()) == sum(p.numel() for p in model.parameters())


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.one(x) if x.sum() > 0 else self.two(x)


def test_what_can_neither_be_cut_nor_traced_says_why():
    with pytest.raises(ConfigurationError, match=r"Undecided cannot be split as it is. It is no plain stack: it has no "
                       r"ModuleList .* It cannot be traced: torch.export stops at .*build_stage\(s\)"):  # fmt: skip
        split_model(Undecided(), torch.ones(2, 4), 2)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"use_cache": False}, "must hold a tensor, got dict"),
        ((torch.ones(2, 3), torch.ones(3)), r"the batch as their first dimension, all the same, got \[2, 3\], \[3\]"),
        (torch.ones(2, 3), "the model cannot be called with example_inputs: "),
    ],
)
def test_example_inputs_that_will_not_do_are_refused(example, message):
    with pytest.raises(ConfigurationError, match=message):
        split_model(Dropping(), example, 2)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ([2, 1], "cuts must rise"),
        (["layers.1", "lairs.2"], "'lairs.2' is none that is called; try 'layers.2'"),
        (["layers.2", "layers.1"], "in the order in which the model calls them"),
        (["layers.2"], "3 stages need 2 cuts, got 1"),
    ],
)
def test_cuts_that_do_not_fit_are_refused(cuts, message):
    with pytest.raises(ConfigurationError, match=message):
        split_model(Dropping(), TOKENS, 3, cuts)


def test_a_traced_model_refuses_sizes_that_it_was_not_traced_for():
    _, split = real("unet", 4)
    with pytest.raises(ConfigurationError, match="dimension 2 of input 0 must be 16, got 24"):
        split[0](torch.zeros(2, 3, 24, 24).double())


def test_a_pipeline_takes_it_in_place_of_a_model():
    case, split = real("mixture-of-experts", 4)
    schedule = build_schedule("interleaved", devices=2, microbatches=4, chunks=2)
    true = gradients(case.model, case.loss(split(case.inputs), case.targets))
    with Pipeline(split, schedule, loss=case.loss) as pipeline:
        pipeline.step(case.inputs, case.targets)
        found = pipeline.gradients()
    assert found.keys() == true.keys()
    worst = max(float((found[name] - true[name]).abs().max()) for name in true)
    assert worst <= 1e-12 * max(float(g.abs().max()) for g in true.values())


def test_a_pipeline_refuses_another_number_of_stages():
    _, split = real("mixture-of-experts", 4)
    with pytest.raises(ConfigurationError, match=r"split into 4 stages, the schedule has 2; .*schedule.stages\)"):
        Pipeline(split, build_schedule("1f1b", devices=2, microbatches=2), loss=F.mse_loss)


def test_batch_statistics_are_warned_of():
    case, split = real("resnet", 4)
    with pytest.warns(UserWarning, match="has BatchNorm2d at 'bn1': it normalises over each micro-batch"):
        Pipeline(split, build_schedule("1f1b", devices=4, microbatches=2), loss=case.loss)
