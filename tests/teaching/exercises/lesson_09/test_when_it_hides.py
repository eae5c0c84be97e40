"""What the check of hidden messages accepts, and that its truth is a timeline's."""

from random import Random

import pytest

from pipelab.schedules import Action
from pipelab.schedules.reserved import reserve_also
from pipelab.teaching.exercises.lesson_09.when_it_hides import EXERCISE, _drawn, least, share
from pipelab.timeline.messages import Overlap
from pipelab.timeline.spans import Message, Span
from tests.teaching.exercises.trying import assert_reserved, open_parts

F = Action(0, "F", 0)
DRAWN = [case for seed in range(5) for case in _drawn(Random(seed))]


def overlap(messages, busy):
    """The same by a timeline's own figure."""
    spans = [Span(1, k, F, start, end) for k, (start, end) in enumerate(busy)]
    sent = [Message("activation", F, F, 0, 1, a, b) for a, b in messages]
    return Overlap.of(sent, spans).fraction


def search(latency, bandwidth, sequence_bytes, alpha, beta):
    """The least size by trying, from the largest on down."""
    hides = [latency + b * sequence_bytes / bandwidth <= alpha + beta * b for b in range(1, 2000)]
    if not hides[-1]:
        return None
    return len(hides) - next((k for k, fine in enumerate(reversed(hides)) if not fine), len(hides)) + 1


def test_the_share_is_a_timelines_overlap():
    for case in [*EXERCISE.visible, *DRAWN]:
        if case.part == "hidden share":
            assert share(case["_messages"], case["_busy"]) == pytest.approx(overlap(case["_messages"], case["_busy"]))


def by_ticks(messages, busy):
    """Quarter by quarter of a unit: all times of the check are whole numbers of them."""
    ticks = [t / 4 for a, b in messages for t in range(round(4 * a), round(4 * b))]
    return sum(any(start <= t < end for start, end in busy) for t in ticks) / len(ticks) if ticks else 1


def test_counting_ticks_and_trying_all_sizes_are_as_right():
    for case in DRAWN:
        if case.part == "least size":
            assert least(*case["_given"]) == search(*case["_given"])
    assert not open_parts("when_it_hides", hidden_share=by_ticks, least_size=search)


def test_drawn_cases_meet_answers_of_all_kinds():
    answers = [least(*case["_given"]) for case in DRAWN if case.part == "least size"]
    assert {None, 1} < set(answers)
    assert len(set(answers)) > 8


def test_nothing_sent_or_no_time_taken_is_all_hidden():
    assert share([], [(0, 1)]) == share([(2, 2)], []) == 1


def test_the_references_refuse_while_a_learners_function_runs():
    assert_reserved(lambda: share([], []), lambda: least(1, 1, 1, 1, 1))
    with reserve_also("Overlap.of"):
        assert_reserved(lambda: Overlap.of([], []))
