# ---
# jupyter:
#   pipelab:
#     number: 3
#     title: "1F1B: same bubble, less memory"
#     minutes: 45
#     builds_on: [2]
#     goals:
#       - build 1F1B's timetable slot by slot, for any p and m
#       - choose the depth of the warm-up, and say what one too few and one too many cost
#       - say what 1F1B saves against GPipe, what it does not, and with what held fixed
#       - find the faults of a printed timetable, and the ring in which devices wait for each other
# ---

# %% [markdown]
# ## Does a device have to hold the whole batch?
#
# GPipe brought the worked example from 32 slots to 14. Its price is memory: a device runs all m forwards before its
# first backward, so at some moment it holds the activations of the whole batch. This lesson changes nothing but the
# order in which each device runs the same actions. Below is GPipe with p = 4 and m = 8, as the simulator predicts it.
# The strip under each row is what the device holds.

# %% role="setup"
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch(batch=64)
gpipe = build_schedule("gpipe", devices=4, microbatches=8)
plot_timeline(simulate(gpipe, batch=64), phases=False)

# %% [markdown]
# ## A backward that could have run
#
# Look at this table at t = 4. The first micro-batch has just come out of the last device. What could
# device 3 run now? `why_blocked` knows what each action needs: it returns the reason why an action cannot start, or
# `None`.

# %%
t = 4
spans = simulate(gpipe).spans
finished = {span.slot: span.device for span in spans if span.end <= t}
for action in (Action(3, "F", 1), Action(3, "B", 0), Action(2, "B", 0)):
    blocked = why_blocked(gpipe, action, action.stage, finished)
    print(f"{action} at t = {t}: {'could start' if blocked is None else blocked.message}")
print("GPipe runs:", *(str(span.slot) for span in spans if span.device == 3 and span.start == t))

# %% [markdown]
# Two actions could start, and GPipe takes the forward. That is the wrong choice for memory: a forward leaves
# activations behind, a backward uses them up and frees them. So:
#
# 1. If a backward is ready, run it.
# 2. Otherwise run the next forward, if it is ready **and** fewer than p - r micro-batches are in flight here, on
#    device r.
# 3. Otherwise wait.
#
# A micro-batch is **in flight** on a device from the start of its forward to the end of its backward there: so long the
# device holds its activations. Why p - r? That comes below, under *How deep a warm-up?* First see what the rule does.
#
# ## The timetable, slot by slot
#
# The cell below is the rule as a program. In each slot, every device chooses from what is finished by then.


# %%
def choose(work, r, row, finished, most):
    """What device r runs next, or None, and a word on why. `row` is what it ran so far."""
    forward = Action(r, "F", sum("F" in cell for cell in row))
    backward = Action(r, "B", sum("B" in cell for cell in row))
    in_flight = forward.microbatch - backward.microbatch
    no_forward = why_blocked(work, forward, r, finished)  # what is beyond the last micro-batch is never ready
    no_backward = why_blocked(work, backward, r, finished)
    if no_backward is None:  # 1. a backward that is ready goes first
        return backward, f"{backward}, not {forward}" if no_forward is None else str(backward)
    if no_forward is None and in_flight < most:  # 2. else a forward, within the bound
        return forward, str(forward)
    if no_forward is None:  # 3. else wait
        return None, f". holds {in_flight}"
    lacking = no_forward.blocker or no_backward.blocker
    return None, f". needs {lacking}" if lacking else ". done"


def slot_by_slot(p, m, most, tell=False):
    """A timetable, one row of cells per device. `most(r)`: how many micro-batches device r may have in flight."""
    work = build_schedule("gpipe", devices=p, microbatches=m)  # which actions there are; their order is ours to choose
    finished, rows = {}, [[] for r in range(p)]
    while len(finished) < 2 * p * m:
        chosen = [choose(work, r, rows[r], finished, most(r)) for r in range(p)]
        if tell:
            print(f"t = {len(rows[0]):>2} | " + " | ".join(f"{word:<12}" for _, word in chosen))
        for r, (action, _) in enumerate(chosen):
            rows[r].append("." if action is None else str(action))
        finished |= {action: r for r, (action, _) in enumerate(chosen) if action is not None}
    return rows


predict("03-slots", "p = m = 4. GPipe takes 14 slots. How many does this rule take?", unit="slots")

