# ---
# jupyter:
#   pipelab:
#     number: 13
#     title: "Design your own"
#     minutes: 45
#     builds_on: [3, 7, 9]
#     goals:
#       - write down a goal, with what everything costs and what a device may hold
#       - draw a schedule for it, or write a rule that makes one
#       - prove it by its gradients, and place it beside the catalogue, a search and the bound
#       - say how well it does where the costs are others than you thought
# ---

# %% [markdown]
# ## Which schedule is made for *your* pipeline?
#
# Each schedule with a name was made for somebody's costs. 1F1B assumes that messages take no time. ZB-H1 assumes that
# F, I and W cost the same. Your pipeline has a slow link, an expensive I, and memory for a few micro-batches more. Is
# there a schedule for it, and can you find it yourself?
#
# On this page you design one. You begin with a **goal**: sizes, costs and a memory limit. Then you draw or write a
# schedule, and four questions follow. Is it sound? Does it fit? Are its gradients right? And how far is it from the
# best that anybody could do?

# %% role="setup"
from dataclasses import replace
from itertools import pairwise
from pipelab.teaching import *

# %% [markdown]
# ## The goal
#
# Four devices and eight micro-batches. F takes 10 units and B 20. A backward may be cut into I, which takes 12, and W,
# which takes 8. A message takes 4. A device may hold 6 micro-batches. (1F1B holds 4 on device 0.)

# %%
costs = Costs(forward=10, backward=20, input_gradient=12, weight_gradient=8, latency=4)
goal = Goal(devices=4, microbatches=8, costs=costs, memory_limit=6)
print(goal)
predict("13-gain", "Your best design under this goal: how much shorter is it than 1F1B?", unit="% shorter")

# %% [markdown]
# What does the catalogue have for this goal? The next cell simulates each of its schedules. Those that fit come first.
# "Over the bound" compares with `goal.bound`. No order of F, B, I and W that fits can take less than that.

# %%
print(goal.table())
print(f"no order that fits takes less than {goal.bound:g}")

# %% [markdown]
# Look at GPipe. With a link that takes no time it would be as fast as 1F1B. Here it is faster, but it holds everything.
# 1F1B runs out of forwards: each gradient comes back late, because it has waited for six messages on its way.
#
# ## Draw it
#
# The first way to a design is by hand. Eight micro-batches are too many for that. So here is a smaller goal: three
# devices, four micro-batches, and F, I and W take 1 each. Someone has drawn a table for it. In a browser you can take
# actions away with a click, and place them elsewhere. Move some W's, until the table takes less. (If you run the cell
# again, the first table is back.)

# %%
small = Goal(devices=3, microbatches=4, costs=Costs(forward=1, backward=2))
drawn = """
0F0,0F1,0F2,,,0I0,0W0,0F3,0I1,0W1,,0I2,0W2,,0I3,0W3
,1F0,1F1,,1I0,1W0,1F2,1I1,1W1,1F3,1I2,1W2,,1I3,1W3
,,2F0,2I0,2W0,2F1,2I1,2W1,2F2,2I2,2W2,2F3,2I3,2W3
"""
board = draw_schedule(3, 4, backward=(1, 1), limit=3, csv=drawn.strip())
board

# %%
by_hand = small.rate(board.board.schedule(), name="by hand")
print(by_hand)
print(small.table(by_hand))

# %% [markdown]
# `rate` is the one measure on this page. It refuses a table that is not sound, with the checker's reasons. Otherwise it
# says what the table takes and holds, whether that fits, and how far it is from the bound and from the catalogue.
#
# **Try it:** change the board until its makespan is the bound of the small goal. Which W's did you have to move?
#
# <details><summary>What you should see, and why</summary>
#
# ZB-H1 takes as long as the bound, and so does your board in the end. Somebody waits for the result of each I, so I's
# should come early. Nobody waits for a W. Device 2 can run its W's late, and then its I's come earlier. The devices
# before it fill their gaps with W's in the same way.
#
# </details>
#
# ## Write a rule
#
# The second way is a rule. It says what a device does next, and a program follows it to the end. This one goes as
# follows: whoever can start first does. If two actions can start at the same time, I goes before F, and F before W. A
# device takes no F in while it holds as much as it may.


