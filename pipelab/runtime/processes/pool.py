"""Processes that this one has started: warm between steps and between pipelines, gone when no one needs them.

They end when the last pipeline that uses them is closed or forgotten (after a moment, in which another may take them
over), and when this process ends, however it does.
"""

from __future__ import annotations

import atexit
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from pipelab.errors import ConfigurationError, PipelabError, TimeLimitError
from pipelab.runtime.device.program import ProgramTable
from pipelab.runtime.faults.limit import Patience, is_stopped
from pipelab.runtime.faults.where import described, lost_process
from pipelab.runtime.processes.link import Link
from pipelab.runtime.processes.server import start_server
from pipelab.runtime.processes.wires.board import Board

__all__ = ["Pool", "forget", "lease", "let_go", "release", "stop_all"]

LINGER = 2.0
"""Seconds that idle processes wait for another pipeline."""
GRACE = 5.0
"""Seconds that an interrupted step has to stop in."""
AT_ONCE = 32
"""Ranks that the fork server is asked for at once: a message carries so many open files."""
GRACE_OVERDUE = 1.5
"""The same where the others say that a device is stuck."""
_OVERDUE = TimeLimitError.__name__
_GO_ON = "the model holds the weights of the last step that was finished: make a new Pipeline to go on"
_POLL = 0.05
_FILES = Sequence[int]


