# ---
# jupyter:
#   pipelab:
#     number: 4b
#     title: "Interleaved 1F1B: what it gains and what it costs"
#     minutes: 40
#     builds_on: [4]
#     goals:
#       - measure what interleaving gains, and say why it is not what the formula promises
#       - count its messages and what each device holds
#       - say what the extra forwards of its warm-up are for
#       - say why slow messages can make it slower than 1F1B
# ---

# %% [markdown]
# ## Does the shorter bubble pay?
#
# In lesson 4 **interleaved 1F1B** gave each device v short stages in place of one long stage. On paper the idle time is
# then v times shorter. Here are both tables for p = 4, m = 8 and v = 2. This page measures the gain. Then it counts two
# prices.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
plain, eight = build_schedule("1f1b", 4, 8), build_schedule("interleaved", 4, 8, chunks=2)
plot_schedules([simulate(plain, batch=64), simulate(eight, batch=64)], ["1F1B", "Interleaved, v = 2"])

# %% [markdown]
# ## A claim on trial: "10 % more throughput"
#
# Narayanan et al. (2021, arXiv 2104.04473) report a throughput that is higher by 10 % or more with interleaving. That
# was for large models on many GPUs. What is it here? In the picture a chunk has half of the layers and takes half of
# the time. On the device clock each action takes what it really costs. Part of this cost is fixed: it belongs to the
# action and not to its layers, so it does not get smaller. (In the picture the shade tells the chunk: each device has
# two F0.)

# %%
on_paper = 1 - simulate(eight).makespan / simulate(plain).makespan
question = f"Device clock, m = 8. On paper v = 2 makes the step {100 * on_paper:.1f} % shorter. And measured?"
predict("04b-gain", question, unit="%")


# %%
def measure(m, latency=0.0):
    """Five steps of 1F1B and of interleaved in turn, so that both meet the same conditions; device clock."""
    tables = {1: build_schedule("1f1b", 4, m), 2: build_schedule("interleaved", 4, m, chunks=2)}
    options = {"loss": next_byte_loss, "clock": "device", "latency": latency}
    pipelines = {v: Pipeline(model, table, **options) for v, table in tables.items()}
    for _ in range(5):
        reports = {v: pipeline.step(inputs, targets) for v, pipeline in pipelines.items()}
    return {v: report.timeline for v, report in reports.items()}


measured = {m: measure(m) for m in (4, 8)}
gains = {m: 1 - pair[2].makespan / pair[1].makespan for m, pair in measured.items()}
for m, pair in measured.items():
    for v, timeline in pair.items():
        idle = 1000 * timeline.bubble_fraction * timeline.makespan
        busy = 1000 * timeline.makespan - idle
        print(
            f"m = {m}, v = {v}: step {busy + idle:.0f} ms, a device is busy {busy:.0f} and idle {idle:.0f} ms;", end=" "
        )
        print(f"bubble fraction {timeline.bubble_fraction:.1%}, formula {3 / (v * m + 3):.1%}")
    # on paper: m (tF + tB) and a bubble of (p - 1)(tF + tB) / v, at tF = tB
    print(f"m = {m}: the step is {gains[m]:.1%} shorter, on paper {1 - (2 * m + 3) / (2 * m + 6):.1%};", end=" ")
    print(f"throughput is {1 / (1 - gains[m]) - 1:.1%} higher")
reveal("04b-gain", prediction=100 * on_paper, measurement=100 * gains[8])

# %% [markdown]
# The bubble shrinks about as the formula says. Two things that the formula leaves out make the gain smaller. The
# fixed cost of an action is now paid v times as often. And the costs of single actions scatter, so devices wait for
# each other where the formula has no gap. A third thing can make the gain larger or smaller: even in turns, a busy
# machine may slow one of the two runs more. The busy times show the first and the third together. If v = 2 is busy
# for less time than v = 1, it was the machine. (From m = 4 to m = 8 the busy time grows, because small micro-batches
# cost more for each sequence. Lesson 5 measures that.)
#
# So the claim can hold, but it depends on m. On paper the throughput is 27 % higher at m = 4 and 16 % at m = 8. For
# large m almost nothing is left to gain. It also depends on two prices. Here they are.
#
# ## The first price: messages
#
# 1F1B sends 24 messages in a step at p = m = 4. Each of the 4 micro-batches crosses 3 links, once on the way down and
# once on the way up. Now a micro-batch goes through all devices twice.

# %%
predict("04b-messages", "p = m = 4, v = 2. How many messages in a step, in place of 24?", unit="messages")

# %%
from collections import Counter


