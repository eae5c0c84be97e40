# ---
# jupyter:
#   pipelab:
#     number: 11b
#     title: "Pipelines everywhere: batches, streams and hospitals"
#     minutes: 55
#     builds_on: [2, 5, 9, 11]
#     goals:
#       - choose a batch for a flow of CPU, GPU and CPU from a line fitted for each stage
#       - tell latency from throughput, alone and under load, and say what a pipeline does to each
#       - measure what leaves a hospital in split learning, and what it costs beside federated averaging
# ---

# %% [markdown]
# ## How large should a batch be, if a GPU stands between two CPUs?
#
# A bank asks how much it may lose in ten days. It draws thousands of scenarios of share prices. In each it values all
# its options, and then it looks at the worst losses. The loss that is exceeded in one scenario of a hundred is the
# **value at risk**, at a level of 99 %.
#
# This is a pipeline: the CPU draws scenarios, a GPU values the options, and the CPU picks the worst losses. The GPU is
# dear, so it should always work. Large batches help it, because starting an operation costs as much for one scenario as
# for a thousand. But large batches also need memory, and leave few batches to overlap. Where is the best size?
#
# On this page a `Flow` has stages, and each stage runs on a `Resource`: a core, a GPU, a link. Everything is really
# computed. Without a GPU a thread plays it, and each picture says so.

# %% role="setup"
import numpy as np
import torch
from dataclasses import replace
from statistics import median
from pipelab.teaching import *

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
book, count, level = make_book(shares=100, options=2), 60_000, 0.99
today, keep = float(value(book, book.spot[:, None], left=0.0)), round(count * (1 - level))


def risk_flow(b):
    """Batches of b scenarios. An item is the number of a batch's first scenario."""
    cpu, gpu = Resource("CPU"), Resource("GPU", kind="gpu")
    return Flow(
        Stage("scenarios", lambda first: scenarios(book, first, b), cpu),
        Stage("value", lambda prices: value(book, prices, device=device).cpu().numpy(), gpu),
        Stage("tail", lambda values: tail(today - values, keep), "CPU"),
        Stage("quantile", lambda tails: value_at_risk(tails, keep), "CPU", batch="all"),
        name=f"value at risk, b = {b:,}",
    )


question = "The GPU values a batch of 2000 scenarios. How many times as long does it take as for 500?"
predict("11b-launch", question, unit="times as long")

# %%
measured = {b: risk_flow(b).profile(range(0, 4 * b, b), progress=False) for b in (500, 2000, 6000)}
lines = {name: fit_line((b, costs[name]) for b, costs in measured.items()) for name in ("scenarios", "value", "tail")}
for name, line in lines.items():
    print(f"{name:<9} {1e3 * line.alpha:6.2f} ms + {1e6 * line.beta:5.2f} µs · b, fitted within {line.error:.0%}")
small, large = 500, 2000
reveal(
    "11b-launch",
    prediction=lines["value"](large) / lines["value"](small),
    measurement=measured[large]["value"] / measured[small]["value"],
)

# %% [markdown]
# The line of `value` has a large fixed part. It values the options of one share after another, so a batch launches
# about two thousand operations, no matter how many scenarios it has. `value` is in `pipelab/teaching/flows/risk.py`.
#
# With these lines we can predict all sizes. Let N be all scenarios, and $t(b) = a + c\,b$ for each stage. If the GPU is
# the slowest, it works N/b times. Before it begins, the first batch of scenarios must be there:
#
# $$T(b) \approx \frac{N}{b}\,(a_{GPU} + c_{GPU}\, b) + (a_{CPU} + c_{CPU}\, b), \qquad
# b^* = \sqrt{\frac{a_{GPU}\, N}{c_{CPU}}}$$
#
# It is the formula of lesson 5, read for b: a fixed cost that wants few batches, against a fill that wants many.

# %%
predict("11b-batch", "Which batch size makes the value at risk of 60,000 scenarios fastest?", unit="scenarios")


# %%
def beside(ahead, run):
    """Three makespans: predicted, measured, and composed from what the jobs of the run itself cost."""
    took, composed = run.makespan, replace(run, clock="device").makespan
    told = f"predicted {ahead.makespan:.2f} s, measured {took:.2f} s ({took / ahead.makespan - 1:+.0%})"
    return f"{told}, composed {composed:.2f} s ({composed / ahead.makespan - 1:+.0%})"


