"""What the checker accepts runs and gives the right gradient; what it refuses does not start."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelab import Action, Pipeline, Schedule, ScheduleError, build_schedule, check_schedule
from tests.fuzz.cases import fuzzed
from tests.runtime.small import check_step, mse, tuple_net


@st.composite
def tables(draw):
    """A sound table, its backwards perhaps split, its slots swapped here and there."""
    p, m = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    name = draw(st.sampled_from(["gpipe", "1f1b", "interleaved"]))
    if name == "interleaved":
        m = p
    schedule = build_schedule(name, p, m, recompute=draw(st.booleans()))
    chance = random.Random(draw(st.integers(0, 10**6)))
    programs = [list(program) for program in schedule.programs]
    if draw(st.booleans()):
        for program in programs:
            for k in reversed(range(len(program))):
                a = program[k]
                if a.op == "B":
                    program[k] = Action(a.stage, "I", a.microbatch)
                    program.insert(chance.randint(k + 1, len(program)), Action(a.stage, "W", a.microbatch))
    for _ in range(draw(st.integers(0, 4))):
        program = programs[chance.randrange(p)]
        k = chance.randrange(len(program))
        other = min(len(program) - 1, k + chance.randint(1, 3))
        program[k], program[other] = program[other], program[k]
    return replace(schedule, name="shuffled", programs=tuple(map(tuple, programs)))


@settings(max_examples=60, deadline=None)
@given(tables())
def test_what_the_checker_accepts_gives_the_right_gradient_and_the_rest_is_refused(schedule):
    violations = check_schedule(schedule)
    if violations:
        with pytest.raises(ScheduleError) as caught:
            Pipeline(tuple_net(8), schedule, loss=mse)
        assert list(caught.value.violations) == violations
    else:
        check_step(tuple_net(8, dropout=0.2), schedule)


@settings(max_examples=40, deadline=None)
@given(tables())
def test_what_the_checker_accepts_with_bounded_sends_runs_on_the_strict_wire(schedule):
    if check_schedule(schedule, outstanding=1):
        with pytest.raises(ScheduleError):
            Pipeline(tuple_net(8), schedule, loss=mse, outstanding=1)
    else:
        check_step(tuple_net(8), schedule, outstanding=1)


@fuzzed(
    st.sampled_from(["naive", "gpipe", "1f1b", "interleaved"]),
    *(st.integers(1, 6), st.integers(1, 10), st.integers(1, 3), st.booleans()),
    few=25,
    many=120,
)
def test_every_generated_schedule_runs_on_the_strict_wire(name, p, m, v, recompute):
    groups = max(1, m // p)
    if name == "interleaved":
        m -= m % groups
    room = max(1, m // groups - p + 1) if name == "interleaved" and groups > 1 else 1  # groups of more than p need more
    schedule = build_schedule(name, p, m, v if name == "interleaved" else None, recompute=recompute)
    assert check_schedule(schedule, outstanding=room) == []
    check_step(tuple_net(18, width=3), schedule, outstanding=room)


def test_a_table_read_from_csv_trains():
    text = build_schedule("interleaved", 2, 4, 2).to_csv()
    check_step(tuple_net(8), Schedule.from_csv(text))


def test_uneven_weights_of_the_users_own_cut_the_batch():
    schedule = Schedule.from_csv("0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1\n", weights=(0.5, 1.5))
    _, report = check_step(tuple_net(4), schedule)
    assert report.timeline.peak_sequences == (64, 48)
