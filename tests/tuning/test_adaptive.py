"""Layers move when a device has become slower or memory short, and training stays what it is."""

import json
import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipelab import Adaptive, ConfigurationError, Costs, Pipeline, build_schedule, profile_layers, split_model
from pipelab.runtime.device import clocks
from tests.runtime.processes.test_torchrun import agents
from tests.runtime.small import Work, mse

TABLE = build_schedule("1f1b", 3, 4)
LAYERS = 12
SPENT = threading.local()


class Costing(nn.Module):
    """A layer whose forward takes so many seconds on a CPU clock that only such layers move."""

    def __init__(self, seconds):
        super().__init__()
        self.lin, self.seconds = nn.Linear(5, 5), seconds

    def forward(self, x):
        SPENT.seconds = spent() + self.seconds * (1 + len(x))
        return torch.tanh(self.lin(x))


def spent():
    return getattr(SPENT, "seconds", 0.0)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(clocks, "time", SimpleNamespace(perf_counter=time.perf_counter, thread_time=spent))


def layers(kind=Costing, seconds=0.001):
    torch.manual_seed(0)
    return nn.Sequential(*(kind(seconds) for _ in range(LAYERS))).double()


def batch(step, size=32):
    torch.manual_seed(step)
    return torch.randn(size, 5).double(), torch.randn(size, 5).double()


def adam(named):
    return torch.optim.Adam([p for _, p in named], lr=0.01)


def made(model=None, table=TABLE, **settings):
    return Pipeline(model or layers(), table, **{"loss": mse, "optimizer": adam, "device": "cpu"} | settings)


def profiled(**settings):
    how = {"loss": mse, "optimizer": adam, "progress": False, "sizes": (1, 2), "repeats": 1}
    return profile_layers(layers(), *batch(0), **how | settings)


