"""Schedules in any order on any devices, run for real against the unsplit model; and damaged ones."""

from __future__ import annotations

import contextlib
import time
from unittest import mock

import pytest
import torch
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from pipelab import Costs, DeadlockError, Pipeline, Schedule, ScheduleError, check_schedule, simulate
from pipelab.errors import PipelabError
from pipelab.runtime import gradient_error, unsplit_gradients
from tests import oracle
from tests.fuzz.cases import fuzzed
from tests.fuzz.schedules import CONTENT, ORDER, hurt, sound
from tests.runtime.small import data, mlp, mse, tuple_net
from tests.strategies import eighths

SEEK = settings(phases=[Phase.generate], max_examples=500)


def batch(schedule: Schedule, extra: int):
    """A batch that the weights cut into whole sequences: ``extra`` more than the fewest where they are even."""
    even = len(set(schedule.weights)) == 1
    return data(schedule.microbatches + extra if even else round(sum(schedule.weights)) * (1 + extra % 2))


def model(schedule: Schedule, tuples: bool = False):
    return tuple_net(schedule.stages + 1, width=3, dropout=0.2) if tuples else mlp(schedule.stages, width=3)


def outcome(pipeline: Pipeline, x, y) -> float | PipelabError:
    """How far the gradients are off, or the package's own error; anything else comes through."""
    begun = time.perf_counter()
    try:
        return pipeline.verify(x, y)
    except PipelabError as error:
        assert str(error)
        return error
    finally:
        assert time.perf_counter() - begun < 9


@contextlib.contextmanager
def unchecked():
    with mock.patch("pipelab.runtime.setup.settings.require_sound"):
        yield


# ---- sound ones ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_random_schedules_are_of_every_kind():
    wanted = [
        lambda s: any(len(homes) == 2 for homes in s.placement),
        lambda s: s.devices > 1 and any(a == b for a, b in zip(s.placement, s.placement[1:], strict=False)),
        lambda s: any(not program for program in s.programs),
        lambda s: s.ops >= set("FBIWR"),
        lambda s: any(len(oracle.parts(slot)) > 2 for program in s.programs for slot in program),
        lambda s: len(set(s.weights)) > 1,
    ]
    for wish in wanted:
        assert find(sound(), wish, settings=SEEK)


@fuzzed(sound(), few=20, many=600)
def test_any_order_that_its_needs_allow_is_sound_and_survives_text(schedule):
    assert check_schedule(schedule) == []
    assert oracle.run_all_that_can(schedule)
    given_ = {"name": schedule.name, "placement": schedule.placement, "weights": schedule.weights}
    assert Schedule.from_csv(schedule.to_csv(), **given_) == schedule
    assert Schedule.from_grid(schedule.to_grid(), **given_) == schedule
    assert check_schedule(schedule.with_recompute()) == []


@fuzzed(sound(), st.data(), few=10, many=400)
def test_its_prediction_keeps_every_need_and_wastes_no_time(schedule, drawn):
    cost = {op: drawn.draw(st.lists(eighths, min_size=schedule.stages, max_size=schedule.stages)) for op in "FBIWR"}
    costs = Costs(
        forward=cost["F"], backward=cost["B"], input_gradient=cost["I"], weight_gradient=cost["W"], recompute=cost["R"]
    )
    spans = simulate(schedule, costs).spans
    ends = {(span.device, span.position): span.end for span in spans}
    starts = {(span.device, span.position): span.start for span in spans}
    table = oracle.everything(schedule)
    for action, place in table.items():
        sender = oracle.message_need(action, schedule.stages, table)
        before = [sender] if sender else []
        before += [one for ones in oracle.local_needs(action, table) for one in ones if one in table]
        assert all(table[one] == place or ends[table[one]] <= starts[place] for one in before)
    assert ends == oracle.ends_of(
        schedule, lambda slot: sum(cost[a.op][a.stage] * schedule.weights[a.microbatch] for a in oracle.parts(slot))
    )