# %%
rows = slot_by_slot(4, 4, most=lambda r: 4 - r, tell=True)
reveal("03-slots", prediction=2 * (4 + 4 - 1), measurement=len(rows[0]))

# %% [markdown]
# A column is a device. Read it down to t = 8:
#
# - t = 0 to 3: the pipeline fills, as in GPipe. A device that waits names the action whose result it lacks.
# - t = 4: device 3 has the choice from above, and takes 3B0, *not* 3F1. Device 1 could run 1F3, but holds 3, its
#   bound. Device 2 could run 2F2, but holds 2.
# - t = 5: the gradient of micro-batch 0 has reached device 2. Its backward makes room, and in the next slot 2F2 may
#   run.
# - From then on the devices alternate: a backward, a forward, a backward.
# - At the end there are no forwards left, and the last backwards travel up.
#
# Fourteen slots, like GPipe. Now let the table drive the model. Each device's order is all that counts, so the idle
# cells may stay in. The clock is the unit clock.

# %%
schedule = Schedule.from_rows(rows, name="1f1b")
report = Pipeline(model, schedule, loss=next_byte_loss, clock="unit").step(inputs, targets)
plot_timeline(report.timeline)

# %% [markdown]
# The grey strips name three phases. In the **warm-up** a device runs forwards only. In the **steady phase** it runs
# one forward and one backward in turn. In the **cool-down** it runs the backwards that are left. The middle gives the
# schedule its name, **1F1B**: one forward, one backward. The strip below each row is measured memory. It rises until
# the first backward, and stays while each backward makes room for a forward. (Device 0's row here is the same as under
# GPipe: its one pair, F3 B0, is drawn as the end of the forwards and the start of the backwards. To count warm-ups wait
# for m = 8.)
#
# Written as an order, device r runs
#
# $$w = \min(p - 1 - r,\; m)$$
#
# forwards, then m - w pairs of a forward and a backward, then w backwards. At most min(p - r, m) micro-batches are in
# flight: those of the warm-up, and the forward of a pair. With all weights updated once, at the end of the batch,
# this is the schedule that Narayanan et al. call PipeDream-Flush (2021, arXiv 2006.09503), and that Megatron-LM uses
# (Narayanan et al. 2021, arXiv 2104.04473, section 2.2).
#
# p = m = 4 hides something: device 0 may hold 4 micro-batches, and there are only 4. It runs the same order as under
# GPipe, and holds as much. So do it again with m = 8: the same batch in slices of 8 sequences, and slots half as
# long. `try_schedule` checks the table, trains with it, and compares the gradients with those of the model in one
# piece.

# %%
eight = Schedule.from_rows(slot_by_slot(4, 8, most=lambda r: 4 - r), name="1f1b")
catalogue = build_schedule("1f1b", devices=4, microbatches=8)
print("the same as the catalogue's 1F1B, action by action:", eight.programs == catalogue.programs)
try_schedule(eight)

# %% [markdown]
# Still 4, 3, 2, 1 micro-batches in flight, though there are twice as many, each half as large: half the bytes of the
# picture above. GPipe would hold 8 on each device.
#
# *Try:* take the bound away, `most=lambda r: 8`. A backward still goes first. How many slots, and how many in flight?
#
# ## How deep a warm-up?
#
# The rule had a number in it, p - r. Why not one more, or one less? Take the order apart: w forwards, pairs, the
# rest. You will write the function that makes such rows in the exercises; here it comes ready, as `with_warmups`, and
# we only turn w. (Reading its source gives an exercise away.) This is the right one, w = p - 1 - r:

# %%
print(with_warmups([3, 2, 1, 0], 8))
predict("03-shallow", "m = 8. One forward fewer first, w = 2, 1, 0, 0. How many slots, in place of 22?", unit="slots")

# %%
tried, costs = {}, Costs(forward=1, backward=1)
for d in (-3, -2, -1, 0, 1, 2):
    warmups = [max(4 - 1 - r + d, 0) for r in range(4)]
    tried[d] = simulate(with_warmups(warmups, 8), costs)
    held = [int(n) for n in tried[d].peak_microbatches]
    rate = max(2, *(2 * (4 - r) / n for r, n in enumerate(held)))  # slots from one micro-batch to the next
    predicted = (2 * 4 + (8 - 1) * rate) * (costs.forward + costs.backward) / 2
    print(f"w = {warmups}: {tried[d].makespan:g} units, predicted {predicted:g}; in flight {held}")
