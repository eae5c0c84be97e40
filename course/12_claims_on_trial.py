# ---
# jupyter:
#   pipelab:
#     number: 12
#     title: "Claims on trial: timetables"
#     minutes: 45
#     builds_on: [2, 3, 3b, 4]
#     goals:
#       - turn a sentence into an experiment, with figures and a rule fixed before it runs
#       - say "true", "false", or under which condition a claim is true
#       - find the faults of a published timetable, and of two published listings
#       - damage an experiment, to see whether it could have come out otherwise
# ---

# %% [markdown]
# ## Who is right: the text, or the run?
#
# Many texts explain pipelines, and they contradict one another. A reader cannot ask the authors. But most of what they
# say can be run. The four pages of this lesson put 44 claims on trial. Some come from five texts on the web, which
# this course grew out of. Others come from papers.
#
# A trial has a fixed course:
#
# 1. The claim is one sentence.
# 2. You commit to a number.
# 3. One cell runs an experiment and hands its figures in.
# 4. A rule, fixed before the run, makes a **verdict** from the figures: true, false, or true under a condition.
#
# The rules are in the package, in `pipelab/teaching/claims`. A cell cannot choose its verdict. It can only hand in
# figures. Some of these claims were on trial in earlier lessons, and are settled here again by a short run. The text
# says where you have met them.

# %% role="setup"
from pipelab.teaching import *

verdicts = Verdicts()

# %% [markdown]
# ## A published timetable on trial
#
# The first text has our example: 48 layers, 4 devices, 4 micro-batches. It calls its schedule interleaved 1F1B, and
# prints a timetable ([lesson 3b](03b_beside_gpipe.ipynb)). Here are four of its claims.

# %%
published = """
F1 F2 F3 F4 -  -  B1 B2 B3 B4
-  F1 F2 F3 F4 B1 B2 B3 B4 -
-  -  F1 F2 F3 F4 B1 B2 B3 B4
-  -  -  F1 B1 B2 B3 B4 -  -
"""
lines = [line.split() for line in published.strip().splitlines()]
cells = [[c if c == "-" else f"{r}{c[0]}{int(c[1]) - 1}" for c in line] for r, line in enumerate(lines)]
verdicts.ask("12-runs", "12-done", "12-order", "12-remark")

# %%
printed = TimeTable.from_csv("\n".join(map(",".join, cells)))
found = check_schedule(printed)
places = {(one.device, one.position) for one in found if one.position is not None}
display(plot_table(printed, marked=places, note="Framed: actions whose input is not there."))
missing = sum(one.code == "missing" for one in found)
verdicts.settle("12-runs", faults=len(found), devices=len({device for device, _ in places}), missing=missing)

# %% [markdown]
# Device 1 starts each backward before device 2 has computed its gradient. Device 3 goes back through forwards that it
# never ran.
#
# The text says that all is done after 10 units. How many does it take?

# %%
p, m = 4, 4
found = [simulate(build_schedule(name, p, m)) for name in ("gpipe", "1f1b")]
fill, work, drain = p - 1, m * (1 + 1), p - 1  # of the last device: it waits, works, and its last gradient goes up
verdicts.settle("12-done", busy=found[0].busy[0], best=min(one.makespan for one in found), bound=fill + work + drain)

# %% [markdown]
# Here t_f = t_b = 1. The last device waits for its first input, then works on all micro-batches. Its last gradient
# passes all other devices. None of these can be left out, so 14 units are the least, and 1F1B reaches it.
#
# The third claim is about the order. Idle slots do not matter for it.

# %%
rows = [[action for action in row if action != "-"] for row in cells]


def like(name, v=1):
    """How many devices have the row of a schedule of the catalogue."""
    programs = build_schedule(name, devices=4, microbatches=4, chunks=v).programs
    return sum(mine == [str(action) for action in theirs] for mine, theirs in zip(rows, programs, strict=True))


stages = [len({action[0] for action in row}) for row in rows]
verdicts.settle("12-order", same=max(like("1f1b"), like("interleaved", 2)), gpipe=like("gpipe"), chunks=max(stages))

# %% [markdown]
# Only device 0 has a row of 1F1B, and at m = p that is a row of GPipe as well. Devices 1 and 2 follow GPipe.
# Interleaving needs two stages or more on each device ([lesson 4](04_interleaved.ipynb)), and each has one.
#
# The text also explains its rows. Its remark on t = 5 is about device 2, and about its "first" micro-batch, which is
# micro-batch 0 here.

