# ---
# jupyter:
#   pipelab:
#     number: 8b
#     title: "Where to cut: unlike devices, and devices that change"
#     minutes: 45
#     builds_on: [4, 8]
#     goals:
#       - predict what one slow device costs, with and without a new cut
#       - say when a faster device makes the step shorter, and when it does not
#       - say where in the pipeline a device with little memory belongs
#       - read a monitor, and let a pipeline move layers in the middle of training
# ---

# %% [markdown]
# ## One device becomes slow. What do the other three do?
#
# Lesson 8 cut a model for four equal devices. Real ones differ. One card is older, one shares its machine with another
# job, and one gets too hot and lowers its clock. `Pipeline(speeds=[1, 1, 0.5, 1])` plays this on a laptop: device 2
# works at half speed. Under the wall clock it is really held back. Under the device clock its measured costs are
# divided by 0.5. The timeline says so in its caption.
#
# The model has the heavy head of lesson 8, but only 24 layers and a batch of 32 sequences, to save time. The layers are
# profiled as there. The cut is the plan for equal devices. So all four are about equally busy, until one of them slows
# down.

# %% role="setup"
import torch
from contextlib import ExitStack
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=24), text_batch(batch=32)

# %%
model.head = torch.nn.Sequential(torch.nn.LayerNorm(64), torch.nn.Linear(64, 6000))
layers = profile_layers(model, inputs, targets, loss=next_byte_loss, sizes=(2, 4), repeats=3, progress=False)
usual = {"devices": 4, "microbatches": 8, "batch": 32}
start = plan_cuts(layers, **usual)
print(f"layers in each stage: {start.sizes}")
predict("08b-slow", "Device 2 falls to half speed. How much longer is the step with the same cut?", unit="% longer")

# %%
SLOW = [1, 1, 0.5, 1]


def measured(runs, steps=3):
    """Run steps of 1F1B, m = 8, for each (cuts, speeds) in turns: the last timeline of each.

    By the device clock each action takes the median of all steps but the first.
    """
    how, found = {"loss": next_byte_loss, "window": steps}, {}
    with ExitStack() as stack:
        made = {
            name: stack.enter_context(Pipeline(model, start.schedule, cuts=cuts, speeds=speeds, **how))
            for name, (cuts, speeds) in runs.items()
        }
        for _ in range(steps):
            found |= {name: pipeline.step(inputs, targets).timeline for name, pipeline in made.items()}
    return found


found = measured({"equal devices": (start.cuts, None), "device 2 slow": (start.cuts, SLOW)})
for name, timeline in found.items():
    told = ", ".join(f"{time / timeline.makespan:.0%}" for time in timeline.busy)
    print(f"{name}: {1e3 * timeline.makespan:.0f} ms; devices busy {told}")
equal, slow = found.values()
display(plot_schedules([equal, slow], ["Equal devices", "Device 2 at half speed"]))
expected = 100 * ((8 * 2 + 3) / (8 + 3) - 1)
reveal("08b-slow", prediction=expected, measurement=100 * (slow.makespan / equal.makespan - 1))

# %% [markdown]
# Let a micro-batch take 1 on each equal stage, forward and backward together. Then a step takes m + p - 1 = 11. With
# the slow device it takes about 2 for each of the m micro-batches, and 3 before and after: 19. Once the pipeline is
# full, all four devices wait for the slow one. (Compare only times from the same cell, here as in lesson 8.)
#
# ## A new cut
#
# The slow device should get less work, so that it takes as long as the others again. A stage's time is its
# work divided by its device's speed. So the recurrence of lesson 8 needs only one change: it divides.

# %%
predict(
    "08b-best", "The layers are cut anew for these speeds. How much longer than with equal devices?", unit="% longer"
)

# %%
moved = plan_cuts(layers, **usual, speeds=SLOW)
print(moved)
found = measured({"equal devices": (start.cuts, None), "cut anew": (moved.cuts, SLOW)})
for name, timeline in found.items():
    print(f"{name}: {1e3 * timeline.makespan:.0f} ms")
