from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipelab.schedules import Action, TimeTable, build_schedule
from pipelab.teaching.grading import plain as module
from pipelab.teaching.grading.plain import plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_json_knows_stays_as_it_is(value):
    assert plain(value) == value
    assert json.loads(json.dumps(plain(value))) == value


class Liar(float):
    def __eq__(self, other):
        return True

    __hash__ = float.__hash__

    def __float__(self):
        return 1.0

    def __repr__(self):
        return "1.0"


def test_subclasses_become_what_they_are():
    found = plain([Liar(0.25), type("Text", (str,), {"__str__": lambda self: "other"})("real"), np.float64(0.5)])
    assert [type(item) for item in found] == [float, str, float]
    assert found[0] == 0.25
    assert found[1:] == ["real", 0.5]


def test_what_the_course_works_with():
    assert plain(Action(3, "F", 0)) == "3F0"
    assert plain(build_schedule("naive", 2, 1)) == {"csv": "0F0,0B0\n1F0,1B0\n"}
    assert plain(TimeTable.from_csv("0F0,,0B0")) == [["0F0", None, "0B0"]]
    assert plain({3, 1}) == {"set": [1, 3]}
    assert plain(torch.tensor([[1.0, 2.0]], requires_grad=True)) == {"tensor": [[1.0, 2.0]]}
    assert plain(torch.tensor(2.5)) == 2.5
    assert plain(np.arange(2)) == {"tensor": [0, 1]}
    assert plain(Fraction(3, 7)) == pytest.approx(3 / 7)
    assert plain(x for x in range(3)) == [0, 1, 2]
    assert plain(object)["other"] == "type"


def test_what_is_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 100)
    for value in (iter(int, 1), [[0] * 60] * 2, torch.zeros(1000), _nested(50)):
        with pytest.raises(ValueError, match="too large"):
            plain(value)


def _nested(depth):
    return [] if not depth else [_nested(depth - 1)]
