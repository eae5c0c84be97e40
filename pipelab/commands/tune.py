"""``pipelab tune``: which schedule, and how many micro-batches."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipelab.commands.arguments import add_device, add_link, add_sizes, pick_links, require_places
from pipelab.errors import ConfigurationError, PipelabError, whole_number
from pipelab.quantities import parse_bytes
from pipelab.tuning import CostProfile, shortlist
from pipelab.tuning.result import Tuning

__all__ = ["add_arguments", "run"]

ABOUT = """
how it works:
  1. profile   micro-batches of a few sizes run through all stages. This gives the time t(b) = alpha + beta * b of each
               action, and the bytes kept
  2. predict   every candidate, schedule x m x v x recomputation, is simulated from the profile. Candidates that need
               more than --memory-limit on some device are left out. Here m is the number of micro-batches, and v the
               stages per device ("virtual stages"). The mark + R means that the backward
               recomputes activations (activation checkpointing) instead of keeping them
  3. measure   the best few run in turns. The fastest is the sweet spot. If the measurement cannot rank some of them,
               the report says so, and the one that needs least memory is chosen

  The report also shows m = 4p, a common start, and m* = sqrt((p - 1) * beta * B / alpha). The latter is the best m
  of gpipe and 1f1b if stages are balanced and messages are free. Times are those of stages with a device each (the
  device clock). If each device has its own GPU, they are read from the wall clock.

Weights never change. The model is the course's 48-layer transformer, or yours:

  # mine.py
  def make():                                   # called without arguments
      return model, inputs, targets, loss       # nn.Sequential or a module with pipeline_sections(); one whole batch

examples:
  pipelab tune                                  the worked example: 4 devices, a batch of 64 sequences
  pipelab tune --memory-limit 60MB --plot m.png throughput and memory against m, with the memory wall
  pipelab tune --model mine.py:make -p 8 --memory-limit 80GiB --launch processes
  pipelab tune --schedules 1f1b -m 4 8 16 32    only these
  pipelab tune --cuts                           cut where the busiest device has least to do
  pipelab tune --save-profile here.json         then, anywhere, without GPU or model:
  pipelab tune --profile here.json --measure 0 --batch 256 --latency 2e-5
