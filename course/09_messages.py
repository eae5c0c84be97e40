# ---
# jupyter:
#   pipelab:
#     number: 9
#     title: "Messages"
#     minutes: 50
#     builds_on: [3b, 4b, 5, 7]
#     goals:
#       - measure what a message costs, and say what its latency and its bandwidth are
#       - say which schedules hide their messages behind work, which do not, and why
#       - buy hidden messages with memory, by a deeper warm-up
#       - choose m, v and the place of a node boundary for a given link
# ---

# %% [markdown]
# ## What does one message cost?
#
# Nearly all pictures so far drew messages as if they took no time. In this lesson they take some. First measure: two
# devices with hardly anything to compute send each other tensors of different sizes. There are three ways to send:
#
# - **threads** of one process. A message is a reference to memory that both can see. But a large tensor has to come
#   out of memory again, into the cache of the other core.
# - **processes** of one machine. Small messages go through a socket, and large ones through memory that both can see.
# - **gloo**, the library that PyTorch uses between machines without GPUs. All bytes go through a network interface,
#   here the one that leads back to the same machine.

# %% role="setup"
from contextlib import ExitStack
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch()
predict("09-large", "With gloo: how many times as long as 4 KiB do 1024 KiB take?", unit="times")

# %%
sizes = [2**k for k in (12, 14, 16, 18, 20, 22)]
times = {way: message_times(way, sizes) for way in ("threads", "processes", "gloo")}
lines = {way: fit_line(found.items()) for way, found in times.items()}
for way, line in lines.items():
    rate = f"{1 / line.beta / 1e9:.1f} GB/s" if line.beta else "no limit seen"
    print(f"{way:<9} t = {1e6 * line.alpha:.0f} µs + bytes / ({rate})")
shown = {way: [1e3 * times[way][size] for size in sizes] for way in times}
note = "Clock: wall, medians of 15 messages to a device that waits for them."
axes = {"across": "KiB of a message", "up": "milliseconds"}
display(plot_curves([size / 1024 for size in sizes], shown, **axes, title="One message", note=note, log=True))
by_line = lines["gloo"](2**20) / lines["gloo"](2**12)
reveal("09-large", prediction=by_line, measurement=times["gloo"][2**20] / times["gloo"][2**12])

# %% [markdown]
# A message 256 times as large takes much less than 256 times as long. Roughly, the time is a line,
#
# $$t = \alpha + \beta \cdot \text{bytes}.$$
#
# (The axis is logarithmic, so a line looks bent. And single sizes can be off by a factor of two: caches, buffers, and
# other work on the machine.) α is the **latency**: what any message costs. 1/β is the **bandwidth**. It is the line of
# lesson 5, with bytes in place of sequences. Between GPUs of one node, bandwidths are several hundred GB/s (NVLink),
# between nodes tens of GB/s for each network card. Latencies are a few microseconds to a few tens.
#
# The messages of our example are small. A batch of 64 sequences in 4 micro-batches makes messages of 16 sequences, with
# 32 tokens each, at a width of 64, in float32.

# %%
message = inputs[:16].numel() * 64 * 4
step = build_schedule("1f1b", devices=4, microbatches=4)
with Pipeline(model, step, loss=next_byte_loss) as pipeline:
    report = pipeline.step(inputs, targets)
costs = report.timeline.busy
print(f"a message has {message / 1e3:.0f} kB; forward and backward take a stage {1e3 * costs[1] / 4:.0f} ms")
for way, line in lines.items():
    print(f"{way:<9} {1e3 * line(message):.2f} ms, {line(message) / (costs[1] / 4):.1%} of that")

# %% [markdown]
# So on this machine our messages hardly matter. On a fast GPU with a slow network between nodes they do. From here on
# the engine *models* a link. `Pipeline(latency=..., bandwidth=...)` delivers each message that much later, and
# `simulate` predicts the same.
#
# ## Where messages hide
#
# A device need not stand still while a message is under way. It can compute something else: then the message **hides**
# behind work. Take a latency as long as a forward, and p = 4, m = 16.

