"""The frozen table is what the shipped profile gives."""

from random import Random

import pytest

from pipelab.schedules.reserved import reserve
from pipelab.teaching.exercises.lesson_05.forecasts import COUNTS, FAMILIES, LATENCIES, forecasts, simulated


def test_the_frozen_table_is_the_shipped_profiles():
    rows = {(row["schedule"], row["m"], row["latency"]): row for row in forecasts()}
    assert set(rows) == {(family, m, latency) for family in FAMILIES for m in COUNTS for latency in LATENCIES}
    for family, m, latency in Random(5).sample(sorted(rows), 24):
        row = rows[family, m, latency]
        for key, value in simulated(family, m, latency=latency).items():
            assert row[key] == pytest.approx(value, abs=0.11)


def test_they_are_data_that_learners_are_given():
    with reserve("this exercise"):
        assert forecasts()
