# ---
# jupyter:
#   pipelab:
#     number: 1b
#     title: "Cut by hand: the naive pipeline"
#     minutes: 55
#     builds_on: [1]
#     goals:
#       - cut an autograd graph into pieces that give unchanged gradients
#       - build a pipeline of four devices from threads and queues
#       - say how busy the naive pipeline keeps its devices, and why
#       - say what the device clock and the wall clock can each tell
# ---

# %% [markdown]
# ## What has to pass between two devices?
#
# Lesson 1 cut the 48 layers of our model into four stages, so that each device holds a quarter of the training state.
# But a step is a forward and a backward through *all* the layers. What has to pass from device to device, so that
# every weight still gets the right gradient? This lesson does by hand what lesson 0 did for you: it hands activations
# over and cuts the autograd graph. It ends with the simplest pipeline, called **naive**, and with three ways to
# measure it.

# %% role="setup"
import torch
from pipelab.teaching import *

torch.set_num_threads(1)  # one core for each device, as in pipelab's pipelines
inputs, targets = text_batch(batch=64)

# %% [markdown]
# ## Hand an activation over
#
# Stage 1 needs what stage 0 computed. The two devices pass data only through a queue, and a device that takes from an
# empty queue waits. The next cell shows this with two stages. Each device is a thread, and device 1 starts first. We
# use 64-bit numbers here. Any difference that we find below can then only be rounding in the last digits.

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
# A **message** is small compared with what the stage keeps. It is one tensor: 64 sequences of 32 tokens, at width 64.
# In lesson 1 the activations of the 48 layers were 409 MB, so each layer keeps about 16 such tensors of 32 bits.
# (Here a message has 64-bit numbers.)
#
# ## Cut the graph
#
# The queue also carried the tensor's history. A real wire cannot carry that. `h.grad_fn` leads back through all
# layers of device 0, so the graph of device 1's loss continues into device 0. The function below walks such a graph.
# For each stage it counts the parameter tensors that the graph reaches.


# %%
def reached(tensor, stages):
    """How many parameter tensors of each stage a backward from this tensor would reach."""
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in seen:
            seen.add(node)
            todo += [earlier for earlier, _ in node.next_functions]  # what this node's backward leads to
    leaves = {id(node.variable) for node in seen if hasattr(node, "variable")}  # only weights' nodes have one
    return [sum(id(parameter) in leaves for parameter in stage.parameters()) for stage in stages]


print("parameter tensors in stages 0 and 1:    ", [len(list(stage.parameters())) for stage in (first, second)])
print("reached from device 1's scores, not cut:", reached(results["scores"], (first, second)))

h = first(inputs)  # device 0, forward
received = h.detach().requires_grad_()  # what a wire carries: the numbers, without their history
loss = next_byte_loss(second(received), targets)  # device 1, forward
loss.backward()  # device 1, backward

predict("01b-cut", "How many of stage 0's parameter tensors have a gradient now?", unit="tensors")

# %% [markdown]
# `detach()` gives the same numbers without a history, so device 1's graph ends there. `requires_grad_()` makes this
# end a **leaf**: a tensor whose gradient autograd keeps, as it does for a weight. The backward of device 1 stops at
# the cut. Then `received.grad` holds the gradient of the loss with respect to the message.
#
# Until now you may have called only `loss.backward()`. This means `loss.backward(torch.tensor(1.0))`: the 1 is the
# gradient of the loss with respect to itself. For any other tensor `backward` needs an argument: a gradient of the
# same shape. Device 1 sends it, and device 0 needs nothing more. Let h be the message and θ a weight of stage 0. The
# chain rule says
#
# $$\frac{\partial L}{\partial \theta} = \frac{\partial L}{\partial h} \cdot \frac{\partial h}{\partial \theta}$$
#
# The first factor came from device 1 and has the shape of h. The second factor is in the graph that device 0 has kept.
# `h.backward(gradient)` multiplies the two without building the second factor as a matrix. We say that this gradient
# **seeds** the backward.
#
# The next cell tests this. It compares the gradients with those of the model in one piece. It prints the largest
# difference as a fraction of the largest gradient.

