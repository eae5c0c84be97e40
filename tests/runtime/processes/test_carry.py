import threading

import pytest
import torch
from torch import nn

from pipelab import ConfigurationError
from pipelab.runtime.processes.carry import pack, unpack


def test_what_a_cell_defines_travels_by_value():
    factor = 3

    class Local(nn.Module):
        def forward(self, x):
            return x * factor

    data = pack(Local(), "model")
    assert torch.equal(unpack(data)(torch.ones(2)), torch.full((2,), 3.0))


def test_stand_ins_replace_objects_and_come_back():
    shared = torch.ones(3)
    data = pack({"a": [shared, shared], "b": 1}, "it", lambda obj: "T" if obj is shared else None)
    assert len(data) < 200, "the tensor itself is not in it"
    found = unpack(data, lambda pid: shared)
    assert found["a"][0] is shared is found["a"][1]


class Holder:
    def __init__(self, **parts):
        vars(self).update(parts)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Holder(lock=threading.Lock()), r"model\.lock"),
        (Holder(a=1, b={"k": [0, threading.Lock()]}), r"model\.b\['k'\]\[1\]"),
        (nn.Sequential(nn.Linear(1, 1), nn.Sequential()), None),
        (threading.Lock(), "model"),
        ((number for number in range(3)), "model"),
    ],
)
def test_what_cannot_travel_is_named(value, path):
    if path is None:
        value[1].source = (number for number in range(3))
        path = r"model\.1\.source"
    with pytest.raises(
        ConfigurationError, match=rf"^{path} cannot be sent to another process: it is a .*(lock|generator)"
    ):
        pack(value, "model")


def test_a_loop_in_the_data_does_not_trap_the_search():
    one, other = Holder(), Holder(lock=threading.Lock())
    one.next, other.next = other, one
    with pytest.raises(ConfigurationError, match=r"\.lock cannot be sent"):
        pack(one, "model")
