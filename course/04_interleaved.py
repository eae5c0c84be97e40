# ---
# jupyter:
#   pipelab:
#     number: 4
#     title: "Interleaved 1F1B: a shorter way to the last device"
#     minutes: 45
#     builds_on: [3]
#     goals:
#       - cut a model into more stages than devices, and say why it matters which device gets which
#       - write the warm-up and the order of interleaved 1F1B, for any p, v and m a multiple of p
#       - weigh a bubble time cut v-fold against more messages and more activations
#       - find the message cost from which interleaving no longer pays
# ---

# %% [markdown]
# ## Can a device idle less than under 1F1B?
#
# GPipe and 1F1B idle equally long: every device $(p - 1)(t_F + t_B)$. Lesson 3 gave the reason. With one stage on each
# device, device p - 1 cannot start before micro-batch 0 has passed p - 1 whole devices, and once its last gradient has
# left, that has to pass p - 1 whole devices too. No order of actions changes that. So this lesson changes what a
# device holds. Below is 1F1B as the simulator predicts it: the hatched time is what this lesson cuts.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
plain = build_schedule("1f1b", devices=4, microbatches=4)
plot_timeline(simulate(plain), memory=False, phases=False)

# %% [markdown]
# ## Cut finer
#
# Cut the 48 layers into 8 stages of 6, two for each of the four devices. The pieces that one device holds are its
# **chunks**; v is their number, here v = 2. Stages are still numbered along the model, 0 to p · v - 1, and an action is
# still named by its stage. Because there are more of them than devices, Megatron-LM calls them **virtual stages**.
# A forward or backward of a chunk takes 1/v of what it takes on all of a device's layers: half a unit here.
#
# Which two stages go on which device? Two ways:
#
# - **neighbouring chunks**: device 0 gets stages 0 and 1, device 1 gets 2 and 3, and so on;
# - **round-robin**: dealt out like cards. Stages 0, 1, 2, 3 go to devices 0, 1, 2, 3, and then stage 4 to device 0
#   again.
#
# Begin with the first. As order take that of 1F1B, each action in two: the forward of a device's first chunk, then of
# its second; the backward of the second, then of the first.

# %%
stages = cut_layers(48, 8)
deals = {"neighbouring": [[0, 1], [2, 3], [4, 5], [6, 7]], "round-robin": [[0, 4], [1, 5], [2, 6], [3, 7]]}
for way, hands in deals.items():
    for device, hand in enumerate(hands):
        layers = " and ".join(f"{stages[s][0]}-{stages[s][-1]}" for s in hand)
        print(f"{way:<12}  device {device} holds stages {hand}, layers {layers}")
predict("04-neighbours", "p = m = 4, neighbouring chunks. 1F1B takes 14 units. How many now?", unit="units")

# %% [markdown]
# ## A claim on trial: "two chunks per device, half the bubble"
#
# A survey on the web explains interleaving with a listing. It gives device r the stages r · v to r · v + v - 1, which
# are neighbouring chunks, and says that the bubble shrinks. Try it, in the order above.


# %%
def run(schedule):
    """One real step on the batch of 64; the unit clock: a forward of 12 layers takes 1, and so does a backward."""
    return Pipeline(model, schedule, loss=next_byte_loss, clock="unit").step(inputs, targets).timeline


def in_pieces(schedule, v):
    """Each action of a schedule as v actions, on neighbouring chunks."""
    pieces = {"F": range(v), "B": range(v - 1, -1, -1)}
    rows = [[f"{v * a.stage + c}{a.op}{a.microbatch}" for a in row for c in pieces[a.op]] for row in schedule.programs]
    return Schedule.from_rows(rows, name="neighbouring chunks")


whole, neighbours = run(plain), run(in_pieces(plain, 2))
titles = ["1F1B: 4 stages of 12 layers", "Neighbouring chunks: 8 stages of 6 layers"]
display(plot_schedules([whole, neighbours], titles))
reveal("04-neighbours", prediction=(4 + 4 - 1) * (1 + 1), measurement=neighbours.makespan)

# %% [markdown]
# (An action of a chunk is half as long. The darker blocks are a device's second chunk.)
#
# Nothing is gained, and the claim is false. Nor is it a matter of the order. On its way to device 3, micro-batch 0
# still passes all the layers of devices 0, 1 and 2, in six pieces where there were three. That takes 3 units, so
# device 3 idles for its first 3 units as before; the same holds at the end. Lesson 3's bound has not moved, and 1F1B
# reaches it. Cutting alone buys no time, as with micro-batches in lesson 2.
#
# ## Round-robin
#
# Now the other deal. The catalogue calls the schedule `"interleaved"`; v is its argument `chunks`. When does each
# device get its first work?

