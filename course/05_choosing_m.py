# ---
# jupyter:
#   pipelab:
#     number: 5
#     title: "Choosing m: how finely to cut the batch"
#     minutes: 45
#     builds_on: [2, 3, 4]
#     goals:
#       - fit t(b) = α + βb to measured micro-batches, and say what each of the two numbers is
#       - derive the m with the shortest step, m* = √((p - 1)βB/α), and find it by measurement
#       - say which limits memory sets on m, at a fixed batch and at a fixed micro-batch size
#       - choose schedule and m for a model, a batch and a limit, and defend the choice against its neighbours
# ---

# %% [markdown]
# ## Into how many micro-batches should you cut a batch?
#
# So far m was given. Lesson 2 said that more micro-batches make the bubble smaller, lesson 3 that under 1F1B they also
# save memory. You have seen in lesson 4 that each action has a fixed cost too. In this lesson you measure that cost,
# weigh it against the bubble, and choose m for the worked example: 48 layers, p = 4, a batch of B = 64 sequences.

# %% role="setup"
import math
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
predict("05-finer", "1F1B, p = 4, batch 64. The step with m = 64, in per cent of that with m = 16?", unit="%")

# %% [markdown]
# ## A claim on trial: "the larger m, the better"
#
# Lesson 2 has a formula for this. One micro-batch is B/m sequences, so $t_F + t_B$ is proportional to 1/m, and
#
# $$\text{makespan} = (m + p - 1)(t_F + t_B) \;\propto\; \frac{m + p - 1}{m} = 1 + \frac{p - 1}{m}.$$
#
# From m = 16 to m = 64 that falls from 1 + 3/16 to 1 + 3/64. The runs below use 1F1B. With equal stages and equal
# micro-batches GPipe has the same makespan. `measure` runs them; it stands in a folded cell, which opens with a click.

# %% jupyter={"source_hidden": true}
from contextlib import ExitStack


def measure(ms, batch=lambda m: (inputs, targets)):
    """Steps of 1F1B for each m, p = 4, device clock: the report of the faster of two, for what disturbs only adds time.

    The m take turns, up and down again, so that a slow moment of the machine hits them alike. (Above m = 20 one step,
    to save you time: many actions take long, and single disturbances count for little in their sum.)
    """
    # window=1: the report is of one step, and no median over the last few
    found, options = {}, {"loss": next_byte_loss, "clock": "device", "window": 1}
    with ExitStack() as stack:
        schedules = {m: build_schedule("1f1b", 4, m) for m in sorted(ms)}
        pipelines = {m: stack.enter_context(Pipeline(model, order, **options)) for m, order in schedules.items()}
        for m in [*pipelines, *(m for m in reversed(pipelines) if m <= 20)]:
            report = pipelines[m].step(*batch(m))
            if m not in found or report.timeline.makespan < found[m].timeline.makespan:
                found[m] = report
    return {m: found[m] for m in ms}


_ = measure([2], batch=lambda m: text_batch(batch=8))  # what runs first also pays for starting up

# %%
two = measure([16, 64])
for m, report in two.items():
    t = report.timeline
    print(f"m = {m}: {1000 * t.makespan:.0f} ms, bubble fraction {t.bubble_fraction:.1%} (device clock)")
ratio = two[64].timeline.makespan / two[16].timeline.makespan
display(reveal("05-finer", prediction=100 * (1 + 3 / 64) / (1 + 3 / 16), measurement=100 * ratio))
predict("05-one", "1 sequence as a micro-batch, in per cent of the time that a micro-batch of 16 takes?", unit="%")

# %% [markdown]
# The bubble fraction shrinks as it should: the devices are busy nearly all the time. Where the step takes longer all
# the same, they have more to do. Then a micro-batch of 1 sequence takes more than a quarter of the time of one of 4.
# What does a micro-batch cost?
#
# ## What one micro-batch costs
#
# `profile_costs` sends single micro-batches of several sizes through the four stages and back, and takes the time of
# each stage's forward and backward. Below is the mean of the four devices, forward and backward together,
# $t(b) = t_F + t_B$ for b sequences. (`chunks=(1,)`: each device has its layers in one piece. `repeats=2`: each size
# is timed twice.)

# %%
sizes = (1, 2, 4, 8, 16)
how = {"loss": next_byte_loss, "chunks": (1,), "repeats": 2, "progress": False}
profile = profile_costs(model, inputs, targets, devices=4, sizes=sizes, **how)
line = profile.line()
alpha, beta = line.alpha, line.beta
print(f"t(b) = {1000 * alpha:.2f} ms + {1000 * beta:.2f} ms * b, within {line.error:.1%} of each point")
times = dict(line.points)
curves = {
    "Measured (device clock)": [1000 * times[b] for b in sizes],
    "The line α + βb": [1000 * line(b) for b in sizes],
    "In proportion: t(16) · b/16": [1000 * times[16] * b / 16 for b in sizes],
}
note = "Forward and backward of one micro-batch on one device: 12 layers, mean of the four devices."
axes = {"across": "sequences b in a micro-batch", "up": "t(b), milliseconds"}
display(plot_curves(sizes, curves, **axes, title="What a micro-batch costs", note=note))
display(reveal("05-one", prediction=100 / 16, measurement=100 * times[1] / times[16]))
predict("05-star", "B = 64, p = 4, and this line. With which m is the step shortest?", unit="micro-batches")

