"""Meshes of processes on this machine, started and measured from a notebook, and their figures side by side."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelab.errors import ConfigurationError, PipelabError, whole_number
from pipelab.quantities import format_bytes, format_time, render_table
from pipelab.teaching.running.experiment import Setting

__all__ = ["MeshDevice", "MeshRun", "mesh_table", "run_meshes"]

SIZES = ("dp", "pp", "tp")
KINDS = ("weights", "gradients", "optimizer", "activations")
_FIELDS = {field.name for field in fields(Setting)}


@dataclass(frozen=True)
class MeshDevice:
    """One device of a mesh: its replica, stage and part of each layer; bytes that it holds, and sends in a step."""

    place: tuple[int, int, int]
    held: Mapping[str, int]
    """By kind: "weights", "gradients", "optimizer", "activations" (at their peak)."""
    sent: Mapping[str, float]
    """By axis: messages between stages over "pp", collectives over "dp" and "tp" as a ring sends them."""

    @property
    def total(self) -> int:
        """All that it holds."""
        return sum(self.held.values())


@dataclass(frozen=True)
class MeshRun:
    """One shape, run for real. ``shape`` as it was given; ``microbatches`` of each replica."""

    shape: Mapping[str, Any]
    microbatches: int
    error: float
    """max |g - g*| / max |g*| against the unsplit model, in float64."""
    bubble: float
    """Of the first replica's pipeline, by the device clock."""
    seconds: float
    """Of a step, by the wall clock: all processes share this machine's cores."""
    loss: float
    devices: tuple[MeshDevice, ...]

    @property
    def name(self) -> str:
        """The shape in words."""
        sizes = " x ".join(f"{axis} {self.shape[axis]}" for axis in SIZES if self.shape.get(axis, 1) > 1)
        more = (f"{key} {value}" for key, value in self.shape.items() if key not in SIZES)
        return ", ".join([sizes or "one device", *more])

    @property
    def fullest(self) -> MeshDevice:
        """The device that holds most."""
        return max(self.devices, key=lambda device: device.total)

    @property
    def sent(self) -> dict[str, float]:
        """The most that a device sends in a step, by axis."""
        return {axis: max(device.sent[axis] for device in self.devices) for axis in SIZES}


def run_meshes(
    shapes: Sequence[Mapping[str, Any]],
    *,
    microbatch: int = 16,
    proof: int | None = None,
    limit: float = 300.0,
    progress: bool = True,
    **setting: Any,
) -> list[MeshRun]:
    """Train the worked example on meshes of processes, one after the other, and measure.

    ``shapes``: sizes by axis, ``{"dp": 2, "pp": 2}``, all with as many devices; ``{"dp": 4, "shard": "keep"}`` shares
    out the weights (see ``Pipeline``). ``microbatch``: sequences of a micro-batch. ``proof``: layers of the model whose
    gradients are compared in float64 (default: all). ``setting``: fields of ``Setting`` that differ, as ``layers``;
    those of one shape stand in it. ``limit``: seconds for everything; then the processes are ended, as after any error.

    Raises ConfigurationError for shapes that cannot be, before anything starts.
    """
    count = _devices(shapes)
    if unknown := sorted(set(setting) - _FIELDS):
        raise ConfigurationError(f"Setting has no field {unknown[0]!r}; it has {', '.join(sorted(_FIELDS))}")
    for shape in shapes:
        batch = shape.get("batch", setting.get("batch", Setting().batch))
        if batch < shape.get("dp", 1):
            raise ConfigurationError(
                f"each replica needs a sequence of the batch at least: dp = {shape['dp']}, and the batch has {batch}; "
                f"take batch={shape['dp']}, or fewer replicas"
            )
    told = {"shapes": list(shapes), "microbatch": whole_number("microbatch", "", microbatch), "setting": setting}
    told |= {} if proof is None else {"proof": whole_number("proof", "", proof)}
    bar = tqdm(total=len(shapes), desc="meshes", unit="shape", disable=not progress, leave=False)
    with bar, tempfile.TemporaryDirectory() as folder, ExitStack() as last:
        ranks = _start(count, json.dumps(told), Path(folder), last)
        _wait(ranks, Path(folder), limit, bar)
        lines = (Path(folder) / "0.out").read_text().splitlines()
    return [_read(json.loads(line)) for line in lines]


