"""Schedules without a flush, cut into steps; and the versions that they use."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelab import Costs, build_schedule, check_schedule, simulate
from pipelab.errors import ConfigurationError
from pipelab.runtime.device.program import compile_table
from pipelab.schedules import Action, Schedule
from pipelab.schedules.updates import ages, groups, over, part, steps_in_flight, versions

RULES = ("pipedream", "vertical-sync", "2bw")
shapes = st.sampled_from(RULES).flatmap(
    lambda name: st.tuples(st.just(name), st.integers(1, 6)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(pair[1] if pair[0] == "2bw" else 1, 9))
    )
)


def paper(name, p, m):
    """Which version forward i uses on stage s, by the papers (arXiv 1806.03377, 3.3; 2006.09503, 3.1)."""
    if name == "2bw":  # micro-batches counted from 1: max(floor((k - 1) / m) - 1, 0)
        return lambda s, k: max((k + 1 - 1) // m - 1, 0)
    return (lambda s, i: max(0, i - (p - 1))) if name == "vertical-sync" else (lambda s, i: max(0, i - (p - 1 - s)))


@given(shapes, st.integers(1, 4))
def test_versions_are_those_of_the_papers(shape, steps):
    name, p, m = shape
    schedule = over(build_schedule(name, p, m), steps)
    rule = paper(name, p, m)
    assert versions(schedule) == {Action(s, "F", i): rule(s, i) for s in range(p) for i in range(m * steps)}
    assert check_schedule(schedule) == []


@given(shapes)
def test_ages_are_what_a_stage_has_been_updated_since(shape):
    name, p, m = shape
    whole = over(build_schedule(name, p, m), 3)
    used, found = versions(whole), ages(whole)
    for row in whole.programs:
        done = 0
        for action in row:
            if action.op == "F":
                assert done - found[action] == used[action] >= 0
            done += action.op == "U"


@given(shapes, st.integers(1, 5))
def test_steps_and_a_drain_are_the_whole_table_cut(shape, steps):
    """Micro-batches of the parts are counted from the first that may be on its way."""
    name, p, m = shape
    schedule = build_schedule(name, p, m)
    rows = [[] for _ in range(p)]
    for k in range(steps + 1):
        drain = k == steps
        piece = part(schedule, k, drain=drain)
        first = (k - min(k, steps_in_flight(schedule))) * m
        for row, program in zip(rows, piece.programs, strict=True):
            row += [Action(a.stage, a.op, a.microbatch + first) for a in program]
        forwards = [a.microbatch + first for a in piece.programs[0] if a.op == "F"]
        assert forwards == ([] if drain else list(range(k * m, (k + 1) * m))), "each step takes its own micro-batches"
    assert tuple(map(tuple, rows)) == over(schedule, steps).programs


@given(shapes, st.integers(2, 5))
def test_what_leaves_a_step_comes_into_a_later_one(shape, steps):
    name, p, m = shape
    schedule, waiting = build_schedule(name, p, m), set()
    for k in range(steps + 1):
        piece = part(schedule, k, drain=k == steps)
        first = (k - min(k, steps_in_flight(schedule))) * m
        table = compile_table(piece)
        assert sum(program.sends for program in table.programs) == sum(map(len, table.messages.values()))
        for device, program in enumerate(table.programs):

            def moved(mail, device=device, program=program, first=first):
                user = program.users[mail]
                return device, user.stage, user.op, user.microbatch + first

            coming = {moved(mail) for mail in program.coming}
            assert coming <= waiting
            waiting -= coming
        for device, program in enumerate(table.programs):
            waiting |= {
                (device, program.users[mail].stage, program.users[mail].op, program.users[mail].microbatch + first)
                for mail in program.leaving
            }
    assert waiting == set()


@pytest.mark.parametrize("name", RULES)
def test_the_same_steps_are_the_same_tables(name):
    schedule = build_schedule(name, 4, 4)
    assert part(schedule, 2) is part(schedule, 7)
    assert part(schedule, 0) is not part(schedule, 1)
    assert over(schedule, 2) is over(schedule, 2)


def test_updates_take_the_mean_of_their_own_micro_batches():
    assert groups(build_schedule("pipedream", 2, 3)) == [[0], [1], [2]]
    assert groups(build_schedule("2bw", 2, 3)) == [[0, 1, 2]]
    by_hand = Schedule.from_csv("0F0,0F1,0F2,0B0,0U0,0B1,0B2,0U2\n1F0,1B0,1U0,1F1,1B1,1F2,1B2,1U2\n")
    assert groups(by_hand) == [[0], [1, 2]]


@pytest.mark.parametrize("name", RULES)
def test_without_a_flush_a_step_costs_its_work_alone(name):
    """Each step after the first adds m (tF + tB): of the bubble only the first fill and the last drain are left."""
    schedule = build_schedule(name, 4, 6)
    times = [simulate(over(schedule, k), Costs(forward=1, backward=2)).makespan for k in (1, 2, 3, 4)]
    assert [b - a for a, b in itertools.pairwise(times)] == [6 * 3] * 3


def test_recomputation_goes_along():
    schedule = build_schedule("pipedream", 2, 2, recompute=True)
    assert part(schedule, 1).to_csv() == "0F2,0R1,0B1,0U1,0F3,0R2,0B2,0U2\n1F2,1R2,1B2,1U2,1F3,1R3,1B3,1U3\n"


def test_other_schedules_have_no_next_step():
    with pytest.raises(ConfigurationError, match=r"'1f1b' is no schedule without a flush.*'pipedream'"):
        over(build_schedule("1f1b", 2, 2), 2)
    with pytest.raises(ConfigurationError, match="of one step or more, got 0"):
        over(build_schedule("2bw", 2, 2), 0)
