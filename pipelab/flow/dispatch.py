"""Which job runs next, and where: the one rule, for predictions and for runs.

A job may begin once all that it needs is there and there is room for its result. A free worker then takes, of the jobs
of its resource that may begin, the one of the latest stage, and of these the one with the least index.

Room: a stage with a buffer of k begins its job at place n (of the serial order) once n - k + 1 of its results are gone.
So never more than k exist. Whether a flow stands still depends on the needs and buffers alone, and on no times: what
may begin once may begin forever after.
"""

from __future__ import annotations

from heapq import heappop, heappush

from pipelab.errors import ConfigurationError
from pipelab.flow.plan import Plan

__all__ = ["Dispatch", "require_room"]


class Dispatch:
    """The state of a run of ``plan``: :meth:`start` what may begin, and say what has come and what is finished.

    ``streamed``: items come one by one, and :meth:`arrive` says when. ``freed[s]``: the jobs whose end made room for a
    result of stage s, in order. ``begun``: (worker, job) of all that began, in order.
    """

    def __init__(self, plan: Plan, *, streamed: bool = False) -> None:
        self.plan = plan
        self.left, self.running = len(plan), 0
        self.begun: list[tuple[int, int]] = []
        self.freed: list[list[int]] = [[] for _ in plan.counts]
        self._waits = [len(needs) for needs in plan.needs]
        self._users = [len(takers) for takers in plan.takers]
        self._count = [0] * len(plan.counts)
        self._offered = bytearray(len(plan))
        self._ready: list[list[tuple[int, int]]] = [[] for _ in plan.layout.resources]
        self._idle = [list(plan.layout.workers(r)) for r in range(len(plan.layout.resources))]
        self._coming: dict[int, list[int]] = {}
        """By item, the jobs that it is the last to come for."""
        entering = [s for s, above in enumerate(plan.layout.upstream) if not above]
        for s in entering if streamed else ():
            for job in range(plan.first[s], plan.first[s] + plan.counts[s]):
                self._waits[job] += 1
                self._coming.setdefault(plan.taken(job)[-1], []).append(job)
        for job in range(len(plan)):
            self._offer(job)

    def arrive(self, item: int) -> None:
        """An item has come."""
        for job in self._coming.pop(item, ()):
            self._waits[job] -= 1
            self._offer(job)

    @property
    def still(self) -> bool:
        """Whether jobs are left and none will ever begin."""
        return self.left > 0 and not self.running and not self._coming

    def start(self) -> list[tuple[int, int]]:
        """(worker, job) of all that begin now."""
        plan, before = self.plan, len(self.begun)
        for ready, idle in zip(self._ready, self._idle, strict=True):
            while ready and idle:
                job = heappop(ready)[1]
                self.begun.append((heappop(idle), job))
                s = plan.stage[job]
                self._count[s] += 1
                if plan.layout.stages[s].ordered and plan.index[job] + 1 < plan.counts[s]:
                    self._offer(job + 1)
        begun = self.begun[before:]
        self.running += len(begun)
        return begun

    def finish(self, worker: int, job: int) -> list[int]:
        """The jobs whose results are gone now: nobody will ask for them again."""
        plan = self.plan
        self.running -= 1
        self.left -= 1
        heappush(self._idle[plan.resource(job)], worker)
        for taker in plan.takers[job]:
            self._waits[taker] -= 1
            self._offer(taker)
        gone = [] if plan.takers[job] else [job]
        for other in plan.needs[job]:
            self._users[other] -= 1
            if not self._users[other]:
                gone.append(other)
        for other in gone:
            self._free(other, job)
        return gone

    def blocked(self) -> list[int]:
        """The jobs for which all is there but room."""
        return [
            job for job, waits in enumerate(self._waits) if not waits and not self._offered[job] and not self._room(job)
        ]

    def _free(self, job: int, by: int) -> None:
        s = self.plan.stage[job]
        self.freed[s].append(by)
        room = self.plan.buffers[s]
        place = len(self.freed[s]) - 1 + (room or 0)
        if room is not None and place < self.plan.counts[s]:
            self._offer(self.plan.placed[s][place])

    def _room(self, job: int) -> bool:
        s = self.plan.stage[job]
        room = self.plan.buffers[s]
        return room is None or self.plan.place[job] < room + len(self.freed[s])

    def _offer(self, job: int) -> None:
        plan, s = self.plan, self.plan.stage[job]
        if self._waits[job] or self._offered[job]:
            return
        if not self._room(job):
            return
        if plan.layout.stages[s].ordered and plan.index[job] != self._count[s]:
            return
        self._offered[job] = 1
        heappush(self._ready[plan.resource(job)], (-s, job))


def require_room(plan: Plan) -> None:
    """Raises ConfigurationError if the buffers of ``plan`` bring it to a standstill."""
    tight = [s for s, room in enumerate(plan.buffers) if room is not None and room < plan.enough[s]]
    if not tight:
        return  # one job after another would run
    trial = Dispatch(plan)
    begun = trial.start()
    while begun:
        for worker, job in begun:
            trial.finish(worker, job)
        begun = trial.start()
    if not trial.left:
        return
    stages = plan.layout.stages
    told = ", ".join(f"'{stages[s].name}' buffer={plan.enough[s]} (not {plan.buffers[s]})" for s in tight)
    job = min(trial.blocked(), key=lambda one: (plan.place[one], one))
    s = plan.stage[job]
    made = plan.placed[s][: len(trial.freed[s]) + (plan.buffers[s] or 0)]
    kept = [one for one in made if trial._offered[one] and trial._users[one]]
    stuck = f"; {plan.name(kept[0])} is kept for {_waiting(plan, trial, kept[0])}" if kept else ""
    raise ConfigurationError(
        f"the flow comes to a standstill: {plan.name(job)} finds no room, for {plan.buffers[s]} results of "
        f"'{stages[s].name}' may exist{stuck}; give {told}"
    )


def _waiting(plan: Plan, trial: Dispatch, job: int) -> str:
    """Who still waits to take a result, and cannot."""
    taker = next(one for one in plan.takers[job] if trial._waits[one] or not trial._offered[one])
    missing = next((plan.name(one) for one in plan.needs[taker] if not trial._offered[one]), "")
    return plan.name(taker) + (f", which also needs {missing}" if missing else "")