# %%
unit = Costs(forward=1, backward=2, latency=1)
question = "Without latency GPipe and 1F1B take 57 units each (m = 16). How many does 1F1B take with a latency of 1?"
predict("09-latency", question, unit="units")

# %%
drawn = {name: simulate(build_schedule(name, devices=4, microbatches=16), unit) for name in ("gpipe", "1f1b")}
for name, timeline in drawn.items():
    told = f"{timeline.overlap.fraction:.0%} of its messages' time is hidden"
    print(f"{name:<6} {timeline.makespan:g} units; {told}")
display(plot_timeline(simulate(build_schedule("1f1b", devices=4, microbatches=6), unit), lanes=True, memory=False))
reveal("09-latency", measurement=drawn["1f1b"].makespan)

# %% [markdown]
# Six messages cannot hide: three on the first micro-batch's way down, and three on the last one's way up. GPipe pays
# for these six and no more. 1F1B pays 28. The picture (with m = 6, to be readable) shows why. The thin lanes are
# messages that a device sends and receives.
#
# In GPipe, device 1 has the next micro-batch by the time it has finished the one before. So it never waits in the
# middle of a phase. In 1F1B each device has only as many micro-batches under way as it needs *without* latency. Look
# at `F4` on device 0. It comes after `B0`, whose gradient is late, and so `F4` is late on every device after it. A
# forward waits there for an earlier gradient, which is still on its way up.
#
# Count it for device 0. It has p micro-batches under way. Each goes down and up again, which takes p(tF + tB) of work
# and 2(p - 1) latencies L. In this time device 0 finishes p of them. So in the steady phase each micro-batch takes
#
# $$t_F + t_B + \frac{2(p - 1)}{p} L.$$
#
# At p = 4 and L = 1 this is 4.5 instead of 3. (Sixteen times 1.5 is 24, and filling and draining make it 28.)
#
# ## Is that so on a real machine?
#
# The next cell trains the 48-layer model with p = 2 under the *wall* clock. Two cores can really compute at once, and
# each message really arrives 20 ms late. (With one free core only, the two devices take turns. Then everything takes
# longer, and a message costs less, because the core has other work meanwhile.)


# %%
def walls(latencies, names=("gpipe", "1f1b"), m=8, steps=3):
    """Steps by the wall clock with p = 2, in turns: the shortest timeline for each schedule and latency."""
    found = {}
    with ExitStack() as stack:
        made = {
            (name, latency): stack.enter_context(
                Pipeline(model, build_schedule(name, 2, m), loss=next_byte_loss, clock="wall", latency=latency)
            )
            for name in names
            for latency in latencies
        }
        for case, pipeline in [*made.items()] * steps:
            timeline = pipeline.step(inputs, targets).timeline
            if case not in found or timeline.makespan < found[case].makespan:
                found[case] = timeline
    return found


_ = walls([0], names=["gpipe"], steps=1)  # the first run also pays for starting up
clocked = walls([0, 0.02])
for name in ("gpipe", "1f1b"):
    before, after = (clocked[name, latency] for latency in (0, 0.02))
    extra = 1e3 * (after.makespan - before.makespan)
    print(f"{name:<6} {1e3 * before.makespan:.0f} ms without latency, {extra:+.0f} ms with it")
print(f"expected: gpipe {2 * 20:+} ms, 1F1B {8 * 20:+} ms")
plot_timeline(clocked["1f1b", 0.02], lanes=True, memory=False)

# %% [markdown]
# At p = 2 the formula gives one latency for each micro-batch, so eight for the step. GPipe pays two: one on the way
# down, and one on the way up. (Two steps of the same kind can differ by more than these two.)
#
# ## A claim on trial: "communication is free, because it overlaps with computation"
#
# One often reads this about pipelines. You have seen that it depends on the order. For which schedules is it true?
# (`with_warmups` was in lesson 3b. Device r runs w forwards before its first backward in turn.)

