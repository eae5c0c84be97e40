# ---
# jupyter:
#   pipelab:
#     number: 11
#     title: "Pipelines everywhere"
#     minutes: 60
#     builds_on: [2, 5, 8]
#     goals:
#       - declare any work as a flow of stages on resources, predict it, run it, and read its timeline
#       - choose an order of coding for a video, and say what each choice costs
#       - find the bottleneck of a flow with a disk, and move it
#       - say what parareal can gain at most, and check it
# ---

# %% [markdown]
# ## What else is a pipeline?
#
# A pipeline needs three things: work that passes through stages, stages on different resources, and many items of the
# work. Layers of a model are only one example. This page has three others: coding a video, mapping a genome, and
# solving an equation in time. In each one, something other than the number of workers decides.
#
# A `Flow` is a list of stages. A `Stage` is a function, and it runs on a `Resource`: a core, a pool of cores, a disk.
# Items stream through. As with schedules, a flow is profiled, predicted, run and drawn. All work on this page is real,
# on data that is made from a seed. Two cores are enough for it. Runs that need more cores are only predicted, and the
# page says so.
#
# ## Video: which order of frames leaves least bubble?
#
# A video coder stores most frames as a difference. First it looks in other frames for each block of a picture: the
# **motion** stage. What is left is transformed to waves. Then these are rounded and packed: **quantisation**. Each
# kind of frame has a budget of bytes, and this stage tries several steps of rounding to find the finest that fits. So
# it takes long. There are three kinds of frames:
#
# - an **I frame** is coded by itself;
# - a **P frame** is predicted from a frame before it;
# - a **B frame** is predicted from one before it and one behind it. So the later one must be coded first.
#
# A frame that others are predicted from is their **reference**. The coder must use it as the decoder will have it. So
# the motion stage of a P frame waits until its reference has passed all stages, and is decoded again.

# %% role="setup"
import numpy as np
from pathlib import Path
from tempfile import TemporaryDirectory
from pipelab.teaching import *

# %%
scene = make_scene(13)
question = "Each frame is predicted from the one before, on two cores. What percentage of device time is idle?"
predict("11-chain", question, unit="%")

# %% [markdown]
# The flow below has the motion stage on one core, and all others on a second one. `needs` says which results a job
# waits for. `kind` says which jobs cost alike. `ordered` makes the motion stage keep to the order of coding.


# %%
def motion(item, *decoded):
    """Predict a frame from its decoded references."""
    frame, pixels = item
    return estimate_motion(frame, pixels, *(one.pixels for one in decoded))


def video_flow(order, work=motion):
    """Items are frames in the order of coding. A motion job needs its decoded references."""
    place = {frame.shown: i for i, frame in enumerate(order)}

    def references(i):
        return [("decode", place[shown]) for shown in order[i].references] if work is motion else []

    first, second = Resource("core A"), Resource("core B")
    how = {"kind": lambda i: order[i].kind, "buffer": None}
    return Flow(
        Stage("motion", work, first, needs=references, ordered=True, **how),
        Stage("transform", transform, second, **how),
        Stage("quantise", quantise, second, **how),
        Stage("decode", decode, second, **how),
        name=" ".join(map(str, order[:6])) + " ...",
    )


def frames_of(order):
    return [(frame, scene[frame.shown]) for frame in order]


usual = coding_order(13, between=2)
video_costs = video_flow(usual).profile(frames_of(usual), progress=False)
print("the usual order with two B frames:", *usual)
print(video_costs)

# %% [markdown]
# Now predict several orders. B frames may come as soon as both of their references are coded: the usual order. Or the
# coder first codes one more reference, and then the B frames before it: *one ahead*.

# %%
betweens, orders = (0, 1, 2, 3, 5), {"the usual order": 0, "one reference ahead": 1}
forecast = {
    name: [
        video_flow(order).predict(len(order), video_costs) for order in (coding_order(13, b, ahead) for b in betweens)
    ]
    for name, ahead in orders.items()
}
for name, timelines in forecast.items():
    told = [
        f"{b} B: {1e3 * t.makespan:.0f} ms, {t.bubble_fraction:.0%} idle"
        for b, t in zip(betweens, timelines, strict=True)
    ]
    print(f"{name}: {'; '.join(told)}")
curves = {name: [100 * timeline.bubble_fraction for timeline in timelines] for name, timelines in forecast.items()}
axes = {"across": "B frames between two references", "up": "bubble, % of device time"}
plot_curves(betweens, curves, **axes, title="Which order leaves least bubble?", note="Predicted from profiled costs.")

