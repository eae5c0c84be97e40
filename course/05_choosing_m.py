# ---
# jupyter:
#   pipelab:
#     number: 5
#     title: "Choosing m: how finely to cut the batch"
#     minutes: 55
#     builds_on: [2, 3, 4]
#     goals:
#       - fit t(b) = α + βb to measured micro-batches, and say what each of the two numbers is
#       - derive a formula for the m with the shortest step, and find that m by measurement
#       - say how a run departs from the formula, and what scatter and slow messages do to each schedule
#       - cut a batch into any number of micro-batches, even or uneven
# ---

# %% [markdown]
# ## Into how many micro-batches should you cut a batch?
#
# In the lessons so far m was given. Lesson 2 showed that more micro-batches make the bubble smaller. Lesson 3 showed
# that under 1F1B they also save memory. Each action also has a fixed cost. In this lesson you measure that cost and
# weigh it against the bubble. Then you choose m for the worked example: 48 layers, p = 4 devices, a batch of B = 64
# sequences.

# %% role="setup"
import math
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
predict("05-finer", "1F1B, p = 4, batch 64. The step with m = 64, as a percentage of the step with m = 16?", unit="%")

# %% [markdown]
# ## A claim on trial: "the larger m, the better"
#
# Lesson 2 has a formula for this. A micro-batch has B/m sequences. If its time is in proportion to its sequences, then
# $t_F + t_B$ is in proportion to 1/m, and
#
# $$\text{makespan} = (m + p - 1)(t_F + t_B) \;\propto\; \frac{m + p - 1}{m} = 1 + \frac{p - 1}{m}.$$
#
# From m = 16 to m = 64 this falls from 1 + 3/16 to 1 + 3/64. The runs below use 1F1B. The formula gives the same time
# for GPipe and 1F1B. The function `measure` runs them. It is in a folded cell, which opens with a click.

# %% jupyter={"source_hidden": true}
from contextlib import ExitStack


def measure(ms, batch=lambda m: (inputs, targets)):
    """Steps of 1F1B for each m, with p = 4 and the device clock.

    Each m runs twice, and the report of the faster step is returned, because a disturbance only adds time. The m take
    turns, first upwards and then downwards, so that a slow moment of the machine hits all of them. (Above m = 20 one
    step is enough, to save you time.)
    """
    # window=1: the report is of one step, not the median of the last few
    found, options = {}, {"loss": next_byte_loss, "clock": "device", "window": 1}
    with ExitStack() as stack:
        schedules = {m: build_schedule("1f1b", 4, m) for m in sorted(ms)}
        pipelines = {m: stack.enter_context(Pipeline(model, order, **options)) for m, order in schedules.items()}
        for m in [*pipelines, *(m for m in reversed(pipelines) if m <= 20)]:
            report = pipelines[m].step(*batch(m))
            if m not in found or report.timeline.makespan < found[m].timeline.makespan:
                found[m] = report
    return {m: found[m] for m in ms}


_ = measure([2], batch=lambda m: text_batch(batch=8))  # the first run also pays for starting up

# %%
two = {m: report.timeline.makespan for m, report in measure([16, 64]).items()}
for m, seconds in two.items():
    print(f"m = {m}: {1000 * seconds:.0f} ms (device clock)")
display(reveal("05-finer", prediction=100 * (1 + 3 / 64) / (1 + 3 / 16), measurement=100 * two[64] / two[16]))
predict("05-one", "A micro-batch of 1 sequence, as a percentage of the time of a micro-batch of 16?", unit="%")

# %% [markdown]
# The formula predicted a shorter step. If your run took longer, one reason must be in the micro-batches: one sequence
# alone (m = 64) then takes more than a quarter of the time of four (m = 16). (There is a second reason, further down.)
# What does a micro-batch cost?
#
# ## What one micro-batch costs
#
# `profile_costs` sends single micro-batches of several sizes through the four stages and back. It times each stage's
# forward and backward. The picture shows $t(b) = t_F + t_B$ for b sequences, as the mean of the four devices. (With
# `chunks=(1,)` each device has its layers in one piece. With `repeats=2` each size is timed twice. The optimizer is
# profiled too, on a copy.)

# %%
import torch


def adam(named):
    return torch.optim.Adam([parameter for _, parameter in named], lr=3e-3)