equal, anew = found.values()
display(plot_timeline(anew, memory=False))
reveal("08b-best", prediction=100 * (4 / 3.5 - 1), measurement=100 * (anew.makespan / equal.makespan - 1))

# %% [markdown]
# Most of the loss is won back. The prediction is 4/3.5: the four devices have a speed of 3.5 together, instead of 4. It
# assumes that each device can get exactly its share, and it leaves the bubble out.
#
# Look at the slow device. It may get a little less than its share, because a short stage fills and drains quickly. It
# does not get much less, although that might save one per cent more: the other devices would have more to do.
# `plan_cuts` counts steps as alike that are within 2 % of the shortest. Of these it takes the least bottleneck.
#
# ## A claim on trial: "a device twice as fast saves a fifth"
#
# Now the other direction: one of four cards is replaced by one that is twice as fast. That makes five devices' worth of
# speed instead of four. "So the step becomes a fifth shorter." Does it?

# %%
FAST = [1, 1, 2, 1]
best = plan_cuts(layers, **usual, speeds=FAST)
runs = {"equal devices": (start.cuts, None), "same cut": (start.cuts, FAST), "cut anew": (best.cuts, FAST)}
found = measured(runs)
for name, timeline in found.items():
    told = f"{1e3 * timeline.makespan:.0f} ms, {timeline.makespan / found['equal devices'].makespan - 1:+.0%}"
    print(f"{name}: {told}; bubble {timeline.bubble_fraction:.0%}")
print(f"layers {start.sizes} -> {best.sizes}")
stages = start.profile.cut(4)
same = Costs(
    forward=[stage.forward(4) / speed for stage, speed in zip(stages, FAST, strict=True)],
    backward=[stage.backward(4) / speed for stage, speed in zip(stages, FAST, strict=True)],
)
told = simulate(start.schedule, same).makespan / start.makespan - 1
print(f"predicted, same cut: {told:+.1%}")
for m in (4, 8, 32):
    one, other = (plan_cuts(layers, 4, microbatches=m, batch=4 * m, speeds=speeds) for speeds in (None, FAST))
    print(f"predicted, cut anew, m = {m}: {other.makespan / one.makespan - 1:+.1%}")

# %% [markdown]
# With the same cut little is predicted: the other three are still as slow as before, and only the way through device
# 2 is shorter. (A run may show more. Its actions scatter, and a fast device catches up.) The claim needs a new cut.
# Then a step comes near four fifths, for each m. A layer cannot be divided, and a stage has costs that do not shrink
# with its layers.
#
# **Try it:** what if the *first* device is the fast one, and the limit is 20 MB? Print
# `plan_cuts(layers, **usual, speeds=[2, 1, 1, 1], memory_limit="20MB")`, then the same without the limit. (The bytes of
# each device are in a plan's `memory`, as `held.total`.)
#
# <details><summary>What you should see, and why</summary>
#
# Without a limit the first device gets most of the layers, and needs most of the memory: it holds four micro-batches
# of each of its layers. The limit takes most of that away, so the fast device cannot be used well there. A fast
# device at the end of the pipeline holds only one micro-batch.
#
# </details>
#
# ## In which order?
#
# The order of the devices is free, if all links are equal. Suppose one card has only 9 MB and the others 24 MB. Where
# does it belong? `any_order=True` compares all orders. (The planner also chooses how many layers each device gets.)

# %%
question = "Four equally fast devices, one with 9 MB, three with 24 MB. Where should the small one stand?"
predict("08b-order", question, unit="(place 0 to 3)")

# %%
small = ["9MB", "24MB", "24MB", "24MB"]
for place in range(4):
    limits = [*small[1 : place + 1], small[0], *small[place + 1 :]]
    placed = plan_cuts(layers, **usual, memory_limit=limits)
    print(f"at place {place}: layers {placed.sizes}, {1e3 * placed.makespan:.0f} ms")
