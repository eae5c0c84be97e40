# ---
# jupyter:
#   pipelab:
#     number: 4
#     title: "Interleaved 1F1B: a shorter way to the last device"
#     minutes: 55
#     builds_on: [3, 3b]
#     goals:
#       - cut a model into more stages than devices, and say why it matters which device gets which
#       - write the warm-up and the order of interleaved 1F1B, for any p and v
#       - say what a group of micro-batches is for, and which m make groups
#       - find the wait cycle that a wrong order of the chunks makes
# ---

# %% [markdown]
# ## Can a device idle less than under 1F1B?
#
# If messages take no time, GPipe and 1F1B idle equally long: every device idles for $(p - 1)(t_F + t_B)$. Lesson 3b
# gave the reason. Each device holds one stage, so device p - 1 cannot start before micro-batch 0 has passed p - 1 whole
# devices. After the last backward of device p - 1, the gradient has to pass p - 1 whole devices again. As long as a
# backward is one piece, no order of the actions changes that. So this lesson changes what a device holds. Below is 1F1B
# as the simulator predicts it. The hatched time is idle, and this lesson makes it shorter.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
plain = build_schedule("1f1b", devices=4, microbatches=4)
plot_timeline(simulate(plain), memory=False, phases=False)

# %% [markdown]
# ## Cut finer
#
# Cut the 48 layers into 8 stages of 6 layers, two stages for each of the four devices. The stages that one device holds
# are its **chunks**, and v is their number. Here v = 2. Stages are still numbered along the model, from 0 to p · v - 1,
# and an action is still named by its stage. There are more stages than devices, so Megatron-LM calls them **virtual
# stages**. A chunk has 1/v of the layers of a device, so its forward takes 1/v of the time, and so does its backward.
# Here that is half a unit. ($t_F$ and $t_B$ still stand for *all* chunks of a device.)
#
# Which two stages go on which device? There are two ways:
#
# - **neighbouring chunks**: device 0 gets stages 0 and 1, device 1 gets stages 2 and 3, and so on;
# - **round-robin**: stages are dealt out like cards. Devices 0 to 3 get stages 0 to 3, one each. Then device 0 gets
#   stage 4, device 1 gets stage 5, and so on.
#
# Begin with neighbouring chunks, in the order of 1F1B. Each forward becomes two: through the device's first chunk, then
# through its second. Each backward becomes two as well: through the second chunk, then through the first.

# %%
stages = cut_layers(48, 8)
deals = {"neighbouring": [[0, 1], [2, 3], [4, 5], [6, 7]], "round-robin": [[0, 4], [1, 5], [2, 6], [3, 7]]}
for way, hands in deals.items():
    for device, hand in enumerate(hands):
        layers = " and ".join(f"{stages[s][0]}-{stages[s][-1]}" for s in hand)
        print(f"{way:<12}  device {device} holds stages {hand}, layers {layers}")
predict("04-neighbours", "p = m = 4, neighbouring chunks. 1F1B takes 14 units. How many now?", unit="units")

# %% [markdown]
# ## A claim on trial: "two chunks per device shrink the bubble"
#
# A survey on the web explains interleaving with a listing. The listing gives device r the stages r · v to r · v + v -
# 1. Those are neighbouring chunks. The survey says that the bubble then shrinks. Try it, with the order described
#    above.


# %%
def run(schedule):
    """One real step on the batch of 64; the unit clock: a forward of 12 layers takes 1, and so does a backward."""
    return Pipeline(model, schedule, loss=next_byte_loss, clock="unit").step(inputs, targets).timeline


def in_pieces(schedule, v):
    """Each action of a schedule as v actions, on neighbouring chunks."""
    pieces = {"F": range(v), "B": range(v - 1, -1, -1)}
    # v pieces for each action, in the order in which a micro-batch passes the chunks
    rows = [[f"{v * a.stage + c}{a.op}{a.microbatch}" for a in row for c in pieces[a.op]] for row in schedule.programs]
    return Schedule.from_rows(rows, name="neighbouring chunks")


whole, neighbours = run(plain), run(in_pieces(plain, 2))
titles = ["1F1B: 4 stages of 12 layers", "Neighbouring chunks: 8 stages of 6 layers"]
display(plot_schedules([whole, neighbours], titles))
reveal("04-neighbours", prediction=(4 + 4 - 1) * (1 + 1), measurement=neighbours.makespan)

