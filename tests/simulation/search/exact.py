"""The true optimum of small problems, by HiGHS: an oracle that shares nothing with the search but the problem.

Time is cut into whole units, so all times have to be whole. A column (a, t) is 1 if action a has begun by time t. Then
needs, one action at a time, and what a device holds are all sums of columns. A whole backward is an I and a W that
follows at once where ``whole`` is on; only F, I and W are looked at here.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array


def optimum(problem, known, seconds=60.0):
    """The least makespan, known to be at most ``known``."""
    best = round(known)
    while _possible(problem, best - 1, seconds):
        best -= 1
    return best


def _possible(problem, end, seconds):
    """Whether some table of F, I and W ends by ``end``."""
    block, m, count = problem.block, problem.microbatches, 3 * problem.block
    takes = [round(time) for time in problem.takes]
    entries, upper = [], []

    def at_most(columns, limit):
        """The sum of (coefficient, action, time) is at most ``limit``; before time 0 nothing has begun."""
        entries.extend((len(upper), a * (end + 1) + t, c) for c, a, t in columns if t >= 0)
        upper.append(limit)

    low, high = np.zeros((count, end + 1)), np.ones((count, end + 1))
    for a in range(count):
        low[a, max(end - takes[a], 0) :] = 1  # in time
        if end < takes[a]:
            return False
        for t in range(end + 1):
            if t:
                at_most([(1, a, t - 1), (-1, a, t)], 0)
            for needed, way in problem.needs[a]:
                at_most([(1, a, t), (-1, needed, t - takes[needed] - round(way))], 0)
            if a % m:  # equal micro-batches take turns
                at_most([(1, a, t), (-1, a - 1, t - takes[a - 1])], 0)
    for r, limit in enumerate(problem.limits):
        mine = [a for a in range(count) if problem.homes[problem.parts(a)[1]] == r]
        for t in range(end + 1):
            at_most([term for a in mine for term in ((1, a, t), (-1, a, t - takes[a]))], 1)
            if limit == np.inf:
                continue
            held = []
            for a in mine:
                change, more = problem.change[a], problem.more[a]
                if a < block:
                    held.append((change, a, t))  # from its start
                else:
                    held += [(more, a, t), (change - more, a, t - takes[a])]  # more while it runs, less afterwards
            at_most(held, limit * (1 + 1e-9))
    rows, columns, values = zip(*entries, strict=True)
    shape = (len(upper), count * (end + 1))
    matrix = coo_array((values, (rows, columns)), shape=shape).tocsc()
    found = milp(
        np.zeros(shape[1]),
        integrality=np.ones(shape[1]),
        bounds=Bounds(low.ravel(), high.ravel()),
        constraints=LinearConstraint(matrix, -np.inf, upper),
        options={"time_limit": seconds},
    )
    assert found.status in (0, 2), f"HiGHS did not finish: {found.message}"
    return found.status == 0
