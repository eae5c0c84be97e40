"""``pipelab demo``: the worked example under five schedules, or a whole family; then training. Or a slow device."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from pipelab.models import dropout_key, next_byte_loss, text_batch
from pipelab.quantities import format_time
from pipelab.runtime import Pipeline
from pipelab.schedules import build_schedule
from pipelab.teaching.running.experiment import Setting
from pipelab.teaching.running.family import FILLED, FLUSHING, WITHOUT_FLUSH, family_table, measure_family
from pipelab.tuning import Adaptive
from pipelab.tuning.monitor.picture import plot_recovery
from pipelab.view import plot_schedules

__all__ = ["add_arguments", "demo", "run"]

BAR = "{desc}  {percentage:.0f}% |{bar:20}| {elapsed} so far, about {remaining} left"
EXPLAINED = """
Bubble and makespan: predicted / measured. The prediction is from a profile of one micro-batch: for a balanced
pipeline, or stage by stage for schedules that fill the bubble. The measurement is by the device clock: each slot's
median cost, composed as if each stage had its own device. In flight, peak and weight versions: on devices 0 to 3.
+ R: GPipe with recomputation, as in its paper. Error: max |g - g*| / max |g*| against the unsplit model, in float64.
Stale: by how many updates a gradient's weights are at most behind.
"""
MORE = """The last three schedules do not flush. Their bubble is the one of many steps in a row, their makespan that of
one step in between. Their error is that of the weights after all steps, against the formula of the schedule, computed
in one process.
"""
STEPS = 4  # of each schedule: the first is not counted, of the others the median


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--plot", type=Path, default=Path("out/demo.png"), metavar="FILE", help="default out/demo.png")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("--all", action="store_true", help="also the schedules without a flush: twice as long")
    family.add_argument("--filled", action="store_true", help="instead: schedules that fill 1F1B's bubble, at m = 8")
    family.add_argument("--adaptive", action="store_true", help="instead: layers leave a device while it is slow")
    parser.add_argument("--training-steps", type=int, default=3, metavar="N", help="default 3")


def run(options: argparse.Namespace) -> int:
    """Show all."""
    options.plot.parent.mkdir(parents=True, exist_ok=True)  # what hinders the picture is said before the work
    if options.adaptive:
        adapt(options.plot)
        return 0
    cases = FLUSHING | WITHOUT_FLUSH if options.all else FILLED if options.filled else FLUSHING
    demo(options.plot, training_steps=options.training_steps, cases=cases)
    return 0


def demo(
    picture: Path,
    *,
    training_steps: int = 3,
    setting: Setting | None = None,
    cases: Mapping[str, tuple[str, int, bool]] = FLUSHING,
) -> None:
    """Print a table, save a picture, train. A bar names each piece, and says how long everything will take."""
    setting = Setting(steps=STEPS) if setting is None else setting
    m = 8 if cases == FILLED else 4
    pieces = len(cases) * (setting.steps + 2) + 1 + 2 * training_steps
    print(
        f"{setting.layers} transformer layers on p = 4 devices. A batch of {setting.batch} text sequences is cut into "
        f"m = {m} micro-batches.\n{len(cases)} runs of {setting.steps} steps in {setting.dtype}, each compared with "
        f"the unsplit model in float64. Then {training_steps} training steps.\n"
        f"This takes about {'two minutes' if len(cases) > len(FLUSHING) else 'a minute'} on two cores.\n"
    )
    with tqdm(total=pieces, bar_format=BAR, smoothing=0, leave=False) as bar:

        def told(piece: str) -> None:
            bar.update(1 if bar.desc else 0)  # the piece before this one is done
            bar.set_description_str(piece)

        found = measure_family(setting, m, cases, told=told)
        told("the picture")
        bar.write(family_table(found))
        bar.write(EXPLAINED + (MORE if cases.keys() >= WITHOUT_FLUSH.keys() else ""))
        plot_schedules([e.measured for e in found.values()], titles=list(found)).save(picture)
        bar.write(f"picture: {picture}\n")
        trained = _train(replace(setting, dtype="float64"), training_steps, told)
    print(trained)


def adapt(
    picture: Path, *, setting: Setting | None = None, steps: int = 32, slow: tuple[int, int] = (8, 20), every: int = 5
) -> Adaptive:
    """Train while device 2 is half as fast between two steps; print what was decided, save a picture."""
    setting = Setting(batch=16, dtype="float64") if setting is None else setting
    slowed, well = slow
    print(
        f"{setting.layers} transformer layers on p = 4 devices, 1F1B with m = 8, {steps} steps. From step {slowed} on "
        f"device 2 is half as fast, from step {well} on as before.\nAfter {every} steps the times are looked at. The "
        "unsplit model is trained beside it. This takes a minute or two on two cores.\n"
    )
    spans, losses, whole = [], [], []
    with tqdm(total=2 * steps, bar_format=BAR, smoothing=0, leave=False) as bar:
        pipeline, unsplit = _beside(setting, 8, "device")
        adaptive = Adaptive(pipeline, every=every, told=bar.write)
        for step in range(steps):
            bar.set_description_str(f"step {step + 1} of {steps}")
            if step in slow:
                pipeline.speeds = [1, 1, 0.5, 1] if step == slowed else None
            batch = text_batch(step, setting.batch, setting.tokens, setting.seed)
            report = adaptive.step(*batch)
            bar.update()
            whole.append(unsplit(step, *batch))
            bar.update()
            assert report.loss is not None
            losses.append(report.loss)
            spans.append(report.timeline.makespan)
    marks = {"device 2 half as fast": slowed, "as before": well}
    marks |= {f"layers {' '.join(map(str, one.after.sizes))}": one.step + 1 for one in adaptive.history if one.moved}
    plot_recovery(spans, losses, whole, marks, title="1F1B on four devices, one of them slower for a while").save(
        picture
    )
    worst = max(abs(a - b) for a, b in zip(losses, whole, strict=True))
    print(
        f"\nstep time by the device clock: {format_time(spans[slowed - 1], 's')} at first, "
        f"{format_time(spans[slowed], 's')} on the slow device, {format_time(spans[well - 1], 's')} with layers moved, "
        f"{format_time(spans[-1], 's')} at the end.\nLoss {losses[0]:.3f} -> {losses[-1]:.3f}; the unsplit model's "
        f"differs by at most {worst:.1e} in any step.\nPicture: {picture}"
    )
    return adaptive


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's threads spin while they wait for each other: on a busy machine two take longer than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _beside(setting: Setting, m: int, clock: str) -> tuple[Pipeline, Callable[[int, Tensor, Tensor], float]]:
    """1F1B on four devices, and what makes the same step of the same model in one piece, and returns its loss."""
    rate = 3e-3
    whole = setting.model()
    pipeline = Pipeline(
        setting.model(),
        build_schedule("1f1b", devices=4, microbatches=m),
        loss=next_byte_loss,
        optimizer=lambda named: torch.optim.AdamW([p for _, p in named], lr=rate),
        seed=setting.seed,
        clock=clock,
    )
    optimizer = torch.optim.AdamW(whole.parameters(), lr=rate)

    def unsplit(step: int, inputs: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad()
        with _one_thread(), dropout_key(setting.seed, step):
            loss = next_byte_loss(whole(inputs), targets)
            loss.backward()
        optimizer.step()
        return float(loss.detach())

    return pipeline, unsplit


def _train(setting: Setting, steps: int, told: Callable[[str], None]) -> str:
    """Train the same model twice, through 1F1B and unsplit, and compare the losses step for step."""
    pipeline, unsplit = _beside(setting, 4, "wall")  # nothing is measured here, so devices need not take turns
    losses, worst = [], 0.0
    for step in range(steps):
        batch = text_batch(step, setting.batch, setting.tokens, setting.seed)
        told(f"training step {step + 1} of {steps}, under 1f1b")
        report = pipeline.step(*batch)
        told(f"training step {step + 1} of {steps}, unsplit")
        loss = unsplit(step, *batch)
        assert report.loss is not None
        losses.append(report.loss)
        worst = max(worst, abs(report.loss - loss))
    return (
        f"{steps} steps under 1F1B: loss {losses[0]:.3f} -> {losses[-1]:.3f}; the unsplit model's loss differs by at "
        f"most {worst:.1e} in any step"
    )