# %% [markdown]
# Without B frames the two cores work in turns. Each frame needs the one before it, decoded, so nothing overlaps. With
# B frames the motion stage has something to do while a reference is on its way. But the usual order gives it this work
# too late: right behind the P frame comes a B frame that needs it. One reference ahead, there are always older B
# frames to search while the next reference is decoded.
#
# The bubble is not all. B frames need two searches, so with them there is more work. Compare the makespans above too.
# Is the least bubble also the least time? The next cell really codes the video, in three of these orders.


# %%
NEAR = 0.1


def beside(name, predicted, report):
    """Print both makespans, and how much longer the jobs took than when each ran alone."""
    off = report.makespan / predicted.makespan - 1
    longer = sum(report.timeline.busy) / sum(predicted.busy) - 1
    both = f"predicted {1e3 * predicted.makespan:.0f} ms, measured {1e3 * report.makespan:.0f} ms ({off:+.1%})"
    print(f"{name}: {both}; its jobs took {longer:+.1%} against alone")
    if abs(off) > NEAR:
        why = "the jobs were longer" if abs(longer) > abs(off) / 2 else "the jobs waited for a core that was free"
        print(f"  off by more than {NEAR:.0%}: {why}")


coded, promised = {}, {}
for name, (between, ahead) in {"no B": (0, 0), "usual, two B": (2, 0), "one ahead, two B": (2, 1)}.items():
    order = coding_order(13, between, ahead)
    promised[name] = video_flow(order).predict(len(order), video_costs)
    coded[name] = video_flow(order).run(frames_of(order), progress=False)
    beside(name, promised[name], coded[name])
display(plot_schedules([report.timeline for report in coded.values()], list(coded)))
reveal(
    "11-chain",
    prediction=100 * promised["no B"].bubble_fraction,
    measurement=100 * coded["no B"].timeline.bubble_fraction,
)

# %% [markdown]
# Clock: wall, what happened on this machine. Prediction and measurement should be within 10 % of each other. If they
# are not, the cell says so, and why. Jobs that take longer together than alone share something: memory, or a core with
# other programs.
#
# ## What comes out
#
# Packets are all that a decoder gets. The next cell decodes them without the coder, and compares. **PSNR** says how
# near a picture is to the original, in decibels. From 35 dB on, differences are hard to see.

# %%
report = coded["one ahead, two B"]
packets, pixels = zip(*report.results, strict=True)
decoded = decode_video(packets, *scene.shape[1:])
same = all((decoded[packet.frame.shown] == image).all() for packet, image in zip(packets, pixels, strict=True))
print("the decoder has the coder's frames, bit by bit:", same)
for kind in "IPB":
    chosen = [packet for packet in packets if packet.frame.kind == kind]
    quality = np.mean([psnr(scene[packet.frame.shown], decoded[packet.frame.shown]) for packet in chosen])
    print(f"{kind} frames: {np.mean([packet.size for packet in chosen]) / 1e3:.1f} kB each, PSNR {quality:.1f} dB")
print(f"all: {sum(packet.size for packet in packets) / scene.size:.1%} of the original's bytes")
moved = next(packet for packet in packets if packet.frame.kind == "P")
shown = moved.frame.shown
shots = {"original": scene[shown], "decoded": decoded[shown], "where its blocks came from": decoded[shown]}
arrows = {"where its blocks came from": moved.shifts[0]}
note = "Arrows are twice as long as the motion. Real pictures of the run above."
plot_shots(shots, title=f"Frame {moved.frame}", arrows=arrows, note=note)

# %% [markdown]
# The arrows show two motions: that of the camera, and that of the ball.
#
# ## A claim on trial: "B frames make the pipeline bumpy"
#
# A B frame cannot begin before two other frames are coded. So one text expects stalls and bubbles from B frames. Which
# order stalled more in our runs?

# %%
for name, report in coded.items():
    waiting = sum(gap.end - gap.start for gap in report.timeline.gaps(0))
    print(f"{name}: {report.timeline.bubble_fraction:.0%} idle; core A waited for {1e3 * waiting:.0f} ms")
fewer = coded["one ahead, two B"].timeline.bubble_fraction < coded["no B"].timeline.bubble_fraction
print("the claim is", "false" if fewer else "true", "here")

