# ---
# jupyter:
#   pipelab:
#     number: 8
#     title: "Where to cut"
#     minutes: 50
#     builds_on: [1, 3, 5]
#     goals:
#       - profile the layers of a model one by one, and say which stage is the bottleneck
#       - tell the bubble that comes from unequal stages from the one that the schedule has
#       - cut a model where its busiest device has least to do, and say why a greedy cut can miss that
#       - find the fastest cut that fits into memory
# ---

# %% [markdown]
# ## Twelve layers each. Is that a quarter of the work?
#
# So far each of the four devices has had 12 of the 48 layers, and pictures drew their stages equally long. But stage
# 0 also has the embedding, and stage 3 the head. In our model both are small: its vocabulary has only the 256 values
# of a byte. Real vocabularies are large. GPT-2 has 50,257 tokens at a width of 768, which makes 65 scores for each
# unit of width. Gemma 2B has 125 (2024, arXiv 2403.08295).
#
# Below, a second model gets a head of 6,000 scores at our width of 64, which makes 94. (The text still has only
# bytes. But all scores are computed.) And layer 20 gets an MLP four times as wide, as in models whose layers differ.
# (The batch has 32 sequences on this page, which saves time.)

# %% role="setup"
from contextlib import ExitStack
from torch import nn
from pipelab.teaching import *

usual, uneven, (inputs, targets) = TransformerLM(layers=48), TransformerLM(layers=48), text_batch(batch=32)

# %%
uneven.head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 6000))
uneven.layers[20].up, uneven.layers[20].down = nn.Linear(64, 1024), nn.Linear(1024, 64)
predict("08-last", "12 layers each. How much longer does device 3 compute than device 0?", unit="% longer")

# %%
order = build_schedule("1f1b", devices=4, microbatches=8)


def measured(runs, steps=3, **options):
    """Run steps of 1F1B, m = 8, for each (model, cuts) in turns: the last report of each.

    By the device clock each action takes the median of all steps but the first.
    """
    how, found = {"loss": next_byte_loss, "window": steps, **options}, {}
    with ExitStack() as stack:
        made = {name: stack.enter_context(Pipeline(net, order, cuts=cuts, **how)) for name, (net, cuts) in runs.items()}
        for _ in range(steps):
            found |= {name: pipeline.step(inputs, targets) for name, pipeline in made.items()}
    return found


def share(timeline):
    """Mean over max of the devices' busy times."""
    return sum(timeline.busy) / len(timeline.busy) / max(timeline.busy)


_ = measured({"usual": (usual, None)}, steps=1)  # the first run also pays for starting up
even = measured({"usual": (usual, None), "uneven": (uneven, None)})
for name, report in even.items():
    busy = ", ".join(f"{1e3 * time:.0f}" for time in report.timeline.busy)
    print(f"{name:<6} model: busy {busy} ms, bubble {report.timeline.bubble_fraction:.1%}")
busy = even["uneven"].timeline.busy
display(
    plot_schedules([report.timeline for report in even.values()], [f"The {name} model, cut evenly" for name in even])
)
reveal("08-last", measurement=100 * (busy[3] / busy[0] - 1))

# %% [markdown]
# In the lower of the two timelines, devices 0 to 2 wait for device 3 even in the middle of the step, where 1F1B has no
# bubble. This idle time is not the schedule's. It comes from the cut.
#
# (On this page compare only times from the same cell. Two cells may run while your machine is in different moods.)
#
# ## The bottleneck decides
#
# Each micro-batch has to pass each device. So a step takes at least as long as its busiest device, the **bottleneck**,
# is busy. The **load balance** says how even the work is: the mean of the devices' busy times, divided by the largest.
# If the bottleneck never rested, the devices would work for this share of the time.
#
# More micro-batches make the schedule's bubble small. Do they help against the other one? The next cell simulates
# 1F1B with the work measured above, for more and more micro-batches of the same size. (It counts a third of a stage's
# work as forward, and the rest as backward.)

# %%
for name, report in even.items():
    work = [time / 8 for time in report.timeline.busy]  # for one micro-batch
    costs, told = Costs(forward=[time / 3 for time in work], backward=[2 * time / 3 for time in work]), []
    for m in (8, 32, 128, 512):
        timeline = simulate(build_schedule("1f1b", devices=4, microbatches=m), costs)
        told.append(f"m = {m}: {timeline.bubble_fraction:.1%}")
    print(f"{name:<6} model: load balance {share(report.timeline):.2f}; bubble at", ", ".join(told))

