# ---
# jupyter:
#   pipelab:
#     number: 7
#     title: "Zero bubble: the bubble filled"
#     minutes: 45
#     builds_on: [3, 4, 6]
#     goals:
#       - split a backward into the half that others wait for and the half that nobody waits for
#       - fill the bubble with the second half, slot by slot and by a program
#       - choose a schedule for given costs and a limit on memory
#       - say how far a table is from the best that there can be
# ---

# %% [markdown] page="exercises"
# p is the number of devices, and m the number of micro-batches in a batch. A backward comes in two halves. I computes
# the gradient of the stage's input, which the device before waits for. W computes the gradients of the weights.
# `2F1`, `2I1` and `2W1` are the forward, I and W of micro-batch 1 on stage 2. They take tF, tI and tW. Messages take
# no time where none is mentioned. A device holds a micro-batch from the start of its F to the end of its W.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="split_linear" difficulty="easy" minutes=12
# A linear layer computes `y = x @ weight.T + bias`. `weight` has the shape [out, in], and `bias` has [out]. The last
# dimension of `x` is in. All dimensions before it count rows: sequences, or the tokens of sequences. `grad_output` is
# the gradient of the loss with respect to y. Write the two halves of this layer's backward by hand, without autograd:
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

# %% [markdown] role="lead" exercise="fill_the_bubble" difficulty="easy" minutes=15
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
# Move W's to later slots, and nothing else: on each device the order of F and I stays. The first table must take 14
# units instead of 16, and the second 18 instead of 21. No device may hold more than p micro-batches. Return both
# tables as text: a line for each device, with its actions in order, separated by commas. Leave idle cells out, or
# write a dot. With `from pipelab import Schedule` in a new cell, `print(Schedule.from_csv(filled(3)).to_grid())`
# draws your table on the unit clock.


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
# Which I comes latest, compared with the time at which its gradient could have been there? Which W's stand in its
# way, on the devices behind?

# %% [markdown] role="hint" exercise="fill_the_bubble"
# Begin with the last device. If it runs its first I's without their W's, all devices before it get their gradients
# earlier. How many W's may wait there, if it may hold p micro-batches? Then go to the device before.

# %% [markdown] role="hint" exercise="fill_the_bubble"
# On the last device of p = 3, leave out all W's, and count what is held from left to right. Before which F must the
# first W run, so that no more than 3 are held? Put one W there, and one behind each later I. What is left over comes
# at the end. On device 1 fewer W's have to wait. How many on device 0?

# %% [markdown] role="solution" exercise="fill_the_bubble"
# Device 0 changes nothing: nobody waits for its I's. Device r lets W come r backwards late. It is done with its I's
# as soon as the last gradient can be there, and fills the idle time at its end with W's. In 1F1B the last device held
# one micro-batch, and here it holds p. This is where the memory goes that buys the shorter step.

# %% [markdown] role="lead" exercise="write_zb_h1" difficulty="medium" minutes=15
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
# 1F1B holds p - r micro-batches on device r. How many more may this device hold, if the limit is p on all devices? As
# many I's may run before the first W. With m below p, no count may go below 0 or beyond m.

# %% [markdown] role="hint" exercise="write_zb_h1"
# Go through all I's of a device in order. Before each of them stands a forward, unless there are none left. After I
# number i comes the W of an earlier micro-batch, if there is one. Which number does it have on device r? After the
# loop some W's are left. Which ones, and what if r is larger than m?

# %% [markdown] role="solution" exercise="write_zb_h1"
# W comes r backwards late on device r. That is one number per device, for any p and m. What waits for W fills the
# difference between the p - r micro-batches of 1F1B and the limit of p. So all devices hold equally many. Where tI is
# longer than tW, each device still idles for (p - 1)(tF + tI - tW).

