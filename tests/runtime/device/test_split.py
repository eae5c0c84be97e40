"""I and W are together B: the same gradients, nothing computed twice, nothing kept."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pipelab import Pipeline, Schedule
from pipelab.models import TransformerLM
from pipelab.runtime.device.memory import MemoryMeter
from pipelab.runtime.device.split import SplitBackward
from tests.runtime.small import check_step, mlp, tuple_net

WIDTH = 6


class Scale(torch.autograd.Function):
    """Computes both gradients in one call, works in place on the one that comes, and counts its calls."""

    calls = 0

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x * weight

    @staticmethod
    def backward(ctx, grad):
        Scale.calls += 1
        x, weight = ctx.saved_tensors
        to_weight = (grad * x).sum(0)
        return grad.mul_(weight), to_weight


class Layer(nn.Module):
    """A function of (module, x) as a module, with two Linears, a norm and a few parameters to use."""

    def __init__(self, run):
        super().__init__()
        self.run = run
        self.a, self.b = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm, self.other = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.vector, self.table = nn.Parameter(torch.randn(WIDTH)), nn.Embedding(9, WIDTH)
        self.sparse = nn.Embedding(9, WIDTH, sparse=True)

    def forward(self, x):
        return self.run(self, x)


def frozen(m, x):
    m.b.requires_grad_(False)
    return m.a(m.b(torch.tanh(m.a(x))))


def in_place(m, x):
    y = torch.relu_(m.a(x))
    y = y + 0
    y[:, :2] *= m.vector[:2]
    y[:, 2:].add_(m.vector[2:])
    return m.b(y.clone())


def hooked(m, x):
    y = m.a(x)
    y.register_hook(lambda grad: grad * 2)
    y = torch.tanh(y)
    y.register_hook(lambda grad: grad + 1)
    z = m.b(y) + m.vector
    z.register_hook(lambda grad: grad * 3)
    return z * m.vector


def prehooked(m, x):
    y = m.b(torch.tanh(m.a(x)))
    y.grad_fn.register_prehook(lambda grads: (grads[0] * 2,))
    return y


def attention(m, x):
    q, k, v = m.a(x)[None], m.b(x)[None], m.other(x)[None]
    return x + functional.scaled_dot_product_attention(q, k, v)[0]


def made_weight(m, x):
    weight = m.a.weight @ m.b.weight.t() / m.vector.norm()
    return functional.linear(torch.tanh(functional.linear(x, weight)), weight)


def hypernetwork(m, x):
    return functional.linear(x, torch.tanh(m.a(x[:WIDTH])) * m.vector)


def recurrent(m, x):
    for _ in range(3):
        x = torch.tanh(m.a(x) + m.b(x))
    return x


CASES = {
    "chain": lambda m, x: m.b(torch.tanh(m.a(x))),
    "one": lambda m, x: m.a(x),
    "twice": recurrent,
    "residual": lambda m, x: x + m.b(torch.relu(m.a(m.norm(x)))),
    "norm": lambda m, x: m.norm(m.a(m.norm(x))),
    "broadcast": lambda m, x: (x * m.vector + m.vector[0]) / m.vector.norm(),
    "same shape": lambda m, x: m.a(x + m.table.weight[: len(x)]) + m.table.weight[: len(x)],
    "embedding": lambda m, x: m.a(x) + m.table(torch.arange(len(x)) % 9),
    "sparse embedding": lambda m, x: m.a(x) + m.sparse(torch.arange(len(x)) % 9),
    "attention": attention,
    "tied": lambda m, x: functional.linear(torch.tanh(functional.linear(x, m.a.weight)), m.a.weight.t(), m.a.bias),
    "made weight": made_weight,
    "hypernetwork": hypernetwork,
    "frozen": frozen,
    "nothing to learn": lambda m, x: torch.tanh(x) * 2,
    "no input": lambda m, x: m.a(torch.ones_like(x)),
    "some outputs without input": lambda m, x: (m.a(x), m.b(torch.ones_like(x)), m.vector * 1),
    "several outputs": lambda m, x: (m.a(x), m.b(torch.tanh(m.a(x)))),
    "an output of another": lambda m, x: (y := m.a(x), m.b(y)),
    "in place": in_place,
    "function": lambda m, x: m.b(Scale.apply(m.a(x), m.vector)),
    "function after a bias": lambda m, x: Scale.apply(m.a(x), m.vector) + m.table.weight[: len(x)],
    "hooks": hooked,
    "prehooks": prehooked,
    "unbind": lambda m, x: sum(w * m.a(x) for w in m.vector.unbind()),
    "chunk": lambda m, x: torch.cat([part * m.vector[:3] for part in m.a(x).chunk(2, 1)], 1),
    "conv": lambda m, x: functional.conv1d(x[None], m.a.weight[:, : len(x), None].repeat(1, 1, 1), m.vector),
    "batch norm": lambda m, x: m.b(functional.batch_norm(m.a(x), None, None, m.vector, m.vector, training=True)),
    "prelu": lambda m, x: functional.prelu(m.a(x), m.vector),
    "complex": lambda m, x: torch.view_as_real(torch.view_as_complex(m.a(x).view(-1, 3, 2)) * m.vector[:3]).flatten(1),
    "gru": lambda m, x: m.a(torch.gru_cell(x, x, *gru_weights(m))),
    "double to float": lambda m, x: m.b(functional.linear(x.float(), m.a.weight.float(), m.a.bias.float()).double()),
    "checkpoint": lambda m, x: m.b(checkpoint(lambda y: m.a(torch.tanh(m.b(y))), x, use_reentrant=False)),
    "reentrant checkpoint": lambda m, x: m.b(checkpoint(lambda y: m.a(torch.tanh(m.b(y))), x, use_reentrant=True)),
}
"""What a stage may do with an input of (5, WIDTH)."""


def gru_weights(m):
    wide = torch.cat([m.a.weight, m.b.weight, m.other.weight])
    return wide, wide * 2, torch.cat([m.vector, m.vector, m.vector]), torch.cat([m.a.bias] * 3)


def made(name):
    torch.manual_seed(0)
    return Layer(CASES[name]).double(), torch.randn(5, WIDTH, dtype=torch.float64)


def forward(module, x):
    """The input's leaf, the edges of the outputs, and gradients for them."""
    leaf = x.clone().requires_grad_()
    outputs = module(leaf * 1)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(3)
    grads = [torch.randn(y.shape, dtype=y.dtype, generator=generator) for y in outputs]
    return leaf, [get_gradient_edge(y) for y in outputs], grads


