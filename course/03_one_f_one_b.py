# ---
# jupyter:
#   pipelab:
#     number: 3
#     title: "1F1B: the same work in less memory"
#     minutes: 55
#     builds_on: [2]
#     goals:
#       - build the 1F1B timetable slot by slot, for any p and m
#       - choose the depth of the warm-up, and say what one forward too few or too many costs
#       - train the 48-layer model with an order that you made
#       - say when devices wait for each other forever, and why that cannot happen under 1F1B
# ---

# %% [markdown]
# ## Does a device have to hold the whole batch?
#
# GPipe took the worked example from 32 slots to 14. The price is memory. A device runs all m forwards before its first
# backward, so at one moment it holds the activations of the whole batch. This lesson keeps the actions and changes only
# the order in which each device runs them. Below is GPipe with p = 4 and m = 8, as the simulator predicts it. The strip
# under each row shows what the device holds.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
gpipe = build_schedule("gpipe", devices=4, microbatches=8)
plot_timeline(simulate(gpipe, batch=64), phases=False)

# %% [markdown]
# ## A backward that could have run
#
# Look at t = 4 in this picture. The forward of micro-batch 0 has just ended on device 3. What could device 3 run now?
# `why_blocked` knows what each action needs. It returns the reason why an action cannot start, or `None` if it can.
# (`Action(3, "F", 1)` is 3F1: stage 3, forward, micro-batch 1.)

# %%
t = 4
predicted = simulate(gpipe)
finished = {span.slot: span.device for span in predicted.spans if span.end <= t}
for action in (Action(3, "F", 1), Action(3, "B", 0), Action(2, "B", 0)):
    blocked = why_blocked(gpipe, action, action.stage, finished)
    print(f"{action} at t = {t}: {'could start' if blocked is None else blocked.message}")
print("GPipe runs:", *(str(span.slot) for span in predicted.spans if span.device == 3 and span.start == t))
idle = f"GPipe idles {100 * predicted.bubble_fraction:.1f} % of the time"
predict("03-bubble", f"m = 8. {idle}. And if each device runs a backward as soon as it can?", unit="%")

# %% [markdown]
# Two actions could start, and GPipe takes the forward. For memory that is the wrong choice: a forward leaves
# activations behind, and a backward uses them up and frees them. This suggests a rule:
#
# 1. If a backward is ready, run it.
# 2. Otherwise run the next forward, if it is ready **and** device r has fewer than p - r micro-batches in flight.
# 3. Otherwise wait.
#
# A micro-batch is **in flight** on a device from the start of its forward to the end of its backward there. The device
# holds its activations for that long. Why p - r? The section *How deep a warm-up?* answers that. First see what the
# rule does.
#
# ## The timetable, slot by slot
#
# The cell below is the rule as a program. In each slot, every device chooses among the actions whose inputs are
# finished by then.


# %%
def choose(work, r, row, finished, most):
    """What device r runs next, or None, and a word on why. `row` is what it has run so far."""
    forward = Action(r, "F", sum("F" in cell for cell in row))
    backward = Action(r, "B", sum("B" in cell for cell in row))
    in_flight = forward.microbatch - backward.microbatch
    no_forward = why_blocked(work, forward, r, finished)  # None: it can run. Past the last one, none ever can.
    no_backward = why_blocked(work, backward, r, finished)
    if no_backward is None:  # 1. a backward that is ready goes first
        return backward, f"{backward}, not {forward}" if no_forward is None else str(backward)
    if no_forward is None and in_flight < most:  # 2. otherwise a forward, within the bound
        return forward, str(forward)
    if no_forward is None:  # 3. otherwise wait
        return None, f". holds {in_flight}"
    lacking = no_forward.blocker or no_backward.blocker  # the action that is waited for; none if no forward is left
    return None, f". needs {lacking}" if lacking else ". done"


