# ---
# jupyter:
#   pipelab:
#     number: 7b
#     title: "Zero bubble: does it pay?"
#     minutes: 45
#     builds_on: [5, 7]
#     goals:
#       - say what cutting a backward costs, and when the filled bubble is worth it
#       - say what an optimizer step does to a zero bubble, and how to let it go without a barrier
#       - say what a fused slot of F and B is for
#       - search for a schedule for measured costs, and judge it by a bound
# ---

# %% [markdown]
# ## 33 units, or 25.5?
#
# Lesson 7 filled the bubble of 1F1B. At p = 4, m = 8 and equal costs, 1F1B takes 33 units, and ZB-V takes 25.5 with
# the same number of micro-batches in flight. Here is the picture again. Is that also what you get?

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch()

# %%
equal = Costs(forward=1, backward=2)
names = {"1F1B": "1f1b", "ZB-H1": "zb-h1", "ZB-V": "zb-v", "V-Half": "v-half", "DualPipeV": "dualpipev"}
made = {shown: build_schedule(name, devices=4, microbatches=8) for shown, name in names.items()}
drawn = {shown: simulate(made[shown], equal) for shown in ("1F1B", "ZB-V")}
display(plot_schedules(list(drawn.values()), list(drawn)))
question = "Really run on the 48-layer model: how long does ZB-V take, as a percentage of 1F1B?"
predict("07b-zbv", question, unit="%")

# %% [markdown]
# The next cell runs them on the 48-layer model: 64 sequences, m = 8, the device clock. "Work" is the sum of what all
# actions cost, "idle" is the rest of the devices' time. Both are printed per device, as a mean, in milliseconds.
# (DualPipeV comes further below.)

# %%
cases = {shown: (name, made[shown].chunks, False) for shown, name in names.items()}
family = measure_family(Setting(steps=3, verify=False), 8, cases)
for shown, e in family.items():
    makespan, work = 1e3 * e.measured.makespan, 1e3 * sum(span.duration for span in e.measured.spans) / 4
    held = max(e.report.peak_activation_bytes) / 1e6
    print(
        f"{shown:<9} {makespan:.0f} ms = {work:.0f} work + {makespan - work:.0f} idle; "
        f"bubble {e.measured.bubble_fraction:.1%}, predicted {e.predicted.bubble_fraction:.1%}; at most {held:.0f} MB"
    )
took = {shown: e.measured.makespan for shown, e in family.items()}
reveal("07b-zbv", prediction=100 * 25.5 / 33, measurement=100 * took["ZB-V"] / took["1F1B"])

# %% [markdown]
# The bubbles of ZB-H1 and ZB-V are smaller, as promised. But the makespan falls by less, and it may even grow, because
# *the work has grown*. DualPipeV, which cuts only some of its backwards, has less work than these two. The memory has
# grown as well: the gradients that wait for W are kept beside x.
#
# ## What the cut costs
#
# A profile runs one micro-batch alone, first back by B, then once more and back by I and W. In turns with the steps of
# ZB-H1 it found this for the stages in the middle:

# %%
costs = family["ZB-H1"].costs
b, i, w = (sum(times[1:3]) / 2 for times in (costs.backward, costs.input_gradient, costs.weight_gradient))
print(f"a backward of one stage: whole {1e3 * b:.1f} ms, I {1e3 * i:.1f} ms, W {1e3 * w:.1f} ms")
print(f"(I + W) / B = {(i + w) / b:.2f}")

# %% [markdown]
# I and W together take longer than B. They multiply the same matrices, but more happens around that:
#
# - The graph is walked twice, and each node with a weight is called twice.
# - W reads x and g from memory again.
# - A few operations, such as the backward of a layer norm, compute most of their result for each half.
#
# The smaller an operation is, the more the first of these weighs. Our layers are narrow: an operation takes some ten
# microseconds. On a large model each takes milliseconds, and the cut costs hardly anything. So the question is where
# it begins to pay. The next cell keeps tF = 1 and tB = 2, and lets tI + tW grow.

