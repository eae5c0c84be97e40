# ---
# jupyter:
#   pipelab:
#     number: 3
#     title: "1F1B: the same work in less memory"
#     minutes: 60
#     builds_on: [2]
#     goals:
#       - build the 1F1B timetable slot by slot, for any p and m
#       - choose the depth of the warm-up, and say what one forward too few or too many costs
#       - compare 1F1B with GPipe in time and in memory, and say what the comparison holds fixed
#       - find the faults in a printed timetable, and the ring in which devices wait for each other
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
# Look at t = 4 in this table. The first micro-batch has just left the last device. What could device 3 run now?
# `why_blocked` knows what each action needs. It returns the reason why an action cannot start, or `None` if it can.

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
    no_forward = why_blocked(work, forward, r, finished)  # past the last micro-batch, nothing is ever ready
    no_backward = why_blocked(work, backward, r, finished)
    if no_backward is None:  # 1. a backward that is ready goes first
        return backward, f"{backward}, not {forward}" if no_forward is None else str(backward)
    if no_forward is None and in_flight < most:  # 2. otherwise a forward, within the bound
        return forward, str(forward)
    if no_forward is None:  # 3. otherwise wait
        return None, f". holds {in_flight}"
    lacking = no_forward.blocker or no_backward.blocker
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
# Each column is a device. Read from the top down to t = 8:
#
# - t = 0 to 3: the pipeline fills, as in GPipe. A device that waits names the action whose result it lacks.
# - t = 4: device 3 has the choice from above, and takes 3B0, *not* 3F1. Device 1 could run 1F3, but it holds 3, its
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
# The grey strips name three phases. In the **warm-up** a device runs only forwards. In the **steady phase** it runs one
# forward and one backward in turn. In the **cool-down** it runs the backwards that are left. The steady phase gives the
# schedule its name, **1F1B**: one forward, one backward. The strip below each row is measured memory. It rises until
# the first backward; after that each backward makes room for a forward. (Device 0 runs the same row as under GPipe. The
# picture draws its only pair, F3 B0, as part of the warm-up and the cool-down. In the explorer further down, m = 8
# shows a warm-up of 3.)
#
# As an order, 1F1B has three parts. Device r first runs
#
# $$w = \min(p - 1 - r,\; m)$$
#
# forwards, then m - w pairs of a forward and a backward, then w backwards. At most min(p - r, m) micro-batches are in
# flight: those of the warm-up, and the forward of a pair. At the end of the batch the pipeline runs empty, and all
# weights are updated: a **flush**. Narayanan et al. therefore call the schedule PipeDream-Flush (2021, arXiv
# 2006.09503). Megatron-LM uses it (Narayanan et al. 2021, arXiv 2104.04473, section 2.2). PyTorch ships it as
# `Schedule1F1B` in `torch.distributed.pipelining`.
#
# p = m = 4 hides something. Device 0 may hold 4 micro-batches, and there are only 4. So it runs the same order as under
# GPipe and holds as much. Now do the same with m = 8: the same batch in micro-batches of 8 sequences. A slot is half as
# long. `try_schedule` checks the table, trains with it, and compares the gradients with those of the unsplit model.

# %%
eight = Schedule.from_rows(slot_by_slot(4, 8, most=lambda r: 4 - r), name="1f1b")
catalogue = build_schedule("1f1b", devices=4, microbatches=8)
print("the same as the catalogue's 1F1B, action by action:", eight.programs == catalogue.programs)
trial = try_schedule(eight)
display(trial)
reveal("03-bubble", prediction=100 * 3 / 11, measurement=100 * trial.timeline.bubble_fraction)

# %% [markdown]
# The devices still hold 4, 3, 2 and 1 micro-batches. There are now twice as many micro-batches, and each is half as
# large, so the devices hold half the bytes of the picture above. GPipe would hold all 8 on each device.
#
# **Try it:** in the cell above, remove the bound with `most=lambda r: 8`. A backward still goes first. How many slots
# does the table take, and how many micro-batches are in flight?
#
# <details><summary>What you should see, and why</summary>
#
# It is no longer the catalogue's 1F1B. The table still takes 22 slots, but 7, 5, 3 and 1 micro-batches are in flight.
# No gradient is back on device 0 before t = 7, so it runs a forward in each of the first 7 slots. Device 1 starts one
# slot later and gets its first gradient one slot earlier, so it runs 5 forwards first. With many micro-batches, "a
# backward goes first" alone gives 2(p - r) - 1 in flight. The bound p - r removes almost half of that, and costs no
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
question = "m = 8. w = 2, 1, 0, 0: one forward fewer where there is one. By what percentage is the step longer?"
predict("03-shallow", question, unit="%")

