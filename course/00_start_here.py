# ---
# jupyter:
#   pipelab:
#     number: 0
#     title: Start here
#     minutes: 25
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

at_work = simulate(build_schedule("1f1b", devices=4, microbatches=6))
TimelineView(at_work, title="A pipeline at work", play=True, phases=False)

# %% [markdown]
# ## How do you train a model that is too large for one device?
#
# You cut the model into pieces. Each piece is a group of neighbouring layers, called a **stage**. Each stage lives on
# its own **device**. You also cut each batch of data into **micro-batches**, so that several devices can work at once,
# each on a different micro-batch. This is a **pipeline**.
#
# One example runs through the whole course. It is a transformer with 48 layers on p = 4 devices, 12 layers on each. A
# batch has 64 sequences, cut into m = 4 micro-batches of 16. A sequence is 32 bytes of text, and the model learns to
# predict each next byte. The layers are narrow, so that a laptop needs only seconds for a training step. The text and
# the gradients are real.
#
# Run each cell with Shift + Enter. The next cell brings in every name that this lesson uses, and shows the first
# sequence. It begins and ends in the middle of a sentence.

# %% role="setup"
from pipelab.teaching import *

inputs, targets = text_batch(batch=64)  # 64 sequences of real text: Python's own language reference
print(bytes(inputs[0].tolist()).decode())

# %% [markdown]
# ## A schedule is a table
#
# A **schedule** says which device runs what, and in which order. The cell below prints one, with a row for each device.
# Its name, 1F1B, is explained in lesson 3. `2F0` is the **forward** (F) of micro-batch 0 on stage 2. `2B0` is the
# **backward** (B) of the same micro-batch on the same stage. The backward computes the gradients. Counting starts at 0.
# Each column is a **time slot**. A dot means that the device waits in this slot.
#
# Lessons 2 and 3 show how such a table is made. For now, only read it. Micro-batch 0 goes down the devices as 0F0, 1F0,
# 2F0, 3F0. Its gradient comes back up as 3B0, 2B0, 1B0, 0B0.
#
# Before you go on, write down a guess. Run the cell, type a number into the field below it and press Commit. Then run
# the next cell. Guesses are not graded. The page keeps them. It shows them beside what a simulation predicts, and
# beside what was measured.

# %%
schedule = build_schedule("1f1b", devices=4, microbatches=4)
print(schedule)
predict("00-idle", "What percentage of the 4 x 14 cells is idle?", unit="%")

# %% [markdown]
# ## Run it
#
# Now the table drives the real model. Each device is a thread of this notebook, or a GPU if the machine has GPUs.
# Activations go from each device to the next one, and gradients come back.

# %%
model = TransformerLM(layers=48)
pipeline = Pipeline(model, schedule, loss=next_byte_loss, clock="unit")
report = pipeline.step(inputs, targets)
timeline = report.timeline
print(f"loss {report.loss:.3f} after {timeline.makespan:g} time slots")
TimelineView(timeline, phases=False)

# %% [markdown]
# This picture uses the **unit clock**. It counts every forward and every backward as one unit of time, no matter how
# long it really took. One unit is one time slot of the table. So the picture looks like the table of a textbook, but
# the run is real. Lesson 1b explains the other clocks.
#
# How to read the picture:
#
# - Each row is a device. Blue blocks are forwards and orange blocks are backwards. The letter says the same, and the
#   number is the micro-batch.
# - The time from the first start to the last end is the **makespan**.
# - Hatched time is idle. All of it together is the **bubble**. As a fraction of total device time (the makespan times
#   the number of devices) it is called the **bubble fraction**.
# - The strip below each row shows how much memory the device holds. Each forward keeps tensors there that its backward
#   needs: **activations**.
#
# You can ask the picture questions. Point at a block, or click into the picture and use the arrow keys. The picture
# then says what the action waited for, and which actions wait for its result. Point at idle time, and it says why the
# device is idle. *Step* takes you through the run moment by moment. (On a page without widgets, for example in print,
# the picture stands still.)

# %%
predicted = simulate(schedule)
reveal("00-idle", prediction=100 * predicted.bubble_fraction, measurement=100 * timeline.bubble_fraction)

# %% [markdown]
# Each device works in 8 of the 14 time slots: 4 forwards and 4 backwards. It is idle in the other 6, and 6/14 is 3/7.
# Every gap has a reason, usually that the input of the next action is not there yet. Point at the gaps of device 1, or
# print them as text. (Device 1 runs 1B0 after 1F2, although it could have run 1F3. The table decides that. Lesson 3
# says why.)

# %%
for gap in timeline.gaps(device=1):
    print(f"t = {gap.start:g} to {gap.end:g}: {gap.sentence}")