# %%
print("reached from device 1's loss, after the cut:", reached(loss, (first, second)))
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
print(f"device 0's backward seeded by ones: error {gradient_error(ones, truth):.1e}", end="; ")
print(f"the largest number in the true seed is {received.grad.abs().max():.1e}")
reveal("01b-cut", prediction=0, measurement=without)

# %% [markdown]
# The model in two pieces has the same gradients, up to rounding. Now look at the wrong seed, a tensor of ones. It is
# what `h.sum().backward()` would use. Stage 0 gets gradients of the right shape with wrong values. They are far too
# large, because the true seed has very small numbers. Nothing raises an error, so only a comparison finds the
# mistake.
#
# ## Four devices by hand
#
# Four stages need three such cuts. Below is a whole pipeline. It has one thread per device, and each thread goes
# through its row of actions. For a forward it takes the activation from the device before it. For a backward it takes
# the gradient from the device after it. Then it passes on what it made. Nothing in the code says *when* an action
# runs: the threads only wait for messages.
#
# All 64 sequences go through as one piece, so each device has one forward and one backward. (The function keeps one `x`
# and one `y` per device, so it cannot run several micro-batches.) This is the naive pipeline.

# %%
from time import perf_counter


def run_by_hand(stages, rows, inputs, targets, patience=60.0):
    """One thread per device goes through its row. Returns (start, end, device, action) for each, and complaints."""
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
                complaints.append(f"device {r} waited {patience:g} s for the input of {action}, and nothing came")
                return
            start = perf_counter()
            if "F" in action:
                x = came.detach().requires_grad_(r > 0)  # device 0 gets bytes of text: they take no gradient
                y = stages[r](x)
                if r == last:
                    y = next_byte_loss(y, targets)  # on the last device the backward starts at the loss
                else:
                    down[r + 1].put(y.detach())
            else:
                y.backward(came)  # x and y are still those of the forward
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
predict("01b-busy", "Four devices, one piece: for what percentage of total device time are devices busy?", unit="%")

# %%
run_by_hand(four, rows, inputs, targets)  # a first run, not counted: the first use of memory takes longer
exact.zero_grad()
spans, _ = run_by_hand(four, rows, inputs, targets)
began, ended = spans[0][0], max(end for _, end, _, _ in spans)
for start, end, device, action in spans:
    print(f"{start - began:6.3f} s to {end - began:6.3f} s  device {device}  {action}")

found = {name: parameter.grad for name, parameter in exact.named_parameters()}
print(f"gradients against the model in one piece: error {gradient_error(found, truth):.1e}")
busy = sum(end - start for start, end, _, _ in spans) / (len(four) * (ended - began))
reveal("01b-busy", prediction=100 / len(four), measurement=100 * busy)

# %% [markdown]
# Read the log from top to bottom: no action begins before the one above it has ended. While device 2 runs its forward,
# device 3 has no input yet. Devices 0 and 1 have nothing to do until gradients come back. So one device works at a
# time. If each device needs $T_F$ for the forward of the whole batch and $T_B$ for its backward, then
#
# $$\text{makespan} = p\,(T_F + T_B), \qquad \text{utilisation} = \frac{T_F + T_B}{p\,(T_F + T_B)} = \frac{1}{p}$$
#
# and the bubble fraction is 1 - 1/p. If stages take unequally long, the utilisation is still 1/p: whichever device
# works, the others wait.
#
# Naive makes room: it can train a model that does not fit on any single device. The price: p - 1 devices are idle at
# any time.
#
# ## A claim on trial: "four pieces, more than twice as fast"
#
# Lesson 0's table uses the same four devices for the same batch in four micro-batches, and several devices work at
# once. What should that gain? pipelab can compute a timeline from given costs, for example 1 unit for each action of a
# micro-batch. We call this the **unit clock**. Naive's one piece **weighs** 4: it is as much work as four micro-batches
# of 16 sequences. So each of its 8 actions takes 4 units.
#
# Then the next cell but one runs both tables, and reads the times from the **wall clock**, which shows what happened on
# this machine.