# %%
interleaved = build_schedule("interleaved", devices=4, microbatches=4, chunks=2)
for name, timeline in {"neighbouring": neighbours, "round-robin": simulate(interleaved)}.items():
    starts = ", ".join(f"{timeline.on_device(r)[0].start:g}" for r in range(4))
    print(f"{name:<12}  devices 0 to 3 start at t = {starts}")
predict("04-round-robin", "p = m = 4, round-robin, v = 2. How many units does the step take?", unit="units")

# %%
dealt = run(interleaved)
exact = Pipeline(TransformerLM(layers=48).double(), interleaved, loss=next_byte_loss)
print(f"largest gradient error, in float64: {exact.verify(inputs[:8], targets[:8]):.1e}")
display(plot_schedules([neighbours, dealt], [titles[1], "Round-robin: 8 stages of 6 layers"]))
reveal("04-round-robin", prediction=4 * (1 + 1) + (4 - 1) * (1 + 1) / 2, measurement=dealt.makespan)

# %% [markdown]
# Between devices 0 and 3 there are now three *chunks* of 6 layers, no longer three devices of 12. Device 3 starts
# after 1.5 units. The work is the same. This is **interleaved 1F1B** (Narayanan et al. 2021, arXiv 2104.04473, section
# 2.2; it came with Megatron-LM).
#
# The bound of lesson 3 becomes, for v chunks dealt out round-robin,
#
# $$m\,(t_F + t_B) + \frac{(p - 1)(t_F + t_B)}{v}$$
#
# and this schedule reaches it. What is cut v-fold is the bubble *time* of a device. The bubble *fraction* falls from
# $(p - 1)/(m + p - 1)$ to
#
# $$\frac{p - 1}{v\,m + p - 1},$$
#
# from 3/7 to 3/11 here. The fraction falls by less than half, because the step itself is shorter.
#
# ## Read it slot by slot
#
# Below is the order as text, a column for each chunk's action, that is half a unit.

# %%
print(interleaved)

# %% [markdown]
# Device 0 holds stages 0 and 4. Follow its row.
#
# - Slots 0 to 3: the forwards of stage 0, one **group** of p = 4 micro-batches.
# - Slot 4: micro-batch 0 has been on devices 1, 2 and 3, one slot on each, and is back for stage 4. The way round all
#   devices takes p slots, and a group of p micro-batches is what fills them. That is why groups have p members: with
#   fewer, device 0 would wait; with more, micro-batches would.
# - Slot 8 on device 3: `7B0`, the first backward. The last stage goes first, so the backwards take the chunks in
#   *reverse*: 4B0 to 4B3 before 0B0 to 0B3, again in groups of p.
# - From its first backward on each device runs pairs, a forward and a backward, until it has no forwards left. At the
#   end it runs the backwards that are left. That is 1F1B. The pairs are fixed. Lesson 3's rule, by which a backward
#   that is ready goes first, does not give this schedule: with a second group to come, that group's forwards would be
#   late, and devices would wait for them.
#
# So a row is described by two things: the order of its forwards (and backwards), and the length of its warm-up. With
# m = 8 there are two groups, and device 0's forwards are stage 0 with 0 to 3, stage 4 with 0 to 3, stage 0 with 4 to 7,
# stage 4 with 4 to 7. Groups have to be whole: m has to be a multiple of p.
#
# ## How many first?
#
# A slot is a chunk's forward or backward, equally long. Device r starts in slot r. Micro-batch 0 passes p · v stages
# on its way down, slots 0 to p · v - 1. Its gradient then comes up through p - 1 - r devices, so device r can run its
# first backward in slot p · v + (p - 1 - r). Between its start and that slot are
#
# $$p\,v + (p - 1 - r) - r = 2\,(p - 1 - r) + (v - 1)\,p + 1$$
#
# slots. A forward in each of them, and device r never waits before its first gradient. The last of these forwards
# belongs to the first pair, so the warm-up is one less, and never more than there are:
#
# $$w = \min\bigl(2\,(p - 1 - r) + (v - 1)\,p,\; m\,v\bigr)$$
#
# At p = m = 4 the minimum hides the formula, for device 0 has 8 forwards in all. Look at m = 8. You will write the
# function that makes such rows in the exercises; here it comes ready, as `with_depths`, which takes any warm-ups.
# (Reading its source gives an exercise away.)

# %%
eight = build_schedule("interleaved", devices=4, microbatches=8, chunks=2)
for r, row in enumerate(eight.programs):
    w = 2 * (4 - 1 - r) + (2 - 1) * 4
    shown = " ".join(map(str, row[: w + 2]))
    print(f"device {r}: w = {w:>2}, then the first pair: {shown}")
