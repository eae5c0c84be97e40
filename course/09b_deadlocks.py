# ---
# jupyter:
#   pipelab:
#     number: 9b
#     title: "Messages: order and deadlock"
#     minutes: 45
#     builds_on: [3, 4, 9]
#     goals:
#       - tell asynchronous, blocking and batched sends apart, and say what each waits for
#       - find the ring of devices in which each waits for the next
#       - say how an engine avoids the three classic deadlocks
#       - say what a compressed message saves, and what it does to the gradients
# ---

# %% [markdown]
# ## Everybody waits. For whom?
#
# In lesson 9 messages were late. Here they never come. `send` looks like one thing, but there are at least three:
#
# - **asynchronous**: the message is put away, and the sender goes on at once. All lessons so far sent like this.
# - **blocking**: the sender waits until the receiver takes the message. A receiver takes it right before the action
#   that needs it. Nothing has to be stored.
# - **batched**: what a device has to send and to receive between two actions is started together, as one group. The
#   device waits until all of the group is done.
#
# Two devices run 1F1B. Below is the table for four micro-batches. How far does it get with blocking sends? Follow the
# first few actions with a finger on each row.

# %% role="setup"
import re
import torch
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=8), text_batch(batch=16)

# %%
two = build_schedule("1f1b", devices=2, microbatches=4)
display(plot_table(two))
question = "1F1B, p = 2, m = 4, blocking sends. How many of the 16 actions get done?"
predict("09b-blocking", question, unit="actions")


# %%
def attempt(schedule, **how):
    """Really run one step, without checking first whether devices wait in a ring: the report, or the error."""
    with Pipeline(model, schedule, loss=next_byte_loss, check=False, **how) as pipeline:
        try:
            return pipeline.step(inputs, targets)
        except RuntimeError as error:
            return error


results = {sends: attempt(two, sends=sends) for sends in ("asynchronous", "blocking", "batched")}
for sends, result in results.items():
    print(f"{sends}: {result if isinstance(result, Exception) else 'done'}\n")
waits = re.findall(r"waits before (\w+)", str(results["blocking"]))  # the action that each device does not get to
rows = [[str(action) for action in row] for row in two.programs]
reveal("09b-blocking", measurement=sum(row.index(action) for row, action in zip(rows, waits, strict=True)))

# %% [markdown]
# With blocking sends four actions are done: `0F0`, `1F0`, `0F1` and `1B0`. Then device 0 wants to hand over the
# activation of `0F1`, and device 1 wants to hand over the gradient of `1B0`. Each would take the other's message
# right afterwards. But each waits first. This is a **deadlock**: a ring of devices, each of which waits for the next.
#
# ## The first deadlock: both send first
#
# It happens wherever two neighbours have messages for each other at once, so everywhere in the steady phase of 1F1B.
# GPipe is free of it. There all forwards are through before the first backward.
#
# Batched sends mend it: each device posts its send and its receive together, and both are done. There are other
# remedies:

# %%
print("rings that the checker finds, with room for some messages that nobody has taken yet:")
for room in (0, 1, 2):
    print(f"  outstanding={room}: {len(check_schedule(two, sends='blocking', outstanding=room))}")
print("the first one, in the checker's words:", check_schedule(two, sends="blocking")[0].message)

# %% [markdown]
# - **Room for one message.** `outstanding=1` lets one message of each channel wait until it is taken, and 1F1B gets
#   through. (A channel carries activations or gradients from one device to another.) This is what an asynchronous
#   send does, with a limit. MPI's ordinary send has such room for small messages. So programs run with small tensors
#   and stop with large ones.
# - **Even and odd.** Devices with an even number send first and then receive, and odd ones the other way round. Then
#   of two neighbours never both send first. (In a ring with an odd number of devices, two even ones meet.)
#
# ## The second deadlock: around the ring
#
# With interleaving the last device sends to the first one (lesson 4). So messages can go around in a circle, and pairs
# of neighbours no longer tell everything. Which schedules get through which sends?

# %%
question = "Of the six schedules in the next cell, how many get through with batched sends?"
predict("09b-batched", question, unit="schedules")

# %%
names = ("gpipe", "1f1b", "zb-h1", "interleaved", "zb-v", "dualpipev")
tables = {name: build_schedule(name, devices=4, microbatches=8) for name in names}
print(f"{'rings':<12} asynchronous  blocking  batched  batched with room")
for name, schedule in tables.items():
    ways = ({}, {"sends": "blocking"}, {"sends": "batched"}, {"sends": "batched", "outstanding": 1})
    counts = [len(check_schedule(schedule, **way)) for way in ways]
    print(f"{name:<12} {counts[0]:>12}  {counts[1]:>8}  {counts[2]:>7}  {counts[3]:>7}")