sizes = (1, 2, 4, 8, 16)
how = {"loss": next_byte_loss, "chunks": (1,), "repeats": 2, "recompute": False, "progress": False}
profile = profile_costs(model, inputs, targets, devices=4, sizes=sizes, optimizer=adam, **how)
line = profile.line()
alpha, beta, times = line.alpha, line.beta, dict(line.points)
print(f"t(b) = {1000 * alpha:.2f} ms + {1000 * beta:.2f} ms * b, within {line.error:.1%} of each point")
curves = {
    "Measured (device clock)": [1000 * times[b] for b in sizes],
    "The line α + βb": [1000 * line(b) for b in sizes],
    "In proportion: t(16) · b/16": [1000 * times[16] * b / 16 for b in sizes],
}
note = "Forward and backward of one micro-batch on one device: 12 layers, mean of the four devices."
axes = {"across": "sequences b in a micro-batch", "up": "t(b), milliseconds"}
display(plot_curves(sizes, curves, **axes, title="What a micro-batch costs", note=note))
display(reveal("05-one", prediction=100 / 16, measurement=100 * times[1] / times[16]))
predict("05-star", "B = 64, p = 4, and this line. Which m gives the shortest step?", unit="micro-batches")

# %% [markdown]
# (The prediction of 6.25 % is strict proportion, which the unit clock assumed.) The cell prints how closely a line fits
# the points. It does not go through the origin:
#
# $$t(b) = \alpha + \beta\, b$$
#
# - **β** is the cost of one more sequence: arithmetic.
# - **α** is the **fixed cost** of a micro-batch, forward and backward together. (The explorers use α for one action,
#   which is half of it.) It does not depend on the number of sequences. Twelve layers, forward and back, are several
#   hundred operations. Starting each of them takes some tens of microseconds from Python, whatever the size of its
#   tensors. On a GPU α is the time to launch the kernels. There a very small kernel also leaves most of the GPU idle.
#   The curve is then nearly flat for small b, and a line fits less well than on a CPU.
#
# How finely work is cut is its **granularity**. α is the price of cutting finely.
#
# ## The formula with both costs
#
# Put b = B/m into $(m + p - 1)\,t(b)$:
#
# $$T(m) = (m + p - 1)\Bigl(\alpha + \beta\,\frac{B}{m}\Bigr)
#        = \underbrace{\beta B}_{\text{work}} + \underbrace{\alpha m}_{\text{fixed costs}}
#        + \underbrace{(p - 1)\Bigl(\alpha + \beta\,\frac{B}{m}\Bigr)}_{\text{bubble}}$$
#
# The first two terms are what a device does: the work of its batch, and m times the fixed cost. The third term is its
# idle time: as long as p - 1 micro-batches.


# %%
def T(m, line=line, p=4, B=64):
    """The formula: seconds of a step."""
    return (m + p - 1) * line(B / m)


def star(line=line, p=4, B=64):
    """The m at which the formula is least. Without a fixed cost T only falls, and the batch sets the end."""
    return math.sqrt((p - 1) * line.beta * B / line.alpha) if line.alpha > 0 else B


ms = (2, 4, 8, 12, 16, 20, 32, 64)
parts = {
    "The step T(m), the sum": [1000 * T(m) for m in ms],
    "Work: βB": [1000 * beta * 64 for m in ms],
    "Fixed costs: αm": [1000 * alpha * m for m in ms],
    "Bubble: (p - 1)(α + βB/m)": [1000 * 3 * line(64 / m) for m in ms],
}
marks = {f"m* = {star():.1f}": star()}
axes = {"across": "micro-batches m", "up": "milliseconds on each device"}
note = "Clock: predicted, from the line fitted above. Batch fixed at 64 sequences, p = 4."
plot_curves(ms, parts, **axes, title="Where a step's time goes", note=note, log=True, marks=marks)

# %% [markdown]
# (From here on the axis of m is logarithmic. Each doubling is one step to the right, so the straight line αm looks
# bent.) Only two terms change with m: αm rises, and $(p - 1)\beta B/m$ falls. The slope of the sum is zero where
#
# $$\alpha - \frac{(p - 1)\,\beta B}{m^2} = 0, \qquad\text{that is, at}\qquad
# m^* = \sqrt{\frac{(p - 1)\,\beta B}{\alpha}}.$$
#
# At $m^*$ the two terms are equal: the part of the bubble that shrinks is as long as the fixed costs. (In the picture
# the two curves cross further right, because the bubble also contains the constant (p - 1)α.) Left of $m^*$ the bubble
# is large, because the micro-batches are few and large. Right of it the fixed cost is paid too often. Texts call this
# place the **knee** of the throughput curve, or the **sweet spot**.
#
# The formula shows what moves $m^*$. It grows with the square root of the batch and of p - 1. A larger fixed cost asks
# for fewer micro-batches. Four times the work per sequence (a wider model, longer sequences) asks for twice as many.
#
# ## Measure it
#
# The formula assumes equal stages, equal micro-batches, messages that take no time, and costs that lie exactly on a
# line. A run assumes none of this. (m = 12 and m = 20 do not divide 64. `Pipeline` then cuts unevenly, and weighs the
# losses as in lesson 2b.)

