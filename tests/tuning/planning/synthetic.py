"""Layer profiles made up from numbers."""

from collections.abc import Sequence

from pipelab.quantities import ModelStates
from pipelab.tuning import CostProfile, Line, StageProfile


def layer_profile(
    costs: Sequence[float],
    *,
    once: float = 0.0,
    kept: Sequence[float] | None = None,
    sent: float | Sequence[float] = 0.0,
    states: int = 0,
    split: bool = False,
) -> CostProfile:
    """Layers whose forward takes ``costs`` a sequence and whose backward twice that, and ``once`` an action.

    With ``split`` each half of a backward takes as much as a forward.
    """

    def part(cost: float, keeps: float, sends: float, stays: int) -> StageProfile:
        return StageProfile(
            forward=Line(once, cost),
            backward=Line(once, 2 * cost),
            bare_forward=None,
            recompute=None,
            kept=Line(0.0, keeps),
            kept_input=None,
            sent=Line(0.0, sends),
            model_states=ModelStates(weights=stays),
            update=0.0,
            input_gradient=Line(once, cost) if split else None,
            weight_gradient=Line(once, cost) if split else None,
            waiting=Line(0.0, keeps) if split else None,
        )

    keeps = [1.0] * len(costs) if kept is None else list(kept)
    sends = [sent] * len(costs) if isinstance(sent, float) else list(sent)
    whole = part(sum(costs), sum(keeps), sends[-1], states * len(costs))
    parts = tuple(part(c, k, x, states) for c, k, x in zip(costs, keeps, sends, strict=True))
    return CostProfile(1, {1: (whole,), len(costs): parts}, Line(0, 0))
