# ---
# jupyter:
#   pipelab:
#     number: 12d
#     title: "Pipelines on trial: balance, rules of thumb, promises"
#     minutes: 45
#     builds_on: [5, 8, 8b, 9, 10, 10b, 12c]
#     goals:
#       - test a rule of thumb against all other choices
#       - tell a pipeline from data parallelism by what runs where
#       - measure what activations give away about the input
#       - say which claims no run can settle
# ---

# %% [markdown]
# ## What does a rule of thumb rule out?
#
# A rule of thumb is quickly quoted, and rarely compared with its rivals. This page tries rules for cutting, for the
# number of devices and for the size of micro-batches against *all* other choices. Then it asks what a pipeline is, and
# what it promises to those who use it.

# %% role="setup"
import torch
from pipelab.teaching import *

verdicts = Verdicts()

# %% [markdown]
# ## Cutting and placing on trial
#
# The survey has a rule for cutting a model into stages, one for devices that differ, and a listing for messages.

# %%
from itertools import combinations, pairwise

verdicts.ask("12d-greedy", "12d-unlike", "12d-irecv")


# %%
def rule(costs, p):
    """Fill a stage until it has a p-th of all work, then begin the next one. What is left goes to the last one."""
    stages, current = [], []
    for cost in costs:
        current.append(cost)
        if sum(current) >= sum(costs) / p:
            stages.append(current)
            current = []
    if current:
        stages[-1].extend(current)
    return stages


def best(costs, p):
    """The least largest stage of all cuts."""
    cuts = [(0, *cut, len(costs)) for cut in combinations(range(1, len(costs)), p - 1)]
    return min(max(sum(costs[a:b]) for a, b in pairwise(cut)) for cut in cuts)


first, ends = [10, 1, 1, 1], [6, *[2] * 12, 12]
for costs in (first, ends):
    print(f"{costs}: stages {[sum(stage) for stage in rule(costs, 4)]}, largest of the best cut {best(costs, 4)}")
excess = max(map(sum, rule(ends, 4))) / best(ends, 4)
verdicts.settle("12d-greedy", stages=len(rule(first, 4)), heavy=len(rule(ends, 4)), excess=excess)

# %% [markdown]
# Once a stage has more than its share, the others should share the rest. The rule does not know that, and its last
# stages stay empty. [Lesson 8](08_where_to_cut.ipynb) has the recurrence that finds the best cut.

# %%
speeds, layers = [4, 2, 1, 1], 16
load, home = [0.0] * 4, []
for _ in range(layers):
    device = min(range(4), key=lambda r: load[r])
    home.append(device)
    load[device] += 1
busy = max(load[r] / speeds[r] for r in range(4))
sizes = min(
    (
        sizes
        for sizes in ([a, b, c, layers - a - b - c] for a in range(17) for b in range(17) for c in range(17))
        if min(sizes) > 0
    ),
    key=lambda sizes: max(size / speed for size, speed in zip(sizes, speeds, strict=True)),
)
least = max(size / speed for size, speed in zip(sizes, speeds, strict=True))
borders = sum(a != b for a, b in pairwise(home))
print("homes of the layers:", home, "and the best cut:", sizes)
verdicts.settle("12d-unlike", longest=busy / least, borders=borders, needed=len(speeds) - 1)

# %% [markdown]
# The rule compares how much work a device has, not how long it takes. (The listing sorts devices by speed, and then
# ignores it.) And neighbouring layers land on different devices, so nearly every layer sends a message. [Lesson
# 8b](08b_unlike_devices.ipynb) cuts for unlike devices.
#
# The next cell starts two processes. Rank 0 sends a tensor, half a second late. Rank 1 asks for it with `irecv`.

# %%
import subprocess
import sys
import tempfile