# %%
prices = [1 + k / 10 for k in range(7)]
shorter = {}
for shown in ("ZB-H1", "ZB-V", "V-Half"):
    half = [Costs(forward=1, backward=2, input_gradient=c, weight_gradient=c) for c in prices]  # (I + W) / B = c
    shorter[shown] = [100 * simulate(made[shown], one).makespan / drawn["1F1B"].makespan for one in half]
for shown, values in shorter.items():
    pays = [c for c, value in zip(prices, values, strict=True) if value < 100]
    print(f"{shown:<7} is faster than 1F1B up to (I + W) / B = {max(pays, default=float('nan')):.2f}")
axes = {"across": "what cutting adds to a backward, %", "up": "makespan, percentage of that of 1F1B"}
added = [round(100 * (c - 1)) for c in prices]
plot_curves(added, shorter, **axes, title="What a cut may cost, p = 4, m = 8", note="Predicted, tF = 1 and tB = 2.")

# %% [markdown]
# Compare with your `(I + W) / B` above. If it is near the point where a curve crosses 100, gain and price are about
# equal, and the scatter of a few steps decides. (The measured runs differ from this curve in three ways. I is longer
# than W. Stage 0 has almost no I. And the stages of ZB-V are half as long, so that its actions are smaller.)
#
# V-Half wins little at p = 4, even where the cut costs nothing. What it saves is memory.
#
# **Try it:** use larger micro-batches: `large = measure_family(Setting(batch=256, steps=2, verify=False), 8, {"ZB-H1":
# ("zb-h1", 1, False)})`. Then compute (I + W) / B from `large["ZB-H1"].costs`, as above.
#
# <details><summary>What you should see, and why</summary>
#
# It gets closer to 1. An operation on 32 sequences takes longer, and what happens around it does not. What stays is
# the price of reading x and g twice, and of operations that are computed for each half.
#
# </details>
#
# ## A claim on trial: "up to 23 % more throughput"
#
# The paper reports up to 23 % more throughput than 1F1B "under a similar memory limit" (Qi et al., arXiv 2401.10241).
# That means: 1F1B takes 1.23 times as long as the new schedule. What is the most that an order of such actions can win?
# Without a bubble the step takes m(tF + tB), and 1F1B takes (m + p - 1)(tF + tB). So the limit is (p - 1)/m.

# %%
counts = (8, 16, 24, 32, 64)
for p in (4, 8):
    gains = {"most": [], "ZB-H1": []}
    for m in counts:
        plain = simulate(build_schedule("1f1b", p, m), equal).makespan
        gains["most"].append(1 + (p - 1) / m)
        gains["ZB-H1"].append(plain / simulate(build_schedule("zb-h1", p, m), equal).makespan)
    for shown, values in gains.items():
        each = ", ".join(f"m = {m}: {value - 1:.0%}" for m, value in zip(counts, values, strict=True))
        print(f"p = {p}, {shown:<6} {each}")
for shown in ("ZB-H1", "ZB-V", "DualPipeV"):
    print(f"measured here, {shown}: {took['1F1B'] / took[shown] - 1:+.0%}")

# %% [markdown]
# The claim can hold: at p = 8 and small m, 23 % is within reach. But it is a statement about p, m and the price of the
# cut, and not about the schedule. At m = 64 there is little left to win, because 1F1B has little bubble left. There a
# cut that costs 20 % takes more than the gain.
#
# So a filled bubble pays where m must be small: where the batch is small, or p is large. It needs large operations too.
#
# ## What the optimizer step waits for
#
# In lesson 7 the last 3 units of ZB-H2 were lost once a step, because of the barrier between steps. What is that
# barrier for? Two things need all gradients before anyone may update: clipping by the *global* norm, and the check for
# gradients that are not finite. Without either, each device may update as soon as its own last W is over.
#
# For these cases the same paper proposes **post-validation**: update early, as if nothing had to be clipped. The norm
# of all gradients comes afterwards. If something must be clipped after all, undo the update and do it again. The next
# cell trains a small model twice under ZB-H2, first without post-validation and then with it.

# %%
import torch


def adam(named):
    return torch.optim.AdamW([parameter for _, parameter in named], lr=0.01)