# %% [markdown]
# (The prediction shown is that of strict proportion, which the unit clock assumed.) A line describes the points as well
# as the cell has printed, and it does not go through the origin:
#
# $$t(b) = \alpha + \beta\, b$$
#
# - **β** is what one more sequence costs: arithmetic.
# - **α** is the **fixed cost** of an action, paid however small the micro-batch is. Twelve layers forward and back are
#   several hundred operations. Starting each takes a few microseconds, whatever the size of its tensors. On a GPU this
#   is the time to launch its kernels; and very small kernels leave most of a GPU without work, so that its curve is
#   nearly flat at first. There a line is a coarser picture than here.
#
# How finely work is cut is its **granularity**. α is the price of cutting finely.
#
# ## The formula with both
#
# In $(m + p - 1)\,t(b)$ put b = B/m:
#
# $$T(m) = (m + p - 1)\Bigl(\alpha + \beta\,\frac{B}{m}\Bigr)
#        = \underbrace{\beta B}_{\text{work}} + \underbrace{\alpha m}_{\text{fixed costs}}
#        + \underbrace{(p - 1)\Bigl(\alpha + \beta\,\frac{B}{m}\Bigr)}_{\text{bubble}}$$
#
# The first two terms are what a device does: the work of its batch, and m times the fixed cost. The third is the time
# that it idles, p - 1 micro-batches.


# %%
def T(m, line=line, p=4, B=64):
    """The formula: seconds of a step."""
    return (m + p - 1) * line(B / m)


def star(line=line, p=4, B=64):
    """The m at which the formula is least. Without a fixed cost it has no bottom: then the batch is the end."""
    return math.sqrt((p - 1) * line.beta * B / line.alpha) if line.alpha > 0 else B


ms = (2, 4, 8, 12, 16, 20, 32, 64)
parts = {
    "Work: βB": [1000 * beta * 64 for m in ms],
    "Fixed costs: αm": [1000 * alpha * m for m in ms],
    "Bubble: (p - 1)(α + βB/m)": [1000 * 3 * line(64 / m) for m in ms],
}
axes = {"across": "micro-batches m", "up": "milliseconds on each device"}
note = "Clock: predicted, from the line fitted above. Batch fixed at 64 sequences, p = 4."
plot_curves(ms, parts, **axes, title="Where a step's time goes", note=note, log=True)

# %% [markdown]
# (The axis of m is logarithmic, from here on: each doubling is one step to the right, and αm is bent.) The step is the
# sum of the three. Only two of its terms move with m: αm rises, $(p - 1)\beta B/m$ falls. The slope of the sum is zero
# where
#
# $$\alpha - \frac{(p - 1)\,\beta B}{m^2} = 0, \qquad\text{that is}\qquad
# m^* = \sqrt{\frac{(p - 1)\,\beta B}{\alpha}}.$$
#
# At $m^*$ the two are equal: the part of the bubble that shrinks is as long as the fixed costs. (In the picture these
# curves cross a little later, for the bubble also holds the constant (p - 1)α.) Left of it the bubble
# is shared out among too few micro-batches. Right of it the fixed cost is paid too often. Texts call this place the
# **knee** of the throughput curve, or the **sweet spot**.
#
# Read off what moves it. A larger batch or more devices: more micro-batches, by the square root. A slower start of each
# action: fewer. Four times the work per sequence (a wider model, longer sequences): twice as many.
#
# ## Measure it
#
# The formula assumes equal stages, messages that take no time, equal micro-batches, and a cost that is exactly a line.
# Runs assume nothing. m = 12 and m = 20 do not divide 64; `Pipeline` cuts unevenly and weighs the losses (lesson 2).

# %%
reports = measure(ms)
seconds = {m: reports[m].timeline.makespan for m in ms}
print(f"by the line of the profile m* = {star():.1f}")
print("  m  sequences  step, ms   formula   tokens/s   bubble   peak, MB")
for m in ms:
    report, b = reports[m], sorted(set(reports[m].timeline.schedule.microbatch_sizes(64)))
    cells = (f"{1000 * seconds[m]:8.0f}", f"{1000 * T(m):9.0f}", f"{inputs.numel() / seconds[m]:10.0f}")
    rest = f"{report.timeline.bubble_fraction:8.1%} {max(report.peak_activation_bytes) / 1e6:9.1f}"
    print(f"{m:>3}  {' and '.join(map(str, b)):<9}", *cells, rest)
shown = {"Predicted: (m + p - 1)(α + βB/m)": [1000 * T(m) for m in ms], "Measured": [1000 * seconds[m] for m in ms]}
note = "Measured: device clock, 1F1B. Predicted: from the line alone. Batch fixed at 64 sequences, p = 4."
axes = {"across": "micro-batches m", "up": "makespan of a step, milliseconds"}
display(plot_curves(ms, shown, **axes, title="The measured curve over the predicted one", note=note, log=True))
import numpy as np

# The bottom as measured: fit the three kinds of terms that T(m) has to all eight runs.
runs = np.array([[1, m, 1 / m] for m in ms]) / np.array([[seconds[m]] for m in ms])
constant, rising, falling = np.linalg.lstsq(runs, np.ones(len(ms)), rcond=None)[0]
bottom, how_found = min(seconds, key=seconds.get), "the fastest of the eight: noise leaves the fitted curve no bottom"
if min(rising, falling) > 0:
    bottom, how_found = math.sqrt(falling / rising), "the bottom of a curve through all eight runs"
print("below, the measured m is", how_found)
reveal("05-star", prediction=star(), measurement=bottom)

# %% [markdown]
# Does the measured curve bend where the formula said? The last line compares the two. The formula knew nothing but two
# numbers from single micro-batches. (The bottom is flat, and which of the eight is smallest may change from run to run.
# So the measured place is that of a curve $c_0 + c_1 m + c_2/m$, the shape of T(m), fitted to all eight. Where a
# measured curve runs above the predicted one on the right, each of its many actions took a little longer in the run
# than alone: α is the number that depends most on what else the machine does.)
#
# The table has all that a choice needs. Tokens per second are the batch's tokens over the time of its step: at a fixed
# batch the curve of the step, upside down. The bubble fraction says nothing of the knee. Nor does the peak of memory.
# It never rises with m, and falls in steps: under 1F1B a device holds up to p micro-batches, the largest of ⌈B/m⌉
# sequences (the whole number at or above B/m), and many m share the same ⌈B/m⌉.
#
# How flat is the bottom, and what does it cost that m = 12 and 20 are uneven? `profile.predict` simulates the schedule
# with each stage's own costs and each micro-batch's own size.

