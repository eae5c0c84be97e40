# ---
# jupyter:
#   pipelab:
#     number: 10b
#     title: "Inside layers, and which shape"
#     minutes: 45
#     builds_on: [3, 5, 10]
#     goals:
#       - split a layer by columns and rows, with one all-reduce forward and one backward
#       - say which heads of an attention a rank holds, and which numbers belong to them
#       - say why tp stays inside a node, and where pp and dp go
#       - choose a shape for a cluster
# ---

# %% [markdown]
# ## What does a rank hold of a layer, and what does it send?
#
# Some layers are too large for one device, or too slow. Then one cuts inside them. Take an MLP, two matrices with GELU
# between them:
#
# $$y = \text{GELU}(x W_1)\, W_2$$
#
# Two ranks can share it. Each gets half of the columns of the first matrix, and so half of the hidden numbers. GELU
# works on each hidden number by itself, so no rank has to ask another. The second matrix is cut by rows: each rank has
# the rows that belong to its hidden numbers. Each gets a summand of y. One sum over the ranks gives y to all of them:
# an **all-reduce**.
#
# $$y = \text{GELU}(x W_1^{(0)})\, W_2^{(0)} + \text{GELU}(x W_1^{(1)})\, W_2^{(1)}$$
#
# An attention is cut by heads, in the same way. So each layer has two all-reduces in its forward. Backward it has two
# more, for the gradients of the two inputs (Shoeybi et al. 2019, arXiv 1909.08053).

# %% role="setup"
import torch
from torch.nn.functional import gelu
from pipelab.teaching import *

# %%
torch.manual_seed(0)
x, first, second = (torch.randn(size, dtype=torch.float64) for size in ((16, 8), (8, 32), (32, 8)))
y = gelu(x @ first) @ second
by_columns = sum(gelu(x @ columns) @ rows for columns, rows in zip(first.chunk(2, 1), second.chunk(2), strict=True))
print(f"columns, then rows: largest difference {float((by_columns - y).abs().max()):.0e}")
predict("10b-rings", "4 layers, m = 4: how many all-reduces over tp in a step?")

# %% [markdown]
# ## Break it
#
# Cut the first matrix by rows instead. Then each rank needs only half of x, and gets a *summand* of the hidden numbers.
# What if GELU is applied to the summands?

# %%
halves = zip(x.chunk(2, 1), first.chunk(2), strict=True)
early = sum(gelu(part @ rows) for part, rows in halves) @ second
print(f"GELU of summands: largest difference {float((early - y).abs().max()):.1f} of {float(y.abs().max()):.1f}")

# %% [markdown]
# The GELU of a sum is not the sum of GELUs. An all-reduce before GELU would mend this, so there would be two in each
# MLP. Columns first, then rows: this order saves one of them.
#
# ## Four ways, measured
#
# Now all ways train the same model, with four processes. It has only 4 layers. Each all-reduce waits for four processes
# that share this machine's cores, and a step of 48 layers has 768 of them.

# %%
question = "How many times as many bytes does a device send with tp 4 as with pp 4?"
predict("10b-sent", question, unit="times")

# %%
sharded = [{"dp": 4, "shard": "keep"}, {"dp": 4, "shard": "regather"}]
shapes = [{"dp": 4}, {"pp": 4}, {"tp": 4}, {"pp": 2, "tp": 2}, *sharded]
runs = run_meshes(shapes, layers=4, steps=2, progress=False)
data, pipeline, tensor, mixed, kept, again = runs
print(mesh_table(runs))
reveal("10b-sent", measurement=max(tensor.sent.values()) / max(pipeline.sent.values()))

# %% [markdown]
# (The gradient error is that of float64. A step is wall time of processes that share this machine's cores.)
#
# Tensor parallelism sends far more than the others, even in this small model. And its bytes grow with each layer, where
# those of a pipeline do not. The next cell counts its all-reduces from the bytes.

# %%
sequences, tokens, width, number = 16, 32, 64, 4
activation = sequences * tokens * width * number
ring = 2 * 3 / 4 * activation
print(
    f"an activation of one micro-batch has {activation / 1e3:.0f} kB; a ring of four devices sends {ring / 1e3:.0f} kB"
)
reveal("10b-rings", prediction=4 * 4 * tensor.microbatches, measurement=tensor.sent["tp"] / ring)

# %% [markdown]
# ## Why tp stays inside a node, and pp crosses it
#
# Bytes are half of the story. The other half is *how often*, and whether anything else can be done meanwhile. A rank
# needs the sum before it can go on with the next layer. So nothing hides these messages. A stage sends one activation
# for many layers, and computes the next micro-batch meanwhile (lesson 9). Replicas send once a step.
#
# The next cell works it out for a large model: a width of 8192, 80 layers, sequences of 4096 tokens, 16-bit numbers.
# Eight devices share it, by tp 8 or by pp 8. The forward of a layer takes 24 · width² operations for each token. A
# device computes at 400 TFLOP/s. Links carry 450 GB/s inside a node, and 50 GB/s between nodes. (These are round
# figures, of the order of today's hardware.)