def whole(module, x):
    leaf, edges, grads = forward(module, x)
    torch.autograd.backward(edges, grads)
    return leaf.grad


def halves(module, x, split=None):
    """I and W; returns the input's gradient, and how the weights' stood between them."""
    leaf, edges, grads = forward(module, x)
    (found,), rest = (split or SplitBackward("stage 0")).input_gradients(edges, grads, [leaf], MemoryMeter())
    del edges, grads
    between = {name for name, p in module.named_parameters() if p.grad is not None}
    rest.run()
    assert rest.gradients == []
    return found, between


def compare(one, other):
    """The same gradients of the same parameters."""
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            assert p.grad.layout == q.grad.layout
            torch.testing.assert_close(q.grad.to_dense(), p.grad.to_dense(), rtol=1e-14, atol=1e-15, msg=name)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_the_halves_are_together_the_whole(name):
    module, x = made(name)
    other = copy.deepcopy(module)
    split = SplitBackward("stage 0")
    for _ in range(2):  # the second time gradients are added to those there are
        expected = whole(module, x)
        found, _ = halves(other, x, split)
        if expected is None or found is None:
            assert expected is found
        else:
            torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)
        compare(module, other)
    if name != "reentrant checkpoint":
        first = copy.deepcopy(made(name)[0])
        assert halves(first, x)[1] == set(), "I touches no weight"


class Count(TorchDispatchMode):
    """Counts the kernels that compute: by name, and for products by their sizes."""

    def __init__(self):
        super().__init__()
        self.ran = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in func.name() for word in ("mm", "conv", "_backward", "tanh", "attention", "sum")):
            self.ran[func.name(), *(tuple(a.shape) for a in args if isinstance(a, torch.Tensor))] += 1
        return func(*args, **(kwargs or {}))