# %%
best = min(range(1, 65), key=T)
slack = 0.05
near = [m for m in range(1, 65) if T(m) <= (1 + slack) * T(best)]
print(f"by the formula m = {best} is best; m = {min(near)} to {max(near)} are within {slack:.0%} of it")
for m in (8, 12, 16, 20):
    schedule = build_schedule("1f1b", 4, m)
    simulated = profile.predict(schedule, batch=64).makespan
    cut = schedule.microbatch_sizes(64)
    told = ", ".join(f"{cut.count(b)} of {b}" for b in dict.fromkeys(cut))
    print(f"m = {m:>2} ({told:<15}): formula {1000 * T(m):.0f}, simulated {1000 * simulated:.0f} ms", end=", ")
    print(f"measured {1000 * seconds[m]:.0f} ms")

# %% [markdown]
# The sizes are those of `tensor_split`: the larger ones first. The simulation departs from the formula for two reasons.
# Stages are not exactly equal, and the slowest sets the pace. And where sizes differ, the larger
# micro-batches keep others waiting. That second price is small: m = 12 and m = 20 are not bad for not dividing 64, as
# long as each loss has its weight $n_i/n$.
#
# *Try:* `measure((6, 7, 9, 10))` in a new cell. Can your measurements rank them?

# %% [markdown]
# ## When messages take time
#
# In all these runs messages took no time. On a network they do, and small micro-batches are often blamed on that: "with
# 2 sequences a device waits for the network most of the time". Whether it does depends on the schedule. Let a message
# take L seconds on its way, while its devices may go on working.
#
# - GPipe waits for messages only while it fills and drains, 2(p - 1)L in all, whatever m. The knee does not move.
# - Under 1F1B device 0 has p micro-batches in flight, so p of them come round in $p\,t(b) + 2(p - 1)L$. Each costs
#   $2(p - 1)L/p$ more than before. That is a price per micro-batch: latency acts like a larger α. (For p > 2 filling
#   and draining add a constant besides, which does not move the knee.)
#
# $$m^*_L = \sqrt{\frac{(p - 1)\,\beta B}{\alpha + 2(p - 1)L/p}}.$$
#
# The cell predicts both schedules for every even m up to 32, from the profile, with longer and longer messages. The
# last line of each group is for m = 32, micro-batches of 2 sequences.

# %%
for L in (0, 0.002, 0.005, 0.01):
    found = {}
    for name in ("gpipe", "1f1b"):
        steps = {m: profile.predict(build_schedule(name, 4, m), 64, latency=L).makespan for m in range(2, 33, 2)}
        found[name] = min(steps, key=steps.get), 1000 * min(steps.values())
    price = alpha + 2 * 3 * L / 4
    formula = math.sqrt(3 * beta * 64 / price) if price > 0 else 64
    told = ", ".join(f"{name} best at m = {m} ({best_ms:.0f} ms)" for name, (m, best_ms) in found.items())
    print(f"a message takes {1000 * L:>2.0f} ms: {told}; formula for 1F1B {formula:.1f}")
    idle = {name: profile.predict(build_schedule(name, 4, 32), 64, latency=L).bubble_fraction for name in found}
    print(f"    m = {32}: " + ", ".join(f"{name} idles {part:.0%}" for name, part in idle.items()))

# %% [markdown]
# The claim holds for 1F1B with slow messages. It does not for GPipe, which pays $2(p - 1)L$ at m = 32 as at m = 8.
#
# So both sides of the knee have a name. On the left the bubble is **amortised** over too few micro-batches. On the
# right a micro-batch is too small for its fixed price: α, and under 1F1B latency too. A step that waits for messages
# more than it computes is called **latency-bound**. And when messages are slow GPipe is the faster of the two, at the
# price of its memory.
#
# ## What is held fixed?
#
# So far the batch was fixed, and m cut it finer. Many texts speak of another setting without saying so: the size of a
# micro-batch is fixed, and a larger m makes a larger *batch*. Then t(b) does not change with m at all. Let it
# be b = 4 sequences. The pipeline trains
#
# $$\frac{m\,b}{(m + p - 1)\,t(b)} \text{ sequences per second},$$
#
# which rises with m for ever, towards b/t(b).

# %%
question = "Micro-batch fixed at 4 sequences. From m = 4 to m = 16, how many per cent more sequences per second?"
predict("05-fixed", question, unit="%")

# %%
small = measure((4, 8, 16), batch=lambda m: text_batch(batch=4 * m))
small = {m: report.timeline.makespan for m, report in small.items()}
for m, s in small.items():
    print(f"m = {m:>2}: micro-batch of {4}, batch {4 * m}, {4 * m / s:.0f} sequences/s;", end=" ")
    print(f"micro-batch of {64 // m}, batch {64}, {64 / seconds[m]:.0f} sequences/s")
rates = {
    "Micro-batch fixed: m times 4 sequences": [4 * m / T(m, B=4 * m) for m in ms],
    "Batch fixed: 64 sequences": [64 / T(m) for m in ms],
}
note = "Clock: predicted, from the fitted line, p = 4. At m = 16 both have 16 micro-batches of 4, so they meet."
axes = {"across": "micro-batches m", "up": "sequences per second"}
display(plot_curves(ms, rates, **axes, title="One has a knee, the other has none", note=note, log=True))
gain = (16 / small[16]) / (4 / small[4]) - 1
reveal("05-fixed", prediction=100 * ((16 / 19) / (4 / 7) - 1), measurement=100 * gain)

