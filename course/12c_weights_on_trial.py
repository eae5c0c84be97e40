# ---
# jupyter:
#   pipelab:
#     number: 12c
#     title: "Weights on trial: updates and versions"
#     minutes: 40
#     builds_on: [2b, 6, 9b, 12b]
#     goals:
#       - count updates, versions and messages of a real run
#       - test a claim about gradients against the unsplit model
#       - find inputs for which a claim about gradients fails
# ---

# %% [markdown]
# ## When do weights change, and which ones does a gradient belong to?
#
# A wrong timetable stops. A wrong gradient trains on, without a word. So claims about weights need another kind of
# evidence: the unsplit model, in float64. There a right gradient is off by 1e-14 or less, and a wrong one by far more.
# Most runs on this page are real, with a small transformer of 8 layers. Two claims are about order only. They are read
# from the tables.

# %% role="setup"
import copy
import torch
from pipelab.teaching import *

verdicts, small = Verdicts(), TransformerLM(layers=8, width=16, heads=2, tokens=16).double()


# %% [markdown]
# ## One step on trial
#
# The first text updates the weights at each backward. It also takes m = 12 and m = 20 for a batch of 64. The third
# claim is from the paper on GPipe.


# %%
def sgd(named, rate=0.1):
    return torch.optim.SGD([weight for _, weight in named], lr=rate)


inputs, targets = text_batch(batch=64, tokens=16)
true = unsplit_gradients(small, next_byte_loss, inputs, targets).gradients  # of the whole batch
verdicts.ask("12c-each", "12c-mean", "12c-sequential")

# %%
schedule, steppers = build_schedule("1f1b", devices=4, microbatches=4), []


def counted(named):
    """An optimizer that counts its steps."""
    steppers.append(sgd(named))
    steppers[-1].count = 0
    steppers[-1].register_step_post_hook(lambda made, *_: setattr(made, "count", made.count + 1))
    return steppers[-1]


net = copy.deepcopy(small)
with Pipeline(net, schedule, loss=next_byte_loss, optimizer=counted) as pipeline:
    pipeline.step(inputs, targets)
moved = {
    name: (old - new).detach() / 0.1
    for (name, old), new in zip(small.named_parameters(), net.parameters(), strict=True)
}
backwards = sum(action.op == "B" for action in schedule.programs[0])
verdicts.settle("12c-each", updates=steppers[0].count, backwards=backwards, error=gradient_error(moved, true))

# %% [markdown]
# With a flush the gradients of all micro-batches are added up, and each stage makes one update. It moves the weights by
# the gradient of the whole batch. Only a schedule without a flush updates at each backward. Then it needs versions
# ([lesson 6](06_without_a_flush.ipynb)).


# %%
def averaged(m, weigh=False):
    """The error of the mean of the micro-batches' gradients. `weigh`: by their sequences."""
    pieces = list(zip(inputs.tensor_split(m), targets.tensor_split(m), strict=True))
    shares = [len(x) / len(inputs) if weigh else 1 / m for x, _ in pieces]
    found = [unsplit_gradients(small, next_byte_loss, *piece).gradients for piece in pieces]
    mean = {name: sum(share * one[name] for share, one in zip(shares, found, strict=True)) for name in true}
    return gradient_error(mean, true)


errors = {m: averaged(m) for m in (8, 12, 16, 20)}
even, uneven = ([error for m, error in errors.items() if (len(inputs) % m == 0) == fits] for fits in (True, False))
weighed = max(averaged(m, weigh=True) for m in (12, 20))
wrong = sum(error > 1e-9 for error in errors.values())
verdicts.settle("12c-mean", wrong=wrong, even=max(even), uneven=max(uneven), weighed=weighed)

# %% [markdown]
# 12 and 20 do not divide 64. Their micro-batches have different sizes, and a small one counts as much as a large one.
# The loss still falls, so nothing tells you. Weighed by their sequences the means are right ([lesson
# 2b](02b_gradient_and_memory.ipynb)).

# %%
import warnings

mixing = torch.nn.Sequential(
    *(layer for _ in range(4) for layer in (torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh()))
).double()
pictures, labels = torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.zeros(64)
labels = labels.long()