reveal("03-shallow", prediction=2 * 4 + (8 - 1) * 4, measurement=tried[-1].makespan)

# %% [markdown]
# No warm-up at all is the serial run of lesson 2: one micro-batch at a time. One too few still costs far more than
# one slot. One too many gains nothing, and device 0 holds 5. Right is where the slots stop falling. Why there?
#
# Follow a micro-batch from device r. It passes p - r devices forward and p - r backward before its backward on device
# r is done: a **round trip** of 2(p - r) slots, if nothing is in its way. Each micro-batch gives device r only 2
# slots of work. To be busy during the round trip of one, it needs 2(p - r) / 2 = p - r of them under way. That is the
# bound of the rule: p - 1 - r in the warm-up, and one in the pair. (With other times than tF = tB = 1 the round trip
# is (p - r)(tF + tB) and the work tF + tB: the same quotient.)
#
# With only n in flight, device r starts a new one every 2(p - r)/n slots at best, and the slowest device sets the
# pace for all. The first micro-batch takes 2p slots, each of the m - 1 others follows at that pace. That is the
# prediction in the table. One too few hurts most on device 2: one micro-batch in flight, a round trip of 4 slots,
# hence 8 + 7 · 4 slots.
#
# Below, one too few, right, and one too many. A listing that circulates gives *every* device p - 1, here 3: look at
# its numbers.

# %%
titles = ["one too few: w = 2, 1, 0, 0", "right: w = 3, 2, 1, 0", "one too many: w = 4, 3, 2, 1"]
for m in (4, 8, 16):
    for warmups in ([3, 3, 3, 3], [3, 2, 1, 0]):
        print(f"m = {m:>2}, w = {warmups}: {simulate(with_warmups(warmups, m)).makespan:g} slots")
plot_schedules([tried[-1], tried[0], tried[1]], titles, memory=True)

# %% [markdown]
# With p - 1 everywhere device 3 must see micro-batch 3 before it runs 3B0, while device 0 must see 0B0 before it
# sends micro-batch 4: a whole round trip for each micro-batch after the fourth. At m = p there is none after the
# fourth, and the mistake does not show. Always try a schedule with m > p, and with m < p too.
#
# *Try:* let the loop over d have `Costs(forward=1, backward=2)`. Where do the units stop falling now? (The prediction
# holds for m of at least p.) And turn both m and the warm-up yourself: 0 is p - 1 - r, and the curve shows the makespan
# against it. At which m does one too few cost nothing? What becomes of one too many, if you look at the strips?

# %%
explore("1f1b", devices=4, microbatches=8, free=["w", "m"], curve="makespan")

# %% [markdown]
# ## A claim on trial: "1F1B has a smaller bubble than GPipe"
#
# This is often said; one survey on the web has GPipe 75 % busy and 1F1B 92 %. So far we counted slots of equal
# length. Now measure. The device clock of lesson 1 takes what each action really costs, and a backward costs more
# than a forward. p = 4, m = 8 and the batch of 64, both times.

# %%
predict("03-bubble", "m = 8. GPipe idles (p - 1)/(m + p - 1) = 27.3 % of device-time. And 1F1B?", unit="%")

# %%
measured = {}
for name in ("gpipe", "1f1b"):
    order = build_schedule(name, devices=4, microbatches=8)
    with Pipeline(model, order, loss=next_byte_loss, clock="device") as pipeline:
        for _ in range(5):
            measured[name] = pipeline.step(inputs, targets)
    timeline = measured[name].timeline
    peaks = ", ".join(f"{peak / 1e6:.1f}" for peak in timeline.peak_bytes)
    print(f"{name}: {timeline.bubble_fraction:.1%} idle, {timeline.message_count} messages, peaks {peaks} MB")
display(plot_schedules([report.timeline for report in measured.values()], memory=True))
reveal("03-bubble", prediction=100 * 3 / 11, measurement=100 * measured["1f1b"].timeline.bubble_fraction)