# %%
question = f"m = 64. By lesson 2's formula {3 / 67:.1%} of device time is idle. What percentage is it in the run?"
predict("05-idle", question, unit="%")

# %%
reports = measure(ms)
seconds = {m: reports[m].timeline.makespan for m in ms}
print(f"by the line of the profile m* = {star():.1f}")
print("  m  sequences  step, ms   formula   tokens/s   bubble   formula   peak, MB")
for m in ms:
    report, b = reports[m], sorted(set(reports[m].timeline.schedule.microbatch_sizes(64)))
    cells = (f"{1000 * seconds[m]:8.0f}", f"{1000 * T(m):9.0f}", f"{inputs.numel() / seconds[m]:10.0f}")
    rest = f"{report.timeline.bubble_fraction:8.1%} {3 / (m + 3):9.1%} {max(report.peak_activation_bytes) / 1e6:10.1f}"
    print(f"{m:>3}  {' and '.join(map(str, b)):<9}", *cells, rest)
shown = {"Predicted: (m + p - 1)(α + βB/m)": [1000 * T(m) for m in ms], "Measured": [1000 * seconds[m] for m in ms]}
note = "Measured: device clock, 1F1B. Predicted: from the line alone. Batch fixed at 64 sequences, p = 4."
axes = {"across": "micro-batches m", "up": "makespan of a step, milliseconds"}
title = "The measured curve over the predicted one"
display(plot_curves(ms, shown, **axes, title=title, note=note, log=True, marks=marks))
import numpy as np

# The bottom as measured: fit the three kinds of terms that T(m) has to all eight runs.
runs = np.array([[1, m, 1 / m] for m in ms]) / np.array([[seconds[m]] for m in ms])
constant, rising, falling = np.linalg.lstsq(runs, np.ones(len(ms)), rcond=None)[0]
bottom, how_found = (
    min(seconds, key=seconds.get),
    "the fastest of the eight runs (noise: the fit has no bottom)",
)
if min(rising, falling) > 0:
    bottom, how_found = math.sqrt(falling / rising), "the bottom of a curve through all eight runs"
print("in the row of m*, what is called its measurement is", how_found)
display(reveal("05-star", prediction=star(), measurement=bottom))
reveal("05-idle", prediction=100 * 3 / 67, measurement=100 * reports[64].timeline.bubble_fraction)

# %% [markdown]
# The first row below compares the two bottoms. The formula knew only two numbers, taken from single micro-batches. Do
# not compare the heights of the two curves: the machine may have been slower or faster during the profile than during
# the runs. A single point may lie 30 % off its neighbours on a busy machine. (The fastest of the eight may be another
# one in your next run. That is why the measured m comes from a curve $c_0 + c_1 m + c_2/m$, the shape of T(m), fitted
# to all eight.)
#
# *Tokens per second* are the tokens of the batch divided by the time of the step. At a fixed batch they are highest
# where the step is shortest. They leave out the optimizer's update, which comes once per batch, whatever m.
#
# *The bubble* keeps shrinking, while at large m tokens per second fall. So a busy device is not always a useful one: it
# may be busy with fixed costs. Reports on large runs therefore give the **model FLOPs utilisation** (MFU; Chowdhery et
# al., 2022, arXiv 2204.02311). It is the arithmetic of the model over what the devices could do in that time. At a
# fixed batch MFU follows the tokens per second, and it has the same knee.
#
# *The peak of memory* never rises with m. It falls in steps: device 0 holds up to p micro-batches of at most ⌈B/m⌉
# sequences (B/m rounded up), and many m have the same ⌈B/m⌉.
#
# ## Scatter: the bubble that the formula does not have
#
# Where the measured curve departs from the formula, there are two possible reasons. A micro-batch may cost more or less
# in the run than it did alone: α depends on what else the machine does at the time. And the devices may idle longer.
#
# The devices do idle longer: at large m the measured bubble is clearly larger than the formula's. Part of that is that
# the stages are not exactly equal (the printed line says how much). The rest is that equal actions do not take equal
# time. A late action makes its neighbours wait. An early one rarely makes up for it, because a device cannot start
# before its message is there. This scatter is called **jitter**.
#
# The cell takes the measured cost of every action of every run, and simulates three cases. First, every action costs
# the mean of its stage and kind (F or B): unequal stages without scatter. (This case is only printed, for m = 64.)
# Second, the measured costs are shuffled among the actions of one stage and kind: scatter by chance. Third, the
# shuffled costs run in the order of GPipe.

# %%
import random
from statistics import fmean