def off(model, loss, m, *batch):
    """The error of a pipeline's gradients against the unsplit model's."""
    with Pipeline(copy.deepcopy(model), build_schedule("gpipe", 4, m), loss=loss) as pipeline:
        pipeline.step(*batch)
        return gradient_error(pipeline.gradients(), unsplit_gradients(copy.deepcopy(model), loss, *batch).gradients)


transformer = max(off(small, next_byte_loss, m, inputs, targets) for m in (2, 4, 8))
with warnings.catch_warnings(record=True) as told:
    mixed = off(mixing, torch.nn.functional.cross_entropy, 4, pictures, labels)
print(*(one.message for one in told))
verdicts.settle("12c-sequential", transformer=transformer, mixed=mixed)

# %% [markdown]
# Batch normalisation takes means over the sequences that it sees. A micro-batch has other means than the batch, so this
# is another function. The paper says so too. Layer normalisation works on each token alone. So do most layers of a
# language model.
#
# ## Versions on trial
#
# Four claims are about schedules that keep several versions of the weights. Two of them are about 2BW.

# %%
names = []


def noted(named):
    """An optimizer that notes which parameters its stage has."""
    names.append({name for name, _ in named})
    return sgd(named)


verdicts.ask("12c-parity", "12c-two", "12c-stash", "12c-sync")

# %%
from itertools import pairwise

m = 4
whole = over(build_schedule("2bw", devices=4, microbatches=m), 4)
used = versions(whole)
row = [used[Action(0, "F", i)] for i in range(whole.microbatches)]
changes = sum(a != b for a, b in pairwise(row))
print("stage 0 uses versions", row)
updates = sum(action.op == "U" for action in whole.programs[0])
verdicts.settle("12c-parity", changes=changes, pairs=len(row) - 1, updates=updates)

# %% [markdown]
# All micro-batches of a batch use the same version. 2BW stands for double-buffered weights, not for two directions. The
# next claim is the paper's own, with its formula.

# %%
rate, steps = 0.1, 4
net = copy.deepcopy(small)
with Pipeline(net, build_schedule("2bw", 4, 4), loss=next_byte_loss, optimizer=sgd) as pipeline:
    reports = [pipeline.step(*text_batch(step=k, batch=8, tokens=16)) for k in range(steps)]
old = new = {name: weight.detach() for name, weight in small.named_parameters()}
for k in range(steps):
    probe = copy.deepcopy(small)
    probe.load_state_dict(old)
    slope = unsplit_gradients(probe, next_byte_loss, *text_batch(step=k, batch=8, tokens=16)).gradients
    old, new = new, {name: weight - rate * slope[name] for name, weight in new.items()}
faults = 0
try:
    build_schedule("2bw", devices=4, microbatches=3)
except (ConfigurationError, ScheduleError) as error:
    print(error)
    faults += 1
most = max(max(report.weight_versions) for report in reports)
verdicts.settle("12c-two", most=most, error=gradient_error(net.state_dict(), new), faults=faults)

# %% [markdown]
# Leaving `with` finishes what was under way. The trained weights are those of the formula. The last figure is no run:
# the package refuses such tables, and the paper asks for m ≥ p too. With fewer micro-batches than devices, three
# batches would be under way at once, and two versions would not be enough.
#
# Next, two captions of the popular telling.

# %%
with Pipeline(copy.deepcopy(small), build_schedule("pipedream", 4, 4), loss=next_byte_loss, optimizer=noted) as pipe:
    reports = [pipe.step(inputs[:8], targets[:8]) for _ in range(2)]
kept = max(report.weight_versions[1] for report in reports)
verdicts.settle("12c-stash", foreign=len(names[0] & names[1]), versions=kept, own=len(names[1]))

# %% [markdown]
# A stage has its own parameters only. It keeps older versions of *these*, until their backwards are over ([lesson
# 6](06_without_a_flush.ipynb)). The paragraph under the caption says so itself.

