"""``pipelab simulate``: when everything would run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pipelab.commands.answers import headline, write
from pipelab.commands.arguments import add_link, add_outputs, add_schedule, pick_links, pick_schedule
from pipelab.schedules.updates import over
from pipelab.simulation import Costs, simulate
from pipelab.timeline import Timeline
from pipelab.timeline.account import long_run_bubble
from pipelab.timeline.versions import versions_of

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_schedule(parser)
    cost = parser.add_argument_group("costs of one micro-batch on a device's full share of the model, in any unit")
    cost.add_argument("--forward", type=float, default=1.0, metavar="T", help="forward (default 1)")
    cost.add_argument("--backward", type=float, default=1.0, metavar="T", help="full backward (default 1)")
    cost.add_argument("--input-gradient", type=float, metavar="T", help="I (default half of backward)")
    cost.add_argument("--weight-gradient", type=float, metavar="T", help="W (default half of backward)")
    cost.add_argument("--recompute-cost", type=float, metavar="T", help="R (default: as forward)")
    cost.add_argument("--message-bytes", type=float, default=0.0, metavar="N", help="bytes of one message (default 0)")
    add_link(cost)
    parser.add_argument("--batch", type=int, metavar="N", help="sequences in the batch (to count those in flight)")
    parser.add_argument("--why", action="store_true", help="explain why each device idles")
    add_outputs(parser)


def run(options: argparse.Namespace) -> int:
    """Predict and show."""
    schedule, m = pick_schedule(options)
    costs = Costs(
        forward=options.forward,
        backward=options.backward,
        input_gradient=options.input_gradient,
        weight_gradient=options.weight_gradient,
        recompute=options.recompute_cost,
        message_bytes=options.message_bytes,
        links=pick_links(options, schedule.devices),
    )
    timeline = simulate(schedule, costs, batch=options.batch)
    figures = {
        "schedule": schedule.name,
        "devices": schedule.devices,
        "microbatches": m,
        "chunks": schedule.chunks,
        "predicted": timeline.figures(),
    }
    versions = versions_of(timeline)
    if versions is not None:
        figures["peak_weight_versions"] = list(versions.peaks)
        figures["long_run_bubble_fraction"] = _long_run(timeline, costs)
    lines = [headline(schedule, m), *_figures(timeline, costs)]
    if options.why:
        lines += ["", "why devices idle:"]
        lines += [f"  t = {gap.start:g} to {gap.end:g}: {gap.sentence}" for gap in timeline.gaps()]
    write(options, figures, lines, timeline)
    return 0


def _long_run(timeline: Timeline, costs: Costs) -> float:
    """The bubble between filling and draining, of so many steps that the pipeline is full for most of them."""
    schedule = timeline.schedule
    if schedule.updating is None:  # a table by hand, with its own end
        return long_run_bubble(timeline)
    return long_run_bubble(simulate(over(schedule, 2 + 4 * schedule.devices // schedule.microbatches), costs))


def _figures(timeline: Timeline, costs: Costs) -> list[str]:
    def row(values: Sequence[float]) -> str:
        return " ".join(f"{value:g}" for value in values)

    lines = [
        f"clock               {timeline.clock_name}",
        f"makespan            {timeline.makespan:g} {timeline.unit}",
        f"bubble fraction     {timeline.bubble_fraction:.1%}  (idle / total device time)",
        f"bubble ratio        {timeline.bubble_ratio:.3g}  (idle / ideal time)",
        f"peak micro-batches  {row(timeline.peak_microbatches)}  (in flight, per device)",
    ]
    if timeline.sequences is not None:
        lines.append(f"peak sequences      {row(timeline.peak_sequences)}")
    versions = versions_of(timeline)
    if versions is not None:
        lines.append(f"weight versions     {row(versions.peaks)}  (the most, per device)")
        lines.append(
            f"long-run bubble     {_long_run(timeline, costs):.1%}  (of many steps, between filling and draining)"
        )
    return [*lines, f"messages            {timeline.message_count}"]
