"""What one process can show of a group. (With several ranks: test_torchrun.py.)"""

import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pipelab import ConfigurationError, PipelabError
from pipelab.runtime.device.channels import Aborted
from pipelab.runtime.processes.group import Group


@pytest.fixture
def alone():
    group = Group(dist.HashStore(), 0, 1, "test", torch.device("cpu"))
    yield group
    group.close()


def test_what_is_said_comes_back_and_what_raises_raises(alone):
    assert alone.exchange({"a": [1, 2]}) == [{"a": [1, 2]}]
    assert alone.agree(lambda: 3) == [3]
    with pytest.raises(ConfigurationError, match="not so"):
        alone.agree(lambda: (_ for _ in ()).throw(ConfigurationError("not so")))

    def stopped():
        raise Aborted("the connection broke")

    with pytest.raises(PipelabError, match="the step was stopped on rank 0: the connection broke"):
        alone.agree(stopped)
    assert alone.agree(lambda: 4) == [4], "it goes on after an error that all have heard of"


def test_an_error_that_no_one_else_knows_of_ends_the_group(alone):
    alone.abandon(ConfigurationError("found on all ranks alike"))
    assert alone.exchange(1) == [1]
    alone.abandon(ZeroDivisionError("here only"))
    with pytest.raises(PipelabError, match="this Pipeline is closed"):
        alone.exchange(1)


def test_ranks_that_share_a_gpu_share_one_lock_each_opened_once(alone):
    """A file was opened at each step; and the lock was named after the GPU's number, which processes may differ in."""
    place = torch.device("cuda", 0)
    assert alone.turn(place, [place]) is None
    alone._gpus = ["GPU-1", "GPU-1"]
    other = Group(dist.HashStore(), 0, 1, "test", torch.device("cpu"))
    other._gpus, other._token = alone._gpus, alone._token
    lock = alone.turn(place, [place])
    files = set(os.listdir("/proc/self/fd")) if Path("/proc").exists() else set()
    assert alone.turn(place, [place]) is lock
    if files:
        assert set(os.listdir("/proc/self/fd")) == files
    same = other.turn(torch.device("cuda", 1), [place])
    assert same._path == lock._path, "one GPU, whatever it is called"
    assert lock._path.parent == Path(tempfile.gettempdir())
    lock.acquire()
    lock.release()
    other.close()
