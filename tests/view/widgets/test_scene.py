import json
from dataclasses import replace
from itertools import chain, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelab import Costs, build_schedule, simulate
from pipelab.schedules import Schedule, actions_of, format_slot
from pipelab.schedules.phases import phases
from pipelab.timeline.versions import versions_of
from pipelab.timeline.waits import Waits
from pipelab.view import palette
from pipelab.view.widgets.scene import detail, scene
from pipelab.view.words import lanes_note
from tests.strategies import sound_tables
from tests.view.scenes import FUSED, SCENES, measured, predicted

KEYS = ("device", "start", "end", "ready", "parts", "takes", "takers", "told")
SIX_DIGITS = {"rel": 1e-5, "abs": 1e-9}


@st.composite
def timelines(draw):
    costs = Costs(forward=draw(st.sampled_from([1, 0.3])), backward=2, latency=draw(st.sampled_from([0, 0.5])))
    return simulate(draw(sound_tables()), replace(costs, unit=draw(st.sampled_from(["units", "s"]))))


def drawn(schedule, **costs):
    return scene(simulate(schedule, Costs(**costs)))


# ---- what kind of thing it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SCENES if "tall" not in name])
def test_a_scene_is_json_that_comes_back_as_it_was(name):
    made = scene(SCENES[name])
    assert json.loads(json.dumps(made, allow_nan=False)) == made


@given(timelines())
def test_columns_have_one_entry_for_each_span(timeline):
    blocks = scene(timeline)["blocks"]
    assert {len(blocks[key]) for key in KEYS} == {len(timeline.spans)}


def test_a_large_schedule_is_small_enough_to_travel():
    assert len(json.dumps(scene(predicted("1f1b", 8, 32, activation_bytes=1e6)))) < 300_000


@given(timelines())
def test_what_is_asked_of_a_timeline_may_come_later_than_its_picture(timeline):
    """A picture is sent while a slider moves; sentences and neighbours of its blocks once it rests."""
    made, drawn, asked = scene(timeline), scene(timeline, whole=False), detail(timeline)
    assert not drawn["blocks"].keys() & asked.keys()
    assert {**drawn, "blocks": drawn["blocks"] | asked} == made


def test_a_picture_alone_is_a_third_of_it():
    timeline = predicted("1f1b", 8, 32)
    assert len(json.dumps(scene(timeline, whole=False))) < len(json.dumps(scene(timeline))) / 3


def test_a_timeline_without_spans_is_an_empty_scene():
    made = scene(replace(predicted("1f1b", 2, 2), spans=(), messages=()))
    assert (made["gaps"], made["end"]) == ([], 0)
    assert all(made["blocks"][key] == [] for key in (*KEYS, "moments", "critical"))
    assert len(made["devices"]) == 2


# ---- times -----------------------------------------------------------------------------------------------------------


@given(timelines())
def test_times_begin_at_0_and_end_with_the_makespan(timeline):
    made = scene(timeline)
    factor = {"units": 1, "s": 1, "ms": 1e3}[made["unit"]]
    assert min(made["blocks"]["start"]) == made["blocks"]["moments"][0] == 0
    assert max(made["blocks"]["end"]) == made["blocks"]["moments"][-1] == made["end"]
    assert made["end"] == pytest.approx(timeline.makespan * factor, **SIX_DIGITS)
    assert made["extent"] >= made["end"]


@pytest.mark.parametrize(("seconds", "unit", "factor"), [(2.0, "s", 1), (0.02, "ms", 1e3), (2e-5, "µs", 1e6)])
def test_seconds_are_shown_in_a_unit_that_suits(seconds, unit, factor):
    made = scene(predicted("1f1b", 2, 2, forward=seconds, backward=seconds, unit="s"))
    assert made["unit"] == unit
    assert made["blocks"]["end"][0] == pytest.approx(seconds * factor)
    assert made["end"] == pytest.approx(6 * seconds * factor)


def test_a_run_whose_clock_did_not_begin_at_0_looks_the_same():
    timeline = predicted("1f1b", 3, 4, activation_bytes=1e6)
    shift = 1000

    def later(things):
        return tuple(replace(thing, start=thing.start + shift, end=thing.end + shift) for thing in things)

    messages = tuple(replace(m, sent=m.sent + shift, arrived=m.arrived + shift) for m in timeline.messages)
    holdings = tuple(replace(h, steps=tuple((t + shift, b) for t, b in h.steps)) for h in timeline.holdings)
    late = replace(timeline, spans=later(timeline.spans), messages=messages, holdings=holdings)
    assert scene(late) == scene(timeline)