# %%
def by_rule(goal, patience=0.0):
    """Rows of F, I and W. A W counts as if it could only start ``patience`` later."""
    p, takes = goal.devices, {"F": goal.costs.forward, "I": goal.costs.input_gradient, "W": goal.costs.weight_gradient}
    done = {(op, r): 0 for op in takes for r in range(p)}
    rows, free, end = [[] for _ in range(p)], [0.0] * p, {}

    def start(op, r, i):
        """When an action could start; None if something that it needs has not run."""
        needs = {"F": [("F", r - 1)], "I": [("F", r), ("I", r + 1)], "W": [("I", r)]}[op]
        needs = [(end.get((other, s, i)), goal.costs.latency * (s != r)) for other, s in needs if 0 <= s < p]
        return None if any(ended is None for ended, _ in needs) else max([free[r], *map(sum, needs)])

    while len(end) < len(done) * goal.microbatches:
        choices = []
        for (op, r), i in done.items():
            full = op == "F" and i - done["W", r] >= goal.limits[r]
            time = start(op, r, i) if i < goal.microbatches and not full else None
            if time is not None:
                choices.append((time + patience * (op == "W"), "IFW".index(op), r, op, i, time))
        *_, r, op, i, time = min(choices)
        rows[r].append(f"{r}{op}{i}")
        end[op, r, i] = free[r] = time + takes[op]
        done[op, r] += 1
    return rows


first = goal.rate(by_rule(goal), name="first rule")
first

# %% [markdown]
# That is shorter than 1F1B already, and shorter than ZB-H1. But is the rule good? Follow the longest path: the chain of
# actions that fixes the makespan. Nobody waits for a W. So what does a W do on that path?

# %%
path = first.timeline.critical_path()
for before, span in pairwise(path):
    arrived = max((time for time, _ in first.timeline.inputs(span)), default=0)
    if "W" in str(before.slot) and "W" not in str(span.slot) and arrived < before.end:
        print(f"device {span.device} runs {before.slot} until t = {before.end:g}; the input of {span.slot}", end=" ")
        print(f"has been there since t = {arrived:g}")

# %% [markdown]
# A free device takes a W as soon as it has one. If an I or an F arrives a moment later, it has to wait, and so do the
# devices that need it. A better device would be patient: "If an I or an F comes soon, I wait for it." How soon is soon?
# `patience` is a knob for that.

# %%
predict("13-patience", "What is the smallest patience that gives the shortest step? (A message takes 4.)", unit="units")

# %%
patiences = range(13)
tried = {patience: goal.rate(by_rule(goal, patience), name=f"patience {patience}") for patience in patiences}
makespans = [one.makespan for one in tried.values()]
best = min(tried, key=lambda patience: tried[patience].makespan)
mine, plain = tried[best], goal.rate(build_schedule("1f1b", 4, 8), name="1F1B")
display(reveal("13-patience", measurement=best))
lines = {"the rule": makespans, "1F1B": [plain.makespan] * len(makespans), "bound": [goal.bound] * len(makespans)}
note = "Predicted from the goal's costs."
plot_curves(patiences, lines, across="patience, units", up="makespan, units", title="A rule with a knob", note=note)

# %% [markdown]
# Several values are equally good. Too little patience delays I's. Too much of it
# leaves devices idle with work in their hands. Here is the best of them:

# %%
print(goal.table(mine))
display(plot_schedules([plain.timeline, mine.timeline], ["1F1B", f"Yours, {mine.schedule.name}"], memory=True))
print(mine)
gains = [100 * (1 - time / plain.makespan) for time in (goal.bound, mine.makespan)]
reveal("13-gain", prediction=gains[0], measurement=gains[1])

# %% [markdown]
# ## Prove it, run it
#
# So far this is a table and a simulation. Does the 48-layer model train with it, and are its gradients those of the
# unsplit model? `prove` runs one step in float64 to compare them, and then two steps of training. Its timeline is read
# from the unit clock: the costs are the goal's, and the order is the one that really ran.

# %%
proof = mine.prove()
print(f"as predicted: {proof.timeline.makespan == mine.makespan}; gradients right: {proof.right}")
proof

# %% [markdown]
# ## Could a search do better?
#
# A search tries thousands of tables. The bound needs no table at all. Between your makespan and the bound is all that
# anybody can still win under this goal.

# %%
searched = goal.search(seconds=3)
for one in (plain, mine, searched):
    print(f"{one.schedule.name:<12} {one.makespan:g}, which is {one.over_bound:.1%} over the bound of {one.bound:g}")

