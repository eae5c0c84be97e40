"""A line within a host, both of its ends in this process."""

import gc
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from pipelab.runtime.processes.wires.home import Home
from pipelab.runtime.processes.wires.local import SHARED, Layout, LocalLine
from pipelab.schedules.wire import Channel

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
shapes = st.one_of(
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.sampled_from([(SHARED // 8,), (3, SHARED), (SHARED - 1,), (SHARED,)]),
)


@contextmanager
def line():
    """(sender, receiver)."""
    ends = [LocalLine(end) for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)]
    try:
        yield ends
    finally:
        for end in ends:
            end.hang_up()
        for end in ends:
            end.settle(5.0)


def filled(shape, dtype):
    return (torch.rand(shape) * 100).to(dtype)


@given(st.lists(st.lists(st.tuples(shapes, st.sampled_from(DTYPES)), max_size=3), min_size=1, max_size=6))
def test_what_is_sent_arrives_in_order_bit_for_bit(messages):
    sent = [[filled(*one) for one in message] for message in messages]
    with line() as (sender, receiver):
        for number, tensors in enumerate(sent):
            layout = Layout.of(tensors, len(tensors) == 1, tuple(t.is_floating_point() for t in tensors))
            sender.send(layout, tensors, stamp=float(number))
            for tensor in tensors:
                tensor.zero_()  # a stage may go on in place
        torch.manual_seed(0)
        for number, message in enumerate(messages):
            layout, tensors, stamp = receiver.receive()
            assert [(t.shape, t.dtype) for t in tensors] == [(torch.Size(s), d) for s, d in message]
            assert (layout.single, stamp) == (len(message) == 1, float(number))
            assert all(t.is_contiguous() and not t.requires_grad for t in tensors)


@pytest.mark.parametrize("size", [8, SHARED])
def test_the_values_are_those_at_the_time_of_sending_whatever_a_tensor_lies_like(size):
    whole = torch.arange(4.0 * size).view(2, 2 * size)
    odd = [whole.t(), whole[:, ::2], whole.requires_grad_() * 2, torch.view_as_complex(torch.rand(size, 2)).conj()]
    with line() as (sender, receiver):
        for tensor in odd:
            sender.send(Layout.of([tensor]), [tensor])
            assert torch.equal(receiver.receive()[1][0], tensor)


@pytest.mark.parametrize("size", [100, 4 * SHARED])
def test_no_send_waits_and_none_is_lost_or_overtaken(size):
    """Many more than a socket holds, before anyone takes the first."""
    with line() as (sender, receiver):
        for number in range(1500 if size < SHARED else 40):
            tensor = torch.full((size,), number, dtype=torch.uint8 if size >= SHARED else torch.float32)
            sender.send(Layout.of([tensor]), [tensor])
        for number in range(1500 if size < SHARED else 40):
            (tensor,) = receiver.receive()[1]
            assert tensor.unique().tolist() == [number % 256 if size >= SHARED else number]


def test_memory_comes_back_when_what_lies_in_it_is_gone_and_not_before():
    big = torch.ones(SHARED)
    layout = Layout.of([big])
    with line() as (sender, receiver):
        for _ in range(50):
            sender.send(layout, [big])
            receiver.receive()
        assert len(sender._rooms) == 1
        weight = torch.ones(SHARED, requires_grad=True)
        sender.send(layout, [big * 3])
        loss = (receiver.receive()[1][0] * weight).sum()  # autograd keeps it; no tensor of ours does
        for _ in range(5):
            sender.send(layout, [big])
            receiver.receive()
        loss.backward()
        assert weight.grad.unique().tolist() == [3.0]
        kept = []
        for number in range(20):
            sender.send(layout, [big * number])
            kept.append(receiver.receive()[1][0])
        assert [tensor.unique().item() for tensor in kept] == list(range(20))
        assert len(sender._rooms) <= 32
        if Path("/proc/self/fd").exists():
            files = len(os.listdir("/proc/self/fd"))
            sender.send(layout, [big])
            assert len(os.listdir("/proc/self/fd")) <= files + 2


def test_more_room_may_be_given_back_than_the_socket_holds():
    big, count = torch.ones(SHARED // 4), 600
    layout = Layout.of([big])
    with line() as (sender, receiver):
        for _ in range(3):
            kept = []
            for _ in range(count):
                sender.send(layout, [big])
                kept.append(receiver.receive()[1][0])
            del kept
            gc.collect()
        assert len(sender._rooms) <= 2048


@pytest.mark.parametrize("who", [0, 1])
def test_hanging_up_at_either_end_wakes_who_waits(who):
    with line() as ends:
        said = []

        def wait():
            try:
                ends[1].receive()
            except OSError as error:
                said.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        ends[who].hang_up()
        waiting.join(10)
        assert len(said) == 1
        with pytest.raises(OSError):
            ends[0].send(Layout.of([torch.ones(2)]), [torch.ones(2)])


def test_what_was_sent_before_an_end_is_still_there():
    with line() as (sender, receiver):
        sender.send(Layout.of([torch.ones(2)]), [torch.ones(2)])
        sender.hang_up()
        assert receiver.receive()[1][0].tolist() == [1.0, 1.0]
        with pytest.raises(ConnectionError):
            receiver.receive()


def test_a_line_that_is_cut_with_much_to_send_lets_its_thread_go():
    with line() as (sender, _):
        for _ in range(2000):
            sender.send(Layout.of([torch.ones(100)]), [torch.ones(100)])
        sender.hang_up()
        sender.settle(5.0)
        assert not sender._sender.is_alive()


def test_what_messages_look_like_is_remembered_without_their_memory():
    """Sequences of many lengths: a template of each was kept, as large as the message."""
    with line() as (sender, receiver):
        for length in range(1000, 1050):
            tensor = torch.ones(length)
            sender.send(Layout.of([tensor]), [tensor])
            assert torch.equal(receiver.receive()[1][0], tensor)
        kept = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.dim() == 1 and 1000 <= len(t) < 1049]
        assert not [t for t in kept if t.untyped_storage().nbytes()]


def test_a_message_that_cannot_be_sent_on_cuts_the_line(monkeypatch):
    """The thread that sends what the socket does not take went on with the next message, which was taken for it."""
    with line() as (sender, receiver):
        end, fails = sender._end, iter([True])

        class Full:
            def sendmsg(self, parts, carried=(), flags=0):
                if not flags and next(fails, False):
                    raise OSError("no memory")
                return end.sendmsg(parts, carried, flags)

            def __getattr__(self, name):
                return getattr(end, name)

        sender._end = Full()
        for number in range(60):
            try:
                sender.send(Layout.of([torch.ones(2000)]), [torch.full((2000,), float(number))])
            except OSError:
                break
        received = []
        receiver._end.settimeout(10)  # a line that is not cut fails the test, and does not hang it
        with pytest.raises(OSError, match="gone"):
            while True:
                received.append(int(receiver.receive()[1][0][0]))
        assert received == list(range(len(received))) and len(received) < 60


def test_a_default_timeout_of_the_program_is_not_ours(monkeypatch):
    socket.setdefaulttimeout(0.01)
    try:
        store = dist.HashStore()
        with ThreadPoolExecutor(2) as pool:
            made = [pool.submit(Home, store, [0, 1], rank, timedelta(seconds=20)) for rank in range(2)]
            homes = [one.result(30) for one in made]
            channel = Channel("activation", 0, 1)
            ends = [one.result(30)[channel] for one in [pool.submit(home.connect, [channel]) for home in homes]]
            assert [end.gettimeout() for end in ends] == [None, None]
            early = pool.submit(homes[0].say, b"0")
            threading.Event().wait(0.1)
            assert homes[1].say(b"1") == early.result(30) == [b"0", b"1"]
        for one in (*homes, *ends):
            one.close()
    finally:
        socket.setdefaulttimeout(None)