# %%
tried = {
    "gpipe": build_schedule("gpipe", 4, 16),
    "1f1b": build_schedule("1f1b", 4, 16),
    "1f1b, w = 2(p - 1 - r)": with_warmups([6, 4, 2, 0], 16),
    "zb-h1": build_schedule("zb-h1", 4, 16),
    "zb-h2": build_schedule("zb-h2", 4, 16),
    "interleaved": build_schedule("interleaved", 4, 16),
}
for name, schedule in tried.items():
    without, with_it = (simulate(schedule, Costs(1, 2, latency=latency)) for latency in (0, 1))
    hidden, most = with_it.overlap.fraction, max(with_it.peak_microbatches)
    told = f"{without.makespan:>5g} units, with latency {with_it.makespan:>5g}; {hidden:.0%} hidden"
    print(f"{name:<23}{told}, {most:g} in flight")

# %% [markdown]
# False for 1F1B, true for GPipe, and otherwise a matter of memory. A message hides where its receiver has something
# else to do: another micro-batch, which must be there already and is held, or a W that was put off. 1F1B with a deeper
# warm-up hides its messages, and holds seven micro-batches in place of four. (In lesson 3b this warm-up was a waste: it
# held more, and was not faster. There messages took no time.) ZB-H2 holds seven as well. ZB-H1 holds four, and latency
# costs it 20 units, against 28 for 1F1B.
#
# The hidden share alone does not say what messages cost. One that is not hidden costs nothing if its receiver would
# have stood idle anyway.
#
# **Try it:** how deep must the warm-up be? Try `with_warmups([k * (3 - r) for r in range(4)], 16)` with k = 1, 2, 3 and
# latencies of 1 and 3.
#
# <details><summary>What you should see, and why</summary>
#
# At latency 1, k = 2 is as good as k = 3. At latency 3 one needs k = 3. A micro-batch comes back from the next stage
# after tF + tB and two latencies, 2L + 3. In this time a device could compute (2L + 3)/3 other micro-batches: less
# than 2 at L = 1, and 3 at L = 3. So each stage needs that many more in flight than the next one.
#
# </details>
#
# ## Small micro-batches and many stages
#
# The latency comes once per message. More micro-batches make more messages, and so do more stages on each device.
# Interleaving halves the bubble at v = 2, but at p = 4 it sends 2.33 times as many messages (lesson 4b). From which
# latency on does it lose?

# %%
question = "p = 4, m = 8, tF = 1, tB = 2. From which latency on is 1F1B faster than interleaved 1F1B (v = 2)?"
predict("09-cross", question, unit="units")

# %%
latencies = [k / 10 for k in range(21)]
curves = {}
for name in ("gpipe", "1f1b", "interleaved", "zb-v"):
    schedule = build_schedule(name, 4, 8)
    curves[name] = [simulate(schedule, Costs(1, 2, latency=latency)).makespan for latency in latencies]
axes = {"across": "latency of a message (units)", "up": "makespan (units)"}
note = "Simulated, p = 4, m = 8, tF = 1, tB = 2 for a device's whole share."
display(plot_curves(latencies, curves, **axes, title="Who suffers from latency?", note=note))
crossing = next((x for x, a, b in zip(latencies, curves["1f1b"], curves["interleaved"], strict=True) if a < b), None)
print("1F1B is faster than interleaved from", "no latency here" if crossing is None else f"{crossing:g} units on")
reveal("09-cross", measurement=crossing)

# %% [markdown]
# Interleaving begins with the shorter step, and loses it message by message. And from a latency of about 0.9 on GPipe
# is faster than all others here. It holds all eight micro-batches.
#
# And m? Under 1F1B each micro-batch pays its latencies. So there a latency acts as the fixed cost α of lesson 5 does:
# it pulls the best m down. GPipe pays 2(p - 1) latencies at every m. Bandwidth alone does not pull m down: the sum of
# all bytes stays the same. The next cell asks the frozen profile of lesson 5b, for a batch of 64 sequences.

