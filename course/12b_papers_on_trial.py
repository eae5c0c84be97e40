# ---
# jupyter:
#   pipelab:
#     number: 12b
#     title: "Papers on trial: memory and bubbles"
#     minutes: 45
#     builds_on: [2b, 3b, 4b, 5b, 7, 12]
#     goals:
#       - say what is held fixed in a claim about memory, and settle it by counting
#       - account for the bytes of a parameter in training, from real tensors
#       - find the condition under which a claim of a paper is true
#       - say what a smaller bubble costs - messages, memory, or a longer step
# ---

# %% [markdown]
# ## Can a careful paper be wrong?
#
# Web texts repeat each other's mistakes. Papers are measured, reviewed and quoted. But each of their sentences was
# written for a certain model, on certain machines. Quoted elsewhere, it loses its condition. So the most frequent
# verdict on this page is "true if". Finding the "if" is the work.
#
# Find it in two runs: one inside the condition, one outside. Where both come out alike, it was no condition.

# %% role="setup"
import torch
from pipelab.teaching import *

verdicts = Verdicts()

# %% [markdown]
# ## Memory on trial
#
# Four claims about memory, two of them from texts on the web. Lessons 3b and 5b have the theory: ask what is held
# fixed.

# %%
verdicts.ask("12b-held", "12b-tight", "12b-wall", "12b-gpt3")

# %%
tried, wrong = 0, 0
for p in range(1, 9):
    for m in range(1, 13):
        peaks = simulate(build_schedule("1f1b", p, m)).peak_microbatches
        tried += p
        wrong += sum(peaks[r] != min(p - r, m) for r in range(p))
first = simulate(build_schedule("1f1b", devices=8, microbatches=3)).peak_microbatches[0]
verdicts.settle("12b-held", tried=tried, wrong=wrong, first=first)

# %% [markdown]
# True, without an "if". (The paper gives the largest of them, p.) Now the survey's advice, with real tensors.

# %%
model, (inputs, targets) = TransformerLM(layers=48, width=16, heads=2), text_batch()
held = {}
for name in ("gpipe", "1f1b"):
    with Pipeline(model, build_schedule(name, devices=4, microbatches=16), loss=next_byte_loss) as pipeline:
        held[name] = max(pipeline.step(inputs, targets).peak_activation_bytes) / 1e6
verdicts.settle("12b-tight", gpipe=held["gpipe"], one_f=held["1f1b"], ratio=held["gpipe"] / held["1f1b"])

# %% [markdown]
# The advice is backwards ([lesson 3b](03b_beside_gpipe.ipynb)). With recomputation GPipe holds less, but 1F1B can
# recompute too.


# %%
def growth(name, batch, larger):
    """How many times as many sequences are held with m = 8 as with m = 4, on the fullest device."""
    schedules = build_schedule(name, 4, 4), build_schedule(name, 4, 8)
    few, many = (simulate(one, batch=size) for one, size in zip(schedules, (batch, larger), strict=True))
    return max(many.peak_sequences) / max(few.peak_sequences)


one_batch = {f"{short}_batch": growth(name, 64, 64) for short, name in (("one_f", "1f1b"), ("gpipe", "gpipe"))}
one_size = {f"{short}_size": growth(name, 64, 128) for short, name in (("one_f", "1f1b"), ("gpipe", "gpipe"))}
verdicts.settle("12b-wall", **one_batch, **one_size)

# %% [markdown]
# The text mixes two settings. It counts 2 GB for each micro-batch whatever m is, so micro-batches keep their size. Some
# lines later, m = 32 means two sequences in each, so the batch is fixed. And its schedule is 1F1B. There more
# micro-batches need no more memory from m = p on, and in one batch they need less.
#
# The survey says that GPT-3 needs about 350 GB. Its configuration check counts 2 bytes for each parameter, "parameters
# and gradients", and lets the model pass on eight devices. How many bytes are there in real training?

# %%
layer = torch.nn.Linear(1000, 1000, bias=False).to(torch.bfloat16)
master = layer.weight.detach().float().requires_grad_()  # Adam's own copy: small updates vanish in bfloat16
adam = torch.optim.AdamW([master], foreach=False)
layer(torch.randn(4, 1000, dtype=torch.bfloat16)).float().square().mean().backward()
master.grad = layer.weight.grad.float()  # for the moment of the update
adam.step()
master.grad = None
moments = [state for state in adam.state[master].values() if state.numel() > 1]
kept = [layer.weight, layer.weight.grad, master, *moments]
each = sum(one.numel() * one.element_size() for one in kept) / layer.weight.numel()
gpt3 = ModelFacts.gpt(layers=96, width=12288, heads=96).parameters
verdicts.settle("12b-gpt3", weights=gpt3 * 2 / 1e9, each=each, device=gpt3 * each / 8 / 2**30)