# %%
right = simulate(build_schedule("1f1b", devices=4, microbatches=4))
starts = {str(span.slot): span.start for span in right.spans}
verdicts.settle("12-remark", printed=cells[2].index("2B0"), right=starts["2B0"])

# %% [markdown]
# In 1F1B the gradient is there at t = 5. In this table device 2 still runs a forward then. So the remark was written
# for another table.
#
# ## Who waits for whom, and for how long?
#
# The next four claims are about idle time. You know all that is needed from lessons 2 and 3.

# %%
verdicts.ask("12-waits", "12-ratio", "12-busier", "12-constant")

# %%
gpipe = simulate(build_schedule("gpipe", devices=4, microbatches=8))
forwards = [span.end for span in gpipe.on_device(0) if span.slot.op == "F"]
verdicts.settle("12-waits", start=gpipe.on_device(1)[0].start, done=max(forwards))

# %% [markdown]
# The second stage starts when the first *micro-batch* arrives. To wait for all of them is what micro-batches are meant
# to avoid.

# %%
p, m = 4, 16
gpipe = simulate(build_schedule("gpipe", p, m))
verdicts.settle("12-ratio", formula=(p - 1) / m, of_total=gpipe.bubble_fraction, of_busy=gpipe.bubble_ratio)

# %% [markdown]
# Both measures occur in papers ([lesson 2](02_gpipe.ipynb)). This course divides by total time. A figure without its
# measure is open to both readings. They are far apart when m is small.

# %%
gpipe, one_f = (simulate(build_schedule(name, devices=4, microbatches=16)) for name in ("gpipe", "1f1b"))
gain = one_f.utilisation - gpipe.utilisation
verdicts.settle("12-busier", gpipe=gpipe.utilisation, one_f=one_f.utilisation, gain=gain)

# %% [markdown]
# With the same m, both fill and drain in the same time ([lesson 3b](03b_beside_gpipe.ipynb)). 1F1B saves memory. The
# text's table has no program behind it. Its figures are constants.


# %%
def idle(m, size):
    """Total idle time of 1F1B, if a forward takes `size` units, and a backward too."""
    timeline = simulate(build_schedule("1f1b", devices=4, microbatches=m), Costs(forward=size, backward=size))
    return timeline.bubble_fraction * timeline.makespan * timeline.schedule.devices


verdicts.settle("12-constant", size=idle(16, 1) / idle(4, 1), batch=idle(16, 4 / 16) / idle(4, 4 / 4))

# %% [markdown]
# The text means the second case: it cuts one batch of 64 sequences into more pieces. Then each piece is smaller, and
# the bubble shrinks with it. The formula p (p - 1)(t_f + t_b) is right. But t_f itself depends on m.
#
# ## Listings on trial
#
# The survey has two listings for 1F1B, and one for interleaving. A listing is a claim too: that it computes what the
# text above it says.

# %%
verdicts.ask("12-warm-up", "12-listing", "12-neighbours", "12-sorted")

# %%
warm_ups = [3, 3, 3, 3]
few, many = (simulate(with_warmups(warm_ups, m)) for m in (4, 16))
few_right, many_right = (simulate(build_schedule("1f1b", 4, m)) for m in (4, 16))
times = {"few": few.makespan, "few_right": few_right.makespan, "many": many.makespan, "many_right": many_right.makespan}
held, held_right = (one.peak_microbatches[-1] for one in (few, few_right))
verdicts.settle("12-warm-up", **times, held=held, held_right=held_right)

# %% [markdown]
# (You met this one in [lesson 3](03_one_f_one_b.ipynb).) At m = p the time shows nothing: all forwards fit into the
# warm-up. But then it is GPipe's order, and the last device holds all four. So test a rule with m above p, and look at
# more than the time. The next listing starts with the right number of forwards.


# %%
def row(r, p, m):
    """Device r's actions, as (op, micro-batch). The warm-up w differs from device to device, as it should."""
    w = p - 1 - r
    actions = [("F", k) for k in range(w)]
    for k in range(m - w):
        actions.append(("F", w + k))
        if k > 0:
            actions.append(("B", w + k - p + 1))
    return actions + [("B", m - (p - 1) + k) for k in range(p - 1)]


