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
# batches, with p = 4 and m = 4.

# %% role="setup"
import torch
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)


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
# units, where n flushed steps take 2n(m + p - 1). The next cell prints how the bubble fraction (p - 1)/(nm + p - 1)
# falls.

# %%
for n in (1, 2, 5, 25):
    flushed, endless = simulate(with_flush(n)), simulate(over(pipedream, n))
    print(f"{n:>2} batches: with flushes {flushed.makespan:g} units, {flushed.bubble_fraction:.1%} idle", end="; ")
    print(f"without {endless.makespan:g} units, {endless.bubble_fraction:.1%} idle")

# %% [markdown]
# One could get the same table by calling all n batches one large batch, with a single update at its end. Lesson 2 did
# that. But a larger batch is another training run: fewer updates for the same text. So the question is how to update
# the weights *often* and still keep the pipeline full.
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
question = "The backward uses the weights as they are by then. On how many of the 4 stages is some gradient wrong?"
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
bad = sum(max(errors(wrong, expected, i)[s] for i in range(4)) > 1e-6 for s in range(4))
reveal("06-wrong", prediction=3, measurement=bad)

# %% [markdown]
# The first micro-batch is right everywhere, because nothing was updated before its backward. After that only the last
# stage is right. Its backward follows its forward at once. Each stage before it goes back through weights that its
# forward never used, and passes the wrong gradient on. The result is the derivative of no function at all. Nothing
# warned you: no error, and no nan. (From micro-batch 2 on some weights are already off by a wrong update.)
#
# ## Weight stashing
#
# The remedy of PipeDream is to keep what the forward used. **Weight stashing** means: a stage puts the version aside
# that a forward used, the backward of the same micro-batch uses it again, and then it may go. The gradient is then
# right, for the weights at which it was taken. The *update* is applied to the newest weights. `stash=True` is what
# `Pipeline` does if you do not forbid it.

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
# of them may have begun with another version. The newest is among these.

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


reports = {shown: run(name, steps=8 if name == "pipedream" else 3) for shown, name in kinds.items()}
for shown, found in reports.items():
    print(f"{shown:<14} most versions on devices 0 to 3:", [max(r.weight_versions[d] for r in found) for d in range(4)])
note = "Clock: predicted from costs, tF = tB = 1. Three batches of m = 4 micro-batches."
lifetimes = simulate(over(pipedream, 3))
display(plot_lives(lifetimes, title="PipeDream: weight versions over time", note=note))
reveal("06-versions", prediction=4, measurement=reports["PipeDream"][1].weight_versions[0])

# %% [markdown]
# The printed counts come from real runs of the 48-layer model, where the runtime counts the versions that it keeps. The
# picture shows PipeDream's versions over time. Device 3 needs one, as with a flush. Device 0 needs four.
#
# ## How stale is a gradient?
#
# Without any pipeline, micro-batch i would be computed with version i, and its gradient would make version i + 1. In a
# pipeline it is computed with an older one. The number of updates in between is the **staleness** of the gradient. Read
# the table for stage s: the stage has finished all but the p - 1 - s micro-batches that are in flight behind this one.
# So
#
# $$\text{version}(s, i) = \max(0,\; i - (p - 1 - s)).$$

