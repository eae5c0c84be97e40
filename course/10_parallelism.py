# ---
# jupyter:
#   pipelab:
#     number: 10
#     title: "Pipelines and other parallelism"
#     minutes: 45
#     builds_on: [1, 2, 4, 9]
#     goals:
#       - say what each kind of parallelism holds, sends and waits for
#       - work out ranks and groups of a mesh by hand
#       - count the bytes of each kind in a step
#       - reduce and clip gradients of replicas so that they are those of the unsplit model
# ---

# %% [markdown]
# ## Replicate the model, cut it between layers, or cut inside them?

# %% role="setup"
from pipelab.teaching import *

# %%
ledger()

# %% [markdown] page="exercises"
# A mesh has three dimensions. There are dp replicas of the model. Each has pp stages, and each stage is split over tp
# ranks, which hold a part of each of its layers. A replica works on m micro-batches in a step, and each device has v
# stages. Ranks, replicas, stages and parts are counted from 0. Nothing here depends on your machine.

# %% role="setup"
import torch
from torch import Tensor
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="ranks_and_groups" difficulty="medium" minutes=18
# There are dp · pp · tp ranks. Each has a place (d, p, t): replica d, stage p, part t of each layer. Here t changes
# fastest: the next rank has the next t. When t is through, p goes on by one, and when p is through, d does. (That is
# how `init_device_mesh` numbers a mesh with these dimensions.) Each device has one stage.
#
# A **group** of a kind holds ranks that talk to each other in that dimension. Their places differ in one coordinate
# only: d in a group of kind `"dp"`, p in one of kind `"pp"`, t in one of kind `"tp"`. A dimension of size 1 has groups
# too, with one rank in each. Write five functions:
#
# - `place` returns (d, p, t) of a rank, and `rank_at` the rank at a place.
# - `groups` returns all groups of a kind. Their order does not matter, and neither does the order of the ranks in one.
# - `reduces_with` returns the ranks that add up their gradients with those of `rank`, `rank` included. Only gradients
#   of the same weights are added up.
# - `sends_to` returns the rank that takes the activations of `rank`, forward. It has the next stage of the same
#   replica, and the same part of its layers. Return None behind the last stage.


# %% role="answer" exercise="ranks_and_groups"
def place(rank: int, dp: int, pp: int, tp: int) -> tuple[int, int, int]:
    """Replica, stage and part of a rank.

    >>> place(rank=5, dp=2, pp=2, tp=2)
    (1, 0, 1)
    """
    ### BEGIN SOLUTION
    return rank // (pp * tp), rank // tp % pp, rank % tp
    ### END SOLUTION


def rank_at(d: int, p: int, t: int, dp: int, pp: int, tp: int) -> int:
    """The rank at a place.

    >>> rank_at(d=1, p=0, t=1, dp=2, pp=2, tp=2)
    5
    """
    ### BEGIN SOLUTION
    return (d * pp + p) * tp + t
    ### END SOLUTION


