"""What runs in each process: it joins the group, then does what the caller says. All ranks are told the same.

The main thread reads commands and runs them, one after the other. On a line of their own interrupts come, which a
second thread hears while a step runs; it ends the process when the caller is gone.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipelab.errors import PipelabError
from pipelab.runtime.engine import Engine
from pipelab.runtime.faults.where import OPENING, OUTSIDE
from pipelab.runtime.measuring.profile import one_pass
from pipelab.runtime.processes.block import (
    Block,
    Feed,
    Spec,
    copy_all,
    pack_with_tensors,
    specs_of,
    unpack_with_tensors,
)
from pipelab.runtime.processes.carry import identity, unpack
from pipelab.runtime.processes.errors import CarriedError
from pipelab.runtime.processes.group import CONNECT
from pipelab.runtime.processes.join import LOOPBACK, join
from pipelab.runtime.processes.link import Link
from pipelab.runtime.processes.skeleton import Modules, Skeleton, fleshed, tensors_of
from pipelab.runtime.processes.wires.board import Board
from pipelab.runtime.report import StepRecord
from pipelab.runtime.setup.assembly import Parts, make_stages
from pipelab.runtime.setup.settings import Settings
from pipelab.runtime.steps.flight import part_of
from pipelab.schedules.schedule import Schedule

__all__ = ["TRAINING", "Flags", "Given", "Table", "Task", "main", "table_of"]


@dataclass(frozen=True)
class Table:
    """The tensors of a rank's stages, in the order of its block: which are parameters, and what they are called."""

    stages: tuple[int, ...]
    parameter: tuple[bool, ...]
    requires_grad: tuple[bool, ...]
    parameters: tuple[tuple[str, int], ...]
    """(name in the unsplit model, place in the block)."""
    state: tuple[tuple[str, int], ...]
    """The same of all that a checkpoint holds."""
    borrowed: tuple[bool, ...]
    """Which parameters have their home in another stage."""
    aliases: tuple[tuple[str, str], ...]
    """Other names of tied parameters, and the one that each is known under."""


@dataclass(frozen=True)
class Task:
    """Open a pipeline. ``skeletons`` have their tensors in a block of ``specs``; or ``build`` makes the stages."""

    settings: bytes
    places: tuple[str, ...]
    seed: int
    path: tuple[str, ...]
    skeletons: tuple[Skeleton, ...] | None = None
    specs: tuple[Spec, ...] = ()
    build: bytes | None = None
    tied: tuple[tuple[str, ...], ...] = ()


Flags = tuple[tuple[bool, ...], tuple[bool, ...]]
"""Which parameters take a gradient, and which modules are in training mode."""


@dataclass(frozen=True)
class Given:
    """What a call brings along: the caller's settings of the moment, and where inputs and targets are."""

    number: int
    speeds: Sequence[float]
    scaler: dict[str, Any] | None
    autocast: tuple[tuple[str, torch.dtype], ...]
    dtype: torch.dtype
    device: torch.device | None
    flags: Flags | None
    """None: as they were at the call before."""
    feed: Feed | None

    @classmethod
    def of_caller(cls, number: int, settings: Settings, kinds: Sequence[str], flags: Flags) -> Given:
        """As it is now, without a batch; ``kinds`` of device may autocast."""
        on = [(kind, torch.get_autocast_dtype(kind)) for kind in kinds if torch.is_autocast_enabled(kind)]
        mode = torch.get_default_device()
        device = mode if mode != torch.device("cpu") else None
        state = None if settings.grad_scaler is None else settings.grad_scaler.state_dict()
        return cls(number, settings.speeds or (), state, tuple(on), torch.get_default_dtype(), device, flags, None)


def table_of(what: str, schedule: Schedule, steps: int = 0) -> Schedule:
    """The table that a call walks, ``steps`` steps after the pipeline was empty."""
    if what in TRAINING:
        return part_of(schedule, steps, drain=what == "record_drain")
    if what == "record_evaluation" and not schedule.forward_only:
        return schedule.forward_part()
    return one_pass(schedule) if what == "profile" else schedule


TRAINING = ("record_step", "record_drain")
"""Calls that change the weights."""


def main(number: int) -> None:
    """Serve the caller at the other end of file ``number`` until it is gone."""
    link, parent = Link(socket.socket(fileno=number)), os.getppid()
    rank = _Rank()
    block: Block | None = None
    try:
        size, (alarm, board) = link.receive()
        rank.board = Board(size, board)
        threading.Thread(target=_heed, args=(alarm, parent, rank), daemon=True).start()
        while True:
            (name, argument, number), files = link.receive()
            rank.begin(number)
            try:
                value, block = getattr(rank, name)(argument, files)
                reply = pickle.dumps(("ok", value))
            except BaseException as error:  # noqa: BLE001 (the caller raises it)
                reply, block = pickle.dumps(("error", CarriedError.of(error))), None
            sys.stdout.flush()
            sys.stderr.flush()
            value = argument = None
            link.send_packed(reply, () if block is None else (block.file,))  # kept until the next: it is on its way
    except EOFError:
        os._exit(0)


