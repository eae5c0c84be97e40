# ---
# jupyter:
#   pipelab:
#     number: 6
#     title: "Without a flush: PipeDream and its versions"
#     minutes: 45
#     builds_on: [3, 3b]
#     goals:
#       - say what a flush costs, and what breaks when it is deleted
#       - provoke the wrong gradient, and mend it by weight stashing
#       - count weight versions and staleness per stage, for PipeDream, vertical sync and 2BW
#       - write the table of 2BW
# ---

# %% [markdown]
# ## Why should the next batch wait?
#
# So far every step ended with a flush: the pipeline ran empty, and then the weights changed. Then the pipeline had to
# fill again. The idle time of lessons 2 to 5 comes from this filling and emptying. What if the forwards of the next
# batch entered while the last backwards of this one were still on their way? The second cell below draws both tables
# for three batches, with p = 4 and m = 4. `over(pipedream, n)` is the table of n batches in a row. (The v on a block
# tells the weights that it uses; more on that soon. To save you time, a batch has 32 sequences on this page, half the
# usual number.)

# %% role="setup"
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

# %% [markdown]
# The second table fills once and empties once, whatever the number n of batches. At tF = tB = 1 it takes 2(nm + p -
# 1) units, whereas n flushed steps take 2n(m + p - 1). (Updates take no time in these two tables. In the lower one
# they are the thin black lines. In the upper one all devices update at each flush.) Its bubble fraction is (p -
# 1)/(nm + p - 1). The next cell prints how it falls.

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
# their own, U. Update i of a stage makes **weight version** i + 1. Version 0 is what the stage starts with.
#
# ## Break it: delete the flush
#
# Look at what device 0 runs. Between the forward and the backward of a micro-batch, other micro-batches update the
# weights.

# %%
table = over(pipedream, 2)
for r, row in enumerate(table.programs):
    print(f"device {r}:", *(str(a)[1:] for a in row[:16]), "...")
question = (
    "Each B uses the weights as they are at that moment. On how many of the 4 stages is the gradient of B1 wrong?"
)
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

    def make(named):  # called once for each stage, with its (name, parameter) pairs
        kept, made = [], optimizer([parameter for _, parameter in named], lr=RATE)
        # Before each update: note the gradients that it is made of.
        made.register_step_pre_hook(lambda *_: kept.append({name: p.grad.clone() for name, p in named}))
        names.append([name for name, _ in named])
        gradients.append(kept)
        return made

    with Pipeline(net, schedule, loss=next_byte_loss, optimizer=make, stash=stash, clock="unit") as pipeline:
        for k in range(steps):
            pipeline.step(*text_batch(step=k, batch=8, tokens=16))
    return net, names, gradients  # leaving `with` finishes what was still under way


try:
    train(pipedream, torch.optim.SGD, stash=False)
except RuntimeError as refusal:
    print("SGD:", refusal)
careless, names, wrong = train(pipedream, ThroughData, stash=False)
print("through .data: no error")

# %% [markdown]
# With PyTorch's optimizer, autograd refuses. It keeps a counter for each tensor that it saved, and sees that the
# tensor has changed. (Its message calls this counter "version" too.) The second run went through. Are its gradients
# right?
#
# We have a reference to compare with. `delayed_training` trains the unsplit model in one process. It is told which
# version each stage uses for each micro-batch, and computes each micro-batch in one piece with these weights. (It
# keeps all versions, which no device could afford.) Its weights before and after an update give the true gradient:
# their difference, divided by the learning rate.


# %%
def truth(version, steps=2, every=1):
    """The weights after each update, as the formula says."""
    batches = [text_batch(step=k, batch=8, tokens=16) for k in range(steps)]
    pairs = [pair for x, y in batches for pair in zip(x.split(2), y.split(2), strict=True)]

    def sgd(named):
        return torch.optim.SGD([parameter for _, parameter in named], lr=RATE)

    return delayed_training(small, names, sgd, next_byte_loss, pairs, version=version, every=every)


def errors(gradients, history, i):
    """By stage, the largest error of the gradient of micro-batch i, in per cent of the model's largest gradient."""
    true = {name: (history[i][name] - history[i + 1][name]) / RATE for name in history[0]}
    largest = max(g.abs().max() for g in true.values())
    return [
        100 * max((gradients[s][i][name] - true[name]).abs().max() / largest for name in names[s]).item()
        for s in range(4)
    ]


expected = truth(lambda s, i: max(0, i - (3 - s)))  # which version, by stage and micro-batch: explained below
for i in range(4):
    print(f"micro-batch {i}: error by stage", ", ".join(f"{found:.1e} %" for found in errors(wrong, expected, i)))
reveal("06-wrong", prediction=3, measurement=sum(found > 1e-6 for found in errors(wrong, expected, 1)))

