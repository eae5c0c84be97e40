"""Devices and links of a cluster, and which groups leave a node."""

from __future__ import annotations

import re

import pytest

from pipelab import Cluster, ConfigurationError
from pipelab.simulation.links import Link

TWO = Cluster.of("a100", 2)


def test_a_group_inside_a_node_has_the_nodes_link():
    assert TWO.link(1, 8) == TWO.link(4, 2) == TWO.link(8, 1) == TWO.inside


def test_between_nodes_a_group_has_the_adapters_of_its_members_there():
    assert TWO.link(8, 2) == TWO.between
    assert TWO.link(4, 4) == Link(TWO.between.latency, 2 * TWO.between.bandwidth)
    assert TWO.link(1, 16) == Link(TWO.between.latency, 8 * TWO.between.bandwidth)
    quick = Cluster.of("a100", 2, between=Link(1e-5, 100e9))
    assert quick.link(1, 16).bandwidth == TWO.inside.bandwidth


def test_a_group_that_does_not_fit_its_nodes_evenly_leaves_them():
    assert not TWO.holds(1, 6)
    assert TWO.link(1, 6).bandwidth == 2 * TWO.between.bandwidth


def test_a_part_of_the_memory_is_planned():
    assert Cluster.of("h100", 1, memory="100GB", usable=0.5).allowed == 50e9
    assert TWO.devices == 16


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"per_node": 0}, "per_node must be a whole number of at least 1, got 0"),
        ({"memory": "much"}, "memory must be positive bytes, such as 150MB, 1.5GB or 80GiB; got 'much'"),
        ({"peak": -1}, "peak must be a positive number, got -1; try 3.12e+14"),
        ({"reached": 65}, "reached must be above 0 and at most 1, got 65; try 0.65"),
        ({"usable": None}, "usable must be above 0 and at most 1, got None; try 0.9"),
        ({"inside": 3e11}, "inside must be a Link, got 300000000000.0; try Link("),
    ],
)
def test_what_is_no_cluster_is_refused(changed, says):
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        Cluster.of("a100", 1, **changed)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigurationError, match="no kind of cluster 'v100'; there is a100, h100; or give its numbers"):
        Cluster.of("v100", 1)


def test_one_node_unless_told():
    assert Cluster.of("h100").devices == 8
