"""``pipelab demo``: the worked example under five schedules, or the whole family; then some training."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from pipelab.commands.table import format_bytes, format_time, format_values, render_table
from pipelab.models import dropout_key, next_byte_loss, text_batch
from pipelab.runtime import Pipeline
from pipelab.schedules import actions_of, build_schedule
from pipelab.schedules.updates import over
from pipelab.simulation import Costs, simulate
from pipelab.teaching.experiment import Experiment, Prepared, Setting, prepare, run_experiment
from pipelab.timeline import Timeline
from pipelab.timeline.account import long_run_bubble
from pipelab.timeline.versions import staleness
from pipelab.view import plot_schedules

__all__ = ["add_arguments", "demo", "run"]

BAR = "{desc}  {percentage:.0f}% |{bar:20}| {elapsed} so far, about {remaining} left"
EXPLAINED = """
Bubble and makespan: predicted / measured. The prediction is for a balanced pipeline, from a profile of one
micro-batch. The measurement is by the device clock: each slot's median cost, composed as if each stage had its
own device. In flight, peak and weight versions: on devices 0 to 3. + R: GPipe with recomputation, as in its paper.
Error: max |g - g*| / max |g*| against the unsplit model, in float64. Stale: by how many updates a gradient's weights
are at most behind.
"""
MORE = """The last three schedules do not flush. Their bubble is the one of many steps in a row, their makespan that of
one step in between. Their error is that of the weights after all steps, against the formula of the schedule, computed
in one process.
"""
Case = tuple[str, int, bool]
STEPS = 4  # of each schedule: the first is not counted, of the others the median
CASES = (
    ("naive", 1, False),
    ("gpipe", 1, False),
    ("gpipe", 1, True),
    ("1f1b", 1, False),
    ("interleaved", 2, False),
)
WITHOUT_FLUSH = (("pipedream", 1, False), ("vertical-sync", 1, False), ("2bw", 1, False))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--plot", type=Path, default=Path("out/demo.png"), metavar="FILE", help="default out/demo.png")
    parser.add_argument("--all", action="store_true", help="also the schedules without a flush: twice as long")
    parser.add_argument("--training-steps", type=int, default=3, metavar="N", help="default 3")


def run(options: argparse.Namespace) -> int:
    """Show all."""
    cases = CASES + WITHOUT_FLUSH if options.all else CASES
    demo(options.plot, training_steps=options.training_steps, cases=cases)
    return 0


def demo(
    picture: Path, *, training_steps: int = 3, setting: Setting | None = None, cases: Sequence[Case] = CASES
) -> None:
    """Print a table, save a picture, train. A bar names each piece, and says how long everything will take."""
    setting = Setting(steps=STEPS) if setting is None else setting
    pieces, long = len(cases) * (setting.steps + 2) + 1 + 2 * training_steps, len(cases) > len(CASES)
    print(
        f"{setting.layers} transformer layers on p = 4 devices. A batch of {setting.batch} text sequences is cut into "
        f"m = 4 micro-batches.\n{len(cases)} runs of {setting.steps} steps in {setting.dtype}, each compared with the "
        f"unsplit model in float64. Then {training_steps} training steps.\n"
        f"This takes about {'two minutes' if long else 'a minute'} on two cores.\n"
    )
    measured = prepare(replace(setting, verify=False))
    proven = prepare(replace(setting, dtype="float64", clock="unit", steps=1))
    with tqdm(total=pieces, bar_format=BAR, smoothing=0, leave=False) as bar:

        def told(piece: str) -> None:
            bar.update(1 if bar.desc else 0)  # the piece before this one is done
            bar.set_description_str(piece)

        found = _runs(measured, proven, told, cases)
        told("the picture")
        bar.write(_table(found))
        bar.write(EXPLAINED + (MORE if long else ""))
        picture.parent.mkdir(parents=True, exist_ok=True)
        plot_schedules([e.measured for e in found.values()], titles=list(found)).save(picture)
        bar.write(f"picture: {picture}\n")
        trained = _train(proven.setting, training_steps, told)
    print(trained)


def _runs(
    measured: Prepared, proven: Prepared, told: Callable[[str], None], cases: Sequence[Case]
) -> dict[str, Experiment]:
    """The experiments by what they are called in table and picture; each with the error of a step in float64."""
    found: dict[str, Experiment] = {}
    for name, chunks, recompute in cases:
        schedule = build_schedule(name, 4, 4, chunks, recompute=recompute)
        label = name + (" + R" if recompute else "") + (f" v={chunks}" if chunks > 1 else "")
        found[label] = run_experiment(measured, schedule, 4, told=partial(_named, told, label))
        told(f"{label}: the proof")
        proof = run_experiment(proven, schedule, 4, told=lambda _: None)
        found[label] = replace(
            found[label], max_gradient_error=proof.max_gradient_error, max_weight_error=proof.max_weight_error
        )
    return found


def _named(told: Callable[[str], None], name: str, piece: str) -> None:
    told(f"{name}: {piece}")


def _table(found: dict[str, Experiment]) -> str:
    header = ["schedule", "bubble", "makespan", "sequences in flight", "peak activation bytes", "versions", "stale"]
    header += ["messages", "error"]
    rows = []
    for label, e in found.items():
        peaks = [format_bytes(value).removesuffix(" MB") for value in e.report.peak_activation_bytes]
        rows.append(
            [
                label,
                f"{_bubble(e.predicted, e.costs):.1%} / {_bubble(e.measured, _means(e.measured)):.1%}",
                f"{format_time(e.predicted.makespan, e.predicted.unit)} / "
                f"{format_time(e.measured.makespan, e.measured.unit)}",
                format_values(e.measured.peak_sequences),
                " ".join(peaks) + " MB",
                format_values(e.peak_weight_versions or (1,) * e.measured.schedule.devices),
                str(max(staleness(e.measured.schedule))),
                str(e.measured.message_count),
                f"{e.max_gradient_error if e.max_weight_error is None else e.max_weight_error:.0e}",
            ]
        )
    return render_table(header, rows)


def _bubble(timeline: Timeline, costs: Costs) -> float:
    """The bubble fraction; of a schedule without a flush that of many steps, in which an action costs ``costs``."""
    schedule = timeline.schedule
    if schedule.updating is None:
        return timeline.bubble_fraction
    step = build_schedule(schedule.name, schedule.devices, 4)
    return long_run_bubble(simulate(over(step, STEPS), costs))


def _means(timeline: Timeline) -> Costs:
    """What each stage's actions cost on average."""
    stages = timeline.schedule.stages
    found: dict[str, list[list[float]]] = {op: [[] for _ in range(stages)] for op in "FBRU"}
    for span in (*timeline.spans, *timeline.updates):
        for action in actions_of(span.slot):
            found[action.op][action.stage].append(span.duration)
    forward, backward, _, update = ([sum(x) / max(len(x), 1) for x in rows] for rows in found.values())
    return Costs(forward=forward, backward=backward, update=update)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's threads spin while they wait for each other: on a busy machine two take longer than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(setting: Setting, steps: int, told: Callable[[str], None]) -> str:
    """Train the same model twice, through 1F1B and unsplit, and compare the losses step for step."""
    rate = 3e-3
    split, whole = setting.model(), setting.model()
    pipeline = Pipeline(
        split,
        build_schedule("1f1b", devices=4, microbatches=4),
        loss=next_byte_loss,
        optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=rate),
        seed=setting.seed,
        clock="wall",  # nothing is measured here, so devices need not take turns
    )
    optimizer = torch.optim.AdamW(whole.parameters(), lr=rate)
    losses, worst = [], 0.0
    for step in range(steps):
        told(f"training step {step + 1} of {steps}, under 1f1b")
        inputs, targets = text_batch(step, setting.batch, setting.tokens, setting.seed)
        report = pipeline.step(inputs, targets)
        told(f"training step {step + 1} of {steps}, unsplit")
        optimizer.zero_grad()
        with _one_thread(), dropout_key(setting.seed, step):
            loss = next_byte_loss(whole(inputs), targets)
            loss.backward()
        optimizer.step()
        assert report.loss is not None
        losses.append(report.loss)
        worst = max(worst, abs(report.loss - float(loss.detach())))
    return (
        f"{steps} steps under 1F1B: loss {losses[0]:.3f} -> {losses[-1]:.3f}; the unsplit model's loss differs by at "
        f"most {worst:.1e} in any step"
    )
