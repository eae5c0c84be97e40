"""A parameter that several stages hold is trained as one, in every launch."""

import copy

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, Pipeline, StageError, build_schedule
from pipelab.runtime import gradient_error, unsplit_gradients
from pipelab.runtime.setup.ties import find_ties, with_own_leaves

LAUNCHES = ["threads", "processes"]
WORDS = 11


class LM(nn.Module):
    """An embedding that is also the head."""

    def __init__(self, layers=4, *, sparse=False):
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(WORDS, 6, sparse=sparse)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(layers))
        self.head = nn.Linear(6, WORDS, bias=False)
        self.head.weight = self.embed.weight
        self.double()

    def pipeline_sections(self):
        return ["embed"], [f"layers.{i}" for i in range(len(self.layers))], ["head"]

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def loss(scores, targets):
    return nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())


def batch(size=13):
    torch.manual_seed(2)
    return torch.randint(WORDS, (size, 5)), torch.randint(WORDS, (size, 5))


def adam(named):
    return torch.optim.AdamW([p for _, p in named], lr=0.05)


def trained(model, steps=3, clip=0.3):
    """The unsplit model, trained by hand: losses, norms, weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    x, y = batch()
    told = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        told.append((value.item(), nn.utils.clip_grad_norm_(model.parameters(), clip).item()))
        optimizer.step()
    return told


def same(told, true):
    """Losses and norms, step by step."""
    return torch.allclose(
        torch.tensor(told, dtype=torch.float64), torch.tensor(true, dtype=torch.float64), rtol=0, atol=1e-12
    )


SCHEDULES = {
    "1f1b": build_schedule("1f1b", devices=4, microbatches=6),
    "interleaved": build_schedule("interleaved", devices=2, microbatches=4, chunks=2),
    "recomputed": build_schedule("gpipe", devices=2, microbatches=3).with_recompute(),
}


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_an_embedding_that_is_also_the_head_is_trained_as_in_the_unsplit_model(name, launch):
    unsplit, model = LM(), LM()
    x, y = batch()
    with Pipeline(model, SCHEDULES[name], loss=loss, optimizer=adam, clip_norm=0.3, launch=launch) as pipeline:
        assert pipeline.verify(x, y) < 1e-13
        told = [(report.loss, report.gradient_norm) for report in (pipeline.step(x, y) for _ in range(3))]
        assert pipeline.evaluate(x, y).loss == pytest.approx(loss(model(x), y).item(), abs=1e-12)
        names = [name for name, _ in pipeline.named_parameters()]
    assert same(told, trained(unsplit))
    assert model.head.weight is model.embed.weight
    assert sorted(names) == sorted(name for name, _ in model.named_parameters()), "one name, the unsplit model's"
    for own, true in zip(model.parameters(), unsplit.parameters(), strict=True):
        torch.testing.assert_close(own, true, atol=1e-11, rtol=0)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_tied_parameter_is_saved_once_and_read_back_under_any_of_its_names(launch):
    x, y = batch()
    with Pipeline(LM(), SCHEDULES["1f1b"], loss=loss, optimizer=adam, launch=launch) as pipeline:
        pipeline.step(x, y)
        state = {name: tensor.clone() for name, tensor in pipeline.state_dict().items()}
        after = pipeline.step(x, y).loss
        assert "embed.weight" in state and "head.weight" not in state
        pipeline.load_state_dict(state)
        again = pipeline.evaluate(x, y).loss
        pipeline.load_state_dict(
            {**{k: v for k, v in state.items() if k != "embed.weight"}, "head.weight": state["embed.weight"]}
        )
        assert pipeline.evaluate(x, y).loss == again == pytest.approx(after, abs=1e-12)
        assert (
            list(pipeline.optimizer_state()["state"]) != [] and "head.weight" not in pipeline.optimizer_state()["state"]
        )
    whole = LM()
    whole.load_state_dict(state, strict=False)
    assert loss(whole(x), y).item() == pytest.approx(after, abs=1e-12)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_the_same_layer_at_both_ends_of_a_sequential(launch):
    """Once refused: one module object in two stages."""
    torch.manual_seed(0)
    shared, inner = nn.Linear(5, 5), nn.Linear(5, 5)
    model = nn.Sequential(shared, nn.Tanh(), inner, shared).double()
    x, y = torch.randn(9, 5).double(), torch.randn(9, 5).double()
    true = unsplit_gradients(model, nn.MSELoss(), x, y)
    with Pipeline(model, build_schedule("1f1b", 2, 4), loss=nn.MSELoss(), launch=launch) as pipeline:
        for _ in range(2):
            pipeline.step(x, y)
        assert gradient_error(pipeline.gradients(), true.gradients) < 1e-13


@pytest.mark.parametrize("launch", LAUNCHES)
def test_three_holders_and_a_frozen_one(launch):
    torch.manual_seed(0)
    layers = [nn.Linear(5, 5).double() for _ in range(4)]
    layers[2].weight = layers[0].weight
    layers[3].weight = layers[0].weight
    layers[3].bias = layers[1].bias
    model = nn.Sequential(*layers)
    x, y = torch.randn(8, 5).double(), torch.randn(8, 5).double()
    with Pipeline(model, build_schedule("1f1b", 4, 4), loss=nn.MSELoss(), launch=launch) as pipeline:
        assert pipeline.verify(x, y) < 1e-13
        layers[0].weight.requires_grad_(False)
        assert pipeline.verify(x, y) < 1e-13
        pipeline.step(x, y)
        assert layers[0].weight.grad is None


@pytest.mark.parametrize("launch", LAUNCHES)
def test_sparse_gradients_of_an_embedding_meet_dense_ones_of_the_head(launch):
    with Pipeline(LM(sparse=True), SCHEDULES["1f1b"], loss=loss, launch=launch) as pipeline:
        assert pipeline.verify(*batch()) < 1e-13


@pytest.mark.parametrize("launch", LAUNCHES)
def test_stages_that_are_built_may_share_a_parameter(launch):
    """Between processes it is found by which of the caller's parameters it was."""
    model = LM()
    pieces = [nn.Sequential(model.embed, *model.layers[:2]), nn.Sequential(*model.layers[2:], model.head)]
    x, y = batch()
    true = copy.deepcopy(model)
    loss(true(x), y).backward()
    with Pipeline(lambda s: pieces[s], build_schedule("1f1b", 2, 4), loss=loss, launch=launch) as pipeline:
        pipeline.step(x, y)
        torch.testing.assert_close(
            pipeline.gradients()["stages.0.0.weight"], true.embed.weight.grad, atol=1e-13, rtol=0
        )
        assert "stages.1.2.weight" not in pipeline.gradients()
        assert pipeline.verify(x, y) < 1e-13