# %%
width, layers, tokens, ways = 8192, 80, 4096, 8
links = {"inside a node": 450e9, "between nodes": 50e9}
activation = tokens * width * 2
compute = 24 * width**2 * tokens / ways / 400e12
for name, link in links.items():
    summed = 2 * 2 * (ways - 1) / ways * activation / link
    passed = activation / link
    stage = compute * ways * layers / ways
    print(f"{name}: a layer computes {1e3 * compute:.2f} ms, its all-reduces take {1e3 * summed:.2f} ms")
    print(f"{'':<13}  a stage computes {1e3 * stage:.0f} ms, its message takes {1e3 * passed:.2f} ms")

# %% [markdown]
# Inside a node, the waits of tensor parallelism are about a quarter of its computing. Between nodes they would be more
# than twice its computing. A stage's message is small beside a stage's work on both links.
#
# So the order of the axes follows from the bytes. tp is innermost, because ranks that follow one another are in one
# node. It is at most as large as a node. Then there are two ways:
#
# - pp next, and dp outermost: `make_mesh(dp=2, pp=4, tp=8)` numbers ranks so, and Llama 3 was trained so. dp sends much
#   at once, but only once a step. If it hides that behind the last backwards, it may be far away.
# - dp next, and pp outermost: Megatron-LM does so by default, and so does `plan_parallelism`. A stage's message is
#   small. So pp may be far away, and the sum of gradients gets the nearer links. This pays where nothing hides the sum.
#
# ## A claim on trial: "with tp 4, a device needs a fourth of the memory"
#
# Compare with a replica, which holds all of the model, and 16 sequences as well.

# %%
for kind in data.fullest.held:
    part = tensor.fullest.held[kind] / data.fullest.held[kind]
    print(f"{kind:<12} {part:.0%} of what a replica holds")

# %% [markdown]
# False. Matrices are cut, but norms, embedding and head are whole on each rank. So are the activations that they
# take. In this small model the embedding and the head weigh much. In a deep one, weights come near to a fourth, but
# activations do not. **Sequence parallelism** cuts the norms' activations too, along the sequence (Korthikanti et al.
# 2022, arXiv 2205.05198). It is `tensor_plan=sequence_parallel` here, and sends hardly more bytes: a reduce-scatter
# and an all-gather in place of each all-reduce.
#
# **Try it:** `print(mesh_table(run_meshes([{"tp": 2}, {"pp": 2}], layers=8, steps=1)))`. Which of the two holds
# fewer activations on its fullest device?
#
# <details><summary>What you should see, and why</summary>
#
# With tp 2 one micro-batch is under way, and a rank holds about two thirds of its activations. With pp 2 device 0
# has half of the layers, but two micro-batches in flight. That is as much as one micro-batch in all layers. So tp 2
# holds less.
#
# </details>
#
# ## ZeRO beside it
#
# Replicas hold everything four times. ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054) shares it out. Each replica
# keeps a fourth of each weight, gradient and optimizer state, and fetches the rest of a layer when it needs it. PyTorch
# calls it **FSDP**, fully sharded data parallelism. Two of the rows above are such runs. With *keep*, each layer is
# fetched once a step. With *regather*, it is fetched before each forward and again before each backward.

# %%
for run in (data, kept, again):
    states = sum(run.fullest.held[kind] for kind in ("weights", "gradients", "optimizer"))
    print(f"{run.name:<22} states {states / 1e6:.2f} MB, sends {run.sent['dp'] / 1e6:.2f} MB a step")
ways = {"data": data, "sharded": again, "tensor": tensor, "pipeline": pipeline}
note = "Measured: 4 layers, a batch of 64 sequences, micro-batches of 16; the device that sends most."
plot_parallelism({name: max(run.sent.values()) for name, run in ways.items()}, note=note)

# %% [markdown]
# Sharding costs no more bytes at first: an all-gather and a reduce-scatter are the two halves of an all-reduce. With
# *regather* it is half as much again. Unlike tensor parallelism, it still computes whole layers, and what is fetched
# can be fetched early.
#
# Here each replica has one micro-batch. With m of them, *regather* fetches everything 2m times, and a pipeline lives
# on many micro-batches. With *keep* one fetches once, but then whole weights stay on the device through the step.
# They are counted with the activations here. So *keep* saves gradients and optimizer state, and weights only between
# steps. Llama 3
# was trained so, with pipelines (Grattafiori et al. 2024, arXiv 2407.21783).
#
# ## Which shape?
#
# The questions of lesson 10 in their order:
#
# 1. Does it fit? Raise tp up to a node, then pp, until states and activations fit. Sharding of the optimizer state
#    alone (ZeRO-1) is nearly free.
# 2. Is the bubble small? The batch must give each pipeline m well above p.
# 3. All other devices become replicas.
#
# Narayanan et al. (2021, arXiv 2104.04473) trained GPT models in this order: tp 8 within a node, then pp, then dp. In
# the last exercise you write a search. `plan_parallelism` is such a search, with a larger cost model. The next cell
# asks it for a model of 70 billion parameters on eight nodes of eight GPUs. This is arithmetic. Nothing of it is run.

