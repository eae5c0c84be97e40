"""A backward in two halves that compute nothing twice.

I walks the chain: the nodes of the graph on a path from the outputs to the inputs. Where an edge leaves it towards
weights, a branch begins. The gradients that come to such a node are kept, and W asks it for its branches alone::

    output --> Linear --> GELU --> Linear --> input        the chain: I
                 |                   |
                 +--> weight, bias   +--> weight, bias      branches: W

- A node written in Python (a custom Function) computes everything in one call. It is called once, in I, and what it
  says about weights is kept for W.
- A graph that cannot be cut is walked whole in I, and W has nothing left to do: a backward hook on such a node wants to
  see all of its gradients at once, and ``torch.utils.checkpoint`` would run the forward again for each half.

From I to W stay the gradients kept, which the caller counts, and what the nodes with branches have saved. What the rest
of the chain saved is let go of in I, if the memory meter is on: autograd itself can only let go of a whole graph.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge
from torch.overrides import TorchFunctionMode

from pipelab.runtime.device.memory import MemoryMeter

__all__ = ["Rest", "SplitBackward"]


class SplitBackward:
    """Splits the backwards of one stage, and remembers whether they can be; ``what`` names the stage in warnings."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said: set[str] = set()
        self._whole = False
        self._engine: _Engine | None = None

    def ask(self, work: Callable[[], None], wanted: Sequence[GradientEdge]) -> None:
        """Let W ask nodes. The first time, see whether that runs the forward again."""
        if self._engine is None:
            self._engine = _Engine()
            with_look = _Recomputes(work)
            self._engine.run(with_look, wanted)
            if with_look.seen:
                self.give_up("both halves run a part of its forward again (torch.utils.checkpoint)")
        else:
            self._engine.run(work, wanted)

    def input_gradients(
        self, edges: Sequence[GradientEdge], grads: Sequence[Tensor], takers: Sequence[Tensor], meter: MemoryMeter
    ) -> tuple[Sequence[Tensor | None], Rest]:
        """I: the gradients of ``takers``, leaves of the graph behind ``edges``, and what is left for W.

        ``meter`` is that under whose hooks the graph was made.
        """
        chain = _Chain(edges, takers)
        rest = Rest(self)
        seeds = []
        for edge, grad in zip(edges, grads, strict=True):
            if edge.node in chain.leads:
                seeds.append((edge, grad))
            else:
                rest.add(edge, grad)
        if not seeds:
            return [None] * len(takers), rest
        if not self._whole and (obstacle := chain.obstacle() or rest.watch(chain)):
            self.give_up(obstacle)
        if self._whole:
            torch.autograd.backward(edges, grads)
            return [taker.grad for taker in takers], Rest(self)
        starts, given = zip(*seeds, strict=True)
        with meter.letting_go(chain.leads.difference(chain.branches, chain.functions)):
            return torch.autograd.grad(starts, takers, given, retain_graph=rest.asks, allow_unused=True), rest

    def give_up(self, obstacle: str) -> None:
        """From now on I computes everything."""
        self._whole = True
        self.say(f"cannot split its backward: {obstacle}. I computes all of it, at the cost of B, and W nothing")

    def say(self, sentence: str) -> None:
        """Warn of it, once."""
        if sentence not in self._said:
            self._said.add(sentence)
            warnings.warn(f"{self._what} {sentence}", stacklevel=2)


class Rest:
    """What I has left for W: gradients at the edges where branches begin, and nodes to be asked for theirs."""

    def __init__(self, split: SplitBackward) -> None:
        self._split = split
        self._edges: list[GradientEdge] = []
        self._grads: list[Tensor] = []
        self._nodes: list[tuple[Any, list[_Branch]]] = []
        # By place in _nodes. Hooks fill it, so it may not know the nodes: they would keep themselves alive.
        self._came: dict[int, tuple[Tensor | None, ...]] = {}

    @property
    def asks(self) -> bool:
        """Whether W goes back to nodes of the chain."""
        return bool(self._nodes)

    @property
    def gradients(self) -> list[Tensor]:
        """The gradients kept."""
        return self._grads + [grad for came in self._came.values() for grad in came if grad is not None]

    def add(self, edge: GradientEdge, grad: Tensor) -> None:
        """W begins at ``edge`` also."""
        self._edges.append(edge)
        self._grads.append(grad)

    def watch(self, chain: _Chain) -> str:
        """Keep what comes to the nodes with branches; returns what stands in the way, or nothing."""
        for node, branches in chain.branches.items():
            once = isinstance(node, BackwardCFunction)
            copy = not once and bool(chain.functions)
            keeper = _Keeper(len(self._nodes), branches, self._edges, self._grads, self._came, once=once, copy=copy)
            hooks = node.register_hook(keeper).hooks_dict_ref()
            if once:
                self._split.say(
                    f"computes the gradients of input and weights in one call of {node.name()}: I does both there"
                )
                continue
            self._nodes.append((node, branches))
            if hooks is not None and len(hooks) > 1:
                return f"there is a backward hook on {node.name()}"
        return ""

    def run(self) -> None:
        """W: accumulates the gradients of the weights. Once."""
        if self._came:
            begins = {node: nr for k in self._came for _, node, nr in self._nodes[k][1]}
            self._split.ask(self._ask, [GradientEdge(node, nr) for node, nr in begins.items()])
        edges, grads = tuple(self._edges), tuple(self._grads)
        self._edges, self._grads, self._nodes = [], [], []
        if edges:
            _accumulate(edges, grads)

    def _ask(self) -> None:
        """In the order of I, which is from the outputs down: a node that nobody needs any more lets go at once."""
        for k in tuple(self._came):
            node, branches = self._nodes[k]
            self._nodes[k] = (None, [])
            found = node(*self._came.pop(k))
            grads = found if isinstance(found, tuple) else (found,)
            for place, begin, nr in branches:
                if grads[place] is not None:
                    self.add(GradientEdge(begin, nr), _fitted(grads[place], begin, nr))


