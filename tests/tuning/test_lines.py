"""The fit: exact on lines, best in relative error elsewhere, never below zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import ConfigurationError
from pipelab.tuning import Line, fit_line

numbers = st.floats(1e-4, 1e3)


@given(numbers, numbers, st.lists(st.integers(1, 100), min_size=2, max_size=8, unique=True))
def test_points_on_a_line_give_it_back(alpha, beta, places):
    found = fit_line([(x, alpha + beta * x) for x in places])
    assert found.beta == pytest.approx(beta, rel=1e-4, abs=1e-7 * alpha)
    assert found.error < 1e-6
    assert found(50) == pytest.approx(alpha + beta * 50, rel=1e-4)


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0.1, 10)), min_size=2, max_size=8, unique_by=lambda p: p[0]))
def test_no_line_near_it_has_a_smaller_relative_error(points):
    found = fit_line(points)

    def loss(alpha, beta):
        return sum(((alpha + beta * x) / y - 1) ** 2 for x, y in points)

    assert found.alpha >= 0 and found.beta >= 0
    least = loss(found.alpha, found.beta)
    for da in (-1e-3, 0, 1e-3):
        for db in (-1e-3, 0, 1e-3):
            if found.alpha + da >= 0 and found.beta + db >= 0:
                assert loss(found.alpha + da, found.beta + db) >= least - 1e-9


def test_small_micro_batches_count_as_much_as_large_ones():
    """Plain least squares would let the large one choose, and be off by half at b = 1."""
    found = fit_line([(1, 2.0), (2, 3.0), (64, 70.0)])
    assert found(1) == pytest.approx(2.0, rel=0.05)
    assert found.error == max(abs(found(x) / y - 1) for x, y in found.points)


def test_no_work_takes_less_than_no_time():
    assert fit_line([(1, 1.0), (2, 3.0)]).alpha == 0.0, "through the origin where the line would start below it"
    falling = fit_line([(1, 3.0), (2, 1.0)])
    assert falling.beta == 0.0 and falling.alpha > 0


def test_what_costs_nothing_has_a_flat_line():
    assert fit_line([(1, 0.0), (4, 0.0)])(10) == 0.0


@given(st.integers(1, 64), numbers)
def test_where_all_but_one_cost_nothing_it_goes_through_the_origin(x, y):
    found = fit_line([(x, y), (x + 1, 0.0)])
    assert found.alpha == 0.0 and found(x) == pytest.approx(y)


def test_one_place_makes_no_line():
    with pytest.raises(ConfigurationError, match="two or more different x"):
        fit_line([(4, 1.0), (4, 1.1)])


def test_lines_add():
    points = ((1.0, 2.0), (2.0, 3.0))
    both = fit_line(points) + fit_line(points)
    assert both(5) == pytest.approx(2 * (1 + 5)) and both.points == ((1.0, 4.0), (2.0, 6.0))
    assert (Line(1, 2) + Line(3, 4, points=points)).points == ()