# %% [markdown]
# What stalls a pipeline is a *chain*: P frames, each of which needs the one before. B frames are nobody's reference
# here. So they are work that can be moved to where the chain waits. The order decides whether it is moved there. There
# is a price: the coder holds more frames, and the picture comes later. The second exercise counts them.
#
# **Try it:** give all stages one pool: `first = second = Resource("core", workers=2)`. Predict `coding_order(13, 2, 1)`
# again. What changes, and why?
#
# <details><summary>What you should see, and why</summary>
#
# The bubble shrinks, because a core that has nothing to do for its stage now helps the other one. The chain of P frames
# stays, so some of it remains. Pools are the better choice where all workers can do all the work.
#
# </details>
#
# ## Break it
#
# The wait for decoded references is what makes the bubble. Why not predict from the original frame? It is there from
# the beginning. Then the motion stage needs nobody.


# %%
def hasty(item):
    """Predict from originals: no decoder has them."""
    frame, pixels = item
    return estimate_motion(frame, pixels, *(scene[shown] for shown in frame.references))


order = coding_order(13, between=0)
quick = video_flow(order, work=hasty).run(frames_of(order), progress=False)
print(f"honest {1e3 * coded['no B'].makespan:.0f} ms, hasty {1e3 * quick.makespan:.0f} ms")
told = {}
for name, report in {"honest": coded["no B"], "hasty": quick}.items():
    frames = decode_video([packet for packet, _ in report.results], *scene.shape[1:])
    told[name] = [psnr(scene[shown], frames[shown]) for shown in range(13)]
axes = {"across": "frame", "up": "PSNR of what a decoder shows, dB"}
plot_curves(range(13), told, **axes, title="Predicted from what nobody has", note="Measured: 13 frames, all but one P.")

# %% [markdown]
# The hasty coder is faster and notices nothing. But the decoder adds each difference to *its* picture, which differs
# from the original a little. The errors add up from frame to frame: **drift**. A dependency that looks like a mere
# nuisance may be what makes the result right.
#
# ## Genome: is it the mappers, or the disk?
#
# A sequencer cuts many copies of a genome into short pieces and reads each of them, with errors: **reads**. They must
# be put back to their places on a known reference, and sorted by place. A mapper looks up short words of a read in an
# index of the reference, and then compares the whole read at each candidate. The next cell makes a genome of the size
# of one of the smallest known for a bacterium that lives by itself, and maps the first reads.

# %%
genome = make_genome(length=580_000, reads=96_000)
index = Index.of(genome.codes)
records = index.map(genome.reads[:4000])
numbers = records["number"].astype(int)
right = (records["place"] == genome.places[numbers]) & (records["reverse"] == genome.reverse[numbers])
print(
    f"{len(records)} reads, {genome.misfit(numbers).mean():.2f} errors in each; {right.mean():.1%} at their true place"
)
worse = records["mismatches"] > genome.misfit(numbers)
print(f"{(~right).sum()} elsewhere, {worse.sum()} of them where they fit worse than at their true place")
predict("11-mappers", "The disk moves 40 MB/s. From how many mappers on does one more gain nothing?", unit="mappers")

# %% [markdown]
# (A tenth of this genome is repeats. Where a copy fits equally well, no mapper can know.)
#
# In the flow, a disk gives blocks of reads to the mappers. Nothing can be sorted before the last read is mapped, so
# *merge* takes all results at once. Then blocks of sorted records are packed, and go back to the disk. The disk is
# real. It is also held to 40 MB/s, as if it were slower than yours.

# %%
folder = TemporaryDirectory()
here = Path(folder.name)
stored = {level: write_reads(genome.reads, here, 24, level) for level in (1, 0)}  # compressed, and as they are


def genome_flow(mappers, level=0, disks=1):
    disk, core = Resource("disk", disks, "disk", bandwidth=40e6), Resource("core", mappers)
    there = here / f"{level} {disks}"
    return Flow(
        Stage("load", Path.read_bytes, disk, size=lambda path: path.stat().st_size, buffer=mappers + 2),
        Stage("map", lambda data: index.map(unpack(data, READ)), core, buffer=None),
        Stage("merge", lambda runs: merge(runs, 24), core, batch="all", split=24),
        Stage("pack", lambda block: pack(block, level), core),
        Stage("write", lambda block: write_block(block, there), disk, size=lambda block: block.size),
        name="genome",
    )


counts, variants = (1, 2, 4, 8), {"as they are": (0, 1), "compressed": (1, 1), "two disks": (0, 2)}
genome_costs = {level: genome_flow(1, level).profile(stored[level], progress=False) for level in (0, 1)}
print(genome_costs[0], genome_costs[1], sep="\n\ncompressed:\n")


def forecast_of(mappers, level, disks):
    return genome_flow(mappers, level, disks).predict(24, genome_costs[level])


