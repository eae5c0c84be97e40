"""That cuts of heads which are accepted compute what the whole attention computes, and others do not."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipelab.teaching.exercises.definition import Refused
from pipelab.teaching.exercises.lesson_10.heads import judge_heads
from tests.teaching.exercises.trying import assert_reserved


def attention(x, w_qkv, w_out, heads):
    """The output for x of shape (sequences, tokens, width)."""
    q, k, v = ((x @ w.T).unflatten(-1, (heads, -1)).transpose(1, 2) for w in w_qkv.chunk(3))
    return scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2) @ w_out.T


def numbered(heads, size):
    wide = heads * size
    both = torch.arange(1.0, 4 * wide * wide + 1, dtype=torch.float64).reshape(4 * wide, wide)
    return both[: 3 * wide], both[3 * wide :]


def judged(cut, ranks, heads, size):
    parts = [[part.tolist() for part in pair] for pair in cut(*numbered(heads, size), heads, ranks)]
    return judge_heads("here", parts, ranks, heads, size)


def split(heads_of):
    """A cut that gives rank r the heads ``heads_of(r, heads, t)``."""

    def cut(w_qkv, w_out, heads, t):
        size = len(w_out) // heads
        for r in range(t):
            lines = [h * size + n for h in heads_of(r, heads, t) for n in range(size)]
            yield torch.cat([w[lines] for w in w_qkv.chunk(3)]), w_out[:, lines]

    return cut


CUTS = [
    split(lambda r, heads, t: range(r * heads // t, (r + 1) * heads // t)),
    split(lambda r, heads, t: range(r, heads, t)),
    split(lambda r, heads, t: range(heads - 1 - r, -1, -t)),
]


@pytest.mark.parametrize("cut", CUTS, ids=["in runs", "in turns", "backwards"])
@pytest.mark.parametrize(("ranks", "heads", "size"), [(2, 4, 3), (3, 6, 2), (1, 2, 2)])
def test_any_whole_heads_are_right_and_add_up_to_the_whole_attention(cut, ranks, heads, size):
    assert judged(cut, ranks, heads, size) is None
    wide = heads * size
    generator = torch.Generator().manual_seed(1)
    x, w_qkv, w_out = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((2, 5, wide), (3 * wide, wide), (wide, wide))
    )
    parts = sum(attention(x, *pair, heads // ranks) for pair in cut(w_qkv, w_out, heads, ranks))
    assert torch.allclose(parts, attention(x, w_qkv, w_out, heads), rtol=1e-12)


@pytest.mark.parametrize("data", [None, 3, [], [1, 2], [[1], [2]], [["x", "y"]] * 2, [[[[1]], [[1]]]] * 2])
def test_what_is_no_cut_gets_a_sentence(data):
    with pytest.raises(Refused, match="here"):
        judge_heads("here", data, 2, 2, 2)


def test_the_judge_refuses_while_a_learners_function_runs():
    assert_reserved(lambda: judge_heads("", [], 1, 1, 1))