# %% [markdown]
# The 350 GB are weights in 16 bits, and nothing else. Training keeps weights and gradients in 16 bits, and in 32 bits a
# copy of the weights and two moments of Adam ([lesson 1](01_four_devices.ipynb); Rajbhandari et al. 2020, arXiv
# 1910.02054). Activations come on top.
#
# ## Gains on trial: what is paid?
#
# Now four claims of papers. Each names a gain. Look for what is paid.

# %%
verdicts.ask("12b-recompute", "12b-divides", "12b-messages", "12b-four-p")

# %%
from torch.utils.flop_counter import FlopCounterMode

small, (inputs, targets) = TransformerLM(layers=8), text_batch(batch=4)
counts = []
for backward in (False, True):
    with FlopCounterMode(display=False) as counter:
        loss = next_byte_loss(small(inputs), targets)
        if backward:
            loss.backward()
    counts.append(counter.get_total_flops())
forward, both = counts
steps = [
    simulate(build_schedule("gpipe", 4, 8, recompute=again), Costs(forward=1, backward=1)) for again in (False, True)
]
equal = sum(steps[1].busy) / sum(steps[0].busy) - 1
verdicts.settle("12b-recompute", ratio=(both - forward) / forward, counted=forward / both, equal=equal)

# %% [markdown]
# A matrix product has two products in its backward: one for the gradient of its input, one for that of its weights. So
# a backward has about twice the operations, and one more forward adds a third. Where it takes as long as a forward, as
# in many drawings, recomputation adds half. (Chen and others recompute in segments. That is one more forward too.)


# %%
def idle(m, v):
    """Idle time of device 0."""
    timeline = simulate(build_schedule("interleaved" if v > 1 else "1f1b", devices=4, microbatches=m, chunks=v))
    return timeline.makespan - timeline.busy[0]


verdicts.settle("12b-divides", one=idle(8, 1), two=idle(8, 2), four=idle(8, 4), odd=idle(6, 4), few=idle(3, 4))

# %% [markdown]
# True from m = p on. With fewer micro-batches a device has to wait between its chunks. In the paper p must divide m.
# Here groups of p or more micro-batches, all of one size, pass the chunks in turn. So six work too, in one group. The
# paper also names the price: messages.


# %%
def more(p, v):
    """How many times as many messages as 1F1B."""
    dealt, plain = build_schedule("interleaved", p, p, v), build_schedule("1f1b", p, p)
    return simulate(dealt).message_count / simulate(plain).message_count


verdicts.settle("12b-messages", small=more(4, 2), large=more(64, 2))

# %% [markdown]
# With v chunks there are pv stages, and so pv - 1 borders in place of p - 1. On four devices that is more than v times
# as many ([lesson 4b](04b_what_it_costs.ipynb)).

# %%
given = Costs(forward=1, backward=2)
plain, again = (build_schedule("gpipe", 4, 16, recompute=recompute) for recompute in (False, True))
large = simulate(build_schedule("gpipe", 64, 256), given).bubble_fraction
least = next(m for m in range(1, 200) if simulate(build_schedule("gpipe", 4, m), given).bubble_fraction <= 0.05)
plain, again = simulate(plain, given).bubble_fraction, simulate(again, given).bubble_fraction
verdicts.settle("12b-four-p", plain=plain, again=again, large=large, least=least)

# %% [markdown]
# "Negligible" is no number, so the rule had to choose one, and it chose 5 %. The authors measured on their machines,
# with recomputation, and other costs hid the bubble there ([lesson 2b](02b_gradient_and_memory.ipynb)). As a rule for m
# it promises a bubble of at most a fifth.
#
# ## Smaller bubbles
#
# Three schedules promise to beat 1F1B. ([Lesson 7](07_zero_bubble.ipynb) has the first two.) **Chimera** runs two
# pipelines in opposite directions over the same devices. Device r holds stage r of one, and stage p - 1 - r of the
# other.

# %%
verdicts.ask("12b-zero", "12b-v-min", "12b-chimera")


# %%
def idle(name, costs, p=4, m=8, v=1):
    """Total idle time."""
    timeline = simulate(build_schedule(name, p, m, v), costs)
    return timeline.bubble_fraction * timeline.makespan * p


