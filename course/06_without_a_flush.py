# ---
# jupyter:
#   pipelab:
#     number: 6
#     title: "Without a flush: PipeDream and its versions"
#     minutes: 45
#     builds_on: [3, 5]
#     goals:
#       - say what a flush costs, and what breaks when it is deleted
#       - provoke the wrong gradient, and mend it by weight stashing
#       - count weight versions and staleness per stage, for PipeDream, vertical sync and 2BW
#       - weigh the bubble that a flush costs against the memory and the learning that its absence costs
# ---

# %% [markdown]
# ## Why should the next batch wait?
#
# So far every step ended with a flush: the pipeline ran empty, and then the weights changed. Then the pipeline had to
# fill again. The idle time of lessons 2 to 5 comes from this filling and emptying. What if the forwards of the next
# batch entered while the last backwards of this one were still on their way? The next cell draws both tables for three
# batches, with p = 4 and m = 4. (To save you time, a batch has 32 sequences on this page, half of the usual.)

# %% role="setup"
import math
import torch
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=32)


# %%
def with_flush(n, m=4):
    """n steps of 1F1B in one table. Device 0 ends each step last, so its order alone makes the next step wait."""
    rows = [
        [Action(a.stage, a.op, a.microbatch + k * m) for k in range(n) for a in row]
        for row in build_schedule("1f1b", devices=4, microbatches=m).programs
    ]
    return Schedule.from_rows(rows, name="1f1b")


pipedream = build_schedule("pipedream", devices=4, microbatches=4)
pair = [simulate(with_flush(3)), simulate(over(pipedream, 3))]
titles = ["Three batches, a flush after each", "Three batches without a flush"]
display(plot_schedules(pair, titles, title="What the flush costs"))
idle = f"With a flush {pair[0].bubble_fraction:.1%} of the device time is idle"
predict("06-steady", f"{idle}. And without one, once the pipeline is full? (Real run, device clock.)", unit="%")

# %% [markdown]
# The second table fills once and empties once, whatever the number n of batches. At tF = tB = 1 it takes 2(nm + p - 1)
# units, where n flushed steps take 2n(m + p - 1). (Updates take no time in these two tables.) Its bubble fraction is
# (p - 1)/(nm + p - 1). The next cell prints how it falls.

# %%
for n in (1, 2, 5, 25):
    flushed, endless = simulate(with_flush(n)), simulate(over(pipedream, n))
    print(f"n = {n:>2}: with flushes {flushed.makespan:g} units, {flushed.bubble_fraction:.1%} idle", end="; ")
    print(f"without {endless.makespan:g} units, {endless.bubble_fraction:.1%} idle")

# %% [markdown]
# One could get the same table by calling all n batches one large batch, with a single update at its end. But that is
# another training run, with fewer updates for the same text. So the question is how to update the weights *often* and
# still keep the pipeline full.
#
# **PipeDream** does it (Harlap et al. 2018, arXiv 1806.03377). Each stage updates its weights after each backward, with
# the gradient of that one micro-batch, and goes on at once. A table without a flush lists these updates as actions of
# their own, U. Update i of a stage makes **weight version** i + 1. Version 0 is the beginning.
#
# ## Break it: delete the flush
#
# Look at what device 0 runs. Between the forward and the backward of a micro-batch, other micro-batches update the
# weights.

# %%
table = over(pipedream, 2)
for r, row in enumerate(table.programs):
    between = [a for a in row[row.index(Action(r, "F", 4)) : row.index(Action(r, "B", 4))] if a.op == "U"]
    print(f"device {r}:", *(str(a)[1:] for a in row[:16]), f"... updates between F{4} and B{4}: {len(between)}")
question = "Each B uses the weights as they are by then. On how many of the 4 stages is the gradient of B1 wrong?"
predict("06-wrong", question, unit="stages")

# %% [markdown]
# A backward needs the weights that its forward used: the gradient of the input of a linear layer is the gradient of its
# output times these weights. So let us run PipeDream carelessly. `stash=False` keeps no old weights. The first
# optimizer is PyTorch's SGD. The second one writes through `.data`, as one finds in hand-written training loops.

# %%
import copy

small = TransformerLM(layers=8, width=16, heads=2, tokens=16).double()
RATE = 0.3


