# ---
# jupyter:
#   pipelab:
#     number: 3b
#     title: "1F1B beside GPipe: time and memory"
#     minutes: 40
#     builds_on: [3]
#     goals:
#       - compare 1F1B with GPipe in time and in memory, and say what the comparison holds fixed
#       - give the lower bound that both reach, and its assumptions
#       - say from which side memory bounds m, at a fixed batch and at a fixed micro-batch
#       - find the faults in a printed timetable
# ---

# %% [markdown]
# ## Is 1F1B faster, smaller, or both?
#
# Lesson 3 made the order of **1F1B**: device r runs p - 1 - r forwards first, then a forward and a backward in turn.
# This page puts it beside GPipe. The folded cell has `measured` of lesson 3. This function runs several orders in
# turns on the device clock.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
gpipe = build_schedule("gpipe", devices=4, microbatches=8)
eight = build_schedule("1f1b", devices=4, microbatches=8)


# %% jupyter={"source_hidden": true}
def measured(orders):
    """Five steps of each order, on the device clock. The orders take turns, so all meet the same conditions."""
    pipelines = {name: Pipeline(model, order, loss=next_byte_loss, clock="device") for name, order in orders.items()}
    for _ in range(5):
        reports = {name: pipeline.step(inputs, targets) for name, pipeline in pipelines.items()}
    return {name: report.timeline for name, report in reports.items()}


# %%
plot_schedules([simulate(gpipe, batch=64), simulate(eight, batch=64)], ["GPipe", "1F1B"], memory=True)

# %% [markdown]
# ## A claim on trial: "1F1B has a smaller bubble than GPipe"
#
# This is often said. One survey on the web has GPipe 75 % busy and 1F1B 92 %. Counted in slots, the two tables take
# equally long. Now compare both on the device clock, in turns, with p = 4, m = 8 and the batch of 64. The last lines
# ask the simulator how many micro-batches the survey's figures need.

# %%
both = measured({"GPipe": gpipe, "1F1B": eight})
for name, timeline in both.items():
    peaks = ", ".join(f"{peak / 1e6:.1f}" for peak in timeline.peak_bytes)
    print(f"{name}: {timeline.bubble_fraction:.1%} idle, {timeline.message_count} messages, peaks {peaks} MB")
display(plot_schedules(list(both.values()), list(both), memory=True))
for busy in (0.75, 0.92):
    enough = (m for m in range(1, 100) if simulate(build_schedule("1f1b", 4, m)).utilisation >= busy)
    print(f"1F1B is busy {busy:.0%} of the time from m = {next(enough)} on")

# %% [markdown]
# The formula is the same for both, (p - 1)/(m + p - 1). Measured costs scatter, so the two measured figures differ. If
# you run the cell again, the other one may be smaller, and the makespans may differ more or less. To get the survey's
# two figures one has to compare different m. With equal m and free messages the claim is false. There is a reason.
#
# Device p - 1 cannot start before micro-batch 0 has passed the p - 1 devices above it. Then it has work for m(tF +
# tB). After its last backward, p - 1 more backwards go up. Suppose that each device has one stage, that all stages
# are alike, that messages are free, and that a backward is *one piece*. Then no order takes less than
#
# $$(p - 1)\,t_F + m\,(t_F + t_B) + (p - 1)\,t_B = (m + p - 1)(t_F + t_B).$$
#
# GPipe reaches this bound, and so does 1F1B. Only memory differs, as the strips show. The number of messages and the
# work are the same. Each assumption matters. Lesson 4 drops the first. *Further: a backward in two pieces*, below,
# drops the last and takes less time than this bound. With slow messages 1F1B takes longer than GPipe, and *Further:
# when messages take time* shows by how much.
#
# ## How much memory?
#
# First ask what is held fixed. Let it be the **batch** of 64 sequences: with more micro-batches, each is smaller.
# Lesson 2b measured that GPipe then holds the whole batch on every device, for any m. What does 1F1B hold?

# %%
predict("03b-held", "m = 16, batch 64. What percentage of GPipe's peak does device 0 hold under 1F1B?", unit="%")


# %%
def peaks(name, m, batch):
    """Measured: the most activation bytes that each device held in a step."""
    pipeline = Pipeline(model, build_schedule(name, devices=4, microbatches=m), loss=next_byte_loss, clock="unit")
    return pipeline.step(*text_batch(batch=batch)).peak_activation_bytes