# %%
tables = {name: over(build_schedule(name, devices=4, microbatches=4), 4) for name in ("pipedream", "vertical-sync")}
starts = {name: {str(s.slot): s.start for s in simulate(table).spans} for name, table in tables.items()}
used = {name: versions(table) for name, table in tables.items()}
forwards = [action for action in used["pipedream"] if action.op == "F"]
moved = sum(starts["pipedream"][str(a)] != starts["vertical-sync"][str(a)] for a in forwards)
changed = sum(used["pipedream"][a] != used["vertical-sync"][a] for a in forwards)
verdicts.settle("12c-sync", moved=moved, versions=changed, total=len(forwards))

# %% [markdown]
# The caption describes pipelining itself. Vertical sync changes no start. It changes *which version* a forward
# uses: the one that stage 0 used for the same micro-batch.
#
# ## What is sent, and how exact is it?
#
# The survey's listings copy weights at the flush, and sum gradients over all stages. The last claim is about smaller
# messages.

# %%
verdicts.ask("12c-copies", "12c-sums", "12c-bf16")

# %%
net = copy.deepcopy(small)
with Pipeline(net, build_schedule("1f1b", 4, 4), loss=next_byte_loss, optimizer=sgd) as pipeline:
    kinds = [message.kind for message in pipeline.step(inputs, targets).timeline.messages]
others = sum(kind in ("activation", "gradient") for kind in kinds)
wanted = {name: w.detach() - 0.1 * true[name] for name, w in small.named_parameters()}
plain = gradient_error(net.state_dict(), wanted)
for s in range(1, 4):  # stage 0 has layers 0 and 1, stage 1 has layers 2 and 3, and so on
    for k in range(2):
        net.layers[2 * s + k].load_state_dict(net.layers[k].state_dict())
copied = gradient_error(net.state_dict(), wanted)
verdicts.settle("12c-copies", carry=len(kinds) - others, others=others, plain=plain, copied=copied)

# %% [markdown]
# Nothing is copied, and copying would destroy the model. (The layers of this model have equal shapes, so the copy runs
# without an error.) Stages hold *different* layers. A flush is a wait, and then each stage updates its own.

# %%
with Pipeline(copy.deepcopy(small), build_schedule("1f1b", 4, 4), loss=next_byte_loss, optimizer=noted) as pipeline:
    pipeline.step(inputs, targets)
    found = {name: gradient.clone() for name, gradient in pipeline.gradients().items()}
names = names[-4:]
summed = dict(found)
for name in names[0]:
    if name.startswith("layers."):
        _, layer, rest = name.split(".", 2)
        same = [f"layers.{int(layer) + 2 * s}.{rest}" for s in range(4)]  # at the same place in each stage
        summed |= dict.fromkeys(same, sum(found[one] for one in same))
shared = sum(name in other for k, here in enumerate(names) for name in here for other in names[:k])
errors = gradient_error(found, true), gradient_error(summed, true)
verdicts.settle("12c-sums", shared=shared, plain=errors[0], summed=errors[1])

# %% [markdown]
# Gradients are summed over *replicas* of a stage ([lesson 10](10_parallelism.ipynb)), never over different stages. One
# exception is a parameter that is on two stages, such as an embedding that is also the head.

# %%
deep, batch = TransformerLM(layers=12), text_batch(batch=16)
shares, errors = {}, {}
for packing in (None, "bf16"):
    links = Links(bandwidth=1e9, compression=packing)
    with Pipeline(deep, build_schedule("1f1b", 4, 4), loss=next_byte_loss, links=links) as pipeline:
        shares[packing] = pipeline.step(*batch).timeline.message_bytes
        errors[packing] = pipeline.verify(*batch)
sent = shares["bf16"] / shares[None]
verdicts.settle("12c-bf16", bytes=sent, exact=errors[None], error=errors["bf16"])

# %% [markdown]
# Half the bytes, and an error far above rounding. Whether it is harmless is a question to the training run, not to one
# step. (The paper answers it by whole training runs.)
#
# **Try it:** take `compression="int8"` in the cell above. By which factor do the bytes and the error change?
#
# <details><summary>What you should see, and why</summary>
#
# The bytes fall to a little more than a quarter, because each row also carries its scale. The error is a few times
# larger: whole numbers up to 127 are coarser than the 8 bits of precision of bfloat16.
#
# </details>
#
# ## Break it: take away what the claim needs
#
# Averages of micro-batches were wrong for two values of m. Are they still wrong if the batch has 60 sequences?