class ThroughData(torch.optim.SGD):
    """SGD that writes into `.data`. Autograd does not see that the weights have changed."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.data.add_(parameter.grad, alpha=-RATE)


def train(schedule, optimizer, steps=2, stash=True):
    """Train a copy of the small model. Returns it, the names on each stage, each stage's gradients update by update."""
    net, names, gradients = copy.deepcopy(small), [], []

    def make(named):
        kept, made = [], optimizer([parameter for _, parameter in named], lr=RATE)
        made.register_step_pre_hook(lambda *_: kept.append({name: p.grad.clone() for name, p in named}))
        names.append([name for name, _ in named])
        gradients.append(kept)
        return made

    with Pipeline(net, schedule, loss=next_byte_loss, optimizer=make, stash=stash, clock="unit") as pipeline:
        for k in range(steps):
            pipeline.step(*text_batch(step=k, batch=8, tokens=16))
    return net, names, gradients


try:
    train(pipedream, torch.optim.SGD, stash=False)
except RuntimeError as refusal:
    print("SGD:", refusal)
careless, names, wrong = train(pipedream, ThroughData, stash=False)
print("through .data: no error")

# %% [markdown]
# With PyTorch's optimizer autograd refuses. It keeps a counter for each tensor that it saved, and sees that the tensor
# has changed. The second run went through. Are its gradients right?
#
# There is a judge. `delayed_training` trains the unsplit model in one process. It is told which version each stage uses
# for each micro-batch, and computes each micro-batch in one piece with these weights. (It keeps all versions, which no
# device could afford.) Its weights before and after an update give the true gradient: their difference, divided by the
# learning rate.


# %%
def truth(version, steps=2, every=1):
    """The weights after each update, as the formula says."""
    batches = [text_batch(step=k, batch=8, tokens=16) for k in range(steps)]
    pairs = [pair for x, y in batches for pair in zip(x.split(2), y.split(2), strict=True)]

    def sgd(named):
        return torch.optim.SGD([parameter for _, parameter in named], lr=RATE)

    return delayed_training(small, names, sgd, next_byte_loss, pairs, version, every)


def errors(gradients, history, i):
    """By stage, the largest error of the gradient of micro-batch i, in per cent of the model's largest gradient."""
    true = {name: (history[i][name] - history[i + 1][name]) / RATE for name in history[0]}
    largest = max(g.abs().max() for g in true.values())
    return [
        100 * max((gradients[s][i][name] - true[name]).abs().max() / largest for name in names[s]).item()
        for s in range(4)
    ]


expected = truth(lambda s, i: max(0, i - (3 - s)))
for i in range(4):
    print(f"micro-batch {i}: error by stage", ", ".join(f"{found:.1e} %" for found in errors(wrong, expected, i)))
reveal("06-wrong", prediction=3, measurement=sum(found > 1e-6 for found in errors(wrong, expected, 1)))

# %% [markdown]
# Micro-batch 0 is right everywhere, because nothing was updated before its backward. Of micro-batch 1 only the last
# stage's gradient is right: there a backward follows its forward at once. Each stage before it goes back through
# weights that its forward never used, and passes a wrong gradient on. The result is the derivative of no function at
# all. Nothing warns you: there is no error and no nan. Later the last stage is wrong too, because the stages before it
# have made wrong updates and now send it wrong activations.
#
# ## Weight stashing
#
# PipeDream's remedy is **weight stashing**. A stage puts aside the version that a forward used. The backward of the
# same micro-batch uses it again, and then it may go. The gradient is right, for the weights at which it was taken. The
# *update* is applied to the newest weights. `Pipeline` stashes unless you forbid it.

# %%
mended, names, gradients = train(pipedream, torch.optim.SGD)
for i in range(4):
    print(f"micro-batch {i}: error by stage", ", ".join(f"{found:.1e} %" for found in errors(gradients, expected, i)))


def distance(net, history):
    """The largest difference of a weight, as a fraction of the largest weight."""
    last, found = history[-1], dict(net.named_parameters())
    return (max((found[n] - last[n]).abs().max() for n in last) / max(w.abs().max() for w in last.values())).item()


print(f"weights after {len(expected) - 1} updates: stash {distance(mended, expected):.1e}", end=", ")
print(f"no stash {distance(careless, expected):.1e} off")
predict("06-versions", "p = 4. How many versions of its weights does device 0 hold at the peak?", unit="versions")

# %% [markdown]
# What is left is rounding. How many versions must a device keep? Device r has p - r micro-batches in flight, and each
# of them may have begun with another version. The next cell runs the 48-layer model. It also runs two relatives of
# PipeDream, which come next.

# %%
kinds = {"PipeDream": "pipedream", "vertical sync": "vertical-sync", "2BW": "2bw"}


def sgd(named, rate=0.01):
    return torch.optim.SGD([parameter for _, parameter in named], lr=rate)


