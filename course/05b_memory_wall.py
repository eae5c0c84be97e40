# ---
# jupyter:
#   pipelab:
#     number: 5b
#     title: "The memory wall: which m is possible"
#     minutes: 50
#     builds_on: [2, 3, 5]
#     goals:
#       - say what is held fixed when m grows, the batch or the micro-batch, and what follows for speed
#       - say on which side of m the memory wall stands, for each schedule and for what is held fixed
#       - put a rule of thumb for m on trial
#       - choose schedule and m for a model, a batch and a limit, and defend the choice against its neighbours
# ---

# %% [markdown]
# ## The fastest m does not fit. What now?
#
# Lesson 5 found the m with the shortest step. Memory did not come into it, but a device has only so much. A text on our
# worked example concludes that "a 32 GB device cannot have m above 16". Does memory limit m at all? From above, or from
# below? The answer depends on the schedule, and on something that such sentences often leave out.

# %% role="setup"
import math
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
predict("05b-fixed", "1F1B, micro-batches of 4: sequences per second at m = 16, against m = 4?", unit="% more")

# %% [markdown]
# ## What is held fixed?
#
# Lesson 5 fixed the batch at 64 sequences, and m cut it more finely. Many texts mean something else without saying so:
# the size of a micro-batch is fixed, and a larger m makes a larger *batch*. Here are both. The folded cell has
# `measure` and `T` of lesson 5, and profiles your machine.

# %% jupyter={"source_hidden": true}
from contextlib import ExitStack


def measure(ms, batch=lambda m: (inputs, targets)):
    """Steps of 1F1B for each m, with p = 4 and the device clock: the report of the faster of two, as in lesson 5."""
    found, options = {}, {"loss": next_byte_loss, "clock": "device", "window": 1}
    with ExitStack() as stack:
        schedules = {m: build_schedule("1f1b", 4, m) for m in sorted(ms)}
        pipelines = {m: stack.enter_context(Pipeline(model, order, **options)) for m, order in schedules.items()}
        for m in [*pipelines, *reversed(pipelines)]:
            report = pipelines[m].step(*batch(m))
            if m not in found or report.timeline.makespan < found[m].timeline.makespan:
                found[m] = report
    return {m: found[m] for m in ms}


def T(m, line, p=4, B=64):
    """Seconds of a step by the formula of lesson 5."""
    return (m + p - 1) * line(B / m)


def star(line, p=4, B=64):
    """The m at which the formula is least."""
    return math.sqrt((p - 1) * line.beta * B / line.alpha) if line.alpha > 0 else B


_ = measure([2], batch=lambda m: text_batch(batch=8))  # the first run also pays for starting up
how = {"loss": next_byte_loss, "chunks": (1,), "repeats": 2, "progress": False}
profile = profile_costs(model, inputs, targets, devices=4, sizes=(1, 2, 4, 8, 16), **how)
line = profile.line()
print(f"t(b) = {1000 * line.alpha:.2f} ms + {1000 * line.beta:.2f} ms * b")  # anew: it moves from day to day

# %%
import random
from statistics import fmean

whole = measure((4, 8, 16))
small = measure((4, 8), batch=lambda m: text_batch(batch=4 * m)) | {16: whole[16]}  # both are the same at m = 16
rate = {m: 4 * m / report.timeline.makespan for m, report in small.items()}
for m in small:
    print(f"m = {m:>2}: micro-batch of {4}, batch {4 * m}, {rate[m]:.0f} sequences/s;", end=" ")
    print(f"micro-batch of {64 // m}, batch {64}, {64 / whole[m].timeline.makespan:.0f} sequences/s")
ms = (2, 4, 8, 16, 32, 64)
rates = {
    "Micro-batch fixed: m times 4 sequences": [4 * m / T(m, line, B=4 * m) for m in ms],
    "Batch fixed: 64 sequences": [64 / T(m, line) for m in ms],
}
note = "Clock: predicted, from the line fitted on this machine, p = 4. At m = 16 both have 16 micro-batches of 4."
axes = {"across": "micro-batches m", "up": "sequences per second"}
display(plot_curves(ms, rates, **axes, title="One has a knee, the other has none", note=note, log=True))
reveal("05b-fixed", prediction=100 * ((16 / 19) / (4 / 7) - 1), measurement=100 * (rate[16] / rate[4] - 1))

