# ---
# jupyter:
#   pipelab:
#     number: 2b
#     title: "GPipe: its gradient and its memory"
#     minutes: 60
#     builds_on: [2]
#     goals:
#       - accumulate gradients over micro-batches so that they equal the gradient of the whole batch
#       - say when m cannot change the gradient, and what to count when some targets are ignored
#       - say what GPipe holds at a fixed batch and at a fixed micro-batch
#       - say what recomputation saves and costs, in memory and in time
# ---

# %% [markdown]
# ## Is it still the same gradient?
#
# Lesson 2 cut the batch of 64 sequences into m micro-batches, and overlapped them. That saves time. But does training
# still compute the gradient of the whole batch? And what do the devices hold while so many micro-batches are on their
# way? This page answers both questions for **GPipe**. The first cell makes the tables for m = 1, 2, 4, 8 and 16. The
# folded cell has `run` and `averages` of lesson 2. It also runs GPipe once, for a comparison near the end of the
# page.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
tables = {m: build_schedule("gpipe", devices=4, microbatches=m) for m in (1, 2, 4, 8, 16)}


# %% jupyter={"source_hidden": true}
def run(schedule, clock="unit", batch=64, steps=1, costs=None):
    """Really run a schedule on the first sequences of the batch; return the report of the last step."""
    with Pipeline(model, schedule, loss=next_byte_loss, clock=clock, costs=costs) as pipeline:
        return [pipeline.step(inputs[:batch], targets[:batch]) for _ in range(steps)][-1]


def averages(timeline):
    """Each stage's average forward, backward and, where there is one, recomputation: Costs for the simulator."""
    names = {"F": "forward", "B": "backward", "R": "recompute"}
    times = {}
    for span in timeline.spans:
        times.setdefault(names[span.slot.op], [[] for _ in range(4)])[span.device].append(span.duration)
    return Costs(**{name: [sum(row) / len(row) for row in rows] for name, rows in times.items()})


given = Costs(forward=1, backward=2)
earlier = run(tables[4], "device", steps=4).timeline  # GPipe as measured now, to be compared with a later run

# %% [markdown]
# ## What is added up
#
# All micro-batches of a step must use the same model weights. So a device **accumulates** gradients: it adds up those
# of all m micro-batches. It updates its weights once, after the last backward. The end of a step, when all backwards
# are done and the weights change, is called the **flush**. PyTorch adds by itself: `backward()` adds to what is in
# `.grad`.
#
# But what should be added? The loss of a batch of n sequences is a mean. Micro-batch i has $n_i$ sequences. Its own
# mean loss is $\ell_i$, with gradient $g_i$. The mean loss of the batch is $\frac{1}{n} \sum n_i \ell_i$. Its gradient
# is
#
# $$g = \sum_i \frac{n_i}{n}\, g_i$$
#
# The $n_i / n$ are factors that add up to 1. If all micro-batches have the same size, each factor is 1/m, and g is
# the mean of the $g_i$. If you cut 64 sequences into 12, you get four micro-batches of 6 and eight of 5. The next
# cell computes the true $g_i$ of a 48-layer model. It combines them in five ways, and compares each result with the
# gradient of the whole batch. (The layers are narrower than usual, because this model runs many times.)

# %%
import torch

exact = TransformerLM(layers=48, width=16).double()  # in float64, rounding errors are far below all others


def cut(m, targets=targets):
    return list(zip(inputs.tensor_split(m), targets.tensor_split(m), strict=True))


def gradients(model, inputs, targets):
    return unsplit_gradients(model, next_byte_loss, inputs, targets).gradients


def error(pieces, factors, whole, kind=torch.float64):
    """The sum of factor times gradient against the true gradient: the largest error over the largest true entry."""
    scaled = [{name: (f * g[name]).to(kind) for name in whole} for f, g in zip(factors, pieces, strict=True)]
    added = {name: sum(g[name] for g in scaled).double() for name in whole}
    return gradient_error(added, whole)


