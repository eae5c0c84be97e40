"""Where a device is, said of each number that it may write down."""

from __future__ import annotations

import pytest

from pipelab import build_schedule
from pipelab.runtime.device.program import SLOT, compile_table
from pipelab.runtime.faults.where import LOOKING, OPENING, OUTSIDE, SAVING, UPDATING, described, lost_process

TABLE = compile_table(build_schedule("1f1b", 2, 2))
"""Device 0 runs 0F0 0F1 0B0 0B1, device 1 runs 1F0 1B0 1F1 1B1."""


@pytest.mark.parametrize(
    ("device", "place", "says"),
    [
        (0, 0, "before 0F0"),
        (0, 2, "in 0F0 (stage 0, micro-batch 0)"),
        (0, SLOT + 2, "in 0F1 (stage 0, micro-batch 1)"),
        (0, 2 * SLOT + 1, "waiting before 0B0 for the gradient of 1B0 from device 1"),
        (1, 1, "waiting before 1F0 for the activation of 0F0 from device 0"),
        (1, 4 * SLOT, "behind its last action"),
        (0, OUTSIDE, "between two calls"),
        (0, OPENING, "in opening the pipeline"),
        (0, LOOKING, "at the beginning of a call"),
        (0, UPDATING, "in the update"),
        (0, SAVING, "in saving or loading"),
    ],
)
def test_each_place_has_its_words(device, place, says):
    assert described(TABLE, device, place) == says


@pytest.mark.parametrize(
    ("place", "last"),
    [(0, None), (2, "0F0"), (SLOT, "0F0"), (2 * SLOT + 1, "0F1"), (2 * SLOT + 2, "0B0"), (4 * SLOT, "0B1"), (-1, None)],
)
def test_a_lost_process_is_told_with_the_last_action_that_it_began(place, last):
    error = lost_process("was ended by signal 9", TABLE, 0, place, "go on")
    assert str(error).startswith("the process of device 0 was ended by signal 9, ")
    assert (error.device, error.action) == (0, last)
    assert error.microbatch == (None if last is None else int(last[-1]))


def test_without_a_table_it_is_somewhere_in_it():
    assert described(None, 0, 5 * SLOT) == "in its program"
