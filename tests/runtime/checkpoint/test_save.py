"""Under torchrun each rank writes its own stages, and all of them have saved or none."""

import json
import pickle
from pathlib import Path

import pytest

from pipelab import Pipeline, build_schedule
from tests.runtime.processes.test_torchrun import agents
from tests.runtime.setup import test_ties as ties


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(folder, what each of two ranks has found)."""
    folder = tmp_path_factory.mktemp("two")
    ((code, _, err),) = agents([Path(__file__).with_name("ranks.py"), folder], ranks=2)
    assert code == 0, err[-3000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_it_goes_on_bit_for_bit(two):
    for told in two[1]:
        assert told["goes on"] == told["went on"]
        assert told["path"] == "step-00000002"
        assert told["data"][0] == "of rank 0"


def test_each_rank_writes_its_own_stages(two):
    folder, told = two
    index = pickle.loads((folder / "run" / "step-00000002" / ".metadata").read_bytes())
    for rank in range(2):
        here = {key.fqn for key, place in index.storage_data.items() if place.relative_path == f"__{rank}_0.distcp"}
        assert {name.removeprefix("model.") for name in here if name.startswith("model.")} == {*told[rank]["names"]}
        assert any(name.startswith("optimizer.state.") for name in here)


@pytest.mark.parametrize("launch", ["threads", "processes"])
def test_it_goes_on_elsewhere(launch, two):
    folder, told = two
    schedule = build_schedule("gpipe", 3, 5)
    with Pipeline(ties.LM(), schedule, loss=ties.loss, optimizer=ties.adam, launch=launch) as pipeline:
        assert pipeline.load(folder / "run" / "step-00000002").data == "of rank 0"
        losses = [pipeline.step(*ties.batch()).loss for _ in range(2)]
    assert losses == pytest.approx(told[0]["went on"], abs=1e-12)


def test_what_fails_on_one_rank_fails_on_all_and_leaves_nothing(two):
    assert two[1][0]["left"] == [".lock", "step-00000002"], "rank 0 has cleaned up before it says so"
    for rank, told in enumerate(two[1]):
        assert told["failed"].startswith("OSError") and "Input/output error" in told["failed"]
        assert "disagree about the number of the step: [4, 5]" in told["steps"]
        assert "data is a set, which a checkpoint does not hold" in told["data"][1]
        assert "elsewhere is not the same folder on all ranks" in told["unseen"]
        assert told["same"], rank
        assert told["again"] == "step-00000004"
        assert "there is no checkpoint in" in told["none"]
        assert told["muddle"] != "nothing was raised"


def test_another_schedule_goes_on_under_torchrun(two):
    """Other cuts, then both stages on both ranks, then two stages on each: all that moves is as it was trained."""
    true = [value for value, _ in ties.trained(ties.LM(), steps=5, clip=float("inf"))]
    for told in two[1]:
        assert told["rescheduled"] == pytest.approx(true, abs=1e-12)
        assert told["names of other cuts"] != told["names"]
        assert "the schedule has 3 devices, but 2 processes were started" in told["other size"]
        assert "cuts is (1,) on rank 0 and (2,) on rank 1" in told["other cuts"]
        assert "schedule must be a Schedule, got str" in told["not in all"]
        assert told["as it was"]
