import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelab
from pipelab import ConfigurationError, Costs, Link, Links, simulate
from pipelab.schedules import build_schedule
from pipelab.simulation import SlotCosts
from pipelab.simulation.search import search_schedule
from pipelab.simulation.search.problem import Problem
from tests.strategies import eighths, sound_tables


def times(timeline):
    return timeline.spans, timeline.updates, timeline.messages


def test_a_pair_has_one_link_for_both_directions_unless_the_reverse_is_given():
    slow, slower = Link(2.0), Link(3.0, 1e9)
    links = Links(0.5, pairs={(0, 1): slow, (2, 1): slower, (1, 2): slow})
    assert (links.of(0, 1), links.of(1, 0)) == (slow, slow)
    assert (links.of(2, 1), links.of(1, 2)) == (slower, slow)
    assert links.of(0, 2) == Link(0.5)


def test_nodes_have_one_link_inside_and_another_between_them():
    inside, between = Link(1e-6, 3e11), Link(1e-5, 2e10)
    links = Links.nodes(2, inside=inside, between=between)
    assert [links.of(a, b) for a, b in ((0, 1), (3, 2), (1, 2), (0, 5))] == [inside, inside, between, between]
    assert pipelab.Links is Links


def test_links_go_with_their_devices_to_other_places():
    links = Links.nodes(2, inside=Link(1.0), between=Link(9.0)).placed([0, 2, 1, 3])
    assert [links.of(a, b) for a, b in ((0, 2), (3, 1), (0, 1), (1, 2))] == [Link(1.0)] * 2 + [Link(9.0)] * 2


def test_compression_is_of_a_link_and_time_can_be_taken_away_without_it():
    slow, packed = Link(1.0, 2.0), Link(3.0, compression="bf16")
    links = Links(0.5, pairs={(0, 1): packed, (1, 2): slow}, compression="int8")
    assert [links.of(a, b).compression for a, b in ((0, 1), (1, 2), (0, 2))] == ["bf16", None, "int8"]
    assert not links.untimed.take_time
    assert [links.untimed.of(a, b).compression for a, b in ((0, 1), (1, 2), (0, 2))] == ["bf16", None, "int8"]
    assert links.after(slow).of(0, 1) == packed.after(slow) == Link(4.0, 2.0, "bf16")
    nodes = Links.nodes(2, inside=Link(), between=Link(compression="int8"))
    assert [nodes.of(a, b).compression for a, b in ((0, 1), (1, 2))] == [None, "int8"]
    with pytest.raises(ConfigurationError, match="compression must be 'bf16' or 'int8', got 'int4'; leave it out"):
        Links(compression="int4")


# ---- predictions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("compression", "part"), [("bf16", 1 / 2), ("int8", 1 / 4)])
def test_what_is_packed_is_predicted_with_the_bytes_after_packing(compression, part):
    table, slow = build_schedule("1f1b", 4, 6), Link(0.5, 1.0)
    nodes = Links.nodes(2, inside=Link(), between=Link(0.5, 1.0, compression))
    by_hand = Links.nodes(2, inside=Link(), between=Link(0.5, 1.0 / part))
    found, same = (simulate(table, Costs(message_bytes=8.0, links=links)) for links in (nodes, by_hand))
    assert (
        found.makespan
        == same.makespan
        < simulate(table, Costs(message_bytes=8.0, links=Links.nodes(2, inside=Link(), between=slow))).makespan
    )
    assert {m.size for m in found.messages if {m.source, m.destination} == {1, 2}} == {8 * part}
    assert {m.size for m in found.messages if {m.source, m.destination} != {1, 2}} == {8.0}
    alike = simulate(table, Costs(message_bytes=8.0, links=Links(0.5, 1.0, compression=compression)))
    assert alike.makespan == simulate(table, Costs(message_bytes=8.0 * part, latency=0.5, bandwidth=1.0)).makespan
    assert nodes.unpacked.of(1, 2) == slow


@settings(max_examples=25)
@given(sound_tables(), st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([2.0, math.inf]), eighths)
def test_equal_links_of_all_pairs_are_one_link_for_all(schedule, latency, bandwidth, size):
    alike, p = Link(latency, bandwidth), schedule.devices
    pairs = {(a, b): alike for a in range(p) for b in range(a)}
    one = simulate(schedule, Costs(message_bytes=size, latency=latency, bandwidth=bandwidth))
    for links in (Links(9.0, 1.0, pairs), Links.nodes(1, inside=Link(9.0), between=alike)):
        assert times(simulate(schedule, Costs(message_bytes=size, links=links))) == times(one)