free = plan_cuts(layers, **usual, memory_limit=small, any_order=True)
print(f"best of all orders: devices {free.order}, {1e3 * free.makespan:.0f} ms")
reveal("08b-order", measurement=free.order.index(0))

# %% [markdown]
# (The three large devices are alike, so their own order means nothing.) Under 1F1B the first place is the most
# expensive one in memory, so a small device belongs towards the end. The order also matters where links differ
# (lesson 9), and where single layers are large: a fast device should get them.
#
# ## Several stages on one device
#
# With interleaving, a device has several stages (lesson 4), and its time is their sum. So the stages need not be
# equal. Which cut of eight stages suits the heavy head?

# %%
looped = {"schedule": "interleaved", "chunks": 2}
apart = plan_cuts(layers, **usual, **looped)
print(apart)
per_device = [apart.sizes[r] + apart.sizes[r + 4] for r in range(4)]
print(f"layers on each device: {per_device}")
print(f"bubble: cut evenly {apart.even.bubble_fraction:.1%}, planned {apart.timeline.bubble_fraction:.1%}")

# %% [markdown]
# The last stage gets hardly any layers beside the head. (In Llama 3 405B it has the head and nothing else.) What is
# balanced is the sum of stages r and r + 4 on each device r. And none of the eight should be too long, because others
# wait for it.
#
# ## Watch it
#
# In a real run nobody tells you which device is slow. A **monitor** looks at each step. Below the pipeline runs
# twelve steps of 16 sequences, numbered from 0. Before step 6, device 2 becomes slow, without a word to anybody.


# %%
def train(pipeline, step, steps):
    """Train on other sequences in each step. Before step 6 device 2 slows down. Makespans and losses."""
    took, losses = [], []
    for number in steps:
        if number == 6:
            pipeline.speeds = SLOW
        report = step(*text_batch(number, batch=16))
        took.append(report.timeline.makespan)
        losses.append(report.loss)
    return took, losses


monitor = Monitor(every=5, tokens=32)
with Pipeline(model, start.schedule, loss=next_byte_loss, cuts=start.cuts, monitor=monitor) as pipeline:
    train(pipeline, pipeline.step, range(6))
    print(monitor.summary(), end="\n\n")
    train(pipeline, pipeline.step, range(6, 12))
    print(monitor.summary())
plot_monitor(monitor)

# %% [markdown]
# The load balance has fallen. The monitor names the bottleneck, and since which step it is one. (By chance a device
# may be the busiest some steps before it becomes slow.) It also says where the bubble comes from. *Fill and drain* is
# what the schedule itself costs, and *imbalance* is what unequal devices add. This part has grown. The lowest panel
# shows how long `step()` took here, where your cores do the work of all four devices. So a device that is slow by the
# device clock does not show in it.
#
# A device can be the bottleneck for two reasons: it has too much work, or it is slow. Its time for each layer tells
# them apart, if you know it from before. An exercise asks you to do so.
#
# ## Let it move layers
#
# A pipeline can act on that. `pipeline.reschedule(schedule, cuts=...)` moves layers to other devices between two steps,
# with their weights and the optimizer's state. `Adaptive` decides when. After every few steps it compares what each
# device took with what the profile says of its layers. If devices have changed, it plans a cut for their new speeds. If
# that saves more than 5 % of a step, it moves the layers. It says why.
#
# The next cell trains a copy for 14 steps, and slows device 2 down before step 6 as well. `Adaptive` may report smaller
# changes too, because the machine is not the same in each minute. A decision after one step takes effect in the next.

# %%
question = "With Adaptive: how much longer are the last steps than those right before device 2 slows down?"
predict("08b-adaptive", question, unit="% longer")

# %%
import copy
from statistics import median


def sgd(parameters):
    """Plain gradient descent."""
    return torch.optim.SGD(parameters, lr=0.05)


