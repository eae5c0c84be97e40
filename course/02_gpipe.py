# ---
# jupyter:
#   pipelab:
#     number: 2
#     title: "Micro-batches: GPipe"
#     minutes: 70
#     builds_on: [1]
#     goals:
#       - write GPipe's schedule, and say which part of it saves time
#       - predict its bubble as a fraction and as a ratio, and tell which of the two a text means
#       - accumulate gradients over micro-batches so that they equal the gradient of the whole batch
#       - say what GPipe holds at a fixed batch and at a fixed micro-batch, and what recomputation saves and costs
# ---

# %% [markdown]
# ## Can four devices work at the same time?
#
# Lesson 1 ended with a **naive** pipeline: only one of its four devices works at any time. The whole batch of 64
# sequences passes down the devices as one piece and comes back up as one piece. While device 0 works on it, the other
# three have nothing to do.
#
# So we cut the batch: 64 sequences become m = 4 **micro-batches** of 16. On this page a unit of time is one micro-batch
# through one device's 12 layers, forward or backward. The naive run has a single piece that is four times as large.
# Each of its 8 actions takes 4 units, so the run takes 32. This is the simulator's prediction. (The title calls the
# piece one micro-batch of weight 4.)

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
uncut = build_schedule("naive", devices=4, microbatches=4)
plot_timeline(simulate(uncut), memory=False, phases=False)

# %% [markdown]
# ## First attempt: one micro-batch after the other
#
# The simplest order sends the micro-batches through one after the other. Micro-batch 0 goes down all devices and back
# up, then micro-batch 1, and so on. Each device then runs F0, B0, F1, B1, and so on. Here it is as a table, with one
# row per device:

# %%
serial = Schedule.from_csv(
    """
0F0,0B0,0F1,0B1,0F2,0B2,0F3,0B3
1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3
2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3
3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3
""",
    name="serial",
)
predict("02-serial", "How many units does the serial run take? (The naive run takes 32.)", unit="units")


# %%
def run(schedule, clock="unit", batch=64, steps=1, costs=None):
    """Really run a schedule on the first sequences of the batch; return the report of the last step."""
    with Pipeline(model, schedule, loss=next_byte_loss, clock=clock, costs=costs) as pipeline:
        return [pipeline.step(inputs[:batch], targets[:batch]) for _ in range(steps)][-1]


naive, one_by_one = run(uncut), run(serial)
display(plot_schedules([naive.timeline, one_by_one.timeline], ["Naive: one piece of 64", "Serial: 4 pieces of 16"]))
reveal("02-serial", prediction=4 * 4 * (1 + 1), measurement=one_by_one.timeline.makespan)

# %% [markdown]
# Nothing is gained. Each micro-batch passes p = 4 devices forward and 4 backward, which takes $p\,(t_F + t_B)$ = 8
# units. The next one starts only when it is back:
#
# $$\text{makespan} = m \cdot p\,(t_F + t_B) = 4 \cdot 4 \cdot 2 = 32$$
#
# Here $t_F$ and $t_B$ are the times of one forward and one backward of a micro-batch on one device. The pieces are a
# quarter of the size, but there are four times as many. Still only one device works at a time, and three quarters of
# total device time is idle. **Cutting alone saves no time.** (It saves memory. We come back to that.)
#
# ## Second attempt: do not wait
#
# Look at device 0 in the lower picture. It runs F0 and then idles until t = 7, when the gradient of micro-batch 0 comes
# back. Could it run something in the meantime? F1 needs the 16 sequences of micro-batch 1, and device 0 already has
# them. Only the table says that B0 comes first. So we change the table: the same actions on the same devices, in a
# different order. Every device now runs all its forwards first, and then all its backwards.

# %%
overlapped = Schedule.from_csv(
    """
0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3
1F0,1F1,1F2,1F3,1B0,1B1,1B2,1B3
2F0,2F1,2F2,2F3,2B0,2B1,2B2,2B3
3F0,3F1,3F2,3F3,3B0,3B1,3B2,3B3
""",
    name="gpipe",
)
predict("02-overlap", "How many units does this order take?", unit="units")

# %%
gpipe = run(overlapped)
titles = ["Naive: one piece of 64", "Serial: 4 pieces of 16", "GPipe: 4 pieces of 16, overlapped"]
display(plot_schedules([naive.timeline, one_by_one.timeline, gpipe.timeline], titles))
reveal("02-overlap", prediction=(4 + 4 - 1) * (1 + 1), measurement=gpipe.timeline.makespan)

# %% [markdown]
# The run now takes 14 units instead of 32. No action was added, removed or made faster: overlap alone saves the time.
# This order is called **GPipe** (Huang et al., 2019, arXiv 1811.06965).
#
# ## Read it from left to right
#
# Follow the bottom picture.
#
# - At t = 0 only device 0 has work. At t = 1 micro-batch 0 has reached device 1, and device 0 already works on
#   micro-batch 1. At t = 3 all four devices work, each on a different micro-batch. This phase is the **fill**.
# - At t = 4 device 0 has no forward left. The other devices run out of forwards one by one. This phase is the
#   **drain**. The last device finishes F3 at t = 7 and starts its backwards.
# - Then the same happens in the other direction. The backwards fill the pipeline from device 3 up to device 0, and
#   device 0 finishes last.
#
# The next cell asks the timeline why each device waits. Then make a guess before you go on. We will cut the same 64
# sequences into m = 8 micro-batches of 8, on the same four devices.

# %%
for gap in gpipe.timeline.gaps():
    print(f"t = {gap.start:>2g} to {gap.end:>2g}: {gap.sentence}")
predict("02-eight", "GPipe with p = 4 and m = 8: what percentage of total device time is idle?", unit="%")

