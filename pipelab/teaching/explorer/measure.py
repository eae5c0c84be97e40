"""Run it: the shown schedule on the 48-layer model, measured, beside a prediction from the cost of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.schedules.updates import part
from pipelab.simulation import Costs, simulate
from pipelab.teaching.explorer.settings import LAYERS, UNIT_SEQUENCES, Settings
from pipelab.timeline import Comparison, Timeline, compare

__all__ = ["PIECES", "Measured", "measure", "remark", "require_runnable"]

STEPS = 4
CLOSE = 1e-4  # float32: the true error is around 1e-7, a wrong gradient is off by far more
PIECES = STEPS + 3
FAR = 0.15  # of the prediction: what is further off is remarked upon
MOST_SEQUENCES = 256


@dataclass(frozen=True)
class Measured:
    """Predicted and measured timelines of a schedule, the losses of its steps, and the largest gradient error.

    Without a flush there is no one gradient of a batch. Then ``weight_error`` says how far the weights are from what
    the schedule's formula gives, and the timelines are those of the last step.
    """

    predicted: Timeline
    measured: Timeline
    losses: tuple[float, ...]
    gradient_error: float | None
    peak_activation_bytes: tuple[int, ...]
    limit: float | None = None
    """MB of activations that the settings allow on a device; the run does not stop there."""
    weight_error: float | None = None
    weight_versions: tuple[int, ...] = ()

    @property
    def sentence(self) -> str:
        """The result in words."""
        losses = " → ".join(f"{loss:.3f}" for loss in self.losses)
        told = f" {apart}" if (apart := remark(compare(self.predicted, self.measured))) else ""
        trained = f"The {LAYERS}-layer model trained for {len(self.losses)} steps, loss {losses}."
        return f"{trained} {self._proof}{self._over}{told}"

    @property
    def _proof(self) -> str:
        if self.weight_error is not None:
            proof = "equal" if self.weight_error < CLOSE else "are NOT equal to"
            kept = ", ".join(map(str, self.weight_versions))
            return (
                f"After a drain its weights {proof} those that the schedule's formula gives in one process: largest "
                f"error {self.weight_error:.0e} in float32. Weight versions on its devices: {kept}."
            )
        assert self.gradient_error is not None
        proof = "equal" if self.gradient_error < CLOSE else "are NOT equal to"
        return f"Its gradients {proof} those of the unsplit model: largest error {self.gradient_error:.0e} in float32."

    @property
    def _over(self) -> str:
        fullest = max(self.peak_activation_bytes, default=0) / 1e6
        if self.limit is None or fullest <= self.limit:
            return ""
        return (
            f" The run did not use the limit: the fullest device held {fullest:.1f} MB of activations; the limit is "
            f"{self.limit:g} MB."
        )


def remark(both: Comparison) -> str:
    """A sentence where prediction and measurement are far apart, "" where they are not."""
    apart = abs(both.makespan_ratio - 1)
    if not apart >= FAR:
        return ""
    return (
        f"Prediction and measurement are {apart:.0%} apart. The prediction uses the cost of one micro-batch alone. In "
        "the run, actions scatter and the machine does other work too. Run it again to see how much the result varies."
    )


def require_runnable(settings: Settings) -> None:
    """Raise ConfigurationError for settings that the 48-layer model cannot run on a laptop, with one that it can."""
    stages = settings.devices * settings.v
    if stages > LAYERS:
        raise ConfigurationError(
            f"p * v = {stages} stages are more than the {LAYERS} layers of the model; to run it, take p * v of at most "
            f"{LAYERS}"
        )
    if settings.sequences > MOST_SEQUENCES:
        raise ConfigurationError(
            f"a step of {settings.sequences} sequences takes too long here; fix the batch at 64, or take m of at most "
            f"{MOST_SEQUENCES // UNIT_SEQUENCES}"
        )


def measure(settings: Settings, progress: Callable[[str], None]) -> Measured:
    """Train for a few steps by the settings' schedule, with real tensors, under the device clock.

    A machine has its own times: tF and tB become the measured ones, and a latency counts in units of the measured
    forward. Raises ConfigurationError if the model cannot run with these settings.
    """
    require_runnable(settings)
    schedule = settings.build()
    progress("building the model")
    import torch

    from pipelab.models import TransformerLM, next_byte_loss, text_batch
    from pipelab.runtime import Pipeline
    from pipelab.teaching.running.experiment import typical_costs
    from pipelab.teaching.without_flush.training import plain_sgd, weight_error

    model = TransformerLM(layers=LAYERS)
    flushes = schedule.updating is None
    inputs, targets = text_batch(0, settings.sequences)
    if flushes:
        progress("comparing its gradients with those of the unsplit model")
    with Pipeline(model, schedule, loss=next_byte_loss, optimizer=None if flushes else plain_sgd) as pipeline:
        # First: what runs first also pays for starting up.
        error = pipeline.verify(inputs, targets) if flushes else None
        progress("measuring what one micro-batch costs")
        latency = settings.latency * _unit(settings, pipeline.profile(inputs, targets, repeats=3))
    costs, losses = [], []
    with Pipeline(
        model,
        schedule,
        loss=next_byte_loss,
        latency=latency,
        optimizer=plain_sgd if not flushes else lambda named: torch.optim.AdamW([p for _, p in named], lr=3e-3),
    ) as pipeline:
        for step in range(STEPS):
            progress(f"step {step + 1} of {STEPS}")
            batch = text_batch(step, settings.sequences)
            # In turns with the steps: a machine is not as fast in one second as in the next.
            costs.append(pipeline.profile(*batch, repeats=3))
            report = pipeline.step(*batch)
            losses.append(float(report.loss or 0.0))
        pipeline.drain()
        trained = pipeline.state_dict()
    told = replace(typical_costs(costs), latency=latency)
    peaks = tuple(report.peak_activation_bytes)
    if flushes:
        predicted = simulate(schedule, told, batch=settings.sequences)
        return Measured(predicted, report.timeline, tuple(losses), error, peaks, settings.limit)
    progress("comparing its weights with what the schedule's formula gives")
    batches = [text_batch(step, settings.sequences) for step in range(STEPS)]
    wrong = weight_error(trained, TransformerLM(layers=LAYERS), schedule, batches, LAYERS)
    last = part(schedule, STEPS - 1)
    size = settings.sequences * last.microbatches // schedule.microbatches
    predicted = simulate(last, told, batch=size, check=False)
    found = Measured(predicted, report.timeline, tuple(losses), None, peaks, settings.limit)
    return replace(found, weight_error=wrong, weight_versions=report.weight_versions)


def _unit(settings: Settings, costs: Costs) -> float:
    """Seconds in one unit of the settings' costs, by the measured forward."""
    weight = settings.sequences / settings.microbatches / UNIT_SEQUENCES
    return sum(_each(costs.forward)) / settings.devices / (settings.forward * weight)


def _each(cost: Any) -> list[float]:
    return list(cost) if isinstance(cost, Sequence) else [cost]