counts = [2, 4, 8, 16]
names = {"GPipe": "gpipe", "1F1B": "1f1b"}
same_batch = {shown: [peaks(name, m, batch=64)[0] / 1e6 for m in counts] for shown, name in names.items()}
same_slice = {shown: [peaks(name, m, batch=4 * m)[0] / 1e6 for m in counts] for shown, name in names.items()}
axes = {"across": "micro-batches m", "up": "peak of device 0, MB of activations"}
note = "Measured on device 0 in real runs: what autograd keeps, and inputs and messages waiting. No clock is involved."
display(plot_curves(counts, same_batch, **axes, title="Batch fixed: 64 sequences in m micro-batches", note=note))
display(plot_curves(counts, same_slice, **axes, title="Micro-batch fixed: m times 4 sequences", note=note))
one = same_slice["GPipe"][0] / counts[0]  # MB that one micro-batch of 4 sequences takes on device 0
for room in (5, 3):
    for shown, held in same_slice.items():
        fits = [m for m, peak in zip(counts, held, strict=True) if peak <= room * one]
        print(f"room for {room} micro-batches: of m = {counts} {shown} can run {fits}")
reveal("03b-held", prediction=100 * 4 / 16, measurement=100 * same_batch["1F1B"][-1] / same_batch["GPipe"][-1])

# %% [markdown]
# At m = 16 device 0 holds a quarter of what GPipe holds, and the table has as many slots as GPipe's.
#
# | held fixed | GPipe, every device | 1F1B, device r |
# | --- | --- | --- |
# | batch of B sequences | B, for any m | B · min(p - r, m)/m: falls as soon as m exceeds p - r |
# | micro-batch of b sequences | b · m: grows with m | b · min(p - r, m): grows up to m = p - r, then stays |
#
# Three things to keep:
#
# - While m is at most p, device 0 saves nothing. So use several times as many micro-batches as devices.
# - At a fixed batch, memory bounds m from *below* under 1F1B: cut finer until it fits. GPipe has no such way out,
#   unless it recomputes.
# - At a fixed micro-batch size, memory bounds m from *above* under GPipe. Under 1F1B the bound is there only if p
#   micro-batches do not fit. With room for 5, any m runs under 1F1B. With room for 3, neither schedule can run m = 4.
#
# In the second picture, with the micro-batch fixed, GPipe at m = 4 and 1F1B at m = 16 hold the same. GPipe then idles
# 3/7 of the time, 1F1B 3/19. In this way 1F1B can be faster for each sequence: it can afford a larger m, and with it
# a larger batch. Its bubble at equal m is not smaller.
#
# 1F1B does not save time at equal m. Nor does it save messages, weights, gradients or optimizer state. And the devices
# no longer hold equally much: device 0 holds the most and runs out of memory first. Some texts recommend GPipe for
# tight memory and 1F1B for ample memory. It is the other way round.
#
# ## Another claim on trial: a published timetable
#
# A text on the web explains pipelining with our example: 48 layers, 4 GPUs, 64 sequences, 4 micro-batches, 1F1B. Below
# is its timetable, turned so that rows are GPUs and columns are time slots. A dash is idle time. It ends after 10
# slots, and the bound above says 14. The text counts micro-batches from 1, and one line of the cell converts that. A
# `TimeTable` keeps the time of each action; a `Schedule` keeps only the order.

# %%
published = """
F1 F2 F3 F4 -  -  B1 B2 B3 B4
-  F1 F2 F3 F4 B1 B2 B3 B4 -
-  -  F1 F2 F3 F4 B1 B2 B3 B4
-  -  -  F1 B1 B2 B3 B4 -  -
"""
lines = [line.split() for line in published.strip().splitlines()]
cells = [[c if c == "-" else f"{r}{c[0]}{int(c[1]) - 1}" for c in line] for r, line in enumerate(lines)]
table = TimeTable.from_csv("\n".join(",".join(row) for row in cells))
print(table.to_grid())
predict(
    "03b-faults",
    "Judge each action alone, at the printed times. How many start before their input is there, or never get it?",
    unit="actions",
)

# %%
violations = check_schedule(table)
for violation in violations:
    print(violation)
places = {(violation.device, violation.position) for violation in violations if violation.position is not None}
display(plot_table(table, marked=places, note="Framed: actions that cannot run there."))
reveal("03b-faults", measurement=len(places))

