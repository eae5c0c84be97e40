"""What the check of choices accepts, and that its reasons are clear."""

import numpy as np

from pipelab.teaching.exercises.lesson_05.defend import LIMITS, OTHERS, fastest, find, losses, reason_for
from pipelab.teaching.exercises.lesson_05.forecasts import LATENCIES
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


def test_the_four_cases_have_four_answers():
    best = {key: fastest(*key) for key in OTHERS}
    assert {(row["schedule"], row["m"]) for row in best.values()} == {
        ("1f1b", 8),
        ("1f1b", 13),
        ("gpipe", 8),
        ("gpipe + R", 8),
    }
    assert set(OTHERS) == {(limit, latency) for limit in LIMITS for latency in LATENCIES}


def test_an_answer_may_be_looked_up_by_hand_and_name_reasons_in_a_dict():
    choice = {(120, 0): ("GPipe", 8), (42, 0): ("1f1b", 14.0), (120, 10): ("gpipe", 6), (42, 10): ("gpipe+R", 8)}

    def defend(limit, latency, others):
        reasons = {other: reason_told(other, limit, latency) for other in others}
        return [*choice[limit, latency], reasons]

    told = {key: [reason_for(find(*other, key[1]), key[0]) for other in others] for key, others in OTHERS.items()}

    def reason_told(other, limit, latency):
        return told[limit, latency][OTHERS[limit, latency].index(other)].upper()

    assert not open_parts("defend", defend=defend)


def test_reasons_may_be_a_numpy_array():
    choice = {(120, 0): ("1f1b", 8), (42, 0): ("1f1b", 13), (120, 10): ("gpipe", 8), (42, 10): ("gpipe + R", 8)}
    told = {key: [reason_for(find(*other, key[1]), key[0]) for other in others] for key, others in OTHERS.items()}
    assert not open_parts(
        "defend", defend=lambda limit, latency, _: (*choice[limit, latency], np.array(told[limit, latency]))
    )


def test_references_refuse_while_a_learners_function_runs():
    row = find("1f1b", 8, 0)
    assert_reserved(lambda: reason_for(row, 42), lambda: fastest(42, 0), lambda: losses(row, row))