thirds = Costs(forward=1, backward=2, input_gradient=1, weight_gradient=1)
uneven = Costs(forward=1, backward=1.5, input_gradient=1, weight_gradient=0.5)
equal, unequal = (idle("zb-h1", costs) / idle("1f1b", costs) for costs in (thirds, uneven))
held = [max(simulate(build_schedule(name, 4, 8), thirds).peak_microbatches) for name in ("zb-h1", "1f1b")]
verdicts.settle("12b-zero", equal=equal, unequal=unequal, memory=held[0] / held[1])

# %% [markdown]
# The paper's own formula says so: the bubble of ZB-H1 is (p - 1)(tF + tI - tW), where 1F1B has (p - 1)(tF + tI + tW).
# With equal parts that is a third. Attention has no weights, so its gradient is all I. Long sequences make tW the
# smallest part.

# %%
thirds = Costs(forward=1, backward=2)
low = {p: simulate(build_schedule("v-min", p, 2 * p, 2), thirds) for p in (4, 32)}
usual = {p: simulate(build_schedule("1f1b", p, 2 * p), thirds) for p in (4, 32)}
small, large = (max(low[p].peak_microbatches) / max(usual[p].peak_microbatches) for p in (4, 32))
short = Costs(forward=1, backward=1.5, input_gradient=1, weight_gradient=0.5)
steps = [simulate(timeline.schedule, short).makespan for timeline in (low[32], usual[32])]
verdicts.settle("12b-v-min", small=small, large=large, longer=steps[0] / steps[1])

# %% [markdown]
# A few chunks come on top of the third, and on four devices they weigh much. On many devices they hardly count. The
# last figure is the price. Where a weight gradient is short, there is little to fill gaps with. Then the step is
# longer than that of 1F1B.

# %%
p = 8
costs = {"equal": Costs(forward=1, backward=1), "longer": Costs(forward=1, backward=2)}
left = {
    name: simulate(build_schedule("chimera", p, p), cost).bubble_ratio
    / simulate(build_schedule("1f1b", p, p), cost).bubble_ratio
    for name, cost in costs.items()
}
many = [simulate(build_schedule(name, p, 4 * p), costs["longer"]).bubble_ratio for name in ("chimera", "1f1b")]
stages = len(build_schedule("chimera", p, p).stages_on(0))
verdicts.settle("12b-chimera", **left, many=many[0] / many[1], stages=stages)

# %% [markdown]
# The paper says "up to" half, and that "up to" is the condition. A device holds two stages, so weights need twice the
# memory. In this table, with many micro-batches, the two directions get in each other's way, and nothing is left of the
# gain.
#
# **Try it:** settle a claim of your own. Make a `Claim`, and pass it to `verdicts.settle` in place of a name:
#
# ```python
# mine = Claim(
#     "mine", "1F1B needs less memory than GPipe.", "me", run="Peaks of both.", question="How much?", asked="one_f",
#     figures={"one_f": "1F1B holds {:g} micro-batches", "gpipe": "GPipe holds {:g}"},
#     holds=lambda f: f.one_f < f.gpipe,
# )
# verdicts.settle(mine, **{key: max(simulate(build_schedule(name, 4, 3)).peak_microbatches)
#                          for key, name in (("one_f", "1f1b"), ("gpipe", "gpipe"))})
# ```
#
# For which m does the rule say "true"?
#
# <details><summary>What you should see, and why</summary>
#
# For m above p. Up to p device 0 holds all m micro-batches under both, and the fullest device decides whether a model
# fits. So "true if m is above p" would be the verdict of a careful rule.
#
# </details>
#
# ## Break it: give the experiment the wrong input
#
# The verdict "true" on what 1F1B holds should not survive another schedule. Here is GPipe in its place.

# %%
settings = [(p, m) for p in range(1, 9) for m in range(1, 13)]
peaks = {(p, m): simulate(build_schedule("gpipe", p, m)).peak_microbatches for p, m in settings}
wrong = sum(peaks[p, m][r] != min(p - r, m) for p, m in settings for r in range(p))
Verdicts().settle("12b-held", tried=sum(map(len, peaks.values())), wrong=wrong, first=peaks[8, 3][0])

# %% [markdown]
# ## What to remember
#
# - What is held fixed: the batch, or the micro-batch? Two texts that disagree often answer this differently.
# - "Up to", "about" and "negligible" are conditions. Turn them into numbers before you run.
# - A gain in one figure is paid in another one. Hand in both.

