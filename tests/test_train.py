"""The training script: killed at any moment, it goes on with the same losses, with torchrun and without."""

import argparse
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from pipelab import newest_checkpoint
from pipelab.runtime.checkpoint import export_safetensors
from tests.runtime.processes.test_torchrun import agents, environment

SCRIPT = Path(__file__).parents[1] / "examples" / "train.py"
SMALL = "--layers 2 --width 16 --heads 2 --tokens 8 --batch 20 --microbatches 4 --devices 2 --steps 60"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text"
    path.write_bytes((SCRIPT.parents[1] / "README.md").read_bytes()[:4000])
    return path


def command(folder, text, *more):
    return [SCRIPT, *SMALL.split(), "--folder", folder, "--text", text, *more]


def started(folder, text, *more):
    told = [sys.executable, *map(str, command(folder, text, *more))]
    return subprocess.Popen(told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def finished(folder, text, *more):
    process = started(folder, text, *more)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    return out


def losses(folder):
    """(step, loss) of each line; one that a kill has cut off does not count."""
    file = folder / "losses.csv"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [(int(step), loss) for step, loss in (line.split(",") for line in lines if line.endswith("\n"))]


@pytest.fixture(scope="module")
def true(text, tmp_path_factory):
    """What gives (losses, weights) of a run that no one has disturbed, by launch."""

    @cache
    def ran(launch):
        folder = tmp_path_factory.mktemp(launch)
        finished(folder, text, "--launch", launch)
        weights = export_safetensors(folder, folder / "weights").read_bytes()
        found = dict(losses(folder))
        assert [*found] == [*range(1, 61)]
        return found, weights

    return ran


def ended(process, chance, folder):
    """Kill it while it starts, trains or (half of the time) saves. Returns (what it said, whether it was saving)."""
    moment = chance.choice(["start", "training", "saving", "saving"])
    lines, left, until = len(losses(folder)), {*folder.glob(".step-*")}, time.monotonic() + 100
    reached = {
        "start": lambda: True,
        "training": lambda: len(losses(folder)) > lines,
        "saving": lambda: {*folder.glob(".step-*")} - left,
    }[moment]
    while process.poll() is None and not reached():
        time.sleep(0.001)
        assert time.monotonic() < until
    time.sleep(chance.uniform(0, {"start": 3, "training": 1, "saving": 0.03}[moment]))
    process.kill()
    _, err = process.communicate(timeout=100)
    return err, bool({*folder.glob(".step-*")} - left)


@pytest.mark.slow  # in make test: tests/runtime/checkpoint/test_folder.py, and Ctrl-C below
@pytest.mark.parametrize(
    ("launch", "kills", "seed"),
    [("threads", 3, seed) for seed in range(14)] + [("processes", 2, seed) for seed in range(4)],
)
def test_killed_at_any_moment_it_goes_on_with_the_same_losses(launch, kills, seed, text, true, tmp_path):
    """Every step is saved."""
    chance = random.Random(seed)
    told, weights = true(launch)
    folder, seen, half = tmp_path / "run0", 0, 0
    while seen < kills:
        process = started(folder, text, "--launch", launch, "--every", "1", "--resume")
        err, in_save = ended(process, chance, folder)
        assert process.returncode in (0, -signal.SIGKILL), err
        assert all(told[step] == loss for step, loss in losses(folder)), "the same to the last bit"
        half += in_save
        seen += process.returncode != 0
        if process.returncode == 0:
            assert export_safetensors(folder, folder / "weights").read_bytes() == weights
            folder = tmp_path / f"run{seen}"
    finished(folder, text, "--launch", launch, "--every", "20", "--resume")
    assert {*losses(folder)} == {*told.items()}, "no step is missing, none has another loss"
    assert export_safetensors(folder, folder / "weights").read_bytes() == weights
    assert list(folder.glob(".step-*")) == []
    print(f"{kills} kills, {half} of them in the middle of a save")


def test_ctrl_c_is_a_sentence_and_without_resume_nothing_is_overwritten(text, tmp_path):
    process = started(tmp_path, text, "--launch", "threads", "--every", "1")
    while newest_checkpoint(tmp_path) is None:
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert err.splitlines()[-1].endswith("stopped; --resume goes on from the last checkpoint")
    assert list(tmp_path.glob(".step-*")) == []
    again = started(tmp_path, text, "--launch", "threads")
    assert "go on with --resume, or choose another --folder" in again.communicate(timeout=100)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("torchrun", "alone"), ("alone", "torchrun")])