# %% [markdown]
# (An action of a chunk is half as long. The darker blocks are a device's second chunk.)
#
# Nothing is gained, and the claim is false. The reason is not the order, but where the chunks are. On its way to
# device 3, micro-batch 0 still passes all the layers of devices 0, 1 and 2, now in six pieces instead of three. That
# takes 3 units, so device 3 idles for its first 3 units as before. The same holds at the end. Lesson 3b's bound has
# not moved, because two neighbouring chunks act as one stage, and 1F1B already reaches it. It was the same with
# micro-batches in lesson 2: cutting alone saves no time.
#
# ## Round-robin
#
# Now deal the stages out round-robin. The catalogue calls this schedule `"interleaved"`, and its argument `chunks` is
# v. When does each device get its first work?

# %%
interleaved = build_schedule("interleaved", devices=4, microbatches=4, chunks=2)
for name, timeline in {"neighbouring": neighbours, "round-robin": simulate(interleaved)}.items():
    starts = ", ".join(f"{timeline.on_device(r)[0].start:g}" for r in range(4))
    print(f"{name:<12}  devices 0 to 3 start at t = {starts}")
display(predict("04-round-robin", "p = m = 4, round-robin, v = 2. How many units does the step take?", unit="units"))
predict("04-bubble", f"1F1B idles {100 * whole.bubble_fraction:.1f} % of the time here. And round-robin?", unit="%")

# %%
dealt = run(interleaved)
exact = Pipeline(TransformerLM(layers=48).double(), interleaved, loss=next_byte_loss)
print(f"largest gradient error, in float64: {exact.verify(inputs[:8], targets[:8]):.1e}")
display(plot_schedules([neighbours, dealt], [titles[1], "Round-robin: 8 stages of 6 layers"]))
for name, timeline in {"1F1B": whole, "round-robin": dealt}.items():
    idle = timeline.bubble_fraction * timeline.makespan
    print(f"{name:<11}  each device idles {idle:g} of {timeline.makespan:g} units, {timeline.bubble_fraction:.1%}")
display(reveal("04-round-robin", prediction=4 * (1 + 1) + (4 - 1) * (1 + 1) / 2, measurement=dealt.makespan))
reveal("04-bubble", prediction=100 * 3 / 11, measurement=100 * dealt.bubble_fraction)

# %% [markdown]
# Before device 3 can start, micro-batch 0 now passes three *chunks* of 6 layers, no longer three devices of 12 layers.
# Device 3 starts after 1.5 units. The work is the same. This is **interleaved 1F1B** (Narayanan et al. 2021, arXiv
# 2104.04473, section 2.2).
#
# The idle *time* of a device becomes v times shorter, here half. The bubble *fraction* does not fall to half, because
# the step itself gets shorter too. It falls from $(p - 1)/(m + p - 1)$ to
#
# $$\frac{p - 1}{v\,m + p - 1}.$$
#
# Lesson 3b's bound becomes, for v chunks dealt out round-robin,
#
# $$m\,(t_F + t_B) + \frac{(p - 1)(t_F + t_B)}{v}.$$
#
# For each m of at least p that makes groups (see below), this schedule reaches it. As in lesson 3b, the bound holds
# as long as a backward is one piece.
#
# ## Read it slot by slot
#
# Below is the order as text. A column is as long as one action of a chunk: half a unit.

# %%
print(interleaved)