def slot_by_slot(p, m, most, tell=False):
    """A timetable, one row of cells per device. `most(r)`: how many micro-batches device r may have in flight."""
    work = build_schedule("gpipe", devices=p, microbatches=m)  # which actions there are; we choose their order
    finished, rows = {}, [[] for r in range(p)]
    while len(finished) < 2 * p * m:
        chosen = [choose(work, r, rows[r], finished, most(r)) for r in range(p)]
        if tell:
            print(f"t = {len(rows[0]):>2} | " + " | ".join(f"{word:<12}" for _, word in chosen))
        for r, (action, _) in enumerate(chosen):
            rows[r].append("." if action is None else str(action))
        finished |= {action: r for r, (action, _) in enumerate(chosen) if action is not None}
    return rows


four = simulate(build_schedule("gpipe", devices=4, microbatches=4))
start = next(span.start for span in four.spans if str(span.slot) == "0B0")
predict("03-slots", f"p = m = 4. GPipe starts 0B0 at t = {start:g}. At which t does this rule start it?", unit="slots")

# %%
rows = slot_by_slot(4, 4, most=lambda r: 4 - r, tell=True)
reveal("03-slots", prediction=4 + (4 - 1), measurement=rows[0].index("0B0"))

# %% [markdown]
# Each column is a device, and a dot says that it idles. Read from the top:
#
# - t = 0 to 3: the pipeline fills, as in GPipe. A device that waits names the action whose result it lacks.
# - t = 4: device 3 faces the choice seen above, and takes 3B0, *not* 3F1. Device 1 could run 1F3, but it holds 3, its
#   bound. Device 2 could run 2F2, but it holds 2.
# - t = 5: the gradient of micro-batch 0 has reached device 2. Its backward makes room, so 2F2 may run in the next slot.
# - t = 7: micro-batch 0 is back on device 0. It took p slots down and p - 1 slots up, with no wait in between.
# - Each device alternates from its first backward until it has no forwards left.
# - At the end no forwards are left, and the last backwards travel up.
#
# The first backward starts earlier, but the whole table takes as many slots as GPipe's. Now let the table drive the
# model. `Schedule.from_rows` ignores the idle cells, because only the order of each device counts. The clock is the
# unit clock.

# %%
schedule = Schedule.from_rows(rows, name="1f1b")
report = Pipeline(model, schedule, loss=next_byte_loss, clock="unit").step(inputs, targets)
print(f"GPipe {four.makespan:g} slots, this order {report.timeline.makespan:g}")
plot_timeline(report.timeline)

# %% [markdown]
# The grey strips name three phases. The **warm-up** is the forwards before the first pair of a forward and a
# backward. In the **steady phase** a device runs one such pair after the other. In the **cool-down** it runs the
# backwards that are left. The steady phase gives the schedule its name, **1F1B**: one forward, one backward. The
# strip below each row is measured memory. It rises until the first backward; after that each backward makes room for
# a forward.
#
# As an order, 1F1B has three parts. Device r first runs
#
# $$w = \min(p - 1 - r,\; m)$$
#
# forwards, then m - w pairs of a forward and a backward, then w backwards. At most min(p - r, m) micro-batches are in
# flight: those of the warm-up, and the forward of a pair. (Here device 0 has w = 3 and a single pair, F3 B0. The
# picture draws it as part of the warm-up and the cool-down.) At the end of the batch the pipeline runs empty, and all
# weights are updated: a flush. Narayanan et al. therefore call the schedule PipeDream-Flush (2021, arXiv 2006.09503).
# Megatron-LM uses it (Narayanan et al. 2021, arXiv 2104.04473, section 2.2). PyTorch ships it as `Schedule1F1B` in
# `torch.distributed.pipelining`.
#
# p = m = 4 hides something. Device 0 may hold 4 micro-batches, and there are only 4. So it runs the same order as under
# GPipe and holds as much. Now do the same with m = 8: the same batch in micro-batches of 8 sequences. A slot is half as
# long. `try_schedule` checks the table, trains with it, and compares the gradients with those of the unsplit model.

# %%
eight = Schedule.from_rows(slot_by_slot(4, 8, most=lambda r: 4 - r), name="1f1b")
catalogue = build_schedule("1f1b", devices=4, microbatches=8)  # pipelab's own
print("the same as pipelab's own 1F1B, action by action:", eight.programs == catalogue.programs)
trial = try_schedule(eight)
display(trial)
reveal("03-bubble", prediction=100 * 3 / 11, measurement=100 * trial.timeline.bubble_fraction)