def _heed(number: int, parent: int, rank: _Rank) -> None:
    alarm = Link(socket.socket(fileno=number))
    while True:
        ready, _, _ = select.select([alarm], [], [], 1.0)
        if os.getppid() != parent:
            os._exit(0)
        if ready:
            try:
                rank.interrupt(alarm.receive()[0])
            except EOFError:
                os._exit(0)


class _Open:
    """A pipeline that is open here: its engine, and the memory it shares with the caller."""

    def __init__(self, engine: Engine, state: Block) -> None:
        self.engine, self.state = engine, state
        self.parameters = [p for _, stage in engine.stages() for p in stage.parameters()]
        self.grads = Block(specs_of(self.parameters))
        self.modules = Modules(*(stage for _, stage in engine.stages()))
        self.feed: Block | None = None

    def take_in(self, given: Given, files: list[int]) -> tuple[Any, Any]:
        """What a call brings along: weights, what is frozen, and (inputs, targets), which are returned."""
        inputs = targets = None
        if given.feed is not None:
            specs, count, lone, _, lone_target = given.feed
            if files:
                self.feed = Block(specs, files[0])
            if self.feed is None or self.feed.specs != specs:
                raise PipelabError("the batch has not come with the call")
            tensors = self.feed.tensors
            inputs, targets = _joined(tensors[:count], lone), _joined(tensors[count:], lone_target)
        self.pull()
        if given.flags is not None:
            takes, modes = given.flags
            for parameter, requires_grad in zip(self.parameters, takes, strict=True):
                parameter.requires_grad_(requires_grad)
            for module, training in zip(self.modules.all() if modes else (), modes, strict=True):
                module.training = training
        return inputs, targets

    def pull(self) -> None:
        """Weights as the caller has them."""
        copy_all((shared, own) for own, shared in self.state.beside(self.modules.tensors()))

    def push(self) -> list[Any]:
        """Weights and gradients to the caller; returns, per parameter, None, True (in the block), or the gradient."""
        told: list[Any] = []
        copy_all(self.state.beside(self.modules.tensors()))  # a forward may have put another buffer in place
        copies = []
        for parameter, shared in zip(self.parameters, self.grads.tensors, strict=True):
            grad = parameter.grad
            if grad is None:
                told.append(None)
            elif grad.layout == torch.strided and grad.dtype == shared.dtype:
                copies.append((grad, shared))
                told.append(True)
            else:
                told.append(grad.cpu())
        copy_all(copies)
        return told


