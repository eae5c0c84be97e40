"""Ranks of one host, each a thread here."""

import os
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from pipelab.runtime.processes.wires.home import Home, address
from pipelab.schedules.wire import Channel

PATIENCE = timedelta(seconds=20)


def together(count, work):
    """``work(rank)`` on all at once."""
    with ThreadPoolExecutor(count) as pool:
        return [one.result(timeout=30) for one in [pool.submit(work, rank) for rank in range(count)]]


@pytest.fixture
def homes(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = dist.HashStore()
    made = together(4, lambda rank: Home(store, [0, 1, 2, 3], rank, PATIENCE))
    yield made
    for home in made:
        home.close()
    assert not os.listdir(tmp_path), "nothing is left in the temporary folder"


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_all_hear_what_all_have_said(homes, size):
    said = [bytes([rank]) * (size + rank) for rank in range(4)]
    for _ in range(3):
        assert together(4, lambda rank: homes[rank].say(said[rank])) == [said] * 4
    first, *others = together(4, lambda rank: homes[rank].say(said[rank], hears=False))
    assert first == said
    assert all(heard == [b""] * 4 for heard in others)
    assert together(4, lambda rank: homes[rank].say(said[rank])) == [said] * 4


def test_two_ranks_get_the_two_ends_of_a_line(homes):
    channels = [Channel("activation", 0, 1), Channel("activation", 2, 3), Channel("gradient", 3, 1)]
    found = together(4, lambda rank: homes[rank].connect(channels))
    assert [set(ends) for ends in found] == [
        {channel for channel in channels if rank in (channel.source, channel.destination)} for rank in range(4)
    ]
    for channel in channels:
        found[channel.source][channel].sendall(str(channel).encode())
        assert found[channel.destination][channel].recv(100) == str(channel).encode()
    assert together(4, lambda rank: homes[rank].say(b"on")) == [[b"on"] * 4] * 4
    for end in [end for ends in found for end in ends.values()]:
        assert not end.get_inheritable()
        end.close()


def test_who_waits_for_a_rank_that_is_gone_is_told(homes):
    homes[2].close()

    def say(rank):
        try:
            homes[rank].say(b"anyone?")
        except OSError as error:
            homes[rank].close()
            return error
        return None

    found = together(4, say)
    assert all(isinstance(error, OSError) for error in found)


def test_no_one_else_finds_the_door(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store, seen = dist.HashStore(), []

    def look():
        store.wait(["door"], PATIENCE)
        folder = os.path.dirname(store.get("door").decode())
        seen.append(stat.S_IMODE(os.stat(folder).st_mode))

    looking = threading.Thread(target=look)
    looking.start()
    first = threading.Thread(target=lambda: Home(store, [0, 1], 0, PATIENCE).close())
    first.start()
    looking.join(20)
    Home(store, [0, 1], 1, PATIENCE).close()
    first.join(20)
    assert seen == [0o700]
    assert not os.listdir(tmp_path)


def test_a_rank_that_does_not_come_is_waited_for_only_so_long(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(TimeoutError):
        Home(dist.HashStore(), [0, 1], 0, timedelta(seconds=0.2))
    assert not os.listdir(tmp_path)


def test_processes_with_other_folders_do_not_meet(tmp_path, monkeypatch):
    own = address("here")
    assert own == address("here") != address("there")
    other = tmp_path / ("long" * 40)
    other.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert address("here") != own
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    assert address("here")[2:] == (os.stat("/tmp").st_dev, os.stat("/tmp").st_ino), "a socket's path is short"
