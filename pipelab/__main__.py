"""The command line: ``pipelab`` and ``python -m pipelab``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.schedules import Schedule, TimeTable, build_schedule, check_schedule, recipes
from pipelab.simulation import Costs, simulate
from pipelab.timeline import Timeline

EXAMPLES = """
examples:
  pipelab schedule 1f1b -p 4 -m 8               print the timetable, one row per device
  pipelab simulate gpipe -p 4 -m 8 --backward 2 --why
                                                predict: makespan, bubble, what is in flight, why devices idle
  pipelab run 1f1b -p 4 -m 4 --plot run.png     run the 48-layer model, prove its gradients, draw what was predicted
                                                and what happened
  pipelab run mine.csv                          run a schedule of your own, one CSV row of actions per device
  pipelab check mine.csv                        say everything that is wrong with it
  pipelab tune --memory-limit 60MB              which schedule and m are fastest within it: predicted, then measured
  pipelab grade exercises/02_gpipe.ipynb        points for each exercise, and what to read next
  pipelab doctor                                what this machine has, and what the course does on it

p devices hold the model's stages; a batch is cut into m micro-batches; an action reads stage, op, micro-batch: 3F0.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2: what was asked for cannot be done)."""
    parser = _parser()
    given = sys.argv[1:] if argv is None else argv
    if not given:
        parser.print_help()
        return 2
    options = parser.parse_args(given)
    # nbformat loads jsonschema, which would spend a second on the grammar of a format that no notebook has.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except PipelabError as error:
        _complain(error)
        return 2
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        print(f"pipelab: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("pipelab: stopped", file=sys.stderr)
        return 130


def _complain(error: PipelabError) -> None:
    """One sentence. Of a group's ranks, those speak that know something which rank 0 does not."""
    rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"
    if rank == "0":
        print(f"pipelab: {error}", file=sys.stderr)
        return
    if getattr(error, "only_here", False):
        print(f"pipelab, rank {rank}: {error}", file=sys.stderr)
    time.sleep(1)  # torchrun ends all ranks when the first has ended: let rank 0 speak


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipelab",
        description="Learn pipeline parallelism by running it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    schedule = _command(commands, "schedule", _schedule, "print a schedule's timetable")
    _which(schedule)
    schedule.add_argument("--format", choices=["grid", "csv"], default="grid", help="grid to read, csv for programs")
    schedule.add_argument(
        "--dialect", choices=["pipelab", "torch"], default="pipelab", help="torch: refuse what PyTorch does not read"
    )

    check = _command(commands, "check", _check, "say everything that is wrong with a schedule")
    _which(check)
    check.add_argument("--timed", action="store_true", help="the CSV's columns are time slots, empty cells are idle")

    sim = _command(commands, "simulate", _simulate, "predict when everything runs")
    _which(sim)
    cost = sim.add_argument_group("costs, for a full device share of the model and one micro-batch, in any unit")
    cost.add_argument("--forward", type=float, default=1.0, metavar="T", help="forward (default 1)")
    cost.add_argument("--backward", type=float, default=1.0, metavar="T", help="full backward (default 1)")
    cost.add_argument("--input-gradient", type=float, metavar="T", help="I (default half of backward)")
    cost.add_argument("--weight-gradient", type=float, metavar="T", help="W (default half of backward)")
    cost.add_argument("--recompute-cost", type=float, metavar="T", help="R (default as forward)")
    cost.add_argument("--message-bytes", type=float, default=0.0, metavar="N", help="bytes of one message (default 0)")
    _link(cost)
    sim.add_argument("--batch", type=int, metavar="N", help="sequences in the batch: also count sequences in flight")
    sim.add_argument("--why", action="store_true", help="say why each device idles when it does")
    _outputs(sim)

    run = _command(commands, "run", _run, "really run the model through a schedule, and measure")
    _which(run)
    run.add_argument(
        "--launch",
        choices=["threads", "processes"],
        help="one thread per device (default), or one process per device; under torchrun each is one already",
    )
    run.add_argument(
        "--clock",
        choices=["device", "wall", "unit"],
        default="device",
        help="device: measured costs as if each stage had its own device (default); wall: what happened; "
        "unit: tF = tB = 1, the textbook",
    )
    run.add_argument(
        "--device", metavar="D", help="cpu, cuda (a GPU each), cuda:0 (one for all); default: what there is"
    )
    run.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="float64 to compare gradients")
    run.add_argument(
        "--steps",
        type=int,
        default=11,
        metavar="N",
        help="steps to measure; the median of all but the first counts (default 11)",
    )
    run.add_argument("--memory-limit", metavar="SIZE", help="bytes per device, such as 60MB: stop where it is crossed")
    run.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="leave out the unsplit model, which one process runs to compare gradients with",
    )
    model = run.add_argument_group("model and batch (default: the course's worked example)")
    for name, default, text in (
        ("layers", 48, "transformer layers"),
        ("width", 64, "width of a layer"),
        ("heads", 4, "attention heads"),
        ("tokens", 32, "tokens in a sequence"),
        ("batch", 64, "sequences in the batch"),
        ("seed", 0, "of weights, text and dropout"),
    ):
        model.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{text} (default {default})")
    model.add_argument("--dropout", type=float, default=0.0, metavar="P", help="dropout probability (default 0)")
    _link(run.add_argument_group("a modelled link, on top of what is measured"), "seconds")
    _outputs(run)

    show = _command(commands, "demo", _demo, "the worked example through all schedules, then some training")
    show.add_argument("--plot", type=Path, default=Path("out/demo.png"), metavar="FILE", help="default out/demo.png")
    show.add_argument("--training-steps", type=int, default=6, metavar="N", help="default 6")

    _add_grade(commands)
    course = _command(commands, "course", _course, "build the course's notebooks from their sources, or fill work/")
    course.add_argument("what", choices=["build", "work"], help="build: all pages; work: what a learner works on")
    course.add_argument("--course", type=Path, metavar="DIR", help="the sources (default: course/ of the repository)")
    course.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="default work")
    course.add_argument("--again", action="store_true", help="build: execute pages whose source is unchanged, too")
    course.add_argument("--only", nargs="+", default=[], metavar="NN", help="build: only these lessons, such as 02")

    _command(commands, "doctor", _doctor, "what this machine has, and what the course does on it")
    return parser


