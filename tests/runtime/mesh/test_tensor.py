"""Layers that several processes hold together, against the unsplit model: under torchrun."""

import json
from pathlib import Path

import pytest

from pipelab.runtime.mesh.traffic import tensor_traffic
from tests.runtime.processes.test_torchrun import agents

RANKS = Path(__file__).with_name("within_ranks.py")


def results(folder, *cases, ranks=2):
    """What each rank has found in each case."""
    done = agents([RANKS, folder, *cases], ranks=ranks)
    assert all(code == 0 for code, _, _ in done), done[0][2][-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    cases = ("tensor", "own_plan", "bytes_held", "traffic", "refused", "watched")
    return results(tmp_path_factory.mktemp("two"), *cases)


def test_gradients_losses_weights_and_evaluation_are_the_unsplit_models(two):
    """With dropout, clipping and AdamW; backwards whole and in halves; the sequence split or not."""
    for rank in two:
        assert len(rank["tensor"]) == 3
        for errors in rank["tensor"].values():
            assert max(errors) < 1e-10, rank["tensor"]


def test_a_model_of_ones_own_by_a_plan_of_names(two):
    for rank in two:
        assert rank["own_plan"]["verify"] < 1e-12
        assert rank["own_plan"]["plain"] < 1e-12
        assert 0.5 < rank["own_plan"]["share"] < 0.6  # biases after the rows are whole


def test_what_is_counted_is_what_is_here(two):
    for rank in two:
        for weights, gradients, optimizer, held, activations in rank["bytes_held"].values():
            assert weights == gradients == held
            assert 2 * held <= optimizer < 2 * held + 1000  # two moments, and a step number for each
            assert activations > 0
        whole, split = (rank["bytes_held"][name][3] for name in ("unsplit", "tp"))
        # Embedding, head, norms and biases after rows are whole; the matrices are halved.
        assert 0.5 < split / whole < 0.8
        assert rank["bytes_held"]["tp"][4] < rank["bytes_held"]["unsplit"][4]


def test_bytes_of_a_step_are_those_of_the_formula(two):
    size = 6 * 8 * 16 * 8  # sequences x tokens x width x bytes, of a micro-batch
    for rank in two:
        told = rank["traffic"]
        for name, formula in (
            ("tp", tensor_traffic(2, 2, size, 2)),
            ("sequence", tensor_traffic(2, 2, size, 2, sequence=True, ends=2, vector=16 * 8)),
        ):
            assert told[name].pop("weights")
            assert told[name] == {f"tp {kind}": [one.count, one.sent] for kind, one in formula.items()}, name


@pytest.mark.parametrize(
    ("number", "text"),
    list(
        enumerate(
            [
                "the mesh has tp = 1",
                "needs dp > 1",
                "shard must be one of 'keep', 'regather', got 'always'",
                "gathers weights for a backward in one piece; use '1f1b'",
                "the tensor plan splits nothing in a stage that has embed, embed.byte, layers.0",
                "the tensor plan splits nothing in a stage that has 0.0, 0.2, 1.0, 1.2",
                "got 1 heads and tp = 2; take tp = 1, or 2 heads",
                "give mesh=make_mesh",
                "not all held by the same processes (tp, shard); leave foreach out",
                "rescheduling is not possible where layers are split",
                "got sequences of 7; take 8, or tensor_parallel",
                "is tied to another parameter, and several processes hold a part of it",
                "would draw a mask of its own",
                "has parameters of float32 and float64; give each layer one dtype",
                "replicas have gradients of different parameters",
            ]
        )
    ),
)
def test_what_cannot_be_split_is_refused(two, number, text):
    for rank in two:
        assert "ConfigurationError" in rank["refused"][number] and text in rank["refused"][number]


@pytest.mark.parametrize(
    "case", ["fails_tp", *(pytest.param(one, marks=pytest.mark.slow) for one in ("fails_shard", "hangs"))]
)
def test_who_waits_within_a_layer_hears_of_what_has_failed_elsewhere_and_ends_in_peace(tmp_path, case):
    ((code, _, err),) = agents([RANKS, tmp_path, case], ranks=2)
    assert code == 0, err[-3000:]
    assert "terminate called" not in err
    for rank in range(2):
        told = json.loads((tmp_path / f"{rank}.json").read_text())[case]
        if case == "hangs":
            assert told.startswith("TimeLimitError")
            continue
        *alike, alone, took, after, same = told
        if alike:
            assert "ZeroDivisionError on device 0" in alike[0] and alike[1] < 1e-12
        assert alone.startswith("StageError: ZeroDivisionError on device 0, stage 0, action 0F0"), alone
        assert took < 20
        assert "make a new Pipeline" in after
        assert "left a process waiting in a group of this mesh; start the processes again" in same


def test_a_monitor_hears_of_a_step_once_and_split_layers_do_not_move(two):
    assert [rank["watched"]["heard"] for rank in two] == [[0], []]
    for rank in two:
        assert "ConfigurationError: layers that are split over processes (tp, shard) cannot" in rank["watched"]["moves"]


@pytest.mark.slow
def test_stages_of_a_pipeline_in_slices(tmp_path):
    for rank in results(tmp_path, "tensor", "both", "checkpoint", ranks=4):
        for errors in (*rank["tensor"].values(), *rank["both"].values(), rank["checkpoint"].values()):
            assert max(errors) < 1e-10, rank