# %%
import os

m = 4


def pair(p, m):
    """The naive table, and the table of lesson 0."""
    kinds = {"naive": "naive", "lesson 0": "1f1b"}
    return {name: build_schedule(kind, devices=p, microbatches=m) for name, kind in kinds.items()}


tables = pair(4, m)
units = {name: simulate(table).makespan for name, table in tables.items()}
print(f"naive {units['naive']:g} units, lesson 0's table {units['lesson 0']:g}: ", end="")
print(f"{units['naive'] / units['lesson 0']:.2f} times as fast")
cores = getattr(os, "process_cpu_count", os.cpu_count)()  # the first exists from Python 3.13 on
print(f"this machine has {cores} cores; the pipeline has {tables['naive'].devices} devices")
predict("01b-wall", "By the wall clock here, how many times as fast as naive is lesson 0's table?", unit="times")


# %%
def by_the_wall(tables, steps=3):
    """The fastest of some steps of each table, as the wall clock saw it. The tables take turns, step by step."""
    pipelines = {
        name: Pipeline(TransformerLM(layers=48), table, loss=next_byte_loss, clock="wall")
        for name, table in tables.items()
    }
    runs = {name: [] for name in tables}
    for _ in range(steps):
        for name, pipeline in pipelines.items():
            runs[name].append(pipeline.step(inputs, targets).timeline)
    return {name: min(found, key=lambda run: run.makespan) for name, found in runs.items()}


def gain(runs):
    return runs["naive"].makespan / runs["lesson 0"].makespan


seen = by_the_wall(tables)
for name, run in seen.items():
    print(f"{name:8} {run.makespan:.2f} s by the wall clock")
reveal("01b-wall", prediction=units["naive"] / units["lesson 0"], measurement=gain(seen))

# %% [markdown]
# The devices are threads, and threads share the cores of this machine. With c cores, at most c devices work at any
# moment, so a step takes at least its total work divided by c. No table can change that. If the table wants more
# devices at work than there are cores, some devices wait for a core.
#
# (A *Further* at the end tests this with 2, 4 and 8 devices.)
#
# The wall clock tells the truth about this machine. It does not show what four real devices would do.
#
# ## Which clock?
#
# Why, then, could the wall clock be trusted for naive? In naive no two devices ever work at the same time, so one core
# is enough. The same is true of every table whose devices take turns. Lesson 2 begins with one.
#
# For all other tables the course reads the **device clock**. It works in two steps:
#
# 1. While the pipeline really runs, the cost of each action is measured where it runs. On a CPU this is the CPU time
#    of its thread, which stands still while the thread waits. (On a GPU it is the time between two events that are
#    recorded before and after the action.) While costs are measured, only one device at a time computes on a shared
#    processor, so that none disturbs another.
# 2. After the step, the costs are laid out in the order of the table. Each action starts as soon as its device is free
#    and its message is there. The result is a timeline *as if each stage had a device of its own*.
#
# Here are both clocks for lesson 0's table: the wall clock of the run above, and the device clock of new runs.

# %%
measured = {}
for name, table in tables.items():
    pipeline = Pipeline(TransformerLM(layers=48), table, loss=next_byte_loss, clock="device")
    measured[name] = [pipeline.step(inputs, targets) for _ in range(4)][
        -1
    ].timeline  # costs: medians, without the first step
wall, device = seen["lesson 0"], measured["lesson 0"]
both = compare(wall, device)
print(both.table())
print(f"every device ran its actions in the same order: {both.same_order}")
work, p = sum(device.busy), device.schedule.devices
print(f"{work:.2f} s of work; the wall clock counts {sum(wall.busy):.2f} s as busy")
print(f"no table can finish it before {work / cores:.2f} s on {cores} cores, before {work / p:.2f} s on {p} devices")
print(f"{gain(measured):.2f} times as fast as naive by the device clock")
for kind, runs in {"wall": seen, "device": measured}.items():
    print(f"naive by the {kind} clock: {runs['naive'].makespan:.2f} s, busy {runs['naive'].utilisation:.3%}")
