# ---
# jupyter:
#   pipelab:
#     number: 8b
#     title: "Where to cut: unlike devices, and devices that change"
#     minutes: 40
#     builds_on: [4, 8]
#     goals:
#       - predict what one slow device costs, with and without a new cut
#       - say when a faster device makes the step shorter, and when it does not
#       - say where in the pipeline a device with little memory belongs
#       - read a monitor, and let a pipeline move layers in the middle of training
# ---

# %% [markdown]
# ## One device becomes slow
#
# Lesson 8 cut a model for four equal devices. Real ones differ. One card is older, one shares its machine with another
# job, and one gets too hot and lowers its clock. `Pipeline(speeds=[1, 1, 0.5, 1])` plays this on a laptop: device 2
# works at half speed. Under the wall clock it is really held back. Under the device clock its measured costs are
# divided by 0.5. The timeline says so in its caption.
#
# The model is the one with the heavy head, and the layers are profiled as in lesson 8. The cut is the plan for equal
# devices. So all four are about equally busy, until one of them slows down.

# %% role="setup"
import torch
from contextlib import ExitStack
from torch import nn
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch()

# %%
model.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 6000))
layers = profile_layers(model, inputs, targets, loss=next_byte_loss, sizes=(2, 8), repeats=3, progress=False)
usual = {"devices": 4, "microbatches": 8, "batch": 64}
start = plan_cuts(layers, **usual)
print(f"layers in each stage: {start.sizes}")
predict("08b-slow", "Device 2 falls to half speed. How much longer is the step with the same cut?", unit="% longer")

# %%
SLOW = [1, 1, 0.5, 1]


def measured(runs, steps=3):
    """Run steps of 1F1B, m = 8, in turns: of each run (cuts, speeds) the last timeline, with the medians of all."""
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
reveal(
    "08b-slow",
    prediction=100 * ((8 * 2 + 3) / (8 + 3) - 1),
    measurement=100 * (slow.makespan / equal.makespan - 1),
)
plot_schedules([equal, slow], ["Equal devices", "Device 2 at half speed"])

# %% [markdown]
# Let a micro-batch take 1 on each equal stage, forward and backward together. Then a step takes m + p - 1 = 11. With
# the slow device it takes about 2 for each of the m micro-batches, and 3 before and after: 19. The one slow device
# doubles what all four have to wait for.
#
# ## A new cut
#
# The slow device should get less work: so much that its time is again equal to that of the others. A stage's time is
# its work divided by its device's speed. So the recurrence of lesson 8 needs only one change: it divides. All devices
# together now have a speed of 3.5 instead of 4.

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
reveal("08b-best", prediction=100 * (4 / 3.5 - 1), measurement=100 * (anew.makespan / equal.makespan - 1))
plot_timeline(anew, memory=False)

# %% [markdown]
# Nearly all of the loss is won back. 4/3.5 assumes that each device can get exactly its share, but a layer is not
# divisible. It also leaves the bubble out.
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
for m in (4, 8, 32):
    one, other = (plan_cuts(layers, 4, microbatches=m, batch=8 * m, speeds=speeds) for speeds in (None, FAST))
    print(f"predicted, m = {m}: {other.makespan / one.makespan - 1:+.1%}")

# %% [markdown]
# With the same cut the step becomes hardly shorter: the other three are still as slow as before. It is true only after
# a new cut, and about as far as the cut can give each device its share. A layer cannot be divided, and a stage has
# costs that do not shrink with its layers.
#
# **Try it:** what if the *first* device is the fast one, and the limit is 60 MB? Plan with `speeds=[2, 1, 1, 1]` and
# `memory_limit="60MB"`, then without the limit.
#
# <details><summary>What you should see, and why</summary>
#
# Without a limit the first device gets about twice as many layers as the second one, and needs about twice the memory:
# it holds four micro-batches of each of its layers. The limit takes most of that away, so the fast device
# cannot be used well there. A fast device at the end of the pipeline holds only one micro-batch.
#
# </details>
#
# ## In which order?
#
# The order of the devices is free, if all links are equal. Suppose one card has only 36 MB and the others 70 MB. Where
# does it belong? `any_order=True` compares all orders. (The number of layers that the card gets is part of the answer.)

# %%
question = "Four equally fast devices, one with 36 MB, three with 70 MB. Where should the small one stand?"
predict("08b-order", question, unit="(place 0 to 3)")

# %%
small = ["36MB", "70MB", "70MB", "70MB"]
for place in range(4):
    limits = [*small[1 : place + 1], small[0], *small[place + 1 :]]
    placed = plan_cuts(layers, **usual, memory_limit=limits)
    print(f"at place {place}: layers {placed.sizes}, {1e3 * placed.makespan:.0f} ms")
free = plan_cuts(layers, **usual, memory_limit=small, any_order=True)
print(f"best of all orders: devices {free.order}, {1e3 * free.makespan:.0f} ms")
reveal("08b-order", measurement=free.order.index(0))