def runs_right(schedule: Schedule, extra: int, tuples: bool, clock: str, outstanding: int | None) -> None:
    if check_schedule(schedule, outstanding=outstanding):
        outstanding = None
    x, y = batch(schedule, extra)
    net = model(schedule, tuples)
    told = {"loss": mse, "clock": clock, "seed": 3, "time_limit": 10, "device": "cpu", "outstanding": outstanding}
    with Pipeline(net, schedule, **told) as pipeline:
        assert pipeline.verify(x, y) < 1e-10
        whole = unsplit_gradients(net, mse, x, y, seed=3, step=0)
        report = pipeline.step(x, y)
        assert abs(report.loss - whole.loss) < 1e-10
        assert gradient_error(pipeline.gradients(), whole.gradients) < 1e-10
        ran = [[span.slot for span in report.timeline.spans if span.device == r] for r in range(schedule.devices)]
        assert ran == [list(program) for program in schedule.programs]


@fuzzed(sound(), st.integers(0, 3), st.booleans(), st.sampled_from([None, 1, 3]), few=8, many=200)
def test_it_runs_to_the_unsplit_models_loss_and_gradients(schedule, extra, tuples, outstanding):
    runs_right(schedule, extra, tuples, "device", outstanding)


@fuzzed(sound(), st.integers(0, 3), st.booleans(), st.sampled_from([None, 1, 3]), few=8, many=200)
def test_and_so_it_does_with_devices_side_by_side(schedule, extra, tuples, outstanding):
    """Under the wall clock each device has a thread of its own, and they are not held to turns."""
    runs_right(schedule, extra, tuples, "wall", outstanding)


@fuzzed(sound(), few=4, many=100)
def test_it_trains_two_steps_as_the_unsplit_model_does(schedule):
    """Replicas of a stage that lives on two devices stay alike."""
    net, alone = model(schedule), model(schedule)
    x, y = batch(schedule, 2)
    optimizer = torch.optim.Adam(alone.parameters(), lr=0.01)
    told = {"loss": mse, "optimizer": lambda named: torch.optim.Adam([p for _, p in named], lr=0.01)}
    with Pipeline(net, schedule, time_limit=10, device="cpu", **told) as pipeline:
        for _ in range(2):
            optimizer.zero_grad()
            loss = mse(alone(x), y)
            loss.backward()
            optimizer.step()
            assert abs(pipeline.step(x, y).loss - float(loss.detach())) < 1e-10
        assert abs(pipeline.evaluate(x, y).loss - float(mse(alone(x), y).detach())) < 1e-8
        assert all(torch.allclose(p, dict(alone.named_parameters())[n], atol=1e-8) for n, p in net.named_parameters())


# ---- damaged ones ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_damage_may_leave_a_schedule_sound_or_not():
    assert find(hurt(), lambda s: not check_schedule(s) and not s.forward_only, settings=SEEK)
    for kind in ORDER + CONTENT:
        assert find(hurt([kind]), check_schedule, settings=SEEK)


@fuzzed(hurt(), st.sampled_from(["device", "wall"]), few=15, many=600)
def test_what_the_checker_accepts_runs_right_and_the_rest_is_refused_with_its_reasons(schedule, clock):
    found = check_schedule(schedule)
    told = {"loss": mse, "clock": clock, "time_limit": 10, "device": "cpu"}
    try:
        pipeline = Pipeline(model(schedule), schedule, **told)
    except ScheduleError as error:
        assert list(error.violations) == found
        assert found or "lists optimizer updates" in str(error)
        return
    assert not found
    with pipeline:
        if not schedule.forward_only:
            assert pipeline.verify(*batch(schedule, 1)) < 1e-10


@fuzzed(hurt(ORDER), st.sampled_from(["device", "wall"]), few=15, many=600)
def test_behind_the_checkers_back_a_wrong_order_is_caught_by_the_wire(schedule, clock):
    """The detective ends what waits for ever. Of stages on one device only the checker knows who comes first."""
    found = check_schedule(schedule)
    with unchecked():
        pipeline = Pipeline(model(schedule), schedule, loss=mse, clock=clock, time_limit=10, device="cpu")
        came = outcome(pipeline, *batch(schedule, 1))
    if not found:
        assert came < 1e-10
    elif {violation.code for violation in found} == {"wait-cycle"}:
        assert isinstance(came, DeadlockError), came