# %% [markdown] role="lead" exercise="fastest_that_fits" difficulty="medium" minutes=18
# You get tables for one p and m, by their names: `"1f1b"`, `"zb-h1"`, `"zb-h2"`, `"zb-v"`, `"v-half"` and `"v-min"`.
# (ZB-H2 is missing where m is too small for it.) A forward, an I and a W of one device's whole share of the model
# take `t_forward`, `t_input` and `t_weight`. A message takes `t_message`. The memory is given as a share of what
# device 0 holds under 1F1B: with 0.5, no device may hold more than half of that. Return the name of the table with
# the shortest makespan among those that fit, or `"none"`. What is within 5 % of the best counts as best.
#
# `simulate(table, costs)` returns a timeline with `makespan` and `peak_microbatches`, as in the lessons. It counts a
# micro-batch on one of two chunks as a half. `Costs` takes whole backwards as `backward`, their halves as
# `input_gradient` and `weight_gradient`, and the time of a message as `latency`.


# %% role="answer" exercise="fastest_that_fits"
from pipelab import Costs, Schedule, simulate


def choose(
    tables: dict[str, Schedule], t_forward: float, t_input: float, t_weight: float, t_message: float, share: float
) -> str:
    """The name of the fastest table that fits.

    >>> from pipelab import build_schedule
    >>> tables = {name: build_schedule(name, devices=2, microbatches=2) for name in ("1f1b", "zb-h1")}
    >>> choose(tables, 10, 10, 10, 0, share=1), choose(tables, 10, 10, 10, 0, share=0.5)
    ('zb-h1', 'none')
    """
    ### BEGIN SOLUTION
    costs = Costs(t_forward, t_input + t_weight, input_gradient=t_input, weight_gradient=t_weight, latency=t_message)
    runs = {name: simulate(table, costs) for name, table in tables.items()}
    limit = share * runs["1f1b"].peak_microbatches[0]
    fits = [name for name, run in runs.items() if max(run.peak_microbatches) <= limit]
    return min(fits, key=lambda name: runs[name].makespan, default="none")
    ### END SOLUTION


# %% [markdown] role="hint" exercise="fastest_that_fits"
# Which comes first, the limit or the time? What does a table have to show on each device before its makespan matters?

# %% [markdown] role="hint" exercise="fastest_that_fits"
# Simulate each table once with the costs of the case. The run of 1F1B says what device 0 holds there. Leave out each
# table that holds more than the share on any device. Of the others, compare the makespans.

# %% [markdown] role="hint" exercise="fastest_that_fits"
# The order in a device's row decides what it holds, whatever the costs. So the run that gives the makespan gives the
# peaks too. Which device of a V is the fullest, if m is below p? `min` takes a `key`, and a `default` for an empty
# list.

# %% [markdown] role="solution" exercise="fastest_that_fits"
# ZB-V is the fastest in many cases, but it sends twice as many messages as the schedules with one chunk. With slow
# messages ZB-H1 wins at the same memory, and ZB-H2 where there is more. Below 1F1B's memory only V-Half and V-Min are
# left. 1F1B is never ahead of ZB-H1, which holds the same on device 0.

# %% [markdown] role="lead" exercise="bound_and_found" difficulty="hard" minutes=25
# How short can a step be at best, whatever the order, and whatever the devices hold? Stage s is on device s. Each
# backward is cut into I and W. Messages take no time. Write two functions:
#
# - `least_makespan` returns a **lower bound** of the makespan: no order can take less. Find it from single devices. A
#   device has its own work to do. It cannot begin at time 0, and it cannot end the step as it likes. The check knows
#   tables for its cases. Your bound must never be above what a table takes, and as high as pipelab's own bound.
# - `found` returns a table as text, with a line for each device, as `Schedule.to_csv` writes it. It is for p = 4, m =
#   8, tF = 10, tI = 14 and tW = 6. No device may hold more than 6 micro-batches. The makespan may be at most 1.05
#   times the bound.
#
# No table of the catalogue with one stage on each device keeps to both limits of `found`. So search for one. In a new
# cell, `from pipelab.teaching import Costs, search_schedule` gives you the search, and `search_schedule(4, 8)` is its
# shortest call. It also takes `costs`, `memory_limit` (in micro-batches) and `seconds`. Its result has a `schedule`, a
# `makespan`, and the `bound` that it knows. Paste the text of the table into your function. During a check the search
# does not answer.