p, m = 4, 8
written = [(r, *action) for r in range(p) for action in row(r, p, m)]
needed = {(r, op, i) for r in range(p) for op in "FB" for i in range(m)}
negative = sum(i < 0 for _, _, i in written)
twice = len(written) - len(set(written))
verdicts.settle("12-listing", missing=len(needed - set(written)), negative=negative, twice=twice)

# %% [markdown]
# Device 0 never turns back with micro-batch 0, because k = 0 has no backward. The others count backwards from p - 1,
# where each device has its own w. So devices 2 and 3 begin with micro-batches that do not exist.


# %%
def in_pieces(schedule, v):
    """Each action as v actions on neighbouring chunks, all on the device of the whole stage."""
    pieces = {"F": range(v), "B": range(v - 1, -1, -1)}
    rows = [[f"{v * a.stage + c}{a.op}{a.microbatch}" for a in row for c in pieces[a.op]] for row in schedule.programs]
    return Schedule.from_rows(rows, name="neighbouring chunks")


plain = build_schedule("1f1b", devices=4, microbatches=4)
neighbours, dealt = in_pieces(plain, 2), build_schedule("interleaved", 4, 4, 2)
waits = [timeline.makespan - timeline.busy[0] for timeline in map(simulate, (plain, neighbours, dealt))]
verdicts.settle("12-neighbours", plain=waits[0], neighbours=waits[1], dealt=waits[2])

# %% [markdown]
# (This was on trial in [lesson 4](04_interleaved.ipynb).) The listing gives device r the stages r v to r v + v - 1. The
# first micro-batch then passes as many layers as before on its way to the last device. The last claim is about the
# order in the same listing.

