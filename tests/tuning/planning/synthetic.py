"""Layer profiles made up from numbers."""

from collections.abc import Sequence

from pipelab.memory import ModelStates
from pipelab.tuning import CostProfile, Line, StageProfile


def layer_profile(
    costs: Sequence[float],
    *,
    once: float = 0.0,
    kept: Sequence[float] | None = None,
    sent: float = 0.0,
    states: int = 0,
) -> CostProfile:
    """Layers whose forward takes ``costs`` a sequence and whose backward twice that, and ``once`` an action."""

    def part(cost: float, keeps: float, stays: int) -> StageProfile:
        return StageProfile(
            forward=Line(once, cost),
            backward=Line(once, 2 * cost),
            bare_forward=None,
            recompute=None,
            kept=Line(0.0, keeps),
            kept_input=None,
            sent=Line(0.0, sent),
            model_states=ModelStates(weights=stays),
            update=0.0,
        )

    keeps = [1.0] * len(costs) if kept is None else list(kept)
    whole = part(sum(costs), sum(keeps), states * len(costs))
    return CostProfile(
        1, {1: (whole,), len(costs): tuple(part(c, k, states) for c, k in zip(costs, keeps, strict=True))}, Line(0, 0)
    )
