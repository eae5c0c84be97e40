from __future__ import annotations

import threading
import time

import pytest
import torch

from pipelab.runtime.device.channels import Aborted, Wire
from pipelab.runtime.device.payload import Payload
from pipelab.schedules.wire import Channel
from pipelab.simulation.links import Links

CHANNEL = Channel("activation", 0, 1)
CPU = torch.device("cpu")


def payload(i, size=2):
    return Payload((torch.full((size,), float(i)),), True, (True,))


def ends(**settings):
    made = Wire([CHANNEL], [CPU, CPU], **settings)
    return made, made.outlet(CHANNEL), made.inlet(CHANNEL)


def test_messages_come_in_the_order_of_sending():
    _, send, receive = ends()
    for i in range(3):
        send(payload(i))
    assert [receive().tensors[0][0] for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("woken_by", ["abort", "interrupt"])
def test_a_receiver_that_waits_is_woken(woken_by):
    wire, _, receive = ends()
    threading.Timer(0.05, getattr(wire, woken_by)).start()
    for _ in range(2):
        with pytest.raises(Aborted):
            receive()
    with pytest.raises(Aborted):
        wire.check()
    assert wire.stopped


def test_on_the_strict_wire_a_sender_waits_until_few_enough_are_outstanding():
    wire, send, receive = ends(outstanding=1)
    settle = wire.settling(CHANNEL)
    send(payload(0))
    settle()  # one may be outstanding
    send(payload(1))
    settled = threading.Event()

    def sender():
        settle()
        settled.set()

    thread = threading.Thread(target=sender)
    thread.start()
    assert not settled.wait(0.05)
    receive()
    assert settled.wait(5)
    thread.join()


def test_a_sender_that_waits_is_woken_by_abort():
    wire, send, _ = ends(outstanding=0)
    send(payload(0))
    threading.Timer(0.05, wire.abort).start()
    with pytest.raises(Aborted):
        wire.settling(CHANNEL)()


def test_where_devices_take_turns_no_end_waits():
    wire, send, receive = ends(outstanding=0, turns=True)
    settle = wire.settling(CHANNEL)
    assert receive() is None
    send(payload(7))
    assert not settle()
    assert receive().tensors[0][0] == 7
    assert settle()
    wire.abort()
    with pytest.raises(Aborted):
        receive()


def test_in_a_group_a_sender_waits_until_the_receiver_posts_and_not_until_it_takes():
    wire, send, receive = ends(outstanding=0, batched=True, turns=True)
    settle, post = wire.settling(CHANNEL), wire.posting(CHANNEL)
    send(payload(7))
    assert not settle()
    post()
    assert settle()
    assert receive().tensors[0][0] == 7
    send(payload(8))
    assert receive().tensors[0][0] == 8
    assert not settle(), "taking says nothing"


def test_sends_that_nothing_bounds_need_not_settle():
    wire, _, _ = ends()
    assert wire.settling(CHANNEL) is wire.posting(CHANNEL) is None


def test_a_modelled_link_delivers_one_after_the_other():
    _, send, receive = ends(links=Links(0.01, 8e2))  # 8 bytes take 10 ms
    sent = [send(payload(i)) for i in range(2)]
    first, second = receive(), receive()
    assert first.ready == pytest.approx(sent[0] + 0.02)
    assert second.ready == pytest.approx(sent[0] + 0.03, abs=2e-3)
    assert time.perf_counter() >= second.ready
