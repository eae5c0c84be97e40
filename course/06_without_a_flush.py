# ---
# jupyter:
#   pipelab:
#     number: 6
#     title: "Without a flush: PipeDream and its versions"
#     minutes: 45
#     builds_on: [3, 5]
#     goals:
#       - say what breaks when the flush is deleted, and which versions of the weights mend it
#       - count the versions that PipeDream, vertical sync and 2BW keep, and say how old a gradient is
#       - choose between a flush and stale weights under a memory limit
# ---

# %% [markdown]
# ## What breaks when the flush is deleted?
#
# This is a stand-in. The lesson's own page goes here, up to the seam below.

# %% role="setup"
from pipelab.teaching import *

# %% [markdown]
# The seam: everything from the next cell on is the exercises' page.

# %% [markdown] page="exercises"
# p is the number of devices. Device s holds stage s, 0 to p - 1. Micro-batches are counted from 0 and go on without
# end. `0F3` is the forward of micro-batch 3 on stage 0, `0B3` its backward. `0U3` is the update of stage 0 after that
# backward. The k-th update of a stage makes version k of its weights. Version 0 is what the stage began with.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="version_number" difficulty="easy" minutes=8
# All three methods run 1F1B's order without a flush. Write the function that returns the version of the weights that
# stage `stage` uses for the forward of micro-batch `microbatch`:
#
# - `"pipedream"`: an update follows each backward. A forward uses the stage's newest version.
# - `"vertical-sync"`: an update follows each backward. All stages use, for a micro-batch, the version that stage 0 used
#   for it.
# - `"2bw"`: an update follows every `every` backwards, which make a batch. `every` is at least p. The update of batch t
#   makes version t + 1. Batch t is computed with version t - 1, and batch 0 with version 0.