rates = {name: [96 / forecast_of(w, *how).makespan for w in counts] for name, how in variants.items()}
shown = {"as they are": rates["as they are"]}
axes = {"across": "mappers", "up": "thousand reads a second"}
plot_curves(counts, shown, **axes, title="More mappers, one disk", note="Predicted from profiled costs.", log=True)

# %% [markdown]
# Each mapper more helps less, and at some number the curve is flat: from there on the disk is the bottleneck. The next
# cell runs the flow with one mapper and with two. This machine may not have more cores, so the rest stays predicted.

# %%
mapped = {}
for mappers in (1, 2):
    mapped[mappers] = genome_flow(mappers).run(stored[0], progress=False)
    beside(f"{mappers} of them", forecast_of(mappers, 0, 1), mapped[mappers])
print(mapped[2].explain())
display(plot_timeline(mapped[2].timeline, memory=False))
flat = next(w for w in range(1, 20) if forecast_of(w + 1, 0, 1).makespan > 0.99 * forecast_of(w, 0, 1).makespan)
reveal("11-mappers", prediction=flat)

# %% [markdown]
# Clock: wall. Look at the disk's row. Where the disk is the bottleneck, it loads almost without a break, then it waits
# for the merge, and then it writes without a break. More mappers could only shorten what stands between.
#
# **Try it:** leave out `buffer=mappers + 2`. Then there is room for two loaded blocks only, and a block keeps its room
# until it is mapped. Predict 1, 2, 4 and 8 mappers with compressed blocks: `forecast_of(8, 1, 1)`. What looks like the
# bottleneck, and what is it really?
#
# <details><summary>What you should see, and why</summary>
#
# From two mappers on, nothing gets faster. The disk idles too, for lack of room: two blocks are being mapped, so none
# can be loaded, and all other mappers have no work. Neither the disk nor the cores are slow. The room between them is
# too small.
#
# </details>
#
# ## Move the bottleneck
#
# There are two ways to help a disk. **Block compression** makes each block smaller, by itself, so that any region can
# be read without the others. It costs time on the cores. **Sharding** spreads blocks over several disks.

# %%
question = "Two mappers: how many times as many reads a second with compressed blocks?"
predict("11-packed", question, unit="times")

# %%
axes = {"across": "mappers", "up": "thousand reads a second"}
note = "Predicted from profiled costs: compressed blocks have costs of their own."
display(plot_curves(counts, rates, **axes, title="Three ways to store the reads", note=note, log=True))
for name in ("compressed", "two disks"):
    level, disks = variants[name]
    mapped[name] = genome_flow(2, level, disks).run(stored[level], progress=False)
    beside(f"{name}, two mappers", forecast_of(2, level, disks), mapped[name])
    works = ", ".join(f"{resource} {share:.0%}" for resource, share in mapped[name].utilisation.items())
    print(f"  busy: {works}")
packed = mapped["compressed"]
reveal(
    "11-packed",
    prediction=rates["compressed"][1] / rates["as they are"][1],
    measurement=mapped[2].makespan / packed.makespan,
)

# %% [markdown]
# Compressed, the disk has about a third of the bytes, and the cores have more to do: unpack, and pack again. (Sorted
# records are packed best, because neighbours overlap.) So the bottleneck moves from the disk to the cores. Compare
# the curves: compression gains little with one mapper, and much with eight. A second disk moves the bottleneck as
# well, and costs nothing on the cores. So before you add workers, ask which resource is the bottleneck, and after
# each change ask again.
#
# The last question is whether the output is right. `read_region` opens those blocks only that hold the region.

# %%
blocks = packed.results
everything = np.concatenate([unpack(block.path.read_bytes()) for block in blocks])
numbers = everything["number"].astype(int)
print("each read once:", sorted(numbers) == list(range(len(genome.reads))))
print("sorted by place:", bool((np.diff(everything["place"].astype(int)) >= 0).all()))
print(f"at their true place: {(everything['place'] == genome.places[numbers]).mean():.1%}")
region = read_region(blocks, 100_000, 101_000)
opened = sum(b.first <= 101_000 and b.last >= 100_000 for b in blocks)
print(f"a region of a thousand letters: {len(region)} reads, from {opened} of {len(blocks)} blocks")
print(f"bytes written: {sum(b.path.stat().st_size for b in blocks) / everything.nbytes:.0%} of the records'")