h2, largest, trained = build_schedule("zb-h2", devices=4, microbatches=8), 1.2, []
for early in (False, True):
    small = TransformerLM(layers=8, width=32, heads=2)
    options = {"optimizer": adam, "clip_norm": largest, "post_validation": early}
    with Pipeline(small, h2, loss=next_byte_loss, **options) as pipeline:
        reports = [pipeline.step(*text_batch(k, batch=32)) for k in range(6)]
    trained.append([parameter.detach().clone() for parameter in small.parameters()])
for k, report in enumerate(reports):  # of the second run
    print(f"step {k}: gradient norm {report.gradient_norm:.2f}, undone and done again: {report.rolled_back}")
timeline = reports[-1].timeline
for update in timeline.updates:
    earlier = 1e3 * (timeline.end - update.start)
    print(f"device {update.device} updates {earlier:.1f} ms before the last device ends its backwards")
print(f"(the step takes {1e3 * timeline.makespan:.0f} ms)")
print("weights are the same, bit for bit:", all(map(torch.equal, *trained)))

# %% [markdown]
# The first steps have large gradients. There the assumption is wrong, and the updates are made twice. Later it holds,
# and each device updates when its own work is over. The weights are the same in both runs. The price is a copy of the
# weights and the optimizer's state until the norm is known. (`docs/your-model.md` says more.)
#
# ## Slots with two actions
#
# DualPipeV (from DeepSeek's repository) also folds the model into a V, and writes some actions in pairs: a forward of
# one micro-batch and a backward of another, in one slot. Such a **fused slot** may take less time than its two
# actions one after the other. Does it here?

# %%
question = "A slot of F and B on one device. Its cost, as a percentage of the two alone?"
predict("07b-fused", question, unit="%")

# %%
report = family["DualPipeV"].report
alone, fused = {}, []
for row, costs_of_row in zip(report.schedule.programs, report.slot_costs.slots, strict=True):  # device by device
    for slot, cost in zip(row, costs_of_row, strict=True):
        if not isinstance(slot, tuple):
            alone.setdefault((slot.stage, slot.op), []).append(cost)
        else:
            fused.append((slot, cost))
mean = {key: sum(found) / len(found) for key, found in alone.items()}
pairs = [(cost, [mean.get((a.stage, a.op)) for a in slot]) for slot, cost in fused]
known = [(cost, sum(parts)) for cost, parts in pairs if None not in parts]
slots = sum(map(len, report.schedule.programs))
print(f"{len(fused)} of {slots} slots are fused, such as", *fused[0][0])
print(f"for {len(known)} of them both actions also run alone somewhere")
reveal("07b-fused", prediction=100, measurement=100 * sum(c for c, _ in known) / sum(parts for _, parts in known))

# %% [markdown]
# On one core a fused slot takes about as long as its two actions in turn. The slot is made for another machine.
# DeepSeek-V3 (arXiv 2412.19437) is a mixture of experts, spread over many GPUs: inside each forward and backward,
# tokens travel to other GPUs and back. While the forward's tokens travel, the backward computes, and the other way
# round. Suppose the pair then takes 60, 80 or 100 % of its parts:

# %%
for part in (1.0, 0.8, 0.6):
    overlap = Costs(forward=1, backward=2, fused={"FB": part, "BF": part})
    timeline = simulate(made["DualPipeV"], overlap)
    print(f"fused slots take {part:.0%} of their parts: {timeline.makespan:.1f} units, 1F1B {drawn['1F1B'].makespan:g}")

# %% [markdown]
# So its strength is not a smaller bubble than that of ZB-V. It hides messages *within* actions, which no order of
# whole actions can do. (DeepSeek's table counts the full backward as B, and the zero-bubble papers half of it.
# Compare formulas of the two with care.)
#
# ## Search for your own
#
# All these tables were made for equal costs. Yours are not equal. What is the best order for what *your* stages cost?
# `search_schedule` builds tables by simple rules, for example "run W only if nothing else can run". It then improves
# the best one: it moves single actions, and keeps each move that helps. Each try is a simulation. A **lower bound**
# says how far any search can get: each device has its work, and cannot begin before a first forward comes through.