plot_schedules(
    [wall, device],
    titles=[f"lesson 0's table, {kind} clock" for kind in ("wall", "device")],
)

# %% [markdown]
# Compare the two timelines. If there are fewer free cores than devices, a block of the wall clock can be longer than
# the computing time of its action. It includes waiting for a core, or for Python's interpreter, which the threads of
# a process share. So the bubble fraction by the wall clock is not that of the schedule. If the wall and device
# figures are close, that is chance.
#
# Under the device clock blocks differ only by what their actions cost, and the bubble fraction is close to lesson 0's
# 3/7.
# (A backward takes longer than a forward. Lesson 2 shows why that does not matter.) The gain is somewhat smaller than
# by the unit clock, because a piece of 16 sequences costs more than a quarter of a piece of 64. Lesson 5 makes use of
# that.
#
# Keep in mind what the device clock is: a **composition** of measured costs. No run like this has happened. It leaves
# out how devices disturb each other on a real machine, and messages take no time unless you give them a cost. By the
# device clock naive is busy *exactly* 1/p, whatever was measured, because its makespan is the sum of all its costs.
# That is why we measured naive's utilisation by the wall clock. It was a little below 25 %, because handing over
# takes time. (The two makespans of naive in the output may differ by a tenth or more. The wall clock's is the fastest
# of three steps, the device clock's is made of medians of other steps.)
#
# | clock | what it reads | what it can tell |
# | --- | --- | --- |
# | wall | what happened here | this machine, always; the pipeline, if its devices take turns or each has its own core |
# | device | measured costs, composed | the pipeline's shape, on any machine; not how devices slow each other down |
# | unit | given costs | the table itself, as in a textbook |
#
# **Try it:** four devices and four micro-batches are small numbers. Use `tables = pair(8, 8)` and run the cells from
# there again. (Set it back afterwards.) What does the unit clock promise, what does the device clock find, and what
# the wall clock?
#
# <details><summary>What you should see, and why</summary>
#
# The unit clock promises 128 units against 30, more than 4 times as fast. The device clock finds more than with 4
# devices, but less than promised. A piece of 8 sequences costs more than an eighth of a piece of 64. By the wall
# clock the gain stays far below that, because there are no more cores than before. If they are few or busy, lesson
# 0's table can even be slower than naive: it has more threads and more messages to handle.
#
# </details>
#
# ## Break it
#
# Take one action out of the naive table: device 2 no longer runs its backward. The cell first asks the checker. Then it
# runs the same rows in the loop by hand, on four sequences. In that loop a device gives up after two seconds.

# %%
broken = [["0F0", "0B0"], ["1F0", "1B0"], ["2F0"], ["3F0", "3B0"]]
display(try_schedule(broken))
spans, complaints = run_by_hand(four, broken, inputs[:4], targets[:4], patience=2.0)
print("ran:", ", ".join(action for _, _, _, action in spans))
print("\n".join(complaints))

# %% [markdown]
# The checker named the action that is missing, 2B0. It also named 1B0, which can never start without it. Device 0 hangs
# as well, because it waits for the gradient of 1B0. Without a time limit both devices would wait forever. The processes
# of a cluster do the same when one of them leaves out a send.
#
# **Try it:** put `2B0` back, and let device 3 begin with `3B0`. What does the checker say now? (The loop by hand
# fails too, with an ordinary error of Python.) Is there any swap within a row of the naive table that it accepts?
#
# <details><summary>What you should see, and why</summary>
#
# The checker says that device 3 runs 3B0 before 3F0, but a backward needs what its forward kept. No swap is accepted.
# Each row has only a forward and its own backward, so a swap always puts the backward first. A naive device has no
# freedom at all. With several micro-batches there is freedom, and schedules differ in how they use it.
#
# </details>
#
# ## What to remember
#
# - A message is a tensor without its history. The receiver makes it a leaf, and sends the leaf's gradient back.
# - That gradient seeds the backward of the device before. Together the pieces give the gradients of the whole model.
# - In the naive pipeline one device works at a time, so each of p devices is busy 1/p of the time.
# - The wall clock shows what happened here. The device clock composes measured costs as if each stage had a device of
#   its own. The unit clock uses given costs.
#
# **Where this leads.** You have cut a model by hand, and its gradients stayed the same. Naive solves the problem of
# memory and wastes most of the device time. Lesson 2 cuts the batch as well, so that devices work at the same time.
# That costs memory, and lesson 3 gets it back.
#
# Your guesses so far:

# %%
ledger()

# %% [markdown] role="further"
# ## Further: is it really the cores?
#
# If cores are the reason, two devices should come closer to what the unit clock promises than eight. The next cell
# measures it. It also measures two devices that take turns: they work on micro-batches, but never at the same time.

# %% role="further"
for p in (2, 4, 8):
    tables_of_p = pair(p, m)
    promised = gain({name: simulate(table) for name, table in tables_of_p.items()})
    found = gain(seen if tables_of_p == tables else by_the_wall(tables_of_p))
    print(f"p = {p}: the unit clock says {promised:.2f} times as fast as naive, the wall clock {found:.2f} times")
turns = Schedule.from_csv("0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1")
taking_turns = by_the_wall({"turns": turns})["turns"]
print(f"two devices that take turns are busy {taking_turns.utilisation:.1%} of total device time by the wall clock")

# %% [markdown] role="further"
# On a quiet machine the wall clock comes closer to the unit clock where p is at most the number of cores than where
# it is larger. Other programs take cores away, so on a busy machine the gain may be below 1 everywhere. Two more
# costs arise at every p. The threads of a process share Python's interpreter, and small pieces cost more than their
# share of a large one. Devices that take turns need only one core, so they show their idle time on any machine.

# %% [markdown] role="further"
# ## Further: two, four, eight
#
# pipelab's `Pipeline` does the same as the loop by hand, and measures while it runs. The next cell runs naive on 2, 4
# and 8 devices, with the same model and the same batch of 64. Each runs three steps in 32 bits, and the cell shows the
# fastest one, because other programs disturbed it least. At the end it runs a table with micro-batches, of the kind of
# lesson 0, on one device and on four. It compares the activations.


# %% role="further"
def adamw(named):  # a pipeline calls this once per stage, with the stage's (name, parameter) pairs
    return torch.optim.AdamW([parameter for _, parameter in named], lr=1e-3)


walls = []
for p in (2, 4, 8):
    naive = build_schedule("naive", devices=p, microbatches=1)
    pipeline = Pipeline(TransformerLM(layers=48), naive, loss=next_byte_loss, optimizer=adamw, clock="wall")
    report = min((pipeline.step(inputs, targets) for _ in range(3)), key=lambda step: step.timeline.makespan)
    timeline = report.timeline
    walls.append(timeline)
    fullest = max(report.memory, key=lambda held: held.total)
    state, activations = fullest.model_states.total, fullest.activations
    times = f"makespan {timeline.makespan:.2f} s ({timeline.makespan / walls[0].makespan:.2f} times the first)"
    held = f"{state / 1e6:4.1f} MB of training state, {activations / 1e6:5.1f} MB of activations"
    print(f"p = {p}: busy {timeline.utilisation:5.1%}, {times}; the fullest device: {held}")
for p in (1, 4):
    cut = build_schedule("1f1b", devices=p, microbatches=4)  # as in lesson 0
    report = Pipeline(TransformerLM(layers=48), cut, loss=next_byte_loss).step(inputs, targets)
    print(f"in micro-batches, p = {p}: {max(report.peak_activation_bytes) / 1e6:5.1f} MB of activations")
display(plot_schedules(walls, titles=[f"naive, p = {p}, the same batch of 64" for p in (2, 4, 8)]))
TimelineView(walls[1], title="naive, p = 4, measured: point at a block, or at idle time", phases=False)

