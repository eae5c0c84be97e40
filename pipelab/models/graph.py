"""A model's graph of operations, from ``torch.export``, and the pieces that it is cut into."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from pipelab.errors import ConfigurationError
from pipelab.models.call import Call, output_tensors
from pipelab.models.trying import said
from pipelab.models.watch import undisturbed

__all__ = ["Graph", "NoTrace", "Piece", "Sizes", "canonical_names", "tensor_at"]


class NoTrace(Exception):
    """Why a model cannot be traced and cut."""


@dataclass(frozen=True)
class Sizes:
    """What a graph asks of the sizes of its inputs: per dimension a length, or a symbol that has one of a range."""

    inputs: tuple[tuple[int | str, ...], ...]
    ranges: dict[str, tuple[float, float]]

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Raise ConfigurationError if it was not traced for inputs of these sizes."""
        lengths: dict[str, int] = {}
        if len(tensors) != len(self.inputs):
            raise ConfigurationError(f"this model was split for {len(self.inputs)} input tensors, got {len(tensors)}")
        for number, (tensor, wanted) in enumerate(zip(tensors, self.inputs, strict=True)):
            if tensor.dim() != len(wanted):
                raise ConfigurationError(f"input {number} was traced with {len(wanted)} dimensions, got {tensor.dim()}")
            for d, (size, want) in enumerate(zip(tensor.shape, wanted, strict=True)):
                low, high = (want, want) if isinstance(want, int) else self.ranges.get(want, (0, math.inf))
                first = want if isinstance(want, int) else lengths.setdefault(want, size)
                if not low <= size <= high or size != first:
                    allowed = first if size != first or low == high else f"{low:g} to {high:g}"
                    raise ConfigurationError(
                        f"dimension {d} of input {number} must be {allowed}, got {size}: so the model was "
                        "traced; split it again with example_inputs of this size"
                    )


class Piece:
    """A stage's part of a graph: called with the device, what comes, and its own tensors by name."""

    def __init__(self, graph: fx.GraphModule, tensors: list[str], modules: list[str]) -> None:
        self.graph, self.tensors, self.modules = graph, tensors, modules


