"""``pipelab search``: the order of F, I and W that takes least time, for given costs and a limit on memory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelab.commands.answers import headline, write
from pipelab.commands.arguments import add_link, add_outputs, require_places
from pipelab.simulation import Costs
from pipelab.simulation.search import search_schedule

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("-p", "--devices", type=int, default=4, metavar="P", help="devices (default 4)")
    parser.add_argument("-m", "--microbatches", type=int, default=8, metavar="M", help="micro-batches (default 8)")
    parser.add_argument("-v", "--chunks", type=int, default=1, metavar="V", help="stages per device (default 1)")
    cost = parser.add_argument_group("costs of one micro-batch on a device's full share of the model, in any unit")
    cost.add_argument("--forward", type=float, default=1.0, metavar="T", help="F (default 1)")
    cost.add_argument("--input-gradient", type=float, default=1.0, metavar="T", help="I (default 1)")
    cost.add_argument("--weight-gradient", type=float, default=1.0, metavar="T", help="W (default 1)")
    cost.add_argument("--message-bytes", type=float, default=0.0, metavar="N", help="bytes of one message (default 0)")
    add_link(cost)
    parser.add_argument(
        "--memory-limit",
        type=float,
        metavar="X",
        help="micro-batches of a full share that a device may hold (default: p, as 1F1B's device 0)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long at most (default 10)")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the table found; pipelab run FILE trains with it"
    )
    add_outputs(parser)


def run(options: argparse.Namespace) -> int:
    """Search, telling each better table, and show the best."""
    require_places(options, options.csv, options.trace)
    costs = Costs(
        forward=options.forward,
        backward=options.input_gradient + options.weight_gradient,
        input_gradient=options.input_gradient,
        weight_gradient=options.weight_gradient,
        message_bytes=options.message_bytes,
        latency=options.latency,
        bandwidth=options.bandwidth,
    )

    def tell(source: str, makespan: float, bound: float) -> None:
        print(f"{makespan:g} units, from {source} (no order takes less than {bound:g})", file=sys.stderr)

    found = search_schedule(
        options.devices,
        options.microbatches,
        options.chunks,
        costs,
        options.memory_limit,
        seconds=options.seconds,
        progress=tell,
    )
    schedule, timeline = found.schedule, found.timeline
    if options.csv is not None:
        options.csv.write_text(schedule.to_csv())
    known = [f"  {name:<16} {makespan:g}" for name, makespan in found.known]
    lines = [
        headline(schedule, options.microbatches),
        str(found),
        f"in flight  {' '.join(f'{peak:g}' for peak in timeline.peak_microbatches)}  (full shares, per device)",
        "",
        *(["makespans of the catalogue that fit:", *known] if known else ["nothing of the catalogue fits"]),
        "",
        schedule.to_grid().rstrip(),
    ]
    figures = {
        "makespan": found.makespan,
        "bound": found.bound,
        "proven": found.proven,
        "known": dict(found.known),
        "source": found.source,
        "predicted": timeline.figures(),
    }
    write(options, figures, lines, timeline)
    return 0