# %% [markdown]
# At a fixed micro-batch nothing but the bubble changes, and more is always better, though less and less so. Here "the
# larger m, the better" is true. But the batch grows with it, and the batch is a choice about *learning*: how many
# sequences go into one update of the weights. So fix the batch first, for learning's sake, and then choose m for the
# machine's. That is how this course asks the question.
#
# ## The memory wall
#
# The knee says which m is fast. Memory says which m is possible. `Pipeline(memory_limit=...)` gives each device an
# allowance for weights, gradients and activations, and a step that would cross it stops. (These runs have no optimizer,
# whose state would count as well.) First with the batch fixed at 64.

# %%
LIMIT = "40MB"


def fits(name, m, batch=64, recompute=False, limit=LIMIT):
    """Run one step under the limit: whether it ran, and MB on the fullest device or what went wrong."""
    schedule = build_schedule(name, 4, m, recompute=recompute)
    pipeline = Pipeline(model, schedule, loss=next_byte_loss, clock="unit", memory_limit=limit)
    try:
        report = pipeline.step(*text_batch(batch=batch))
        return True, f"runs, {max(held.total for held in report.memory) / 1e6:.1f} MB"
    except OutOfMemoryError as error:
        return False, str(error).split(". ")[0]


for name, m in (("gpipe", 1), ("gpipe", 8), ("gpipe", 64), ("1f1b", 8), ("1f1b", 16)):
    print(f"{name}, m = {m}: {fits(name, m)[1]}")
print(f"gpipe with recomputation, m = {8}: {fits('gpipe', 8, recompute=True)[1]}")
stage = profile.cut(4)[0]  # the first of four stages: the bytes it always holds, and those kept for a micro-batch
held, kept = stage.model_states.total / 1e6, stage.kept(4) / 1e6
print(f"device 0: weights and gradients {held:.1f} MB; {kept:.2f} MB for a micro-batch of {4} sequences in flight")
predict("05-wall", "Now micro-batches of 4 sequences, limit 40 MB. The largest m with which GPipe runs?", unit="")

# %% [markdown]
# GPipe without recomputation fails at *every* m. Its devices hold the whole batch before the first backward, in 1 piece
# or in 64; only the action at which the limit is crossed differs. Under 1F1B cutting finer helps. Recomputation helps
# GPipe, and costs a second forward. Now fix the micro-batch instead:

# %%
answers = {m: fits("gpipe", m, batch=4 * m) for m in (4, 5, 6, 7)}
for m, (_, told) in answers.items():
    print(f"gpipe, m = {m}, batch {4 * m}: {told}")
for m in (8, 14):
    print(f"{'1f1b'}, m = {m}, batch {4 * m}: {fits('1f1b', m, batch=4 * m)[1]}")
most = max(m for m, (ran, _) in answers.items() if ran)
reveal("05-wall", prediction=math.floor((40 - held) / kept), measurement=most)

# %% [markdown]
# (With the numbers of device 0 above, weights and four micro-batches make a little less than what the run with m = 4
# needed. A run shows the fullest device, and under GPipe that is the last: it also keeps what its loss needs.)
#
# The wall stands on opposite sides:
#
# | held fixed | GPipe | GPipe with recomputation | 1F1B |
# | --- | --- | --- | --- |
# | batch | m does not matter: it fits or not | bounds m from below | bounds m from below |
# | micro-batch | bounds m from above | bounds m from above, much later | m does not matter (from m = p on) |
#
# "Memory limits m from above" is true of GPipe at a fixed micro-batch, and of nothing else.
#
# A text on our worked example mixes the two settings up. It gives each micro-batch 2 GB, has m = 8 hold twice as much
# as m = 4, and concludes that a 32 GB device cannot have m above 16. That needs a fixed micro-batch. In its next
# paragraph the batch is 64 sequences, and m = 32 means 2 of them. That is a fixed batch. And the schedule that it
# recommends is 1F1B, which at a fixed micro-batch holds p = 4 of them, whatever m.
#
# At our batch of 64 under 1F1B the wall can only move the choice to the right. Where the fastest m fits, take it. Where
# it does not, take the smallest m that does: of those that fit it is the nearest to the bottom.
#
# ## Rules of thumb on trial
#
# Three more rules circulate.
#
# 1. "Take m = 4p." Huang et al. found GPipe's bubble negligible from there on (2019, arXiv 1811.06965, section 2.3).
# 2. "Take micro-batches of √B sequences", so that there are √B of them.
# 3. "In the worked example m = 16 is the sweet spot; at m = 20 the micro-batches have become too small."
#
# √B is 8 here. The formula has the same shape, $\sqrt{B}$ times $\sqrt{(p - 1)\beta/\alpha}$. Where your $m^*$ is near
# 8, that factor happens to be near 1. Change it: sequences of 8 tokens in place of 32. The batch is still 64 sequences.

# %%
predict("05-short", "Sequences of 8 tokens, B = 64, p = 4. With which m is the step shortest?", unit="micro-batches")

