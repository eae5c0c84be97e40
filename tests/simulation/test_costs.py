import math

import pytest

from pipelab import ConfigurationError, Costs, simulate
from pipelab.schedules import Action, Schedule, build_schedule
from pipelab.simulation import SlotCosts
from tests import tables


def cost_of(costs, token, schedule):
    return costs.action_cost(schedule, Action.parse(token))


PLAIN = build_schedule("1f1b", devices=4, microbatches=4)
CHUNKED = build_schedule("interleaved", devices=4, microbatches=4, chunks=2)


# ---- what an action costs --------------------------------------------------------------------------------------------


def test_each_op_has_its_own_cost():
    costs = Costs(forward=1, backward=2, input_gradient=0.75, weight_gradient=1.25, recompute=0.5, update=3)
    assert [cost_of(costs, f"1{op}0", PLAIN) for op in "FBIWRU"] == [1, 2, 0.75, 1.25, 0.5, 3]


def test_the_halves_of_a_backward_are_halves_and_recomputing_is_a_forward_unless_said():
    costs = Costs(forward=3, backward=5)
    assert [cost_of(costs, f"1{op}0", PLAIN) for op in "IWRU"] == [2.5, 2.5, 3, 0]


def test_the_halves_are_halved_stage_by_stage():
    assert cost_of(Costs(backward=[2, 4, 6, 8]), "2I0", PLAIN) == 3


def test_a_chunk_costs_its_part_of_a_device_share():
    assert cost_of(Costs(forward=1), "5F0", CHUNKED) == 0.5


def test_costs_given_stage_by_stage_are_not_divided_again():
    assert cost_of(Costs(forward=[1, 2, 3, 4, 5, 6, 7, 8]), "5F0", CHUNKED) == 6
    listed, shared = Costs(forward=[0.5] * 8, backward=[1.0] * 8), Costs(forward=1, backward=2)
    assert simulate(CHUNKED, listed).spans == simulate(CHUNKED, shared).spans


def test_a_heavier_microbatch_costs_more():
    uneven = PLAIN.for_batch(6)  # 2, 2, 1 and 1 sequences
    assert [cost_of(Costs(forward=3), f"0F{i}", uneven) for i in range(4)] == pytest.approx([4, 4, 2, 2])


def test_the_single_microbatch_of_naive_costs_m_times_as_much():
    naive = build_schedule("naive", devices=4, microbatches=4)
    assert cost_of(Costs(forward=1), "0F0", naive) == 4


def test_an_update_costs_the_same_whatever_the_microbatch():
    assert cost_of(Costs(update=2), "0U0", Schedule.from_csv("0F0,0B0,0U0\n", weights=(3,))) == 2


# ---- what a slot costs -----------------------------------------------------------------------------------------------


def test_a_fused_slot_costs_the_sum_of_its_parts_unless_overlap_pays():
    fused = tables.read(tables.FUSED)
    assert Costs(forward=1, backward=2).slot_cost(fused, 0, 1) == 3
    assert Costs(forward=1, backward=2, fused={"FB": 0.75}).slot_cost(fused, 0, 1) == 2.25
    assert Costs(forward=1, backward=2, fused={"FB": 0.75}).slot_cost(fused, 0, 0) == 1


def test_the_fused_factor_is_by_ops_in_order():
    fused = tables.read(tables.FUSED_HALVES)
    assert Costs(fused={"WI": 0.5}).slot_cost(fused, 0, 3) == 0.5
    assert Costs(fused={"IW": 0.5}).slot_cost(fused, 0, 3) == 1


def test_measured_slots_cost_what_they_took():
    measured = SlotCosts(slots=((1.5, 2.5), (0.5, 0.25)))
    assert measured.slot_cost(tables.read("0F0,0B0\n1F0,1B0\n"), 1, 1) == 0.25
    assert measured.unit == "s"


# ---- what a message weighs -------------------------------------------------------------------------------------------


def test_messages_weigh_what_their_microbatch_weighs_and_are_not_divided_among_chunks():
    costs = Costs(message_bytes=100)
    assert costs.message_size(CHUNKED, Action(5, "F", 0), "activation") == 100
    uneven = PLAIN.for_batch(6)
    assert costs.message_size(uneven, Action(1, "F", 0), "activation") == pytest.approx(100 * 2 * 4 / 6)


def test_a_gradient_weighs_what_the_activation_that_it_answers_did():
    costs = Costs(message_bytes=[10, 20, 30, 0])
    assert costs.message_size(PLAIN, Action(1, "F", 0), "activation") == 20
    assert costs.message_size(PLAIN, Action(2, "B", 0), "gradient") == 20


def test_measured_messages_weigh_what_was_sent():
    measured = SlotCosts(slots=(), sizes={(Action(0, "F", 0), "activation"): 64.0})
    assert measured.message_size(PLAIN, Action(0, "F", 0), "activation") == 64
    assert measured.message_size(PLAIN, Action(1, "F", 0), "activation") == 0


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "forward",
        "backward",
        "input_gradient",
        "weight_gradient",
        "recompute",
        "update",
        "message_bytes",
        "activation_bytes",
    ],
)
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, [1.0, -1.0]])
def test_a_cost_below_zero_or_without_end_is_refused_by_name(name, value):
    with pytest.raises(ConfigurationError, match=f"'{name}' must be finite and not negative"):
        Costs(**{name: value})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_latency_below_zero_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"latency must be finite and not negative.*try 0"):
        Costs(latency=value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_link_without_bandwidth_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"bandwidth must be positive.*leave it out for no limit"):
        Costs(bandwidth=value)


@pytest.mark.parametrize("value", [-0.5, math.nan])
def test_a_fused_factor_below_zero_is_refused(value):
    with pytest.raises(ConfigurationError, match="fused"):
        Costs(fused={"FB": value})


@pytest.mark.parametrize("name", ["forward", "backward", "activation_bytes", "message_bytes"])
def test_a_list_of_the_wrong_length_is_told_the_right_one(name):
    with pytest.raises(
        ConfigurationError, match=r"given for 3 stages, but schedule '1f1b' has 4; give one number, or 4"
    ):
        simulate(PLAIN, Costs(**{name: [1, 2, 3]}))


def test_nothing_costs_nothing():
    assert simulate(PLAIN, Costs(forward=0, backward=0)).makespan == 0