def test_updates_stand_behind_the_makespan():
    timeline = measured(build_schedule("1f1b", 4, 8))
    made = scene(timeline)
    assert made["unit"] == "ms"
    assert [update[0] for update in made["updates"]] == [0, 1, 2, 3]
    assert all(start == made["end"] for _, start, _, _ in made["updates"])
    assert made["updates"][3][2] - made["end"] == pytest.approx(16, rel=1e-3)
    assert made["extent"] == made["updates"][3][2]
    assert "U" in [letter for letter, *_ in made["legend"]]


@given(timelines())
def test_lanes_have_each_message_that_takes_time_where_it_is_sent_and_where_it_is_received(timeline):
    made = scene(timeline)["blocks"]["lanes"]
    sent = [m for m in timeline.messages if m.arrived > m.sent]
    assert [word for word, _ in made["kinds"]] == ["activation under way", "gradient under way"]
    for k, end in enumerate(("source", "destination")):
        for device, lane in enumerate(made["rows"][k::2]):
            found = sorted(bar[:3] for row in lane for bar in row)
            here = sorted((int(m.kind == "gradient"), m.sent, m.arrived) for m in sent if getattr(m, end) == device)
            assert list(chain(*found)) == pytest.approx(list(chain(*here)), **SIX_DIGITS)
    assert all(a[2] <= b[1] + 1e-6 for lane in made["rows"] for row in lane for a, b in pairwise(row))
    assert made["note"] == lanes_note(timeline)


def test_each_message_in_a_lane_says_what_it_is_and_how_much_of_its_time_is_hidden():
    made = drawn(build_schedule("gpipe", 2, 2), latency=2, message_bytes=4e6)["blocks"]["lanes"]
    sends, receives = ([made["told"][bar[3]] for row in made["rows"][k] for bar in row] for k in (0, 3))
    assert sends == receives
    assert sends == [
        "Activation of 0F0 for 1F0, from device 0 to device 1, 4.0 MB: sent at t = 1, there at t = 3. Device 1 works "
        "in 0.0% of this time: that part is hidden.",
        "Activation of 0F1 for 1F1, from device 0 to device 1, 4.0 MB: sent at t = 2, there at t = 4. Device 1 works "
        "in 50.0% of this time: that part is hidden.",
    ]


# ---- what is said ----------------------------------------------------------------------------------------------------


@given(timelines())
def test_what_is_said_comes_from_the_timeline_and_its_waits(timeline):
    made, waits = scene(timeline), Waits(timeline)
    versions = versions_of(timeline)
    for told, wait in zip(made["blocks"]["told"], waits.all, strict=True):
        known = [] if versions is None else [versions.sentence(action) for action in actions_of(wait.span.slot)]
        assert told == " ".join([waits.sentence(wait), *filter(None, known)])
    assert len(made["gaps"]) == len(timeline.gaps())
    for (device, start, end, cause, said), gap in zip(made["gaps"], timeline.gaps(), strict=True):
        assert (device, cause, said.lower()) == (gap.device, gap.cause, gap.sentence.lower() + ".")
        assert said[0].isupper()
        assert start < end


def test_title_figures_and_clock():
    made = scene(predicted("1f1b", 4, 8))
    assert made["title"] == "1F1B: p = 4 devices, m = 8 micro-batches"
    assert made["figures"] == "makespan 22 units · bubble fraction 27.3%"
    assert made["clock"] == "Clock: predicted from costs."
    assert made["alt"].startswith("Schedule 1F1B (1f1b), p = 4 devices")
    assert scene(predicted("1f1b", 4, 8), title="Mine")["title"] == "Mine"


def test_devices_and_their_stages():
    made = scene(predicted("interleaved", 2, 4, 2))
    assert made["devices"] == ["device 0", "device 1"]
    assert made["stages"] == [[0, 2], [1, 3]]


# ---- blocks ----------------------------------------------------------------------------------------------------------