# %% [markdown]
# The same, up to how much measured costs scatter from run to run. (So do the two makespans, for each run's costs were
# measured anew. The fraction does not depend on how fast the machine as a whole was.) To arrive at figures like those
# of the claim one has to compare different m, or to leave out the flush (lesson 6). With equal m and a flush the
# claim is false, and there is a reason.
#
# Device p - 1 cannot start before micro-batch 0 has passed the p - 1 devices above it. Then it has work for m(tF + tB).
# After its last backward, p - 1 more backwards go up. So with one stage per device, all alike, *no* order takes less
# than
#
# $$(p - 1)\,t_F + m\,(t_F + t_B) + (p - 1)\,t_B = (m + p - 1)(t_F + t_B).$$
#
# GPipe reaches this bound already, 1F1B reaches it too. What differs is in the strips: memory. The number of messages
# is the same, and so is the work.
#
# ## How much memory?
#
# Always ask first what is held fixed. Let it be the **batch** of 64 sequences: more micro-batches are smaller ones.
# Then GPipe holds the whole batch on every device whatever m, as you measured in lesson 2. 1F1B holds min(p - r, m)
# of m micro-batches.

# %%
predict("03-quarter", "m = 16, batch 64. Device 0's peak under 1F1B, as a part of its peak under GPipe?", unit="%")


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
reveal("03-quarter", prediction=100 * 4 / 16, measurement=100 * same_batch["1F1B"][-1] / same_batch["GPipe"][-1])

# %% [markdown]
# Same bubble; at m = 16 device 0 holds a quarter of the memory.
#
# | held fixed | GPipe, every device | 1F1B, device r |
# | --- | --- | --- |
# | batch of B sequences | B, whatever m | B · min(p - r, m)/m: falls from m = p - r on |
# | micro-batch of b sequences | b · m: grows with m | b · min(p - r, m): stops growing at m = p - r |
#
# Three things to keep:
#
# - For m up to p device 0 saves nothing. It pays to have several times as many micro-batches as devices.
# - At a fixed batch, memory bounds m from *below* under 1F1B: cut finer until it fits. GPipe has no such way out,
#   unless it recomputes.
# - At a fixed micro-batch size, memory bounds m from *above* under GPipe alone. In the second picture GPipe at m = 4
#   and 1F1B at m = 16 hold the same. GPipe then idles 3/7 of the time, 1F1B 3/19. This is how 1F1B comes to be
#   faster: not by a smaller bubble at the same m, but because it can afford a larger m.
#
# What it does not save: time at equal m, messages, weights, gradients, optimizer state. And the devices no longer
# hold equally much: device 0 holds the most and runs out first. Advice that names GPipe for tight memory and 1F1B for
# ample memory has it backwards.
#
# ## Another claim on trial: a published timetable
#
# A text on the web explains pipelining by our very example: 48 layers, 4 GPUs, 64 sequences, 4 micro-batches, 1F1B.
# Below is its timetable, turned so that rows are GPUs and columns time slots; a dash is idle time. It is done after
# 10 slots. The bound above says 14. The text counts micro-batches from 1; one line converts that. A `TimeTable` keeps
# the time of each action, where a `Schedule` keeps the order alone.

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
predict("03-faults", "How many actions in this table cannot run in the slot where they stand?", unit="actions")

# %%
violations = check_schedule(table)
for violation in violations:
    print(violation)
places = {(violation.device, violation.position) for violation in violations if violation.position is not None}
display(plot_table(table, marked=places, note="Framed: actions that cannot run there."))
reveal("03-faults", measurement=len(places))

# %% [markdown]
# A timetable is checked as times: is each input there when its slot starts? The words in brackets are the checker's
# codes.
#
# - `too-early`: device 1 runs its backwards two slots before device 2 has computed the gradients.
# - `missing`: device 3 never runs the forwards of micro-batches 1 to 3, and so
# - `no-input`: their backwards have nothing to go back through.
#
# What is *not* framed: device 0's wait at t = 4 and 5. Waiting is never a fault. Nor does the checker mind that
# devices 1 and 2 run all forwards first. That is sound; it is GPipe's order, not 1F1B's.
#
# *Try:* give device 3 its forwards, `3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3`, keep the order of the other rows, and pass the
# four rows to `try_schedule` as text. How many slots does the repaired table take, and who holds how much?
#
# ## Break it
#
# In the table above single actions were wrong. An order can also be wrong as a whole, though each row by itself looks
# right. Device 1 here runs both forwards before its first backward. Device 0 runs its first backward before its
# second forward. Who waits for whom?