def run(schedule):
    """One real step on the batch of 64. The unit clock is enough to count messages."""
    return Pipeline(model, schedule, loss=next_byte_loss, clock="unit").step(inputs, targets).timeline


whole, dealt = run(build_schedule("1f1b", 4, 4)), run(build_schedule("interleaved", 4, 4, chunks=2))
for name, timeline in {"1F1B": whole, "interleaved": dealt}.items():
    links = Counter(f"{min(s.source, s.destination)}-{max(s.source, s.destination)}" for s in timeline.messages)
    told = ", ".join(f"{count} on link {link}" for link, count in sorted(links.items()))
    print(f"{name:<12}  {timeline.message_count} messages, {timeline.message_bytes / 1e6:.1f} MB: {told}")
reveal("04b-messages", prediction=2 * 4 * (4 * 2 - 1), measurement=dealt.message_count)

# %% [markdown]
# Every link carries v times as many messages. And there is a new link, from device p - 1 back to device 0. A
# micro-batch now crosses p · v - 1 borders between stages in each direction, instead of p - 1. So the number of
# messages grows by the factor
#
# $$\frac{p\,v - 1}{p - 1},$$
#
# which is 7/3 here. Each message is as large as before, so the bytes grow by the same factor. (Neighbouring chunks
# would send no more than 1F1B: between two chunks of one device nothing has to be sent.)
#
# ## The second price: activations
#
# A chunk has 1/v of a device's layers, so a micro-batch in flight in one chunk holds 1/v of the activations. We count
# in **full shares**: the activations of one micro-batch in all layers of a device, that is, in all v chunks. Device 0
# of 1F1B holds 4 of them here.

# %%
predict("04b-held", "p = 4, m = 8. Device 0 of 1F1B holds 4 shares. Interleaved with v = 2?", unit="shares")

# %%
for m, pair in measured.items():
    for v, timeline in pair.items():
        shares = ", ".join(f"{n:g}" for n in timeline.peak_microbatches)
        peaks = ", ".join(f"{n / 1e6:.1f}" for n in timeline.peak_bytes)
        print(f"batch fixed at {len(inputs)}, m = {m}, v = {v}: shares {shares}; measured {peaks} MB")
names = ["1F1B, m = 8", "Interleaved, v = 2, m = 8"]
display(plot_schedules(list(measured[8].values()), names, memory=True))
reveal("04b-held", prediction=(10 + 1) / 2, measurement=measured[8][2].peak_microbatches[0])

# %% [markdown]
# By lesson 4 the warm-up is w = 2(p - 1 - r) + (v - 1) p forwards, at most m v. Device r runs them, and one more
# before its first backward frees anything. Each holds 1/v of a share, so at most
#
# $$\frac{\min(w + 1,\; m\,v)}{v} \text{ shares}$$
#
# are in flight. At m = 8 device 0 holds 5.5 shares in place of 4, and device 3 holds 2.5 in place of 1. At m = 4 device
# 0 holds the whole batch under both schedules, and only the other devices show the price. For large m, device r holds
#
# $$\frac{w + 1}{v} = p + \frac{p - 1 - 2r}{v} \text{ shares.}$$
#
# On device 0 that is $1 + \frac{p - 1}{p\,v}$ times what 1F1B holds there (Korthikanti et al. 2022, arXiv 2205.05198,
# give this factor). With a larger v device 0 holds less and the last device holds more. The sum over all devices is
# $p^2$, whatever v is. 1F1B's sum is $p\,(p + 1)/2$. Neither grows with m. (All this is for groups of p.)
#
# (Where blocks are narrow, the picture shows only the number of the micro-batch. The shade tells the chunk.) Device 0
# also waits in the middle, before the dark blue 4, which is `4F4`. Device 3 runs the pairs of micro-batches 0 to 3
# first, so micro-batch 4 comes back later. On paper this gap does not make the step longer, because device 3 works
# without a pause from its first action to its last.
#
# **Try it:** in a cell of your own, simulate `build_schedule("interleaved", 4, m, chunks=2)` for m = 7 and for m = 8,
# and print `peak_microbatches`. Which m holds more on device 0?
#
# <details><summary>What you should see, and why</summary>
#
# Seven micro-batches hold more than eight: 7 shares against 5.5. 7 // 4 is 1, so all seven form one group. Before the
# first of them can go on through chunk 1, all seven have gone through chunk 0. Eight form two groups of 4. So m = 7 is
# possible at p = 4, but m = 8 holds less.
#
# </details>
#
# ## Break it: a shorter warm-up
#
# Where does the second price come from? Take p - 1 - r forwards away from the warm-up, half of its first part. Then try
# two forwards more than the formula. A message now takes a while: its **latency** is the time from the moment when it
# is sent until it has arrived. What changes?