by_depth = with_depths([10, 8, 6, 4], microbatches=8, chunks=2)
print("made with these warm-ups, the same as the catalogue's:", by_depth.programs == eight.programs)

# %% [markdown]
# Two things to notice. The term (v - 1) p is what it takes to get to the last chunk at all: with a warm-up below that,
# the last device would have to run a backward before its forward. And 1F1B has p - 1 - r where this has 2(p - 1 - r).
# So **interleaved with v = 1 is not 1F1B**: its warm-up is twice as deep. We come back to what the second half is for.
#
# ## Measured
#
# So far slots were equally long. The device clock takes what each action costs. A chunk's action should cost half of a
# whole stage's; every action also has a fixed cost, which does not get smaller.

# %%
predict("04-bubble", "Device clock, p = m = 4. 1F1B idles 3/7 = 42.9 %. And with v = 2?", unit="%")


# %%
def measure(m, latency=0.0):
    """Three steps of 1F1B and of interleaved in turn, so that both meet the same machine; device clock."""
    tables = {1: build_schedule("1f1b", 4, m), 2: build_schedule("interleaved", 4, m, chunks=2)}
    options = {"loss": next_byte_loss, "clock": "device", "latency": latency}
    pipelines = {v: Pipeline(model, table, **options) for v, table in tables.items()}
    for _ in range(3):
        reports = {v: pipeline.step(inputs, targets) for v, pipeline in pipelines.items()}
    return {v: report.timeline for v, report in reports.items()}


measured = {m: measure(m) for m in (4, 8)}
for m, pair in measured.items():
    for v, timeline in pair.items():
        formula = 3 / (v * m + 3)
        idle = timeline.bubble_fraction * timeline.makespan
        print(f"m = {m}, v = {v}: {timeline.bubble_fraction:.1%} idle, formula {formula:.1%};", end=" ")
        print(f"{1000 * idle:.0f} of {1000 * timeline.makespan:.0f} ms on each device, on average")
reveal("04-bubble", prediction=100 * 3 / 11, measurement=100 * measured[4][2].bubble_fraction)

# %% [markdown]
# The idle time of a device is about half of 1F1B's, as it should be. Most of what is saved comes off the step. The rest
# is the fixed cost of an action, which is now paid v times as often.
#
# Narayanan et al. report ten per cent and more of throughput gained by interleaving. Whether it pays depends on two
# prices. Here they are.
#
# ## The first price: messages
#
# Each micro-batch now passes from device to device v times. 1F1B sends 24 messages in a step at p = m = 4: each of 4
# micro-batches crosses 3 links, down and up.

# %%
predict("04-messages", "p = m = 4, v = 2. How many messages in a step, in place of 24?", unit="messages")

# %%
from collections import Counter

for name, timeline in {"1F1B": whole, "neighbouring": neighbours, "round-robin": dealt}.items():
    links = Counter(f"{min(s.source, s.destination)}-{max(s.source, s.destination)}" for s in timeline.messages)
    told = ", ".join(f"{count} on link {link}" for link, count in sorted(links.items()))
    print(f"{name:<12}  {timeline.message_count} messages, {timeline.message_bytes / 1e6:.1f} MB: {told}")
reveal("04-messages", prediction=2 * 4 * (4 * 2 - 1), measurement=dealt.message_count)

# %% [markdown]
# Every link carries v times as many, and there is a new link, from device p - 1 back to device 0. A micro-batch crosses
# p · v - 1 times in each direction, where it was p - 1, so all in all messages are
#
# $$\frac{p\,v - 1}{p - 1}$$
#
# times as many: 7/3 here. Each message is as large as before, so this holds for bytes too. (Neighbouring chunks send no
# more than 1F1B. From chunk to chunk on one device nothing has to be sent.)
#
# ## The second price: activations
#
# A chunk of a micro-batch in flight is 1/v of what a device holds of that micro-batch without chunks. We count in such
# **full shares**. Device r runs its warm-up of w forwards, and one more before its first backward frees anything, so at
# most
#
# $$\frac{\min(w + 1,\; m\,v)}{v} \text{ shares}$$
#
# are in flight. Device 0 of 1F1B holds min(p, m).

# %%
predict("04-held", "p = 4, m = 8. Device 0 of 1F1B holds 4 shares. Interleaved with v = 2?", unit="shares")

