# ---
# jupyter:
#   pipelab:
#     number: 6b
#     title: "Without a flush: is it worth it?"
#     minutes: 40
#     builds_on: [5, 6]
#     goals:
#       - compare the weights that old versions cost with the activations
#       - say when a flush costs more time than many updates, and when less
#       - say what late gradients do to the largest learning rate that works
#       - choose a method under a limit on memory
# ---

# %% [markdown]
# ## What do you pay for a pipeline that is always full?
#
# Lesson 6 deleted the flush. **PipeDream** and vertical sync update after each micro-batch, and 2BW once in m
# micro-batches. They keep old versions of the weights, and their gradients come late. This page weighs what they save
# against what they cost. Below is PipeDream's table for three batches of m = 4. (`over(schedule, n)` is the table of n
# batches in a row. A batch has 32 sequences on this page.)

# %% role="setup"
import torch
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=32)

# %%
pipedream = build_schedule("pipedream", devices=4, microbatches=4)
plot_timeline(simulate(over(pipedream, 3)), memory=False, phases=False)


# %%
kinds = {"PipeDream": "pipedream", "vertical sync": "vertical-sync", "2BW": "2bw"}


def sgd(named, rate=0.01):
    return torch.optim.SGD([parameter for _, parameter in named], lr=rate)


predict(
    "06b-steady",
    "PipeDream, m = 4, many batches in a row. What percentage of device time is idle? (Device clock.)",
    unit="%",
)

# %% [markdown]
# ## A claim on trial: "PipeDream saves memory"
#
# Some texts recommend PipeDream where memory is tight. The second cell below runs all schedules that you know, with
# the batch fixed at 32 sequences and m = 8. It prints the measured peaks. ("+ R" recomputes activations.
# `measure_family` is the script behind `make demo ARGS=--all`.) First a guess. Under 1F1B device 0 holds 2.5 MB of
# weights and 25.4 MB of activations.

# %%
question = "m = 8. Weights and activations of device 0 under PipeDream, as a percentage of 1F1B with a flush?"
predict("06b-memory", question, unit="%")

# %%
family = measure_family(Setting(batch=32, steps=2, verify=False), microbatches=8)
held = {}
for name, e in family.items():
    held[name] = [(device.model_states.weights / 1e6, device.activations / 1e6) for device in e.report.memory]
    print(f"{name:<15} MB of weights + activations:", ", ".join(f"{w:4.1f} + {a:4.1f}" for w, a in held[name]))
share = 100 * sum(held["pipedream"][0]) / sum(held["1f1b"][0])
display(reveal("06b-memory", measurement=share))
width, tokens = 12288, 2048  # GPT-3's, with 16-bit numbers and one sequence in a micro-batch
version, activations = 12 * width * width * 2 / 1e9, 34 * tokens * width / 1e9
print(f"a layer of GPT-3's size: a version {version:.2f} GB, activations of a micro-batch {activations:.2f} GB")
for r in range(4):
    in_flight = 4 - r
    copies = {"1F1B": 1, "PipeDream": in_flight, "vertical sync": 4, "2BW": 2}
    each = (f"{shown} {n * version + in_flight * activations:.1f} GB" for shown, n in copies.items())
    print(f"device {r}, for each layer:", ", ".join(each))

# %% [markdown]
# Compared with GPipe, PipeDream does save memory in this run. But 1F1B with a flush holds the same activations,
# because it has the same order. So the order saves the memory. The missing flush only costs more: up to p - 1 further
# versions of the weights. In our narrow model weights are small beside activations, and this costs device 0 a quarter
# more. The last lines take a layer at GPT-3's size: 12h² weights, and 34sbh bytes of activations with fused attention
# (*Further* in lesson 2b; h is the width, s the tokens, and b = 1). There one version is as large as several
# micro-batches of activations. 2BW adds one version, for any p.
#
# **Try it:** in the last lines of the cell set `width, tokens = 1024, 8192`. How much more than 1F1B does PipeDream
# then hold on device 0?
#
# <details><summary>What you should see, and why</summary>
#
# Both lines say 1.2 GB. A version now takes less than a tenth of a micro-batch's activations, so three more of them add
# 6 %. Weights grow with the square of the width, activations with the width and with the tokens. So old versions are
# expensive in wide models with short sequences, and cheap in narrow ones with long sequences.
#
# </details>
#
# ## A claim on trial: "utilisation 92 %"
#
# A survey on the web reports 92 % for PipeDream. Its program prints that number without measuring anything. So let us
# measure. The cell runs five steps of PipeDream and drains. (**Draining** means finishing what is under way. Without
# it, a step of PipeDream leaves the pipeline full.) From these steps it takes what each action costs on the device
# clock: the median for its stage and kind. With these costs it composes one run of all five batches. The steady
# state lasts from device 0's first backward to its last forward.