def idle(report, name, deal):
    """Bubble fraction of schedule `name` with the costs of `report`; `deal` gives out those of one stage and kind."""
    kinds = {}
    for program, row in zip(report.schedule.programs, report.slot_costs.slots, strict=True):
        for action, cost in zip(program, row, strict=True):
            kinds.setdefault((action.stage, action.op), []).append(cost)
    dealt = {kind: deal(costs) for kind, costs in kinds.items()}
    schedule = build_schedule(name, 4, report.schedule.microbatches)
    slots = [[dealt[action.stage, action.op].pop() for action in program] for program in schedule.programs]
    return simulate(schedule, SlotCosts(slots)).bubble_fraction


def means(costs):
    return [fmean(costs)] * len(costs)


def shuffled(costs):
    return random.sample(costs, len(costs))


def often(report, name):
    return fmean(idle(report, name, shuffled) for _ in range(5))


many = [m for m in ms if m >= 8]
bubbles = {
    "Formula: (p - 1)/(m + p - 1)": [100 * 3 / (m + 3) for m in many],
    "Measured, 1F1B": [100 * reports[m].timeline.bubble_fraction for m in many],
    "Its costs shuffled, 1F1B": [100 * often(reports[m], "1f1b") for m in many],
    "Its costs shuffled, GPipe": [100 * often(reports[m], "gpipe") for m in many],
}
costs = np.array(reports[64].slot_costs.slots[0])
forwards = costs[[action.op == "F" for action in reports[64].schedule.programs[0]]]
busy = sum(map(sum, reports[64].slot_costs.slots)) / (4 * 64)
print(f"m = {64}, a micro-batch on one device: {1000 * line(1):.1f} ms by the line, {1000 * busy:.1f} ms in the run")
print(f"m = {64}, forwards of device 0: standard deviation {forwards.std() / forwards.mean():.0%} of the mean")
print(f"m = {64}, bubble: formula {3 / 67:.1%}", end=", ")
print(f"unequal stages alone {idle(reports[64], '1f1b', means):.1%}", end=", ")
print(f"measured {reports[64].timeline.bubble_fraction:.1%}")
note = "Batch fixed at 64, p = 4. Measured: device clock. Shuffled: simulated, each the mean of five shuffles."
axes = {"across": "micro-batches m", "up": "idle device time, per cent"}
plot_curves(many, bubbles, **axes, title="Scatter widens the bubble", note=note, log=True)

# %% [markdown]
# The shuffled costs need not give the bubble of the run: in a run slow moments come together and hit neighbours alike.
# But both shuffled curves lie above the formula.
#
# At large m GPipe suffers less. Why? Its forwards do not wait for any backward, so messages wait in a queue in front of
# a device. While one is late, the device works on the others. 1F1B has at most p micro-batches in flight, so its queues
# are nearly empty. The next cell uses random costs, and more micro-batches than you would run.

# %%
spread = float(forwards.std() / forwards.mean())


def scattered(name, m, spread):
    """Bubble fraction with equal stages, tB = 2 tF, and costs that scatter by `spread`: normal, cut off near zero."""
    schedule = build_schedule(name, 4, m)
    cost = {op: lambda op=op: (1 + (op == "B")) * max(random.gauss(1, spread), 0.1) for op in "FB"}
    return simulate(schedule, SlotCosts([[cost[a.op]() for a in row] for row in schedule.programs])).bubble_fraction


for m in (16, 64, 256):
    told = (f"{name} {fmean(scattered(name, m, spread) for _ in range(4)):.1%}" for name in ("gpipe", "1f1b"))
    print(f"m = {m:>3}, scatter {spread:.0%}: formula {3 / (m + 3):.1%}, " + ", ".join(told))

# %% [markdown]
# Under GPipe the bubble goes on shrinking, more slowly than the formula says. Under 1F1B it stops shrinking, because
# some time is lost with every p micro-batches. So scatter acts like a slower device, and no m makes that loss go away.
# This is the price of keeping few micro-batches in flight.
#
# **Try it:** call `scattered("1f1b", 256, spread)` with half of the spread and with twice the spread. How does the
# bubble depend on the spread?
#
# <details><summary>What you should see, and why</summary>
#
# The excess of the bubble over the formula grows with the spread, almost in proportion. Without any scatter (`spread`
# 0) the formula's value comes back. In each round a device waits for its neighbours when they are late, and how late
# they are is in proportion to the spread.
#
# </details>
#
# ## How flat is the bottom, and what do uneven micro-batches cost?
#
# `profile.predict` simulates a schedule with each stage's own costs and each micro-batch's own size.

# %%
best = min(range(1, 65), key=T)
slack = 0.05
near = [m for m in range(1, 65) if T(m) <= (1 + slack) * T(best)]
print(f"by the formula m = {best} is best, and m = {min(near)} to {max(near)} are within {slack:.0%} of it")
for m in (8, 12, 16, 20):
    schedule = build_schedule("1f1b", 4, m)
    simulated = profile.predict(schedule, batch=64).makespan
    cut = schedule.microbatch_sizes(64)
    told = ", ".join(f"{cut.count(b)} of {b}" for b in dict.fromkeys(cut))
    print(f"m = {m:>2} ({told:<15}): formula {1000 * T(m):.0f}, simulated {1000 * simulated:.0f} ms", end=", ")
    print(f"measured {1000 * seconds[m]:.0f} ms")