whole = gradients(exact, inputs, targets)
pieces = {m: [gradients(exact, *pair) for pair in cut(m)] for m in (4, 12)}
shares = {m: [len(x) / 64 for x, _ in cut(m)] for m in pieces}
ways = {
    "factors 1: the sum": lambda m: [1] * m,
    "factors 1/m: the mean of means": lambda m: [1 / m] * m,
    "factor 1 for the last one only": lambda m: [0] * (m - 1) + [1],
    "factors n_i / n": lambda m: shares[m],
}
for way, factors in ways.items():
    told = [f"m = {m}: {error(pieces[m], factors(m), whole):7.1e}" for m in pieces]
    print(f"{way:<35} error at", "; ".join(told))
told = [f"m = {m}: {error(pieces[m], shares[m], whole, torch.bfloat16):7.1e}" for m in pieces]
print(f"{'factors n_i / n, added in bfloat16':<35} error at", "; ".join(told))

# %% [markdown]
# Only one of the five is right for both m. The others are classic mistakes:
#
# - **The sum.** `loss.backward()` on each micro-batch's mean loss adds m gradients of full size. If all have the same
#   size, the result is m times too large, an error of m - 1. With plain SGD this acts like a learning rate that is m
#   times too high. Adam divides by the size of the gradient, so it hides the mistake. Gradient clipping does not hide
#   it: gradients now reach the threshold too soon.
# - **The mean of means** is exact while all micro-batches have the same size. It is slightly wrong as soon as their
#   sizes differ, and you will hardly see that in a loss curve.
# - **The last one only** is what you get if `zero_grad()` stands inside the loop over micro-batches instead of before
#   it.
# - **The sum in bfloat16** has the right factors, but keeps only two or three decimal digits. (How much is lost
#   depends on the numbers, so m = 12 may do better than m = 4.) So in mixed precision the sum is usually kept in 32
#   bits. Then lesson 1's 16 bytes for each parameter become 18, because the gradient takes 4 bytes instead of 2.
#
# ## Count the terms
#
# The factors $n_i / n$ rest on an assumption: every sequence has the same number of loss terms. In practice many
# targets do not count. Padding does not count, for example. Nor does a prompt, if only the answer is to be learnt.
# PyTorch's cross-entropy takes its mean over the targets that count, and ignores those equal to -100. So $n_i$ has to
# be the number of *terms* in micro-batch i, and n the number of terms in the batch.
#
# In the next test every sequence begins with a prompt of random length, whose targets are ignored. We cut the batch
# into m = 4, 16 and 64 micro-batches; at m = 64 each holds one sequence. There some sequences have 32 terms and some
# have one. How large is the error if the factors count sequences?

# %%
question = "m = 64, factors by sequences: the largest error, as a percentage of the largest gradient entry?"
predict("02b-terms", question, unit="%")

# %%
small = TransformerLM(layers=4, width=16).double()  # 4 layers are enough, one on each device
prompts = torch.randint(32, (64, 1), generator=torch.Generator().manual_seed(0))
asked = targets.masked_fill(torch.arange(32) < prompts, -100)  # a sequence has 32 targets


def terms(targets):
    return (targets != -100).sum().item()


whole, by_sequences = gradients(small, inputs, asked), {}
print(f"{terms(asked)} of {asked.numel()} targets count")
for m in (4, 16, 64):
    pieces, counts = [gradients(small, *pair) for pair in cut(m, asked)], [terms(t) for _, t in cut(m, asked)]
    by_sequences[m] = error(pieces, [1 / m] * m, whole)
    by_terms = error(pieces, [count / terms(asked) for count in counts], whole)
    print(f"m = {m:>2}, {min(counts)} to {max(counts)} terms each: error of factors", end=" ")
    print(f"by sequences {by_sequences[m]:.1e}, by terms {by_terms:.1e}")