# %%
inputs, targets = text_batch(batch=60, tokens=16)
true = unsplit_gradients(small, next_byte_loss, inputs, targets).gradients
errors = {m: averaged(m) for m in (12, 15, 20)}
wrong = sum(error > 1e-9 for error in errors.values())
print({m: f"{error:.0e}" for m, error in errors.items()})
weighed = max(averaged(m, weigh=True) for m in errors)
Verdicts().settle("12c-mean", wrong=wrong, even=max(errors.values()), uneven=0, weighed=weighed)  # none is uneven

# %% [markdown]
# 12, 15 and 20 divide 60. So the verdict is "true", and the condition was the right one. (Divisors hide the mistake,
# as m = p does with timetables.)
#
# ## What to remember
#
# - Count what a run did: updates, versions, messages. Captions and names do not say.
# - For gradients the unsplit model in float64 decides.
# - To find an "if", look for an input that breaks the claim: uneven sizes, batch normalisation, m below p.

# %%
display(verdicts)
ledger()

# %% [markdown] page="exercises"
# In this exercise you settle a claim. Your function returns two things: the list of figures, and the verdict, `True` or
# `False`. Both are graded, on models and batches that you have not seen. Nothing here depends on your machine.

# %% role="setup"
import torch
from collections.abc import Callable
from torch import Tensor, nn
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="mean_gradient" difficulty="medium" minutes=15
# The claim: *the mean of the micro-batches' gradients is the gradient of the batch.* `loss(model(inputs), targets)` is
# a mean over the sequences. Cut the batch into m micro-batches with `tensor_split`, which makes them as even as
# possible. Take the gradient of each one, and then the plain mean of these m gradients.
#
# Return one figure: the largest error in the whole model, over the largest gradient of the batch. That is max|g -
# g\*| / max|g\*|, where g\* is the gradient of the batch, and both maxima go over all parameters. Then the verdict. The
# claim counts as true if this error is below 1e-9. All numbers are float64.


# %% role="answer" exercise="mean_gradient"
def mean_gradient(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, targets: Tensor, m: int
) -> tuple[list[float], bool]:
    """The largest error of the mean gradient, and whether the claim is true.

    >>> line, x = nn.Linear(1, 1, bias=False).double(), torch.ones(3, 1, dtype=torch.float64)
    >>> nothing = torch.tensor([[0.0], [0.0], [3.0]], dtype=torch.float64)
    >>> with torch.no_grad(): _ = line.weight.fill_(0)
    >>> mean_gradient(line, nn.functional.mse_loss, x, nothing, m=2)    # 2 and 1 sequences count alike
    ([0.5], False)
    """
    ### BEGIN SOLUTION
    weights = list(model.parameters())

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss(model(x), y), weights)])

    true = gradient(inputs, targets)
    parts = [gradient(*part) for part in zip(inputs.tensor_split(m), targets.tensor_split(m), strict=True)]
    error = float((sum(parts) / m - true).abs().max() / true.abs().max())
    return [error], error < 1e-9
    ### END SOLUTION


# %% [markdown] role="hint" exercise="mean_gradient"
# You need m + 1 gradients of the same model. Where does a second backward put its gradient, if you do not clear the
# first one?

# %% [markdown] role="hint" exercise="mean_gradient"
# `torch.autograd.grad(value, weights)` returns gradients and leaves `.grad` alone. Put the gradients of all parameters
# into one long row. Then means and maxima need no loop.

# %% [markdown] role="hint" exercise="mean_gradient"
# Write a function that returns the long row for a pair of inputs and targets. Call it for the batch and for each
# piece of `tensor_split`. Divide the sum of the pieces' rows by m, and compare.

# %% [markdown] role="solution" exercise="mean_gradient"
# The claim fails for two reasons. Uneven micro-batches should count by their size, and the plain mean does not. And
# batch normalisation computes across sequences, so each micro-batch is another function. With m = 1 even that is right.