# %% [markdown]
# **Try it:** change the goal, and see whether your rule still holds: `other = replace(goal, memory_limit=4)`, then
# `print(other.rate(by_rule(other, best)))`. Then try a limit of 8.
#
# <details><summary>What you should see, and why</summary>
#
# With 4, the table is much longer, and so is the bound: there are not enough micro-batches in flight to hide the
# messages. With 8, the table is shorter by little or not at all. The memory that a goal can use ends somewhere.
#
# </details>
#
# ## A claim on trial: "less bubble means a shorter step"
#
# Papers compare schedules by their bubbles, and so did the lessons. But suppose that cutting a backward has a price: a
# whole B takes 14, while I and W still take 12 and 8. The next cell sorts all tables by their idle time. Then it looks
# for pairs where the claim fails.

# %%
cut = replace(goal, costs=replace(costs, backward=14))
rated = [*cut.catalogue, cut.rate(mine.schedule, name="yours")]
for one in sorted(rated, key=lambda one: one.timeline.bubble_fraction):
    print(f"{one.schedule.name:<6} idles {one.timeline.bubble_fraction:.1%} and takes {one.makespan:g}")
pairs = [(a, b) for a in rated for b in rated if a.timeline.bubble_fraction < b.timeline.bubble_fraction]
failing = [f"{a.schedule.name} and {b.schedule.name}" for a, b in pairs if a.makespan > b.makespan]
print(f"less idle, and still longer, in {len(failing)} of {len(pairs)} pairs:", ", ".join(failing) or "none")

# %% [markdown]
# The claim is true for tables of the same actions, because these have the same work. It can fail as soon as the work
# differs. A cut backward is more work, and more work leaves a smaller part of the time idle. So compare makespans.
#
# ## Break it
#
# The last W of device 0 comes when all others are done. Nobody waits for it. Leave it out, and the step becomes
# shorter. Who would notice?

# %%
row = mine.schedule.programs[0]
break_schedule(mine.schedule).drop(0, len(row) - 1)

# %% [markdown]
# No device hangs, and the loss of this step is the same. But the first stage lacks the gradient of one micro-batch. The
# checker names the missing action before anything runs. That is why soundness comes first in a design, and the gradient
# proof second. A makespan of a wrong table means nothing.
#
# ## What if the costs are others?
#
# You have tuned your rule to this goal. Real costs drift, and another model has others. A **leaderboard** tries
# schedules on hidden settings: p = 4 and m = 8, but other times for F, B, I and W, and other links. It keeps your
# schedules as files in `work/leaderboard/`. Nothing ever writes over them.

# %%
leaderboard = Leaderboard.here()
leaderboard.enter(mine.schedule, name="patient")
leaderboard

# %% [markdown]
# A point in the picture is a schedule. Further left means less memory, and lower means less time. The line joins the
# schedules that no other beats in both: the **Pareto front**. A schedule above the line is a poor choice for everybody.
# On the line, it depends on what you have more of. Anybody can move the line with a better schedule. In a terminal,
# `pipelab leaderboard mine.csv` enters a file.
#
# **Try it:** enter a second design, with a limit of 4: `frugal = replace(goal, memory_limit=4)`, then
# `leaderboard.enter(by_rule(frugal, best), name="frugal")` and `leaderboard`. Which of your two is on the line?
#
# <details><summary>What you should see, and why</summary>
#
# The frugal one holds as little as 1F1B, and is faster. But ZB-H1 and ZB-V hold as little, and take less on these
# settings. So it is above the line. ZB-V has two shorter stages on each device, and its pipeline fills faster. The
# second exercise takes you there.
#
# </details>
#
# ## Tell its story
#
# A design is worth little if nobody can check it. `tell_story` puts everything on one page: the goal, the picture, the
# figures, the gradient proof, the comparison, and the table itself as text. `save` writes it as one HTML file. By
# default it stands beside your leaderboard. It needs no other file, so you can send it or hand it in.

# %%
story = tell_story(goal, mine.schedule, name="patient", trial=proof, seconds=2)
print(story)
print("saved in the folder", story.save().parent.name)

# %% [markdown]
# ## What to remember
#
# - Begin with the goal: sizes, costs of each action, messages and memory. No schedule is best for all goals.
# - A rule with one knob can reach the bound. Look at the gaps to find the knob.
# - Soundness first, then gradients, then the limit, and only then the makespan.
# - The bound tells you when to stop.
# - Try a design on costs that it was not made for.

# %% [markdown] role="further"
# **Further: hand it to PyTorch.** Your table is text. `torch.distributed.pipelining` reads the same grammar, and runs
# it on its own engine. The dialect `torch` refuses what PyTorch has no word for. In the repository, `docs/pytorch.md`
# has a program for it.

# %% role="further"
print(mine.schedule.to_csv(dialect="torch"))

# %%
ledger()