# %%
ring = Schedule.from_csv("""
0F0,0B0,0F1,0B1
1F0,1F1,1B0,1B1
""")
try_schedule(ring)

# %% [markdown]
# A **wait cycle**: each device waits for something that the other runs only after its own wait is over. `Pipeline`
# asks the checker before anything starts, and refuses. To see what it is spared, let two threads try, one for each
# row. They give up after a second.


# %%
import time
from threading import Thread


def run_anyway(schedule, patience=1.0):
    """A thread for each device: it waits for what an action needs, runs it, goes on to the next."""
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
# With endless patience this run hangs for ever. In terms of warm-ups: device 0 has w = 0, device 1 has w = 1. An
# order of forwards, pairs, backwards gets stuck when a device has a deeper warm-up than the device before it, and
# only then: it waits for forwards that the other will not run before its own backward. (Depths of m and of m - 1 are
# one and the same order.) In 1F1B the warm-up falls by one from device to device, so there is no ring.
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
# All three train. The first is GPipe, the second the serial run, the third 1F1B. *Sound* says that a table comes to
# an end, with the right gradients. Time and memory are another matter.

# %% [markdown] role="further"
# ## Further: when messages take time
#
# "The same bubble" was shown for messages that take no time. If each takes a while, the round trip of device 0 is
# longer by 2(p - 1) messages, and p micro-batches in flight no longer fill it: in the steady phase every micro-batch
# comes a little later. GPipe pays for the messages only while it fills and drains. A warm-up twice as deep hides
# delays such as these again, and holds more. Below, for p = 4 and m = 16, predicted with tF = tB = 1: the makespan,
# and what is in flight on device 0.

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
# ## Further: by hand
#
# *What is held fixed?* Two schedules on one axis; turn m with the micro-batch held fixed, then with the batch. The
# curve is what is in flight on the fullest device.

# %% role="further"
explore("gpipe", compare="1f1b", devices=4, microbatches=8, free=["m", "hold"], curve="held")

# %% [markdown] role="further"
# *Build it.* The rule of this lesson, slot by slot, under a memory cap that GPipe cannot keep. The board says when you
# have built a schedule that has a name.

# %% role="further"
puzzles("1f1b")

# %% [markdown] role="further"
# *Break it.* Swap an F with the B behind it in device 1's row: sound, or a ring? And what does the order then hold?

# %% role="further"
break_schedule("1f1b", devices=4, microbatches=8)

# %% [markdown]
# ## What to remember
#
# A backward that is ready goes first, and device r never holds more than p - r micro-batches. That gives the same
# bubble as GPipe, and min(p - r, m) micro-batches in flight in place of m. Your guesses so far:

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices, m the number of micro-batches, r a device, 0 to p - 1. Each device holds one stage, of
# the same number.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="warmup" difficulty="easy" minutes=5
# Under 1F1B a device runs w forwards first. Then come pairs, each the next forward and the oldest backward, until
# there are no forwards left. Then come the backwards that are left. Write the function that gives w: the fewest with
# which the pipeline takes no longer than it must. It should hold for any number of devices and micro-batches. (Depths
# of m and m - 1 give the same order; either counts.)


# %% role="answer" exercise="warmup"
def warmup(device: int, devices: int, microbatches: int) -> int:
    """How many forwards a device runs before its first pair of a forward and a backward.

    >>> warmup(device=1, devices=4, microbatches=8)
    2
    """
    ### BEGIN SOLUTION
    return min(devices - 1 - device, microbatches)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="warmup"
# Which device can run its first backward right after its first forward?

# %% [markdown] role="hint" exercise="warmup"
# Count the devices behind this one. Each of them is one more stop on the way down, and one more on the way back. Then
# think of a batch with a single micro-batch.

# %% [markdown] role="hint" exercise="warmup"
# One forward for each device behind this one; and never more than there are micro-batches, which `min` of two numbers
# says.

# %% [markdown] role="solution" exercise="warmup"
# With m - 1 in place of m the order is the same: a last forward and the first backward side by side are a pair,
# whether one calls them so or not.