_Branch = tuple[int, Node, int]
"""Which of a node's outgoing edges, and the edge: a node, and which of its inputs."""


class _Chain:
    """Which nodes behind ``edges`` lead to ``takers``. ``branches``: the edges of those that have any to others."""

    def __init__(self, edges: Sequence[GradientEdge], takers: Sequence[Tensor]) -> None:
        after: dict[Node, Any] = {}
        before: dict[Node, list[Node]] = {}
        stack = [edge.node for edge in edges]
        while stack:
            node = stack.pop()
            if node not in after:
                after[node] = node.next_functions
                for n, _ in after[node]:
                    if n in before:
                        before[n].append(node)
                    elif n is not None:
                        before[n] = [node]
                        stack.append(n)
        up = [get_gradient_edge(taker).node for taker in takers]
        self.leads = set(up)
        while up:
            new = [node for node in before.get(up.pop(), ()) if node not in self.leads]
            self.leads.update(new)
            up += new
        self.branches: dict[Node, list[_Branch]] = {}
        for node in self.leads:
            for place, (n, nr) in enumerate(after.get(node, ())):
                if n not in self.leads and n is not None:
                    self.branches.setdefault(node, []).append((place, n, nr))
        self.functions = [node for node in self.leads if isinstance(node, BackwardCFunction)]

    def obstacle(self) -> str:
        """What keeps autograd from walking a part of this graph, or nothing."""
        found = [node.name() for node in self.functions if "Checkpoint" in node.name()]
        return f"{found[0]} (torch.utils.checkpoint with use_reentrant=True) runs whole or not at all" if found else ""


@dataclass(frozen=True, slots=True)
class _Keeper:
    """A hook on node ``k``: keeps what comes to it, or what it says about its branches if it has computed that in I.

    ``once``: it is not asked again. ``copy``: somebody's Function may work in place on the gradient that it hands on.
    """

    k: int
    branches: list[_Branch]
    edges: list[GradientEdge]
    grads: list[Tensor]
    came: dict[int, tuple[Tensor | None, ...]]
    once: bool
    copy: bool

    def __call__(self, outgoing: tuple[Tensor | None, ...], incoming: tuple[Tensor | None, ...]) -> None:
        known = [(outgoing[place], node, nr) for place, node, nr in self.branches if outgoing[place] is not None]
        if self.once or len(known) == len(self.branches):
            self.edges.extend(GradientEdge(node, nr) for _, node, nr in known)
            self.grads.extend(_fitted(grad, node, nr) for grad, node, nr in known if grad is not None)
        elif self.copy:
            self.came[self.k] = tuple(grad if grad is None else grad.clone() for grad in incoming)
        else:
            self.came[self.k] = incoming


def _fitted(grad: Tensor, node: Any, nr: int) -> Tensor:
    """The engine would sum over what was broadcast also, but later, and until then it would stay in memory."""
    shape = node._input_metadata[nr].shape
    return grad if grad.shape == shape else grad.sum_to_size(shape)


def _accumulate(edges: tuple[GradientEdge, ...], grads: tuple[Tensor, ...]) -> None:
    """As torch.autograd.backward, whose checks of each gradient cost more than the engine, itself."""
    torch.autograd.Variable._execution_engine.run_backward(edges, grads, False, False, (), True, accumulate_grad=True)


class _Engine:
    """Runs something inside a call of autograd's engine.

    A node called there computes, of its outgoing edges, those to nodes that this call of the engine wants. Called
    directly none of its hooks fires again: they have, in I.
    """

    def __init__(self) -> None:
        with torch.enable_grad():
            self._start = torch.zeros((), device="cpu", requires_grad=True)
            self._root = _Run.apply(self._start)

    def run(self, work: Callable[[], None], wanted: Sequence[GradientEdge]) -> None:
        """Call ``work`` while the engine wants nothing but ``wanted``."""
        self._root.grad_fn.work = work
        try:
            inputs: list[Any] = [self._start, *wanted]
            torch.autograd.grad(self._root, inputs, allow_unused=True, retain_graph=True)
        finally:
            self._root.grad_fn.work = None


class _Run(torch.autograd.Function):
    """Its backward calls ``work``."""

    @staticmethod
    def forward(ctx: Any, start: Tensor) -> Tensor:
        return start.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> None:
        ctx.work()


class _Recomputes(TorchFunctionMode):
    """Calls ``work`` and sees whether it runs a forward again."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__()
        self._work, self.seen = work, False

    def __call__(self) -> None:
        with self:
            self._work()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch asks before each of its functions."""
        self.seen = self.seen or torch.is_grad_enabled()
        return func(*args, **(kwargs or {}))
