# ---
# jupyter:
#   pipelab:
#     number: 1
#     title: One model, four devices
#     minutes: 45
#     builds_on: [0]
#     goals:
#       - name four ways to share a model among devices, and say what each of them sends
#       - list what training keeps in memory, in bytes, and say how many devices it fills
#       - cut layers into stages, and say what each device then holds
# ---

# %% [markdown]
# ## How can four devices share one model?
#
# Lesson 0 ran a model on four devices as a pipeline. There are four common ways to share the work of training. They
# differ in what is cut, and therefore in what a device has to send.
#
# | way | what is cut | what a device sends in each step |
# | --- | --- | --- |
# | **data parallel** | the batch; each device has the whole model | all gradients, twice: to add, to fetch the sum |
# | **sharded data parallel** | the batch; and every layer is stored in p parts | weights twice, gradients once |
# | **tensor parallel** | the matrices of every layer | partial results, four times per layer |
# | **pipeline parallel** | the list of layers | activations at the cut, and gradients on the way back |
#
# **Sharding** means that a device stores only a part of each layer. It fetches the rest when it computes that layer
# (Rajbhandari et al. 2020, arXiv 1910.02054; called ZeRO or FSDP).
#
# How much is that in bytes? The second cell below runs one step of lesson 0's pipeline and counts what device 1
# really sends. The other three figures are computed, for the same model and the same batch. p devices can add up
# their tensors by passing parts around in a ring. Each of them then sends 2(p - 1)/p times the size of the tensor
# (Patarasu and Yuan 2009). This takes two phases, adding and fetching, and each sends half of these bytes. Sharding
# needs three such phases: it fetches weights for F and for B, and adds gradients.

# %% role="setup"
import torch
from pipelab.teaching import *

inputs, targets = text_batch(batch=64)

# %%
p = 4
table = build_schedule("1f1b", devices=p, microbatches=4)  # the table of lesson 0
model = TransformerLM(layers=48)
step = Pipeline(model, table, loss=next_byte_loss).step(inputs, targets)
pipeline_bytes = sum(message.size for message in step.timeline.messages if message.source == 1)  # size: in bytes
gradients = sum(parameter.grad.nbytes for parameter in model.parameters())
activations = pipeline_bytes / 2  # of the whole batch, at one cut; the other half are gradients on the way back
ring = 2 * (p - 1) / p
sent = {
    "data": ring * gradients,
    "sharded": 1.5 * ring * gradients,  # three halves of a ring sum (Rajbhandari et al. 2020)
    "tensor": 4 * 48 * ring * activations,  # per layer two sums in F and two in B (Shoeybi et al. 2019)
    "pipeline": pipeline_bytes,
}
note = "48 layers, a batch of 64 sequences, 32-bit numbers. Pipeline: device 1, counted in a run. Others: computed."
plot_parallelism(sent, note=note)

# %% [markdown]
# In this comparison a pipeline device sends the least, and it sends only to its neighbours. (Device 1 has two of
# them. The first and the last device have one, and send half as much.) Pipelines are therefore used where links are
# slow, for example between machines. The price is idle time, because devices wait for each other. This course is
# about that price. (The figures depend on the model and the batch. The first two do not grow with the batch; the last
# two do.)
#
# Large runs combine the ways. A typical mix is tensor parallel inside a machine, pipeline parallel between machines,
# and data parallel on top (Narayanan et al. 2021, arXiv 2104.04473). PyTorch has all of them in
# [torch.distributed](https://docs.pytorch.org/docs/stable/distributed.html), pipelines in
# [torch.distributed.pipelining](https://docs.pytorch.org/docs/stable/distributed.pipelining.html). The page
# `docs/pytorch.md` of this repository shows how to run the course's tables there.
#
# Now back to the pipeline. Why cut a model at all? This lesson counts what training keeps in memory, and cuts the
# layers. Lesson 1b cuts the autograd graph as well, and builds a whole pipeline by hand.
#
# ## What must fit
#
# Training keeps more than the weights. **Mixed precision** computes in 16 bits and updates in 32 (Micikevicius et al.
# 2018, arXiv 1710.03740). With the Adam optimizer every parameter then needs this much memory during the whole
# training:
#
# | what | why | bytes |
# | --- | --- | --- |
# | weight, 16 bits | forward and backward compute with it | 2 |
# | gradient, 16 bits | the backward leaves it for the optimizer | 2 |
# | **master copy** of the weight, 32 bits | the optimizer updates this copy | 4 |
# | Adam's first **moment**, 32 bits | running mean of the gradient | 4 |
# | Adam's second moment, 32 bits | running mean of its square | 4 |
#
# Together that is 16 bytes a parameter (Rajbhandari et al. 2020). All of it is called the **training state** of the
# model. Its size does not depend on the batch.
#
# Why the master copy? An update is often smaller than the gap between a 16-bit number and the next one. The next cell
# adds 0.001 to a weight of 1, a hundred times, in three formats. It also stores a very small gradient in each.