def test_it_runs_with_torchrun_and_without_and_goes_on_in_either(first, second, text, true, tmp_path):
    """The same to the last bit whoever ran the first part: the processes are as many."""
    for way, more in ((first, ()), (second, ("--resume",))):
        if way == "torchrun":
            ((code, out, err),) = agents(command(tmp_path, text, "--every", "25", *more), ranks=2)
            assert code == 0, err
        else:
            out = finished(tmp_path, text, "--every", "25", *more)
        assert out.splitlines()[-1].startswith(f"step 60: loss {float(true('processes')[0][60]):.4f}, held out ")
        assert export_safetensors(tmp_path, tmp_path / "weights").read_bytes() == true("processes")[1]
        if way == first:
            os.rename(tmp_path / "step-00000060", tmp_path / "away")
            assert newest_checkpoint(tmp_path).name == "step-00000050", "in the middle of an epoch"
    assert dict(losses(tmp_path)) == true("processes")[0]


MESHES = {
    2: ("--dp 2", "--pp 2"),
    4: ("--dp 2 --pp 2", "--pp 2 --tp 2"),
    8: ("--dp 2 --pp 2 --tp 2", "--dp 4 --tp 2"),
}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_it_runs_on_a_mesh_and_goes_on_at_another_shape(ranks, text, tmp_path):
    """Losses are those of one pipeline of threads; the batch of step 11 is odd, and the first process alone speaks."""
    few, short = SMALL.replace("4 --devices 2 --steps 60", "2 --steps 13"), tmp_path / "text"
    short.write_bytes(text.read_bytes()[:1800])
    told = [*few.split(), "--text", short, "--every", "9"]
    finished(tmp_path / "alone", short, *told, "--launch", "threads")
    found = [losses(tmp_path / "alone")]
    for shape in MESHES[ranks]:
        ((code, out, err),) = agents([SCRIPT, *told, *shape.split(), "--folder", tmp_path, "--resume"], ranks=ranks)
        assert code == 0, err
        assert out.count("held out") == (1 if found[1:] else 2)
        found.append(losses(tmp_path))
        shutil.rmtree(tmp_path / "step-00000013")
    found = [[float(loss) for _, loss in run] for run in found]
    alone, first, resumed = found
    assert first == pytest.approx(alone, rel=1e-4)
    assert resumed == pytest.approx(alone + alone[9:], rel=1e-4)


def test_the_last_batch_of_an_epoch_is_odd_and_the_rate_rises_and_falls(text):
    parts = runpy.run_path(str(SCRIPT))
    data = parts["Windows"](text.read_bytes()[:3800], 8)

    def sizes(microbatches, dp=1, replica=0):
        told = argparse.Namespace(batch=20, microbatches=microbatches, dp=dp)
        whole = parts["batches"](data, told)
        return [len(inputs) for inputs, _ in parts["shares"](data, told, replica, whole)]

    assert sizes(4) == sizes(14) == [20] * 23 + [14]
    assert sizes(15) == [20] * 23
    assert [sizes(4, 3, replica)[-2:] for replica in range(3)] == [[7, 5], [7, 5], [6, 4]]
    assert sizes(5, 3) == [7] * 23
    following = parts["endless"](data, argparse.Namespace(batch=20, microbatches=4, dp=1), 0, 0, 22)
    places = [next(following)[0] for _ in range(3)]
    assert places == [{"epoch": 0, "first": 23}, {"epoch": 0, "first": 24}, {"epoch": 1, "first": 1}]
    rates = [parts["rate"](step, 60) for step in range(61)]
    assert rates[0] == 1 / 20 and rates[-1] == pytest.approx(0)
    top = rates.index(max(rates))
    assert rates == sorted(rates[:top]) + sorted(rates[top:], reverse=True)


def test_readme_and_docs_name_options_that_there_are():
    root = SCRIPT.parents[1]
    said = (root / "README.md").read_text() + (root / "docs" / "eight-gpus.md").read_text()
    text = SCRIPT.read_text()
    lines = re.findall(r"examples/train\.py([^\n`]*)", said)
    options = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    assert options <= {f"--{name}" for name in re.findall(r'"-?-?([a-z]+)"', text)}
