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
#
# Four devices can share the work on one model in several ways:
#
# - **Data parallelism**: each device has the whole model, and computes a share of the batch. Such a copy is called a
#   **replica**. Replicas add up their gradients, once a step. So all of them make the same update.
# - Pipeline parallelism: each device has some layers, and computes the whole batch. Messages go from stage to stage.
# - **Tensor parallelism**: each device has a part of every layer. It is the subject of lesson 10b.
#
# And they can be mixed: two replicas, each a pipeline of two stages. Which way is best? It depends on three questions.
# How much does a device hold? How much does it send? And what does it wait for?
#
# This lesson measures all three. `run_meshes` starts real processes, one for each device. They train the 48-layer model
# with `Pipeline(mesh=...)`. A **mesh** says how many replicas (dp), stages (pp) and parts of each layer (tp) there are.
# The batch has 64 sequences in all, and micro-batches have 16 everywhere.

# %% role="setup"
import torch
from dataclasses import replace
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch()

# %%
question = "How many times as many bytes does a device send in a step with four replicas as with four stages?"
predict("10-sent", question, unit="times")

# %%
question = "And how many times as much do its weights, gradients and optimizer state take?"
predict("10-states", question, unit="times")

# %%
shapes = [{"dp": 4}, {"pp": 4}, {"dp": 2, "pp": 2}]
replicas, stages, mixed = runs = run_meshes(shapes, layers=48, proof=4, steps=2, progress=False)
print(mesh_table(runs))
reveal("10-sent", measurement=max(replicas.sent.values()) / max(stages.sent.values()))

# %% [markdown]
# Each row is about the device that holds most, and the one that sends most. A *step* is wall time on this machine: four
# processes share its cores, so it says little about four GPUs. The bubble is read from the device clock. The gradient
# error comes from a model with 4 layers in float64. All shapes compute the gradient of the unsplit model.
#
# **Sends.** The replicas add up all gradients of the model. A ring of n devices sends 2 (n - 1)/n of them from each
# device. (The second exercise looks at why.) That does not depend on the batch. A stage sends activations forward
# and gradients back. They do not depend on the number of layers.
#
# **Waits.** Replicas wait for one another once, at the end of the step. The sum can even start earlier: the gradients
# of the last layers are complete first. Stages wait for messages all the time, and stand idle in the bubble. The
# mixture has a smaller bubble than four stages, because its pipelines are shorter.
#
# **Holds.** Look at the next cell.


# %%
def states(run):
    """Bytes of weights, gradients and optimizer state on the device that holds most."""
    return max(sum(device.held[kind] for kind in ("weights", "gradients", "optimizer")) for device in run.devices)


for run in runs:
    share = [device.held["activations"] / 1e6 for device in run.devices]
    print(f"{run.name:<12} states {states(run) / 1e6:.1f} MB; activations {', '.join(f'{x:.0f}' for x in share)} MB")
reveal("10-states", measurement=states(replicas) / states(stages))

# %% [markdown]
# A replica holds all states, and a stage a fourth of them. (It is a little more, because the first stage has the
# embedding too.) This is what pipelines are for: *states* of a large model do not fit on one device, no matter how
# small the batch is.
#
# Activations are the surprise. Device 0 holds as much with four stages as each replica does. A replica has 16 sequences
# in 48 layers. Device 0 has 12 layers, and four micro-batches of 16 sequences are in flight there. The other stages
# hold less, as in lesson 3.
#
# **Try it:** let each replica cut its share into micro-batches of 4 sequences: `run_meshes([{"dp": 4}, {"pp": 4}],
# layers=12, microbatch=4, steps=1)`. Which activations shrink?
#
# <details><summary>What you should see, and why</summary>
#
# Both do. The replica now has only 4 sequences under way at once, and adds up gradients over four micro-batches
# (lesson 2). That costs nothing, as there is no bubble. In the pipeline m becomes 16, so device 0 has 4 of 16 in
# flight. The replica still sends as much as before, since it sends once a step.
#
# </details>
#
# ## Where do they cross?
#
# Data parallelism sends in proportion to the model, and a pipeline in proportion to the batch. So a small model with a
# large batch should be replicated, and a large model with a small batch should be cut. With two devices, a replica
# sends all its gradients, and a stage one activation or one gradient for each token:
#
# $$\text{parameters} = \text{tokens} \cdot \text{width}$$
#
# is where both send the same. The next cell tries it with a model of 4 layers.