# %%
updates, update, small = 100, 0.001, 1e-8
for kind in (torch.bfloat16, torch.float16, torch.float32):
    weight = torch.ones((), dtype=kind)
    for _ in range(updates):
        weight += update
    stored = torch.tensor(small, dtype=kind)
    print(f"{kind}: after {updates} updates of {update}: {weight:.3f}; a gradient of {small} is stored as {stored:.1e}")

# %% [markdown]
# In bfloat16 the weight never moved, because 1.001 is rounded back to 1. In float16 it moved, but each update was
# rounded. And float16 turns very small gradients into 0. Therefore the loss is multiplied by a large factor before the
# backward. The gradients are divided by it afterwards. This is called **loss scaling** (Micikevicius et al. 2018). It
# is not needed with bfloat16, which has the range of 32-bit numbers.
#
# Many frameworks keep gradients in 32 bits while they add up the gradients of several micro-batches. That makes 18
# bytes a parameter. (A *Further* at the end counts the 16 bytes on our own model.)
#
# Now a large model. GPT-3 has 96 layers of width 12,288, a vocabulary of 50,257 and 2,048 positions (Brown et al.
# 2020, arXiv 2005.14165). A transformer layer of width d has four d x d matrices for attention and two of d x 4d for
# the MLP. That makes 12d² weights, and 13d more for biases and norms. GPT-3's head uses the weights of the embedding
# again, so it adds none. The cell below first tests this formula on the layers of our own model.


# %%
def layer_parameters(width):
    return 12 * width**2 + 13 * width


counted = sum(parameter.numel() for parameter in model.layers.parameters())
print(f"our own layers: {48 * layer_parameters(64):,} by the formula, {counted:,} counted")

gpt3 = 96 * layer_parameters(12288) + (50257 + 2048 + 2) * 12288
print(f"GPT-3: {gpt3:,} parameters by the same formula, with embedding, positions and the last norm")
predict("01-gpt3", "What is the smallest number of 80 GiB devices that holds GPT-3's training state?", unit="devices")

# %% [markdown]
# ## A claim on trial
#
# *"A model of 175 billion parameters has 350 GB of weights in 16 bits. Eight devices of 80 GB hold it."* A survey on
# the web has a program that tests whether a model fits. It multiplies the parameters by 2 bytes, divides by 8
# devices, and says that the model fits. The next cell does this calculation twice: for the weights alone, and for the
# whole training state. Then it shows the answer beside your guess.

# %%
from math import ceil

GiB = 2**30  # a gibibyte; a gigabyte, GB, is 10**9 bytes
devices = 8
for what, each in {"16-bit weights alone": 2, "training state": 16}.items():
    share = each * gpt3 / devices / GiB
    verdict = "fits" if share < 80 else "does not fit"
    print(f"{what:20} {share:6.1f} GiB on each of {devices} devices: {verdict}")
