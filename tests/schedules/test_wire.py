from hypothesis import given

from pipelab.schedules import build_schedule
from pipelab.schedules.dependencies import SlotGraph
from pipelab.schedules.wire import Channel, routes
from tests import oracle, tables
from tests.strategies import sound_tables


def wire_of(schedule):
    return routes(SlotGraph(schedule.programs, schedule.placement))


def sent_on(schedule, kind, source, destination):
    return [str(route.producer) for route in wire_of(schedule)[Channel(kind, source, destination)]]


def count(schedule):
    return sum(map(len, wire_of(schedule).values()))


def test_there_is_one_channel_per_kind_source_and_destination():
    wire = wire_of(build_schedule("1f1b", devices=3, microbatches=4))
    assert [str(channel) for channel in wire] == [
        "activations 0 -> 1",
        "activations 1 -> 2",
        "gradients 1 -> 0",
        "gradients 2 -> 1",
    ]


def test_messages_go_in_the_order_in_which_the_sender_runs():
    table = tables.read("0F1,0F0,0B0,0B1\n1F0,1F1,1B1,1B0\n")
    assert sent_on(table, "activation", 0, 1) == ["0F1", "0F0"]
    assert sent_on(table, "gradient", 1, 0) == ["1B1", "1B0"]


def test_a_message_knows_who_made_it_who_needs_it_and_in_which_slots():
    [route] = wire_of(tables.read("0F0,0B0\n1F0,1B0\n"))[Channel("gradient", 1, 0)]
    assert (str(route.producer), str(route.consumer)) == ("1B0", "0B0")
    assert (route.sent_by, route.needed_by) == ((1, 1), (0, 1))


def test_p4_m4_sends_24_messages_and_56_with_two_chunks():
    assert count(build_schedule("gpipe", devices=4, microbatches=4)) == 24
    assert count(build_schedule("1f1b", devices=4, microbatches=4)) == 24
    assert count(build_schedule("interleaved", devices=4, microbatches=4, chunks=2)) == 56


def test_interleaving_joins_the_last_device_to_the_first():
    wire = wire_of(build_schedule("interleaved", devices=4, microbatches=4, chunks=2))
    assert Channel("activation", 3, 0) in wire
    assert Channel("gradient", 0, 3) in wire


def test_neighbouring_stages_on_one_device_send_nothing():
    assert count(tables.read(tables.V_SHAPED)) == 4
    assert wire_of(build_schedule("interleaved", devices=1, microbatches=3, chunks=3)) == {}


def test_only_the_input_half_of_a_split_backward_sends_a_gradient():
    assert sent_on(tables.read(tables.SPLIT), "gradient", 1, 0) == ["1I0", "1I1"]


def test_a_lone_weight_half_on_stage_0_takes_a_gradient():
    wire = wire_of(tables.read(tables.SPLIT_WITHOUT_FIRST_INPUT_GRADIENT))
    assert [str(route.consumer) for route in wire[Channel("gradient", 1, 0)]] == ["0W0", "0W1"]


def test_the_two_directions_of_a_two_way_pipeline_have_channels_of_their_own():
    assert {str(channel): len(messages) for channel, messages in wire_of(tables.read(tables.TWO_WAY)).items()} == {
        "activations 0 -> 1": 1,
        "activations 1 -> 0": 1,
        "gradients 0 -> 1": 1,
        "gradients 1 -> 0": 1,
    }


@given(sound_tables(max_p=6, max_m=12))
def test_every_need_of_another_devices_work_is_one_message(schedule):
    table = oracle.everything(schedule)
    wanted = set()
    for action, (device, _) in table.items():
        sender = oracle.message_need(action, schedule.stages, table)
        if sender is not None and table[sender][0] != device:
            wanted.add((sender, action))
    sent = [(route.producer, route.consumer) for messages in wire_of(schedule).values() for route in messages]
    assert len(sent) == len(set(sent))
    assert set(sent) == wanted
