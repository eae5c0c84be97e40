"""What one device notes down in a step: columns of numbers, slot by slot and message by message."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from pipelab.quantities import ModelStates
from pipelab.runtime.device.clocks import Readings
from pipelab.runtime.device.program import Program

__all__ = ["DeviceLog"]

_FIGURES = 6


@dataclass(slots=True)
class DeviceLog:
    """What one device did in a step; messages stand in the order of its program."""

    readings: Readings = field(default_factory=Readings)
    peaks: list[int] = field(default_factory=list)
    """The most bytes of activations while a slot ran."""
    after: list[int] = field(default_factory=list)
    """What was held after it."""
    sent: list[float] = field(default_factory=list)
    """Host times of this device's sends."""
    ready: list[float] = field(default_factory=list)
    """Host times at which messages for this device were there (a modelled link takes time); nan: when it asked."""
    taken: list[float] = field(default_factory=list)
    """Host times at which it took them."""
    sizes: list[int] = field(default_factory=list)
    """Their bytes, as they travelled."""
    saved: list[int] = field(default_factory=list)
    """How many more they would have been without compression."""
    update_cost: float = 0.0
    """Seconds of the update at the flush."""
    versions: int = 1
    """The most versions of a stage's weights."""
    peak: int = 0
    """Most bytes of activations held."""
    model_states: ModelStates = field(default_factory=ModelStates)
    """What the device holds besides, after the step."""
    allocated: int | None = None
    """What the CUDA allocator's own peak adds to what it held before; None on a CPU, or a GPU shared in one process."""
    early_cost: float = 0.0
    """Seconds of the update before the flush."""

    def to_numbers(self) -> list[float]:
        """All of it in one row, for other processes."""
        r, held = self.readings, self.model_states
        allocated = math.nan if self.allocated is None else self.allocated
        figures = (held.weights, held.gradients, held.optimizer, self.peak, self.update_cost, allocated)
        timed = (r.host_start, r.host_end, r.start, r.end, r.cost)
        columns: list[Sequence[float]] = [column or [math.nan] * len(self.peaks) for column in timed]
        columns += [self.peaks, self.after, self.sent, self.ready, self.taken, self.sizes, self.saved]
        return [*figures, *(number for column in columns for number in column)]

    @staticmethod
    def length(program: Program) -> int:
        """Of the row of a device that runs ``program``."""
        return _FIGURES + 7 * len(program.slots) + program.sends + 4 * program.takes

    @classmethod
    def from_numbers(cls, numbers: Sequence[float], program: Program) -> DeviceLog:
        """Read :meth:`to_numbers` of a device that ran ``program``; what stands behind it is not read."""
        row, slots, takes = iter(numbers), len(program.slots), program.takes
        weights, gradients, optimizer, peak, update_cost, allocated = islice(row, _FIGURES)
        timed = [list(islice(row, slots)) for _ in range(5)]
        if slots and math.isnan(timed[0][0]):
            timed = [[] for _ in timed]
        return cls(
            Readings(*timed),
            [int(size) for size in islice(row, slots)],
            [int(size) for size in islice(row, slots)],
            list(islice(row, program.sends)),
            list(islice(row, takes)),
            list(islice(row, takes)),
            [int(size) for size in islice(row, takes)],
            [int(size) for size in islice(row, takes)],
            update_cost,
            1,
            int(peak),
            ModelStates(int(weights), int(gradients), int(optimizer)),
            None if math.isnan(allocated) else int(allocated),
        )
