"""Really running a flow: a thread for each worker, one rule under one lock, real clocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

import torch
from tqdm import tqdm

from pipelab.errors import FlowError
from pipelab.flow.costs import Measured
from pipelab.flow.declare import Resource, Stage
from pipelab.flow.dispatch import Dispatch
from pipelab.flow.one_core import one_core_each
from pipelab.flow.plan import Plan
from pipelab.flow.realised import Realised
from pipelab.flow.worker import timed
from pipelab.runtime.device.caller_settings import CallerSettings
from pipelab.runtime.device.threads import run_threads

__all__ = ["Hand", "Running", "call", "measure", "played"]

Hand: TypeAlias = Callable[[int, list[Any]], tuple[Any, float]]
"""Does the work of a stage, given by number: its result, and its cost in seconds by the clock of its resource."""
_TELLS_AFTER = 2.0  # seconds: what is over before shows no progress bar


def played(resource: Resource) -> bool:
    """Whether a thread plays this GPU, because there is none."""
    return resource.kind == "gpu" and not torch.cuda.is_available()


def call(stage: Stage, resource: Resource, number: int, given: Sequence[Any]) -> tuple[Any, float]:
    """Do ``stage.work`` here, for worker ``number`` of ``resource``.

    A core's cost is the CPU time of its thread: what it takes on a core of its own, whoever else wants that core
    meanwhile. All else is measured by the clock on the wall.
    """
    if resource.kind == "gpu" and not played(resource):
        with torch.cuda.device(number % torch.cuda.device_count()):
            return timed(time.perf_counter, partial(_on_gpu, stage.work), given)
    clock = time.thread_time if resource.kind in ("core", "gpu") else time.perf_counter
    return timed(clock, stage.work, given)


def _on_gpu(work: Callable[..., Any], *given: Any) -> Any:
    result = work(*given)
    torch.cuda.synchronize()
    return result


def measure(plan: Plan, items: Sequence[Any], *, progress: bool) -> list[Measured]:
    """What each job costs alone: one after another, in this thread."""
    values: dict[int, Any] = {}
    left = [len(takers) for takers in plan.takers]
    found = []
    with one_core_each():
        for job in tqdm(plan.serial, desc="profile", unit="job", disable=not progress, leave=False, delay=_TELLS_AFTER):
            stage = plan.layout.stages[plan.stage[job]]
            given = plan.inputs(job, items, values)
            hand = partial(call, stage, plan.layout.resources[plan.resource(job)], 0)
            values[job], seconds = _done(plan, job, partial(hand, given))
            found.append(Measured(job, seconds, _size(plan, job, given)))
            for other in (job, *plan.needs[job]):
                left[other] -= other != job
                if not left[other]:
                    values.pop(other, None)
    return found


class Running:
    """One run of ``plan``. ``hands[w]`` does the work of worker w; item i comes ``every`` * i after the start.

    ``end`` is called, from any thread, where the run has to stop: it ends work that runs elsewhere.
    """

    def __init__(
        self, plan: Plan, items: Sequence[Any], hands: Sequence[Hand], every: float, end: Callable[[], None]
    ) -> None:
        self.plan, self.items, self.every = plan, items, every
        self.results: dict[int, Any] = {}
        """Of the stages whose results nobody takes."""
        self.measured: list[Measured] = []
        self._hands, self._end_others = hands, end
        self._values: dict[int, Any] = {}
        self._dispatch = Dispatch(plan, streamed=every > 0)
        self._start, self._end = [0.0] * len(plan), [0.0] * len(plan)
        self._boxes: list[SimpleQueue[int | None]] = [SimpleQueue() for _ in plan.layout.rows]
        self._lock, self._over = threading.Lock(), threading.Event()
        self._began = 0.0

    def go(self, *, progress: bool) -> Realised:
        """Run it. Raises FlowError for a job that fails; then nothing is left running."""
        settings, here = CallerSettings([]), torch.device("cpu")
        work: list[Callable[[], None]] = [partial(self._serve, row) for row in range(len(self._boxes))]
        work += [self._stream] if self.every > 0 else []
        self._gate = threading.Barrier(len(work), self._open)
        with (
            one_core_each(),
            tqdm(
                total=len(self.plan), desc="flow", unit="job", disable=not progress, leave=False, delay=_TELLS_AFTER
            ) as self._bar,
        ):
            run_threads([partial(settings.run, one, here) for one in work], self.stop, one_core_each=False)
        begun, freed = self._dispatch.begun, self._dispatch.freed
        start, end = ([time - self._began for time in times] for times in (self._start, self._end))
        return Realised(self.plan, begun, freed, start, end, self.every)

    def stop(self) -> None:
        """No more jobs begin; who is held is let go."""
        self._over.set()
        self._gate.abort()
        self._end_others()
        for box in self._boxes:
            box.put(None)

    def _open(self) -> None:
        """All workers are there: the clock starts."""
        self._began = time.perf_counter()
        self._hand_out()

    def _hand_out(self) -> None:
        for worker, job in self._dispatch.start():
            self._boxes[worker].put(job)
        if self._dispatch.still:
            raise FlowError(f"the flow stands still: {len(self._dispatch.blocked())} jobs find no room")
        if not self._dispatch.left:
            for box in self._boxes:
                box.put(None)

    def _wait_for_all(self) -> bool:
        try:
            self._gate.wait()
        except threading.BrokenBarrierError:
            return False
        return True

    def _stream(self) -> None:
        """Items come."""
        if not self._wait_for_all():
            return
        for item in range(self.plan.items):
            if self._over.wait(max(self._began + item * self.every - time.perf_counter(), 0.0)):
                return
            with self._lock:
                self._dispatch.arrive(item)
                self._hand_out()

    def _serve(self, row: int) -> None:
        """A worker: does what it is given until there is no more."""
        if not self._wait_for_all():
            return
        while (job := self._boxes[row].get()) is not None and not self._over.is_set():
            self._do(row, job)

    def _do(self, row: int, job: int) -> None:
        plan = self.plan
        resource = plan.layout.resources[plan.resource(job)]
        given = plan.inputs(job, self.items, self._values)
        begin = time.perf_counter()
        result, seconds = _done(plan, job, partial(self._hands[row], plan.stage[job], given))
        size = _size(plan, job, given)
        if resource.held and self._over.wait(max(begin + resource.least(size) - time.perf_counter(), 0.0)):
            return
        end = time.perf_counter()
        with self._lock:
            self._values[job] = result
            if plan.stage[job] in plan.sinks:
                self.results[job] = result
            self.measured.append(Measured(job, seconds, size))
            self._start[job], self._end[job] = begin, end
            for gone in self._dispatch.finish(row, job):
                del self._values[gone]
            self._hand_out()
            self._bar.update()


def _done(plan: Plan, job: int, work: Callable[[], tuple[Any, float]]) -> tuple[Any, float]:
    """The outcome of a job. Raises FlowError that names it."""
    result, seconds = _named(plan, job, work)
    split = plan.layout.stages[plan.stage[job]].split
    if split > 1:
        ordered = hasattr(result, "__getitem__") and not isinstance(result, Mapping)
        parts = _named(plan, job, partial(len, result)) if ordered else None
        if parts != split:
            made = f"a {type(result).__name__}" if parts is None else f"{parts} parts"
            raise FlowError.at(*plan.whose(job), f"it made {made}, and split={split} asks for a list of {split}")
    return result, seconds


def _size(plan: Plan, job: int, given: Sequence[Any]) -> float:
    """The bytes that a job moves."""
    s = plan.stage[job]
    size = plan.layout.stages[s].size
    inputs = given[: max(len(plan.layout.upstream[s]), 1)]
    return 0.0 if size is None else float(_named(plan, job, partial(size, *inputs)))


def _named(plan: Plan, job: int, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (Exception, SystemExit) as error:
        raise FlowError.at(*plan.whose(job), f"{type(error).__name__}: {error}") from error