# %%
tried, depths, costs = {}, {}, Costs(forward=1, backward=1)
for d in (-3, -2, -1, 0, 1, 2):
    depths[d] = [max(4 - 1 - r + d, 0) for r in range(4)]
    tried[d] = simulate(with_warmups(depths[d], 8), costs)
    held = [int(n) for n in tried[d].peak_microbatches]
    rate = max(2, *(2 * (4 - r) / n for r, n in enumerate(held)))  # slots from one micro-batch to the next
    formula = (2 * 4 + (8 - 1) * rate) * (costs.forward + costs.backward) / 2
    print(f"w = {depths[d]}: {tried[d].makespan:g} units, formula (below) {formula:g}; in flight {held}")

# %% [markdown]
# Those are predictions, and equal costs are an assumption. Now measure three of the orders on the device clock of
# lesson 1b. It takes what each action really costs, and a backward costs more than a forward. The orders run in turns.
# Even so, the machine may be slower in one run than in another. So the cell divides each makespan by the mean work of a
# device in that run.


# %%
def measured(orders):
    """The last of five steps of each order, on the device clock. The orders take turns: all meet the same machine."""
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
longer = {name: 100 * (stretch(t[-1]) / stretch(t[0]) - 1) for name, t in {"said": tried, "ran": runs}.items()}
reveal("03-shallow", prediction=longer["said"], measurement=longer["ran"])

# %% [markdown]
# With no warm-up at all the order is the serial run of lesson 2: one micro-batch at a time. One forward too few costs
# far more than one slot. One too many gains nothing in the prediction, and device 0 holds 5. The measured figures
# differ from the predicted ones, because actions of one kind do not all cost the same. The right depth is the smallest
# w that gives the shortest step. Why is it p - 1 - r?
#
# Follow a micro-batch from device r. It passes p - r devices forward and p - r devices backward before its backward on
# device r is done. This **round trip** takes 2(p - r) slots if nothing is in its way. Each micro-batch gives device r
# only 2 slots of work. To stay busy during one round trip, the device needs 2(p - r) / 2 = p - r micro-batches in
# flight. That is the bound in the rule: p - 1 - r in the warm-up, and one in the pair. (With other times than tF = tB =
# 1 the round trip is (p - r)(tF + tB) and the work is tF + tB. The quotient is the same.)
#
# With only n in flight, device r starts a new micro-batch every 2(p - r)/n slots at best. The slowest device sets the
# pace for all. The first micro-batch takes 2p slots, and each of the other m - 1 follows at that pace. This is the
# formula in the printed lines: 2p + (m - 1) · max(2, the largest 2(p - r)/n). One forward too few hurts most on device
# 2. It has one micro-batch in flight and a round trip of 4 slots, so the formula gives 8 + 7 · 4 slots.
#
# The picture shows one too few, right, and one too many. Some code on the web gives *every* device p - 1 forwards, here
# 3. Look at the printed numbers for w = [3, 3, 3, 3]. (It is not in the picture.)

# %%
titles = ["one too few: w = 2, 1, 0, 0", "right: w = 3, 2, 1, 0", "one too many: w = 4, 3, 2, 1"]
for m in (4, 8, 16):
    for warmups in ([3, 3, 3, 3], [3, 2, 1, 0]):
        print(f"m = {m:>2}, w = {warmups}: {simulate(with_warmups(warmups, m)).makespan:g} slots")
plot_schedules([tried[-1], tried[0], tried[1]], titles, memory=True)

# %% [markdown]
# With p - 1 everywhere, device 3 waits for micro-batch 3 before it runs 3B0. And device 0 must finish 0B0 before it
# sends micro-batch 4. In device 3's row 3B1 comes after 3F4, and 3F4 waits for 0F4. So from micro-batch 4 on, each one
# waits for a whole round trip. At m = p there is no micro-batch 4, and the mistake does not show. Always try a schedule
# with m > p too.
#
# **Try it:** in the cell with the loop over d, set `costs = Costs(forward=1, backward=2)`. (Set it back afterwards and
# run the cell again, because later cells use its results.) Where do the units stop falling now? Then change m and the
# warm-up in the explorer below. Its warm-up is what the cell calls d: 0 means p - 1 - r, and 1 means one more. The
# batch is fixed at 64 sequences, and at m = 8 a forward takes one unit. At which m does one forward too few cost
# nothing? What does one too many do to the strips?
#
# <details><summary>What you should see, and why</summary>
#
# With tB = 2 the six lines read 96, 75, 54, 33, 33 and 33 units. All of them are 1.5 times as long as before, and they
# stop falling at the same w. Round trip and work both contain tF + tB, so their quotient does not change. (The formula
# holds for m of at least p.)
#
# One forward too few costs nothing only at m = 1. A single micro-batch never waits for another one. From m = 2 on,
# device 2 holds back the second micro-batch until the first is back. One too many never changes the makespan. It makes
# the strip of each device one micro-batch higher, as long as m is larger than what the device holds at the right depth.
# At m = p device 0 already holds the whole batch, so its strip stays as it is.
#
# </details>

