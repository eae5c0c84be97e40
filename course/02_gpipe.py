# ---
# jupyter:
#   pipelab:
#     number: 2
#     title: "Micro-batches: GPipe"
#     minutes: 40
#     builds_on: [1]
#     goals:
#       - write GPipe's schedule, and say why cutting a batch buys nothing and overlap does
#       - predict its bubble, as a fraction and as a ratio, and tell which of the two a text means
#       - accumulate gradients over micro-batches so that they are those of the whole batch
#       - say what GPipe holds at a fixed batch and at a fixed micro-batch, and what recomputation saves and costs
# ---

# %% [markdown]
# ## Can four devices work at the same time?
#
# Lesson 1 ended with a **naive** pipeline: four devices, one of them at work at a time. The whole batch of 64 sequences
# goes down the devices as one piece and comes back up as one piece. While device 0 has it, nobody else has anything to
# do.
#
# So cut the batch. 64 sequences become m = 4 **micro-batches** of 16. One micro-batch through one device's 12 layers is
# one unit of time here, forward or backward. In these units the naive run, whose single piece is four times as large,
# takes 8 steps of 4 units: 32. Here it is, as the simulator predicts it.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
uncut = build_schedule("naive", devices=4, microbatches=4)
plot_timeline(simulate(uncut), memory=False, phases=False)

# %% [markdown]
# ## First attempt: one micro-batch after the other
#
# The plainest thing to do with four micro-batches is to send them through one after the other: micro-batch 0 down all
# devices and back up, then micro-batch 1, and so on. Each device then runs F0, B0, F1, B1, and so on. Written as a
# table, a row per device:

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
    """Really run a schedule on the first sequences of the batch; the report of the last step."""
    with Pipeline(model, schedule, loss=next_byte_loss, clock=clock, costs=costs) as pipeline:
        return [pipeline.step(inputs[:batch], targets[:batch]) for _ in range(steps)][-1]


naive, one_by_one = run(uncut), run(serial)
display(plot_schedules([naive.timeline, one_by_one.timeline], ["Naive: one piece of 64", "Serial: 4 pieces of 16"]))
reveal("02-serial", prediction=4 * 4 * (1 + 1), measurement=one_by_one.timeline.makespan)

# %% [markdown]
# Nothing is gained. Each micro-batch passes p = 4 devices forward and 4 backward, $p\,(t_F + t_B)$ = 8 units, and the
# next one starts when it is back:
#
# $$\text{makespan} = m \cdot p\,(t_F + t_B) = 4 \cdot 4 \cdot 2 = 32$$
#
# Here $t_F$ and $t_B$ are what a forward and a backward of one micro-batch cost on one device. The pieces are a quarter
# as large and there are four times as many. Still one device works at a time, and three quarters of all device-time are
# idle. **Cutting alone buys no time.** (It buys memory. We come back to that.)
#
# ## Second attempt: do not wait
#
# Look at device 0 in the lower picture. It has run F0, and now idles until the gradient of micro-batch 0 is back, at t
# = 7. Could it run something meanwhile? F1 needs the 16 sequences of micro-batch 1, and they are already there. Only
# the table says "B0 first". So change the table: the same actions on the same devices, in another order. All forwards
# first, then all backwards.

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
# 32 units become 14, and no action was added, removed or made faster. This order is **GPipe** (Huang et al., 2019,
# arXiv 1811.06965).
#
# ## Read it slot by slot
#
# Follow the bottom picture from left to right.
#
# - t = 0: only device 0 has work. t = 1: micro-batch 0 has reached device 1, and device 0 is already at micro-batch 1.
#   At t = 3 all four devices work, each on another micro-batch. This is the **fill**.
# - t = 4: device 0 has no forward left. Device by device the forwards run out: the **drain**. The last device finishes
#   F3 at t = 7 and starts on the backwards.
# - Then the same once more in the other direction. The backwards fill the pipeline from device 3, and run out last on
#   device 0.
#
# Ask the timeline for the reasons, device by device. Then, before you go on: cut the same 64 sequences into m = 8
# micro-batches of 8, on the same four devices.