# %%
frozen = CostProfile.shipped()
for latency in (0, 1e-3, 1e-2):
    told = []
    for name in ("gpipe", "1f1b"):
        took = {
            m: frozen.predict(build_schedule(name, 4, m), 64, latency=latency).makespan for m in (2, 4, 8, 16, 32, 64)
        }
        best = min(took, key=took.get)
        told.append(f"{name}: best m = {best}, {1e3 * took[best]:.0f} ms")
    print(f"latency {1e3 * latency:g} ms:", "; ".join(told))

# %% [markdown]
# ## Where should the node boundary lie?
#
# Eight devices in two nodes: links within a node are fast, and the one between the nodes is slow. `Links.nodes(4, ...)`
# puts four devices in each node, in order. What if they are numbered in turns, so that neighbours in the pipeline are
# never in the same node?

# %%
fast, slow = Link(latency=0.05), Link(latency=1)
nodes = Links.nodes(4, inside=fast, between=slow)
# odd and even devices are in different nodes
mixed = Links(fast.latency, pairs={(a, b): slow for a in range(8) for b in range(8) if a != b and (a + b) % 2})
for name, chunks in (("1f1b", None), ("interleaved", 2)):
    schedule = build_schedule(name, 8, 16, chunks)
    told = []
    for kind, links in {"all fast": Links(fast.latency), "two nodes in order": nodes, "alternating": mixed}.items():
        timeline = simulate(schedule, Costs(1, 2, links=links))
        told.append(f"{kind} {timeline.makespan:.1f}")
    print(f"{name:<12}", "; ".join(told))

# %% [markdown]
# In order, one boundary of seven is slow under 1F1B. Still it costs almost one slow latency for each micro-batch. The
# two devices beside it wait for one another, as in the formula with p = 2. Interleaving crosses once more, from the
# last device back to the first. It suffers less, because its devices have more micro-batches under way. Alternating
# makes every boundary slow. So keep neighbours together, and cross the slow link as rarely as possible. If the
# layers' messages differ in size, as in a network for images, put the boundary where a layer sends least.
# `plan_cuts(..., links=...)` takes all this into account. In an exercise you write it yourself.
#
# ## Break it
#
# What was on time without latency can be late with it. Let device 0 of 1F1B (m = 8) run its first backward one forward
# earlier: `0B0` before `0F3`. What does that cost without latency, and with it?

# %%
right = build_schedule("1f1b", devices=4, microbatches=8)
row = [str(action) for action in right.programs[0]]
at = row.index("0B0")
row[at - 1], row[at] = row[at], row[at - 1]
early = Schedule.from_rows([row, *right.programs[1:]], name="0B0 early")
print("violations:", len(check_schedule(early)))
for latency in (0, 1):
    pair = [simulate(schedule, Costs(1, 2, latency=latency)) for schedule in (right, early)]
    print(f"latency {latency}: 1F1B {pair[0].makespan:g} units, {early.name} {pair[1].makespan:g}")
plot_timeline(pair[1], lanes=True, memory=False)

# %% [markdown]
# With the exchange only three micro-batches are under way at first. `0F3` has to wait until the first one has gone down
# and come up again, and part of that wait stays to the end. The longer the way, the more it costs.
#
# ## What to remember
#
# - A message takes α + β · bytes. For small ones α is nearly everything.
# - A message hides only if its receiver has other work at hand: a micro-batch that is held in memory, or a W.
# - 1F1B has no micro-batch to spare: each one pays 2(p - 1)/p latencies. GPipe pays 2(p - 1) in all, and so does a
#   warm-up that is deep enough for the latency.
# - Under 1F1B latency speaks for few, large messages: a smaller m, a smaller v.
# - Neighbours belong in one node, and the boundary between nodes where the least has to cross it.
#
# Lesson 9b looks at the other way in which messages go wrong: an order in which everybody waits.

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches in a batch, v the number of stages on each device. `2F1` and
# `2B1` are the forward and the backward of micro-batch 1 on stage 2. Devices, stages, layers and nodes are counted from
# 0. Times are in milliseconds, and bandwidths in bytes per millisecond. Nothing here depends on your machine.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="when_it_hides" difficulty="medium" minutes=14
# A message is hidden while the device that will receive it computes. Write two functions:
#
# - `hidden_share` gets messages on their way to one device, as pairs (sent, arrived), and the intervals in which that
#   device computes, as pairs (start, end). Return the part of the messages' total time in which the device computes, a
#   number from 0 to 1. If several messages are on their way at once, each counts with its own time. Messages come in
#   any order, some take no time, and there may be none. If their total time is 0, return 1.0. The intervals are sorted
#   and do not overlap.
# - `least_size` is about two straight lines. A message of b sequences takes `latency + b * sequence_bytes / bandwidth`,
#   and a forward of b sequences takes `alpha + beta * b`. A message hides behind one forward if it takes at most as
#   long. Return the smallest whole b, at least 1, such that a message hides at this size *and at all larger ones*.
#   Return None if there is no such b. All arguments are above 0.


