"""That ranks in one process stay apart, and that sums over them go the way they should."""

import pytest
import torch

from pipelab.teaching.exercises.lesson_10.apart import Apart


def on_ranks(apart):
    return [apart.put(torch.tensor([1.0, 2.0 + r], requires_grad=True), r) for r in range(apart.ranks)]


def test_results_belong_to_the_rank_they_come_from():
    apart = Apart(2)
    a, b = on_ranks(apart)
    with apart:
        c = (a * 2 + 1).reshape(2, 1).T[:, :1]
        assert apart.met == []
        _ = c + b
    assert apart.met == ["add of ranks 0 and 1"]


@pytest.mark.parametrize("meet", [lambda a, b: torch.cat([a, b]), lambda a, b: a.dot(b), lambda a, b: sum([a, b])])
def test_tensors_of_two_ranks_are_seen_also_in_lists(meet):
    apart = Apart(2)
    with apart:
        meet(*on_ranks(apart))
    assert len(apart.met) == 1


def test_what_is_on_no_rank_may_meet_any():
    apart = Apart(2)
    a, b = on_ranks(apart)
    with apart:
        _ = a + torch.ones(2), b + torch.ones(2)
    assert apart.met == []


def test_sum_forward_sums_forward_only():
    apart = Apart(3)
    given = on_ranks(apart)
    with apart:
        made = apart.sum_forward(given)
    assert all(one.tolist() == [3.0, 9.0] for one in made)
    torch.autograd.backward(made, [torch.full((2,), float(r)) for r in range(3)])
    assert [one.grad.tolist() for one in given] == [[r, r] for r in (0.0, 1.0, 2.0)]
    assert apart.calls == {"sum_forward": 1}
    assert apart.met == []


def test_sum_backward_sums_backward_only_and_counts_then():
    apart = Apart(3)
    given = on_ranks(apart)
    with apart:
        made = apart.sum_backward(given)
    assert [one.tolist() for one in made] == [one.tolist() for one in given]
    assert not apart.calls
    torch.autograd.backward(made, [torch.full((2,), float(r)) for r in range(3)])
    assert [one.grad.tolist() for one in given] == [[3.0, 3.0]] * 3
    assert apart.calls == {"sum_backward": 1}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda a, b: [a], "a list of 2 tensors"),
        (lambda a, b: a, "a list of 2 tensors"),
        (lambda a, b: [a, 3], "a list of 2 tensors"),
        (lambda a, b: [a, b[:1]], r"these have \[2\], \[1\]"),
        (lambda a, b: [b, a], "the tensor of rank 0 first"),
    ],
)
def test_other_lists_get_a_sentence(given, says):
    apart = Apart(2)
    with apart, pytest.raises(ValueError, match=says):
        apart.sum_forward(given(*on_ranks(apart)))
