"""The modules on this process's devices, and what stages have in common.

In a two-way pipeline a stage has two homes: both start from the same weights, get the sum of both gradients, and are
stepped alike. A tied parameter (see ``ties``) is stepped at its home; who borrows it gets its value before a step, and
sends its gradient there after it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.runtime.peers import Move, Peers
from pipelab.runtime.setup.by_name import named_parameters
from pipelab.runtime.setup.ties import Tie, with_own_leaves
from pipelab.schedules.schedule import Schedule

__all__ = ["Replicas", "require_same"]


class Replicas:
    """``modules[r, s]`` is stage s on device r.

    The first home here has the caller's module, a second one a copy. Where a stage borrows a parameter whose home is in
    this process, its module is the caller's but for a leaf of its own in that place.
    """

    def __init__(
        self,
        schedule: Schedule,
        stages: Mapping[int, nn.Module],
        places: Sequence[torch.device],
        peers: Peers,
        ties: Sequence[Tie] = (),
    ) -> None:
        self.placement, self.stages, self.places, self.peers = schedule.placement, stages, tuple(places), peers
        self.ties, self.borrowed = tuple(ties), {holder for tie in ties for holder in tie.borrowers}
        self.in_place: set[int] = set()
        """The stages that have been seen to work in place on their input."""
        self.busy: list[threading.Thread] = []
        """Threads of a step that was given up, which may still be in one of these modules."""
        self._twice = {s for s, homes in enumerate(schedule.placement) if len(homes) > 1}
        self._made = {s: dict(named_parameters(s, stage)) for s, stage in stages.items()}
        self.modules: dict[tuple[int, int], nn.Module] = {}
        for s, stage in stages.items():
            module = with_own_leaves(stage, self._leaves(s))
            homes = [r for r in schedule.placement[s] if r in peers.own]
            for number, r in enumerate(homes):
                self.modules[r, s] = module if number == 0 else copy.deepcopy(module)
        self.settle()
        self._named = {key: dict(named_parameters(key[1], module)) for key, module in self.modules.items()}

    def settle(self) -> None:
        """Bring each stage to its own device."""
        for (r, _), module in self.modules.items():
            if any(tensor.device != self.places[r] for tensor in (*module.parameters(), *module.buffers())):
                module.to(self.places[r])
        for tie in self.ties:  # a stage that borrows it may have taken it along to its own device
            s, name = tie.home
            if s in self.stages:
                parameter = self._made[s][name]
                parameter.data = parameter.data.to(self.places[self.placement[s][0]])

    def require_returned(self) -> None:
        """Raise PipelabError while a thread of a step that was given up is in one of these modules."""
        if any(thread.is_alive() for thread in self.busy):
            raise PipelabError(
                "a thread of an earlier step of this Pipeline has not returned yet; make a new Pipeline, which works "
                "beside it"
            )

    def _leaves(self, s: int) -> dict[int, nn.Parameter]:
        """By id, what stage s gets in place of parameters that another stage here holds, too."""
        leaves = {}
        for tie in self.ties:
            home, name = tie.home
            at_home = self._made.get(home, {}).get(name)
            for holder, its in tie.borrowers:
                if holder == s and at_home is not None and self._made[s][its] is at_home:
                    leaves[id(at_home)] = nn.Parameter(at_home.detach(), at_home.requires_grad)
        return leaves

    def owned(self, s: int, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """(name, parameter) of stage s's ``module``, without what it borrows."""
        return ((name, p) for name, p in named_parameters(s, module) if (s, name) not in self.borrowed)

    def take_up(self, *, optimized: bool) -> None:
        """The caller's parameters as they are now.

        Raises ConfigurationError if one was exchanged for another and the first is held elsewhere: by an optimizer, a
        second home or a tie.
        """
        for s, stage in self.stages.items():
            now = dict(named_parameters(s, stage))
            if optimized or self._twice or self.ties:
                require_same(self._made[s], now)
            self._made[s] = now

    def tensors_on(self, r: int) -> list[Tensor]:
        """Parameters and buffers of device r."""
        return [tensor for (home, _), module in self.modules.items() if home == r for tensor in _tensors(module)]

    def prepare(self, training: bool) -> None:
        """No old gradients; and all who hold the same thing start from the same values, those of the first home."""
        for (_, s), module in self.modules.items():
            if training:
                for parameter in module.parameters():
                    parameter.grad = None
            if (
                module is not self.stages[s]
            ):  # a copy, or the shell of one: train() and frozen() reach only the caller's
                _follow(self.stages[s], module, modes=training)
        self._lend()
        if not self._twice:
            return
        firsts = {s: _tensors(self.modules[self.placement[s][0], s]) for s in self._twice if self._leads(s)}
        whole = {s: tensors for part in self.peers.exchange(firsts) for s, tensors in part.items()}
        with torch.no_grad():
            for (r, s), module in self.modules.items():
                if s in whole and r != self.placement[s][0]:
                    for copied, original in zip(_tensors(module), whole[s], strict=True):
                        copied.copy_(original)

    def reduce(self) -> None:
        """A stage that lives on two devices gets the sum of both gradients on both, a tied parameter that of all."""
        if self._twice:
            self._reduce_twins()
        self._collect()

    def needs_others(self, s: int) -> bool:
        """Whether gradients from other devices are added to those of stage s, in :meth:`reduce`."""
        return s in self._twice or any(tie.home[0] == s for tie in self.ties)

    def _reduce_twins(self) -> None:
        mine = {k: [p.grad for p in module.parameters()] for k, module in self.modules.items() if k[1] in self._twice}
        everyones = {key: grads for part in self.peers.exchange(mine) for key, grads in part.items()}
        for (_, s), module in self.modules.items():
            if s not in self._twice:
                continue
            owners = [everyones[r, s] for r in self.placement[s]]
            for parameter, *given in zip(module.parameters(), *owners, strict=True):
                grads = [grad.to(parameter.device) for grad in given if grad is not None]
                parameter.grad = torch.stack(grads).sum(0) if grads else None

    # ---- tied parameters -----------------------------------------------------------------------------------------

    def _lend(self) -> None:
        """What the home of a tied parameter holds, to the first home of each stage that borrows it."""
        moves: list[Move] = []
        for tie in self.ties:
            (home, name), first = tie.home, self.placement[tie.home[0]][0]
            source = self._at(first, home, name)
            for s, its in tie.borrowers:
                r = self.placement[s][0]
                target = self._at(r, s, its)
                if source is not None and target is not None:
                    if source.data_ptr() != target.data_ptr():
                        target.data.copy_(source.data)
                elif source is not None or target is not None:
                    moves.append(Move(first, r, (source if target is None else target).data))  # type: ignore[union-attr]
        self.peers.hand_over(moves, [(self.placement[t.home[0]][0], self.placement[s][0]) for t, s in self._pairs()])

    def _collect(self) -> None:
        """Gradients of those who borrow a parameter, added to the home's in the order of stages."""
        moves: list[Move] = []
        adds: list[tuple[nn.Parameter, Tensor]] = []
        for tie in self.ties:
            home, name = tie.home
            for s, its in tie.borrowers:
                source = self.placement[s][0]
                borrowed = self._at(source, s, its)
                for r in self.placement[home]:
                    kept = self._at(r, home, name)
                    if kept is not None and borrowed is not None:
                        if borrowed.grad is not None:
                            adds.append((kept, _dense(borrowed.grad).to(kept.device, copy=True)))
                    elif borrowed is not None:
                        moves.append(Move(source, r, _dense_gradient(borrowed)))
                    elif kept is not None:
                        room = torch.zeros_like(kept, requires_grad=False)
                        moves.append(Move(source, r, room))
                        adds.append((kept, room))
        routes = [(self.placement[s][0], r) for t, s in self._pairs() for r in self.placement[t.home[0]]]
        self.peers.hand_over(moves, routes)
        for parameter, grad in adds:
            if parameter.requires_grad:
                parameter.grad = grad if parameter.grad is None else _dense(parameter.grad) + grad

    def _pairs(self) -> list[tuple[Tie, int]]:
        return [(tie, s) for tie in self.ties for s, _ in tie.borrowers]

    def _at(self, r: int, s: int, name: str) -> nn.Parameter | None:
        """What stage s holds under ``name`` on device r; None where that is in another process."""
        return self._named[r, s][name] if (r, s) in self._named else None

    def _leads(self, s: int) -> bool:
        """Whether the first home of stage s is here: it speaks for the stage."""
        return self.placement[s][0] in self.peers.own


