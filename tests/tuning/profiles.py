"""Profiles with known lines, for tests that need no model."""

from __future__ import annotations

from dataclasses import replace

from pipelab.quantities import ModelStates
from pipelab.tuning import CostProfile, Line, StageProfile

MB = 1_000_000


def stage(share: float = 1.0, alpha: float = 0.002, beta: float = 0.0005, last: bool = False) -> StageProfile:
    """A backward takes twice a forward; a full share keeps 1 MB of activations per sequence and 4 MB besides.

    Cut in two, a backward takes 5 % more: I and W as long as 1.2 and 0.9 forwards, and 0.6 MB wait for W.
    """
    states = ModelStates(round(MB * share), round(MB * share), round(2 * MB * share))
    return StageProfile(
        forward=Line(alpha * share, beta * share),
        backward=Line(2 * alpha * share, 2 * beta * share),
        bare_forward=Line(alpha * share / 2, beta * share),
        recompute=Line(alpha * share, beta * share),
        kept=Line(0.0, MB * share),
        kept_input=Line(0.0, 0.01 * MB),
        sent=Line(0.0, 0.0 if last else 0.01 * MB),
        model_states=states,
        update=0.001 * share,
        input_gradient=Line(1.2 * alpha * share, 1.2 * beta * share),
        weight_gradient=Line(0.9 * alpha * share, 0.9 * beta * share),
        waiting=Line(0.0, 0.6 * MB * share),
    )


def profile(devices: int = 4, chunks: tuple[int, ...] = (1, 2), split: bool = True, **lines: float) -> CostProfile:
    """Balanced: t(b) = 3 * (alpha + beta * b) for forward and backward of a full share; halves only with ``split``."""
    cuts = {
        devices * v: tuple(stage(1 / v, last=s == devices * v - 1, **lines) for s in range(devices * v)) for v in chunks
    }
    if not split:
        none = {"input_gradient": None, "weight_gradient": None, "waiting": None}
        cuts = {n: tuple(replace(one, **none) for one in cut) for n, cut in cuts.items()}
    return CostProfile(devices, cuts, Line(2e-5, 1e-9), 32, {"machine": "none"})