# %% role="answer" exercise="version_number"
def version(method: str, devices: int, stage: int, microbatch: int, every: int = 1) -> int:
    """The version of its weights that a stage uses for the forward of a micro-batch.

    >>> version("pipedream", devices=4, stage=2, microbatch=5)
    4
    >>> version("2bw", devices=4, stage=2, microbatch=17, every=8)
    1
    """
    ### BEGIN SOLUTION
    if method == "2bw":
        return max(microbatch // every - 1, 0)
    source = 0 if method == "vertical-sync" else stage
    return max(microbatch - (devices - 1 - source), 0)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="version_number"
# How many updates has a stage run when a forward begins? Each update follows a backward, so count backwards.

# %% [markdown] role="hint" exercise="version_number"
# The warm-up of 1F1B says how many forwards a stage is ahead of its backwards. The last stage is ahead by none when a
# forward begins. For vertical sync, which stage has to be counted? For 2BW, in which batch is the micro-batch?

# %% [markdown] role="hint" exercise="version_number"
# Write 1F1B's row of stage 0 for p = 3 and six micro-batches, with a U after each B. Above each F write the number of
# U's before it. Which number is missing from the micro-batch's own number, and how does it change on stage 1? The first
# forwards need a bound.

# %% [markdown] role="solution" exercise="version_number"
# PipeDream's stages use different versions for the same micro-batch, and the first stage the oldest. Vertical sync uses
# the oldest of them everywhere. 2BW is one update behind, but its updates are m times rarer.

# %% [markdown] role="lead" exercise="stash" difficulty="medium" minutes=16
# Here a table is a list of rows, one per device: the order in which the device runs its actions, with its updates. It
# begins and ends with nothing on its way. A version of a stage's weights is needed by
#
# - each forward that uses it, and the backward of the same micro-batch;
# - the update that makes the next version, because it starts from this one.
#
# The rules are those of PipeDream (`"pipedream"`), vertical sync (`"vertical-sync"`) and 2BW (`"2bw"`). In the first
# two, look in the table for the updates: there may be fewer than one per backward, and warm-ups may be deeper. The
# newest version is that of the last update before the forward in its device's row. In a table of 2BW every m backwards
# make one update, on all devices. Batch t uses version t - 1, and batch 0 version 0.
#
# Write two functions. `last_needs` names, for each device and each version, the last action of that device which needs
# it. Leave out the version of the last update, because it is never freed. `peak` returns how many versions each device
# has at most between two of its actions. A version is freed right after the last action that needs it. If that is the
# update, the new version takes its place.


# %% role="answer" exercise="stash"
def last_needs(rows: list[list[str]], rule: str) -> list[list[str]]:
    """For each device, in order of the versions 0, 1, ...: the last action that needs it.

    >>> last_needs([["0F0", "0F1", "0B0", "0U0", "0B1", "0U1"]], "pipedream")
    [['0B1', '0U1']]
    """
    ### BEGIN SOLUTION
    newest = []
    for row in rows:
        uses, count = {}, 0
        for cell in row:
            count += "U" in cell
            if "F" in cell:
                uses[int(cell.split("F")[1])] = count
        newest.append(uses)
    found = []
    for r, row in enumerate(rows):
        uses = newest[0] if rule == "vertical-sync" else newest[r]
        if rule == "2bw":
            backward = [cell for cell in row if "F" not in cell]
            m = next(k for k, cell in enumerate(backward) if "U" in cell)
            uses = {i: max(i // m - 1, 0) for i in uses}
        last, count = {}, 0
        for cell in row:
            if "U" in cell:
                last[count] = cell
                count += 1
            else:
                last[uses[int(cell.replace("B", "F").split("F")[1])]] = cell
        found.append([last[k] for k in range(count)])
    return found
    ### END SOLUTION


# %% role="answer" exercise="stash"
def peak(rows: list[list[str]], rule: str) -> list[int]:
    """How many versions each device has at most.

    >>> peak([["0F0", "0F1", "0B0", "0U0", "0B1", "0U1"]], "pipedream")    # after 0U0: versions 0 and 1
    [2]
    """
    ### BEGIN SOLUTION
    most = []
    for row, freed in zip(rows, last_needs(rows, rule), strict=True):
        there = highest = 1
        for cell in row:
            there += ("U" in cell) - freed.count(cell)
            highest = max(highest, there)
        most.append(highest)
    return most
    ### END SOLUTION


# %% [markdown] role="hint" exercise="stash"
# Take one row and one version. Underline each action that needs it, by the list above. The answer is the last one that
# is underlined.

# %% [markdown] role="hint" exercise="stash"
# First find out which version each micro-batch uses on each device. For vertical sync only the row of device 0 counts.
# Then go through a row once, and note for each action the version that it needs. A later note replaces an earlier one.

# %% [markdown] role="hint" exercise="stash"
# Which version does an update need, if you count the updates before it? Which one does a backward need, if you have a
# dictionary from micro-batches to versions? For `peak`, go through the row again. What does an update do to the number
# of versions, and what does an action that is the last need of some version? May one action be the last need of two?

# %% [markdown] role="solution" exercise="stash"
# With PipeDream's own table device r has at most p - r versions. Under vertical sync it has p versions, on the last
# device too: there, versions wait for micro-batches that stage 0 has already let in. 2BW has two, at any p.

# %% [markdown] role="lead" exercise="delayed_update" difficulty="medium" minutes=12
# 2BW as one device sees it: train a whole model, one batch per call, by the formula
#
# $$v = \text{momentum} \cdot v + g(W(t - 1)), \qquad W(t + 1) = W(t) - \text{lr} \cdot v, \qquad W(-1) = W(0)$$
#
# g is the gradient of the batch's loss: the mean over its micro-batches, which have the same size. v begins at 0, and
# without momentum it is g. When your function is called, the model holds W(t). When it returns, the model must hold
# W(t + 1), in the same parameters. `state` is a dictionary. It is empty at first, and it comes back in the next call:
# keep there what you need. Write it with plain tensors. The check compares the weights after each batch with those of
# pipelab's own reference, in float64.


# %% role="answer" exercise="delayed_update"
from collections.abc import Callable

import torch


def train_batch(
    model: torch.nn.Module, state: dict, loss: Callable, microbatches: list[tuple], lr: float, momentum: float
) -> None:
    """One update of 2BW. ``microbatches`` are pairs (x, y), and ``loss(model(x), y)`` is the loss of one.

    >>> layer, state = torch.nn.Linear(1, 1, bias=False), {}
    >>> weight = torch.nn.init.ones_(layer.weight)
    >>> for batch in range(2):
    ...     train_batch(layer, state, lambda out, y: out.square().mean() / 2, [(torch.ones(1, 1), None)], 0.5, 0.0)
    >>> weight.item()    # without a delay it would be 0.25
    0.0
    """
    ### BEGIN SOLUTION
    newest = [p.detach().clone() for p in model.parameters()]
    stashed = state.get("stashed", newest)
    with torch.no_grad():
        for p, old in zip(model.parameters(), stashed, strict=True):
            p.copy_(old)
    model.zero_grad()
    for x, y in microbatches:
        (loss(model(x), y) / len(microbatches)).backward()
    velocity = state.get("velocity", [torch.zeros_like(w) for w in newest])
    state["stashed"] = newest
    state["velocity"] = [momentum * v + p.grad for v, p in zip(velocity, model.parameters(), strict=True)]
    with torch.no_grad():
        for p, w, v in zip(model.parameters(), newest, state["velocity"], strict=True):
            p.copy_(w - lr * v)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="delayed_update"
# At some moment in each call the model must hold the version before the newest. What do you need to come back from it?

# %% [markdown] role="hint" exercise="delayed_update"
# Make a copy of the newest weights first, with `clone`. Then write the kept version into the model, and run forwards
# and backwards as in lesson 2's exercise on accumulation. At the end write the result into the model. All writing into
# parameters goes under `torch.no_grad()`.

# %% [markdown] role="hint" exercise="delayed_update"
# Two lists of tensors go through the dictionary from one call to the next, and v is one of them. What is the other, and
# what stands in for it in the first call? After the backwards the model holds W(t - 1). From which list does the step
# start, if not from the model?

# %% [markdown] role="solution" exercise="delayed_update"
# The optimizer's state belongs to the newest weights, not to a version: there is one v for all versions.
# PipeDream's last stage is the same without the delay. Its first stage keeps p - 1 older versions, not one.

# %% [markdown] role="lead" exercise="two_bw" difficulty="medium" minutes=12
# Write the table of 2BW for any p and any m of at least p. It has `batches` batches of m micro-batches each, which are
# counted on from one batch to the next. The order is that of 1F1B over all of them, without a flush. The pipeline is
# empty at the beginning and at the end. A device updates its stage right after the last backward of each batch. That
# update has the number of this micro-batch: with m = 4, device 2 runs `"2B3"`, then `"2U3"`. Return one row of actions
# per device.
#
# In the last part the check trains a narrow transformer with your rows, and the pipeline stays full from batch to
# batch. Then it compares the weights with those of a single process that follows the formula. To see your table,
# import `Schedule` and `plot_table` from `pipelab` in a new cell. `plot_table(Schedule.from_rows(two_bw(4, 4, 2)))`
# draws it.


# %% role="answer" exercise="two_bw"
def two_bw(devices: int, microbatches: int, batches: int) -> list[list[str]]:
    """2BW's order: one row of actions per device.

    >>> two_bw(1, 2, 2)
    [['0F0', '0B0', '0F1', '0B1', '0U1', '0F2', '0B2', '0F3', '0B3', '0U3']]
    """
    ### BEGIN SOLUTION
    rows = []
    total = microbatches * batches
    for r in range(devices):
        ahead = devices - 1 - r
        row = [f"{r}F{i}" for i in range(ahead)]
        for i in range(total):
            row += [f"{r}F{ahead + i}"] if ahead + i < total else []
            row.append(f"{r}B{i}")
            if i % microbatches == microbatches - 1:
                row.append(f"{r}U{i}")
        rows.append(row)
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="two_bw"
# Leave the updates out at first. Which batches does 1F1B see, if there is no flush between them?

# %% [markdown] role="hint" exercise="two_bw"
# It sees one long batch of m times `batches` micro-batches: one warm-up, many pairs, one cool-down. After which
# backwards does an update follow? A forward of the next batch may stand before such a backward.

# %% [markdown] role="hint" exercise="two_bw"
# Go through all backwards of a device in order. Before each of them stands a forward, unless there are none left. How
# far ahead is it? After each of them ask whether a batch is complete. What does the backward's number say about that?

# %% [markdown] role="solution" exercise="two_bw"
# In the pair before an update the forward already belongs to the next batch, on all devices but the last. That is why
# the newest version comes too late for a whole batch, and why two versions are needed. With m below p - 1 a forward
# would begin before the update that makes its version. The paper asks for m of at least p (Narayanan and others, 2021,
# arXiv 2006.09503).

# %% [markdown] role="lead" exercise="under_a_limit" difficulty="hard" minutes=15
# A model is cut into p equal stages, one per device. You know these bytes of one stage:
#
# - `weights`: one version of its weights. The gradients take as much again, whatever the method.
# - `optimizer`: the optimizer's state. There is one, no matter how many versions are kept.
# - `activations`: those of one micro-batch, from its forward to its backward. `stage_input` of them are the input of
#   the stage.
#
# No device may hold more than `limit` bytes, and device 0 needs the most. There are six methods, in this order:
#
# - `"gpipe"`;
# - `"gpipe-recompute"`: a micro-batch keeps its input alone, and while its backward runs all its activations. One
#   backward runs at a time.
# - `"1f1b"`;
# - `"pipedream"` and `"vertical-sync"`, with an update after each backward;
# - `"2bw"`, with an update after every m backwards. It is allowed only if m is at least p.
#
# The methods without a flush have run for a long time, so their pipeline is full. Return three things:
#
# 1. The names of the methods that fit, as a list or a set.
# 2. Of these the one that loses the least time. Time is lost if a device idles or recomputes, as a fraction of total
#    device time. A forward takes 1, a backward 2 and recomputing a forward 1.
# 3. Of these the one with the least staleness: by how many updates a gradient is older than the weights that it
#    changes, as a mean over the stages.
#
# If two are equal, the other of the two figures decides. Then the fewer bytes decide, then the order above. Return
# `"none"` for both choices if nothing fits.


# %% role="answer" exercise="under_a_limit"
def choose_method(
    weights: int, optimizer: int, activations: int, stage_input: int, devices: int, microbatches: int, limit: int
) -> tuple[list[str], str, str]:
    """What fits on a device, and of that the method that loses the least time and the one that is the least stale.

    >>> gb = 10**9
    >>> choose_method(4 * gb, 8 * gb, 1 * gb, 1 * gb // 10, devices=4, microbatches=8, limit=21 * gb)
    (['gpipe-recompute', '1f1b'], '1f1b', '1f1b')
    """
    ### BEGIN SOLUTION
    p, m = devices, microbatches
    versions = dict.fromkeys(("gpipe", "gpipe-recompute", "1f1b"), 1) | {"pipedream": p, "vertical-sync": p, "2bw": 2}
    in_flight = {"gpipe": m * activations, "gpipe-recompute": (m - 1) * stage_input + activations}
    in_flight["1f1b"] = min(p, m) * activations
    stale = {"pipedream": (p - 1) / 2, "vertical-sync": p - 1, "2bw": 1}
    rated = {}
    for order, name in enumerate(versions):
        work = 4 * m if name == "gpipe-recompute" else 3 * m
        idle = 0 if name in stale else 3 * (p - 1)
        total = versions[name] * weights + weights + optimizer + in_flight.get(name, p * activations)
        if total <= limit and (name != "2bw" or m >= p):
            rated[name] = (1 - 3 * m / (work + idle), stale.get(name, 0), total, order)
    if not rated:
        return [], "none", "none"
    quickest = min(rated, key=lambda name: rated[name])
    freshest = min(rated, key=lambda name: (rated[name][1], rated[name][0], *rated[name][2:]))
    return list(rated), quickest, freshest
    ### END SOLUTION


# %% [markdown] role="hint" exercise="under_a_limit"
# Make a table on paper: one row per method, with versions, micro-batches in flight on device 0, lost time, staleness.

# %% [markdown] role="hint" exercise="under_a_limit"
# Device 0 has as many micro-batches in flight in each order of 1F1B, with and without a flush, if there are enough of
# them. The flush costs p - 1 forwards and p - 1 backwards of waiting per step. Stage s of PipeDream is behind by as
# many updates as it has warm-up forwards. What is the mean of that over the stages?

# %% [markdown] role="hint" exercise="under_a_limit"
# For each method that fits keep four numbers: lost time, staleness, bytes, place in the list. Python compares tuples
# from left to right. In which order should they stand for each of the two choices? For the lost time, which part of a
# step of GPipe with recomputation is neither a forward nor a backward?

# %% [markdown] role="solution" exercise="under_a_limit"
# Without a flush no time is lost, but it costs weights: p versions, or two. Where weights are large and activations
# small, only methods with a flush fit. Where both fit, a larger m makes the flush cheap, and it costs no staleness.
# That is why large models are trained with a flush today.