update = profile.update_seconds(build_schedule("1f1b", 4, 8))
print(f"Adam's update would add {1000 * update:.1f} ms to each of these steps")

# %% [markdown]
# The sizes are those of `tensor_split`: the larger ones come first. The simulation departs from the formula for two
# reasons. The stages are not exactly equal, and the slowest sets the pace. And where sizes differ, the larger
# micro-batches keep other devices waiting. That second price is small. So m need not divide the batch, as long as each
# loss has its weight $n_i/n$. (With equally many loss terms in each sequence; lesson 2b shows the other case.)
#
# **Try it:** run `measure((6, 7, 9, 10))` in a new cell. Can your measurements rank these four?
#
# <details><summary>What you should see, and why</summary>
#
# By the formula they differ by a few per cent, and one step scatters by at least as much on most machines. Run the cell
# twice: if the order changes, you cannot rank them. That is no loss. Whichever you take, the step is about as short.
#
# </details>

# %% [markdown]
# ## When messages take time
#
# In all these runs messages took no time. On a network they do, and small micro-batches are often blamed for it: "with
# 2 sequences a device waits for the network most of the time". Whether that is true depends on the schedule. Let a
# message take L seconds, in which both devices may go on working.
#
# - GPipe waits for messages only while it fills and drains: 2(p - 1)L in all, for any m. The knee does not move.
# - Under 1F1B device 0 has p micro-batches in flight. A round of these p takes $p\,t(b) + 2(p - 1)L$, so each of them
#   costs $2(p - 1)L/p$ more. That is a price per micro-batch: latency acts like a larger α. (Filling and draining add a
#   constant, which does not move the knee.)
#
# $$m^*_L = \sqrt{\frac{(p - 1)\,\beta B}{\alpha + 2(p - 1)L/p}}.$$
#
# The cell predicts both schedules from the profile, for every m up to 32 and for longer and longer messages. It
# measures their length in t(2), the time of a micro-batch of 2 sequences. The last line of each group is for m = 32,
# where micro-batches have 2 sequences.

# %%
for part in (0, 0.25, 0.5, 1):
    L = part * line(2)
    found = {}
    for name in ("gpipe", "1f1b"):
        steps = {m: profile.predict(build_schedule(name, 4, m), 64, latency=L).makespan for m in range(2, 33)}
        found[name] = min(steps, key=steps.get), 1000 * min(steps.values())
    price = alpha + 2 * 3 * L / 4
    formula = math.sqrt(3 * beta * 64 / price) if price > 0 else 64
    told = ", ".join(f"{name} best at m = {m} ({best_ms:.0f} ms)" for name, (m, best_ms) in found.items())
    print(f"a message takes {part:g} t({2}) = {1000 * L:.0f} ms: {told}; formula for 1F1B {formula:.1f}")
    waits = {name: profile.predict(build_schedule(name, 4, 32), 64, latency=L).bubble_fraction for name in found}
    print(f"    m = {32}: " + ", ".join(f"{name} idles {idle:.0%}" for name, idle in waits.items()))

# %% [markdown]
# The claim holds for 1F1B once a message takes about as long as the work of a micro-batch. It does not hold for GPipe,
# which loses $2(p - 1)L$ at m = 32 as at m = 8. (Without latency the two differ a little, because the stages are not
# exactly equal.)
#
# So left of the knee there are too few micro-batches to **amortise** the bubble, that is, to share its cost. On the
# right a micro-batch is too small for its fixed price: α, and under 1F1B scatter and latency too. A step that waits for
# messages longer than it computes is called **latency-bound**. And when messages are slow, GPipe is the faster of the
# two, at the price of its memory.
#
# ## Break it
#
# The choice is only as good as the profile. Suppose that somebody times too few sizes. What m do they choose, and what
# does that cost, by the full line?

# %%
broken = {
    "16 alone, in proportion": (0.0, times[16] / 16),
    "8 and 16": (2 * times[8] - times[16], (times[16] - times[8]) / 8),
    "1 and 16": (times[1] - (times[16] - times[1]) / 15, (times[16] - times[1]) / 15),
    "all five": (alpha, beta),
}
for name, (a, b) in broken.items():
    chosen = min(range(1, 65), key=lambda m: (m + 3) * (max(a, 0) + b * 64 / m))
    print(f"{name:<24} α = {1000 * a:6.2f} ms, chosen m = {chosen:>2}: step {T(chosen) / T(best) - 1:.0%} too long")