# %% [markdown]
# ## A predictor and a corrector: parallel in time
#
# Time steps come one after another. So a simulation cannot be split along time, it seems. **Parareal** does it (Lions,
# Maday and Turinici 2001). Cut time into N slices. A coarse solver G, with few steps, runs ahead and guesses the state
# at the beginning of each slice. The fine solver F then starts from all guesses *at the same time*. After that G goes
# through the slices again, and each state is corrected by what F found:
#
# $$U_{n+1}^{k} = G(U_n^{k}) + F(U_n^{k-1}) - G(U_n^{k-1})$$
#
# After k iterations, the first k slices have exactly what F alone would give. After N of them everything has, but
# nothing was gained. The hope is that far fewer iterations are enough.
#
# Our equation is diffusion: a plate with cold edges, which a spot of light heats as it runs around.

# %%
question = "8 slices, 8 workers, 2 iterations: how many times as fast as the fine solver alone, at most?"
predict("11-parareal", question, unit="times")


# %%
def time_flow(solver, workers):
    """Fine solves and sweeps of the coarse solver, on one pool."""
    pool = Resource("core", workers)
    return Flow(
        Stage("fine", solver.fine, pool, needs=solver.fine_needs, kind=solver.kind, buffer=None),
        Stage("sweep", solver.sweep, pool, needs=solver.sweep_needs, kind=solver.kind, buffer=None),
        name=f"{solver.slices} slices, {solver.iterations} iterations",
    )


plate, counted = Diffusion(), (1, 2, 3)
tries = {k: Parareal(plate, slices=8, iterations=k, fine_steps=80, coarse_steps=1) for k in counted}
time_costs = time_flow(tries[3], 1).profile(tries[3].tasks, progress=False)
wide = time_flow(tries[2], 8).predict(len(tries[2].tasks), time_costs)
fine, coarse = time_costs["fine", "correct"], time_costs["sweep", "correct"]
print(f"a fine solve takes {1e3 * fine:.0f} ms, a coarse one {1e3 * coarse:.1f} ms")
plot_timeline(wide, memory=False)

# %% [markdown]
# This is a prediction from measured costs, as if there were eight cores. Items 0 to 7 are the guesses: short sweeps,
# one after another. Items 8 to 15 are the first iteration. Each fine solve begins as soon as its guess is there, so
# they begin as a staircase. Their corrections are a staircase again, and the second iteration follows it. With N
# slices, a worker for each, coarse time $T_c$ and fine time $T_f$, the last correction ends at
#
# $$N\,T_c + K\,(T_c + T_f).$$
#
# The fine solver alone takes $N\,T_f$. So the speed-up is
#
# $$\frac{N\,T_f}{N\,T_c + K\,(T_c + T_f)} = \frac{1}{\frac{K}{N} + \left(1 + \frac{K}{N}\right)\frac{T_c}{T_f}}
# \ <\ \frac{N}{K}.$$
#
# Now run it, on two cores. There the bound is 2/K, or a little more: iteration k leaves out the slices that are exact.

# %%
alone = tries[1].serial()
finer = Parareal(plate, slices=8, iterations=0, fine_steps=320, coarse_steps=1).serial()


def error(state, truth):
    return float((state - truth).abs().max() / truth.abs().max())


for k, solver in tries.items():
    promise = time_flow(solver, 2).predict(len(solver.tasks), time_costs)
    solved = time_flow(solver, 2).run(solver.tasks, progress=False)
    beside(f"{k} iterations", promise, solved)
    gain, miss = solver.slices * fine / solved.makespan, error(solver.ends(solved.results)[-1], alone)
    print(f"  error {miss:.2%}, {gain:.2f} times as fast; two cores over K: {2 / k:.2f}")
print(f"the fine solver's own error, against four times as many steps: {error(alone, finer):.2%}")
reveal("11-parareal", prediction=8 * fine / wide.makespan)

# %% [markdown]
# The error is measured against the fine solver alone. It makes no sense to iterate until it is far below the fine
# solver's *own* error. Compare the lines to see how many iterations are enough. Then look at the speed-up that is left
# on two cores: parareal does the fine work K times. It pays only where there are many more workers than iterations.
#
# ## Into how many slices?
#
# So take more workers, and as many slices. Each fine solve becomes shorter, but the staircase becomes longer. The next
# cell keeps all fine steps together as they are, and cuts them into more and more slices.