# %%
for gap in gpipe.timeline.gaps():
    print(f"t = {gap.start:>2g} to {gap.end:>2g}: {gap.sentence}")
predict("02-eight", "GPipe with p = 4 and m = 8: how many per cent of all device-time are idle?", unit="%")

# %%
eight = run(build_schedule("gpipe", devices=4, microbatches=8))
display(reveal("02-eight", prediction=100 * 3 / 11, measurement=100 * eight.timeline.bubble_fraction))
explore("gpipe", devices=4, microbatches=8, free=["m", "p"])

# %% [markdown]
# The picture is now one to turn: m and p are free. Turn m up at p = 4 and watch the bubble fraction, then p at m = 8.
# Which of the idle times becomes longer with p, and which does not care about m? *Run it* runs whatever you have set on
# the 48-layer model, and lays what was measured below what was predicted.
#
# ## Two measures of one bubble
#
# Each device has the same idle time, in three parts. Device r, counted from 0:
#
# | when | why | how long |
# | --- | --- | --- |
# | before its first forward | micro-batch 0 passes the r devices above it | $r\,t_F$ |
# | between forwards and backwards | micro-batch m - 1 goes on down, a gradient comes back | $(p - 1 - r)(t_F + t_B)$ |
# | after its last backward | the last gradient passes the r devices above it | $r\,t_B$ |
#
# The sum is $(p - 1)(t_F + t_B)$: r falls out, and so does m. The work of a device is $m\,(t_F + t_B)$. From these two
# come two measures:
#
# $$\textbf{bubble fraction} = \frac{\text{idle}}{\text{idle} + \text{work}} = \frac{p - 1}{m + p - 1}
# \qquad\qquad \textbf{bubble ratio} = \frac{\text{idle}}{\text{work}} = \frac{p - 1}{m}$$
#
# The fraction says how much of all device-time is lost; 1 minus it is the utilisation. The ratio says by how much the
# bubble stretches the ideal time, $m\,(t_F + t_B)$. Both are in use, and not always by name: GPipe's paper gives the
# first (section 2.3), Narayanan et al. (2021, arXiv 2104.04473, section 2.2) the second. In both $t_F$ and $t_B$ have
# cancelled. The makespan is $(m + p - 1)(t_F + t_B)$. All this holds for equal micro-batches, equal stages, and
# messages that take no time.
#
# Does that hold when a backward takes twice as long as a forward, as it roughly does? And with costs that are
# *measured*? The last lines of the table below come from the **device clock** (lesson 1): the cost of every action as
# measured where it ran, composed as if each device stood alone.


# %%
def line(words, m, t):
    print(f"{words:<22}{m:>3}{3 / (m + 3):>13.3f}{t.bubble_fraction:>8.3f}{3 / m:>13.3f}{t.bubble_ratio:>8.3f}")


print(f"{'costs':<24}m     fraction: formula, run   ratio: formula, run")
tables = {m: build_schedule("gpipe", devices=4, microbatches=m) for m in (1, 2, 4, 8, 16)}
for backward in (1, 2):
    for m in (4, 8, 16):
        given = Costs(forward=1, backward=backward)
        line(f"unit: tF = 1, tB = {backward}", m, run(tables[m], costs=given).timeline)
measured = {m: run(tables[m], "device", steps=4) for m in (4, 8)}
for m, report in measured.items():
    line("device: as measured", m, report.timeline)

# %% [markdown]
# With given costs the formulas hold to the last digit. The measured lines differ a little: the stages are not exactly
# equal (device 0 also has the embedding, device 3 the head), and every action costs a little different each time.
#
# Be careful with units across m. At a fixed batch, twice as many micro-batches are half as large: a unit at m = 8 is
# half a unit at m = 4. So 22 units at m = 8 are 11 of the old ones, against 14. The work alone is 8 old units, and no m
# gets below that. More micro-batches always shrink this formula's bubble; that very small ones are no bargain on a real
# device is the subject of lesson 5.
#
# **Try:** p = 3 devices, 16 layers on each. How many micro-batches do they need for the bubble that p = 2 devices have
# at m = 8? Derive it, then set both in the explorer above, and run them.
#
# ## Claims on trial
#
# 1. *"With p = 4 and m = 16, GPipe's bubble is 18.8 %."*
# 2. *"The second device waits until the first has done every micro-batch."*

