"""What the check of choices accepts, and that its reasons are clear."""

import numpy as np

from pipelab.teaching.exercises.lesson_05.best_m import NEAR
from pipelab.teaching.exercises.lesson_05.defend import OTHERS, fastest, find, losses, reason_for
from pipelab.teaching.exercises.lesson_05.forecasts import LATENCIES, forecasts
from tests.teaching.exercises.trying import assert_reserved, open_parts


def test_every_reason_is_clear():
    """No named configuration loses about as much for another reason."""
    named = set()
    for (limit, latency), others in OTHERS.items():
        for other in others:
            row = find(*other, latency)
            reason = reason_for(row, limit)
            named.add(reason)
            if reason == "memory":
                assert row["peak"] > 1.05 * limit
            else:
                first, second, *_ = sorted(losses(row, fastest(limit, latency)).values(), reverse=True)
                assert first > 1.5 * max(second, 1)
                assert row["peak"] < 0.98 * limit
                assert row["step"] > 1.05 * fastest(limit, latency)["step"]
    assert named == {"memory", "messages", "recompute", "bubble", "granularity"}


def test_the_five_cases_have_five_answers():
    best = {key: fastest(*key) for key in OTHERS}
    assert {(row["schedule"], row["m"]) for row in best.values()} == {
        ("1f1b", 8),
        ("1f1b", 13),
        ("1f1b + R", 8),
        ("gpipe", 8),
        ("gpipe + R", 8),
    }
    assert {latency for _, latency in OTHERS} == set(LATENCIES)


def test_the_smallest_m_that_fits_is_not_always_the_choice():
    """Where the wall has moved 1F1B far to the right, a second forward costs less than so many fixed costs."""
    for limit in (30, 20):
        best = fastest(limit, 0)
        smallest = min(
            (row for row in forecasts() if row["schedule"] == "1f1b" and not row["latency"] and row["peak"] <= limit),
            key=lambda row: row["m"],
        )
        assert best["schedule"] == "1f1b + R"
        assert smallest["step"] > NEAR * best["step"]


def test_an_answer_may_be_looked_up_by_hand_and_name_reasons_in_a_dict():
    choice = {(120, 0): ("GPipe", 8), (42, 0): ("1f1b", 14.0), (30, 0): ("1F1B+R", 6), (120, 10): ("gpipe", 6)}
    choice[42, 10] = ("gpipe+R", 8)

    def defend(limit, latency, others):
        reasons = {other: reason_told(other, limit, latency) for other in others}
        return [*choice[limit, latency], reasons]

    told = {key: [reason_for(find(*other, key[1]), key[0]) for other in others] for key, others in OTHERS.items()}

    def reason_told(other, limit, latency):
        return told[limit, latency][OTHERS[limit, latency].index(other)].upper()

    assert not open_parts("defend", defend=defend)


def test_reasons_may_be_a_numpy_array():
    choice = {key: (fastest(*key)["schedule"], fastest(*key)["m"]) for key in OTHERS}
    told = {key: [reason_for(find(*other, key[1]), key[0]) for other in others] for key, others in OTHERS.items()}
    assert not open_parts(
        "defend", defend=lambda limit, latency, _: (*choice[limit, latency], np.array(told[limit, latency]))
    )


def test_references_refuse_while_a_learners_function_runs():
    row = find("1f1b", 8, 0)
    assert_reserved(lambda: reason_for(row, 42), lambda: fastest(42, 0), lambda: losses(row, row))