# %% [markdown]
# With b fixed, t(b) does not change with m. The pipeline trains
#
# $$\frac{m\,b}{(m + p - 1)\,t(b)} \text{ sequences per second}.$$
#
# By the formula this keeps rising with m, but stays below b/t(b). (Two runs of the same m can differ by more than a
# doubling gains, so the three measured rates may even fall.) So at a fixed micro-batch "the larger m, the
# better" is true of the formula. (This leaves out the optimizer's update, which comes once per batch. With a larger m,
# each sequence also pays a smaller part of it.) But the gain runs out. How soon? The cell continues the run at m = 16
# to more micro-batches. In the first simulation each action costs the mean of its kind. In the second the costs are
# drawn from those measured, so they scatter as in the run (lesson 5).


# %%
def continued(m, report, draw):
    """Sequences per second of 1F1B with m micro-batches of 4; `draw` makes a cost from those measured in `report`."""
    kinds = {}
    for program, row in zip(report.schedule.programs, report.slot_costs.slots, strict=True):
        for action, cost in zip(program, row, strict=True):
            kinds.setdefault((action.stage, action.op), []).append(cost)
    schedule = build_schedule("1f1b", 4, m)
    slots = [[draw(kinds[action.stage, action.op]) for action in row] for row in schedule.programs]
    return 4 * m / simulate(schedule, SlotCosts(slots)).makespan


before = None
for m in (16, 32, 64, 128):
    even, uneven = continued(m, small[16], fmean), fmean(continued(m, small[16], random.choice) for _ in range(5))
    told = f"m = {m:>3}, batch {4 * m:>3}: {even:.0f} sequences/s without scatter, {uneven:.0f} with it"
    print(told if before is None else f"{told}; {even / before[0] - 1:+.1%} and {uneven / before[1] - 1:+.1%}")
    before = even, uneven

# %% [markdown]
# Each doubling of m gains less than the one before, and soon the gain is smaller than the difference between two runs
# of the same m. With scatter 1F1B never reaches b/t(b). So "the larger m, the better" is true at first. Later the gain
# is too small to measure or to matter. Meanwhile the batch grows with m, and the batch is a choice about *learning*:
# how many sequences go into one update of the weights. So fix the batch first, for the sake of learning. Then choose m
# for the sake of the machine. That is how this course asks the question.
#
# ## The memory wall
#
# The knee says which m is fast. Memory says which m is possible. `Pipeline(memory_limit=...)` allows each device a
# fixed number of bytes for weights, gradients and activations. A step that needs more stops there. (These runs have no
# optimizer. Its state would count as well.) First the batch is fixed at 64.

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
predict("05b-wall", "1F1B with micro-batches of 8 sequences, limit 40 MB. Which is the largest m that runs?", unit="")

# %% [markdown]
# At a fixed batch GPipe without recomputation fails at *every* m. Its devices hold the whole batch before the first
# backward, in 1 piece or in 64. Only the action that crosses the limit differs. (The message says what was needed at
# that moment, not what the whole step would need.) Under 1F1B a larger m helps. Recomputation helps GPipe, and costs a
# second forward. Now fix the micro-batch instead:

# %%
for m in (4, 5, 6):
    print(f"gpipe, m = {m}, micro-batches of {4}: {fits('gpipe', m, batch=4 * m)[1]}")
for m in (6, 14):
    print(f"{'1f1b'}, m = {m}, micro-batches of {4}: {fits('1f1b', m, batch=4 * m)[1]}")
answers = {m: fits("1f1b", m, batch=8 * m) for m in (2, 3, 5)}
for m, (_, told) in answers.items():
    print(f"{'1f1b'}, m = {m}, micro-batches of {8}: {told}")
most = max((m for m, (ran, _) in answers.items() if ran), default=0)
reveal("05b-wall", prediction=math.floor((40 - held) / (2 * kept)), measurement=most)

