from __future__ import annotations

import pytest
import torch

from pipelab import ConfigurationError
from pipelab.runtime.setup.devices import choose_devices


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


def names(choice, devices):
    return [str(device) for device in choose_devices(choice, devices)]


def test_without_a_gpu_all_stages_are_on_the_cpu(gpus):
    gpus(0)
    assert names(None, 3) == ["cpu"] * 3


def test_a_gpu_each_where_there_are_enough(gpus):
    gpus(8)
    assert names(None, 4) == names("cuda", 4) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]


def test_fewer_gpus_than_devices_are_shared_by_neighbours(gpus):
    gpus(2)
    assert names(None, 4) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    gpus(1)
    assert names(None, 4) == names("cuda:0", 4) == ["cuda:0"] * 4


def test_asking_for_more_than_there_is_says_what_there_is(gpus):
    gpus(1)
    with pytest.raises(ConfigurationError, match=r"asks for 4 GPUs.*only 1 present.*cuda:0"):
        choose_devices("cuda", 4)
    with pytest.raises(ConfigurationError, match=r"cuda:3 was asked for, but there are GPUs 0..0"):
        choose_devices("cuda:3", 2)
    gpus(0)
    with pytest.raises(ConfigurationError, match="none is present; use device='cpu'"):
        choose_devices("cuda", 2)


def test_other_kinds_of_device_are_refused(gpus):
    gpus(0)
    with pytest.raises(ConfigurationError, match="not on 'meta'"):
        choose_devices("meta", 2)
