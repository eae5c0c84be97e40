"""The dynamic program, against all cuts and all orders."""

import math
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest

from pipelab.tuning.planning.partition import bottleneck, bottleneck_in_any_order, moved


def cases(count, *, layers, devices):
    random = np.random.default_rng(layers * 100 + devices)
    for _ in range(count):
        size = int(random.integers(devices, layers + 1))
        tables = random.choice([1.0, 2.0, 3.0, 5.0, math.inf], (devices, devices, size + 1, size + 1))
        tables += random.random(tables.shape)  # weights of no order at all: the program must not lean on any
        links = random.choice([0.0, 2.0, 4.0, math.inf], (devices, devices, size + 1)) + random.random()
        yield size, np.where(np.tri(size + 1, dtype=bool), math.inf, tables), links


def worst(tables, links, bounds, order):
    stages = [tables[s, r, a, b] for s, ((a, b), r) in enumerate(zip(pairwise(bounds), order, strict=True))]
    between = [links[q, r, i] for i, (q, r) in zip(bounds[1:-1], pairwise(order), strict=True)]
    return max(stages + between)


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_given_order(devices):
    for size, tables, links in cases(500, layers=7, devices=devices):
        found, bounds = bottleneck(lambda s, r, t=tables: t[s, r], lambda q, r, t=links: t[q, r], range(devices))
        cuts = [(0, *inner, size) for inner in combinations(range(1, size), devices - 1)]
        assert found == min(worst(tables, links, cut, range(devices)) for cut in cuts)
        if found < math.inf:
            assert worst(tables, links, bounds, range(devices)) == found


@pytest.mark.parametrize("devices", [1, 2, 3, 4])
def test_any_order(devices):
    for size, tables, links in cases(100, layers=6, devices=devices):
        given = (lambda s, r, t=tables: t[s, r]), (lambda q, r, t=links: t[q, r])
        found, bounds, order = bottleneck_in_any_order(*given, devices)
        cuts = [(0, *inner, size) for inner in combinations(range(1, size), devices - 1)]
        assert found == min(worst(tables, links, cut, o) for cut in cuts for o in permutations(range(devices)))
        if found < math.inf:
            assert sorted(order) == list(range(devices))
            assert worst(tables, links, bounds, order) == found


def test_neighbours_are_cuts():
    near = moved([0, 1, 4, 9])
    assert [0, 2, 4, 9] in near
    assert [0, 2, 5, 9] in near
    assert all(a < b for bounds in near for a, b in pairwise(bounds))