split, whole = copy.deepcopy(model), copy.deepcopy(model)  # the same weights, to train apart
with Pipeline(split, start.schedule, loss=next_byte_loss, optimizer=sgd, cuts=start.cuts, window=2) as pipeline:
    adaptive = Adaptive(pipeline, layers, every=3)
    took, losses = train(pipeline, adaptive.step, range(14))
optimizer, unsplit = sgd(whole.parameters()), []
for number in range(14):
    x, y = text_batch(number, batch=16)
    optimizer.zero_grad()
    loss = next_byte_loss(whole(x), y)
    loss.backward()
    optimizer.step()
    unsplit.append(loss.item())
differ = max(abs(a - b) for a, b in zip(losses, unsplit, strict=True))
print(f"largest difference from the unsplit model's losses: {differ:.0e}")
axes = {"across": "step", "up": "milliseconds"}
note = "Clock: device. Before step 6 device 2 falls to half speed."
display(plot_curves(range(14), {"makespan": [1e3 * time for time in took]}, **axes, title="Layers move", note=note))
measurement = 100 * (median(took[-3:]) / median(took[3:6]) - 1)
reveal("08b-adaptive", prediction=100 * (4 / 3.5 - 1), measurement=measurement)

# %% [markdown]
# The step grows longer, a few steps later the layers move, and most of the loss is won back. The losses are those
# of the unsplit model all along: a cut changes where something is computed, and not what.
#
# ## Break it
#
# A plan for the wrong device is worse than none. Tell the planner that device 1 is the slow one, and run its cut where
# device 2 is slow.

# %%
wrong = plan_cuts(layers, **usual, speeds=[1, 0.5, 1, 1])
found = measured({"cut for equal devices": (start.cuts, SLOW), "cut for the wrong one": (wrong.cuts, SLOW)})
for name, timeline in found.items():
    print(f"{name}: {1e3 * timeline.makespan:.0f} ms; device 2 is busy for {1e3 * timeline.busy[2]:.0f} ms")
print(f"layers {start.sizes} -> {wrong.sizes}")

# %% [markdown]
# The plan took layers from device 1, and gave some of them to the slow device. So the slow one has even more to do. A
# monitor would say so at once.
#
# ## What to remember
#
# - One slow device slows down all of them. In the middle of the step they all run at its pace.
# - Divide work by speed. Then the best cut wins back most of the loss.
# - A faster device helps only after a new cut.
# - Under 1F1B memory decides the order: a small device belongs towards the end.
# - Balance devices, not stages: with interleaving their sums count.
# - A monitor says who holds the others up. The time for each layer says why.
#
# In the repository, `docs/monitor.md` and `docs/adaptive.md` say how to use both with your own model.

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices. A model is a list of layers, and a stage is a group of neighbouring layers on one device.
# A layer's cost is what its forward and backward take for one micro-batch. Messages take no time. Nothing here depends
# on your machine. What is measured was measured once, and frozen.

# %% role="setup"
from pipelab.teaching import NotWritten, check, recorded_run

# %% [markdown] role="lead" exercise="unlike_cut" difficulty="medium" minutes=25
# The devices are not alike. `costs` has a cost for each layer, in the order of the model. `speeds` says how fast each
# device is. A stage takes the sum of its layers' costs, divided by the speed of its device. All numbers are above 0,
# and each device gets at least one layer. The slowest stage should take as little time as it can. Write
#
# - `cut_for`: the devices stand in the order of `speeds`. Return how many layers each has, in this order;
# - `best_order`: the devices may stand in any order. Return two lists. `order[k]` is the device at place k of the
#   pipeline, an index into `speeds`. `sizes[k]` is the number of layers at place k. There are at most 6 devices and 12
#   layers, and your function has 5 seconds.
#
# Where several answers are equally good, any of them is accepted. The second function may call the first.


# %% role="answer" exercise="unlike_cut"
from itertools import permutations