# %% [markdown]
# The checker compares times: is each input there when its slot starts? The words in brackets are its codes.
#
# - `too-early`: device 1 starts each backward two slots before device 2 has computed the gradient.
# - `missing`: device 3 never runs the forwards of micro-batches 1 to 3. (These three have no slot, so they are not
#   among the framed actions.)
# - `no-input`: so on device 3 the backwards of micro-batches 1 to 3 have nothing to go back through.
#
# Device 0's wait at t = 4 and 5 is *not* framed, because waiting is never a fault. The checker also accepts that
# devices 1 and 2 run all forwards first. That is sound. It is GPipe's order, not 1F1B's. (At m = p device 0 runs the
# same row in both.)
#
# **Try it:** give device 3 its forwards, `3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3`. Keep the order of the other rows, and pass
# the four rows to `try_schedule` as text. How many slots does the repaired table take, and how much does each device
# hold?
#
# <details><summary>What you should see, and why</summary>
#
# The other rows, without idle time, are `0F0,0F1,0F2,0F3,0B0,0B1,0B2,0B3`, and the same with stage 1 and stage 2. The
# table is now sound. It takes 14 slots, as the bound says. Device 3 works without a pause from t = 3 to t = 11, and
# then its last gradient passes three devices. Devices 0, 1 and 2 hold 4 micro-batches each, and device 3 holds 1. Three
# devices run GPipe's order, and only the last one runs 1F1B's.
#
# </details>
#
# ## Break it: swap two neighbours
#
# The faults above came from a printed table. Now make your own, in the board below. Click an action, then choose what
# to do with it. In device 1's row swap an F with the B that follows it. Is the order sound, or does it wait forever?
# What does device 1 then hold? Then swap a B with the F that follows it.
#
# <details><summary>What you should see, and why</summary>
#
# Both swaps leave the order sound. If B goes before F, device 1 holds no more than before. But the step takes 24
# units in place of 22, because device 2 waits for the later forward. If F goes before B, device 1 holds 4 in place of
# 3. The step then takes 24 units too, because device 0 waits for the gradient. In this second case the first and the
# last such pair stay at 22: there a slot that was idle absorbs the change.
#
# </details>

# %%
break_schedule("1f1b", devices=4, microbatches=8)

# %% [markdown]
# ## What to remember
#
# - At equal m, with a flush and messages that take no time, the bubble of 1F1B is that of GPipe: (p - 1)/(m + p - 1).
#   While a backward is one piece and each device holds one stage, no order has a smaller one.
# - Device r has at most min(p - r, m) micro-batches in flight, not m. So 1F1B can afford a larger m.
# - Before you compare memory, say what is held fixed: the batch or the micro-batch.
#
# **Where this leads.** 1F1B needs less memory. If messages are free, it leaves the bubble as it is. Lesson 4 cuts
# the bubble at the same m: it gives each device several shorter stages. Lesson 5 measures which m is best once memory
# allows more. Your guesses so far:

# %%
ledger()

# %% [markdown] role="further"
# ## Further: when messages take time
#
# The equal bubbles above assume that messages take no time. If each message takes a while, the round trip of device 0
# is longer by 2(p - 1) messages. Its p micro-batches in flight then no longer fill the round trip, and in the steady
# phase each micro-batch follows the one before it a little later. GPipe pays for messages only while it fills and
# drains. A warm-up twice as deep hides these delays again, and holds more. The cell predicts the makespan and what
# device 0 has in flight, for p = 4, m = 16 and tF = tB = 1.

# %% role="further"
orders = {
    "GPipe": build_schedule("gpipe", devices=4, microbatches=16),
    "1F1B": build_schedule("1f1b", devices=4, microbatches=16),
    "1F1B, w = 2(p - 1 - r)": with_warmups([6, 4, 2, 0], 16),
}
for latency in (0, 0.1, 0.25, 0.5):
    for name, order in orders.items():
        timeline = simulate(order, Costs(forward=1, backward=1, latency=latency))
        held = timeline.peak_microbatches[0]
        print(f"a message takes {latency:<4}  {name:<23} {timeline.makespan:g} units, {held:g} in flight")