# %%
sixteen = run(tables[16]).timeline
print(f"idle of all device-time {sixteen.bubble_fraction:.1%}, idle over work {sixteen.bubble_ratio:.2%}")
starts, ends = ({str(span.slot): getattr(span, end) for span in sixteen.spans} for end in ("start", "end"))
print(f"device 1 starts at t = {starts['1F0']:g}; device 0 has done every forward at t = {ends['0F15']:g}")

# %% [markdown]
# 1. The number is right and the word is missing. It is the *ratio*: the step takes 18.8 % longer than its work. Of the
#    device-time less is lost. Whoever compares two systems by "the bubble" has to ask which.
# 2. Wrong. It would be true of the naive pipeline, whose only piece is the whole batch. Device 1 starts as soon as the
#    *first* micro-batch has left device 0.
#
# ## Is it still the same gradient?
#
# Weights must not change between the micro-batches of a step, or each would see another model. So a device
# **accumulates**: it adds up the gradients of all m micro-batches and updates once, when the last backward is done.
# This end of a step is the **flush**. PyTorch adds by itself: `backward()` adds to what stands in `.grad`.
#
# But adds up what? The loss of a batch of n sequences is a mean. Micro-batch i has $n_i$ sequences, its own mean loss
# is $\ell_i$ with gradient $g_i$. The sum over all sequences is $\sum n_i \ell_i$, hence
#
# $$g = \sum_i \frac{n_i}{n}\, g_i$$
#
# If all micro-batches are of one size, the weight is 1/m and this is the mean of the $g_i$. 64 cut into 12 is four
# micro-batches of 6 and eight of 5. Here are the true gradients $g_i$ of a 48-layer model, put together in four ways,
# against the gradient of the whole batch. (Its layers are narrower than usual, because it has to run 17 times.)

# %%
exact = TransformerLM(layers=48, width=16).double()  # float64: only rounding is left of the difference
whole = unsplit_gradients(exact, next_byte_loss, inputs, targets).gradients


def error(pieces, weights):
    """The largest error of the weighted sum, in parts of the largest gradient."""
    total = {name: sum(w * g[name] for w, g in zip(weights, pieces, strict=True)) for name in whole}
    return gradient_error(total, whole)


parts = {m: list(zip(inputs.tensor_split(m), targets.tensor_split(m), strict=True)) for m in (4, 12)}
pieces = {m: [unsplit_gradients(exact, next_byte_loss, x, y).gradients for x, y in parts[m]] for m in parts}
print(f"{'error with':<36}", *(f"{f'm = {m}':>10}" for m in parts))
ways = {
    "weights 1: the sum": lambda m: [1] * m,
    "weights 1/m: the mean of means": lambda m: [1 / m] * m,
    "weight 1 for the last one only": lambda m: [0] * (m - 1) + [1],
    "weights n_i / n": lambda m: [len(x) / 64 for x, _ in parts[m]],
}
for way, weights in ways.items():
    print(f"{way:<36}", *(f"{error(pieces[m], weights(m)):>10.1e}" for m in parts))

# %% [markdown]
# Four ways, three classic mistakes:
#
# - **The sum.** Calling `loss.backward()` on each micro-batch's mean loss adds up m gradients of full size: m times too
#   large, an error of m - 1. With plain SGD this is a learning rate m times as high. Adam divides by the gradient's own
#   size and hides it, until a clipping threshold meets it.
# - **The mean of means** is exact while all micro-batches are equally large, and a little wrong as soon as they are
#   not. No loss curve will tell you.
# - **The last one only** is what is left of the batch where `zero_grad()` stands inside the loop over micro-batches and
#   not before it.
#
# The runtime weighs each micro-batch's loss by $n_i / n$ before its backward; then plain adding is right. Its own
# proof, on the pipeline with m = 12:

# %%
uneven = Pipeline(exact, build_schedule("gpipe", devices=4, microbatches=12), loss=next_byte_loss)
print("sequences in each micro-batch:", uneven.schedule.microbatch_sizes(64))
print(f"largest gradient error of the pipeline: {uneven.verify(inputs, targets):.1e}")

# %% [markdown]
# ## What does a device hold?
#
# A forward leaves **activations** that its backward needs (lesson 1). The serial run held those of one micro-batch at a
# time. GPipe starts no backward before its last forward, so at that moment a device holds all m. Run it at m = 1, 2, 4,
# 8, 16, and read the peak off the tensors that autograd really keeps. Twice:
#
# - **batch fixed**: 64 sequences, cut into more and more pieces;
# - **micro-batch fixed**: pieces of 4 sequences, more and more of them, so that the batch grows with m.

# %%
question = "Batch fixed at 64 sequences: the peak of device 0 with m = 16, in per cent of its peak with m = 1?"
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
reveal("02-memory", prediction=100, measurement=100 * flat[-1] / flat[0])

# %% [markdown]
# Two true sentences, which seem to contradict each other:
#
# - *At a fixed batch* GPipe holds the activations of the whole batch on every device, however finely it is
#   cut: m pieces of 1/m. Cutting finer saves nothing.
# - *At a fixed micro-batch size* what GPipe holds **grows** with m.
#
# A sentence or a picture about a pipeline's memory that does not say what is held fixed says nothing. And here is the
# price of overlap, from the three runs at the top of this page, all with 64 sequences:

# %%
for name, report in {"naive": naive, "serial": one_by_one, "GPipe": gpipe}.items():
    peaks = ", ".join(f"{peak / 1e6:.1f}" for peak in report.peak_activation_bytes)
    print(f"{name:>7}: {report.timeline.makespan:g} units; peaks of the devices {peaks} MB (batch of {report.batch})")

# %% [markdown]
# ## Recomputation: time for memory
#
# GPipe's paper does not leave it there. A stage's activations follow from its input. So keep only the input of each
# micro-batch, throw the rest away, and run the forward once more right before the backward. This is **recomputation**
# (also *activation checkpointing*, *rematerialisation*). In a table it is an action of its own, R.
#
# A device then holds the inputs of m micro-batches, which are small, and the activations of *one*. At a fixed batch
# that falls with m. In return each device works $m\,(t_F + t_R + t_B)$, where $t_R$ is about $t_F$.

# %%
predict("02-recompute", "p = m = 4, device clock: how many per cent longer is the step with R?", unit="%")

# %% [markdown]
# The prediction below takes $t_F$ and $t_B$ from the measured run without R, and $t_R = t_F$.

# %%
plain = measured[4].timeline
again = build_schedule("gpipe", devices=4, microbatches=4, recompute=True)
recomputed = run(again, "device", steps=4)


def mean_cost(timeline, op):
    costs = [span.duration for span in timeline.spans if span.slot.op == op]
    return sum(costs) / len(costs)


tF, tB = mean_cost(plain, "F"), mean_cost(plain, "B")
expected = [simulate(table, Costs(forward=tF, backward=tB)).makespan for table in (plain.schedule, again)]
fixed = "Batch fixed at 64 sequences, m = 4 micro-batches of 16"
titles = ["GPipe", "GPipe with recomputation"]
display(plot_schedules([plain, recomputed.timeline], titles, title=fixed, memory=True))
print(f"peak of device 0: {recomputed.peak_activation_bytes[0] / measured[4].peak_activation_bytes[0]:.0%} of before")
print(f"without R: tB = {tB / tF:.2f} tF; with R, an F takes {mean_cost(recomputed.timeline, 'F') / tF:.2f} of before")
reveal(
    "02-recompute",
    prediction=100 * (expected[1] / expected[0] - 1),
    measurement=100 * (recomputed.timeline.makespan / plain.makespan - 1),
)