def run(name, steps=3, m=4):
    """Steps of the 48-layer model, and the drain. Returns the reports."""
    schedule = build_schedule(name, devices=4, microbatches=m)
    with Pipeline(model, schedule, loss=next_byte_loss, optimizer=sgd) as pipeline:
        reports = [pipeline.step(inputs, targets) for _ in range(steps)]
        return [*reports, last] if (last := pipeline.drain()) else reports


reports = {shown: run(name, steps=6 if name == "pipedream" else 2) for shown, name in kinds.items()}
for shown, found in reports.items():
    print(f"{shown:<14} most versions on devices 0 to 3:", [max(r.weight_versions[d] for r in found) for d in range(4)])
note = "Clock: predicted from costs, tF = tB = 1. Three batches of m = 4 micro-batches."
lifetimes = simulate(over(pipedream, 3))
display(plot_lives(lifetimes, title="PipeDream: weight versions over time", note=note))
reveal("06-versions", prediction=4, measurement=reports["PipeDream"][1].weight_versions[0])

# %% [markdown]
# The printed counts come from the real runs: the runtime counts the versions that it keeps. The picture shows
# PipeDream's versions over time. Device 3 needs one, as with a flush. Device 0 needs four.
#
# ## How stale is a gradient?
#
# Without any pipeline, micro-batch i would be computed with version i, and its gradient would make version i + 1. In a
# pipeline it is computed with an older version. The number of updates in between is the **staleness** of the gradient.
# When a forward starts on stage s, p - 1 - s earlier micro-batches are still in flight there, and their updates have
# not come yet. So under PipeDream
#
# $$\text{version}(s, i) = \max(0,\; i - (p - 1 - s)).$$

# %%
for shown, name in kinds.items():
    whole = over(build_schedule(name, devices=4, microbatches=4), 4)
    used, behind = versions(whole), ages(whole)
    last = whole.microbatches - 1
    own = last // 4 if name == "2bw" else last  # the version that this micro-batch's gradient is applied to
    print(f"{shown:<14} staleness on stages 0 to 3: {[own - used[Action(s, 'F', last)] for s in range(4)]}", end="; ")
    print("behind the newest of the stage:", [behind[Action(s, "F", last)] for s in range(4)])
whole = over(pipedream, 4)
rule = {f: max(0, f.microbatch - (3 - f.stage)) for f in versions(whole)}
print("PipeDream's table uses the versions of the rule:", versions(whole) == rule)

# %% [markdown]
# Under PipeDream the stages disagree: stage 0 is three updates behind, stage 3 none. So a micro-batch is computed with
# weights that never belonged together in one model. The second list compares with the newest version of the stage at
# the start of the forward. A forward of PipeDream takes the newest. Two relatives of PipeDream take older ones.
#
# **Vertical sync** (same paper) lets all stages use the version that stage 0 used for this micro-batch: max(0, i -
# (p - 1)) everywhere. Each micro-batch then sees one consistent model. But all stages are now p - 1 updates behind, and
# every device keeps p versions, also the last one.
#
# **2BW**, double-buffered weights (Narayanan et al. 2021, arXiv 2006.09503), updates once per batch of m ≥ p
# micro-batches, with their mean gradient. It computes a batch with the version before the newest:
#
# $$W(t+1) = W(t) - \eta\,\nabla f\bigl(W(t-1)\bigr), \qquad
# \text{version}(s, i) = \max(\lfloor i/m \rfloor - 1,\, 0).$$
#
# Here η is the learning rate, and f is the mean loss of the batch. So all stages are one update behind, and two
# versions are enough on every device. (The same paper calls 1F1B *with* a flush PipeDream-Flush.)
#
# **Try it:** draw `plot_lives(simulate(over(build_schedule("vertical-sync", 4, 4), 3)))`, and the same for `"2bw"`. How
# many versions does device 3 keep? Then try `build_schedule("2bw", 4, 2)`.
#
# <details><summary>What you should see, and why</summary>
#
# Under vertical sync all four rows look like PipeDream's device 0, each shifted a little. Device 3 keeps four versions,
# although no weight changes between its own forward and backward. A micro-batch that stage 0 admitted earlier will
# still ask for the old ones. Under 2BW each row has two lanes.
#
# With m = 2 the table is refused. When device 0 starts batch t, up to three earlier micro-batches are under way. At m =
# 2 one of them belongs to batch t - 2. So version t - 1, which 2BW asks for, does not exist yet.
#
# </details>
#
# ## A claim on trial: "PipeDream saves memory"
#
# Some texts recommend PipeDream where memory is tight. The next cell runs all schedules that you know, with the batch
# fixed at 32 sequences and m = 8. It prints the measured peaks. ("+ R" recomputes activations.) First a guess.

