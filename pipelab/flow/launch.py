"""Who does the work of each worker: this process, or one of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

from pipelab.errors import ConfigurationError, LostProcessError
from pipelab.flow.costs import Measured
from pipelab.flow.plan import Plan
from pipelab.flow.realised import Realised
from pipelab.flow.run import Hand, Running, call
from pipelab.runtime.processes.carry import pack

__all__ = ["run"]

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import {0}; {0}.main(int(sys.argv[2]))".format(
    "pipelab.flow.worker"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(
    plan: Plan, items: Sequence[Any], launch: str, every: float, *, progress: bool
) -> tuple[Realised, list[Measured], dict[int, Any]]:
    """(what happened, what jobs cost, the results of the last stages by job)."""
    others = _Processes(plan) if launch == "processes" else None
    try:
        hands = [_here(plan, row) for row in range(len(plan.layout.rows))]
        if others is not None:
            others.take(hands)
        running = Running(plan, items, hands, every, (lambda: None) if others is None else others.end)
        return running.go(progress=progress), running.measured, running.results
    finally:
        if others is not None:
            others.end()


def _here(plan: Plan, row: int) -> Hand:
    layout = plan.layout
    resource = layout.rows[row][0]
    number = row - layout.workers(resource)[0]
    return lambda stage, given: call(layout.stages[stage], layout.resources[resource], number, given)


class _Processes:
    """A process for each worker that is a core, with the functions of its stages; each is one thread of work.

    They are there before the clock starts. Raises ConfigurationError for a function that cannot travel.
    """

    def __init__(self, plan: Plan) -> None:
        self._layout, self._ended = plan.layout, False
        self._works = {
            s: pack(stage.work, f"the work of stage '{stage.name}'")
            for s, stage in enumerate(self._layout.stages)
            if self._layout.resources[self._layout.on[s]].kind == "core"
        }
        self._lines: dict[int, tuple[subprocess.Popen[bytes], Connection]] = {}

    def take(self, hands: list[Hand]) -> None:
        """Start them, and put them in the place of the hands of their workers."""
        for row, (resource, _) in enumerate(self._layout.rows):
            if self._layout.resources[resource].kind == "core":
                self._lines[row] = self._start()
        for row, (_, line) in self._lines.items():
            resource = self._layout.rows[row][0]
            line.send_bytes(
                pickle.dumps({s: data for s, data in self._works.items() if self._layout.on[s] == resource})
            )
        for row in self._lines:
            try:
                self._reply(row)
            except Exception as error:
                where = self._layout.rows[row][1]
                raise ConfigurationError(
                    f"the process of '{where}' cannot load the functions of its stages: {type(error).__name__}: "
                    f"{error}; define them in a module that it can import, or use launch='threads'"
                ) from error
            hands[row] = partial(self._there, row)

    def end(self) -> None:
        """End them all, whatever they do."""
        self._ended = True
        for process, _ in self._lines.values():
            process.kill()
        for process, _ in self._lines.values():
            process.wait()

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection]:
        here, there = multiprocessing.Pipe()
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, path, str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(_THREADS, "1"),
            start_new_session=True,  # an interrupt in the terminal or notebook is the caller's to handle
        )
        there.close()
        return process, here

    def _there(self, row: int, stage: int, given: list[Any]) -> tuple[Any, float]:
        try:
            self._lines[row][1].send_bytes(cloudpickle.dumps((stage, given)))
        except OSError as error:
            raise self._lost(row) from error
        return self._reply(row)

    def _reply(self, row: int) -> tuple[Any, float]:
        try:
            found = pickle.loads(self._lines[row][1].recv_bytes())
        except (EOFError, OSError) as error:
            raise self._lost(row) from error
        if len(found) == 3:
            carried, name, trace = found
            carried.add_note(f"\nIn the process of {self._layout.rows[row][1]}:\n{trace}")
            if type(carried).__name__ == name:
                raise carried
            raise RuntimeError(f"{name}: {carried}") from carried
        return found

    def _lost(self, row: int) -> LostProcessError:
        process, _ = self._lines[row]
        how = f"with exit code {process.wait()}"
        return LostProcessError(f"the process of {self._layout.rows[row][1]} has ended {how}")