pipeline = Pipeline(small, build_schedule("gpipe", devices=4, microbatches=12), loss=next_byte_loss, loss_terms=terms)
sizes = pipeline.schedule.microbatch_sizes(64)
print(f"a pipeline with m = {len(sizes)}, sequences in each micro-batch: {sizes}")
errors = [pipeline.verify(inputs, t) for t in (targets, asked)]
print(f"its largest gradient error: {errors[0]:.1e} where all targets count, {errors[1]:.1e} with prompts")
reveal("02b-terms", measurement=100 * by_sequences[64])

# %% [markdown]
# The error grows with m, because the counts of small micro-batches differ more from their mean. This is a well-known
# bug in real training code. (The last lines are about a pipeline with m = 12.) Hugging Face's trainer averaged the
# means of micro-batches until a fix in 2024 ([transformers
# #34191](https://github.com/huggingface/transformers/pull/34191)).
# The runtime here counts terms, if you give it a function as `loss_terms`. Before each backward it multiplies the loss
# by the micro-batch's share of the batch's terms. Plain addition is then right, as the last line shows.
#
# If terms are counted, m does not change the gradient, on two more conditions. First, each layer treats every
# sequence by itself. Batch normalisation does not. Second, a dropout mask depends on its sequence and not on m.
# PyTorch's own dropout draws masks in the order in which they are needed. A cell under *Further* shows what happens
# otherwise.
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
predict("02b-memory", question, unit="%")

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
display(reveal("02b-memory", prediction=100, measurement=100 * flat[-1] / flat[0]))
rows = [[f"{r}{op}{i}" for i in range(4) for op in "FB"] for r in range(4)]
others = {"naive": build_schedule("naive", 4, 4), "serial": Schedule.from_rows(rows, name="serial"), "GPipe": tables[4]}
for name, report in {name: run(table) for name, table in others.items()}.items():
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
# the first three tables of lesson 2. They show what overlap costs: GPipe holds as much as the naive run, and four
# times as much as the serial run.
#
# ## Recomputation: time for memory
#
# GPipe's paper has an answer to that. A stage's activations follow from its input. So a device keeps only the input of
# each micro-batch and throws the rest away. It runs the forward once more before the backward. This is
# **recomputation** (also *activation checkpointing* or *rematerialisation*). In a table it is an action of its own, R.
#
# A device then holds the inputs of m micro-batches, which are small, and the activations of only *one*. At a fixed
# batch this peak falls with m. In return each device works for $m\,(t_F + t_R + t_B)$, where $t_R$ is about $t_F$. An
# R needs no gradient, so a device may run one while it waits.

# %%
predict(
    "02b-recompute",
    "p = m = 4, tB about 2 tF, device clock: by what percentage does R lengthen the makespan?",
    unit="%",
)

# %% [markdown]
# The next cell runs the two tables alternately, so that a busy machine disturbs both equally. Its prediction takes
# each stage's average $t_F$ and $t_B$ from the run without R, and sets $t_R = t_F$, as `simulate` does by itself.

# %%
with_r = build_schedule("gpipe", devices=4, microbatches=4, recompute=True)
pair = [Pipeline(model, table, loss=next_byte_loss, clock="device") for table in (tables[4], with_r)]
for _ in range(7):  # the first step only warms up
    plain, recomputed = [pipeline.step(inputs, targets) for pipeline in pair]
fixed = "Batch fixed at 64 sequences, m = 4 micro-batches of 16"
titles = ["GPipe", "GPipe with recomputation"]
display(plot_schedules([plain.timeline, recomputed.timeline], titles, title=fixed, memory=True))
print(f"peak of device 0: {recomputed.peak_activation_bytes[0] / plain.peak_activation_bytes[0]:.0%} of that without R")

before, after = averages(plain.timeline), averages(recomputed.timeline)
tF, tB = sum(before.forward), sum(before.backward)
print(f"without R: tB = {tB / tF:.2f} tF")
print(f"with R: F takes {sum(after.forward) / tF:.2f} and R {sum(after.recompute) / tF:.2f} of tF", end=", ")
print(f"B takes {sum(after.backward) / tB:.2f} of tB")


