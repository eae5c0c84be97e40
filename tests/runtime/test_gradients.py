"""The proof: loss and gradients equal the unsplit model's, for every schedule and shape."""

from __future__ import annotations

from itertools import product

import pytest

from pipelab import ConfigurationError, build_schedule
from tests.runtime.small import check_step, tuple_net

P = (1, 2, 3, 4, 8)
M = (1, 2, 3, 4, 5, 7, 8, 12, 20)
QUICK = {(2, True, True), (3, False, False)}


def shapes():
    for name in ("naive", "gpipe", "1f1b", "interleaved"):
        for p in P:
            for m in M:
                if name == "interleaved" and m % max(1, m // p):
                    continue  # m // p groups of equal size, one where m < p
                yield name, p, m


def grid():
    """Each p with and without recomputation, and with and without dropout; not all of both where time is short."""
    for p in P:
        for recompute, dropout in product([False, True], [0.0, 0.3]):
            quick = (p, recompute, dropout > 0) in QUICK
            words = f"{p}-{'recomputed' if recompute else 'kept'}-{'dropout' if dropout else 'plain'}"
            yield pytest.param(p, recompute, dropout, id=words, marks=[] if quick else [pytest.mark.slow])


@pytest.mark.parametrize(("p", "recompute", "dropout"), list(grid()))
def test_every_schedule_gives_the_unsplit_gradient_of_a_model_with_tuples_between_stages(p, recompute, dropout):
    model = tuple_net(dropout=dropout)
    tried = 0
    for name, devices, m in shapes():
        if devices == p:
            check_step(model, build_schedule(name, devices=p, microbatches=m, recompute=recompute))
            tried += 1
    assert tried > 20


def test_the_grid_holds_all_that_the_schedules_allow():
    found = set(shapes())
    for name in ("naive", "gpipe", "1f1b", "interleaved"):
        for p in P:
            for m in M:
                if (name, p, m) not in found:
                    with pytest.raises(ConfigurationError, match="groups of equal size"):
                        build_schedule(name, devices=p, microbatches=m)


@pytest.mark.parametrize("name", ["naive", "gpipe", "1f1b", "interleaved"])
@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (3, 3), (8, 8), (4, 20), (4, 6), (3, 2)])
def test_every_schedule_runs_on_the_strict_wire(name, p, m):
    check_step(tuple_net(), build_schedule(name, devices=p, microbatches=m), outstanding=1)


def test_the_gradient_check_can_fail():
    """Story: an accumulation that averages micro-batches of unequal size is wrong, and must be seen to be."""
    with pytest.raises(AssertionError):
        check_step(tuple_net(), build_schedule("1f1b", devices=4, microbatches=12), loss_terms=lambda targets: 1)