# %%
depths = {
    "half: (p - 1 - r) + (v - 1) p": [7, 6, 5, 4],
    "as above: 2 (p - 1 - r) + (v - 1) p": [10, 8, 6, 4],
    "deeper": [12, 10, 8, 6],
}
slow = Costs(forward=1, backward=1, latency=0.25)
for words, warmups in depths.items():
    table = with_depths(warmups, microbatches=8, chunks=2)
    held = ", ".join(f"{n:g}" for n in simulate(table).peak_microbatches)
    print(f"{words:<36} in flight {held:<18} messages free: {simulate(table).makespan:g} units;", end=" ")
    print(f"at {slow.latency:g} units a message: {simulate(table, slow).makespan:g}")

# %% [markdown]
# With messages that take no time, the shorter warm-up is enough, and device 0 holds 4 shares as under 1F1B. A device
# then waits longer before its first backward, but not longer in total. But with so little in flight it has no spare
# work while a message travels, so it waits again and again. The extra p - 1 - r forwards are this spare work. So the
# extra memory of device 0 pays for hiding messages, not for the smaller bubble. (The devices further down hold more
# in either case. Even the last one has to run (v - 1) p forwards before it reaches its last chunk.)

# %% [markdown]
# ## What to remember
#
# - The idle time is about v times shorter, also measured. The fixed cost of an action is paid v times as often.
# - The first price is messages: (p v - 1)/(p - 1) times as many.
# - The second is activations: with the full warm-up $1 + (p - 1)/(p v)$ times as many on device 0 for large m.
# - The extra p - 1 - r forwards of the warm-up hide messages. If messages are free, they are not needed.
# - With slow messages 1F1B can be faster again. The first *Further* finds out when.
#
# **Where this leads.** Lesson 5 chooses m, and measures what a fixed cost of each action does to small micro-batches.
# The exercise of this page needs the first *Further* below. Your guesses so far:

# %%
ledger()

# %% [markdown] role="further"
# ## Further: when does it stop paying?
#
# Interleaving sends more messages, and each takes a while. So at some latency 1F1B becomes as fast. Here the latency
# is measured in tF, the forward of a micro-batch through all layers of a device. While a message is on its way, both
# devices can work.
#
# A first estimate takes the time that v = 2 saves, and divides it by the number of messages that it adds. This is as if
# every one of them made the step longer.

# %% role="further"
tables = {"1F1B": plain, "interleaved, v = 2": eight}
one, two = (simulate(table) for table in tables.values())
saved, added = one.makespan - two.makespan, two.message_count - one.message_count
print(f"saved: {saved:g} units; added: {added} messages; that is {saved / added:.3f} tF for each of them")
predict("04b-latency", "p = 4, m = 8, tF = tB. At what latency does v = 2 stop being faster than 1F1B?", unit="tF")

# %% [markdown] role="further"
# Not every message makes the step longer. Begin at the action that ends last. Go back from each action to the one
# that it had to wait for, on its own device or, through a message, on another. This chain is the **longest path**:
# its actions and messages add up to the makespan. `critical_path()` returns its actions, and the switch *critical
# path* of the explorer draws it. Only messages on this path count.


# %% role="further"
from itertools import pairwise


def makespan(table, latency, tB=1):
    return simulate(table, Costs(forward=1, backward=tB, latency=latency)).makespan


def stops(first, second, tB=1):
    """The first of the latencies 0, 1/40, 2/40, ... at which the second is no faster."""
    return next(at / 40 for at in range(200) if makespan(second, at / 40, tB) > makespan(first, at / 40, tB) - 1e-9)


def hops(table, latency=0.1):
    """How many messages are on the longest path; which path that is depends on the latency."""
    path = simulate(table, Costs(forward=1, backward=1, latency=latency)).critical_path()
    return sum(a.device != b.device for a, b in pairwise(path))


latencies = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
curves = {name: [makespan(table, at) for at in latencies] for name, table in tables.items()}
axes = {"across": "latency of a message, in forwards of a micro-batch (tF)", "up": "makespan, units"}
note = "Clock: predicted from costs, tF = tB = 1. p = 4, m = 8."
display(plot_curves(latencies, curves, **axes, title="When messages take time", note=note))
for m in (4, 8, 16, 32):
    pair = build_schedule("1f1b", 4, m), build_schedule("interleaved", 4, m, chunks=2)
    few, more = (hops(table) for table in pair)
    print(f"m = {m:>2}: the longest path has {few} messages under 1F1B, {more} if interleaved,", end=" ")
    print(f"which is no faster from {stops(*pair):g} tF on")