# %% [markdown] page="exercises"
# Three designs, each harder than the one before. p is the number of devices, m the number of micro-batches. You return
# rows: for each device a list of actions in the order in which it runs them. `"2F1"`, `"2B1"`, `"2I1"` and `"2W1"` are
# the forward, the whole backward, I and W of micro-batch 1 on stage 2. You may use B, or I and W.
#
# Any order counts that is sound and stays within the limit. A device holds a micro-batch from the start of its F to the
# end of its B or W. For more points, get further. Each exercise has a plain table and a good one. The makespan of the
# plain one is the start of your way, and that of the good one is its end.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="reach_1f1b" difficulty="easy" minutes=15
# F takes 1, B takes 2, and messages take no time. Stage r is on device r. No device may hold more than min(p, m)
# micro-batches. Be as fast as 1F1B, for any p and m. The way begins with one micro-batch at a time. For the last part,
# the 48-layer model trains with your rows.


# %% role="answer" exercise="reach_1f1b"
def design(p: int, m: int) -> list[list[str]]:
    """One row of actions for each device.

    >>> design(2, 1)
    [['0F0', '0B0'], ['1F0', '1B0']]
    """
    ### BEGIN SOLUTION
    rows = []
    for r in range(p):
        ahead = min(p - r, m)
        row = [f"{r}F{i}" for i in range(ahead)]
        for i in range(m):
            row.append(f"{r}B{i}")
            if ahead + i < m:
                row.append(f"{r}F{ahead + i}")
        rows.append(row)
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="reach_1f1b"
# How long does device r wait for its first gradient after its first F? How many F can it run meanwhile?

# %% [markdown] role="hint" exercise="reach_1f1b"
# The last device can begin a backward at once. The device before it has time for one F more, and so on. After its first
# backward, a device that runs one F for each backward holds no more than before.

# %% [markdown] role="hint" exercise="reach_1f1b"
# Device r begins with p - r forwards, or with m if that is less. Then come a backward and a forward in turn, while
# there are forwards left. The other backwards come at the end. All run in the order of the micro-batches.

# %% [markdown] role="solution" exercise="reach_1f1b"
# Other rules are as fast. Each device could begin with p forwards, if it may hold so many: nobody waits for these. With
# backwards in two halves you can even be faster than 1F1B in the same memory.

# %% [markdown] role="lead" exercise="half_the_memory" difficulty="medium" minutes=35
# Now a device holds two stages, in a V: stages r and 2p - 1 - r are on device r. F, I and W of a stage take 1 each, and
# a whole B takes 2. Messages take no time. `limit` counts pairs of a stage and a micro-batch: device r may hold so many
# of them at any time. The check sets it to what V-Half holds. With many devices that is about half
# of what 1F1B holds, and with four it is three quarters. The way begins at 1F1B
# with shallower warm-ups, which holds as little, and ends at V-Half.


# %% role="answer" exercise="half_the_memory"
def fold(p: int, m: int, limit: int) -> list[list[str]]:
    """One row of actions for each device.

    >>> fold(1, 1, limit=2)
    [['0F0', '1F0', '1I0', '0I0', '1W0', '0W0']]
    """
    ### BEGIN SOLUTION
    stages = 2 * p
    done = {(op, s): 0 for s in range(stages) for op in "FIW"}
    rows, free, held, end = [[] for _ in range(p)], [0] * p, [0] * p, {}

    def ready(op: str, s: int, i: int) -> int | None:
        needs = {"F": [("F", s - 1)], "I": [("F", s), ("I", s + 1)], "W": [("I", s)]}[op]
        ends = [end.get((other, stage, i)) for other, stage in needs if 0 <= stage < stages]
        return None if None in ends else max(ends, default=0)

    while len(end) < 3 * stages * m:
        choices = []
        for (op, s), i in done.items():
            r = min(s, stages - 1 - s)
            spare = s < p  # what goes down comes back up through this device
            time = ready(op, s, i) if i < m else None
            if time is not None and (op != "F" or held[r] + 1 + spare <= limit):
                choices.append((max(time, free[r]), "IFW".index(op), -s if op == "F" else s, op, s, i, r))
        time, _, _, op, s, i, r = min(choices)
        rows[r].append(f"{s}{op}{i}")
        end[op, s, i] = free[r] = time + 1
        held[r] += {"F": 1, "I": 0, "W": -1}[op]
        done[op, s] += 1
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="half_the_memory"
# A table for any p, m and limit comes from a rule, as on the lesson's page. What is new here? A device chooses between
# two stages. And a micro-batch that has gone down needs room on its way up too.