# %% [markdown]
# Micro-batch 0 is right everywhere, because nothing was updated before its backward. For micro-batch 1, only the last
# stage's gradient is right: there a backward follows its forward at once. Each stage before it goes back through
# weights that its forward never used, and passes a wrong gradient on. The result belongs to no single set of weights.
# Nothing warns you: there is no error and no nan. Later the last stage is wrong too, because the stages before it
# have made wrong updates and now send it wrong activations.
#
# ## Weight stashing
#
# PipeDream's remedy is **weight stashing**. A stage puts aside the version that a forward used. The backward of the
# same micro-batch uses it again. After the last backward that needs it, the version is dropped. The gradient is
# right, for the weights at which it was taken. The *update* is applied to the newest weights. `Pipeline` stashes
# unless you forbid it.

# %%
mended, names, gradients = train(pipedream, torch.optim.SGD)
for i in range(4):
    print(f"micro-batch {i}: error by stage", ", ".join(f"{found:.1e} %" for found in errors(gradients, expected, i)))


def distance(net, history):
    """The largest difference of a weight, as a fraction of the largest weight."""
    last, found = history[-1], dict(net.named_parameters())
    return (max((found[n] - last[n]).abs().max() for n in last) / max(w.abs().max() for w in last.values())).item()


print(f"weights after {len(expected) - 1} updates: stash {distance(mended, expected):.1e}", end=", ")
print(f"no stash {distance(careless, expected):.1e} off (as a fraction of the largest weight)")
predict("06-versions", "p = 4. How many versions of its weights does device 0 hold at the peak?", unit="versions")

# %% [markdown]
# The errors that are left are rounding. How many versions must a device keep? Device r has p - r micro-batches in
# flight, and each of them may have begun with another version. The next cell runs the 48-layer model. It also runs
# two relatives of PipeDream, which come next.

# %%
kinds = {"PipeDream": "pipedream", "vertical sync": "vertical-sync", "2BW": "2bw"}


def sgd(named, rate=0.01):
    return torch.optim.SGD([parameter for _, parameter in named], lr=rate)


def run(name, steps=2):
    """Steps of the 48-layer model, and the drain. Returns the reports."""
    schedule = build_schedule(name, devices=4, microbatches=4)
    with Pipeline(model, schedule, loss=next_byte_loss, optimizer=sgd) as pipeline:
        reports = [pipeline.step(inputs, targets) for _ in range(steps)]
        last = pipeline.drain()  # finish what is under way
        return [*reports, last]


reports = {shown: run(name) for shown, name in kinds.items()}
for shown, found in reports.items():
    print(f"{shown:<14} most versions on devices 0 to 3:", [max(r.weight_versions[d] for r in found) for d in range(4)])
note = "Clock: predicted from costs, tF = tB = 1. Three batches of m = 4 micro-batches."
lifetimes = simulate(over(pipedream, 3))
display(plot_lives(lifetimes, title="PipeDream: weight versions over time", note=note))
reveal("06-versions", prediction=4, measurement=reports["PipeDream"][1].weight_versions[0])

# %% [markdown]
# The printed counts come from the real runs: the runtime counts the versions that it keeps. The picture shows
# PipeDream's versions over time, from the first forward to the last update. Dark and light only tell neighbours
# apart. Device 3 needs one, as with a flush. Device 0 needs four.
#
# ## A claim on trial: "the flush copies stage 0's weights"
#
# According to a survey on the web, a flush copies the weights of stage 0 to all stages. What does a flushed step send?

# %%
with Pipeline(copy.deepcopy(small), build_schedule("1f1b", 4, 4), loss=next_byte_loss, optimizer=sgd) as pipeline:
    sent = pipeline.step(*text_batch(batch=8, tokens=16)).timeline.messages
one = 2 * 16 * 16 * 8  # sequences, tokens, width, bytes of a number: an activation of one micro-batch, or its gradient
print(f"{len(sent)} messages: {', '.join(sorted({message.kind for message in sent}))}", end="; ")
print(f"all of {one:,} bytes:", {int(message.size) for message in sent} == {one})
print(
    "parameters of stage 0 that another stage has too:", set(names[0]) & {name for rest in names[1:] for name in rest}
)

# %% [markdown]
# A flushed step sends activations down and gradients up, and no weights. Stages hold *different* layers, so there is
# nothing to copy. A flush is a wait, and then each stage updates its own weights.
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
    # The gradient of the last micro-batch is applied to this version: 2BW makes one update in four micro-batches.
    own = last // 4 if name == "2bw" else last
    print(f"{shown:<14} staleness on stages 0 to 3: {[own - used[Action(s, 'F', last)] for s in range(4)]}", end="; ")
    print("behind the newest of the stage:", [behind[Action(s, "F", last)] for s in range(4)])