"""

OPTIMIZERS = ("adamw", "sgd", "none")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = ABOUT
    parser.add_argument("-p", "--devices", type=int, metavar="P", help="devices (default 4, or the profile's)")
    parser.add_argument("--batch", type=int, metavar="N", help="sequences in the batch (default 64, or your model's)")
    parser.add_argument(
        "--memory-limit", metavar="SIZE", help="bytes per device, such as 60MB or 80GiB (default: none)"
    )
    parser.add_argument("--model", metavar="FILE.py:FUNCTION", help="your model: see below")
    parser.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="adamw",
        help="the optimizer whose state and update count (default adamw; in Python any)",
    )
    what = parser.add_argument_group("candidates")
    what.add_argument("--schedules", nargs="+", metavar="NAME", help="default: all that flush")
    what.add_argument(
        "-m",
        "--microbatches",
        type=int,
        nargs="+",
        metavar="M",
        help="micro-batches in a batch (default: multiples of p, powers of 2, near m*)",
    )
    what.add_argument(
        "-v",
        "--chunks",
        type=int,
        nargs="+",
        metavar="V",
        help="chunks per device, where a schedule takes any (default 2)",
    )
    what.add_argument(
        "--search", type=float, metavar="SECONDS", help="also search tables of your own, so long (default: do not)"
    )
    what.add_argument(
        "--cuts", action="store_true", help="profile single layers, and cut the model where that is best, not evenly"
    )
    what.add_argument(
        "--recompute",
        choices=["both", "yes", "no"],
        default="both",
        help="recompute activations in the backward (default: try both)",
    )
    how = parser.add_argument_group("measuring")
    how.add_argument(
        "--measure",
        type=int,
        metavar="K",
        help="run the K best (default 4; with --profile and no --model 0: predict only)",
    )
    how.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        metavar="B",
        help="sequences to profile (default 1, 2, 4, ... half of the batch)",
    )
    how.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds in which they take turns (default 3)")
    how.add_argument("--steps", type=int, default=3, metavar="N", help="steps of each in a round (default 3)")
    how.add_argument(
        "--launch", choices=["threads", "processes"], default="threads", help="as for run (default threads)"
    )
    how.add_argument(
        "--clock", choices=["device", "wall"], help="default: wall if each device has its own GPU, else device"
    )
    add_device(how)
    how.add_argument("--profile", type=Path, metavar="FILE", help="use a saved cost profile, or worked_example")
    how.add_argument("--save-profile", type=Path, metavar="FILE", help="save the profile, to use it later or elsewhere")
    add_link(parser.add_argument_group("a modelled link, added to the measured costs"), "seconds")
    add_sizes(parser.add_argument_group("the built-in model"), ("seed", 0, "of weights and text"))
    out = parser.add_argument_group("output")
    out.add_argument("--json", metavar="FILE", help="write everything as JSON; - for standard output")
    out.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw throughput and memory against m (.png, .svg, .pdf)"
    )


def run(options: argparse.Namespace) -> int:
    """Tune and show."""
    from pipelab.runtime.processes.join import world

    if world() is not None:
        raise ConfigurationError(
            "tune starts its devices itself; run it without torchrun (--launch processes has one process per device). "
            "For several nodes, use --save-profile on one, then --profile with --nodes and --between-latency"
        )
    require_places(options, options.save_profile)
    if options.batch is not None:
        whole_number("--batch", "", options.batch)
    if options.memory_limit is not None:
        parse_bytes(options.memory_limit, "--memory-limit")
    profile = None if options.profile is None else CostProfile.load(options.profile)
    tuning = _tune(options, profile)
    if options.json == "-":
        print(json.dumps(tuning.to_json(), indent=2, allow_nan=False))
    else:
        print(f"{_headline(options, tuning)}\n{tuning.report()}")
        if options.json:
            Path(options.json).write_text(json.dumps(tuning.to_json(), indent=2, allow_nan=False) + "\n")
    if options.plot is not None:
        from pipelab.tuning import plot_tuning  # matplotlib is loaded when it draws

        plot_tuning(tuning).save(options.plot)
    return 0


def _tune(options: argparse.Namespace, profile: CostProfile | None) -> Tuning:
    of_layers = options.cuts and profile is not None and profile.devices == 1
    devices = options.devices or (4 if profile is None or of_layers else profile.devices)
    links = pick_links(options, devices)
    kinds: dict[str, Any] = {
        "microbatches": options.microbatches,
        "recompute": {"both": (False, True), "yes": (True,), "no": (False,)}[options.recompute],
        "search": options.search,
        "memory_limit": options.memory_limit,
        "links": links,
    }
    if options.schedules:
        kinds["schedules"] = [name.lower() for name in options.schedules]
    offline = profile is not None and (options.measure == 0 or (options.measure is None and options.model is None))
    if profile is not None and offline and options.cuts:
        from pipelab.tuning.planning.plan import planned_profile

        batch, chunks = 64 if options.batch is None else options.batch, sorted({1, *(options.chunks or (2,))})
        limit = options.memory_limit
        profile = planned_profile(profile, devices, chunks, batch=batch, memory_limit=limit, links=links)
    if profile is not None and offline:
        if options.devices not in (None, profile.devices):
            raise ConfigurationError(f"the profile is for p = {profile.devices} devices; leave -p out")
        cuts = [n // profile.devices for n in sorted(profile.stages) if n > profile.devices]
        chunks = options.chunks or cuts
        batch = 64 if options.batch is None else options.batch
        return shortlist(profile, batch, chunks=chunks or (2,), progress=True, **kinds)
    from pipelab.tuning import tune

    model, inputs, targets, loss = _model(options)
    return tune(
        model,
        inputs,
        targets,
        loss=loss,
        devices=devices,
        chunks=options.chunks or (2,),
        optimizer=_optimizer(options.optimizer),
        launch=options.launch,
        clock=options.clock,
        device=options.device,
        seed=options.seed,
        profile=profile,
        plan=options.cuts,
        measure=4 if options.measure is None else options.measure,
        rounds=options.rounds,
        steps=options.steps,
        sizes=options.sizes,
        on_profile=None if options.save_profile is None else lambda made: made.save(options.save_profile),
        **kinds,
    )


def _model(options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """(model, inputs, targets, loss)."""
    if options.model is not None:
        try:
            made = _function(options.model)()
        except PipelabError:
            raise
        except Exception as error:
            raise ConfigurationError(f"{options.model} raised {type(error).__name__}: {error}") from error
        if not isinstance(made, tuple) or len(made) != 4:
            raise ConfigurationError(
                f"{options.model} must return (model, inputs, targets, loss), got {type(made).__name__}"
            )
        if options.batch is None:
            return made
        from pipelab.runtime.measuring.profile import first_sequences
        from pipelab.runtime.setup.microbatches import batch_size

        model, inputs, targets, loss = made
        length = batch_size(inputs, targets)
        if not 1 <= options.batch <= length:
            raise ConfigurationError(
                f"--batch {options.batch}: {options.model} returns a batch of {length}; give at most that"
            )
        return model, first_sequences(inputs, options.batch), first_sequences(targets, options.batch), loss
    from pipelab.models import next_byte_loss
    from pipelab.teaching.running.experiment import Setting

    sizes = {name: getattr(options, name) for name in ("layers", "width", "heads", "tokens", "seed")}
    setting = Setting(batch=64 if options.batch is None else options.batch, **sizes)
    return setting.model(), *setting.data(), next_byte_loss


def _function(where: str) -> Callable[[], Any]:
    """The function that ``FILE.py:FUNCTION`` names."""
    path, _, name = where.rpartition(":")
    if not path or not Path(path).is_file():
        raise ConfigurationError(f"--model takes FILE.py:FUNCTION, got '{where}': there is no file '{path or where}'")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        raise ConfigurationError(f"{path} has no function '{name}'")
    return function


def _optimizer(name: str) -> Any:
    import torch

    if name == "none":
        return None
    makes: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    return lambda named: makes[name]([p for _, p in named], lr=1e-3)


def _headline(options: argparse.Namespace, tuning: Tuning) -> str:
    limit = "" if options.memory_limit is None else f", {options.memory_limit} per device"
    where = f"profile {options.profile}" if options.profile is not None else options.model or f"{options.layers} layers"
    return f"{where}: p = {tuning.profile.devices}, a batch of {tuning.batch} sequences{limit}"