def groups(kind: str, dp: int, pp: int, tp: int) -> list[list[int]]:
    """All groups of kind "dp", "pp" or "tp".

    >>> groups("pp", dp=1, pp=2, tp=2)
    [[0, 2], [1, 3]]
    """
    ### BEGIN SOLUTION
    at = ("dp", "pp", "tp").index(kind)
    found: dict[tuple[int, ...], list[int]] = {}
    for rank in range(dp * pp * tp):
        where = (rank // (pp * tp), rank // tp % pp, rank % tp)
        shared = where[:at] + where[at + 1 :]
        found.setdefault(shared, []).append(rank)
    return list(found.values())
    ### END SOLUTION


def reduces_with(rank: int, dp: int, pp: int, tp: int) -> list[int]:
    """The ranks with the same weights, `rank` included.

    >>> reduces_with(rank=5, dp=2, pp=2, tp=2)
    [1, 5]
    """
    ### BEGIN SOLUTION
    replica = pp * tp
    return list(range(rank % replica, dp * replica, replica))
    ### END SOLUTION


def sends_to(rank: int, dp: int, pp: int, tp: int) -> int | None:
    """The rank that takes the activations of this one, or None.

    >>> sends_to(rank=5, dp=2, pp=2, tp=2)
    7
    """
    ### BEGIN SOLUTION
    last = rank // tp % pp == pp - 1
    return None if last else rank + tp
    ### END SOLUTION


# %% [markdown] role="hint" exercise="ranks_and_groups"
# Write down the places of ranks 0 to 7 for dp = pp = tp = 2, one below the other. Which digit changes with each rank,
# which with every second one, and which with every fourth one?

# %% [markdown] role="hint" exercise="ranks_and_groups"
# A place is a number with three digits, whose bases differ. Division with a remainder takes off the last digit, and
# then the next one. Back again, multiply and add. For `groups`, put each rank into a box. Which two coordinates do all
# ranks of one box share? How far apart are two neighbours in each kind of group?

# %% [markdown] role="hint" exercise="ranks_and_groups"
# `divmod(rank, tp)` gives t and what is left, and `divmod` of that by pp gives p and d. A dictionary makes the boxes:
# its keys are places without the coordinate of the kind, its values lists of ranks. Two neighbours in a tp group are 1
# apart, in a pp group tp, and in a dp group as many as a replica has ranks. Ask for the stage before you send.

# %% [markdown] role="solution" exercise="ranks_and_groups"
# The order of the dimensions decides who is near to whom. Nodes hold ranks that follow one another. With tp innermost,
# the ranks of a tp group are neighbours, so they are in one node if tp divides the number of its devices. That is where
# most bytes go, several times in each layer. The ranks of a dp group are farthest apart. They talk once a step.

# %% [markdown] role="lead" exercise="bytes_per_step" difficulty="medium" minutes=20
# How many bytes does *one device* send in *one step*? Write a function for each kind. Each gets two dictionaries.
# `model` has `layers`, `layer_parameters` (of one layer), `width`, `tokens` (of a sequence) and `number_bytes`: the
# bytes of each number that is sent, whether activation, gradient or weight. `shape` has `dp`, `pp`, `tp`, `m`, `v` and
# `batch`: the sequences of a step, in all replicas together. All layers are alike, everything divides evenly, and an
# **activation** is what goes from one layer to the next for one micro-batch: sequences · tokens · width numbers.
#
# A ring of n devices cuts a tensor into n pieces. An all-gather or a reduce-scatter of the tensor sends n - 1 pieces
# from each device. An all-reduce is both, one after the other.
#
# - `tensor_bytes`: each layer of a device makes an all-reduce of the activation twice forward, and twice backward, for
#   each micro-batch. The tensor has full width on all tp ranks.
# - `pipeline_bytes`: stage s is on device s mod pp, and there are pp · v stages. Each sends its activation to the next
#   stage, and later the gradient of its input to the stage before, for each micro-batch. Each tp rank sends all of it.
#   Messages within one device do not count. `device` is the device's place in the pipeline.
# - `data_bytes`: an all-reduce of all gradients of a device, once a step.
# - `zero3_bytes`, instead of `data_bytes`: each device keeps 1/dp of its weights. For each micro-batch it all-gathers
#   the weights of its layers before the forward, and again before the backward. After the backward it reduce-scatters
#   their gradients.


# %% role="answer" exercise="bytes_per_step"
def tensor_bytes(model: dict[str, int], shape: dict[str, int]) -> float:
    """Bytes that a device sends for tensor parallelism.

    >>> model = {"layers": 4, "layer_parameters": 100, "width": 8, "tokens": 10, "number_bytes": 2}
    >>> tensor_bytes(model, {"dp": 1, "pp": 2, "tp": 2, "m": 1, "v": 1, "batch": 1})    # 160 in each of 8 rings
    1280.0
    """
    ### BEGIN SOLUTION
    sequences = shape["batch"] / (shape["dp"] * shape["m"])
    activation = sequences * model["tokens"] * model["width"] * model["number_bytes"]
    rings = 4 * shape["m"] * model["layers"] / shape["pp"]
    return rings * 2 * (shape["tp"] - 1) / shape["tp"] * activation
    ### END SOLUTION


def pipeline_bytes(model: dict[str, int], shape: dict[str, int], device: int) -> float:
    """Bytes that a device sends to its neighbours in the pipeline.

    >>> model = {"layers": 4, "layer_parameters": 100, "width": 8, "tokens": 10, "number_bytes": 2}
    >>> pipeline_bytes(model, {"dp": 1, "pp": 2, "tp": 1, "m": 4, "v": 1, "batch": 4}, device=0)    # 4 activations
    640.0
    """
    ### BEGIN SOLUTION
    if shape["pp"] == 1:
        return 0.0
    sequences = shape["batch"] / (shape["dp"] * shape["m"])
    activation = sequences * model["tokens"] * model["width"] * model["number_bytes"]
    stages = range(device, shape["pp"] * shape["v"], shape["pp"])
    messages = sum((s < shape["pp"] * shape["v"] - 1) + (s > 0) for s in stages)
    return messages * shape["m"] * activation
    ### END SOLUTION


def data_bytes(model: dict[str, int], shape: dict[str, int]) -> float:
    """Bytes that a device sends to reduce its gradients.

    >>> model = {"layers": 4, "layer_parameters": 100, "width": 8, "tokens": 10, "number_bytes": 2}
    >>> data_bytes(model, {"dp": 2, "pp": 1, "tp": 1, "m": 1, "v": 1, "batch": 2})
    800.0
    """
    ### BEGIN SOLUTION
    parameters = model["layers"] * model["layer_parameters"] / (shape["pp"] * shape["tp"])
    return 2 * (shape["dp"] - 1) / shape["dp"] * parameters * model["number_bytes"]
    ### END SOLUTION


def zero3_bytes(model: dict[str, int], shape: dict[str, int]) -> float:
    """Bytes that a device sends if weights and gradients are sharded over the replicas.

    >>> model = {"layers": 4, "layer_parameters": 100, "width": 8, "tokens": 10, "number_bytes": 2}
    >>> zero3_bytes(model, {"dp": 2, "pp": 1, "tp": 1, "m": 1, "v": 1, "batch": 2})
    1200.0
    """
    ### BEGIN SOLUTION
    parameters = model["layers"] * model["layer_parameters"] / (shape["pp"] * shape["tp"])
    return 3 * shape["m"] * (shape["dp"] - 1) / shape["dp"] * parameters * model["number_bytes"]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="bytes_per_step"
# Two sizes are enough for all four: the bytes of an activation, and the bytes of a device's weights. How many sequences
# has a micro-batch? How many layers has a device?

# %% [markdown] role="hint" exercise="bytes_per_step"
# For each kind, ask three things: which tensor, how many times in a step, and which part of it leaves the device each
# time. The first two do not depend on the group's size. The third is 0 in a group of one device. In the pipeline, list
# the stages of the device and ask each one whether it has a next stage, and whether it has one before it.

# %% [markdown] role="hint" exercise="bytes_per_step"
# A replica has batch / dp sequences, and a micro-batch an m-th of them. A device has layers / pp layers, and a part
# 1/tp of each one's parameters. In an all-reduce of n devices, n - 1 pieces of n leave a device twice. In an all-gather
# or a reduce-scatter they leave it once. `range` with a step of pp gives the stages of a device. With pp = 1 they are
# all on the same one.

# %% [markdown] role="solution" exercise="bytes_per_step"
# Set in the numbers of a large model, and compare. Tensor parallelism sends several activations for each layer,
# pipelines two for each stage. Data parallelism sends as much as the device has weights, no matter how large the batch
# is. ZeRO-3 does so for each micro-batch. So few large micro-batches suit ZeRO-3, and many small ones suit a pipeline.

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