# %%
at_64 = {"fixed": "batch", "batch": 64, "forward": 2, "backward": 2}  # 2 units for 16 sequences: 1 for the 8 at m = 8
explore("1f1b", devices=4, microbatches=8, free=["w", "m"], curve="makespan", **at_64)

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
# Device p - 1 cannot start before micro-batch 0 has passed the p - 1 devices above it. Then it has work for
# m(tF + tB). After its last backward, p - 1 more backwards go up. Suppose that each device has one stage, that all
# stages are alike, and that a backward is *one piece*. Then no order takes less than
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
# Lesson 2b measured that GPipe then holds the whole batch on every device, whatever m. What does 1F1B hold?

# %%
predict("03-held", "m = 16, batch 64. What percentage of GPipe's peak does device 0 hold under 1F1B?", unit="%")


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
reveal("03-held", prediction=100 * 4 / 16, measurement=100 * same_batch["1F1B"][-1] / same_batch["GPipe"][-1])

# %% [markdown]
# At m = 16 device 0 holds a quarter of the memory, in a table with as many slots.
#
# | held fixed | GPipe, every device | 1F1B, device r |
# | --- | --- | --- |
# | batch of B sequences | B, whatever m | B · min(p - r, m)/m: falls as soon as m exceeds p - r |
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
# In the second picture GPipe at m = 4 and 1F1B at m = 16 hold the same. GPipe then idles 3/7 of the time, 1F1B 3/19. In
# this way 1F1B can be faster: it can afford a larger m. Its bubble at equal m is not smaller.
#
# 1F1B does not save time at equal m. Nor does it save messages, weights, gradients or optimizer state. And the devices
# no longer hold equally much: device 0 holds the most and runs out of memory first. Some texts recommend GPipe for
# tight memory and 1F1B for ample memory. That is backwards.
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
    "03-faults",
    "Judge each action alone, at the printed times. How many start before their input is there, or never get it?",
    unit="actions",
)

# %%
violations = check_schedule(table)
for violation in violations:
    print(violation)
places = {(violation.device, violation.position) for violation in violations if violation.position is not None}
display(plot_table(table, marked=places, note="Framed: actions that cannot run there."))
reveal("03-faults", measurement=len(places))

# %% [markdown]
# The checker compares times: is each input there when its slot starts? The words in brackets are its codes.
#
# - `too-early`: device 1 runs its backwards two slots before device 2 has computed the gradients.
# - `missing`: device 3 never runs the forwards of micro-batches 1 to 3. (These three have no slot, so they are not
#   among the framed actions.)
# - `no-input`: so their backwards have nothing to go back through.
#
# Device 0's wait at t = 4 and 5 is *not* framed, because waiting is never a fault. The checker also accepts that
# devices 1 and 2 run all forwards first. That is sound. It is GPipe's order, not 1F1B's.
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
# ## Break it
#
# In the table above single actions were wrong. An order can also be wrong as a whole, although each row looks right by
# itself. In the next one, device 1 runs both forwards before its first backward. Device 0 runs its first backward
# before its second forward. Who waits for whom?

# %%
ring = Schedule.from_csv("""
0F0,0B0,0F1,0B1
1F0,1F1,1B0,1B1
""")
try_schedule(ring)

# %% [markdown]
# This is a **wait cycle**: each device waits for something that the other runs only after its own wait is over.
# `Pipeline` asks the checker before anything starts, and refuses. To see what would happen, let two threads try, one
# for each row. They give up after a second.


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