# %% [markdown]
# The devices still hold 4, 3, 2 and 1 micro-batches. There are now twice as many micro-batches, and each is half as
# large, so the devices hold half the bytes. GPipe would hold all 8 on each device.
#
# **Try it:** in the cell above, remove the bound with `most=lambda r: 8`. A backward still goes first. How many slots
# does the table take, and how many micro-batches are in flight?
#
# <details><summary>What you should see, and why</summary>
#
# It is no longer 1F1B. The table still takes 22 slots, but 7, 5, 3 and 1 micro-batches are in flight. No gradient is
# back on device 0 before t = 7, so it runs a forward in each of the first 7 slots. Device 1 starts one slot later and
# gets its first gradient one slot earlier, so it runs 5 forwards first. With many micro-batches, "a backward goes
# first" alone gives 2(p - r) - 1 in flight. The bound p - r removes almost half of that on device 0, and costs no
# time.
#
# </details>
#
# ## How deep a warm-up?
#
# The rule contains a number, p - r. Why not one more, or one less? Look at the order in its three parts, and change
# only w. In the exercises you will write the function that makes such rows. Here `with_warmups` makes them. (Its source
# contains the answer to an exercise.) This is the order with w = p - 1 - r:

# %%
print(with_warmups([3, 2, 1, 0], 8))
question = (
    "m = 8. w = 2, 1, 0, 0: one forward fewer on each device that has any. By what percentage is the step longer?"
)
predict("03-shallow", question, unit="%")

# %%
tried, depths, costs = {}, {}, Costs(forward=1, backward=1)
for d in (-3, -2, -1, 0, 1, 2):
    depths[d] = [max(4 - 1 - r + d, 0) for r in range(4)]
    tried[d] = simulate(with_warmups(depths[d], 8), costs)
    held = [int(n) for n in tried[d].peak_microbatches]
    rate = max(2, *(2 * (4 - r) / n for r, n in enumerate(held)))  # explained below
    formula = (2 * 4 + (8 - 1) * rate) * (costs.forward + costs.backward) / 2
    print(f"w = {depths[d]}: {tried[d].makespan:g} units; in flight {held}; by the formula below {formula:g}")

# %% [markdown]
# Those are predictions, and equal costs are an assumption. Now measure three of the orders on the device clock of
# lesson 1b. It takes what each action really costs, and a backward costs more than a forward. The orders take turns.
# Even so, the machine may be slower in one run than in another. So the cell divides each makespan by the mean work of
# a device in that run.


# %%
def measured(orders):
    """Five steps of each order, on the device clock. The orders take turns, so all meet the same conditions."""
    pipelines = {name: Pipeline(model, order, loss=next_byte_loss, clock="device") for name, order in orders.items()}
    for _ in range(5):
        reports = {name: pipeline.step(inputs, targets) for name, pipeline in pipelines.items()}
    return {name: report.timeline for name, report in reports.items()}


def stretch(timeline):
    """The makespan as a multiple of a device's mean work."""
    return 1 / (1 - timeline.bubble_fraction)


runs = measured({d: with_warmups(depths[d], 8) for d in (-1, 0, 1)})
for d, timeline in runs.items():
    told = f"{stretch(timeline):.2f} times the work, predicted {stretch(tried[d]):.2f}"
    print(f"w = {depths[d]}: {1000 * timeline.makespan:.0f} ms, {told}")
longer = {
    name: 100 * (stretch(t[-1]) / stretch(t[0]) - 1) for name, t in {"predicted": tried, "measured": runs}.items()
}
reveal("03-shallow", prediction=longer["predicted"], measurement=longer["measured"])