# %% [markdown] role="lead" exercise="one_f_one_b" difficulty="medium" minutes=15
# Write 1F1B for any p and m: a list with one row of actions per device, such as `"0F0"`, in the order in which the
# device runs them (no idle cells). Write it without your `warmup` from above: exercises stand alone. Micro-batches go
# in order, 0, 1, 2, ... For the last part, the check trains the 48-layer model (a narrow one) with your rows and
# compares the gradients with those of the model in one piece. To watch the course's model train with them, write in a
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
# Three parts follow each other in every row: warm-up, pairs, cool-down. How many forwards and backwards are in each?

# %% [markdown] role="hint" exercise="one_f_one_b"
# With a warm-up of w there are m - w pairs. In pair number i the forward is w micro-batches ahead of the backward.
# Check that w is never larger than m, or the last part counts from below 0.

# %% [markdown] role="hint" exercise="one_f_one_b"
# Per device: w is the smaller of (devices behind this one) and m. First the forwards 0 to w - 1. Then, for i from 0
# to m - w - 1, forward w + i and backward i. Then the backwards m - w to m - 1.

# %% [markdown] role="solution" exercise="one_f_one_b"
# The rule of the lesson, a backward first and no more than p - r in flight, gives the same rows: one says it as an
# order, the other as a choice in each slot.

# %% [markdown] role="lead" exercise="printed_timetable" difficulty="hard" minutes=25
# Here a timetable is a list of rows, one per device, with a cell for each time slot: an action, or `"."` where the
# device idles. Stage r is on device r. An action takes one slot; what it computes in slot t can be used from slot t +
# 1 on. Micro-batches are numbered from 0 to the highest number that occurs in the table. Within each row, a forward
# stands before its own backward. Write the function that finds what is wrong, as a set of triples (device, slot,
# code):
#
# - `"too-early"`: the action in that slot starts before something that it needs from another device is finished.
# - `"no-input"`: something that the action in that slot needs is nowhere in the table.
# - `"missing"`: a forward or backward of some stage and micro-batch is nowhere in the table. It has no slot; write
#   its text in place of the slot, such as `(3, "3F1", "missing")`.
#
# The published timetable is one of the tables that are tried. While your function runs, `check_schedule` does not
# answer.


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
# What does a forward need? What does a backward need, on the last device and on the others? Everything else follows
# from where these stand.

# %% [markdown] role="hint" exercise="printed_timetable"
# First make a dictionary from each action's text to its slot. Then go through the actions that *should* be there, all
# stages and micro-batches, rather than through the cells. A backward needs its own forward, and the backward of the
# stage behind, if there is one.

# %% [markdown] role="hint" exercise="printed_timetable"
# For each action that should be there: not in the dictionary, it is missing. Otherwise look up each need: not in the
# dictionary, the action has no input; in the dictionary with a slot that is the same or later, the action is too
# early. Idle cells never come up.

# %% [markdown] role="solution" exercise="printed_timetable"
# One missing forward shows up twice: as what is missing, and as the action that lacks it. To repair a table, begin
# with what is missing.

# %% [markdown] role="lead" exercise="what_fits" difficulty="medium" minutes=12
# A batch is cut into m equal micro-batches; m divides it. For each sequence in flight, a device holds
# `bytes_per_sequence` of activations. No device may hold more than `limit` bytes, and no more than the fraction
# `idle` of all device-time may be idle (bubble fraction; tF = tB, messages take no time; nothing is recomputed). Say
# which schedule, and the least m, keeps to both:
#
# - `("gpipe", m)` if GPipe can, for its table is the simpler one;
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
# The batch is what is held fixed here. Which of the two schedules can hold less of it at all?

# %% [markdown] role="hint" exercise="what_fits"
# Device 0 holds the most. Under GPipe that is the whole batch, so m does not help. Under 1F1B it is min(p, m)
# micro-batches of batch / m sequences. The bubble is the same for both: the formula of lesson 2.

# %% [markdown] role="hint" exercise="what_fits"
# Try the names in order of preference, and for each the numbers of micro-batches from 1 upward. Return the first that
# divides the batch, whose bytes on device 0 are within the limit, and whose (p - 1)/(m + p - 1) is within `idle`.

# %% [markdown] role="solution" exercise="what_fits"
# Memory is a lower bound on m under 1F1B, and so is the bubble: the larger of the two decides. What bounds m from
# above, that small micro-batches are inefficient, is left out here; lesson 5 measures it.