def unsplit(model, steps):
    """Losses of so many steps."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for step in range(steps):
        optimizer.zero_grad()
        inputs, targets = batch(step)
        loss = mse(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_weights(pipeline, model):
    trained = pipeline.state_dict()
    return max((trained[name] - value).abs().max().item() for name, value in model.state_dict().items()) <= 1e-10


def test_layers_leave_a_device_that_has_become_slower_and_training_is_that_of_the_unsplit_model():
    whole, told, spans, losses = layers(), [], [], []
    pipeline = made()
    adaptive = Adaptive(pipeline, profiled(), every=3, told=told.append)
    for step in range(20):
        if step == 5:
            assert adaptive.history == [] and told == []
            pipeline.speeds = [1, 0.5, 1]
        report = adaptive.step(*batch(step))
        losses.append(report.loss)
        spans.append(report.timeline.makespan)
    assert losses == pytest.approx(unsplit(whole, 20), abs=1e-10)
    assert same_weights(pipeline, whole)
    (moved,) = adaptive.history
    assert (moved.step, moved.moved, moved.why) == (6, True, "device 1 takes 2.0 times as long per layer as before")
    assert moved.before.sizes == (4, 4, 4) and moved.after.sizes == (5, 2, 5)
    assert moved.before.measured == pytest.approx(moved.before.predicted) == spans[6]
    assert moved.after.measured == pytest.approx(moved.after.predicted) == spans[-1]
    assert spans[4] < spans[-1] < 0.75 * spans[6]
    (line,) = told
    assert re.fullmatch(
        r"step 6: device 1 takes 2\.0 times as long per layer as before; layers 4 4 4 -> 5 2 5; predicted [\d.]+ m?s a "
        r"step instead of [\d.]+ m?s",
        line,
    )
    assert str(moved).startswith(line) and "; measured" in str(moved)


def test_nothing_moves_on_a_machine_that_only_jitters():
    generator = torch.Generator().manual_seed(0)

    class Jitter(Costing):
        def forward(self, x):
            SPENT.seconds = spent() + 0.3 * self.seconds * (torch.rand(1, generator=generator).item() - 0.5)
            return super().forward(x)

    adaptive = Adaptive(made(layers(Jitter)), profiled(), every=3, told=None)
    for step in range(40):
        adaptive.step(*batch(step))
        adaptive.pipeline.speeds = [1 - step / 1000, 1, 1]  # and drifts
    assert adaptive.history == []


def test_a_machine_that_is_slower_as_a_whole_moves_nothing_but_uneven_layers_do():
    profile = profiled()
    pipeline = made(speeds=[0.5, 0.5, 0.5])
    adaptive = Adaptive(pipeline, profile, every=2, told=None)
    for step in range(7):
        adaptive.step(*batch(step))
    assert adaptive.history == []
    pipeline.reschedule(build_schedule("gpipe", 3, 4), [2, 4])
    for step in range(7):
        adaptive.step(*batch(step))
    (moved,) = adaptive.history
    assert (moved.before.sizes, moved.after.sizes) == ((2, 2, 8), (4, 4, 4)), "someone else had moved them"
    assert moved.why == "other cuts are better" and pipeline.schedule.name == "gpipe"


def test_a_gain_that_is_too_small_moves_nothing_and_says_so():
    adaptive = Adaptive(made(), profiled(), every=2, least_gain=0.9, told=None)
    for step in range(9):
        if step == 3:
            adaptive.pipeline.speeds = [1, 1, 0.5]
        adaptive.step(*batch(step))
    (kept,) = adaptive.history
    assert not kept.moved and kept.after is kept.before
    assert re.fullmatch(
        r"step 4: device 2 takes 2\.0 times as long per layer as before, the best cut saves \d\d% of a step; nothing "
        "moves",
        str(kept),
    )


def test_where_memory_is_short_stages_shrink_then_micro_batches_and_what_never_fits_is_said_once():
    pipeline, whole, losses = made(), layers(), []
    adaptive = Adaptive(pipeline, profiled(), every=2, told=None)

    def held(limit, steps=6):
        adaptive.memory_limit = limit
        for _ in range(steps):
            report = adaptive.step(*batch(len(losses)))
            losses.append(report.loss)
        return [one.total for one in report.memory]

    first = held(None)
    assert adaptive.history == [] and max(first) == first[0]
    limit = first[0] - 1
    assert max(held(limit)) <= 0.95 * limit
    cut = adaptive.history[-1]
    assert cut.why.startswith("device 0 holds ") and cut.after.sizes[0] < 4 and cut.after.schedule is TABLE
    limit = int(0.8 * limit)
    assert max(held(limit)) <= 0.95 * limit
    assert str(adaptive.history[-1].after) == "1f1b with m = 8"
    assert "1f1b with m = 8 in place of 1f1b with m = 4; " in str(adaptive.history[-1])
    held(100, steps=12)
    assert [one.moved for one in adaptive.history] == [True, True, False]
    assert "no cuts fit, nor do they with 1f1b and smaller micro-batches; recomp" in adaptive.history[-1].why
    held(None)
    assert losses == pytest.approx(unsplit(whole, len(losses)), abs=1e-10)
    assert same_weights(pipeline, whole)


def test_what_cannot_run_is_said_and_training_goes_on():
    dropping, alike = (nn.Sequential(*layers(), last) for last in (nn.Dropout(0.1), nn.Identity()))
    four, rows = build_schedule("1f1b", 2, 4), torch.randn(4, 40, 5).double()
    profile = profile_layers(alike, rows, rows, loss=mse, sizes=(1, 2), repeats=1, recompute=True, progress=False)
    adaptive = Adaptive(made(dropping, four), profile, every=2, least_gain=0.5, told=None)
    for step in range(9):
        report = adaptive.step(rows, rows)
        if step == 2:
            adaptive.memory_limit = 0.7 * max(one.total for one in report.memory)
    (refused,) = adaptive.history
    assert not refused.moved and "cannot run: stage 1 has Dropout" in refused.why
    assert adaptive.pipeline.schedule is four


def test_a_schedule_that_cannot_be_sent_so_is_said_and_training_goes_on():
    adaptive = Adaptive(
        made(table=build_schedule("gpipe", 3, 4), sends="blocking"), profiled(), every=2, least_gain=0.5, told=None
    )
    for step in range(6):
        report = adaptive.step(*batch(step))
        if step == 2:
            adaptive.memory_limit = 0.6 * max(one.total for one in report.memory)
    refused = adaptive.history[-1]
    assert not refused.moved and "cannot run: schedule '1f1b' cannot run" in refused.why


def test_cuts_that_others_made_are_judged_by_their_own_steps():
    adaptive = Adaptive(made(), profiled(), every=9, told=None)
    for step in range(3):
        adaptive.step(*batch(step))
    adaptive.pipeline.reschedule(TABLE, [2, 4])
    with pytest.raises(ConfigurationError, match="no step was watched with these cuts"):
        adaptive.consider()


def test_one_micro_batch_can_be_profiled_and_one_sequence_cannot():
    for size in (2, 1):
        adaptive = Adaptive(made(table=build_schedule("naive", 3, 1)), every=2, told=None)
        for step in range(2):
            adaptive.step(*batch(step, size))
        if size == 2:
            adaptive.step(*batch(2, size))
            continue
        with pytest.raises(ConfigurationError, match="this batch has one sequence; give Adaptive a profile"):
            adaptive.step(*batch(2, size))


def test_without_a_profile_a_copy_is_profiled_and_nothing_of_the_model_changes():
    whole, losses = layers(), []
    pipeline = made()
    adaptive = Adaptive(pipeline, every=2, told=None)
    for step in range(9):
        losses.append(adaptive.step(*batch(step)).loss)
        pipeline.speeds = [0.5, 1, 1]
    (moved,) = adaptive.history
    assert moved.why == "device 0 takes 2.0 times as long per layer as profiled" and moved.after.sizes[0] < 4
    assert losses == pytest.approx(unsplit(whole, 9), abs=1e-10)


def test_processes_move_layers_too(monkeypatch):
    monkeypatch.setattr(clocks, "time", time)
    whole, losses = layers(Work, 0.0005), []
    with made(layers(Work, 0.0005), launch="processes") as pipeline:
        adaptive = Adaptive(pipeline, every=2, told=None)
        for step in range(8):
            losses.append(adaptive.step(*batch(step)).loss)
            pipeline.speeds = [1, 0.2, 1]
        assert losses == pytest.approx(unsplit(whole, 8), abs=1e-10)
        assert same_weights(pipeline, whole)
    moved = [one for one in adaptive.history if one.moved]
    assert "device 1 takes" in moved[0].why and moved[-1].after.sizes[1] < 4


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_under_torchrun_rank_0_decides_for_all(tmp_path, replicas):
    """Of two replicas the second one has a slow device."""
    ranks = 2 * replicas
    ((code, _, err),) = agents([Path(__file__).with_name("adaptive_ranks.py"), tmp_path, replicas], ranks=ranks)
    assert code == 0, err[-3000:]
    first, *others = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks))
    assert first["took"][0] > 0, "what rank 0 has measured, the others know too"
    assert first["sizes"][0] == [6, 6] and first["sizes"][-1][1] < 6
    assert first["told"] == len(first["sizes"]) - 1
    assert first["losses"] == pytest.approx(unsplit(layers(Work, 0.0005), 8), abs=1e-10)
    assert others == [first | {"told": 0}] * (ranks - 1)


def test_of_each_device_the_slowest_replica_counts():
    adaptive = Adaptive(made(), profiled(), every=3, told=None)

    def both(tell):
        own = tell()
        return [own, [replace(one, busy=[cost * (1 + (r == 1)) for r, cost in enumerate(one.busy)]) for one in own]]

    adaptive.pipeline._engine.of_replicas = both
    for step in range(4):
        adaptive.step(*batch(step))
    (moved,) = adaptive.history
    assert moved.why == "device 1 of replica 1 takes 2.0 times as long per layer as profiled"
    assert moved.after.sizes == (5, 2, 5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every": 0}, "every must be"),
        ({"least_gain": 5}, "least_gain is a part of a step and must be at least 0 and below 1, got 5; try 0.05"),
        ({"least_gain": "0.1"}, "least_gain is a part of a step"),
        ({"memory_limit": "much"}, "memory_limit must be positive bytes"),
        ({"memory_limit": [1, 2]}, "memory_limit is given for 2 devices, there are 3"),
        ({"layers": 3}, "a cut is planned from a CostProfile of single layers, got int"),
        ({"told": "print"}, "told must be a function of a sentence, or None, got 'print'; try told=print"),
    ],
)
def test_wrong_arguments_are_refused(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        Adaptive(made(), **settings)


def test_pipelines_whose_layers_cannot_move_are_refused():
    refused = {
        "Adaptive is for a Pipeline, got Sequential": layers(),
        r"pass it an nn.Sequential": made(split_model(layers(), batch(0)[0], 3)),
        "'pipedream' updates weights on the way.* take '1f1b'": made(table=build_schedule("pipedream", 3, 4)),
        "'chimera' has stages on two devices": made(table=build_schedule("chimera", 2, 4)),
        "with measure_costs=False no one knows": made(measure_costs=False),
        "with clock='unit' no one knows": made(clock="unit", costs=Costs(1, 2)),
    }
    for said, pipeline in refused.items():
        with pytest.raises(ConfigurationError, match=said):
            Adaptive(pipeline)
    with pytest.raises(ConfigurationError, match="memory_limit needs measure_memory=True"):
        Adaptive(made(measure_memory=False)).memory_limit = "1MB"
    with pytest.raises(ConfigurationError, match="no step was watched"):
        Adaptive(made()).consider()


def test_a_profile_of_another_model_or_without_what_the_schedule_needs_is_refused():
    small = nn.Sequential(*layers()[:5])
    profile = profile_layers(small, *batch(0), loss=mse, sizes=(1, 2), repeats=1, progress=False)
    with pytest.raises(ConfigurationError, match="the profile has 5 layers, and the model of this Pipeline has 12"):
        Adaptive(made(), profile)
    with pytest.raises(ConfigurationError, match="split=True"):
        Adaptive(made(small, build_schedule("zb-h1", 2, 4)), profile)
