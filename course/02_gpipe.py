# ---
# jupyter:
#   pipelab:
#     number: 2
#     title: "Micro-batches: GPipe"
#     minutes: 55
#     builds_on: [1, 1b]
#     goals:
#       - write GPipe's schedule, and say which part of it saves time
#       - predict its bubble as a fraction and as a ratio, and tell which of the two a text means
#       - say why a table makes its devices hang, and repair it
# ---

# %% [markdown]
# ## Can four devices work at the same time?
#
# Lesson 1b ended with a **naive** pipeline: only one of its four devices works at any time. The whole batch of 64
# sequences passes down the devices as one piece and comes back up as one piece. While device 0 works on it, the other
# three have nothing to do.
#
# So we cut the batch: 64 sequences become m = 4 **micro-batches** of 16. Up to the explorer below, a unit of time is
# one such micro-batch through one device's 12 layers, forward or backward. The naive run has a single piece that is
# four times as large. Each of its 8 actions takes 4 units, so the run takes 32. The picture shows the simulator's
# prediction. (Its title counts the piece as one micro-batch of weight 4. That is what `microbatches=4` means for
# naive.)

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
uncut = build_schedule("naive", devices=4, microbatches=4)
plot_timeline(simulate(uncut), memory=False, phases=False)

# %% [markdown]
# ## First attempt: one micro-batch after the other
#
# The simplest order sends the micro-batches through one after the other. Micro-batch 0 goes down all devices and back
# up, then micro-batch 1, and so on. Each device then runs F0, B0, F1, B1, and so on. Here it is as a table, with one
# row per device:

# %%
serial = Schedule.from_csv(
    """
0F0,0B0,0F1,0B1,0F2,0B2,0F3,0B3
1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3
2F0,2B0,2F1,2B1,2F2,2B2,2F3,2B3
3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3
""",
    name="serial",
)
predict("02-serial", "How many units does the serial run take? (The naive run takes 32.)", unit="units")


# %%
def run(schedule, clock="unit", batch=64, steps=1, costs=None):
    """Really run a schedule on the first sequences of the batch; return the report of the last step.

    Under the device clock its costs are medians of the steps.
    """
    with Pipeline(model, schedule, loss=next_byte_loss, clock=clock, costs=costs) as pipeline:
        return [pipeline.step(inputs[:batch], targets[:batch]) for _ in range(steps)][-1]


naive, one_by_one = run(uncut), run(serial)
display(plot_schedules([naive.timeline, one_by_one.timeline], ["Naive: one piece of 64", "Serial: 4 pieces of 16"]))
reveal("02-serial", prediction=4 * 4 * (1 + 1), measurement=one_by_one.timeline.makespan)

# %% [markdown]
# Nothing is gained. Each micro-batch passes p = 4 devices forward and 4 backward, which takes $p\,(t_F + t_B)$ = 8
# units. The next one starts only when it is back:
#
# $$\text{makespan} = m \cdot p\,(t_F + t_B) = 4 \cdot 4 \cdot 2 = 32$$
#
# Here $t_F$ and $t_B$ are the times of one forward and one backward of a micro-batch on one device. The pieces are a
# quarter of the size, but there are four times as many. Still only one device works at a time, and three quarters of
# total device time is idle. **Cutting alone saves no time.** (It saves memory. Lesson 2b comes back to that.)
#
# ## Second attempt: do not wait
#
# Look at device 0 in the lower picture. It runs F0 and then idles until t = 7, when the gradient of micro-batch 0
# comes back. Could it run something in the meantime? F1 needs the 16 sequences of micro-batch 1, and device 0 already
# has them. B0 comes first only because the table says so. So we change the table: the same actions on the same
# devices, in a different order. Every device now runs all its forwards first, and then all its backwards.

# %%
overlapped = Schedule.from_csv(
    """
0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3
1F0,1F1,1F2,1F3,1B0,1B1,1B2,1B3
2F0,2F1,2F2,2F3,2B0,2B1,2B2,2B3
3F0,3F1,3F2,3F3,3B0,3B1,3B2,3B3
""",
    name="gpipe",
)
predict("02-overlap", "How many units does this order take?", unit="units")

# %%
gpipe = run(overlapped)
titles = ["Naive: one piece of 64", "Serial: 4 pieces of 16", "GPipe: 4 pieces of 16, overlapped"]
display(plot_schedules([naive.timeline, one_by_one.timeline, gpipe.timeline], titles))
reveal("02-overlap", prediction=(4 + 4 - 1) * (1 + 1), measurement=gpipe.timeline.makespan)  # derived below