# %% [markdown]
# With micro-batches of 4 the wall stops GPipe, and 1F1B runs at any m: device 0 never holds more than p = 4 of them.
# With micro-batches of 8 even p of them are too many. Then only an m below p fits, and m is bounded under 1F1B too.
#
# (A run shows the fullest device. Under GPipe that is the last one, which also keeps what its loss needs. So the run
# needs a little more than the numbers of device 0 add up to.)
#
# The wall stands on opposite sides, depending on what is held fixed:
#
# | held fixed | GPipe | GPipe with recomputation | 1F1B |
# | --- | --- | --- | --- |
# | batch | m does not matter: it fits or not | bounds m from below | bounds m from below |
# | micro-batch | bounds m from above | from above, much later | not at all if p micro-batches fit, else below p |
#
# "Memory limits m from above" is true only at a fixed micro-batch. There it is always true of GPipe. For a schedule
# that never holds more than k micro-batches, there is such a bound only if k of them do not fit. 1F1B holds min(p, m)
# of them on device 0. Interleaved 1F1B holds at most p + (p - 1)/v where m is a multiple of p: 5.5 at p = 4 and v = 2.
# With larger groups it holds up to 2p - 1: 7 at m = 7.
#
# The text quoted at the top confuses the two settings. It gives each micro-batch 2 GB, lets m = 8 hold twice as much as
# m = 4, and concludes that a 32 GB device cannot have m above 16. That needs a fixed micro-batch. In its next paragraph
# the batch is 64 sequences, and m = 32 means micro-batches of 2 sequences: a fixed batch. And it recommends 1F1B, which
# at a fixed micro-batch holds p = 4 of them at any m.
#
# **Try it:** at a fixed batch, does the wall bound m from above under any of the three? Run `fits("1f1b", 64)` and
# `fits("gpipe", 64, recompute=True)`.
#
# <details><summary>What you should see, and why</summary>
#
# Both run, with less than at any smaller m. At a fixed batch a larger m makes each micro-batch smaller. 1F1B holds at
# most p of these smaller ones. GPipe with recomputation holds the activations of one of them, and of the others only
# the inputs, which are the same bytes at any m. So memory never bounds m from above there.
#
# </details>
#
# ## A claim on trial: "take the smallest m that fits"
#
# At a batch of 64, if $m^*$ does not fit under 1F1B, only larger m fit. The smallest of them is nearest to $m^*$. So
# where the fastest m does not fit, take the smallest m that does? The cell asks the frozen profile: this model's costs,
# measured once on another machine and shipped with pipelab. (It counts the state of an optimizer too.) The last lines
# are runs on your machine. They have no optimizer, so a smaller m fits.

# %%
frozen = CostProfile.shipped()


def shortest(costs, name, limit, recompute, counts=range(1, 65)):
    """(step in seconds, m) of the m that fit: of the smallest without recomputation, of the fastest with it."""
    found = []
    for m in counts:
        predicted = costs.predict(build_schedule(name, 4, m, recompute=recompute), batch=64)
        if max(held.total for held in costs.memory(predicted)) <= limit * 1e6:
            found.append((predicted.makespan, m))
    return found[0] if not recompute else min(found)


for limit in (42, 30, 20):
    (plain, m), (again, n) = (shortest(frozen, "1f1b", limit, r) for r in (False, True))
    print(f"{limit} MB: the smallest m of 1F1B is {m}, {1000 * plain:.0f} ms;", end=" ")
    print(f"with recomputation m = {n}, {1000 * again:.0f} ms: {again / plain - 1:+.0%}")

(_, m), (_, n) = (shortest(profile, "1f1b", 20, r) for r in (False, True))
for count, recompute in ((m, False), (n, True)):
    schedule = build_schedule("1f1b", 4, count, recompute=recompute)
    with Pipeline(model, schedule, loss=next_byte_loss, clock="device", memory_limit="20MB") as pipeline:
        took = pipeline.step(inputs, targets).timeline.makespan
    told = f"1F1B{' with recomputation' if recompute else ''}, m = {count}"
    print(f"measured here under {20} MB: {told}: {1000 * took:.0f} ms")

# %% [markdown]
# The claim holds while the wall is near the knee. Under 30 MB both are about equally fast. Under 20 MB the smallest m
# that fits pays so many fixed costs that a second forward at a smaller m costs less. So compare both: the smallest m
# that fits, and the best m with recomputation.
#
# ## Rules of thumb on trial
#
# Three more rules are common.
#
# 1. "Take m = 4p." Huang et al. found GPipe's bubble negligible from m = 4p on (2019, arXiv 1811.06965, section 2.3).
# 2. "Take micro-batches of √B sequences", which makes √B micro-batches.
# 3. "In the worked example m = 16 is the sweet spot; at m = 20 the micro-batches have become too small."
#
# √B is 8 here. The formula $m^* = \sqrt{(p - 1)\beta B/\alpha}$ has the same shape: $\sqrt{B}$ times a factor. Where
# your $m^*$ is near 8, that factor happens to be near 1. Now change that factor: sequences of 8 tokens instead of 32.
# The batch is still 64 sequences.