@settings(max_examples=25)
@given(sound_tables(), st.data())
def test_each_message_takes_what_its_own_pair_takes_and_slots_wait_for_that(schedule, data):
    devices = range(schedule.devices)
    latencies = st.sampled_from([0.0, 0.25, 1.0, 4.0])
    links = Links(pairs={(a, b): Link(data.draw(latencies)) for a in devices for b in devices if a != b})
    timeline = simulate(schedule, Costs(links=links))
    for message in timeline.messages:
        assert message.arrived == message.sent + links.of(message.source, message.destination).latency
    for device in devices:
        free = 0.0
        for span in timeline.on_device(device):
            assert span.start == max([free, *(time for time, _ in timeline.inputs(span))])
            free = span.end


def test_two_devices_by_hand():
    """F 0-1, there at 3; F 3-4, B 4-5, back at 5.5; B 5.5-6.5."""
    links = Links(pairs={(0, 1): Link(2.0), (1, 0): Link(0.5)})
    assert simulate(build_schedule("gpipe", 2, 1), Costs(links=links)).makespan == 6.5


def test_three_devices_on_two_nodes_by_hand():
    """F 0-1, 1.25-2.25; between the nodes 1 + 8/4 = 3: F 5.25-6.25, B 6.25-7.25; B 10.25-11.25, 11.5-12.5."""
    links = Links.nodes(2, inside=Link(0.25), between=Link(1.0, 4.0))
    timeline = simulate(build_schedule("gpipe", 3, 1), Costs(message_bytes=8.0, links=links))
    assert [span.start for r in range(3) for span in timeline.on_device(r)] == [0, 11.5, 1.25, 10.25, 5.25, 6.25]


def test_the_search_counts_each_message_by_its_own_link():
    links = Links(0.5, pairs={(0, 1): Link(2.0, 4.0)})
    costs = Costs(message_bytes=8.0, links=links)
    assert sorted(set(Problem.of([0, 1, 2], 3, 2, costs).ways)) == [0.0, 0.5, 4.0]
    found = search_schedule(3, 3, costs=costs)
    assert found.timeline.makespan == simulate(found.schedule, costs).makespan


# ---- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Link(latency=-1), "latency must be finite and not negative, got -1; try 0"),
        (lambda: Links(pairs=[(0, 1)]), "pairs must say which Link each pair has, got list; try {"),
        (lambda: Link(latency=None), "latency must be a number, got None; leave it out for none"),
        (lambda: Links(bandwidth="1"), "bandwidth must be a number, got '1'; leave it out for none"),
        (lambda: Links(bandwidth=0), "bandwidth must be positive, got 0; leave it out for no limit"),
        (lambda: Links(pairs={(0, 0): Link()}), r"a pair is two different devices, got \(0, 0\); try \(0, 1\)"),
        (lambda: Links(pairs={(0, -1): Link()}), "a pair is two different devices"),
        (lambda: Links(pairs={"01": Link()}), "a pair is two different devices, got '01'"),
        (lambda: Links(pairs={(0, 1): 2.0}), r"pair \(0, 1\) must have a Link, got 2.0; try Link\(latency=2\)"),
        (lambda: Links.nodes(0, inside=Link(), between=Link()), "per_node must be a whole number of at least 1"),
        (lambda: Costs(latency=1, links=Links()), "latency= and bandwidth= have nothing left to say; leave them out"),
        (lambda: SlotCosts((), bandwidth=1, links=Links()), "have nothing left to say"),
        (lambda: Costs(links=Link()), r"links must be Links, got Link; try Links\(latency=2\)"),
    ],
)
def test_what_is_no_link_is_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()


def test_a_pair_of_unknown_devices_is_refused():
    costs = Costs(links=Links(pairs={(1, 4): Link(1.0)}))
    for ask in (
        lambda: simulate(build_schedule("1f1b", 4, 4), costs),
        lambda: search_schedule(4, 4, costs=costs),
    ):
        with pytest.raises(ConfigurationError, match="a link for devices 1 and 4, but there are 4 devices, 0 to 3"):
            ask()