# %% [markdown] role="further"
# ## Further: a backward in two pieces
#
# The bound above assumes that a backward is one piece. It can be cut in two: the gradient of the input (I) and the
# gradients of the weights (W). The device above waits only for I, so W can wait until the device would idle. The cell
# takes the rows of 1F1B, with tF = 1 and tB = 2, and cuts each backward into I and W of 1 each. It runs W at once, or
# r backwards later on device r. The schedule ZB-H1 delays W in this way (*Zero Bubble Pipeline Parallelism*, Qi et
# al. 2024, arXiv 2401.10241).

# %% role="further"
whole = build_schedule("1f1b", devices=4, microbatches=8)


def in_halves(wait):
    """1F1B with I and W in place of B: on device r, W comes `wait(r)` backwards later."""
    rows = []
    for r, program in enumerate(whole.programs):
        row, late = [], []
        for action in program:
            if action.op == "F":
                row.append(action)
                continue
            row.append(Action(r, "I", action.microbatch))
            late.append(Action(r, "W", action.microbatch))
            if len(late) > wait(r):
                row.append(late.pop(0))
        rows.append(row + late)
    return Schedule.from_rows(rows, name="halves")


orders = {"1F1B": whole, "W at once": in_halves(lambda r: 0), "W put off": in_halves(lambda r: r)}
for name, order in orders.items():
    timeline = simulate(order, Costs(forward=1, backward=2))  # I and W take half of a backward each
    held = ", ".join(f"{n:g}" for n in timeline.peak_microbatches)
    print(f"{name:<9} {len(check_schedule(order))} faults, {timeline.makespan:g} units, in flight {held}")
plot_timeline(simulate(orders["W put off"], Costs(forward=1, backward=2)), phases=False)

# %% [markdown] role="further"
# Even W at once saves 3 units, because a gradient goes on before W has run. With W put off, 33 units become 27, below
# the bound for whole backwards. No device holds more than the 4 micro-batches that device 0 of 1F1B holds. The price
# is that now every device holds 4.
#
# ## Further: what is held fixed?
#
# The explorer below shows GPipe and 1F1B on one axis. Change m with the batch fixed. Then set the switch *What is
# fixed* to the micro-batch, and change m again. The curve shows what is in flight on the fullest device.
#
# <details><summary>What you should see, and why</summary>
#
# With the batch of 64 held fixed, GPipe's curve is flat at 64 sequences. 1F1B's curve is 64 up to m = 4, then falls
# as 64 · 4/m. With the micro-batch held fixed, at 16 sequences there, GPipe's curve rises as 16 m. 1F1B's curve stays
# at 64 from m = 4 on. These are the two rows of the table in *How much memory?*, for device 0.
#
# </details>

# %% role="further"
at_64 = {"fixed": "batch", "batch": 64, "forward": 2, "backward": 2}  # for 16 sequences; m = 8 has half of it
explore("gpipe", compare="1f1b", devices=4, microbatches=8, free=["m"], curve="held", **at_64)

# %% [markdown] page="exercises"
# p is the number of devices and m the number of micro-batches. r is a device, 0 to p - 1. Each device holds one stage,
# which has the same number.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="printed_timetable" difficulty="medium" minutes=20
# Here a timetable is a list of rows, one per device. A row has a cell for each time slot: an action, or `"."` where the
# device idles. Stage r is on device r. An action takes one slot. What it computes in slot t can be used from slot t + 1
# on. Micro-batches are numbered from 0 to the highest number that occurs in the table. Within each row, a forward
# stands before its own backward.
#
# Write the function that finds what is wrong. It returns a set of triples (device, slot, code). The codes are:
#
# - `"too-early"`: the action in that slot starts before something that it needs from another device is finished.
# - `"no-input"`: something that the action in that slot needs is nowhere in the table.
# - `"missing"`: a forward or backward of some stage and micro-batch is nowhere in the table. It has no slot. Write its
#   text in place of the slot, such as `(3, "3F1", "missing")`.
#
# An action whose needs fail in both ways gets both codes. The published timetable of the lesson is among the tables
# that the check tries. `check_schedule` does not answer while your function runs.