# %% [markdown] role="further"
# With twice as many devices, each holds half as much. On a quiet machine the makespan hardly changes, because the
# stages run one after the other. (The printed ratio says how far it moved here.) So with twice the devices, a step
# takes about twice the total device time. U in the pictures is the optimizer's update, which comes after the
# makespan.
#
# The last two lines of the printout are about micro-batches. There the fullest of four devices holds as many
# activations as one device alone. Device 0 has a quarter of the layers, but it keeps four micro-batches at once. One
# device alone keeps one micro-batch at a time. So the training state of a device is always divided by p. Its
# activations are divided only in some schedules. Lesson 3 is about this.
#
# Who waits for whom? Point at the idle time of the last picture, device by device. Or tick *critical path*: it shows
# the chain of actions that determines how long the step takes. Here every action of the run belongs to it.
#
# **Try it:** in the first loop change `microbatches=1` to `microbatches=8`. Does any printed line change, apart from
# chance?
#
# <details><summary>What you should see, and why</summary>
#
# No. Time, memory and bubble stay as they are, because naive does not cut the batch. Only the internal units change.
# The one micro-batch now weighs 8: as much as eight pieces, each an eighth of the batch. Under the unit clock one
# such piece takes 1 unit, so each naive action takes 8 units. This makes naive comparable with schedules that do cut
# the batch.
#
# </details>

# %% [markdown] role="further"
# ## Further: busy is not yet fast
#
# Utilisation counts a device as busy, even if it computes slowly. Reports on large runs give the **MFU**, model FLOPs
# utilisation, instead (Chowdhery et al. 2022, arXiv 2204.02311). It divides the arithmetic that the model needs by
# what the devices could do at their peak in the same time. Idle time lowers it, and so do slow kernels. The next cell
# takes 6 operations per parameter and token: a multiplication and an addition in the forward, and twice as many in
# the backward. Attention adds 12·layers·width·T per token, where T is the length of a sequence. The cell takes the
# speed of a large matrix product on one core as the peak of a device.

# %% role="further"
tokens, width, layers, large = 32, 64, 48, 1024
a = torch.randn(large, large)
best = 0.0
for _ in range(5):
    start = perf_counter()
    a @ a
    best = max(best, 2 * large**3 / (perf_counter() - start))
count = sum(parameter.numel() for parameter in exact.parameters())
operations = inputs.numel() * (6 * count + 12 * layers * width * tokens)
for name, run in seen.items():
    mfu = operations / (run.makespan * run.schedule.devices * best)
    print(
        f"{name:8} utilisation {run.utilisation:5.1%}, MFU {mfu:5.1%}, at a peak of {best / 1e9:.0f} GFLOP/s a device"
    )

# %% [markdown] role="further"
# The MFU is lower than the utilisation, because narrow layers use a core badly. (With fewer cores than devices both are
# read from a wall clock that includes waiting for a core.) For comparison, Llama 3 405B was trained with pipelines on
# 8,192 to 16,384 GPUs. Its MFU was 38 to 43 % (Grattafiori et al. 2024, table 4).