# %%
brief = text_batch(batch=64, tokens=8)
other = profile_costs(model, *brief, devices=4, sizes=(2, 8, 32), **how).line()
frozen = CostProfile.shipped()  # this model's costs as measured once, on the machine of the exercises
print(f"{brief[0].shape[1]} tokens: t(b) = {1000 * other.alpha:.2f} ms + {1000 * other.beta:.2f} ms * b")
settings = {
    "worked example": {"line": line, "p": 4, "B": 64},
    "sequences of 8 tokens": {"line": other, "p": 4, "B": 64},
    "batch of 512": {"line": line, "p": 4, "B": 512},
    "2 devices": {"line": line + line, "p": 2, "B": 64},  # each holds twice as many layers
    "another machine": {"line": frozen.line(), "p": 4, "B": 64},
}
print(f"{'by the formula':<23}{'m*':>6}   how much longer than at the best m")
for name, s in settings.items():
    least = min(T(m, **s) for m in range(1, s["B"] + 1))
    tried = {"4p": 4 * s["p"], "√B": round(math.sqrt(s["B"])), "m = B": s["B"]}
    told = "  ".join(f"{rule} = {m}: {T(m, **s) / least - 1:.0%}" for rule, m in tried.items())
    print(f"{name:<23}{star(**s):>6.1f}   {told}")
short = {m: report.timeline.makespan for m, report in measure((2, 4, 8, 16), batch=lambda m: brief).items()}
for name, found in {"worked example": seconds, "8 tokens": short}.items():
    told = ", ".join(f"{m}: {s / min(found.values()) - 1:.0%}" for m, s in found.items())
    print(f"measured, {name}, longer than the best of these at m = {told}")
reveal("05-short", prediction=star(other), measurement=min(short, key=short.get))

# %% [markdown]
# - The rule of √B has the right shape and no constant. A cheaper sequence moves $m^*$, and √B does not notice. Nor does
#   it notice the number of devices, or what the start of an action costs.
# - 4p is a place to *start*, from which to measure. It bounds the bubble fraction by (p - 1)/(5p - 1), below 20 %, and
#   knows nothing of α. Where α is small beside β, as in large models, $m^*$ lies to the right of 4p, perhaps beyond B.
#   Then the batch decides: m = B.
# - Whether m = 16 is the sweet spot depends on α and β; the text gives neither, and no measurement. By the frozen
#   profile (the row "another machine": costs measured once, and shipped with pipelab) m = 16 is to the right of the
#   knee already. Your first row tells it for your machine. m = 20 follows the same curve.
#   And it holds as much as m = 16, not more, for its first micro-batches have 4 sequences too.
# - m = B is right only there: where α is less than (p - 1)β/B.
#
# ## Break it
#
# Memory depends on the order, and the checker does not look at memory. Take 1F1B with m = 16. Device 0 starts one
# forward early: `0F4` before `0B0`. Does the checker mind? Does it run under 34 MB, as 1F1B does?

# %%
right = build_schedule("1f1b", 4, 16)
row = [str(action) for action in right.programs[0]]
at = row.index("0B0")
row[at], row[at + 1] = row[at + 1], row[at]
early = Schedule.from_rows([row, *right.programs[1:]], name="0F4 early")
for schedule in (right, early):
    foretold = profile.memory(profile.predict(schedule, batch=64))[0].total / 1e6
    faults = len(check_schedule(schedule))
    print(f"{schedule.name}: {faults} violations, device 0 is foretold {foretold:.1f} MB", end="; ")
    try:
        report = Pipeline(model, schedule, loss=next_byte_loss, memory_limit="34MB").step(inputs, targets)
        print(f"measured {report.memory[0].total / 1e6:.1f} MB")
    except OutOfMemoryError as error:
        print(str(error).split(". ")[0])

# %% [markdown]
# The table is sound, and its gradients would be right. But for a while device 0 has five micro-batches in flight, and
# that is one too many. (The message names less than was foretold: a run stops at the first tensor that crosses the
# limit, before the action has kept all of its own.) So a limit is part of what makes a schedule usable, and a profile
# foretells that too: bytes kept are a line in b, like time.
#
# **Try:** let `0F5` and `0B1` change places as well, in the same way. Five in flight, or six? Or leave out `0B0`
# altogether: what does the checker say, and what would be held to the end?
#
# ## How to choose
#
# The text on the worked example bounds m by memory, starts at m = 4p, runs several m, and looks for the knee. That is a
# sound procedure, once it is said what is fixed. With a profile it becomes:
#
# 1. Fix the batch. That is a matter of learning, not of the machine.
# 2. Profile two or more sizes of micro-batch. That gives α and β, and bytes for each sequence in flight.
# 3. Compute $m^*$. Without a profile, start at 4p.
# 4. Cross out what does not fit: under 1F1B m below some bound, GPipe without recomputation altogether or not at all.
# 5. Measure $m^*$, or what the wall leaves of it, its neighbours, and 4p. Where two cannot be told apart take the one
#    that needs less memory: with 1F1B the larger m never needs more.
#
# Here is all of it to turn: this machine's α and β, a batch of 64, 40 MB for the activations of a device. One unit is
# what a forward of 16 sequences costs here besides α. Find the m at which the curve is lowest; then see which m the
# limit leaves, for each schedule, with and without recomputation. What does not fit says by how much, and offers what
# does.

# %%
share = sum(profile.cut(4)[r].forward.beta for r in range(4)) / 4  # of β: the forward's part
unit = 16 * share
turned = {"forward": 1, "backward": beta / share - 1, "overhead": round(max(alpha, 0) / 2 / unit, 3)}
explore(
    "1f1b",
    hold="batch",
    batch=64,
    microbatches=16,
    limit=40,
    **turned,
    curve="makespan",
    free=["schedule", "m", "limit", "recompute"],
)

# %% [markdown]
# Your turn. Change the values, commit to a number, and run this cell and the next. Which schedule and m would *you*
# take under this limit?

# %%
name, m, recompute, limit = "1f1b", 16, False, "40MB"  # change these: "1f1b" or "gpipe"; 1 to 64; True or False

schedule = build_schedule(name, 4, m, recompute=recompute)
predict("05-explorer", "How long is this step?", unit="ms")

