"""Exercise of lesson 10: which rank stands where in a mesh of three dimensions, and with whom it works together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import prod
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, numbers, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import shown, the_only

_PLACES, _GROUPS, _WITH = "ranks and places", "groups", "who with whom"
KINDS = ("dp", "pp", "tp")
LETTERS = dict(zip(KINDS, "dpt", strict=True))
RIGHT = ("tp", "pp", "dp")
"""From the innermost dimension to the outermost."""


def _case(part: str, function: str, shape: Sequence[int], *asked: Any) -> Case:
    told = ", ".join(f"{kind} = {size}" for kind, size in zip(KINDS, shape, strict=True))
    what = {"groups": "groups of kind {}", "rank_at": "the place ({}, {}, {})"}.get(function, "rank {}")
    words = f"{told}: {what.format(*asked)}"
    return Case(part, {"_function": function, "_shape": list(shape), "_asked": list(asked), "_words": words})


def _some(random: Random, part: str) -> list[Case]:
    shape = [random.randint(1, 4) for _ in KINDS]
    rank = random.randrange(prod(shape))
    if part == _GROUPS:
        return [_case(part, "groups", shape, kind) for kind in KINDS]
    if part == _WITH:
        return [_case(part, name, shape, rank) for name in ("reduces_with", "sends_to")]
    return [
        _case(part, "place", shape, rank),
        _case(part, "rank_at", shape, *(random.randrange(size) for size in shape)),
    ]


def _drawn(random: Random) -> list[Case]:
    return [case for part in (_PLACES, _GROUPS, _WITH) for _ in range(6) for case in _some(random, part)]


def _ask(call: Call, case: Case) -> Any:
    return call(case["_function"], *case["_asked"], *case["_shape"], _none=case["_function"] == "sends_to")


@reserved
def place_of(rank: int, shape: Sequence[int], order: Sequence[str] = RIGHT) -> tuple[int, ...]:
    """(d, p, t) of a rank, where ``order`` names the dimensions from the innermost on."""
    sizes, found = dict(zip(KINDS, shape, strict=True)), {}
    for kind in order:
        rank, found[kind] = divmod(rank, sizes[kind])
    return tuple(found[kind] for kind in KINDS)


@reserved
def ranks_at(shape: Sequence[int], order: Sequence[str] = RIGHT) -> dict[tuple[int, ...], int]:
    """The rank at each place."""
    return {place_of(rank, shape, order): rank for rank in range(prod(shape))}


@reserved
def group_of(rank: int, kind: str, shape: Sequence[int]) -> list[int]:
    """The ranks whose places differ from that of ``rank`` in one coordinate at most, that of ``kind``."""

    def others(r: int) -> list[int]:
        return [c for k, c in zip(KINDS, place_of(r, shape), strict=True) if k != kind]

    return [r for r in range(prod(shape)) if others(r) == others(rank)]


@reserved
def next_in_line(rank: int, shape: Sequence[int], by: int = 1) -> int | None:
    """The rank with the next stage of the same replica and the same part of each layer."""
    d, p, t = place_of(rank, shape)
    return ranks_at(shape).get((d, p + by, t))


def _judge(case: Case, data: Any) -> Finding | None:
    judge = {
        "place": _judge_place,
        "rank_at": _judge_rank,
        "groups": _judge_groups,
        "reduces_with": _judge_with,
        "sends_to": _judge_to,
    }
    return judge[case["_function"]](case, data)


def _other_order(gives: Callable[[Sequence[str]], bool]) -> str:
    """What is wrong with the order of dimensions that gives an answer, where only one thing can be."""
    reasons: dict[str, bool] = {}
    for order in permutations(KINDS):
        why = f"That has {order[0]} innermost. From one rank to the next, t changes first."
        if order[0] == "tp":
            why = f"That has {order[2]} outermost. The ranks of one replica follow one another, so d changes last."
        reasons[why] = reasons.get(why, False) or gives(order)
    return the_only((given, why) for why, given in reasons.items())


def _judge_place(case: Case, data: Any) -> Finding | None:
    shape, (rank,) = case["_shape"], case["_asked"]
    given = [read_whole(n, f"{case.words}: a coordinate") for n in numbers(data, f"{case.words}: place", 3)]
    wanted = place_of(rank, shape)
    if tuple(given) == wanted:
        return None
    start = f"{case.words}: place returned {tuple(given)}. "
    if tuple(given[::-1]) == wanted:
        return Finding(f"{start}These are the right numbers, in the order (t, p, d). Return (d, p, t).")
    for kind, coordinate, size in zip(KINDS, given, shape, strict=True):
        if not 0 <= coordinate < size:
            return Finding(
                f"{start}{LETTERS[kind]} is {coordinate}, but with {kind} = {size} it goes from 0 to {size - 1}."
            )
    why = _other_order(lambda order: tuple(given) == place_of(rank, shape, order))
    return Finding(f"{start}That is the place of rank {ranks_at(shape)[tuple(given)]}. {why}".rstrip())


def _judge_rank(case: Case, data: Any) -> Finding | None:
    shape, place = case["_shape"], tuple(case["_asked"])
    given, wanted = read_whole(data, f"{case.words}: rank_at"), ranks_at(shape)[place]
    if given == wanted:
        return None
    start = f"{case.words}: rank_at returned {given}. "
    why = _other_order(lambda order: given == ranks_at(shape, order)[place])
    if given == sum(c * size for c, size in zip(place, shape, strict=True)):
        why = (
            "Each coordinate was multiplied by the size of its own dimension. Count how far apart two neighbours "
            "in this dimension are."
        )
    if not 0 <= given < prod(shape):
        return Finding(f"{start}There are {prod(shape)} ranks, from 0 on. {why}".rstrip())
    return Finding(f"{start}That rank is at {place_of(given, shape)}. {why}".rstrip())


def _lists(case: Case, data: Any) -> list[list[int]]:
    if isinstance(data, dict) and "set" in data:
        data = data["set"]
    listed = as_lists(data)
    if not isinstance(listed, list):
        raise Refused(f"{case.words}: groups should return a list of lists of ranks, it returned {kind_of(data)}")
    return [_ranks(case, group, "a group") for group in listed]


def _ranks(case: Case, data: Any, what: str) -> list[int]:
    if isinstance(data, dict) and "set" in data:
        data = data["set"]
    ranks = [read_whole(n, f"{case.words}: a rank") for n in numbers(data, f"{case.words}: {what}")]
    strange = next((r for r in ranks if not 0 <= r < prod(case["_shape"])), None)
    if strange is not None:
        raise Refused(f"{case.words}: there is no rank {strange}. There are {prod(case['_shape'])} ranks, from 0 on.")
    return ranks


def _differing(a: int, b: int, shape: Sequence[int]) -> list[str]:
    """The dimensions in which two ranks differ."""
    pairs = zip(KINDS, place_of(a, shape), place_of(b, shape), strict=True)
    return [kind for kind, one, other in pairs if one != other]


_MEANING: Mapping[str, str] = {
    "dp": "They hold the same weights, in different replicas",
    "pp": "They hold the stages of one replica, for the same part of each layer",
    "tp": "They hold the parts of the same layers, in one replica",
}


def _judge_groups(case: Case, data: Any) -> Finding | None:
    shape, (kind,) = case["_shape"], case["_asked"]
    given, size = _lists(case, data), dict(zip(KINDS, shape, strict=True))[kind]
    start = f"{case.words}: "
    rule = f"The ranks of a {kind} group differ in {LETTERS[kind]} alone. {_MEANING[kind]}."
    for group in given:
        for other in group:
            apart = [k for k in _differing(group[0], other, shape) if k != kind]
            if apart:
                told = " and ".join(f"{LETTERS[k]}" for k in apart)
                return Finding(
                    f"{start}{shown(group)} is no {kind} group. Ranks {group[0]} and {other} differ in {told}. {rule}"
                )
        if len(set(group)) != size or len(group) != size:
            return Finding(f"{start}{shown(group)} should have {kind} = {size} different ranks. {rule}")
    seen = [rank for group in given for rank in group]
    missing = next((rank for rank in range(prod(shape)) if rank not in seen), None)
    if missing is not None:
        return Finding(
            f"{start}rank {missing} is in no group. Each rank is in one group of each kind, also where it is alone in "
            "it."
        )
    if len(seen) > len(set(seen)):
        twice = next(rank for rank in seen if seen.count(rank) > 1)
        return Finding(f"{start}rank {twice} is in two groups. Each rank is in one group of each kind.")
    return None


def _judge_with(case: Case, data: Any) -> Finding | None:
    shape, (rank,) = case["_shape"], case["_asked"]
    given, wanted = _ranks(case, data, "reduces_with"), group_of(rank, "dp", shape)
    if sorted(given) == wanted:
        return None
    start = f"{case.words}: reduces_with returned {shown(given)}. "
    if len(given) > len(set(given)):
        return Finding(f"{start}Name each rank once.")
    if sorted({*given, rank}) == wanted:
        return Finding(f"{start}Rank {rank} is missing. It adds its own gradient too.")
    strange = next((r for r in given if r not in wanted), None)
    if strange is None:
        lost = next(r for r in wanted if r not in given)
        return Finding(f"{start}Rank {lost} is missing. It holds the same weights for another part of the batch.")
    other_layers = "pp" in _differing(strange, rank, shape)
    why = "it holds other layers" if other_layers else "it holds the same layers, but another part of each"
    return Finding(
        f"{start}Rank {strange} has other weights than rank {rank}: {why}. Only gradients of the same weights are "
        "added up."
    )


def _judge_to(case: Case, data: Any) -> Finding | None:
    shape, (rank,) = case["_shape"], case["_asked"]
    given = None if data is None else read_whole(data, f"{case.words}: sends_to")
    wanted = next_in_line(rank, shape)
    if given == wanted:
        return None
    d, p, t = place_of(rank, shape)
    start = f"{case.words}: sends_to returned {given}. Rank {rank} has stage {p} of {shape[1]}. "
    if given is None:
        return Finding(f"{start}So there is a next stage.")
    if wanted is None:
        return Finding(f"{start}It is the last one, so nobody takes its activations. Return None.")
    if not 0 <= given < prod(shape):
        return Finding(f"{start}There are {prod(shape)} ranks, from 0 on.")
    there = place_of(given, shape)
    if there[1] != p + 1:
        return Finding(f"{start}Rank {given} has stage {there[1]}, which is not the next one.")
    if there[0] != d:
        return Finding(f"{start}Rank {given} has the next stage, but in another replica. It works on other sequences.")
    return Finding(
        f"{start}Rank {given} has the next stage, but part {there[2]} of each layer. Each rank sends to its own part, "
        f"here {t}."
    )


EXERCISE = Exercise(
    name="ranks_and_groups",
    lesson="10_parallelism",
    title="Ranks and groups",
    answers=("place", "rank_at", "groups", "reduces_with", "sends_to"),
    parts={_PLACES: 1, _GROUPS: 2, _WITH: 1},
    visible=[
        _case(_PLACES, "place", (1, 2, 2), 3),
        _case(_PLACES, "place", (2, 3, 4), 14),
        _case(_PLACES, "place", (4, 3, 2), 11),
        _case(_PLACES, "place", (2, 2, 2), 5),
        _case(_PLACES, "rank_at", (2, 3, 4), 1, 1, 2),
        _case(_PLACES, "rank_at", (4, 3, 2), 2, 0, 1),
        _case(_PLACES, "rank_at", (3, 1, 2), 2, 0, 1),
        *(_case(_GROUPS, "groups", shape, kind) for shape in ((2, 2, 2), (1, 3, 2), (3, 2, 4)) for kind in KINDS),
        _case(_WITH, "reduces_with", (2, 2, 2), 5),
        _case(_WITH, "reduces_with", (4, 3, 2), 13),
        _case(_WITH, "reduces_with", (1, 2, 2), 2),
        _case(_WITH, "sends_to", (1, 2, 2), 0),
        _case(_WITH, "sends_to", (2, 2, 2), 5),
        _case(_WITH, "sends_to", (2, 2, 2), 3),
        _case(_WITH, "sends_to", (2, 3, 2), 11),
        _case(_WITH, "sends_to", (3, 4, 1), 6),
        _case(_WITH, "sends_to", (4, 1, 2), 3),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
