"""What optimizers remember goes from launch to launch and from cut to cut, by the unsplit model's names."""

import copy

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from pipelab import ConfigurationError, Pipeline, build_schedule
from tests.runtime.setup.test_ties import LM, batch, loss

LAUNCHES = ["threads", "processes"]
FOUR, TWICE = build_schedule("1f1b", 4, 6), build_schedule("interleaved", 2, 4, 2)


def grouped(named):
    """Biases without weight decay: two groups, where a stage has both."""
    parts = {decay: [p for name, p in named if name.endswith("bias") == (decay == 0.0)] for decay in (0.0, 0.1)}
    groups = [{"params": params, "weight_decay": decay} for decay, params in parts.items() if params]
    return torch.optim.AdamW(groups, lr=0.02)


def halved(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)


@pytest.fixture(scope="module")
def unsplit():
    """Losses of five steps by hand, and the state after three."""
    model, (x, y) = LM(), batch()
    optimizer = grouped(list(model.named_parameters()))
    scheduler = halved(optimizer)
    losses = []
    for step in range(5):
        if step == 3:
            state = copy.deepcopy(get_optimizer_state_dict(model, optimizer))
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
        scheduler.step()
        losses.append(value.item())
    return losses, state


def opened(schedule, launch, model=None, **more):
    told = {"optimizer": grouped, "lr_scheduler": halved, **more}
    return Pipeline(LM() if model is None else model, schedule, loss=loss, launch=launch, **told)


@pytest.fixture(scope="module")
def saved():
    """Weights and state after three steps on four devices, by launch."""
    found = {}
    for launch in LAUNCHES:
        with opened(FOUR, launch) as pipeline:
            for _ in range(3):
                pipeline.step(*batch())
            weights = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
            found[launch] = (weights, copy.deepcopy(pipeline.optimizer_state()))
    return found


@pytest.mark.parametrize("launch", LAUNCHES)
def test_it_is_what_torch_says_of_the_unsplit_model(launch, saved, unsplit):
    told, true = saved[launch][1], unsplit[1]
    assert told["state"].keys() == true["state"].keys()
    for name, kept in true["state"].items():
        for key, tensor in kept.items():
            torch.testing.assert_close(told["state"][name][key], tensor, atol=1e-12, rtol=1e-9)
    groups = {frozenset(group["params"]): group["weight_decay"] for group in told["param_groups"]}
    assert groups == {frozenset(group["params"]): group["weight_decay"] for group in true["param_groups"]}
    assert {group["lr"] for group in told["param_groups"]} == {0.01}, "what the scheduler has made of it"


@pytest.mark.parametrize("target", LAUNCHES)
@pytest.mark.parametrize("source", LAUNCHES)
def test_training_goes_on_in_another_launch_and_another_cut(source, target, saved, unsplit):
    weights, state = saved[source]
    before = copy.deepcopy(state)
    with opened(TWICE, target) as pipeline:
        pipeline.load_state_dict(weights)
        pipeline.load_optimizer_state(state)
        losses = [pipeline.step(*batch()).loss for _ in range(2)]
        assert {group["lr"] for group in pipeline.optimizer_state()["param_groups"]} == {0.005}
    assert losses == pytest.approx(unsplit[0][3:], abs=1e-12)
    for name, kept in before["state"].items():
        assert all(torch.equal(tensor, state["state"][name][key]) for key, tensor in kept.items()), "a copy was loaded"


def test_the_unsplit_model_goes_on_from_it(saved, unsplit):
    weights, state = saved["threads"]
    model, (x, y) = LM(), batch()
    model.load_state_dict(weights, strict=False)
    optimizer = grouped(list(model.named_parameters()))
    set_optimizer_state_dict(model, optimizer, {key: state[key] for key in ("state", "param_groups")})
    value = loss(model(x), y)
    assert value.item() == pytest.approx(unsplit[0][3], abs=1e-12)
    value.backward()
    optimizer.step()
    assert loss(model(x), y).item() == pytest.approx(unsplit[0][4], abs=1e-12)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_what_does_not_fit_is_said_and_nothing_is_changed(launch, saved):
    state = saved["threads"][1]

    def refused(given, match):
        with pytest.raises(ConfigurationError, match=match):
            pipeline.load_optimizer_state(given)

    with opened(FOUR, launch) as pipeline:
        refused({"state": {}, "param_groups": []}, "does not match this model: the state has no 'embed.weight'")
        more = {**state, "param_groups": [*state["param_groups"], {"params": ["layers.9.0.bias"]}]}
        refused(more, "this model has no trained 'layers.9.0.bias'")
        refused({"weights": 1}, "has the keys 'state' and 'param_groups'")
        numbered = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1).state_dict()
        refused(numbered, "numbers its parameters, as torch.optim does; .*get_optimizer_state_dict")
        refused({key: state[key] for key in ("state", "param_groups")}, "has a learning-rate scheduler, and the state")
        pipeline.load_optimizer_state(state)
    with Pipeline(LM(), FOUR, loss=loss, launch=launch) as pipeline:
        refused(state, "this Pipeline has no optimizer; make it with optimizer=")
        with pytest.raises(ConfigurationError, match="no optimizer"):
            pipeline.optimizer_state()