# %% [markdown]
# The peak falls to little more than one micro-batch's share, a quarter. For that, every device runs m more actions, and
# the step becomes longer by these m:
#
# $$\text{makespan} = m\,(t_F + t_R + t_B) + (p - 1)(t_F + t_B)$$
#
# The idle time stays $(p - 1)(t_F + t_B)$. If an R had to wait for the gradient, as its B has to, it would be
# $(p - 1)(t_F + t_R + t_B)$. But an R needs only the input that its device has kept: in the picture devices 0 to 2 run
# R0 early, while they wait.
#
# The measured figure may lie below the predicted one, and the last line printed says why: the F of a run that
# recomputes keeps nothing for a backward, which makes it cheaper, by the factor printed. The prediction charged it in
# full.
#
# The peaks again, with recomputation as the third curve:

# %%
remade = {m: build_schedule("gpipe", devices=4, microbatches=m, recompute=True) for m in ms}
peaks = [run(remade[m]).peak_activation_bytes[0] / 1e6 for m in ms]
held["GPipe with recomputation, batch fixed at 64 sequences"] = peaks
plot_curves(ms, held, **axes, title="What GPipe holds, with and without recomputation", note=note)

# %% [markdown]
# At m = 1 recomputation saves nothing: the one micro-batch that is recomputed is the whole batch. The more pieces, the
# more it saves, while the work that it adds stays the same: one forward of the whole batch. The paper writes the peak
# of a device as O(N + L/K · N/M): inputs of all N sequences, and L/K layers of activations for one micro-batch of N/M.
#
# ## Break it
#
# GPipe's table with one change: device 1 runs `1B0` a little early, before `1F3`. It looks harmless. Before you run the
# cell: what would device 1 wait for, and what would that wait for?

# %%
early = """
0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3
1F0,1F1,1F2,1B0,1F3,1B1,1B2,1B3
2F0,2F1,2F2,2F3,2B0,2B1,2B2,2B3
3F0,3F1,3F2,3F3,3B0,3B1,3B2,3B3
"""
try_schedule(early)

# %% [markdown]
# Devices 1 and 2 wait for each other. The checker predicts that neither ever goes on, and the runtime refuses such a
# table. So here are devices that ask no checker: a thread for each row. A thread takes the actions of its row in turn,
# and waits for what each one needs from its neighbour. After a second without anything it gives up and says so.


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
# Devices 1 and 2 stand as foretold, and the other two wait for them. On real devices nothing would say so: the job
# stands still until somebody notices.
#
# **Try** other changes, in both cells:
#
# - On device 2 let `2F1` and `2F0` change places. Sound? How long?
# - Let *every* device run its backwards in the order B3, B2, B1, B0. Then only device 1.
# - Leave out `0B2`. Nobody waits for it, so `careless` ends well. What would be wrong with the gradient? See what the
#   checker says.
#
# Or break it by hand: the last cell of this page, under *Further*, drops, swaps and starts early whatever you choose.
#
# ## What to take along
#
# - Cutting a batch into micro-batches buys memory and no time; overlapping them buys time and costs the memory again.
# - GPipe: all forwards, then all backwards. Idle per device $(p - 1)(t_F + t_B)$, whatever m.
# - Bubble fraction $(p - 1)/(m + p - 1)$, bubble ratio $(p - 1)/m$. Name the one that you mean.
# - Gradients are added with weights $n_i / n$; weights change once, at the flush.
# - At a fixed batch GPipe holds the whole batch, unless it recomputes.
#
# The same bubble with less memory, without recomputing, is lesson 3.

# %%
ledger()

# %% [markdown] role="further"
# ## Further: is a bubble "negligible" at m = 4p?
#
# GPipe's paper reports that in its experiments the bubble was negligible from M ≥ 4 K, that is m ≥ 4p in our letters.
# The formula at m = 4p gives $(p - 1)/(5p - 1)$: 15.8 % at p = 4, and towards 20 % for many devices. That is not
# nothing. One reason that the paper gives is the early R. So compare with and without it, at $t_B = 2 t_F$ and $t_R =
# t_F$.

