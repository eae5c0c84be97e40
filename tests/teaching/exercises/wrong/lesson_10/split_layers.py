from tests.teaching.exercises.wrong import Wrong

_ALL = """
import torch
from torch.nn.functional import gelu, linear


def cut_mlp(w1, b1, w2, b2, t):
    return [{shard} for r in range(t)]


def part(r, x, shard):
    w1, b1, w2, b2 = shard
    return {part}


def mlp(xs, shards, sum_forward, sum_backward):
    t = len(xs)
    xs = {first}
    ys = [part(r, x, shard) for r, (x, shard) in enumerate(zip(xs, shards))]
    return {last}


def cut_attention(w_qkv, w_out, heads, t):
    q, k, v = w_qkv.chunk(3)
    size = len(q) // heads
    mine = [list(range(r * len(q) // t, (r + 1) * len(q) // t)) for r in range(t)]
    mixed = [[h * size + n for h in range(r, heads, t) for n in range(size)] for r in range(t)]
    return [({qkv}, {out}) for r in range(t)]
"""
_RIGHT = {
    "shard": "(w1.chunk(t)[r], b1.chunk(t)[r], w2.chunk(t, dim=1)[r], b2)",
    "part": "gelu(linear(x, w1, b1)) @ w2.T",
    "first": "sum_backward(xs)",
    "last": "[y + shard[3] for y, shard in zip(sum_forward(ys), shards)]",
    "qkv": "torch.cat([one[mine[r]] for one in (q, k, v)])",
    "out": "w_out[:, mine[r]]",
}
_BOTH = ("forward", "backward")


def _layers(says, open=_BOTH, **changed):
    return Wrong("split_layers", _ALL.format(**{**_RIGHT, **changed}), says=says, open=open)


def _heads(says, **changed):
    return _layers(says, open=("heads",), **changed)


_ROWS_FIRST = "(w1.chunk(t, dim=1)[r], b1, w2.chunk(t, dim=1)[r], b2)"
_SLICE = "x.chunk({t}, dim=1)[r]".replace("{t}", "(x.shape[1] // w1.shape[1])")
_TWICE = """
def cut_mlp(w1, b1, w2, b2, t):
    return [(w1.chunk(t, dim=1)[r], b1, w2.chunk(t, dim=1)[r], b2) for r in range(t)]


def mlp(xs, shards, sum_forward, sum_backward):
    from torch.nn.functional import gelu

    t = len(xs)
    parts = [x.chunk(t, dim=1)[r] @ s[0].T for r, (x, s) in enumerate(zip(sum_backward(xs), shards))]
    hidden = [gelu(h + s[1]).chunk(t, dim=1)[r] for r, (h, s) in enumerate(zip(sum_forward(parts), shards))]
    return [y + s[3] for y, s in zip(sum_forward([h @ s[2].T for h, s in zip(hidden, shards)]), shards)]


def cut_attention(w_qkv, w_out, heads, t):
    return list(zip(w_qkv.chunk(t), w_out.chunk(t, dim=1)))
"""

WRONG = [
    Wrong("split_layers", _TWICE, says="sum_forward was called 2 times", open=("forward", "backward", "heads")),
    _layers(
        "GELU of a part is not a part of GELU",
        shard=_ROWS_FIRST,
        part=f"gelu(linear({_SLICE}, w1, b1)).chunk(b1.shape[0] // w2.shape[1], dim=1)[r] @ w2.T",
    ),
    _layers("b2 was added 2 times", part="gelu(linear(x, w1, b1)) @ w2.T + b2", last="sum_forward(ys)"),
    _layers("b2 is missing", last="sum_forward(ys)"),
    _layers("b1 is missing", part="gelu(x @ w1.T) @ w2.T"),
    _layers("There is no GELU", part="linear(x, w1, b1) @ w2.T"),
    _layers("and not a GELU", part="torch.relu(linear(x, w1, b1)) @ w2.T"),
    _layers("the approximate one", part="gelu(linear(x, w1, b1), approximate='tanh') @ w2.T"),
    _layers("sum_forward was never called", last="[y + shard[3] for y, shard in zip(ys, shards)]"),
    _layers("met in cat", last="[torch.cat(ys, dim=1)] * t"),
    _layers("tensors of two ranks met", last="[sum(ys) + shard[3] for shard in shards]"),
    _layers("tensors of two ranks met", last="[y + shards[0][3] for y in sum_forward(ys)]"),
    _layers(
        "gets the gradient of a whole one", shard="(w1.chunk(t)[r], b1.chunk(t)[r], w2.chunk(t, dim=1)[r], b2 / t)"
    ),
    _layers(
        "gets the gradient of a whole one",
        shard="(w1.chunk(t)[r], b1.chunk(t)[r], w2.chunk(t, dim=1)[r], b2 if r == 0 else 0 * b2)",
    ),
    _layers("is held 2 times", shard="(w1, b1, w2, b2)"),
    _layers(
        "no rank holds w1[2, 0]",
        shard="(w1.chunk(t)[r][:2], b1.chunk(t)[r][:2], w2.chunk(t, dim=1)[r][:, :2], b2)",
    ),
    _layers(
        "w2 is cut across its output",
        shard="(w1.chunk(t)[r], b1.chunk(t)[r], w2.chunk(t)[r], b2)",
        part="(gelu(linear(x, w1, b1)) @ w2[:, : len(w1)].T)",
    ),
    _layers("is wrong", shard="(w1.chunk(t)[r], b1.chunk(t)[r], w2.chunk(t, dim=1)[t - 1 - r], b2)"),
    _layers("from this rank's part of w1 alone", open=("backward",), first="xs"),
    _layers(
        "a gradient of the same thing on all ranks",
        open=("backward",),
        first="xs",
        part="gelu(linear(x, w1, b1))",
        last="[y + s[3] for y, s in zip(sum_forward([h @ s[2].T for h, s in zip(sum_backward(ys), shards)]), shards)]",
    ),
    _layers(
        "2 times too large",
        open=("backward",),
        last="[y + shard[3] for y, shard in zip(sum_backward(sum_forward(ys)), shards)]",
    ),
    _layers(
        "sum_backward summed up 3 times",
        open=("backward",),
        first="[torch.stack(rows) for rows in zip(*(sum_backward([x[n] for x in xs]) for n in range(len(xs[0]))))]",
    ),
    _heads("takes for its k a row of q", qkv="w_qkv.chunk(t)[r]"),
    _heads("has q of heads", qkv="torch.cat([one[mixed[r]] for one in (q, k, v)])"),
    _heads("of k it has heads", qkv="torch.cat([q[mine[r]], k[mixed[r]], v[mine[r]]])"),
    _heads("has shape [3, 6] instead of [6, 3]", out="w_out[mine[r]]"),
    _heads("cut a head into pieces", qkv="torch.cat([one[r::t] for one in (q, k, v)])", out="w_out[:, r::t]"),
    _heads("is held twice", qkv="torch.cat([one[mine[0]] for one in (q, k, v)])", out="w_out[:, mine[0]]"),
    _heads("is none of those that were given", qkv="torch.cat([one[mine[r]] for one in (q, k, v)]) / t"),
    _heads("instead of [9, 6]", qkv="w_qkv"),
    _heads("takes for its q a row of k", qkv="torch.stack([one[mine[r]] for one in (q, k, v)], 1).flatten(0, 1)"),
]