PROGRAM = """import sys, time, torch
import torch.distributed as dist

rank, file = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
tensor = torch.ones(1000) if rank == 0 else torch.zeros(1000)
dist.barrier()
if rank == 0:
    time.sleep(0.5)
    dist.send(tensor, dst=1)
else:
    request = dist.irecv(tensor, src=0)
    early = int(tensor.sum())
    request.wait()
    print(early, int(tensor.sum()))
dist.barrier()
"""
with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-c", PROGRAM]
    ranks = [
        subprocess.Popen([*command, str(r), f"{folder}/meet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for r in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in ranks]
early, late = map(int, said[1].split())
verdicts.settle("12d-irecv", early=early, late=late)

# %% [markdown]
# `irecv` promises a tensor. It returns a request, and the tensor is filled when the request has been waited for. The
# listing drops the request. Then the forward computes with whatever is in memory, and nothing fails.
#
# ## Rules of thumb on trial
#
# Three rules for numbers: how many devices, how many sequences, and which kind of parallelism where.

# %%
verdicts.ask("12d-ratio", "12d-root", "12d-node")


# %%
def step(stages, devices=12, batch=48):
    """A step with replicas of a pipeline: micro-batches of one sequence, and 12 units of work for each direction."""
    m, share = batch * stages // devices, 12 / stages
    schedule = build_schedule("1f1b" if stages > 1 else "naive", stages, m if stages > 1 else 1)
    work = share if stages > 1 else share * m
    return simulate(schedule, Costs(forward=work, backward=work)).makespan


fitting = {needed: [s for s in (1, 2, 3, 4, 6, 12) if s >= needed] for needed in (1, 4, 12)}
ratios = {needed: 12 / min(stages, key=step) for needed, stages in fitting.items()}
verdicts.settle("12d-ratio", one=ratios[1], four=ratios[4], twelve=ratios[12])

# %% [markdown]
# The number of stages depends on what fits on a device. All other devices become replicas. (Gradients that replicas
# send are left out here. They can make more stages better, see [lesson 10](10_parallelism.ipynb).)


# %%
def best_size(fixed, batch=64, p=4):
    """The size of a micro-batch with the shortest step, if a forward takes `fixed` + size, and a backward too."""
    sizes = [size for size in range(1, batch + 1) if batch % size == 0]

    def takes(size):
        costs = Costs(forward=fixed + size, backward=fixed + size)
        return simulate(build_schedule("1f1b", p, batch // size), costs).makespan

    return min(sizes, key=takes)


verdicts.settle("12d-root", small=best_size(0.5), special=best_size(3), large=best_size(12))

# %% [markdown]
# [Lesson 5](05_choosing_m.ipynb) has the formula: with t(b) = α + βb, the best m is √((p - 1)βB/α). So the best size is
# √(αB/((p - 1)β)). It grows like the root of the batch, and the rule has the right *shape*. But it depends on the
# machine, and on p.

# %%
gpt3 = ModelFacts.gpt(layers=96, width=12288, heads=96)


def planned(per_node, **links):
    """The predicted step with tp 8 and pp 8, on 64 devices in nodes of `per_node`."""
    cluster = Cluster.of("a100", nodes=64 // per_node, per_node=per_node, **links)
    plan = plan_parallelism(gpt3, cluster, batch=64, dp=1, pp=8, tp=8, microbatch=1, chunks=1, recompute="full")
    return plan.best[0].time.total


inside = Cluster.of("a100").inside
verdicts.settle("12d-node", slow=planned(4) / planned(8), equal=planned(4, between=inside) / planned(8, between=inside))

# %% [markdown]
# With nodes of four devices, tp 8 crosses two nodes, and each layer waits for the slow link. Links that are equal would
# make no difference. (This is a prediction. [Lesson 10b](10b_inside_layers.ipynb) has the reasons, and measured bytes.)
#
# ## What is a pipeline, and what does it promise?

# %%
verdicts.ask("12d-parallel", "12d-apart", "12d-latency", "12d-printed", "12d-private")

# %%
import threading


def who(run, layers=8):
    """The share of the layers that a thread runs, and how often it calls each of them."""
    model, seen = TransformerLM(layers=layers, width=16, heads=2), {}
    for k, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *_, k=k: seen.setdefault(threading.get_ident(), []).append(k))
    run(model)
    return max(len(set(ran)) for ran in seen.values()) / layers, max(ran.count(ran[0]) for ran in seen.values())


def replicated(model):
    """A forward of nn.DataParallel, on all GPUs, if there are any."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    torch.nn.DataParallel(model.to(place))(text_batch()[0].to(place))


def pipelined(model):
    """A step of 1F1B, with a thread for each device."""
    with Pipeline(model, build_schedule("1f1b", 4, 4), loss=next_byte_loss, clock="wall") as pipeline:
        pipeline.step(*text_batch())


(share, pieces), (stage, microbatches) = who(replicated), who(pipelined)
verdicts.settle("12d-parallel", share=share, pieces=pieces, stage=stage, microbatches=microbatches)

# %% [markdown]
# Each thread of `DataParallel` runs the whole model, once. That is data parallelism ([lesson
# 10](10_parallelism.ipynb)). In a pipeline a device runs its own layers, once for each micro-batch. (The text's second
# listing uses `MirroredStrategy` of TensorFlow, which copies the whole model too. It is not run here.)

# %%
model, held = TransformerLM(layers=48), []


def noted(named):
    """An optimizer that notes the parameters of its stage."""
    held.append({name: weight.numel() for name, weight in named})
    return torch.optim.SGD([weight for _, weight in named], lr=0.1)


with Pipeline(model, build_schedule("1f1b", 4, 4), loss=next_byte_loss, optimizer=noted) as pipeline:
    pipeline.step(*text_batch(batch=4))
whole = sum(weight.numel() for weight in model.parameters())
shares = [sum(sizes.values()) / whole for sizes in held]
twice = sum(map(len, held)) - len(set().union(*held))
verdicts.settle("12d-apart", fullest=max(shares), together=sum(shares), twice=twice)

# %% [markdown]
# Model parallelism means that no device holds the whole model. Stages are a partition of it. So a pipeline is model
# parallelism, kept busy by micro-batches.


# %%
def answers(devices, latency=0.0, requests=16):
    """When the first request is answered, and when all of them are. The whole model takes 4 units for one."""
    forwards = build_schedule("gpipe", devices, requests).forward_part()
    timeline = simulate(forwards, Costs(forward=4 / devices, latency=latency))
    last = [span.end for span in timeline.on_device(devices - 1)]
    return last[0], last[-1]


(alone, one), (piped, four), (linked, _) = answers(1), answers(4), answers(4, latency=0.1)
verdicts.settle("12d-latency", alone=alone, piped=piped, linked=linked, throughput=one / four)

# %% [markdown]
# A request still passes all layers, one after the other. Messages come on top. What grows is the number of requests in
# a given time. (Under load a request also waits less for those before it. Then its answer does come earlier.)

# %%
p, batch, size = 3, 8, 4
m = batch // size
model = TransformerLM(layers=3, width=16, heads=2)
with Pipeline(model, build_schedule("1f1b", p, m), loss=next_byte_loss, clock="unit") as pipeline:
    timeline = pipeline.step(*text_batch(batch=batch)).timeline
needed = next(m for m in range(1, 100) if simulate(build_schedule("1f1b", p, m)).utilisation >= 0.92)
verdicts.settle("12d-printed", busy=timeline.utilisation, needed=needed)

# %% [markdown]
# The text's program prints its 92 % from a constant, after its run. It would print the same for any p and m. A figure
# on a page should come from the code above it.
#
# The last claim is about privacy. An essay lets hospitals pass on only what their first layers made of the records. Is
# that unreadable? The next cell takes the activations behind 12 of the 48 layers. It fits a linear map from them to the
# bytes of the text, with the method of least squares, and tests it on other text.

# %%
model = TransformerLM(layers=48)
model.layers = model.layers[:12]


def leaving(step):
    """(what leaves the first 12 layers, the bytes that went in)"""
    inputs, _ = text_batch(step=step, batch=128)
    with torch.no_grad():
        x = model.embed(inputs)
        for layer in model.layers:
            x = layer(x)
    return x.flatten(0, 1).double(), inputs.flatten()


seen, known = leaving(0)
sent, secret = leaving(1)
targets = torch.nn.functional.one_hot(known, 256).double()
decoder = torch.linalg.lstsq(seen, targets, driver="gelsd").solution
found = ((sent @ decoder).argmax(1) == secret).double().mean()
guessed = (secret == known.mode().values).double().mean()
verdicts.settle("12d-private", found=float(found), guessed=float(guessed))

# %% [markdown]
# Activations look like noise to us. But the residual stream carries each token along, layer by layer, and a linear map
# reads it. (This model is not trained. A trained one was told to predict the text, not to hide it.) A promise of
# privacy needs more: noise that was worked out for it, or encryption, or nothing sent at all.
#
# **Try it:** replace `model.layers[:12]` by all 48 layers. Does the decoder still read the text?
#
# <details><summary>What you should see, and why</summary>
#
# It still finds far more than guessing does. In this model, which is not trained, each layer adds to what came before,
# and so little is lost on the way.
#
# </details>
#
# ## Break it: what would an honest "private" look like?
#
# Damage the last experiment: pass on pure noise of the same size. Now the rule should say "true".

# %%
noise = torch.randn(sent.shape, dtype=sent.dtype, generator=torch.Generator().manual_seed(0))
blind = ((noise @ decoder).argmax(1) == secret).double().mean()
Verdicts().settle("12d-private", found=float(blind), guessed=float(guessed))

# %% [markdown]
# (Of course nobody can train on noise.)
#
# ## What no run can settle
#
# Some statements in the texts are about the world, and not about pipelines. PipeDream was not made at Meta, but at
# Microsoft, Carnegie Mellon and Stanford (Harlap et al. 2018, arXiv 1806.03377). One citation mixes two of the
# PipeDream papers. Case studies, books and quotations come without anything to check. Read the paper, or ask for the
# program.
#
# ## What to remember
#
# - Compare a rule with all its rivals. A formula for the best choice has a p and a cost in it.
# - Ask what runs where: whole models are replicas, parts of one model are stages.
# - A pipeline raises throughput. It does not shorten one request, and it hides nothing.

# %%
display(verdicts)
ledger()

# %% [markdown] page="exercises"
# In this exercise you settle a claim. Your function returns two things: the list of figures, and the verdict, `True` or
# `False`. Both are graded, on settings that you have not seen. `simulate(schedule, Costs(forward=..., backward=...))`
# returns a timeline, and its `makespan` is the time of a step. Nothing here depends on your machine.

# %% role="setup"
from pipelab.teaching import Costs, NotWritten, Schedule, build_schedule, check, simulate

# %% [markdown] role="lead" exercise="best_size" difficulty="medium" minutes=12
# The claim: *the best micro-batch has as many sequences as the square root of the batch.* `schedules` maps each size
# that divides the batch to the table of 1F1B with that size, the smallest size first. A forward takes `fixed + each *
# size`, and a backward takes twice as long. All stages are alike. The batch is a square number.
#
# Return the time of a step for each size, in order. Then the verdict. The claim is true if no size has a shorter step
# than the root. (Times that differ by a billionth are equal.)


# %% role="answer" exercise="best_size"
def best_size(schedules: dict[int, Schedule], fixed: float, each: float) -> tuple[list[float], bool]:
    """The step for each size of a micro-batch, and whether the claim is true.

    >>> tables = {size: build_schedule("1f1b", 2, 4 // size) for size in (1, 2, 4)}
    >>> best_size(tables, fixed=1, each=1)
    ([30.0, 27.0, 30.0], True)
    """
    ### BEGIN SOLUTION
    steps = {}
    for size, schedule in schedules.items():
        takes = fixed + each * size
        steps[size] = simulate(schedule, Costs(forward=takes, backward=2 * takes)).makespan
    root = round(max(schedules) ** 0.5)
    return list(steps.values()), steps[root] <= min(steps.values()) * (1 + 1e-9)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="best_size"
# The claim names one size. To settle it you need all its rivals as well.

# %% [markdown] role="hint" exercise="best_size"
# Each size has its own table, and its own costs. The largest size is the whole batch, so you know the root.

# %% [markdown] role="hint" exercise="best_size"
# Make one timeline for each entry of `schedules`, with `Costs(forward=takes, backward=2 * takes)`. Compare the makespan
# of the root with the smallest one.

# %% [markdown] role="solution" exercise="best_size"
# Lesson 5 has the formula: the best size is the root of (fixed · batch)/((p - 1) · each). That is the root of the batch
# only if fixed is (p - 1) · each, or near it: between two divisors there is some room.
