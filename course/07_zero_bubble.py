# ---
# jupyter:
#   pipelab:
#     number: 7
#     title: "Zero bubble: a backward in two halves"
#     minutes: 45
#     builds_on: [3, 4]
#     goals:
#       - cut a backward into I and W, and say who waits for each of them
#       - fill the bubble of 1F1B with W, slot by slot
#       - say what ZB-H2 pays for the rest, and over which span its bubble is zero
#       - say why a V-shaped placement needs no more memory than 1F1B
# ---

# %% [markdown]
# ## What could a device do while it waits?
#
# Below is 1F1B with eight micro-batches, as in lesson 3. A forward takes 1 and a backward 2, as in most models. The
# first device idles for 9 units, and the last one waits at the start and at the end. Interleaving (lesson 4) divided
# this bubble by v. Its lower bound held "as long as a backward is one piece".
#
# On this page we cut the backward.

# %% role="setup"
import torch
from pipelab.teaching import *

model, (inputs, targets) = TransformerLM(layers=48), text_batch()

# %%
equal = Costs(forward=1, backward=2)  # where a backward is cut, each half takes 1
plain = simulate(build_schedule("1f1b", devices=4, microbatches=8), equal)
plot_timeline(plain, memory=False)

# %% [markdown]
# ## What is a backward made of?
#
# Take one linear layer, $y = x A^\top + b$, with the weight $A$. The gradient of the loss with respect to $y$ comes
# from above; call it $g$. A backward computes two things from it:
#
# - the gradient of the **i**nput, $g A$. The stage before waits for it. We call this half **I**.
# - the gradients of the **w**eights, $g^\top x$ and the sum of $g$ for the bias. Only the optimizer needs them, at the
#   end of the step. We call this half **W**.
#
# Autograd can compute each half alone.

# %%
torch.manual_seed(0)
layer = torch.nn.Linear(512, 512).double()
x = torch.randn(64, 512, dtype=torch.float64, requires_grad=True)
y = layer(x)
g = torch.randn_like(y)
(for_input,) = torch.autograd.grad(y, x, g, retain_graph=True)  # I
for_weight, for_bias = torch.autograd.grad(y, [layer.weight, layer.bias], g)  # W, later
for name, found, formula in [
    ("I", for_input, g @ layer.weight),
    ("W, weight", for_weight, g.T @ x),
    ("W, bias", for_bias, g.sum(0)),
]:
    print(f"{name:<9}  largest difference from the formula: {(found - formula).abs().max().item():.0e}")

# %% [markdown]
# Both are one product of matrices of the same size, so in this layer they take equally long. W needs $x$ and $g$. So a
# device that puts W off must keep both until then.
#
# In the text form of an action, I and W stand where B stood: `1I0` is the I half of stage 1's backward for
# micro-batch 0. A forward takes tF, and the two halves take tI and tW. Qi and others published this idea as **zero
# bubble** pipelines (arXiv 2401.10241). They write B for what we call I. So "B" in their formulas is half of the B on
# our other pages.
#
# A stage of our model has 12 layers. Each has four linear layers, and between them GELU, layer norms and attention.
# Are the two halves still equal?

# %%
question = "A stage in the middle of the 48-layer model. How long does I take, as a percentage of W?"
predict("07-halves", question, unit="%")

# %%
h1 = build_schedule("zb-h1", devices=4, microbatches=8)
with Pipeline(model, h1, loss=next_byte_loss) as pipeline:
    costs = pipeline.profile(inputs, targets)  # 8 sequences alone, back by B, then once more and back by I and W
columns = (costs.forward, costs.backward, costs.input_gradient, costs.weight_gradient)
print("milliseconds     F      B      I      W")
for s, times in enumerate(zip(*columns, strict=True)):
    print(f"stage {s}    ", *(f"{1e3 * t:6.1f}" for t in times))
middle = 100 * sum(costs.input_gradient[1:3]) / sum(costs.weight_gradient[1:3])
reveal("07-halves", measurement=middle)