# %% [markdown]
# Device 0 holds stages 0 and 4. Begin with its row.
#
# - Slots 0 to 3: the forwards of stage 0 for one **group** of four micro-batches.
# - Slot 4: micro-batch 0 has spent one slot on each of devices 1, 2 and 3. Now it is back for stage 4. The way round
#   all devices takes p slots, and a group of p micro-batches fills exactly these slots.
# - Slot 8 on device 3: `7B0`, the first backward. A gradient comes to the last stage first, so the backwards take the
#   chunks in *reverse*: `4B0` to `4B3` come before `0B0` to `0B3`. They go in the same groups.
# - After its warm-up each device runs pairs of a forward and a backward, until it has no forwards left. (Devices 0
#   and 1 have no pair here: all their forwards are warm-up.) Then it runs the backwards that are left.
#
# So two things describe a row: the order of its forwards and backwards, and the length of its warm-up. With m = 8
# there are two groups. Device 0 then runs its forwards in four blocks: stage 0 and stage 4 with micro-batches 0 to 3,
# then stage 0 and stage 4 with 4 to 7.
#
# ## How many first?
#
# A slot is one forward or backward of a chunk, and both take equally long here. Device r starts in slot r. Micro-batch
# 0 passes p · v stages on its way down, in slots 0 to p · v - 1. Its gradient then comes up through p - 1 - r devices.
# So device r can run its first backward in slot p · v + (p - 1 - r). From its start until that slot there are
#
# $$p\,v + (p - 1 - r) - r = 2\,(p - 1 - r) + (v - 1)\,p + 1$$
#
# slots. With a forward in each of them, device r never waits before its first gradient. The last of these forwards
# belongs to the first pair, so the warm-up is one shorter. And a device has only m v forwards:
#
# $$w = \min\bigl(2\,(p - 1 - r) + (v - 1)\,p,\; m\,v\bigr)$$
#
# At p = m = 4 the minimum hides the formula, because device 0 has only 8 forwards. Look at m = 8. In the exercises you
# will write the function that makes such rows. Here `with_depths` makes them from any warm-ups. (Its source contains
# the answer to an exercise.)

# %%
eight = build_schedule("interleaved", devices=4, microbatches=8, chunks=2)
for r, row in enumerate(eight.programs):
    w = 2 * (4 - 1 - r) + (2 - 1) * 4
    shown = " ".join(map(str, row[: w + 2]))
    print(f"device {r}: w = {w:>2}; warm-up and first pair: {shown}")
by_depth = with_depths([10, 8, 6, 4], microbatches=8, chunks=2)
print("made with these warm-ups, the same as the catalogue's:", by_depth.programs == eight.programs)

# %% [markdown]
# Notice two things. A device must run (v - 1) p forwards before it reaches its last chunk. With a shorter warm-up
# the last device would have to run a backward before its forward. And 1F1B has p - 1 - r where this formula has
# 2(p - 1 - r). So **interleaved with v = 1 is not 1F1B**: its warm-up is twice as deep. If messages take no time, half
# of these 2(p - 1 - r) forwards would do. Lesson 4b shows what the second half is for.
#
# The exercises use both warm-ups. `interleaved_warmup` asks for the full one. With it a device never waits before its
# first gradient, at equal costs. `interleaved` is graded with messages that take no time, so it accepts the shorter
# warm-up too.
#
# ## Which m?
#
# The paper asks for an m that is a multiple of p, so that every group has p members. The schedule itself does not need
# that. PyTorch's `ScheduleInterleaved1F1B` makes m // p groups of equal size (it calls them rounds), or one group if m
# is smaller than p. The catalogue does the same.