# %% [markdown]
# One size says nothing about α. With α = 0 the formula has no bottom, and the choice is m = B. Two large sizes may do
# well or badly. Their α is the difference of two large numbers, so a small error in a timing is a large error in α. It
# may even come out negative. Small sizes show α, because it is the largest part of their time. So profile 1 and 2
# sequences, even if you would never train with them.
#
# ## What to remember
#
# - t(b) = α + βb. The work βB is the same however it is cut. The fixed cost is paid m times. The bubble is p - 1
#   micro-batches.
# - $m^* = \sqrt{(p - 1)\beta B/\alpha}$, with a flat bottom. You get α only by measuring.
# - Scatter and latency cost 1F1B time in every round. GPipe pays for latency only while it fills and drains.
# - m need not divide the batch.
#
# This page asked which m is fast. The next one asks which m is possible: memory has the last word.

# %%
ledger()

# %% [markdown] role="further"
# ## Further: when chunks are interleaved
#
# With v chunks per device (lesson 4) a chunk's forward and backward take $t_v(b) = \alpha_v + \frac{\beta}{v} b$, and
#
# $$T(m) = (v\,m + p - 1)\,\Bigl(\alpha_v + \frac{\beta B}{v\,m}\Bigr), \qquad
# m^*_v = \frac{1}{v}\sqrt{\frac{(p - 1)\,\beta B}{\alpha_v}}.$$
#
# If a chunk has 1/v of the operations, then $\alpha_v = \alpha/v$ and $m^*_v = m^*/\sqrt{v}$: the bubble is smaller, so
# the formula's optimum moves to the left. The cell compares multiples of p, by a frozen profile: this model's costs,
# measured once on another machine and shipped with pipelab.

# %% role="further"
frozen = CostProfile.shipped()
chunk = frozen.line(stages=8)
alpha_v = chunk.alpha / 2  # the line of 8 stages is for a device's two chunks together
for m in range(4, 25, 4):
    simulated = frozen.predict(build_schedule("interleaved", 4, m, chunks=2), 64).makespan
    formula = (2 * m + 3) * (alpha_v + chunk.beta / 2 * 64 / m)
    whole = frozen.predict(build_schedule("1f1b", 4, m), 64).makespan
    print(f"m = {m:>2}, v = {2}: formula {1000 * formula:.0f} ms, simulated {1000 * simulated:.0f} ms", end="; ")
    print(f"v = {1}: formula {1000 * T(m, line=frozen.line()):.0f} ms, simulated {1000 * whole:.0f} ms")
star_v = math.sqrt(3 * chunk.beta * 64 / alpha_v) / 2
print(f"m* = {frozen.best_microbatches(64):.1f} without chunks, {star_v:.1f} with v = {2}")

# %% [markdown] role="further"
# With v = 2 the two smallest m are about equally good. Multiples of p are too far apart to show where between them the
# optimum lies, but they show the trend. Going down from m = 8 to m = 4 costs far less with v = 2 than with v = 1, and
# going up costs more.
#
# ## Further: layers that look at the batch
#
# So far m changed time and memory, and not the gradient. Lesson 2b named two conditions: each layer treats every
# sequence by itself, and dropout masks do not depend on m. Layer normalisation keeps the first. **Batch normalisation**
# does not. It subtracts a mean and divides by a deviation, both taken over all the sequences it is given, and a stage
# is given one micro-batch.
#
# How much do such means scatter? The cell cuts the activations after layer 23 into m pieces. It prints the variance of
# the pieces' means, as a fraction of the variance of the values.

# %% role="further"
import warnings

from torch import nn

fresh = TransformerLM(layers=48)
with torch.no_grad():
    values = fresh.embed(inputs)
    for layer in fresh.layers[:24]:
        values = layer(values)
variance, middle = values.var((0, 1), correction=0), values.mean((0, 1))
for m in (1, 4, 16, 64):
    centres = torch.stack([piece.mean((0, 1)) for piece in values.tensor_split(m)])
    part = (((centres - middle) ** 2).mean(0) / variance).mean()
    print(f"m = {m:>2}, {64 // m:>2} sequences each: variance of the means {part:.4f} of the values'")

# %% [markdown] role="further"
# The scatter grows about in proportion to m - 1. The mean of b independent sequences has a variance in proportion to
# 1/b. These pieces together are the batch whose mean they are compared with, so at m = 1 nothing is left. (The number
# of tokens does not matter as much, because the tokens of one sequence are alike.)
#
# What does that do to training? The cell trains a small model: two layers on p = 2 devices, a batch of 32 sequences.
# One version has layer normalisation, the other batch normalisation. The error is that of the first step's
# gradient, against the gradient of the whole batch. Then come 25 steps on one batch. The last number is the loss of the
# trained model *in use*, where batch normalisation takes running averages instead of the batch's own mean and
# deviation.