# %%
question = "m = 8. Weights and activations of device 0 under PipeDream, as a percentage of 1F1B with a flush?"
predict("06-memory", question, unit="%")

# %%
family = measure_family(Setting(batch=32, steps=3, verify=False), microbatches=8)
held = {}
for name, e in family.items():
    held[name] = [(device.model_states.weights / 1e6, device.activations / 1e6) for device in e.report.memory]
    print(f"{name:<15} MB of weights + activations:", ", ".join(f"{w:4.1f} + {a:4.1f}" for w, a in held[name]))
share = 100 * sum(held["pipedream"][0]) / sum(held["1f1b"][0])
display(reveal("06-memory", measurement=share))
width, tokens = 12288, 2048  # GPT-3's, with 16-bit numbers and one sequence in a micro-batch
version, activations = 12 * width * width * 2 / 1e9, 34 * tokens * width / 1e9
print(f"a layer of GPT-3's size: a version {version:.2f} GB, activations of a micro-batch {activations:.2f} GB")
for r in range(4):
    in_flight = 4 - r
    copies = {"1F1B": 1, "PipeDream": in_flight, "vertical sync": 4, "2BW": 2}
    each = (f"{shown} {n * version + in_flight * activations:.1f} GB" for shown, n in copies.items())
    print(f"device {r}, for each layer:", ", ".join(each))

# %% [markdown]
# Compared with GPipe, PipeDream does save memory in this run. But 1F1B with a flush holds the same activations, because
# it has the same order. So the order saves the memory. The missing flush only adds to it: up to p - 1 more versions of
# the weights. In our narrow model weights are small beside activations, and this costs little. The last lines take a
# layer with 12h² weights and the 34sbh bytes of lesson 2b, at GPT-3's size (h is the width, s the tokens, and b = 1).
# There one version is as large as several micro-batches of activations. 2BW adds one version, whatever p.
#
# ## A claim on trial: "utilisation 92 %"
#
# A survey on the web reports 92 % for PipeDream. Its program prints that number without measuring anything. So let us
# measure: the cell puts the steps of PipeDream from above and its drain together into one run. (**Draining** means to
# finish what is under way. Until then a step of PipeDream leaves the pipeline full.) The clock is the device clock, and
# each action costs the median of its stage and kind. The steady state lasts from device 0's first backward to its last
# forward.

# %%
from statistics import median

whole = over(pipedream, len(reports["PipeDream"]) - 1)
costs = {}
for r in range(4):
    steps = [zip(k.schedule.programs[r], k.slot_costs.slots[r], strict=True) for k in reports["PipeDream"][1:]]
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
print(f"idle at steady state {found:.1%}; by unequal stages alone {1 - sum(work) / 4 / max(work):.1%}")
for n in (1, 2, 9, 30):
    print(f"equal stages, n = {n:>2} batches of m = {4}: utilisation {1 - 3 / (4 * n + 3):.1%}")
print(f"updates take {sum(updates) / sum(work):.1%} of the work without a flush")
for m in (4, 16, 64, 256):
    step = composed(build_schedule("1f1b", 4, m)).makespan + max(updates)
    print(f"m = {m:>3}: 1F1B {8 * m / step:.0f} sequences a second, PipeDream {8 / max(work):.0f} at steady state")
reveal("06-steady", prediction=0, measurement=100 * found)

# %% [markdown]
# Compare the first two figures. What is idle at steady state comes from unequal stages: the slowest one sets the pace.
# (On a busy machine this may be 10 % or more.) The bubble itself is gone. So 92 % is no property of PipeDream. By the
# formula nine batches give 92 %, and one batch gives 57 %.
#
# The last lines show the other price. Every micro-batch is followed by an update, where a flush comes once in m
# micro-batches. (They keep the micro-batch at 8 sequences and compose both tables from the same measured costs.) At m =
# 4 the flush costs much. The larger m, the less it costs, and at some m the many updates cost more than the bubble. How
# far away that m is depends on the optimizer and on the size of a micro-batch.
#
# ## A claim on trial: "the flush copies stage 0's weights"
#
# The same survey lets a flush copy the weights of stage 0 to all stages. What does a flushed step send?

# %%
with Pipeline(copy.deepcopy(small), build_schedule("1f1b", 4, 4), loss=next_byte_loss, optimizer=sgd) as pipeline:
    sent = pipeline.step(*text_batch(batch=8, tokens=16)).timeline.messages