state = 16 * gpt3
print(f"training state of GPT-3: {state:,} bytes = {state / 1e9:,.0f} GB = {state / GiB:,.0f} GiB")
reveal("01-gpt3", prediction=ceil(state / (80 * GiB)))  # rounded up: a partly filled device is still a device

# %% [markdown]
# The calculation in the claim is about right for a model that only answers questions. Training needs eight times as
# much, and the activations come on top of that.
#
# Check the unit as well. Memory that is sold as 80 GB is usually 80 GiB, and a GiB is 7 % more than a GB.
#
# ## The bytes of our 48-layer model
#
# Our 48 layers are narrow and trained in 32 bits. Each parameter takes 4 bytes for the weight, 4 for its gradient and 8
# for the moments. There is no second copy. So this too is 16 bytes a parameter.
#
# The training state does not depend on the batch, but the **activations** do. These are the tensors that the forward of
# each layer keeps because its backward will need them.

# %%
predict("01-activations", "Batch of 64: how many times as large as the weights are the activations?", unit="times")

# %%
optimizers = []  # kept here, so that their state can be counted after the step


def size(tensors):
    return sum(tensor.nbytes for tensor in tensors)


def adamw(named):  # a pipeline calls this once per stage, with the stage's (name, parameter) pairs
    optimizers.append(torch.optim.AdamW([parameter for _, parameter in named], lr=1e-3))
    return optimizers[-1]


def state_bytes(optimizer):
    return size(value for state in optimizer.state.values() for value in state.values())


model = TransformerLM(layers=48)
alone = Pipeline(model, build_schedule("naive", devices=1, microbatches=1), loss=next_byte_loss, optimizer=adamw)
report = alone.step(inputs, targets)

held = {
    "weights": size(model.parameters()),
    "gradients": size(parameter.grad for parameter in model.parameters()),
    "optimizer state": state_bytes(optimizers[-1]),
    "activations": report.peak_activation_bytes[0],  # of device 0, the only one
}
for name, found in [*held.items(), ("together", sum(held.values()))]:
    print(f"{name:16} {found / 1e6:6.1f} MB  {found / sum(held.values()):6.1%}")
reveal("01-activations", measurement=held["activations"] / held["weights"])

# %% [markdown]
# This was one step on one device, with the whole batch of 64 sequences. `peak_activation_bytes` is measured when the
# device holds the most. Each tensor that autograd keeps is counted once. So are inputs and messages that wait to be
# used. It leaves out the weights.
#
# **Try it:** let the step be `alone.step(*text_batch(batch=32))`. Which of the four lines change?
#
# <details><summary>What you should see, and why</summary>
#
# Only the activations change: half as many sequences need half as many bytes. Weights, gradients and optimizer state
# stay exactly the same. The training state belongs to the model, the activations to the model and the batch.
#
# </details>
#
# ## Cut the layers
#
# A model that is too large for one device is cut. Layers are used one after the other. So the simplest cut gives each
# device a stage of neighbouring layers. A layer's weights, gradients and optimizer state go to the same device. So
# these three, the first three lines printed above, are divided by p. (Activations are not always divided. Lesson 1b
# comes back to them.)

# %%
stages = cut_model(model, 4)
for device, (layers, stage) in enumerate(zip(cut_layers(48, 4), stages, strict=True)):
    parameters = sum(parameter.numel() for parameter in stage.parameters())
    where = f"device {device}: layers {layers[0]:2} to {layers[-1]:2}"
    print(f"{where}, {parameters:,} parameters, {16 * parameters:,} bytes of training state")
for what, vocabulary, width in (("ours", 256, 64), ("a large one", 128_000, 4096)):
    layers = vocabulary * width / layer_parameters(width)
    print(f"{what}: an embedding of {vocabulary:,} tokens at width {width:,} is as large as {layers:.1f} layers")