def require_same(made: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
    """Raise ConfigurationError if parameters are not those that a Pipeline was made with."""
    for name, parameter in now.items():
        if made.get(name) is not parameter:
            raise ConfigurationError(
                f"parameter '{name}' was exchanged for another tensor since this Pipeline was made, which would not be "
                "trained; make a new Pipeline, or copy values in: load_state_dict(state) without assign=True"
            )


def _follow(original: nn.Module, copied: nn.Module, *, modes: bool) -> None:
    """What is frozen and, with ``modes``, what is in training mode, as the caller has it in the original."""
    for mine, its in zip(original.modules(), copied.modules(), strict=True):
        if mine is not its and mine._buffers is its._buffers:  # the shell of one: what else is set on it is shared
            vars(its).update({k: v for k, v in vars(mine).items() if k not in ("_parameters", "_modules", "training")})
        if modes:
            its.training = mine.training
    for own, other in zip(original.parameters(), copied.parameters(), strict=True):
        if own is not other:
            other.requires_grad_(own.requires_grad)


def _dense(grad: Tensor) -> Tensor:
    return grad if grad.layout == torch.strided else grad.to_dense()


def _dense_gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter, requires_grad=False) if parameter.grad is None else _dense(parameter.grad)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor.detach() for tensor in (*module.parameters(), *module.buffers())]