# %%
eight = run(build_schedule("gpipe", devices=4, microbatches=8))
display(reveal("02-eight", prediction=100 * 3 / 11, measurement=100 * eight.timeline.bubble_fraction))
explore("gpipe", devices=4, microbatches=8, free=["m", "p"], fixed="batch")

# %% [markdown]
# Here you can change m and p, and choose whether the batch or the micro-batch is fixed. It starts with the batch of
# this lesson, fixed at 64 sequences. Its unit of time is 16 sequences through one device's layers, whatever m is. (α is
# a fixed cost of each action, here 0. Lesson 5 measures it.) *Run it* runs your settings on the 48-layer model, and
# puts the measured timeline below the predicted one.
#
# **Try it:** make m larger at p = 4. Is it the work of a device that changes, or its idle time? Then switch to a fixed
# micro-batch, and change m again. Last, set m = 8 and make p larger: which idle times become longer?
#
# <details><summary>What you should see, and why</summary>
#
# At a fixed batch the work of a device stays at 8 units. The idle time shrinks, because the others wait for smaller
# pieces: 6 units at m = 4, 3 at m = 8, 1.5 at m = 16. At a fixed micro-batch it is the other way round. The idle time
# stays at 6 units, and each further micro-batch adds 2 units of work. The bubble fraction is the same in both cases,
# for instance 3/11 at m = 8. More devices make the idle time of each device longer, because a micro-batch passes more
# devices on its way down and back. Each device then holds fewer layers, so the same unit stands for less real time.
#
# </details>
#
# ## Two measures of one bubble
#
# Every device idles for the same total time, in three parts. This is device r, counted from 0:
#
# | when | why | how long |
# | --- | --- | --- |
# | before its first forward | micro-batch 0 still passes the r devices before it | $r\,t_F$ |
# | between forwards and backwards | the last micro-batch goes down, a gradient comes up | $(p - 1 - r)(t_F + t_B)$ |
# | after its last backward | the last gradient still passes the r devices before it | $r\,t_B$ |
#
# The sum is $(p - 1)(t_F + t_B)$. The r cancels, and m does not appear at all. A device works for $m\,(t_F + t_B)$.
# These two times give two measures:
#
# $$\textbf{bubble fraction} = \frac{\text{idle}}{\text{idle} + \text{work}} = \frac{p - 1}{m + p - 1}
# \qquad\qquad \textbf{bubble ratio} = \frac{\text{idle}}{\text{work}} = \frac{p - 1}{m}$$
#
# The fraction says how much of total device time is lost. One minus the fraction is the utilisation. The ratio says how
# much longer the step takes than its ideal time, $m\,(t_F + t_B)$. Both measures are in use, and texts do not always
# name them. GPipe's paper gives the fraction (section 2.3). Narayanan et al. (2021, arXiv 2104.04473, section 2.2) give
# the ratio. In the fraction and in the ratio, $t_F$ and $t_B$ cancel. The makespan is $(m + p - 1)(t_F + t_B)$. All
# this assumes equal micro-batches, equal stages, and messages that take no time.
#
# Do the formulas hold when a backward takes twice as long as a forward, as it roughly does? And do they hold with
# *measured* costs? The last lines of the table below come from the device clock of lesson 1. It measures what every
# action costs where it runs, and puts the costs together as if each device stood alone.


# %%
def averages(timeline):
    """Each stage's average forward, backward and, where there is one, recomputation: Costs for the simulator."""
    names = {"F": "forward", "B": "backward", "R": "recompute"}
    times = {}
    for span in timeline.spans:
        times.setdefault(names[span.slot.op], [[] for _ in range(4)])[span.device].append(span.duration)
    return Costs(**{name: [sum(row) / len(row) for row in rows] for name, rows in times.items()})


def line(words, m, t):
    print(f"{words:<26}{m:>3}{3 / (m + 3):>13.3f}{t.bubble_fraction:>8.3f}{3 / m:>13.3f}{t.bubble_ratio:>8.3f}")


print(f"{'costs':<28}m     fraction: formula, run   ratio: formula, run")
tables = {m: build_schedule("gpipe", devices=4, microbatches=m) for m in (1, 2, 4, 8, 16)}
for backward in (1, 2):
    for m in (4, 8):
        given = Costs(forward=1, backward=backward)
        line(f"unit: tF = 1, tB = {backward}", m, run(tables[m], costs=given).timeline)
measured = {m: run(tables[m], "device", steps=4).timeline for m in (4, 8)}
for m, timeline in measured.items():
    line("device: as measured", m, timeline)
    line("device: each stage's mean", m, simulate(tables[m], averages(timeline)))
apart = max(abs(t.bubble_ratio / (3 / m) - 1) for m, t in measured.items())
print(f"largest difference between a measured ratio and its formula: {apart:.0%}")

# %% [markdown]
# With given costs the formulas hold to the last digit. With measured costs the bubble is usually larger, by up to the
# percentage in the last line. One reason is that the stages do not cost the same. Device 0 also has the embedding,
# device 3 has the head, and a busy machine disturbs one stage more than another. In the lines with *each stage's mean*
# a simulation gives every action the mean cost of its stage. So they show the effect of this reason alone. The rest, in
# either direction, is scatter: no action costs the same twice, and a late one can make other devices wait.
#
# Be careful with units when you compare different m. For the unit clock one micro-batch is a unit, whatever its size.
# For the explorer 16 sequences are a unit. At m = 8 the makespan is (8 + 3) · 2 = 22 units of the clock, of 8 sequences
# each. That is 11 units of the explorer, and GPipe took 14 of these at m = 4. The work alone takes 8 of them, and no m
# gets below that. In both formulas a larger m always shrinks the bubble. Lesson 5 shows why very small micro-batches do
# not pay off on a real device.
#
# **Try it:** take p = 3 devices with 16 layers each. How many micro-batches do they need for the bubble that p = 2
# devices have at m = 8? Derive it, then set both in the explorer above, and run them.
#
# <details><summary>What you should see, and why</summary>
#
# Set the fractions equal: 1/9 = 2/(m + 2), so m = 16. The ratio shows it faster: (p - 1)/m has to stay 1/8, so twice as
# many waits need twice as many micro-batches. The explorer predicts 11.1 % for both. *Run it* shows measured bubbles
# that differ from 11.1 % and from each other, for the reasons above. At m = 16 the micro-batches are also smaller.
#
# </details>
#
# ## A claim on trial
#
# *"With p = 4 and m = 16, GPipe's bubble is 18.8 %."*