class Pool:
    """``size`` processes, joined in a group. One command at a time; all ranks get each command."""

    def __init__(self, size: int, server: Link, *, optimizers: bool = False) -> None:
        self.size, self.users, self.broken = size, 0, ""
        self._lock = threading.Lock()
        self._server, self._number, self._owner = server, 0, os.getpid()
        self._modules: dict[str, float] = {}
        self.has_current_modules()
        self.board = Board(size)
        pairs = [Link.pair() for _ in range(size)]
        self._links = [here for here, _ in pairs]
        self.pids: list[int] = []
        for start in range(0, size, AT_ONCE):
            server.send(("start", optimizers), [there.fileno() for _, there in pairs[start : start + AT_ONCE]])
            (pids, self.slow), _ = server.receive()
            self.pids += pids
        self._alarms: list[Link] = []
        """To each rank, for interrupts."""
        for (link, there), rank in zip(pairs, range(size), strict=True):
            there.drop()
            alarm, its = Link.pair()
            self._alarms.append(alarm)
            try:
                link.send(size, [its.fileno(), self.board.file])
            except EOFError:
                raise self._died(rank) from None
            finally:
                its.drop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            asked = [(r, size, port, os.getcwd()) for r in range(size)]
            self.call("join", asked, [[listening.fileno()], *[[]] * (size - 1)])

    def call(
        self,
        name: str,
        arguments: Sequence[Any],
        files: Sequence[_FILES] | None = None,
        unwanted: threading.Event | None = None,
        *,
        table: ProgramTable | None = None,
        limit: float = math.inf,
    ) -> list[tuple[Any, list[int]]]:
        """Each rank's (value, files). Raises what went wrong on the first rank where something did.

        Once ``unwanted`` is set the ranks are asked to stop; those that have finished stay finished. Call it through
        ``shielded``: a KeyboardInterrupt in the middle of a message would be the end of the line. ``table`` is what
        they run, and serves to say where one was. When nothing has moved for ``limit`` seconds all are ended.
        """
        if not self.is_mine():
            raise PipelabError("this process was forked from the one that this Pipeline belongs to; use it there")
        while not self._lock.acquire(timeout=_POLL):
            if unwanted is not None and unwanted.is_set():
                raise KeyboardInterrupt
        replies: dict[int, Any] = {}
        try:
            self._require_alive()
            self._number += 1
            for r, link in enumerate(self._links):
                try:
                    link.send((name, arguments[r], self._number), files[r] if files is not None else ())
                except EOFError:
                    raise self._died(r, table) from None
            waiting = select.poll()
            for link in self._links:
                if link.fileno() >= 0:  # else another thread has just stopped them, as is seen below
                    waiting.register(link, select.POLLIN)
            asked_to_stop: float | None = None
            failed: float | None = None
            patience = Patience(limit + 2 * GRACE_OVERDUE, _POLL)
            while len(replies) < self.size:
                self._collect(replies, waiting, table)
                now = time.monotonic()
                if patience.is_over([*self.board.whereabouts, len(replies)]):
                    raise self._stuck(limit, table, set(range(self.size)) - set(replies))
                if asked_to_stop is None and unwanted is not None and unwanted.is_set():
                    asked_to_stop = now
                    for alarm in self._alarms:
                        alarm.send(self._number)
                if failed is None and any(found[0] == "error" for found, _ in replies.values()):
                    failed = now
                if len(replies) < self.size and asked_to_stop is not None and now > asked_to_stop + GRACE:
                    self.kill("a stage did not stop when it was interrupted")
                    self._require_alive()
                overdue = any(found[0] == "error" and found[1].kind == _OVERDUE for found, _ in replies.values())
                grace = GRACE_OVERDUE if overdue else GRACE
                if len(replies) < self.size and failed is not None and now > failed + grace:
                    self.kill("one device failed, and others did not stop")
                    break
            errors = [
                (found[1].echo, found[1].kind == _OVERDUE, r, found[1])
                for r, (found, _) in replies.items()
                if found[0] == "error"
            ]
            if errors:
                *_, first, carried = min(errors, key=lambda found: found[:3])
                error = carried.rebuild(first)
                if isinstance(error, TimeLimitError) and error.stuck:
                    self.kill(f"device {error.stuck[0]} did not come to its end")
                raise error
            return [(replies[r][0][1], replies[r][1]) for r in range(self.size)]
        except BaseException:
            for number in (number for _, opened in replies.values() for number in opened):
                os.close(number)
            raise
        finally:
            self._lock.release()

    def has_current_modules(self) -> bool:
        """Whether the caller's own modules are as they were when ranks may have imported them."""
        return all(self._modules.setdefault(name, time) == time for name, time in _own_modules())

    def is_mine(self) -> bool:
        """Whether this process has started it, rather than a parent that it was forked from."""
        return self._owner == os.getpid()

    def kill(self, reason: str) -> None:
        """End all processes now."""
        if not self.is_mine():
            return
        self.broken = self.broken or reason
        self._hang_up()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        """Let all processes end: each does so when its line is closed."""
        if not self.is_mine():
            return
        self.broken = self.broken or "they were stopped"
        self._hang_up()

    def _hang_up(self) -> None:
        ends: list[Any] = [*self._links, *self._alarms, self.board]
        for end in ends:
            end.close()

    def _collect(self, replies: dict[int, Any], waiting: select.poll, table: ProgramTable | None) -> None:
        """Take the replies that have come; waits a moment for one."""
        ready = {number for number, _ in waiting.poll(_POLL * 1e3)}
        self._require_alive()  # another thread may have stopped them
        for r, link in enumerate(self._links):
            number = link.fileno()
            if r not in replies and number in ready:
                try:
                    replies[r] = link.receive()
                except EOFError:
                    raise self._died(r, table) from None
                waiting.unregister(number)

    def _require_alive(self) -> None:
        if self.broken:
            raise PipelabError(f"the processes of this Pipeline are gone ({self.broken}); {_GO_ON}")

    def _stuck(self, limit: float, table: ProgramTable | None, ranks: set[int]) -> TimeLimitError:
        """No rank has moved for too long: end them all, and say where each is that has not answered."""
        lines = []
        for r in sorted(ranks):
            stopped = "; its process is stopped" if is_stopped(self.pids[r]) else ""
            lines.append(f"  device {r} is {described(table, r, self.board.whereabouts[r])}{stopped}")
        self.kill(f"nothing had moved in them for {limit:g} s")
        hint = "they have been ended; allow more with time_limit=..., in seconds, and make a new Pipeline to go on"
        head = f"the processes of this Pipeline have not moved for {limit:g} s"
        error = TimeLimitError("\n".join([head, *lines, hint]))
        error.stuck = tuple(sorted(ranks))
        return error

    def _died(self, rank: int, table: ProgramTable | None = None) -> PipelabError:
        """A rank has ended: end the others, and say how."""
        if not self.broken:  # else they have been stopped from here, in the middle of a call
            how = "has ended"
            with suppress(EOFError):  # the fork server may have gone, too
                how = self._how_it_ended(self.pids[rank])
            self.kill(f"the process of device {rank} {how}")
            return lost_process(how, table, rank, self.board.whereabouts[rank], _GO_ON)
        try:
            self._require_alive()
        except PipelabError as error:
            return error
        raise AssertionError

    def _how_it_ended(self, pid: int) -> str:
        for _ in range(20):
            with _here.server_lock:
                self._server.send(("code", pid))
                code, _ = self._server.receive()
            if code is not None:
                break
            time.sleep(0.05)
        if code is None or code >= 0:
            return "has ended" if code is None else f"has exited with {code}"
        hint = ", as a system does that runs out of memory" if -code == signal.SIGKILL else ""
        return f"was ended by signal {-code} ({_signal_name(-code)}){hint}"


