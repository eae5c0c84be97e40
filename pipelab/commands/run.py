"""``pipelab run``: really runs the model through a schedule, and measures."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from pipelab.commands.answers import headline, write
from pipelab.commands.arguments import (
    add_device,
    add_link,
    add_outputs,
    add_schedule,
    add_sizes,
    pick_links,
    pick_schedule,
    require_places,
)
from pipelab.errors import ConfigurationError
from pipelab.quantities import format_bytes
from pipelab.simulation.links import COMPRESSIONS

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command: each field of an experiment's ``Setting`` is one, but for its links."""
    add_schedule(parser)
    parser.add_argument(
        "--launch",
        choices=["threads", "processes"],
        help="one thread per device (default), or one process per device; under torchrun every rank is one",
    )
    parser.add_argument(
        "--clock",
        choices=["device", "wall", "unit"],
        default="device",
        help="device: measured costs as if each stage had its own device (default); wall: what happened; "
        "unit: tF = tB = 1, the textbook",
    )
    add_device(parser)
    parser.add_argument(
        "--dtype", choices=["float32", "float64"], default="float32", help="float64 to compare gradients"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=11,
        metavar="N",
        help="steps to measure; the first is left out, and the median counts (default 11)",
    )
    parser.add_argument(
        "--memory-limit", metavar="SIZE", help="bytes per device, such as 60MB; a step that needs more stops"
    )
    parser.add_argument(
        "--monitor", action="store_true", help="say what the devices did in the last ten steps, and why"
    )
    parser.add_argument(
        "--monitor-csv", type=Path, metavar="FILE", help="append the same to FILE, a row every ten steps"
    )
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="do not run the unsplit model to compare gradients",
    )
    model = parser.add_argument_group("model and batch (default: the course's worked example)")
    add_sizes(model, ("batch", 64, "sequences in the batch"), ("seed", 0, "of weights, text and dropout"))
    model.add_argument("--dropout", type=float, default=0.0, metavar="P", help="dropout probability (default 0)")
    link = parser.add_argument_group("a modelled link, added to the measured costs, and what is packed for it")
    add_link(link, "seconds")
    link.add_argument(
        "--compress",
        choices=COMPRESSIONS,
        help="pack activations and gradients for their way; the gradient error says what that does",
    )
    add_outputs(parser)


def run(options: argparse.Namespace) -> int:
    """Predict, run, compare and show."""
    from pipelab.models import cut_layers
    from pipelab.runtime.setup.devices import choose_devices
    from pipelab.teaching.explorer.measure import remark
    from pipelab.teaching.running.experiment import Setting, prepare, run_experiment

    rank = _rank_in_group(options)
    if options.steps < 1:
        raise ConfigurationError(f"--steps must be at least 1, got {options.steps}; try 11")
    schedule, m = pick_schedule(options)
    options.links = pick_links(options, schedule.devices, options.compress)
    setting = Setting(**{field.name: getattr(options, field.name) for field in fields(Setting)})
    # What cannot work is said before the model is built.
    if schedule.forward_only:
        raise ConfigurationError(f"schedule '{schedule.name}' has no backward, so there is no gradient to check")
    require_places(options, options.trace)
    schedule.microbatch_sizes(setting.batch)
    cut_layers(setting.layers, schedule.stages)
    if rank is None:
        choose_devices(setting.device, schedule.devices)
    else:
        from pipelab.runtime.processes.join import enter_world, require_size, world

        require_size(schedule.devices, (world() or (0, 1))[1])
        enter_world()  # before rank 0 begins to compute what the others do not wait for
    monitor = None
    if options.monitor or options.monitor_csv:
        from pipelab.tuning.monitor.monitor import Monitor

        monitor = Monitor(every=min(10, setting.steps), csv=options.monitor_csv, tokens=setting.tokens)
    experiment = run_experiment(prepare(setting, schedule, rank), schedule, m, monitor=monitor)
    if rank:
        return 0  # rank 0 speaks for all
    result, report = experiment.to_json(), experiment.report
    proof = (
        ""
        if experiment.max_gradient_error is None
        else (f", largest gradient error against the unsplit model {experiment.max_gradient_error:.1e}")
    )
    if experiment.max_weight_error is not None:
        proof = (
            f", largest error of the weights after {setting.steps} steps and a drain, against the formula of the "
            f"schedule in one process, {experiment.max_weight_error:.1e}"
        )
    costs = "unit costs" if options.clock == "unit" else "what one micro-batch cost alone"
    apart = remark(experiment.difference)
    lines = [
        headline(schedule, m) + f", {setting.layers} layers, batch {setting.batch}, {setting.dtype}",
        f"clock: {experiment.measured.clock_name}",
        f"prediction: from {costs}",
        "",
        experiment.difference.table(),
        *([apart] if apart else []),
        "",
        f"loss of the first step {report.loss:.6f}{proof}",
        "peak activation bytes per device: " + ", ".join(map(format_bytes, report.peak_activation_bytes)),
    ]
    if report.compression is not None:
        lines.append(f"packed as {options.compress}: {report.compression}; so gradients are not exact")
    if experiment.peak_weight_versions:
        lines.append("peak weight versions per device: " + ", ".join(map(str, experiment.peak_weight_versions)))
    if monitor is not None:
        result["monitor"] = {name: value for name, value in monitor.summary().row().items() if name != "loss"}
        lines += ["", str(monitor.summary())]
    write(options, result, lines, experiment.measured, experiment.predicted)
    return 0


def _rank_in_group(options: argparse.Namespace) -> int | None:
    """This process's rank if torchrun started it: then there is a process per device, and p is their number."""
    from pipelab.runtime.processes.join import world

    found = world()
    if found is None:
        options.launch = options.launch or "threads"
        return None
    rank, size = found
    if options.launch == "threads" and size > 1:
        raise ConfigurationError(
            f"--launch threads runs all devices in one process, but torchrun has started {size}; leave --launch out"
        )
    options.launch = "processes"
    if options.devices is None and not options.schedule.endswith(".csv"):
        options.devices = size
    return rank