whole = over(pipedream, 4)
rule = {f: max(0, f.microbatch - (3 - f.stage)) for f in versions(whole)}
print("PipeDream's table uses the versions of the rule:", versions(whole) == rule)

# %% [markdown]
# Under PipeDream the stages disagree: stage 0 is three updates behind, stage 3 none. So a micro-batch is computed
# with weights that never belonged together in one model. The second list is also for the last micro-batch. It
# compares with the newest version of the stage at the start of the forward. A forward of PipeDream takes the newest.
# Two relatives of PipeDream may take older ones.
#
# **Vertical sync** (same paper) lets all stages use the version that stage 0 used for this micro-batch: max(0, i - (p
# - 1)) everywhere. Each micro-batch then sees one consistent model. But all stages are now p - 1 updates behind, and
# every device keeps p versions, even the last one.
#
# **2BW**, double-buffered weights (Narayanan et al. 2021, arXiv 2006.09503), updates once per batch of m ≥ p
# micro-batches, with their mean gradient. Batch t is computed with version t - 1. Its gradient is applied to version
# t, which makes version t + 1:
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
# Under vertical sync all four rows look like PipeDream's device 0, each shifted a little. Device 3 keeps four
# versions, although no weight changes between its own forward and backward. A micro-batch that entered the pipeline
# earlier still needs the old ones. Under 2BW each row has two lanes.
#
# With m = 2 the table is refused. When device 0 starts batch t, up to three earlier micro-batches are under way. At m =
# 2 one of them belongs to batch t - 2. So version t - 1, which 2BW asks for, does not exist yet.
#
# </details>
#
# ## What to remember
#
# - A flush costs (p - 1)(tF + tB) in each step. Without it the pipeline fills once.
# - A backward needs the weights of its forward. If they have changed, the gradient is wrong, perhaps without a warning.
# - Stashing mends it. PipeDream keeps p - r versions on device r, vertical sync p, 2BW two.
# - The gradients are then right but late. PipeDream is late by p - 1 - s updates on stage s, vertical sync by p - 1
#   everywhere, 2BW by one.
#
# **Where this leads.** The pipeline is now always full. What do the old weights cost, in memory and in learning? Lesson
# 6b measures it. Your guesses so far:

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices. Device s holds stage s, 0 to p - 1. Micro-batches are counted from 0 and go on without
# end. `0F3` is the forward of micro-batch 3 on stage 0, `0B3` its backward. `0U3` is the update of stage 0 after that
# backward. The first update of a stage makes version 1 of its weights, the k-th version k. Version 0 is what the
# stage began with.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="version_number" difficulty="easy" minutes=6
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
# How many updates has a stage run when a forward begins? Each update follows a backward, so count the backwards
# before the forward.

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

# %% [markdown] role="lead" exercise="stash" difficulty="medium" minutes=25
# Here a table is a list of rows, one per device: the order in which the device runs its actions, with its updates. It
# begins and ends with an empty pipeline. A version of a stage's weights is needed by
#
# - each forward that uses it, and the backward of the same micro-batch;
# - the update that makes the next version, because it starts from this one.
#
# The rules are those of PipeDream (`"pipedream"`), vertical sync (`"vertical-sync"`) and 2BW (`"2bw"`). In the first
# two, look in the table for the updates: there may be fewer than one per backward, and warm-ups may be deeper or
# shallower than usual. The newest version is that of the last update before the forward in its device's row. For
# vertical sync, that is in the row of device 0. In a table of 2BW every m backwards make one update, on all devices.
# Find m in the table. All batches are complete, and micro-batch i belongs to batch i // m. Batch t uses version t -
# 1, and batch 0 version 0.
#
# Write two functions. `last_needs` names, for each device and each version, the last action of that device which
# needs it. Leave out the version of the last update, because it is never freed. `peak` returns the largest number of
# versions that each device holds after any of its actions. A version is there from the end of the update that makes
# it. A version is freed right after the last action that needs it. If that is the update, the new version takes its
# place.


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

# %% [markdown] role="lead" exercise="two_bw" difficulty="medium" minutes=12
# Write the table of 2BW for any p and any m of at least p. It has `batches` batches of m micro-batches each, which are
# counted on from one batch to the next. The order is that of 1F1B over all of them, without a flush. The pipeline is
# empty at the beginning and at the end. A device updates its stage right after the last backward of each batch. That
# update has the number of this micro-batch: with m = 4, device 2 runs `"2B3"`, then `"2U3"`. Return one row of actions
# per device.
#
# In the last part the check trains a narrow transformer with your rows, one batch in each step. There the pipeline
# stays full from step to step. Then it compares the weights with those of a single process that follows the formula.
# To see your table, import `Schedule` and `plot_table` from `pipelab` in a new cell.
# `plot_table(Schedule.from_rows(two_bw(4, 4, 2)))` draws it.


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