# %% [markdown]
# They are not equal, for three reasons:
#
# - Attention, GELU and the other parts without large weights have only an input. Their whole backward is I.
# - Cutting has a price: the graph is walked twice, and I does most of the extra work. So I and W together take longer
#   than B.
# - Stage 0 begins with byte values, and these have no gradient. Nobody waits for its I, so it computes almost
#   nothing there. Its whole backward is W. (The backward of its attention is then part of W as well, because the
#   weights of earlier layers need that gradient.)
#
# Lesson 7b comes back to this price, and to what it means for a schedule. Papers draw their pictures with tF = tI =
# tW, and so does this page from here on.
#
# ## Put W where the bubble is
#
# Start small: p = m = 3. The table below is 1F1B, with each backward as I and then W. That alone already saves
# something. Why?

# %%
start = Schedule.from_csv("""
0F0,0F1,0F2,0I0,0W0,0I1,0W1,0I2,0W2
1F0,1F1,1I0,1W0,1F2,1I1,1W1,1I2,1W2
2F0,2I0,2W0,2F1,2I1,2W1,2F2,2I2,2W2
""")
whole = simulate(build_schedule("1f1b", devices=3, microbatches=3), equal)
halves = simulate(start, equal)
print(f"1F1B with whole backwards: {whole.makespan:g} units; as I and W: {halves.makespan:g}")
plot_schedules([whole, halves], ["1F1B", "1F1B, each backward as I and then W"])

# %% [markdown]
# The gradient now leaves a stage after I, one unit earlier than before. It passes p - 1 stages on its way to device 0,
# so the step is p - 1 units shorter.
#
# Device 2 still makes the others wait. It runs `2W0` and `2W1`, for which nobody waits. So `2I2` comes late, and
# device 1 idles at t = 9. Put W off: in the next table device 2 runs W0 after I2, and device 1 runs W0 after I1.
# Device 0 stays as it is. A guess first.

# %%
predict("07-fill", "How many units does the step take, with these W moved?", unit="units")

# %%
rows = [[str(action) for action in row] for row in start.programs]
later_2 = ["2F0", "2I0", "2F1", "2I1", "2F2", "2I2", "2W0", "2W1", "2W2"]
later_1 = ["1F0", "1F1", "1I0", "1F2", "1I1", "1W0", "1I2", "1W1", "1W2"]
steps = {
    "I and then W": start,
    "W of device 2 later": Schedule.from_rows([rows[0], rows[1], later_2]),
    "W of devices 1 and 2 later": Schedule.from_rows([rows[0], later_1, later_2]),
}
timelines = {name: simulate(schedule, equal) for name, schedule in steps.items()}
for name, timeline in timelines.items():
    held = ", ".join(f"{peak:g}" for peak in timeline.peak_microbatches)
    print(f"{name:<27} {timeline.makespan:g} units, in flight at most: {held}")
display(plot_schedules(list(timelines.values()), list(timelines)))
reveal("07-fill", prediction=3 * 3 + (3 - 1), measurement=timelines["W of devices 1 and 2 later"].makespan)

# %% [markdown]
# Each device that puts W off saves one unit. The end of the step was a bubble, and now W fills it.
#
# It cannot get shorter. Device 2 has 9 units of work, and it begins when a forward has come through the two stages
# before it.
#
# This is **ZB-H1**: the warm-up of 1F1B, and W of device r is r micro-batches late. A micro-batch is in flight until
# its W is over. Under 1F1B device 2 held one micro-batch, now it holds three. But device 0 already held three under
# 1F1B. So *the fullest device holds no more than under 1F1B*, and every device is as full as that one.
#
# Now for real: the 48-layer model on three devices, 63 sequences, with the table above. Under the unit clock F, I and
# W take 1 each.

# %%
mine = steps["W of devices 1 and 2 later"]
print("the catalogue's table:", mine.programs == build_schedule("zb-h1", devices=3, microbatches=3).programs)
try_schedule(mine, costs=equal, batch=63)