# %%
sixteen = run(tables[16]).timeline
print(f"idle over total device time {sixteen.bubble_fraction:.1%}, idle over work {sixteen.bubble_ratio:.2%}")

# %% [markdown]
# The number is right, but the word is missing. It is the *ratio*: the step takes 18.8 % longer than its work. The lost
# share of total device time is smaller. If someone compares two systems by "the bubble", ask whether the fraction or
# the ratio is meant.
#
# ## Is it still the same gradient?
#
# The weights must not change between the micro-batches of a step, otherwise the micro-batches would use different
# weights. So a device **accumulates** gradients: it adds up those of all m micro-batches. It updates its weights once,
# after the last backward. The end of a step, when all backwards are done and the weights change, is called the
# **flush**. PyTorch adds by itself: `backward()` adds to what is in `.grad`.
#
# But what should be added? The loss of a batch of n sequences is a mean. Micro-batch i has $n_i$ sequences. Its own
# mean loss is $\ell_i$, with gradient $g_i$. The mean loss of the batch is $\frac{1}{n} \sum n_i \ell_i$. Its gradient
# is
#
# $$g = \sum_i \frac{n_i}{n}\, g_i$$
#
# If all micro-batches have the same size, each weight is 1/m, and g is the mean of the $g_i$. If you cut 64 sequences
# into 12, you get four micro-batches of 6 and eight of 5. The next cell computes the true $g_i$ of a 48-layer model. It
# combines them in five ways, and compares each result with the gradient of the whole batch. (The layers are narrower
# than usual, because this model runs many times.)

# %%
import torch

exact = TransformerLM(layers=48, width=16).double()  # in float64, rounding errors are far below all others


def cut(m, targets=targets):
    return list(zip(inputs.tensor_split(m), targets.tensor_split(m), strict=True))


def gradients(model, inputs, targets):
    return unsplit_gradients(model, next_byte_loss, inputs, targets).gradients


def error(pieces, weights, whole, kind=torch.float64):
    """The largest error of the weighted sum, as a fraction of the largest gradient."""
    weighted = [{name: (w * g[name]).to(kind) for name in whole} for w, g in zip(weights, pieces, strict=True)]
    return gradient_error({name: sum(g[name] for g in weighted).double() for name in whole}, whole)


whole = gradients(exact, inputs, targets)
pieces = {m: [gradients(exact, *pair) for pair in cut(m)] for m in (4, 12)}
shares = {m: [len(x) / 64 for x, _ in cut(m)] for m in pieces}
print(f"{'error with':<36}", *(f"{f'm = {m}':>10}" for m in pieces))
ways = {
    "weights 1: the sum": lambda m: [1] * m,
    "weights 1/m: the mean of means": lambda m: [1 / m] * m,
    "weight 1 for the last one only": lambda m: [0] * (m - 1) + [1],
    "weights n_i / n": lambda m: shares[m],
}
for way, weights in ways.items():
    print(f"{way:<36}", *(f"{error(pieces[m], weights(m), whole):>10.1e}" for m in pieces))
rounded = (f"{error(pieces[m], shares[m], whole, torch.bfloat16):>10.1e}" for m in pieces)
print(f"{'weights n_i / n, added in bfloat16':<36}", *rounded)

# %% [markdown]
# One of the five is right. The others are classic mistakes:
#
# - **The sum.** `loss.backward()` on each micro-batch's mean loss adds m gradients of full size. The result is m times
#   too large, an error of m - 1. With plain SGD this acts like a learning rate that is m times too high. Adam divides
#   by the size of the gradient, so it hides the mistake. Gradient clipping does not: its threshold now cuts too early.
# - **The mean of means** is exact while all micro-batches have the same size. It is slightly wrong as soon as they do
#   not, and no loss curve will show it.
# - **The last one only** is what you get if `zero_grad()` stands inside the loop over micro-batches instead of before
#   it.
# - **Added in bfloat16**, the weights are right, but the sum keeps only two or three decimal digits. (How much is lost
#   depends on the numbers, so m = 12 may do better than m = 4.) So in mixed precision the sum is usually kept in 32
#   bits. The 16 bytes a parameter of lesson 1 then become 18.
#
# ## Count the terms
#
# The weights $n_i / n$ rest on an assumption: every sequence has the same number of loss terms. In practice many
# targets do not count. For example, padding does not count, or only the answer counts and not the prompt. PyTorch's
# cross-entropy takes its mean over the targets that count, and ignores those equal to -100. So $n_i$ has to be the
# number of *terms* in micro-batch i, and n the number of terms in the batch.
#
# In the next test every sequence begins with a prompt of random length, whose targets are ignored. We cut the batch
# into m = 4, 16 and 64 micro-batches; at m = 64 each holds one sequence. How large is the error if each micro-batch is
# weighted by its sequences?

