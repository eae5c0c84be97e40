# ---
# jupyter:
#   pipelab:
#     number: 10b
#     title: "Inside layers, and which shape"
#     minutes: 45
#     builds_on: [2, 5, 10]
#     goals:
#       - reduce and clip gradients of replicas so that they are those of the unsplit model
#       - split a layer by columns and rows, with one all-reduce forward and one backward
#       - choose a shape for a cluster
# ---

# %% [markdown]
# ## What does a rank hold of a layer, and what does it send?

# %% role="setup"
from pipelab.teaching import *

# %%
ledger()

# %% [markdown] page="exercises"
# A mesh has dp replicas of the model. Each has pp stages, and each stage is split over tp ranks. A replica works on m
# micro-batches in a step. Ranks, replicas, stages and parts are counted from 0. Nothing here depends on your machine.

# %% role="setup"
import torch
from torch import Tensor
from torch.nn.functional import gelu, linear
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="uneven_replicas" difficulty="medium" minutes=20
# Replicas have different numbers of sequences, and some of the targets are padding. Each replica has computed the
# gradient of *its own* mean loss. Reduce these gradients, such that the result is the gradient of the mean loss over
# the whole batch, as the unsplit model would have it. Then clip it.
#
# - `gradients[d][p]` is a list of tensors: the gradients of replica d for the parameters of stage p.
# - `targets[d]` holds the targets of replica d, of shape (sequences, tokens). Targets of -100 are padding. They do not
#   count: a mean loss is the sum over the other targets, divided by their number.
# - A replica may have padding only. Its mean loss is 0/0, and PyTorch gives it gradients of 0. At least one replica
#   has a target that counts.
# - `limit` bounds the norm: the root of the sum of squares over *all* numbers of the reduced gradient, of both stages.
#   If the norm is above the limit, scale the gradient such that its norm is the limit. Otherwise leave it as it is.
#
# Return the reduced and clipped gradient: a list of tensors for each stage. Leave the arguments as they are.


# %% role="answer" exercise="uneven_replicas"
def reduce_gradients(gradients: list[list[list[Tensor]]], targets: list[Tensor], limit: float) -> list[list[Tensor]]:
    """The gradient of the whole batch's mean loss, clipped.

    >>> one = torch.ones(2)
    >>> reduce_gradients([[[one]], [[5 * one]]], [torch.tensor([[1, 2, 0]]), torch.tensor([[3, -100, -100]])], 9.0)
    [[tensor([2., 2.])]]
    """
    ### BEGIN SOLUTION
    count = [int((target != -100).sum()) for target in targets]
    total: list[list[Tensor]] = [[torch.zeros_like(one) for one in stage] for stage in gradients[0]]
    for replica, terms in zip(gradients, count, strict=True):
        for p, stage in enumerate(replica):
            for k, one in enumerate(stage):
                total[p][k] = total[p][k] + one * terms / sum(count)
    squares = sum(float((one**2).sum()) for stage in total for one in stage)
    scale = min(1.0, limit / squares**0.5) if squares else 1.0
    return [[one * scale for one in stage] for stage in total]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="uneven_replicas"
# From a mean one gets back to a sum. What must a replica's gradient be multiplied by? And what divides the sum of all?

# %% [markdown] role="hint" exercise="uneven_replicas"
# Count the terms of each replica's loss. A replica's gradient has the weight of its terms among all terms. When all are
# added up, look at the length of the result, with the numbers of all stages in one sum.

# %% [markdown] role="hint" exercise="uneven_replicas"
# `target != -100` is a tensor of True and False, and its sum the number of terms. Begin with zeros of the right shapes
# and add the weighted gradients, replica by replica. For the norm, add up the squares of all tensors of all stages, and
# take the root once. One factor scales them all. It is at most 1.

# %% [markdown] role="solution" exercise="uneven_replicas"
# On a cluster this takes two small all-reduces beside the large one. The ranks of a dp group add up their numbers of
# terms, and divide by that sum. For clipping, each rank adds up the squares of its own part, and these sums are added
# over the pipeline and over tp. Weights that several ranks hold whole must be counted once there.