# %%
small, width = TransformerLM(layers=4), 64
parameters = sum(weight.numel() for weight in small.parameters())
print(f"{parameters} parameters, a width of {width}, sequences of {inputs.shape[1]} tokens")
predict("10-cross", "At how many sequences in the batch do both send the same?", unit="sequences")

# %%
tried = [{**kind, "batch": batch} for batch in (32, 128, 256) for kind in ({"dp": 2}, {"pp": 2})]
crossing = run_meshes(tried, layers=4, proof=2, steps=1, progress=False)
for run in crossing:
    print(f"{run.name:<16} {max(run.sent.values()) / 1e6:.2f} MB a step, loss {run.loss:.3f}")
each = crossing[1].sent["pp"] / tried[1]["batch"]
formula = parameters / (inputs.shape[1] * width)
reveal("10-cross", prediction=formula, measurement=crossing[0].sent["dp"] / each)

# %% [markdown]
# Bytes are not yet time. The pipeline also pays with its bubble, which no link makes smaller. So on a fast link the
# replicas win, and on a slow one the stages do. The next cell takes the measured costs of the 48 layers and a link
# between all devices. It supposes that the sum of gradients begins when the last backward is over.

# %%
schedule = build_schedule("1f1b", devices=4, microbatches=4)
with Pipeline(model, schedule, loss=next_byte_loss) as pipeline:
    costs = pipeline.profile(inputs, targets)
bandwidths = [2.0**k * 1e6 for k in range(3, 13)]
ideal = simulate(schedule, costs)
work = sum(ideal.busy) / schedule.devices
by_links = {
    "four replicas": [work + replicas.sent["dp"] / link for link in bandwidths],
    "four stages": [simulate(schedule, replace(costs, bandwidth=link)).makespan for link in bandwidths],
}
shown = {name: [1e3 * time for time in times] for name, times in by_links.items()}
axes = {"across": "MB/s of each link", "up": "milliseconds a step"}
note = "Simulated from measured costs of 48 layers, p = m = 4, batch 64. Bytes: measured above."
display(plot_curves([x / 1e6 for x in bandwidths], shown, **axes, title="Replicas or stages?", note=note, log=True))
bubble = ideal.makespan - work
print(f"the bubble costs {1e3 * bubble:.0f} ms; {replicas.sent['dp'] / bubble / 1e6:.0f} MB/s send as long as that")

# %% [markdown]
# Left of the crossing the stages are faster, right of it the replicas. More micro-batches move it to the right: they
# shrink the bubble. Overlap moves it to the left: a sum that hides behind backwards costs less.
#
# Two limits come first, though. Replicas need a model that fits on each device. And they divide the batch: 64 sequences
# feed at most 64 replicas, and each replica should have enough sequences to compute efficiently. A larger batch lifts
# this limit, but at some size it no longer trains better (McCandlish et al. 2018, arXiv 1812.06162). A pipeline needs
# m well above p, which also asks for sequences. Narayanan et al. (2021, arXiv 2104.04473) therefore use both.
#
# ## Ranks and groups
#
# Each process has a number, its **rank**. And each has a place in the mesh. These are the four processes of the mixed
# run, as they reported themselves: (replica, stage, part).

# %%
for rank, device in enumerate(mixed.devices):
    print(f"rank {rank}: {device.place}")

# %% [markdown]
# Numbers count like digits: the last one changes fastest. Read two kinds of **groups** from the list:
#
# - Ranks with the same stage and part, and different replicas, hold the same weights. They add up their gradients.
# - Ranks of the same replica and part, and different stages, are a pipeline. They send messages.

# %%
question = "dp 2, pp 2, tp 2: with which rank does rank 0 add up its gradients?"
predict("10-group", question)

# %%
sizes = [2, 2, 2]
places = torch.arange(8).view(sizes)
print("sums of gradients:", places.permute(1, 2, 0).reshape(-1, 2).tolist())
print("pipelines:", places.permute(0, 2, 1).reshape(-1, 2).tolist())
print("parts of layers:", places.reshape(-1, 2).tolist())
reveal("10-group", measurement=int(places[1, 0, 0]))