def cut_for(costs: list[float], speeds: list[float]) -> list[int]:
    """How many layers each device has, such that the slowest takes the least time.

    >>> cut_for([2, 2, 2, 2, 2], speeds=[1, 4])    # 2 / 1 and 8 / 4
    [1, 4]
    """
    ### BEGIN SOLUTION
    layers = len(costs)
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best = [(total / speeds[0], [j]) for j, total in enumerate(sums)]
    for s, speed in enumerate(speeds[1:], start=1):
        made = [(float("inf"), [])] * (layers + 1)
        for j in range(s + 1, layers + 1):
            for i in range(s, j):
                slowest = max(best[i][0], (sums[j] - sums[i]) / speed)
                if slowest < made[j][0]:
                    made[j] = slowest, [*best[i][1], j - i]
        best = made
    return best[layers][1]
    ### END SOLUTION


def best_order(costs: list[float], speeds: list[float]) -> tuple[list[int], list[int]]:
    """The device at each place, and how many layers each place has.

    >>> best_order([8, 2, 2], speeds=[1, 2])    # the fast device first: 8 / 2 and 4 / 1
    ([1, 0], [1, 2])
    """

    ### BEGIN SOLUTION
    def slowest(order):
        placed, begin, worst = [speeds[r] for r in order], 0, 0.0
        for size, speed in zip(cut_for(costs, placed), placed, strict=True):
            worst = max(worst, sum(costs[begin : begin + size]) / speed)
            begin += size
        return worst

    order = min(permutations(range(len(speeds))), key=slowest)
    return list(order), cut_for(costs, [speeds[r] for r in order])
    ### END SOLUTION


# %% [markdown] role="hint" exercise="unlike_cut"
# A sum of 6 on a device of speed 2 takes 3. What changes in the table of lesson 8's `best_cut`? For `best_order`: how
# many orders do 6 devices have?

# %% [markdown] role="hint" exercise="unlike_cut"
# In the table, stage s has a device of its own, so the sum of the last stage is divided by the speed of that device.
# The rest is as before. For `best_order` take each order of the devices, cut for it, and keep the best. 6 devices have
# only 720 orders.

# %% [markdown] role="hint" exercise="unlike_cut"
# `itertools.permutations` of the devices' numbers gives the orders. For each, write down the speeds in that order, and
# give them to your first function. What do you compare? What it returns are numbers of layers, so you need the times
# too. And what do you return as `sizes`, if `cut_for` was given the speeds by place?

# %% [markdown] role="solution" exercise="unlike_cut"
# To sort by speed is no rule. A fast device belongs to the dear layers, and these may be in the middle. Layers in
# proportion to speeds fail where layers differ. Here all orders are tried, and 12 devices have 479 million. pipelab's
# `plan_cuts` makes a table over *sets* of devices instead, with 2ᵖ entries for p devices. Real
# plans have more limits: a fast device with little memory may have to leave layers to a slower one.

# %% [markdown] role="lead" exercise="read_monitor" difficulty="hard" minutes=45
# A run has been watched, and you get its rows, in the order of steps and devices. Each is a dict such as
#
# `{"step": 14, "device": 2, "layers": 12, "busy": 0.8261, "idle": 0.1863}`.
#
# `layers` is the number of layers that the device held in this step. It can change during a run. `busy` is how many
# seconds the device worked in this step, and `idle` how many it did not. The last layer has a head, so it may cost as
# much as several others. There are at least 14 steps, numbered without gaps, and 3 devices or more.
#
# Which device holds all others up *at the end*, since which step without a break, and why? Return `(device, since,
# why)`.
#
# - Nobody does if the load balance (mean over max of the busy times) is above 0.95. Return `(None, None, "none")`.
# - Else it is the busiest device. `since` is the first step from which on it has held the others up without a break, in
#   the same sense. Three steps earlier or later count as right too. If it was so from the beginning, that is the first
#   step of the rows.
# - `why` is `"slow device"` if a layer takes this device longer since then. Take its seconds per layer, divided by
#   the median of the other devices' in the same step. This must have risen by more than 10 %, from the five steps
#   before `since` to those after it. Else `why` is `"too many layers"`. A device that was too busy from the first
#   step on has no time before. It counts as `"too many layers"`, whatever the reason.
#
# All of this is meant for a typical step. Times vary by a few per cent. **A single step may be disturbed**, even the
# last, so take the median of a device's times over five steps in a row. And the whole machine can be slower for a
# while. Then all devices take longer, and no device is to blame.
#
# Three of the runs were recorded from the 48-layer model, one with `pipeline.speeds` changed during the run.
# `recorded_run()` gives you the rows of that one, to look at in a cell of your own. Others are made up: there the
# times of a device vary by 1.5 %, and each state lasts for ten steps or more. In all of them the balance at the end
# is above 0.97 or below 0.86.


