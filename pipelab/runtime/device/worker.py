"""The worker loop: walk one device's program. The same loop in every launch; only the wire differs.

For each slot: receive what it needs, run it, record its cost, send what it made::

    for slot in program:
        inbox = receive(slot)          # every message up to the ones it needs, in the order of sending
        with meter: outbox = run(slot)
        send(outbox)

What can be looked up once is (``program.py``): a message lies in a numbered mail slot, an action knows its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from types import MappingProxyType
from typing import Any

import torch

from pipelab.errors import OutOfMemoryError, PipelabError, StageError
from pipelab.quantities import ModelStates, format_bytes
from pipelab.runtime.device.channels import Aborted, Post, Settle, WireEnd
from pipelab.runtime.device.clocks import SlotMeter
from pipelab.runtime.device.log import DeviceLog
from pipelab.runtime.device.memory import MemoryMeter, WallError
from pipelab.runtime.device.payload import Payload
from pipelab.runtime.device.program import FAILED, SLOT, Act, Program
from pipelab.runtime.device.stage import StageRunner
from pipelab.schedules.action import Action

__all__ = ["Worker", "stage_error"]

LOOKS_EVERY = 1e-4
"""Seconds between two looks at how far a GPU is: what a step may take longer for it."""


class Worker:
    """Runs one device's program, step after step. ``whereabouts[device]`` says where it is (see ``program.SLOT``).

    ``around`` are what is done right before and right after an action, in its slot.
    """

    def __init__(
        self,
        device: int,
        program: Program,
        runners: Mapping[int, StageRunner],
        memory: MemoryMeter,
        place: torch.device,
        whereabouts: MutableSequence[int],
        around: Mapping[Action, tuple[Callable[[], None], Callable[[], None]]] = MappingProxyType({}),
    ) -> None:
        self.device, self.program, self.runners = device, program, runners
        self.memory, self.place, self.whereabouts = memory, place, whereabouts
        self._acts = [
            [(act, _within(runners[act.action.stage].acts[act.action.op], around.get(act.action))) for act in slot.acts]
            for slot in program.slots
        ]
        self._mail: list[Payload | None] = [None] * len(program.users)
        self._mail_held: list[Any] = [None] * len(program.users)
        self.carried: dict[Action, tuple[Payload | None, Any]] = {}
        """Messages of this step that a later one uses, by who uses them; before a step, those of earlier ones."""

    def walk(
        self,
        wire: WireEnd,
        meter: SlotMeter,
        model_states: ModelStates | None = None,
        allowed: float = math.inf,
        times: float = 1.0,
    ) -> Iterator[None]:
        """Walk the program; each slot lasts ``times`` what it costs. Whatever ends it early, nothing stays held.

        It yields where it has to wait and the wire does not: where devices take turns in one thread.
        """
        self.meter, self.model_states, self.allowed = meter, model_states or ModelStates(), allowed
        self.times = times
        self.log = DeviceLog()
        for mail in self.program.coming:
            self._mail[mail], self._mail_held[mail] = self.carried.pop(self.program.users[mail])
        try:
            yield from self._walk(wire)
        except BaseException as error:
            self._mail = [None] * len(self._mail)
            self._mail_held = [None] * len(self._mail)
            self.carried = {}
            for runner in self.runners.values():
                runner.drop()
            last = self._last_met()
            self.whereabouts[self.device] = FAILED
            if isinstance(error, (Aborted, PipelabError)) or not isinstance(error, (Exception, SystemExit)):
                raise
            raise stage_error(error, self.device, last) from error  # in a message, on its way
        self.log.peaks, self.log.after, self.log.peak = self.memory.peaks, self.memory.after, self.memory.peak

    def _walk(self, wire: WireEnd) -> Iterator[None]:
        meter, memory, log = self.meter, self.memory, self.log
        receive = [wire.inlet(channel) for channel in self.program.inlets]
        send = [wire.outlet(channel) for channel in self.program.outlets]
        settle = [wire.settling(channel) for channel in self.program.outlets]
        post = [wire.posting(channel) for channel in self.program.inlets]
        batched = any(post)
        at, device = self.whereabouts, self.device
        outbox: list[tuple[int, Payload]] = []
        unsettled: list[int] = []
        for position, (slot, acts) in enumerate(zip(self.program.slots, self._acts, strict=True)):
            here = position * SLOT
            at[device] = here
            behind = here + 2 * len(slot.receives) + 1
            if batched:
                _post(slot.receives, post)
            elif unsettled:
                yield from self._settled(unsettled, settle, behind)
            if wire.stopped:
                wire.check()
            for number, (inlet, mail) in enumerate(slot.receives):
                at[device] = here + 2 * number + 1
                while (payload := receive[inlet]()) is None:
                    yield
                self._taken(payload, mail)
            if unsettled and batched:
                yield from self._settled(unsettled, settle, behind)
            payload = made = None  # from here on it is the action's
            memory.begin_slot()
            meter.begin()
            try:
                for number, (act, run) in enumerate(acts):
                    at[device] = here + 2 * number + 2
                    made = self._run(act, run)
                    if made is not None:
                        if act.outlet >= 0:
                            if len(acts) > 1:  # what runs beside it may yet write into what it was made from
                                made = made.copy_to(self.place)
                            outbox.append((act.outlet, made))
                        elif act.keep >= 0:
                            self._keep(act.keep, made.copy_to(self.place))
            finally:
                meter.end()
            if self.times > 1:
                meter.hold(self.times, wire.check)
            memory.end_slot()
            for outlet, made in outbox:
                log.sent.append(send[outlet](made))
            unsettled = [outlet for outlet, _ in outbox if settle[outlet] is not None]
            outbox.clear()
        at[device] = len(self.program.slots) * SLOT
        if batched:
            _post(self.program.late, post)
        for inlet, mail in self.program.late:
            while (payload := receive[inlet]()) is None:
                yield
            self._taken(payload, mail)
        for mail in self.program.leaving:
            self.carried[self.program.users[mail]] = self._mail[mail], self._mail_held[mail]
            self._mail[mail] = self._mail_held[mail] = None
        self._catch_up()

    def _settled(self, outlets: Sequence[int], settle: Sequence[Settle | None], behind: int) -> Iterator[None]:
        """Wait until what was sent through ``outlets`` is taken; ``behind``: where it is when it waits for outlet 0."""
        for outlet in outlets:
            settled = settle[outlet]
            assert settled is not None
            self.whereabouts[self.device] = behind + 2 * outlet
            while not settled():
                yield

    def _taken(self, payload: Payload, mail: int) -> None:
        """A message has been taken off the wire."""
        log = self.log
        log.taken.append(time.perf_counter())
        log.ready.append(payload.ready)
        log.sizes.append(payload.size - payload.saved)
        log.saved.append(payload.saved)
        self._keep(mail, payload)

    def _catch_up(self) -> None:
        """Where the host has run ahead of its device: wait for that, and say meanwhile where it is."""
        slots = self.program.slots
        while (reached := self.meter.reached()) is not None:
            position, begun = reached
            waits = not begun and len(slots[position].receives) > 0
            self.whereabouts[self.device] = position * SLOT + (1 if waits else 2)
            time.sleep(LOOKS_EVERY)
        self.whereabouts[self.device] = len(slots) * SLOT
        self.log.readings = self.meter.readings()

    def _last_met(self) -> Action:
        """The action that it is in, or waits before, or was in last."""
        position, inside = divmod(self.whereabouts[self.device], SLOT)
        slots = self.program.slots
        if position < len(slots) and slots[position].acts:
            return slots[position].acts[inside // 2 - 1 if inside and inside % 2 == 0 else 0].action
        return next(slot.acts[-1].action for slot in reversed(slots[: max(position, 1)]) if slot.acts)

    def _keep(self, number: int, payload: Payload) -> None:
        """Keep a message in a mail slot until the action that it is for needs it."""
        self._mail[number] = payload
        if not self.memory.enabled:
            return
        crossed = 0
        try:
            self._mail_held[number] = self.memory.hold(payload.tensors)
        except WallError as wall:
            crossed = wall.held
        if crossed:
            raise self._out_of_memory(crossed, self.program.users[number], "the message for ")

    def _run(self, act: Act, run: Any) -> Payload | None:
        """Run one action on its message; errors say where they happened."""
        message = held = None
        if act.mail >= 0:
            message, self._mail[act.mail] = self._mail[act.mail], None
            held, self._mail_held[act.mail] = self._mail_held[act.mail], None
            if act.action.op == "F":
                del held  # from here on the stage counts its input itself
        crossed = 0
        try:
            made: Payload | None = run(act.action.microbatch, message)
            return made
        except WallError as wall:
            crossed = wall.held
        except (Aborted, StageError):
            raise
        except (Exception, SystemExit) as error:
            raise stage_error(error, self.device, act.action) from error
        raise self._out_of_memory(crossed, act.action)

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
        if self.place.type != "cuda":
            return ""
        return f" (CUDA's allocator: {format_bytes(torch.cuda.memory_allocated(self.place))} in use)"


def _within(
    run: Callable[..., Any], around: tuple[Callable[[], None], Callable[[], None]] | None
) -> Callable[..., Any]:
    if around is None:
        return run
    before, after = around

    def all_three(microbatch: int, message: Payload | None) -> Any:
        before()
        made = run(microbatch, message)
        after()
        return made

    return all_three


def _post(receives: Sequence[tuple[int, int]], post: Sequence[Post | None]) -> None:
    """Say that all these messages will be taken."""
    for inlet, _ in receives:
        posted = post[inlet]
        assert posted is not None
        posted()


def stage_error(error: Exception | SystemExit, device: int, where: Action | int, kind: str | None = None) -> StageError:
    """The error that reaches the caller: a StageError that is also of the original's type, where Python allows it.

    ``where`` is an action, or the stage whose update it was. ``kind`` is that type's name, if ``error`` only stands for
    it.
    """
    if isinstance(error, SystemExit):  # it is the stage that was left, not the caller's program
        error, kind = RuntimeError(f"exit({error.code!r}) was called in it"), "SystemExit"
    if isinstance(where, Action):
        stage, action, microbatch = where.stage, str(where), where.microbatch
        at = f"stage {stage}, action {action}, micro-batch {microbatch}"
    else:
        stage, action, microbatch = where, "update", None
        at = f"stage {stage}, in its update"
    message = f"{kind or type(error).__name__} on device {device}, {at}: {error}"
    made: StageError
    try:
        own = {"__module__": StageError.__module__, "__str__": lambda self: message}
        made = type(StageError.__name__, (StageError, type(error)), own)(message)
    except Exception:  # noqa: BLE001 (its constructor or layout does not allow it)
        made = StageError(message)
    made.device, made.stage, made.action, made.microbatch = device, stage, action, microbatch
    return made
