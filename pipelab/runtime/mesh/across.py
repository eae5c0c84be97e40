"""The processes of one pipeline, and those of its replicas: what fails in one fails in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from pipelab.errors import LostProcessError
from pipelab.runtime.device.channels import Aborted
from pipelab.runtime.faults.limit import TimeLimit
from pipelab.runtime.faults.where import OUTSIDE
from pipelab.runtime.peers import Move, Numbers, Peers
from pipelab.schedules.wire import Channel, Route

__all__ = ["Across"]

T = TypeVar("T")


class Across:
    """``inner`` are the processes of this pipeline, ``column`` those that hold the same stages in the others.

    Values are exchanged within the pipeline. Who agrees does so with all: first within, then along the column.
    """

    def __init__(self, inner: Peers, column: Any) -> None:
        self.inner, self.column = inner, column
        self.own, self.backend, self.asynchronous = inner.own, inner.backend, inner.asynchronous
        self.whereabouts = inner.whereabouts
        column.whereabouts[column.rank] = OUTSIDE  # how long others may take is for their own pipeline to say

    @property
    def table(self) -> Any:
        """What they are walking, or walked last."""
        return self.inner.table

    @table.setter
    def table(self, table: Any) -> None:
        self.inner.table = table

    @property
    def limit(self) -> TimeLimit:
        """How long a step may take."""
        return self.inner.limit

    @limit.setter
    def limit(self, limit: TimeLimit) -> None:
        self.inner.limit = limit

    def look(self) -> Sequence[int]:
        """The whereabouts of this pipeline's devices."""
        return self.inner.look()

    def exchange(self, value: T) -> list[T]:
        """Everyone's value in this pipeline."""
        return self.inner.exchange(value)

    def agree(self, work: Callable[[], T]) -> list[T]:
        """Do ``work`` and exchange what came out in this pipeline. If it raises anywhere, it raises everywhere."""
        return self._all(lambda: self.inner.agree(work))

    def agree_own(self, work: Callable[[], T]) -> T:
        """Do ``work``. If it raises anywhere, it raises everywhere."""
        return self._all(lambda: self.inner.agree_own(work))

    def agree_numbers(self, work: Callable[[], Numbers]) -> np.ndarray:
        """Do ``work`` and exchange numbers in this pipeline. If it raises anywhere, it raises everywhere."""
        return self._all(lambda: self.inner.agree_numbers(work))

    def _all(self, work: Callable[[], T]) -> T:
        """Do ``work``, which those of this pipeline do; if it raises anywhere, it raises everywhere."""
        own: list[BaseException] = []

        def noted() -> T:
            try:
                return work()
            except BaseException as error:
                if not isinstance(error, Aborted):
                    own.append(error)
                raise

        try:
            found: T = self.column.agree_own(noted)
        except LostProcessError as lost:
            if own or getattr(lost, "_carried", None) is not None:
                raise
            gone = ", ".join(str(place) for place in self.column.gone)
            who = (
                f"the process at place {gone} of those that hold the same stages" if gone else "one of another replica"
            )
            raise LostProcessError(
                f"a process of this mesh is gone, or the network between them: {who}; go on from the last checkpoint"
            ) from None
        except Exception as error:
            if not own:
                error.add_note("It was in another process that holds the same stage.")
            raise
        return found

    def gather(self, value: T) -> list[T] | None:
        """Everyone's value in this pipeline, in its process 0."""
        return self.inner.gather(value)

    def hand_over(self, moves: Sequence[Move], routes: Sequence[tuple[int, int]]) -> None:
        """Make ``moves`` within this pipeline."""
        self.inner.hand_over(moves, routes)

    def open_wire(
        self,
        messages: Mapping[Channel, Sequence[Route]],
        places: Sequence[torch.device],
        sizes: Sequence[int],
        *,
        signature: Any = None,
        **link: Any,
    ) -> Any:
        """A wire for one step of this pipeline."""
        return self.inner.open_wire(messages, places, sizes, signature=signature, **link)

    def clock_offsets(self) -> tuple[list[float], float]:
        """Of this pipeline's clocks."""
        return self.inner.clock_offsets()

    def turn(self, place: torch.device, places: Sequence[torch.device]) -> Any:
        """The lock by which devices of this pipeline that share a processor take turns."""
        return self.inner.turn(place, places)

    def abandon(self, error: BaseException) -> bool:
        """If the others have not heard of ``error``, end their waits; whether that was so."""
        within, across = self.inner.abandon(error), self.column.abandon(error)
        return within or across

    def close(self) -> None:
        """Let go of connections."""
        self.inner.close()
        self.column.close()
