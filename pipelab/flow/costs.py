"""What jobs cost: seconds by stage and kind, and bytes where a disk or a link moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TypeAlias

from pipelab.errors import ConfigurationError
from pipelab.flow.plan import Plan
from pipelab.quantities import format_bytes, format_time, render_table

__all__ = ["FlowCosts", "Measured"]

Key: TypeAlias = tuple[str, str]


@dataclass(frozen=True)
class Measured:
    """What job ``job`` cost: ``seconds`` of work, by the clock of its resource, and the bytes that it moved."""

    job: int
    seconds: float
    size: float = 0.0


@dataclass(frozen=True)
class FlowCosts:
    """``seconds[stage, kind]`` of work; ``bytes[stage, kind]`` moved on a disk or a link.

    A job on a disk or a link lasts as long as its work, and at least as long as its bytes take at the bandwidth of the
    flow that is predicted. ``takes[stage, kind]``: how many results a job took when it was measured. One that takes
    more or fewer costs in proportion; where nothing is said, all cost alike.
    """

    seconds: Mapping[Key, float]
    bytes: Mapping[Key, float] = field(default_factory=dict)
    takes: Mapping[Key, int] = field(default_factory=dict)
    unit: str = "s"

    @classmethod
    def of(cls, given: object) -> FlowCosts:
        """From {"map": 0.01, ("encode", "I"): 0.03}: seconds by stage, or by stage and kind.

        Raises ConfigurationError.
        """
        if isinstance(given, FlowCosts):
            return given
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"costs are FlowCosts or seconds by stage, got {given!r}; try flow.profile(items), or {{'map': 0.01}}"
            )
        found: dict[Key, float] = {}
        for name, seconds in given.items():
            if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds < 1e12:
                raise ConfigurationError(f"the cost of {name!r} must be seconds from 0 on, got {seconds!r}; try 0.01")
            found[(name, "") if isinstance(name, str) else tuple(name)] = float(seconds)
        return cls(found)

    @classmethod
    def medians(cls, plan: Plan, measured: list[Measured]) -> FlowCosts:
        """By stage and kind, of jobs that took as much as any of them."""
        groups: dict[Key, list[Measured]] = {}
        for one in measured:
            groups.setdefault(_key(plan, one.job), []).append(one)
        takes = {key: max(len(plan.taken(one.job)) for one in row) for key, row in groups.items()}
        full = {key: [one for one in row if len(plan.taken(one.job)) == takes[key]] for key, row in groups.items()}
        moved = {key: median(one.size for one in row) for key, row in full.items()}
        return cls(
            {key: median(one.seconds for one in row) for key, row in full.items()},
            {key: size for key, size in moved.items() if size},
            takes,
        )

    def __getitem__(self, key: str | Key) -> float:
        """Seconds of work of a stage without kinds, or of (stage, kind)."""
        return self.seconds[(key, "") if isinstance(key, str) else key]

    def of_jobs(self, plan: Plan) -> list[float]:
        """How long each job of ``plan`` lasts. Raises ConfigurationError where nothing is known of one."""
        known: dict[tuple[Key, int], float] = {}
        found = []
        for job in range(len(plan)):
            key = _key(plan, job), len(plan.taken(job))
            if key not in known:
                known[key] = self._lasts(plan, job, *key)
            found.append(known[key])
        return found

    def _lasts(self, plan: Plan, job: int, key: Key, taken: int) -> float:
        if key not in self.seconds and key not in self.bytes:
            if (key[0], "") not in self.seconds:
                told = ", ".join(" ".join(filter(None, one)) for one in self.seconds) or "none"
                raise ConfigurationError(
                    f"the cost of {' '.join(filter(None, key))!r} is not given, only of {told}; "
                    "flow.profile(items) measures all of them"
                )
            key = (key[0], "")
        resource = plan.layout.resources[plan.resource(job)]
        share = taken / self.takes[key] if key in self.takes else 1.0
        return max(self.seconds.get(key, 0.0) * share, resource.least(self.bytes.get(key, 0.0) * share))

    def __str__(self) -> str:
        rows = [
            (
                *key,
                format_time(seconds, self.unit),
                format_bytes(self.bytes[key]) if key in self.bytes else "",
                str(self.takes.get(key, "")),
            )
            for key, seconds in self.seconds.items()
        ]
        return render_table(("stage", "kind", "a job's work", "bytes", "takes"), rows)


def _key(plan: Plan, job: int) -> Key:
    return plan.layout.stages[plan.stage[job]].name, plan.kind[job]