# %% [markdown]
# The gradients are those of the unsplit model. `I` stops wherever a weight comes into autograd's graph, and keeps the
# gradient there for `W`.
#
# **Try it:** in `later_2` move `2W0` one place to the left, before `2I2`. Put it back, and in `later_1` put all three W
# last. How long does the step take?
#
# <details><summary>What you should see, and why</summary>
#
# Both take 12 units. In the first table `2I2` is one unit later, and devices 1 and 0 wait for it. In the second one
# device 1 waits for `2I2` and does nothing meanwhile. A W that it could have run then is still to come at the end. So
# W fills a bubble only if it is kept for the right moment.
#
# </details>
#
# ## How much bubble is left?
#
# Count for p devices. In 1F1B device 0 idles for (p - 1)(tF + tI + tW): while a micro-batch passes the p - 1 other
# stages on its way down, and its gradient on the way up. Now the gradient comes up without W, and W fills idle time,
# so tW counts twice:
#
# $$\text{idle time of ZB-H1} = (p - 1)(t_F + t_I - t_W)$$
#
# The formula needs tW of at most tF + tI, and m of at least p. Check it for several costs:

# %%
for p, m, (tF, tI, tW) in [(4, 8, (1, 1, 1)), (16, 32, (1, 1, 1)), (4, 4, (2, 3, 1)), (8, 20, (1, 1.5, 0.5))]:
    costs_here = Costs(forward=tF, backward=tI + tW, input_gradient=tI, weight_gradient=tW)
    made = [simulate(build_schedule(name, p, m), costs_here) for name in ("1f1b", "zb-h1")]
    idle = [timeline.bubble_fraction * timeline.makespan for timeline in made]
    print(f"p = {p}, m = {m}, tF = {tF}, tI = {tI}, tW = {tW}: 1F1B idles {idle[0]:g}, ", end="")
    print(f"ZB-H1 {idle[1]:g}; formula {(p - 1) * (tF + tI - tW):g}")

# %% [markdown]
# At equal costs a third is left. What would remove that too?
#
# ## ZB-H2: no bubble at all?
#
# Device 0 still waits for its first gradient. So give it more forwards, as many as it takes to never wait. This is
# **ZB-H2**.

# %%
question = "p = 4, 1F1B holds 4 micro-batches on device 0. How many must it hold to never wait?"
predict("07-h2", question, unit="micro-batches")

# %% [markdown]
# ZB-H2 runs 2(p - r) - 1 forwards on device r before its first I. W is then up to 2(p - 1) micro-batches late.

# %%
h2 = build_schedule("zb-h2", devices=4, microbatches=8)
pair = [simulate(h1, equal), simulate(h2, equal)]
plot_schedules(pair, ["ZB-H1", "ZB-H2"])

# %% [markdown]
# No device of ZB-H2 waits once it has begun. But the step is not shorter. Look at the span in which you count idle
# time.


# %%
def own_idle(timeline, r):
    """Idle time of device r from its own first action to its own last one."""
    spans = timeline.on_device(r)
    return spans[-1].end - spans[0].start - sum(span.duration for span in spans)


def in_a_row(schedule, steps):
    """The table of several steps without a barrier (nobody waits for all): step k has micro-batches k · m and up."""
    m = schedule.microbatches
    rows = [[f"{a.stage}{a.op}{a.microbatch + k * m}" for k in range(steps) for a in row] for row in schedule.programs]
    return Schedule.from_rows(rows)


names = {"1F1B": build_schedule("1f1b", 4, 8), "ZB-H1": h1, "ZB-H2": h2}
print("             one step   idle, whole step   idle, own span   four steps in a row")
for name, schedule in names.items():
    one, four = simulate(schedule, equal), simulate(in_a_row(schedule, 4), equal)
    own = " ".join(f"{own_idle(one, r):g}" for r in range(4))
    print(f"{name:<8} {one.makespan:9g} {one.bubble_fraction:18.1%} {own:>16} {four.makespan:15g}")
reveal("07-h2", prediction=2 * 4 - 1, measurement=pair[1].peak_microbatches[0])

