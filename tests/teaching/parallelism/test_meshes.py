"""Meshes started from a notebook: what they measure is what formulas say, and nothing is left of one that fails."""

import os
import subprocess

import pytest

from pipelab.errors import ConfigurationError, PipelabError
from pipelab.teaching.parallelism.meshes import mesh_table, run_meshes

SMALL = {"layers": 4, "width": 16, "heads": 4, "tokens": 8, "batch": 10, "steps": 1, "progress": False}
ACTIVATION = 10 * 8 * 16 * 4  # of the whole batch, at four bytes a number


def running():
    """Processes of meshes that this process has started."""
    listed = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True, check=True).stdout
    own = [line for line in listed.splitlines() if line.split()[0] == str(os.getpid())]
    return [line for line in own if "parallelism.rank" in line]


@pytest.fixture(scope="module")
def found():
    shapes = [{"dp": 2, "pp": 2}, {"pp": 2, "tp": 2}, {"dp": 4, "shard": "keep"}]
    return run_meshes(shapes, microbatch=5, **SMALL)


def test_all_shapes_give_the_unsplit_models_gradients(found):
    assert max(run.error for run in found) < 1e-12
    assert [run.loss for run in found] == pytest.approx([found[0].loss] * 3, rel=1e-5)
    assert [run.microbatches for run in found] == [1, 2, 1]


def test_devices_hold_their_part_and_send_what_formulas_say(found):
    both, parts, sharded = found
    assert [device.place for device in both.devices] == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    assert both.sent["pp"] == ACTIVATION / 2, "each replica has half of the batch"
    assert parts.sent["pp"] == ACTIVATION
    assert parts.sent["tp"] == 4 * 2 * ACTIVATION, "four all-reduces a layer, of two layers"
    first = both.devices[0].held
    assert both.devices[0].sent["dp"] == pytest.approx(first["gradients"], rel=0.01), "2 (n - 1) / n is 1 for n = 2"
    assert both.sent["tp"] == parts.sent["dp"] == sharded.sent["pp"] == 0
    whole = sum(device.held["weights"] for device in both.devices[:2])
    assert sum(device.held["weights"] for device in sharded.devices) == pytest.approx(whole, rel=0.02)
    assert sharded.devices[0].held["optimizer"] < first["optimizer"]


def test_the_table_has_a_row_for_each(found):
    lines = mesh_table(found).splitlines()
    assert [line.split("  ")[0] for line in lines[2:]] == ["dp 2 x pp 2", "pp 2 x tp 2", "dp 4, shard keep"]


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([], "got none"),
        ([{"dp": 2}, {"dp": 2, "pp": 2}], "{'dp': 2} has 2, {'dp': 2, 'pp': 2} has 4"),
        ([{"ep": 2}], "'dp', 'pp' and 'tp'"),
        ([{"dp": 0}], "dp"),
        ([{"dp": 4, "batch": 3}], "dp = 4, and the batch has 3; take batch=4"),
        ([{"dp": 2, "layer": 4}], "fields of Setting"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(shapes, said):
    with pytest.raises(ConfigurationError) as error:
        run_meshes(shapes, **SMALL)
    assert said in str(error.value)


def test_an_error_of_a_process_is_a_sentence_and_all_are_ended():
    with pytest.raises(
        PipelabError, match=r"process \d of 3 failed: heads must be divisible by tp.*4 heads and tp = 3"
    ):
        run_meshes([{"tp": 3}], **SMALL)
    assert running() == []


def test_a_limit_ends_all():
    with pytest.raises(PipelabError, match=r"more than 0.2 s, after 0 of 1 shapes; give a longer limit="):
        run_meshes([{"dp": 2}], limit=0.2, **SMALL)
    assert running() == []
