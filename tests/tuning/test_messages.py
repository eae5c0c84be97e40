import pytest

from pipelab.errors import ConfigurationError
from pipelab.tuning.messages import message_times


@pytest.mark.parametrize("way", ["threads", "processes", "gloo"])
def test_a_message_takes_time_and_a_large_one_more(way):
    small, large = 4096, 1 << 25
    times = message_times(way, [small, large], repeats=5)
    assert list(times) == [small, large]
    assert 0 < times[small] < 1
    if way == "gloo":  # all bytes go through a socket; elsewhere large tensors stay where they are
        assert times[large] > times[small]


def test_strange_ways_and_sizes_are_refused():
    with pytest.raises(ConfigurationError, match="'threads', 'processes', 'gloo', got 'mail'"):
        message_times("mail", [4])
    with pytest.raises(ConfigurationError, match=r"sizes must be a list of bytes, got 4; try \[4\]"):
        message_times("threads", 4)
    with pytest.raises(ConfigurationError, match="size"):
        message_times("threads", [0])