# %% [markdown]
# Within one step both take 27 units, because device 3 cannot begin before t = 3. The rows of ZB-H2 form a
# parallelogram. Where many steps follow each other without a barrier, the next step fits into its slope: device 0
# goes on while device 3 is still at work. Then the 3 units are lost only once, and not once a step. Four steps take
# 4 · 24 + 3 units.
#
# So "zero bubble" is true of a device's own span, and it pays off only if the optimizer needs no barrier. Usually the
# optimizer does need one: to clip gradients, everyone needs the norm of *all* gradients. Lesson 7b shows a way around
# that.
#
# The price is memory: 2p - 1 micro-batches on each device, against p.
#
# ## A claim on trial: "zero bubble takes more memory"
#
# ZB-H2 seems to prove it: less bubble, more in flight. But there is another way to the same place. Interleaving gave
# each device two chunks, dealt out round-robin. Now fold the model like a V instead: device 0 holds the first stage
# *and the last*, device 3 the two in the middle. A micro-batch goes down one leg of the V and comes up the other.

# %%
v_shaped = build_schedule("zb-v", devices=4, microbatches=8)
print("stages of each device:", *(v_shaped.stages_on(r) for r in range(4)))
display(plot_schedules([simulate(h2, equal), simulate(v_shaped, equal)], ["ZB-H2", "ZB-V"]))
for name, schedule in {**names, "ZB-V": v_shaped}.items():
    one, four = simulate(schedule, equal), simulate(in_a_row(schedule, 4), equal)
    held = " ".join(f"{peak:g}" for peak in one.peak_microbatches)
    own = " ".join(f"{own_idle(one, r):g}" for r in range(4))
    print(f"{name:<6} step {one.makespan:g}, four steps {four.makespan:g}; own idle {own}; in flight {held}")

# %% [markdown]
# The claim is false. **ZB-V** (section 6 of the same paper) has no idle time in any device's own span, and holds 4
# micro-batches on each device, as many as the fullest device of 1F1B. (A micro-batch on one of a device's two chunks
# counts as half.) It also starts faster. A stage is half as long, so device 3 begins after 1.5 units.
#
# The V is what saves the memory. A stage holds a micro-batch from its forward to its backward. For the first stage
# that takes long, and for the last one hardly any time. In the V both live on the same device, so all devices
# hold about the same. And the loss is computed where the model begins, so the first gradient is on device 0 early.
#
# A later paper goes on from there (Qi et al. 2024, arXiv 2405.15362). If device 0 starts its micro-batches at a
# slower pace, fewer of them are in flight at a time: **V-Half** about half of 1F1B's and **V-Min** about a third.
# Both hold one micro-batch or so on top, which matters where p is small.

# %%
for p, m in ((4, 8), (8, 16), (16, 64)):
    print(f"p = {p}, m = {m}")
    for name in ("1f1b", "zb-h1", "zb-v", "v-half", "v-min"):
        timeline = simulate(build_schedule(name, p, m), equal)
        print(f"   {name:<7} {timeline.bubble_fraction:6.1%} idle, {max(timeline.peak_microbatches):.1f} in flight")

# %% [markdown]
# So there is a choice now: with 1F1B's memory hardly any bubble, or with about half the memory still a smaller bubble
# than 1F1B, at equal costs.
#
# ## Break it: forget a W
#
# The checker knows what a table must have. What does it say where W comes before its I, or not at all?

# %%
too_early = ["2F0", "2W0", "2I0", "2F1", "2I1", "2F2", "2I2", "2W1", "2W2"]
forgotten = ["2F0", "2I0", "2F1", "2I1", "2F2", "2I2", "2W0", "2W1"]
for row in (too_early, forgotten):
    for violation in check_schedule(Schedule.from_rows([rows[0], later_1, row])):
        print(violation)

# %% [markdown]
# A forgotten I would stop the pipeline, because somebody waits for it. A forgotten W stops nothing. What happens then?
# Two layers and four micro-batches by hand, with one W left out in the first layer:

# %%
first, last = torch.nn.Linear(8, 8).double(), torch.nn.Linear(8, 8).double()
batch = torch.randn(4, 16, 8, dtype=torch.float64)
(last(first(batch)).square().mean()).backward()
whole_gradient = first.weight.grad.clone()
kept = []
for x in batch:
    out = first(x)
    (g,) = torch.autograd.grad(last(out).square().mean() / 4, out)  # I of the last layer; 4 micro-batches
    kept.append(g.T @ x)  # W of the first layer