# %% role="answer" exercise="read_monitor"
from statistics import mean, median


def diagnose(rows: list[dict[str, float]]) -> tuple[int | None, int | None, str]:
    """The device that holds all others up at the end, since which step, and why.

    >>> busy = {0: 0.2, 1: 0.4, 2: 0.2}
    >>> rows = [{"step": s, "device": r, "layers": 8, "busy": busy[r], "idle": 0.1} for s in range(14) for r in busy]
    >>> diagnose(rows)    # so from the first step on
    (1, 0, 'too many layers')
    """
    ### BEGIN SOLUTION
    steps = sorted({row["step"] for row in rows})
    devices = sorted({row["device"] for row in rows})
    at = {(row["step"], row["device"]): row for row in rows}

    def holds_up(step):
        begin = min(max(step - 2, steps[0]), steps[-1] - 4)
        busy = [median(at[near, r]["busy"] for near in range(begin, begin + 5)) for r in devices]
        return None if mean(busy) / max(busy) > 0.95 else devices[busy.index(max(busy))]

    def against_others(chosen):
        found = []
        for step in chosen:
            layer = {r: at[step, r]["busy"] / at[step, r]["layers"] for r in devices}
            found.append(layer[device] / median(layer[r] for r in devices if r != device))
        return median(found)

    device = holds_up(steps[-1])
    if device is None:
        return None, None, "none"
    since = steps[-1]
    while since > steps[0] and holds_up(since - 1) == device:
        since -= 1
    if since > steps[0]:
        before = range(max(since - 5, steps[0]), since)
        if against_others(range(since, steps[-1] + 1)) > 1.1 * against_others(before):
            return device, since, "slow device"
    return device, since, "too many layers"
    ### END SOLUTION


# %% [markdown] role="hint" exercise="read_monitor"
# Three questions, one after the other. Who is the busiest now? For how far back is that true? What was different
# before, the device or its share of the layers? Look at the busy seconds of `recorded_run()`, step by step.

# %% [markdown] role="hint" exercise="read_monitor"
# For a step, take the five steps around it, and of each device the median of its busy seconds there. These p numbers
# tell who holds the others up, if anybody does. Start at the end and go back as long as the answer is the same. For the
# reason compare a layer on that device with a layer on the others, before and after.

# %% [markdown] role="hint" exercise="read_monitor"
# Write a function that names the device for one step, or None. Near the ends take the first or the last five steps. For
# the reason: in each step divide seconds by layers for all devices, and then your device's number by the median of
# the others. That makes one number for each step, in which the speed of the whole machine cancels. Compare the median
# from `since` on with the median of the five steps before.

# %% [markdown] role="solution" exercise="read_monitor"
# The two reasons ask for different things. For too many layers, cut the model elsewhere: `plan_cuts`. For a slow
# device, first look at the device: is it hot, or does something else run on it? If it stays slow, give it fewer layers,
# and give `plan_cuts` its speed. In the recorded run the whole machine was almost twice as slow in some steps as in
# others. Seconds alone would have blamed everybody. Sums over the whole run blame whoever was slow once.