# %% [markdown]
# The first line of the predictions has no warm-up at all. It is the serial run of lesson 2: one micro-batch at a
# time. One forward too few costs far more than one slot. One too many gains nothing in the prediction, and device 0
# holds 5. In the measurement the two last orders may differ a little in either direction. So may two runs of the same
# order, because actions of one kind do not all cost the same. The right depth is the smallest w that gives the
# shortest step. Why is it p - 1 - r?
#
# Follow a micro-batch from device r. It passes p - r devices forward and p - r devices backward before its backward on
# device r is done. This **round trip** takes 2(p - r) slots if nothing is in its way. Each micro-batch gives device r
# only 2 slots of work. To stay busy during one round trip, the device needs 2(p - r) / 2 = p - r micro-batches in
# flight. That is the bound in the rule: p - 1 - r in the warm-up, and one in the pair. (With other times than tF = tB =
# 1 the round trip is (p - r)(tF + tB) and the work is tF + tB. The quotient is the same.)
#
# With only n in flight, device r starts a new micro-batch every 2(p - r)/n slots at best. The slowest device sets the
# pace for all. The first micro-batch takes 2p slots, and each of the other m - 1 follows at that pace. For m of at
# least p this is the formula in the printed lines: 2p + (m - 1) · max(2, the largest 2(p - r)/n). One forward too few
# hurts most on device 2. This device has one micro-batch in flight and a round trip of 4 slots, so the formula gives
# 8 + 7 · 4 slots.
#
# From top to bottom: one too few, the right number, one too many.

# %%
titles = ["one too few: w = 2, 1, 0, 0", "right: w = 3, 2, 1, 0", "one too many: w = 4, 3, 2, 1"]
plot_schedules([tried[-1], tried[0], tried[1]], titles, memory=True)

# %% [markdown]
# **Try it:** in the cell with the loop over d, set `costs = Costs(forward=1, backward=2)`. (Set it back afterwards
# and run the cell again, because later cells use its results.) From which w on does the makespan no longer fall? Then
# change m and the warm-up in the explorer below. There *warm-up* is what the cell calls d, not w: 0 means p - 1 - r,
# and 1 means one more. The batch is fixed at 64 sequences, and at m = 8 a forward takes one unit. At which m does one
# forward too few cost nothing? What does one too many do to the strips?
#
# <details><summary>What you should see, and why</summary>
#
# With tB = 2 the six lines read 96, 75, 54, 33, 33 and 33 units. All of them are 1.5 times as long as before, and they
# stop falling at the same w. Round trip and work both contain tF + tB, so their quotient does not change.
#
# One forward too few costs nothing only at m = 1. A single micro-batch never waits for another one. From m = 2 on,
# device 2 holds back the second micro-batch until the first is back. One too many never changes the makespan, if
# messages are free. It makes the strip of each device one micro-batch higher, as long as m is larger than what the
# device holds at the right depth. At m = p device 0 already holds the whole batch, so its strip stays as it is.
#
# </details>

# %%
at_64 = {"fixed": "batch", "batch": 64, "forward": 2, "backward": 2}  # 2 units for 16 sequences: 1 for the 8 at m = 8
explore("1f1b", devices=4, microbatches=8, free=["w", "m"], curve="makespan", **at_64)

# %% [markdown]
# ## A claim on trial: "first every device runs p - 1 forwards"
#
# Some code on the web does this: here w would be 3 on each of the four devices. The next cell asks the simulator.

# %%
for m in (4, 8, 16):
    for warmups in ([3, 3, 3, 3], [3, 2, 1, 0]):
        found = simulate(with_warmups(warmups, m))
        held = [int(n) for n in found.peak_microbatches]
        print(f"m = {m:>2}, w = {warmups}: {found.makespan:g} slots; in flight {held}")

# %% [markdown]
# At m = 4 it costs no time, but every device holds the whole batch: it is GPipe's order. With more micro-batches it
# costs time too. With p - 1 everywhere, device 3 waits for
# micro-batch 3 before it runs 3B0. And device 0 must finish 0B0 before it sends micro-batch 4. In device 3's row 3B1
# comes after 3F4, and 3F4 waits for 0F4. So from micro-batch 4 on, each one waits for a whole round trip. At m = p
# there is no micro-batch 4, and the mistake does not show. Always try a schedule with m > p too.
#
# ## Break it
#
# A warm-up that is too deep or too shallow costs memory or time. An order can also be wrong as a whole, although each
# row looks right by itself. In the next order, device 1 runs both forwards before its first backward. Device 0 runs its
# first backward before its second forward. Who waits for whom?