# %%
question = "m = 64: the error of weights by sequences, as a percentage of the largest gradient?"
predict("02-terms", question, unit="%")

# %%
small = TransformerLM(layers=4, width=16).double()  # 4 layers are enough, one on each device
prompts = torch.randint(32, (64, 1), generator=torch.Generator().manual_seed(0))
asked = targets.masked_fill(torch.arange(32) < prompts, -100)


def terms(targets):
    return (targets != -100).sum().item()


whole, by_sequences = gradients(small, inputs, asked), {}
print(f"{terms(asked)} of {asked.numel()} targets count")
for m in (4, 16, 64):
    pieces, counts = [gradients(small, *pair) for pair in cut(m, asked)], [terms(t) for _, t in cut(m, asked)]
    by_sequences[m] = error(pieces, [1 / m] * m, whole)
    by_terms = error(pieces, [count / terms(asked) for count in counts], whole)
    print(f"m = {m:>2}, {min(counts)} to {max(counts)} terms each: error of weights", end=" ")
    print(f"by sequences {by_sequences[m]:.1e}, by terms {by_terms:.1e}")
twelve = Pipeline(small, build_schedule("gpipe", devices=4, microbatches=12), loss=next_byte_loss, loss_terms=terms)
sizes = twelve.schedule.microbatch_sizes(64)
print(f"the pipeline with m = {len(sizes)}, sequences in each micro-batch: {sizes}")
errors = [twelve.verify(inputs, t) for t in (targets, asked)]
print(f"its largest gradient error: {errors[0]:.1e} where all targets count, {errors[1]:.1e} with prompts")
reveal("02-terms", measurement=100 * by_sequences[64])

# %% [markdown]
# The error grows with m, because the counts of small micro-batches differ more. This is a well-known bug of real
# training code. Hugging Face's trainer averaged the means of micro-batches until a fix in 2024 ([transformers
# #34191](https://github.com/huggingface/transformers/pull/34191)). The runtime here counts terms, if you give it the
# function `loss_terms`. Before the backward it multiplies each loss by the terms of the micro-batch over the terms of
# the batch. Plain addition is then right, as the last line shows.
#
# So m does not change the gradient, on two conditions. First, each layer treats every sequence by itself. Batch
# normalisation does not. Second, a dropout mask depends on its sequence and not on m. PyTorch's own dropout draws masks
# in the order in which they are needed. A cell under *Further* shows what happens otherwise.
#
# ## What does a device hold?
#
# A forward leaves **activations** that its backward needs (lesson 1). The serial run holds those of one micro-batch at
# a time. And GPipe? We run it at m = 1, 2, 4, 8 and 16, and read the peak from the tensors that autograd really keeps.
# We do this twice:
#
# - **batch fixed**: 64 sequences, cut into more and more pieces;
# - **micro-batch fixed**: pieces of 4 sequences, more and more of them, so that the batch grows with m.

# %%
question = "Batch fixed at 64 sequences: the peak of device 0 with m = 16, as a percentage of its peak with m = 1?"
predict("02-memory", question, unit="%")

# %%
ms = tuple(tables)
held = {
    "GPipe, batch fixed at 64 sequences": [run(tables[m]).peak_activation_bytes[0] / 1e6 for m in ms],
    "GPipe, micro-batch fixed at 4 sequences": [run(tables[m], batch=4 * m).peak_activation_bytes[0] / 1e6 for m in ms],
}
axes = {"across": "micro-batches m", "up": "peak of device 0, MB of activations"}
note = "Measured on device 0 in real runs: what autograd keeps, and inputs and messages waiting. No clock is involved."
display(plot_curves(ms, held, **axes, title="What GPipe holds: say what is fixed", note=note))
flat = held["GPipe, batch fixed at 64 sequences"]
display(reveal("02-memory", prediction=100, measurement=100 * flat[-1] / flat[0]))
for name, report in {"naive": naive, "serial": one_by_one, "GPipe": gpipe}.items():
    peaks = ", ".join(f"{peak / 1e6:.1f}" for peak in report.peak_activation_bytes)
    print(f"{name:>7}: {report.timeline.makespan:g} units; peaks of the devices {peaks} MB (batch of {report.batch})")

# %% [markdown]
# GPipe starts no backward before its last forward. At that moment a device holds the activations of all m
# micro-batches. So two sentences are true, although they seem to contradict each other:
#
# - *At a fixed batch* every GPipe device holds the activations of the whole batch, however finely the batch is cut: m
#   pieces of size 1/m. A finer cut saves nothing.
# - *At a fixed micro-batch* the activations that GPipe holds **grow** with m.
#
# So a statement about a pipeline's memory has to say what is fixed, or it says nothing. The last three lines compare
# the runs from the top of this page. They show the price of overlap: GPipe holds as much as the naive run, and four
# times as much as the serial run.
#
# ## Recomputation: time for memory
#
# GPipe's paper has an answer to that. A stage's activations follow from its input. So a device keeps only the input of
# each micro-batch and throws the rest away. It runs the forward once more before the backward. This is
# **recomputation** (also *activation checkpointing* or *rematerialisation*). In a table it is an action of its own, R.
#
# A device then holds the inputs of m micro-batches, which are small, and the activations of only *one*. At a fixed
# batch this peak falls with m. In return each device works for $m\,(t_F + t_R + t_B)$, where $t_R$ is about $t_F$.

# %%
predict("02-recompute", "p = m = 4, device clock: by what percentage does R lengthen the makespan?", unit="%")

# %% [markdown]
# The next cell runs both tables in turns, so that a busy machine disturbs both alike. Its prediction takes each stage's
# average $t_F$ and $t_B$ from the run without R, and sets $t_R = t_F$.