# %%
display(verdicts)
ledger()

# %% [markdown] page="exercises"
# In each of these exercises you settle a claim. Your function returns two things: the list of figures, and the verdict,
# `True` or `False`. Both are graded, on settings that you have not seen. `simulate(schedule, Costs(forward=...,
# backward=...))` returns a timeline with `makespan`, `busy` (a time for each device) and `peak_microbatches`. Without
# costs all actions take 1 unit. Nothing here depends on your machine.

# %% role="setup"
from pipelab.teaching import Costs, NotWritten, Schedule, build_schedule, check, simulate

# %% [markdown] role="lead" exercise="held_by_rule" difficulty="easy" minutes=8
# The claim: *under this schedule device r holds min(p - r, m) micro-batches at its peak.* The schedule may be any: not
# only 1F1B. A micro-batch is held from its forward to its backward. With v chunks on each device, a chunk counts 1/v.
#
# Return the peak of each device, in order. Then the verdict. It is true if all devices hold exactly what the rule says.


# %% role="answer" exercise="held_by_rule"
def held_by_rule(schedule: Schedule) -> tuple[list[float], bool]:
    """The most micro-batches that each device holds, and whether the claim is true.

    >>> held_by_rule(build_schedule("1f1b", devices=2, microbatches=4))
    ([2.0, 1.0], True)
    """
    ### BEGIN SOLUTION
    peaks = [float(peak) for peak in simulate(schedule).peak_microbatches]
    p, m = schedule.devices, schedule.microbatches
    return peaks, all(peak == min(p - r, m) for r, peak in enumerate(peaks))
    ### END SOLUTION


# %% [markdown] role="hint" exercise="held_by_rule"
# The rule is what is on trial. So do not start from it. Start from the schedule.

# %% [markdown] role="hint" exercise="held_by_rule"
# A timeline knows what each device holds at its peak. The schedule knows its p and m.

# %% [markdown] role="hint" exercise="held_by_rule"
# `simulate(schedule).peak_microbatches` has a number for each device. Compare entry r with `min(p - r, m)`, where p is
# `schedule.devices` and m is `schedule.microbatches`.

# %% [markdown] role="solution" exercise="held_by_rule"
# What a device holds depends on the order of its actions only. So any costs give the same peaks, as long as they do not
# change the order. One warm-up forward too many, and a device holds one more.

# %% [markdown] role="lead" exercise="recompute_price" difficulty="medium" minutes=12
# The claim: *recomputation makes a step a third longer.* `plain` and `again` are the same schedule without and with
# recomputation. A forward takes `forward`, and so does a recomputed one. A backward takes `backward`.
#
# Return two figures: what recomputation adds to the work of all devices, and what it adds to the step. Both are
# fractions of the time without recomputation. Then the verdict on the second figure. A third means 0.30 to 0.37.


# %% role="answer" exercise="recompute_price"
def recompute_price(plain: Schedule, again: Schedule, forward: float, backward: float) -> tuple[list[float], bool]:
    """What recomputation adds to the work and to the step, and whether the claim is true.

    >>> tables = [build_schedule("gpipe", 1, 2, recompute=again) for again in (False, True)]
    >>> recompute_price(*tables, forward=1, backward=1)    # without others to wait for, both add a half
    ([0.5, 0.5], False)
    """
    ### BEGIN SOLUTION
    costs = Costs(forward=forward, backward=backward)
    without, with_it = simulate(plain, costs), simulate(again, costs)
    work = sum(with_it.busy) / sum(without.busy) - 1
    longer = with_it.makespan / without.makespan - 1
    return [work, longer], 0.30 <= longer <= 0.37
    ### END SOLUTION


# %% [markdown] role="hint" exercise="recompute_price"
# Work and step are not the same. A device that waits may recompute meanwhile.

# %% [markdown] role="hint" exercise="recompute_price"
# Run both schedules under the same costs. Work is the sum of `busy`, and the step is the `makespan`.

# %% [markdown] role="hint" exercise="recompute_price"
# What is added is the new time over the old one, less 1. The verdict looks at the makespans only.

# %% [markdown] role="solution" exercise="recompute_price"
# The work grows by tF/(tF + tB), a third if a backward takes two forwards. The step grows by less where m is small: a
# device that waits for a gradient recomputes in the meantime. So the claim needs two conditions, tB = 2 tF and many
# micro-batches.