# %% [markdown]
# The run now takes 14 units instead of 32. No action was added, removed or made faster: overlap alone saves the time.
# This order is called **GPipe** (Huang et al., 2019, arXiv 1811.06965).
#
# ## Read it from left to right
#
# Follow the bottom picture.
#
# - At t = 0 only device 0 has work. At t = 1 micro-batch 0 has reached device 1, and device 0 already works on
#   micro-batch 1. At t = 3 all four devices work, each on a different micro-batch. This phase is the **fill**.
# - At t = 4 device 0 has no forward left. The other devices run out of forwards one by one. This phase is the
#   **drain**. The last device finishes F3 at t = 7 and starts its backwards.
# - Then the same happens in the other direction. The backwards fill the pipeline from device 3 up to device 0, and
#   device 0 finishes last.
#
# The next cell asks the timeline why each device waits. Then make a guess before you go on. We will cut the same 64
# sequences into m = 8 micro-batches of 8, on the same four devices.

# %%
for gap in gpipe.timeline.gaps():
    print(f"t = {gap.start:>2g} to {gap.end:>2g}: {gap.sentence}")
predict("02-eight", "GPipe with p = 4 and m = 8: what percentage of total device time is idle?", unit="%")

# %%
eight = run(build_schedule("gpipe", devices=4, microbatches=8))
display(reveal("02-eight", prediction=100 * 3 / 11, measurement=100 * eight.timeline.bubble_fraction))
explore("gpipe", devices=4, microbatches=8, free=["m", "p"], fixed="batch")

# %% [markdown]
# This is the **explorer**: you can change m and p, and choose whether the batch or the micro-batch is fixed. It starts
# with the batch of this lesson, fixed at 64 sequences. Its unit of time is 16 sequences through one device's layers,
# for every m. The unit clock takes one micro-batch as a unit. So at m = 8 the run above took (8 + 3) · 2 = 22 units of
# the unit clock, where a unit is 8 sequences. The explorer shows the same makespan as 11 units. (α is
# a fixed cost of each action, here 0. Lesson 5 measures it.) *Run it* runs your settings on the 48-layer model, and
# puts the measured timeline below the predicted one.
#
# **Try it:** make m larger at p = 4. What changes: the work of a device, or its idle time? Then switch to a fixed
# micro-batch of 16, and change m again. Last, set m = 8 and make p larger: which idle times become longer?
#
# <details><summary>What you should see, and why</summary>
#
# At a fixed batch the work of a device stays at 8 units. The idle time shrinks, because each device waits for smaller
# pieces: 6 units at m = 4, 3 at m = 8, 1.5 at m = 16. At a fixed micro-batch it is the other way round. The idle time
# stays at 6 units, and each further micro-batch adds 2 units of work. The bubble fraction is the same in both cases,
# for instance 3/11 at m = 8. More devices make the idle time of each device longer, because a micro-batch passes more
# devices on its way down and back. Each device then holds fewer layers, so the same unit stands for less real time.
#
# </details>
#
# ## Two measures of one bubble
#
# Every device idles for the same total time, in three parts. This is device r, counted from 0:
#
# | when | why | how long |
# | --- | --- | --- |
# | before its first forward | micro-batch 0 still passes the r devices before device r | $r\,t_F$ |
# | between forwards and backwards | the last micro-batch goes down, a gradient comes up | $(p - 1 - r)(t_F + t_B)$ |
# | after its last backward | the last gradient still passes the r devices before device r | $r\,t_B$ |
#
# The sum is $(p - 1)(t_F + t_B)$. The r cancels, and m does not appear at all. (At a fixed batch m is hidden in $t_F$
# and $t_B$: they shrink as m grows.) A device works for $m\,(t_F + t_B)$. These two times give two measures:
#
# $$\textbf{bubble fraction} = \frac{\text{idle}}{\text{idle} + \text{work}} = \frac{p - 1}{m + p - 1}
# \qquad\qquad \textbf{bubble ratio} = \frac{\text{idle}}{\text{work}} = \frac{p - 1}{m}$$
#
# The fraction says how much of total device time is lost. One minus the fraction is the utilisation. The ratio says how
# much longer the step takes than its ideal time, $m\,(t_F + t_B)$. Both measures are in use, and texts do not always
# name them. GPipe's paper gives the fraction (section 2.3). Narayanan et al. (2021, arXiv 2104.04473, section 2.2) give
# the ratio. In the fraction and in the ratio, $t_F$ and $t_B$ cancel. The makespan is $(m + p - 1)(t_F + t_B)$. All
# this assumes equal micro-batches, equal stages, and messages that take no time.
#
# In practice a backward takes about twice as long as a forward. Do the formulas still hold? And do they hold with
# *measured* costs? The last four lines of the table below come from the device clock of lesson 1b, or are simulated
# from what it measured. It measures what every action costs where it runs, and puts the costs together as if each
# stage had a device of its own.


