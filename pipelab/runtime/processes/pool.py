"""Processes that this one has started: warm between steps and between pipelines, gone when no one needs them.

They end when the last pipeline that uses them is closed or forgotten (after a moment, in which another may take them
over), and when this process ends, however it does.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.runtime.processes.link import Link
from pipelab.runtime.processes.server import start_server

__all__ = ["Pool", "forget", "lease", "let_go", "release", "shielded", "stop_all"]

T = TypeVar("T")

LINGER = 2.0
"""Seconds that idle processes wait for another pipeline."""
GRACE = 5.0
"""Seconds that an interrupted step has to stop in."""
AT_ONCE = 32
"""Ranks that the fork server is asked for at once: a message carries so many open files."""
_POLL = 0.05
_FILES = Sequence[int]


class Pool:
    """``size`` processes, joined in a group. One command at a time; all ranks get each command."""

    def __init__(self, size: int, server: Link) -> None:
        self.size, self.users, self.broken = size, 0, ""
        self._lock = threading.Lock()
        self._server, self._number, self._owner = server, 0, os.getpid()
        self._modules: dict[str, float] = {}
        self.has_current_modules()
        pairs = [Link.pair() for _ in range(size)]
        self._links = [here for here, _ in pairs]
        self.pids: list[int] = []
        for start in range(0, size, AT_ONCE):
            server.send(("start", None), [there.fileno() for _, there in pairs[start : start + AT_ONCE]])
            (pids, self.slow), _ = server.receive()
            self.pids += pids
        self._alarms: list[Link] = []
        """To each rank, for interrupts."""
        for (link, there), rank in zip(pairs, range(size), strict=True):
            there.drop()
            alarm, its = Link.pair()
            self._alarms.append(alarm)
            try:
                link.send("alarm", [its.fileno()])
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
    ) -> list[tuple[Any, list[int]]]:
        """Each rank's (value, files). Raises what went wrong on the first rank where something did.

        Once ``unwanted`` is set the ranks are asked to stop; those that have finished stay finished. Call it through
        :func:`shielded`: a KeyboardInterrupt in the middle of a message would be the end of the line.
        """
        if not self.is_mine():
            raise PipelabError("this process was forked from the one that this Pipeline belongs to; use it there")
        while not self._lock.acquire(timeout=_POLL):
            if unwanted is not None and unwanted.is_set():
                raise KeyboardInterrupt
        try:
            self._require_alive()
            self._number += 1
            for r, link in enumerate(self._links):
                try:
                    link.send((name, arguments[r], self._number), files[r] if files is not None else ())
                except EOFError:
                    raise self._died(r) from None
            replies: dict[int, Any] = {}
            waiting = select.poll()
            for link in self._links:
                waiting.register(link, select.POLLIN)
            asked_to_stop: float | None = None
            failed: float | None = None
            while len(replies) < self.size:
                self._collect(replies, waiting)
                now = time.monotonic()
                if asked_to_stop is None and unwanted is not None and unwanted.is_set():
                    asked_to_stop = now
                    for alarm in self._alarms:
                        alarm.send(self._number)
                if failed is None and any(found[0] == "error" for found, _ in replies.values()):
                    failed = now
                if len(replies) < self.size and asked_to_stop is not None and now > asked_to_stop + GRACE:
                    self.kill("a stage did not stop when it was interrupted")
                    self._require_alive()
                if len(replies) < self.size and failed is not None and now > failed + GRACE:
                    self.kill("one device failed, and others did not stop")
                    break
            errors = [found for found, _ in replies.values() if found[0] == "error"]
            if errors:
                raise min(errors, key=lambda found: found[1].echo)[1].rebuild()
            return [(replies[r][0][1], replies[r][1]) for r in range(self.size)]
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
        for link in (*self._links, *self._alarms):
            link.close()
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
        for link in (*self._links, *self._alarms):
            link.close()

    def _collect(self, replies: dict[int, Any], waiting: select.poll) -> None:
        """Take the replies that have come; waits a moment for one."""
        ready = {number for number, _ in waiting.poll(_POLL * 1e3)}
        self._require_alive()  # another thread may have stopped them
        for r, link in enumerate(self._links):
            number = link.fileno()
            if r not in replies and number in ready:
                try:
                    replies[r] = link.receive()
                except EOFError:
                    raise self._died(r) from None
                waiting.unregister(number)

    def _require_alive(self) -> None:
        if self.broken:
            raise PipelabError(
                f"the processes of this Pipeline are gone ({self.broken}); the model holds the weights of the last "
                "step that was finished: make a new Pipeline to go on"
            )

    def _died(self, rank: int) -> PipelabError:
        """A rank has ended: end the others, and say how."""
        if not self.broken:  # else they have been stopped from here, in the middle of a call
            how = "has ended"
            with suppress(EOFError):  # the fork server may have gone, too
                how = self._how_it_ended(self.pids[rank])
            self.kill(f"the process of device {rank} {how}")
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


def shielded(work: Callable[[threading.Event], T]) -> T:
    """Do ``work`` in a thread, where no KeyboardInterrupt can cut it in two.

    One that comes meanwhile sets the event that ``work`` gets, and is raised once the work is over.
    """
    unwanted = threading.Event()
    done = threading.Event()  # a join that is interrupted may take the thread for ended
    outcome: list[Any] = []

    def body() -> None:
        try:
            outcome[:] = [work(unwanted), None]
        except BaseException as error:  # noqa: BLE001 (it is raised again in the caller's thread)
            outcome[:] = [None, error]
        done.set()

    thread = threading.Thread(target=body, name="pipelab processes", daemon=True)
    while not done.is_set():
        try:
            if thread.ident is None:
                thread.start()
            done.wait()
        except KeyboardInterrupt:
            unwanted.set()
    try:
        result, error = outcome
        if unwanted.is_set():
            raise KeyboardInterrupt
        if error is not None:
            raise error
        found: T = result
        return found
    finally:  # an error's traceback holds this frame, which would hold the error
        outcome.clear()
        del error


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


def lease(size: int) -> Pool:
    """A pool of ``size`` processes, warm if there is one; give it back with :func:`release`."""
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
                    pool = _here.pools[size] = Pool(size, _here.server[1])
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
            pool.call("close", [key] * pool.size)
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
