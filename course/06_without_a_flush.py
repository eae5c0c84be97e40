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
# Some texts recommend PipeDream where memory is tight. The next cell compares measured peaks, with the batch fixed at
# 32 sequences and m = 8. First a guess.

# %%
question = "m = 8. Weights and activations of device 0 under PipeDream, as a percentage of 1F1B with a flush?"
predict("06-memory", question, unit="%")

# %%
held = {}
for shown, name in {"GPipe": "gpipe", "1F1B": "1f1b", **kinds}.items():
    found = run(name, steps=2 if shown in kinds else 1, m=8)[-2 if shown in kinds else 0].memory
    held[shown] = [(device.model_states.weights / 1e6, device.activations / 1e6) for device in found]
    print(f"{shown:<14} MB of weights + activations:", ", ".join(f"{w:4.1f} + {a:4.1f}" for w, a in held[shown]))
share = 100 * sum(held["PipeDream"][0]) / sum(held["1F1B"][0])
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
# p is the number of devices, m the number of micro-batches in a step. Counting starts at 0.

# %% role="setup"
from pipelab.teaching import NotWritten, check