# %%
from statistics import median

batches = 5
with Pipeline(model, pipedream, loss=next_byte_loss, optimizer=sgd) as pipeline:
    reports = [pipeline.step(inputs, targets) for _ in range(batches)] + [pipeline.drain()]
whole = over(pipedream, batches)
costs = {}
for r in range(4):
    steps = [zip(k.schedule.programs[r], k.slot_costs.slots[r], strict=True) for k in reports[1:]]
    for action, cost in (pair for step in steps for pair in step):  # the first step warms up
        costs.setdefault((r, action.op), []).append(cost)
typical = {kind: median(found) for kind, found in costs.items()}


def composed(schedule):
    """The timeline of a table with these costs."""
    return simulate(schedule, SlotCosts([[typical[r, a.op] for a in row] for r, row in enumerate(schedule.programs)]))


def steady_idle(timeline):
    """Idle device time between device 0's first backward and its last forward, as a fraction of total device time."""
    begin = min(span.start for span in timeline.on_device(0) if span.slot.op == "B")
    end = max(span.start for span in timeline.on_device(0) if span.slot.op == "F")
    spans = [*timeline.spans, *timeline.updates]
    return 1 - sum(max(0, min(x.end, end) - max(x.start, begin)) for x in spans) / (4 * (end - begin))


work = [sum(typical[r, op] for op in "FBU") for r in range(4)]
updates = [typical[r, "U"] for r in range(4)]
found = steady_idle(composed(whole))
print(
    f"idle at steady state {found:.1%}; by unequal stages alone, in the long run, {1 - sum(work) / 4 / max(work):.1%}"
)
reveal("06b-steady", prediction=0, measurement=100 * found)

# %% [markdown]
# What is idle at steady state comes from unequal stages: the slowest one sets the pace. (On a busy machine this may be
# 10 % or more. The window is short, so the first figure may even be the smaller one.) The bubble itself is gone.
#
# Where may the 92 % come from? And what does it cost to update so often?

# %%
for n in (1, 2, 9, 30):
    print(f"equal stages, n = {n:>2} batches of m = {4}: utilisation {1 - 3 / (4 * n + 3):.1%}")
print(f"updates take {sum(updates) / sum(work):.1%} of the work without a flush")
for m in (4, 16, 64, 256):
    step = composed(build_schedule("1f1b", 4, m)).makespan + max(updates)
    print(f"m = {m:>3}: 1F1B {8 * m / step:.0f} sequences a second, PipeDream {8 / max(work):.0f} at steady state")

# %% [markdown]
# So 92 % is no property of PipeDream. By the formula nine batches give 92 %, and one batch gives 57 %.
#
# The last lines show the price in time. PipeDream updates after every micro-batch, 1F1B once in m. (These lines keep
# the micro-batch at 8 sequences. 1F1B is composed from the measured costs. PipeDream's pace is that of its slowest
# stage.) At m = 4 the flush costs a lot. The larger m is, the less it costs, and at some m the many updates cost more
# than the bubble. How far away that m is depends on the optimizer and on the size of a micro-batch.
#
# ## Break it: turn the learning rate up
#
# The gradients are right, but late. What does that do to learning? The next model is small: `TransformerLM` with 4
# layers of width 32, one layer on each device. It reads real text, m = 4 micro-batches of two sequences per step,
# with plain SGD. 1F1B, PipeDream, vertical sync and 2BW run at four learning rates and read the same text. A fifth
# row has no delay: micro-batches go through one at a time, with m = 1 and an update after each. No pipeline can do
# that without idling.

# %%
question = "Learning rate 1: how many of the four methods end worse than a uniform guess at the next byte?"
predict("06b-rate", question, unit="methods")

# %%
import math

rates = (0.03, 0.1, 0.3, 1.0)
tiny = {"layers": 4, "width": 32, "heads": 2, "tokens": 16}


