"""A link's latency and bandwidth are read off the messages that somebody was waiting for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelab.tuning.monitor.links import line_of, measure_links
from tests.tuning.monitor.watched import BATCH, watched


def report(**settings):
    with watched(None, work=(1, 1), clock="wall", **settings) as pipeline:
        pipeline.step(*BATCH)
        return pipeline.step(*BATCH)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_a_modelled_link_is_found_again(launch):
    """Messages of 4 and 3 sequences, 32 bytes each."""
    links = measure_links(report(launch=launch, m=5, latency=0.03, bandwidth=32000.0))
    assert [(link.source, link.destination, link.messages) for link in links] == [(0, 1, 5), (1, 0, 5)]
    for link in links:
        assert 1 <= link.waited_for <= 5
        assert 0.8 < link.seconds / (0.03 + link.bytes / 32000) < 10
        assert link.bandwidth == link.bytes / link.seconds


def test_two_sizes_make_a_line():
    """Gradients of 6, 5 and 5 sequences come to a device 0 that does nothing but wait for them."""
    made = report(m=3)
    receiver, sender = made.logs
    sent = [10.0, 20.0, 30.0]
    taken = [t + 2 + 0.001 * size for t, size in zip(sent, receiver.sizes, strict=True)]
    readings = replace(receiver.readings, host_end=[1.0, 2.0, 13.0, 14.0, 23.0, 33.0])
    logs = [replace(receiver, taken=taken, readings=readings), replace(sender, sent=sent)]
    found = replace(made, logs=logs)
    (link,) = [link for link in measure_links(found) if link.destination == 0]
    assert (link.messages, link.waited_for, link.bytes) == (3, 3, 5 * 32)
    assert (link.line.alpha, link.line.beta) == pytest.approx((2, 0.001))
    assert line_of(found).alpha == pytest.approx(2, rel=0.2)


def test_a_message_that_lay_and_waited_shows_no_link():
    """The receiver is busy until 100; what was sent before that is not measured."""
    made = report(m=2)
    sender, receiver = made.logs
    sender = replace(sender, sent=[1.0, 2.0])
    readings = replace(receiver.readings, host_end=[100.0, 101.0, 102.0, 103.0])
    receiver = replace(receiver, taken=[50.0, 100.5], readings=readings)
    forward, _ = measure_links(replace(made, logs=[sender, receiver]))
    assert (forward.waited_for, forward.seconds, forward.bandwidth, forward.line) == (0, None, None, None)


def test_under_another_clock_no_link_is_measured():
    assert measure_links(replace(report(), clock="device")) == ()
    assert line_of(report()) is not None
