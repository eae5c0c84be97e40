"""A configuration check says what is likely wrong, in numbers."""

from __future__ import annotations

import pytest

from pipelab import ConfigurationError, check_configuration
from tests.tuning.profiles import profile


def test_a_sound_configuration_needs_no_advice():
    assert check_configuration("1f1b", 4, 16, batch=64) == ()
    assert check_configuration("interleaved", 4, 16, batch=64, profile=profile(alpha=0.0001), memory_limit="1GB") == ()


@pytest.mark.parametrize(
    ("given", "settings", "says"),
    [
        (("1f1b", 4, 2), {}, "m = 2 is less than p = 4: at least 2 devices are idle .* takes 60%"),
        (("gpipe", 4, 8), {"profile": profile(alpha=1e-4)}, "less than 4p = 16: the bubble takes 27%"),
        (("1f1b", 4, 64), {"profile": profile(alpha=0.01)}, "far above m\\* = 3.1: 95% of each action is its fixed"),
        (("interleaved", 4, 9), {}, "m = 9, p = 4 cannot make 2 equal groups; take m = 8 or 10, or 1f1b, which takes"),
        (("interleaved", 4, 63), {}, "take m = 60 or 64, or 1f1b"),
        (("interleaved", 10, 63), {}, "take m = 60, or 1f1b"),  # 66 is more than the batch
        (("interleaved", 4, 66), {}, "need at least 66 sequences, but the batch has 64"),
        (("interleaved", 4, 2), {}, "m = 2 is less than p = 4: at least 2 devices are idle .* takes 56%"),
        (("1f1b", 4, 20), {}, "64 sequences in m = 20 micro-batches have sizes 4 and 3"),
        (("naive", 4, 1), {}, "naive keeps p - 1 = 3 of 4 devices idle"),
        (("1f1b", 4, 128), {}, "need at least 128 sequences, but the batch has 64"),
        (
            ("gpipe", 4, 16),
            {"profile": profile(alpha=1e-4), "memory_limit": "75MB"},
            "device . needs 91% of its 75.0 MB",
        ),
        (("gpipe", 4, 16), {"profile": profile(alpha=1e-4), "memory_limit": "50MB"}, "does not fit: it needs 68.0 MB"),
    ],
)
def test_advice(given, settings, says):
    found = check_configuration(*given, batch=64, **settings)
    assert any(__import__("re").search(says, sentence) for sentence in found), found


def test_near_m_star_few_micro_batches_are_no_mistake():
    """4p is a start, not a law: where an action's fixed cost is large, m = 8 is the best there is."""
    made = profile(alpha=0.002, beta=0.0007)
    assert 8 < made.best_microbatches(64) < 9
    assert check_configuration("1f1b", 4, 8, batch=64, profile=made) == ()


def test_what_is_no_configuration_raises():
    with pytest.raises(ConfigurationError, match="there is no schedule"):
        check_configuration("2f2b", 4, 8, batch=64)
    with pytest.raises(ConfigurationError, match="the profile is for p = 4 devices, not"):
        check_configuration("1f1b", 8, 32, batch=64, profile=profile())
    with pytest.raises(ConfigurationError, match="chunk"):
        check_configuration("1f1b", 4, 8, batch=64, chunks=2)