# %%
facts = ModelFacts.llama(80, 8192, 64, 8, 28672)  # layers, width, heads, key-value heads, feed-forward width
print(plan_parallelism(facts, Cluster.of("h100", nodes=8), batch=512, sharding=("none", "optimizer")))

# %% [markdown]
# The column *bubble* is all idle time: fill and drain, messages, and waits for the fullest stage, which has the head.
# The line below the table has fill and drain alone. Read first why the neighbours lose. Some do not fit, some wait
# longer for messages, some compute more. The best few differ by less than the cost model can tell. So try them on the
# real cluster.
#
# ## What to remember
#
# - Columns first, then rows: two all-reduces a layer forward, and two backward. Nothing hides them.
# - tp stays within a node. pp and dp cross nodes, in one order or the other.
# - Sharding saves states, not activations. It sends as much as replicas do, or more with each micro-batch.

# %%
ledger()

# %% [markdown] page="exercises"
# A mesh has dp replicas of the model. Each has pp stages, and each stage is split over tp ranks. A replica works on m
# micro-batches in a step. Ranks, replicas, stages and parts are counted from 0. Nothing here depends on your machine.

# %% role="setup"
import torch
from collections.abc import Callable
from torch import Tensor
from torch.nn.functional import gelu, linear
from pipelab.teaching import NotWritten, check

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


def mlp(
    xs: list[Tensor],
    shards: list,
    sum_forward: Callable[[list[Tensor]], list[Tensor]],
    sum_backward: Callable[[list[Tensor]], list[Tensor]],
) -> list[Tensor]:
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

# %% [markdown] role="lead" exercise="choose_shape" difficulty="hard" minutes=35
# Which shape (dp, pp, tp, m) suits a model and a cluster? Here is a small cost model. It forgets much, such as messages
# that hide behind work. But it has all that pulls in one direction or another.
#
# `model` has these facts:
#
# - `layers`, and `layer_parameters` of one layer
# - `layer_activations`: bytes that one sequence leaves in one layer for the backward
# - `message_bytes`: bytes of one sequence between two layers
# - `layer_seconds`: forward and backward of one sequence in one layer, on one device
# - `fixed_seconds`: what each layer takes on top, for each micro-batch
#
# `cluster` has `devices`, `node` (devices in a node) and `memory` (bytes of a device). It also has two bandwidths,
# `inside` and `between` nodes, in bytes per second. A step has `batch` sequences. Each pipeline runs 1F1B with one
# stage on each device.
#
# Write size = batch / (dp · m) for the sequences of a micro-batch. A tp group spans tp devices, a pipeline pp · tp, and
# a dp group dp · pp · tp. Its link is `inside` if it spans at most a node, and
# `between` otherwise. A ring all-reduce of n devices takes 2 (n - 1)/n · bytes / link.
#
# | | |
# | --- | --- |
# | layers of a stage | layers / pp |
# | memory | (16 · layer_parameters + min(pp, m) · size · layer_activations) · layers of a stage / tp |
# | one layer, one micro-batch | fixed_seconds + size · layer_seconds / tp + 4 tp all-reduces of size · message_bytes |
# | slot | its layers, and if pp > 1 also 2 · size · message_bytes / link of the pipeline |
# | step | (m + pp - 1) slots, and a dp all-reduce of 2 · layer_parameters · layers of a stage / tp bytes |
#
# - `device_memory` returns the bytes of the fullest device, and `step_time` the seconds of a step.
# - `best_shape` returns the fastest shape that fits into `memory`, or None if no shape fits. It uses all devices: dp ·
#   pp · tp = `devices`. pp divides the layers, and dp · m divides the batch. If several are fastest, any one is right.


# %% role="answer" exercise="choose_shape"
def device_memory(model: dict[str, float], batch: int, shape: tuple[int, int, int, int]) -> float:
    """Bytes of the fullest device.

    >>> model = {"layers": 4, "layer_parameters": 10, "layer_activations": 100}
    >>> device_memory(model, batch=8, shape=(1, 2, 1, 4))    # 2 layers, of each 160 bytes and 2 · 2 · 100
    1120.0
    """
    ### BEGIN SOLUTION
    dp, pp, tp, m = shape
    size, layers = batch / (dp * m), model["layers"] / pp
    return (16 * model["layer_parameters"] + min(pp, m) * size * model["layer_activations"]) * layers / tp
    ### END SOLUTION


