"""Joining the group that torchrun, or whoever set RANK and WORLD_SIZE, started this process in."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.runtime.device.threads import DEVICE
from pipelab.runtime.processes.group import CONNECT, ROLL_CALL, Group, roll_call
from pipelab.runtime.processes.wires.board import Board
from pipelab.runtime.setup.devices import DeviceChoice, choose_devices

__all__ = ["LOOPBACK", "enter_world", "in_group", "join", "make_group", "require_size", "world"]

_LAST = 20.0
"""Seconds that threads which a step has left behind have to come out of gloo."""
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def world() -> tuple[int, int] | None:
    """(rank, size) of the group that this process was started in, joined or not; None if it was started alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    rank, size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if not rank or not size:
        return None
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise ConfigurationError(
            f"RANK={rank} and WORLD_SIZE={size} are not a rank and a number of processes; torchrun sets them, unset "
            "them to run alone"
        )
    return int(rank), int(size)


def in_group() -> bool:
    """Whether this process is one of a group's, as under torchrun."""
    return world() is not None


def join(devices: int, device: DeviceChoice, group: Any = None, board: Board | None = None) -> Group:
    """The pipeline's group: ``group``, or all processes. Raises ConfigurationError if it has not one a device.

    Joins the world first, if that has not been done.
    """
    if group is not None:
        size = dist.get_world_size(group)
        if dist.get_rank(group) < 0:
            raise ConfigurationError(
                "this process is not in the group that was given; only its ranks make the Pipeline"
            )
    else:
        found = world()
        assert found is not None
        size = found[1]
    require_size(devices, size)
    with _only_here():
        return _joined(devices, device, group, board)


def require_size(devices: int, size: int) -> None:
    """Raise ConfigurationError unless ``size`` processes are one a device."""
    if size != devices:
        raise ConfigurationError(
            f"the schedule has {devices} devices, but {size} {'process was' if size == 1 else 'processes were'} "
            f"started: a pipeline needs one each; start {devices} (with torchrun, --nnodes times --nproc-per-node must "
            f"be {devices}), build a schedule for {size} devices, or pass group= with {devices} ranks"
        )


@contextmanager
def _only_here() -> Iterator[None]:
    """Errors in here need not be known on other ranks."""
    try:
        yield
    except PipelabError as error:
        error.only_here = True  # type: ignore[attr-defined]
        raise


def _joined(devices: int, device: DeviceChoice, group: Any, board: Board | None) -> Group:
    place = _local_device(devices, device, group)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    _enter_world()
    ranks = dist.get_process_group_ranks(dist.group.WORLD if group is None else group)
    return make_group(ranks, place, "pipelab", board)


def make_group(ranks: Sequence[int], place: torch.device, kind: str, board: Board | None = None) -> Group:
    """A group of ``ranks`` of the world; all of them make theirs in the same order. ``kind`` keeps groups apart."""
    store = dist.distributed_c10d._get_default_store()
    name = f"{kind}/{'-'.join(map(str, ranks))}"
    number = store.add(f"{name}/made/{dist.get_rank()}", 1)  # all ranks make their pipelines in the same order
    try:
        made = Group(store, ranks.index(dist.get_rank()), len(ranks), f"{name}/{number}", place, board)
    except (OSError, RuntimeError) as error:
        raise PipelabError(f"rank {dist.get_rank()} cannot connect to the others: {_first_line(error)}") from error
    _open.add(made)
    return made


def enter_world() -> None:
    """init_process_group, if that has not been done. Raises ConfigurationError if the others cannot be reached."""
    with _only_here():
        _enter_world()


def _enter_world() -> None:
    _check_interfaces()
    if not dist.is_initialized():
        _join_world()


def _join_world() -> None:
    """init_process_group, with errors that say what to do."""
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    address = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
        raise ConfigurationError(
            "RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT: start with torchrun, which sets all of "
            "them, or unset RANK to run alone"
        )
    if os.environ.get("LOCAL_WORLD_SIZE") == size:  # all are on this host, and no one beyond it need reach them
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=CONNECT))
        roll_call(store, "pipelab/world", int(rank), int(size))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        # Sockets that a firewall drops would keep everyone for half an hour, which is right for what comes later.
        dist.init_process_group(backend, store=store, rank=int(rank), world_size=int(size), timeout=ROLL_CALL)
        with suppress(Exception):
            dist.distributed_c10d._set_pg_timeout(timedelta(minutes=30), dist.group.WORLD)
    except PipelabError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = _first_line(error).rstrip(".")
        raise ConfigurationError(
            f"rank {rank} of {size} cannot join the others at {address}: {reason}. Is the port free there, "
            "open in its firewall, and is the address reachable from here? --rdzv-endpoint, or MASTER_ADDR and "
            "MASTER_PORT, choose others; GLOO_SOCKET_IFNAME chooses the network interface"
        ) from error
    atexit.register(_leave_world)


_open: weakref.WeakSet[Group] = weakref.WeakSet()


def _leave_world() -> None:
    """At Python's end: no thread may be in gloo then, not even one that a step has left behind there."""
    for group in list(_open):
        with suppress(Exception):
            group.close()
    with suppress(Exception):
        dist.destroy_process_group()
    late = time.monotonic() + _LAST  # the others end, too, which ends its wait
    for thread in threading.enumerate():
        while thread.name.startswith(DEVICE) and _in_collective(thread) and time.monotonic() < late:
            thread.join(0.1)


def _in_collective(thread: threading.Thread) -> bool:
    """Whether it is in ``torch.distributed``."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and "torch.distributed" not in frame.f_globals.get("__name__", ""):
        frame = frame.f_back
    return frame is not None


def _check_interfaces() -> None:
    """A wrong interface would be an error deep in gloo, or a wait for a minute elsewhere."""
    here = [name for _, name in socket.if_nameindex()]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        asked = os.environ.get(variable, "")
        if variable.startswith("NCCL") and (asked[:1] in ("^", "=") or not torch.cuda.is_available()):
            continue
        for name in filter(None, asked.split(",")):
            known = any(own.startswith(name) for own in here) if variable.startswith("NCCL") else name in here
            if not known:
                raise ConfigurationError(
                    f"{variable}={asked}: this host has no network interface '{name}'; it has {', '.join(here)}"
                )


def _local_device(devices: int, device: DeviceChoice, group: Any) -> torch.device:
    """Where this rank keeps its tensors: by its place among the processes of this host."""
    found = world()
    assert found is not None
    rank = found[0]
    if isinstance(device, Sequence) and not isinstance(device, str):
        if len(device) != devices:
            raise ConfigurationError(f"the schedule has {devices} devices, but {len(device)} torch devices were given")
        own = rank if group is None else dist.get_rank(group)
        return choose_devices([device[own]], 1)[0]
    local = int(os.environ.get("LOCAL_RANK", rank))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", found[1]))
    return choose_devices(device, max(beside, local + 1))[local]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