class _Pools:
    """All pools of this process, and the fork server that they come from."""

    def __init__(self) -> None:
        self.lock, self.server_lock = threading.RLock(), threading.RLock()
        self.retired: list[Pool] = []
        """Pools that are still used, and whose processes have imported modules that were edited since."""
        self.owner = os.getpid()
        self.pools: dict[int, Pool] = {}
        self.server: tuple[subprocess.Popen[bytes], Link] | None = None
        self.timer: threading.Timer | None = None
        self.warned = False


_here = _Pools()


def lease(size: int, *, optimizers: bool = False) -> Pool:
    """A pool of ``size`` processes, warm if there is one; give it back with :func:`release`.

    ``optimizers`` says that they will make some, which new ones are then ready for.
    """
    if sys.platform == "win32":
        raise ConfigurationError("launch='processes' needs Linux or macOS (on Windows: WSL2); use launch='threads'")
    with _here.lock:
        if _here.owner != os.getpid():
            raise ConfigurationError(
                "this process was forked from one with pipelines in processes of their own; start it by spawn to open "
                "others, or use launch='threads'"
            )
        pool = _here.pools.get(size)
        if pool is not None and not pool.has_current_modules():
            _here.retired.append(_here.pools.pop(size))
            _end_idle()
            pool = None
        if pool is None or pool.broken:
            if _here.server is None or _here.server[0].poll() is not None:
                _here.server = start_server()
            try:
                with _here.server_lock:
                    pool = _here.pools[size] = Pool(size, _here.server[1], optimizers=optimizers)
            except EOFError:
                code = _here.server[0].wait()
                _here.server = None
                raise PipelabError(
                    f"no process could be started: the fork server ended with {code}; what it printed says why"
                ) from None
            if pool.slow and not _here.warned:
                _here.warned = True
                warnings.warn(
                    f"processes cannot be forked here ({pool.slow}): each starts a Python of its own, "
                    "which takes seconds",
                    stacklevel=1,
                )
        pool.users += 1
        return pool


def release(pool: Pool) -> None:
    """Give a pool back. If no one else uses it, it ends in a moment."""
    if _here.owner != os.getpid():
        return
    with _here.lock:
        pool.users -= 1
        if pool.users == 0 and _here.timer is None:
            _here.timer = threading.Timer(LINGER, _stop_idle)
            _here.timer.daemon = True
            _here.timer.start()


def let_go(pool: Pool, key: int) -> None:
    """Close the ranks' part of pipeline ``key``, and give its pool back."""
    try:
        if not pool.broken:
            pool.call("close", [key] * pool.size, limit=1.5 if pool.users == 1 else 600.0)
    except PipelabError:
        pass
    finally:
        release(pool)


def forget(pool: Pool, key: int) -> None:
    """The same where its owner was not closed, but forgotten: this may be any thread, in the middle of anything."""
    if pool.is_mine():
        threading.Thread(target=let_go, args=(pool, key), daemon=True).start()


def stop_all() -> None:
    """End all processes now."""
    if _here.owner != os.getpid():
        return
    with _here.lock:
        for pool in (*_here.pools.values(), *_here.retired):
            pool.stop()
        _here.pools.clear()
        _here.retired.clear()
        _stop_server()


def _stop_idle() -> None:
    with _here.lock:
        _here.timer = None
        _end_idle()


def _end_idle() -> None:
    for size, pool in list(_here.pools.items()):
        if pool.users == 0:
            pool.stop()
            del _here.pools[size]
    for pool in [pool for pool in _here.retired if pool.users == 0]:
        pool.stop()
        _here.retired.remove(pool)
    if not _here.pools and not _here.retired:
        _stop_server()


def _own_modules() -> Iterator[tuple[str, float]]:
    """(name, time of last change) of the modules that are edited here, rather than installed."""
    fixed = tuple({sys.prefix, sys.base_prefix, os.path.dirname(os.__file__)})
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name != "__main__" and not file.startswith(fixed):
            with suppress(OSError):
                yield name, os.stat(file).st_mtime


def _stop_server() -> None:
    if _here.server is not None:
        process, link = _here.server
        link.close()
        _here.server = None
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


atexit.register(stop_all)