# %%
def averages(timeline):
    """Each stage's average forward and backward: Costs for the simulator."""
    names = {"F": "forward", "B": "backward"}
    times = {}  # for each kind of action a list of durations for each device
    for span in timeline.spans:
        times.setdefault(names[span.slot.op], [[] for _ in range(4)])[span.device].append(span.duration)
    return Costs(**{name: [sum(row) / len(row) for row in rows] for name, rows in times.items()})


def line(words, m, t):
    print(f"{words:<26}{m:>3}{3 / (m + 3):>13.3f}{t.bubble_fraction:>8.3f}{3 / m:>13.3f}{t.bubble_ratio:>8.3f}")


print(f"{'costs':<28}m     fraction: formula, run   ratio: formula, run")
tables = {m: build_schedule("gpipe", devices=4, microbatches=m) for m in (1, 2, 4, 8, 16)}
for backward in (1, 2):
    for m in (4, 8):
        given = Costs(forward=1, backward=backward)
        line(f"unit: tF = 1, tB = {backward}", m, run(tables[m], costs=given).timeline)
measured = {m: run(tables[m], "device", steps=4).timeline for m in (4, 8)}
for m, timeline in measured.items():
    line("device: as measured", m, timeline)
    line("device: each stage's mean", m, simulate(tables[m], averages(timeline)))
apart = max(abs(t.bubble_ratio / (3 / m) - 1) for m, t in measured.items())
print(f"largest difference between a measured ratio and its formula: {apart:.0%}")

# %% [markdown]
# With given costs the formulas hold to the last digit. With measured costs the bubble is usually larger. The last
# line says by how much the ratio is off at most. One reason is that the stages do not cost the same. Device 0 also
# has the embedding, device 3 has the head, and a busy machine disturbs one stage more than another. In the lines with
# *each stage's mean* a simulation gives every action the mean cost of its stage. So they show the effect of this
# reason alone. The rest, upwards or downwards, is random: no action costs the same twice, and a late one can make
# other devices wait.
#
# In the explorer's units GPipe takes 14 at m = 4 and 11 at m = 8. The work alone takes 8, and no m gets below that. In
# both formulas a larger m always shrinks the bubble. Lesson 5 shows why very small micro-batches do
# not pay off on a real device.
#
# **Try it:** take p = 3 devices with 16 layers each. At which m is their bubble as large as that of p = 2 devices at
# m = 8? Derive it, then set both in the explorer above, and run them.
#
# <details><summary>What you should see, and why</summary>
#
# Set the fractions equal: 1/9 = 2/(m + 2), so m = 16. The ratio shows it faster: (p - 1)/m has to stay 1/8, and p - 1
# doubles, so m has to double too. The explorer predicts 11.1 % for both. *Run it* shows measured bubbles that differ
# from 11.1 % and from each other, for the reasons above. At m = 16 the micro-batches are also smaller, and then they
# cost more for each sequence.
#
# </details>
#
# ## A claim on trial
#
# *"With p = 4 and m = 16, GPipe's bubble is 18.8 %."*

# %%
sixteen = run(tables[16]).timeline
print(f"idle over total device time {sixteen.bubble_fraction:.1%}, idle over work {sixteen.bubble_ratio:.2%}")

# %% [markdown]
# The number is right, but it does not say which measure it is. It is the *ratio*: the step takes 18.8 % longer than
# its work. The lost share of total device time is 15.8 %. If someone compares two systems by "the bubble", ask
# whether the fraction or the ratio is meant.

# %% [markdown]
# ## Break it
#
# Here is GPipe's table with one change: device 1 runs `1B0` a little early, before `1F3`. It looks harmless. In lesson
# 0's table device 1 has the very same row. Before you run the cell: what would device 1 wait for, and what would that
# wait for?

# %%
early = """
0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3
1F0,1F1,1F2,1B0,1F3,1B1,1B2,1B3
2F0,2F1,2F2,2F3,2B0,2B1,2B2,2B3
3F0,3F1,3F2,3F3,3B0,3B1,3B2,3B3
"""
try_schedule(early)