class _Rank:
    """The commands. Each returns (value, a block to pass on or None)."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._number, self._unwanted = 0, 0
        self._running: Engine | None = None
        self.board: Board | None = None

    def begin(self, number: int) -> None:
        """The next command is number ``number``."""
        self._number = number

    def interrupt(self, number: int) -> None:
        """Stop command ``number``, if that is still running or still to come."""
        self._unwanted = number
        engine = self._running
        if engine is not None and number == self._number:
            engine.interrupt()

    def join(self, argument: tuple[int, int, int, str], files: list[int]) -> tuple[int, None]:
        """Join the group of this machine, over loopback only. Rank 0 listens on the socket that it is given."""
        rank, size, port, folder = argument
        os.chdir(folder)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(name, None)
        os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = LOOPBACK
        listening: dict[str, Any] = {"is_master": True, "master_listen_fd": files[0]} if rank == 0 else {}
        store = dist.TCPStore("127.0.0.1", port, size, timeout=CONNECT, **listening)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        return os.getpid(), None

    def open(self, argument: tuple[int, Task], files: list[int]) -> tuple[Any, Block | None]:
        """Make a pipeline's engine; returns names, warnings, and in a block the tensors of stages built here."""
        key, task = argument
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            sys.path[:] = task.path
            settings: Settings = unpack(task.settings)
            places = [torch.device(place) for place in task.places]
            peers = join(settings.schedule.devices, places, board=self.board)
            peers.whereabouts[peers.rank] = OPENING
            torch.manual_seed(task.seed + peers.rank)
            here = settings.schedule.stages_on(peers.rank)
            block = Block(task.specs, files[0]) if files else None
            try:
                parts = peers.agree_own(lambda: _parts(task, settings, here, block))
                if block is None:
                    block = Block.holding([tensor for stage in parts.stages.values() for tensor in tensors_of(stage)])
                engine = peers.agree_own(lambda: Engine(settings, parts, peers.places, peers, identity))
                engine.keep_apart()
            except BaseException:
                peers.close()
                raise
        self._open[key] = _Open(engine, block)
        peers.whereabouts[peers.rank] = OUTSIDE
        told = [(str(entry.message), _plain_category(entry.category)) for entry in caught]
        built = task.skeletons is None
        return (_table(engine), peers.backend, block.specs if built else None, told), block if built else None

    def grads(self, key: int, files: list[int]) -> tuple[tuple[Spec, ...], Block]:
        """The block that gradients come back in."""
        return self._open[key].grads.specs, self._open[key].grads

    def call(self, argument: tuple[int, str, tuple[Any, ...], Given], files: list[int]) -> tuple[Any, Block | None]:
        """Do something with a pipeline: record a step or an evaluation, profile, verify."""
        key, what, more, given = argument
        opened = self._open.get(key)
        if opened is None:
            raise PipelabError("this Pipeline is closed; make a new one")
        engine = opened.engine
        try:
            inputs, targets = opened.take_in(given, files)
        except BaseException as error:
            engine.abandon(error)
            raise
        try:
            engine.step_number = given.number
            engine.settings.set_speeds(given.speeds)
            if given.scaler is not None and engine.settings.grad_scaler is not None:
                engine.settings.grad_scaler.load_state_dict(given.scaler)
            engine.resume()
            self._running = engine
            if self._unwanted == self._number:  # it was heard before this began
                engine.interrupt()
            with _caller_settings(given):
                value = getattr(engine, what)(inputs, targets, *more)
        finally:
            self._running = None
            grads = opened.push()  # also what a step has done that then failed
        outputs = value.outputs if isinstance(value, StepRecord) else None
        value = None if engine.rank != 0 else replace(value, outputs=None) if outputs is not None else value
        if outputs is None:
            return (value, grads, None), None
        data, specs, block = pack_with_tensors(outputs, "the outputs")
        return (value, grads, (data, specs)), block

    def flown(self, key: int, files: list[int]) -> tuple[tuple[int, int], None]:
        """What this rank has under way, and how many of its steps have failed."""
        return self._open[key].engine.flown, None

    def optimizer_state(self, key: int, files: list[int]) -> tuple[Any, Block]:
        """What this rank's optimizers remember."""
        data, specs, block = pack_with_tensors(self._open[key].engine.optimizer_state(), "the optimizer's state")
        return (data, specs), block

    def load_optimizer_state(
        self, argument: tuple[int, bytes, tuple[Spec, ...]], files: list[int]
    ) -> tuple[None, None]:
        """Go on from a state of the whole model."""
        key, data, specs = argument
        self._open[key].engine.load_optimizer_state(unpack_with_tensors(data, specs, files[0]))
        return None, None

    def random_states(self, key: int, files: list[int]) -> tuple[Any, None]:
        """The states of this process's random generators."""
        return self._open[key].engine.random_states(), None

    def take_random_states(self, argument: tuple[int, Any], files: list[int]) -> tuple[None, None]:
        """Go on from there."""
        key, states = argument
        self._open[key].engine.take_random_states(states)
        return None, None

    def close(self, key: int, files: list[int]) -> tuple[None, None]:
        """Let go of a pipeline."""
        opened = self._open.pop(key, None)
        if opened is not None:
            opened.engine.close(finish=False)
        return None, None


def _parts(task: Task, settings: Settings, here: Sequence[int], block: Block | None) -> Parts:
    if task.skeletons is None:
        assert task.build is not None
        return make_stages(unpack(task.build), settings.schedule, None, here)
    assert block is not None
    return Parts({skeleton.stage: fleshed(skeleton, block) for skeleton in task.skeletons}, task.tied)


def _plain_category(category: type[Warning]) -> type[Warning]:
    """A category that the caller knows as well."""
    return next(base for base in category.__mro__ if base.__module__ == "builtins")


def _table(engine: Engine) -> Table:
    told = [(s, tensor) for s, stage in engine.stages() for tensor in tensors_of(stage)]
    own = [tensor for _, tensor in told]
    places = {id(tensor): place for place, tensor in enumerate(own)}
    return Table(
        stages=tuple(s for s, _ in told),
        parameter=tuple(isinstance(tensor, nn.Parameter) for tensor in own),
        requires_grad=tuple(tensor.requires_grad for tensor in own),
        parameters=tuple((name, places[id(p)]) for name, p in engine.named_parameters()),
        state=tuple((name, places[id(t)]) for name, t in engine.named_state() if id(t) in places),
        borrowed=tuple(id(tensor) in engine.borrowed for tensor in own),
        aliases=tuple(engine.aliases().items()),
    )


def _joined(tensors: list[Tensor], lone: bool) -> Any:
    return (tensors[0] if lone else tuple(tensors)) if tensors else None


@contextmanager
def _caller_settings(given: Given) -> Iterator[None]:
    """The caller's autocast, default dtype and default device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(given.dtype)
    try:
        with ExitStack() as stack:
            for kind, dtype in given.autocast:
                stack.enter_context(torch.autocast(kind, dtype=dtype))
            if given.device is not None:
                stack.enter_context(given.device)
            yield
    finally:
        torch.set_default_dtype(before)