# %% [markdown] role="hint" exercise="half_the_memory"
# Follow the clock: of all actions that could run next, take the one that can start first. Prefer I to F, and F to W. Of
# two F's, prefer the one that is nearer to the loss, because its gradients come back sooner. If a device fills up with
# micro-batches that go down, none of them can come up, and everything stands still. So leave room for one.

# %% [markdown] role="hint" exercise="half_the_memory"
# Keep four things: when each device is free, when each action ended, how many pairs each device holds, and how many of
# each op and stage have run. Go through all ops and stages, and ask when the next one of each could start. An F of
# stage r adds a pair, and must leave room for one more. An F of stage 2p - 1 - r adds a pair too. A W takes one away.

# %% [markdown] role="solution" exercise="half_the_memory"
# V-Half repeats one pattern for each micro-batch (Qi et al. 2024, arXiv 2405.15362). A rule like this one adapts itself
# to small m, where it is often faster. For large p and m the pattern is a little better. Could you beat both? A search
# can: `Goal(4, 8, chunks=2, memory_limit=3).search()` in `pipelab.teaching` looks for such a table.

# %% [markdown] role="lead" exercise="slow_link" difficulty="hard" minutes=40
# One stage on each device again: stage r is on device r. F, I and W take `t_forward`, `t_input` and `t_weight`, and a
# whole B takes as long as I and W. A message takes `t_message`, and does not keep its sender from working. A device may
# hold `limit` micro-batches. That is at least what 1F1B needs, and in some cases more. The way begins at 1F1B. It ends
# at the best table that the catalogue or a set of simple rules has under this limit.


# %% role="answer" exercise="slow_link"
def overlap(p: int, m: int, t_forward: int, t_input: int, t_weight: int, t_message: int, limit: int) -> list[list[str]]:
    """One row of actions for each device.

    >>> overlap(1, 1, 10, 10, 10, 2, limit=1)
    [['0F0', '0I0', '0W0']]
    """

    ### BEGIN SOLUTION
    def table(patience: float, extra: int) -> tuple[float, list[list[str]]]:
        takes = {"F": t_forward, "I": t_input, "W": t_weight}
        rows, free, end = [[] for _ in range(p)], [0.0] * p, {}
        done = {(op, r): 0 for op in takes for r in range(p)}
        while len(end) < 3 * p * m:
            choices = []
            for (op, r), i in done.items():
                full = done["F", r] - done["W", r] >= limit
                hungry = done["F", r] < min(m, done["I", r] + p - r + extra)
                if i == m or (op == "F" and full):
                    continue
                needs = {"F": [("F", r - 1)], "I": [("F", r), ("I", r + 1)], "W": [("I", r)]}[op]
                needs = [(end.get((o, s, i)), t_message * (s != r)) for o, s in needs if 0 <= s < p]
                if all(ended is not None for ended, _ in needs):
                    time = max([free[r], *map(sum, needs)])
                    first = hungry and op == ("W" if full else "F")
                    wait = patience * (op == "W" and not first)
                    choices.append((time + wait, not first, "IFW".index(op), r, op, i, time))
            *_, r, op, i, time = min(choices)
            rows[r].append(f"{r}{op}{i}")
            end[op, r, i] = free[r] = time + takes[op]
            done[op, r] += 1
        return max(free), rows

    return min(table(part * t_weight, extra) for part in (0, 0.5, 1) for extra in (0, limit))[1]
    ### END SOLUTION


# %% [markdown] role="hint" exercise="slow_link"
# 1F1B idles in two ways here. It waits for messages, though it has memory for further F's. And it waits for whole
# backwards, of which the device before needs only a half. Which of the two does your table still have?

# %% [markdown] role="hint" exercise="slow_link"
# Begin with the lesson's rule. It knows the times, the message and the limit. Then turn its knob. A table for one case
# takes a few milliseconds, so your function may make several, and return the fastest of them.

# %% [markdown] role="hint" exercise="slow_link"
# Put the loop in an inner function that gets the patience, and returns the makespan with the rows. The makespan is the
# largest time at which a device becomes free. Try patiences from 0 to the time of a W. Then add what 1F1B knows: device
# r wants p - r micro-batches on their way. As long as it has fewer, F goes first. If only memory keeps it from an F, a
# W goes first.

# %% [markdown] role="solution" exercise="slow_link"
# This is a small search: a rule with knobs, and the clock as the judge. `search_schedule` does the same with more
# knobs. Then it moves single actions. Where the link is slow, what helps most is memory: each further micro-batch in
# flight hides a part of the way.