# %% [markdown]
# The embedding goes with the first stage and the head with the last. That is why the shares differ. The difference is
# small only because our vocabulary has 256 entries. The last line takes about the width and the vocabulary of Llama 3
# 8B (Grattafiori et al. 2024, arXiv 2407.21783). Its embedding is larger than two layers, and so is its head. In such
# a model the first and the last device get fewer layers.
#
# ## Break it
#
# `Pipeline(memory_limit=...)` gives each device a fixed number of bytes. A step that needs more is stopped with an
# error. Here a device has 150 MB. The next cell trains on 1, 2 and 4 devices with the simplest pipeline, called
# **naive**: all 64 sequences go through the stages as one piece. From the bytes printed above, can you say which of
# the three will finish the step?

# %%
limit = "150MB"
for p in (1, 2, 4):
    naive = build_schedule("naive", devices=p, microbatches=1)
    options = {"loss": next_byte_loss, "optimizer": adamw, "memory_limit": limit}
    try:
        report = Pipeline(TransformerLM(layers=48), naive, **options).step(inputs, targets)
        print(f"p = {p}: runs, {max(held.total for held in report.memory) / 1e6:.1f} MB on the fullest device")
    except OutOfMemoryError as error:
        print(f"p = {p}: {str(error).split('. ')[0]}")  # the first sentence

# %% [markdown]
# A step stops at the first tensor that crosses the limit. So the message names the action and what was needed at that
# moment. The whole step would need more. With four devices each holds about a quarter of everything, and the step runs.
# None of the model's code changed, only the cut.
#
# **Try it:** find the smallest limit, in whole MB, at which two devices can train. (An error names only the first
# tensor that did not fit. A run under a high limit prints what a step needs.) Then halve the batch. How far does the
# limit fall?
#
# <details><summary>What you should see, and why</summary>
#
# The smallest limit is a little over half of what is printed above as *together*. The fullest device decides, and the
# two are not exactly equal. At half the batch the activations are half as large, but the training state stays. So the
# limit falls to a little more than half.
#
# </details>
#
# ## What to remember
#
# - Training keeps weights, gradients and the optimizer's state: 16 bytes a parameter here, for any batch.
# - Activations come on top. They grow with the batch, and may be far larger than the weights.
# - Cutting the layers into p stages divides the training state by about p. The embedding and the head make the parts
#   unequal.
# - Of the four ways to share a model, a pipeline sends the least here, and only to neighbours. The price is idle time.
#
# **Where this leads.** The layers are cut, but a backward has to pass through all of them. Lesson 1b cuts the
# autograd graph too, and finds out how busy four devices are.
#
# Your guesses so far:

# %%
ledger()

# %% [markdown] role="further"
# ## Further: sixteen bytes, counted
#
# The next cell trains our 48-layer model for one step in mixed precision, by hand. It counts the bytes of every
# tensor that is left afterwards. (During the update the gradients exist in 32 bits as well. For that short time it is
# 20 bytes.)

# %% role="further"
import copy

master = TransformerLM(layers=48)
half = copy.deepcopy(master).to(torch.bfloat16)
optimizer = torch.optim.AdamW(master.parameters(), lr=1e-3)
next_byte_loss(half(inputs[:4]).float(), targets[:4]).backward()
for full, short in zip(master.parameters(), half.parameters(), strict=True):
    full.grad = short.grad.float()
optimizer.step()
optimizer.zero_grad()  # the 32-bit gradients were needed only for a moment
with torch.no_grad():
    for full, short in zip(master.parameters(), half.parameters(), strict=True):
        short.copy_(full)

count = sum(parameter.numel() for parameter in master.parameters())
kept = {
    "16-bit weights": size(half.parameters()),
    "16-bit gradients": size(parameter.grad for parameter in half.parameters()),
    "master copy": size(master.parameters()),
    "moments": state_bytes(optimizer),
}
for name, found in kept.items():
    print(f"{name:16} {found / count:6.2f} bytes a parameter")
print(f"{'all':16} {sum(kept.values()) / count:6.2f} bytes a parameter")