# %%
slices, k, steps = (2, 4, 8, 16, 32, 64), 2, 8 * 80
predicted, formula = [], []
for n in slices:
    costs = {("fine", "guess"): 0.0, ("fine", "correct"): fine * 8 / n, "sweep": coarse}
    cut = Parareal(plate, slices=n, iterations=k, fine_steps=steps // n, coarse_steps=1)
    predicted.append(8 * fine / time_flow(cut, n).predict(len(cut.tasks), costs).makespan)
    formula.append(1 / (k / n + (1 + k / n) * coarse / (fine * 8 / n)))
shown = {"predicted, a worker for each slice": predicted, "the formula": formula}
axes = {"across": "slices N, as many workers", "up": "speed-up"}
note = f"K = {k}. Predicted from the costs measured above; nothing here is run on more than two cores."
display(plot_curves(slices, shown, **axes, title="Parareal with more slices", note=note, log=True))
off = max(abs(a / b - 1) for a, b in zip(predicted, formula, strict=True))
print(f"prediction and formula differ by {off:.1%} at most")
print(f"best N by the root: {(k * 8 * fine / coarse) ** 0.5:.0f}; the bound N / K: {[n / k for n in slices]}")

# %% [markdown]
# The curve follows the bound at first, and then it turns down. That is the shape of lesson 5: cutting finer shortens
# one term and lengthens another. The best N is again a root, $\sqrt{K\,W / T_c}$, where W is the fine work in all. You
# use it in the third exercise.
#
# **Try it:** give the coarse solver four steps: `coarse_steps=4` in `tries`, and run from there. What becomes better,
# and what worse?
#
# <details><summary>What you should see, and why</summary>
#
# The guesses are better, so the error after each iteration is smaller. One iteration may be enough. But a sweep takes
# four times as long, so the staircase is longer. The best number of slices becomes half as large.
#
# </details>
#
# ## What to remember
#
# - Stages, resources and items make a pipeline, whatever the work is. Its pace is that of the most loaded resource.
# - A chain of dependencies stalls a pipeline, and independent work fills the gaps, if the order brings it there in
#   time.
# - A dependency may look like a nuisance and still be what makes the result right.
# - More workers help until another resource is the bottleneck. Less to move, or a second disk, moves it.
# - With K iterations over N slices, parareal is less than N/K times as fast.
#
# Lesson 11b goes on with batches, with latency, and with work that several parties share.

# %%
folder.cleanup()
ledger()

# %% [markdown] page="exercises"
# The three exercises are about numbers that you are given. Nothing here depends on your machine.

# %% role="setup"
from typing import Any
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="find_bottleneck" difficulty="easy" minutes=15
# A flow has stages in a line, and each item passes all of them. `stages` is a list of dictionaries:
#
# - `name`, and `on`: the name of the resource on which the stage runs;
# - `ms`: milliseconds of work for each item, and `kilobytes`: what it moves for each item. One of the two is 0.
#
# `resources` maps a name to a dictionary with `workers` and `bandwidth`. The bandwidth is that of each worker, in
# kB/ms, or None if the resource moves no bytes. A stage on a resource with a bandwidth takes `kilobytes / bandwidth`
# milliseconds. Workers of a resource share its items. There are many items, and enough room between the stages.
#
# - `bottleneck` returns the name of the resource that decides the pace.
# - `throughput` returns items per *second*.
# - `enough_workers` returns the fewest workers of the resource `pool` with which one more would gain nothing. All
#   other resources stay as they are. Its present number of workers does not matter.


# %% role="answer" exercise="find_bottleneck"
def bottleneck(stages: list[dict[str, Any]], resources: dict[str, dict[str, Any]]) -> str:
    """The resource that needs most time for an item.

    >>> read = {"name": "read", "on": "disk", "ms": 0, "kilobytes": 80}
    >>> work = {"name": "map", "on": "core", "ms": 30, "kilobytes": 0}
    >>> resources = {"disk": {"workers": 1, "bandwidth": 4}, "core": {"workers": 2, "bandwidth": None}}
    >>> bottleneck([read, work], resources)    # 20 ms and 15 ms
    'disk'
    """
    ### BEGIN SOLUTION
    paces = {}
    for name, resource in resources.items():
        speed = resource["bandwidth"]
        work = [s["kilobytes"] / speed if speed else s["ms"] for s in stages if s["on"] == name]
        paces[name] = sum(work) / resource["workers"]
    return max(paces, key=lambda name: paces[name])
    ### END SOLUTION


def throughput(stages: list[dict[str, Any]], resources: dict[str, dict[str, Any]]) -> float:
    """Items per second in a long run.

    >>> stages = [{"name": "map", "on": "core", "ms": 30, "kilobytes": 0}]
    >>> throughput(stages, {"core": {"workers": 3, "bandwidth": None}})
    100.0
    """
    ### BEGIN SOLUTION
    slowest = 0.0
    for name, resource in resources.items():
        speed = resource["bandwidth"]
        work = [s["kilobytes"] / speed if speed else s["ms"] for s in stages if s["on"] == name]
        slowest = max(slowest, sum(work) / resource["workers"])
    return 1000 / slowest
    ### END SOLUTION


def enough_workers(stages: list[dict[str, Any]], resources: dict[str, dict[str, Any]], pool: str) -> int:
    """The fewest workers of ``pool`` with which one more gains nothing.

    >>> work = {"name": "map", "on": "core", "ms": 30, "kilobytes": 0}
    >>> total = {"name": "sum", "on": "other", "ms": 15, "kilobytes": 0}
    >>> alone = {"workers": 1, "bandwidth": None}
    >>> enough_workers([work, total], {"core": alone, "other": alone}, "core")
    2
    """
    ### BEGIN SOLUTION
    work = dict.fromkeys(resources, 0.0)
    for s in stages:
        speed = resources[s["on"]]["bandwidth"]
        work[s["on"]] += s["kilobytes"] / speed if speed else s["ms"]
    limit = max(work[name] / resources[name]["workers"] for name in resources if name != pool)
    count = 1
    while work[pool] / count > limit * (1 + 1e-9):
        count += 1
    return count
    ### END SOLUTION


# %% [markdown] role="hint" exercise="find_bottleneck"
# Ask each resource: how many milliseconds must lie between two items, at least, so that you keep up?

# %% [markdown] role="hint" exercise="find_bottleneck"
# A resource does all of its stages for each item, so their times add up. With w workers, w items are under way there at
# once, so an item leaves w times as often. The slowest resource decides, and the others wait for it.

# %% [markdown] role="hint" exercise="find_bottleneck"
# Make a dictionary from a resource's name to the sum of its stages' times, and divide by its workers. The largest value
# is the pace, in milliseconds for an item. For the pool, leave out the division. Then count workers up from 1, until
# its share is no more than the largest pace of the others.

# %% [markdown] role="solution" exercise="find_bottleneck"
# Latency does not occur in any of the three. A stage that is added to an idle resource makes each item later, and the
# throughput stays. That is why one looks for the bottleneck first, and optimises nothing else.

# %% [markdown] role="lead" exercise="order_frames" difficulty="hard" minutes=30
# Frames are numbered in the order in which they are shown, from 0. `references[d]` lists the frames that frame d is
# predicted from. It may name earlier and later ones. Frames come in groups as in the lesson: I or P frames, and B
# frames between them. A B frame in the middle may be a reference of other B frames around it.
#
# A decoder gets frames in the order of coding. After each one it does two things:
#
# 1. It puts out every frame that it has, if all frames that are shown before are out too. They go out in their order.
# 2. It drops each frame that is out and that no later frame in the order refers to.
#
# Write three functions:
#
# - `coding_order` returns an order in which each reference comes before the frames that need it. For the second part,
#   the decoder must hold as few frames as possible. Any order with the fewest is accepted.
# - `put_out` returns, for each frame of `order`, the list of frames that go out right after it. Many of these lists are
#   empty.
# - `frames_held` returns the most frames in memory at a time. While a frame is decoded, those are the frames that were
#   kept, and one more for the frame itself.


# %% role="answer" exercise="order_frames"
def coding_order(references: list[list[int]]) -> list[int]:
    """An order of coding, references first, in which the decoder holds as few frames as possible.

    >>> coding_order([[], [0, 2], [0]])
    [0, 2, 1]
    """
    ### BEGIN SOLUTION
    order: list[int] = []

    def code(d: int) -> None:
        if d not in order:
            for r in references[d]:
                code(r)
            order.append(d)

    for d in range(len(references)):
        code(d)
    return order
    ### END SOLUTION


def put_out(order: list[int]) -> list[list[int]]:
    """The frames that go out after each frame of ``order``.

    >>> put_out([0, 2, 1])
    [[0], [], [1, 2]]
    """
    ### BEGIN SOLUTION
    done: set[int] = set()
    outs, following = [], 0
    for d in order:
        done.add(d)
        now = []
        while following in done:
            now.append(following)
            following += 1
        outs.append(now)
    return outs
    ### END SOLUTION


def frames_held(order: list[int], references: list[list[int]]) -> int:
    """The most frames in the decoder's memory at a time.

    >>> frames_held([0, 2, 1], [[], [0, 2], [0]])    # while frame 1 is decoded: 0 and 2 are its references
    3
    """
    ### BEGIN SOLUTION
    memory: set[int] = set()
    following, most = 0, 0
    for place, d in enumerate(order):
        most = max(most, len(memory) + 1)
        memory.add(d)
        while following in order[: place + 1]:
            following += 1
        needed = {r for later in order[place + 1 :] for r in references[later]}
        memory = {e for e in memory if e >= following or e in needed}
    return most
    ### END SOLUTION


# %% [markdown] role="hint" exercise="order_frames"
# Which frame must go out next? Code what it needs, and nothing else, before it.

# %% [markdown] role="hint" exercise="order_frames"
# Go through the frames as they are shown. For each one, its references come first, and theirs before them. A function
# that calls itself does this. For the memory, play the decoder: a set of frames, and the number of the frame that goes
# out next.

# %% [markdown] role="hint" exercise="order_frames"
# Your function of one frame returns at once if the frame is in the order. If not, it calls itself for each reference,
# and then appends the frame. Call it for 0, 1, 2 and so on. In `put_out` a loop goes on while the next frame is there.
# In `frames_held`, compare the size of the set before each frame, plus 1. Afterwards keep those that are not out yet,
# and references of what comes.

# %% [markdown] role="solution" exercise="order_frames"
# This is the order that standards for video call the coding order, or decoding order. A stream says how many frames it
# makes a decoder hold: H.264 calls this the decoded picture buffer. The order of the lesson with one reference ahead
# fills the coder's pipeline better, and needs a larger buffer. So the two aims pull in opposite directions.

# %% [markdown] role="lead" exercise="parareal_bound" difficulty="medium" minutes=20
# Parareal has N slices, and each slice has a worker of its own, which does all coarse and fine solves of its slice. A
# coarse solve of a slice takes `coarse`, a fine one `fine`. Passing a state to the next slice takes no time. The first
# guesses go through all slices, one after another. Each of K iterations makes a fine solve in all slices, and then
# corrects them one after another, with a coarse solve each. A worker goes on as soon as it has what it needs. The fine
# solver alone would go through all slices, one after another.
#
# - `speed_up` returns how many times as fast parareal is as the fine solver alone.
# - `most_iterations` returns the largest K from 1 to N with which the speed-up is at least `wanted`. Return 0 if there
#   is none.
# - `best_slices`: now the fine solver needs `work` in all, and `work` / N for each slice, but a coarse solve still
#   takes `coarse`. Return the N with which parareal takes least time. It is a whole number from K to `limit`.


# %% role="answer" exercise="parareal_bound"
def speed_up(slices: int, iterations: int, coarse: float, fine: float) -> float:
    """Time of the fine solver alone over that of parareal.

    >>> speed_up(slices=4, iterations=1, coarse=1, fine=20)    # 80 against 4 + 21
    3.2
    """
    ### BEGIN SOLUTION
    parallel = slices * coarse + iterations * (coarse + fine)
    return slices * fine / parallel
    ### END SOLUTION


def most_iterations(slices: int, coarse: float, fine: float, wanted: float) -> int:
    """The most iterations with at least the speed-up ``wanted``, or 0.

    >>> most_iterations(slices=4, coarse=1, fine=20, wanted=1.5)    # 2 iterations: 80 against 46
    2
    """
    ### BEGIN SOLUTION
    allowed = slices * fine / wanted - slices * coarse
    return max(0, min(slices, int(allowed / (coarse + fine) + 1e-9)))
    ### END SOLUTION


def best_slices(work: float, iterations: int, coarse: float, limit: int) -> int:
    """The number of slices with which parareal takes least time.

    >>> best_slices(work=100, iterations=1, coarse=4, limit=16)    # 5 · 4 + 4 + 20
    5
    """
    ### BEGIN SOLUTION
    lengths = {n: n * coarse + iterations * (coarse + work / n) for n in range(iterations, limit + 1)}
    return min(lengths, key=lambda n: lengths[n])
    ### END SOLUTION


# %% [markdown] role="hint" exercise="parareal_bound"
# Draw three slices and one iteration, a row for each worker. When does the last worker get its first guess? When is its
# fine solve over? And when has its neighbour handed over the corrected state?

# %% [markdown] role="hint" exercise="parareal_bound"
# Corrections start from slice 0, and each comes to the next slice when that slice's fine solve is over too, no earlier
# and no later. So an iteration makes everything later by one fine and one coarse solve. How much later than the first
# slice does the last one finish?

# %% [markdown] role="hint" exercise="parareal_bound"
# The last guess is there after N coarse solves. Each iteration adds one coarse and one fine solve, no matter how many
# slices there are. For the most iterations solve this for K, and round down. For the best N there are few candidates:
# try them all, or take the root from the lesson and compare both of its neighbours.

# %% [markdown] role="solution" exercise="parareal_bound"
# An older way to count lets all workers wait for the whole sweep in each iteration. Then it takes N coarse solves each
# time, and the staircase appears K + 1 times instead of once. Pipelining the sweeps removes that. It is the same step
# as from serial micro-batches to GPipe.