# %% [markdown]
# Devices 1 and 2 wait for each other. Device 1 wants `2B0` before it runs `1F3`, and device 2 wants `1F3`'s result
# before it runs `2B0`. Yet the row is the one of lesson 0. So a row is not wrong by itself: the rows have to fit
# together. The checker predicts that neither will ever continue, and the runtime refuses such a table. The devices in
# the next cell use no checker: each row of the table gets a thread. The thread runs the actions of its row one after
# the other, and waits for what each one needs from its neighbour. If nothing comes for a second, it gives up and says
# so.

# %%
import threading


def careless(table):
    rows = [line.split(",") for line in table.split()]
    done = {action: threading.Event() for row in rows for action in row}
    never = threading.Event()  # for an action that is not in the table
    stuck = {}

    def device(row):
        for action in row:
            stage, op, i = int(action[0]), action[1], action[2:]
            neighbour = stage - 1 if op == "F" else stage + 1  # activations come down, gradients come up
            needed = f"{neighbour}{op}{i}"
            if 0 <= neighbour < len(rows) and not done.get(needed, never).wait(timeout=1):
                stuck[stage] = f"device {stage} hangs before {action}: {needed} never came"
                return
            done[action].set()

    threads = [threading.Thread(target=device, args=(row,)) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(stuck[r] for r in sorted(stuck)) or "all done")


careless(early)

# %% [markdown]
# Devices 1 and 2 hang as predicted, and the other two wait for them. On real devices often nothing reports which
# action was missing: the job stands still until a time limit ends it or someone notices.
#
# **Try it:** repair `early` without touching device 1's row. (What is different in lesson 0's table?) Then put `1B0`
# back behind `1F3`, and make other changes, each in both cells:
#
# - On device 2 swap `2F0` and `2F1`. Can it run? How long does it take?
# - Let *every* device run its backwards in the order B3, B2, B1, B0. Then do the same on device 1 alone.
# - Leave out `0B2`. No other device waits for it, so `careless` prints *all done*. What would be wrong with the
#   gradient? See what the checker says.
#
# <details><summary>What you should see, and why</summary>
#
# - Device 1 needs the gradient of micro-batch 0 before device 3 has its last forward. So devices 2 and 3 have to run
#   their B0 earlier too: `2F0,2F1,2F2,2B0,2F3,2B1,2B2,2B3`, and the same for stage 3. The table then takes 18 units.
#   In lesson 0's table they run their backwards still earlier, and it takes 14.
# - With the swap it can run, and takes 16 units instead of 14. Device 2 waits one unit for F1, although F0 is there.
#   Device 3 then gets F0 two units late, and every backward waits for device 3.
# - On every device it costs nothing: 14 units. All devices still agree on one order. On device 1 alone it takes 20.
#   Device 1 wants B3 first, but device 2 sends B3 last. And device 1 sends B0 last, which device 0 wants first. So
#   the backwards of device 1 overlap neither those of device 2 nor those of device 0.
# - The checker says that `0B2` is missing on device 0. The gradient of stage 0 would lack micro-batch 2. Nothing would
#   hang, so nothing would show it.
#
# </details>
#
# You can also break the table by hand. The last cell of this page, under *Further*, lets you choose an action and drop
# it, swap it, or start it early.
#
# ## What to remember
#
# - Cutting a batch into micro-batches saves no time. Overlapping them does.
# - GPipe runs all forwards, then all backwards. Each device idles for $(p - 1)(t_F + t_B)$.
# - The bubble fraction is $(p - 1)/(m + p - 1)$, the bubble ratio $(p - 1)/m$. Name the one that you mean.
# - The rows of a table have to fit together. Otherwise devices wait for each other forever, and real devices may not
#   tell you why.
#
# **Where this leads.** GPipe keeps all micro-batches on their way at the same time, and adds up their gradients.
# Lesson 2b asks whether the gradient is still that of the whole batch, and what overlap costs in memory.

# %%
ledger()

# %% [markdown] role="further"
# ## Further: break it by hand
#
# Choose an action of GPipe's table. You can drop it, swap it with the next one, or start it before its input is
# there. First you read what the checker says. Then you see what would happen: how far it runs, which device waits
# forever and for what, and which micro-batch is missing in which gradient.
#
# **Try it:** not every change is a fault. Find a swap that costs nothing, and run it.
#
# <details><summary>What you should see, and why</summary>
#
# Swap `3F3` with `3B0`. Device 3 needs no gradient from another device, so B0 may run as soon as F0 is done. Device 3
# is busy all the time from t = 3 to t = 11 in either order. Any other swap of neighbours makes the step longer, or
# hangs. Lesson 3 builds on this one.
#
# </details>

