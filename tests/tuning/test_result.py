"""The choice, ties, and why the neighbours lose."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipelab import ConfigurationError, shortlist
from pipelab.tuning import Candidate, Measurement
from tests.tuning.profiles import MB, profile


def measured(tuning, rows):
    """With these makespans, relative to the prediction, in each round."""
    found = {
        c: Measurement(tuple(tuning[c].makespan * x for x in row), tuning[c].memory, None) for c, row in rows.items()
    }
    return replace(tuning, measured=found)


A, B, C = Candidate("1f1b", 8), Candidate("gpipe", 8), Candidate("1f1b", 16)


@pytest.fixture
def tuning():
    return shortlist(profile(), 64, schedules=["gpipe", "1f1b"], recompute=[False])


def test_without_a_measurement_the_fastest_forecast_that_fits_is_chosen():
    free = shortlist(profile(), 64)
    assert free.best == min(free.forecasts, key=lambda f: (f.step, f.peak_bytes)).candidate
    tight = shortlist(profile(), 64, memory_limit="40MB")
    assert all(f.peak_bytes <= 40 * MB for f in tight.fitting)
    assert tight.best == tight.fitting[0].candidate != free.best


def test_a_clear_measurement_overrules_the_prediction(tuning):
    found = measured(tuning, {A: (1.3, 1.31, 1.3), C: (1.0, 1.01, 1.0)})
    assert found.best == C and found.tied == (C,)
    assert found.prediction_error == pytest.approx(1 - 1 / 1.3, abs=0.01)
    assert dict(found.neighbours())[Candidate("1f1b", 12)]


def test_what_cannot_be_told_apart_is_said_and_the_leaner_one_taken(tuning):
    """gpipe was a hair faster in two of three rounds: no reason to hold four times the memory."""
    found = measured(tuning, {A: (1.00, 1.02, 0.99), B: (0.99, 1.01, 1.0)})
    assert set(found.tied) == {A, B}
    assert found.best == A
    assert any("cannot rank these" in sentence for sentence in found.advice())
    assert "cannot be told from it" in dict(found.neighbours())[B]


def test_a_noisy_machine_is_said_to_be_one(tuning):
    found = measured(tuning, {A: (1.0, 1.6, 1.0), B: (1.1, 1.0, 1.7)})
    assert any("busy with something else" in sentence for sentence in found.advice())


def test_what_failed_when_it_was_run_is_not_chosen(tuning):
    found = measured(tuning, {A: (1.0,), C: (1.0,)})
    found = replace(found, measured=found.measured | {A: Measurement((), (), "out of memory on device 0 in 0F3")})
    assert found.best == C
    assert "failed" in found.table() and found.to_json()["best"]["microbatches"] == 16


def test_neighbours_lose_for_a_reason_with_a_number():
    """A profile in which m* is 8: less is bubble, more is fixed cost."""
    made = shortlist(profile(alpha=0.002, beta=0.0007), 64, memory_limit="40MB")
    reasons = {str(c): why for c, why in made.neighbours()}
    lost = " ".join(reasons.values())
    assert "does not fit: needs" in lost
    free = shortlist(profile(alpha=0.002, beta=0.0007), 64, schedules=["1f1b", "naive"])
    why = {str(c): reason for c, reason in free.neighbours()}
    assert free.best == Candidate("1f1b", 8)
    assert "devices idle" in why["1f1b, m = 4"] and "bubble 43% instead of 27%" in why["1f1b, m = 4"]
    assert "fixed costs of more and smaller actions" in why["1f1b, m = 9"] + why.get("1f1b, m = 12", "")
    assert "recomputing" in why["1f1b + R, m = 8"] or "recomputing" in lost
    assert "naive" in why


def test_the_report_is_whole(tuning):
    text = measured(tuning, {A: (1.0, 1.01, 1.0), C: (1.2, 1.2, 1.21)}).report()
    for part in (
        "t(b) = 6 ms + 1.5 ms * b",
        "m = 4p = 16",
        "m* = ",
        "sweet spot: 1f1b, m = 8",
        "why not",
        "off by at most",
    ):
        assert part in text, text
    assert "Tuning(" in repr(tuning)


def test_json_has_everything_and_nothing_but_json(tuning):
    told = measured(tuning, {A: (1.0, 1.01, 1.0)}).to_json()
    again = json.loads(json.dumps(told, allow_nan=False))
    assert again["start"] == 16 and again["memory_limit"] == [None] * 4
    row = next(c for c in again["candidates"] if "measured" in c)
    assert (
        row["schedule"] == "1f1b" and len(row["measured"]["rounds"]) == 3 and row["predicted"]["tokens_per_second"] > 0
    )


def test_when_nothing_fits_the_least_is_said():
    with pytest.raises(
        ConfigurationError, match=r"no candidate fits in 3\.0 MB per device: the least is .* which needs"
    ):
        shortlist(profile(), 64, memory_limit="3MB")


def test_without_overhead_more_micro_batches_are_always_better():
    made = shortlist(profile(alpha=0.0), 64, schedules=["1f1b"])
    assert made.best.microbatches == 64 and "m* is not bounded" in made.report()