# %% [markdown] role="lead" exercise="split_layers" difficulty="hard" minutes=35
# Split layers over t ranks, in one process. A list with t entries stands for the ranks: entry r is what rank r holds. A
# tensor of one rank must not meet that of another one, except in two functions that you are given. Each takes a list of
# t tensors, one of each rank, and returns such a list.
#
# | | forward | backward |
# | --- | --- | --- |
# | `sum_forward` | each rank gets the sum of all (an all-reduce) | each rank keeps its own gradient |
# | `sum_backward` | each rank keeps its own tensor | each rank gets the sum of all gradients (an all-reduce) |
#
# The layers are `linear(gelu(linear(x, w1, b1)), w2, b2)`, where `linear(x, w, b)` is `x @ w.T + b`. t divides all
# dimensions of `w1` and `w2`.
#
# - `cut_mlp` returns what each rank holds: a tuple, list or dictionary of tensors. Each number of `w1` and of `w2` is
#   on one rank. A number of a bias may be on one or several. Do not change any of them. The check makes them parameters
#   of that rank.
# - `mlp` computes the output from `xs`, a list with x on each rank, and from `shards`, the parameters of each rank.
#   Return a list with the whole output on each rank. You may sum up *once* forward, and *once* backward. After a
#   backward, each rank must have the whole gradient of x, and the right gradient of what it holds.
# - `cut_attention` cuts the weights of an attention with several heads, of k numbers each. `w_qkv` has the rows of q
#   for head 0, head 1, and so on, then those of k in the same order, and then those of v. The outputs of the heads,
#   side by side, are multiplied by `w_out.T`. Return a pair for each rank: its rows of `w_qkv` (q, then k, then v of
#   its heads), and its columns of `w_out`. With these, each rank runs an attention with fewer heads, and one
#   `sum_forward` adds up what comes out. t divides the number of heads. All ranks have equally many.


# %% role="answer" exercise="split_layers"
def cut_mlp(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, t: int) -> list:
    """What each rank holds.

    >>> cut_mlp(torch.ones(4, 2), torch.ones(4), torch.ones(2, 4), torch.ones(2), t=1)    # one rank holds all
    [(tensor([[1., 1.],
            [1., 1.],
            [1., 1.],
            [1., 1.]]), tensor([1., 1., 1., 1.]), tensor([[1., 1., 1., 1.],
            [1., 1., 1., 1.]]), tensor([1., 1.]))]
    """
    ### BEGIN SOLUTION
    pieces = zip(w1.chunk(t), b1.chunk(t), w2.chunk(t, dim=1), strict=True)
    return [(*piece, b2) for piece in pieces]
    ### END SOLUTION


def mlp(xs: list[Tensor], shards: list, sum_forward, sum_backward) -> list[Tensor]:
    """The output on each rank.

    >>> whole = cut_mlp(torch.ones(4, 2), torch.ones(4), torch.ones(2, 4), torch.ones(2), t=1)
    >>> mlp([torch.zeros(1, 2)], whole, sum_forward=list, sum_backward=list)
    [tensor([[4.3654, 4.3654]])]
    """
    ### BEGIN SOLUTION
    parts = []
    for x, (w1, b1, w2, _) in zip(sum_backward(xs), shards, strict=True):
        parts.append(gelu(linear(x, w1, b1)) @ w2.T)
    return [y + shard[3] for y, shard in zip(sum_forward(parts), shards, strict=True)]
    ### END SOLUTION


def cut_attention(w_qkv: Tensor, w_out: Tensor, heads: int, t: int) -> list[tuple[Tensor, Tensor]]:
    """The rows of w_qkv and the columns of w_out of each rank.

    >>> [(rows.shape, columns.shape) for rows, columns in cut_attention(torch.ones(12, 4), torch.ones(4, 4), 2, t=2)]
    [(torch.Size([6, 4]), torch.Size([4, 2])), (torch.Size([6, 4]), torch.Size([4, 2]))]
    """
    ### BEGIN SOLUTION
    q, k, v = (part.chunk(t) for part in w_qkv.chunk(3))
    columns = w_out.chunk(t, dim=1)
    return [(torch.cat([q[r], k[r], v[r]]), columns[r]) for r in range(t)]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="split_layers"
# GELU works on each hidden number by itself. So which numbers of `w1` does a rank need to get some hidden numbers
# ready, with nothing from other ranks? And which numbers of `w2` does it then meet?

# %% [markdown] role="hint" exercise="split_layers"
# Give each rank some hidden numbers: their rows of `w1`, their numbers of `b1`, and their columns of `w2`. Then each
# rank gets a tensor of the output's shape, and these are to be summed up. When does `b2` come in? Backward, each rank
# gets a gradient of x from its own hidden numbers only. Which of the two functions mends that, and where must it stand
# in the forward? For the attention, a head takes the part of a hidden number.

# %% [markdown] role="hint" exercise="split_layers"
# `chunk(t)` cuts a tensor into t pieces along its rows, and `chunk(t, dim=1)` along its columns. Pass `xs` through one
# of the functions first, and the parts of the output through the other one at the end. Each rank holds all of `b2`, and
# adds it to the sum that it gets back. In `cut_attention`, cut `w_qkv` into q, k and v before you cut among ranks, and
# put the three together again for each rank with `torch.cat`.

# %% [markdown] role="solution" exercise="split_layers"
# Megatron-LM calls the two functions g and f (Shoeybi et al. 2019, arXiv 1909.08053). A transformer layer has an
# attention and an MLP, so it has two all-reduces forward and two backward. If `w1` were cut across its input, an
# all-reduce would have to come before GELU, and one more after `w2`. What each rank holds whole, such as `b2`, gets the
# same gradient everywhere. So its copies stay equal, and nobody has to reduce it over tp.
