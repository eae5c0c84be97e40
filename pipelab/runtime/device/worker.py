"""The worker loop: walk one device's program. The same loop in every launch; only the wire differs.

For each slot: receive what it needs, run it, record its cost, send what it made::

    for slot in program:
        inbox = receive(slot)          # every message up to the ones it needs, in the order of sending
        with meter: outbox = run(slot)
        send(outbox)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pipelab.errors import OutOfMemoryError, PipelabError, StageError
from pipelab.memory import ModelStates
from pipelab.quantities import format_bytes
from pipelab.runtime.device.channels import Aborted, WireEnd
from pipelab.runtime.device.clocks import Reading, SlotMeter
from pipelab.runtime.device.memory import MemoryMeter, Sample, WallError
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.stage import StageRunner, Task
from pipelab.schedules.action import Action, actions_of
from pipelab.schedules.dependencies import SlotGraph
from pipelab.schedules.schedule import Schedule
from pipelab.schedules.wire import Channel, Route, routes, takes

__all__ = ["Delivery", "DeviceLog", "Plan", "Worker", "plan_devices", "stage_error"]


@dataclass(slots=True)
class Plan:
    """What one device's slots receive and send.

    ``receives[k]`` are (channel, routes to take from it) for slot k; ``sends[k]`` maps an action of slot k to its
    (channel, consumer). ``local[k]`` maps it to the consumer on this same device.
    """

    program: tuple[Any, ...]
    receives: list[list[tuple[Channel, Route]]]
    sends: list[dict[Action, tuple[Channel, Action]]]
    local: list[dict[Action, Action]]


def plan_devices(schedule: Schedule) -> tuple[list[Plan], dict[Channel, list[Route]]]:
    """The plans of all devices, and what travels between them, channel by channel, read off the table."""
    graph = SlotGraph(schedule.programs, schedule.placement)
    plans = [
        Plan(program, [[] for _ in program], [{} for _ in program], [{} for _ in program])
        for program in schedule.programs
    ]
    messages = routes(graph)
    for channel, routed in messages.items():
        for route in routed:
            plans[channel.source].sends[route.sent_by[1]][route.producer] = (channel, route.consumer)
    for (device, position), taking in takes(graph, messages).items():
        plans[device].receives[position] = [(take.channel, take.route) for take in taking]
    for device, program in enumerate(schedule.programs):
        for position in range(len(program)):
            for edge in graph.edges_into(device, position):
                if edge.kind != "local" and edge.source.device == device:
                    plans[device].local[edge.source.position][edge.supplier] = edge.action
    return plans, messages


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message that was really used: host times at which it was sent, there (a modelled link takes time), taken.

    The receiver does not know when it was sent; ``merge_logs`` fills that in from the sender's log.
    """

    channel: Channel
    route: Route
    ready: float
    taken: float
    size: int
    sent: float = math.nan


@dataclass(slots=True)
class DeviceLog:
    """What one device did in a step."""

    readings: list[Reading] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    sent: dict[Channel, list[float]] = field(default_factory=dict)
    """Host times of this device's sends, channel by channel, in order."""
    update_cost: float = 0.0
    peak: int = 0
    """Most bytes of activations held."""
    model_states: ModelStates = field(default_factory=ModelStates)
    """What the device holds besides, after the step."""
    allocated: int | None = None
    """What the CUDA allocator's own peak adds to what it held before; None on a CPU, or a GPU shared in one process."""