# %%
foretold = profile.predict(schedule, batch=64)
needed = max(held.total for held in profile.memory(foretold)) / 1e6
print(f"{name}, m = {m}, recompute={recompute}: foretold {needed:.1f} MB on the fullest device, limit {limit}")
took = None
try:
    with Pipeline(model, schedule, loss=next_byte_loss, clock="device", memory_limit=limit) as pipeline:
        took = 1000 * [pipeline.step(inputs, targets) for _ in range(2)][-1].timeline.makespan
except OutOfMemoryError as error:
    print("It does not run:", error)
counts = [1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 24, 32, 48, 64]
tuning = shortlist(profile, 64, schedules=("gpipe", "1f1b"), microbatches=counts, memory_limit=limit)
display(plot_tuning(tuning))
print("Of all that fit, by prediction:")
for forecast in tuning.fitting[:3]:
    print(f"  {forecast.candidate}: {1000 * forecast.makespan:.0f} ms, {forecast.peak_bytes / 1e6:.1f} MB")
print(*(f"{candidate}: {why}" for candidate, why in tuning.neighbours()), sep="\n")
reveal("05-explorer", prediction=1000 * foretold.makespan, measurement=took)

# %% [markdown]
# `shortlist` predicts every schedule and m that it is given from the profile, without running any. In its picture m is
# on a logarithmic axis, crosses are what does not fit. (The curves of GPipe and 1F1B differ a little there: stages and
# uneven micro-batches are not equal, and then the order decides who waits for whom.) The neighbours of its choice are
# what differs from it in one thing, each with the reason why it loses. On the command line `pipelab tune` does all of
# the steps above.
#
# ## What to remember
#
# - t(b) = α + βb. The work βB does not care how it is cut; the fixed cost is paid m times; the bubble is p - 1
#   micro-batches.
# - $m^* = \sqrt{(p - 1)\beta B/\alpha}$, with a flat bottom. It comes from measurement, for no rule of thumb knows α.
# - Say what is fixed. Only at a fixed batch is there a knee.
# - Memory bounds m from below under 1F1B at a fixed batch, from above under GPipe at a fixed micro-batch.

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
# If a chunk has 1/v of the operations, $\alpha_v = \alpha/v$, and $m^*_v = m^*/\sqrt{v}$: the bubble is smaller, so the
# formula's optimum moves to the left. Among multiples of p, by the frozen profile:

# %% role="further"
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
# With v = 2 the two smallest m are as good as equal. Multiples of p are too far apart to show where between them the
# optimum lies. What shows is the trend: going from m = 8 down to m = 4 costs far less with v = 2 than with v = 1, and
# going up costs more.
#
# ## Further: layers that look at the batch
#
# So far m changed time and memory and never the gradient. That needs layers which treat each sequence by itself, as
# layer normalisation does. **Batch normalisation** does not: it subtracts a mean and divides by a deviation taken over
# all it is given, and a stage is given one micro-batch. First, how much do such means scatter? Here are the activations
# after layer 23, cut into m pieces: the variance of the pieces' means, in parts of the variance of the values.

# %% role="further"
import warnings

import torch
from torch import nn

fresh = TransformerLM(layers=48)
with torch.no_grad():
    values = fresh.embed(inputs)
    for layer in fresh.layers[:24]:
        values = layer(values)
spread, middle = values.var((0, 1), correction=0), values.mean((0, 1))
for m in (1, 4, 16, 64):
    means = torch.stack([piece.mean((0, 1)) for piece in values.tensor_split(m)])
    part = (((means - middle) ** 2).mean(0) / spread).mean()
    print(f"m = {m:>2}, {64 // m:>2} sequences each: variance of the means {part:.4f} of the values'")

# %% [markdown] role="further"
# The scatter grows about in proportion to m - 1. A mean of b independent sequences has a variance in proportion to 1/b;
# these pieces together make up the batch whose mean they are compared with, and at m = 1 nothing is left. (It does not
# go with the number of tokens: those of one sequence are alike.) What does that do to training? A small model of two
# layers on p = 2 devices, a batch of 32 sequences, once with layer normalisation and once with batch normalisation in
# its place. The error is that of the first step's gradient, against the whole batch's. Then 25 steps on one batch, and
# the loss of the trained model on that batch in use, where batch normalisation takes running averages in place of the
# batch's own mean and deviation.


# %% role="further"
class BatchNorm(nn.BatchNorm1d):
    def forward(self, x):  # (sequences, tokens, width)
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def narrow(kind):
    net = TransformerLM(layers=2, width=32, heads=2)
    for layer in net.layers if kind == "batch" else ():
        layer.norm1, layer.norm2 = BatchNorm(32), BatchNorm(32)
    return net


def adam(named):
    return torch.optim.Adam([parameter for _, parameter in named], lr=3e-3)


half = inputs[:32], targets[:32]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", UserWarning)
    Pipeline(narrow("batch"), build_schedule("1f1b", 2, 8), loss=next_byte_loss)
print("Pipeline warns:", caught[0].message if caught else "not at all")
warnings.simplefilter("ignore", UserWarning)  # told once; from here on it is meant
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
# With layer normalisation m changes nothing. With batch normalisation each m has a gradient of its own. Compare the two
# losses at m = 32, micro-batches of one sequence: there the model has learnt to rely on statistics of the pieces it
# saw, which the running averages do not reproduce. (At m = 8, four sequences, these 25 steps show little of it.) With
# such layers m is part of the learning. That is why `Pipeline` warns.

# %% [markdown] role="further"
# ## Further: everything to turn
#
# The whole explorer: schedule, p, m, v, tF, tB, α, latency, what is held fixed, a memory limit, a second schedule
# beside the first, and a curve of any figure against any of them.

# %% role="further"
explore()

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, B the batch, b the sequences in a micro-batch. Times are in
# milliseconds, unless another unit is given. Nothing here depends on your machine: what is measured was measured once,
# and frozen.

