"""The steady state of a timeline: between filling and draining."""

from __future__ import annotations

import pytest

from pipelab import Costs, build_schedule, simulate
from pipelab.errors import PipelabError
from pipelab.timeline.steady import steady_state


@pytest.mark.parametrize("backward", [1, 2, 3])
@pytest.mark.parametrize("name", ["1f1b", "pipedream", "vertical-sync"])
def test_with_equal_stages_a_full_pipeline_does_not_idle(name, backward):
    timeline = simulate(build_schedule(name, 4, 12), Costs(forward=1, backward=backward))
    found = steady_state(timeline)
    assert timeline.bubble_fraction == pytest.approx(3 / 15)
    assert found.bubble == pytest.approx(0, abs=1e-12) or backward == 1, "the last device alternates without a pause"
    assert found.imbalance == pytest.approx(0)


def test_updates_are_work():
    costs = Costs(forward=1, backward=2, update=0.5)
    assert steady_state(simulate(build_schedule("pipedream", 4, 12), costs)).bubble == pytest.approx(0, abs=1e-12)


def test_unequal_stages_idle_by_what_the_slowest_makes_them_wait():
    costs = Costs(forward=[1, 1, 1, 2], backward=[2, 2, 2, 4])
    found = steady_state(simulate(build_schedule("pipedream", 4, 64), costs))
    assert found.imbalance == pytest.approx(1 - (3 + 3 + 3 + 6) / (4 * 6))
    assert found.bubble == pytest.approx(found.imbalance, abs=0.02)


def test_where_there_is_none_it_is_said():
    for name, m in (("gpipe", 8), ("1f1b", 2)):
        with pytest.raises(PipelabError, match=f"'{name}' has no steady state here"):
            steady_state(simulate(build_schedule(name, 4, m)))