BOTH_AT_ONCE = {"norm", "residual", "batch norm", "prelu", "conv", "gru"}
"""Cases with a node whose kernel is asked for one of its gradients, then for the others."""


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name not in BOTH_AT_ONCE and name != "checkpoint"])
def test_no_kernel_runs_twice(name):
    module, x = made(name)
    with Count() as one:
        whole(module, x)
    with Count() as two:
        halves(module, x)
    assert two.ran == one.ran


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_is_kept_after_w(name):
    module, x = made(name)
    meter = MemoryMeter()
    meter.reset(module.parameters())
    saved = meter.saving(boxed=True)
    with saved:
        leaf, edges, grads = forward(module, x)
    (_,), rest = SplitBackward("stage 0").input_gradients(edges, grads, [leaf], meter)
    seen = [weakref.ref(grad) for grad in rest.gradients if all(grad is not g for g in grads)]
    held = meter.hold(rest.gradients)
    del edges
    rest.run()
    del rest, held
    module.zero_grad()
    saved.settle()
    assert meter.held == 0
    assert [ref() for ref in seen if ref() is not None] == []


def test_the_graph_dies_without_the_garbage_collector():
    module, x = made("residual")
    gc.disable()
    try:
        meter = MemoryMeter()
        meter.reset(module.parameters())
        saved = meter.saving(boxed=True)
        with saved:
            leaf, edges, grads = forward(module, x)
        _, rest = SplitBackward("stage 0").input_gradients(edges, grads, [leaf], meter)
        saved.settle()
        assert meter.held > 0
        del edges, rest  # a step that failed between I and W
        saved.settle()
        assert meter.held == 0
    finally:
        gc.enable()


def test_what_only_the_chain_saved_is_let_go_in_i_and_what_is_kept_is_counted():
    torch.manual_seed(0)
    layer = TransformerLM(layers=1, width=32).layers[0]
    meter = MemoryMeter()
    meter.reset(layer.parameters())
    tensors = meter.saving(boxed=True)
    with tensors:
        leaf, edges, grads = forward(layer, torch.randn(8, 32, 32))
    before, row = meter.held, 8 * 32 * 32 * 4
    (_,), rest = SplitBackward("stage 0").input_gradients(edges, grads, [leaf], meter)
    del edges
    tensors.settle()
    saved = meter.held
    held = meter.hold(rest.gradients)
    assert before - saved == (3 + 4) * row + 8 * 32 * 4 * 4, "what attention saved (q, k, v, a sum a head), and GELU"
    assert meter.held - saved == (3 + 1 + 4 + 1 + 1 + 1) * row, "what comes to the four Linears and the two norms"
    rest.run()
    del rest, held
    tensors.settle()
    assert meter.held == 0