# %%
with_r = build_schedule("gpipe", devices=4, microbatches=4, recompute=True)
pair = [Pipeline(model, table, loss=next_byte_loss) for table in (tables[4], with_r)]
for _ in range(7):
    plain, recomputed = [pipeline.step(inputs, targets) for pipeline in pair]
fixed = "Batch fixed at 64 sequences, m = 4 micro-batches of 16"
titles = ["GPipe", "GPipe with recomputation"]
display(plot_schedules([plain.timeline, recomputed.timeline], titles, title=fixed, memory=True))
print(f"peak of device 0: {recomputed.peak_activation_bytes[0] / plain.peak_activation_bytes[0]:.0%} of before")

before, after = averages(plain.timeline), averages(recomputed.timeline)
tF, tB = sum(before.forward), sum(before.backward)
print(f"without R: tB = {tB / tF:.2f} tF")
print(f"with R: F takes {sum(after.forward) / tF:.2f} and R {sum(after.recompute) / tF:.2f} of tF", end=", ")
print(f"B takes {sum(after.backward) / tB:.2f} of tB")


def price(timeline, reference):
    return 100 * (timeline.makespan / reference.makespan - 1)


expected, corrected = (price(simulate(with_r, costs), simulate(tables[4], before)) for costs in (before, after))
print(f"price predicted from tF and tB without R: {expected:.1f} %; from the averages with R: {corrected:.1f} %")
ideal = {}
for m in (4, 16, 64):
    both = [build_schedule("gpipe", devices=4, microbatches=m, recompute=again) for again in (True, False)]
    ideal[m] = price(*(simulate(table, given) for table in both))
print(f"at tB = {given.backward} tF, tR = tF:", ", ".join(f"m = {m}: {found:.1f} %" for m, found in ideal.items()))
print(f"the table without R, measured earlier on this page: {price(measured[4], plain.timeline):+.1f} %")
reveal("02-recompute", prediction=expected, measurement=price(recomputed.timeline, plain.timeline))

# %% [markdown]
# The peak falls to little more than the share of one micro-batch, a quarter. In return every device runs m more
# actions, and the step becomes longer by the time of these m actions:
#
# $$\text{makespan} = m\,(t_F + t_R + t_B) + (p - 1)(t_F + t_B)$$
#
# The idle time stays $(p - 1)(t_F + t_B)$. If an R had to wait for the gradient, as its B has to, the idle time would
# be $(p - 1)(t_F + t_R + t_B)$. But an R needs only the input that its device has kept. In the picture devices 0 to 2
# run R0 early, while they wait.
#
# This price compares makespans, and a makespan contains the bubble. R lengthens the work and not the bubble, so the
# price is a smaller percentage of the makespan than of the work. At $t_B = 2 t_F$ and $t_R = t_F$ it is 19 % for m = 4.
# For large m it grows towards 33 %, which is what R adds to the work.
#
# The measured price may lie on either side of the prediction. The averages in the output say why. An F that keeps
# nothing for a backward builds no graph, so it costs less than before. During R the runtime checks that each layer
# draws the same random numbers as in F, and the check costs time too. The work of B is the same in both runs, but its
# time may differ: it now finds other data in the cache. The second price in the output is predicted from these
# averages. The rest of the difference is scatter.
#
# The last line printed shows why both tables run in turns. It compares two runs of the same table without R: the one
# here and the one in *Two measures of one bubble*. On a busy machine this difference can be larger than the price
# itself. The device clock counts no waiting, but a busy machine also makes the work itself slower: caches and memory
# are shared.
#
# The peaks again, with recomputation as the third curve:

# %%
remade = {m: build_schedule("gpipe", devices=4, microbatches=m, recompute=True) for m in ms}
peaks = [run(remade[m]).peak_activation_bytes[0] / 1e6 for m in ms]
held["GPipe with recomputation, batch fixed at 64 sequences"] = peaks
plot_curves(ms, held, **axes, title="What GPipe holds, with and without recomputation", note=note)

# %% [markdown]
# At m = 1 recomputation saves nothing: the one micro-batch that is recomputed is the whole batch. With more pieces it
# saves more, while the added work stays the same: one forward of the whole batch. The paper writes the peak of a device
# as O(N + L/K · N/M). It has L layers on K devices, N sequences, and M micro-batches. So these are the inputs of all N
# sequences, and the activations of L/K layers for one micro-batch of N/M.
#
# ## Break it
#
# Here is GPipe's table with one change: device 1 runs `1B0` a little early, before `1F3`. It looks harmless. In lesson
# 0's table device 1 has the very same row. Before you run the cell: what would device 1 wait for, and what would that
# wait for?

# %%
early = """
0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3
1F0,1F1,1F2,1B0,1F3,1B1,1B2,1B3
2F0,2F1,2F2,2F3,2B0,2B1,2B2,2B3
3F0,3F1,3F2,3F3,3B0,3B1,3B2,3B3
"""
try_schedule(early)

# %% [markdown]
# Devices 1 and 2 wait for each other. Device 1 wants `2B0` before it runs `1F3`, and device 2 wants `1F3`'s result
# before it runs `2B0`. In lesson 0 device 2 runs `2B0` earlier. So a row is not wrong by itself: the rows have to fit
# together. The checker predicts that neither ever goes on, and the runtime refuses such a table. The devices in the
# next cell ask no checker: each row of the table gets a thread. The thread takes the actions of its row in turn, and
# waits for what each one needs from its neighbour. If nothing comes for a second, it gives up and says so.


# %%
import threading