# %% role="further"
for recompute in (False, True):
    table = build_schedule("gpipe", devices=4, microbatches=16, recompute=recompute)
    t = simulate(table, Costs(forward=1, backward=2))
    print(
        f"recompute={recompute!s:<6} bubble fraction {t.bubble_fraction:.1%}, makespan {t.makespan:g} units (predicted)"
    )

# %% [markdown] role="further"
# The bubble fraction becomes smaller and the step longer. The idle time is the same; it is divided by more work. A
# smaller bubble fraction alone does not make a faster step.

# %% [markdown] role="further"
# ## Further: break it by hand
#
# Choose an action of GPipe's table and drop it, let it change places with the next one, or start it before its input is
# there. The checker's words come first, then what would happen: how far it runs, who waits for ever for what, whose
# gradient lacks which micro-batch. Not every change is a fault: find a swap that costs nothing, and run it.

# %% role="further"
break_schedule("gpipe", devices=4, microbatches=4)

# %% [markdown] page="exercises"
# Four exercises: the serial run, GPipe, its bubble, and exact accumulation.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="serial" difficulty="easy" minutes=8
# Micro-batches one after the other, without overlap: micro-batch 0 through all devices forward and back, then
# micro-batch 1, and so on.
#
# - `serial_rows` returns the table: a list with one row for each device, in the order of the devices. A row is the list
#   of that device's actions in the order in which it runs them, as text: `"0F0"` is stage 0, forward, micro-batch 0.
#   Device r holds stage r.
# - `serial_makespan` returns how long that takes from the first start to the last end. `forward` and `backward` are the
#   times of *one micro-batch on one device*.


# %% role="answer" exercise="serial"
def serial_rows(devices: int, microbatches: int) -> list[list[str]]:
    """The actions of each device, in order, where no two micro-batches are in the pipeline at the same time.

    >>> serial_rows(2, 1)
    [['0F0', '0B0'], ['1F0', '1B0']]
    """
    ### BEGIN SOLUTION
    return [[f"{r}{op}{i}" for i in range(microbatches) for op in "FB"] for r in range(devices)]
    ### END SOLUTION


def serial_makespan(devices: int, microbatches: int, forward: float, backward: float) -> float:
    """The time of the whole serial step.

    >>> serial_makespan(4, 4, forward=1, backward=1)
    32
    """
    ### BEGIN SOLUTION
    return microbatches * devices * (forward + backward)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="serial"
# How long is one micro-batch on its way? And when may the next one start?

# %% [markdown] role="hint" exercise="serial"
# Each device deals with a micro-batch completely, forward and then backward, before it touches the next. The rows
# differ in the stage alone. For the time, count how many actions follow one another: no two run at once.

# %% [markdown] role="hint" exercise="serial"
# The rows: an outer loop over devices, in it one over micro-batches, in it one over the two letters F and B; an
# f-string puts stage, letter and micro-batch together. The time: a micro-batch meets every device once in each
# direction.

# %% [markdown] role="solution" exercise="serial"
# An order without times is enough to keep the micro-batches apart: device 0 does not start micro-batch 1 before its
# last action of micro-batch 0, and that is the last of all devices. Per micro-batch one backward on device 0 ends the
# trip, so cutting adds up to the time of the uncut batch.

# %% [markdown] role="lead" exercise="gpipe" difficulty="medium" minutes=10
# Write GPipe for any number of devices p and of micro-batches m. Return one row of actions for each device, as text.
# Each device runs all its forwards, micro-batch 0 first, and then all its backwards. These may go up or down through
# the micro-batches: either is GPipe and either is graded as right, as long as all devices do the same.
#
# The last part of the check trains the 48-layer model (a narrow one) with your schedule and compares its gradients.
# When all is passed, watch it yourself in a new cell: `try_schedule(gpipe, devices=4, microbatches=8)`, after
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
# A row is two lists in a row: m forwards, then m backwards. Nothing depends on where the device stands in the pipeline:
# waiting is no action, the runtime does it where an input is not there yet.

# %% [markdown] role="hint" exercise="gpipe"
# For each device build a list with f-strings of stage, letter F and micro-batch number over all m numbers, and a second
# one with the letter B. Return the two joined, device by device.

