"""The same steps in processes, in threads and in one piece: loss, gradients, weights."""

import copy

import pytest
import torch

from pipelab import build_schedule
from pipelab.models import KeyedDropout, TransformerLM, dropout_key, next_byte_loss, text_batch, transformer_stage
from pipelab.runtime import Pipeline, gradient_error
from tests.runtime.small import data, mlp, mse, tuple_net

STEPS, SEED = 3, 3


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.01)


def whole(model, loss, batches):
    """(losses, last gradients, weights) of the unsplit model."""
    model = copy.deepcopy(model)
    optimizer, losses = adam([(n, p) for n, p in model.named_parameters() if p.requires_grad]), []
    for step, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        with dropout_key(SEED, step):
            value = loss(model(x), y)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}, dict(model.state_dict())


def split(model, schedule, loss, batches, launch):
    model = copy.deepcopy(model)
    with Pipeline(model, schedule, loss=loss, optimizer=adam, seed=SEED, launch=launch, device="cpu") as pipeline:
        reports = [pipeline.step(x, y) for x, y in batches]
        grads = {name: grad.clone() for name, grad in pipeline.gradients().items()}
    # The weights are read from the caller's own model, after the processes have been let go.
    return reports, grads, dict(model.state_dict())


def check(model, schedule, loss, batches):
    losses, grads, weights = whole(model, loss, batches)
    reports, found, trained = split(model, schedule, loss, batches, "processes")
    threads, expected, same = split(model, schedule, loss, batches, "threads")
    assert [r.loss for r in reports] == pytest.approx(losses, rel=1e-12)
    assert [r.loss for r in reports] == [r.loss for r in threads]
    assert gradient_error(found, grads) < 1e-12
    assert gradient_error(found, expected) < 1e-14
    assert all(torch.equal(trained[name], same[name]) for name in same), "bit for bit what threads train"
    assert max(float((trained[n] - weights[n]).abs().max()) for n in weights) < 1e-9
    last, other = reports[-1], threads[-1]
    assert last.peak_activation_bytes == other.peak_activation_bytes
    assert last.timeline.message_count == other.timeline.message_count
    assert [m.size for m in last.wall.messages] == [m.size for m in other.wall.messages]


SHAPES = [(name, p) for name in ("naive", "gpipe", "1f1b", "interleaved") for p in (2, 3, 4)]
LATER = [("naive", 3), ("gpipe", 3), ("1f1b", 2), ("interleaved", 2)]


@pytest.mark.parametrize(
    ("name", "p"), [pytest.param(*shape, marks=[pytest.mark.slow] if shape in LATER else []) for shape in SHAPES]
)
def test_every_schedule_trains_as_in_threads_and_in_one_piece(name, p):
    """Tuples between stages, one tensor of which takes no gradient; dropout; uneven micro-batches; recomputation."""
    m = {2: 4, 3: 8, 4: 10}[p] if name == "interleaved" else 5  # two groups: of p, and of p + 1
    schedule = build_schedule(name, devices=p, microbatches=m, recompute=p == 3)
    batches = [data(batch=23, seed=seed) for seed in range(STEPS)]
    check(tuple_net(layers=8, dropout=0.1), schedule, mse, batches)


def test_the_transformer_trains_as_in_threads_and_in_one_piece():
    model = TransformerLM(layers=6, width=16, heads=2, tokens=8, dropout=0.1).double()
    batches = [text_batch(step, 13, 8) for step in range(STEPS)]
    check(model, build_schedule("1f1b", devices=3, microbatches=4), next_byte_loss, batches)


def test_stages_built_where_they_live_train_alike():
    batches = [text_batch(step, 8, 8) for step in range(STEPS)]
    sizes = {"layers": 4, "width": 16, "heads": 2, "tokens": 8}
    model = TransformerLM(**sizes).double()
    losses, grads, weights = whole(model, next_byte_loss, batches)
    schedule = build_schedule("1f1b", devices=2, microbatches=4)

    def build_stage(s):
        return transformer_stage(s, 2, **sizes).double()

    with Pipeline(build_stage, schedule, loss=next_byte_loss, optimizer=adam, launch="processes", device="cpu") as pipe:
        assert set(dict(pipe.named_parameters())) == set(dict(model.named_parameters()))
        assert [pipe.step(x, y).loss for x, y in batches] == pytest.approx(losses, rel=1e-12)
        assert gradient_error(pipe.gradients(), grads) < 1e-12
        state = {name: tensor.clone() for name, tensor in pipe.state_dict().items()}
        assert max(float((state[n] - weights[n]).abs().max()) for n in weights) < 1e-9
        pipe.load_state_dict(model.state_dict())
        again = pipe.evaluate(*batches[0])
        assert again.loss == pytest.approx(losses[0], rel=1e-12), "what was loaded is what runs"
        state["head.score.bias"] = state["head.score.bias"][:3]
        with pytest.raises(ValueError, match=r"head.score.bias is \[256\], the state has \[3\]"):
            pipe.load_state_dict(state)