# %%
for m, pair in measured.items():
    for v, timeline in pair.items():
        shares = ", ".join(f"{n:g}" for n in timeline.peak_microbatches)
        peaks = ", ".join(f"{n / 1e6:.1f}" for n in timeline.peak_bytes)
        print(f"batch fixed at {len(inputs)}, m = {m}, v = {v}: shares {shares}; measured {peaks} MB")
names = ["1F1B, m = 8", "Interleaved, v = 2, m = 8"]
display(plot_schedules(list(measured[8].values()), names, memory=True))
reveal("04-held", prediction=(10 + 1) / 2, measurement=measured[8][2].peak_microbatches[0])

# %% [markdown]
# (Where blocks are narrow, a forward shows its micro-batch alone. Its shade tells the chunk.)
#
# At m = 4 device 0 holds the whole batch under both, and the price does not show; the other devices do hold more. At m
# = 8 device 0 holds 5.5 shares in place of 4, and device 3 holds 2.5 in place of 1. Once m is large enough, device r
# holds
#
# $$\frac{w + 1}{v} = p + \frac{p - 1 - 2r}{v} \text{ shares.}$$
#
# On device 0 that is $1 + \frac{p - 1}{p\,v}$ times what 1F1B holds (Korthikanti et al. 2022, arXiv 2205.05198, give
# this factor). With a larger v device 0 holds less and the last device more: v evens it out. The sum over all devices
# is $p^2$ whatever v is, where 1F1B's is $p\,(p + 1)/2$. As in 1F1B it does not grow with m.
#
# Device 0 waits once more in the middle, before 4F4: on device 3, micro-batch 4 comes after the pairs of micro-batches
# 0 to 3. This does not make the step longer, for device 3 itself has work from its first action to its last.
#
# ## What is the second half of the warm-up for?
#
# Where does the price come from? Take the doubled part of the warm-up in half: (p - 1 - r) + (v - 1) p. Or make it
# deeper by two forwards.

# %%
depths = {"half: 1 (p - 1 - r)": [7, 6, 5, 4], "as above: 2 (p - 1 - r)": [10, 8, 6, 4], "deeper": [12, 10, 8, 6]}
slow = Costs(forward=1, backward=1, latency=0.25)
for words, warmups in depths.items():
    table = with_depths(warmups, microbatches=8, chunks=2)
    held = ", ".join(f"{n:g}" for n in simulate(table).peak_microbatches)
    print(f"{words:<24} in flight {held:<18} messages free: {simulate(table).makespan:g} units;", end=" ")
    print(f"at {slow.latency:g} units a message: {simulate(table, slow).makespan:g}")

# %% [markdown]
# With messages that take no time half is enough, and device 0 holds 4 shares, no more than under 1F1B. A device then
# waits a little before its first gradient, and less later on. But with so little in flight, messages that take time are
# waited for again and again. The second half of the warm-up keeps the device at work meanwhile. So what device 0 holds
# more than under 1F1B is the price of hiding messages, not of cutting the bubble. (The devices further down hold more
# either way, because each needs all its chunks before its first backward.)
#
# ## When does it stop paying?
#
# More messages, then, and each takes a while. If a message takes longer and longer, there must be a point from which
# 1F1B is no slower. Where? We measure the **latency** of a message, from the moment it is sent to the moment it is
# there, in tF: forwards of a micro-batch through a whole device's layers. While a message is on its way, both devices
# can work.
#
# A first estimate: the time that v = 2 saves, over the messages that it adds, as if each of them made the step longer.

# %%
tables = {"1F1B": build_schedule("1f1b", devices=4, microbatches=8)}
tables |= {f"interleaved, v = {v}": build_schedule("interleaved", 4, 8, chunks=v) for v in (1, 2, 4)}
free = {name: simulate(table) for name, table in tables.items()}
one, two = free["1F1B"], free["interleaved, v = 2"]
saved, added = one.makespan - two.makespan, two.message_count - one.message_count
print(f"saved: {saved:g} units; added: {added} messages; that is {saved / added:.3f} tF for each of them")
predict("04-latency", "p = 4, m = 8, tF = tB. From which latency on is v = 2 no faster than 1F1B?", unit="tF")

# %% [markdown]
# Which messages make the step longer? Begin at the action that ends last, and go back each time to the action that it
# had to wait for, on its own device or, through a message, on another. That chain is the **longest path**: its actions
# and messages add up to the makespan. `critical_path()` returns its actions. Which path is the longest depends on the
# latency; below, messages on it are counted at a small one.


# %%
from itertools import pairwise


def makespan(table, latency, tB=1):
    return simulate(table, Costs(forward=1, backward=tB, latency=latency)).makespan