# %%
for m in (3, 4, 6, 8, 10):
    groups = max(1, m // 4)
    took = simulate(build_schedule("interleaved", 4, m, chunks=2)).makespan
    bound = m * (1 + 1) + (4 - 1) * (1 + 1) / 2
    print(f"m = {m:>2}: groups {[m // groups] * groups}, {took:g} units, bound {bound:g}")
try:
    build_schedule("interleaved", devices=4, microbatches=9, chunks=2)
except ConfigurationError as refusal:
    print(refusal)

# %% [markdown]
# A group of 3 is too small: it does not fill the way round four devices, so device 0 waits for it to come back. All
# groups of at least 4 reach the bound. But in a group of more than p, the first micro-batch waits in memory while the
# rest goes through chunk 0. That is why groups are no larger than they have to be. The formula for w above is for
# groups of p. An exercise asks for w with other groups.
#
# ## Break it
#
# The survey's listing has another fault: it runs the backwards of chunk 0 before those of chunk 1. Below are two
# devices with two chunks and two micro-batches. The row of device 1 is right. The row of device 0 has its backwards in
# the wrong order. Before you run it: who waits for whom?

# %%
ring = Schedule.from_csv("""
0F0,0F1,2F0,2F1,0B0,0B1,2B0,2B1
1F0,1F1,3F0,3B0,3F1,3B1,1B0,1B1
""")
display(try_schedule(ring))

# %% [markdown]
# The gradient reaches the last stage first. Device 0 wants to run stage 0's backward, which waits for stage 1. Stage
# 1 waits for stage 2, which is also on device 0 and comes later in its row. With v = 1 there is no such trap, because
# a device has only one stage. To see both devices wait, let two threads try, with the loop of lesson 3.


# %% jupyter={"source_hidden": true}
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


# %%
print(*run_anyway(ring), sep="\n")

# %% [markdown]
# Both stop where the checker said.
#
# **Try it:** change the rows and run `try_schedule` again.
#
# - In device 0's row, put 2B0 and 2B1 before 0B0 and 0B1. Is the table sound? How many units does it take?
# - Keep that row of device 0. In device 1's row, move 3B0 before 3F0. That is a warm-up that is too short by one. What
#   does the checker say?
# - Give device 0 the stages 0 and 1, and device 1 the stages 2 and 3, in an order of your own. 1F1B takes 6 units for
#   p = m = 2. Can you get below that?
#
# <details><summary>What you should see, and why</summary>
#
# - The table is sound and takes 5 units: it is interleaved 1F1B for p = m = v = 2. The bound says the same,
#   2 · 2 + 1 · 2/2.
# - The checker says that device 1 runs 3B0 before 3F0, and a backward needs what its forward kept.
#   No other device has a part in it, so this is not a wait cycle.
# - No order of whole backwards gets below 6. Device 1 cannot start before micro-batch 0 has passed both chunks of
#   device 0, which takes one unit. Its work takes 4 units. After device 1's last backward, the last micro-batch still
#   has to pass both chunks of device 0, one more unit. `0F0,1F0,0F1,1F1,1B0,0B0,1B1,0B1` and
#   `2F0,3F0,3B0,2B0,2F1,3F1,3B1,2B1` reach 6.
#
# </details>
#
# ## What to remember
#
# - Chunks alone gain nothing. Dealt out round-robin they shorten the way to the last device, and the bubble time falls
#   v-fold.
# - Forwards go in groups of p, and backwards in the same groups with the chunks reversed. The warm-up is
#   2(p - 1 - r) + (v - 1) p, at most m v.
#
# **Where this leads.** On paper the bubble is v times shorter. Lesson 4b measures it, and counts what it costs: more
# messages and more activations. `docs/pytorch.md` in the repository shows how PyTorch's own runtime runs this table.
# In Megatron-LM the option `--num-layers-per-virtual-pipeline-stage` gives the layers of a chunk, and so v. Your
# guesses so far:

# %%
ledger()

# %% [markdown] role="further"
# ## Further: build it by hand
#
# Two devices, two stages on each. Where does interleaving save the time?

# %% role="further"
puzzles("interleaved")

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, v the number of chunks on each device, r a device. Stages
# are numbered along the model, from 0 to p · v - 1, and dealt out to the devices round-robin.
#
# Micro-batches go in m // p groups of equal size, or in one group if m is smaller than p. g is the size of a group. So
# g = p where m is a multiple of p, the case of the lesson. No exercise gives you an m that cannot make such groups.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="placement" difficulty="easy" minutes=6
# Stages are dealt out round-robin. Write two functions:
#
# - `device_of` says on which device a stage lives;
# - `layers_on` lists the layers that a device holds, in ascending order. Layers are numbered from 0, and their number
#   is a multiple of p · v. Every stage is a run of neighbouring layers, and all stages have equally many.


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
# Deal the stages out on paper, for three devices and two chunks. After the last device, whose turn is it?

# %% [markdown] role="hint" exercise="placement"
# For the device, take whole rounds of p away from the stage. What is left? For the layers, first ask which stages the
# device holds, and how far apart they are.

# %% [markdown] role="hint" exercise="placement"
# The first function is a remainder. For the second you need two numbers: how many layers a stage has, and at which
# layer a given stage begins. Then two loops are enough, one inside the other.

# %% [markdown] role="solution" exercise="placement"
# The first function does not need `chunks`. For neighbouring chunks it would: there the device is the stage divided by
# v, without the remainder.

# %% [markdown] role="lead" exercise="interleaved_warmup" difficulty="medium" minutes=10
# Every device runs w forwards, then pairs of a forward and a backward, then the backwards that are left. A forward of
# one chunk counts as one. All actions take equally long, and messages take no time.
#
# Write the function that gives w. Count the forwards that the device can run, in the lesson's order, from its start
# until its first gradient can be there. Count as if the micro-batches had no end. w is one less than that, because
# the last of these forwards belongs to the first pair. And w is never more than all forwards that the device has.
#
# The lesson gives w for groups of p. Here m may be any number that makes equal groups, and v may be 1.
#
# (With p - 1 - r in place of 2(p - 1 - r) the table is sound too, and the exercise `interleaved` accepts it. But then
# the device waits for its first gradient while it has forwards that could run. So here it is wrong.)


# %% role="answer" exercise="interleaved_warmup"
def interleaved_warmup(device: int, devices: int, microbatches: int, chunks: int) -> int:
    """How many forwards of chunks a device runs before its first pair of a forward and a backward.

    >>> interleaved_warmup(device=2, devices=3, microbatches=6, chunks=3)
    6
    """
    ### BEGIN SOLUTION
    group = microbatches // max(1, microbatches // devices)
    deep = 2 * (devices - 1 - device) + (chunks - 1) * group
    return min(deep, microbatches * chunks)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="interleaved_warmup"
# Look at the last device first. Which forwards does it run before micro-batch 0 can enter its last chunk?

# %% [markdown] role="hint" exercise="interleaved_warmup"
# Then go one device up. By how many slots does it start earlier, and by how many slots does its first gradient come
# later?

# %% [markdown] role="hint" exercise="interleaved_warmup"
# In the lesson's formula one p counts devices, and another p counts the members of a group. Which is which? Mind the
# size of a group when m is smaller than p, and a device that has fewer forwards than your sum.

# %% [markdown] role="solution" exercise="interleaved_warmup"
# m v - 1 in place of m v gives the same order, as in lesson 3. The last device has w = (v - 1) g: that is what it takes
# to get to its last chunk.

# %% [markdown] role="lead" exercise="interleaved" difficulty="hard" minutes=20
# Write interleaved 1F1B for any p and v, and any m that makes equal groups. Return a list with one row of actions per
# device, in the order in which the device runs them. An action is named by its *stage*: on two devices `"2F0"` is
# device 0, chunk 1. Do not use your functions from above, because each exercise is graded alone.
#
# The grade looks at what the table does:
#
# - *sound*: each device runs the stages that it holds, round-robin, and no device waits forever;
# - *time*: with messages that take no time, the step is no longer than with the lesson's order;
# - *in flight*: no device holds more than with that order;
# - *other groups*: all of this where m is no multiple of p. In the lesson's order, replace groups of p by groups of g;
# - *gradients*: all of this, and a narrow 48-layer model trains with the table.
#
# Another table that does as well gets all points. So a shorter warm-up passes too: it is slower only where messages
# take time, and that is not graded. To watch the course's model train with your rows, write in a new cell:
# `from pipelab import try_schedule`, then `try_schedule(interleaved(4, 8, 2))`.


# %% role="answer" exercise="interleaved"
def interleaved(devices: int, microbatches: int, chunks: int) -> list[list[str]]:
    """Interleaved 1F1B's order: one row of actions per device.

    >>> interleaved(2, 2, 2)[1]
    ['1F0', '1F1', '3F0', '3B0', '3F1', '3B1', '1B0', '1B1']
    """
    ### BEGIN SOLUTION
    p, total = devices, microbatches * chunks
    size = microbatches // max(1, microbatches // p)
    groups = [range(first, first + size) for first in range(0, microbatches, size)]
    order = [(chunk, i) for group in groups for chunk in range(chunks) for i in group]
    rows = []
    for r in range(p):
        forwards = [f"{chunk * p + r}F{i}" for chunk, i in order]
        backwards = [f"{(chunks - 1 - chunk) * p + r}B{i}" for chunk, i in order]
        w = min(2 * (p - 1 - r) + (chunks - 1) * size, total)
        row = forwards[:w]
        for forward, backward in zip(forwards[w:], backwards, strict=False):
            row += [forward, backward]
        rows.append(row + backwards[total - w :])
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="interleaved"
# For each device make two lists first: all its forwards in order, and all its backwards in order. How long are they?

# %% [markdown] role="hint" exercise="interleaved"
# The forwards need three loops, one inside the other: over groups, chunks and members of a group. Which is the
# outermost, and which the innermost? For the backwards only one of the three runs in reverse.

# %% [markdown] role="hint" exercise="interleaved"
# A row has three parts: the warm-up, the pairs, the rest. How many forwards and how many backwards are in each part?
# Find the stage of chunk c on device r, and look at the rows in section *Read it slot by slot* once more.

# %% [markdown] role="solution" exercise="interleaved"
# A warm-up with p - 1 - r in place of twice that is graded as right too. It takes as long where messages take no time,
# and holds less. The lesson shows what it loses where they do.