for count in (4, 3):
    error = (sum(kept[:count]) - whole_gradient).abs().max() / whole_gradient.abs().max()
    print(f"{count} of {len(kept)} W: gradient error {error.item():.0e}")

# %% [markdown]
# One layer learns from three quarters of the batch. In a pipeline no error would be raised, the loss would be right,
# and all other layers would get their gradients. That is why pipelab refuses such a table before it runs, and
# compares gradients with the unsplit model's.
#
# ## What to remember
#
# - A backward has two halves. The stage before waits for I, and nobody but the optimizer waits for W.
# - ZB-H1: the warm-up of 1F1B, W late. Idle time (p - 1)(tF + tI - tW), and no device holds more than device 0 did
#   under 1F1B.
# - ZB-H2: twice the warm-up and nearly twice the memory. No idle time in a device's own span. Without a barrier between
#   steps the wait at the start is lost only once.
# - ZB-V: first and last stage on the same device. No idle time in the own span, with 1F1B's memory.
#
# **Where this leads.** All of this was at equal costs. Lesson 7b runs these schedules on the 48-layer model, whose I
# and W you have measured. PyTorch has `ScheduleInterleavedZeroBubble`, `ScheduleZBVZeroBubble` and
# `ScheduleDualPipeV`. `docs/pytorch.md` shows how its runtime runs our tables. Your guesses so far:

# %%
ledger()

# %% [markdown] page="exercises"
# p is the number of devices, and m the number of micro-batches in a batch. A backward comes in two halves. I computes
# the gradient of the stage's input, which the device before waits for. W computes the gradients of the weights.
# `2F1`, `2I1` and `2W1` are the forward, I and W of micro-batch 1 on stage 2. They take tF, tI and tW. Messages take
# no time. A device holds a micro-batch from the start of its F to the end of its W.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="split_linear" difficulty="easy" minutes=14
# A linear layer computes `y = x @ weight.T + bias`. `weight` has the shape [out, in], and `bias` has [out]. The last
# dimension of `x` is in. All dimensions before it number the rows (sequences, or the tokens of sequences). There is
# at least one. `grad_output` is the gradient of the loss with respect to y. Write the two halves of this layer's
# backward by hand, without autograd:
#
# - `backward_input` is I. Return two things: the gradient of x, and a tuple of the tensors that W will need. The
#   device before is waiting, so compute nothing else.
# - `backward_weight` is W. It gets that tuple, and nothing else. Return the gradients of the weight and of the bias,
#   for this micro-batch alone.
#
# The tuple takes memory until W runs, so hand on only what W needs. The check compares with autograd in float64, and
# counts matrix products. In the last part it runs the I of several micro-batches first. Then it fills weight and bias
# with nan, and runs all W.


# %% role="answer" exercise="split_linear"
import torch


