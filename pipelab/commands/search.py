"""``pipelab search``: the order of F, I and W that takes least time, for given costs and a limit on memory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelab.commands.answers import headline, write
from pipelab.commands.arguments import add_link, add_outputs, pick_links, require_places
from pipelab.errors import ConfigurationError
from pipelab.quantities import format_bytes, format_time, parse_bytes
from pipelab.simulation import Costs
from pipelab.simulation.costs import CostModel
from pipelab.simulation.search import search_schedule
from pipelab.tuning import CostProfile

__all__ = ["add_arguments", "run"]

_DEFAULTS = {"F": "1", "B": "I + W", "I": "1", "W": "1"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("-p", "--devices", type=int, metavar="P", help="devices (default 4, or the profile's)")
    parser.add_argument("-m", "--microbatches", type=int, default=8, metavar="M", help="micro-batches (default 8)")
    parser.add_argument("-v", "--chunks", type=int, default=1, metavar="V", help="stages per device (default 1)")
    measured = parser.add_argument_group("measured costs")
    measured.add_argument(
        "--profile", type=Path, metavar="FILE", help="a cost profile: pipelab tune --save-profile, or worked_example"
    )
    measured.add_argument("--batch", type=int, default=64, metavar="N", help="sequences in the batch (default 64)")
    cost = parser.add_argument_group("or costs of one micro-batch on a device's full share of the model, in any unit")
    for name, what in (("forward", "F"), ("backward", "B, whole"), ("input-gradient", "I"), ("weight-gradient", "W")):
        cost.add_argument(f"--{name}", type=float, metavar="T", help=f"{what} (default {_DEFAULTS[what[0]]})")
    cost.add_argument("--message-bytes", type=float, metavar="N", help="bytes of one message (default 0)")
    add_link(cost)
    parser.add_argument(
        "--memory-limit",
        metavar="X",
        help="micro-batches of a full share that a device may hold, or with --profile bytes of activations, such as "
        "60MB (default: what p micro-batches take, as on 1F1B's device 0)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="how long at most (default 10)")
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the table found; pipelab run FILE trains with it"
    )
    add_outputs(parser)


def run(options: argparse.Namespace) -> int:
    """Search, telling each better table, and show the best."""
    require_places(options, options.csv, options.trace)
    p, costs, limit, batch = _given(options)

    def tell(source: str, makespan: float, bound: float) -> None:
        least = format_time(bound, costs.unit)
        print(f"{format_time(makespan, costs.unit)}, from {source} (no order takes less than {least})", file=sys.stderr)

    found = search_schedule(
        p, options.microbatches, options.chunks, costs, limit, batch=batch, seconds=options.seconds, progress=tell
    )
    schedule, timeline = found.schedule, found.timeline
    if options.csv is not None:
        options.csv.write_text(schedule.to_csv())
    known = [f"  {name:<16} {format_time(makespan, costs.unit)}" for name, makespan in found.known]
    lines = [
        headline(schedule, options.microbatches),
        str(found),
        f"in flight  {' '.join(f'{peak:g}' for peak in timeline.peak_microbatches)}  (full shares, per device)",
        *(
            [f"holds      {' '.join(map(format_bytes, timeline.peak_bytes))}  (activations)"]
            if timeline.peak_bytes
            else []
        ),
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


def _given(options: argparse.Namespace) -> tuple[int, CostModel, float | None, int | None]:
    """(p, costs, memory limit, batch)."""
    named = ("forward", "backward", "input_gradient", "weight_gradient", "message_bytes")
    given = {name: value for name in named if (value := getattr(options, name)) is not None}
    limit = options.memory_limit
    if options.profile is None:
        halves = {"input_gradient": 1.0, "weight_gradient": 1.0} | given
        whole = {"backward": halves["input_gradient"] + halves["weight_gradient"]}
        try:
            shares = None if limit is None else float(limit)
        except ValueError:
            raise ConfigurationError(
                f"--memory-limit is a number of micro-batches without --profile, got '{limit}'; try 4"
            ) from None
        p = 4 if options.devices is None else options.devices
        return p, Costs(**{"forward": 1.0} | whole | halves, links=pick_links(options, p)), shares, None
    profile = CostProfile.load(options.profile)
    if given:
        option = next(iter(given)).replace("_", "-")
        raise ConfigurationError(f"--profile has the costs; leave --{option} out")
    if options.devices not in (None, profile.devices):
        raise ConfigurationError(f"the profile is for p = {profile.devices} devices; leave -p out")
    held = None if limit is None else float(parse_bytes(limit, "--memory-limit"))
    links = pick_links(options, profile.devices)
    return profile.devices, profile.costs(options.batch, links=links), held, options.batch
