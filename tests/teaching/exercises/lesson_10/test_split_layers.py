"""What the check of split layers accepts."""

import pytest
import torch
from torch.nn.functional import gelu

from pipelab.teaching.exercises.lesson_10.split_layers import EXERCISE, whole
from tests.teaching.exercises.lesson_10.test_heads import CUTS
from tests.teaching.exercises.trying import assert_reserved, messages, open_parts


def in_turns(w1, b1, w2, b2, t):
    """Every t-th hidden number, in dictionaries, and b2 on the last rank alone."""
    shards = [{"in": {"w": w1[r::t], "b": b1[r::t]}, "out": w2[:, r::t].T} for r in range(t)]
    shards[-1]["bias"] = b2
    return tuple(shards)


def added_once(xs, shards, sum_forward, sum_backward):
    parts = [gelu(x @ s["in"]["w"].T + s["in"]["b"]) @ s["out"] for x, s in zip(sum_backward(xs), shards, strict=True)]
    parts[-1] = parts[-1] + shards[-1]["bias"]
    return tuple(sum_forward(parts))


def many_pieces(w1, b1, w2, b2, t):
    return [[list(w1.chunk(t)[r]), b1.chunk(t)[r], list(w2.chunk(t, dim=1)[r]), b2] for r in range(t)]


def by_pieces(xs, shards, sum_forward, sum_backward):
    """Row by row."""
    parts = []
    for x, (rows, b1, columns, _) in zip(sum_backward(xs), shards, strict=True):
        hidden = [gelu((x * row).sum(-1) + b) for row, b in zip(rows, b1, strict=True)]
        parts.append(torch.stack([sum(h * w for h, w in zip(hidden, line, strict=True)) for line in columns], dim=1))
    return [y + b2 for y, (*_, b2) in zip(sum_forward(parts), shards, strict=True)]


@pytest.mark.parametrize(
    ("cut", "mlp", "heads"), [(in_turns, added_once, CUTS[1]), (many_pieces, by_pieces, CUTS[2])], ids=["turns", "rows"]
)
def test_other_cuts_are_as_right(cut, mlp, heads):
    assert not open_parts("split_layers", cut_mlp=cut, mlp=mlp, cut_attention=heads)


def test_weights_kept_outside_the_shards_get_no_gradient():
    kept = []

    def cut(*weights):
        kept[:] = weights[:4]
        return many_pieces(*weights)

    def mlp(xs, shards, sum_forward, sum_backward):
        w1, b1, w2, b2 = kept
        return [gelu(x @ w1.T + b1) @ w2.T + b2 for x in xs]

    assert "backward" in open_parts("split_layers", cut_mlp=cut, mlp=mlp, cut_attention=CUTS[0])
    assert any("is missing" in said for said in messages("split_layers", cut_mlp=cut, mlp=mlp, cut_attention=CUTS[0]))


@pytest.mark.parametrize("shards", [lambda *_: [], lambda *given: [3] * given[-1], lambda *_: None, lambda *_: "x"])
def test_what_is_no_list_of_tensors_gets_a_sentence(shards):
    said = messages("split_layers", cut_mlp=shards, mlp=added_once, cut_attention=shards)
    assert len(said) == 3


@pytest.mark.parametrize("made", [lambda *_: [], lambda xs, *_: xs[0], lambda xs, *_: [1] * len(xs)])
def test_what_is_no_list_of_outputs_gets_a_sentence(made):
    said = messages("split_layers", cut_mlp=in_turns, mlp=made, cut_attention=CUTS[0])
    assert said
    assert all("mlp should return a list" in one for one in said)


@pytest.mark.parametrize("data", [None, "x", [], {}, {"places": 1}])
def test_what_is_no_record_of_the_asker_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_reference_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: whole(EXERCISE.visible[0]))