def mesh_table(runs: Sequence[MeshRun]) -> str:
    """What the fullest device of each shape holds, and what a device sends, as text."""
    header = ("per device", *KINDS, "sends (dp)", "sends (pp)", "sends (tp)", "bubble", "gradient error", "a step")
    rows = [
        (
            run.name,
            *(format_bytes(run.fullest.held[kind]) for kind in KINDS),
            *(format_bytes(run.sent[axis]) if run.sent[axis] else "-" for axis in SIZES),
            f"{run.bubble:.0%}",
            f"{run.error:.0e}",
            format_time(run.seconds, "s"),
        )
        for run in runs
    ]
    return render_table(header, rows)


def _devices(shapes: Sequence[Mapping[str, Any]]) -> int:
    """How many devices the shapes have, all of them."""
    if not shapes:
        raise ConfigurationError("run_meshes needs a shape at least, such as {'dp': 2, 'pp': 2}; got none")
    for shape in shapes:
        if not isinstance(shape, Mapping) or set(shape) - {*SIZES, "shard", *_FIELDS}:
            raise ConfigurationError(
                f"a shape has sizes of 'dp', 'pp' and 'tp', and perhaps 'shard' or fields of Setting, got {shape!r}; "
                "try {'dp': 2, 'pp': 2}"
            )
    counts = [prod(whole_number(axis, axis, shape.get(axis, 1)) for axis in SIZES) for shape in shapes]
    other = next((k for k, count in enumerate(counts) if count != counts[0]), None)
    if other is not None:
        raise ConfigurationError(
            f"shapes are run by the same processes, so all need as many devices: {dict(shapes[0])} has {counts[0]}, "
            f"{dict(shapes[other])} has {counts[other]}; run those in another call"
        )
    return counts[0]


def _start(count: int, told: str, folder: Path, last: ExitStack) -> list[subprocess.Popen[str]]:
    """A process for each device, with what torchrun would tell it; ``last`` ends them."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    common |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(count))
    ranks = []
    for rank in range(count):
        out, err = (last.enter_context((folder / f"{rank}.{end}").open("w")) for end in ("out", "err"))
        own = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-m", f"{__package__}.rank", told]
        ranks.append(subprocess.Popen(command, env=own, stdout=out, stderr=err, text=True))
        last.callback(_end, ranks[-1])
    return ranks


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def _wait(ranks: Sequence[subprocess.Popen[str]], folder: Path, limit: float, bar: Any) -> None:
    """Until all have ended well."""
    until = time.monotonic() + limit
    while any(rank.poll() is None for rank in ranks) and not any(rank.returncode for rank in ranks):
        if time.monotonic() > until:
            raise PipelabError(
                f"the meshes took more than {limit:g} s, after {bar.n} of {bar.total} shapes; give a longer limit=, "
                "fewer layers= or fewer shapes"
            )
        time.sleep(0.05)
        if done := (folder / "0.out").read_text().count("\n") - bar.n:
            bar.update(done)
    failed = next((k for k, rank in enumerate(ranks) if rank.returncode), None)
    if failed is not None:
        said = (folder / f"{failed}.err").read_text().strip().splitlines()
        reason = said[-1] if said else f"exit code {ranks[failed].returncode}"
        raise PipelabError(f"process {failed} of {len(ranks)} failed: {reason}")


def _read(told: Mapping[str, Any]) -> MeshRun:
    devices = (MeshDevice(tuple(one["place"]), one["held"], one["sent"]) for one in told["devices"])
    return MeshRun(**{**told, "devices": tuple(devices)})