def backward_input(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, grad_output: torch.Tensor
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """I: the gradient of x, and what W needs.

    >>> x, weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.zeros(1)
    >>> backward_input(x, weight, bias, torch.tensor([[10.0]]))[0]
    tensor([[30., 40.]])
    """
    ### BEGIN SOLUTION
    return grad_output @ weight, (x, grad_output)
    ### END SOLUTION


# %% role="answer" exercise="split_linear"
def backward_weight(kept: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """W: the gradients of the weight and of the bias, from what I kept.

    >>> x, weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]), torch.zeros(1)
    >>> gradient, kept = backward_input(x, weight, bias, torch.tensor([[10.0]]))
    >>> backward_weight(kept)
    (tensor([[10., 20.]]), tensor([10.]))
    """
    ### BEGIN SOLUTION
    x, grad_output = kept
    rows, gradients = x.flatten(0, -2), grad_output.flatten(0, -2)
    return gradients.T @ rows, gradients.sum(0)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="split_linear"
# Write down the shapes. Which product of two of the four tensors has the shape of x? Which one has the shape of the
# weight?

# %% [markdown] role="hint" exercise="split_linear"
# One row of y is a product of the weight with one row of x. So each row of `grad_output` gives a gradient of its own
# for the weight and for the bias. The loss depends on all rows: what do you do with their gradients? Is there a
# product of matrices that does the same for all rows at once?

# %% [markdown] role="hint" exercise="split_linear"
# With x of shape [b, t, in], make it [b t, in] first, for example with `flatten`. Do the same with `grad_output`. Now
# everything has two dimensions. Which of the two do you have to transpose, so that the product has the shape [out,
# in]? The bias gets a sum over which dimension?

# %% [markdown] role="solution" exercise="split_linear"
# I needs neither x nor the bias, and W needs neither the weight nor the bias. Each half is one matrix product of the
# same size, and so is the forward. In such a layer tF, tI and tW are nearly equal. Two tensors wait for W: x, which the
# layer had kept since its forward, and `grad_output`, which comes on top.

# %% [markdown] role="lead" exercise="fill_the_bubble" difficulty="easy" minutes=18
# Here is 1F1B for p = 3 and m = 4, and for p = 4 and m = 5. Each B has been written as I and W, one right after the
# other. F, I and W take one unit each.
#
# ```
# time     |   0   1   2   3   4   5   6   7   8   9  10  11  12  13  14  15
# device 0 | 0F0 0F1 0F2   .   . 0I0 0W0 0F3 0I1 0W1   . 0I2 0W2   . 0I3 0W3
# device 1 |   . 1F0 1F1   . 1I0 1W0 1F2 1I1 1W1 1F3 1I2 1W2   . 1I3 1W3   .
# device 2 |   .   . 2F0 2I0 2W0 2F1 2I1 2W1 2F2 2I2 2W2 2F3 2I3 2W3   .   .
#
# time     |   0   1   2   3   4   5   6   7   8   9  10  11  12  13  14  15  16  17  18  19  20
# device 0 | 0F0 0F1 0F2 0F3   .   .   . 0I0 0W0 0F4 0I1 0W1   . 0I2 0W2   . 0I3 0W3   . 0I4 0W4
# device 1 |   . 1F0 1F1 1F2   .   . 1I0 1W0 1F3 1I1 1W1 1F4 1I2 1W2   . 1I3 1W3   . 1I4 1W4   .
# device 2 |   .   . 2F0 2F1   . 2I0 2W0 2F2 2I1 2W1 2F3 2I2 2W2 2F4 2I3 2W3   . 2I4 2W4   .   .
# device 3 |   .   .   . 3F0 3I0 3W0 3F1 3I1 3W1 3F2 3I2 3W2 3F3 3I3 3W3 3F4 3I4 3W4   .   .   .
# ```
#
# Move W's to later places in the order of their device, and nothing else: the order of F and I stays. Then everything
# runs as soon as it can. The first table must take 14 units instead of 16, and the second 18 instead of 21. No device
# may hold more than p micro-batches. Return both tables as text: a line for each device, with its actions in order,
# separated by commas. Leave idle cells out, or write a dot, which does not count. Any table that keeps to this is
# right. With `from pipelab import Schedule` in a new cell, `print(Schedule.from_csv(filled(3)).to_grid())` draws your
# table on the unit clock.


# %% role="answer" exercise="fill_the_bubble"
def filled(devices: int) -> str:
    """The table for 3 devices and 4 micro-batches, or for 4 devices and 5 micro-batches.

    >>> filled(3).count("W"), filled(4).count("W")
    (12, 20)
    """
    ### BEGIN SOLUTION
    three = """
        0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3
        1F0,1F1,1I0,1F2,1I1,1W0,1F3,1I2,1W1,1I3,1W2,1W3
        2F0,2I0,2F1,2I1,2F2,2I2,2W0,2F3,2I3,2W1,2W2,2W3
    """
    four = """
        0F0,0F1,0F2,0F3,0I0,0W0,0F4,0I1,0W1,0I2,0W2,0I3,0W3,0I4,0W4
        1F0,1F1,1F2,1I0,1F3,1I1,1W0,1F4,1I2,1W1,1I3,1W2,1I4,1W3,1W4
        2F0,2F1,2I0,2F2,2I1,2F3,2I2,2W0,2F4,2I3,2W1,2I4,2W2,2W3,2W4
        3F0,3I0,3F1,3I1,3F2,3I2,3F3,3I3,3W0,3F4,3I4,3W1,3W2,3W3,3W4
    """
    return "\n".join(line.strip() for line in (three if devices == 3 else four).strip().splitlines())
    ### END SOLUTION


# %% [markdown] role="hint" exercise="fill_the_bubble"
# Which I waits longest for its gradient? Which W's on later devices delay it?

# %% [markdown] role="hint" exercise="fill_the_bubble"
# Begin with the last device. If it runs its first I's without their W's, all devices before it get their gradients
# earlier. How many W's may wait there, if it may hold p micro-batches? Then go to the device before.

# %% [markdown] role="hint" exercise="fill_the_bubble"
# On the last device of p = 3, leave out all W's, and count what is held from left to right. Before which F must the
# first W run, so that no more than 3 are held? Put one W there, and one after each later I. What is left over comes
# at the end. On device 1 fewer W's have to wait. How many on device 0?

# %% [markdown] role="solution" exercise="fill_the_bubble"
# Device 0 changes nothing: nobody waits for its I's. Device r runs each W r micro-batches late. So every device
# finishes its I's as early as possible, and fills the idle time at its end with W's. In 1F1B the last device held one
# micro-batch, and here it holds p. This is where the memory goes that buys the shorter step.

# %% [markdown] role="lead" exercise="write_zb_h1" difficulty="medium" minutes=18
# Write ZB-H1 for any p and m. Return one row of actions per device, in the order in which the device runs them. At tF
# = tI = tW = 1 your table must be as short as ZB-H1. That is 3m + p - 1 units if m is at least p, and 2m + 2p - 1
# units if m is smaller. No device may hold more than min(p, m) micro-batches, which is what device 0 of 1F1B holds.
# Each table that keeps to both is right. In the last part the check trains a narrow 48-layer model with your rows. It
# compares the gradients with those of the unsplit model.


# %% role="answer" exercise="write_zb_h1"
def zb_h1(devices: int, microbatches: int) -> list[list[str]]:
    """ZB-H1's order: one row of actions per device.

    >>> zb_h1(1, 2)
    [['0F0', '0I0', '0W0', '0F1', '0I1', '0W1']]
    """
    ### BEGIN SOLUTION
    rows = []
    for r in range(devices):
        ahead = min(devices - 1 - r, microbatches)
        row = [f"{r}F{i}" for i in range(ahead)]
        for i in range(microbatches):
            row += [f"{r}F{ahead + i}"] if ahead + i < microbatches else []
            row.append(f"{r}I{i}")
            row += [f"{r}W{i - r}"] if i >= r else []
        row += [f"{r}W{i}" for i in range(max(microbatches - r, 0), microbatches)]
        rows.append(row)
    return rows
    ### END SOLUTION


# %% [markdown] role="hint" exercise="write_zb_h1"
# The order of F and I is that of 1F1B. So there is only one question: after which I does each W come?

# %% [markdown] role="hint" exercise="write_zb_h1"
# 1F1B holds p - r micro-batches on device r. How many more may this device hold, if the limit is p on all devices?
# That many I's may run without a W after them. With m below p, no count may go below 0 or beyond m.

# %% [markdown] role="hint" exercise="write_zb_h1"
# Go through all I's of a device in order. Before each of them stands a forward, unless there are none left. After I
# number i comes the W of micro-batch i or of an earlier one, if there is one. Which number does it have on device r?
# After the loop some W's are left. Which ones, and what if r is larger than m?

# %% [markdown] role="solution" exercise="write_zb_h1"
# W comes r micro-batches late on device r. That is one number per device, for any p and m. What waits for W fills the
# difference between the p - r micro-batches of 1F1B and the limit of p. So all devices hold equally many. With tW of
# at most tF + tI and m of at least p, each device still idles for (p - 1)(tF + tI - tW).