# %% [markdown] role="further"
# ## Further: the activations of GPT-3
#
# How much does one transformer layer keep for its backward, in 16 bits? Korthikanti et al. (2022, arXiv 2205.05198)
# count s·b·h·(34 + 5·a·s/h) bytes where s is the number of tokens, b of sequences and a of attention heads, and h is
# the width. The second term is for the attention scores. **Selective recomputation**, from the same paper, drops
# these scores and computes them again in the backward. Fused attention (Dao et al. 2022, arXiv 2205.14135) never
# stores them. Either way the second term is gone.

# %% role="further"
tokens, width, heads = 2048, 12288, 96
for what, term in (("with the scores", 5 * heads * tokens / width), ("without them", 0)):
    one = 96 * tokens * width * (34 + term)
    print(f"{what}: one sequence {one / GiB:,.1f} GiB, the batch of GPT-3 {3.2e6 / tokens * one / GiB:,.0f} GiB")
print(f"training state: {16 * gpt3 / GiB:,.0f} GiB")

# %% [markdown] role="further"
# The batch of GPT-3 has 3.2 million tokens (Brown et al. 2020). The naive pipeline keeps the activations of the whole
# batch, each device those of its own layers. Even with one layer on each of 96 devices, that is more than 1,200 GiB a
# device. So for a model of this size naive is impossible, with the scores or without.

# %% [markdown] page="exercises"
# There is one exercise: count bytes. It needs no PyTorch.

# %% role="setup"
from math import ceil

from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="must_fit" difficulty="easy" minutes=12
# How many devices does a model need for its training state alone, without activations? Assume mixed precision. Weights
# and gradients have 16 bits, and the master copy of the weights has 32 bits. The optimizer keeps `moments` more values
# in 32 bits for each parameter: 2 for Adam, 1 for SGD with momentum, 0 for plain SGD. Assume also that layers can be
# cut anywhere, so that every device holds an equal part.
#
# Write three functions:
#
# - `training_bytes` returns the training state in bytes.
# - `gib_per_device` returns each device's part of it in GiB (2^30 bytes).
# - `least_devices` returns the smallest number of devices that hold it, if each device has `gib` GiB. A device may be
#   filled to the last byte.


# %% role="answer" exercise="must_fit"
def training_bytes(parameters: int, moments: int = 2) -> int:
    """Bytes of weights, gradients, master copy and optimizer state together.

    >>> training_bytes(1000, moments=0)
    8000
    """
    ### BEGIN SOLUTION
    weights, gradients, master = 2, 2, 4
    return parameters * (weights + gradients + master + 4 * moments)
    ### END SOLUTION


# %% role="answer" exercise="must_fit"
def gib_per_device(parameters: int, devices: int, moments: int = 2) -> float:
    """GiB of training state on each of ``devices`` devices.

    >>> gib_per_device(2**30, devices=4, moments=0)
    2.0
    """
    ### BEGIN SOLUTION
    return training_bytes(parameters, moments) / 2**30 / devices
    ### END SOLUTION


# %% role="answer" exercise="must_fit"
def least_devices(parameters: int, gib: float, moments: int = 2) -> int:
    """The smallest number of devices of ``gib`` GiB that hold the training state.

    >>> least_devices(2**30, gib=3, moments=0)
    3
    """
    ### BEGIN SOLUTION
    return ceil(gib_per_device(parameters, 1, moments) / gib)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="must_fit"
# Go through the table in the lesson line by line. Which lines stay the same with another optimizer?

# %% [markdown] role="hint" exercise="must_fit"
# Three lines do not depend on the optimizer, and each moment is one line more. For the units: one GiB is 1024 · 1024 ·
# 1024 bytes.

# %% [markdown] role="hint" exercise="must_fit"
# Test `training_bytes` first: with one parameter and two moments it must give the lesson's bytes a parameter. The
# other two functions can call functions that you already have. In the last one, think of a device that is only partly
# filled. What does `ceil` do?

# %% [markdown] role="solution" exercise="must_fit"
# With Adam in 32 bits throughout it would be 4 + 4 + 8 = 16 bytes as well. So mixed precision saves time and
# activations, but no training state. Frameworks that keep gradients in 32 bits need 18 bytes.