def price(timeline, reference):
    return 100 * (timeline.makespan / reference.makespan - 1)


without = simulate(tables[4], before)
expected, corrected = price(simulate(with_r, before), without), price(simulate(with_r, after), without)
print(f"price predicted from tF and tB without R: {expected:.1f} %; from the averages with R: {corrected:.1f} %")
ideal = {}
for m in (4, 16, 64):
    longer, plainer = (build_schedule("gpipe", devices=4, microbatches=m, recompute=again) for again in (True, False))
    ideal[m] = price(simulate(longer, given), simulate(plainer, given))
print(f"at tB = {given.backward} tF, tR = tF:", ", ".join(f"m = {m}: {found:.1f} %" for m, found in ideal.items()))
print(f"the table without R, measured earlier on this page: {price(earlier, plain.timeline):+.1f} %")
reveal("02b-recompute", prediction=expected, measurement=price(recomputed.timeline, plain.timeline))

# %% [markdown]
# The peak falls to little more than the share of one micro-batch, a quarter. In return every device runs m more
# actions, and the step becomes longer by the time of these m actions. For equal stages:
#
# $$\text{makespan} = m\,(t_F + t_R + t_B) + (p - 1)(t_F + t_B)$$
#
# With the same $t_F$ and $t_B$ the idle time stays $(p - 1)(t_F + t_B)$. If an R had to wait for the gradient, as its
# B has to, the idle time would be $(p - 1)(t_F + t_R + t_B)$. But an R needs only the input that its device has kept.
# In the picture devices 0 to 2 run R0 early, while they wait.
#
# Our price is a percentage of the makespan, and the makespan contains the bubble. R lengthens the work and not the
# bubble, so the price is a smaller percentage of the makespan than of the work. At $t_B = 2 t_F$ and $t_R = t_F$ it
# is 19 % for m = 4. For large m it grows towards 33 %, which is what R adds to the work.
#
# The measured price may lie on either side of the prediction. The averages in the output show how: F, R and B do not
# cost exactly what F and B cost without R. An F that keeps nothing for a backward builds no graph, so it costs less
# than before. During R the runtime checks that each layer draws the same random numbers as in F, and the check costs
# time too. The work of B is the same in both runs, but its time may differ: it now finds other data in the cache. The
# second price in the output is predicted from these averages. The rest of the difference is random variation.
#
# The last line printed shows why the two tables run alternately. It compares two runs of the same table without R:
# the one in the folded cell at the top, and the one here. (A minus says that the earlier run was faster.) On a busy
# machine this difference can be larger than the price itself. The device clock counts no waiting, but a busy machine
# also makes the work itself slower: caches and memory are shared.
#
# The peaks again, with recomputation as the third curve:

# %%
remade = {m: build_schedule("gpipe", devices=4, microbatches=m, recompute=True) for m in ms}
peaks = [run(remade[m]).peak_activation_bytes[0] / 1e6 for m in ms]
held["GPipe with recomputation, batch fixed at 64 sequences"] = peaks
plot_curves(ms, held, **axes, title="What GPipe holds, with and without recomputation", note=note)

# %% [markdown]
# At m = 1 recomputation saves nothing: the one micro-batch that is recomputed is the whole batch. With more pieces it
# saves more, while the added work stays the same: one forward of the whole batch. The paper writes the peak of a
# device as O(N + L/K · N/M), for L layers on K devices and N sequences in M micro-batches. (Our letters for K and M
# are p and m.) The first term is the inputs of all N sequences. The second is the activations of L/K layers for one
# micro-batch of N/M sequences.