for name in ("interleaved", "zb-v"):
    print(f"{name}: {attempt(tables[name], sends='batched')}\n")
reveal("09b-batched", measurement=sum(not check_schedule(schedule, sends="batched") for schedule in tables.values()))

# %% [markdown]
# (A schedule gets through where the checker finds no ring. "Sends block here" is true of a group as well: it waits
# until all of its messages are taken.)
#
# The first error names a ring of all four devices. Each has a gradient to hand to the device before it. That one
# takes it only for its next backward, and it has to run a forward first. Before this forward it has to get rid of its
# own gradient. No single pair is to blame, so batching pairs does not help. In a V messages go between neighbours
# only. But there a device hands over an activation long before its neighbour needs it, and the neighbour needs
# something else from it first. Engines that run such schedules let sends and receives overlap with an action, or they
# keep room for a message.
#
# ## The third deadlock: an order that cannot be
#
# So asynchronous sends are safe, it seems.
#
# ### A claim on trial: "with asynchronous sends nothing can deadlock"
#
# In the table below, device 0 runs both actions of micro-batch 0 first, and device 1 runs both forwards first. All
# sends are asynchronous.

# %%
crossed = Schedule.from_rows([["0F0", "0B0", "0F1", "0B1"], ["1F0", "1F1", "1B0", "1B1"]], name="crossed")
print(check_schedule(crossed)[0].message, end="\n\n")
print(attempt(crossed))

# %% [markdown]
# False. Device 0 wants the gradient of micro-batch 0 before it runs micro-batch 1 forward, and device 1 wants that
# forward before it computes this gradient. No way of sending helps against an order that contradicts itself. The
# claim is true only for an order without such a ring. So pipelab checks a table before anything starts. (Here
# `check=False` has switched off the search for rings.) And while a step runs, it keeps track of where each device
# stands. That is why you read the names of the devices, and do not wait for a time-out.
#
# ## Order on the wire
#
# A connection between two devices delivers in the order of sending. Where devices have several stages, two of their
# actions may send on the same one. The messages of NCCL, NVIDIA's library for GPUs, carry no names between two devices.
# The receiver has to know which message comes next. If it expects another order, nothing stops. It takes the wrong
# tensor for the right one. The first lines of the next cell imitate that.

# %%
wire = [torch.full((2,), float(number)) for number in (0, 1)]  # sent in this order
expected = ("micro-batch 1", "micro-batch 0")  # what the receiver believes
for name, tensor in zip(expected, wire, strict=True):
    print(f"what is taken for {name} holds {tensor.tolist()}")
# really run: device 1 begins with micro-batch 1, but micro-batch 0 is sent first
swapped = Schedule.from_rows([["0F0", "0F1", "0B0", "0B1"], ["1F1", "1F0", "1B0", "1B1"]], name="other order")
with Pipeline(model.double(), swapped, loss=next_byte_loss) as pipeline:
    print(f"the engine, with such a table: gradient error {pipeline.verify(inputs, targets):.0e}")
_ = model.float()

# %% [markdown]
# Both ends work out from the
# table what is sent in which order. So the receiver takes the first message, lays it aside, and takes the next one. The
# gradients are right.
#
# How engines go about it:
#
# | engine | sends | what keeps it from deadlock |
# | --- | --- | --- |
# | pipelab | asynchronous | the table is checked first; each line's order follows from the table |
# | PyTorch's schedules | asynchronous, batched for each action | the order of actions is computed for all ranks |
# | Megatron-LM | batched, or even and odd ranks in turns | neighbours exchange in pairs |
# | DeepSpeed | in pairs of instructions | even and odd stages send and receive in turns |
#
# ## Smaller messages
#
# On a slow line one can send less. A **compressed** message carries an activation or a gradient as bfloat16, which
# has 8 bits of precision, or as whole numbers from -127 to 127 with one scale for each row. The receiver unpacks it.
# What travels is smaller, and what is computed with it is no longer exact.

# %%
predict(
    "09b-int8",
    "All messages as int8: how large is the largest error in a gradient, in % of the largest gradient?",
    unit="%",
)