def _add_grade(commands: Any) -> None:
    from pipelab.commands import grade, tune

    tune.add_arguments(_command(commands, "tune", tune.run, "find the schedule and m that train fastest within memory"))
    grade.add_arguments(_command(commands, "grade", grade.run, "grade notebooks: points per exercise, and why"))


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    made.set_defaults(run=function)
    return made


def _which(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(sorted(recipes()))
    parser.add_argument("schedule", metavar="NAME", help=f"{names}; or a CSV file, one row of actions per device")
    parser.add_argument("-p", "--devices", type=int, metavar="P", help="devices (default 4)")
    parser.add_argument("-m", "--microbatches", type=int, metavar="M", help="micro-batches in a batch (default 4)")
    parser.add_argument("-v", "--chunks", type=int, metavar="V", help="stages per device (interleaved: default 2)")
    parser.add_argument("--recompute", action="store_true", help="recompute each forward before its backward (R)")


def _link(group: Any, unit: str = "") -> None:
    of = f" in {unit}" if unit else ""
    rate = "bytes per second" if unit else "bytes per unit of time"
    group.add_argument("--latency", type=float, default=0.0, metavar="T", help=f"of each message{of} (default 0)")
    group.add_argument("--bandwidth", type=float, default=float("inf"), metavar="X", help=f"{rate} (default: no limit)")


def _outputs(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", help="write figures as JSON; - for standard output")
    group.add_argument("--plot", type=Path, metavar="FILE", help="draw the timeline (.png, .svg, .pdf)")
    group.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome trace, which opens in Perfetto")


def _pick(options: argparse.Namespace) -> tuple[Schedule, int]:
    """The schedule that was asked for, and m."""
    if options.schedule.endswith(".csv"):
        if options.devices or options.microbatches or options.chunks:
            raise ConfigurationError(f"{options.schedule} already says p, m and v; leave out -p, -m and -v")
        path = Path(options.schedule)
        table = Schedule.from_csv(_read(path), name=path.stem)
        return (table.with_recompute() if options.recompute else table), table.microbatches
    p = 4 if options.devices is None else options.devices
    m = 4 if options.microbatches is None else options.microbatches
    return build_schedule(options.schedule, p, m, options.chunks, recompute=options.recompute), m


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not text in UTF-8; a schedule is a CSV file") from None


def _schedule(options: argparse.Namespace) -> int:
    schedule, _ = _pick(options)
    print(schedule.to_csv(options.dialect) if options.format == "csv" else schedule.to_grid(), end="")
    return 0


def _check(options: argparse.Namespace) -> int:
    if options.timed:
        table: Schedule | TimeTable = TimeTable.from_csv(_read(Path(options.schedule)))
    else:
        table, _ = _pick(options)
    found = check_schedule(table)
    for violation in found:
        print(violation)
    print("sound" if not found else f"{len(found)} violation(s)")
    return 1 if found else 0


def _simulate(options: argparse.Namespace) -> int:
    schedule, m = _pick(options)
    costs = Costs(
        forward=options.forward,
        backward=options.backward,
        input_gradient=options.input_gradient,
        weight_gradient=options.weight_gradient,
        recompute=options.recompute_cost,
        message_bytes=options.message_bytes,
        latency=options.latency,
        bandwidth=options.bandwidth,
    )
    timeline = simulate(schedule, costs, batch=options.batch)
    figures = {
        "schedule": schedule.name,
        "devices": schedule.devices,
        "microbatches": m,
        "chunks": schedule.chunks,
        "predicted": timeline.figures(),
    }
    lines = [_headline(schedule, m), *_figures(timeline)]
    if options.why:
        lines += ["", "why devices idle:"]
        lines += [f"  t = {gap.start:g} to {gap.end:g}: {gap.sentence}" for gap in timeline.gaps()]
    _write(options, figures, lines, timeline)
    return 0


def _run(options: argparse.Namespace) -> int:
    from pipelab.commands.table import format_bytes
    from pipelab.models import cut_layers
    from pipelab.runtime.setup.devices import choose_devices
    from pipelab.teaching.experiment import Setting, prepare, run_experiment
    from pipelab.teaching.explorer.measure import remark

    rank = _rank_in_group(options)
    if options.steps < 1:
        raise ConfigurationError(f"--steps must be at least 1, got {options.steps}; try 11")
    names = (
        "layers",
        "width",
        "heads",
        "tokens",
        "batch",
        "dropout",
        "dtype",
        "seed",
        "steps",
        "device",
        "clock",
        "verify",
        "memory_limit",
    )
    link = {"launch": options.launch, "latency": options.latency, "bandwidth": options.bandwidth}
    setting = Setting(**{name: getattr(options, name) for name in names}, **link)
    schedule, m = _pick(options)
    # What cannot work is said before the model is built.
    if schedule.forward_only:
        raise ConfigurationError(f"schedule '{schedule.name}' has no backward, so there is no gradient to check")
    for path in (options.trace, options.plot, None if options.json in (None, "-") else Path(options.json)):
        if path is not None and not path.parent.is_dir():
            raise ConfigurationError(f"{path}: there is no folder {path.parent}")
    if options.plot is not None and options.plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ConfigurationError(f"pictures are saved as .png, .svg or .pdf, not as '{options.plot.suffix}'")
    schedule.microbatch_sizes(setting.batch)
    cut_layers(setting.layers, schedule.stages)
    if rank is None:
        choose_devices(setting.device, schedule.devices)
    else:
        from pipelab.runtime.processes.join import enter_world, require_size, world

        require_size(schedule.devices, (world() or (0, 1))[1])
        enter_world()  # before rank 0 begins to compute what the others do not wait for
    experiment = run_experiment(prepare(setting, schedule, rank), schedule, m)
    if rank:
        return 0  # rank 0 speaks for all
    result, report = experiment.to_json(), experiment.report
    proof = (
        ""
        if experiment.max_gradient_error is None
        else (f", largest gradient error against the unsplit model {experiment.max_gradient_error:.1e}")
    )
    costs = "unit costs" if options.clock == "unit" else "what one micro-batch cost alone"
    apart = remark(experiment.difference)
    lines = [
        _headline(schedule, m) + f", {setting.layers} layers, batch {setting.batch}, {setting.dtype}",
        f"clock: {experiment.measured.clock_name}",
        f"prediction: from {costs}",
        "",
        experiment.difference.table(),
        *([apart] if apart else []),
        "",
        f"loss {report.loss:.6f}{proof}",
        "peak activation bytes per device: " + ", ".join(map(format_bytes, report.peak_activation_bytes)),
    ]
    _write(options, result, lines, experiment.measured, experiment.predicted)
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
            f"--launch threads runs all devices in one process, and torchrun has started {size}; leave --launch out"
        )
    options.launch = "processes"
    if options.devices is None and not options.schedule.endswith(".csv"):
        options.devices = size
    return rank


def _demo(options: argparse.Namespace) -> int:
    from pipelab.commands.demo import demo

    demo(options.plot, training_steps=options.training_steps)
    return 0


def _course(options: argparse.Namespace) -> int:
    from pipelab.commands.course import build_course, fill

    if options.what == "build":
        build_course(options.course, again=options.again, only=options.only)
    else:
        fill(options.work, options.course)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from pipelab.commands.doctor import examine

    print(examine(), end="")
    return 0


def _headline(schedule: Schedule, m: int) -> str:
    chunks = f", v = {schedule.chunks}" if schedule.chunks > 1 else ""
    return f"{schedule.name}: p = {schedule.devices}, m = {m}{chunks}"


def _figures(timeline: Timeline) -> list[str]:
    def row(values: Sequence[float]) -> str:
        return " ".join(f"{value:g}" for value in values)

    lines = [
        f"clock               {timeline.clock_name}",
        f"makespan            {timeline.makespan:g} {timeline.unit}",
        f"bubble fraction     {timeline.bubble_fraction:.1%}  (idle / all device-time)",
        f"bubble ratio        {timeline.bubble_ratio:.3g}  (idle / ideal time)",
        f"peak micro-batches  {row(timeline.peak_microbatches)}  (in flight, per device)",
    ]
    if timeline.sequences is not None:
        lines.append(f"peak sequences      {row(timeline.peak_sequences)}")
    return [*lines, f"messages            {timeline.message_count}"]


def _write(
    options: argparse.Namespace,
    figures: dict[str, Any],
    lines: Sequence[str],
    timeline: Timeline,
    predicted: Timeline | None = None,
) -> None:
    """Text for people unless standard output is for JSON; then pictures and traces.

    The picture shows the timeline, with the ``predicted`` one above it where there is one.
    """
    text = json.dumps(figures, indent=2, allow_nan=False)
    if options.json == "-":
        print(text)
    else:
        print("\n".join(lines))
        if options.json:
            Path(options.json).write_text(text + "\n")
    if options.plot is not None:
        from pipelab.view import plot_prediction, plot_timeline

        picture = plot_timeline(timeline) if predicted is None else plot_prediction(predicted, timeline)
        picture.save(options.plot)
    if options.trace is not None:
        options.trace.write_text(timeline.to_chrome_trace())


if __name__ == "__main__":
    sys.exit(main())