# %% [markdown] page="exercises"
# There are two exercises: cut a graph, and write a timetable. Only the first one needs PyTorch.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="cut_graph" difficulty="medium" minutes=20
# Write what a device does on F and on B, for any number of devices in a row.
#
# - `forward_piece(stage, received, memory)` runs the stage and returns the message for the next device.
# - `backward_piece(gradient, memory)` runs the backward of the same stage. Afterwards every parameter of the stage has
#   its gradient in `.grad`. The function returns the message for the device before. (On device 0 nobody reads it.)
#
# The inputs are:
#
# - `stage`: a `torch.nn.Module` that takes one tensor and returns one tensor.
# - `received`: what your `forward_piece` returned on the device before. On device 0 it is the input of the model. It is
#   a tensor of floating-point numbers (float64 in the check) with one row per sequence.
# - `gradient`: what your `backward_piece` returned on the next device. On the last device it is the gradient of the
#   loss with respect to the stage's output. It always has the shape of this stage's output.
# - `memory`: a dict that belongs to this device. It is empty before the first step, and it is the same dict in both
#   functions and in every step. Store in it what the backward will need.
#
# In each step of the check every device runs one forward. Then, in reverse order, every device runs one backward.
# There are several steps, one after the other, in one process. The check sets the parameters' gradients to None
# before each step. It compares your gradients with those of the model in one piece. It also looks at the graphs. The
# graph of a device must not reach the parameters of another device. And after the backward the graph must have been
# freed, as an ordinary `backward()` does. (You need not empty `memory`.)

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

    >>> memory = {}
    >>> received = forward_piece(torch.nn.Identity(), torch.tensor([1.0, 2.0]), memory)
    >>> backward_piece(torch.tensor([0.5, 0.5]), memory).tolist()
    [0.5, 0.5]
    """
    ### BEGIN SOLUTION
    memory["y"].backward(gradient)
    return memory["x"].grad
    ### END SOLUTION


# %% [markdown] role="hint" exercise="cut_graph"
# A wire carries numbers without their history. Which two calls of the lesson turn a received tensor into the beginning
# of a new graph, and make autograd keep its gradient?

# %% [markdown] role="hint" exercise="cut_graph"
# The forward has to remember two tensors: the one where its graph begins, and the one where it ends. The backward
# starts at one of them. What does it find in the other one afterwards?

# %% [markdown] role="hint" exercise="cut_graph"
# Test your `memory` after a forward. The tensor where the graph begins must be a leaf: `is_leaf` and `requires_grad`
# are both True. The tensor where it ends must still have a `grad_fn` (unless the stage returns its input, as in the
# example), so do not detach the one that you keep. Autograd adds to a `.grad` that is already there, so each forward
# needs a new leaf.

# %% [markdown] role="solution" exercise="cut_graph"
# You may detach the output when it is sent, or only when it is received. The graphs are the same, as long as the
# receiver does it. If both ends detach, neither device has to trust the other.
#
# `memory` holds one micro-batch here. A device may run a second forward before the first backward. Then it needs one
# entry for each micro-batch, and that is what "in flight" counts.

# %% [markdown] role="lead" exercise="naive_table" difficulty="medium" minutes=12
# Write the naive pipeline's timetable for any number of devices. It is a list of rows, one for each device. A row is a
# list of cells, one for each time slot. A cell is the text of an action, such as `"1F0"`, or `"."` where the device is
# idle. You may leave out idle cells at the end of a row. Each action takes one time slot. It runs in the slot after the
# action that made its input.
#
# Then write a function for the time of one step, now with messages that take time. The batch has `microbatches`
# micro-batches, and naive sends all of them through as one piece. One micro-batch costs a device `forward` and
# `backward`, and the one piece costs `microbatches` times as much. It travels in one message, and each message from
# one device to another takes `latency`.


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
def naive_time(devices: int, microbatches: int, forward: float, backward: float, latency: float = 0) -> float:
    """How long the naive pipeline takes for the whole batch.

    >>> naive_time(1, 3, forward=1, backward=2, latency=5)
    9
    """
    ### BEGIN SOLUTION
    messages = 2 * (devices - 1)
    return devices * microbatches * (forward + backward) + messages * latency
    ### END SOLUTION


# %% [markdown] role="hint" exercise="naive_table"
# Write the table for three devices on paper first. In which time slot does the activation reach device 2? Which device
# is the first to run a backward, and which is the last?

# %% [markdown] role="hint" exercise="naive_table"
# Forwards move down the devices, and backwards move up. How many time slots does the whole table have? Start from rows
# of that many dots. For the time: how many devices are at work at any moment?

# %% [markdown] role="hint" exercise="naive_table"
# Look at your three rows. How far from the left end is the forward of device r? How far from the right end is its
# backward? For the time: add up the work of all devices. Then count how often something goes from one device to
# another, down and up.

# %% [markdown] role="solution" exercise="naive_table"
# The table is symmetric: gradients take the same way as activations, backwards. `try_schedule(naive_table(4))` (from
# `pipelab`) reads the dots as idle time and trains the 48-layer model with the table.
#
# Messages take their time twice per boundary, and naive has nothing else to do meanwhile. Other schedules can work on
# another micro-batch while a message travels.
