from __future__ import annotations

import threading

import pytest
import torch

from pipelab import Action
from pipelab.runtime.device.channels import Aborted, Wire
from pipelab.runtime.device.payload import Payload
from pipelab.schedules.wire import Channel

CHANNEL = Channel("activation", 0, 1)
CPU = torch.device("cpu")


def payload(i, tensor=None):
    tensor = torch.ones(2) if tensor is None else tensor
    return Payload((tensor,), True, (True,), Action(0, "F", i))


def wire(**settings):
    return Wire([CHANNEL], [CPU, CPU], **settings)


def test_messages_come_in_the_order_of_sending():
    made = wire()
    for i in range(3):
        made.send(CHANNEL, payload(i))
    assert [made.receive(CHANNEL).producer.microbatch for _ in range(3)] == [0, 1, 2]


def test_the_receiver_has_memory_of_its_own():
    """Story: with the sender's storage, an in-place layer of the next stage would change what the sender saved."""
    made, tensor = wire(), torch.zeros(3)
    made.send(CHANNEL, payload(0, tensor))
    received = made.receive(CHANNEL).tensors[0]
    received += 1
    assert tensor.tolist() == [0, 0, 0]
    assert not received.requires_grad


def test_a_receiver_that_waits_is_woken_by_abort():
    made = wire()
    threading.Timer(0.05, made.abort).start()
    with pytest.raises(Aborted):
        made.receive(CHANNEL)
    with pytest.raises(Aborted):
        made.check()


def test_on_the_strict_wire_a_sender_waits_until_few_enough_are_outstanding():
    made = wire(outstanding=1)
    made.send(CHANNEL, payload(0))
    made.settle([CHANNEL])  # one may be outstanding
    made.send(CHANNEL, payload(1))
    settled = threading.Event()

    def sender():
        made.settle([CHANNEL])
        settled.set()

    thread = threading.Thread(target=sender)
    thread.start()
    assert not settled.wait(0.05)
    made.receive(CHANNEL)
    assert settled.wait(5)
    thread.join()


def test_stamps_tell_when_it_was_sent_and_taken():
    made = wire(latency=0.01)
    made.send(CHANNEL, payload(0))
    received = made.receive(CHANNEL)
    assert received.taken - received.sent >= 0.01