# %% [markdown]
# A tensor of ranks, with one dimension for each kind, has all groups along its dimensions. `init_device_mesh` of
# PyTorch does the same. Nodes hold ranks that follow one another. So parts of layers are in one node here, and
# replicas far apart. Lesson 10b says why.
#
# ## Claims on trial
#
# One text about pipelines says that pipeline parallelism is something other than model parallelism. Model parallelism
# means that no device holds the whole model. Is that so?

# %%
model_bytes = replicas.devices[0].held["weights"]
for run in (replicas, stages):
    parts = [device.held["weights"] / model_bytes for device in run.devices]
    print(f"{run.name}: {', '.join(f'{part:.0%}' for part in parts)} of the weights; together {sum(parts):.0%}")

# %% [markdown]
# False. Stages are a partition of the model. So a pipeline *is* model parallelism, made busy by micro-batches.
#
# Another text shows a "pipeline parallel" program whose core is `nn.DataParallel(model)`. The next cell runs it. It
# notes which layers are called, and with how many sequences.


# %%
def watched(run):
    """How often layers were called in ``run(model)``, and with how many sequences."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    watched_model, seen = TransformerLM(layers=48).to(place), []
    for layer in watched_model.layers:
        layer.register_forward_hook(lambda layer, given, made: seen.append(len(given[0])))
    run(watched_model)
    return f"{len(seen)} calls of {len(watched_model.layers)} layers, with {sorted(set(seen))} sequences"


def pipelined(model):
    """A step of 1F1B."""
    with Pipeline(model, schedule, loss=next_byte_loss) as pipeline:
        pipeline.step(inputs, targets)


print("GPUs here:", torch.cuda.device_count())
print("DataParallel:", watched(lambda model: torch.nn.DataParallel(model)(inputs.to(next(model.parameters()).device))))
print("pipeline:", watched(pipelined))

# %% [markdown]
# False. Without GPUs, `DataParallel` calls the model on the whole batch, and nothing else. With several GPUs it splits
# the batch, copies the whole model to each, and brings the outputs back: data parallelism. There are no stages, and no
# micro-batches. (PyTorch itself recommends `DistributedDataParallel` in its place, with a process for each GPU.)
#
# A third text gives a rule for the number of devices: "GPUs = 2 × stages". Which ratios have run on this page?

# %%
for run in runs:
    count = run.shape.get("pp", 1)
    print(f"{run.name}: devices / stages = {len(run.devices) / count:g}, gradient error {run.error:.0e}")
for chunks in (1, 2, 4):
    name = "interleaved" if chunks > 1 else "1f1b"
    table = build_schedule(name, 4, 4, chunks)
    print(
        f"{name}, v = {chunks}: devices / stages = {table.devices / table.stages:g}, sound: {not check_schedule(table)}"
    )

# %% [markdown]
# There is no such rule. Two devices for each stage is one mixture, dp 2. The number of stages depends on what fits on a
# device, and the number of replicas on how many devices are left.
#
# ## Break it
#
# Replicas often have shares of different sizes: the last batch of an epoch, or padding. Take shares of 48 and 16
# sequences. Each replica has the gradient of its own mean loss. What if the two are averaged?

# %%
whole = unsplit_gradients(model, next_byte_loss, inputs, targets).gradients
parts = zip(inputs.split([48, 16]), targets.split([48, 16]), strict=True)
shares = [unsplit_gradients(model, next_byte_loss, *part).gradients for part in parts]
average = {name: sum(share[name] for share in shares) / len(shares) for name in whole}
print(f"average of two replicas: error {gradient_error(average, whole):.1%} of the largest gradient")

# %% [markdown]
# No process fails, and the loss still falls. But the 16 sequences of the small replica count three times as much as the
# others. `Pipeline(mesh=...)` weighs each replica by the terms of its loss. In the third exercise you do so by hand.
#
# ## What to remember
#
# - Replicas hold everything, send all gradients once a step, and have no bubble.
# - Stages hold their part, send activations all the time, and have a bubble.
# - Two replicas and two stages send the same where parameters are as many as the tokens of a batch times the width.
#   With more stages, one in the middle sends twice as much. With n replicas, each sends 2 (n - 1)/n of the gradients.
# - A rank is a place in the mesh. Groups are the lines along its dimensions.
#
# Lesson 10b cuts inside layers, and puts the kinds together.

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
