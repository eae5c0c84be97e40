"""The fork server: a process that has imported torch once and forks a rank in milliseconds.

It runs nothing of the caller's: no ``__main__`` is imported again, so that scripts need no guard. It ends when the
caller does, however that ends. Where a fork is not safe, each rank starts an interpreter of its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pipelab.runtime.processes.link import Link

__all__ = ["main", "start_server", "unsafe_to_fork"]

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from {module} import main; main(int(sys.argv[2]))"
_SERVER, _RANK = (_BOOT.format(module=f"pipelab.runtime.processes.{name}") for name in ("server", "rank"))


def start_server() -> tuple[subprocess.Popen[bytes], Link]:
    """Start it; returns the process and the line to it."""
    here, there = Link.pair()
    # One thread each: ranks are as many as the machine has cores, and a process with threads cannot be forked.
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        _command(_SERVER, there.fileno()),
        pass_fds=[there.fileno()],
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # an interrupt in the terminal or notebook is the caller's to handle
    )
    there.drop()
    return process, here


def unsafe_to_fork() -> str | None:
    """Why this process had better not be forked; None if it may be."""
    if sys.platform != "linux":
        return f"on {sys.platform} system libraries do not survive a fork"
    count = len(os.listdir("/proc/self/task"))
    if count > 1 or threading.active_count() > 1:
        return f"a library has started {count - 1} threads in it"
    return None


def main(number: int) -> None:
    """Serve the caller at the other end of file ``number`` until it is gone."""
    caller, link = os.getppid(), Link(socket.socket(fileno=number))
    if sys.platform == "linux":
        import torch.fx.experimental.symbolic_shapes

        import pipelab.runtime.processes.rank  # noqa: F401
    reason = unsafe_to_fork()
    children: dict[int, subprocess.Popen[bytes] | None] = {}
    codes: dict[int, int] = {}
    while os.getppid() == caller:
        _reap(children, codes)
        ready, _, _ = select.select([link], [], [], 1.0)
        if not ready:
            continue
        try:
            (request, argument), files = link.receive()
        except EOFError:
            break
        if request == "start":
            if argument and reason is None:  # torch.optim imports it with the first optimizer: once here, not in each
                import torch._dynamo  # noqa: F401
            pids = [_start(file, files, link, children, reason) for file in files]
            for file in files:
                os.close(file)
            link.send((pids, reason))
        else:  # how did it end?
            _reap(children, codes)
            link.send(codes.get(argument))
    os._exit(0)


def _start(file: int, files: Sequence[int], link: Link, children: dict[int, Any], reason: str | None) -> int:
    if reason is not None:
        process = subprocess.Popen(_command(_RANK, file), pass_fds=[file], stdin=subprocess.DEVNULL)
        children[process.pid] = process
        return process.pid
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            link.drop()
            for other in files:  # a line is closed when no one holds its end any more
                if other != file:
                    os.close(other)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            from pipelab.runtime.processes.rank import main as serve

            serve(file)
            status = 0
        finally:
            os._exit(status)
    children[pid] = None
    return pid


def _reap(children: dict[int, Any], codes: dict[int, int]) -> None:
    for pid, process in list(children.items()):
        code: int | None = None
        if process is not None:
            code = process.poll()
        else:
            with suppress(ChildProcessError):
                found, status = os.waitpid(pid, os.WNOHANG)
                code = os.waitstatus_to_exitcode(status) if found else None
        if code is not None:
            codes[pid] = code
            del children[pid]


def _command(program: str, number: int) -> list[str]:
    return [
        sys.executable,
        "-c",
        program,
        json.dumps([path for path in sys.path if isinstance(path, str)]),
        str(number),
    ]