def learn(name, rate, m, read=144):
    """Train on `read` sequences. Returns the mean losses of six parts of the run, in order."""
    options = {"optimizer": lambda named: sgd(named, rate), "measure_memory": False, "measure_costs": False}
    pairs = [text_batch(step=k, batch=8, tokens=16) for k in range(read // 8)]
    x, y = (torch.cat(column).split(2 * m) for column in zip(*pairs, strict=True))
    with Pipeline(TransformerLM(**tiny), build_schedule(name, 4, m), loss=next_byte_loss, **options) as pipeline:
        # The loss of a step is the mean over the micro-batches that end in it.
        losses = [pipeline.step(*pair).loss for pair in zip(x, y, strict=True)]
    size = len(losses) // 6
    return [sum(losses[k : k + size]) / size for k in range(0, len(losses), size)]


methods = {"1F1B, flush": ("1f1b", 4), **{shown: (name, 4) for shown, name in kinds.items()}, "no delay": ("1f1b", 1)}
learnt = {(shown, rate): learn(name, rate, m) for shown, (name, m) in methods.items() for rate in rates}
print(f"{'loss at the end, rate':<22}", *(f"{rate:>8}" for rate in rates))
for shown in methods:
    print(f"{shown:<22}", *(f"{learnt[shown, rate][-1]:#8.3g}" for rate in rates))
pipelined = [shown for shown in methods if shown != "no delay"]
uniform = math.log(256)  # a loss that is no number counts as worse
print(f"a uniform guess has a loss of {uniform:.3f}")
reveal("06b-rate", measurement=sum(not learnt[shown, rates[-1]][-1] < uniform for shown in pipelined))

# %%
seen = [24 * (k + 1) for k in range(6)]
axes = {"across": "sequences read", "up": "loss, nats a byte (mean of 24 sequences)"}
note = "Real runs, p = 4, m = 4, plain SGD. No clock is involved. The text is new in each step."
equal = {shown: learnt[shown, rates[1]] for shown in methods}
best = {}
for shown in methods:
    end = {rate: learnt[shown, rate][-1] for rate in rates if learnt[shown, rate][-1] < uniform}
    rate = min(end, key=end.get)
    best[f"{shown}, rate {rate}"] = learnt[shown, rate]
display(plot_curves(seen, equal, **axes, title=f"All at learning rate {rates[1]}", note=note))
plot_curves(seen, best, **axes, title="Each at its own best of four rates", note=note)

# %% [markdown]
# At equal rates PipeDream learns faster than 1F1B. But it also makes four times as many updates. So compare methods
# that make equally many: PipeDream and vertical sync with *no delay*, and 2BW with 1F1B.
#
# - At small rates each delayed method ends near its partner. Late gradients are almost as good, because a few small
#   updates hardly change the weights.
# - Staleness lowers the largest rate that works. At 0.3 vertical sync has lost its way, although *no delay* still
#   learns. At 1 the same happens to 2BW, although 1F1B learns. The update was computed for a place that the weights
#   have left, and large steps lead further away each time.
# - PipeDream stays near *no delay* at all four rates in this run. Its stages are 1.5 updates behind on average, and
#   those of vertical sync are 3. With more devices stage 0 is further behind.
# - Each at its own best rate, the methods end closer together than at rate 0.1. PipeDream and vertical sync still
#   make more updates than 1F1B and 2BW. Training with small batches makes as many updates without a pipeline.
#
# This is a short run of a small model, and the last loss is a mean over few sequences. So small differences in the
# table mean nothing. But one warning is clear: a rate that was tuned with a flush may be too large
# without one.
#
# ## Who would choose them today?
#
# This is the whole family in one table, from the runs of the memory claim: p = 4, m = 8, 32 sequences.

# %%
print(family_table(family, ["bubble", "peak activation bytes", "versions", "stale", "messages"]))

# %% [markdown]
# The bubble is predicted for equal stages, then measured with the device clock. Without a flush it is that of many
# steps in a row. Activations and versions are those of devices 0 to 3. "Stale" says by how many updates, at most, the
# weights of a gradient are behind. Messages are those of one step. (`make demo ARGS=--all` prints this table for m = 4
# and 64 sequences, and compares each run with the unsplit model or with the schedule's formula.)
#
# Only the last three have almost no bubble, and only they are stale. (What is idle there comes from unequal stages, and
# from other programs on the machine.) Recomputation saves the most memory, and pays with
# time that this column counts as work.
#
# Large language models are mostly trained with a flush. All schedules that ship with PyTorch's
# `torch.distributed.pipelining` have one. There are good reasons:
#
# - With a flush the result is that of the unsplit model. It does not depend on p, and can be checked.
# - Large batches allow m far above p. Then the bubble is small, and an update after every micro-batch is expensive.
# - Several versions of large weights take several times the memory, as the lines for GPT-3's size show.
# - Interleaving (lesson 4) shrinks the bubble without stale weights, and lesson 7 goes further.
#
# A schedule without a flush is worth considering where these reasons do not apply. The batch is small and must stay
# small, so that m is near p. The weights are small beside the activations. And somebody can afford to tune the
# learning rate for late gradients. 2BW then asks the least: one more version, and one update of delay whatever p.
#
# ## What to remember
#
# - The order of 1F1B saves the activations, with or without a flush. Old versions only add weights.
# - A flush costs time when m is small. Many updates cost time when m is large.
# - Late gradients can lower the largest learning rate that works.
# - A flush makes the result that of the unsplit model. That is why large models are trained with one.
#
# **Where this leads.** Lesson 7 keeps the flush and fills the bubble with other work. Your guesses so far:

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices, and m the number of micro-batches in a batch.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="delayed_update" difficulty="medium" minutes=12
# 2BW as one device sees it: train a whole model, one batch per call, by the formula
#
# $$v = \text{momentum} \cdot v + g(W(t - 1)), \qquad W(t + 1) = W(t) - \text{lr} \cdot v, \qquad W(-1) = W(0)$$
#
# g is the gradient of the batch's loss: the mean over its micro-batches, which have the same size. v begins at 0, and
# without momentum it is g. When your function is called, the model holds W(t). When it returns, the model must hold
# W(t + 1), in the same parameters. `state` is a dictionary. It is empty at first, and it comes back in the next call:
# keep there what you need. Write it with plain tensors. Parameters may come with an old `.grad`, which does not
# belong to this batch. The check compares the weights after each batch with those of pipelab's own reference, in
# float64.


# %% role="answer" exercise="delayed_update"
from collections.abc import Callable

import torch


def train_batch(
    model: torch.nn.Module, state: dict, loss: Callable, microbatches: list[tuple], lr: float, momentum: float
) -> None:
    """One update of 2BW. ``microbatches`` are pairs (x, y), and ``loss(model(x), y)`` is the loss of one.

    >>> layer, state = torch.nn.Linear(1, 1, bias=False), {}
    >>> weight = torch.nn.init.ones_(layer.weight)
    >>> for batch in range(2):
    ...     train_batch(layer, state, lambda out, y: out.square().mean() / 2, [(torch.ones(1, 1), None)], 0.5, 0.0)
    >>> weight.item()    # without a delay it would be 0.25
    0.0
    """
    ### BEGIN SOLUTION
    newest = [p.detach().clone() for p in model.parameters()]
    stashed = state.get("stashed", newest)
    with torch.no_grad():
        for p, old in zip(model.parameters(), stashed, strict=True):
            p.copy_(old)
    model.zero_grad()
    for x, y in microbatches:
        (loss(model(x), y) / len(microbatches)).backward()
    velocity = state.get("velocity", [torch.zeros_like(w) for w in newest])
    state["stashed"] = newest
    state["velocity"] = [momentum * v + p.grad for v, p in zip(velocity, model.parameters(), strict=True)]
    with torch.no_grad():
        for p, w, v in zip(model.parameters(), newest, state["velocity"], strict=True):
            p.copy_(w - lr * v)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="delayed_update"
# At some moment in each call the model must hold the version before the newest. What do you need to come back from it?

# %% [markdown] role="hint" exercise="delayed_update"
# Make a copy of the newest weights first, with `clone`. Then write the kept version into the model, and run forwards
# and backwards as in lesson 2b's exercise on accumulation. At the end write the result into the model. All writing into
# parameters goes under `torch.no_grad()`.

# %% [markdown] role="hint" exercise="delayed_update"
# Two lists of tensors go through the dictionary from one call to the next, and v is one of them. What is the other, and
# what stands in for it in the first call? After the backwards the model holds W(t - 1). From which list does the step
# start, if not from the model?

# %% [markdown] role="solution" exercise="delayed_update"
# The optimizer's state belongs to the newest weights, not to a version: there is one v for all versions.
# PipeDream's last stage is the same without the delay. Its first stage keeps p - 1 older versions, not one.

# %% [markdown] role="lead" exercise="under_a_limit" difficulty="hard" minutes=22
# A model is cut into p equal stages, one per device. You know these bytes of one stage:
#
# - `weights`: one version of its weights. The gradients take as much again, whatever the method.
# - `optimizer`: the optimizer's state. There is one, no matter how many versions are kept.
# - `activations`: those of one micro-batch, from its forward to its backward. Of these bytes, `stage_input` are the
#   input of the stage.
#
# No device may hold more than `limit` bytes, and device 0 needs the most. There are six methods, in this order:
#
# - `"gpipe"`;
# - `"gpipe-recompute"`: a micro-batch keeps only its input. While its backward runs, it has all its activations
#   instead. One backward runs at a time. A recomputation needs no gradient, so it may run while the device waits.
# - `"1f1b"`;
# - `"pipedream"` and `"vertical-sync"`, with an update after each backward;
# - `"2bw"`, with an update after every m backwards. It is allowed only if m is at least p.
#
# The methods without a flush have run for a long time, so their pipeline is full: device 0 has p micro-batches in
# flight, for any m. Updates and messages take no time. Return three things:
#
# 1. A dictionary of the methods that fit: for each name a pair of its lost time and its staleness. Time is lost if a
#    device idles or recomputes, as a fraction of total device time. A forward takes 1, a backward 2 and recomputing a
#    forward 1. Staleness is by how many updates a gradient is older than the weights that it changes, as a mean over
#    the stages.
# 2. The method of these that loses the least time.
# 3. The method of these with the least staleness.
#
# If two are equal (up to rounding), the other of the two figures decides. Then the fewer bytes decide, then the order
# above. Return `"none"` for both choices if nothing fits.


# %% role="answer" exercise="under_a_limit"
def choose_method(
    weights: int, optimizer: int, activations: int, stage_input: int, devices: int, microbatches: int, limit: int
) -> tuple[dict[str, tuple[float, float]], str, str]:
    """What fits on a device, and of that the method that loses the least time and the one that is the least stale.

    >>> gb = 10**9
    >>> sizes = (4 * gb, 8 * gb, 1 * gb, gb // 10)
    >>> fits, fastest, freshest = choose_method(*sizes, devices=4, microbatches=1, limit=18 * gb)
    >>> fits == {"gpipe": (0.75, 0), "gpipe-recompute": (1 - 3 / 13, 0), "1f1b": (0.75, 0)}
    True
    >>> fastest, freshest    # equal in all, so the order above decides
    ('gpipe', 'gpipe')
    """
    ### BEGIN SOLUTION
    p, m = devices, microbatches
    versions = dict.fromkeys(("gpipe", "gpipe-recompute", "1f1b"), 1) | {"pipedream": p, "vertical-sync": p, "2bw": 2}
    in_flight = {"gpipe": m * activations, "gpipe-recompute": (m - 1) * stage_input + activations}
    in_flight["1f1b"] = min(p, m) * activations
    stale = {"pipedream": (p - 1) / 2, "vertical-sync": p - 1, "2bw": 1}
    rated = {}
    for order, name in enumerate(versions):
        work = 4 * m if name == "gpipe-recompute" else 3 * m
        idle = 0 if name in stale else 3 * (p - 1)
        total = versions[name] * weights + weights + optimizer + in_flight.get(name, p * activations)
        if total <= limit and (name != "2bw" or m >= p):
            rated[name] = (1 - 3 * m / (work + idle), stale.get(name, 0), total, order)
    if not rated:
        return {}, "none", "none"
    quickest = min(rated, key=lambda name: rated[name])
    freshest = min(rated, key=lambda name: (rated[name][1], rated[name][0], *rated[name][2:]))
    return {name: rating[:2] for name, rating in rated.items()}, quickest, freshest
    ### END SOLUTION


# %% [markdown] role="hint" exercise="under_a_limit"
# Make a table on paper: one row per method, with versions, micro-batches in flight on device 0, lost time, staleness.

# %% [markdown] role="hint" exercise="under_a_limit"
# Device 0 has as many micro-batches in flight in each order of 1F1B, with and without a flush, if there are enough of
# them. The flush costs p - 1 forwards and p - 1 backwards of waiting per step. Stage s of PipeDream is behind by as
# many updates as it has warm-up forwards. What is the mean of that over the stages?

# %% [markdown] role="hint" exercise="under_a_limit"
# For each method that fits keep four numbers: lost time, staleness, bytes, place in the list. Python compares tuples
# from left to right. In which order should they stand for each of the two choices? For the lost time, which part of a
# step of GPipe with recomputation is neither a forward nor a backward?

# %% [markdown] role="solution" exercise="under_a_limit"
# Without a flush no time is lost, but it costs weights: p versions, or two. Where weights are large and activations
# small, only methods with a flush fit. Where both fit, a larger m makes the flush cheap, and it costs no staleness.
# That is why large models are trained with a flush today.