# %% role="answer" exercise="when_it_hides"
def hidden_share(messages: list[tuple[float, float]], busy: list[tuple[float, float]]) -> float:
    """The part of the messages' time in which the device computes.

    >>> hidden_share(messages=[(0, 4), (3, 5)], busy=[(1, 4)])    # 3 of 4, and 1 of 2
    0.6666666666666666
    """
    ### BEGIN SOLUTION
    hidden = 0.0
    for sent, arrived in messages:
        for start, end in busy:
            hidden += max(0.0, min(arrived, end) - max(sent, start))
    total = sum(arrived - sent for sent, arrived in messages)
    return hidden / total if total else 1.0
    ### END SOLUTION


def least_size(latency: float, bandwidth: float, sequence_bytes: float, alpha: float, beta: float) -> int | None:
    """The number of sequences from which on a message is no longer than a forward.

    >>> least_size(latency=8, bandwidth=1000, sequence_bytes=2000, alpha=1, beta=4)    # 8 + 2b and 1 + 4b
    4
    """
    ### BEGIN SOLUTION
    from math import ceil

    each = sequence_bytes / bandwidth
    if beta > each:
        return max(1, ceil((latency - alpha) / (beta - each)))
    return 1 if beta == each and latency <= alpha else None
    ### END SOLUTION


# %% [markdown] role="hint" exercise="when_it_hides"
# Take one message and one interval. From when to when do they share time? For `least_size`, draw both lines over b.
# Which one is steeper, and where do they meet?

# %% [markdown] role="hint" exercise="when_it_hides"
# The shared time begins at the later of the two beginnings, and ends at the earlier of the two ends. It may be
# negative, and then nothing is shared. Add it up over all messages and intervals, and divide once at the end. For
# `least_size` there are three cases: the forward's line is steeper, the message's line is steeper, or neither is.

# %% [markdown] role="hint" exercise="when_it_hides"
# `min` and `max` give the shared time, and one more `max` replaces what is negative by 0. For `least_size`: where the
# forward grows faster, divide what the message has too much at b = 0 by what the forward gains with each sequence.
# Round up, and look at 1. Where the message grows faster, can it stay hidden? Where both grow alike, b does not matter:
# what does?

# %% [markdown] role="solution" exercise="when_it_hides"
# A channel carries one message at a time. If a message takes longer than a forward, the next one waits behind it, and
# after some micro-batches the link sets the pace. So a message that sticks out a little costs time with each
# micro-batch. A larger micro-batch helps against latency, and never against too little bandwidth. There only fewer
# bytes help: another cut, or smaller numbers.

