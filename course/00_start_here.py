# ---
# jupyter:
#   pipelab:
#     number: 0
#     title: Start here
#     minutes: 10
#     builds_on: []
#     goals:
#       - run a 48-layer model as a pipeline on this machine
#       - read a timeline, and say how much of it is idle
#       - get an exercise graded
# ---

# %% [markdown]
# Run the cell below with Shift + Enter: it shows a pipeline at work. Four devices train one model, and each of them
# holds a quarter of its layers. The numbered pieces of a batch pass through the devices, forward and back. A circle is
# a message from one device to another. *Pause* stops the animation, and *Step* goes to the next event. This lesson
# explains what you see.

# %% jupyter={"source_hidden": true}
from pipelab import TimelineView, build_schedule, simulate

at_work = simulate(build_schedule("1f1b", devices=4, microbatches=4))
TimelineView(at_work, title="A pipeline at work: 4 devices, 4 micro-batches", play=True, phases=False)

# %% [markdown]
# ## How do you train a model that is too large for one device?
#
# A model that is too large for one device is cut into pieces. Each piece, a run of neighbouring layers, is a **stage**,
# and lives on a **device** of its own. A batch of text is cut too, into **micro-batches**, so that several devices can
# work at once, each on another micro-batch. That is a **pipeline**.
#
# The example of this course, from here to the end: 48 transformer layers on p = 4 devices, 12 on each, and a batch of
# 64 sequences as m = 4 micro-batches of 16. A sequence is 32 bytes of text, and the model learns to tell each next
# byte. The layers are narrow, so that a laptop runs a step in about a second; the text, the gradients and the timing
# are real. Run each cell with Shift + Enter. The first one brings in every name that this lesson uses, and shows a
# sequence, cut off as it is.

# %% role="setup"
from pipelab.teaching import *

inputs, targets = text_batch(batch=64)  # 64 sequences of real text: Python's own language reference
print(bytes(inputs[0].tolist()).decode())

# %% [markdown]
# ## A schedule is a table
#
# Which device runs what, in which order, is a **schedule**. Here is one, a row per device. `2F0` means: on stage 2, the
# **forward** (F) of micro-batch 0. `2B0` is its **backward** (B): the gradient of the same 12 layers for the same
# micro-batch. Counting starts at 0. A dot is a slot of time in which the device waits.
#
# How it is made is the subject of lessons 2 and 3. For now, read it: micro-batch 0 goes down the devices as 0F0, 1F0,
# 2F0, 3F0, and its gradient comes back up as 3B0, 2B0, 1B0, 0B0.
#
# Before you run on, commit to a number: run the cell, type your guess into the field below it, press Commit, then run
# the next cell. Nothing is graded here; the page keeps your guesses beside what was measured.

# %%
schedule = build_schedule("1f1b", devices=4, microbatches=4)
print(schedule)
predict("00-idle", "Of all slots of all four devices, how many per cent are idle?", unit="%")

# %% [markdown]
# ## Run it
#
# The table now drives the real model. Each device is a thread of this notebook, or a GPU where there are GPUs:
# activations go from one to the next, gradients come back.

# %%
model = TransformerLM(layers=48)
pipeline = Pipeline(model, schedule, loss=next_byte_loss, clock="unit")
report = pipeline.step(inputs, targets)
timeline = report.timeline
print(f"loss {report.loss:.3f} after {timeline.makespan:g} units of time")
TimelineView(timeline)

# %% [markdown]
# Under this picture's clock, the **unit clock**, every forward and every backward is counted as one unit of time,
# whatever it took here. So the picture is a textbook's timetable, but of a run that happened. (Other clocks come in
# lesson 1.)
#
# How to read it:
#
# - Each row is a device. Blue is forward, orange backward; the letter says so too, the number is the micro-batch.
# - From the first start to the last end is the **makespan**.
# - Hatched time is idle. All of it together is the **bubble**; as a part of all device-time it is the **bubble
#   fraction**.
# - The strip below a row shows what the device holds in memory meanwhile: what a forward leaves for its backward. (The
#   grey strip above it names phases, which lesson 3 explains.)
#
# The picture answers questions. Point at a block, or click into the picture and use the arrow keys: it says what the
# action waited for and what waits for it. Point at idle time: it says why the device idles. *Step* goes through the run
# moment by moment. (Where a page shows no widgets, as on a printed page, the same picture stands still.)