# %% role="further"
class BatchNorm(nn.BatchNorm1d):
    def forward(self, x):  # (sequences, tokens, width)
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def narrow(kind):
    net = TransformerLM(layers=2, width=32, heads=2)
    for layer in net.layers if kind == "batch" else ():
        layer.norm1, layer.norm2 = BatchNorm(32), BatchNorm(32)
    return net


half = inputs[:32], targets[:32]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    Pipeline(narrow("batch"), build_schedule("1f1b", 2, 8), loss=next_byte_loss)
print("Pipeline warns:", caught[0].message if caught else "not at all")
warnings.simplefilter("ignore", UserWarning)  # said once; from here on it is what we want
for kind, m in (("layer", 1), ("layer", 32), ("batch", 1), ("batch", 8), ("batch", 32)):
    order = build_schedule("1f1b", 2, m)
    error = Pipeline(narrow(kind).double(), order, loss=next_byte_loss).verify(*half)
    net = narrow(kind)
    with Pipeline(net, order, loss=next_byte_loss, clock="unit", optimizer=adam, measure_memory=False) as pipeline:
        losses = [pipeline.step(*half).loss for _ in range(25)]
    with torch.no_grad():
        used = next_byte_loss(net.cpu().eval()(half[0]), half[1]).item()
    print(f"{kind} norm, m = {m:>2}: gradient error {error:.0e}, loss {losses[-1]:.3f} in training, {used:.3f} in use")

# %% [markdown] role="further"
# With layer normalisation m does not change the gradient here. (There is no dropout.) With batch normalisation each m
# has a gradient of its own. Compare the two losses at m = 32, where a micro-batch is one sequence. The model has learnt
# to rely on the statistics of the pieces it saw, and the running averages do not give these back. (At m = 8, with four
# sequences, these 25 steps show little of it.) With such layers m is a part of the learning. That is why `Pipeline`
# warns.

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, B the batch, b the number of sequences in a micro-batch.
# Times are in milliseconds. Nothing here depends on your machine.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="straight_line" difficulty="easy" minutes=8
# A batch was cut into m equal micro-batches, for several m. Each time one micro-batch was timed: forward and backward
# on one device. You are given the batch and a list of pairs (m, milliseconds). Every m divides the batch. Return α and
# β of t(b) = α + βb, where b is the number of sequences in the micro-batch.
#
# Fit the line to *all* timings. Least squares of the errors in milliseconds and of the errors in per cent are both
# accepted, and you may use any library. (Some sizes were timed several times. The first timing in the list was slow.
# You may leave it out.)


# %% role="answer" exercise="straight_line"
def fit(batch: int, timings: list[tuple[int, float]]) -> tuple[float, float]:
    """(alpha, beta) of the line through the timings.

    >>> fit(8, [(8, 5.0), (4, 7.0), (2, 11.0)])    # micro-batches of 1, 2 and 4 sequences
    (3.0, 2.0)
    """
    ### BEGIN SOLUTION
    points = [(batch / m, t) for m, t in timings]
    mean_b = sum(b for b, _ in points) / len(points)
    mean_t = sum(t for _, t in points) / len(points)
    above = sum((b - mean_b) * (t - mean_t) for b, t in points)
    beta = above / sum((b - mean_b) ** 2 for b, _ in points)
    return mean_t - beta * mean_b, beta
    ### END SOLUTION


# %% [markdown] role="hint" exercise="straight_line"
# The time is a line over which quantity? It is not the one that you are given.

# %% [markdown] role="hint" exercise="straight_line"
# Turn each m into b = B/m. The rest is an ordinary straight-line fit.

# %% [markdown] role="hint" exercise="straight_line"
# `numpy.polyfit` of degree 1 fits a line. Look up in which order it returns its two numbers, and put α first. By hand:
# the slope is a sum of products of deviations from the means, over a sum of squared deviations.

# %% [markdown] role="solution" exercise="straight_line"
# With squares of the differences the large micro-batches decide. With squares of the relative differences all count
# alike. `profile_costs` takes the second, because α shows in the small ones.

# %% [markdown] role="lead" exercise="best_m" difficulty="medium" minutes=14
# The forward and backward of b sequences take alpha + beta · b on each of p devices. Messages take no time. Write
#
# - `m_star`, the m at which $T(m) = (m + p - 1)(\alpha + \beta B/m)$ is least, as a number that need not be whole;
# - `choose_m`, an m that can be run: whole, from 1 to B, and a multiple of `multiple` (Megatron-LM's interleaving asks
#   for multiples of p). It need not divide the batch, so take T(m) as it stands. Your m is accepted if its T is at most
#   5 % above the best possible;
# - `m_star_recomputed`, the best m if the pipeline recomputes. Recomputation makes each micro-batch cost a device
#   alpha_r + beta_r · b more. The idle time stays as long as it was, because no gradient has to wait for this work.
#
# alpha and beta are above 0, and `multiple` is at most B. p may be 1: one device has no bubble, and m* is 0.


