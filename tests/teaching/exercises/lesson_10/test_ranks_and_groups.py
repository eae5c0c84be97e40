"""That the check's places and groups are those of PyTorch's meshes, and what it accepts."""

from math import prod
from random import Random

import pytest
import torch

from pipelab.teaching.exercises.lesson_10.ranks_and_groups import (
    EXERCISE,
    KINDS,
    _drawn,
    group_of,
    next_in_line,
    place_of,
    ranks_at,
)
from tests.teaching.exercises.trying import assert_reserved, open_parts

SHAPES = [(2, 2, 2), (1, 3, 2), (4, 3, 2), (2, 1, 4), (3, 4, 1)]


def mesh(shape):
    """The ranks as ``init_device_mesh`` lays them out: row by row."""
    return torch.arange(prod(shape)).reshape(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_places_and_groups_are_those_of_a_device_mesh(shape):
    for rank in range(prod(shape)):
        assert mesh(shape)[place_of(rank, shape)] == rank == ranks_at(shape)[place_of(rank, shape)]
        for dimension, kind in enumerate(KINDS):
            rows = mesh(shape).movedim(dimension, -1).reshape(-1, shape[dimension]).tolist()
            assert group_of(rank, kind, shape) in rows


@pytest.mark.parametrize("shape", SHAPES)
def test_activations_pass_each_stage_of_a_replica_once(shape):
    firsts = [rank for rank in range(prod(shape)) if next_in_line(rank, shape, by=-1) is None]
    assert len(firsts) == shape[0] * shape[2]
    for rank in firsts:
        way = [rank]
        while (following := next_in_line(way[-1], shape)) is not None:
            way.append(following)
        assert way == group_of(rank, "pp", shape)


def of_mesh(kind, dp, pp, tp):
    """By a tensor of ranks, as sets, in another order."""
    at = KINDS.index(kind)
    rows = mesh((dp, pp, tp)).movedim(at, -1).reshape(-1, (dp, pp, tp)[at])
    return {frozenset(row) for row in rows.flip(0).tolist()}


def test_meshes_tensors_and_sets_are_as_right():
    assert not open_parts(
        "ranks_and_groups",
        place=lambda rank, *shape: torch.stack(torch.unravel_index(torch.tensor(rank), shape)),
        rank_at=lambda d, p, t, *shape: mesh(shape)[d, p, t],
        groups=of_mesh,
        reduces_with=lambda rank, *shape: set(group_of_mesh(rank, *shape)),
        sends_to=lambda rank, dp, pp, tp: rank + tp if rank % (pp * tp) < (pp - 1) * tp else None,
    )


def group_of_mesh(rank, *shape):
    return next(group for group in of_mesh("dp", *shape) if rank in group)


def test_drawn_cases_ask_each_function_and_meet_the_last_stage():
    cases = [case for seed in range(4) for case in _drawn(Random(seed))]
    assert {case["_function"] for case in cases} == set(EXERCISE.answers)
    sends = [next_in_line(*case["_asked"], case["_shape"]) for case in cases if case["_function"] == "sends_to"]
    assert None in sends
    assert len(set(sends)) > 5


@pytest.mark.parametrize("data", ["x", {"a": 1}, None, [[None]], [[]], [1.5], {"set": ["?"]}])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        if not (data is None and case["_function"] == "sends_to"):
            assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    shape = (2, 2, 2)
    assert_reserved(
        lambda: place_of(1, shape),
        lambda: ranks_at(shape),
        lambda: group_of(1, "dp", shape),
        lambda: next_in_line(1, shape),
    )