def test_hooks_on_weights_and_tensors_run_once_and_see_the_whole_gradient():
    module, x = made("twice")
    seen = []
    module.a.weight.register_hook(lambda grad: seen.append(("hook", grad)))
    module.a.bias.register_post_accumulate_grad_hook(lambda p: seen.append(("after", p.grad.clone())))
    module.run = lambda m, x: (y := recurrent(m, x), y.register_hook(lambda grad: seen.append(("on y", grad))))[0]
    whole(module, x)
    expected, seen[:] = list(seen), []
    module.zero_grad()
    halves(module, x)
    assert sorted(word for word, _ in seen) == ["after", "hook", "on y"]
    for word, grad in expected:
        torch.testing.assert_close(dict(seen)[word], grad, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_backward_hook"])
def test_hooks_on_modules_see_what_they_see_in_b(register):
    def run(walk):
        module, x = made("chain")
        seen = []
        getattr(module.b, register)(lambda _, inputs, outputs: seen.append((inputs, outputs)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            walk(module, x)
        return module, seen

    one, expected = run(whole)
    other, seen = run(halves)
    compare(one, other)
    torch.testing.assert_close(seen, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("reentrant checkpoint", "stage 7 cannot split its backward: CheckpointFunctionBackward"),
        ("hook", "AddmmBackward0"),
    ],
)
def test_a_graph_that_cannot_be_cut_is_walked_whole_in_i_and_says_so_once(name, sentence):
    if name == "hook":
        module, x = made("chain")
        run = module.run
        module.run = lambda m, x: (y := run(m, x), y.grad_fn.register_hook(lambda *grads: None))[0]
    else:
        module, x = made(name)
    split = SplitBackward("stage 7")
    with pytest.warns(UserWarning, match=sentence) as caught:
        everything = halves(module, x, split)[1]
        halves(module, x, split)
    assert len(caught) == 1
    assert "I computes all of it" in str(caught[0].message)
    assert {"a.weight", "b.weight"} <= everything


def test_a_checkpoint_runs_again_once_each_after_the_first_split_said_so():
    module, x = made("checkpoint")
    runs = []

    def part(y):
        runs.append(y)
        return module.a(torch.tanh(module.b(y)))

    module.run = lambda m, x: m.b(checkpoint(part, x, use_reentrant=False))
    split = SplitBackward("stage 7")
    with pytest.warns(UserWarning, match=r"stage 7 cannot split its backward: .*checkpoint"):
        halves(module, x, split)
    runs.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        halves(module, x, split)
    assert len(runs) == 2, "forward, and again in I"


def test_a_function_in_python_runs_once_and_says_that_it_is_not_split():
    module, x = made("function")
    Scale.calls = 0
    with pytest.warns(UserWarning, match="ScaleBackward: I does both there"):
        assert halves(module, x)[1] == set()
    assert Scale.calls == 1


@st.composite
def programs(draw):
    """A few operations on what was computed before, as (operation, first, second)."""
    return [
        (draw(st.sampled_from("abnvtsm")), draw(st.integers(0, k)), draw(st.integers(0, k)))
        for k in range(draw(st.integers(1, 10)))
    ]


OPERATIONS = {
    "a": lambda m, x, y: m.a(x),
    "b": lambda m, x, y: functional.linear(x, m.b.weight),
    "n": lambda m, x, y: m.norm(x),
    "v": lambda m, x, y: x * m.vector,
    "t": lambda m, x, y: torch.tanh(x),
    "s": lambda m, x, y: x + y,
    "m": lambda m, x, y: torch.tanh(x) @ torch.tanh(y).t() @ m.other.weight[: len(x)],
}


@settings(max_examples=150, deadline=None)
@given(programs(), st.sets(st.integers(0, 10), min_size=1, max_size=3))
def test_any_graph_of_layers_has_the_gradients_of_b(program, outputs):
    def run(m, x):
        values = [x]
        for operation, first, second in program:
            values.append(OPERATIONS[operation](m, values[first], values[second]))
        return tuple(torch.tanh(values[k % len(values)]) for k in sorted(outputs))

    torch.manual_seed(0)
    module, x = Layer(run).double(), torch.randn(5, WIDTH, dtype=torch.float64)
    other = copy.deepcopy(module)
    torch.testing.assert_close(halves(other, x)[0], whole(module, x), rtol=1e-12, atol=1e-12)
    for (name, p), q in zip(module.named_parameters(), other.named_parameters(), strict=True):
        assert (p.grad is None) == (q[1].grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(q[1].grad, p.grad, rtol=1e-12, atol=1e-12, msg=name)


ZB = Schedule.from_csv("0F0,0F1,0F2,0I0,0W0,0I1,0W1,0I2,0W2\n1F0,1I0,1F1,1I1,1W0,1F2,1I2,1W1,1W2\n")


@pytest.mark.parametrize("launch", ["threads", "processes"])
@pytest.mark.parametrize("model", [tuple_net, mlp])
def test_a_table_with_halves_has_the_unsplit_gradient(model, launch):
    pipeline, _ = check_step(model(8), ZB, launch=launch)
    pipeline.close()


def test_a_pipeline_says_once_that_a_stage_cannot_be_split():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(5, 5)

        def forward(self, x):
            return checkpoint(lambda y: torch.tanh(self.a(y)), x, use_reentrant=False)

    torch.manual_seed(0)
    model = nn.Sequential(*[Checkpointed() for _ in range(4)]).double()
    x = torch.randn(12, 5, dtype=torch.float64)
    pipeline = Pipeline(model, ZB, loss=functional.mse_loss)
    with pytest.warns(UserWarning, match="cannot split") as caught:
        pipeline.step(x, x)
        pipeline.step(x, x)
    assert [str(warning.message)[:7] for warning in caught] == ["stage 1"], "stage 0 has no input to give a gradient"
