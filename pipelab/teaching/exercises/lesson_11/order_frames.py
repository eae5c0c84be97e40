"""Exercise of lesson 11: in which order frames are coded, when they are put out, and how many are held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

from pipelab.schedules.reserved import reserved
from pipelab.teaching.exercises.definition import Call, Case, Exercise, Finding, Refused
from pipelab.teaching.exercises.judging import as_lists, kind_of, read_whole
from pipelab.teaching.exercises.lesson_09.mistakes import the_only

_ORDER, _FEWEST, _OUT, _HELD = "every reference first", "fewest frames held", "display order", "frames held"
References = Sequence[Sequence[int]]


def _case(part: str, references: References, order: Sequence[int] = ()) -> Case:
    told = f"references {[list(row) for row in references]}"
    told = f"order {list(order)}" if part == _OUT else f"{told}, order {list(order)}" if part == _HELD else told
    return Case(part, {"_references": [list(row) for row in references], "_order": list(order), "_words": told})


def group(frames: int, between: int, *, pyramid: bool = False, intra: Iterable[int] = ()) -> list[list[int]]:
    """The references of each frame, with ``between`` B frames from one I or P to the next. ``intra`` have none.

    In a pyramid the B frame in the middle of a gap is a reference of those around it.
    """
    anchors = [*range(0, frames - 1, between + 1), frames - 1]
    found: list[list[int]] = [[] for _ in range(frames)]
    for before, behind in pairwise(anchors):
        found[behind] = [] if behind in intra else [before]
        _gap(found, before, behind, pyramid)
    return found


def _gap(found: list[list[int]], before: int, behind: int, pyramid: bool) -> None:
    inner = range(before + 1, behind)
    if pyramid and len(inner) > 1:
        middle = (before + behind) // 2
        found[middle] = [before, behind]
        _gap(found, before, middle, pyramid)
        _gap(found, middle, behind, pyramid)
    else:
        for d in inner:
            found[d] = [before, behind]


def _some(random: Random) -> list[list[int]]:
    frames, between = random.randint(4, 10), random.randint(0, 4)
    return group(frames, between, pyramid=random.random() < 0.4, intra=random.sample(range(frames), 1))


def _any_order(random: Random, references: References) -> list[int]:
    """Any order in which references come first."""
    order: list[int] = []
    while len(order) < len(references):
        ready = [d for d in range(len(references)) if d not in order and {*references[d]} <= {*order}]
        order.append(random.choice(ready))
    return order


def _drawn(random: Random) -> list[Case]:
    cases = [_case(part, _some(random)) for part in (_ORDER, _FEWEST) for _ in range(5)]
    for part in (_OUT, _HELD):
        for _ in range(5):
            references = _some(random)
            cases.append(_case(part, references, _any_order(random, references)))
    return cases


def _ask(call: Call, case: Case) -> Any:
    references, order = case["_references"], case["_order"]
    if case.part == _OUT:
        return call("put_out", order)
    return call("frames_held", order, references) if case.part == _HELD else call("coding_order", references)


@reserved
def out_after(order: Sequence[int]) -> list[list[int]]:
    """Which frames are put out after each decoding: all whose predecessors in the display are out, or go with them."""
    found: list[list[int]] = []
    next_shown = 0
    for place in range(len(order)):
        done, first = {*order[: place + 1]}, next_shown
        while next_shown in done:
            next_shown += 1
        found.append(list(range(first, next_shown)))
    return found


def _kept(done: frozenset[int], references: References) -> int:
    """Frames that stay in memory when those of ``done`` are decoded: not out yet, or references of what comes."""
    out = 0
    while out in done:
        out += 1
    needed = {r for d, row in enumerate(references) if d not in done for r in row}
    return sum(d >= out or d in needed for d in done)


@reserved
def held(order: Sequence[int], references: References) -> int:
    """The most frames in memory at a time: those kept, and the one that is being decoded."""
    return max(_kept(frozenset(order[:place]), references) + 1 for place in range(len(order)))


@reserved
def fewest(references: References) -> int:
    """The least number of frames that any order holds: all orders are tried, as sets of what is decoded."""
    count = len(references)

    @cache
    def rest(done: frozenset[int]) -> int:
        if len(done) == count:
            return 0
        ready = (d for d in range(count) if d not in done and done >= {*references[d]})
        return max(_kept(done, references) + 1, min(rest(done | {d}) for d in ready))

    return rest(frozenset())


def _judge(case: Case, data: Any) -> Finding | None:
    if case.part == _OUT:
        return _of_out(case, data)
    if case.part == _HELD:
        return _of_held(case, data)
    order = _read_order(case, data)
    early = _too_early(case, order)
    if early or case.part == _ORDER:
        return early
    references = case["_references"]
    mine, best = held(order, references), fewest(references)
    if mine == best:
        return None
    place = max(range(len(order)), key=lambda k: (_kept(frozenset(order[:k]), references), -k))
    start = f"{case.words}: the order {order} holds {mine} frames, where {best} are enough. "
    start += f"While frame {order[place]} is decoded, {mine - 1} others are kept. "
    ahead = [d for d in order[:place] if d > order[place] and not _wanted(d, order[place], references)]
    if ahead:
        start += f"Frame {ahead[-1]} was coded before frame {order[place]}, which does not need it."
    return Finding(start.rstrip())


def _wanted(d: int, by: int, references: References) -> bool:
    """Whether frame ``by`` needs frame d, itself or through its references."""
    return d in references[by] or any(_wanted(d, r, references) for r in references[by])


def _read_order(case: Case, data: Any) -> list[int]:
    """A permutation of the frames."""
    listed, frames = as_lists(data), len(case["_references"])
    what = f"{case.words}: coding_order"
    if not isinstance(listed, list):
        raise Refused(f"{what} should return a list of frames, it returned {kind_of(data)}")
    order = [read_whole(d, f"{what}, entry {k},") for k, d in enumerate(listed)]
    strange = [d for d in order if not 0 <= d < frames]
    if strange:
        raise Refused(f"{what} returned frame {strange[0]}. There are frames 0 to {frames - 1}.")
    twice = [d for d in range(frames) if order.count(d) > 1]
    if twice:
        raise Refused(f"{what} returned frame {twice[0]} twice")
    missing = sorted({*range(frames)} - {*order})
    if missing:
        raise Refused(f"{what} returned no frame {missing[0]}. Each frame is coded once.")
    return order


def _too_early(case: Case, order: Sequence[int]) -> Finding | None:
    for place, d in enumerate(order):
        for r in case["_references"][d]:
            if r not in order[:place]:
                text = f"{case.words}: in the order {list(order)} frame {d} comes before frame {r}, its reference"
                why = ". A B frame also waits for one that is shown later." if r > d else "."
                return Finding(text + why)
    return None


def _of_out(case: Case, data: Any) -> Finding | None:
    order, listed = case["_order"], as_lists(data)
    if not isinstance(listed, list) or any(not isinstance(row, list) for row in listed):
        raise Refused(f"{case.words}: put_out should return a list of lists of frames, it returned {kind_of(data)}")
    given, wanted = listed, out_after(order)
    if given == wanted:
        return None
    if len(given) != len(order):
        return Finding(f"{case.words}: put_out returned {len(given)} lists. There is one after each frame decoded.")
    place = next(k for k in range(len(order)) if given[k] != wanted[k])
    start = f"{case.words}: after frame {order[place]}, put_out puts out {given[place]} instead of {wanted[place]}. "
    flat = [d for row in given[: place + 1] for d in row]
    known = sorted(flat) == flat and [*range(len(flat))] == flat
    if sorted(given[place]) == sorted(wanted[place]):
        return Finding(f"{start}They go out in the order of display.")
    if not known:
        missing = next(d for d in range(len(order)) if d not in flat or flat.index(d) != d)
        return Finding(f"{start}Frame {missing} is shown before, and is not out yet.")
    if set(flat) - set(order[: place + 1]):
        return Finding(f"{start}Not all of these are decoded.")
    return Finding(f"{start}Frame {wanted[place][len(given[place])]} waited for this one, and can go too.")


def _of_held(case: Case, data: Any) -> Finding | None:
    order, references = case["_order"], case["_references"]
    given, wanted = read_whole(data, f"{case.words}: frames_held"), held(order, references)
    if given == wanted:
        return None
    before = [frozenset(order[:place]) for place in range(len(order))]
    out = [sum(map(len, out_after(order)[:place])) for place in range(len(order))]
    unshown = [sum(d >= shown for d in done) for done, shown in zip(before, out, strict=True)]
    needed = [
        len({r for d in range(len(references)) if d not in done for r in references[d]} & done) for done in before
    ]
    waiting = [len(done) for done in before]
    known = [
        (wanted - 1, "The frame that is being decoded needs a place too."),
        (max(unshown) + 1, "A frame that is out may still be a reference."),
        (max(needed) + 1, "A frame that is nobody's reference is held until it is put out."),
        (max(u + n for u, n in zip(unshown, needed, strict=True)) + 1, "A frame that is both was counted twice."),
        (max(waiting) + 1, "Frames that are out, and that no later frame needs, are dropped."),
        (_kept(before[-1], references) + 1, "That is at the last frame. The most counts."),
    ]
    start = f"{case.words}: frames_held returned {given} instead of {wanted}. "
    return Finding((start + the_only((value == given, why) for value, why in known)).rstrip())


_USUAL = group(7, 2)
_SMALL = group(3, 1)
_PYRAMID = group(9, 3, pyramid=True)

EXERCISE = Exercise(
    name="order_frames",
    lesson="11_pipelines_everywhere",
    title="Order frames",
    answers=("coding_order", "put_out", "frames_held"),
    parts={_ORDER: 1, _FEWEST: 1, _OUT: 1, _HELD: 1},
    visible=[
        _case(_ORDER, _SMALL),
        _case(_ORDER, group(4, 0)),
        _case(_ORDER, _USUAL),
        _case(_ORDER, _PYRAMID),
        _case(_FEWEST, _SMALL),
        _case(_FEWEST, _USUAL),
        _case(_FEWEST, group(9, 1)),
        _case(_FEWEST, _PYRAMID),
        _case(_OUT, _SMALL, [0, 2, 1]),
        _case(_OUT, _USUAL, [0, 3, 1, 2, 6, 4, 5]),
        _case(_OUT, _USUAL, [0, 3, 6, 2, 1, 5, 4]),
        _case(_HELD, [[], [0], [0, 1], [0, 1], [0, 1]], [0, 1, 2, 3, 4]),
        _case(_HELD, _USUAL, [0, 3, 2, 6, 4, 1, 5]),
        _case(_HELD, _SMALL, [0, 2, 1]),
        _case(_HELD, _USUAL, [0, 3, 6, 2, 1, 5, 4]),
        _case(_HELD, _PYRAMID, [0, 4, 2, 1, 3, 8, 6, 5, 7]),
    ],
    drawn=_drawn,
    ask=_ask,
    judge=_judge,
)