one = 2 * 16 * 16 * 8  # sequences, tokens, width, bytes of a number: an activation of one micro-batch, or its gradient
print(f"{len(sent)} messages: {', '.join(sorted({message.kind for message in sent}))}", end="; ")
print("all of this size:", {int(message.size) for message in sent} == {one})
print(
    "parameters of stage 0 that another stage has too:", set(names[0]) & {name for rest in names[1:] for name in rest}
)

# %% [markdown]
# A flushed step sends activations down and gradients up, and no weights. Stages hold *different* layers, so there is
# nothing to copy. A flush is a wait.
#
# ## What does staleness do to learning?
#
# The gradients are right, but late. The next model is small: `TransformerLM` with 4 layers of width 32, one layer on
# each device. It reads real text, m = 4 micro-batches of two sequences to a step, with plain SGD. Each method runs at
# four learning rates and reads the same text. The last row has no delay: micro-batches go through one at a time, with
# m = 1 and an update after each. No pipeline can do that without idling.

# %%
question = "Learning rate 1: how many of the four pipelined methods end worse than a uniform guess at the next byte?"
predict("06-rate", question, unit="methods")

# %%
rates = (0.03, 0.1, 0.3, 1.0)
tiny = {"layers": 4, "width": 32, "heads": 2, "tokens": 16}


