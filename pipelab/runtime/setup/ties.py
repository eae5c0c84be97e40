"""Tied parameters: one parameter that several stages hold, such as an embedding that is also the head.

It has one home, the stage that holds it under the name it has in the unsplit model: there it is stepped, saved and
counted. The other holders borrow it. In each step they compute with what the home holds, and their gradients are added
to the home's.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pipelab.errors import ConfigurationError
from pipelab.models.shards import local
from pipelab.runtime.peers import Peers
from pipelab.runtime.setup.by_name import named_parameters

__all__ = [
    "Holder",
    "Tie",
    "find_ties",
    "refuse_overlaps",
    "refuse_ties_out_of_sight",
    "resolve_ties",
    "with_own_leaves",
]

Holder = tuple[int, str]
"""(stage, name in the unsplit model)."""


@dataclass(frozen=True)
class Tie:
    """Who holds one parameter, its home first."""

    holders: tuple[Holder, ...]

    @property
    def home(self) -> Holder:
        """Where it is stepped, and under which name it is known."""
        return self.holders[0]

    @property
    def borrowers(self) -> tuple[Holder, ...]:
        """The others."""
        return self.holders[1:]


def find_ties(stages: Mapping[int, nn.Module], order: Iterable[str] = ()) -> tuple[tuple[str, ...], ...]:
    """Names of one and the same parameter in several stages, group by group; ``order``: the unsplit model's names.

    Raises ConfigurationError if two parameters of different stages share memory without being one.
    """
    found: dict[int, list[str]] = {}
    for s, stage in stages.items():
        for name, parameter in named_parameters(s, stage):
            found.setdefault(id(parameter), []).append(name)
    refuse_overlaps(stages)
    rank = {name: number for number, name in enumerate(order)}
    tied = [dict.fromkeys(names) for names in found.values() if len(names) > 1]
    return tuple(tuple(sorted(names, key=lambda name: rank.get(name, len(rank)))) for names in tied)


def resolve_ties(
    stages: Mapping[int, nn.Module],
    groups: Sequence[Sequence[str]],
    peers: Peers,
    identity: Callable[[nn.Parameter], object] = lambda parameter: None,
) -> tuple[Tie, ...]:
    """Who holds what, found with all processes: ``groups`` of names, one name in two stages, or one ``identity``.

    Raises ConfigurationError for names that no stage has, or tied tensors of different shapes.
    """
    mine = [
        (s, name, None if is_lazy(p) else (tuple(p.shape), p.dtype), identity(p))
        for s, stage in stages.items()
        for name, p in named_parameters(s, stage)
    ]
    everyone = sorted((told for part in peers.exchange(mine) for told in part), key=lambda told: told[0])
    holders: dict[str, list[int]] = {}
    twins: dict[object, list[str]] = {}
    looks = {}
    for s, name, look, same in everyone:
        if s not in holders.setdefault(name, []):
            holders[name].append(s)
        looks[name] = look
        if same is not None:
            twins.setdefault(same, []).append(name)
    for group in groups:
        strange = [name for name in group if name not in holders]
        if strange:
            raise ConfigurationError(f"tied names '{strange[0]}', and no stage has such a parameter")
    given = [tuple(group) for group in groups]
    named = {name for group in given for name in group}
    given += [tuple(names) for names in twins.values() if len(names) > 1 and not named & set(names)]
    named |= {name for group in given for name in group}
    given += [(name,) for name, where in holders.items() if len(where) > 1 and name not in named]
    ties = [Tie(tuple((s, name) for name in group for s in holders[name])) for group in given]
    for tie in ties:
        for _, name in tie.borrowers:
            if looks[name] != looks[tie.home[1]]:
                raise ConfigurationError(
                    f"'{tie.home[1]}' and '{name}' are tied, but differ: {looks[tie.home[1]]} and {looks[name]}"
                )
    return tuple(tie for tie in ties if len(tie.holders) > 1)


def refuse_ties_out_of_sight(stages: Mapping[int, nn.Module], told: Iterable[Sequence[str]]) -> None:
    """Raise ConfigurationError if a module that is in none of these stages holds a parameter of theirs.

    For stages that each rank builds for itself: the other holder may be a stage of another rank, which this one cannot
    see. ``told`` are the names that are known to be tied.
    """
    known = {name for group in told for name in group}
    own = {id(p): name for s, stage in stages.items() for name, p in named_parameters(s, stage) if name not in known}
    inside = {id(module) for stage in stages.values() for module in stage.modules()}
    for module in gc.get_objects():
        if issubclass(type(module), nn.Module) and id(module) not in inside:
            name = next((own[id(p)] for p in vars(module).get("_parameters", {}).values() if id(p) in own), None)
            if name is not None:
                raise ConfigurationError(
                    f"'{name}' is held by a {type(module).__name__} outside its stage, too: if that is in another "
                    "stage, say so, tied=[(name, its name there)], and the two are trained as one; if it is in none, "
                    "let go of it, or build stages from modules of their own"
                )


def with_own_leaves(module: nn.Module, leaves: Mapping[int, nn.Parameter]) -> nn.Module:
    """``module`` with ``leaves[id(p)]`` in place of parameters p; the caller's module is not touched.

    Copied are only the modules on the way to such a parameter, and of these only the shell: hooks, buffers and all
    other submodules stay the caller's own.
    """
    memo: dict[int, nn.Module] = {}

    def visit(inner: nn.Module) -> nn.Module:
        if id(inner) not in memo:
            children = {name: visit(child) if child is not None else None for name, child in inner._modules.items()}
            own = {name: leaves.get(id(p), p) for name, p in inner._parameters.items()}
            same = all(a is b for a, b in zip(own.values(), inner._parameters.values(), strict=True))
            if same and all(a is b for a, b in zip(children.values(), inner._modules.values(), strict=True)):
                memo[id(inner)] = inner
            else:
                made = memo[id(inner)] = copy.copy(inner)
                vars(made).update(_parameters=own, _modules=children)
        return memo[id(inner)]

    return visit(module)


def refuse_overlaps(stages: Mapping[int, nn.Module], *, within: bool = False) -> None:
    """Raise ConfigurationError if two tensors share memory without being one: in other processes they would be two.

    Asked of tensors of different stages, and with ``within`` of those of one stage.
    """
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + _extent(tensor), name, s, id(held))
        for s, stage in stages.items()
        for name, held in (*named_parameters(s, stage), *(stage.named_buffers() if within else ()))
        for tensor in (local(held),)
        if not is_lazy(tensor) and tensor.numel() and tensor.device.type != "meta" and _is_dense(tensor)
    )
    for (_, end, one, s, own), (start, _, other, t, its) in pairwise(spans):
        if start < end and own != its and (s != t or within):
            raise ConfigurationError(
                f"'{other}' of stage {t} and '{one}' of stage {s} share memory without being one parameter, and in "
                "another process they would not; assign the parameter itself (a.weight = b.weight), make one a copy "
                "(.clone()), or, where they are in one stage, use launch='threads'"
            )


def _is_dense(tensor: Tensor) -> bool:
    return str(tensor.layout) == "torch.strided"


def _extent(tensor: Tensor) -> int:
    """Bytes from the first to the last element."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (reach + 1) * tensor.element_size()
