import pytest
from hypothesis import given

from pipelab import ScheduleError
from pipelab.schedules import Action, actions_of, build_schedule
from pipelab.schedules.dependencies import Need, Place, SlotGraph, earliest_slots, needs
from tests import oracle, tables
from tests.strategies import sound_tables


def act(token):
    return Action.parse(token)


def needed_by(token, stages=3, table=()):
    """Each need as (kind, its possible suppliers)."""
    found = needs(act(token), stages, {act(other): True for other in table})
    return [(need.kind, " or ".join(map(str, need.suppliers))) for need in found]


def graph_of(text):
    schedule = tables.read(text)
    return SlotGraph(schedule.programs, schedule.placement)


def edges_at(graph, device, position):
    return [(str(e.action), e.kind, str(e.supplier), e.source.device) for e in graph.edges_into(device, position)]


# ---- the rules -------------------------------------------------------------------------------------------------------


def test_the_first_forward_needs_nothing():
    assert needed_by("0F4") == []


def test_a_forward_needs_the_activation_of_the_stage_before():
    assert needed_by("2F4") == [("activation", "1F4")]


def test_a_backward_needs_its_own_forward_and_a_gradient_whole_or_in_halves():
    assert needed_by("1B4") == [("local", "1F4"), ("gradient", "2B4 or 2I4")]


def test_the_last_stage_makes_its_own_gradient_from_the_loss():
    assert needed_by("2B4") == [("local", "2F4")]


def test_the_input_half_of_a_backward_needs_what_the_whole_would():
    assert needed_by("1I4") == needed_by("1B4")


def test_the_weight_half_needs_the_input_half():
    assert needed_by("1W4", table=["1I4"]) == [("local", "1I4")]
    assert needed_by("1W4") == [("local", "1I4")]


def test_where_stage_0_has_no_input_half_its_weight_half_needs_what_a_backward_needs():
    assert needed_by("0W4", table=["0W4"]) == needed_by("0B4")
    assert needed_by("0W4", table=["0W4", "0I4"]) == [("local", "0I4")]


def test_a_backward_waits_for_the_recomputation_where_there_is_one():
    assert needed_by("2R4") == [("local", "2F4")]
    assert needed_by("2B4", table=["2R4"]) == [("local", "2F4"), ("local", "2R4")]


def test_an_update_needs_the_gradient_of_the_weights():
    assert needed_by("1U4") == [("local", "1B4 or 1W4")]


# ---- where it comes from ---------------------------------------------------------------------------------------------


def test_a_supplier_is_found_in_the_table_and_never_by_stage_mod_p():
    graph = graph_of(tables.V_SHAPED)
    assert edges_at(graph, 0, 1) == [("3F0", "activation", "2F0", 1)]
    [inside] = graph.edges_into(1, 1)
    assert (str(inside.supplier), inside.kind, inside.crosses) == ("1F0", "activation", False)


def test_in_a_two_way_table_each_microbatch_finds_its_own_road():
    graph = graph_of(tables.TWO_WAY)
    assert edges_at(graph, 0, 1) == [("1F1", "activation", "0F1", 1)]
    assert edges_at(graph, 1, 1) == [("1F0", "activation", "0F0", 0)]


def test_of_two_suppliers_the_one_on_the_same_device_is_taken():
    graph = graph_of("0F0,1F0\n0F0\n")
    supplier = graph.supplier(Need((act("0F0"),), "activation"), Place(1, 5))
    assert supplier == (act("0F0"), Place(1, 0))


def test_only_what_the_table_has_can_supply():
    graph = graph_of("1F0\n")
    assert edges_at(graph, 0, 0) == []
    assert graph.supplier(Need((act("0F0"),), "activation"), Place(0, 0)) is None


def test_a_fused_slot_can_supply_its_own_later_parts():
    graph = graph_of(tables.FUSED)
    needed, kept = graph.edges_into(1, 0)
    assert (str(needed.supplier), needed.inside_slot, needed.crosses) == ("0F0", False, True)
    assert (str(kept.supplier), kept.inside_slot, kept.crosses) == ("1F0", True, False)


# ---- the order they can run in ---------------------------------------------------------------------------------------


@given(sound_tables(max_p=6, max_m=12))
def test_every_slot_comes_up_once_and_after_all_that_it_needs(schedule):
    table = oracle.everything(schedule)
    done = {}
    seen = []
    for device, position, _ in SlotGraph(schedule.programs, schedule.placement).topological():
        for action in actions_of(schedule.programs[device][position]):
            assert oracle.may_run(action, device, done, schedule, table)
            done[action] = device
        seen.append((device, position))
    assert sorted(seen) == [(r, k) for r, row in enumerate(schedule.programs) for k in range(len(row))]


def test_what_waits_for_ever_is_left_out_with_all_that_stands_behind_it():
    graph = graph_of("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    assert sorted((device, position) for device, position, _ in graph.topological()) == [(0, 0), (1, 0)]


def test_a_fused_slot_in_the_wrong_order_never_comes_up():
    assert list(graph_of("(0B0;0F0)\n").topological()) == []


def test_on_the_time_grid_every_slot_starts_as_early_as_it_can():
    schedule = build_schedule("1f1b", devices=2, microbatches=2)
    rows = earliest_slots(schedule.programs, schedule.placement)
    text = [["." if slot is None else str(slot) for slot in row] for row in rows]
    assert text == [["0F0", "0F1", ".", "0B0", ".", "0B1"], [".", "1F0", "1B0", "1F1", "1B1"]]


def test_the_time_grid_says_how_many_slots_it_could_not_place():
    schedule = tables.read("0F0,0B0,0F1,0B1\n1F0,1F1,1B0,1B1\n")
    with pytest.raises(ScheduleError, match="6 actions of this table wait forever"):
        earliest_slots(schedule.programs, schedule.placement)