# %% role="setup"
from pipelab.teaching import NotWritten, check, forecasts

# %% [markdown] role="lead" exercise="straight_line" difficulty="easy" minutes=8
# A batch was cut into m equal micro-batches, for several m, and one micro-batch was timed: forward and backward on one
# device. You are given the batch and a list of pairs (m, milliseconds); m divides the batch. Return α and β of
# t(b) = α + βb, where b is the number of sequences in the micro-batch. Fit the line to *all* timings, by least squares
# of the errors in ms or in per cent; both are accepted. Any library may be used. (Some sizes were timed several times.
# The first run of all, the first of the list, was slow. It may stay in or be left out.)


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
# Over which quantity is it a line? It is not the one that you are given.

# %% [markdown] role="hint" exercise="straight_line"
# Turn each m into b = B/m. Then it is an ordinary straight-line fit. Mind which of its two numbers is which.

# %% [markdown] role="hint" exercise="straight_line"
# By hand: β is the sum of (b - mean of b) times (t - mean of t), divided by the sum of (b - mean of b) squared. α is
# the mean of t less β times the mean of b. Or let `numpy.polyfit` of degree 1 do it: it returns the slope first.

# %% [markdown] role="solution" exercise="straight_line"
# Squares of the differences let the large micro-batches decide, squares of the relative differences treat all alike.
# `profile_costs` does the second, since α shows in the small ones. Both are accepted.

# %% [markdown] role="lead" exercise="best_m" difficulty="medium" minutes=10
# A forward and backward of b sequences take alpha + beta · b on each of p devices, messages take no time. Write
#
# - `m_star`, the m at which $T(m) = (m + p - 1)(\alpha + \beta B/m)$ is least, as a number that need not be whole;
# - `choose_m`, an m that can be run: whole, from 1 to B, and a multiple of `multiple` (some schedules ask for multiples
#   of p). It need not divide the batch; take T(m) as it stands. Any m counts whose T is within 5 % of the least that is
#   possible.
#
# alpha and beta are above 0; `multiple` is at most B. p may be 1: one device has no bubble, and `m_star` is 0 there.


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


# %% [markdown] role="hint" exercise="best_m"
# Which two terms of T(m) move with m, and where are they equal? For the second function: what may m never be?

# %% [markdown] role="hint" exercise="best_m"
# One term rises as alpha · m. The other falls: p - 1 times beta times B, over m. Set them equal and solve for m. Then,
# as T has one valley, the best possible m is next to m*: the multiple below it or the one above. Either may be out of
# bounds.

# %% [markdown] role="hint" exercise="best_m"
# `m_star` is a square root of three factors over alpha. `choose_m` can do without it: list all multiples up to the
# batch, and take the one with the smallest T. `min` of a list takes a `key`.

# %% [markdown] role="solution" exercise="best_m"
# One device has no bubble, so one micro-batch is best, though m* = 0. And where alpha is small, m* lies beyond the
# batch; then the batch decides.

# %% [markdown] role="lead" exercise="slices" difficulty="easy" minutes=6
# m need not divide the batch. Write
#
# - `sizes`: how many sequences each of the m micro-batches has, in the order of `torch.tensor_split`: as equal as
#   possible, the larger ones first;
# - `loss_weights`: by what each micro-batch's mean loss has to be multiplied, so that their sum is the mean over the
#   batch. Return them as they are, not rounded.


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
# How many sequences are left over when everybody has got the same? Who gets those?

# %% [markdown] role="hint" exercise="slices"
# Everybody gets the whole part of B/m, and the first few get one more: as many as the remainder. For the weights: each
# *sequence* is to count the same.

# %% [markdown] role="hint" exercise="slices"
# `divmod(B, m)` gives the whole part and the remainder. The list is two lists one after the other. A weight is a
# micro-batch's size, divided by the batch.

# %% [markdown] role="solution" exercise="slices"
# m = 12 gives four of 6 and eight of 5. The sizes differ by 1 at most, so nobody waits long for the larger ones.

# %% [markdown] role="lead" exercise="reading" difficulty="medium" minutes=15
# A sweep is a list of rows such as `{"m": 2, "batch": 64, "step": 273.9, "idle": 60.1, "peak": 111.6}`: the batch in
# sequences, the time of a step in ms, the bubble fraction in per cent, and the memory of the fullest device in MB. In
# some sweeps the batch is fixed, in others the size of a micro-batch, and in others neither. Rows come in any order.
# `limit` is in MB.
#
# Return the m that trains the most sequences per second within the limit (anything within 5 % of it counts), and a dict
# with a reason for each other m of the sweep:
#
# - `"memory"`: it does not fit;
# - `"bubble"`: it fits and is slower, and what grew most, for each sequence, is the time that devices idle;
# - `"granularity"`: it fits and is slower, and what grew most, for each sequence, is the time that they are busy.
#
# (A row that fits and is within 5 % may be given any reason, or none.)


# %% role="answer" exercise="reading"
def read_sweep(rows: list[dict[str, float]], limit: float) -> tuple[int, dict[int, str]]:
    """The sweet spot, and why the others are not.

    >>> few = {"m": 1, "batch": 8, "step": 40.0, "idle": 50.0, "peak": 10.0}
    >>> more = {"m": 2, "batch": 8, "step": 30.0, "idle": 30.0, "peak": 10.0}
    >>> read_sweep([few, more], limit=20)
    (2, {1: 'bubble'})
    """
    ### BEGIN SOLUTION
    fitting = [row for row in rows if row["peak"] <= limit]
    best = max(fitting, key=lambda row: row["batch"] / row["step"])

    def split(row):
        each = row["step"] / row["batch"]
        return each * row["idle"] / 100, each * (1 - row["idle"] / 100)

    reasons = {}
    for row in rows:
        idle, busy = (mine - least for mine, least in zip(split(row), split(best), strict=True))
        if row["peak"] > limit:
            reasons[row["m"]] = "memory"
        elif row is not best:
            reasons[row["m"]] = "bubble" if idle > busy else "granularity"
    return best["m"], reasons
    ### END SOLUTION