# %% [markdown] role="solution" exercise="gpipe"
# Compare with the serial rows: the two loops, over letters and over micro-batches, have changed places. That is the
# whole difference between 32 slots and 14.

# %% [markdown] role="lead" exercise="bubbles" difficulty="medium" minutes=12
# GPipe on p devices with m micro-batches; a forward of one micro-batch takes `forward` on each device, a backward
# `backward`, messages take no time. Write
#
# - `bubble_fraction`: idle device-time over *all* device-time,
# - `bubble_ratio`: idle device-time over *busy* device-time,
# - `least_microbatches`: the smallest m (at least 1) with which at least `percent` per cent of device-time are busy.
#   `percent` is a whole number from 1 to 99.


# %% role="answer" exercise="bubbles"
def bubble_fraction(devices: int, microbatches: int, forward: float, backward: float) -> float:
    """Idle over all device-time, between 0 and 1.

    >>> bubble_fraction(2, 1, forward=1, backward=1)
    0.5
    """
    ### BEGIN SOLUTION
    return (devices - 1) / (microbatches + devices - 1)
    ### END SOLUTION


def bubble_ratio(devices: int, microbatches: int, forward: float, backward: float) -> float:
    """Idle over busy device-time.

    >>> bubble_ratio(2, 1, forward=1, backward=1)
    1.0
    """
    ### BEGIN SOLUTION
    return (devices - 1) / microbatches
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
# Take one device. How long does it work in a step? How long does it idle, before, between and after? The answer to the
# second does not depend on which device you took.

# %% [markdown] role="hint" exercise="bubbles"
# A device works m times a forward and a backward, and idles p - 1 times a forward and a backward. Form both quotients
# and cancel. For the last function say the wish as an inequality: busy over all is at least the wanted part. Solve it
# for m.

# %% [markdown] role="hint" exercise="bubbles"
# From m / (m + p - 1) at least q / 100 follows: m times (100 - q) is at least q times (p - 1). So m is a quotient,
# rounded up. Stay with whole numbers: floating point may put the quotient a hair above a whole number, and rounding up
# then gives one too many. Rounding up is `-(-a // b)`. And p = 1 has no bubble at all: at least 1.

# %% [markdown] role="solution" exercise="bubbles"
# Whatever `forward` and `backward` are, they cancel. For 90 % the last function gives 9(p - 1): 27 micro-batches for 4
# devices, 135 for 16.

# %% [markdown] role="lead" exercise="accumulate" difficulty="medium" minutes=15
# A batch is too large to go through the model at once: no more than one micro-batch's activations fit. Cut it into m
# micro-batches, run each forward and backward before the next, and leave the gradient of the *whole batch's mean loss*
# in the parameters' `.grad`, as one backward of the whole batch would. m need not divide the batch: cut as
# `torch.tensor_split` does, 64 into 12 gives four micro-batches of 6 and eight of 5. The lesson says which weights the
# micro-batches' gradients have.
#
# `loss(output, targets)` is the mean over the sequences it is given. A gradient of the step before may still stand in
# `.grad`: it does not belong to this one. Return nothing; no optimizer is involved.

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
# `backward()` adds to what stands in `.grad`. What has to stand there before the first one, and what may you multiply
# so that plain adding is right?

# %% [markdown] role="hint" exercise="accumulate"
# Clear the gradients once, before the loop. In the loop, weigh each micro-batch's mean loss by its part of the batch's
# sequences, then call `backward()`. The gradient is linear in the loss, so weighing the loss weighs the gradient.

# %% [markdown] role="hint" exercise="accumulate"
# Split inputs and targets alike with `tensor_split` and walk through both together with `zip`. The weight of a
# micro-batch is its length divided by the length of the whole batch; multiply the loss with it before its backward.

# %% [markdown] role="solution" exercise="accumulate"
# Each graph is let go by its own backward, so only one micro-batch's activations exist at a time: accumulation is the
# serial run of the lesson, on one device. The weights for m = 12 are 6/64 and 5/64. A weight of 1/12 for each would be
# right if the sizes were equal.
