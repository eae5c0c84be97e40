"""What each process of a pipeline was asked for: all of them must have been asked for the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelab.errors import ConfigurationError

__all__ = ["UNDER_WAY", "Call", "common", "same_call"]

UNDER_WAY = "how many steps there were since the pipeline was empty"


@dataclass(frozen=True)
class Call:
    """What one process was asked for: all of them must have been asked for the same."""

    training: bool
    batch: int | None
    step: int
    learns: bool
    signature: int
    under_way: int
    """Steps since the pipeline was empty."""

    def to_numbers(self) -> list[float]:
        """For the other processes."""
        batch = -1 if self.batch is None else self.batch
        return [self.training, batch, self.step, self.learns, self.signature, self.under_way]

    @classmethod
    def from_numbers(cls, row: Sequence[float]) -> Call:
        """Read :meth:`to_numbers`."""
        training, batch, step, learns, signature, under_way = map(int, row)
        return cls(bool(training), None if batch < 0 else batch, step, bool(learns), signature, under_way)


def same_call(calls: Sequence[Call]) -> int:
    """The batch size, if all processes were asked for the same step. Raises ConfigurationError on all of them."""
    common("what to run", ["step" if call.training else "evaluate" for call in calls])
    common("the number of the step", [call.step for call in calls])
    common(UNDER_WAY, [call.under_way for call in calls])
    if calls[0].training and not any(call.learns for call in calls):
        raise ConfigurationError("no parameter takes a gradient, all are frozen; use evaluate(inputs, targets)")
    batch: int = common("the number of sequences", [c.batch for c in calls], skip_none=True)
    return batch


def common(what: str, values: Sequence[Any], *, skip_none: bool = False) -> Any:
    """The one value that all ranks gave. Raises ConfigurationError that names two that differ."""
    given = [(rank, value) for rank, value in enumerate(values) if not (skip_none and value is None)]
    first_rank, first = given[0]
    for rank, value in given:
        if value != first:
            raise ConfigurationError(
                f"the ranks of this pipeline disagree about {what}: {first!r} on rank {first_rank}, {value!r} on rank "
                f"{rank}; every rank must do the same"
            )
    return first
