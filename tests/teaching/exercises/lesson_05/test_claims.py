"""What lesson 5 says of scatter, the memory wall and recomputation, tried at more settings than its pages show."""

from __future__ import annotations

from random import Random
from statistics import fmean

import pytest

from pipelab.schedules import build_schedule, check_schedule
from pipelab.schedules.schedule import Schedule
from pipelab.simulation import Costs, SlotCosts, simulate
from pipelab.tuning.profile import CostProfile


def scattered(name, p, m, spread, seed=0):
    """Bubble fraction with equal stages, tB = 2 tF, and costs that scatter; the mean of a few draws."""
    random, schedule = Random(seed), build_schedule(name, p, m)

    def one():
        rows = [
            [(1 + (a.op == "B")) * max(random.gauss(1, spread), 0.1) for a in program] for program in schedule.programs
        ]
        return simulate(schedule, SlotCosts(rows), check=False).bubble_fraction

    return fmean(one() for _ in range(4))


def formula(p, m):
    return (p - 1) / (m + p - 1)


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("spread", [0.1, 0.25])
def test_scatter_widens_the_bubble_and_1f1b_comes_to_a_floor(p, spread):
    gpipe, flush = ([scattered(name, p, m, spread) for m in (32, 256)] for name in ("gpipe", "1f1b"))
    for k, m in enumerate((32, 256)):
        assert min(gpipe[k], flush[k]) > formula(p, m)
    assert flush[1] > 1.8 * gpipe[1]
    assert flush[1] - formula(p, 256) > 0.6 * (flush[0] - formula(p, 32)), "the loss of 1F1B hardly shrinks with m"
    assert gpipe[1] - formula(p, 256) < 0.7 * (gpipe[0] - formula(p, 32)), "that of GPipe does"


def test_what_1f1b_loses_follows_the_spread():
    none, half, whole = (scattered("1f1b", 4, 256, spread) - formula(4, 256) for spread in (0.0, 0.1, 0.2))
    assert none == pytest.approx(0, abs=1e-9)
    assert 1.6 < whole / half < 2.1


def peak(name, m, batch, chunks=1):
    profile = CostProfile.shipped()
    timeline = profile.predict(build_schedule(name, 4, m, **({"chunks": chunks} if chunks > 1 else {})), batch)
    return max(held.total for held in profile.memory(timeline))


def test_at_a_fixed_microbatch_the_wall_bounds_m_of_1f1b_below_p_or_not_at_all():
    for b in (4, 8):
        peaks = {m: peak("1f1b", m, b * m) for m in (1, 2, 3, 4, 8, 32)}
        assert peaks[1] < peaks[2] < peaks[3] < peaks[4]
        assert peaks[4] == pytest.approx(peaks[8]) == pytest.approx(peaks[32])
    rising = [peak("gpipe", m, 4 * m) for m in (4, 8, 16)]
    assert rising == sorted(rising)
    assert rising[2] > 3 * rising[0]


@pytest.mark.parametrize("v", [2, 3, 4])
@pytest.mark.parametrize("p", [2, 4, 6])
def test_interleaving_holds_up_to_p_and_p_minus_1_over_v(p, v):
    for m in (2 * p, 4 * p):
        timeline = simulate(build_schedule("interleaved", p, m, chunks=v), Costs())
        assert max(shares for _, shares, _ in timeline.in_flight(0)) == pytest.approx(p + (p - 1) / v)


def test_the_smallest_m_that_fits_loses_against_recomputation_where_the_wall_is_far_right():
    profile = CostProfile.shipped()

    def fitting(limit, recompute):
        for m in range(1, 65):
            timeline = profile.predict(build_schedule("1f1b", 4, m, recompute=recompute), 64)
            if max(held.total for held in profile.memory(timeline)) <= limit * 1e6:
                yield timeline.makespan

    gains = {limit: min(fitting(limit, True)) / next(fitting(limit, False)) for limit in (42, 30, 20)}
    assert gains[42] > 1.1
    assert 0.95 < gains[30] < 1.05
    assert gains[20] < 0.6


def test_a_second_forward_started_early_holds_no_more():
    """The Try of Break it: five in flight after one swap, five after two; a missing backward is told."""
    row = [str(action) for action in build_schedule("1f1b", 4, 16).programs[0]]
    others = build_schedule("1f1b", 4, 16).programs[1:]
    for swapped in ("0B0", "0B1"):
        at = row.index(swapped)
        row[at], row[at + 1] = row[at + 1], row[at]
        schedule = Schedule.from_rows([row, *others], name="early")
        assert check_schedule(schedule) == []
        assert max(shares for _, shares, _ in simulate(schedule, Costs()).in_flight(0)) == 5
    row.remove("0B0")
    (missing,) = check_schedule(Schedule.from_rows([row, *others], name="without"))
    assert "0B0 is missing on device 0" in missing.message
