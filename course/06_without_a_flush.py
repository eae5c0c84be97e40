# ---
# jupyter:
#   pipelab:
#     number: 6
#     title: "Without a flush: PipeDream and its versions"
#     minutes: 45
#     builds_on: [3, 5]
#     goals:
#       - say what breaks when the flush is deleted, and which versions of the weights mend it
#       - count the versions that PipeDream, vertical sync and 2BW keep, and say how old a gradient is
#       - choose between a flush and stale weights under a memory limit
# ---

# %% [markdown]
# ## What breaks when the flush is deleted?
#
# This is a stand-in. The lesson's own page goes here, up to the seam below.

# %% role="setup"
from pipelab.teaching import *

# %% [markdown]
# The seam: everything from the next cell on is the exercises' page.

# %% [markdown] page="exercises"
# p is the number of devices. Device s holds stage s, 0 to p - 1. Micro-batches are counted from 0 and go on without
# end. `0F3` is the forward of micro-batch 3 on stage 0, `0B3` its backward. `0U3` is the update of stage 0 after that
# backward. The k-th update of a stage makes version k of its weights. Version 0 is what the stage began with.

# %% role="setup"
from pipelab.teaching import NotWritten, check

# %% [markdown] role="lead" exercise="version_number" difficulty="easy" minutes=8
# All three methods run 1F1B's order without a flush. Write the function that returns the version of the weights that
# stage `stage` uses for the forward of micro-batch `microbatch`:
#
# - `"pipedream"`: an update follows each backward. A forward uses the stage's newest version.
# - `"vertical-sync"`: an update follows each backward. All stages use, for a micro-batch, the version that stage 0 used
#   for it.
# - `"2bw"`: an update follows every `every` backwards, which make a batch. `every` is at least p. The update of batch t
#   makes version t + 1. Batch t is computed with version t - 1, and batch 0 with version 0.


# %% role="answer" exercise="version_number"
def version(method: str, devices: int, stage: int, microbatch: int, every: int = 1) -> int:
    """The version of its weights that a stage uses for the forward of a micro-batch.

    >>> version("pipedream", devices=4, stage=2, microbatch=5)
    4
    >>> version("2bw", devices=4, stage=2, microbatch=17, every=8)
    1
    """
    ### BEGIN SOLUTION
    if method == "2bw":
        return max(microbatch // every - 1, 0)
    source = 0 if method == "vertical-sync" else stage
    return max(microbatch - (devices - 1 - source), 0)
    ### END SOLUTION


# %% [markdown] role="hint" exercise="version_number"
# How many updates has a stage run when a forward begins? Each update follows a backward, so count backwards.

# %% [markdown] role="hint" exercise="version_number"
# The warm-up of 1F1B says how many forwards a stage is ahead of its backwards. The last stage is ahead by none when a
# forward begins. For vertical sync, which stage has to be counted? For 2BW, in which batch is the micro-batch?

# %% [markdown] role="hint" exercise="version_number"
# Write 1F1B's row of stage 0 for p = 3 and six micro-batches, with a U after each B. Above each F write the number of
# U's before it. Which number is missing from the micro-batch's own number, and how does it change on stage 1? The first
# forwards need a bound.

# %% [markdown] role="solution" exercise="version_number"
# PipeDream's stages use different versions for the same micro-batch, and the first stage the oldest. Vertical sync uses
# the oldest of them everywhere. 2BW is one update behind, but its updates are m times rarer.