# %% [markdown] role="hint" exercise="reading"
# Is the shortest step always the best one? What if its batch is smaller? And does the smallest bubble tell you anything
# about the choice?

# %% [markdown] role="hint" exercise="reading"
# First strike out what is over the limit. Of the rest take the largest batch per time. Then split each row's time per
# sequence into an idle part and a busy part, by its bubble fraction, and compare both parts with those of the best.

# %% [markdown] role="hint" exercise="reading"
# Time per sequence is step over batch. The idle part is that, times idle over a hundred; the busy part is what is left.
# Subtract the best row's parts. Over the limit: memory. Else, if the idle part grew by more: bubble. Else: granularity.

# %% [markdown] role="solution" exercise="reading"
# Where one of the two is fixed, which reason comes out follows from the side: left of the best it is the bubble, right
# of it granularity, and what does not fit lies left at a fixed batch, right under GPipe at a fixed micro-batch. At a
# fixed micro-batch granularity cannot be the reason: the work of a sequence is always cut alike. Where neither is
# fixed, the side says nothing, and the parts of a *step* say nothing either, for a step of a small batch is short in
# all its parts.

# %% [markdown] role="lead" exercise="defend" difficulty="hard" minutes=20
# The worked example, p = 4, a batch of 64, with an optimizer whose state counts as memory. `forecasts()` gives what a
# frozen profile predicts, as a list of rows such as
#
# `{"schedule": "1f1b + R", "m": 24, "latency": 10, "step": 627.8, "idle": 58.5, "peak": 14.8}`:
#
# the schedule ("+ R" recomputes), m, the time that a message takes in ms, the step in ms, idle device-time in per cent,
# and MB on the fullest device. Look at it in a new cell; a function may use it too.
#
# You have devices of 120 MB or of 42 MB, and messages that take no time or 10 ms. For each of the four cases choose a
# schedule and m (anything within 5 % of the fastest that fits counts), and defend the choice: for each configuration in
# `others` give the reason why it loses against the fastest that fits.
#
# - `"memory"`: it does not fit. If it fits, the reason is what costs it the most time against the fastest:
# - `"messages"`: its step would gain more than the fastest's would if messages took no time;
# - `"recompute"`: its second forwards;
# - `"bubble"`: its devices idle longer, for other reasons than messages;
# - `"granularity"`: it pays the fixed costs more often.
#
# Compare step by step: with latency 0 in place of its own; then without R in place of with it; then idle and busy time.
#
# | limit | latency | others |
# | --- | --- | --- |
# | 120 MB | 0 | 1f1b m = 2; 1f1b m = 32; 1f1b + R m = 8 |
# | 42 MB | 0 | 1f1b m = 8; 1f1b m = 32; gpipe m = 16; gpipe + R m = 8 |
# | 120 MB | 10 ms | 1f1b m = 16; gpipe m = 2; gpipe m = 32; gpipe + R m = 8 |
# | 42 MB | 10 ms | gpipe m = 8; 1f1b m = 16; gpipe + R m = 3; gpipe + R m = 32 |


# %% role="answer" exercise="defend"
def defend(limit: int, latency: int, others: list[tuple[str, int]]) -> tuple[str, int, list[str]]:
    """The schedule, m, and a reason for each of the others, in their order.

    >>> defend(limit=20, latency=0, others=[("gpipe", 8)])    # not one of the four; only to show the form
    ('1f1b + R', 12, ['memory'])
    """
    ### BEGIN SOLUTION
    rows = {(row["schedule"], row["m"], row["latency"]): row for row in forecasts()}
    fits = [key for key, row in rows.items() if key[2] == latency and row["peak"] <= limit]
    best = min(fits, key=lambda key: rows[key]["step"])

    def parts(name, m):
        plain, free = rows[name.removesuffix(" + R"), m, 0], rows[name, m, 0]
        idle = plain["step"] * plain["idle"] / 100
        return {
            "messages": rows[name, m, latency]["step"] - free["step"],
            "recompute": free["step"] - plain["step"],
            "bubble": idle,
            "granularity": plain["step"] - idle,
        }

    reasons = []
    for name, m in others:
        mine, least = parts(name, m), parts(*best[:2])
        worst = max(mine, key=lambda part: mine[part] - least[part])
        reasons.append("memory" if rows[name, m, latency]["peak"] > limit else worst)
    return best[0], best[1], reasons
    ### END SOLUTION


# %% [markdown] role="hint" exercise="defend"
# Print the rows of one case that fit, the fastest first. Which schedule cannot be there at all under 42 MB? Which one
# suffers from slow messages?

# %% [markdown] role="hint" exercise="defend"
# The choice is the least step among what fits. For a reason compare the named row with the chosen one, in steps: with
# its own row at latency 0, with the row of the same schedule without R, and then by idle and busy time. Four cases, and
# the answers may as well be written down by hand.

# %% [markdown] role="hint" exercise="defend"
# Per configuration: messages cost the step less the step at latency 0. Recomputing costs the step at latency 0 less
# that of the same schedule and m without R. Of what is left, the idle per cent are bubble and the others busy time.
# Subtract the same four numbers of the best, and name the largest. Over the limit comes first.

# %% [markdown] role="solution" exercise="defend"
# With free messages the schedules are equally fast and 1F1B holds less, so it is 1F1B: near m* where there is room, at
# the least m that fits where there is not. With slow messages 1F1B waits in every round, and GPipe does not: GPipe
# where the whole batch fits, GPipe with recomputation where it does not.