# %%
costs = family["ZB-H1"].costs  # measured: F, B, I and W of each stage, and bytes
limit = max(family["1F1B"].report.peak_activation_bytes)
found = search_schedule(devices=4, microbatches=8, costs=costs, memory_limit=limit, seconds=4)
print(f"bound {found.bound:.3f} s, found {found.makespan:.3f} s with at most {limit / 1e6:.0f} MB on a device")
name, makespan = found.known[0]
print(f"the best of the catalogue that fits: {name}, {makespan:.3f} s")
backwards = [action for row in found.schedule.programs for action in row if action.op in "BI"]
print(f"{sum(action.op == 'I' for action in backwards)} of {len(backwards)} backwards are cut")
plot_timeline(found.timeline, memory=False)

# %% [markdown]
# The found table cuts a backward where that fills a bubble, and leaves the others whole. No order with one stage on
# each device takes less than the bound, so there is not much left to look for. (Micro-batches need not come in order:
# all of them cost the same.)
#
# Now run it beside 1F1B, and check its gradients.

# %%
for shown, schedule in {"1F1B": made["1F1B"], "found": found.schedule}.items():
    with Pipeline(model, schedule, loss=next_byte_loss) as pipeline:
        for _ in range(3):
            step = pipeline.step(inputs, targets)
    guess = simulate(schedule, costs, batch=64).makespan
    print(f"{shown:<5} predicted {guess:.3f} s, measured {step.timeline.makespan:.3f} s (device clock)")
exact = Pipeline(TransformerLM(layers=48).double(), found.schedule, loss=next_byte_loss)
print(f"most activations: {max(step.peak_activation_bytes) / 1e6:.0f} MB, allowed {limit / 1e6:.0f} MB")
print(f"largest gradient error, in float64: {exact.verify(inputs[:8], targets[:8]):.0e}")

# %% [markdown]
# In the run, actions cost more than in the profile, where one device works at a time. Both schedules pay that. Compare
# the two measured times with each other: a few steps scatter by several per cent, so look at more of them before you
# trust a small difference.
#
# ## Break it: search with the wrong costs
#
# A search is as good as its costs. The next cell searches at equal costs, and then asks what its table takes with the
# measured ones.

# %%
naive = search_schedule(devices=4, microbatches=8, costs=equal, seconds=2)  # what 1F1B holds on device 0 is the limit
true = simulate(naive.schedule, costs, batch=64)
print(f"for equal costs: {naive.makespan:g} units, bound {naive.bound:g}")
print(f"the same table with measured costs: {true.makespan:.3f} s, the table found for them {found.makespan:.3f} s")

# %% [markdown]
# By its own costs, which say that a cut is free, the table is perfect. By yours it is not. The same holds for every
# schedule with a name: it was made for somebody's costs.
#
# ## What to remember
#
# - Cutting a backward costs something. (I + W) / B, p and m decide whether a filled bubble pays.
# - No order of the same actions can win more than (p - 1)/m over 1F1B. With a large m there is little to fill.
# - A zero bubble between steps needs an optimizer step without a barrier.
# - Fused slots are for hiding messages within actions.
# - A search on a simulator finds an order for measured costs, and a bound says how good it is.
#
# **Where this leads.** You have cut time into pieces. Lesson 8 cuts the model: layers cost different amounts, and
# devices are not all alike. Your guesses so far:

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices, and m the number of micro-batches in a batch. A backward comes in two halves. I computes
# the gradient of the stage's input, which the device before waits for. W computes the gradients of the weights.
# `2F1`, `2I1` and `2W1` are the forward, I and W of micro-batch 1 on stage 2. They take tF, tI and tW. Messages take
# no time unless an exercise gives them one. A device holds a micro-batch from the start of its F to the end of its W.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="fastest_that_fits" difficulty="medium" minutes=18
# You get tables for one p and m, by their names: `"1f1b"`, `"zb-h1"`, `"zb-h2"`, `"zb-v"`, `"v-half"` and `"v-min"`.
# (ZB-H2 is missing where m is too small for it.) A forward, an I and a W of one device's whole share of the model
# take `t_forward`, `t_input` and `t_weight`, and a whole backward takes `t_input + t_weight`. `simulate` divides them
# where a device has two chunks. A message takes `t_message`. The memory is given as a share of what
# device 0 holds under 1F1B: with 0.5, no device may hold more than half of that. Return the name of the table with
# the shortest makespan among those that fit, or `"none"`. Any table within 5 % of the best is accepted.
#
# `simulate(table, costs)` returns a timeline with `makespan` and `peak_microbatches`, as in the lessons. It counts a
# micro-batch on one of two chunks as a half. `Costs` takes whole backwards as `backward`, their halves as
# `input_gradient` and `weight_gradient`, and the time of a message as `latency`.