# %%
for shown, name in kinds.items():
    whole = over(build_schedule(name, devices=4, microbatches=4), 4)
    used, behind = versions(whole), ages(whole)
    m = whole.microbatches
    every = 4 if name == "2bw" else 1
    stale = [used[Action(s, "F", m - 1)] - (m - 1) // every for s in range(4)]
    print(f"{shown:<14} update minus version on stages 0 to 3: {[-n for n in stale]}", end="; ")
    print("newest version minus the one used:", [behind[Action(s, "F", m - 1)] for s in range(4)])
whole = over(pipedream, 4)
rule = {f: max(0, f.microbatch - (3 - f.stage)) for f in versions(whole)}
print("PipeDream's table uses the versions of the rule:", versions(whole) == rule)

# %% [markdown]
# The first list is the staleness. Under PipeDream the stages disagree: stage 0 is three updates behind, stage 3 none.
# One micro-batch is computed with weights that never belonged together in one model. The second list says by how much a
# forward is behind the newest version of its own stage. Under PipeDream a forward takes the newest that is there.
#
# Two relatives repair something, each at a price.
#
# **Vertical sync** (same paper) lets all stages use the version that stage 0 used for this micro-batch: max(0, i -
# (p - 1)) everywhere. Each micro-batch then sees one consistent model. But all stages are now p - 1 updates behind, and
# every device keeps p versions, also the last.
#
# **2BW** (double-buffered weights; Narayanan et al. 2021, arXiv 2006.09503) updates only once per batch of m ≥ p
# micro-batches, with their mean gradient. It computes each batch with the version before the newest:
#
# $$W(t+1) = W(t) - \eta\,\nabla f\bigl(W(t-1)\bigr).$$
#
# So all stages are one update behind, and two versions are enough on every device. One update of 2BW takes the gradient
# of m micro-batches. (The same paper calls 1F1B *with* a flush PipeDream-Flush.)
#
# **Try it:** in the cell with `plot_lives`, draw `over(build_schedule("vertical-sync", 4, 4), 3)` and `over(build_schedule("2bw",
# 4, 4), 3)`. Which device keeps a version longest after its last update? Then try `build_schedule("2bw", 4, 3)`.
#
# <details><summary>What you should see, and why</summary>
#
# Under vertical sync all four rows look like PipeDream's device 0, each shifted a little. Device 3 keeps four versions,
# although no weight changes between its own forward and backward: it waits for micro-batches that stage 0 admitted
# long ago. Under 2BW each row has two lanes. With m = 3 it is refused: three micro-batches do not fill four devices, so
# a batch would still be in flight two updates later, and two versions would not be enough.
#
# </details>
#
# ## A claim on trial: "PipeDream saves memory"
#
# A text on the web praises PipeDream for tight memory. Compare the peaks with m = 8 and the batch of 64 sequences.
# First a guess.

# %%
question = "m = 8. Weights and activations of device 0 under PipeDream, as a percentage of 1F1B with a flush?"
predict("06-memory", question, unit="%")

# %%
held = {}
for shown, name in {"GPipe": "gpipe", "1F1B": "1f1b", **kinds}.items():
    found = run(name, steps=2, m=8)[1].memory
    held[shown] = [(device.model_states.weights / 1e6, device.activations / 1e6) for device in found]
    print(f"{shown:<14} MB of weights + activations:", ", ".join(f"{w:4.1f} + {a:4.1f}" for w, a in held[shown]))
share = 100 * sum(held["PipeDream"][0]) / sum(held["1F1B"][0])
display(reveal("06-memory", measurement=share))
h, s = 12288, 2048  # GPT-3's width and tokens; 16-bit numbers; b = 1 sequence in a micro-batch
weights, activations = 12 * h * h * 2, 34 * s * h
print(f"one layer of GPT-3's size: weights {weights / 1e9:.2f} GB, activations {activations / 1e9:.2f} GB a micro-batch")
for r in range(4):
    print(f"device {r}: with {4 - r} in flight 1F1B holds {(weights + (4 - r) * activations) / 1e9:.1f} GB a layer", end=", ")
    print(f"PipeDream {(4 - r) * (weights + activations) / 1e9:.1f} GB")

# %% [markdown]
# Against GPipe the claim looks true. But 1F1B with a flush has the same order and holds the same activations. So the
# saving belongs to the order and not to the missing flush. Beyond 1F1B, PipeDream holds up to p - 1 more versions of
# the weights. In our narrow model weights are small beside activations. In the last lines they are not: they take a
# layer of GPT-3's width with 12h² weights, and the 34sbh bytes of lesson 2b. There one version weighs several
# micro-batches of activations. 2BW holds one more version on each device, whatever p.
#
# ## A claim on trial: "utilisation 92 %"
#
# A survey gives PipeDream a utilisation of 92 %. Its program prints that number without measuring anything. Measure it:
# put the eight steps and the drain from above together into one run. Each cost is the median for its stage and kind,
# from the device clock. Look at the time from device 0's first backward to its last forward: the steady state.

# %%
from statistics import median

whole = over(pipedream, len(reports["PipeDream"]) - 1)
costs = {}
for r in range(4):
    rows = [(a, c) for k in reports["PipeDream"] for a, c in zip(k.schedule.programs[r], k.slot_costs.slots[r])]
    for action, cost in rows[len(rows) // 4 :]:  # without the first steps, which warm up
        costs.setdefault((r, action.op), []).append(cost)
typical = {kind: median(found) for kind, found in costs.items()}
timeline = simulate(whole, SlotCosts([[typical[r, a.op] for a in row] for r, row in enumerate(whole.programs)]))


def steady(timeline):
    """Idle device time between device 0's first backward and its last forward, as a fraction of total device time."""
    mine = timeline.on_device(0)
    begin = min(span.start for span in mine if span.slot.op == "B")
    end = max(span.start for span in mine if span.slot.op == "F")
    both = [*timeline.spans, *timeline.updates]
    return 1 - sum(max(0, min(x.end, end) - max(x.start, begin)) for x in both) / (4 * (end - begin))


work = [sum(typical[r, op] for op in "FBU") for r in range(4)]
print(f"idle at steady state {steady(timeline):.1%}; unequal stages alone: {1 - sum(work) / 4 / max(work):.1%}")
print(f"updates take {sum(typical[r, 'U'] for r in range(4)) / sum(work):.1%} of the work")
for n in (1, 3, 9, 30):
    print(f"by the formula {n:>2} batches of m = {4}: utilisation {1 - 3 / (4 * n + 3):.1%}")
flushed = run("1f1b", steps=6)[-1]
once = flushed.timeline.makespan + max(flushed.update_seconds)
print(f"sequences a second: 1F1B {64 / once:.0f}, PipeDream at steady state {16 / max(work):.0f}")
reveal("06-steady", prediction=0, measurement=100 * steady(timeline))

# %% [markdown]
# At steady state almost nothing is idle, except that stages are not exactly equal: the slowest one sets the pace. So
# 92 % is no property of PipeDream. By the formula any utilisation below 100 % comes out, if the run is long or short
# enough. Now the price in time: every micro-batch is followed by an update, where a flush updates once per m. The
# update is a larger part of the work with a costly optimizer, or with smaller micro-batches. And with a flush the bubble
# shrinks with m too (lesson 5). At m = 4 dropping it gains much, at m = 32 little.
#
# ## A claim on trial: "the flush copies stage 0's weights"
#
# One survey lets the flush copy the weights of stage 0 to all other stages. What does a flushed step send?

# %%
net = copy.deepcopy(small)
with Pipeline(net, build_schedule("1f1b", 4, 4), loss=next_byte_loss, optimizer=sgd, clock="unit") as pipeline:
    report = pipeline.step(*text_batch(batch=8, tokens=16))
kinds_sent = sorted({message.kind for message in report.timeline.messages})
sizes = sorted({int(message.size) for message in report.timeline.messages})
print(f"{report.timeline.message_count} messages, of {sizes} bytes each; kinds: {', '.join(kinds_sent)}")
print("one activation or gradient of a micro-batch:", 2 * 16 * 16 * 8, "bytes (sequences, tokens, width, float64)")
print("names that stage 0 shares with another stage:", set(names[0]) & {name for other in names[1:] for name in other})

# %% [markdown]
# A flushed step sends activations down and gradients up, and nothing else. Stages hold *different* layers. There is
# nothing to copy. A flush is a wait.
#
# ## What does staleness do to learning?
#
# The gradients are right, but late. What does that do to training? The model below is a named small one: 4 layers of
# width 32, one layer on each device. It reads real text, four micro-batches of two sequences to a step. All methods
# see the same text. Each runs at three learning rates. The curves are means over four steps, so they are not smooth.

# %%
methods = {"1F1B with flush": "1f1b", **kinds}
rates, group = (0.1, 0.3, 1.0), 6
tiny = {"layers": 4, "width": 32, "heads": 2, "tokens": 16}


def learn(name, rate, steps=36, m=4):
    """The mean loss of each group of steps."""
    losses, schedule = [], build_schedule(name, devices=4, microbatches=m)
    options = {"optimizer": lambda named: sgd(named, rate), "measure_memory": False, "measure_costs": False}
    with Pipeline(TransformerLM(**tiny), schedule, loss=next_byte_loss, **options) as pipeline:
        for k in range(steps):
            losses.append(pipeline.step(*text_batch(step=k, batch=2 * m, tokens=16)).loss)
    return [sum(losses[k : k + group]) / group for k in range(0, steps, group)]


learnt = {(shown, rate): learn(name, rate) for shown, name in methods.items() for rate in rates}
print(f"{'loss at the end, rate':<22}", *(f"{rate:>8}" for rate in rates))
for shown in methods:
    print(f"{shown:<22}", *(f"{learnt[shown, rate][-1]:8.2f}" for rate in rates))

# %%
seen = [8 * group * (k + 1) for k in range(6)]
axes = {"across": "sequences read", "up": "loss, nats a byte (mean of six steps)"}
note = "Real runs, p = 4, m = 4, plain SGD, no clock involved. Loss before the update, on text not seen before."
equal = {shown: learnt[shown, rates[1]] for shown in methods}
best = {}
for shown in methods:
    rate = min(rates, key=lambda rate: (not learnt[shown, rate][-1] < 9, learnt[shown, rate][-1]))
    best[f"{shown}, rate {rate}"] = learnt[shown, rate]
display(plot_curves(seen, equal, **axes, title=f"All at learning rate {rates[1]}", note=note))
plot_curves(seen, best, **axes, title="Each at its own best of three rates", note=note)

# %%
ledger()

# %% [markdown] page="exercises"
# Exercises.

# %% role="setup"
from pipelab.teaching import NotWritten, check