def test_what_is_tied_may_be_said():
    """Two parameters of one value, built apart as in two processes: told that they are one, they stay one."""

    def build_stage(s):
        model = LM()
        return nn.Sequential(model.embed, *model.layers[:2]) if s == 0 else nn.Sequential(*model.layers[2:], model.head)

    x, y = batch()
    told = {"loss": loss, "optimizer": adam, "clip_norm": 0.3}
    names = ("stages.0.0.weight", "stages.1.2.weight")
    pipeline = Pipeline(build_stage, build_schedule("1f1b", 2, 4), tied=[names], **told)
    reports = [pipeline.step(x, y) for _ in range(3)]
    assert same([(r.loss, r.gradient_norm) for r in reports], trained(LM()))
    assert pipeline.verify(x, y) < 1e-13
    with pytest.raises(ConfigurationError, match=r"tied names 'stages.0.weight', and no stage has such a parameter"):
        Pipeline(build_stage, build_schedule("1f1b", 2, 4), tied=[("stages.0.weight", names[1])], **told)
    with pytest.raises(ConfigurationError, match=r"are tied, but differ: .*11, 6.*6, 6"):
        Pipeline(build_stage, build_schedule("1f1b", 2, 4), tied=[(names[0], "stages.1.0.0.weight")], **told)


