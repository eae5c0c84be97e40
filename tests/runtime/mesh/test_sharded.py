"""Weights that replicas share out (FSDP2), against the unsplit model: under torchrun."""

import pytest

from pipelab.runtime.mesh.traffic import shard_traffic
from tests.runtime.mesh.test_tensor import results


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return results(tmp_path_factory.mktemp("two"), "sharded", "checkpoint", "traffic")


def test_gradients_losses_weights_and_evaluation_are_the_unsplit_models(two):
    """Gathered once a step or for each forward and backward; with dropout, clipping, AdamW and uneven shares."""
    for rank in two:
        assert len(rank["sharded"]) == 2
        for errors in rank["sharded"].values():
            assert max(errors) < 1e-10, rank["sharded"]


def test_saved_in_slices_gone_on_with_in_shards_and_then_in_one_piece(two):
    for rank in two:
        assert max(rank["checkpoint"].values()) < 1e-10


@pytest.mark.parametrize("how", ["keep", "regather"])
def test_weights_are_gathered_as_often_as_the_formula_says(two, how):
    """FSDP2 gathered the last layer once more: in the backward of a first layer it went on to the step before."""
    embed, head, layer = 256 * 16 + 8 * 16, 256 * 16 + 256 + 2 * 16, 12 * 16 * 16 + 13 * 16
    sizes = [8 * numbers for numbers in (embed, layer, layer, head)]
    formula = shard_traffic(sizes, 2, 2, again=how == "regather")
    for rank in two:
        told = rank["traffic"][how]
        assert told.pop("weights") == sum(sizes)
        assert told == {f"dp {kind}": [one.count, one.sent] for kind, one in formula.items()}


@pytest.mark.slow
def test_replicas_of_a_pipeline(tmp_path):
    for rank in results(tmp_path, "sharded", ranks=4):
        for errors in rank["sharded"].values():
            assert max(errors) < 1e-10