# %%
model, (inputs, targets) = TransformerLM(layers=48), text_batch()
four = build_schedule("1f1b", devices=4, microbatches=8)
slow_line = {"latency": 1e-4, "bandwidth": 2e6}
for compression in (None, "bf16", "int8"):
    links = Links(**slow_line, compression=compression)
    with Pipeline(model, four, loss=next_byte_loss, links=links, window=1) as pipeline:
        error = pipeline.verify(inputs, targets)
        report = [pipeline.step(inputs, targets) for _ in range(2)][-1]  # the second step
    told = "" if report.compression is None else f"; {report.compression}"
    print(f"{compression}: gradient error {error:.1e}, makespan {1e3 * report.timeline.makespan:.0f} ms{told}")
reveal("09b-int8", measurement=100 * error)

# %% [markdown]
# The line of this cell carries only 2 MB/s. There the step becomes much shorter. An element of one message is off by at
# most 1/256 of itself (bfloat16), or by 1/254 of the largest in its row (int8). A gradient is a sum of many such
# elements, and their errors partly cancel. But each message is packed anew, down and up again, and all errors reach the
# first stage. Whether training bears that is a question to try on the model at hand. On a fast line it is not worth
# asking: packing takes time too.
#
# ## Break it
#
# Take an order that gets through with batched sends, and move one action. Let device 1 of GPipe (p = 2, m = 2) run its
# first backward before its second forward.

# %%
good = build_schedule("gpipe", devices=2, microbatches=2)
moved = Schedule.from_rows([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]], name="moved")
for schedule in (good, moved):
    told = [f"{sends}: {len(check_schedule(schedule, sends=sends))}" for sends in ("blocking", "batched")]
    print(f"{schedule.name:<6} {simulate(schedule).makespan:g} slots; rings:", ", ".join(told))
print(attempt(moved, sends="blocking"))

# %% [markdown]
# The moved table is sound, and it is as fast as before. But it is now 1F1B, and the gradient of `1B0`
# crosses the activation of `0F1`.
#
# **Try it:** which single further exchange lets the moved table get through with blocking sends again, without undoing
# the first one?
#
# <details><summary>What you should see, and why</summary>
#
# Device 0 has to be ready to take the gradient of `1B0` before it sends its next activation: `0F0, 0B0, 0F1, 0B1`. No
# message crosses another any more. But now only one micro-batch is under way at a time, and nothing overlaps.
#
# </details>
#
# ## What to remember
#
# - A deadlock is a ring of devices, each of which waits for the next. To find it, ask each what it waits for.
# - Both send first: batched sends, room for one message, or even and odd in turns.
# - Around the ring: pairs are not enough. Leave room, or overlap messages with actions.
# - An order that contradicts itself cannot be saved by any way of sending. Check the table first.
# - Lines deliver in order. Both ends must derive the same order, or a tensor is taken for another.

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches in a batch, v the number of stages on each device. `2F1`
# and `2B1` are the forward and the backward of micro-batch 1 on stage 2. Devices and stages are counted from 0.
# Nothing here depends on your machine.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="order_on_the_wire" difficulty="medium" minutes=12
# Between two GPUs, NCCL matches messages by their order alone: the first receive takes what was sent first. So each
# device must know in which order the other one sends. You get the table: `rows[r]` has the forwards and backwards of
# device r, such as `"4F1"`, in its order. There are p = `len(rows)` devices, and the largest stage in the table is the
# last one. Stage s is on device s mod p.
#
# - When a device has run `sFi`, it sends the result to the device of stage s + 1.
# - When it has run `sBi`, it sends the gradient to the device of stage s - 1.
# - After the last stage and before stage 0 nothing is sent.
#
# There is *one* channel from `source` to `destination`, for activations and gradients of all stages. Return what
# `destination` must receive from `source`, in order. Name each message by the action that made it. The two devices
# differ, and between some pairs nothing is sent.


# %% role="answer" exercise="order_on_the_wire"
def receives(rows: list[list[str]], source: int, destination: int) -> list[str]:
    """The messages from source to destination, in order, by the actions that made them.

    >>> receives([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]], source=0, destination=1)
    ['0F0', '0F1']
    """
    ### BEGIN SOLUTION
    import re

    def parts(cell: str) -> tuple[int, str]:
        stage, op = re.match(r"(\d+)([FB])", cell).groups()
        return int(stage), op

    last = max(parts(cell)[0] for row in rows for cell in row)
    found = []
    for cell in rows[source]:
        stage, op = parts(cell)
        taker = stage + 1 if op == "F" else stage - 1
        if 0 <= taker <= last and taker % len(rows) == destination:
            found.append(cell)
    return found
    ### END SOLUTION