class Hidden(nn.Module):
    """A head that keeps its embedding out of parameters()."""

    def __init__(self, embed):
        super().__init__()
        self.tied = [embed]

    def forward(self, x):
        return x @ self.tied[0].weight.t()


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_tie_that_is_hidden_from_parameters_is_refused_in_every_launch(launch):
    """In processes it was silently untied: the embedding's gradient was half of the truth, and verify said 1e-16."""
    embed = nn.Embedding(WORDS, 6)
    model = nn.Sequential(embed, nn.Linear(6, 6), nn.Linear(6, 6), Hidden(embed))
    with Pipeline(model, build_schedule("1f1b", 2, 4), loss=loss, launch=launch) as pipeline:
        said = r"1F0.*stage 1 computes with a parameter of shape \[11, 6\] that is not among its own: it is kept out"
        with pytest.raises(StageError, match=said) as caught:
            pipeline.step(*batch())
        assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_parameters_that_share_memory_without_being_one_are_refused_in_every_launch(launch):
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    b.weight = nn.Parameter(a.weight.data)
    with pytest.raises(ConfigurationError, match=r"'1.weight' of stage 1 and '0.weight' of stage 0 share memory"):
        Pipeline(nn.Sequential(a, b), build_schedule("1f1b", 2, 2), loss=nn.MSELoss(), launch=launch)


def test_a_holder_gets_a_leaf_of_its_own_and_the_callers_modules_stay_as_they_are():
    model = LM()
    leaf = nn.Parameter(model.head.weight.detach())
    made = with_own_leaves(model, {id(model.head.weight): leaf})
    assert made is not model and made.head.weight is leaf and made.embed.weight is leaf
    assert model.head.weight is model.embed.weight is not leaf
    assert made.layers is model.layers, "what holds no tied parameter is the caller's own"
    assert made.head._forward_hooks is model.head._forward_hooks


@pytest.mark.parametrize("launch", LAUNCHES)
def test_untying_after_a_pipeline_was_made_is_refused_in_every_launch(launch):
    """In processes the new head was ignored."""
    model = LM()
    with Pipeline(model, SCHEDULES["1f1b"], loss=loss, launch=launch) as pipeline:
        model.head.weight = nn.Parameter(model.head.weight.detach().clone())
        with pytest.raises(ConfigurationError, match="was exchanged for another tensor"):
            pipeline.step(*batch())


class Scaled(nn.Linear):
    scale = 1.0

    def forward(self, x):
        return super().forward(x) * self.scale


def test_what_is_set_on_a_module_that_borrows_reaches_it():
    """Its shell went on with what was set when the Pipeline was made."""
    model = LM()
    head = Scaled(6, WORDS, bias=False).double()
    head.weight, model.head = model.embed.weight, head
    x, y = batch()
    pipeline = Pipeline(model, SCHEDULES["1f1b"], loss=loss)
    head.scale = 10.0
    assert pipeline.evaluate(x, y).loss == pytest.approx(loss(model(x), y).item(), abs=1e-12)


def test_clipping_counts_a_gradient_that_only_a_borrower_has_once():
    """Both homes had taken the borrower's very tensor, and it was scaled twice."""

    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(5, 5, dtype=torch.float64))

        def forward(self, x):
            return x @ self.weight.detach()

    torch.manual_seed(0)
    first, last = Read(), nn.Linear(5, 5).double()
    last.weight = first.weight
    model = nn.Sequential(first, nn.Linear(5, 5).double(), last)
    x, y = torch.randn(8, 5).double(), torch.randn(8, 5).double()
    pipeline = Pipeline(model, build_schedule("1f1b", 3, 4), loss=nn.MSELoss(), clip_norm=0.01)
    pipeline.step(x, y)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert nn.utils.get_total_norm(grads).item() == pytest.approx(0.01, rel=1e-4)


def test_the_name_is_the_one_that_comes_first_in_the_model():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    other.weight = one.weight
    stages = {0: nn.Sequential(one), 1: nn.Sequential(other)}
    assert find_ties(stages) == (("stages.0.0.weight", "stages.1.0.weight"),)
    assert find_ties(stages, ["stages.1.0.weight"]) == (("stages.1.0.weight", "stages.0.0.weight"),)
