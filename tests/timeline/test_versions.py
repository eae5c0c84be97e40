"""The version of the weights that each action uses, and how many a device keeps, as the runtime keeps them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipelab import Pipeline, build_schedule
from pipelab.schedules import Action, Schedule
from pipelab.schedules.updates import over, part, part_in, steps_in_flight
from pipelab.simulation import Costs, simulate
from pipelab.timeline.versions import staleness, versions_of

PEAKS = {"pipedream": (4, 3, 2, 1), "vertical-sync": (4, 4, 4, 4), "2bw": (2, 2, 2, 2)}


def act(token):
    return Action.parse(token)


def mse(y, target):
    return ((y - target) ** 2).mean()


def running(name, p, m, **options):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(p)]).double()
    sgd = lambda named: torch.optim.SGD([q for _, q in named], lr=0.01)  # noqa: E731
    return Pipeline(model, build_schedule(name, p, m), loss=mse, optimizer=sgd, **options)


@pytest.mark.parametrize("name", PEAKS)
def test_peaks_are_those_of_the_theory(name):
    assert versions_of(simulate(over(build_schedule(name, 4, 4), 3))).peaks == PEAKS[name]


def test_a_table_that_flushes_has_one_version_and_nothing_to_say():
    assert versions_of(simulate(build_schedule("1f1b", 4, 4), Costs(update=1.0))) is None
    assert versions_of(simulate(over(build_schedule("2bw", 2, 2), 3).forward_part())) is None


def test_backwards_use_the_version_of_their_forward_and_updates_say_what_they_make():
    found = versions_of(simulate(over(build_schedule("pipedream", 4, 4), 2)))
    for i in range(8):
        for s in range(4):
            assert found.used[Action(s, "F", i)] == found.used[Action(s, "B", i)] == max(0, i - (3 - s))
            assert found.used[Action(s, "U", i)] == i + 1
    assert found.makers[1, 3] == act("1U2")
    assert found.sentence(act("1B5")) == (
        "Uses version 3 of stage 1's weights, made by 1U2, two updates behind the newest."
    )
    assert found.sentence(act("1F5")) == "Uses version 3 of stage 1's weights, made by 1U2, the newest."
    assert found.sentence(act("0F0")) == "Uses version 0 of stage 0's weights, those it began with, the newest."
    assert found.sentence(act("1U2")) == "Makes version 3 of stage 1's weights."
    assert found.sentence(act("9F9")) == ""


def test_without_a_stash_a_backward_uses_what_is_there():
    timeline = replace(simulate(build_schedule("pipedream", 2, 3)), stash=False)
    found = versions_of(timeline)
    assert found.peaks == (1, 1)
    assert found.sentence(act("0B1")) == (
        "Uses version 1 of stage 0's weights, made by 0U0; its forward used version 0, which is gone."
    )


def test_a_table_by_hand_uses_the_newest():
    table = Schedule.from_csv("0F0,0F1,0B0,0U0,0B1,0U1\n1F0,1B0,1U0,1F1,1B1,1U1\n")
    found = versions_of(simulate(table))
    assert (found.used[act("0F1")], found.used[act("1F1")], found.peaks) == (0, 1, (2, 1))


@pytest.mark.parametrize(("name", "p", "m"), [("pipedream", 4, 1), ("pipedream", 3, 4), ("vertical-sync", 3, 2)])
def test_a_part_counts_on_from_the_oldest_step_on_its_way(name, p, m):
    schedule = build_schedule(name, p, m)
    far = steps_in_flight(schedule)
    for before in range(3 * far + 1):
        whole = versions_of(simulate(over(schedule, before + 1)))
        one = part(schedule, before)
        mine = versions_of(simulate(one, check=False))
        shift = max(before - far, 0) * m
        for *_, action in one.actions():
            there = replace(action, microbatch=action.microbatch + shift)
            assert mine.used[action] + shift == whole.used[there], (before, action)
    assert part_in(one).since.microbatches == (2 * far + 1) * m


def test_what_an_earlier_step_made_is_said_so():
    mine = versions_of(simulate(part(build_schedule("pipedream", 4, 4), 5), check=False))
    assert mine.sentence(act("0B2")) == (
        "Uses version -1 of stage 0's weights, made earlier, three updates behind the newest."
    )


@pytest.mark.parametrize("name", PEAKS)
@pytest.mark.parametrize(("p", "m"), [(3, 1), (4, 4), (3, 5)])
def test_what_a_real_run_keeps_is_what_the_timeline_says(name, p, m):
    if name == "2bw" and m < p:
        pytest.skip("2BW needs m >= p")
    x = torch.randn(2 * m, 4, dtype=torch.float64)
    with running(name, p, m) as pipeline:
        for _ in range(3 + 2 * p):
            report = pipeline.step(x, x)
            assert versions_of(report.timeline).peaks == report.weight_versions
        assert versions_of(pipeline.drain().timeline).peaks[-1] >= 1


def test_a_real_run_without_a_stash_says_so():
    x = torch.randn(4, 4, dtype=torch.float64)
    with running("pipedream", 1, 2, stash=False) as pipeline:
        report = pipeline.step(x, x)
        assert (versions_of(report.timeline).peaks, report.weight_versions) == ((1,), (1,))


@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_staleness_is_how_many_updates_a_gradient_misses(p):
    """PipeDream's grows towards the input, vertical sync's is the same everywhere, 2BW's is one update."""
    assert staleness(build_schedule("pipedream", p, 3)) == tuple(range(p - 1, -1, -1))
    assert staleness(build_schedule("vertical-sync", p, 4)) == (p - 1,) * p
    assert staleness(build_schedule("2bw", p, p + 1)) == (1,) * p
    assert staleness(build_schedule("1f1b", p, 4)) == (0,) * p