# %% [markdown] role="hint" exercise="order_on_the_wire"
# Whose row has the order in which messages come, that of the sender or that of the receiver?

# %% [markdown] role="hint" exercise="order_on_the_wire"
# Go through the row of the source. For each action find the stage that takes its result. Is there such a stage, and is
# it on the destination? Think of the last device: which stage comes behind its first one?

# %% [markdown] role="hint" exercise="order_on_the_wire"
# Split a cell at its letter: the stage is the number before it, and may have two digits. The stage that takes the
# result is one higher for F, and one lower for B. Compare it with 0 and with the largest stage of the whole table. Its
# device is the remainder after division by p.

# %% [markdown] role="solution" exercise="order_on_the_wire"
# A receive in the wrong order raises no error if the shapes agree. The stage computes with another micro-batch, or with
# a gradient in place of an activation. In pipelab each direction and kind has a channel, and a receiver reads its order
# off the sender's row.

# %% [markdown] role="lead" exercise="find_deadlock" difficulty="hard" minutes=25
# Here sends block. Each device has a program: a list of steps, done one after the other. A step is
# `("send", other, label)` or `("recv", other, label)`, where `other` is a device. A send and a receive **match** if
# each names the other's device and both have the same label. A device stays at its step until the other device is at
# the matching step. Then both go on to their next steps. A device behind its last step is through.
#
# Run the programs until nothing moves. A device that is not through now waits for the device that its step names.
# Return the devices that wait *in a ring*: each of them waits for the next one, and the last for the first.
#
# - Two devices that wait for each other are a ring. If there are several rings, return the devices of all of them.
# - A device that waits for one in a ring, but is in none itself, is not returned.
# - A device that waits for one that is through waits forever, but is in no ring either.
# - If there is no ring, return an empty list. Else sort the devices.
#
# No device names itself. The first part of the check asks only whether there is a ring, so any list that is not empty
# means yes.


# %% role="answer" exercise="find_deadlock"
def find_deadlock(programs: list[list[tuple[str, int, str]]]) -> list[int]:
    """The devices that wait for one another in a ring, sorted.

    >>> find_deadlock([[("send", 1, "F1"), ("recv", 1, "B0")], [("send", 0, "B0"), ("recv", 0, "F1")]])
    [0, 1]
    >>> find_deadlock([[("send", 1, "F1"), ("recv", 1, "B0")], [("recv", 0, "F1"), ("send", 0, "B0")]])
    []
    """
    ### BEGIN SOLUTION
    at = [0] * len(programs)

    def step(device: int) -> tuple[str, int, str] | None:
        return programs[device][at[device]] if at[device] < len(programs[device]) else None

    moved = True
    while moved:
        moved = False
        for device in range(len(programs)):
            now = step(device)
            if now is not None and now[0] == "send" and step(now[1]) == ("recv", device, now[2]):
                at[device] += 1
                at[now[1]] += 1
                moved = True
    waits = {device: step(device)[1] for device in range(len(programs)) if step(device) is not None}
    found = []
    for device in waits:
        follow = waits[device]
        for _ in waits:
            if follow == device or follow not in waits:
                break
            follow = waits[follow]
        if follow == device:
            found.append(device)
    return found
    ### END SOLUTION


# %% [markdown] role="hint" exercise="find_deadlock"
# There are two questions: where does each device stop, and who waits for whom there? Answer the first one by playing
# the programs. Does it matter in which order you let the pairs pass?

# %% [markdown] role="hint" exercise="find_deadlock"
# Keep a place in the program for each device. Again and again, look for a device at a send whose other device is at the
# matching receive, and move both. When nothing moves, each device that is left waits for exactly one other. From there,
# follow who waits for whom. Which devices do you come back to?

# %% [markdown] role="hint" exercise="find_deadlock"
# A dictionary from each waiting device to the one it waits for is enough for the second half. Begin at a device, and
# take at most as many steps as there are waiting devices. There are three ways to end: you are back where you began,
# you reach a device that is through, or you walk round a ring without the first device.

# %% [markdown] role="solution" exercise="find_deadlock"
# In the steady phase of 1F1B a device sends an activation down while its neighbour sends a gradient up. With blocking
# sends the two wait for each other, and all devices before them wait behind the ring. Megatron-LM therefore posts the
# send and the receive of such a pair together (`send_forward_recv_backward`). A send that returns at once would also
# help here. It does not help where all devices receive first.
