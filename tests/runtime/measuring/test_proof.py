"""verify compares with the caller's own model, and leaves it as it was."""

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError, PipelabError, Pipeline, build_schedule
from pipelab.runtime import gradient_error

LAUNCHES = ["threads", "processes"]
SCHEDULE = build_schedule("1f1b", devices=2, microbatches=4)
mse = nn.MSELoss()


def block():
    return nn.Sequential(nn.Linear(5, 5), nn.Tanh())


def data():
    torch.manual_seed(4)
    return torch.randn(9, 5).double(), torch.randn(9, 5).double()


class Scaled(nn.Module):
    """Its forward does more than its sections."""

    def __init__(self, factor):
        super().__init__()
        self.layers, self.factor = nn.ModuleList(block() for _ in range(4)), factor

    def pipeline_sections(self):
        return (), [f"layers.{i}" for i in range(4)], ()

    def forward(self, x):
        x = x * self.factor
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_forward_that_does_more_than_its_sections_is_noticed(launch):
    """verify compared with the chain of stages, which is another model, and said 1e-16."""
    for factor, right in ((1.0, True), (3.0, False)):
        with Pipeline(Scaled(factor).double(), SCHEDULE, loss=mse, launch=launch) as pipeline:
            assert (pipeline.verify(*data()) < 1e-13) == right


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_sequential_with_a_forward_of_its_own_is_no_chain(launch):
    with pytest.raises(ConfigurationError, match=r"cannot see the layers of Residual, an nn.Sequential with a forward"):
        Pipeline(Residual(block(), block()), SCHEDULE, loss=mse, launch=launch)
    patched = nn.Sequential(block(), block())
    patched.forward = lambda x: x
    with pytest.raises(ConfigurationError, match="a forward of its own"):
        Pipeline(patched, SCHEDULE, loss=mse, launch=launch)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_hooks_that_would_not_run_are_refused_and_those_of_layers_run(launch):
    model = nn.Sequential(block(), block()).double()
    model[1].register_forward_hook(lambda module, args, out: out * 2)
    with Pipeline(model, SCHEDULE, loss=mse, launch=launch) as pipeline:
        assert pipeline.verify(*data()) < 1e-13
    model.register_forward_hook(lambda module, args, out: out * 2)
    with pytest.raises(ConfigurationError, match="the whole Sequential has a hook, and a pipeline runs its layers"):
        Pipeline(model, SCHEDULE, loss=mse, launch=launch)


