"""Launch ``threads``: one thread per device inside this process, gone when the step is over."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from pipelab.runtime.device.channels import Aborted

__all__ = ["DEVICE", "Outcome", "Overdue", "one_intra_op_thread", "run_threads", "take_turns"]


@dataclass(slots=True)
class Outcome:
    """What a thread came to: its result or its error, and the CPU time that it used (seconds)."""

    result: Any = None
    error: BaseException | None = None
    failed_at: float = 0.0
    cpu: float = 0.0


class Overdue(Exception):
    """The time limit is over; ``threads`` are those, by number, that could not be ended.

    ``error``: what one that has ended had failed with before.
    """

    def __init__(self, threads: dict[int, threading.Thread], error: BaseException | None) -> None:
        super().__init__(threads)
        self.error = error


DEVICE = "pipelab device"
"""What names of its threads begin with."""
_ENDED = object()
LOOKS_EVERY = 0.1
"""Seconds of waiting after which someone looks whether it will ever end."""
GRACE = 0.5
"""Seconds that threads have to end once they are told to."""


class _IntraOp:
    """Who has limited the process's intra-op threads, and what they were."""

    def __init__(self) -> None:
        self.lock, self.users, self.before = threading.Lock(), 0, 1


_intra_op = _IntraOp()


@contextmanager
def one_intra_op_thread(limit: bool) -> Iterator[None]:
    """Each device is one core: p workers with a pool each would fight over the machine.

    The setting is the process's: of several pipelines that run at once the first saves it and the last restores it.
    """
    if not limit:
        yield
        return
    with _intra_op.lock:
        if _intra_op.users == 0:
            _intra_op.before = torch.get_num_threads()
        _intra_op.users += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _intra_op.lock:
            _intra_op.users -= 1
            torch.set_num_threads(1 if _intra_op.users else _intra_op.before)


def take_turns(walks: Sequence[Iterator[None]]) -> None:
    """Walk them all in this thread: each goes on until it has to wait for another. What one raises ends all."""
    waiting = list(walks)
    try:
        while waiting:
            waiting = [walk for walk in waiting if next(walk, _ENDED) is not _ENDED]
    finally:
        for walk in walks:
            walk.close()  # type: ignore[attr-defined]


def _wait(ended: Sequence[threading.Event], limit: float, look: Callable[[], float] = lambda: math.inf) -> bool:
    """Wait for all, for ``limit`` seconds at most, or as long as ``look`` says; whether all have ended.

    Counted is what this thread has seen go by: a program that was stopped for an hour has not used it up.
    """
    left = limit
    for one in ended:
        while not one.wait(min(LOOKS_EVERY, left)):
            left -= LOOKS_EVERY
            if left > 0:
                left = min(left, look())
            if left <= 0:
                return False
    return True


def _first_error(outcomes: Sequence[Outcome]) -> BaseException | None:
    failed = [o for o in outcomes if o.error is not None and not isinstance(o.error, Aborted)]
    return min(failed, key=lambda o: o.failed_at).error if failed else None


def run_threads(
    work: Sequence[Callable[[], Any]],
    abort: Callable[[], None],
    *,
    one_core_each: bool = True,
    limit: float = math.inf,
    look: Callable[[], float] = lambda: math.inf,
    waits: bool = True,
) -> list[Outcome]:
    """Run each piece of ``work`` in a thread of its own and wait for all.

    ``look`` is called every ``LOOKS_EVERY``, and says how many seconds it is worth to wait on, at most.

    If one raises, or ``look`` does, ``abort`` is called to wake the others, and once all have ended the first error is
    raised. The same happens on KeyboardInterrupt; then they are waited for as long again, or (not ``waits``: what is
    left behind does no harm) not at all. After ``limit`` seconds ``abort`` is called too, and Overdue raised: with the
    threads that do not end even then, if there are any.
    """
    outcomes = [Outcome() for _ in work]
    # A join that is interrupted may take a thread for ended that is not.
    ended = [threading.Event() for _ in work]

    def body(number: int) -> None:
        outcome = outcomes[number]
        begun = time.thread_time()
        try:
            outcome.result = work[number]()
        except BaseException as error:  # noqa: BLE001 (it is raised again in the caller's thread)
            outcome.error, outcome.failed_at = error, time.perf_counter()
            abort()
        outcome.cpu = time.thread_time() - begun
        ended[number].set()

    with one_intra_op_thread(one_core_each):
        threads = [
            threading.Thread(target=body, args=(number,), name=f"{DEVICE} {number}", daemon=True)
            for number in range(len(work))
        ]
        try:
            for thread in threads:
                thread.start()
            if not _wait(ended, limit, look):
                abort()
                _wait(ended, GRACE)
                alive = {k: thread for k, thread in enumerate(threads) if not ended[k].is_set()}
                raise Overdue(alive, _first_error(outcomes))
            for thread in threads:
                thread.join()
        except Overdue:
            raise
        except BaseException:
            abort()
            begun = [one for thread, one in zip(threads, ended, strict=True) if thread.ident is not None]
            _wait(begun, limit if waits else GRACE)
            raise
    first = _first_error(outcomes)
    if first is not None:
        raise first
    stopped = [o.error for o in outcomes if o.error is not None]
    if stopped:  # by an error that is not here
        raise stopped[0]
    return outcomes
