"""The picture of weight versions shows what the runtime keeps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pipelab import ConfigurationError, build_schedule, simulate
from pipelab.schedules.updates import over
from pipelab.teaching.without_flush.lifetimes import Life, lives, most_at_once, plot_lives


def timeline(name="pipedream", p=4, m=4, steps=3):
    return simulate(over(build_schedule(name, p, m), steps))


@pytest.mark.parametrize(
    ("name", "peaks"),
    [("pipedream", [4, 3, 2, 1]), ("vertical-sync", [4, 4, 4, 4]), ("2bw", [2, 2, 2, 2])],
)
def test_as_many_versions_live_at_once_as_the_theory_says(name, peaks):
    found = lives(timeline(name))
    assert [most_at_once(found, s) for s in range(4)] == peaks
    picture = plot_lives(timeline(name), note="Clock: predicted from costs.")
    assert all(f"device {s} keeps at most {peak}" in picture.alt for s, peak in enumerate(peaks))
    assert picture.alt.endswith("Clock: predicted from costs.")


def test_a_version_lives_from_its_update_to_its_last_backward():
    """p = 2: device 0 runs F0 F1 . B0 F2 B1 . B2, an update after each B; F1 still uses version 0, F2 version 1."""
    found = lives(timeline(p=2, m=3, steps=1))
    assert [life for life in found if life.stage == 0] == [
        Life(0, 0, 0.0, 6.0),
        Life(0, 1, 4.0, 8.0),
        Life(0, 2, 6.0, 8.0),
        Life(0, 3, 8.0, 8.0),
    ]


@pytest.mark.parametrize("name", ["pipedream", "vertical-sync", "2bw"])
def test_bars_of_a_device_that_share_a_lane_do_not_overlap(name):
    found = lives(timeline(name))
    for s in range(4):
        peak = most_at_once(found, s)
        for lane in range(peak):
            own = sorted(
                (life for life in found if life.stage == s and life.version % peak == lane),
                key=lambda life: life.begin,
            )
            assert all(one.end <= other.begin for one, other in pairwise(own))


def test_a_table_without_updates_is_refused():
    with pytest.raises(ConfigurationError, match="'1f1b' lists no updates"):
        plot_lives(simulate(build_schedule("1f1b", 4, 4)))