class Counting(nn.Module):
    """Puts another tensor in place of its buffer, and changes one in place."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(5, 5)
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("moved", torch.zeros(()))

    def forward(self, x):
        self.replaced = self.replaced + 1
        self.moved += 1
        return self.lin(x)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_buffers_are_as_before_after_verify_also_if_a_forward_replaces_them(launch):
    """A replaced buffer kept what the rehearsal had counted: the copy went into the tensor that was replaced."""
    model = nn.Sequential(Counting(), Counting()).double()
    with Pipeline(model, SCHEDULE, loss=mse, launch=launch) as pipeline:
        pipeline.step(*data())
        pipeline.verify(*data())
        assert [int(layer.replaced) for layer in model] == [4, 4]
        assert [int(layer.moved) for layer in model] == [4, 4]


class Energy(nn.Module):
    """Differentiates inside its forward, twice where it is trained: forces from an energy."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(5, 5)

    def forward(self, x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            energy = torch.tanh(self.lin(x)).pow(2).sum()
            (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return force


@pytest.mark.parametrize("launch", LAUNCHES)
def test_layers_may_differentiate_in_their_forward(launch):
    """The check beforehand ran them without gradients, and refused a valid model."""
    model = nn.Sequential(block(), Energy(), block(), Energy()).double()
    with Pipeline(model, SCHEDULE, loss=mse, launch=launch) as pipeline:
        assert pipeline.verify(*data()) < 1e-13


def test_sparse_gradients_are_compared():
    ids = torch.randint(50, (9,))
    model = nn.Sequential(nn.Embedding(50, 5, sparse=True), block()).double()
    assert Pipeline(model, SCHEDULE, loss=mse).verify(ids, data()[1]) < 1e-13
    one, other = torch.eye(3).to_sparse(), torch.eye(3)
    assert gradient_error({"a": one}, {"a": other}) == 0


class Learned(nn.Module):
    """A loss with a parameter: the weight of its uncertainty."""

    def __init__(self):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, out, target):
        return mse(out, target) * torch.exp(-self.log_sigma) + self.log_sigma


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_loss_with_parameters_is_trained_with_the_last_stage(launch):
    """In threads it was given gradients and never stepped, in processes not even that."""
    torch.manual_seed(0)
    model, loss = nn.Sequential(block(), block()).double(), Learned()
    true, true_loss = nn.Sequential(block(), block()).double(), Learned()
    true.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD([*true.parameters(), *true_loss.parameters()], lr=0.1)
    x, y = data()
    sgd = {"optimizer": lambda named: torch.optim.SGD([p for _, p in named], lr=0.1)}
    with Pipeline(model, SCHEDULE, loss=loss, launch=launch, **sgd) as pipeline:
        assert pipeline.verify(x, y) < 1e-13
        for _ in range(3):
            optimizer.zero_grad()
            value = true_loss(true(x), y)
            value.backward()
            optimizer.step()
            assert pipeline.step(x, y).loss == pytest.approx(value.item(), abs=1e-13)
        assert "loss.log_sigma" in pipeline.state_dict()
        assert "loss.log_sigma" in pipeline.optimizer_state()["param_groups"][0]["params"]
    assert loss.log_sigma.item() == pytest.approx(true_loss.log_sigma.item(), abs=1e-13) != 0


class Heads(nn.Module):
    """A loss whose own parameter is called weight, as class weights are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(5, 3, dtype=torch.float64))

    def forward(self, out, target):
        return nn.functional.cross_entropy(out @ self.weight, target)


def test_a_losss_parameter_is_not_taken_for_class_weights():
    """It was summed up as the number of terms of a micro-batch: a silent other gradient."""
    model = nn.Sequential(block(), block()).double()
    with Pipeline(model, SCHEDULE, loss=Heads()) as pipeline:
        assert pipeline.verify(data()[0], torch.arange(9) % 3) < 1e-13


def test_a_loss_that_holds_a_parameter_of_a_built_stage_is_refused_too():
    """Two optimizers stepped it."""
    pieces, loss = [block().double(), block().double()], Learned()
    loss.log_sigma = pieces[0][0].bias
    with pytest.raises(ConfigurationError, match=r"the loss holds 'stages.0.0.bias', a parameter of the model"):
        Pipeline(lambda s: pieces[s], SCHEDULE, loss=loss)


class Counted(nn.Module):
    """A loss that counts its calls."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, out, target):
        self.calls += 1
        return mse(out, target)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_losss_buffers_are_as_before_after_verify(launch):
    loss = Counted()
    with Pipeline(nn.Sequential(block(), block()).double(), SCHEDULE, loss=loss, launch=launch) as pipeline:
        pipeline.verify(*data())
    assert int(loss.calls) == 0


def test_an_evaluation_that_is_refused_changes_no_mode_of_the_step_that_runs():
    """It switched the model to evaluation before it found that a step was on its way."""
    modes, tried = [], []

    def look(module, given, out):
        if not tried:
            tried.append(True)
            with pytest.raises(PipelabError, match="running a step in another thread"):
                pipeline.evaluate(*data())
        modes.append(all(inner.training for inner in model.modules()))

    model = nn.Sequential(block(), block()).double()
    model[0].register_forward_hook(look)
    pipeline = Pipeline(model, SCHEDULE, loss=mse)
    pipeline.step(*data())
    assert modes == [True] * 4


def test_verify_says_when_dropout_makes_it_no_proof():
    model = nn.Sequential(block(), nn.Dropout(0.5), block()).double()
    pipeline = Pipeline(model, SCHEDULE, loss=mse)
    with pytest.warns(UserWarning, match=r"Dropout at '1', which drops others in the model in one piece.*model.eval"):
        pipeline.verify(*data())
    model.eval()
    assert pipeline.verify(*data()) < 1e-13


def test_a_loss_that_holds_a_parameter_of_the_model_is_refused():
    model = nn.Sequential(block(), block()).double()
    loss = Learned()
    loss.log_sigma = model[0][0].bias
    with pytest.raises(ConfigurationError, match=r"the loss holds '0.0.bias', a parameter of the model"):
        Pipeline(model, SCHEDULE, loss=loss)


@pytest.mark.parametrize("launch", LAUNCHES)
def test_parameters_that_are_exchanged_are_followed_or_refused_where_an_optimizer_holds_the_first(launch):
    """In processes the exchanged ones were ignored: another model than the caller's was trained."""
    x, y = data()
    others = nn.Sequential(block(), block()).double().state_dict()
    model = nn.Sequential(block(), block()).double()
    with Pipeline(model, SCHEDULE, loss=mse, launch=launch) as pipeline:
        pipeline.step(x, y)
        model.load_state_dict(others, assign=True)
        assert pipeline.step(x, y).loss == pytest.approx(mse(model(x), y).item(), abs=1e-13)
        assert pipeline.verify(x, y) < 1e-13
        assert pipeline.evaluate(x, y).loss == pytest.approx(mse(model(x), y).item(), abs=1e-13)
    model = nn.Sequential(block(), block()).double()
    adam = {"optimizer": lambda named: torch.optim.Adam([p for _, p in named])}
    with Pipeline(model, SCHEDULE, loss=mse, launch=launch, **adam) as pipeline:
        pipeline.step(x, y)
        model[1][0].weight = nn.Parameter(model[1][0].weight.detach().clone())
        with pytest.raises(ConfigurationError, match=r"parameter '1.0.weight' was exchanged for another tensor"):
            pipeline.step(x, y)