def stops(first, second, tB=1):
    """The first of the latencies 0, 1/40, 2/40, ... at which the second is no faster."""
    return next(at / 40 for at in range(200) if makespan(second, at / 40, tB) > makespan(first, at / 40, tB) - 1e-9)


def longest_path(table, latency=0.1):
    """Units of work and number of messages on the longest path, tF = tB = 1."""
    path = simulate(table, Costs(forward=1, backward=1, latency=latency)).critical_path()
    return sum(span.duration for span in path), sum(a.device != b.device for a, b in pairwise(path))


latencies = [0, 0.125, 0.25, 0.375, 0.5, 0.75, 1, 1.25]
curves = {name: [makespan(table, at) for at in latencies] for name, table in tables.items()}
axes = {"across": "latency of a message, in forwards of a micro-batch (tF)", "up": "makespan, units"}
note = "Clock: predicted from costs, tF = tB = 1. p = 4, m = 8."
display(plot_curves(latencies, curves, **axes, title="When messages take time", note=note))
for name, table in tables.items():
    work, hops = longest_path(table)
    print(f"{name:<19}  longest path: {work:g} units of work, {hops} of {free[name].message_count} messages;", end=" ")
    print(f"device 0 holds {free[name].peak_microbatches[0]:g} shares")
for first in ("1F1B", "interleaved, v = 1"):
    for v in (2, 4):
        print(f"v = {v} is no faster than {first} from {stops(tables[first], tables[f'interleaved, v = {v}']):g} tF on")
v = 2
for m in (4, 8, 16, 32):
    pair = build_schedule("1f1b", 4, m), build_schedule("interleaved", 4, m, chunks=v)
    hops, more = (longest_path(table)[1] for table in pair)
    print(f"m = {m:>2}: on the longest path 1F1B has {hops} messages, v = {v} has {more};", end=" ")
    print(f"no faster from {stops(*pair):g} tF on")
display(reveal("04-latency", prediction=stops(tables["1F1B"], tables["interleaved, v = 2"])))
explore("interleaved", compare="1f1b", devices=4, microbatches=8, free=["L", "v"], curve="makespan")

# %% [markdown]
# Much later than the estimate says. What counts is not how many messages there are but how many lie on the longest
# path. Turn the latency in the last picture, with *critical path* on: where does the path leave the last device's row?
#
# - Interleaved: 2(p v - 1) messages, 14 for v = 2, whatever m is. The path is micro-batch 0's way down through all
#   stages, then the last device's work, without a pause, then the last micro-batch's way up. All other messages travel
#   while devices have work to do, which is what the deep warm-up is for. From some latency on it is no longer deep
#   enough, a path with more messages is the longest, and the curve bends. For v = 2 that is at half a tF, a chunk's
#   forward.
# - 1F1B sends fewer messages, but its longest path goes down and up again and again, and the more micro-batches there
#   are, the more messages are on it. At m = 4 it has fewer than interleaved, at m = 8 more. Its round trips have no
#   slack: with p - r in flight a device is exactly busy (lesson 3), so in the steady phase it waits for messages.
#
# So the latency from which v = 2 no longer pays grows with m. (It does in tF. With the batch fixed, a larger m also
# makes micro-batches smaller, and so tF itself.)
#
# Against 1F1B, then, v = 2 gains in two ways at m = 8: a smaller bubble, and hidden messages. To see the bubble's part
# alone, compare with v = 1, whose warm-up hides messages as well, as long as they are no longer than a chunk's forward,
# which for v = 1 is a whole tF. Then v chunks save $(p - 1)(t_F + t_B)(1 - 1/v)$, and add 2p(v - 1) messages to the
# longest path. Both are equal at a latency of
#
# $$\frac{(p - 1)(t_F + t_B)}{2\,p\,v},$$
#
# here 3/8 of a forward for v = 2. (This holds where tB is at least tF and the latency that comes out is no longer than
# a chunk's forward. With tB = tF, as here, both are so.) The more chunks, the sooner interleaving stops paying. And v =
# 1 is no bargain either: its bubble is 1F1B's, and of the 8 micro-batches device 0 holds 7.
#
# Now with measured costs. The cell below takes the costs that were measured above, and composes them anew with longer
# and longer messages. Then it runs both schedules on a modelled link, `Pipeline(latency=...)`: at half of the latency
# that was found, and at twice. A measured backward takes longer than a forward, so expect another latency than above.


# %%
def with_link(timeline, latency):
    """The measured costs of a run, composed with messages that take `latency` seconds."""
    costs = tuple(tuple(span.duration for span in timeline.on_device(r)) for r in range(4))
    return simulate(timeline.schedule, SlotCosts(costs, latency=latency)).makespan