# %% [markdown]
# ## A claim on trial: "at m = 4p the bubble is negligible"
#
# GPipe's paper reports that the bubble was negligible in its experiments when M ≥ 4 K, that is m ≥ 4p. At m = 4p the
# formula gives $(p - 1)/(5p - 1)$: 15.8 % at p = 4, and close to 20 % for many devices. One reason that the paper
# gives is that R may run early. So we compare GPipe with R and without R, at $t_B = 2 t_F$ and $t_R = t_F$.

# %%
for recompute in (False, True):
    table = build_schedule("gpipe", devices=4, microbatches=16, recompute=recompute)
    t = simulate(table, given)
    print(f"recompute={recompute!s:<6} bubble fraction {t.bubble_fraction:.1%}, makespan {t.makespan:g} (predicted)")

# %% [markdown]
# With R the bubble fraction is smaller, 12.3 %. But that is an eighth of all device time, so it is not negligible
# here. And the step is longer: the idle time is the same, but it is now part of a longer step. A smaller bubble
# fraction alone does not make a faster step.
#
# ## Break it
#
# The checker asks only that an R comes after its F and before its B. Here is a table that keeps this rule: every
# device runs all its forwards, then all its Rs, and then all its backwards. What does device 0 hold at the peak?

# %%
order = "F0 F1 F2 F3 R0 R1 R2 R3 B0 B1 B2 B3"
rows = [[f"{r}{action}" for action in order.split()] for r in range(4)]
all_first = Schedule.from_rows(rows, name="all R first")
for name, table in {"GPipe": tables[4], "with recomputation": with_r, "all R first": all_first}.items():
    report = run(table)
    peak = report.peak_activation_bytes[0] / 1e6
    print(f"{name:<20}{len(check_schedule(table))} violations, {report.timeline.makespan:g} units", end=", ")
    found = Pipeline(small, table, loss=next_byte_loss).verify(inputs, targets)
    print(f"peak of device 0 {peak:.1f} MB, gradient error {found:.0e}")

# %% [markdown]
# The checker finds nothing, the gradients are right, and the step takes as long as with R in its usual place. But
# after its last R each device holds the activations of all four micro-batches, as without recomputation. We pay for
# the second forward, and it saves nothing. So an R belongs just before its B. In the table with recomputation only R0
# is early, and that costs no memory, because no other micro-batch is recomputed by then.
#
# **Try it:** in `order`, let `R0 R1 B0 R2 B1 R3 B2 B3` follow the forwards. How long does the step take, and
# what does device 0 hold?
#
# <details><summary>What you should see, and why</summary>
#
# It takes the same 18 units and holds twice as much as GPipe with recomputation. In all three orders the last device
# starts at t = 3 and runs its 12 actions without a pause. Then the last gradient passes the three other devices. So an
# R that is even earlier saves no time, and it keeps one more micro-batch.
#
# </details>
#
# ## What to remember
#
# - Multiply each gradient by its share of the loss terms, then add. Change the model's weights once, at the flush.
# - At a fixed batch GPipe holds the whole batch, unless it recomputes. At a fixed micro-batch it holds more as m grows.
# - Recomputation costs a second forward. A device then holds the inputs of all micro-batches, and the activations of
#   one.
# - A table without faults can still waste memory or time. The checker looks at neither.
#
# **Where this leads.** Lesson 3 changes the order once more, to need less memory without recomputation. What will that
# do to the bubble?

# %%
ledger()

# %% [markdown] role="further"
# ## Further: recompute less
#
# R need not repeat the whole forward. Korthikanti et al. (2022, arXiv 2205.05198) count the bytes that a transformer
# layer keeps in mixed precision as $sbh\,(34 + 5as/h)$. Here s is the number of tokens, b of sequences and a of
# attention heads, and h is the width. The second term counts the attention matrices. **Selective recomputation**
# drops only these. It repeats only the core of attention, which is a small part of the work. Today's fused attention
# kernels (Dao et al. 2022, arXiv 2205.14135) never keep these matrices. Then the second term is gone, and selective
# recomputation of attention has little left to save.
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
# from the same seed. Then a pipeline with m = 4 does the same with this course's dropout, whose masks depend only on
# the layer and the sequence.