# %%
ring = Schedule.from_csv("""
0F0,0B0,0F1,0B1
1F0,1F1,1B0,1B1
""")
try_schedule(ring)

# %% [markdown]
# This is a **wait cycle**, as in lesson 2: each device waits for an action that the other can run only when the
# other's own wait is over. `Pipeline` asks the checker before anything starts, and refuses. To see what would happen,
# let two threads try, one for each row. They give up after a second.


# %%
import time
from threading import Thread


def run_anyway(schedule, patience=1.0):
    """A thread for each device: it waits for what an action needs, runs it, and goes on to the next."""
    finished, said = {}, []

    def device(r):
        for action in schedule.programs[r]:
            until = time.monotonic() + patience
            while (blocked := why_blocked(schedule, action, r, finished)) and time.monotonic() < until:
                time.sleep(0.01)
            if blocked:
                said.append(f"device {r} gives up after {patience:g} s: {blocked.message}")
                return
            finished[action] = r

    threads = [Thread(target=device, args=(r,)) for r in range(schedule.devices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(said) or ["all done"]


print(*run_anyway(ring), sep="\n")
try:
    Pipeline(model, ring, loss=next_byte_loss)
except ScheduleError as refusal:
    print("Pipeline:", refusal)

# %% [markdown]
# With endless patience this run would hang forever. In terms of warm-ups, device 0 has w = 0 and device 1 has w = 1.
# Any order made of these three parts gets stuck when a device has a deeper warm-up than the device
# before it, and only then. The deeper device waits for a forward. The device before it runs that forward only after a
# backward, and this backward waits for the deeper device. (Depths of m and of m - 1 give the same order.) In 1F1B the
# warm-up falls by one from device to device, so there is no wait cycle.
#
# To repair it, let `0B0` and `0F1` change places, or `1F1` and `1B0`, or both pairs.

# %%
repairs = {
    "in device 0's row": "0F0,0F1,0B0,0B1\n1F0,1F1,1B0,1B1",
    "in device 1's row": "0F0,0B0,0F1,0B1\n1F0,1B0,1F1,1B1",
    "in both rows": "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1",
}
for where, text in repairs.items():
    trial = try_schedule(text, batch=16, steps=1)
    held = ", ".join(f"{n:g}" for n in trial.timeline.peak_microbatches)
    verdict = "right" if trial.right else "wrong"
    print(f"changed {where}: gradients {verdict}, {trial.timeline.makespan:g} slots, in flight {held}")
trial

# %% [markdown]
# All three train. The first is GPipe, the second is the serial run, the third is 1F1B. A *sound* table comes to an end
# and gives the right gradients. How long it takes and how much it holds is another question.

# %% [markdown]
# ## What to remember
#
# - Under 1F1B a ready backward goes first, and device r never holds more than p - r micro-batches.
# - As an order: w = min(p - 1 - r, m) forwards, then pairs of a forward and a backward, then w backwards.
# - With one forward too few the devices wait for round trips. With one too many they only hold more.
# - An order of these three parts hangs if a device has a deeper warm-up than the one before it.
#
# **Where this leads.** 1F1B takes as many slots as GPipe and holds less. How much less, and what does that depend on?
# Lesson 3b measures it. It also puts two claims about 1F1B on trial. `docs/pytorch.md` in the repository shows how
# PyTorch's own runtime runs such a table. Your guesses so far:

# %%
ledger()

# %% [markdown] role="further"
# ## Further: build it by hand
#
# Apply the rule of this lesson slot by slot, under a memory cap that GPipe exceeds. The board says when you have
# built a schedule that has a name.

# %% role="further"
puzzles("1f1b")

# %% [markdown] page="exercises"
# p is the number of devices and m the number of micro-batches. r is a device, 0 to p - 1. Each device holds one stage,
# which has the same number.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="warmup" difficulty="easy" minutes=8
# Under 1F1B a device first runs w forwards. Then come pairs, each the next forward and the oldest backward, until no
# forwards are left. Then come the remaining backwards. Write the function that returns w: the fewest forwards with
# which, if all devices do so, the step takes no longer than it must. It should work for any number of devices and
# micro-batches. (Depths of m and m - 1 give the same order, so both count.)
#
# The last part asks for more than the lesson. In that part a message between neighbours takes `message` slots, a
# whole number. That holds for activations and for gradients. A forward and a backward take one slot each, as before.
# How deep must the warm-up be now?


# %% role="answer" exercise="warmup"
def warmup(device: int, devices: int, microbatches: int, message: int = 0) -> int:
    """How many forwards a device runs before its first pair of a forward and a backward.

    >>> warmup(device=1, devices=4, microbatches=8)
    2
    >>> warmup(device=0, devices=2, microbatches=8, message=1)
    2
    """
    ### BEGIN SOLUTION
    behind = devices - 1 - device
    return min(behind + behind * message, microbatches)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="warmup"
# Which device can run its first backward right after its first forward?

# %% [markdown] role="hint" exercise="warmup"
# Count the devices behind this one. Each of them adds one stop on the way down, and one on the way back. With messages
# each of them also adds two messages. How long is the round trip, and how much of it is one micro-batch's own work on
# this device? Then think of a batch with a single micro-batch.

# %% [markdown] role="hint" exercise="warmup"
# A device has to be busy during a whole round trip. How many micro-batches keep it busy that long? Which of them is not
# part of the warm-up? Then try your formula on the last device, and on a batch with fewer micro-batches than that.

# %% [markdown] role="solution" exercise="warmup"
# With m - 1 in place of m the order is the same. A last forward and the first backward side by side are a pair, whether
# we call them so or not.
#
# With messages the round trip takes 2(p - r) slots of work and 2(p - 1 - r) messages. Divided by 2, and without the
# forward of the pair, that is (p - 1 - r)(1 + message).

# %% [markdown] role="lead" exercise="one_f_one_b" difficulty="medium" minutes=15
# Write 1F1B for any p and m. Return a list with one row per device. A row holds actions such as `"0F0"`, in the order
# in which the device runs them, without idle cells. Write it without your `warmup` from above, because exercises stand
# alone. Micro-batches go in order: 0, 1, 2, ... In the last part the check trains a narrow 48-layer model with your
# rows. It compares the gradients with those of the unsplit model. To watch the course's own model train, run this in a
# new cell: `from pipelab import try_schedule`, then `try_schedule(one_f_one_b, 4, 8)`.


# %% role="answer" exercise="one_f_one_b"
def one_f_one_b(devices: int, microbatches: int) -> list[list[str]]:
    """1F1B's order: one row of actions per device.

    >>> one_f_one_b(2, 3)[0]
    ['0F0', '0F1', '0B0', '0F2', '0B1', '0B2']
    """
    ### BEGIN SOLUTION
    rows = []
    for r in range(devices):
        w = min(devices - 1 - r, microbatches)
        row = [f"{r}F{i}" for i in range(w)]
        for i in range(microbatches - w):
            row += [f"{r}F{w + i}", f"{r}B{i}"]
        row += [f"{r}B{i}" for i in range(microbatches - w, microbatches)]
        rows.append(row)
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="one_f_one_b"
# Every row has three parts, one after the other: warm-up, pairs, cool-down. How many forwards and backwards does each
# part have?

# %% [markdown] role="hint" exercise="one_f_one_b"
# With a warm-up of w there are m - w pairs. In each pair the forward is w micro-batches ahead of the backward. Make
# sure that w is never larger than m. Otherwise the cool-down counts from below 0.

# %% [markdown] role="hint" exercise="one_f_one_b"
# Write down device 1's row for p = 4 and m = 5 by hand, and mark its three parts. Which micro-batch does the first pair
# run forward, and which one backward? With which micro-batch does the cool-down begin? Write each of these numbers in
# terms of w and m, then make a loop for each part.

# %% [markdown] role="solution" exercise="one_f_one_b"
# The lesson's rule gives the same rows: a backward first, and no more than p - r in flight. The function says it as an
# order, the rule as a choice in each slot.