# %% [markdown]
# The bubble does not go to 0. It goes to 1 minus the load balance. No other schedule could help either, because each
# step has to wait for the bottleneck. Only another cut can mend an uneven cut.
#
# ## What does each layer cost?
#
# `profile_layers` makes each layer a stage of its own and runs it alone, forward and backward, with micro-batches of
# two sizes. (The embedding counts towards the first layer, the head and the loss towards the last one.) It also runs
# the model in one piece. Starting an action costs something too: the 48 times contain it 48 times, and the model in one
# piece contains it once. So the cost of any stage follows without running it.

# %%
layers = profile_layers(uneven, inputs, targets, loss=next_byte_loss, sizes=(2, 4), repeats=3, progress=False)
alone = layers.cut(48)  # what each of 48 stages costs, with one layer each
each = {
    "forward + backward": [1e3 * (one.forward(4) + one.backward(4)) for one in alone],
    "forward": [1e3 * one.forward(4) for one in alone],
}
typical = sorted(each["forward + backward"])[24]
told = {"layer 20": each["forward + backward"][20], "layer 47 with the head": each["forward + backward"][47]}
print("; ".join(f"{name}: as much as {time / typical:.1f} typical layers" for name, time in told.items()))
axes = {"across": "layer", "up": "milliseconds"}
plot_curves(range(48), each, **axes, title="Each layer alone", note="Clock: device. 4 sequences.")

# %% [markdown]
# ## Three ways to cut
#
# The wide layer stands out, and the last one with the head stands out much more. To cut means to say how many layers
# each stage gets, in their order. The step's length follows the largest sum of costs in a stage. So look for the cut
# whose largest sum is least.
#
# **By hand.** Move layers from the longest stage to its neighbours, until nothing gets better.
#
# **Greedy.** Go from left to right, and close a stage before it would get more than its fair share. Many programs do
# this. Here it is, first for eight layers that all cost the same:


# %%
def greedy(costs, stages):
    """Numbers of layers: a stage takes layers up to its fair share of the sum, but always one."""
    fair, sizes, held = sum(costs) / stages, [0], 0.0
    for cost in costs:
        if sizes[-1] and held + cost > fair and len(sizes) < stages:
            sizes, held = [*sizes, 0], 0.0
        sizes[-1], held = sizes[-1] + 1, held + cost
    return sizes


predict("08-greedy", "Eight layers of cost 5 on three devices. How many does greedy give to the last?", unit="layers")

# %%
equal, heavy = [5] * 8, [10, 1, 1, 1]
print(f"{equal} on {3} devices: {greedy(equal, 3)}")
print(f"{heavy} on {4} devices: {greedy(heavy, 4)}")
reveal("08-greedy", prediction=8 / 3, measurement=greedy(equal, 3)[-1])

# %% [markdown]
# The fair share is 13.3, and two layers make 10. So each stage closes early, and all that was left over ends up in the
# last one: 20, where 15 is possible. With the layers [10, 1, 1, 1] greedy has closed only one stage at the end, and
# two of the four devices get none. A greedy rule decides each stage without looking at those behind it.
#
# **Exact.** Let $c_0, c_1, \dots$ be the costs, and $T(j, k)$ the least possible largest sum of the first $j$ layers in
# $k$ stages. With one stage it is their sum. Else the last stage begins at some layer $i$, and the layers before it are
# cut as well as possible:
#
# $$T(j, k) = \min_{k - 1 \le i < j}\ \max\left(T(i, k - 1),\ c_i + \dots + c_{j-1}\right).$$
#
# Computed for small $j$ and $k$ first, this takes about $n^2 p$ operations for $n$ layers and $p$ stages, instead of
# trying all cuts. For 48 layers and 4 devices there are 16,215 cuts, for 200 layers and 16 devices about $10^{22}$.
# PipeDream chose its cuts in this way (Harlap and others, 2018, arXiv 1806.03377). You write it in an exercise.
# `plan_cuts` begins with it. Then it simulates the best cuts with the schedule, because filling and draining the
# pipeline count too. It plans for the batch of 32 sequences, so for 4 in each micro-batch.

# %%
question = "The uneven model, cut in the best way. How much shorter does the step become?"
predict("08-gain", question, unit="% shorter")

# %%
plan = plan_cuts(layers, devices=4, microbatches=8, batch=32)
print(plan)
sums = [one.forward(4) + one.backward(4) for one in alone]
for name, sizes in {"even": [12] * 4, "greedy": greedy(sums, 4), "planned": plan.sizes}.items():
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    largest = max(sum(sums[end - size : end]) for end, size in zip(ends, sizes, strict=True))
    print(f"{name:<8} layers {tuple(sizes)}: largest sum {1e3 * largest:.1f} ms for a micro-batch")