# %%
reveal("00-idle", prediction=100 * 3 / 7, measurement=100 * timeline.bubble_fraction)

# %% [markdown]
# Each device works 8 of the 14 slots, 4 forwards and 4 backwards, and idles 6: 6/14 = 3/7. Each idle slot has a reason:
# what the device's next action waits for. (That 1B0 is next after 1F2, and not 1F3, is the table's choice; lesson 3
# says why.) Point at the gaps of device 1, or ask for them as text:

# %%
for gap in timeline.gaps(device=1):
    print(f"t = {gap.start:g} to {gap.end:g}: {gap.sentence}")

# %% [markdown]
# ## A claim on trial
#
# *"Four devices do the work in a quarter of the time."* All devices together worked as long as one device would have
# worked alone. So:

# %%
work = sum(timeline.busy)
print(
    f"{work:g} units of work, done in {timeline.makespan:g}: {work / timeline.makespan:.2f} times as fast as one device"
)

# %% [markdown]
# Not four times. What is missing is the bubble, and the lessons that follow are about making it small, what that costs
# in memory and in messages, and how to choose.
#
# ## Is it still the same training?
#
# A pipeline has to compute what the model in one piece computes, or it is wrong. `verify` runs the batch both ways and
# compares all gradients: the largest difference, as a part of the largest gradient. In float64 only rounding is left.

# %%
exact = Pipeline(TransformerLM(layers=48).double(), schedule, loss=next_byte_loss)
print(f"largest gradient error: {exact.verify(inputs, targets):.1e}")

# %% [markdown]
# ## Break it
#
# A schedule of your own is text: one row per device. `try_schedule` asks the **checker** whether it can run, and if so
# trains the 48-layer model with it. This one, for two devices, has a mistake in its second row: what is wrong with it?

# %%
try_schedule("""
0F0,0F1,0B0,0B1
1B0,1F0,1F1,1B1
""")

# %% [markdown]
# Change places of `1B0` and `1F0` and run the cell again: now it trains. Then try to break it in another way: leave an
# action out, or let device 0 run `0B0` before `0F1`. Is that wrong too?
#
# ## Draw one yourself
#
# A table is easier to read once you have made one. On the board below choose a cell and then what to place there; what
# may not stand there says why. The first puzzle has two devices and two micro-batches. When it is done press *Run it*:
# your table trains the 48-layer model, and its gradients are compared with those of the model in one piece. The ladder
# of puzzles above the board follows the lessons; come back to it as you go. What you draw is kept in `drawings/`.

# %%
puzzles("first-steps")

# %% [markdown]
# ## What this machine has
#
# `pipelab doctor`, here or in a terminal, says what the course will do on this machine.

# %%
print(examine())

# %% [markdown]
# Your guesses so far (the list grows over the course):

# %%
ledger()

# %% [markdown] page="exercises"
# This first exercise is short: it shows how grading works.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="utilisation" difficulty="easy" minutes=5
# A timetable is a list of rows, one per device. A row is a list of cells, one per time slot: the text of an action, or
# `"."` where the device idles. All rows are equally long. Write the function that says which part of all device-time is
# busy, as a fraction between 0 and 1: the **utilisation**.


# %% role="answer" exercise="utilisation"
def utilisation(rows: list[list[str]]) -> float:
    """The busy part of all cells of a timetable, between 0 and 1.

    >>> utilisation([["0F0", ".", ".", "0B0"], [".", "1F0", "1B0", "."]])
    0.5
    """
    ### BEGIN SOLUTION
    cells = [cell for row in rows for cell in row]
    return sum(cell != "." for cell in cells) / len(cells)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="utilisation"
# All devices count together: put the cells of all rows in one list first.

# %% [markdown] role="hint" exercise="utilisation"
# Count the cells that are not `"."`, and divide by the number of all cells.

# %% [markdown] role="hint" exercise="utilisation"
# Two loops in one comprehension, `for row in rows for cell in row`, give all cells. Booleans add up: `sum` over
# comparisons counts those that hold.

# %% [markdown] role="solution" exercise="utilisation"
# The part that is missing to 1 is the bubble fraction.
