"""That the least number of frames is the least, and that a decoder puts out what the check says."""

from itertools import permutations
from random import Random

import pytest

from pipelab.teaching.exercises.lesson_11.order_frames import EXERCISE, _drawn, fewest, group, held, out_after
from tests.teaching.course.test_exercises import solved
from tests.teaching.exercises.trying import assert_reserved

SMALL = [
    group(6, 2),
    group(6, 1),
    group(6, 4),
    group(6, 4, pyramid=True),
    group(6, 1, intra=[2]),
    [[], [0], [0, 1], [2], [0]],
]


def decoder(order, references):
    """A memory that is watched: what is in it at most, and what leaves the decoder after each frame."""
    memory, shown, out, most = set(), set(), [], 0
    for place, d in enumerate(order):
        assert {*references[d]} <= memory
        most = max(most, len(memory) + 1)
        memory.add(d)
        now = []
        while (candidate := len(shown)) in memory:
            shown.add(candidate)
            now.append(candidate)
        out.append(now)
        memory -= {e for e in memory & shown if all(e not in references[later] for later in order[place + 1 :])}
    return most, out


@pytest.mark.parametrize("references", SMALL, ids=str)
def test_the_fewest_frames_are_the_fewest_of_all_orders(references):
    sound = [
        order
        for order in permutations(range(len(references)))
        if all({*references[d]} <= {*order[:place]} for place, d in enumerate(order))
    ]
    assert fewest(references) == min(held(order, references) for order in sound)


def test_what_is_held_and_put_out_is_what_a_decoder_does():
    for case in [*EXERCISE.visible, *(case for seed in range(5) for case in _drawn(Random(seed)))]:
        if case["_order"]:
            most, out = decoder(case["_order"], case["_references"])
            assert (held(case["_order"], case["_references"]), out_after(case["_order"])) == (most, out)


def test_the_solutions_order_holds_fewest_frames_in_all_that_is_drawn():
    coding_order = solved("order_frames")["coding_order"]
    for seed in range(20):
        for case in _drawn(Random(seed)):
            references = case["_references"]
            assert held(coding_order(references), references) == fewest(references)


def test_a_gap_is_filled_evenly_or_as_a_pyramid():
    assert group(5, 1) == [[], [0, 2], [0], [2, 4], [2]]
    assert group(5, 3, pyramid=True) == [[], [0, 2], [0, 4], [2, 4], [0]]
    assert group(3, 0, intra=[1]) == [[], [], [1]]


@pytest.mark.parametrize("data", [None, 33, ["x"], [[]], {"a": 1}, [0, 0, 1], [float("nan")], 1.5])
def test_what_is_no_answer_gets_a_sentence(data):
    for case in EXERCISE.visible:
        assert EXERCISE.verdict(case, {"data": data}).message


def test_the_references_refuse_while_a_learners_function_runs():
    order, references = [0, 2, 1], group(3, 1)
    assert_reserved(lambda: out_after(order), lambda: held(order, references), lambda: fewest(references))
