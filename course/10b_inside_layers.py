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