# %%
p, v, m = 4, 2, 4
n = p * v
steps = []  # (step, device, action)
for i in range(m):
    for g in range(n):
        forward = i * n + g
        backward = forward + n
        steps += [(forward, g // v, f"{g}F{i}"), (backward, g // v, f"{g}B{i}")]
rows = [[action for _, device, action in sorted(steps) if device == r] for r in range(p)]
when = {action: step for step, _, action in steps}
early = sum(when[f"{g}B{i}"] <= when[f"{g + 1}B{i}"] for g in range(n - 1) for i in range(m))
places = [(step, device) for step, device, _ in steps]
faults = len(check_schedule(Schedule.from_rows(rows)))
verdicts.settle("12-sorted", faults=faults, double=len(places) - len(set(places)), early=early)

# %% [markdown]
# A gradient comes from the *last* chunk, so chunks must turn back in reverse order. Here chunk 0 goes first. And from
# the second micro-batch on, a device would have to run a forward and a backward in the same step.
#
# **Try it:** in the cell above let chunk g turn back at step 2 m n - 1 - (its forward's step). How many faults are
# left, and how long is such a step?
#
# <details><summary>What you should see, and why</summary>
#
# None is left. Each backward now follows the one of the next chunk, and no step is used twice on a device. But only one
# chunk works in each step, on the whole machine. So this takes 2 m n steps of half a unit, as long as the naive
# pipeline. It is sound, and no pipeline.
#
# </details>
#
# ## Break it: damage an experiment
#
# A trial is worth something only if it could have come out otherwise. So damage it. Compare 1F1B with a GPipe that has
# a quarter of the micro-batches. Published tables often do, because GPipe had no memory for more.

# %%
damaged = simulate(build_schedule("gpipe", devices=4, microbatches=4))
gain = one_f.utilisation - damaged.utilisation
Verdicts().settle("12-busier", gpipe=damaged.utilisation, one_f=one_f.utilisation, gain=gain)

# %% [markdown]
# Now the same rule says "true". So the rule can tell the two cases apart, and the verdict above came from the run. Each
# claim of this lesson has such a test in the repository: a damaged experiment, in which the verdict must change.
#
# ## All verdicts of this page
#
# The table is made from the cells that ran. Lesson 12b goes on with memory.
#
# ## What to remember
#
# - First the sentence, then the rule, then the run. A rule made afterwards fits any result.
# - Test with m below p, with m = p and with m above p. Many mistakes hide at m = p.
# - Ask of each figure: divided by what, and with what held fixed?
# - Damage the experiment. If the verdict stays, it was no experiment.

# %%
display(verdicts)
ledger()

# %% [markdown] page="exercises"
# In each of these exercises you settle a claim. Your function runs an experiment with the tools of the package, and
# returns two things: the list of figures, and the verdict, `True` or `False`. Both are graded, on settings that you
# have not seen. `simulate(schedule, Costs(forward=..., backward=...))` returns a timeline. It has `makespan`, `busy` (a
# time for each device), `bubble_fraction` and `utilisation`. A number in `Costs` holds for a whole device, and a list
# has an entry for each stage. Nothing here depends on your machine.

# %% role="setup"
from pipelab.teaching import Costs, NotWritten, Schedule, build_schedule, check, simulate

# %% [markdown] role="lead" exercise="busier" difficulty="easy" minutes=8
# The claim: *the second schedule keeps devices busier than the first one, by more than one percentage point.* Each
# device has one stage. `forward` and `backward` have a cost for each stage, and they are the same for both schedules.
# The two may have different numbers of micro-batches.
#
# Return the percentages as fractions, `[first, second]`: busy time of all devices over their total time. Then the
# verdict.


# %% role="answer" exercise="busier"
def busier(first: Schedule, second: Schedule, forward: list[float], backward: list[float]) -> tuple[list[float], bool]:
    """How much of the time the devices are busy under both schedules, and whether the claim is true.

    >>> gpipe, one_f = build_schedule("gpipe", 2, 2), build_schedule("1f1b", 2, 6)
    >>> [round(share, 3) for share in busier(gpipe, one_f, [1, 1], [2, 2])[0]]    # more micro-batches, so it is busier
    [0.667, 0.857]
    """
    ### BEGIN SOLUTION
    costs = Costs(forward=forward, backward=backward)
    figures = [simulate(schedule, costs).utilisation for schedule in (first, second)]
    return figures, figures[1] - figures[0] > 0.01
    ### END SOLUTION


# %% [markdown] role="hint" exercise="busier"
# Nothing has to be derived. Both schedules can be run under the given costs. Which of a timeline's figures does the
# claim speak of?

# %% [markdown] role="hint" exercise="busier"
# Make one `Costs` from the two lists, and one timeline of each schedule. Busy time is the sum of `busy`. Total time is
# the makespan, once for each device.

# %% [markdown] role="hint" exercise="busier"
# A timeline's `utilisation` is busy time over total time. The claim asks for more than a point, so compare the
# difference with 0.01.

# %% [markdown] role="solution" exercise="busier"
# With equal m, GPipe and 1F1B come out alike, or nearly, with uneven stages too. With more micro-batches the second one
# is busier. But then m made the difference, not the schedule. A fair comparison holds m fixed.

# %% [markdown] role="lead" exercise="idle_time" difficulty="easy" minutes=10
# The claim: *the total idle time is the same for all these m.* `schedules` are tables of 1F1B with different m.
# `sequences` has, for each of them, the number of sequences in a micro-batch. A forward takes `fixed + each *
# sequences`, and a backward takes twice as long. All stages are alike.
#
# Return the idle time of all devices together, for each schedule in order. Then the verdict. The claim counts as true
# if the largest and the smallest of them differ by at most one per cent of the largest.


# %% role="answer" exercise="idle_time"
def idle_time(schedules: list[Schedule], sequences: list[int], fixed: float, each: float) -> tuple[list[float], bool]:
    """The idle time of all devices for each schedule, and whether the claim is true.

    >>> tables = [build_schedule("1f1b", 2, m) for m in (1, 2)]
    >>> idle_time(tables, [2, 1], fixed=0, each=1)    # one batch of two sequences, cut once and twice
    ([12.0, 6.0], False)
    """
    ### BEGIN SOLUTION
    figures = []
    for schedule, size in zip(schedules, sequences, strict=True):
        takes = fixed + each * size
        timeline = simulate(schedule, Costs(forward=takes, backward=2 * takes))
        figures.append(schedule.devices * timeline.makespan - sum(timeline.busy))
    return figures, max(figures) - min(figures) <= 0.01 * max(figures)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="idle_time"
# Each schedule has costs of its own, because its micro-batches have a size of their own. So make one timeline for each
# of them.

# %% [markdown] role="hint" exercise="idle_time"
# A device is idle for the makespan without its busy time. The claim is about all devices together, and about time, not
# about fractions.

# %% [markdown] role="hint" exercise="idle_time"
# Total time is `schedule.devices` times the makespan. Take the sum of `busy` away. Then compare the largest with the
# smallest.

# %% [markdown] role="solution" exercise="idle_time"
# The idle time is p (p - 1)(tF + tB), and m is not in it. But tF depends on the size of a micro-batch. So the claim
# holds where micro-batches keep their size, and where size costs nothing (each = 0). It fails where one batch is cut
# finer.