# %% role="answer" exercise="printed_timetable"
def faults(rows: list[list[str]]) -> set[tuple[int, int | str, str]]:
    """All faults of a timetable: (device, slot, code).

    >>> faults([["0F0", ".", "0B0"], [".", "1F0", "1B0"]])    # 1B0 is finished only when slot 2 is over
    {(0, 2, 'too-early')}
    """
    ### BEGIN SOLUTION
    slots = {cell: t for row in rows for t, cell in enumerate(row) if cell != "."}
    microbatches = 1 + max(int(action.replace("F", "B").split("B")[1]) for action in slots)
    found: set[tuple[int, int | str, str]] = set()
    for r in range(len(rows)):
        for i in range(microbatches):
            forward_needs = [f"{r - 1}F{i}"] if r > 0 else []
            backward_needs = [f"{r}F{i}"] + ([f"{r + 1}B{i}"] if r + 1 < len(rows) else [])
            for action, needs in ((f"{r}F{i}", forward_needs), (f"{r}B{i}", backward_needs)):
                if action not in slots:
                    found.add((r, action, "missing"))
                    continue
                for need in needs:
                    if need not in slots:
                        found.add((r, slots[action], "no-input"))
                    elif slots[need] >= slots[action]:
                        found.add((r, slots[action], "too-early"))
    return found
    ### END SOLUTION


# %% [markdown] role="hint" exercise="printed_timetable"
# What does a forward need? What does a backward need, on the last device and on the others? The rest follows from where
# these actions stand.

# %% [markdown] role="hint" exercise="printed_timetable"
# First make a dictionary from each action's text to its slot. Then go through the actions that *should* be there, for
# all stages and micro-batches, rather than through the cells. A backward needs its own forward. It also needs the
# backward of the stage behind, if there is one.

# %% [markdown] role="hint" exercise="printed_timetable"
# For each action that should be there, list the texts of what it needs. Then ask the dictionary two questions: is the
# action there, and is each need there? For a need that is there, compare two slots. May a need stand in the same slot
# as the action that uses it?

# %% [markdown] role="solution" exercise="printed_timetable"
# One missing forward shows up twice: as what is missing, and as the action that lacks it. To repair a table, begin with
# what is missing.

# %% [markdown] role="lead" exercise="what_fits" difficulty="medium" minutes=12
# A batch is cut into m equal micro-batches, so m divides the batch. A device holds `bytes_per_sequence` of activations
# for each sequence in flight. There are two limits:
#
# - Activations: no device may hold more than `limit` bytes of them. Weights and gradients are not counted here.
# - Idle time: the bubble fraction may be at most `idle`. Here tF = tB, messages are free, and nothing is recomputed.
#
# Which schedule keeps to both limits, and what is the least m with which it does? Return
#
# - `("gpipe", m)` if GPipe can, because its table is the simpler one;
# - otherwise `("1f1b", m)` if 1F1B can;
# - otherwise `("none", 0)`.


# %% role="answer" exercise="what_fits"
def choose(batch: int, devices: int, bytes_per_sequence: int, limit: int, idle: float) -> tuple[str, int]:
    """The schedule, and the least m that divides the batch and keeps to both limits.

    >>> choose(batch=64, devices=4, bytes_per_sequence=1_000_000, limit=20_000_000, idle=0.5)
    ('1f1b', 16)
    """
    ### BEGIN SOLUTION
    for name in ("gpipe", "1f1b"):
        for m in range(1, batch + 1):
            in_flight = m if name == "gpipe" else min(devices, m)
            held = in_flight * (batch / m) * bytes_per_sequence
            bubble = (devices - 1) / (m + devices - 1)
            if batch % m == 0 and held <= limit and bubble <= idle:
                return name, m
    return "none", 0
    ### END SOLUTION


# %% [markdown] role="hint" exercise="what_fits"
# The batch is held fixed here. Which of the two schedules can hold less than the whole batch at all?

# %% [markdown] role="hint" exercise="what_fits"
# Device 0 holds the most. How many micro-batches does it have in flight under each schedule, and how many sequences
# does each of them have? The bubble fraction is the same for both schedules. Lesson 2 has its formula. Lesson 2 also
# has the bubble ratio, which is something else.

# %% [markdown] role="hint" exercise="what_fits"
# Write a small function that says whether one schedule with one m keeps to both limits. With batch 64, p = 4 and 1 MB a
# sequence it should say that 1F1B holds 16 MB at m = 16. Then decide in which order to try names and m, so that the
# first success is the answer.

# %% [markdown] role="solution" exercise="what_fits"
# Under 1F1B memory is a lower bound on m, and so is the bubble. The larger of the two decides. The upper bound on m is
# left out here: small micro-batches are inefficient, and lesson 5 measures that.
