"""The generators that split a backward, or run a model in a V or both ways: PyTorch's orders, the papers' formulas."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelab import Costs, build_schedule, check_schedule, simulate
from pipelab.schedules import actions_of, format_slot
from tests.strategies import allowed_microbatches

DEVICES = range(2, 17)
UNIT = Costs(forward=1, backward=2)  # tF = tI = tW = 1 for a full device share


def own_idle(run):
    """The most that a device idles between the start of its first action and the end of its last."""
    rows = [run.on_device(r) for r in range(run.schedule.devices)]
    return max(row[-1].end - row[0].start - sum(span.duration for span in row) for row in rows)


def peaks(run):
    """Of full device shares in flight."""
    return run.peak_microbatches


# ---- PyTorch's orders ------------------------------------------------------------------------------------------------

THEIRS = {
    "looped-bfs": "ScheduleLoopedBFS",
    "interleaved-zb": "ScheduleInterleavedZeroBubble",
    "zb-v": "ScheduleZBVZeroBubble",
    "dualpipev": "ScheduleDualPipeV",
}
SHAPES = [
    (name, p, v)
    for name in THEIRS
    for p in (1, 2, 3, 4, 5, 8)
    for v in ((1, 2, 3) if name in ("looped-bfs", "interleaved-zb") else (2,))
]


@pytest.mark.parametrize(("name", "p", "v"), SHAPES)
def test_the_order_is_pytorchs_action_by_action(name, p, v, monkeypatch):
    schedules = pytest.importorskip("torch.distributed.pipelining.schedules")
    theirs = getattr(schedules, THEIRS[name])
    monkeypatch.setattr(theirs, "_prepare_schedule_with_comms", lambda self, actions: None)
    stages = [SimpleNamespace(group_size=p, group_rank=0, num_stages=p * v, submod=None) for _ in range(v)]
    compared = 0
    for m in allowed_microbatches(name, p, v, 4 * p + 3):
        order = theirs(stages, m).pipeline_order
        for r, row in enumerate(build_schedule(name, p, m, v).programs):
            listed = [word(action) for action in order[r] if action is not None]
            assert listed == [format_slot(slot) for slot in row], (m, r)
        compared += 1
    assert compared >= 2


def word(action):
    """One of PyTorch's actions as text."""
    if action.sub_actions:
        return f"({';'.join(map(word, action.sub_actions))})OVERLAP_F_B"
    return f"{action.stage_index}{action.computation_type.value}{action.microbatch_index}"


# ---- the papers' formulas, p from 2 to 16 ----------------------------------------------------------------------------

EQUAL = (1, 1, 1)
TIMES = [EQUAL, (2, 1, 1), (3, 3, 2), (1, 2, 1)]  # tF, tI, tW with tW <= tF + tI, as the formulas of H1 and H2 need it


def costs(tF, tI, tW):
    return Costs(forward=tF, backward=tI + tW, input_gradient=tI, weight_gradient=tW)


@pytest.mark.parametrize("p", DEVICES)
def test_zb_h1_idles_for_what_the_paper_says_and_holds_no_more_than_p(p):
    for m in (p, p + 3, 3 * p):
        for tF, tI, tW in TIMES:
            run = simulate(build_schedule("zb-h1", p, m), costs(tF, tI, tW))
            if tI >= tW:
                assert run.makespan == m * (tF + tI + tW) + (p - 1) * (tF + tI - tW)
        assert max(peaks(run)) <= min(p, m)


@pytest.mark.parametrize("p", DEVICES)
def test_zb_h2_has_no_bubble_of_its_own_and_holds_2p_minus_1(p):
    for m in (2 * p - 1, 2 * p, 4 * p):
        run = simulate(build_schedule("zb-h2", p, m), UNIT)
        assert own_idle(run) == 0
        assert peaks(run)[0] == 2 * p - 1
        for r, row in enumerate(run.schedule.programs):
            assert [a.op for a in row].index("I") == 2 * (p - r) - 1


@pytest.mark.parametrize("p", DEVICES)
def test_zb_v_has_no_bubble_of_its_own_and_the_memory_of_1f1b(p):
    for m in (2 * p, 2 * p + 1, 4 * p):
        run = simulate(build_schedule("zb-v", p, m), UNIT)
        assert own_idle(run) == 0
        assert max(peaks(run)) <= p
        assert [run.schedule.stages_on(r) for r in range(p)] == [(r, 2 * p - 1 - r) for r in range(p)]


