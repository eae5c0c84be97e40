"""The other cut: a model is traced by ``torch.export``, and the graph of its operations is cut.

It stands on what ``torch.distributed.pipelining.pipeline`` stands on, not on that itself: that traces for one batch size
and one mode, and leaves it to its runtime to send what skips stages. Here every value that a later stage needs travels
through those between:

    stage 0   a = down(x); b = middle(a)     sends (a, b)
    stage 1   c = deep(b)                    sends (a, c)
    stage 2   up(a, c)

A graph holds a mode: there is one for training and one for evaluation, cut at the same places.
"""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from pipelab.errors import ConfigurationError
from pipelab.models.call import Call, as_tuple, output_tensors, repeated
from pipelab.models.cut import even_cuts
from pipelab.models.trying import difference, said
from pipelab.models.unsplit import SplitStage
from pipelab.models.watch import undisturbed

__all__ = ["NoTrace", "TracedStage", "cut_trace"]

_MODES = (True, False)


class NoTrace(Exception):
    """Why a model cannot be traced and cut."""


class TracedStage(SplitStage):
    """Two pieces of graph, for training and for evaluation, that work with the model's own tensors in ``tree``."""

    def __init__(self, model: nn.Module, pieces: dict[bool, _Piece], tree: nn.Module) -> None:
        super().__init__(model)
        self._original: Any = [model]  # in a list, it is no submodule
        self.tree = tree
        self.training_graph, self.evaluation_graph = pieces[True].graph, pieces[False].graph
        self.tensors = {mode: piece.tensors for mode, piece in pieces.items()}
        names = pieces[True].modules
        self.told = f"{names[0]} to {names[-1]}" if names else "operations between modules"

    def forward(self, x: Any) -> Any:
        """The piece for the mode that the model is in. What comes and goes is what later stages need."""
        inputs = as_tuple(x)
        mode = self.training
        own = [_tensor(self.tree, name) for name in self.tensors[mode]]
        return (self.training_graph if mode else self.evaluation_graph)(inputs[0].device, *inputs, *own)

    @property
    def training(self) -> bool:
        """The model's own mode, where that is in this process."""
        original = vars(self).get("_original")
        return bool(original[0].training if original else vars(self).get("_mode", True))

    @training.setter
    def training(self, mode: bool) -> None:
        original = vars(self).get("_original")
        if original:
            original[0].training = mode
        vars(self)["_mode"] = mode

    def __getstate__(self) -> dict[str, Any]:
        # Neither another process nor a deep copy has the model.
        return vars(self) | {"_original": None, "_mode": self.training}


def cut_trace(
    model: nn.Module,
    call: Call,
    example: tuple[Tensor, ...],
    stages: int,
    cuts: Sequence[int] | Sequence[str] | None,
) -> tuple[TracedStage, ...]:
    """The stages. Raises NoTrace; ConfigurationError for cuts that do not fit."""
    two = repeated(example, 2)
    graphs = {mode: _Graph(model, call, two, mode) for mode in _MODES}
    bounds = _bounds(graphs, stages, cuts)
    pieces = {mode: [graph.piece(s, bounds[mode]) for s in range(stages)] for mode, graph in graphs.items()}
    users = [{name for mode in _MODES for name in pieces[mode][s].tensors} for s in range(stages)]
    unused = {name for name, _ in _named_tensors(model)}.difference(*users)
    cut = []
    for s in range(stages):
        both = {mode: pieces[mode][s] for mode in _MODES}
        # What nobody uses goes with the last stage.
        tree = _tree(model, users[s] | (unused if s == stages - 1 else set()), graphs[True], pieces[True][s].modules)
        cut.append(TracedStage(model, both, tree))
    tries = [(two, True), (repeated(example, 3), True), *((repeated(example, n), False) for n in (2, 3, 1))]
    reason = difference(model, cut, call, tries, exactly=False)
    if reason is not None:
        raise NoTrace(f"its graph, cut, does not give what it gives in one piece ({reason})")
    return tuple(cut)


# ---- the graph -------------------------------------------------------------------------------------------------------