# %% role="answer" exercise="bound_and_found"
def least_makespan(devices: int, microbatches: int, t_forward: float, t_input: float, t_weight: float) -> float:
    """No order of F, I and W takes less.

    >>> least_makespan(2, 1, t_forward=1, t_input=2, t_weight=1)    # F, F, I, I, W: one after the other
    7
    """
    ### BEGIN SOLUTION
    bounds = []
    for r in range(devices):
        all_forwards = (r + microbatches) * t_forward
        first_gradient = devices * t_forward + (devices - 1 - r) * t_input
        last_input = max(all_forwards, first_gradient) + microbatches * t_input
        bounds.append(last_input + max(microbatches * t_weight, r * t_input + t_weight))
    return max(bounds)
    ### END SOLUTION


# %% role="answer" exercise="bound_and_found"
def found() -> str:
    """The table, a line for each device.

    >>> len(found().splitlines())
    4
    """
    ### BEGIN SOLUTION
    rows = """
        0F0,0F1,0F2,0F3,0F4,0F5,0I0,0W0,0F6,0I1,0W1,0F7,0I2,0I3,0W2,0I4,0W3,0W4,0I5,0W5,0I6,0W6,0I7,0W7
        1F0,1F1,1F2,1F3,1F4,1F5,1I0,1W0,1I1,1W1,1F6,1I2,1I3,1F7,1I4,1W2,1W3,1W4,1I5,1W5,1I6,1W6,1I7,1W7
        2F0,2F1,2F2,2F3,2I0,2F4,2I1,2F5,2I2,2W0,2I3,2F6,2I4,2W1,2F7,2I5,2W2,2W3,2I6,2W4,2W5,2I7,2W6,2W7
        3F0,3I0,3F1,3I1,3F2,3I2,3F3,3I3,3F4,3I4,3F5,3I5,3W0,3F6,3I6,3W1,3F7,3I7,3W2,3W3,3W4,3W5,3W6,3W7
    """
    return "\n".join(line.strip() for line in rows.strip().splitlines())
    ### END SOLUTION


# %% [markdown] role="hint" exercise="bound_and_found"
# Take device r alone. When can its first F begin at the earliest? When can its first I begin? What still has to run
# on other devices after its last I? For `found`, which argument of the search does the limit of 6 belong to?

# %% [markdown] role="hint" exercise="bound_and_found"
# The last I of device r ends after two different times. All its F's and I's have run by then, one after the other,
# beginning with its first F. And all its I's have run, beginning with the first gradient that can arrive. The later
# of the two counts. After that, two things run at the same time: W's of this device, and the way of the gradient to
# device 0.

# %% [markdown] role="hint" exercise="bound_and_found"
# Draw the case p = 2, m = 1: a staircase down and up, with a W at the end. At what time does I begin on device 0? Now
# write it for any p and r, in terms of tF and tI. How many I's come after that of device r, before the W on device 0?
# At most how many W's of device r itself may still be left? Take the largest result of all devices.

# %% [markdown] role="solution" exercise="bound_and_found"
# The table was found by `search_schedule(4, 8, costs=costs, memory_limit=6, seconds=5)`, where `costs` has the times of
# this exercise. With the usual limit of 4 the search finds nothing better than ZB-H1, and with 7 it finds ZB-H2. What
# is in between has no name. A bound says when to stop: where a table takes just as long, no search can find a better
# one. But it only holds for what it was derived from. With two chunks on each device, ZB-V takes less than this bound.
