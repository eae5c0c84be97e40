"""Runs whose shape and utilisation were published: what the planner is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelab.errors import ConfigurationError
from pipelab.simulation.links import Link
from pipelab.tuning.shapes.cluster import Cluster
from pipelab.tuning.shapes.facts import ModelFacts
from pipelab.tuning.shapes.planner import plan_parallelism
from pipelab.tuning.shapes.result import ParallelismPlan, PlannedShape

__all__ = ["RUNS", "Run", "published_run"]


@dataclass(frozen=True)
class Run:
    """A run as its authors describe it.

    ``achieved`` is the utilisation that they report, of the model's operations, or where ``counts_again`` is true with
    those that were computed again. ``fixed`` are the options that they had, for ``plan_parallelism``.
    """

    name: str
    model: ModelFacts
    cluster: Cluster
    batch: int
    pp: int
    tp: int
    achieved: float
    source: str
    counts_again: bool = False
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dp(self) -> int:
        """What the other two leave."""
        return self.cluster.devices // self.pp // self.tp

    def plan(self, **more: Any) -> ParallelismPlan:
        """What the planner says with the options of the run; ``more`` come on top."""
        return plan_parallelism(self.model, self.cluster, self.batch, **{**self.fixed, **more})

    def found(self) -> tuple[int, int, PlannedShape, ParallelismPlan]:
        """Its rank among all dp, pp and tp that fit, how many there are, the shape itself, and the whole plan.

        The rank is 0 where it does not fit.
        """
        plan = self.plan(best=10**6)
        own = [k for k, one in enumerate(plan.best) if (one.shape.pp, one.shape.tp) == (self.pp, self.tp)]
        return own[0] + 1 if own else 0, len(plan.best), plan.best[own[0] if own else 0], plan

    def predicted(self, one: PlannedShape) -> float:
        """The utilisation of a shape, counted as the authors do."""
        return one.hardware_utilisation if self.counts_again else one.utilisation


_EARLY = {"recompute": "full", "sharding": "none", "sequence_parallel": False, "overlap": False}
_GPT = (  # layers, width, heads, tp, pp, devices, batch, TFLOP/s a device
    (24, 2304, 24, 1, 1, 32, 512, 137),
    (30, 3072, 32, 2, 1, 64, 512, 138),
    (36, 4096, 32, 4, 1, 128, 512, 142),
    (40, 6144, 48, 8, 1, 256, 1024, 135),
    (48, 8192, 64, 8, 2, 512, 1536, 138),
    (60, 10240, 80, 8, 4, 1024, 1792, 140),
    (80, 12288, 96, 8, 8, 1536, 2304, 148),
    (96, 16384, 128, 8, 16, 1920, 2160, 155),
    (105, 20480, 128, 8, 35, 2520, 2520, 163),
    (128, 25600, 160, 8, 64, 3072, 3072, 163),
)


def _gpts() -> list[Run]:
    made = []
    for layers, width, heads, tp, pp, devices, batch, speed in _GPT:
        model, cluster = ModelFacts.gpt(layers, width, heads), Cluster.of("a100", devices // 8)
        name, source = f"gpt-{model.parameters / 1e9:.1f}b", "arXiv 2104.04473, table 1"
        achieved = speed * 1e12 / cluster.peak
        made.append(Run(name, model, cluster, batch, pp, tp, achieved, source, True, _EARLY))
    return made


_BLOOM = ModelFacts.gpt(70, 14336, 112, vocabulary=250880, positions=False, dropout=False)
_LLAMA = ModelFacts.llama(126, 16384, 128, 8, 53248)
_LLAMA_FIXED = {"order": "tp-pp-dp", "sharding": ("optimizer", "gradients")}

RUNS: Mapping[str, Run] = {
    run.name: run
    for run in (
        *_gpts(),
        Run(
            "mt-nlg-530b",
            ModelFacts.gpt(105, 20480, 128),
            Cluster.of("a100", 280),
            2240,
            35,
            8,
            0.542,
            "arXiv 2205.05198",
            fixed={"recompute": "selective", "sharding": "none", "overlap": False},
        ),
        Run(
            "bloom-176b",
            _BLOOM,
            Cluster.of("a100", 48, between=Link(1e-5, 5e9)),  # four adapters of 100 Gb/s for eight devices
            2048,
            12,
            4,
            150e12 / 312e12,
            "arXiv 2211.05100",
            True,
            {**_EARLY, "sharding": "optimizer"},
        ),
        Run(
            "llama3-405b",
            _LLAMA,
            Cluster.of("h100", 2048),
            2048,
            16,
            8,
            0.41,
            "arXiv 2407.21783, 3.3",
            False,
            _LLAMA_FIXED,
        ),
        Run(
            "llama3-405b-8k-gpus",
            _LLAMA,
            Cluster.of("h100", 1024),
            2048,
            16,
            8,
            0.43,
            "arXiv 2407.21783, 3.3",
            False,
            _LLAMA_FIXED,
        ),
    )
}
"""By name."""


def published_run(name: str) -> Run:
    """The run of that name. Raises ConfigurationError if there is none."""
    if name not in RUNS:
        raise ConfigurationError(f"there is no run '{name}'; there is {', '.join(RUNS)}")
    return RUNS[name]
