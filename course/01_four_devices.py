# ---
# jupyter:
#   pipelab:
#     number: 1
#     title: One model, four devices
#     minutes: 40
#     builds_on: [0]
#     goals:
#       - account for the memory that training a model takes, and say how many devices it fills
#       - cut layers into stages, and an autograd graph into pieces, with unchanged gradients
#       - say why the naive pipeline leaves three of four devices idle
#       - say what the device clock is, and when to trust it rather than the wall clock
# ---

# %% [markdown]
# ## Why cut a model at all?
#
# Lesson 0 ran a model on four devices. This lesson begins one step earlier, with that question. Then it cuts by hand
# what lesson 0 cut for you: the layers, the messages, the autograd graph. It ends with the simplest pipeline there is,
# the **naive** one. It solves the memory problem, and wastes three quarters of the machines.

# %% role="setup"
import torch
from pipelab.teaching import *

torch.set_num_threads(1)  # one core for each device, in the cells by hand as in pipelab's pipelines
inputs, targets = text_batch(batch=64)

# %% [markdown]
# ## What must fit
#
# Training keeps more than the weights. With the Adam optimizer in **mixed precision** (Micikevicius et al. 2018, arXiv
# 1710.03740), every parameter has, all through training:
#
# | what | why | bytes |
# | --- | --- | --- |
# | weight, 16 bits | forward and backward compute with it | 2 |
# | gradient, 16 bits | the backward leaves it for the optimizer | 2 |
# | **master copy** of the weight, 32 bits | the optimizer updates this one | 4 |
# | Adam's first **moment**, 32 bits | running mean of the gradient | 4 |
# | Adam's second moment, 32 bits | running mean of its square | 4 |
#
# Rajbhandari et al. (2020, arXiv 1910.02054) count it this way: 16 bytes a parameter. All of it together is the
# **training state** of the model. It is there however small the batch.
#
# Why the master copy? An update is often smaller than the last digit that a 16-bit number has. The next cell adds
# 0.001 to a weight of 1, a hundred times, in both formats. Then it trains the 48-layer model of this course one step
# in mixed precision, by hand, and counts the bytes of every tensor that is left.


# %%
import copy


def size(tensors):
    return sum(tensor.nbytes for tensor in tensors)


for kind in (torch.bfloat16, torch.float32):
    weight, updates, update = torch.ones((), dtype=kind), 100, 0.001
    for _ in range(updates):
        weight += update
    print(f"after {updates} updates of {update} in {kind}: {weight:.3f}")

master = TransformerLM(layers=48)
half = copy.deepcopy(master).to(torch.bfloat16)
optimizer = torch.optim.AdamW(master.parameters(), lr=1e-3)
next_byte_loss(half(inputs[:4]).float(), targets[:4]).backward()
for full, short in zip(master.parameters(), half.parameters(), strict=True):
    full.grad = short.grad.float()
optimizer.step()
optimizer.zero_grad()  # the 32-bit gradients were needed for a moment only

count = sum(parameter.numel() for parameter in master.parameters())
kept = {
    "16-bit weights": size(half.parameters()),
    "16-bit gradients": size(parameter.grad for parameter in half.parameters()),
    "master copy": size(master.parameters()),
    "moments": size(value for state in optimizer.state.values() for value in state.values()),
}
for name, found in kept.items():
    print(f"{name:16} {found / count:6.2f} bytes a parameter")
print(f"{'all':16} {sum(kept.values()) / count:6.2f} bytes a parameter")

# %% [markdown]
# In 16 bits the weight never moved. (The odd thousandth of a byte is Adam's step counter, one number per tensor.)
#
# Now a large model. GPT-3 has 96 layers of width 12,288, a vocabulary of 50,257 and 2,048 positions (Brown et al.
# 2020, arXiv 2005.14165). A transformer layer of width d has four d x d matrices for attention and two of d x 4d for
# the MLP: 12d² weights, and 13d more for biases and norms. The cell below first tries this formula on the layers of
# our own model, then uses it.


# %%
def layer_parameters(width):
    return 12 * width**2 + 13 * width