def learn(name, rate, m, read=144):
    """Train on `read` sequences. Returns the mean losses of six parts of the run, in order."""
    options = {"optimizer": lambda named: sgd(named, rate), "measure_memory": False, "measure_costs": False}
    pairs = [text_batch(step=k, batch=8, tokens=16) for k in range(read // 8)]
    x, y = (torch.cat(column).split(2 * m) for column in zip(*pairs, strict=True))
    with Pipeline(TransformerLM(**tiny), build_schedule(name, 4, m), loss=next_byte_loss, **options) as pipeline:
        losses = [pipeline.step(*pair).loss for pair in zip(x, y, strict=True)]
    size = len(losses) // 6
    return [sum(losses[k : k + size]) / size for k in range(0, len(losses), size)]


methods = {"1F1B, flush": ("1f1b", 4), **{shown: (name, 4) for shown, name in kinds.items()}, "no delay": ("1f1b", 1)}
learnt = {(shown, rate): learn(name, rate, m) for shown, (name, m) in methods.items() for rate in rates}
print(f"{'loss at the end, rate':<22}", *(f"{rate:>8}" for rate in rates))
for shown in methods:
    print(f"{shown:<22}", *(f"{learnt[shown, rate][-1]:#8.3g}" for rate in rates))
pipelined = [shown for shown in methods if shown != "no delay"]
uniform = math.log(256)  # the loss of a uniform guess; a loss that is no number counts as worse
reveal("06-rate", measurement=sum(not learnt[shown, rates[-1]][-1] < uniform for shown in pipelined))

# %%
seen = [24 * (k + 1) for k in range(6)]
axes = {"across": "sequences read", "up": "loss, nats a byte (mean of 24 sequences)"}
note = "Real runs, p = 4, m = 4, plain SGD. No clock is involved. The text is new in each step."
equal = {shown: learnt[shown, rates[1]] for shown in pipelined}
best = {}
for shown in pipelined:
    end = {rate: learnt[shown, rate][-1] for rate in rates if learnt[shown, rate][-1] < uniform}
    rate = min(end, key=end.get)
    best[f"{shown}, rate {rate}"] = learnt[shown, rate]
display(plot_curves(seen, equal, **axes, title=f"All at learning rate {rates[1]}", note=note))
plot_curves(seen, best, **axes, title="Each at its own best of four rates", note=note)

# %% [markdown]
# At equal rates PipeDream learns faster than 1F1B. But it also makes four times as many updates. So compare methods
# with equally many: PipeDream and vertical sync with *no delay*, and 2BW with 1F1B.
#
# - At small rates each delayed method ends near its partner. Late gradients are almost as good, because a few small
#   updates hardly change the weights.
# - Staleness lowers the largest rate that works. At 0.3 vertical sync has lost its way, where *no delay* still learns.
#   At 1 the same happens to 2BW, where 1F1B learns. The update was computed for a place that the weights have left, and
#   large steps lead further away each time.
# - PipeDream stays near *no delay* at all four rates in this run. Its stages are 1.5 updates behind on average, and
#   those of vertical sync are 3. With more devices stage 0 is further behind.
# - At its own best rate each method comes closer to the others. PipeDream and vertical sync still make more updates
#   than 1F1B and 2BW. Any training with small batches makes as many, and needs no pipeline for it.
#
# This is a short run of a small model, and the last loss is a mean over few sequences. So small differences in the
# table mean nothing. But one thing to be careful about is clear: a rate that was tuned with a flush may be too large
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
# Only the last three have almost no bubble, and only they are stale. Recomputation saves the most memory, and pays with
# time that this column counts as work.
#
# Large language models are mostly trained with a flush. All schedules that ship with PyTorch's
# `torch.distributed.pipelining` have one. There are good reasons:
#
# - With a flush the result is that of the unsplit model. It does not depend on p, and can be checked.
# - Large batches allow m far above p. Then the bubble is small, and an update after every micro-batch is dear.
# - Several versions of large weights do not fit, as the lines for GPT-3's size show.
# - Interleaving (lesson 4) shrinks the bubble without stale weights, and lesson 7 goes further.
#
# A schedule without a flush comes into question where these reasons fail. The batch is small and must stay small, so
# that m is near p. The weights are small beside the activations. And somebody can afford to tune the learning rate for
# late gradients. 2BW then asks least: one more version, and one update of delay whatever p.
#
# ## What to remember
#
# - A flush costs (p - 1)(tF + tB) in each step. Without it the pipeline fills once.
# - A backward needs the weights of its forward. If they have changed, the gradient is wrong, perhaps without a warning.
# - Stashing mends it. PipeDream keeps p - r versions on device r, vertical sync p, 2BW two.
# - The gradients are then right but late: by p - 1 - s updates, by p - 1, or by one.
# - The missing flush saves time. It saves no memory, and it lowers the largest learning rate.
#
# **Where this leads.** Lesson 7 keeps the flush and fills the bubble with other work.

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices. Device s holds stage s, 0 to p - 1. Micro-batches are counted from 0 and go on without
# end. `0F3` is the forward of micro-batch 3 on stage 0, `0B3` its backward. `0U3` is the update of stage 0 after that
# backward. The k-th update of a stage makes version k of its weights. Version 0 is what the stage began with.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="version_number" difficulty="easy" minutes=8
# All three methods run 1F1B's order without a flush. Write the function that returns the version of the weights that
# stage `stage` uses for the forward of micro-batch `microbatch`:
#
# - `"pipedream"`: an update follows each backward. A forward uses the stage's newest version.
# - `"vertical-sync"`: an update follows each backward. All stages use, for a micro-batch, the version that stage 0 used
#   for it.
# - `"2bw"`: an update follows every `every` backwards, which make a batch. `every` is at least p. The update of batch t
#   makes version t + 1. Batch t is computed with version t - 1, and batch 0 with version 0.


# %% role="answer" exercise="version_number"
def version(method: str, devices: int, stage: int, microbatch: int, every: int = 1) -> int:
    """The version of its weights that a stage uses for the forward of a micro-batch.

    >>> version("pipedream", devices=4, stage=2, microbatch=5)
    4
    >>> version("2bw", devices=4, stage=2, microbatch=17, every=8)
    1
    """
    ### BEGIN SOLUTION
    if method == "2bw":
        return max(microbatch // every - 1, 0)
    source = 0 if method == "vertical-sync" else stage
    return max(microbatch - (devices - 1 - source), 0)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="version_number"
# How many updates has a stage run when a forward begins? Each update follows a backward, so count backwards.

# %% [markdown] role="hint" exercise="version_number"
# The warm-up of 1F1B says how many forwards a stage is ahead of its backwards. The last stage is ahead by none when a
# forward begins. For vertical sync, which stage has to be counted? For 2BW, in which batch is the micro-batch?

# %% [markdown] role="hint" exercise="version_number"
# Write 1F1B's row of stage 0 for p = 3 and six micro-batches, with a U after each B. Above each F write the number of
# U's before it. Which number is missing from the micro-batch's own number, and how does it change on stage 1? The first
# forwards need a bound.

# %% [markdown] role="solution" exercise="version_number"
# PipeDream's stages use different versions for the same micro-batch, and the first stage the oldest. Vertical sync uses
# the oldest of them everywhere. 2BW is one update behind, but its updates are m times rarer.

# %% [markdown] role="lead" exercise="stash" difficulty="medium" minutes=16
# Here a table is a list of rows, one per device: the order in which the device runs its actions, with its updates. It
# begins and ends with nothing on its way. A version of a stage's weights is needed by
#
# - each forward that uses it, and the backward of the same micro-batch;
# - the update that makes the next version, because it starts from this one.
#
# The rules are those of PipeDream (`"pipedream"`), vertical sync (`"vertical-sync"`) and 2BW (`"2bw"`). In the first
# two, look in the table for the updates: there may be fewer than one per backward, and warm-ups may be deeper or
# shallower than usual. The newest version is that of the last update before the forward in its device's row. In a
# table of 2BW every m backwards make one update, on all devices. Batch t uses version t - 1, and batch 0 version 0.
#
# Write two functions. `last_needs` names, for each device and each version, the last action of that device which needs
# it. Leave out the version of the last update, because it is never freed. `peak` returns how many versions each device
# has at most between two of its actions. A version is freed right after the last action that needs it. If that is the
# update, the new version takes its place.


# %% role="answer" exercise="stash"
def last_needs(rows: list[list[str]], rule: str) -> list[list[str]]:
    """For each device, in order of the versions 0, 1, ...: the last action that needs it.

    >>> last_needs([["0F0", "0F1", "0B0", "0U0", "0B1", "0U1"]], "pipedream")
    [['0B1', '0U1']]
    """
    ### BEGIN SOLUTION
    newest = []
    for row in rows:
        uses, count = {}, 0
        for cell in row:
            count += "U" in cell
            if "F" in cell:
                uses[int(cell.split("F")[1])] = count
        newest.append(uses)
    found = []
    for r, row in enumerate(rows):
        uses = newest[0] if rule == "vertical-sync" else newest[r]
        if rule == "2bw":
            backward = [cell for cell in row if "F" not in cell]
            m = next(k for k, cell in enumerate(backward) if "U" in cell)
            uses = {i: max(i // m - 1, 0) for i in uses}
        last, count = {}, 0
        for cell in row:
            if "U" in cell:
                last[count] = cell
                count += 1
            else:
                last[uses[int(cell.replace("B", "F").split("F")[1])]] = cell
        found.append([last[k] for k in range(count)])
    return found
    ### END SOLUTION


# %% role="answer" exercise="stash"
def peak(rows: list[list[str]], rule: str) -> list[int]:
    """How many versions each device has at most.

    >>> peak([["0F0", "0F1", "0B0", "0U0", "0B1", "0U1"]], "pipedream")    # after 0U0: versions 0 and 1
    [2]
    """
    ### BEGIN SOLUTION
    most = []
    for row, freed in zip(rows, last_needs(rows, rule), strict=True):
        there = highest = 1
        for cell in row:
            there += ("U" in cell) - freed.count(cell)
            highest = max(highest, there)
        most.append(highest)
    return most
    ### END SOLUTION


# %% [markdown] role="hint" exercise="stash"
# Take one row and one version. Underline each action that needs it, by the list above. The answer is the last one that
# is underlined.

# %% [markdown] role="hint" exercise="stash"
# First find out which version each micro-batch uses on each device. For vertical sync only the row of device 0 counts.
# Then go through a row once, and note for each action the version that it needs. A later note replaces an earlier one.

# %% [markdown] role="hint" exercise="stash"
# Which version does an update need, if you count the updates before it? Which one does a backward need, if you have a
# dictionary from micro-batches to versions? For `peak`, go through the row again. What does an update do to the number
# of versions, and what does an action that is the last need of some version? May one action be the last need of two?

# %% [markdown] role="solution" exercise="stash"
# With PipeDream's own table device r has at most p - r versions. Under vertical sync it has p versions, on the last
# device too: there, versions wait for micro-batches that stage 0 has already let in. 2BW has two, at any p.

# %% [markdown] role="lead" exercise="delayed_update" difficulty="medium" minutes=12
# 2BW as one device sees it: train a whole model, one batch per call, by the formula
#
# $$v = \text{momentum} \cdot v + g(W(t - 1)), \qquad W(t + 1) = W(t) - \text{lr} \cdot v, \qquad W(-1) = W(0)$$
#
# g is the gradient of the batch's loss: the mean over its micro-batches, which have the same size. v begins at 0, and
# without momentum it is g. When your function is called, the model holds W(t). When it returns, the model must hold
# W(t + 1), in the same parameters. `state` is a dictionary. It is empty at first, and it comes back in the next call:
# keep there what you need. Write it with plain tensors. The check compares the weights after each batch with those of
# pipelab's own reference, in float64.


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
# and backwards as in lesson 2's exercise on accumulation. At the end write the result into the model. All writing into
# parameters goes under `torch.no_grad()`.

# %% [markdown] role="hint" exercise="delayed_update"
# Two lists of tensors go through the dictionary from one call to the next, and v is one of them. What is the other, and
# what stands in for it in the first call? After the backwards the model holds W(t - 1). From which list does the step
# start, if not from the model?

# %% [markdown] role="solution" exercise="delayed_update"
# The optimizer's state belongs to the newest weights, not to a version: there is one v for all versions.
# PipeDream's last stage is the same without the delay. Its first stage keeps p - 1 older versions, not one.

# %% [markdown] role="lead" exercise="two_bw" difficulty="medium" minutes=12
# Write the table of 2BW for any p and any m of at least p. It has `batches` batches of m micro-batches each, which are
# counted on from one batch to the next. The order is that of 1F1B over all of them, without a flush. The pipeline is
# empty at the beginning and at the end. A device updates its stage right after the last backward of each batch. That
# update has the number of this micro-batch: with m = 4, device 2 runs `"2B3"`, then `"2U3"`. Return one row of actions
# per device.
#
# In the last part the check trains a narrow transformer with your rows, and the pipeline stays full from batch to
# batch. Then it compares the weights with those of a single process that follows the formula. To see your table,
# import `Schedule` and `plot_table` from `pipelab` in a new cell. `plot_table(Schedule.from_rows(two_bw(4, 4, 2)))`
# draws it.


# %% role="answer" exercise="two_bw"
def two_bw(devices: int, microbatches: int, batches: int) -> list[list[str]]:
    """2BW's order: one row of actions per device.

    >>> two_bw(1, 2, 2)
    [['0F0', '0B0', '0F1', '0B1', '0U1', '0F2', '0B2', '0F3', '0B3', '0U3']]
    """
    ### BEGIN SOLUTION
    rows = []
    total = microbatches * batches
    for r in range(devices):
        ahead = devices - 1 - r
        row = [f"{r}F{i}" for i in range(ahead)]
        for i in range(total):
            row += [f"{r}F{ahead + i}"] if ahead + i < total else []
            row.append(f"{r}B{i}")
            if i % microbatches == microbatches - 1:
                row.append(f"{r}U{i}")
        rows.append(row)
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="two_bw"
# Leave the updates out at first. Which batches does 1F1B see, if there is no flush between them?

# %% [markdown] role="hint" exercise="two_bw"
# It sees one long batch of m times `batches` micro-batches: one warm-up, many pairs, one cool-down. After which
# backwards does an update follow? A forward of the next batch may stand before such a backward.

# %% [markdown] role="hint" exercise="two_bw"
# Go through all backwards of a device in order. Before each of them stands a forward, unless there are none left. How
# far ahead is it? After each of them ask whether a batch is complete. What does the backward's number say about that?

# %% [markdown] role="solution" exercise="two_bw"
# In the pair before an update the forward already belongs to the next batch, on all devices but the last. That is why
# the newest version comes too late for a whole batch, and why two versions are needed. With m below p - 1 a forward
# would begin before the update that makes its version. The paper asks for m of at least p (Narayanan and others, 2021,
# arXiv 2006.09503).

# %% [markdown] role="lead" exercise="under_a_limit" difficulty="hard" minutes=15
# A model is cut into p equal stages, one per device. You know these bytes of one stage:
#
# - `weights`: one version of its weights. The gradients take as much again, whatever the method.
# - `optimizer`: the optimizer's state. There is one, no matter how many versions are kept.
# - `activations`: those of one micro-batch, from its forward to its backward. `stage_input` of them are the input of
#   the stage.
#
# No device may hold more than `limit` bytes, and device 0 needs the most. There are six methods, in this order:
#
# - `"gpipe"`;
# - `"gpipe-recompute"`: a micro-batch keeps its input alone, and while its backward runs all its activations. One
#   backward runs at a time.
# - `"1f1b"`;
# - `"pipedream"` and `"vertical-sync"`, with an update after each backward;
# - `"2bw"`, with an update after every m backwards. It is allowed only if m is at least p.
#
# The methods without a flush have run for a long time, so their pipeline is full. Return three things:
#
# 1. A dictionary of the methods that fit: for each name a pair of its lost time and its staleness. Time is lost if a
#    device idles or recomputes, as a fraction of total device time. A forward takes 1, a backward 2 and recomputing a
#    forward 1. Staleness is by how many updates a gradient is older than the weights that it changes, as a mean over
#    the stages.
# 2. The method of these that loses the least time.
# 3. The method of these with the least staleness.
#
# If two are equal, the other of the two figures decides. Then the fewer bytes decide, then the order above. Return
# `"none"` for both choices if nothing fits.


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