@pytest.mark.parametrize("p", DEVICES)
@pytest.mark.parametrize(("name", "part"), [("v-half", 2), ("v-min", 3)])
def test_v_half_and_v_min_hold_their_part_of_what_1f1b_holds(name, part, p):
    run = simulate(build_schedule(name, p, 4 * p), UNIT)
    assert max(peaks(run)) <= p / part + 4 / 3
    assert run.makespan < simulate(build_schedule("1f1b", p, 4 * p), UNIT).makespan


@pytest.mark.parametrize("p", DEVICES)
def test_interleaved_zb_with_one_chunk_is_zb_h1(p):
    for m in (1, p, 2 * p):
        assert build_schedule("interleaved-zb", p, m, 1).programs == build_schedule("zb-h1", p, m).programs


@pytest.mark.parametrize("p", DEVICES)
def test_looped_bfs_idles_as_interleaved_does_and_holds_the_whole_batch(p):
    for v in (1, 2, 4):
        run = simulate(build_schedule("looped-bfs", p, 2 * p, v), Costs(forward=v, backward=2 * v))
        assert run.makespan == 2 * p * v * 3 + (p - 1) * 3
        assert peaks(run) == pytest.approx([2 * p] * p)


@pytest.mark.parametrize("p", [2, 4, 6, 8, 16])
def test_chimera_idles_for_p_minus_2_slots(p):
    for m in (p, 2 * p, 4 * p):
        schedule = build_schedule("chimera", p, m)
        run = simulate(schedule, Costs(forward=1, backward=1))
        assert check_schedule(schedule) == []
        assert run.makespan == 2 * m + p - 2
        assert schedule.placement == tuple(tuple(sorted((s, p - 1 - s))) for s in range(p))
        down = {a.microbatch for a in schedule.programs[0] if a.stage == 0}
        assert len(down) == m / 2


@pytest.mark.parametrize("p", range(2, 9))
def test_dualpipev_overlaps_a_forward_of_one_chunk_with_a_backward_of_the_other(p):
    schedule = build_schedule("dualpipev", p, 2 * p + 2)
    pairs = [slot for row in schedule.programs for slot in row if len(actions_of(slot)) > 1]
    assert pairs
    assert all([a.op for a in slot] == ["F", "B"] and slot[0].stage != slot[1].stage for slot in pairs)


@pytest.mark.parametrize("p", range(2, 9))
@pytest.mark.parametrize("given", [(1, 1, 1), (1, 1, 0.75)])
def test_interleaved_zb_and_dualpipev_idle_for_what_their_tables_of_bubbles_say(p, given):
    tF, tI, tW = given
    run = simulate(build_schedule("interleaved-zb", p, 2 * p), costs(*given))
    idle = [run.makespan - sum(span.duration for span in run.on_device(r)) for r in range(p)]
    assert idle == pytest.approx([(p - 1) * (tF + tI - tW) / 2] * p)
    chunk_f, chunk_b, chunk_w = tF / 2, (tI + tW) / 2, tW / 2
    for m in (2 * p, 3 * p):
        run = simulate(build_schedule("dualpipev", p, m), costs(*given))
        fused = chunk_f + chunk_b  # nothing overlaps here
        assert own_idle(run) == pytest.approx((p - 1) * (fused + chunk_b - 3 * chunk_w))


# ---- what README says ------------------------------------------------------------------------------------------------

README = (Path(__file__).parents[2] / "README.md").read_text()
TABLE = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \| ([\d.]+) \| ([\d. ]+) \| (\d+) \|$", README, re.MULTILINE)


@pytest.mark.parametrize(("name", "makespan", "idle", "held", "messages"), TABLE)
def test_the_table_in_readme_is_predicted(name, makespan, idle, held, messages):
    run = simulate(build_schedule(name, 4, 8), UNIT)
    assert (run.makespan, own_idle(run), run.message_count) == (float(makespan), float(idle), int(messages))
    assert peaks(run) == tuple(map(float, held.split()))


def test_the_table_in_readme_has_them_all():
    assert {name for name, *_ in TABLE} >= {"zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "chimera", *THEIRS}