one, two = measured[8].values()
tF, tB = (sum(s.duration for s in one.spans if s.slot.op == op) / 32 for op in "FB")  # 8 micro-batches, 4 stages
predicted = stops(one.schedule, two.schedule, tB / tF)
found = next(at / 40 for at in range(200) if with_link(two, at / 40 * tF) > with_link(one, at / 40 * tF))
print(f"measured tB = {tB / tF:.2f} tF. Interleaved should be no faster", end=" ")
print(f"from {predicted:g} tF on, by tF and tB alone; from {found:g} tF on, by the cost of each single action")
for words, latency in {"half": found / 2 * tF, "twice": found * 2 * tF}.items():
    first, second = (timeline.makespan for timeline in measure(8, latency).values())
    print(f"{words:<5} of the latter, {1000 * latency:4.1f} ms a message: 1F1B {1000 * first:.0f} ms,", end=" ")
    print(f"interleaved {1000 * second:.0f} ms; {'interleaved' if second < first else '1F1B'} is faster")

# %% [markdown]
# Single costs scatter, so the two latencies do not agree to the digit. What to keep is the size: at m = 8, a forward of
# a micro-batch or somewhat more; for smaller m less, for larger m more. Between GPUs of one machine a message usually
# takes far less than that; over a slow network it need not. (Where the link's bandwidth is what limits it, or a device
# cannot work while it sends, messages are dearer than here.)
#
# *Try:* do the same for m = 4, with `measured[4]`, `measure(4, latency)`, and 16 in place of 32. The sweep says that
# interleaving stops paying sooner there. Does it? And is the winner at half of that latency, and at twice, the one
# foretold?
#
# ## Break it
#
# The survey's listing has another fault: it runs the backwards of chunk 0 before those of chunk 1. Below are two
# devices with two chunks and two micro-batches. Device 1's row is right. Device 0's has its backwards in the wrong
# order. Before you run it: who waits for whom?

# %%
ring = Schedule.from_csv("""
0F0,0F1,2F0,2F1,0B0,0B1,2B0,2B1
1F0,1F1,3F0,3B0,3F1,3B1,1B0,1B1
""")
display(try_schedule(ring))
try:
    build_schedule("interleaved", devices=4, microbatches=6, chunks=2)
except ConfigurationError as refusal:
    print("Six micro-batches on four devices:", refusal)

# %% [markdown]
# The gradient reaches the last stage first. Device 0 holds stages 0 and 2, and stage 1, which stage 0 waits for, itself
# waits for stage 2. With v = 1 there is no such trap: this ring needs two chunks on one device.
#
# The second refusal is about whole groups. To see the ring close, let two threads try, as in lesson 3.


# %%
import time
from threading import Thread