# %% [markdown] role="further"
# ## Further: when messages take time
#
# The equal bubbles above assume that messages take no time. If each message takes a while, the round trip of device 0
# is longer by 2(p - 1) messages. Its p micro-batches in flight then no longer fill the round trip, and in the steady
# phase every micro-batch comes a little later. GPipe pays for messages only while it fills and drains. A warm-up twice
# as deep hides these delays again, and holds more. The cell predicts the makespan and what device 0 has in flight, for
# p = 4, m = 16 and tF = tB = 1.

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
# takes the rows of 1F1B, with tF = 1 and tB = 2, and cuts each backward into I and W of 1 each. It runs W at once, or r
# backwards later on device r. ZB-H1 delays W in this way (*Zero Bubble Pipeline Parallelism*, Qi et al. 2024, arXiv
# 2401.10241).

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
            row += [late.pop(0)] if len(late) > wait(r) else []
        rows.append(row + late)
    return Schedule.from_rows(rows, name="halves")


orders = {"1F1B": whole, "W at once": in_halves(lambda r: 0), "W put off": in_halves(lambda r: r)}
for name, order in orders.items():
    timeline = simulate(order, Costs(forward=1, backward=2))
    held = ", ".join(f"{n:g}" for n in timeline.peak_microbatches)
    print(f"{name:<9} {len(check_schedule(order))} faults, {timeline.makespan:g} units, in flight {held}")
plot_timeline(simulate(orders["W put off"], Costs(forward=1, backward=2)), phases=False)

# %% [markdown] role="further"
# 33 units become 27, below the bound for whole backwards. No device holds more than the 4 micro-batches that device 0
# of 1F1B holds. The price is that now every device holds 4.
#
# ## Further: by hand
#
# *What is held fixed?* Here are two schedules on one axis. Turn m with the batch fixed. Then set the switch *What is
# fixed* to the micro-batch and turn m again. The curve shows what is in flight on the fullest device.
#
# <details><summary>What you should see, and why</summary>
#
# With the batch of 64 held fixed, GPipe's curve is flat at 64 sequences. 1F1B's curve is 64 up to m = 4, then falls as
# 64 · 4/m. With the micro-batch of 16 held fixed, GPipe's curve rises as 16 m. 1F1B's curve stays at 64 from m = 4 on.
# These are the two rows of the table in *How much memory?*, for device 0.
#
# </details>

# %% role="further"
explore("gpipe", compare="1f1b", devices=4, microbatches=8, free=["m"], curve="held", **at_64)

# %% [markdown] role="further"
# *Build it.* Here is the rule of this lesson, slot by slot, under a memory cap that GPipe cannot keep. The board says
# when you have built a schedule that has a name.

# %% role="further"
puzzles("1f1b")

# %% [markdown] role="further"
# *Break it.* Swap an F with the B behind it in device 1's row: is the order sound, or is it a ring? What does device 1
# then hold? Then swap a B with the F behind it.
#
# <details><summary>What you should see, and why</summary>
#
# Both swaps leave the order sound. If B goes before F, device 1 holds no more than before. But the step takes 24 units
# in place of 22, because device 2 waits for the later forward. If F goes before B, device 1 holds 4 in place of 3.
# The step then takes 24 units too, because device 0 waits for the gradient. At the first and the last of these pairs it
# stays at 22: there a slot that was idle absorbs the change.
#
# </details>

# %% role="further"
break_schedule("1f1b", devices=4, microbatches=8)

# %% [markdown]
# ## What to remember
#
# Under 1F1B a ready backward goes first, and device r never holds more than p - r micro-batches. At equal m, with a
# flush and messages that take no time, the bubble is that of GPipe: (p - 1)/(m + p - 1). Device r has at most min(p -
# r, m) micro-batches in flight, not m.
#
# **Where this leads.** 1F1B makes memory smaller. If messages are free, it leaves the bubble as it is. Lesson 4 cuts
# the bubble at the same m: it gives each device several shorter stages. Lesson 5 measures which m is best once memory
# allows more. `docs/pytorch.md` in the repository shows how PyTorch's own runtime runs such a table. Your guesses so
# far:

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices and m the number of micro-batches. r is a device, 0 to p - 1. Each device holds one stage,
# which has the same number.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="warmup" difficulty="easy" minutes=8
# Under 1F1B a device first runs w forwards. Then come pairs, each the next forward and the oldest backward, until no
# forwards are left. Then come the remaining backwards. Write the function that returns w: the fewest forwards with
# which the pipeline takes no longer than it must. It should work for any number of devices and micro-batches. (Depths
# of m and m - 1 give the same order, so both count.)
#
# The last part asks for more than the lesson. There, a message from one device to the next takes `message` slots, a
# whole number. A forward and a backward take one slot each, as before. How deep must the warm-up be now?


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
# The published timetable of the lesson is among the tables that the check tries. `check_schedule` does not answer while
# your function runs.


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
# action there, and is each need there? Only if both are there can you compare two slots. May a need stand in the same
# slot as the action that uses it?

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