# %% role="further"
break_schedule("gpipe", devices=4, microbatches=4)

# %% [markdown] page="exercises"
# Two exercises: the serial run, and GPipe.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="serial" difficulty="easy" minutes=10
# Send micro-batches through one after the other, without overlap: micro-batch 0 through all devices and back, then
# micro-batch 1, and so on.
#
# - `serial_rows` returns the table: a list with one row for each device, in the order of the devices. A row lists the
#   actions of that device in the order in which it runs them. An action is a string: `"0F0"` is stage 0, forward,
#   micro-batch 0. Device r holds stage r.
# - `serial_makespan` returns the time from the first start to the last end. `forward` and `backward` are the times of
#   *one micro-batch on one device*. Messages are not free here: each message from a device to its neighbour takes
#   `latency`, which may be 0.


# %% role="answer" exercise="serial"
def serial_rows(devices: int, microbatches: int) -> list[list[str]]:
    """The actions of each device, in order, where no two micro-batches are in the pipeline at the same time.

    >>> serial_rows(2, 1)
    [['0F0', '0B0'], ['1F0', '1B0']]
    """
    ### BEGIN SOLUTION
    return [[f"{r}{op}{i}" for i in range(microbatches) for op in "FB"] for r in range(devices)]
    ### END SOLUTION


def serial_makespan(devices: int, microbatches: int, forward: float, backward: float, latency: float) -> float:
    """The time of the whole serial step.

    >>> serial_makespan(4, 4, forward=1, backward=1, latency=0)
    32
    """
    ### BEGIN SOLUTION
    messages = 2 * (devices - 1)
    return microbatches * (devices * (forward + backward) + messages * latency)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="serial"
# How long does one micro-batch take, down and back? When may the next one start?

# %% [markdown] role="hint" exercise="serial"
# Each device finishes a micro-batch, forward and then backward, before it touches the next. The rows differ only in the
# stage. For the time, follow one micro-batch and count what happens to it: forwards, backwards and messages.

# %% [markdown] role="hint" exercise="serial"
# Write the rows for p = 2 and m = 2 by hand. Along a row, which changes more slowly: the letter or the micro-batch?
# That is the outer loop. For the time, draw two devices and the messages between them. How many messages does one
# micro-batch need? How many with three devices?

# %% [markdown] role="solution" exercise="serial"
# An order without times is enough to keep the micro-batches apart. Device 0 does not start micro-batch 1 before its
# last action of micro-batch 0, and no device has anything to do with micro-batch 0 after that. A micro-batch crosses
# each of the p - 1 borders twice, down and up. Without messages, cutting gives exactly the time of the uncut batch.
# With them it takes longer, because every micro-batch sends its own.

# %% [markdown] role="lead" exercise="gpipe" difficulty="medium" minutes=10
# Write GPipe for any number of devices p and any number of micro-batches m. Return one row of actions for each
# device, as a list of strings. Each device runs all its forwards, micro-batch 0 first, and then all its backwards.
# The backwards may run in the order 0, 1, ... or in the reverse order. Both are GPipe, and both are graded as right,
# as long as all devices do the same.
#
# The last part of the check trains a narrow 48-layer model with your schedule, and compares its gradients with those
# of the unsplit model. When all parts pass, watch your schedule in a new cell: `try_schedule(gpipe, devices=4,
# microbatches=8)`, after `from pipelab import try_schedule`.


# %% role="answer" exercise="gpipe"
def gpipe(devices: int, microbatches: int) -> list[list[str]]:
    """GPipe's schedule: the actions of each device, in order.

    >>> gpipe(2, 1)
    [['0F0', '0B0'], ['1F0', '1B0']]
    """
    ### BEGIN SOLUTION
    return [[f"{r}{op}{i}" for op in "FB" for i in range(microbatches)] for r in range(devices)]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="gpipe"
# All devices run the same order of letters and micro-batches. Which of the three parts of `2F0` differs from row to
# row?

# %% [markdown] role="hint" exercise="gpipe"
# A row is two lists joined: m forwards, then m backwards. Nothing depends on the place of the device in the pipeline.
# Waiting is not an action: the runtime waits where an input is not there yet.

# %% [markdown] role="hint" exercise="gpipe"
# Write row 2 for m = 3 by hand. It has six actions. Read them from left to right: which part changes with every action,
# and which changes only once? One of your loops has to stand inside the other.

# %% [markdown] role="solution" exercise="gpipe"
# Compare this with the serial rows: the loops over letters and over micro-batches have changed places. That is the
# whole difference between 32 units and 14.