def careless(table):
    rows = [line.split(",") for line in table.split()]
    done = {action: threading.Event() for row in rows for action in row}

    def device(row):
        for action in row:
            stage, op, i = int(action[0]), action[1], action[2:]
            neighbour = stage - 1 if op == "F" else stage + 1
            needed = f"{neighbour}{op}{i}"
            if 0 <= neighbour < len(rows) and not done.get(needed, never).wait(timeout=1):
                stuck[stage] = f"device {stage} hangs before {action}: {needed} never came"
                return
            done[action].set()

    stuck, never, threads = {}, threading.Event(), [threading.Thread(target=device, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(stuck[r] for r in sorted(stuck)) or "all done")


careless(early)

# %% [markdown]
# Devices 1 and 2 hang as predicted, and the other two wait for them. On real devices nobody would say so: the job
# stands still until someone notices.
#
# **Try it:** make other changes, in both cells:
#
# - On device 2 let `2F1` and `2F0` change places. Can it run? How long does it take?
# - Let *every* device run its backwards in the order B3, B2, B1, B0. Then do the same on device 1 alone.
# - Leave out `0B2`. No other device waits for it, so `careless` ends well. What would be wrong with the gradient? See
#   what the checker says.
#
# <details><summary>What you should see, and why</summary>
#
# - It can run, and takes 16 units instead of 14. Device 2 waits one unit for F1, although F0 is there. Device 3 then
#   gets F0 two units late, and every backward waits for device 3.
# - On every device it costs nothing: 14 units. All devices still agree on one order. On device 1 alone it takes 20.
#   Device 1 wants B3 first, but device 2 sends B3 last, so no backward of device 1 overlaps one of device 2.
# - The checker says that `0B2` is missing on device 0. The gradient of stage 0 would lack micro-batch 2. Nothing would
#   hang, so nothing would show it.
#
# </details>
#
# You can also break the table by hand. The last cell of this page, under *Further*, lets you choose an action and drop
# it, swap it, or start it early.
#
# ## What to remember
#
# - Cutting a batch into micro-batches saves memory and no time. Overlapping them saves time, and needs as much memory
#   as the uncut batch.
# - GPipe runs all forwards, then all backwards. Each device idles for $(p - 1)(t_F + t_B)$, whatever m.
# - The bubble fraction is $(p - 1)/(m + p - 1)$, the bubble ratio $(p - 1)/m$. Name the one that you mean.
# - Add gradients with weights by loss terms. Change the weights of the model once, at the flush.
# - At a fixed batch GPipe holds the whole batch, unless it recomputes.
#
# **Where this leads.** Lesson 3 changes the order once more, to hold less memory without recomputation. What will that
# do to the bubble?

# %%
ledger()

# %% [markdown] role="further"
# ## Further: is a bubble "negligible" at m = 4p?
#
# GPipe's paper reports that the bubble was negligible in its experiments from M ≥ 4 K, that is m ≥ 4p in our letters.
# At m = 4p the formula gives $(p - 1)/(5p - 1)$: 15.8 % at p = 4, and close to 20 % for many devices. That is not
# nothing. One reason that the paper gives is the early R. So we compare with and without it, at $t_B = 2 t_F$ and
# $t_R = t_F$.

# %% role="further"
for recompute in (False, True):
    table = build_schedule("gpipe", devices=4, microbatches=16, recompute=recompute)
    t = simulate(table, Costs(forward=1, backward=2))
    print(f"recompute={recompute!s:<6} bubble fraction {t.bubble_fraction:.1%}, makespan {t.makespan:g} (predicted)")

# %% [markdown] role="further"
# The bubble fraction becomes smaller, and the step becomes longer. The idle time is the same, but it is divided by more
# work. A smaller bubble fraction alone does not make a faster step.
#
# ## Further: recompute less
#
# R need not repeat the whole forward. Korthikanti et al. (2022, arXiv 2205.05198) count the bytes that a transformer
# layer keeps in mixed precision as $sbh\,(34 + 5as/h)$: s tokens, b sequences, width h, a attention heads. The second
# term is the attention matrices. **Selective recomputation** drops only these. It repeats only the core of attention,
# which is a small part of the work. Today's fused attention kernels (Dao et al. 2022, arXiv 2205.14135) never keep
# these matrices in the first place. Then the second term is gone, and selective recomputation of attention has little
# left to save.
#
# Our model uses a fused kernel. The next cell runs it once more with attention written out, and compares the peaks.

# %% role="further"
from torch.nn.attention import SDPBackend, sdpa_kernel

heads, tokens, width = 96, 2048, 12288
second = 5 * heads * tokens / width
print(f"GPT-3's layers, {heads} heads, {tokens} tokens, width {width}: the second term is {second:g}")
fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
for words, kernels in {"fused": fused, "written out": SDPBackend.MATH}.items():
    with sdpa_kernel(kernels):
        report = run(tables[4])
    print(f"attention {words:<12} peak of device 0: {report.peak_activation_bytes[0] / 1e6:.1f} MB")

# %% [markdown] role="further"
# Here the sequences are short, so the attention matrices are a small part. At GPT-3's size the second term is more than
# twice the first.
#
# ## Further: dropout and m
#
# PyTorch's `nn.Dropout` draws its masks one after the other from a generator. With another m it draws them in another
# order, so the sequences get other masks. The next cell computes the gradient of one batch with m = 1 and with m = 4,
# from the same seed. Then a pipeline with m = 4 does the same with this course's dropout, whose masks are keyed by
# layer and sequence.

# %% role="further"
import copy

keyed = TransformerLM(layers=4, width=16, dropout=0.1).double()
ordinary = copy.deepcopy(keyed)
for block in ordinary.layers:
    block.drop1, block.drop2 = torch.nn.Dropout(0.1), torch.nn.Dropout(0.1)
drawn = {}
for m in (1, 4):
    torch.manual_seed(0)
    drawn[m] = [gradients(ordinary, *pair) for pair in cut(m)]
print(f"nn.Dropout, m = {m} against the whole batch: error {error(drawn[m], shares[m], drawn[1][0]):.1e}")
four = Pipeline(keyed, tables[m], loss=next_byte_loss)
print(f"masks keyed by layer and sequence, m = {m}: error {four.verify(inputs, targets):.1e}")

# %% [markdown] role="further"
# Both gradients of `nn.Dropout` are valid samples, and training works with either. But with it you can no longer prove
# by comparison that a pipeline computes the right gradient.
#
# ## Further: break it by hand
#
# Choose an action of GPipe's table. You can drop it, swap it with the next one, or start it before its input is there.
# First you read what the checker says. Then you see what would happen: how far it runs, who waits forever for what, and
# whose gradient lacks which micro-batch.
#
# **Try it:** not every change is a fault. Find a swap that costs nothing, and run it.
#
# <details><summary>What you should see, and why</summary>
#
# Swap `3F3` with `3B0`. Device 3 needs no gradient from another device, so B0 may run as soon as F0 is done. Device 3
# is busy all the time from t = 3 to t = 11 in either order. Any other swap of neighbours makes a device wait, or hangs.
# Lesson 3 builds on this one.
#
# </details>

# %% role="further"
break_schedule("gpipe", devices=4, microbatches=4)

# %% [markdown] page="exercises"
# Four exercises: the serial run, GPipe, its bubble, and exact accumulation.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="serial" difficulty="easy" minutes=10
# Send micro-batches through one after the other, without overlap: micro-batch 0 through all devices and back, then
# micro-batch 1, and so on.
#
# - `serial_rows` returns the table: a list with one row for each device, in the order of the devices. A row lists the
#   actions of that device in the order in which it runs them. An action is a text: `"0F0"` is stage 0, forward,
#   micro-batch 0. Device r holds stage r.
# - `serial_makespan` returns the time from the first start to the last end. `forward` and `backward` are the times of
#   *one micro-batch on one device*. Messages are not free here: each message from a device to its neighbour takes
#   `latency`, which may be 0.


# %% role="answer" exercise="serial"
def serial_rows(devices: int, microbatches: int) -> list[list[str]]:
    """The actions of each device, in order, where no two micro-batches are in the pipeline at the same time.

    >>> serial_rows(2, 1)
    [['0F0', '0B0'], ['1F0', '1B0']]
    """
    ### BEGIN SOLUTION
    return [[f"{r}{op}{i}" for i in range(microbatches) for op in "FB"] for r in range(devices)]
    ### END SOLUTION


def serial_makespan(devices: int, microbatches: int, forward: float, backward: float, latency: float) -> float:
    """The time of the whole serial step.

    >>> serial_makespan(4, 4, forward=1, backward=1, latency=0)
    32
    """
    ### BEGIN SOLUTION
    messages = 2 * (devices - 1)
    return microbatches * (devices * (forward + backward) + messages * latency)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="serial"
# How long is one micro-batch on its way? When may the next one start?

# %% [markdown] role="hint" exercise="serial"
# Each device finishes a micro-batch, forward and then backward, before it touches the next. The rows differ only in the
# stage. For the time, follow one micro-batch and count what happens to it: forwards, backwards and messages.

# %% [markdown] role="hint" exercise="serial"
# Write the rows for p = 2 and m = 2 by hand. Which number changes slowest within a row? That is the outer loop. For the
# time, draw two devices and the messages between them. How many does one micro-batch need? How many with three devices?

# %% [markdown] role="solution" exercise="serial"
# An order without times is enough to keep the micro-batches apart. Device 0 does not start micro-batch 1 before its
# last action of micro-batch 0, and no device has anything to do with micro-batch 0 after that. A micro-batch crosses
# each of the p - 1 borders twice, down and up. Without messages, cutting gives exactly the time of the uncut batch.
# With them it takes longer, because every micro-batch sends its own.

# %% [markdown] role="lead" exercise="gpipe" difficulty="medium" minutes=10
# Write GPipe for any number of devices p and any number of micro-batches m. Return one row of actions for each device,
# as text. Each device runs all its forwards, micro-batch 0 first, and then all its backwards. The backwards may run in
# the order 0, 1, ... or in the reverse order. Both are GPipe, and both are graded as right, as long as all devices do
# the same.
#
# The last part of the check trains a narrow 48-layer model with your schedule, and compares its gradients. When all
# parts pass, watch your schedule in a new cell: `try_schedule(gpipe, devices=4, microbatches=8)`, after
# `from pipelab import try_schedule`.


# %% role="answer" exercise="gpipe"
def gpipe(devices: int, microbatches: int) -> list[list[str]]:
    """GPipe's schedule: the actions of each device, in order.

    >>> gpipe(2, 1)
    [['0F0', '0B0'], ['1F0', '1B0']]
    """
    ### BEGIN SOLUTION
    return [[f"{r}{op}{i}" for op in "FB" for i in range(microbatches)] for r in range(devices)]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="gpipe"
# All devices run the same order of letters and micro-batches. Which of the three parts of `2F0` differs from row to
# row?

# %% [markdown] role="hint" exercise="gpipe"
# A row is two lists joined: m forwards, then m backwards. Nothing depends on the place of the device in the pipeline.
# Waiting is not an action: the runtime waits where an input is not there yet.

# %% [markdown] role="hint" exercise="gpipe"
# Write row 2 for m = 3 by hand. It has six actions. Read them from left to right: which part changes with every action,
# and which changes only once? One of your loops has to stand inside the other.

# %% [markdown] role="solution" exercise="gpipe"
# Compare this with the serial rows: the loops over letters and over micro-batches have changed places. That is the
# whole difference between 32 units and 14.

# %% [markdown] role="lead" exercise="bubbles" difficulty="medium" minutes=15
# GPipe runs on p devices with m micro-batches. A forward of one micro-batch takes `forward` on each device, a backward
# takes `backward`, and messages take no time. In addition, each device recomputes every micro-batch before its
# backward. This takes `recompute`, which may be 0. As in the lesson, an R does not wait for a gradient. Write
#
# - `bubble_fraction`: idle device time over *total* device time,
# - `bubble_ratio`: idle device time over *busy* device time,
# - `least_microbatches`: the smallest m (at least 1) at which devices are busy for at least `percent` per cent of total
#   device time. Here nothing is recomputed. `percent` is a whole number from 1 to 99.


# %% role="answer" exercise="bubbles"
def bubble_fraction(devices: int, microbatches: int, forward: float, backward: float, recompute: float) -> float:
    """Idle over total device time, between 0 and 1.

    >>> bubble_fraction(2, 1, forward=1, backward=1, recompute=0)
    0.5
    """
    ### BEGIN SOLUTION
    idle = (devices - 1) * (forward + backward)
    return idle / (idle + microbatches * (forward + recompute + backward))
    ### END SOLUTION


def bubble_ratio(devices: int, microbatches: int, forward: float, backward: float, recompute: float) -> float:
    """Idle over busy device time.

    >>> bubble_ratio(2, 1, forward=1, backward=1, recompute=0)
    1.0
    """
    ### BEGIN SOLUTION
    return (devices - 1) * (forward + backward) / (microbatches * (forward + recompute + backward))
    ### END SOLUTION


def least_microbatches(devices: int, percent: int) -> int:
    """The smallest m that keeps the devices busy for at least ``percent`` per cent of the time.

    >>> least_microbatches(2, 50)
    1
    """
    ### BEGIN SOLUTION
    return max(1, -(-percent * (devices - 1) // (100 - percent)))
    ### END SOLUTION


# %% [markdown] role="hint" exercise="bubbles"
# Take one device. How long does it work in a step? How long is it idle, before, between and after? Neither answer
# depends on which device you took.

# %% [markdown] role="hint" exercise="bubbles"
# A device works for m times a forward, a recomputation and a backward. It idles for p - 1 times a forward and a
# backward: the lesson says why R is not in this sum. Form both quotients. For the last function write the wish as an
# inequality: busy time over total time is at least the wanted share.

# %% [markdown] role="hint" exercise="bubbles"
# In the inequality, multiply by both denominators and collect m on one side. You get a quotient of whole numbers,
# rounded up. Do not use floating point there: the quotient may come out a hair above a whole number, and rounding up
# then gives one too many. Python's `//` rounds down. What does it do with a negative number? Then try p = 1.

# %% [markdown] role="solution" exercise="bubbles"
# Without recomputation `forward` and `backward` cancel, whatever they are. With it they do not: R adds work and no idle
# time, so the bubble becomes a smaller part of a longer step. For 90 % the last function gives 9(p - 1): 27
# micro-batches for 4 devices, 135 for 16.

# %% [markdown] role="lead" exercise="accumulate" difficulty="medium" minutes=15
# A batch is too large to go through the model at once: only one micro-batch's activations fit. Cut the batch into m
# micro-batches, and run each forward and backward before the next. Leave the gradient of the *whole batch's mean loss*
# in the parameters' `.grad`, as one backward of the whole batch would. m need not divide the batch. Cut as
# `torch.tensor_split` does: 64 into 12 gives four micro-batches of 6 and eight of 5.
#
# `loss(output, targets)` is the mean over the sequences it is given, and all targets count. A gradient of the previous
# step may still be in `.grad`: it does not belong to this step. Return nothing. No optimizer is involved.

# %% role="answer" exercise="accumulate"
from collections.abc import Callable

import torch


def accumulate(
    model: torch.nn.Module, loss: Callable, inputs: torch.Tensor, targets: torch.Tensor, microbatches: int
) -> None:
    """Leave the gradient of the mean loss of the whole batch in each parameter's ``.grad``.

    >>> layer = torch.nn.Linear(1, 1, bias=False)
    >>> accumulate(layer, lambda out, t: out.mean(), torch.tensor([[1.0], [2.0], [6.0]]), torch.zeros(3, 1), 2)
    >>> layer.weight.grad
    tensor([[3.]])
    """
    ### BEGIN SOLUTION
    model.zero_grad()
    for x, t in zip(inputs.tensor_split(microbatches), targets.tensor_split(microbatches), strict=True):
        share = len(x) / len(inputs)
        (share * loss(model(x), t)).backward()
    ### END SOLUTION


# %% [markdown] role="hint" exercise="accumulate"
# `backward()` adds to what is in `.grad`. What must be there before the first one? And what can you multiply, so that
# plain addition is right?

# %% [markdown] role="hint" exercise="accumulate"
# Clear the gradients once, before the loop. The gradient is linear in the loss: if you weigh a micro-batch's loss, you
# weigh its gradient.

# %% [markdown] role="hint" exercise="accumulate"
# Cut inputs and targets in the same way, and walk through both together. A micro-batch's weight is made of two lengths.
# Write the weights for 64 into 12 by hand, and check that they add up to 1. Weigh before the backward, not after it.

# %% [markdown] role="solution" exercise="accumulate"
# Each graph is freed by its own backward, so only one micro-batch's activations exist at a time. Accumulation is the
# lesson's serial run, on one device. The weights for m = 12 are 6/64 and 5/64. A weight of 1/12 for each would be right
# if all sizes were equal. Where some targets are ignored, count loss terms instead of sequences.