reveal("04b-latency", prediction=stops(*tables.values()))

# %% [markdown] role="further"
# The answer is about twenty times the estimate, because few messages are on the longest path. (The counts above are for
# short messages.)
#
# - **Interleaved** has 2(p v - 1) of them, 14 here, whatever m is. The path is micro-batch 0's way down through all
#   stages, then the last device's work without a pause, then the last micro-batch's way up. All other messages travel
#   while devices work. The deep warm-up makes that possible, as long as a message takes no longer than a chunk's
#   forward. Beyond that, here half a tF, another path with more messages is the longest, and the curve bends.
# - **1F1B** sends fewer messages, but its longest path goes down and up again and again. The more micro-batches there
#   are, the more such round trips. Device r has p - r micro-batches in flight, and that is just enough to keep it
#   busy (lesson 3). So it has no spare work, and waits for messages all through the step.
#
# So the latency from which v = 2 no longer pays grows with m, in units of tF. With the batch fixed, a larger m also
# makes a micro-batch smaller, so tF gets smaller too.
#
# Now with measured costs. The cell below takes the costs that were measured at the top of the page (`measured`), and
# composes them with longer and longer messages. Then it runs both schedules on a modelled link,
# `Pipeline(latency=...)`: at half of the latency that was found, and at twice. A measured backward takes longer than
# a forward, so expect another latency than above.


# %% role="further"
def with_link(timeline, latency):
    """The measured costs of a run, composed with messages that take `latency` seconds."""
    # one cost for each slot of each device
    costs = tuple(tuple(span.duration for span in timeline.on_device(r)) for r in range(4))
    return simulate(timeline.schedule, SlotCosts(costs, latency=latency)).makespan


m = 8
one, two = measured[m].values()
tF, tB = (sum(s.duration for s in one.spans if s.slot.op == op) / (4 * m) for op in "FB")
predicted = stops(one.schedule, two.schedule, tB / tF)
found = next(at / 40 for at in range(400) if with_link(two, at / 40 * tF) > with_link(one, at / 40 * tF))
print(f"m = {m}, measured tB = {tB / tF:.2f} tF. Predicted latency at which interleaved stops being faster:")
print(f"{predicted:g} tF from tF and tB alone, {found:g} tF from the cost of each single action")
for words, latency in {"half": found / 2 * tF, "twice": found * 2 * tF}.items():
    first, second = (timeline.makespan for timeline in measure(m, latency).values())
    print(f"at {words} that latency, {1000 * latency:.1f} ms a message: 1F1B {1000 * first:.0f} ms,", end=" ")
    print(f"interleaved {1000 * second:.0f} ms; {'interleaved' if second < first else '1F1B'} is faster")

# %% [markdown] role="further"
# Single costs scatter, so the two latencies need not agree closely, and on a busy machine the second may even be 0.
# What to remember is the order of magnitude: at m = 8, about one forward of a micro-batch. Between GPUs of one
# machine a message usually takes far less than that. Over a slow network it need not. (Messages cost more if the
# link's bandwidth is the limit, or where a device cannot work while it sends.)
#
# **Try it:** set m = 4 in the cell above. Does interleaving stop paying sooner? Is the winner at half of the latency,
# and at twice, the predicted one?
#
# <details><summary>What you should see, and why</summary>
#
# Sooner, yes. For tF = tB the table above says 0.675 tF at m = 4 and 1 tF at m = 8. With tB = 1.5 tF, which is near
# the measured ratio, the simulator says 0.85 and 1.2. At m = 4 the longest path of 1F1B has only 10 messages against
# 14, so each message costs interleaving more. On a quiet machine interleaving is faster at half of the latency, and
# 1F1B at twice. Where a line says otherwise, the scatter of that run was larger than the difference between the two.
# Run it again.
#
# </details>

# %% [markdown] role="further"
# The explorer shows both tables. L is the latency of a message.

# %% role="further"
batch = {"fixed": "batch", "batch": 64, "forward": 2, "backward": 2}  # for 16 sequences; m = 8 has half of it
explore("interleaved", compare="1f1b", devices=4, microbatches=8, **batch, free=["L", "v"], curve="makespan")

