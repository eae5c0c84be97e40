"""Replicas of a pipeline against the unsplit model on the whole batch: under torchrun, shares of uneven sizes."""

import json
from pathlib import Path

import pytest

from tests.runtime.processes.test_torchrun import agents

RANKS = Path(__file__).with_name("ranks.py")


def results(folder, *cases, ranks=4):
    """What each rank has found in each case."""
    done = agents([RANKS, folder, *cases], ranks=ranks)
    assert all(code == 0 for code, _, _ in done), done[0][2][-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return results(tmp_path_factory.mktemp("four"), "parity", "weights", "terms", "buffers", "sparse")


@pytest.fixture(scope="module")
def same(tmp_path_factory):
    """Another start, because each has to come to its end on a busy machine."""
    return results(tmp_path_factory.mktemp("same"), "training", "checkpoint", "failing", "refused")


def of(ranks, case):
    return [rank[case] for rank in ranks]


def test_gradients_are_those_of_the_whole_batch(four):
    for found in of(four, "parity"):
        assert len(found) >= 6
        assert max(found.values()) < 1e-12, found


def test_steps_are_the_unsplit_models(same):
    for found in of(same, "training"):
        assert found["losses"] < 1e-10
        assert found["evaluated"] == pytest.approx(same[0]["training"]["evaluated"], abs=0)


def test_bytes_of_a_sum_are_those_of_the_gradients(same):
    for found in of(same, "training"):
        assert found["sent"] == found["size"]
        assert found["shown"] == [["sum of gradients", r, True] for r in (0, 1)]


def test_weights_after_steps_with_clipping_and_after_another_cut(four):
    for found in of(four, "weights"):
        assert max(found) < 1e-10


def test_saved_at_one_shape_and_gone_on_with_at_another(same):
    for found in of(same, "checkpoint"):
        assert found["saved"] == "step-00000001"
        assert max(found["apart"].values()) < 1e-10


def test_what_fails_in_one_replica_fails_in_all_and_the_next_step_is_right(same):
    for rank, (first, right, last, again, what, lengths, frozen, after) in enumerate(of(same, "failing")):
        assert first.startswith("StageError") and "this layer has had enough" in first and "stage 0" in first, rank
        assert last.startswith("StageError") and "stage 1" in last
        assert "the replicas of this pipeline disagree about what to run" in what
        assert "same length along the batch" in lengths
        assert "disagree about which parameters take a gradient: 4 of 4 in replica 0, 3 of 4 in replica 1" in frozen
        assert max(right, again, after) < 1e-12


def test_a_replica_without_a_loss_term_and_ties(four):
    for found in of(four, "terms"):
        ignored, none, after, tied = found
        assert max(ignored, after, tied) < 1e-12
        assert "no loss terms" in none


def test_buffers_are_the_first_replicas(four):
    found = of(four, "buffers")
    assert max(one["apart"] for one in found) < 1e-12
    for one, other in ((0, 2), (1, 3)):  # the same stage
        assert found[one]["told"] == found[other]["told"]
    assert len({one["loss"] for one in found}) == 1
    assert found[2]["told"]["1.seven"] == [0, 0]
    assert found[3]["told"]["4.num_batches_tracked"] == 2


def test_rows_that_have_a_gradient_stay_rows(four):
    for rank, found in enumerate(of(four, "sparse")):
        assert found["apart"] < 1e-12
        assert found["rows"] == ([] if rank % 2 else [list(range(8))])


def test_what_cannot_be_replicated_is_refused(same):
    said = ("mesh of 6 processes", "pp=4, or a schedule for 2", "'dp' axis alone", "flushes", "post_validation")
    differs = ("clip_norm is 0.1 on rank 0", "optimizer is True on rank 0")
    for found in of(same, "refused"):
        for text, one in zip((*said, *differs, "make_mesh"), found, strict=True):
            assert one.startswith("ConfigurationError") and text in one, one


def test_each_process_a_replica_of_threads(tmp_path):
    for found in of(results(tmp_path, "threads", ranks=2), "threads"):
        assert found.pop("stages") == [0, 1]
        size, sent = found.pop("sums")  # what is counted in all threads
        assert size == sent > 0
        assert found.pop("left open") < 20  # of two pipelines at once, and not for each that there has been
        assert max(found.values()) < 1e-10


@pytest.mark.slow
def test_eight_processes(tmp_path):
    for found in results(tmp_path, "parity", "training", ranks=8):
        assert max(found["parity"].values()) < 1e-12
        assert found["training"]["losses"] < 1e-10
