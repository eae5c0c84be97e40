"""What is tuned: a model, a batch, and how they are launched; every Pipeline that tuning starts is made here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from pipelab.runtime.pipeline import Pipeline
from pipelab.runtime.setup.devices import DeviceChoice
from pipelab.runtime.setup.microbatches import LossTerms
from pipelab.schedules.schedule import Schedule

__all__ = ["Model", "Workload"]

Model = nn.Module | Callable[[int], nn.Module]


@dataclass(frozen=True)
class Workload:
    """The arguments that ``tune``, ``profile_costs`` and ``Pipeline`` share, for every schedule."""

    model: Model
    inputs: Any
    targets: Any
    loss: Callable[[Any, Any], Tensor]
    launch: str = "threads"
    device: DeviceChoice = None
    loss_terms: LossTerms | None = None
    seed: int = 0
    cuts: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Where the model is cut into n stages: the first layers of stages 1, 2, ...; evenly where nothing is said."""

    def pipeline(self, schedule: Schedule, **more: Any) -> Pipeline:
        """It, driven by ``schedule``; ``more`` as for ``Pipeline``."""
        how: dict[str, Any] = {"launch": self.launch, "device": self.device, "seed": self.seed}
        how["cuts"] = self.cuts.get(schedule.stages)
        return Pipeline(self.model, schedule, loss=self.loss, loss_terms=self.loss_terms, **how, **more)