# %% [markdown]
# (Places with equal times differ only by what the simulation cannot tell apart.) Under 1F1B the first place is the
# most expensive one in memory, so a small device belongs towards the end. For speed alone the order hardly matters,
# as long as single layers are small against a stage. It does where links differ (lesson 9).
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
# The last stage gets hardly any layers beside the head, as in Llama 3 (lesson 8). What is balanced is the sum of stages
# r and r + 4, and each of them should not be too long either: others wait for it.
#
# ## Watch it
#
# In a real run nobody tells you which device is slow. A **monitor** looks at each step. Below the model trains for
# sixteen steps. Before the ninth, device 2 becomes slow, without a word to anybody.


# %%
def train(pipeline, step, steps):
    """Train on other sequences in each step. Before step 8 device 2 slows down. Makespans and losses."""
    took, losses = [], []
    for number in steps:
        if number == 8:
            pipeline.speeds = SLOW
        report = step(*text_batch(number, batch=16))
        took.append(report.timeline.makespan)
        losses.append(report.loss)
    return took, losses


monitor = Monitor(every=6, tokens=32)
with Pipeline(model, start.schedule, loss=next_byte_loss, cuts=start.cuts, monitor=monitor) as pipeline:
    train(pipeline, pipeline.step, range(8))
    print(monitor.summary(), end="\n\n")
    train(pipeline, pipeline.step, range(8, 16))
    print(monitor.summary())
plot_monitor(monitor)

# %% [markdown]
# The load balance has fallen, and the monitor names the bottleneck and the step since when. The bubble's causes have
# changed: the part that comes from unequal devices has grown. But a bottleneck can have two reasons. It may hold too
# much work, or it may be slow. The time for each layer tells them apart: has it grown since the profile? An exercise
# asks you to tell them apart.
#
# ## Let it move layers
#
# A pipeline can act on that. `pipeline.reschedule(schedule, cuts=...)` moves layers to other devices between two steps,
# with their weights and the optimizer's state. `Adaptive` decides when. After every few steps it compares what each
# device took with what the profile says of its layers. If devices have changed, it plans a cut for their new speeds. If
# that saves more than 5 % of a step, it moves the layers. It says why.

# %%
question = "The same 20 steps with Adaptive. How much longer are the last ones than the first ones?"
predict("08b-adaptive", question, unit="% longer")

# %%
import copy
from statistics import median


def sgd(parameters):
    """Plain gradient descent."""
    return torch.optim.SGD(parameters, lr=0.05)


split, whole = copy.deepcopy(model), copy.deepcopy(model)
with Pipeline(split, start.schedule, loss=next_byte_loss, optimizer=sgd, cuts=start.cuts, window=2) as pipeline:
    adaptive = Adaptive(pipeline, layers, every=4)
    took, losses = train(pipeline, adaptive.step, range(20))
optimizer, unsplit = sgd(whole.parameters()), []
for number in range(20):
    x, y = text_batch(number, batch=16)
    optimizer.zero_grad()
    loss = next_byte_loss(whole(x), y)
    loss.backward()
    optimizer.step()
    unsplit.append(loss.item())
differ = max(abs(a - b) for a, b in zip(losses, unsplit, strict=True))
print(f"largest difference from the unsplit model's losses: {differ:.0e}")
measurement = 100 * (median(took[-3:]) / median(took[4:8]) - 1)
reveal("08b-adaptive", prediction=100 * (4 / 3.5 - 1), measurement=measurement)
axes = {"across": "step", "up": "milliseconds"}
note = "Clock: device. Before step 8 device 2 falls to half speed."
plot_curves(range(20), {"makespan": [1e3 * time for time in took]}, **axes, title="Layers move", note=note)

# %% [markdown]
# The step grows longer, a few steps later the layers move, and it is nearly as short as before. The losses are those
# of the unsplit model all along: a cut changes where something is computed, and not what.
#
# ## Break it
#
# A plan for the wrong device is worse than none. Tell the planner that device 1 is the slow one, and run its cut where
# device 2 is.

# %%
wrong = plan_cuts(layers, **usual, speeds=[1, 0.5, 1, 1])
found = measured({"cut for equal devices": (start.cuts, SLOW), "cut for the wrong one": (wrong.cuts, SLOW)})
for name, timeline in found.items():
    print(f"{name}: {1e3 * timeline.makespan:.0f} ms; device 2 is busy {timeline.busy[2] / timeline.makespan:.0%}")

# %% [markdown]
# The plan took layers from device 1, and gave some of them to the slow device. So the slow one has even more to do. A
# monitor would say so at once.
#
# ## What to remember
#
# - One slow device slows down all of them. In the middle of the step they all run at its pace.
# - Divide work by speed. Then the best cut wins back what the devices can give together.
# - A faster device helps only after a new cut.
# - Under 1F1B memory decides the order: a small device belongs towards the end.
# - Balance devices, not stages: with interleaving their sums count.
# - A monitor says who holds the others up. The time for each layer says why.
#
# In the repository `docs/monitor.md` and `docs/adaptive.md` say how to use both with your own model.

# %%
ledger()