counted = sum(parameter.numel() for parameter in master.layers.parameters())
print(f"our own layers: {48 * layer_parameters(64):,} by the formula, {counted:,} counted")

gpt3 = 96 * layer_parameters(12288) + (50257 + 2048 + 2) * 12288
print(f"GPT-3: {gpt3:,} parameters by the same formula, with embedding, positions and the last norm")
predict("01-gpt3", "How many devices of 80 GiB does GPT-3's training state fill, at the least?", unit="devices")

# %%
GiB = 2**30  # a gibibyte; a gigabyte, GB, is 10**9 bytes
state = 16 * gpt3
print(f"{state:,} bytes = {state / 1e9:,.0f} GB = {state / GiB:,.0f} GiB")
reveal("01-gpt3", prediction=-(-state // (80 * GiB)))  # rounded up: part of a device is a whole one

# %% [markdown]
# That is before a single sequence has gone through it. The activations come on top.
#
# ## A claim on trial
#
# *"A model of 175 billion parameters has 350 GB of weights in 16 bits. Eight devices of 80 GB hold it."* A
# configuration check in a survey on the web does this sum, 2 bytes a parameter over 8 devices, and lets the model
# pass.

# %%
devices = 8
for what, each in {"16-bit weights alone": 2, "training state": 16}.items():
    share = each * 175e9 / devices / GiB
    verdict = "fits" if share < 80 else "does not fit"
    print(f"{what:20} {share:6.1f} GiB on each of {devices} devices: {verdict}")

# %% [markdown]
# The sum is about right for a model that only answers. To train it, eight times as much has to fit. And mind the unit:
# memory that is sold as 80 GB is usually 80 GiB, and a GiB is 7 % more than a GB. Mixing them is 7 % off.
#
# (Sixteen bytes are what stands between two steps. While the optimizer runs, a gradient may stand in 32 bits as well,
# as in the cell above: for a moment 20.)
#
# ## The worked example's own bytes
#
# Our 48 layers are narrow and trained in 32 bits: 4 bytes for the weight, 4 for its gradient, 8 for the moments, no
# second copy. Again 16 bytes a parameter, as it happens.
#
# What depends on the batch too are the **activations**: what the forward of each layer keeps because its backward will
# need it.

# %%
predict("01-activations", "Batch of 64: how many times as many bytes as the weights do activations take?", unit="times")

# %%
optimizers = []


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
    "activations": report.peak_activation_bytes[0],
}
for name, found in held.items():
    print(f"{name:16} {found / 1e6:6.1f} MB  {found / sum(held.values()):6.1%}")
reveal("01-activations", measurement=held["activations"] / held["weights"])

# %% [markdown]
# This was one device, and one step on the whole batch of 64 sequences. `peak_activation_bytes` is measured: the bytes
# of all tensors that autograd keeps, and of inputs and messages that wait, at the moment when that was most; each
# counted once, weights left out.
#
# **Try it:** let the step be `alone.step(*text_batch(batch=32))`. Which of the four lines change? Training state
# belongs to the model, activations to the model and the batch.
#
# ## Cut the layers
#
# Too much for one device, so it is cut. Layers are used one after the other, so the simplest cut gives each device a
# run of neighbouring layers, a stage. What belongs to a layer stays with it: its weights, their gradients, its
# optimizer state, its activations. So every line of the account is divided by p.

# %%
stages = cut_model(model, 4)
for device, (layers, stage) in enumerate(zip(cut_layers(48, 4), stages, strict=True)):
    parameters = sum(parameter.numel() for parameter in stage.parameters())
    where = f"device {device}: layers {layers[0]:2} to {layers[-1]:2}"
    print(f"{where}, {parameters:,} parameters, {16 * parameters:,} bytes of training state")

# %% [markdown]
# The embedding goes with the first stage and the head with the last: that is the small difference.
#
# ## Hand an activation over
#
# Stage 1 needs what stage 0 computed. The devices know nothing of each other but this: there is a queue, and a device
# that takes from an empty queue waits. Two stages are enough to see it. Each device is a thread; device 1 starts
# first. (In 64-bit numbers, so that later only the last digits of rounding can differ.)

# %%
from queue import Empty, Queue
from threading import Thread

exact = TransformerLM(layers=48).double()
first, second = cut_model(exact, 2)  # layers 0-23 and 24-47
queue = Queue()
log = []
results = {}


def device_0():
    h = first(inputs)
    log.append(f"device 0 hands over {tuple(h.shape)}, {h.nbytes:,} bytes")
    queue.put(h)


def device_1():
    log.append("device 1 asks the queue, and waits")
    h = queue.get()
    log.append("device 1 has it, and goes on")
    results["scores"], results["h"] = second(h), h


threads = [Thread(target=device_1), Thread(target=device_0)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(log))
print(f"the same scores as from the model in one piece: {torch.equal(results['scores'], exact(inputs))}")

# %% [markdown]
# A **message** is small beside what the stage keeps: it is one tensor (64 sequences, 32 tokens, width 64), and every
# single layer keeps several of that size for its backward. That is what makes a cut between layers cheap.
#
# ## Cut the graph
#
# One thing crossed that queue which no wire would carry: the tensor's history. `h.grad_fn` leads back through all of
# device 0's layers, so device 1's loss has a graph that reaches across. The function below walks such a graph and
# counts the parameter tensors of each stage that it comes to.


# %%
def reached(tensor, stages):
    """How many parameter tensors of each stage a backward from this tensor would come to."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [earlier for earlier, _ in node.next_functions]
    leaves = {id(node.variable) for node in seen if hasattr(node, "variable")}
    return [sum(id(parameter) in leaves for parameter in stage.parameters()) for stage in stages]


print("parameter tensors in stages 0 and 1:        ", [len(list(stage.parameters())) for stage in (first, second)])
print("reached from device 1's scores, not cut:    ", reached(results["scores"], (first, second)))

h = first(inputs)  # device 0, forward
received = h.detach().requires_grad_()  # what a wire carries: the numbers, without their history
loss = next_byte_loss(second(received), targets)  # device 1, forward
print("reached from device 1's loss, after the cut:", reached(loss, (first, second)))
loss.backward()  # device 1, backward

predict("01-cut", "How many of stage 0's parameter tensors have a gradient now?", unit="tensors")

# %% [markdown]
# `detach()` gives the same numbers without a history: the graph ends there. `requires_grad_()` makes that end a
# **leaf**, a tensor whose gradient autograd keeps, as it does for a weight. So the backward of device 1 stops at the
# cut and leaves there, in `received.grad`, how the loss changes with every number of the message.
#
# That is all that device 0 needs. With the message h and a weight θ of stage 0, the chain rule says
#
# $$\frac{\partial L}{\partial \theta} = \frac{\partial L}{\partial h} \cdot \frac{\partial h}{\partial \theta}$$
#
# The first factor came from device 1, as large as h; the second is in the graph that device 0 has kept.
# `h.backward(gradient)` multiplies them without ever writing the second one down. It starts, is **seeded**, with what
# it is given. The proof: the gradients of the model in one piece, and the largest difference as a part of the largest
# gradient.

# %%
without = sum(parameter.grad is not None for parameter in first.parameters())

h.backward(received.grad)  # device 0, backward, seeded with what device 1 sends
pieces = {name: parameter.grad.clone() for name, parameter in exact.named_parameters()}

exact.zero_grad()
next_byte_loss(exact(inputs), targets).backward()  # the model in one piece
truth = {name: parameter.grad.clone() for name, parameter in exact.named_parameters()}
print(f"in two pieces:                     error {gradient_error(pieces, truth):.1e}")

exact.zero_grad()
h = first(inputs)
received = h.detach().requires_grad_()
next_byte_loss(second(received), targets).backward()
h.backward(torch.ones_like(h))  # the wrong seed
ones = {name: parameter.grad.clone() for name, parameter in exact.named_parameters()}
print(f"device 0's backward seeded by ones: error {gradient_error(ones, truth):.1e}")
reveal("01-cut", prediction=0, measurement=without)

# %% [markdown]
# Cut in two, the gradients are the same, up to rounding at most. Seeded with ones, as after `h.sum().backward()`,
# stage 0 gets a gradient too, of the right shape, and wrong: nothing raises, so only a comparison finds it.
#
# ## Four devices by hand
#
# Four stages are three such cuts. Below is a whole pipeline: one thread per device, which walks its row of actions.
# For each action it takes what it needs from the device before it (F) or after it (B), and hands on what it made.
# Nothing in it says *when*: waiting for messages does that. All 64 sequences go through as one piece, so each device
# has one forward and one backward. This is the naive pipeline.


# %%
from time import perf_counter


def run_by_hand(stages, rows, inputs, targets, patience=60.0):
    """One thread per device walks its row. Returns (start, end, device, action) of each action, and complaints."""
    last = len(stages) - 1
    down = [Queue() for _ in stages]  # down[r]: activations for device r
    up = [Queue() for _ in stages]  # up[r]: gradients for device r
    down[0].put(inputs)
    up[last].put(torch.ones((), dtype=torch.float64))  # the gradient of the loss with respect to itself
    spans, complaints = [], []

    def device(r):
        for action in rows[r]:
            try:
                came = (down if "F" in action else up)[r].get(timeout=patience)
            except Empty:
                complaints.append(f"device {r} waited {patience:g} s for what {action} needs: nothing came")
                return
            start = perf_counter()
            if "F" in action:
                x = came.detach().requires_grad_(r > 0)  # device 0 gets bytes of text: they take no gradient
                y = stages[r](x)
                if r == last:
                    y = next_byte_loss(y, targets)
                else:
                    down[r + 1].put(y.detach())
            else:
                y.backward(came)
                if r > 0:
                    up[r - 1].put(x.grad)
            spans.append((start, perf_counter(), r, action))

    threads = [Thread(target=device, args=(r,)) for r in range(len(stages))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(spans), sorted(complaints)


four = cut_model(exact, 4)
rows = [["0F0", "0B0"], ["1F0", "1B0"], ["2F0", "2B0"], ["3F0", "3B0"]]
predict("01-busy", "Four devices, one piece: how many per cent of all device-time are busy?", unit="%")

# %%
run_by_hand(four, rows, inputs, targets)  # to warm up: memory that is fetched for the first time takes long
exact.zero_grad()
spans, _ = run_by_hand(four, rows, inputs, targets)
began, ended = spans[0][0], max(end for _, end, _, _ in spans)
for start, end, device, action in spans:
    print(f"{start - began:6.3f} s to {end - began:6.3f} s  device {device}  {action}")

found = {name: parameter.grad for name, parameter in exact.named_parameters()}
print(f"gradients against the model in one piece: error {gradient_error(found, truth):.1e}")
busy = sum(end - start for start, end, _, _ in spans) / (4 * (ended - began))
reveal("01-busy", prediction=100 / 4, measurement=100 * busy)

# %% [markdown]
# Read the log downwards: no action begins before the one above it has ended. While device 2 runs its forward, device 3
# has no input yet, and devices 0 and 1 have nothing to do until gradients come back. One device works at a time. If
# the whole batch takes a device $T_F$ forward and $T_B$ backward, then
#
# $$\text{makespan} = p\,(T_F + T_B), \qquad \text{busy} = \frac{T_F + T_B}{p\,(T_F + T_B)} = \frac{1}{p}$$
#
# and the bubble fraction is 1 - 1/p. Nor does it matter whether all stages take equally long: whoever works, the
# others wait.
#
# ## Two, four, eight
#
# pipelab's `Pipeline` does the same as the loop by hand, and measures while it runs. The table "naive" is built for
# any p. All runs have the same model and the same batch of 64; of four steps each, the fastest is shown, the one that
# other programs disturbed least. Times are read from the **wall clock**: what happened on this machine.

# %%
walls = []
for p in (2, 4, 8):
    optimizers.clear()
    naive = build_schedule("naive", devices=p, microbatches=1)
    pipeline = Pipeline(TransformerLM(layers=48), naive, loss=next_byte_loss, optimizer=adamw, clock="wall")
    steps = [pipeline.step(inputs, targets) for _ in range(4)]
    report = min(steps, key=lambda step: step.timeline.makespan)
    walls.append(report.timeline)
    state, activations = 2 * max(map(state_bytes, optimizers)), max(report.peak_activation_bytes)
    held = f"{state / 1e6:4.1f} MB of training state, {activations / 1e6:5.1f} MB of activations"
    timeline = report.timeline
    print(f"p = {p}: busy {timeline.utilisation:5.1%} of {timeline.makespan:.2f} s; the fullest device: {held}")
display(plot_schedules(walls, titles=[f"naive, p = {p}, the same batch of 64" for p in (2, 4, 8)]))
TimelineView(walls[1], title="naive, p = 4, measured: point at a block, or at idle time")

# %% [markdown]
# The same work, cut into more and more pieces that follow one another. Twice as many devices: half the memory on each,
# about the same time, and twice the device-time for it. (Training state here is twice Adam's: weights and gradients
# take as much as the two moments. U is the optimizer's update; it stands behind the makespan and is not part of it.)
#
# Who waits for whom? Point at the idle time of the last picture, device by device. Or let it show the **critical
# path**, the chain of actions that fixes how long the step takes: here it holds every action of the run.
#
# What naive gives is room: a model that fits no single device can be trained at all. What it costs is p - 1 idle
# devices at any time.
#
# **Try it:** give `microbatches=8`. Naive does not cut the batch, so nothing changes. Only the bookkeeping does: its
# one micro-batch then **weighs** m, as much as m pieces of batch / m. Under the unit clock of lesson 0, where the
# forward of one such piece takes 1, each naive action takes m units.
#
# ## Why does my laptop's wall clock not show it?
#
# Lesson 0's table had the same four devices, the same batch in four pieces, and less idle time: devices worked at
# once. The unit clock says what that should give:

# %%
p, m = 4, 4
tables = {"naive": build_schedule("naive", devices=p, microbatches=m)}
tables["lesson 0"] = build_schedule("1f1b", devices=p, microbatches=m)
units = {name: simulate(table).makespan for name, table in tables.items()}
print(f"naive {units['naive']:g} units, lesson 0's table {units['lesson 0']:g}: ", end="")
print(f"{units['naive'] / units['lesson 0']:.2f} times as fast")
predict("01-wall", "And by the wall clock here: how many times as fast as naive is lesson 0's table?", unit="times")

# %%
import os

reports = {}
for name, table in tables.items():
    pipeline = Pipeline(TransformerLM(layers=48), table, loss=next_byte_loss, clock="wall")
    reports[name] = [pipeline.step(inputs, targets) for _ in range(6)]
seconds = {name: min(report.wall.makespan for report in steps) for name, steps in reports.items()}
for name, found in seconds.items():
    print(f"{name:8} {found:.2f} s by the wall clock, the fastest of {len(reports[name])} steps")
cores = getattr(os, "process_cpu_count", os.cpu_count)()
print(f"this machine has {cores} cores; the pipeline has {p} devices")
reveal("01-wall", prediction=units["naive"] / units["lesson 0"], measurement=seconds["naive"] / seconds["lesson 0"])

# %% [markdown]
# The devices are threads, and threads share the cores of this machine. With c cores never more than c devices are at
# work, so all the work takes at least work / c, however good the table. Where the table says that four devices work at
# once and there are fewer cores, some of them wait for a core. The wall clock tells the truth about this machine. It
# does not tell what four devices would do.
#
# Why then could naive be measured by it? Because naive never has two devices at work: it needs one core, and is the
# one pipeline whose idle time any laptop shows as it is.
#
# For all others the course reads the **device clock**:
#
# 1. While the pipeline really runs, each action's own cost is measured where it runs: the CPU time of its thread,
#    which stands still while the thread waits. (On a GPU: the time between two marks in its own stream.) Devices that
#    share a processor take turns, one action at a time, so that none disturbs what another one measures.
# 2. After the step the costs are laid out in the table's order, each action as soon as its device is free and its
#    message is there: *as if each stage had a device of its own*.
#
# Here are both clocks: the last of the runs above, and the same tables again.

# %%
measured = {}
for name, table in tables.items():
    pipeline = Pipeline(TransformerLM(layers=48), table, loss=next_byte_loss, clock="device")
    measured[name] = [pipeline.step(inputs, targets) for _ in range(5)][-1].timeline
wall, device = reports["lesson 0"][-1].timeline, measured["lesson 0"]
both = compare(wall, device)
print(both.table())
print(f"every device ran its actions in the same order: {both.same_order}")
work = sum(device.busy)
print(f"{work:.2f} s of work; the wall clock counts {sum(wall.busy):.2f} s as busy")
print(f"no table can finish it before {work / cores:.2f} s on {cores} cores, before {work / p:.2f} s on {p} devices")
print(f"{measured['naive'].makespan / device.makespan:.2f} times as fast as naive by the device clock")
naive = reports["naive"][-1].timeline
busy = f"{naive.utilisation:.3%} by the wall clock, {measured['naive'].utilisation:.3%} by the device clock"
print(f"naive is busy {busy}")
plot_schedules(
    [wall, device],
    titles=["lesson 0's table, p = 4, m = 4, batch of 64: wall clock", "the same table: device clock"],
)

# %% [markdown]
# Compare the two pictures action by action. Where devices outnumber the free cores, a block of the wall clock is
# longer than its work, for it includes waiting for a core, or for Python's interpreter, which the threads of one
# process share as well. So what looks busy is partly waiting, what looks idle is partly the machine's fault, and its
# bubble fraction is not the table's, even where it comes close by chance. Under the device clock blocks of one kind
# are about equally long, and the bubble fraction is back near the 3/7 of lesson 0, although a backward takes longer
# than a forward: lesson 2 shows why that does not matter. (With as many free cores as devices the two pictures come
# close.)
#
# The device clock's speed-up stays somewhat below the unit clock's, because a piece of 16 sequences costs more than a
# quarter of a piece of 64. Lesson 5 makes use of that.
#
# Know what it is: a **composition** of measured costs, not something that was seen. It leaves out what devices would
# do to each other on a real machine, and messages take no time in it unless a link is asked for. And it cannot answer
# every question. It says that naive is busy 1/p *exactly*, whatever was measured: naive's makespan is the sum of all
# its costs, by construction. That is why the 25 % above were measured by the wall clock; the little that is missing
# there went into handing over.
#
# | clock | what it reads | what it can tell |
# | --- | --- | --- |
# | wall | what happened here | this machine, always; the pipeline, where each stage has a device (or core) of its own |
# | device | measured costs, composed | the pipeline's shape, on any machine; nothing about what devices share |
# | unit | costs as given | the textbook's table, with real tensors |
#
# **Try it:** with four devices and four pieces the difference is small. Set `p, m = 8, 8` and run these cells again:
# what does the unit clock promise, what does the device clock find, and what the wall clock?
#
# ## Break it
#
# Take one action out of the naive table: device 2 no longer runs its backward. First the checker's reasons; then the
# same rows in the loop by hand, on four sequences, where a device gives up after two seconds of waiting.

# %%
broken = [["0F0", "0B0"], ["1F0", "1B0"], ["2F0"], ["3F0", "3B0"]]
try_schedule(broken)

# %%
spans, complaints = run_by_hand(four, broken, inputs[:4], targets[:4], patience=2.0)
print("ran:", ", ".join(action for _, _, _, action in spans))
print("\n".join(complaints))

# %% [markdown]
# The checker named the action that is missing, and the one that can never start for lack of it, 1B0. Device 0 hangs
# behind it: its gradient would have come from 1B0. If they did not give up, both would wait for ever, as processes of
# a cluster do when one of them has left out a send.
#
# **Try it:** put `2B0` back, and let device 3 begin with `3B0`. What does the checker say now? Then look for a swap
# that it lets pass. Is there one in the naive table?

# %% [markdown] role="further"
# ## Further: the activations of GPT-3
#
# Korthikanti et al. (2022, arXiv 2205.05198) count what a transformer layer keeps in 16 bits, with s tokens, b
# sequences, width h and a attention heads, if the attention scores are kept: s·b·h·(34 + 5·a·s/h) bytes. For one
# sequence of GPT-3, and for its batch of 3.2 million tokens (Brown et al. 2020):

# %% role="further"
tokens, width, heads = 2048, 12288, 96
one = 96 * tokens * width * (34 + 5 * heads * tokens / width)
print(f"one sequence: {one / GiB:,.0f} GiB of activations, beside {16 * gpt3 / GiB:,.0f} GiB of training state")
print(f"the whole batch: {3.2e6 / tokens * one / GiB:,.0f} GiB")

# %% [markdown] role="further"
# The naive pipeline keeps the whole batch in flight, each device its layers' part of it. For a model of this size that
# alone rules it out: the batch has to be cut as well. That is the next lesson.

# %% [markdown]
# Your guesses so far:

# %%
ledger()

# %% [markdown] page="exercises"
# Three exercises: an account, a cut, a timetable. Only the second needs PyTorch.

# %% role="setup"
from math import ceil

from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="must_fit" difficulty="easy" minutes=12
# How many devices does a model need, before any activation? Mixed precision: weights and gradients in 16 bits, a master
# copy of the weights in 32 bits, and `moments` further values in 32 bits that the optimizer keeps for each parameter:
# 2 for Adam, 1 for SGD with momentum, 0 for plain SGD. Layers can be cut anywhere, so each device holds an equal part.
#
# Write three functions: the training state in bytes; the part of each of several devices in GiB (2^30 bytes); and the
# least number of devices that hold it, if each has `gib` GiB.


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
    """The least number of devices of ``gib`` GiB that hold the training state.

    >>> least_devices(2**30, gib=3, moments=0)
    3
    """
    ### BEGIN SOLUTION
    return ceil(gib_per_device(parameters, 1, moments) / gib)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="must_fit"
# Go through the table at the top of the lesson, line by line. Which lines stay the same for another optimizer?

# %% [markdown] role="hint" exercise="must_fit"
# Three lines do not depend on the optimizer; each moment adds one line. One GiB is 1024 times 1024 times 1024 bytes.
# Part of a device is a whole device more.

# %% [markdown] role="hint" exercise="must_fit"
# Bytes a parameter: two, two and four, and four more for each of the moments. The other two functions can call the
# first one; `ceil` rounds up.

# %% [markdown] role="solution" exercise="must_fit"
# With Adam in 32 bits throughout it would be 4 + 4 + 8 = 16 bytes as well: mixed precision saves time and activations,
# not training state. Frameworks that keep gradients in 32 bits need 18 bytes.

# %% [markdown] role="lead" exercise="cut_graph" difficulty="medium" minutes=20
# Write what a device does on F and on B, for any number of devices in a row. Each device has a `memory`, a dict of its
# own that is the same in every step; put there what the backward will need.
#
# - `forward_piece(stage, received, memory)` runs the stage on what came from the device before, and returns what the
#   next device gets. `received` is whatever your function returned on the device before, or the input on device 0.
# - `backward_piece(gradient, memory)` gets the gradient of its stage's output: on the last device that of the loss,
#   else what your function returned on the next device. Afterwards the stage's parameters have their gradients in
#   `.grad`. It returns what the device before needs (on device 0 nobody reads it).
#
# The check runs all forwards, then all backwards, in one process, several steps one after the other, and sets the
# parameters' gradients to None before each step. It compares with the model in one piece in 64 bits. It also walks the
# graphs: no device's graph may reach the parameters of another.

# %% role="answer" exercise="cut_graph"
import torch


def forward_piece(stage: torch.nn.Module, received: torch.Tensor, memory: dict) -> torch.Tensor:
    """F on one device: returns the message to the next one.

    >>> memory = {}
    >>> forward_piece(torch.nn.Identity(), torch.tensor([1.0, 2.0]), memory).tolist()
    [1.0, 2.0]
    """
    ### BEGIN SOLUTION
    memory["x"] = received.detach().requires_grad_()
    memory["y"] = stage(memory["x"])
    return memory["y"].detach()
    ### END SOLUTION


# %% role="answer" exercise="cut_graph"
def backward_piece(gradient: torch.Tensor, memory: dict) -> torch.Tensor:
    """B on the same device: fills the gradients of its stage and returns the message to the device before.

    >>> backward_piece(torch.tensor([0.5, 0.5]), memory).tolist()
    [0.5, 0.5]
    """
    ### BEGIN SOLUTION
    memory["y"].backward(gradient)
    return memory["x"].grad
    ### END SOLUTION


# %% [markdown] role="hint" exercise="cut_graph"
# A wire carries numbers, not history. Which two calls turn a received tensor into the beginning of a new graph, one
# whose gradient is kept?

# %% [markdown] role="hint" exercise="cut_graph"
# The forward remembers two tensors: the leaf that its graph begins with, and the output that it ends with. The
# backward begins at the second, with the gradient that was handed in, and finds what to send in the first.

# %% [markdown] role="hint" exercise="cut_graph"
# Forward: detach what was received, ask for its gradient, keep it; run the stage on it, keep the output, return it.
# Backward: call `backward` on the kept output with the gradient as its argument; return `.grad` of the kept input.
# Make a new leaf in every forward: `.grad` adds up on an old one.

# %% [markdown] role="solution" exercise="cut_graph"
# Whether the output is detached when it is sent or only when it is received makes no difference to the graphs, as long
# as the receiver does it. Detached at both ends, neither device has to trust the other.
#
# `memory` holds one micro-batch here. As soon as a device runs a second forward before the first backward, it needs
# one entry per micro-batch: that is what "in flight" counts.

# %% [markdown] role="lead" exercise="naive_table" difficulty="medium" minutes=12
# Write the naive pipeline's timetable for any number of devices: a list of rows, one per device, each a list of cells,
# one per time slot. A cell is the text of an action, such as `"1F0"`, or `"."` where the device idles (idle cells at
# the end of a row may be left out). Each action takes one slot, and starts in the slot after the one that made its
# input.
#
# Then say how long it takes. The batch is worth `microbatches` micro-batches, of which one costs a device `forward`
# and `backward`; naive sends all of them through as one.


# %% role="answer" exercise="naive_table"
def naive_table(devices: int) -> list[list[str]]:
    """One row per device, one cell per time slot.

    >>> naive_table(1)
    [['0F0', '0B0']]
    """
    ### BEGIN SOLUTION
    rows = [["."] * (2 * devices) for _ in range(devices)]
    for device, row in enumerate(rows):
        row[device] = f"{device}F0"
        row[-1 - device] = f"{device}B0"
    return rows
    ### END SOLUTION


# %% role="answer" exercise="naive_table"
def naive_time(devices: int, microbatches: int, forward: float, backward: float) -> float:
    """How long the naive pipeline takes for the whole batch.

    >>> naive_time(1, 3, forward=1, backward=2)
    9
    """
    ### BEGIN SOLUTION
    return devices * microbatches * (forward + backward)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="naive_table"
# Write the table for three devices on paper first. In which slot does the activation come to device 2? Who is first to
# run a backward, and who is last?

# %% [markdown] role="hint" exercise="naive_table"
# Forwards go down: one device further in each slot. Backwards come up: one device back in each slot. Start from rows
# of dots, twice as long as there are devices, and put two actions into each. For the time: how many devices are at
# work at any moment?

# %% [markdown] role="hint" exercise="naive_table"
# In row r the forward stands r places from the left end and the backward r places from the right end. The time is all
# work of all devices, one after the other: forwards and backwards, times micro-batches, times devices.

# %% [markdown] role="solution" exercise="naive_table"
# The table is symmetric: time runs backwards for gradients. `try_schedule(naive_table(4))` (from `pipelab`) reads the
# dots as idle time, and trains the 48-layer model with it.