def run_anyway(schedule, patience=0.5):
    """A thread for each device: it waits for what an action needs, runs it, goes on. Gives up after a while."""
    finished, said = {}, []

    def device(r):
        for action in schedule.programs[r]:
            until = time.monotonic() + patience
            while (blocked := why_blocked(schedule, action, r, finished)) and time.monotonic() < until:
                time.sleep(0.01)
            if blocked:
                said.append(f"device {r} gives up: {blocked.message}")
                return
            finished[action] = r

    threads = [Thread(target=device, args=(r,)) for r in range(schedule.devices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(said) or ["all done"]


print(*run_anyway(ring), sep="\n")

# %% [markdown]
# Both stand where the checker said. **Try** these:
#
# - In device 0's row put 2B0 and 2B1 before 0B0 and 0B1. Sound? How many units?
# - Keep that row of device 0, and in device 1's row move 3B0 before 3F0, a warm-up that is too short by one. What does
#   the checker call it?
# - Give device 0 the stages 0 and 1, device 1 the stages 2 and 3, in an order of your own. 1F1B takes 6 units for p = m
#   = 2. Can you get below?
#
# ## What to remember
#
# - Chunks gain nothing by themselves. Dealt out round-robin they shorten the way to the last device, and the bubble
#   time falls v-fold.
# - Forwards go in groups of p, backwards likewise with the chunks reversed; the warm-up is 2(p - 1 - r) + (v - 1) p, at
#   most m v.
# - The price is (p v - 1)/(p - 1) times as many messages, and activations: $1 + (p - 1)/(p v)$ times as many on
#   device 0 for large m.
# - Few of the messages lie on the longest path. Up to a latency that you can compute it pays; beyond it does not.

# %%
ledger()

# %% [markdown] role="further"
# ## Further: how many chunks?
#
# With 48 layers on 4 devices v can be anything that divides 12. More chunks mean a smaller bubble, more messages on the
# longest path, fewer activations in flight on device 0, and more actions with their fixed cost. Here are the
# predictions for m = 8, where each action costs a little more than its share: a fixed cost of 0.02 tF. Which v is best
# depends on the latency.

# %% role="further"
fixed = 0.02
chunks = [1, 2, 3, 4, 6, 12]
print(f"{'latency':>8}", *(f"v = {v:<5}" for v in chunks), "makespan in units")
for latency in (0, 0.05, 0.1, 0.2, 0.4):
    units = []
    for v in chunks:
        table = build_schedule("interleaved", 4, 8, chunks=v)
        costs = Costs(forward=1 + v * fixed, backward=1 + v * fixed, latency=latency)
        units.append(simulate(table, costs).makespan)
    best = units.index(min(units))
    shown = [f"{n:.2f}{'*' if k == best else ' ':<4}" for k, n in enumerate(units)]
    print(f"{latency:>8}", *shown, "* best")

# %% [markdown] role="further"
# ## Further: build it by hand
#
# Two devices, two stages on each. Where does the time go that interleaving saves?

# %% role="further"
puzzles("interleaved")

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, v the number of chunks on each device, r a device. Stages
# are numbered along the model, 0 to p · v - 1, and dealt out to the devices round-robin. m is a multiple of p.

# %% role="setup"
from pipelab.teaching import NotWritten, Schedule, check

# %% [markdown] role="lead" exercise="placement" difficulty="easy" minutes=6
# Stages are dealt out round-robin. Write two functions:
#
# - `device_of` says on which device a stage lives;
# - `layers_on` lists the layers that a device holds, in ascending order. Layers are numbered from 0, their number is a
#   multiple of p · v, and every stage is a run of equally many neighbouring layers.


# %% role="answer" exercise="placement"
def device_of(stage: int, devices: int, chunks: int) -> int:
    """The device on which a stage lives.

    >>> device_of(5, devices=4, chunks=2)
    1
    """
    ### BEGIN SOLUTION
    return stage % devices
    ### END SOLUTION


def layers_on(device: int, layers: int, devices: int, chunks: int) -> list[int]:
    """The layers that a device holds, in ascending order.

    >>> layers_on(0, layers=8, devices=2, chunks=2)
    [0, 1, 4, 5]
    """
    ### BEGIN SOLUTION
    each = layers // (devices * chunks)
    held = [device + chunk * devices for chunk in range(chunks)]
    return [stage * each + k for stage in held for k in range(each)]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="placement"
# Deal the stages out on paper, for three devices and two chunks. After the last device, who is next?

# %% [markdown] role="hint" exercise="placement"
# The device is what is left of the stage when whole rounds of p are taken away. For the layers: which stages does the
# device hold? They are p apart. How many layers has each?

# %% [markdown] role="hint" exercise="placement"
# First function: the remainder of the stage by the number of devices. Second: a stage has layers divided by p · v
# layers, and stage s begins at s times that. Go through the chunks c; the stage is c times p, plus the device.

# %% [markdown] role="solution" exercise="placement"
# `chunks` is not needed by the first function. It would be for neighbouring chunks: there the device is the stage
# divided by v, without the rest.

# %% [markdown] role="lead" exercise="interleaved_warmup" difficulty="medium" minutes=8
# Every device runs w forwards, then pairs of a forward and a backward, then the backwards that are left. A forward of
# one chunk counts as one. Write the function that gives w, so that the device runs forwards without a pause from its
# first slot until its first gradient can be there, or all its forwards, if there are fewer (all actions equally long,
# messages take no time). The last of the forwards until then is that of the first pair, so it does not count. m is a
# multiple of p. v = 1 is a case too.


# %% role="answer" exercise="interleaved_warmup"
def interleaved_warmup(device: int, devices: int, microbatches: int, chunks: int) -> int:
    """How many forwards of chunks a device runs before its first pair of a forward and a backward.

    >>> interleaved_warmup(device=2, devices=3, microbatches=6, chunks=3)
    6
    """
    ### BEGIN SOLUTION
    deep = 2 * (devices - 1 - device) + (chunks - 1) * devices
    return min(deep, microbatches * chunks)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="interleaved_warmup"
# In which slot does device r start? In which slot has micro-batch 0 gone through all p · v stages? And when is its
# gradient at device r?

# %% [markdown] role="hint" exercise="interleaved_warmup"
# The last device needs a whole group of p for each chunk but its last. Every device further up waits for two more
# messages, one on the way down and one on the way up. And there are no more forwards than m v.

# %% [markdown] role="hint" exercise="interleaved_warmup"
# Twice the number of devices behind this one, plus p for each chunk but one; take the smaller of that and the number of
# forwards that the device has at all.

# %% [markdown] role="solution" exercise="interleaved_warmup"
# m v - 1 in place of m v is the same order, as in lesson 3. On the last device w = (v - 1) p: what it takes to get to
# its last chunk.

# %% [markdown] role="lead" exercise="interleaved" difficulty="hard" minutes=20
# Write interleaved 1F1B for any p, v and m, a multiple of p: a list with one row of actions per device, in the order in
# which the device runs them. An action is named by its *stage*: on two devices `"2F0"` is device 0, chunk 1. Write it
# without your functions from above: exercises stand alone.
#
# Graded is what the table does. *Sound*: each device runs what it holds, round-robin, and nobody waits for ever.
# *Time*: with messages that take no time it takes no longer than the order of the lesson. *In flight*: no device holds
# more than with that order. *Gradients*: all of this, and the 48-layer model (a narrow one) trains with it. Another
# table that does as well gets all points: one with a shorter warm-up too, although it is slower where messages take
# time, for that is not graded. To watch the course's model train with your rows, write in a new cell:
# `from pipelab import try_schedule`, then `try_schedule(interleaved(4, 8, 2))`.


# %% role="answer" exercise="interleaved"
def interleaved(devices: int, microbatches: int, chunks: int) -> list[list[str]]:
    """Interleaved 1F1B's order: one row of actions per device.

    >>> interleaved(2, 2, 2)[1]
    ['1F0', '1F1', '3F0', '3B0', '3F1', '3B1', '1B0', '1B1']
    """
    ### BEGIN SOLUTION
    p, total = devices, microbatches * chunks
    groups = [range(first, first + p) for first in range(0, microbatches, p)]
    order = [(chunk, i) for group in groups for chunk in range(chunks) for i in group]
    rows = []
    for r in range(p):
        forwards = [f"{chunk * p + r}F{i}" for chunk, i in order]
        backwards = [f"{(chunks - 1 - chunk) * p + r}B{i}" for chunk, i in order]
        w = min(2 * (p - 1 - r) + (chunks - 1) * p, total)
        row = forwards[:w]
        for forward, backward in zip(forwards[w:], backwards, strict=False):
            row += [forward, backward]
        rows.append(row + backwards[total - w :])
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="interleaved"
# First make two lists per device: all its forwards in order, and all its backwards in order. How long are they? Then
# put the row together from the two.

# %% [markdown] role="hint" exercise="interleaved"
# Forwards: for each group of p micro-batches, for each chunk from 0 up, for each micro-batch of the group. Backwards:
# the same with the chunks from the last down. The warm-up says how many of the forwards come before the first pair.

# %% [markdown] role="hint" exercise="interleaved"
# Chunk c of device r is stage c times p plus r. With w = twice the devices behind, plus p for each chunk but one, at
# most m v: the row is the first w forwards; then the next forward and the next backward in turn, until there are no
# forwards; then the last w backwards.

# %% [markdown] role="solution" exercise="interleaved"
# With p - 1 - r in place of twice that, the table is graded as right too. It takes as long where messages take no time,
# and holds less. The lesson shows what it loses where they do.

# %% [markdown] role="lead" exercise="break_even" difficulty="hard" minutes=15
# Given are two schedules of the same model, the first 1F1B's and the second interleaved 1F1B's, and the times of a
# forward and a backward of one micro-batch on a *whole device* (a chunk takes 1/v of it; `Costs` does the division).
# With messages that take no time the second is faster. Find the latency of a message, in the unit of the two times,
# from which on it no longer is. An answer within 1 % is right. `simulate(schedule, Costs(forward=..., backward=...,
# latency=...)).makespan` may be used, and you may read `devices`, `microbatches` and `chunks` off a schedule.

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
# At which latency is the second ahead for certain? At which is it behind for certain? What do you know of a latency in
# between, once you have simulated both there?

# %% [markdown] role="hint" exercise="break_even"
# Halve an interval: keep one end where the second is ahead and one where it is not. To find the first such interval,
# double a latency until the second is no longer ahead: how large it has to be depends on the costs.

# %% [markdown] role="hint" exercise="break_even"
# Write a small function that says for one latency whether the second makespan is the smaller one. Start with 0 and
# `forward` as ends; while the second is ahead at the upper end, double it. Then, until the ends are closer than a
# thousandth, look at the middle and move one end there.

# %% [markdown] role="solution" exercise="break_even"
# Both makespans are made of straight lines in the latency, one for each path through the table, and the longest path
# counts. So there is a formula for each pair of lines, but which two lines meet depends on p, m, v and the costs. A
# simulation does not need to know.
