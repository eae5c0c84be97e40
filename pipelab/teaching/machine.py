"""What this machine has, and how the course uses it."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata

import torch
import torch.distributed as dist

from pipelab.runtime.device.allocator import keep_freed_memory
from pipelab.version import __version__

__all__ = ["examine"]


def examine() -> str:
    """A report for people, one line for each finding."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    lines = [
        f"pipelab {__version__}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"{platform.system()} {platform.machine()}",
        f"cores      {cores}",
        f"memory     {_memory()}",
        f"GPUs       {gpus}" + "".join(f"\n           cuda:{i}  {torch.cuda.get_device_name(i)}" for i in range(gpus)),
    ]
    lines.append(f"processes  {_processes()}")
    lines.append(f"widgets    {_widgets()}")
    advice = []
    if gpus == 0:
        advice.append(
            "No GPU: stages run on the CPU, one thread each. All lessons work. "
            + (
                f"With {cores} core(s), a pipeline of 4 devices shares cores. Read bubbles from the device clock, "
                "which composes each stage's own measured cost."
                if cores < 4
                else "With four or more cores, the wall clock also shows the bubbles of a pipeline of 4 devices."
            )
        )
    elif gpus == 1:
        advice.append("One GPU: all stages share it. Read bubbles from the device clock (CUDA events).")
    else:
        advice.append(
            f"{gpus} GPUs: in a pipeline of up to {gpus} devices each has a GPU. The wall clock shows bubbles."
        )
    if gpus == 0 and not keep_freed_memory():
        advice.append("This C library does not keep freed memory, so times may include the first use of memory.")
    return "\n".join([*lines, "", *advice]) + "\n"


def _processes() -> str:
    """What launch="processes" has to work with."""
    if not dist.is_available():
        return "none: this torch was built without torch.distributed"
    carriers = ["gloo"] + (["nccl"] if dist.is_nccl_available() else [])
    start = "started in about a second" if sys.platform == "linux" else "each starts its own Python"
    return f"one per device if asked for, joined by {' or '.join(carriers)}, {start}"


def _widgets() -> str:
    """What explore, puzzles and TimelineView have to work with."""
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in ("anywidget", "ipywidgets", "jupyterlab"))
    except metadata.PackageNotFoundError as missing:
        return f"none: {missing.name} is not installed; pip install 'pipelab[lab]'"


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{size / 1e9:.1f} GB"