class _Piece:
    """A stage's part of a graph: called with the device, what comes, and its own tensors by name."""

    def __init__(self, graph: fx.GraphModule, tensors: list[str], modules: list[str]) -> None:
        self.graph, self.tensors, self.modules = graph, tensors, modules


class _Graph:
    """A model's graph in one mode, and what its operations cost on the example."""

    def __init__(self, model: nn.Module, call: Call, inputs: tuple[Tensor, ...], training: bool) -> None:
        self.device = inputs[0].device
        args, kwargs = call.arguments(inputs)
        with undisturbed(model, training=training), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                program = torch.export.export(
                    model, args, kwargs, dynamic_shapes=_sizes(model, args, kwargs), strict=False
                )
                self.module = program.module()
            except Exception as error:
                raise NoTrace(f"torch.export stops at {said(error)[:300]}") from error
            self._clean()
            meter = _Meter(self.module)
            with torch.no_grad():
                meter.run(*[leaf for leaf in pytree.tree_leaves((args, kwargs))])
        self.work, self.bytes = meter.work, meter.bytes
        self.names = _canonical(model)
        self.inputs = [node for node in self.module.graph.nodes if node.op == "placeholder"]
        self.nodes = [node for node in self.module.graph.nodes if node.op not in ("placeholder", "get_attr", "output")]
        self.place = {node: k for k, node in enumerate(self.nodes)}
        self.heavy = [node for node in self.nodes if self.work.get(node)]
        self.traffic = self._traffic()
        self.outputs, self.lone = self._outputs(program.call_spec.out_spec)

    def _clean(self) -> None:
        """Without what only asserts: some of that holds for the device alone that was traced on."""
        for node in list(self.module.graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default:
                self.module.graph.erase_node(node)
        self.module.recompile()

    def _outputs(self, spec: Any) -> tuple[list[fx.Node], bool]:
        """The nodes whose values are what the loss gets, and whether that is a lone tensor."""
        (leaves,) = self.module.graph.output_node().args
        values = [leaf.meta["val"] if isinstance(leaf, fx.Node) else leaf for leaf in leaves]  # type: ignore[union-attr]
        found = output_tensors(pytree.tree_unflatten(values, spec))
        nodes = [next(leaf for leaf, v in zip(leaves, values, strict=True) if v is t) for t in as_tuple(found)]  # type: ignore[arg-type]
        return nodes, isinstance(found, Tensor)

    def modules_of(self, node: fx.Node) -> list[str]:
        """The modules that an operation is part of, outermost first."""
        return [name for name, _ in node.meta.get("nn_module_stack", {}).values() if name]

    def stage_of(self, node: fx.Node, bounds: Sequence[int]) -> int:
        """Where a value is made. A part of a tuple is taken where the tuple is made."""
        if node.op == "placeholder":
            return 0
        while node.target is operator.getitem:
            node = node.args[0]  # type: ignore[assignment]
        return sum(self.place[node] >= bound for bound in bounds)

    def live(self, s: int, bounds: Sequence[int]) -> list[fx.Node]:
        """The values that go from stage s - 1 to stage s: made before, needed there or later."""
        if s == 0:
            return [node for node in self.inputs if isinstance(node.meta.get("val"), Tensor)]
        made = [node for node in (*self.inputs, *self.nodes) if self.stage_of(node, bounds) < s]
        return [node for node in made if any(self._stage_of_user(user, bounds) >= s for user in node.users)]

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
        return min((self.traffic[place], place) for place in range(first + 1, last + 1))

    def piece(self, s: int, bounds: Sequence[int]) -> _Piece:
        """The part of stage s as a graph of its own."""
        graph, env, root = fx.Graph(), {}, {}
        device = graph.placeholder("device")
        came = self.live(s, bounds)
        for node in came:
            env[node] = graph.placeholder(node.name)
        mine = [node for node in self.nodes if self.stage_of(node, bounds) == s]
        used = [arg for node in mine for arg in node.all_input_nodes if arg.op == "get_attr"]
        if s == len(bounds):
            used += [node for node in self.outputs if node.op == "get_attr"]
        names: dict[str, fx.Node] = {}
        for node in dict.fromkeys(used):
            name = str(node.target)
            if isinstance(_tensor(self.module, name), Tensor):
                name = self.names.get(name, name)
                names[name] = names.get(name) or graph.placeholder(node.name)
                env[node] = names[name]
        for node in came:  # a number comes as a tensor
            if s and not isinstance(node.meta.get("val"), Tensor) and any(user in mine for user in node.users):
                env[node] = graph.call_method("item", (env[node],))
        for node in mine:
            for arg in node.all_input_nodes:
                if arg not in env:  # a piece of graph that is called by an operation
                    root[str(arg.target)] = _tensor(self.module, str(arg.target))
                    env[arg] = graph.node_copy(arg)
            if node.op == "call_module":
                root[str(node.target)] = self.module.get_submodule(str(node.target))
            copied = env[node] = graph.node_copy(node, env.__getitem__)
            copied.args = tuple(self._placed(arg, device) for arg in copied.args)
            copied.kwargs = {key: self._placed(arg, device) for key, arg in copied.kwargs.items()}
        if s == len(bounds):
            sent = [env[node] for node in self.outputs]
        else:
            sent = [self._as_tensor(graph, node, env[node], device) for node in self.live(s + 1, bounds)]
        graph.output(sent[0] if s == len(bounds) and self.lone else tuple(sent))
        modules = list(dict.fromkeys(path[-1] for node in mine if (path := self.modules_of(node))))
        return _Piece(fx.GraphModule(root, graph), list(names), modules)

    def _placed(self, arg: Any, device: fx.Node) -> Any:
        """A stage computes where it is, not where it was traced."""
        return device if isinstance(arg, torch.device) and arg.type == self.device.type else arg

    def _as_tensor(self, graph: fx.Graph, node: fx.Node, value: fx.Node, device: fx.Node) -> fx.Node:
        if isinstance(node.meta.get("val"), Tensor) or value.op == "placeholder":
            return value
        return graph.call_function(torch.tensor, (value,), {"device": device})


class _Meter(fx.Interpreter):
    """Runs a graph, and keeps what each operation costs and how large its value is."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.work: dict[fx.Node, int] = {}
        self.bytes: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            value = super().run_node(n)
        self.work[n] = counter.get_total_flops()
        self.bytes[n] = sum(t.nbytes for t in pytree.tree_leaves(value) if isinstance(t, Tensor))
        return value


def _sizes(model: nn.Module, args: Any, kwargs: Any) -> Any:
    """Which sizes may change: the batch, and lengths, but not those of images."""

    def one(leaf: Any) -> Any:
        return dict.fromkeys(range(leaf.dim() if leaf.dim() < 4 else 1), Dim.AUTO) if isinstance(leaf, Tensor) else None

    signature = inspect.signature(model.forward)
    named = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    return pytree.tree_map(one, named)


# ---- where to cut ----------------------------------------------------------------------------------------------------


def _bounds(
    graphs: dict[bool, _Graph], stages: int, cuts: Sequence[int] | Sequence[str] | None
) -> dict[bool, list[int]]:
    """The first operation of stages 1, 2, ... in either graph."""
    if cuts is not None:
        return {mode: _named(graph, stages, list(cuts)) for mode, graph in graphs.items()}
    training, evaluation = graphs[True], graphs[False]
    told = [[(str(node.target), graph.modules_of(node)) for node in graph.heavy] for graph in (training, evaluation)]
    if told[0] != told[1]:
        raise NoTrace("in training it computes other things than in evaluation")
    if len(training.heavy) < stages:
        raise NoTrace(f"it has {len(training.heavy)} operations that weigh anything, too few for {stages} stages")
    firsts = _firsts(training, stages)
    # Between two heavy operations the cut is where the least goes over.
    lightest = {mode: [place for _, place in map(graph.lightest, firsts)] for mode, graph in graphs.items()}
    if _owners(training, lightest[True]) == _owners(evaluation, lightest[False]):
        return lightest
    before = {mode: [graph.place[graph.heavy[k]] for k in firsts] for mode, graph in graphs.items()}
    if _owners(training, before[True]) == _owners(evaluation, before[False]):
        return before
    raise NoTrace("its parameters are used at other places in training than in evaluation")


def _firsts(graph: _Graph, stages: int) -> list[int]:
    """Numbers of the heavy operations that stages 1, 2, ... begin with: even work, cut where little goes over.

    A cut in the middle of a residual block takes two tensors along, one beside it takes one.
    """
    bytes_at = [graph.lightest(k)[0] for k in range(1, len(graph.heavy))]
    narrow = [k for k, size in enumerate(bytes_at, 1) if size <= min(bytes_at[max(k - 2, 0) : k + 1])]
    starts = [0, *(narrow if len(narrow) >= stages - 1 else range(1, len(graph.heavy)))]
    weights = [graph.work[node] for node in graph.heavy]
    blocks = [float(sum(weights[a:b])) for a, b in pairwise([*starts, len(weights)])]
    return [starts[block] for block in even_cuts(blocks, stages)]


def _owners(graph: _Graph, bounds: Sequence[int]) -> dict[str, set[int]]:
    """Which stages use each parameter."""
    used: dict[str, set[int]] = {}
    for node in graph.nodes:
        for arg in node.all_input_nodes:
            if arg.op == "get_attr" and str(arg.target) in graph.names:
                used.setdefault(graph.names[str(arg.target)], set()).add(graph.stage_of(node, bounds))
    return used


def _named(graph: _Graph, stages: int, cuts: list[Any]) -> list[int]:
    """The first operations of the submodules that stages begin with. Raises ConfigurationError."""
    first: dict[str, int] = {}
    for node in graph.nodes:
        for name in graph.modules_of(node):
            first.setdefault(name, graph.place[node])
    for cut in cuts:
        if cut not in first:
            near = get_close_matches(str(cut), first, 1, 0.0)[0]
            raise ConfigurationError(
                f"cuts must name submodules that stages 1, 2, ... begin with, as this model is no plain stack; "
                f"{cut!r} is none that is called; try {near!r}"
            )
    bounds = [first[cut] for cut in cuts]
    if len(bounds) != stages - 1:
        raise ConfigurationError(f"{stages} stages need {stages - 1} cuts, got {len(cuts)}: {cuts}")
    if any(a >= b for a, b in zip([0, *bounds], bounds, strict=False)):
        raise ConfigurationError(f"cuts must be in the order in which the model calls them, got {cuts}")
    return bounds


# ---- its tensors -----------------------------------------------------------------------------------------------------


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a stage must hold: parameters, and buffers that a checkpoint holds."""
    yield from model.named_parameters()
    kept = set(model.state_dict(keep_vars=True))
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in kept)