class Worker:
    """Runs one device's program once."""

    def __init__(
        self,
        device: int,
        plan: Plan,
        runners: Mapping[int, StageRunner],
        wire: WireEnd,
        meter: SlotMeter,
        memory: MemoryMeter,
        torch_device: torch.device,
        inputs: Sequence[Payload] | None,
        tasks: Sequence[Task] | None,
        model_states: ModelStates | None = None,
        allowed: float = math.inf,
    ) -> None:
        self.device, self.plan, self.runners, self.wire = device, plan, runners, wire
        self.meter, self.memory, self.torch_device = meter, memory, torch_device
        self.inputs, self.tasks = inputs, tasks
        self.model_states, self.allowed = model_states or ModelStates(), allowed
        self.log = DeviceLog()
        self._mail: dict[Action, Payload] = {}
        self._mail_held: dict[Action, Any] = {}

    def run(self) -> DeviceLog:
        """Walk the program. Whatever ends it early, nothing stays held."""
        try:
            self._walk()
        except BaseException:
            self._mail.clear()
            self._mail_held.clear()
            for runner in self.runners.values():
                runner.drop()
            raise
        return self.log

    def _walk(self) -> None:
        for position, slot in enumerate(self.plan.program):
            self.wire.check()
            if position:
                self.wire.settle(channel for channel, _ in self.plan.sends[position - 1].values())
            self._receive(position)
            self.memory.begin_slot()
            made: list[tuple[Action, Payload | None]] = []
            self.meter.begin()
            try:
                for action in actions_of(slot):
                    payload = self._act(action)
                    made.append((action, payload))
                    consumer = self.plan.local[position].get(action)
                    if consumer is not None and payload is not None:
                        self._keep(consumer, payload.copy_to(self.torch_device))
            finally:
                self.meter.end()
            self.log.samples.append(self.memory.end_slot())
            for action, payload in made:
                if payload is not None and action in self.plan.sends[position]:
                    channel = self.plan.sends[position][action][0]
                    self.log.sent.setdefault(channel, []).append(self.wire.send(channel, payload))

    def _receive(self, position: int) -> None:
        for channel, route in self.plan.receives[position]:
            payload = self.wire.receive(channel)
            if payload.producer != route.producer:
                raise PipelabError(
                    f"device {self.device} expected {route.producer} next on channel {channel}, got {payload.producer}"
                )
            self._keep(route.consumer, payload)
            delivery = Delivery(channel, route, payload.ready, payload.taken, payload.size)
            self.log.deliveries.append(delivery)

    def _keep(self, action: Action, payload: Payload) -> None:
        """Keep a message until ``action`` needs it."""
        crossed = 0
        try:
            self._mail_held[action] = self.memory.hold(payload.tensors)
        except WallError as wall:
            crossed = wall.held
        if crossed:
            raise self._out_of_memory(crossed, action, "the message for ")
        self._mail[action] = payload

    def _out_of_memory(self, held: int, action: Action, what: str = "") -> OutOfMemoryError:
        """The error, to be raised outside of the handler: the wall's own traceback would keep the tensors alive."""
        needed, allowed = self.model_states.total + held, int(self.allowed)
        others = [runner.kept for runner in self.runners.values()]
        flight = len(set().union(*others) - {action.microbatch})
        sizes = format_bytes(needed), format_bytes(allowed)
        if sizes[0] == sizes[1]:
            sizes = f"{needed:,} B", f"{allowed:,} B"
        error = OutOfMemoryError(
            f"out of memory on device {self.device} in {what}{action}: {sizes[0]} needed, {sizes[1]} allowed. It holds "
            f"{self.model_states}, and activations of {flight} other micro-batch(es): with this one "
            f"{format_bytes(held)} so far{self._allocator()}. Less is held with fewer micro-batches in flight "
            "(1f1b), smaller ones, or recomputation"
        )
        error.device, error.stage, error.action = self.device, action.stage, str(action)
        error.microbatch, error.needed, error.allowed = action.microbatch, needed, allowed
        error.model_states = self.model_states.total
        return error

    def _allocator(self) -> str:
        if self.torch_device.type != "cuda":
            return ""
        return f" (CUDA's allocator: {format_bytes(torch.cuda.memory_allocated(self.torch_device))} in use)"

    def _act(self, action: Action) -> Payload | None:
        """Run one action; errors say where they happened."""
        crossed = 0
        try:
            return self._act_within(action)
        except WallError as wall:
            crossed = wall.held
        raise self._out_of_memory(crossed, action)

    def _act_within(self, action: Action) -> Payload | None:
        runner = self.runners[action.stage]
        i = action.microbatch
        try:
            mail = self._mail.pop(action, None)
            held = self._mail_held.pop(action, None)
            if action.op == "F":
                payload = mail if mail is not None else self._first_input(i)
                task = self.tasks[i] if runner.loss is not None and self.tasks is not None else None
                del held  # from here on the stage counts its input itself
                return runner.forward(i, payload, task)
            if action.op == "R":
                runner.run_recompute(i)
                return None
            if action.op == "B":
                return runner.backward(i, mail)
            if action.op == "I":
                return runner.backward_input(i, mail)
            runner.backward_weight(i, mail)
            return None
        except (Aborted, StageError, WallError):
            raise
        except Exception as error:
            raise stage_error(error, self.device, action) from error

    def _first_input(self, i: int) -> Payload:
        """Micro-batch ``i`` of the caller's inputs, in memory of this device's own."""
        assert self.inputs is not None
        return self.inputs[i].copy_to(self.torch_device)


def stage_error(error: Exception, device: int, action: Action, kind: str | None = None) -> StageError:
    """The error that reaches the caller: a StageError that is also of the original's type, where Python allows it.

    ``kind`` is that type's name, if ``error`` only stands for it.
    """
    message = (
        f"{kind or type(error).__name__} on device {device}, stage {action.stage}, action {action}, micro-batch "
        f"{action.microbatch}: {error}"
    )
    made: StageError
    try:
        own = {"__module__": StageError.__module__, "__str__": lambda self: message}
        made = type(StageError.__name__, (StageError, type(error)), own)(message)
    except Exception:  # noqa: BLE001 (its constructor or layout does not allow it)
        made = StageError(message)
    made.device, made.stage, made.action, made.microbatch = device, action.stage, str(action), action.microbatch
    return made