sizes = [500, 1000, 2500, 5000, 10_000, 20_000, 60_000]
flows = {b: risk_flow(b) for b in sizes}
costs = {b: {name: line(b) for name, line in lines.items()} | {"quantile": measured[small]["quantile"]} for b in sizes}
predicted = {b: flows[b].predict(count // b, costs[b]) for b in sizes}
runs = {b: flows[b].run(range(0, count, b), progress=False) for b in sizes}
took = {b: run.makespan for b, run in runs.items()}
for b in sizes:
    print(f"b = {b:>6,}: {beside(predicted[b], runs[b])}")
optimum = (lines["value"].alpha * count / lines["scenarios"].beta) ** 0.5
ahead = {b: timeline.makespan for b, timeline in predicted.items()}
curves = {"predicted": list(ahead.values()), "measured": list(took.values())}
curves["composed"] = [replace(run, clock="device").makespan for run in runs.values()]
played = runs[small].note or "on a GPU"
note = f"{count:,} scenarios, {played}. Measured: the clock on the wall. Composed: the device clock."
axes = {"across": "scenarios in a batch", "up": "seconds", "log": True, "marks": {"√(aN/c)": optimum}}
display(plot_curves(sizes, curves, **axes, title="Small batches launch, large ones wait", note=note))
display(plot_timeline(runs[10_000].timeline))
reveal("11b-batch", prediction=min(ahead, key=ahead.get), measurement=min(took, key=took.get))

# %% [markdown]
# Left, the GPU mostly launches. Right, the CPU draws one huge batch while the GPU waits, and then the GPU works while
# the CPU waits. Between them lies a flat valley. Near its bottom, a size that is off by a factor of two costs little.
#
# Where prediction and measurement differ, the third figure says why. It is *composed*: each job of the run counts with
# the CPU time that it took, as if each worker had a core of its own. If it is near the prediction, and the measurement
# is above, then jobs waited for a core or for the interpreter. If it is above too, then the jobs themselves became
# slower: two workers share caches and memory. And where it is below, the line was not right for this size.
#
# ## Is the number right, and does it fit?
#
# A faster wrong number is worth nothing. All sizes draw the same scenarios, since each block of 250 has a seed of its
# own. For one call there is an exact formula, as its loss grows when the share falls.


# %%
def most_held(run, b):
    """Bytes of prices that exist at once at most: from when they are drawn until they have been valued."""
    at = {(span.slot.stage, span.slot.microbatch): span for span in run.timeline.spans}
    lives = [(at[0, i].start, at[1, i].end) for i in range(count // b)]
    return max(sum(a <= begin < end for a, end in lives) for begin, _ in lives) * b * book.spot.nbytes


serial = value_at_risk([tail(today - value(book, scenarios(book, 0, count)).numpy(), keep)], keep)
worst = max(abs(run.results[0][0] / serial[0] - 1) for run in runs.values())
print(f"value at risk {serial[0]:,.0f}; largest difference of any batch size to a serial computation: {worst:.0e}")
call = replace(make_book(shares=1, options=1), number=np.ones((1, 1)), sign=np.ones((1, 1)))  # one call, held
losses = float(value(call, call.spot[:, None], left=0.0)) - value(call, scenarios(call, 0, count)).numpy()
scatter = round((count * level * (1 - level)) ** 0.5)  # of the number of losses above the true quantile
high, found, low = (value_at_risk([losses], keep + step)[0] for step in (-scatter, 0, scatter))
print(f"one call: {found:.3f}, scatter {low:.3f} to {high:.3f}; by the formula {closed_form(call, level):.3f}")
for b, run in runs.items():
    print(f"b = {b:>6,}: {most_held(run, b) / 1e6:6.1f} MB of prices at once, {took[b]:.2f} s")
limit = 10e6
fitting = min((b for b in sizes if most_held(runs[b], b) <= limit), key=took.get)
print(f"fastest with at most {limit / 1e6:.0f} MB: batches of {fitting:,}, {took[fitting]:.2f} s")

# %% [markdown]
# Memory grows with the batch: the prices of a batch that is drawn, and of one that is valued. A limit on the GPU's
# memory cuts the valley off on the right. Where no limit is near, take the smallest batch close to the bottom. It is
# nearly as fast, and holds less.
#
# ## A claim on trial: "too large a batch makes the valuation the bottleneck"
#
# One text says that with a batch that is too large, the GPU's stage becomes so long that it is the bottleneck, and the
# CPUs wait. Is that what was slow on the right? The next cell compares the time of the GPU for a batch with that of the
# CPU.

# %%
for b in sizes:
    cpu, gpu = lines["scenarios"](b) + lines["tail"](b), lines["value"](b)
    busy = runs[b].utilisation
    told = f"GPU {1e3 * gpu:6.1f} ms a batch, {gpu / cpu:5.1f} times the CPU's"
    print(f"b = {b:>6,}: {told}; at work: GPU {busy['GPU']:.0%}, CPU {busy['CPU']:.0%}")

# %% [markdown]
# False, it is the other way round. All stages grow with b. The GPU has the largest fixed part, so it is most of all the
# bottleneck with *small* batches. As b grows, the ratio of GPU to CPU falls towards that of their slopes. Large batches
# hurt because there are few of them. Nothing overlaps with the first and the last one.
#
# **Try it:** draw more for each scenario. Give `make_book` 200 shares and one option each, and fit the lines again.
# Which resource is the bottleneck now, and where does the best batch go?
#
# <details><summary>What you should see, and why</summary>
#
# The correlated draw has a part that grows with the square of the number of shares. So the CPU's slope grows more than
# twice, and the GPU's hardly at all: it values as many options as before, in twice as many operations. With large
# batches the CPU is the bottleneck now. The formula for the best batch supposed a slow GPU. `predict` needs no such
# condition.
#
# </details>
#
# ## Does a pipeline make an answer come sooner?
#
# Now a language model that answers requests. A request is a short text. It is **tokenised** (its characters become
# numbers), encoded by the first layers, and passed through the others. The scores are decoded into the likeliest next
# characters. Two cores share the work.

# %%
model = TransformerLM(layers=12, width=256, tokens=16)
served, texts = Served(model, cut=5), requests(32, length=16)


def inference(b=1, cores=2):
    """Requests are taken in batches of b. With one core, all stages share it."""
    first, second = Resource("core 0"), Resource(f"core {cores - 1}")
    tokenise = served.tokenise if b > 1 else lambda text: served.tokenise([text])
    return Flow(
        Stage("tokenise", tokenise, first, batch=b),
        Stage("encode", served.encode, "core 0"),
        Stage("infer", served.infer, second if cores > 1 else "core 0"),
        Stage("decode", served.decode, second.name),
        name=f"inference, batches of {b}" if b > 1 else "inference",
    )


single = inference().profile(texts[:8], progress=False)
parts = [single["tokenise"] + single["encode"], single["infer"] + single["decode"]]
print("for a request, the two cores work", " and ".join(f"{1e3 * part:.1f} ms" for part in parts))
question = "Two cores share each request. By what factor does the latency of one request shrink?"
predict("11b-latency", question, unit="times as short")


# %%
one_core, alone = (inference(cores=cores).run(texts[:1], progress=False).latency(0) for cores in (1, 2))
loaded = inference().run(texts, progress=False)
whole = [served.decode(model(served.tokenise([text]))[:, -1].detach()) for text in texts]
print("the same answers as the model in one piece:", loaded.results == whole)
print(f"one request alone: latency {1e3 * alone:.1f} ms on two cores, {1e3 * one_core:.1f} ms on one")
print(f"{len(texts)} at once: {loaded.throughput:.0f} a second, median latency {1e3 * median(loaded.latencies):.0f} ms")
ahead = inference().predict(texts, single)
print(beside(ahead, loaded))
display(reveal("11b-latency", prediction=1.0, measurement=one_core / alone))
question = "With 32 requests, how many times as fast is the pipeline as one request after another?"
predict("11b-speedup", question, unit="times as fast")

# %% [markdown]
# The latency of one request does not shrink: it has to pass all its stages, one after the other. Under load it grows,
# because requests wait for those before them. A pipeline raises the throughput instead.
#
# How much? $T_s$ is the time of n requests one after another, and $T_p$ that of the pipeline. With s equal stages
#
# $$\frac{T_s}{T_p} = \frac{n\, s}{n + s - 1}.$$
#
# With unequal stages the longest one sets the pace. The first request takes all stages, and each further one comes
# after the longest:
#
# $$\frac{T_s}{T_p} = \frac{n \sum t}{\sum t + (n - 1) \max t}.$$

# %%
numbers = [1, 2, 4, 8, 16, 32]
equal = [n * 2 / (n + 2 - 1) for n in numbers]
unequal = [n * sum(parts) / (sum(parts) + (n - 1) * max(parts)) for n in numbers]
speed_ups = []
for n in numbers:
    serial, parallel = (inference(cores=cores).run(texts[:n], progress=False) for cores in (1, 2))
    speed_ups.append(serial.makespan / parallel.makespan)
    print(f"n = {n}: {1e3 * serial.makespan:.0f} ms one after another, {1e3 * parallel.makespan:.0f} ms as a pipeline")
curves = {"equal stages": equal, "unequal stages": unequal, "measured": speed_ups}
axes = {"across": "requests n", "up": "T_s / T_p", "log": True}
note = "Measured: T_s on one core, T_p on two, both by the clock on the wall."
display(plot_curves(numbers, curves, **axes, title="Speed-up of two stages", note=note))
display(plot_timeline(inference().run(texts[:8], progress=False).timeline))
reveal("11b-speedup", prediction=unequal[-1], measurement=speed_ups[-1])

# %% [markdown]
# The balance of the two parts sets the limit, and filling takes its part of small n. A measured speed-up below the
# formula says that both cores together are slower than one alone: they share memory, caches and the interpreter.
#
# ## A stream, or batches?
#
# Requests do not all come at once. They come in a **stream**. One may serve each as it comes, or wait until a batch is
# full. Weights are read once for a batch, so a request in a batch costs less. But the first one waits for the last one.

# %%
full, pace, loads = 8, 1 / max(parts), [20, 30, 50, 75, 100, 150, 200, 300]  # per cent of the pace of single requests
batched = inference(full).profile(texts[:16], progress=False)
cost = {name: batched[name] / full for name in ("encode", "infer")}
print(f"a request in a batch of {full} costs {sum(cost.values()) / sum(parts):.0%} of one that is alone")
print(f"single requests can come out {pace:.0f} times a second, and in batches {1 / max(cost.values()):.0f} times")
question = "Requests come at 30 % of that pace. How many times as long is the latency in batches as in a stream?"
predict("11b-stream", question, unit="times as long")


# %%
def latencies(timeline, b, every):
    """From when each request comes until its batch is decoded."""
    ends = {span.slot.microbatch: span.end for span in timeline.spans if span.slot.stage == 3}
    return [ends[i // b] - i * every for i in range(len(texts))]


curves, rates, found = {}, {}, {}
for b, costs in {1: single, full: batched}.items():
    name = f"batches of {b}" if b > 1 else "a stream"
    every = {load: 100 / load / pace for load in loads}
    timelines = {load: inference(b).predict(texts, costs, every=every[load]) for load in loads}
    curves[name] = [1e3 * median(latencies(timelines[load], b, every[load])) for load in loads]
    rates[name] = [len(texts) / timelines[load].end for load in loads]
    for load in (30, 200):
        run = inference(b).run(texts, every=every[load], progress=False)
        found[b, load] = 1e3 * median(run.latencies)
        foreseen = curves[name][loads.index(load)]
        told = f"median latency predicted {foreseen:.0f} ms, measured {found[b, load]:.0f} ms"
        print(f"{name}, at {load} %: {told}; {run.throughput:.0f} a second came out")
axes = {"across": "requests that come, per cent of the pace of single requests", "up": "milliseconds (median)"}
note = f"Predicted from stages that were measured alone: {len(texts)} requests, evenly spaced, two cores."
display(plot_curves(loads, curves, **axes, title="Latency in a stream, and in batches", note=note))
axes["up"] = "requests that come out in a second"
display(plot_curves(loads, rates, **axes, title="Throughput of a stream, and of batches", note=note))
low = loads.index(30)
foreseen = curves[f"batches of {full}"][low] / curves["a stream"][low]
reveal("11b-stream", prediction=foreseen, measurement=found[full, 30] / found[1, 30])

# %% [markdown]
# At a low rate a stream is best: a request that comes alone is served at once, and a batch waits for its last member.
# As the rate grows, a batch fills sooner. Near the rate that the slowest part can take, the stream's queue grows with
# each request. A batch costs less for each request, so it can take a higher rate. Servers therefore wait for a short
# time only, or take whatever is in the queue when a core is free.
#
# ## What leaves a hospital?
#
# Some hospitals want to train one network on pictures that none may show to the others. In **split learning** each
# hospital holds the first layers. It sends their activations over a link to a server. The server has the other layers
# and the labels. It sends the gradient back (Gupta and Raskar 2018, arXiv 1810.06060). So this is a pipeline whose
# stages belong to different owners.
#
# Digits stand for the pictures. They are drawn in several fonts, turned, moved and made noisy. Each of the four
# hospitals sees some digits much more often than others. In a round, each hospital has one turn with 32 pictures. The
# server works for one hospital while another one encodes. At the end of a round all gradients are added up, and one
# step follows. So nothing is stale, as in lesson 2.
#
# The links are held to 20 MB/s. One core plays the hospitals, and the other one the server.

# %%
data, (others, truth) = hospital_data(4, 512, own=0.8), hospital_data(1, 1000, own=0.0, seed=7)[0]
hospitals = len(data)


def link(name):
    """A stage on a link of its own: bytes really are copied, and the link is held until they would be over."""
    line = Resource(name, kind="link", bandwidth=20e6)
    return Stage(name, lambda message: message.copied(), line, size=lambda message: message.size)


def split_flow(split, wait=True):
    """A hospital's turn waits for the step at the end of the round before."""

    def step_before(i):
        return [("learn", i // hospitals * hospitals - 1)] if i >= hospitals and wait else []

    return Flow(
        Stage("encode", lambda turn, *_: split.encode(turn), Resource("hospital"), needs=step_before),
        link("up"),
        Stage("serve", split.serve, Resource("server"), ordered=True),
        link("down"),
        Stage("learn", split.learn, "hospital", ordered=True),
        name="split learning",
    )


split, epochs = Split(data, depth=2), 5
split_costs = split_flow(Split(data, depth=2)).profile(split.turns(1), progress=False)
print(split_costs)
question = "Which share of the time does the server work, with four hospitals in a round?"
predict("11b-server", question, unit="%")


# %%
def furthest(one, other):
    """The largest difference of two networks' weights."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


ahead = split_flow(split).predict(split.turns(epochs), split_costs)
run = split_flow(split).run(split.turns(epochs), progress=False)
print(f"{epochs} epochs:", beside(ahead, run))
for (name, share), busy in zip(run.utilisation.items(), ahead.busy, strict=True):
    print(f"{name:<8} works {busy / ahead.makespan:.0%} of the time by prediction, {share:.0%} measured")
some, first, whole = Split(data, depth=2), Split(data, depth=2), network()
display(plot_timeline(split_flow(some).run(some.turns(1)[: 3 * hospitals], progress=False).timeline, memory=False))
split_flow(first).run(first.turns(1), progress=False)
optimizer = torch.optim.Adam(whole.parameters(), 3e-3)
for number in range(len(first.turns(1)) // hospitals):
    pictures, labels = (torch.cat(parts) for parts in zip(*(batch_of(one, number, 32) for one in data), strict=True))
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(whole(pictures), labels).backward()
    optimizer.step()
apart = furthest(first.net, whole)
print(f"after an epoch, the weights differ from those of one machine with all pictures by at most {apart:.0e}")
server, ahead_split = list(run.utilisation).index("server"), ahead.makespan
reveal("11b-server", prediction=100 * ahead.busy[server] / ahead.makespan, measurement=100 * run.utilisation["server"])

# %% [markdown]
# The split network is the network that one machine would train if it had all pictures. (The cell showed this for one
# epoch, up to rounding.) So split learning costs no accuracy. It costs time: the hospitals' gradients come back late,
# and each round ends with a wait, like the flush of GPipe. More hospitals in a round make that wait a smaller part.
#
# No picture has left a hospital. But activations have. One text calls them "scrambled", and takes them for private. Are
# they? Another hospital has the same first layers, and pictures of its own. So it can train a **decoder**: a small
# network that learns to give back a picture from its activations. What does this decoder make of the activations of
# *others*? We count the share of the pictures' variance that it explains. A guess of the mean picture has 0 %, and a
# copy 100 %.
#
# For comparison, one more hospital sends no activations at all. It sends its pictures with all pixels shuffled, always
# in the same secret order.

# %%
question = "Cut after two blocks: which share of the pictures' variance does a decoder get back?"
predict("11b-recovered", question, unit="%")

# %%
torch.manual_seed(1)
(spy, _), order = hospital_data(1, 1000, own=0.0, seed=8)[0], torch.randperm(256)
fronts = {"shuffled pixels": lambda x: x.flatten(1)[:, order]}
fronts |= {f"block {depth}": split.net[:depth] for depth in (1, 2, 3, 4)}
shuffled = others.flatten(1)[:, order].view_as(others)
shares, rows = {}, {"the pictures": others[:8], "shuffled pixels, sent": shuffled[:8]}
print(f"the network reads {accuracy(split.net, others, truth):.0%} of the pictures themselves")
for name, front in fronts.items():
    shares[name], made = recover(front, spy, others)
    with torch.no_grad():
        sent = front(others[:1]).numel()
    read = accuracy(split.net, made, truth)
    print(f"{name:<15} {sent:>4} numbers sent: {shares[name]:.0%} of the variance back, {read:.0%} of the digits read")
    rows[f"back from {name}"] = made[:8]
note = "Computed here: a decoder trained on 1000 pictures of its own, tried on 1000 others."
display(plot_pictures(rows, title="What a decoder makes of what others have sent", note=note))
reveal("11b-recovered", measurement=100 * shares["block 2"])

# %% [markdown]
# Shuffled pixels look like noise to us, and the decoder undoes them. A secret order is no secret to somebody who can
# train with it. The first blocks send more numbers than a picture has, and hide nearly nothing. Depth begins to help
# where a block throws away what the labels do not need. But even there the digit itself is back, and so is a part of
# how it was written. So activations are no guarantee. Whoever needs one has to add noise or encryption, and measure
# again.
#
# ## What does it cost, beside federated averaging?
#
# In **federated averaging** each hospital trains the whole network on its own pictures, for an epoch here. Then it
# sends its weights. A server averages them and sends the mean back (McMahan et al. 2017, arXiv 1602.05629). Hospitals
# work at the same time, each for itself.


# %%
def federated_flow(federated):
    """A hospital trains from the mean of the round before."""

    def mean_before(i):
        return [("down", i - hospitals)] if i >= hospitals else []

    train = Stage("train", federated.train, Resource("hospital", workers=2), needs=mean_before)
    average = Stage("average", federated.average, Resource("server"), batch=hospitals, split=hospitals)
    return Flow(train, link("up"), average, link("down"), name="federated averaging")


federated, long = Federated(data), 3 * epochs
turns = [(number, k) for number in range(long) for k in range(hospitals)]
costs = federated_flow(federated).profile(turns[:hospitals], progress=False)
question = "How many times as many bytes does split learning send in an epoch as federated averaging?"
predict("11b-bytes", question, unit="times as many")

# %%
ahead = federated_flow(federated).predict(turns, costs)
other = federated_flow(federated).run(turns, progress=False)
print("federated:", beside(ahead, other))
turn_bytes = {"split": 2 * split.encode((0, 0)).size, "federated": 2 * other.results[-1].size}
each = {"split": turn_bytes["split"] * len(split.turns(1)), "federated": turn_bytes["federated"] * hospitals}
read = accuracy(split.net, others, truth)
told = f"{run.makespan:.2f} s, {epochs * each['split'] / 1e6:.0f} MB, {read:.0%} of new pictures read"
print(f"split, {epochs} epochs: {told}")
for number in (epochs, long):
    net, share = federated.result(other.results[number * hospitals - 1]), number / long
    read = accuracy(net, others, truth)
    told = f"{share * other.makespan:.2f} s, {number * each['federated'] / 1e6:.0f} MB, {read:.0%} of new pictures read"
    print(f"federated, {number} epochs: {told}")
for depth in (1, 2, 3, 4):
    message = Split(data, depth).encode((0, 0))
    told = f"activations {message.tensors[0].nbytes / 1e3:.0f} kB, first blocks {message.beside / 1e3:.0f} kB"
    print(f"cut after block {depth}: each turn sends {told}, and as much comes back")
first_rounds = federated_flow(federated).run(turns[: 3 * hospitals], progress=False)
display(plot_timeline(first_rounds.timeline, memory=False))
reveal("11b-bytes", measurement=each["split"] / each["federated"])

# %% [markdown]
# Federated averaging sends weights once an epoch, and split learning sends activations with each batch. So it sends far
# fewer bytes, and on a slow link an epoch takes less time. One text concludes that split learning is the slower of the
# two. But compare what has been learnt. Split learning takes a step of all pictures in each round. Federated averaging
# takes the mean of what unlike hospitals have learnt apart, once an epoch. With hospitals as unlike as these it needs
# many more epochs. The deeper the cut, the fewer activations travel, but the more weights the hospitals have to keep
# equal.
#
# Neither of the two is private by itself: a mean of weights says something about the pictures too.
#
# ## Break it
#
# The hospitals wait at the end of each round for the step. Let them not wait: a hospital encodes its next batch as soon
# as its core is free. What does that gain, and what breaks?

# %%
hasty = Split(data, depth=2)
gain = 1 - split_flow(hasty, wait=False).predict(hasty.turns(1), split_costs).makespan / (ahead_split / epochs)
print(f"predicted: {gain:.0%} less time")
try:
    split_flow(hasty, wait=False).run(hasty.turns(1), progress=False)
except FlowError as error:
    print("really run:", str(error)[:200], "...")

# %% [markdown]
# The flow stops at once, and says which job failed. A batch was encoded with old weights, and its gradient came when
# the step had changed them. The backward needs the weights of its own forward, and PyTorch noticed that they are gone.
# It is the question of lesson 6, between two hospitals. One could keep the old weights, as PipeDream does. Then the
# hospital needs room for them, and learns from stale gradients.
#
# ## What to remember
#
# - For each stage fit t(b) = a + c · b. Small batches pay for launches, and large ones for filling. Memory bounds them.
# - A pipeline raises throughput. It never shortens the latency of a request that is alone.
# - Batches raise throughput further, and cost latency at low rates.
# - The slowest resource sets the pace, whether core, GPU or link. Measure which one it is.
# - Activations tell much about the input. How much can be measured with a decoder.

# %%
ledger()

# %% [markdown] page="exercises"
# A stage is bound to a **resource**: a core, a GPU, a disk or a link. A resource works on one job at a time, unless a
# text says that it has several workers. Different resources work at the same time. Nothing here depends on your
# machine.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="least_batch" difficulty="medium" minutes=20
# A GPU is dear, so it should never wait. `stages` lists the stages of a flow in order, each as `(resource, a, c)`. For
# a batch of b items the stage takes a + c · b on its resource. One stage is on `"gpu"`. Several stages may share
# another resource, such as `"cpu"`: it does one job at a time, so for each batch it is busy with all of them.
#
# - `gpu_share` returns the share of a long run in which the GPU works, from 0 to 1. Every batch has b items.
# - `least_batch` returns the least b, at least 1, at which the GPU works all the time in a long run. That is so if no
#   other resource takes longer for a batch than the GPU. As long is enough. The GPU's memory holds `buffers` batches at
#   once, with `item_bytes` for each item, in at most `limit` bytes. Return None if no b that fits is enough.


# %% role="answer" exercise="least_batch"
def gpu_share(stages: list[tuple[str, float, float]], b: int) -> float:
    """The share of a long run in which the GPU works.

    >>> gpu_share([("cpu", 6, 0.5), ("gpu", 2, 1)], b=2)    # 4 of every 7 seconds
    0.5714285714285714
    """
    ### BEGIN SOLUTION
    times: dict[str, float] = {}
    for resource, a, c in stages:
        times[resource] = times.get(resource, 0) + a + c * b
    return times["gpu"] / max(times.values())
    ### END SOLUTION


def least_batch(stages: list[tuple[str, float, float]], item_bytes: int, buffers: int, limit: int) -> int | None:
    """The least batch that keeps the GPU busy, or None.

    >>> least_batch([("cpu", 7, 0.5), ("gpu", 2, 1)], item_bytes=100, buffers=2, limit=4000)    # 12 seconds each
    10
    """
    ### BEGIN SOLUTION
    for b in range(1, limit // (item_bytes * buffers) + 1):
        times: dict[str, float] = {}
        for resource, a, c in stages:
            times[resource] = times.get(resource, 0) + a + c * b
        if times["gpu"] >= max(times.values()):
            return b
    return None
    ### END SOLUTION


# %% [markdown] role="hint" exercise="least_batch"
# In a long run every resource handles each batch once. Which of them sets the pace? And how long does each one work in
# that time?

# %% [markdown] role="hint" exercise="least_batch"
# First add up, for each resource, what its stages take for one batch. The slowest resource is busy all the time, and
# the others wait for it. So compare the GPU with the slowest. For the second function, which batches fit at all?

# %% [markdown] role="hint" exercise="least_batch"
# A dictionary from the resource to its time is enough for both. Memory gives a largest b: `limit` divided by the bytes
# of one item in all buffers, rounded down. Go through the batches from 1 up to it, and stop at the first at which the
# GPU's time is the largest.

# %% [markdown] role="solution" exercise="least_batch"
# The search may take long if the limit is large. Then solve for b. Where the GPU's c is larger than that of a resource,
# b must be at least (a of the resource - a of the GPU) / (difference of their c), rounded up. Where it is smaller, b
# has an upper bound instead: large batches make that resource the bottleneck. Equal slopes leave only a to compare.

# %% [markdown] role="lead" exercise="second_worker" difficulty="medium" minutes=22
# Stage s takes `seconds[s]` for an item, and has `workers[s]` workers of its own. Each of them takes whole items. There
# is room for all items that wait, and the run is long.
#
# - `throughput` returns how many items come out per second.
# - `gain`: an item that comes out is worth `worth`. A worker of stage s costs `prices[s]` per second, whether it works
#   or not. By how much does the profit per second grow if `stage` gets one more worker? It is below 0 if the worker
#   costs more than it brings.
# - `best_workers` returns the numbers of workers with the largest profit per second. Each stage has 1 to `most`
#   workers. If several choices are equally good, any of them is right.


# %% role="answer" exercise="second_worker"
def throughput(seconds: list[float], workers: list[int]) -> float:
    """Items per second.

    >>> throughput([2, 5, 1], [1, 2, 1])
    0.4
    """
    ### BEGIN SOLUTION
    return min(count / time for time, count in zip(seconds, workers, strict=True))
    ### END SOLUTION


def gain(seconds: list[float], workers: list[int], stage: int, prices: list[float], worth: float) -> float:
    """How much more profit per second one more worker at `stage` brings.

    >>> gain([2, 5, 1], [1, 1, 1], stage=1, prices=[1, 0.5, 1], worth=10)    # 0.2 more items a second
    1.5
    """
    ### BEGIN SOLUTION
    more = [count + 1 if s == stage else count for s, count in enumerate(workers)]
    before, after = (min(w / t for t, w in zip(seconds, given, strict=True)) for given in (workers, more))
    return worth * (after - before) - prices[stage]
    ### END SOLUTION


def best_workers(seconds: list[float], prices: list[float], worth: float, most: int) -> list[int]:
    """The numbers of workers with the largest profit per second.

    >>> best_workers([4, 4], [0.5, 0.5], worth=20, most=3)
    [3, 3]
    """
    ### BEGIN SOLUTION
    from itertools import product

    def profit(workers: tuple[int, ...]) -> float:
        pace = min(count / time for count, time in zip(workers, seconds, strict=True))
        return worth * pace - sum(count * price for count, price in zip(workers, prices, strict=True))

    return list(max(product(range(1, most + 1), repeat=len(seconds)), key=profit))
    ### END SOLUTION


# %% [markdown] role="hint" exercise="second_worker"
# Two workers at a stage bring out two items in its time. But what if another stage brings out fewer?

# %% [markdown] role="hint" exercise="second_worker"
# Each stage has a rate of its own, and the least rate is that of the flow. For `gain`, compute it before and after. For
# `best_workers`, beware of adding one worker at a time: if two stages set the pace together, the first new worker
# brings nothing. How many choices are there in all?

# %% [markdown] role="hint" exercise="second_worker"
# A stage's rate is its workers divided by its seconds. What comes in is `worth` times the flow's rate, and what goes
# out is the sum of all workers' prices. `itertools.product` makes all choices of numbers from 1 to `most`. `max` takes
# a `key`.

# %% [markdown] role="solution" exercise="second_worker"
# Trying all choices takes `most` to the power of the stages. It can be done faster. An optimal flow runs at the pace of
# some stage with some number of workers, and every other stage has as few workers as keep that pace. So there are at
# most `most` times the number of stages to try.

# %% [markdown] role="lead" exercise="latency_and_throughput" difficulty="easy" minutes=16
# A line of stages takes `times[s]` seconds for an item at stage s. Each stage has one worker and a resource of its own,
# and there is room for all items that wait. The **latency** of an item is the time from its arrival until it leaves the
# last stage.
#
# - `latency`: of an item that has the line for itself.
# - `rate`: items per second in a long run, if items are always there.
# - `speed_up`: T_s / T_p for n items that are all there at the start. T_s is the time without a pipeline: one item
#   after the other. T_p is the time with it.
# - `stream_latency`: item 0 arrives at time 0, and item i at i · `every`. Return the latency of item i.


# %% role="answer" exercise="latency_and_throughput"
def latency(times: list[float]) -> float:
    """Seconds that an item takes alone.

    >>> latency([2, 5, 1])
    8
    """
    ### BEGIN SOLUTION
    return sum(times)
    ### END SOLUTION


def rate(times: list[float]) -> float:
    """Items per second in a long run.

    >>> rate([2, 5, 1])
    0.2
    """
    ### BEGIN SOLUTION
    return 1 / max(times)
    ### END SOLUTION


def speed_up(times: list[float], n: int) -> float:
    """T_s / T_p for n items.

    >>> speed_up([2, 5, 1], n=2)    # 16 / 13
    1.2307692307692308
    """
    ### BEGIN SOLUTION
    return n * sum(times) / (sum(times) + (n - 1) * max(times))
    ### END SOLUTION


def stream_latency(times: list[float], i: int, every: float) -> float:
    """Seconds from the arrival of item i until it leaves.

    >>> stream_latency([2, 5, 1], i=2, every=4)    # it leaves at 18 and arrived at 8
    10
    """
    ### BEGIN SOLUTION
    return sum(times) + i * max(0, max(times) - every)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="latency_and_throughput"
# Draw three items in a line of stages with 2, 5 and 1 seconds. When does each leave? How far apart are two of them?

# %% [markdown] role="hint" exercise="latency_and_throughput"
# The first item never waits. After it, an item leaves each time the slowest stage has done another one. In a stream,
# ask whether items arrive faster than that. If they do, each one waits longer than the one before it. By how much?

# %% [markdown] role="hint" exercise="latency_and_throughput"
# All four need two numbers: the sum of the times, and the longest. With n items there are n - 1 that follow the first.
# In a stream the queue grows, with each item, by what the slowest stage takes longer than the distance of two arrivals.
# It never becomes shorter than nothing.

# %% [markdown] role="solution" exercise="latency_and_throughput"
# With s equal stages the speed-up is n · s / (n + s - 1), and it comes near to s. With unequal stages it comes near to
# the sum over the longest. No number of items changes the latency of an item that is alone.