def test_what_the_caller_changes_between_steps_counts():
    """New weights, frozen parameters and evaluation mode travel with each step."""
    model, (x, y) = mlp(), data(16)
    model.insert(4, KeyedDropout(0.5, 0))
    schedule = build_schedule("gpipe", devices=2, microbatches=2)
    with Pipeline(model, schedule, loss=mse, launch="processes", device="cpu", seed=SEED) as pipeline:
        first = pipeline.step(x, y).loss
        model[0][0].weight.requires_grad_(False)
        model.eval()
        with torch.no_grad():
            model[6][0].bias.add_(1.0)
        second = pipeline.step(x, y).loss
        assert second == pytest.approx(float(mse(model(x), y).detach()), rel=1e-12) != first
        assert model[0][0].weight.grad is None
        assert model[0][0].bias.grad is not None
        assert "0.0.weight" not in pipeline.gradients()


def test_evaluate_verify_and_profile():
    model, (x, y) = tuple_net(layers=6), data(12)
    schedule = build_schedule("1f1b", devices=3, microbatches=4)
    with Pipeline(model, schedule, loss=mse, launch="processes", device="cpu") as pipeline:
        report = pipeline.evaluate(x, y)
        with torch.no_grad():
            assert torch.allclose(report.outputs, model(x), rtol=1e-12)
            assert report.loss == pytest.approx(float(mse(model(x), y)), rel=1e-12)
        assert pipeline.evaluate(x).loss is None
        assert pipeline.verify(x, y) < 1e-14
        costs = pipeline.profile(x, y, repeats=1)
        assert len(costs.forward) == 3
        assert min(costs.forward) > 0
        assert all(p.grad is None for p in model.parameters()), "neither leaves gradients behind"


def test_buffers_come_back():
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)).double()
    other, (x, y) = copy.deepcopy(model), data(16)
    schedule = build_schedule("1f1b", devices=3, microbatches=2)
    with (
        pytest.warns(UserWarning, match="normalises over each micro-batch"),
        Pipeline(model, schedule, loss=mse, launch="processes", device="cpu") as pipeline,
    ):
        pipeline.step(x, y)
    with pytest.warns(UserWarning, match="normalises"):
        Pipeline(other, schedule, loss=mse, device="cpu").step(x, y)
    assert torch.equal(model[1].running_mean, other[1].running_mean)
    assert int(model[1].num_batches_tracked) == 2


def test_autocast_holds_in_the_processes():
    model = mlp().float()
    x, y = (tensor.float() for tensor in data(16))
    schedule = build_schedule("gpipe", devices=2, microbatches=2)
    with (
        Pipeline(model, schedule, loss=mse, launch="processes", device="cpu") as pipeline,
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        report = pipeline.step(x, y)
    plain = Pipeline(model, schedule, loss=mse, device="cpu").step(x, y)
    assert {m.size for m in report.wall.messages if m.kind == "activation"} != {
        m.size for m in plain.wall.messages if m.kind == "activation"
    }


def test_clipping_and_schedulers_act_over_all_processes():
    batches = [data(16, seed=seed) for seed in range(STEPS)]
    found = {}
    for launch in ("threads", "processes"):
        model = mlp()
        with Pipeline(
            model,
            build_schedule("1f1b", devices=2, microbatches=4),
            loss=mse,
            optimizer=adam,
            lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
            clip_norm=0.1,
            launch=launch,
            device="cpu",
        ) as pipeline:
            norms = [pipeline.step(x, y).gradient_norm for x, y in batches]
        found[launch] = norms, model.state_dict()
    assert found["processes"][0] == found["threads"][0]
    assert all(torch.equal(found["processes"][1][name], tensor) for name, tensor in found["threads"][1].items())


def test_a_stage_that_lives_twice_is_summed_over_its_homes():
    """A two-way table: each stage on two devices, half of the micro-batches each way."""
    from pipelab.schedules import Schedule
    from pipelab.schedules.action import Action

    def program(mine):
        return tuple(Action.parse(text) for text in mine.split())

    schedule = Schedule(
        "two-way",
        (program("0F0 1F1 1B1 0B0"), program("0F1 1F0 1B0 0B1")),
        ((0, 1), (0, 1)),
        (1.0, 1.0),
    )
    model, (x, y) = mlp(), data(16)
    check(model, schedule, mse, [(x, y)] * STEPS)


class Tied(torch.nn.Module):
    """One weight under two names, and a buffer under another."""

    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
        self.down.weight = self.up.weight
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return torch.tanh(self.down(torch.relu(self.up(x)))) * self.scale


def test_a_parameter_with_two_names_in_one_stage_stays_one():
    model = mlp()
    model[1] = Tied().double()
    check(model, build_schedule("1f1b", devices=2, microbatches=4), mse, [data(16, seed=s) for s in range(STEPS)])


def test_a_frozen_first_stage_is_waited_for():
    model = mlp()
    model[:4].requires_grad_(False)
    check(model, build_schedule("1f1b", devices=2, microbatches=4), mse, [data(16, seed=s) for s in range(STEPS)])


def test_a_loss_that_is_nan_arrives_as_nan():
    """Story: nan stood for "no loss on this device", so processes said None, and that everything was finite."""
    x, y = data(8)
    x[0] = float("nan")
    for launch in ("threads", "processes"):
        with Pipeline(mlp(4), build_schedule("1f1b", 2, 2), loss=mse, launch=launch, device="cpu") as pipeline:
            for report in (pipeline.step(x, y), pipeline.evaluate(x, y)):
                assert report.loss != report.loss, launch
            assert not pipeline.step(x, y).finite, launch