@given(timelines())
def test_a_block_has_one_part_for_each_action_with_the_look_of_its_op(timeline):
    blocks = scene(timeline)["blocks"]
    assert len({tuple(look) for look in blocks["looks"]}) == len(blocks["looks"])
    for span, parts in zip(timeline.spans, blocks["parts"], strict=True):
        shown = [(blocks["looks"][look][0], stage, i) for look, stage, i in parts]
        assert shown == [(a.op, a.stage, a.microbatch) for a in actions_of(span.slot)]


def test_a_fused_slot_has_two_parts():
    made = scene(simulate(FUSED, Costs(fused={"FB": 0.75})))
    two = [k for k, parts in enumerate(made["blocks"]["parts"]) if len(parts) == 2]
    assert len(two) == 3
    assert all(made["blocks"]["end"][k] - made["blocks"]["start"][k] == pytest.approx(1.5) for k in two)


def test_chunks_differ_in_shade_and_letters_can_be_read_on_them():
    looks = scene(predicted("interleaved", 2, 4, 2))["blocks"]["looks"]
    assert sorted(op for op, *_ in looks) == ["B", "B", "F", "F"]
    assert len({colour for _, colour, _ in looks}) == 4
    assert all(ink == palette.text_colour(colour) for _, colour, ink in looks)


@given(timelines())
def test_who_takes_from_whom_is_told_by_index(timeline):
    blocks = scene(timeline)["blocks"]
    takes = {(source, k) for k, found in enumerate(blocks["takes"]) for source, _ in found}
    assert takes == {(k, taker) for k, found in enumerate(blocks["takers"]) for taker in found}
    for k, found in enumerate(blocks["takes"]):
        assert max((arrived for _, arrived in found), default=0) == blocks["ready"][k] <= blocks["start"][k]


@given(timelines())
def test_critical_blocks_are_the_timelines_critical_path(timeline):
    path = [span for span in timeline.critical_path() if "U" not in format_slot(span.slot)]
    assert [timeline.spans[k] for k in scene(timeline)["blocks"]["critical"]] == path


# ---- played and linked -----------------------------------------------------------------------------------------------


@given(timelines())
def test_its_messages_are_those_of_the_timeline(timeline):
    made = scene(timeline)
    blocks, factor = made["blocks"], {"ms": 1e3, "µs": 1e6}.get(made["unit"], 1)
    looks = blocks["looks"]
    told = []
    for source, part, taker, sent, arrived in blocks["messages"]:
        look, stage, i = blocks["parts"][source][part]
        told.append((f"{stage}{looks[look][0]}{i}", blocks["device"][source], blocks["device"][taker], sent, arrived))
    real = [
        (str(m.producer), m.source, m.destination, *((t - timeline.start) * factor for t in (m.sent, m.arrived)))
        for m in timeline.messages
    ]
    assert len(told) == timeline.message_count
    for one, other in zip(sorted(told), sorted(real), strict=True):
        assert one[:3] == other[:3]
        assert one[3:] == pytest.approx(other[3:], **SIX_DIGITS)


@given(timelines())
def test_what_is_kept_adds_up_to_what_is_in_flight(timeline):
    assume(not timeline.schedule.forward_only)
    blocks = scene(timeline)["blocks"]
    for k, device in enumerate(blocks["device"]):
        if [blocks["looks"][look][0] for look, *_ in blocks["parts"][k]] != ["F"]:
            continue
        now = (blocks["start"][k] + blocks["end"][k]) / 2
        steps = [found for r, _, _, found, _ in blocks["kept"] if r == device]
        together = sum([0, *(value for time, value in found if time <= now)][-1] for found in steps)
        curve = [value for time, value in scene(timeline)["memory"]["steps"][device] if time <= now]
        assert together == pytest.approx(curve[-1], rel=1e-4)


def test_what_is_kept_is_said_in_words():
    kept = scene(predicted("1f1b", 2, 3, activation_bytes=20e6))["blocks"]["kept"]
    assert kept[0][:3] == [0, 0, 0]
    assert kept[0][4] == "The device holds this micro-batch from t = 0 until t = 4: 20 MB."
    half = Schedule.from_csv("0F0,0F1,0B1\n")
    assert (
        "from t = 0 until the end of the step, and longer" in scene(simulate(half, check=False))["blocks"]["kept"][0][4]
    )