def _canonical(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter -> the one that named_parameters() gives it."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}


def _tensor(tree: nn.Module, name: str) -> Any:
    *path, last = name.split(".")
    return getattr(tree.get_submodule(".".join(path)), last)


def _tree(model: nn.Module, names: set[str], graph: _Graph, called: Sequence[str]) -> nn.Module:
    """The model's tensors of these names at their places. A module that is wholly here is the model's own."""
    tree = nn.Module()
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in called:
        module = modules.get(name)
        if module is None or any(True for _ in module.children()) or not name:
            continue
        own = {f"{name}.{key}" for key, t in (*module._parameters.items(), *module._buffers.items()) if t is not None}
        if own <= names:
            _at(tree, name.rpartition(".")[0]).add_module(name.rpartition(".")[2], module)
    for name in sorted(names):
        path, _, last = name.rpartition(".")
        place = _at(tree, path)
        if hasattr(place, last):
            continue
        original = modules.get(path)
        tensor = getattr(original, last, None) if original is not None else None
        if not isinstance(tensor, Tensor):
            place.register_buffer(last, _tensor(graph.module, name).detach(), persistent=False)  # a constant
        elif isinstance(tensor, nn.Parameter):
            place.register_parameter(last, tensor)
        else:
            place.register_buffer(last, tensor, persistent=last not in original._non_persistent_buffers_set)  # type: ignore[union-attr]
    return tree


def _at(tree: nn.Module, path: str) -> nn.Module:
    for part in path.split(".") if path else ():
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree._modules[part]  # type: ignore[assignment]
    return tree
