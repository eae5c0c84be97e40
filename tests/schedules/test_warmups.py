import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import build_schedule, check_schedule, simulate
from pipelab.schedules import Schedule
from pipelab.schedules.reserved import ReservedError, reserve
from pipelab.schedules.warmups import with_warmups
from tests import tables


@given(st.integers(1, 6), st.integers(1, 10))
def test_with_p_minus_1_minus_r_forwards_it_is_1f1b(p, m):
    assert with_warmups([p - 1 - r for r in range(p)], m).programs == build_schedule("1f1b", p, m).programs


@given(st.integers(1, 6), st.integers(1, 10))
def test_with_all_forwards_first_it_is_gpipe(p, m):
    assert with_warmups([m] * p, m).programs == build_schedule("gpipe", p, m).programs


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(1, 8))
def test_any_depths_give_each_device_every_action_once_in_the_order_of_the_microbatches(depths, m):
    depths = [min(depth, m) for depth in depths]
    made = with_warmups(depths, m)
    assert made.programs == tables.warm_up_by_hand(len(depths), m, depths).programs


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=4), st.integers(1, 8))
def test_a_warm_up_below_0_counts_as_0_and_one_above_m_as_m(depths, m):
    assert with_warmups(depths, m) == with_warmups([min(max(depth, 0), m) for depth in depths], m)


def test_a_device_that_goes_deeper_than_the_one_before_waits_for_ever():
    assert check_schedule(with_warmups([0, 1], 4))
    assert check_schedule(with_warmups([2, 1], 4)) == []


def test_one_more_forward_costs_memory_and_saves_no_time():
    usual, deeper = (simulate(with_warmups(depths, 8)) for depths in ([3, 2, 1, 0], [4, 3, 2, 1]))
    assert deeper.makespan == usual.makespan
    assert (usual.peak_microbatches, deeper.peak_microbatches) == ((4, 3, 2, 1), (5, 4, 3, 2))


def test_it_goes_by_the_name_it_is_given():
    assert with_warmups([1, 0], 2).name == "yours"
    assert with_warmups([1, 0], 2, name="1f1b") == build_schedule("1f1b", 2, 2)
    assert isinstance(with_warmups([0], 1), Schedule)


def test_without_devices_there_is_no_schedule():
    with pytest.raises(ValueError, match=r"no rows|at least one device"):
        with_warmups([], 4)


def test_it_does_not_answer_for_whoever_has_to_write_it():
    with reserve("write it yourself"), pytest.raises(ReservedError, match="with_warmups does not answer here"):
        with_warmups([1, 0], 2)