# %%
predict("05b-short", "Sequences of 8 tokens, B = 64, p = 4. Which m gives the shortest step?", unit="micro-batches")

# %%
brief = text_batch(batch=64, tokens=8)
other = profile_costs(model, *brief, devices=4, sizes=(1, 2, 8, 32), **how | {"recompute": False}).line()
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
steps = {m: report.timeline.makespan for m, report in whole.items()}
short = {m: report.timeline.makespan for m, report in measure((2, 4, 8, 16), batch=lambda m: brief).items()}
for name, found in {"worked example": steps, "8 tokens": short}.items():
    told = ", ".join(f"{m}: {s / min(found.values()) - 1:.0%}" for m, s in found.items())
    print(f"measured, {name}, longer than the best of these at m = {told}")
reveal("05b-short", prediction=star(other), measurement=min(short, key=short.get))

# %% [markdown]
# - The measured steps can be far from the formula. So compare only which m comes out best, and not the percentages.
# - √B has the right shape and no factor. It ignores what a sequence costs, what starting an action costs, and the
#   number of devices. All three move $m^*$.
# - 4p is a place to *start* measuring. It bounds the bubble fraction by (p - 1)/(5p - 1), which is below 20 %. It
#   ignores α. Where α is small beside β, as in large models, $m^*$ is right of 4p, perhaps beyond B. Then the batch
#   decides: m = B.
# - Whether m = 16 is the sweet spot depends on α and β. The text gives neither, and no measurement. By the frozen
#   profile ("another machine") m = 16 is already right of the knee. The row *worked example* says it for your machine.
#   m = 20 is on the same curve, and it holds as much as m = 16: its first micro-batches have 4 sequences too.
# - m = B is right only where α is less than (p - 1)β/B.
#
# ## Break it
#
# Memory depends on the order of actions, and the checker does not look at memory. Take 1F1B with m = 16. Device 0
# starts one forward early: `0F4` before `0B0`. Does the checker mind? Does it run under 34 MB, as 1F1B does?

# %%
right = build_schedule("1f1b", 4, 16)
row = [str(action) for action in right.programs[0]]
at = row.index("0B0")
row[at], row[at + 1] = row[at + 1], row[at]
early = Schedule.from_rows([row, *right.programs[1:]], name="0F4 early")
for schedule in (right, early):
    predicted = profile.memory(profile.predict(schedule, batch=64))[0].total / 1e6
    faults = len(check_schedule(schedule))
    print(f"{schedule.name}: {faults} violations, predicted for device 0: {predicted:.1f} MB", end="; ")
    try:
        report = Pipeline(model, schedule, loss=next_byte_loss, memory_limit="34MB").step(inputs, targets)
        print(f"measured {report.memory[0].total / 1e6:.1f} MB")
    except OutOfMemoryError as error:
        print(str(error).split(". ")[0])

# %% [markdown]
# The table is sound, and its gradients would be right. But for a while device 0 has five micro-batches in flight, one
# too many. (The message names less than was predicted. A run stops at the first tensor that crosses the limit, before
# the action has kept all of its own.) So a sound schedule can still be too large. The profile predicts this as well,
# because the bytes kept are a line in b, like the time.
#
# **Try it:** swap `0F5` and `0B1` in the same way, after the first swap. Are five in flight, or six? Then leave out
# `0B0` altogether. What does the checker say, and what would device 0 hold to the end?
#
# <details><summary>What you should see, and why</summary>
#
# Still five: `0B0` now comes before `0F5`, so one micro-batch has left when the next comes early. Device 0 stays one
# ahead for longer, at the same peak. Without `0B0` the checker says that the backward of micro-batch 0 is missing on
# stage 0. Its activations would be held to the end of the step, and its part of the gradient would be lost.
#
# </details>
#
# ## How to choose
#
# The text on the worked example bounds m by memory, starts at m = 4p, runs several m, and looks for the knee. That is a
# sound procedure, once it is said what is fixed. With a profile it becomes:
#
# 1. Fix the batch. That is a matter of learning, not of the machine.
# 2. Profile small micro-batches and large ones. That gives α and β, and the bytes of each sequence in flight.
# 3. Compute $m^*$. Without a profile, start at 4p.
# 4. Cross out what does not fit. At a fixed batch that is every small m under 1F1B, and GPipe without recomputation at
#    all m or at none. Keep the schedules with recomputation on the list.
# 5. Measure the best that is left, its neighbours, and 4p. Where two cannot be told apart, take the one that needs less
#    memory. Under 1F1B the larger m never needs more.
#
# In this explorer you can change all of it. It starts with this machine's costs and a batch of 64. (Its α is the fixed
# cost of one action, forward or backward. So it is half of the α of a micro-batch.) The limit is what 40 MB leave for
# activations beside the weights and gradients of device 0. One unit of time is the forward of 16 sequences here,
# without α. Find the m at which the curve is lowest. Then see which m the limit leaves, for each schedule, with and
# without recomputation. Where a setting does not fit, the explorer says by how much and offers one that does.