def test_the_account_of_each_device_is_in_the_unit_that_is_shown():
    made = scene(predicted("1f1b", 4, 8, forward=0.001, backward=0.002, unit="s"))
    account = made["account"]
    assert made["unit"] == "ms"
    assert dict(zip(account["kinds"], account["rows"][1], strict=True))["wait"] == pytest.approx(6)
    assert account["expected"] == pytest.approx(9)
    assert all(sum(row) == pytest.approx(made["end"]) for row in account["rows"])


def test_the_legend_has_the_ops_that_occur_and_no_others():
    assert [entry[:2] for entry in scene(predicted("gpipe", 2, 2, recompute=True))["legend"]] == [
        ["F", "forward"],
        ["B", "backward"],
        ["R", "recompute the forward"],
    ]


def test_the_legend_has_the_shades_of_all_ops_on_each_chunk():
    entries = scene(predicted("zb-v", 2, 4))["legend"][3:]
    assert [entry[1] for entry in entries] == ["chunk 0", "chunk 1"]
    for chunk, (_, _, background, _) in enumerate(entries):
        assert all(palette.shade(op, chunk, 2) in background for op in "FIW")


# ---- phases and memory -----------------------------------------------------------------------------------------------


def test_phases_are_told_in_time():
    """Device 0 of p = 3: F0 F1 | F2 B0 ... — it warms up until t = 2, and its last two backwards cool down."""
    timeline = predicted("1f1b", 3, 6)
    made = scene(timeline)
    assert [[name for name, *_ in row] for row in made["phases"]] == [
        [phase.name for phase in phases(program)] for program in timeline.schedule.programs
    ]
    assert made["phases"][0] == [["warm-up", 0, 2], ["steady", 2, 12], ["cool-down", 13, 16]]


def test_without_bytes_the_memory_strip_counts_microbatches():
    memory = scene(predicted("1f1b", 2, 3))["memory"]
    assert memory["steps"][0] == [[0, 1], [1, 2], [4, 2], [6, 1], [8, 0]]
    assert memory["peaks"] == ["peak 2", "peak 1"]
    assert (memory["name"], memory["limits"]) == ("micro-batches in flight", None)


def test_with_bytes_it_counts_them_in_a_unit_that_suits_and_limits_too():
    timeline = predicted("1f1b", 2, 3, activation_bytes=20e6)
    memory = scene(timeline, limits=[30e6, 30e6])["memory"]
    assert memory["axis"] == "MB held"
    assert memory["limits"] == [30, 30]
    assert memory["top"] == 40
    assert max(held for _, held in memory["steps"][0]) == 40
    assert scene(timeline, limits=[60e6] * 2)["memory"]["top"] == 60  # the limit is in the picture
    assert scene(timeline, limits=[60e9] * 2)["memory"]["top"] == 40  # unless it is far above


@given(timelines())
def test_memory_steps_come_in_order_one_for_each_time(timeline):
    for row in scene(timeline)["memory"]["steps"]:
        times = [time for time, _ in row]
        assert times == sorted(set(times))


def test_a_microbatch_that_never_goes_back_stays():
    half = Schedule.from_csv("0F0,0F1,0B1\n")
    memory = scene(simulate(half, check=False))["memory"]
    assert memory["steps"] == [[[0, 1], [1, 2], [3, 1]]]


def test_where_weights_change_on_the_way_blocks_have_versions_and_devices_a_strip_of_them():
    made = scene(predicted("pipedream", 4, 8))
    at = made["blocks"]["device"].index(1) + 3  # 1F0, 1F1, 1F2, 1B0
    assert made["blocks"]["versions"][at : at + 2] == [[0], [1]]
    assert "Uses version 1 of stage 1's weights, made by 1U0, the newest." in made["blocks"]["told"][at + 1]
    assert made["versions"]["peaks"] == ["peak 4", "peak 3", "peak 2", "peak 1"]
    assert made["versions"]["steps"][0] == [
        [0, 1],
        [8, 2],
        [10, 3],
        [12, 4],
        [14, 4],
        [16, 4],
        [18, 3],
        [20, 2],
        [22, 1],
    ]
    assert made["updates"][0][3:] == ["3U0", 1, "Makes version 1 of stage 3's weights."]
    plain = scene(predicted("1f1b", 4, 8))
    assert (plain["versions"], plain["blocks"]["versions"]) == (None, None)