# %% [markdown] role="further"
# **Try it:** switch *critical path* on. Set the latency to 0.25 and then to 0.75. Where does interleaved's path leave
# the row of the last device?
#
# <details><summary>What you should see, and why</summary>
#
# At 0.25 it leaves that row only at the end. It goes down through all eight stages, along the whole row of device 3,
# and up again: 14 messages. At 0.75 it leaves the row after `7B0`, the first backward. It goes up to device 0 with
# micro-batch 0, and down and up once more with micro-batch 7: 24 messages. Device 3 now waits in between, because a
# message takes longer than a chunk's forward. The path of 1F1B is the same zigzag at both latencies.
#
# </details>
#
# ## Further: how many chunks?
#
# With 48 layers on 4 devices, v can be any divisor of 12. From v = 1 on, more chunks mean a smaller bubble and fewer
# activations on device 0. They also mean more messages on the longest path, and more actions, each with its fixed
# cost. Here are predictions for m = 8, where every action has a fixed cost of 0.02 tF. The first column is 1F1B. Then
# comes `"interleaved"` with v = 1, whose warm-up is twice as deep (lesson 4). A star marks the best.

# %% role="further"
fixed = 0.02
chunks = [1, 2, 3, 4, 6, 12]
compared = {"1F1B": plain, **{f"v = {v}": build_schedule("interleaved", 4, 8, chunks=v) for v in chunks}}
print(f"{'latency':>8}", *(f"{name:<9}" for name in compared), "makespan in units")
for latency in (0, 0.05, 0.1, 0.2, 0.4):
    units = []
    for table in compared.values():
        each = 1 + table.chunks * fixed  # for all chunks of a device: each of them pays the fixed cost
        units.append(simulate(table, Costs(forward=each, backward=each, latency=latency)).makespan)
    best = units.index(min(units))
    print(f"{latency:>8}", *(f"{n:.2f}{'*' if k == best else ' ':<4}" for k, n in enumerate(units)))

# %% [markdown] role="further"
# Which v is best depends on the latency: the slower messages are, the fewer chunks pay. At a latency of 0.4 the best is
# a single chunk, but with the deep warm-up of interleaving and not with that of 1F1B: it hides messages.

# %% [markdown] role="further"

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, v the number of chunks on each device.

# %% role="setup"
from pipelab.teaching import NotWritten, Schedule, check

# %% [markdown] role="lead" exercise="break_even" difficulty="hard" minutes=15
# You get two schedules of the same model: the first is 1F1B's, the second is interleaved 1F1B's. You also get the times
# of a forward and a backward of one micro-batch on a *whole device*. (A chunk takes 1/v of them; `Costs` does the
# division.) With messages that take no time the second schedule is faster. From which latency of a message on is it no
# longer faster? Answer in the unit of the two times. An answer within 1 % is right.
#
# You may use `simulate(schedule, Costs(forward=..., backward=..., latency=...)).makespan`, and read `devices`,
# `microbatches` and `chunks` off a schedule. (*When does it stop paying?*, the lesson's first *Further*, asks the same
# of one pair of schedules.)

# %% role="answer" exercise="break_even"
from pipelab import Costs, simulate


def break_even(plain: Schedule, interleaved: Schedule, forward: float, backward: float) -> float:
    """The message latency from which on the interleaved schedule is no faster than the plain one.

    >>> from pipelab import build_schedule
    >>> one = build_schedule("1f1b", devices=2, microbatches=2)
    >>> two = build_schedule("interleaved", devices=2, microbatches=2, chunks=2)
    >>> round(break_even(one, two, forward=1, backward=1), 2)
    0.25
    """

    ### BEGIN SOLUTION
    def ahead(latency: float) -> bool:
        costs = Costs(forward=forward, backward=backward, latency=latency)
        return simulate(interleaved, costs).makespan < simulate(plain, costs).makespan

    low, high = 0.0, forward
    while ahead(high):
        low, high = high, 2 * high
    while high - low > 0.001 * high:
        middle = (low + high) / 2
        if ahead(middle):
            low = middle
        else:
            high = middle
    return high
    ### END SOLUTION


# %% [markdown] role="hint" exercise="break_even"
# At which latency is the second schedule ahead for certain? At which is it behind for certain? What do you learn about
# a latency in between, once you have simulated both schedules there?

# %% [markdown] role="hint" exercise="break_even"
# Keep two latencies: one at which the second schedule is ahead, and one at which it is not. The answer lies between
# them, so bring them closer together.

# %% [markdown] role="hint" exercise="break_even"
# A small function that says whether the second is ahead at one latency helps. The times may be 0.01 or 40, so no fixed
# latency is large enough, and no fixed step is fine enough. How do you find a latency at which it is behind? When are
# the two close enough?

# %% [markdown] role="solution" exercise="break_even"
# Both makespans are made of straight lines in the latency, one line for each path through the table. The longest path
# counts. So there is a formula for each pair of lines, but which two lines meet depends on p, m, v and the costs. A
# simulation does not need to know that.