# %%
share = sum(profile.cut(4)[r].forward.beta for r in range(4)) / 4  # of β: the forward's part
unit = 16 * share
turned = {"forward": 1, "backward": line.beta / share - 1, "overhead": round(max(line.alpha, 0) / 2 / unit, 3)}
explore(
    "1f1b",
    fixed="batch",
    batch=64,
    microbatches=16,
    limit=round(40 - held),
    **turned,
    curve="makespan",
    free=["schedule", "m", "limit", "recompute"],
)

# %% [markdown]
# Your turn. Change the values, commit to a number, and run this cell and the next. Which schedule and m would *you*
# take under 40 MB in all?

# %%
name, m, recompute, limit = "1f1b", 16, False, "40MB"  # change these: "1f1b" or "gpipe"; 1 to 64; True or False

schedule = build_schedule(name, 4, m, recompute=recompute)
predict("05b-choice", "How long is this step?", unit="ms")

# %%
predicted = profile.predict(schedule, batch=64)
needed = max(held.total for held in profile.memory(predicted)) / 1e6
print(f"{name}, m = {m}, recompute={recompute}: predicted {needed:.1f} MB on the fullest device, limit {limit}")
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
reveal("05b-choice", prediction=1000 * predicted.makespan, measurement=took)

# %% [markdown]
# `shortlist` uses the profile to predict each schedule and m in its list. It runs nothing. In its picture
# crosses mark what does not fit. (Where curves meet, look at the lower picture.) (The curves of GPipe and 1F1B
# differ a little. Where stages or micro-batches are unequal, the order decides who waits for whom.) The list gives the
# neighbours of its choice, with the reason why each loses: another m, another schedule at its own best m, and
# recomputation at its own best m. On the command line `pipelab tune` does all of the steps above.
#
# ## What to remember
#
# - Say what is held fixed. Only at a fixed batch is there a knee.
# - At a fixed batch memory bounds m from below. At a fixed micro-batch it bounds m from above: GPipe at some m, 1F1B
#   only where p micro-batches do not fit.
# - Where the wall is far right of the knee, recomputation at a smaller m is faster than the smallest m that fits.
# - Rules of thumb are places to start. They know neither α nor your limit.
#
# You can now choose a schedule and m for your own model. In the repository `docs/your-model.md` says how to run it, and
# `docs/choosing.md` how far to trust a forecast.

# %%
ledger()

# %% [markdown] role="further"
# ## Further: everything to turn
#
# This is the whole explorer. You can change the schedule, p, m, v, tF, tB, α, the latency, what is held fixed, and a
# memory limit. You can also put a second schedule beside the first, and draw any figure against any of these.

# %% role="further"
explore()

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, B the batch, b the number of sequences in a micro-batch.
# Nothing here depends on your machine. What is measured was measured once, and frozen.

# %% role="setup"
from pipelab.teaching import NotWritten, check, forecasts

# %% [markdown] role="lead" exercise="reading" difficulty="medium" minutes=15
# A sweep is a list of rows such as `{"m": 2, "batch": 64, "step": 273.9, "idle": 60.1, "peak": 111.6}`. `batch` is in
# sequences and `step` in ms. `idle` is the bubble fraction in per cent, and `peak` the memory of the fullest device in
# MB. In some sweeps the batch is fixed, in others the size of a micro-batch, in others neither. Rows come in any order.
# `limit` is in MB.
#
# Return two things. The first is the m that trains the most sequences per second within the limit. (Anything within 5 %
# of it counts.) The second is a dict with a reason for each other m of the sweep:
#
# - `"memory"`: it does not fit;
# - `"bubble"`: it fits and is slower. Compare its idle and busy time per sequence, in ms, with those of the best row:
#   the idle time grew more;
# - `"granularity"`: the same, but the busy time grew more.
#
# (A row that fits and is within 5 % may have any reason, or none.)


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
# Is the shortest step always the best one, even if its batch is smaller? Does the smallest bubble say anything about
# the choice?