# %% [markdown]
# (Each of these sums contains the start of all its layers, one by one. A stage starts only once, so the plan's own
# figures are smaller. Its last line is a proven bound: no cut at all can have a shorter step.)
#
# ## Before and after
#
# The plan is a prediction. Does the step really become shorter by as much? The next cell alternates between both cuts.

# %%
reports = measured({"even": (uneven, None), "planned": (uneven, plan.cuts)}, steps=5)
took = {name: report.timeline for name, report in reports.items()}
for name, timeline in took.items():
    busy = ", ".join(f"{1e3 * time:.0f}" for time in timeline.busy)
    told = f"load balance {share(timeline):.2f}, bubble {timeline.bubble_fraction:.1%}"
    print(f"{name:<8} {1e3 * timeline.makespan:.0f} ms; busy {busy} ms; {told}")
gain = 1 - took["planned"].makespan / took["even"].makespan
display(plot_schedules(list(took.values()), [f"{name.capitalize()} cut" for name in took]))
reveal("08-gain", prediction=100 * plan.gain, measurement=100 * gain)

# %% [markdown]
# What is left is mostly the bubble of 1F1B. Prediction and measurement may differ by a few per cent of a step, and by
# more on a busy machine. The layers were profiled in one minute, and the cuts ran in another. The gain is smaller
# than the difference between the largest sums. Filling and draining take time on all stages, not only on the
# bottleneck.
#
# **Try it:** plan for m = 1: `plan_cuts(layers, devices=4, microbatches=1, batch=8)`. How large is the gain, and why?
#
# <details><summary>What you should see, and why</summary>
#
# There is none, or hardly any. With one micro-batch only one device works at a time. The step takes the sum of all
# layers, wherever they are cut.
#
# </details>
#
# ## Memory is the second constraint
#
# Under 1F1B the first device holds p micro-batches, and the last one only one (lesson 3). The planned cut gives more
# layers to the first stages, and fewer to the one with the heavy head. What does that do to memory?

# %%
needs = ", ".join(f"{held.total / 1e6:.0f}" for held in plan.memory)
print(f"the planned cut, layers {plan.sizes}: weights, gradients and activations need {needs} MB")
question = "No device may have more than 25 MB. How many layers does the best cut that fits give to device 0?"
predict("08-memory", question, unit="layers")

# %%
for limit in (None, "25MB"):
    fitting = plan_cuts(layers, devices=4, microbatches=8, batch=32, memory_limit=limit)
    needs = ", ".join(f"{held.total / 1e6:.0f}" for held in fitting.memory)
    told = f"limit {limit}: layers {fitting.sizes}, {1e3 * fitting.makespan:.0f} ms predicted, needs {needs} MB"
    report = measured({"fitting": (uneven, fitting.cuts)}, steps=1, memory_limit=limit)["fitting"]
    print(f"{told}; measured {', '.join(f'{held.total / 1e6:.0f}' for held in report.memory)} MB")
try:
    measured({"planned": (uneven, plan.cuts)}, steps=1, memory_limit="25MB")
except OutOfMemoryError as error:
    print("the planned cut, run with this limit:", str(error).split(". ")[0])
print(f"the even cut: {1e3 * plan.even.makespan:.0f} ms predicted")
reveal("08-memory", measurement=fitting.sizes[0])

# %% [markdown]
# The fastest cut needs much memory on device 0, and little on the last device. (`0F2` in the message is device 0's
# forward of micro-batch 2.) A limit pushes layers towards the end of the pipeline, away from the devices that hold many
# micro-batches. The last device is the bottleneck again, and most of the gain is lost: look at the even cut. So before
# you pay that price, look at the other ways to save memory: more micro-batches, recomputation (lesson 2b), or another
# schedule.
#
# ## A claim on trial: "take one layer less at both ends"
#
# Llama 3 405B was trained with one layer less on the first stage and on the last stage, for the sake of balance
# (2024, arXiv 2407.21783, section 3.3.2). Is that a rule for other models? A head is worth as many layers as its
# matrix has times the numbers of a layer's matrices. An embedding only looks up rows. The next cell counts these
# numbers for some published sizes. Then it simulates the rule, for equal layers and for the profile of our uneven
# model.