# %% role="answer" exercise="fastest_that_fits"
from pipelab import Costs, Schedule, simulate


def choose(
    tables: dict[str, Schedule], t_forward: float, t_input: float, t_weight: float, t_message: float, share: float
) -> str:
    """The name of the fastest table that fits.

    >>> from pipelab import build_schedule
    >>> tables = {name: build_schedule(name, devices=2, microbatches=2) for name in ("1f1b", "zb-h1")}
    >>> choose(tables, 10, 10, 10, 0, share=1), choose(tables, 10, 10, 10, 0, share=0.5)
    ('zb-h1', 'none')
    """
    ### BEGIN SOLUTION
    costs = Costs(t_forward, t_input + t_weight, input_gradient=t_input, weight_gradient=t_weight, latency=t_message)
    runs = {name: simulate(table, costs) for name, table in tables.items()}
    limit = share * runs["1f1b"].peak_microbatches[0]
    fits = [name for name, run in runs.items() if max(run.peak_microbatches) <= limit]
    return min(fits, key=lambda name: runs[name].makespan, default="none")
    ### END SOLUTION


# %% [markdown] role="hint" exercise="fastest_that_fits"
# Which comes first, the limit or the time? What does a table have to show on each device before its makespan matters?

# %% [markdown] role="hint" exercise="fastest_that_fits"
# Simulate each table once with the costs of the case. The run of 1F1B says what device 0 holds there. Leave out each
# table that holds more than the share on any device. Of the others, compare the makespans.

# %% [markdown] role="hint" exercise="fastest_that_fits"
# The order in a device's row decides what it holds, whatever the costs. So the run that gives the makespan gives the
# peaks too. Which device of a V is the fullest, if m is below p? `min` takes a `key`, and a `default` for an empty
# list.

# %% [markdown] role="solution" exercise="fastest_that_fits"
# ZB-V is the fastest in many cases, but it sends twice as many messages as the schedules with one chunk. With slow
# messages ZB-H1 wins at the same memory, and ZB-H2 where there is more. Below 1F1B's memory only V-Half and V-Min are
# left. 1F1B is never ahead of ZB-H1, which holds the same on device 0.

# %% [markdown] role="lead" exercise="bound_and_found" difficulty="hard" minutes=30
# How short can a step be at best, whatever the order, and whatever the devices hold? Stage s is on device s. Each
# backward is cut into I and W. Messages take no time. Write two functions:
#
# - `least_makespan` returns a **lower bound** of the makespan: no order can take less. Find it from single devices. A
#   device has its own work to do. Not all can begin at time 0, and after its last I others must still finish. The
#   check knows tables for its cases. Your bound must never be above what a table takes, and as high as pipelab's own
#   bound.
# - `found` returns a table as text, with a line for each device, as `Schedule.to_csv` writes it. It is for p = 4, m =
#   8, tF = 10, tI = 14 and tW = 6. No device may hold more than 6 micro-batches. The makespan may be at most 1.05
#   times the bound.
#
# No table of the catalogue with one stage on each device keeps to both limits of `found`. So search for one. In a new
# cell, `from pipelab.teaching import Costs, search_schedule` gives you the search, and
# `result = search_schedule(4, 8)` is its shortest call. It also takes `costs`, `memory_limit` (in micro-batches) and
# `seconds`. A result has a `schedule`, a `makespan`, and the `bound` that the search knows. `Costs` takes tI as
# `input_gradient`, tW as `weight_gradient` and the time of a whole backward B as `backward`. B is an I with its W right
# behind it, so it takes tI + tW. The search may use it, and your table may have it too. If you leave `backward` out, B
# takes 1, and the search finds a table that is fast only on paper. `print(result.schedule.to_csv())` shows the text of
# the table. Paste it into your function. During a check the search does not answer.