# %% role="answer" exercise="best_m"
def m_star(devices: int, batch: int, alpha: float, beta: float) -> float:
    """Where the formula for the step is least.

    >>> m_star(devices=2, batch=16, alpha=1.0, beta=1.0)
    4.0
    """
    ### BEGIN SOLUTION
    return ((devices - 1) * beta * batch / alpha) ** 0.5
    ### END SOLUTION


def choose_m(devices: int, batch: int, alpha: float, beta: float, multiple: int) -> int:
    """The best number of micro-batches that can be run.

    >>> choose_m(devices=2, batch=16, alpha=1.0, beta=1.0, multiple=1)
    4
    """
    ### BEGIN SOLUTION
    possible = range(multiple, batch + 1, multiple)
    return min(possible, key=lambda m: (m + devices - 1) * (alpha + beta * batch / m))
    ### END SOLUTION


def m_star_recomputed(devices: int, batch: int, alpha: float, beta: float, alpha_r: float, beta_r: float) -> float:
    """Where the step is least if each micro-batch also costs alpha_r + beta_r * b outside of the bubble.

    >>> m_star_recomputed(devices=2, batch=16, alpha=3.0, beta=1.0, alpha_r=1.0, beta_r=0.5)
    2.0
    """
    ### BEGIN SOLUTION
    return ((devices - 1) * beta * batch / (alpha + alpha_r)) ** 0.5
    ### END SOLUTION


# %% [markdown] role="hint" exercise="best_m"
# Which two terms of T(m) change with m, and where are they equal? For `choose_m`: which m are never possible? For
# `m_star_recomputed`: write the new T as work, fixed costs and bubble.

# %% [markdown] role="hint" exercise="best_m"
# One term rises as alpha · m. The other falls: p - 1 times beta times B, over m. Set them equal and solve for m. T has
# one valley, so the best possible m is next to m*: the multiple below it or the one above. Either may be out of bounds.

# %% [markdown] role="hint" exercise="best_m"
# `choose_m` can do without m*, because there are few candidates. What do you compare? With recomputation the new T is
# the old one plus m times (alpha_r + beta_r B/m). Multiply that out. Which part of it changes with m, and to which of
# the two terms does it belong?

# %% [markdown] role="solution" exercise="best_m"
# One device has no bubble, so one micro-batch is best, though m* = 0. Where alpha is small, m* lies beyond the batch,
# and the batch decides. With recomputation there is more work, beta_r B, but it is the same for every m. Only alpha_r
# moves m*, to the left.

# %% [markdown] role="lead" exercise="slices" difficulty="easy" minutes=6
# m need not divide the batch. Write
#
# - `sizes`: how many sequences each of the m micro-batches has, in the order of `torch.tensor_split`. The sizes are as
#   equal as possible, and the larger ones come first;
# - `loss_weights`: the factor for each micro-batch's mean loss, such that the sum is the mean over the batch. (All
#   sequences have equally many loss terms.) Do not round.


# %% role="answer" exercise="slices"
def sizes(batch: int, microbatches: int) -> list[int]:
    """Sequences in each micro-batch; m is at most the batch.

    >>> sizes(7, 3)
    [3, 2, 2]
    """
    ### BEGIN SOLUTION
    small, rest = divmod(batch, microbatches)
    return [small + 1] * rest + [small] * (microbatches - rest)
    ### END SOLUTION


def loss_weights(batch: int, microbatches: int) -> list[float]:
    """The weight of each micro-batch's mean loss.

    >>> loss_weights(4, 2)
    [0.5, 0.5]
    """
    ### BEGIN SOLUTION
    small, rest = divmod(batch, microbatches)
    return [(small + (i < rest)) / batch for i in range(microbatches)]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="slices"
# Give everybody the same number of sequences. How many are left over, and who gets them?

# %% [markdown] role="hint" exercise="slices"
# Everybody gets the whole part of B/m, and the first few get one more. For the weights: each *sequence* should count
# the same.

# %% [markdown] role="hint" exercise="slices"
# `divmod(B, m)` gives the whole part and the remainder. What does `divmod(64, 12)` tell you about the sizes? For the
# weights: how much does one sequence count in the mean over the batch, and how much do n of them?

# %% [markdown] role="solution" exercise="slices"
# m = 12 gives four of 6 and eight of 5. The sizes differ by 1 at most, so nobody waits long for the larger ones.
