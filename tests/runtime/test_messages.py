"""What links with a compression do to a step: fewer bytes, and gradients that are not exact."""

from __future__ import annotations

import pytest
import torch

from pipelab import Costs, Link, Links, Pipeline, build_schedule
from tests.runtime.small import data, mlp, mse, tuple_net

ERRORS = {"bf16": 2**-6, "int8": 2**-3}
"""Of gradients: some messages are packed eight times in a row, and errors add up."""


def step(compression, name="1f1b", model=None, launch="threads", clock="device", batch=10):
    schedule = build_schedule(name, devices=3, microbatches=4)
    model = tuple_net(schedule.stages * 2, width=32) if model is None else model
    links = Links(compression=compression)
    told = {"loss": mse, "links": links, "launch": launch, "clock": clock, "device": "cpu"}
    with Pipeline(model, schedule, **told) as pipeline:
        report = pipeline.step(*data(batch))
        return report, pipeline.gradients(), pipeline.verify(*data(batch))


def test_without_compression_nothing_is_packed():
    report, _, error = step(None)
    assert report.compression is None and error < 1e-14
    assert {d.saved for d in report.deliveries} == {0}


@pytest.mark.parametrize("clock", ["device", "wall"])
@pytest.mark.parametrize("compression", ["bf16", "int8"])
def test_a_report_tells_the_bytes_and_the_proof_the_error(compression, clock):
    whole, exact, _ = step(None)
    report, found, error = step(compression, clock=clock)
    assert 1e-6 < error < ERRORS[compression]
    assert report.loss == pytest.approx(whole.loss, rel=0.05) and report.loss != whole.loss
    sizes = [[d.size for d in one.deliveries] for one in (whole, report)]
    assert report.compression.before == sum(sizes[0]) == sum(d.size + d.saved for d in report.deliveries)
    assert report.compression.after == sum(sizes[1])
    assert 0.7 < report.compression.saving < 0.9
    assert str(report.compression).endswith(f"{report.compression.saving:.0%} less")
    assert found.keys() == exact.keys()


@pytest.mark.parametrize("compression", ["bf16", "int8"])
def test_threads_and_processes_agree_bit_for_bit_and_as_few_bytes_travel(compression):
    here, there = (step(compression, launch=launch) for launch in ("threads", "processes"))
    assert here[0].loss == there[0].loss
    assert here[0].compression == there[0].compression
    assert here[1].keys() == there[1].keys()
    assert all(torch.equal(gradient, there[1][name]) for name, gradient in here[1].items())


@pytest.mark.parametrize("name", ["gpipe", "interleaved", "zb-h1", "zb-v"])
def test_gradients_are_near_with_every_kind_of_schedule(name):
    report, _, error = step("bf16", name, batch=12)
    assert 0 < error < ERRORS["bf16"]
    assert report.compression.saving > 0.7


def test_only_the_messages_between_nodes_are_packed():
    links = Links.nodes(2, inside=Link(), between=Link(compression="int8"))
    with Pipeline(mlp(8, 32), build_schedule("1f1b", 4, 4), loss=mse, links=links) as pipeline:
        report = pipeline.step(*data())
    packed = {(d.channel.source, d.channel.destination) for d in report.deliveries if d.saved}
    assert packed == {(1, 2), (2, 1)}


def test_a_modelled_link_takes_the_packed_bytes():
    times = []
    for compression in (None, "int8"):
        links = Links(bandwidth=1e6, compression=compression)
        with Pipeline(mlp(4, 64), build_schedule("gpipe", 2, 2), loss=mse, clock="wall", links=links) as pipeline:
            report = pipeline.step(*data())
        late = [d.ready - d.sent for d in report.deliveries]
        times.append(min(late))
        assert min(late) == pytest.approx(report.deliveries[0].size / 1e6, rel=1e-3)
    assert times[1] < times[0] / 5


@pytest.mark.parametrize("clock", ["device", "unit"])
def test_bytes_that_were_measured_on_their_way_are_not_packed_again(clock):
    given = {"costs": Costs(links=Links(bandwidth=1e3, compression="int8"))} if clock == "unit" else {}
    links = Links(compression="int8") if given else Links(bandwidth=1e3, compression="int8")
    with Pipeline(mlp(4, 64), build_schedule("gpipe", 2, 2), loss=mse, clock=clock, links=links, **given) as pipeline:
        report = pipeline.step(*data())
    assert {message.size for message in report.timeline.messages} == {d.size for d in report.deliveries}


def test_a_profile_has_the_bytes_that_travel_and_those_that_are_kept():
    found = []
    for compression in (None, "int8"):
        with Pipeline(mlp(4, 32), build_schedule("1f1b", 2, 2), loss=mse, links=Links(compression=compression)) as made:
            found.append(made.profile(*data()))
    assert found[0].input_bytes == found[1].input_bytes
    assert found[1].message_bytes[0] < found[0].message_bytes[0] / 4


def test_without_a_flush_messages_that_are_on_their_way_between_steps_are_packed_too():
    def sgd(named):
        return torch.optim.SGD([p for _, p in named], lr=0.05)

    losses = []
    for compression in (None, "bf16"):
        links = Links(compression=compression)
        told = {"loss": mse, "optimizer": sgd, "links": links}
        with Pipeline(mlp(6, 32), build_schedule("pipedream", 3, 4), **told) as pipeline:
            losses.append([pipeline.step(*data()).loss for _ in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0][-1] != losses[1][-1]
