"""The words of a flow: a stage is a function that runs on a resource."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from pipelab.errors import ConfigurationError, shown, whole_number
from pipelab.quantities import format_bytes, format_time

__all__ = ["ALL", "BEFORE", "DOUBLE", "KINDS", "Resource", "Stage"]

KINDS = ("core", "gpu", "disk", "link")
ALL, BEFORE, DOUBLE = "all", "the stage before", "double"


@dataclass(frozen=True)
class Resource:
    """What stages run on: ``workers`` of one ``kind``, each a row of the timeline.

    A disk or a link with a ``bandwidth`` (bytes per second) does a job's real work, and is then held until
    bytes / bandwidth + latency have passed since its start. Without one it is as fast as this machine. A GPU is a CUDA
    device; where there is none a thread plays it. Raises ConfigurationError.
    """

    name: str
    workers: int = 1
    kind: str = "core"
    bandwidth: float | None = None
    latency: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"a resource needs a name, got {self.name!r}; try Resource('core')")
        whole_number(f"workers of '{self.name}'", "", self.workers)
        if self.kind not in KINDS:
            raise ConfigurationError(f"'{self.name}' is of kind {self.kind!r}; there are {', '.join(KINDS)}")
        if self.bandwidth is not None and not _positive(self.bandwidth):
            raise ConfigurationError(
                f"the bandwidth of '{self.name}' must be positive bytes per second, got {self.bandwidth!r}; "
                "try 20e6, or None for as fast as this machine"
            )
        if not _positive(self.latency) and self.latency != 0:
            raise ConfigurationError(f"the latency of '{self.name}' must be seconds from 0 on, got {self.latency!r}")
        if (self.bandwidth is not None or self.latency) and self.kind not in ("disk", "link"):
            raise ConfigurationError(
                f"'{self.name}' is a {self.kind}, and only a disk or a link has a bandwidth or a latency; "
                "try kind='disk'"
            )

    @property
    def held(self) -> bool:
        """Whether its jobs last as long as their bytes take."""
        return self.bandwidth is not None or self.latency > 0

    def least(self, size: float) -> float:
        """The seconds for which a job with ``size`` bytes holds it, at least."""
        return self.latency + (0.0 if self.bandwidth is None else size / self.bandwidth)

    @property
    def note(self) -> str:
        """ "disk held to 20.0 MB/s"; "" where nothing holds it."""
        speed = "" if self.bandwidth is None else f"{format_bytes(self.bandwidth)}/s"
        late = f"{format_time(self.latency, 's')} a job" if self.latency else ""
        return f"{self.name} held to {' and '.join(filter(None, (speed, late)))}" if self.held else ""

    @property
    def rows(self) -> tuple[str, ...]:
        """The names of its workers."""
        return (self.name,) if self.workers == 1 else tuple(f"{self.name} {k}" for k in range(self.workers))


@dataclass(frozen=True)
class Stage:
    """``work`` is done for each item, ``on`` a resource (or the name of one that another stage declares).

    ``after``: the stages whose results it takes, by name; None: it takes the items themselves. With several, ``work``
    gets an argument from each.
    ``needs(i)``: (stage, index) of other results that job i waits for; they are further arguments, in this order.
    ``batch=n``: ``work`` gets n results as a list (the last list may be shorter), with "all" every one.
    ``split=k``: a result is a sequence of k, each of which is an item for the stages behind.
    ``buffer=k``: at most k results exist at a time: being made, waiting or being used. None: any number. "double": two
    for each worker, or two batches for who takes them, and never too few.
    ``ordered``: jobs begin in the order of their index.
    ``kind(i)``: jobs of one kind cost alike. ``size(input)``: the bytes that a job moves, on a disk or a link.
    Raises ConfigurationError.
    """

    name: str
    work: Callable[..., Any]
    on: Resource | str
    _: KW_ONLY
    after: str | Sequence[str] | None = BEFORE
    needs: Callable[[int], Iterable[tuple[str, int]]] | None = None
    batch: int | str = 1
    split: int = 1
    buffer: int | str | None = DOUBLE
    ordered: bool = False
    kind: Callable[[int], str] | None = None
    size: Callable[..., float] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"a stage needs a name, got {self.name!r}; try Stage('map', work, 'core')")
        if not isinstance(self.on, Resource | str):
            raise ConfigurationError(
                f"stage '{self.name}' runs on a Resource or on the name of one, got {self.on!r}; try Resource('core')"
            )
        for field in ("work", "needs", "kind", "size"):
            given = getattr(self, field)
            if not callable(given) and (given is not None or field == "work"):
                raise ConfigurationError(
                    f"{field} of stage '{self.name}' must be a function, got {shown(repr(given))}; "
                    f"try a function's name, without brackets"
                )
        if self.batch != ALL:
            whole_number(f"batch of stage '{self.name}'", "", self.batch)
        whole_number(f"split of stage '{self.name}'", "", self.split)
        if self.buffer is not None and self.buffer != DOUBLE:
            whole_number(f"buffer of stage '{self.name}'", "", self.buffer)

    def upstream(self, before: str | None) -> tuple[str, ...]:
        """The names of the stages whose results it takes, given the stage that is declared before it."""
        if self.after is None or (self.after == BEFORE and before is None):
            return ()
        if self.after == BEFORE:
            return (str(before),)
        return (self.after,) if isinstance(self.after, str) else tuple(self.after)


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf  # type: ignore[operator]
