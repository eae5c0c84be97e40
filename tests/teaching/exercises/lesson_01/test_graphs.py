"""What a graph reaches and what it still holds, on graphs small enough to count by hand."""

from __future__ import annotations

import torch
from torch import nn

from pipelab.teaching.exercises.lesson_01.graphs import nodes, stages_reached, still_held, tensors_in


def two():
    return [nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5), nn.Tanh())]


def test_tensors_are_found_in_lists_and_dicts_that_may_hold_themselves():
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    memory = {"a": a, "more": [b, {"c": (c, "text")}], 7: None}
    memory["more"].append(memory["more"])
    assert {id(tensor) for tensor in tensors_in(memory)} == {id(a), id(b), id(c)}


def test_a_graph_reaches_as_far_as_nobody_cut_it():
    first, second = stages = two()
    h = first(torch.ones(6, 3))
    assert stages_reached([h], stages) == [0]
    assert stages_reached([second(h)], stages) == [0, 1]
    assert stages_reached([second(h.detach())], stages) == [1]
    assert stages_reached([h.detach()], stages) == []
    assert nodes([h.detach()]) == []


def test_a_graph_holds_inputs_and_outputs_until_a_backward_has_used_them():
    _, second = two()
    x = torch.ones(6, 4, requires_grad=True)
    y = second(x)
    assert sorted(tuple(tensor.shape) for tensor in still_held([y], second)) == [(6, 4), (6, 5)]
    y.backward(torch.ones_like(y), retain_graph=True)
    assert len(still_held([y], second)) == 2
    y.backward(torch.ones_like(y))
    assert still_held([y], second) == []
