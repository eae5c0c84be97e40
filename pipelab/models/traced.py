"""The other cut: a model is traced by ``torch.export``, and the graph of its operations is cut.

It stands on what ``torch.distributed.pipelining.pipeline`` stands on, not on that itself: that traces for one batch
size and one mode, and leaves it to its runtime to send what skips stages. Here every value that a later stage needs
travels through those between:

    stage 0   a = down(x); b = middle(a)     sends (a, b)
    stage 1   c = deep(b)                    sends (a, c)
    stage 2   up(a, c)

A graph holds a mode: there is one for training and one for evaluation, cut at the same places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import accumulate, pairwise
from typing import Any

from torch import Tensor, nn

from pipelab.errors import ConfigurationError
from pipelab.models.call import Call, as_tuple, repeated
from pipelab.models.cut import even_cuts
from pipelab.models.graph import Graph, NoTrace, Piece, Sizes, tensor_at
from pipelab.models.trying import difference
from pipelab.models.unsplit import SplitStage

__all__ = ["TracedStage", "cut_trace"]

_MODES = (True, False)


class TracedStage(SplitStage):
    """Two pieces of graph, for training and for evaluation, that work with the model's own tensors in ``tree``."""

    def __init__(self, model: nn.Module, pieces: dict[bool, Piece], tree: nn.Module, sizes: Sizes | None) -> None:
        super().__init__(model)
        self._original: Any = [model]  # in a list, it is no submodule
        self.tree, self.sizes = tree, sizes
        self.training_graph, self.evaluation_graph = pieces[True].graph, pieces[False].graph
        self.tensors = {mode: piece.tensors for mode, piece in pieces.items()}
        names = pieces[True].modules
        self.told = f"{names[0]} to {names[-1]}" if names else "operations between modules"

    def forward(self, x: Any) -> Any:
        """The piece for the mode that the model is in. What comes and goes is what later stages need."""
        inputs = as_tuple(x)
        if self.sizes is not None:
            self.sizes.check(inputs)
        mode = self.training
        own = [tensor_at(self.tree, name) for name in self.tensors[mode]]
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
    graphs = {mode: Graph(model, call, two, mode) for mode in _MODES}
    bounds = _bounds(graphs, stages, cuts)
    pieces = {mode: [graph.piece(s, bounds[mode]) for s in range(stages)] for mode, graph in graphs.items()}
    users = [{name for mode in _MODES for name in pieces[mode][s].tensors} for s in range(stages)]
    unused = {name for name, _ in _named_tensors(model)}.difference(*users)
    constants = graphs[True].constants | graphs[False].constants
    cut = []
    for s in range(stages):
        both = {mode: pieces[mode][s] for mode in _MODES}
        # What nobody uses goes with the last stage.
        tree = _tree(model, users[s] | (unused if s == stages - 1 else set()), constants, pieces[True][s].modules)
        cut.append(TracedStage(model, both, tree, None if s else graphs[True].sizes))
    tries = [(two, True), (repeated(example, 3), True), *((repeated(example, n), False) for n in (2, 3, 1))]
    reason = difference(model, cut, call, tries, exactly=False)
    if reason is not None:
        raise NoTrace(f"its graph, cut, does not give what it gives in one piece ({reason})")
    return tuple(cut)


# ---- where to cut ----------------------------------------------------------------------------------------------------


def _bounds(
    graphs: dict[bool, Graph], stages: int, cuts: Sequence[int] | Sequence[str] | None
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
    if _agree(_owners(training, lightest[True]), _owners(evaluation, lightest[False])):
        return lightest
    before = {mode: [graph.place[graph.heavy[k]] for k in firsts] for mode, graph in graphs.items()}
    if _agree(_owners(training, before[True]), _owners(evaluation, before[False])):
        return before
    raise NoTrace("its parameters are used at other places in training than in evaluation")


def _firsts(graph: Graph, stages: int) -> list[int]:
    """Numbers of the heavy operations that stages 1, 2, ... begin with: even work, cut where little goes over.

    A cut in the middle of a residual block takes two tensors along, one beside it takes one: up to a quarter of a
    stage's work is shifted for that.
    """
    work = [graph.work[node] for node in graph.heavy]
    done = [0, *accumulate(work)]
    even = even_cuts(work, stages)
    near = [[j for j in range(1, len(work)) if abs(done[j] - done[k]) <= done[-1] / stages / 4] for k in even]
    better = [min(js, key=lambda j: (graph.lightest(j)[0], abs(j - k))) for k, js in zip(even, near, strict=True)]
    return better if all(a < b for a, b in pairwise(better)) else even


def _owners(graph: Graph, bounds: Sequence[int]) -> dict[str, set[int]]:
    """Which stages use each parameter and buffer."""
    used: dict[str, set[int]] = {}
    for node in graph.nodes:
        for arg in node.all_input_nodes:
            name = graph.name_of(arg)
            if name is not None:
                used.setdefault(name, set()).add(graph.stage_of(node, bounds))
    return used


def _agree(one: dict[str, set[int]], other: dict[str, set[int]]) -> bool:
    """Whether what both use is used by the same stages. (A batch norm counts its batches in training only.)"""
    return all(one[name] == other[name] for name in one.keys() & other.keys())


def _named(graph: Graph, stages: int, cuts: list[Any]) -> list[int]:
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


def _tree(model: nn.Module, names: set[str], constants: dict[str, Tensor], called: Sequence[str]) -> nn.Module:
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
        if name in constants:
            place.register_buffer(last, constants[name], persistent=False)
        elif not hasattr(place, last):
            original, tensor = modules[path], tensor_at(model, name)
            if isinstance(tensor, nn.Parameter):
                place.register_parameter(last, tensor)
            else:
                place.register_buffer(last, tensor, persistent=last not in original._non_persistent_buffers_set)
    return tree


def _at(tree: nn.Module, path: str) -> nn.Module:
    for part in path.split(".") if path else ():
        if part not in tree._modules:
            tree.add_module(part, nn.Module())
        tree = tree._modules[part]  # type: ignore[assignment]
    return tree