# %% role="answer" exercise="bound_and_found"
def least_makespan(devices: int, microbatches: int, t_forward: float, t_input: float, t_weight: float) -> float:
    """No order of F, I and W takes less.

    >>> least_makespan(2, 1, t_forward=1, t_input=2, t_weight=1)    # F, F, I, I, W: one after the other
    7
    """
    ### BEGIN SOLUTION
    bounds = []
    for r in range(devices):
        all_forwards = (r + microbatches) * t_forward
        first_gradient = devices * t_forward + (devices - 1 - r) * t_input
        last_input = max(all_forwards, first_gradient) + microbatches * t_input
        bounds.append(last_input + max(microbatches * t_weight, r * t_input + t_weight))
    return max(bounds)
    ### END SOLUTION


# %% role="answer" exercise="bound_and_found"
def found() -> str:
    """The table, a line for each device.

    >>> len(found().splitlines())
    4
    """
    ### BEGIN SOLUTION
    rows = """
        0F0,0F1,0F2,0F3,0F4,0F5,0I0,0W0,0F6,0I1,0W1,0F7,0I2,0I3,0W2,0I4,0W3,0W4,0I5,0W5,0I6,0W6,0I7,0W7
        1F0,1F1,1F2,1F3,1F4,1F5,1I0,1W0,1I1,1W1,1F6,1I2,1I3,1F7,1I4,1W2,1W3,1W4,1I5,1W5,1I6,1W6,1I7,1W7
        2F0,2F1,2F2,2F3,2I0,2F4,2I1,2F5,2I2,2W0,2I3,2F6,2I4,2W1,2F7,2I5,2W2,2W3,2I6,2W4,2W5,2I7,2W6,2W7
        3F0,3I0,3F1,3I1,3F2,3I2,3F3,3I3,3F4,3I4,3F5,3I5,3W0,3F6,3I6,3W1,3F7,3I7,3W2,3W3,3W4,3W5,3W6,3W7
    """
    return "\n".join(line.strip() for line in rows.strip().splitlines())
    ### END SOLUTION


# %% [markdown] role="hint" exercise="bound_and_found"
# Take device r alone. When can its first F begin at the earliest? When can its first I begin? What still has to run
# on other devices after its last I? For `found`, which argument of the search does the limit of 6 belong to?

# %% [markdown] role="hint" exercise="bound_and_found"
# The last I of device r ends after two different times. All its F's and I's have run by then, one after the other,
# beginning with its first F. And all its I's have run, beginning with the first gradient that can arrive. The later
# of the two counts. After that, two things run at the same time: the W's that this device has put off, and the way of
# the gradient to device 0. A W that is not put off saves nothing in a bound: it makes the last I later.

# %% [markdown] role="hint" exercise="bound_and_found"
# Draw the case p = 2, m = 1: a staircase down and up, with a W at the end. At what time does I begin on device 0? Now
# write it for any p and r, in terms of tF and tI. How many I's come after that of device r, before the W on device 0?
# A W of device r that runs before its last I adds tW before the end of that I, and takes tW away behind it. The sum
# stays the same, so count all m W's behind the last I. Take the largest result of all devices.

# %% [markdown] role="solution" exercise="bound_and_found"
# The table was found by `search_schedule(4, 8, costs=costs, memory_limit=6, seconds=5)`, where `costs` has the times of
# this exercise. With the usual limit of 4 the search finds nothing better than ZB-H1, and with 7 it finds ZB-H2. What
# is in between has no name. A bound says when to stop: where a table takes just as long, no search can find a better
# one. But it only holds for what it was derived from. With two chunks on each device, ZB-V takes less than this bound.
