"""Arguments that commands share: schedule, model and link, and what is wrong with them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.schedules import Schedule, build_schedule, recipes
from pipelab.simulation.links import Link, Links

__all__ = [
    "add_device",
    "add_link",
    "add_outputs",
    "add_schedule",
    "add_sizes",
    "pick_links",
    "pick_schedule",
    "read_text",
    "require_places",
]

SIZES = (
    ("layers", 48, "transformer layers"),
    ("width", 64, "width of a layer"),
    ("heads", 4, "attention heads"),
    ("tokens", 32, "tokens in a sequence"),
)
PICTURES = (".png", ".svg", ".pdf")


def add_schedule(parser: argparse.ArgumentParser) -> None:
    """Which schedule; :func:`pick_schedule` is the answer."""
    names = ", ".join(sorted(recipes()))
    parser.add_argument("schedule", metavar="NAME", help=f"{names}; or a CSV file, one row of actions per device")
    parser.add_argument("-p", "--devices", type=int, metavar="P", help="devices (default 4)")
    parser.add_argument("-m", "--microbatches", type=int, metavar="M", help="micro-batches in a batch (default 4)")
    parser.add_argument("-v", "--chunks", type=int, metavar="V", help="stages per device (interleaved: default 2)")
    parser.add_argument("--recompute", action="store_true", help="recompute each forward before its backward (R)")


def add_sizes(group: Any, *more: tuple[str, int, str]) -> None:
    """Sizes of the built-in model, and ``more`` whole numbers: (name, default, what it is)."""
    for name, default, text in (*SIZES, *more):
        group.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default {default})")


def add_device(group: Any) -> None:
    """Where stages run."""
    group.add_argument(
        "--device", metavar="D", help="cpu, cuda (a GPU each), cuda:0 (one for all); default: what the machine has"
    )


def add_link(group: Any, unit: str = "") -> None:
    """What a message costs, in ``unit`` or in any unit of time, and between nodes; :func:`pick_links` is the answer."""
    of = f" in {unit}" if unit else ""
    rate = "bytes per second" if unit else "bytes per unit of time"
    group.add_argument("--latency", type=float, default=0.0, metavar="T", help=f"of each message{of} (default 0)")
    group.add_argument("--bandwidth", type=float, default=float("inf"), metavar="X", help=f"{rate} (default: no limit)")
    group.add_argument("--nodes", type=int, metavar="N", help="spread the devices over N nodes, in order")
    group.add_argument("--between-latency", type=float, metavar="T", help="between nodes (default: --latency)")
    group.add_argument("--between-bandwidth", type=float, metavar="X", help="between nodes (default: --bandwidth)")


def pick_links(options: argparse.Namespace, devices: int, compression: str | None = None) -> Links:
    """The link of each pair of devices; ``compression`` is that of all of them."""
    inside, nodes = Link(options.latency, options.bandwidth, compression), options.nodes
    latency, bandwidth = options.between_latency, options.between_bandwidth
    if nodes is None and latency is bandwidth is None:
        return Links(inside.latency, inside.bandwidth, compression=compression)
    if nodes is None or latency is bandwidth is None:
        raise ConfigurationError(
            "--nodes goes with --between-latency or --between-bandwidth, which say what link the nodes have between "
            "them; give both, or none of them"
        )
    fitting = [n for n in range(1, devices + 1) if devices % n == 0]
    if nodes not in fitting:
        nearest = min(fitting, key=lambda n: abs(n - nodes))
        raise ConfigurationError(
            f"{devices} devices cannot be spread evenly over {nodes} nodes; try --nodes {nearest}, or one of "
            f"{', '.join(map(str, fitting))}"
        )
    between = Link(
        inside.latency if latency is None else latency,
        inside.bandwidth if bandwidth is None else bandwidth,
        compression,
    )
    return Links.nodes(devices // nodes, inside=inside, between=between)


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where figures, picture and trace of a timeline go."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", help="write figures as JSON; - for standard output")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw the timeline (.png, .svg, .pdf)")
    group.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome trace, which opens in Perfetto")


def pick_schedule(options: argparse.Namespace) -> tuple[Schedule, int]:
    """The schedule that was asked for, and m."""
    if options.schedule.endswith(".csv"):
        if options.devices or options.microbatches or options.chunks:
            raise ConfigurationError(f"{options.schedule} already gives p, m and v; leave out -p, -m and -v")
        path = Path(options.schedule)
        table = Schedule.from_csv(read_text(path), name=path.stem)
        if "U" in table.ops:
            print(
                f"{path.name} lists updates (U): each forward takes the newest weights of its device. A file names no "
                "other rule, so the tables of vertical-sync and 2bw have to be built by name.",
                file=sys.stderr,
            )
        return (table.with_recompute() if options.recompute else table), table.microbatches
    p = 4 if options.devices is None else options.devices
    m = 4 if options.microbatches is None else options.microbatches
    return build_schedule(options.schedule, p, m, options.chunks, recompute=options.recompute), m


def read_text(path: Path) -> str:
    """The schedule's text. Raises ConfigurationError for what is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text in UTF-8; a schedule is a CSV file") from None


def require_places(options: argparse.Namespace, *paths: Path | None) -> None:
    """Raise ConfigurationError unless ``paths``, ``--plot`` and ``--json`` can be written where they are asked for."""
    for path in (*paths, options.plot, None if options.json in (None, "-") else Path(options.json)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigurationError(f"{path}: there is no folder {path.parent}")
    if options.plot is not None and options.plot.suffix.lower() not in PICTURES:
        raise ConfigurationError(f"pictures are saved as .png, .svg or .pdf, not as '{options.plot.suffix}'")