def step_time(
    model: dict[str, float], cluster: dict[str, float], batch: int, shape: tuple[int, int, int, int]
) -> float:
    """Seconds of a step.

    >>> model = {"layers": 4, "layer_parameters": 10, "message_bytes": 6, "layer_seconds": 1, "fixed_seconds": 0.5}
    >>> cluster = {"devices": 2, "node": 2, "inside": 12, "between": 1}
    >>> step_time(model, cluster, batch=4, shape=(1, 2, 1, 4))    # 5 slots of 2 · 1.5 + 1
    20.0
    """
    ### BEGIN SOLUTION
    dp, pp, tp, m = shape
    size, layers = batch / (dp * m), model["layers"] / pp

    def ring(ranks: int, tensor: float, span: int) -> float:
        return 2 * (ranks - 1) / ranks * tensor / link(span)

    def link(span: int) -> float:
        return cluster["inside"] if span <= cluster["node"] else cluster["between"]

    message = size * model["message_bytes"]
    layer = model["fixed_seconds"] + size * model["layer_seconds"] / tp + 4 * ring(tp, message, tp)
    slot = layers * layer + (2 * message / link(pp * tp) if pp > 1 else 0)
    return (m + pp - 1) * slot + ring(dp, 2 * model["layer_parameters"] * layers / tp, dp * pp * tp)
    ### END SOLUTION


def best_shape(model: dict[str, float], cluster: dict[str, float], batch: int) -> tuple[int, int, int, int] | None:
    """The fastest shape that fits, as (dp, pp, tp, m).

    >>> model = {"layers": 4, "layer_parameters": 10, "layer_activations": 100, "message_bytes": 6}
    >>> model |= {"layer_seconds": 1, "fixed_seconds": 0.5}
    >>> best_shape(model, {"devices": 1, "node": 2, "memory": 1e4, "inside": 12, "between": 1}, batch=4)
    (1, 1, 1, 1)
    """

    ### BEGIN SOLUTION
    def held(dp: int, pp: int, tp: int, m: int) -> float:
        activations = min(pp, m) * batch / (dp * m) * model["layer_activations"]
        return (16 * model["layer_parameters"] + activations) * model["layers"] / pp / tp

    def link(span: int) -> float:
        return cluster["inside"] if span <= cluster["node"] else cluster["between"]

    def seconds(shape: tuple[int, int, int, int]) -> float:
        dp, pp, tp, m = shape
        layers, message = model["layers"] / pp, batch / (dp * m) * model["message_bytes"]
        layer = model["fixed_seconds"] + batch / (dp * m) * model["layer_seconds"] / tp
        layer += 8 * (tp - 1) / tp * message / link(tp)
        slot = layers * layer + (2 * message / link(pp * tp) if pp > 1 else 0)
        gradients = 2 * model["layer_parameters"] * layers / tp
        return (m + pp - 1) * slot + 2 * (dp - 1) / dp * gradients / link(dp * pp * tp)

    devices, fitting = int(cluster["devices"]), []
    for dp in range(1, devices + 1):
        for pp in range(1, devices // dp + 1):
            tp = devices // (dp * pp)
            if dp * pp * tp != devices or model["layers"] % pp:
                continue
            for m in range(1, batch // dp + 1):
                if batch % (dp * m) == 0 and held(dp, pp, tp, m) <= cluster["memory"]:
                    fitting.append((dp, pp, tp, m))
    return min(fitting, key=seconds, default=None)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="choose_shape"
# The first two functions are the table, line by line. How many shapes are there for the third one, if a cluster has 24
# devices? Could you try them all?

# %% [markdown] role="hint" exercise="choose_shape"
# Write two helpers: one for the link of a span, and one for the seconds of a ring. They are used for tp and dp alike.
# For `best_shape`, go through all dp, pp and m. The devices give tp. Leave out what does not divide, then what does not
# fit, and take the fastest of the others.

# %% [markdown] role="hint" exercise="choose_shape"
# A ring of one device takes no time, because n - 1 is 0. So dp = 1 and tp = 1 need no special case. Only the messages
# of a pipeline with one stage do. With `//` and `%` you find tp, and what does not divide. `min` takes a `key`, and a
# `default` for the case that the list is empty.

# %% [markdown] role="solution" exercise="choose_shape"
# Look at the shapes that win. tp stays inside a node, because its all-reduces come in each layer. Replicas cost one
# reduction a step, no matter how large the batch is. Where the link between nodes is slow or memory is short, a
# pipeline takes over, and it wants many micro-batches. Larger fixed times pull m down again, as in lesson 5.