# %% [markdown]
# ## A claim on trial
#
# *"Four devices do the work in a quarter of the time."* One device alone would need as long as all four devices
# together are busy. The next cell divides that time by the makespan.

# %%
work = sum(timeline.busy)
print(
    f"{work:g} units of work, done in {timeline.makespan:g}: {work / timeline.makespan:.2f} times as fast as one device"
)

# %% [markdown]
# Four devices are not four times as fast. The bubble is the difference. The next lessons make it smaller, and show what
# that costs in memory and in messages.
#
# ## Is it still the same training?
#
# A pipeline must compute the same gradients as the model in one piece. `verify` runs the batch both ways and compares
# all gradients. It returns the largest difference as a fraction of the largest gradient. In float64 only rounding is
# left.

# %%
exact = Pipeline(TransformerLM(layers=48).double(), schedule, loss=next_byte_loss)
print(f"largest gradient error: {exact.verify(inputs, targets):.1e}")

# %% [markdown]
# ## Break it
#
# You can write a schedule of your own as text, with one row for each device. `try_schedule` asks the **checker**
# whether the schedule can run. If it can, `try_schedule` trains the 48-layer model with it. The schedule below is for
# two devices, and its second row has a mistake. Do you see it before you run the cell?

# %%
try_schedule("""
0F0,0F1,0B0,0B1
1B0,1F0,1F1,1B1
""")

# %% [markdown]
# **Try it:** swap `1B0` and `1F0` and run the cell again. Then try to break the schedule in other ways: leave an action
# out, or let device 0 run `0B0` before `0F1`. Is the second change wrong too?
#
# <details><summary>What you should see, and why</summary>
#
# After the swap the schedule runs, and its gradients are right. Without `0B1`, for example, the checker says that stage
# 0 never runs micro-batch 1 backward. If you leave out a forward, it also names the actions that can never start
# without it.
#
# `0B0` before `0F1` is not wrong. Each action still gets its input, and the gradients are right. But it is slower: the
# step takes 8 units of time, and with `0F1` before `0B0` it takes 6. Device 0 waits for the gradient of micro-batch 0
# before it starts micro-batch 1, so the two devices never work at the same time.
#
# </details>
#
# ## Draw one yourself
#
# A table is easier to read once you have made one. On the board below, choose a square and then the action to place
# there. (There is one column to spare.) If an action cannot stand there, the board says why. The first puzzle has two
# devices and two micro-batches. When it is complete, press *Run it*. Your table then trains the 48-layer model, and its
# gradients are compared with those of the model in one piece.
#
# There is a puzzle for each lesson in the list above the board, so come back to them as you go. The board keeps what
# you draw in the folder `drawings/`.

# %%
puzzles("first-steps")

# %% [markdown]
# ## What this machine has
#
# `examine()` says what this machine has and how the course will use it. In a terminal, `pipelab doctor` says the same.
# (Lesson 1b explains the device clock.)

# %%
print(examine())

# %% [markdown]
# ## Where this leads
#
# You have run a pipeline, and measured how much of its time is idle. Lesson 1 asks why a model is cut at all, and
# lesson 1b cuts one by hand. Lesson 2 makes a table much like the one above, step by step, and lesson 3 makes this very
# table.
#
# Your guesses so far (the list grows over the course):

# %%
ledger()

# %% [markdown] page="exercises"
# This first exercise is short. It shows how grading works.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="utilisation" difficulty="easy" minutes=5
# A timetable is a list of rows, one for each device. A row is a list of cells, one for each time slot. A cell is the
# text of an action, such as `"1F0"`, or `"."` where the device is idle. All rows have the same length.
#
# Write a function that returns the busy time of all devices as a fraction of total device time. This fraction is called
# the **utilisation**. It lies between 0 and 1.


# %% role="answer" exercise="utilisation"
def utilisation(rows: list[list[str]]) -> float:
    """The fraction of a timetable's cells that are busy, between 0 and 1.

    >>> utilisation([["0F0", ".", ".", "0B0"], [".", "1F0", "1B0", "."]])
    0.5
    """
    ### BEGIN SOLUTION
    cells = [cell for row in rows for cell in row]
    return sum(cell != "." for cell in cells) / len(cells)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="utilisation"
# One cell is one time slot of one device. Which cells are the total device time, and which of them are busy?

# %% [markdown] role="hint" exercise="utilisation"
# You need two counts over the cells of all rows. The devices are not averaged one by one: all cells count alike.

# %% [markdown] role="hint" exercise="utilisation"
# A comprehension may have two loops: `for row in rows for cell in row` goes through every cell. Comparisons can be
# added up, because `True` counts as 1.

# %% [markdown] role="solution" exercise="utilisation"
# Utilisation and bubble fraction add up to 1: every cell is either busy or idle.