# %% [markdown] role="lead" exercise="node_boundary" difficulty="hard" minutes=25
# Between two nodes the link is slow. Which stages should it lie between, and which devices should be neighbours? Write
# three functions.
#
# - `cut_for_nodes` cuts layers into `devices` stages, one stage a device, in order. `devices` is even. The first half
#   of the devices is in one node, the second half in the other. For one micro-batch, layer i takes `costs[i]`
#   milliseconds, and `sizes[i]` bytes leave it. A stage **weighs** the longer of two times: the sum of its layers'
#   costs, and the time of the message behind it. That message has the bytes that leave the stage's last layer. It
#   takes bytes / bandwidth, where the bandwidth is `between` if it goes from one node to the other, and `inside`
#   otherwise. The last stage sends nothing. Each stage has at least one layer. Return the first layers of stages 1 to
#   `devices` - 1, such that the heaviest stage weighs as little as possible. Any best cut is right. There are at most
#   14 layers, so you may try all cuts.
# - `crossings` counts messages. Now there are v = `chunks` stages on each device: p v stages, and stage s is at place s
#   mod p. At place k stands device `order[k]`, and device d is in node `nodes[d]`. A micro-batch sends one activation
#   from each stage to the next, and later one gradient back the same way. Return how many of these messages go from one
#   node to another.
# - `best_order` returns an order of the devices with the fewest such messages. Any such order is right. There are at
#   most 6 devices, so you may try all orders.


# %% role="answer" exercise="node_boundary"
def cut_for_nodes(costs: list[float], sizes: list[float], devices: int, inside: float, between: float) -> list[int]:
    """The first layers of stages 1, 2, ... of a cut whose heaviest stage weighs as little as possible.

    >>> cut_for_nodes([1, 1, 1, 1], [8, 2, 1, 9], devices=2, inside=4, between=1)    # stages weigh 2 and 2
    [2]
    """
    ### BEGIN SOLUTION
    from itertools import combinations

    def heaviest(cuts: tuple[int, ...]) -> float:
        bounds, weights = (0, *cuts, len(costs)), []
        for k in range(devices):
            weights.append(sum(costs[bounds[k] : bounds[k + 1]]))
            if k < devices - 1:
                link = between if k == devices // 2 - 1 else inside
                weights.append(sizes[bounds[k + 1] - 1] / link)
        return max(weights)

    return list(min(combinations(range(1, len(costs)), devices - 1), key=heaviest))
    ### END SOLUTION


def crossings(nodes: list[int], order: list[int], chunks: int) -> int:
    """How many messages of one micro-batch go from one node to another, activations and gradients.

    >>> crossings(nodes=[0, 0, 1, 1], order=[0, 1, 2, 3], chunks=1)
    2
    """
    ### BEGIN SOLUTION
    visited = [nodes[device] for device in order] * chunks
    return 2 * sum(visited[s] != visited[s + 1] for s in range(len(visited) - 1))
    ### END SOLUTION


def best_order(nodes: list[int], chunks: int) -> list[int]:
    """An order of the devices with as few messages between nodes as possible.

    >>> best_order(nodes=[0, 0, 0], chunks=2)    # one node: any order is right
    [0, 1, 2]
    """
    ### BEGIN SOLUTION
    return sorted(range(len(nodes)), key=lambda device: nodes[device])
    ### END SOLUTION


# %% [markdown] role="hint" exercise="node_boundary"
# How many cuts are there at all? For the other two: write down the nodes that a micro-batch visits, stage by stage.
# What do you see where it crosses?

# %% [markdown] role="hint" exercise="node_boundary"
# Write one function for the heaviest weight of a given cut, and take the cut with the least. The message behind stage k
# depends on the last layer of that stage, and its link on k. For `crossings`, the list of visited nodes has p v
# entries. Look at neighbours in it. For `best_order`: how often must a micro-batch enter each node in one round?

# %% [markdown] role="hint" exercise="node_boundary"
# `itertools.combinations` gives all ways to choose first layers, in rising order. Which stage is the last one in the
# first node? In `crossings`, one round is the nodes of the devices in their order, and the rounds follow one another.
# So the last place and the first are neighbours too, v - 1 times. `best_order` needs no
# search: what happens if the devices of each node stand side by side?

# %% [markdown] role="solution" exercise="node_boundary"
# In a ResNet the activations of early layers are large, and those of late layers small. There the slow link belongs
# further back, even if the stages before it then weigh more than the others. In a transformer all layers send the same,
# so for messages no place is better than another, and the number of crossings decides. With two nodes 1F1B crosses 2
# times a micro-batch, and interleaving with v stages on each device 2 (2v - 1) times.