# %%
def layer_size(width, hidden, key_width, gated=True):
    """Numbers in one layer: four matrices of the attention, two of the MLP (three, if it multiplies by a gate).

    Two of the attention's have `key_width` columns: several heads may share their keys and values.
    """
    return 2 * width**2 + 2 * width * key_width + (3 if gated else 2) * width * hidden


published = {  # arXiv 2407.21783, table 3; GPT-2 small: Radford and others, 2019
    "Llama 3 405B": (128_256 * 16_384, layer_size(16_384, 53_248, 8 * 128)),
    "Llama 3 70B": (128_256 * 8_192, layer_size(8_192, 28_672, 8 * 128)),
    "Llama 3 8B": (128_256 * 4_096, layer_size(4_096, 14_336, 8 * 128)),
    "GPT-2 small": (50_257 * 768, layer_size(768, 3_072, 768, gated=False)),
}
for name, (head, layer) in published.items():
    print(f"{name:<13} the head is worth {head / layer:.1f} layers")


def step_of(costs, sizes):
    """The makespan with stages of so many layers, simulated; a third of each cost is forward."""
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    work = [sum(costs[end - size : end]) for end, size in zip(ends, sizes, strict=True)]
    return simulate(order, Costs(forward=[w / 3 for w in work], backward=[2 * w / 3 for w in work])).makespan


for name, costs in {"equal layers": [1] * 48, "our uneven model": sums}.items():
    even_cut, *others = (step_of(costs, sizes) for sizes in ([12] * 4, [11, 13, 13, 11], plan.sizes))
    ruled, planned = (other / even_cut - 1 for other in others)
    print(
        f"{name}, by the profile: one layer less at both ends {ruled:+.1%} against even; the plan's cut {planned:+.1%}"
    )

# %% [markdown]
# For the last stage the rule holds where the head costs about one layer, as in the 405B model. (Attention itself and
# the loss are not counted here, and they change the ratio a little.) The smaller a model, the more its head weighs:
# in the 8B model it is worth more than two layers, in GPT-2 small more than five. A lookup takes nearly no time. So
# the layer that the *first* stage gives away does not balance time in any of them. It saves memory on the device that
# holds most micro-batches. Where all layers are equal, and the head is small, the rule makes the step longer. Our
# uneven model has to give away more than one layer at its end. So count or, better, measure.
#
# ## Break it
#
# A plan is as good as the costs it was made for. Turn the profile around, as if the heavy head stood at the front.
# What does the plan promise, and what does the model really do?

# %%
from dataclasses import replace

# stages[48]: what 48 stages with one layer each cost; and so on, for runs of layers and the whole model
turned_around = {count: stages[::-1] for count, stages in layers.stages.items()}
wrong = plan_cuts(replace(layers, stages=turned_around), devices=4, microbatches=8, batch=32)
runs = {"even": (uneven, None), "planned": (uneven, plan.cuts), "wrong": (uneven, wrong.cuts)}
for name, report in measured(runs).items():
    turned = report.timeline
    print(f"{name}: measured {1e3 * turned.makespan:.0f} ms, load balance {share(turned):.2f}")
print(f"wrong: layers {wrong.sizes}, promised {1e3 * wrong.makespan:.0f} ms instead of {1e3 * wrong.even.makespan:.0f}")
plot_timeline(turned, memory=False)

# %% [markdown]
# The program ran without complaint, and its gradients are right: any cut is sound. Only a measurement shows that this
# one is worse than the right plan, and less balanced. So measure after each change of the model, the micro-batch size
# or the machine.
#
# ## What to remember
#
# - The busiest device decides. Its idle neighbours are a bubble that no schedule and no m can fill.
# - The load balance, mean over max of the busy times, is the utilisation that is left for large m.
# - Equal numbers of layers are equal work only if the layers are equal, and embedding and head are small.
# - The cut with the least bottleneck follows from a short recurrence. Greedy rules can miss it.
# - The first devices of 1F1B hold most micro-batches. So a memory limit pulls layers towards the end.
#
# In the repository, `docs/cuts.md` says how to plan for your own model, and `pipelab tune --cuts` does it on the
# command line. Lesson 8b goes on with devices that differ, and with one that becomes slow in the middle of a run.

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices. A model is a list of layers, and a stage is a group of neighbouring layers on one device.
# A layer's cost is what its forward and backward take for one micro-batch. Messages take no time. Nothing here depends
# on your machine.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="best_cut" difficulty="medium" minutes=25
# Cut the layers into stages so that the largest sum of a stage is as small as possible. `costs` has a cost for each
# layer, in the order of the model, each above 0. `stages` is at least 1 and at most the number of layers. Return how
# many layers each stage has, in order. Each stage has at least one layer, and each layer is in one stage. Where several
# cuts are equally good, any of them is accepted.
#
# There are two parts. In the second, a model has up to 200 layers and up to 16 stages, and your function has 5 seconds.
# It cannot try all cuts there.