def test_a_state_of_another_kind_or_width_is_refused_before_anything_is_changed(saved):
    """It was taken, and the next step failed halfway: some parameters had been stepped by then."""
    state = saved["threads"][1]
    with opened(FOUR, "threads") as pipeline:
        before = pipeline.optimizer_state()
        narrow = copy.deepcopy(state)
        narrow["state"]["layers.2.0.bias"]["exp_avg"] = torch.zeros(3)
        with pytest.raises(ConfigurationError, match=r"layers.2.0.bias is \[6\], its 'exp_avg' .* is \[3\]"):
            pipeline.load_optimizer_state(narrow)
        part = copy.deepcopy(state)
        del part["state"]["layers.2.0.bias"]["exp_avg"]
        with pytest.raises(ConfigurationError, match=r"the state of 'layers.2.0.bias' has no 'exp_avg'"):
            pipeline.load_optimizer_state(part)
        without = {key: state[key] for key in ("state", "param_groups")}
        with pytest.raises(ConfigurationError, match="has a learning-rate scheduler"):
            pipeline.load_optimizer_state(without)
        assert pipeline.optimizer_state()["state"] == before["state"] == {}
    sgd = {"optimizer": lambda named: torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.9)}
    with Pipeline(LM(), FOUR, loss=loss, **sgd) as pipeline:
        with pytest.raises(ConfigurationError, match=r"has no '\w+': it was saved from another kind .* than this SGD"):
            pipeline.load_optimizer_state({key: state[key] for key in ("state", "param_groups")})
        with pytest.raises(ConfigurationError, match="and this Pipeline has none; make it with lr_scheduler"):
            pipeline.load_optimizer_state(state)


def test_a_group_without_parameters_is_kept():
    def optimizer(named):
        return torch.optim.SGD([{"params": [p for _, p in named]}, {"params": [], "lr": 0.5}], lr=0.1)

    with Pipeline(LM(), FOUR, loss=loss, optimizer=optimizer) as pipeline:
        pipeline.step(*batch())
        pipeline.load_optimizer_state(pipeline.optimizer_state())
        pipeline.step(*batch())


def test_the_number_of_the_step_goes_with_it():
    """It keys the dropout: without it masks began anew."""
    with opened(FOUR, "threads") as pipeline:
        pipeline.step(*batch())
        state = pipeline.optimizer_state()
        assert state["step_number"] == 1
    for launch in LAUNCHES:
        with opened(FOUR, launch) as pipeline:
            pipeline.load_optimizer_state(state)
            assert pipeline.step(*batch()).step == 1


def test_schedulers_that_differ_need_the_stages_that_they_were_saved_from():
    def each(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.9**step] * len(optimizer.param_groups))

    def by_layer(named):
        return torch.optim.SGD([{"params": [p], "lr": 0.1 / (1 + k)} for k, (_, p) in enumerate(named)], lr=0.1)

    told = {"loss": loss, "optimizer": by_layer, "lr_scheduler": each}
    with Pipeline(LM(), FOUR, **told) as pipeline:
        pipeline.step(*batch())
        state = pipeline.optimizer_state()
        pipeline.load_optimizer_state(state)
    pipeline = Pipeline(LM(), build_schedule("1f1b", 2, 4), **told)
    with pytest.raises(ConfigurationError, match="load it into the stages that it was saved from"):
        pipeline.load_optimizer_state(state)


def test_a_tied_parameters_other_name_will_do(saved):
    _, state = saved["threads"]
    called = {name if name != "embed.weight" else "head.weight": kept for name, kept in state["state"].items()}
    groups = [
        {**group, "params": [n if n != "embed.weight" else "head.weight" for n in group["params"]]}
        for group in state["param_groups"]
    ]
    with opened(FOUR, "threads") as pipeline:
        pipeline.load_optimizer_state({**state, "state": called, "param_groups": groups})
        assert "embed.weight" in pipeline.optimizer_state()["state"]
