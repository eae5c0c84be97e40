"""The direct cut of a model that is a stack: one list of layers that does most of the work, called in order.

The modules stay the caller's own, with their names, hooks and dropout; see :mod:`pipelab.models.shell` for how.
Whether a model is one is found out by watching it run, and that the stages in a row are the model is tried out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pipelab.errors import ConfigurationError
from pipelab.models.call import Call, as_tuple, output_tensors, repeated
from pipelab.models.cut import cut_layers, even_cuts
from pipelab.models.shell import Result, Run, Shape, Stub, bare_copy, copy_of, in_vain, running
from pipelab.models.trying import difference, has_nan, in_a_row, said
from pipelab.models.unsplit import SplitStage
from pipelab.models.watch import NoStack, Seen, find_stack, hooked, undisturbed, units, watch

__all__ = ["StackStage", "cut_stack"]


class StackStage(SplitStage):
    """Layers ``layers`` of a model. ``tree`` is its tree of modules, with stubs in the place of what others have."""

    def __init__(
        self,
        model: nn.Module,
        tree: nn.Module,
        call: Call,
        layers: range,
        last: bool,
        received: Sequence[tuple[int, int]],
        sent: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(model)
        self.tree, self.call, self.layers, self.last = tree, call, layers, last
        self.received, self.sent = tuple(received), tuple(sent)

    def forward(self, x: Any) -> Any:
        """The model's own forward, as far as it is this stage's.

        What comes and goes: tensors that layers returned, by (layer, place), then the model's inputs.
        """
        tensors = as_tuple(x)
        came, inputs = tensors[: len(self.received)], tensors[len(self.received) :]
        received: dict[int, dict[int, Tensor]] = defaultdict(dict)
        for (layer, place), tensor in zip(self.received, came, strict=True):
            received[layer][place] = tensor
        main = received[self.layers.start - 1] if came else {0: inputs[0]}
        run = Run(
            references=(next(iter(main.values())), *inputs),
            received=received,
            first=self.layers.start,
            last=None if self.last else self.layers.stop - 1,
            counts=not came,
        )
        args, kwargs = self.call.arguments(inputs)
        with running(run):
            return output_tensors(self.tree(*args, **kwargs))
        if self.last or self.layers.stop - 1 not in run.finished:
            raise ConfigurationError(f"the model's forward ended before layer {self.layers.stop - 1}")
        leaves = {layer: pytree.tree_leaves(value) for layer, value in run.finished.items()}
        passed = dict(zip(self.received, came, strict=True))
        return (*(passed[at] if at in passed else leaves[at[0]][at[1]] for at in self.sent), *inputs)


def cut_stack(
    model: nn.Module, call: Call, example: tuple[Tensor, ...], stages: int, cuts: Sequence[int] | None
) -> tuple[tuple[StackStage, ...], str]:
    """(the stages, what was cut). Raises NoStack; ConfigurationError for cuts that do not fit."""
    two = repeated(example, 2)
    with undisturbed(model, training=False), torch.no_grad():
        name, work, share = find_stack(model, call, two, stages)
        layers = list(model.get_submodule(name).children())
        chunks = cut_layers(len(layers), stages, even_cuts(work, stages) if cuts is None else cuts)
        cutter = _Cutter(model, name, call, chunks, watch(model, name, call, two), two)
    several = any(len(cutter.seen.results[layer].shapes) > 1 for layer in cutter.layers)
    for carry in ("main", "last", "all") if several else ("main",):
        try:
            cut = cutter.cut(carry)
            reason = difference(model, cut, call, [(two, False), (repeated(example, 3), False), (two, True)])
        except NoStack as error:
            reason = str(error)
        if reason is None:
            where = name or "the model itself"
            return cut, f"{where} is a list of {len(layers)} layers, called in order, that does {share:.0%} of the work"
    raise NoStack(f"cut between the layers of '{name}', it does not give what it gives in one piece ({reason})")


# ---- cutting it ------------------------------------------------------------------------------------------------------


class _Cutter:
    """Makes the stages from what was seen."""

    def __init__(
        self, model: nn.Module, stack: str, call: Call, chunks: Sequence[range], seen: Seen, inputs: tuple[Tensor, ...]
    ) -> None:
        self.model, self.stack, self.call, self.chunks, self.seen = model, stack, call, chunks, seen
        self.inputs = inputs
        self.above, self.outside = units(model, stack)
        self.layers = [f"{stack}.{key}" if stack else key for key, _ in model.get_submodule(stack).named_children()]
        self.spoilt: set[str] = set()
        ends = list(accumulate(map(len, chunks)))
        self.stage_of = [next(s for s, end in enumerate(ends) if k < end) for k in range(len(self.layers))]

    def cut(self, carry: str) -> tuple[StackStage, ...]:
        """Stages that hand on the ``main`` tensor of a layer, all of the ``last`` one, or what ``all`` layers leave."""
        self.spoilt = set()
        cut = self._cut(carry)
        self.spoilt = self._find_spoilt(cut)
        return self._cut(carry) if self.spoilt else cut

    def _cut(self, carry: str) -> tuple[StackStage, ...]:
        sent = [self._sent(chunk.stop, carry) for chunk in self.chunks[:-1]]
        return tuple(
            StackStage(
                self.model,
                self._shell("", s, carry),
                self.call,
                chunk,
                s == len(self.chunks) - 1,
                sent[s - 1] if s else (),
                sent[s] if s < len(sent) else (),
            )
            for s, chunk in enumerate(self.chunks)
        )

    def _sent(self, end: int, carry: str) -> list[tuple[int, int]]:
        """(layer, place) of the tensors that go over the boundary after layer ``end - 1``, the main one first."""
        main = (end - 1, self._main(end - 1))
        if carry == "main":
            return [main]
        last = [(end - 1, k) for k in self.seen.results[self.layers[end - 1]].shapes if k != main[1]]
        early = [
            (layer, k)
            for layer in range(end - 1)
            for k in self.seen.results[self.layers[layer]].shapes
            if carry == "all" and k != self._main(layer)
        ]
        return [main, *last, *early]

    def _main(self, layer: int) -> int:
        """The place of the largest tensor that a layer returns."""
        shapes = self.seen.results[self.layers[layer]].shapes
        if not shapes:
            raise NoStack(f"layer {layer} of '{self.stack}' returns no tensor")
        return max(shapes, key=lambda k: math.prod(shapes[k].sizes))

    def _shell(self, name: str, s: int, carry: str) -> Any:
        module = self.above[name]
        children: dict[str, Any] = {}
        for key, child in module._modules.items():
            full = f"{name}.{key}" if name else key
            if child is None:
                children[key] = None
            elif name == self.stack:
                children[key] = self._layer(child, len(children), s, carry)
            else:
                children[key] = self._shell(full, s, carry) if full in self.above else self._other(full, s)
        own, absent = {}, {}
        for key, parameter in module._parameters.items():
            full = f"{name}.{key}" if name else key
            if parameter is None or s in self._stages_of(full):
                own[key] = parameter
            else:
                absent[key] = Shape.of(parameter)
        return copy_of(module, _modules=children, _parameters=own, _buffers=dict(module._buffers), _absent=absent)

    def _layer(self, layer: nn.Module, k: int, s: int, carry: str) -> nn.Module:
        if k not in self.chunks[s]:
            return Stub(layer, self._result(self.layers[k], s), k)
        ends = k == self.chunks[s].stop - 1 and s < len(self.chunks) - 1
        made: nn.Module = copy_of(layer, _layer=k) if ends or carry == "all" else layer
        return made

    def _other(self, name: str, s: int) -> nn.Module:
        """A module beside the stack: the caller's, a stub, or, of those without parameters, a copy in every stage."""
        module, result = self.outside[name], self._result(name, s)
        if next(module.parameters(), None) is None:
            made: nn.Module = bare_copy(module, _gate=result if name in self.spoilt and s else None)
            return made
        if s not in self._stages_of(name):
            return Stub(module, result)
        early = s and any(moment < 2 * self.chunks[s].start for moment in self.seen.moments[name])
        here: nn.Module = copy_of(module, _gate=result) if early else module
        return here

    def _stages_of(self, name: str) -> set[int]:
        """Who computes with it. What nobody uses goes with the last stage."""
        last = len(self.layers) - 1
        found = {self.stage_of[min(moment // 2, last)] for moment in self.seen.moments.get(name, ())}
        return found or {len(self.chunks) - 1}

    def _result(self, name: str, s: int) -> Result | None:
        """What a module gave, in shapes that follow what stage s is given."""
        if name not in self.seen.results:
            return None
        before = self.chunks[s].start - 1
        main = self.seen.results[self.layers[before]].shapes[self._main(before)].sizes if s else self.inputs[0].shape
        return self.seen.results[name].following([main, *(tensor.shape for tensor in self.inputs)])

    def _find_spoilt(self, cut: Sequence[StackStage]) -> set[str]:
        """Modules without parameters that are given nothing but nan before a stage's turn has come.

        They need not run then, and must not: a dropout would draw from the generator.
        """
        found: set[str] = set()

        def look(name: str, _: nn.Module, __: Any, value: Any) -> None:
            if in_vain() and any(has_nan(leaf) for leaf in pytree.tree_leaves(value)):
                found.add(name)

        bare = [name for name, module in self.outside.items() if next(module.parameters(), None) is None]
        with undisturbed(self.model, training=False), torch.no_grad(), hooked() as hook:
            for name in bare:
                for stage in cut[1:]:
                    copied = stage.tree.get_submodule(name)
                    vars(copied)["_forward_hooks"] = copied._forward_hooks.copy()
                    hook(copied.register_forward_hook(partial(look, name)))
            try:
                in_a_row(cut, self.inputs)
            except Exception as error:
                raise NoStack(f"a stage of it cannot run without the modules of others: {said(error)}") from error
        return found