# %% role="answer" exercise="best_cut"
def best_cut(costs: list[float], stages: int) -> list[int]:
    """How many layers each stage has, such that the largest sum of a stage is least.

    >>> best_cut([3, 1, 1, 1], 2)    # 3 and 3; two layers each would be 4 and 2
    [1, 3]
    """
    ### BEGIN SOLUTION
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    best, chosen = sums, []  # best[j]: the largest sum of the first j layers, in one stage
    for s in range(1, stages):
        begins = [0] * (s + 1)  # where the last stage begins; fewer layers than stages are never asked for
        for j in range(s + 1, len(sums)):
            begins.append(min(range(s, j), key=lambda i, j=j, best=best: max(best[i], sums[j] - sums[i])))
        best = [max(best[i], sums[j] - sums[i]) for j, i in enumerate(begins)]
        chosen.append(begins)
    end, sizes = len(costs), []
    for begins in reversed(chosen):
        sizes.append(end - begins[end])
        end = begins[end]
    return [end, *reversed(sizes)]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="best_cut"
# A cut that fills one stage after the other never goes back on a choice. Suppose somebody told you where the last stage
# begins. What is left to decide?

# %% [markdown] role="hint" exercise="best_cut"
# The layers before the last stage must be cut as well as they can be into one stage fewer. That is the same question
# for fewer layers. So make a table: the least largest sum for the first j layers in s stages. It follows from the
# entries for s - 1 stages.

# %% [markdown] role="hint" exercise="best_cut"
# With one stage, the entry for j layers is their sum. For s stages, try each place i at which the last stage can
# begin. The larger of two numbers counts: the entry for i layers in s - 1 stages, and the sum of layers i to j - 1.
# Keep the smallest of these, and the i that gave it. Leave out each i that would make a stage empty. Sums up to each
# layer make the sum of any stage a difference. At the end go back through the i's that you kept.

# %% [markdown] role="solution" exercise="best_cut"
# This is PipeDream's recurrence (Harlap et al., 2018, arXiv 1806.03377) without copies of stages. It looks at each
# pair of places once per stage: 200 · 200 · 16, at most 640,000 sums. There are about 10²² cuts of 200 layers into 16
# stages. There is another way. Guess a limit, fill greedily up to it, and count the stages. Then halve the range of the
# limit. Greedy filling is the best that can be done for a *given* limit. It only fails when the limit is the mean.

# %% [markdown] role="lead" exercise="balance" difficulty="easy" minutes=8
# How even is the work of a step? `rows` has an entry `(device, start, end)` for each thing that a device did in *one*
# step, times in seconds. The rows come in any order. Those of one device do not overlap. The step may be any step of a
# long run, so it need not begin at 0. A device is busy for the sum of `end - start` of its rows. `devices` is p. The
# devices are 0 to p - 1, and a device that has no row was busy for 0 seconds.
#
# Return the load-balance score: the mean busy time of all p devices over the largest busy time. At least one device
# was busy.


# %% role="answer" exercise="balance"
def balance(rows: list[tuple[int, float, float]], devices: int) -> float:
    """Mean over max of the busy times: 1 if all devices work alike.

    >>> balance([(0, 10, 12), (1, 12, 14), (1, 15, 17)], devices=2)    # busy for 2 and 4 seconds
    0.75
    """
    ### BEGIN SOLUTION
    busy = [0.0] * devices
    for device, start, end in rows:
        busy[device] += end - start
    return sum(busy) / devices / max(busy)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="balance"
# First find one number for each device, then one number for the step. What do you do with a device that no row names?

# %% [markdown] role="hint" exercise="balance"
# Begin with zero seconds for all p devices. Go through the rows and add what each of them takes to its device. The
# score needs only these p numbers.

# %% [markdown] role="hint" exercise="balance"
# A list of p zeros is a good beginning, because the idle devices are already right in it. The mean divides by p, and
# not by the number of devices that have rows. Which of the two goes on top, the mean or the largest?

# %% [markdown] role="solution" exercise="balance"
# The score says how much of the devices' time is left if nothing else makes them wait. With a score of 0.8, one fifth
# of it is lost to the cut alone. So a better cut can save at most one fifth of the step. The score does not see fill
# and drain, because it does not look at when something ran. Utilisation sees both at once.
