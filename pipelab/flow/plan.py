"""A flow and a number of items as jobs: a job is one call of a stage's function, with what it needs.

::

    items 0 1 2 3     map 0  map 1  map 2  map 3        batch=2 takes two results, split=2 makes two of one
                        |      |      |      |
                      pack 0 (0 1)  pack 1 (2 3)

Jobs are numbers, stage by stage. All checks are here, and come before anything starts.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipelab.errors import ConfigurationError, whole_number
from pipelab.flow.declare import ALL, DOUBLE
from pipelab.flow.layout import Layout, nearest

__all__ = ["Plan"]

T = TypeVar("T")


class Plan:
    """The jobs of ``layout`` for ``items``. Raises ConfigurationError for what cannot run.

    ``stage[j]`` and ``index[j]`` name job j, ``needs[j]`` are the jobs that it waits for, ``takers[j]`` those that
    wait for it. ``serial`` is an order in which all can run one after another; ``place[j]`` is its place among the jobs
    of its stage there. ``buffers[s]``: how many results of stage s may exist (None: any number). ``span[j]``: the items
    that it works for, from the first up to the one behind the last.
    """

    def __init__(self, layout: Layout, items: int) -> None:
        self.layout, self.items = layout, whole_number("items", "", items)
        stages = layout.stages
        self.counts = self._counts()
        self.first = [sum(self.counts[:s]) for s in range(len(stages))]
        self.stage = [s for s, count in enumerate(self.counts) for _ in range(count)]
        self.index = [j for count in self.counts for j in range(count)]
        self.sinks = tuple(s for s in range(len(stages)) if all(s not in above for above in layout.upstream))
        self.further = [tuple(self._further(job)) for job in range(len(self))]
        self.needs = [self._all_needs(job) for job in range(len(self))]
        self.takers: list[list[int]] = [[] for _ in self.needs]
        for job, found in enumerate(self.needs):
            for other in found:
                self.takers[other].append(job)
        self.span = self._spans()
        self.serial = self._serial()
        self.place, self.placed = self._places()
        self.enough = self._enough()
        self.buffers = [self._buffer(s) for s in range(len(stages))]
        self.kind = self._kinds()

    def __len__(self) -> int:
        return len(self.stage)

    def job(self, stage: int, index: int) -> int:
        """The number of a job."""
        return self.first[stage] + index

    def name(self, job: int) -> str:
        """ "map 3"."""
        return "{} {}".format(*self.whose(job))

    def whose(self, job: int) -> tuple[str, int]:
        """The stage of a job, by name, and its index."""
        return self.layout.stages[self.stage[job]].name, self.index[job]

    def resource(self, job: int) -> int:
        """The resource that it runs on."""
        return self.layout.on[self.stage[job]]

    def _kinds(self) -> list[str]:
        """Of each job; "" where its stage knows no kinds."""
        kinds = [self.layout.stages[s].kind for s in self.stage]
        return ["" if kind is None else self._asked(kind, job, "kind", str) for job, kind in enumerate(kinds)]

    def taken(self, job: int) -> range:
        """Which results, of each stage that it comes after, or which items, a job takes."""
        s, batch = self.stage[job], self._batch(self.stage[job])
        return range(self.index[job] * batch, min((self.index[job] + 1) * batch, self._entering(s)))

    def inputs(self, job: int, items: Sequence[Any], values: dict[int, Any]) -> list[Any]:
        """The arguments of its call, given the results that exist."""
        stage, taken = self.layout.stages[self.stage[job]], self.taken(job)
        rows = [[self._value(u, k, values) for k in taken] for u in self.layout.upstream[self.stage[job]]]
        rows = rows or [[items[k] for k in taken]]
        given: list[Any] = [row[0] for row in rows] if stage.batch == 1 else list(rows)
        return given + [values[other] for other in self.further[job]]

    def _value(self, stage: int, k: int, values: dict[int, Any]) -> Any:
        split = self.layout.stages[stage].split
        made = values[self.job(stage, k // split)]
        return made if split == 1 else made[k % split]

    # ---- how many ------------------------------------------------------------------------------------------------

    def _leaving(self, stage: int) -> int:
        return self.counts[stage] * self.layout.stages[stage].split

    def _entering(self, stage: int) -> int:
        above = self.layout.upstream[stage]
        return self._leaving(above[0]) if above else self.items

    def _batch(self, stage: int) -> int:
        batch = self.layout.stages[stage].batch
        return self._entering(stage) if batch == ALL else int(batch)

    def _counts(self) -> list[int]:
        self.counts = [0] * len(self.layout.stages)
        for s in self.layout.order:
            stage, above = self.layout.stages[s], self.layout.upstream[s]
            leaving = [self._leaving(u) for u in above]
            if len(set(leaving)) > 1:
                told = ", ".join(f"{n} of '{self.layout.stages[u].name}'" for u, n in zip(above, leaving, strict=True))
                raise ConfigurationError(
                    f"stage '{stage.name}' takes one result from each of several stages, and there are {told}; "
                    "let them make equally many, with batch= and split="
                )
            self.counts[s] = -(-self._entering(s) // self._batch(s))
        return self.counts

    # ---- who needs whom --------------------------------------------------------------------------------------------

    def _further(self, job: int) -> Iterator[int]:
        stage = self.layout.stages[self.stage[job]]
        for name, index in self._asked(stage.needs, job, "needs", list) if stage.needs is not None else ():
            s = self.layout.number(name)
            if s is None:
                known = nearest(name, [one.name for one in self.layout.stages])
                raise ConfigurationError(
                    f"{self.name(job)} needs ('{name}', {index}), and there is no such stage; {known}"
                )
            if not hasattr(index, "__index__") or not 0 <= index < self.counts[s]:
                raise ConfigurationError(
                    f"{self.name(job)} needs ('{name}', {index!r}), and '{name}' has jobs 0 to {self.counts[s] - 1}; "
                    "leave it out there"
                )
            yield self.job(s, operator.index(index))

    def _asked(self, work: Callable[[int], Any], job: int, what: str, kind: Callable[[Any], T]) -> T:
        """What a function of a stage says of a job. Raises ConfigurationError where it fails."""
        try:
            return kind(work(self.index[job]))
        except Exception as error:
            asked = f"{what}({self.index[job]}) of stage '{self.whose(job)[0]}'"
            raise ConfigurationError(f"{asked} failed: {type(error).__name__}: {error}") from error

    def _all_needs(self, job: int) -> tuple[int, ...]:
        """Those by ``needs`` first: they are made first where both are asked for."""
        found = dict.fromkeys(self.further[job])
        for u in self.layout.upstream[self.stage[job]]:
            split = self.layout.stages[u].split
            found.update(dict.fromkeys(self.job(u, k // split) for k in self.taken(job)))
        return tuple(found)

    def _spans(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = [(0, 0)] * len(self)
        for s in self.layout.order:
            above = self.layout.upstream[s]
            for job in range(self.first[s], self.first[s] + self.counts[s]):
                taken = self.taken(job)
                jobs = [self.job(u, k // self.layout.stages[u].split) for u in above for k in (taken[0], taken[-1])]
                lows, highs = (
                    zip(*[found[one] for one in jobs], strict=True) if jobs else ((taken[0],), (taken[-1] + 1,))
                )
                found[job] = min(lows), max(highs)
        return found

    def _serial(self) -> list[int]:
        """In the order in which the last results need them. Raises ConfigurationError for a circle."""
        roots = [job for s in self.sinks for job in range(self.first[s], self.first[s] + self.counts[s])]
        roots.sort(key=lambda job: (self.span[job][1], job))
        found: list[int] = []
        state = bytearray(len(self))  # 1: on the way, 2: done
        for root in roots:
            path = [(root, iter(self._before(root)))] if not state[root] else []
            state[root] = state[root] or 1
            while path:
                job, rest = path[-1]
                other = next((one for one in rest if state[one] != 2), None)
                if other is None:
                    state[job] = 2
                    found.append(job)
                    path.pop()
                elif state[other]:
                    ring = [one for one, _ in path]
                    raise ConfigurationError(self._circle(ring[ring.index(other) :]))
                else:
                    state[other] = 1
                    path.append((other, iter(self._before(other))))
        return found

    def _before(self, job: int) -> tuple[int, ...]:
        """What has to begin before it: what it needs, and in an ordered stage the job before."""
        if self.layout.stages[self.stage[job]].ordered and self.index[job]:
            return (job - 1, *self.needs[job])
        return self.needs[job]

    def _circle(self, ring: Sequence[int]) -> str:
        ring = ring if len(ring) <= 8 else [*ring[:4], *ring[-3:]]
        told = []
        for job, other in zip(ring, [*ring[1:], ring[0]], strict=True):
            how = "needs" if other in self.needs[job] else "is ordered behind"
            told.append(f"{self.name(job)} {how} {self.name(other)}")
        return f"jobs wait for each other in a circle: {', '.join(told)}; leave one of these needs out"

    # ---- room ------------------------------------------------------------------------------------------------------

    def _places(self) -> tuple[list[int], list[list[int]]]:
        """The place of each job among those of its stage in the serial order, and the jobs of each stage by place."""
        placed: list[list[int]] = [[] for _ in self.layout.stages]
        place = [0] * len(self)
        for job in self.serial:
            place[job] = len(placed[self.stage[job]])
            placed[self.stage[job]].append(job)
        return place, placed

    def _enough(self) -> list[int]:
        """How many results of each stage exist at a time if jobs run one after another: more are never needed."""
        left = [len(takers) for takers in self.takers]
        here, most = [0] * len(self.counts), [0] * len(self.counts)
        for job in self.serial:
            s = self.stage[job]
            here[s] += 1
            most[s] = max(most[s], here[s])
            for other in self.needs[job]:
                left[other] -= 1
                here[self.stage[other]] -= not left[other]
            here[s] -= not left[job]
        return most

    def _buffer(self, stage: int) -> int | None:
        given = self.layout.stages[stage].buffer
        if given != DOUBLE:
            return None if given is None else int(given)
        takes = [self._batch(s) for s, above in enumerate(self.layout.upstream) if stage in above]
        batch = -(-max(takes, default=1) // self.layout.stages[stage].split)
        return max(2 * self.layout.resources[self.layout.on[stage]].workers, 2 * batch, self.enough[stage])