# %% [markdown] role="hint" exercise="reading"
# First cross out what is over the limit. Of the rest take the row with the most sequences per time. Then look at the
# time per sequence of each row, and split it into an idle part and a busy part.

# %% [markdown] role="hint" exercise="reading"
# Work two rows out by hand: the time per sequence, its idle part and its busy part. Do the two parts add up? Which
# difference from the best row decides?

# %% [markdown] role="solution" exercise="reading"
# Where the batch or the micro-batch is fixed, the reason follows from the side. Left of the best it is the bubble, and
# right of it granularity. At a fixed batch the rows that do not fit are on the left. Under GPipe at a fixed micro-batch
# they are on the right. At a fixed micro-batch granularity cannot be the reason, because the work of a sequence is
# always cut alike. Where neither is fixed, the side says nothing. The parts of a *step* say nothing either, because a
# step of a small batch is short in all its parts.

# %% [markdown] role="lead" exercise="defend" difficulty="hard" minutes=25
# The worked example: p = 4, a batch of 64, and an optimizer whose state counts as memory. `forecasts()` gives what a
# frozen profile predicts, as a list of rows such as
#
# `{"schedule": "1f1b + R", "m": 24, "latency": 10, "step": 627.8, "idle": 58.5, "peak": 14.8}`.
#
# `schedule` with "+ R" recomputes. `latency` is the time of a message in ms, `step` the step in ms. `idle` is the
# percentage of idle device time, and `peak` the MB on the fullest device. Look at the rows in a new cell. Your function
# may use them too.
#
# Your devices have 120, 42 or 30 MB. Messages take no time, or 10 ms. For each of the five cases in the table choose a
# schedule and m. (Anything within 5 % of the fastest that fits counts.) Then defend your choice: for each configuration
# in `others`, say why it loses against the fastest that fits.
#
# - `"memory"`: it does not fit. If it fits, the reason is what costs it the most time against the fastest:
# - `"messages"`: its step would gain more than the fastest's would if messages took no time;
# - `"recompute"`: its second forwards;
# - `"bubble"`: its devices idle longer, for other reasons than messages;
# - `"granularity"`: it pays the fixed costs more often.
#
# To find it, split each step into four times. Messages: the step minus the step at latency 0. Recomputation: the step
# at latency 0 minus that of the same schedule and m without R. Then the idle and the busy time of that row without R at
# latency 0. The reason is the time that is furthest above the fastest's.
#
# | limit | latency | others |
# | --- | --- | --- |
# | 120 MB | 0 | 1f1b m = 2; 1f1b m = 32; 1f1b + R m = 8 |
# | 42 MB | 0 | 1f1b m = 8; 1f1b m = 32; gpipe m = 16; gpipe + R m = 8 |
# | 30 MB | 0 | 1f1b m = 16; 1f1b m = 24 |
# | 120 MB | 10 ms | 1f1b m = 16; gpipe m = 2; gpipe m = 32; gpipe + R m = 8 |
# | 42 MB | 10 ms | gpipe m = 8; 1f1b m = 16; gpipe + R m = 3; gpipe + R m = 32 |


# %% role="answer" exercise="defend"
def defend(limit: int, latency: int, others: list[tuple[str, int]]) -> tuple[str, int, list[str]]:
    """The schedule, m, and a reason for each of the others, in their order.

    >>> defend(limit=20, latency=0, others=[("gpipe", 8)])    # not one of the five; only to show the form
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
# The choice is the shortest step among what fits. A reason is a comparison with that choice. Look up three rows of the
# same schedule and m: its own, the one at latency 0, and the one without R at latency 0. There are only five cases, so
# you may also write the answers down by hand.

# %% [markdown] role="hint" exercise="defend"
# The table of reasons says in which order to compare. Which row tells you what messages alone cost? Which row tells you
# what R alone costs? What is left after both?

# %% [markdown] role="solution" exercise="defend"
# With free messages the schedules are about equally fast and 1F1B holds less, so it is 1F1B. It is near m* where there
# is room, and at the smallest m that fits under 42 MB. Under 30 MB the smallest m of the rows is 24, and recomputation
# at m = 8 is faster. With slow messages 1F1B waits in every round, and GPipe does not. So it is GPipe where the whole
# batch fits, and GPipe with recomputation where it does not.