class Graph:
    """A model's graph in one mode, and what its operations cost on the example."""

    def __init__(self, model: nn.Module, call: Call, inputs: tuple[Tensor, ...], training: bool) -> None:
        self.device, self.training = inputs[0].device, training
        self.constants: dict[str, Tensor] = {}
        # The batch may change, and lengths, but not the size of images.
        free = [dict.fromkeys(range(tensor.dim() if tensor.dim() < 4 else 1), Dim.AUTO) for tensor in inputs]
        with undisturbed(model, training=training), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = torch.export.export(
                    _Called(model, call), inputs, dynamic_shapes={"inputs": tuple(free)}, strict=False
                )
                self.module = program.module()
            except Exception as error:
                raise NoTrace(f"torch.export stops at {said(error)[:300]}") from error
            self._clean()
            meter = _Meter(self.module)
            with torch.no_grad(), meter.counter:
                meter.run(*inputs)
        self.work, self.bytes = meter.work, meter.bytes
        self.names = canonical_names(model)
        self.known = {name for name, _ in model.named_modules(remove_duplicate=False) if name}
        self.inputs = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        self.nodes = [node for node in self.module.graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
        self.place = {node: k for k, node in enumerate(self.nodes)}
        self.heavy = [node for node in self.nodes if self.work.get(node)]
        self.sizes = self._sizes(program.range_constraints)
        self.traffic = self._traffic()
        self.outputs: list[fx.Node] = list(self.module.graph.output_node().args[0])  # type: ignore[arg-type]
        self.lone = pytree.tree_unflatten([0] * len(self.outputs), program.call_spec.out_spec) == 0

    def _clean(self) -> None:
        """Without what only asserts: some of it holds for this device alone, some cannot travel (see Sizes)."""
        for node in list(self.module.graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default or node.op == "call_module":
                self.module.graph.erase_node(node)
        self.module.recompile()

    def _sizes(self, ranges: Any) -> Sizes:
        values = [node.meta["val"] for node in self.inputs]
        wanted = [tuple(n if isinstance(n, int) else str(n) for n in value.shape) for value in values]
        # A lower end of 2 is what any size is given that may change: one sequence will do as well.
        told = {str(key): (float(r.lower) if r.lower > 2 else 1.0, _number(r.upper)) for key, r in ranges.items()}
        return Sizes(tuple(wanted), told)

    def modules_of(self, node: fx.Node) -> list[str]:
        """The modules that an operation is part of, outermost first."""
        path = [name for name, _ in node.meta.get("nn_module_stack", {}).values()]
        return [name for name in map(_plain, path) if name in self.known]

    def name_of(self, node: fx.Node) -> str | None:
        """What a parameter or buffer is called in the model; None for what tracing has made."""
        return self.names.get(_plain(str(node.target))) if node.op == "get_attr" else None

    def stage_of(self, node: fx.Node, bounds: Sequence[int]) -> int:
        """Where a value is made. A part of a tuple is taken where the tuple is made."""
        if node.op == "placeholder":
            return 0
        while node.target is operator.getitem:
            node = node.args[0]  # type: ignore[assignment]
        return sum(self.place[node] >= bound for bound in bounds)

    def _live(self, s: int, bounds: Sequence[int]) -> tuple[list[fx.Node], list[fx.Node]]:
        """The (tensors, whole numbers) that go from stage s - 1 to stage s: made before, needed there or later."""
        if s == 0:
            return self.inputs, []
        made = [node for node in (*self.inputs, *self.nodes) if self.stage_of(node, bounds) < s]
        live = [node for node in made if any(self._stage_of_user(user, bounds) >= s for user in node.users)]
        numbers = [node for node in live if isinstance(node.meta.get("val"), int | torch.SymInt)]
        tensors = [node for node in live if isinstance(node.meta.get("val"), Tensor)]
        if len(numbers) + len(tensors) < len(live):
            raise NoTrace("something other than tensors and whole numbers goes from one of its parts to another")
        return tensors, numbers

    def _stage_of_user(self, user: fx.Node, bounds: Sequence[int]) -> int:
        return len(bounds) if user.op == "output" else self.stage_of(user, bounds)

    def _traffic(self) -> list[int]:
        """Per operation, bytes of the values that are made before it, and needed from there on."""
        change = [0] * (len(self.nodes) + 1)
        for node in (*self.inputs, *self.nodes):
            made = self.place.get(node, -1) + 1
            needed = max((self.place.get(user, len(self.nodes)) for user in node.users), default=-1) + 1
            if made < needed:
                change[made] += self.bytes.get(node, 0)
                change[min(needed, len(self.nodes))] -= self.bytes.get(node, 0)
        return list(accumulate(change))[:-1]

    def lightest(self, k: int) -> tuple[int, int]:
        """(bytes, place) of the best cut after heavy operation k - 1 and before heavy operation k."""
        first, last = (self.place[node] for node in self.heavy[k - 1 : k + 1])
        size, place = min((self.traffic[place], -place) for place in range(first + 1, last + 1))
        return size, -place

    def piece(self, s: int, bounds: Sequence[int]) -> Piece:
        """The part of stage s as a graph of its own. Whole numbers travel together, in one tensor."""
        graph, env, root = fx.Graph(), {}, {}
        device = graph.placeholder("device")
        tensors, numbers = self._live(s, bounds)
        for node in tensors:
            env[node] = graph.placeholder(node.name)
        if numbers:
            told = graph.call_method("tolist", (graph.placeholder("numbers"),))
            for k, node in enumerate(numbers):
                env[node] = graph.call_function(operator.getitem, (told, k))
        mine = [node for node in self.nodes if self.stage_of(node, bounds) == s]
        sent = (self.outputs, []) if s == len(bounds) else self._live(s + 1, bounds)
        own: dict[str, fx.Node] = {}
        for node in dict.fromkeys(arg for user in mine for arg in user.all_input_nodes) | dict.fromkeys(sent[0]):
            name = str(node.target)
            if node.op == "get_attr" and isinstance(tensor_at(self.module, name), Tensor):
                name = self.name_of(node) or self._constant(name)
                own[name] = own.get(name) or graph.placeholder(node.name)
                env[node] = own[name]
            elif node.op == "get_attr":  # a piece of graph that an operation calls
                root[name] = tensor_at(self.module, name)
                env[node] = graph.node_copy(node)
        for node in mine:
            copied = env[node] = graph.node_copy(node, env.__getitem__)
            # A stage computes where it is, not where it was traced.
            copied.args = tuple(device if self._is_home(arg) else arg for arg in copied.args)
            copied.kwargs = {key: device if self._is_home(arg) else arg for key, arg in copied.kwargs.items()}
        result = [env[node] for node in sent[0]]
        if sent[1]:
            given = ([env[node] for node in sent[1]],)
            result.append(graph.call_function(torch.tensor, given, {"dtype": torch.int64, "device": device}))
        graph.output(result[0] if s == len(bounds) and self.lone else tuple(result))
        modules = [path[-1] for node in mine if (path := self.modules_of(node))]
        return Piece(fx.GraphModule(root, graph), list(own), list(dict.fromkeys(modules)))

    def _constant(self, name: str) -> str:
        """A tensor that tracing has made is kept under a name of this mode's own."""
        told = f"constants.{'training' if self.training else 'evaluation'}_{name.replace('.', '_')}"
        self.constants[told] = tensor_at(self.module, name).detach()
        return told

    def _is_home(self, arg: Any) -> bool:
        return isinstance(arg, torch.device) and arg.type == self.device.type


def _number(bound: Any) -> float:
    return float(bound) if bound.is_finite and bound < 2**31 else math.inf


class _Meter(fx.Interpreter):
    """Runs a graph, and keeps what each operation costs and how large its value is."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.work: dict[fx.Node, int] = {}
        self.bytes: dict[fx.Node, int] = {}
        self.counter = FlopCounterMode(display=False)

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.work[n] = self.counter.get_total_flops() - before
        self.bytes[n] = sum(t.nbytes for t in pytree.tree_leaves(value) if isinstance(t, Tensor))
        return value


class _Called(nn.Module):
    """A model as a pipeline sees it: called with the tensors that flow, and returning what the loss gets."""

    def __init__(self, model: nn.Module, call: Call) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *inputs: Tensor) -> Any:
        args, kwargs = self.call.arguments(inputs)
        return output_tensors(self.model(*args, **kwargs))


def _plain(name: str) -> str:
    """A name in the model, of a name in _Called; nothing for what is not in the model."""
    return name.partition("model.")[2] if name.startswith("model.") else ""


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first of its names, which ``named_parameters()`` gives it."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in named}


def tensor_at(tree: nn.Module, name: str) -> Any:
    """What has this name in a tree of modules."""
    *path, last = name.split(".")
    return getattr(tree.get_submodule(".".join(path)), last)