# %% role="further"
import copy

few = 4
by_sequence = TransformerLM(layers=4, width=16, dropout=0.1).double()
ordinary = copy.deepcopy(by_sequence)
for block in ordinary.layers:
    block.drop1, block.drop2 = torch.nn.Dropout(0.1), torch.nn.Dropout(0.1)  # the two dropouts of a layer
drawn = {}
for m in (1, few):
    torch.manual_seed(0)
    drawn[m] = [gradients(ordinary, *pair) for pair in cut(m)]
print(f"nn.Dropout, m = {few} against the whole batch: error {error(drawn[few], shares[few], drawn[1][0]):.1e}")
pipeline = Pipeline(by_sequence, tables[few], loss=next_byte_loss)
print(f"masks by layer and sequence, m = {few}: error {pipeline.verify(inputs, targets):.1e}")

# %% [markdown] role="further"
# Both gradients of `nn.Dropout` are valid samples, and training works with either. But with it you can no longer prove
# by comparison that a pipeline computes the right gradient.

# %% [markdown] page="exercises"
# Two exercises: the bubble of GPipe with recomputation, and exact accumulation.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="bubbles" difficulty="medium" minutes=15
# GPipe runs on p devices with m micro-batches. A forward of one micro-batch takes `forward` on each device, a
# backward takes `backward`, and messages take no time. In addition, each device recomputes every micro-batch before
# its backward. This takes `recompute`, which may be 0, and counts as busy time. As in the lesson, an R does not wait
# for a gradient. Write
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
# backward: the lesson says why R is not in this sum. Form both quotients. For the last function write the requirement
# as an inequality: busy time over total time is at least the wanted share.

# %% [markdown] role="hint" exercise="bubbles"
# In the inequality, multiply by both denominators and collect m on one side. You get a quotient of whole numbers,
# rounded up. Do not use floating point there: the quotient may come out slightly above a whole number, and rounding
# up then gives one too many. Python's `//` rounds down, also below zero: `-7 // 2` is -4. What is the negative of
# that? Then try p = 1.

# %% [markdown] role="solution" exercise="bubbles"
# Without recomputation `forward` and `backward` cancel, whatever they are. With it they do not: R adds work and no idle
# time, so the bubble becomes a smaller part of a longer step. For 90 % the last function gives 9(p - 1): 27
# micro-batches for 4 devices, 135 for 16.

# %% [markdown] role="lead" exercise="accumulate" difficulty="medium" minutes=15
# A batch is too large to go through the model at once: only one micro-batch's activations fit. Cut the batch into m
# micro-batches. Finish the forward and the backward of one micro-batch before you begin the next. Leave the gradient
# of the *whole batch's mean loss* in the parameters' `.grad`, as one backward of the whole batch would. The batch
# need not be a multiple of m, but m is at most the number of sequences. Cut as `torch.tensor_split` does: 64 into 12
# gives four micro-batches of 6 and eight of 5.
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
# `backward()` adds to what is in `.grad`. What must be there before the first backward? And what can you multiply, so
# that plain addition is right?

# %% [markdown] role="hint" exercise="accumulate"
# Clear the gradients once, before the loop. The gradient is linear in the loss: if you multiply a micro-batch's loss
# by a factor, you multiply its gradient.

# %% [markdown] role="hint" exercise="accumulate"
# Cut inputs and targets in the same way, and walk through both together. A micro-batch's factor is the quotient of
# two lengths. Write the factors for 64 into 12 by hand, and check that they add up to 1. Multiply before the
# backward, not after it.

# %% [markdown] role="solution" exercise="accumulate"
# Each graph is freed by its own backward, so only one micro-batch's activations exist at a time. Accumulation is the
# lesson's serial run, on one device. The factors for m = 12 are 6/64 and 5/64. A factor of 1/12 for each would be right
# if all sizes were equal. Where some targets are ignored, count loss terms instead of sequences.
